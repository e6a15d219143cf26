"""A layer's passes by their address: the arrays are made again from `slots`.

Each takes a null pointer of the dtype and then words: the addresses of a lane's and of a layer's
slots, those of what differs from span to span, and the span.
"""

from functools import cache

import numba
from numba import types

from ..cells.registry import CELLS, title
from ..flat import get, put
from ..jit import callback, inner
from . import dropout, forward_pass, reverse_flow, reverse_pass
from .addresses import as_double, as_unsigned, doubles, place, view, words
from .shared import ready
from .slots import HEAD, LANE, LAYER, LEFT
from .workers import finish

_SMALL = 600_000  # multiply-adds of a span that one thread does alone


@inner
def _mailbox(lane):
    at = get(lane, LANE.mailbox_at)
    return view(words(at), at, (get(lane, LANE.mailbox_size),))


@inner
def _marks(lane):
    """The lengths and, after them, the resets: see `resets`."""
    return view(lane, get(lane, LANE.marks_at), (get(lane, LANE.batch) + get(lane, LANE.resets),))


@inner
def _threads_of(lane, work):
    """Threads for a span of so many multiply-adds: a short one is done before another joins."""
    return get(lane, LANE.threads) if work > _SMALL else 1


@inner
def _chunk_of(lane, layer, steps, recurrent):
    """Steps of a chunk: short ones in a short span, for less waiting at both of its ends."""
    chunk, batch = get(lane, LANE.chunk), get(lane, LANE.batch)
    if get(lane, LANE.parts) < get(lane, LANE.threads) and get(layer, LAYER.members) == 1:
        cost = batch * (recurrent + 2000)
        while chunk * 8 > steps and chunk * batch > 64 and chunk * cost > 1_000_000:
            if chunk % 2 and get(lane, LANE.room):
                break  # a chunk is a window: half of it would begin where flushes are due
            chunk //= 2
    return chunk


def _build_forward(CELL):
    cell = CELLS[CELL]
    GATES, STATES, RESIDUALS, BLOCKS, DELTAS, SECOND = (
        cell.gates, cell.states, cell.residuals, cell.blocks, cell.delta_blocks, int(cell.second)
    )  # fmt: skip
    run = forward_pass.build_forward(CELL)

    def forward(like, lane_at, layer_at, x_at, h_at, start, stop, first, cached):
        lane, layer = words(lane_at), words(layer_at)
        n, B, H = stop - start, get(lane, LANE.batch), get(layer, LAYER.hidden)
        I, tokens = get(layer, LAYER.inputs), get(layer, LAYER.tokens)
        dense = 1 - tokens
        if cached:
            rows = get(layer, LAYER.rows)
            states = view(like, get(layer, LAYER.states_at), (STATES, rows, B, H))
            residuals = view(like, get(layer, LAYER.residuals_at), (rows - 1, B, RESIDUALS * H))
        else:
            states = view(like, get(layer, LAYER.live_at), (STATES, 2, B, H))
            residuals = view(like, get(layer, LAYER.spare_at), (1, B, RESIDUALS * H))
        chunk = get(lane, LANE.chunk)
        threads = _threads_of(lane, n * B * GATES * H * (H + I))
        given = n if h_at else 0
        mailbox, own = _mailbox(lane), words(get(lane, LANE.left_at))
        half = -1
        if get(own, LEFT.open):  # its deltas are in a half of the scratch
            if n > 2 * chunk:
                finish(mailbox, own)
            else:
                half = 1 - get(own, LEFT.half)
        source = (
            view(like, x_at, (n * dense, B, I * dense)),
            view(lane, x_at, (n * tokens, B)),
            view(like, get(layer, LAYER.u_at), (1,)),
            view(like, get(layer, LAYER.bias_at), (BLOCKS * H,)),
        )
        run(
            (mailbox, threads, min(threads, get(lane, LANE.parts)),
             min(threads, get(layer, LAYER.members))),
            _chunk_of(lane, layer, n, GATES * H * H), half, (start, stop, first, cached != 0),
            (states, residuals, _marks(lane)),
            view(like, h_at, (given, B, H)),
            view(like, get(layer, LAYER.z_at), (chunk, B, 2 * DELTAS * H)),
            source,
            _recurrent(like, layer, get(layer, LAYER.w_at), get(layer, LAYER.w_chains),
                       get(layer, LAYER.second_at), source[0], (GATES - SECOND) * H, STATES, H, B),
        )  # fmt: skip

    return forward


@inner
def _recurrent(like, layer, w_at, chains, second_at, x, width, states, H, B):
    sums_at = get(layer, LAYER.restart_sums_at)
    return (
        view(like, w_at, (1,)),
        chains,
        view(like, second_at, (1,)),
        get(layer, LAYER.second_chains),
        view(like, get(layer, LAYER.params_at), (1,)),
        view(like, get(layer, LAYER.v_at), (get(layer, LAYER.v_rows), B, H)),
        view(like, get(layer, LAYER.restart_at), (1,)),
        view(doubles(0), sums_at, (states * B * H + width if sums_at else 0,)),
        x,
    )


