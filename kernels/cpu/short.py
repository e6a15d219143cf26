"""What a short call does besides its walk: few compiled calls in place of many steps of Python.

Its slots were laid out for an earlier call of the same shape (`fastbptt.engine.prepared`). Slots
that are addresses are numbers of bytes from something that each call has anew: see the marks.
Weights are packed in the order that `layer.LayerWeights` and `weights` give them.
"""

from functools import cache

from ..flat import data, get, itemsize, put
from ..jit import entry, inner
from ..maths import cast_like
from .addresses import address, copy_bytes, doubles, view, zero_bytes
from .packing import pack_panels
from .products import PANEL_BYTES
from .slots import HEAD, HEAD_AT, LANE, LAYER

# What a slot's number is relative to: nothing, the call's memory, that of the way forward before
# it, the slots themselves; or it is the address of the first, second or third array of the call.
FIXED, MEMORY, TAPE, SLOTS, FIRST, SECOND, THIRD = range(7)
LINE = 64  # bytes that memory is aligned to


@inner
def _aligned(memory):
    return (address(memory) + LINE - 1) // LINE * LINE


@inner
def _pack(like, at, weight, row_step, column_step, inner_size, columns):
    panels = -(-columns // (PANEL_BYTES // itemsize(weight)))
    packed = view(like, at, (1,))
    pack_panels(packed, weight, row_step, column_step, inner_size, columns, 0, panels)


@inner
def _pack_both(like, forth_at, back_at, weight, rows, columns):
    """Pack a matrix (rows, columns) for `x @ weight.T` and for `d @ weight`, where asked for."""
    if forth_at:
        _pack(like, forth_at, weight, 1, columns, columns, rows)
    if back_at:
        _pack(like, back_at, weight, columns, 1, rows, columns)


@inner
def _copy(target, start, source, first, count):
    for j in range(count):
        put(target, start + j, get(source, first + j))


@cache
def build_short():
    """Kernels (begin, put_state, put_layer, put_back, take_back, put_head, take_head)."""

    @entry
    def begin(slots, template, marks, memory, tape, zeros, first, second, third):
        """Write the slots, and set the first `zeros` bytes of the memory to zero."""
        base, taped, own = _aligned(memory), _aligned(tape), address(slots)
        for i in range(slots.size):
            mark, value = marks[i], template[i]
            if mark == MEMORY:
                value += base
            elif mark == TAPE:
                value += taped
            elif mark == SLOTS:
                value += own
            elif mark == FIRST:
                value = address(first)
            elif mark == SECOND:
                value = address(second)
            elif mark == THIRD:
                value = address(third)
            slots[i] = value
        zero_bytes(base, zeros)

    @entry
    def put_state(slots, slot, number, state):
        """Copy one of a layer's states (B, H) to where the address in `slot` says."""
        size = state.size * itemsize(state)
        copy_bytes(slots[slot] + number * size, address(state), size)

    @entry
    def put_layer(slots, at, split, U, W, b, params, final):
        """Pack a layer's weights; its slots begin at `at`."""
        row, like = slots[at:], data(U)
        (rows, H), I = W.shape, U.shape[1]
        bias, own = view(like, row[LAYER.bias_at], (1,)), view(like, row[LAYER.params_at], (1,))
        _copy(bias, H * split, b, 0, rows - H * split)
        _copy(own, 0, params, 0, params.size)
        u = U.reshape(U.size)
        if split:  # the last gate comes first, and its recurrent part without a bias last
            _copy(bias, 0, b, rows - H, H)
            for j in range(H):
                put(bias, rows + j, cast_like(0, get(b, 0)))
            ordered = view(like, row[LAYER.ordered_at], (U.size,))
            _copy(ordered, 0, u, (rows - H) * I, H * I)
            _copy(ordered, H * I, u, 0, (rows - H) * I)
            u = ordered
        _pack_both(like, row[LAYER.u_at], row[LAYER.u_back_at], u, rows, I)
        w = W.reshape(W.size)
        first = rows - H if row[LAYER.v_rows] else rows
        _pack_both(like, row[LAYER.w_at], row[LAYER.w_back_at], w[: first * H], first, H)
        if first < rows:
            forth, back = row[LAYER.second_at], row[LAYER.second_back_at]
            _pack_both(like, forth, back, w[first * H :], H, H)
        row[LAYER.final_at] = address(final)

    @entry
    def put_back(slots, at, dU, dW):
        """Have a layer's gradients add up in arrays of zeros."""
        slots[at + LAYER.du_at], slots[at + LAYER.dw_at] = address(dU), address(dW)

    @entry
    def take_back(slots, at, order, sums, db, dparams, dstate):
        """The gradients by a layer's bias, params and initial state (states, B, H).

        order, sums : for each gate and each param, the block of deltas whose sum is its gradient
        """
        H, current = slots[at + LAYER.hidden], slots[LANE.current]
        total = doubles(slots[at + LAYER.dsum_at])
        for gate in range(order.size):
            for j in range(H):
                db[gate * H + j] = get(total, order[gate] * H + j)
        for number in range(sums.size):
            for j in range(H):
                dparams[number * H + j] = get(total, sums[number] * H + j)
        states, size = dstate.shape[0], dstate.size // dstate.shape[0] * itemsize(dstate)
        for k in range(states):
            source = slots[at + LAYER.carry_at] + (2 * k + current) * size
            copy_bytes(address(dstate) + k * size, source, size)

    @entry
    def put_head(slots, V, c, dV):
        """Pack the readout's weights."""
        head, like = slots[HEAD_AT:], data(V)
        v, (O, H) = V.reshape(V.size), V.shape
        _pack_both(like, head[HEAD.v_at], head[HEAD.v_back_at], v, O, H)
        _copy(view(like, head[HEAD.c_at], (1,)), 0, c, 0, O)
        head[HEAD.dv_at] = address(dV)

    @entry
    def take_head(slots, dc):
        """The gradient by the readout's bias; returns the loss's sum and its rounding error."""
        head = slots[HEAD_AT:]
        total, sums = doubles(head[HEAD.total_at]), doubles(head[HEAD.dc_at])
        for j in range(dc.size):
            dc[j] = get(sums, j)
        return get(total, 0), get(total, 1)

    return begin, put_state, put_layer, put_back, take_back, put_head, take_head
