"""The walk of a lane along time: a schedule's rows, carried out by compiled code.

It knows neither cells nor dtypes: layers are addresses (see `slots`), states are bytes. A block of
rows goes in. The walk returns, in `status`, when

    DONE        the rows are done
    TIME        so many steps are done that Python should look for Ctrl-C and tell the progress
    READ        Python is to fill the buffer of what the lane reads at steps start..stop
    WRITE       outputs of start..stop lie in a buffer, for Python to take
    READ_BACK   the same on the way back: inputs, and what the loss reads or is
    WRITE_BACK  gradients by the inputs, or deltas, of start..stop lie in buffers
    ADD_STATE   a window has reached step 0: the carry is part of the gradient of the initial state
    FLUSH       weight gradients are to be carried into float64, between two windows

and goes on where it stood when it is called again. It fills and empties most buffers itself, see
`copies`, and does not return for them. Time is cut at absolute multiples of `call_steps`, so
nothing depends on where it has returned.
"""

from functools import cache

from ..jit import inner
from .addresses import address, call, words, zero_bytes
from .copies import copied
from .slots import (
    ADD_STATE,
    ADVANCE,
    CACHE,
    DISCARD,
    DONE,
    FLUSH,
    HEAD_AT,
    KEEP,
    LANE,
    LAYER,
    LAYER_SIZE,
    LAYERS_AT,
    READ,
    READ_BACK,
    RESTORE,
    REVERSE,
    STORE,
    TIME,
    WINDOW,
    WRITE,
    WRITE_BACK,
)
from .split import next_cut, previous_cut
from .walk_states import (
    between,
    checkpoint,
    forget_before,
    note_final,
    open_cache,
    set_initial,
    state_bytes,
)
from .workers import finish, program

_BEGIN, _NEXT, _READY, _WRITTEN, _ENDED = range(5)  # phases of a row


@inner
def _drop(lane, layers, index, out, values, start, n):
    """Dropout of the outputs of layer `index`, from `values` to `out`; returns where they are."""
    if layers[index, LAYER.drop] == 0:
        return values
    own = address(layers) + index * layers.shape[1] * 8
    call(layers[index, LAYER.drop], (0, address(lane), own, out, values, start, n))
    return out


@inner
def _run_layers(lane, layers, start, stop, cached):
    """Run all layers over a span, from the live state or the end of the step cache."""
    n, last = stop - start, lane[LANE.layers] - 1
    first = start - lane[LANE.cache_start] if cached else lane[LANE.live]
    x = lane[LANE.x_at] + start * lane[LANE.x_step]
    for index in range(last + 1):
        out = lane[LANE.h_at] + start * lane[LANE.h_step] if index == last else 0
        if index < last and not cached:
            out = layers[index, LAYER.outputs_at]
        own = address(layers) + index * layers.shape[1] * 8
        call(layers[index, LAYER.forward],
             (0, address(lane), own, x, out, start, stop, first, cached))  # fmt: skip
        if index < last:
            if cached:
                size = state_bytes(lane, layers, index)
                out = layers[index, LAYER.states_at] + (first + 1) * size
            x = _drop(lane, layers, index, layers[index, LAYER.outputs_at], out, start, n)
    if cached:
        lane[LANE.cache_stop] = stop
    else:
        lane[LANE.live] ^= n & 1


@inner
def _back_layers(lane, layers, head, start, stop, counts):
    """Go back through all layers over a span of the step cache."""
    n, first, last = stop - start, start - lane[LANE.cache_start], lane[LANE.layers] - 1
    if counts:
        dh = lane[LANE.dh_at] + start * lane[LANE.dh_step]
        dh_steps = lane[LANE.dh_steps] if lane[LANE.has_loss] else n
        counts = lane[LANE.has_loss]
    else:
        dh, dh_steps = lane[LANE.zeros_at], lane[LANE.chunk]
    for index in range(last, -1, -1):
        if index == 0:
            x = lane[LANE.x_at] + start * lane[LANE.x_step]
            below = lane[LANE.dx_at] + start * lane[LANE.dx_step]
        else:
            size = state_bytes(lane, layers, index - 1)
            x = layers[index - 1, LAYER.states_at] + (first + 1) * size
            outputs = layers[index - 1, LAYER.outputs_at]
            x = _drop(lane, layers, index - 1, outputs, x, start, n)
            below = layers[index - 1, LAYER.below_at]
        delta, whole = layers[index, LAYER.delta_at], lane[LANE.whole]
        delta = delta + start * layers[index, LAYER.delta_step] if whole else delta
        if whole == 0:
            delta = layers[index, LAYER.z_at]
        own = address(layers) + index * layers.shape[1] * 8
        call(layers[index, LAYER.reverse],
             (0, address(lane), own, address(head), x, below, dh, dh_steps, counts, start, stop,
              first, delta, whole))  # fmt: skip
        if index > 0:
            _drop(lane, layers, index - 1, below, below, start, n)
        dh, dh_steps, counts = below, n, 0
    lane[LANE.current] ^= n & 1
    lane[LANE.since_flush] += n


@inner
def _returns(lane, status):
    lane[LANE.status] = status
    return False


@inner
def _over(lane, steps):
    """Whether so many steps more are too many for now."""
    return lane[LANE.used] > 0 and lane[LANE.used] + steps > lane[LANE.budget]