@inner
def _head(like, lane, head, counts, n, B, H, start):
    """The head of `reverse_pass.build_reverse` from `start` on; an empty one if none `counts`."""
    O, span, begin = get(head, HEAD.outputs) * counts, get(lane, LANE.chunk), get(lane, LANE.start)
    y_at = place(
        get(head, HEAD.y_at), get(head, HEAD.y_step), B * O * get(lane, LANE.item), start, begin
    )
    targets_at = place(
        get(head, HEAD.targets_at), get(head, HEAD.targets_step), B * 8, start, begin
    )
    each = get(head, HEAD.weights_each)
    weights_at = place(
        get(head, HEAD.weights_at), get(head, HEAD.weights_step), B * each * 8, start, begin
    )
    total_at = get(head, HEAD.dv_total_at)
    weighted = n if get(head, HEAD.weights_at) else 0
    summed = O if total_at else 0
    number = doubles(weights_at)
    return (
        get(head, HEAD.readout), get(head, HEAD.loss), as_double(get(head, HEAD.factor)),
        view(like, get(head, HEAD.v_at), (1,)), view(like, get(head, HEAD.v_back_at), (1,)),
        view(like, get(head, HEAD.c_at), (O,)),
        view(like, get(head, HEAD.o_at), (2 * span, B, O)),
        view(like, y_at, (n if get(head, HEAD.y_at) else 0, B, O)),
        view(head, targets_at, (n if get(head, HEAD.targets_at) else 0, B)),
        view(number, weights_at, (weighted, B, each)),
        view(number, get(head, HEAD.values_at), (2 * span * B,)),
        view(number, get(head, HEAD.total_at), (2,)),
        view(like, get(head, HEAD.dv_at), (O, H)),
        view(number, total_at, (summed, H)),
        view(number, get(head, HEAD.dc_at), (O,)),
    )  # fmt: skip


@inner
def _source(like, layer, x_at, dx_at, n, B, width, deltas, drives):
    """The source of `reverse_pass.build_reverse`."""
    number = doubles(0)
    I, tokens, total_at = (
        get(layer, LAYER.inputs), get(layer, LAYER.tokens), get(layer, LAYER.du_total_at)
    )  # fmt: skip
    dense = 1 - tokens
    outputs = width if total_at else 0
    return (
        view(like, x_at, (n * dense, B, I * dense)),
        view(layer, x_at, (n * tokens, B)),
        view(like, get(layer, LAYER.u_back_at), (1,)),
        view(like, dx_at, (n if dx_at else 0, B, I)),
        view(like, get(layer, LAYER.du_at), (width * dense, I - drives)),
        view(number, total_at, (I if tokens else outputs, width if tokens else I - drives)),
        view(number, get(layer, LAYER.dsum_at), (deltas,)),
    )


@inner
def _gradients(like, layer, width, H):
    total_at = get(layer, LAYER.dw_total_at)
    return (
        view(like, get(layer, LAYER.dw_at), (width, H)),
        view(doubles(0), total_at, (width if total_at else 0, H)),
    )


@inner
def _indices(lane, rows):
    more = 1 if get(lane, LANE.resets) else 0
    return (
        view(lane, get(lane, LANE.rows_at), (rows,)),
        view(lane, get(lane, LANE.p_rows_at), (rows * (1 + more),)),
        view(lane, get(lane, LANE.counts_at), (4 + 2 * more,)),
    )


def _build_left(CELL):
    """The gradients that a chunk has left: see `reverse_flow.build_left`."""
    cell = CELLS[CELL]
    GATES, STATES, DELTAS, SECOND, DRIVES = (
        cell.gates, cell.states, cell.delta_blocks, int(cell.second), cell.drives
    )  # fmt: skip

    @inner
    def arrays(like, lane, layer, own, n):
        B, H = get(lane, LANE.batch), get(layer, LAYER.hidden)
        chunk, head = get(lane, LANE.chunk), words(get(own, LEFT.head_at))
        source = _source(
            like, layer, get(own, LEFT.x_at), get(own, LEFT.dx_at), n, B, GATES * H, DELTAS * H,
            DRIVES,
        )  # fmt: skip
        recurrent = _recurrent(
            like, layer, get(layer, LAYER.w_back_at), 1, 0, source[0], (GATES - SECOND) * H, STATES,
            H, B,
        )  # fmt: skip
        return (
            source,
            _gradients(like, layer, GATES * H, H),
            _head(like, lane, head, get(own, LEFT.counts), n, B, H, get(own, LEFT.start)),
            _indices(lane, 2 * chunk * B),
            recurrent,
        )

    return reverse_flow.build_left(CELL, arrays)


def _build_reverse(CELL):
    cell = CELLS[CELL]
    GATES, STATES, RESIDUALS, DELTAS, SECOND, DRIVES = (
        cell.gates, cell.states, cell.residuals, cell.delta_blocks, int(cell.second), cell.drives
    )  # fmt: skip
    run, flow = reverse_pass.build_reverse(CELL), reverse_flow.build_flow(CELL)

    def reverse(
        like, lane_at, layer_at, head_at, x_at, dx_at, dh_at, dh_steps, counts, start, stop, first
    ):  # fmt: skip
        lane, layer, head = words(lane_at), words(layer_at), words(head_at)
        own = words(get(lane, LANE.left_at))
        n, B, H = stop - start, get(lane, LANE.batch), get(layer, LAYER.hidden)
        rows, chunk, wide = get(layer, LAYER.rows), get(lane, LANE.chunk), GATES * H
        threads = _threads_of(lane, 3 * n * B * wide * (H + get(layer, LAYER.inputs)))
        parts = min(threads, get(lane, LANE.parts))
        members = min(threads, get(layer, LAYER.members))
        mailbox = _mailbox(lane)
        source = _source(like, layer, x_at, dx_at, n, B, wide, DELTAS * H, DRIVES)
        # Scratch for two chunks, or an array of the span.
        whole, delta_at = get(lane, LANE.whole), get(layer, LAYER.z_at)
        if whole:
            row = B * DELTAS * H * get(lane, LANE.item)
            begin = get(lane, LANE.start)
            delta_at = place(
                get(layer, LAYER.delta_at), get(layer, LAYER.delta_step), row, start, begin
            )
        delta = view(like, delta_at, (n if whole else 2 * chunk, B, DELTAS * H))
        cached = (
            view(like, get(layer, LAYER.states_at), (STATES, rows, B, H)),
            view(like, get(layer, LAYER.residuals_at), (rows - 1, B, RESIDUALS * H)),
            _marks(lane),
        )
        back = (
            view(like, get(layer, LAYER.carry_at), (STATES, 2, B, H)),
            view(like, dh_at, (dh_steps, B, H)),
            delta,
        )
        recurrent = _recurrent(
            like, layer, get(layer, LAYER.w_back_at), get(layer, LAYER.w_back_chains),
            get(layer, LAYER.second_back_at), source[0], (GATES - SECOND) * H, STATES, H, B,
        )  # fmt: skip
        lossy = _head(like, lane, head, counts, n, B, H, start)
        indices = _indices(lane, 2 * chunk * B)
        size = _chunk_of(lane, layer, n, wide * H)
        current = get(lane, LANE.current) ^ ((get(lane, LANE.stop) - stop) & 1)
        # A large readout is shared among threads, so is a sweep of several runs of sequences.
        flows = parts == 1 and threads > 1 and members == 1 and 4 * lossy[6].shape[2] <= wide
        if flows or get(lane, LANE.wave):
            put(own, LEFT.lane_at, lane_at)
            put(own, LEFT.next_layer_at, layer_at)
            put(own, LEFT.next_head_at, head_at)
            put(own, LEFT.next_counts, counts)
            inline = layer_at != get(lane, LANE.layers_at)
            flow(
                (mailbox, threads), (own, lane, layer), size,
                (start, stop, first, current, whole != 0),
                (x_at, dx_at, delta_at), inline, cached, back, source, recurrent, lossy, indices,
            )  # fmt: skip
            return
        finish(mailbox, own)
        run(
            (mailbox, threads, parts, members), size, get(lane, LANE.flush_steps),
            (start, stop, first, current, whole != 0), cached, back, source,
            recurrent, _gradients(like, layer, wide, H), lossy, indices,
        )  # fmt: skip

    return reverse


def _build_drop():
    def drop(like, lane_at, layer_at, out_at, values_at, start, n):
        lane, layer = words(lane_at), words(layer_at)
        B, H = get(lane, LANE.batch), get(layer, LAYER.hidden)
        dropout.drop(
            _mailbox(lane), get(lane, LANE.threads), view(like, out_at, (n, B, H)),
            view(like, values_at, (n, B, H)), as_unsigned(get(layer, LAYER.mask_key)),
            as_unsigned(get(layer, LAYER.mask_threshold)),
            as_double(get(layer, LAYER.mask_scale)), get(layer, LAYER.mask_start) + start,
            get(layer, LAYER.mask_first),
        )  # fmt: skip

    return drop


def _compiled(build, dtype, arguments, what="kernels of all cells"):
    kinds = types.CPointer(numba.from_dtype(dtype)), *(types.intp,) * arguments
    return callback(build, types.void(*kinds), what)


@cache
def passes(cell, dtype):
    """The compiled functions (forward, reverse, left) of a layer of that cell."""
    ready(dtype)
    what = f"the {title(cell)} kernels"
    return (
        _compiled(_build_forward(cell), dtype, 8, what),
        _compiled(_build_reverse(cell), dtype, 11, what),
        _compiled(_build_left(cell), dtype, 2, what),
    )


@cache
def drop(dtype):
    """The compiled function of a layer's dropout."""
    return _compiled(_build_drop(), dtype, 6)