@inner
def _forward_row(lane, layers, start, stop, cached):
    """A row that runs steps start..stop; returns whether it is done."""
    if lane[LANE.phase] == _BEGIN:
        if cached:
            open_cache(lane, layers, start, stop)
        lane[LANE.at], lane[LANE.phase] = start, _NEXT
    while True:
        if lane[LANE.phase] == _NEXT:
            if lane[LANE.at] >= stop:
                break
            end = next_cut(lane[LANE.at], stop, lane[LANE.call_steps])
            if _over(lane, end - lane[LANE.at]):
                return _returns(lane, TIME)
            lane[LANE.start], lane[LANE.stop] = lane[LANE.at], end
            lane[LANE.phase] = _READY
            if not copied(lane, READ):
                return _returns(lane, READ)
        if lane[LANE.phase] == _READY:
            _run_layers(lane, layers, lane[LANE.start], lane[LANE.stop], cached)
            lane[LANE.used] += lane[LANE.stop] - lane[LANE.start]
            lane[LANE.phase] = _WRITTEN
            if not copied(lane, WRITE):
                return _returns(lane, WRITE)
        lane[LANE.at], lane[LANE.phase] = lane[LANE.stop], _NEXT
    if cached:
        between(lane, layers, stop, False)
    note_final(lane, layers, stop)
    return True


@inner
def _begin_window(lane, layers):
    lane[LANE.current] = 0
    for index in range(lane[LANE.layers]):
        size = state_bytes(lane, layers, index)
        for k in range(layers[index, LAYER.states]):
            zero_bytes(layers[index, LAYER.carry_at] + 2 * k * size, size)


@inner
def _back_row(lane, layers, head, low, first_loss, stop, windowed):
    """A row that goes back from stop to low; losses before `first_loss` do not count."""
    if lane[LANE.phase] == _BEGIN:
        if windowed:
            _begin_window(lane, layers)
        lane[LANE.leg] = 0
        lane[LANE.at], lane[LANE.phase] = stop, _NEXT
    while lane[LANE.phase] != _ENDED:
        until = first_loss if lane[LANE.leg] == 0 else low
        if lane[LANE.phase] == _NEXT:
            if lane[LANE.at] <= until:
                if lane[LANE.leg] == 1:
                    break
                lane[LANE.leg] = 1
                continue
            begin = previous_cut(lane[LANE.at], until, lane[LANE.back_steps])
            if _over(lane, lane[LANE.at] - begin):
                return _returns(lane, TIME)
            lane[LANE.start], lane[LANE.stop] = begin, lane[LANE.at]
            lane[LANE.phase] = _READY
            if not copied(lane, READ_BACK):
                return _returns(lane, READ_BACK)
        if lane[LANE.phase] == _READY:
            counts = 1 - lane[LANE.leg]
            _back_layers(lane, layers, head, lane[LANE.start], lane[LANE.stop], counts)
            lane[LANE.used] += lane[LANE.stop] - lane[LANE.start]
            lane[LANE.phase] = _WRITTEN
            if not copied(lane, WRITE_BACK):
                return _returns(lane, WRITE_BACK)
        lane[LANE.at], lane[LANE.phase] = lane[LANE.start], _NEXT
    if not windowed:
        lane[LANE.carved] = 0
        lane[LANE.continues] = 1
        return True
    if lane[LANE.phase] != _ENDED:
        lane[LANE.phase] = _ENDED
        if low == 0:
            return _returns(lane, ADD_STATE)
    if lane[LANE.since_flush] >= lane[LANE.flush_steps]:
        lane[LANE.since_flush] = 0
        return _returns(lane, FLUSH)
    return True


@inner
def _rows(lane, layers, head, rows):
    """Carry out rows until they are done or Python is needed."""
    while lane[LANE.row] < lane[LANE.rows]:
        row = lane[LANE.row]
        kind, a, b, c = rows[row, 0], rows[row, 1], rows[row, 2], rows[row, 3]
        done = True
        if kind in (ADVANCE, CACHE):
            done = _forward_row(lane, layers, a, b, 1 if kind == CACHE else 0)
        elif kind == REVERSE:
            done = _back_row(lane, layers, head, a, a, b, False)
        elif kind == WINDOW:
            done = _back_row(lane, layers, head, a, b, c, True)
        elif kind == KEEP:
            forget_before(lane, layers, a)
        elif kind == STORE:
            stored = lane[LANE.stored]
            at = lane[LANE.arena_at] + stored * lane[LANE.checkpoint]
            checkpoint(lane, layers, at, True)
            lane[LANE.stored] = stored + 1
        elif kind == RESTORE:
            if a == 0:
                set_initial(lane, layers)
            else:
                at = lane[LANE.arena_at] + (lane[LANE.stored] - 1) * lane[LANE.checkpoint]
                checkpoint(lane, layers, at, False)
        elif kind == DISCARD:
            lane[LANE.stored] -= 1
        if not done:
            return
        lane[LANE.row] += 1
        lane[LANE.phase] = _BEGIN


@cache
def build_walk():
    """The walk, a program."""

    @program("walk along time")
    def walk(mailbox, slots, rows):
        """Carry out rows, from number `row` of the lane on: see the module.

        mailbox : of the team, see `workers`
        slots : of a lane, its head, what is left, and its layers: see `slots`
        rows : (n, 4) int64, each a kind and three times
        """
        lane, head = slots, slots[HEAD_AT:]
        layers = slots[LAYERS_AT:].reshape(slots[LANE.layers], LAYER_SIZE)
        lane[LANE.mailbox_at], lane[LANE.mailbox_size] = address(mailbox), mailbox.size
        lane[LANE.layers_at] = address(layers)
        lane[LANE.used] = 0
        lane[LANE.status] = DONE
        _rows(lane, layers, head, rows)
        finish(mailbox, words(lane[LANE.left_at]))  # nobody else may need the team meanwhile

    return walk
