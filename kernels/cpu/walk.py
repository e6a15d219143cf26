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

from ..jit import inner, noinline
from . import subteams
from .addresses import address, copy_bytes, view, words, zero_bytes
from .copies import copied
from .layer_spans import back_layer, forward_layer
from .leaves import back_leaf, cache_leaf
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
    close_lap,
    lap_end,
    lap_start,
    note_final,
    open_cache,
    set_initial,
    slot_of,
    state_bytes,
)
from .wavefront import side_by_side, steps_of_part
from .workers import LINE, finish, fork, job, named_job, program

_BEGIN, _NEXT, _READY, _WRITTEN, _ENDED = range(5)  # phases of a row


@inner
def run_layers(mailbox, lane, layers, head, cached):
    """Run all layers over the span, from the live state or the end of the step cache."""
    start, stop = lane[LANE.start], lane[LANE.stop]
    steps = steps_of_part(lane, stop - start)
    if steps > 0:
        side_by_side(mailbox, lane, layers, head, steps, 0, cached)
    else:
        while start < stop:
            end = next_cut(start, stop, lane[LANE.between_steps])
            for index in range(lane[LANE.layers]):
                forward_layer(lane, layers, index, start, end, cached, 0)
            start = end
    if cached:
        lane[LANE.cache_stop] = stop
    else:
        lane[LANE.live] ^= (stop - lane[LANE.start]) & 1


@inner
def _back_layers(mailbox, lane, layers, head, counts):
    """Go back through all layers over the span, which is in the step cache."""
    start, stop = lane[LANE.start], lane[LANE.stop]
    n = stop - start
    steps = steps_of_part(lane, n)
    if steps > 0:
        side_by_side(mailbox, lane, layers, head, steps, 1, counts)
    else:
        while stop > start:
            begin = previous_cut(stop, start, lane[LANE.between_steps])
            for index in range(lane[LANE.layers] - 1, -1, -1):
                back_layer(lane, layers, head, index, begin, stop, counts, 0)
            stop = begin
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
def _forward_row(mailbox, lane, layers, head, start, stop, cached):
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
            if cached:
                end = min(end, lap_end(lane, layers, lane[LANE.at]))
            if _over(lane, end - lane[LANE.at]):
                return _returns(lane, TIME)
            lane[LANE.start], lane[LANE.stop] = lane[LANE.at], end
            lane[LANE.phase] = _READY
            if not copied(lane, READ):
                return _returns(lane, READ)
        if lane[LANE.phase] == _READY:
            if cached:
                close_lap(lane, layers, lane[LANE.start])
            run_layers(mailbox, lane, layers, head, cached)
            lane[LANE.used] += lane[LANE.stop] - lane[LANE.start]
            lane[LANE.phase] = _WRITTEN
            if not copied(lane, WRITE):
                return _returns(lane, WRITE)
        lane[LANE.at], lane[LANE.phase] = lane[LANE.stop], _NEXT
    if cached:
        between(lane, layers, slot_of(lane, layers, stop - 1) + 1, False)
    note_final(lane, layers, stop)
    return True


@inner
def _begin_window(lane, layers, stop):
    """Begin with a carry of zero; in the last window with the one by the final state, if given."""
    lane[LANE.current] = 0
    for index in range(lane[LANE.layers]):
        size, given = state_bytes(lane, layers, index), layers[index, LAYER.final_carry_at]
        for k in range(layers[index, LAYER.states]):
            at = layers[index, LAYER.carry_at] + 2 * k * size
            if given and stop == lane[LANE.steps]:
                copy_bytes(at, given + k * size, size)
            else:
                zero_bytes(at, size)


@inner
def _back_row(mailbox, lane, layers, head, low, first_loss, stop, windowed):
    """A row that goes back from stop to low; losses before `first_loss` do not count."""
    if lane[LANE.phase] == _BEGIN:
        if windowed:
            _begin_window(lane, layers, stop)
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
            begin = max(begin, lap_start(lane, layers, lane[LANE.at]))
            if _over(lane, lane[LANE.at] - begin):
                return _returns(lane, TIME)
            lane[LANE.start], lane[LANE.stop] = begin, lane[LANE.at]
            lane[LANE.phase] = _READY
            if not copied(lane, READ_BACK):
                return _returns(lane, READ_BACK)
        if lane[LANE.phase] == _READY:
            _back_layers(mailbox, lane, layers, head, 1 - lane[LANE.leg])
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
def _rows(mailbox, lane, layers, head, rows):
    """Carry out rows until they are done or Python is needed."""
    while lane[LANE.row] < lane[LANE.rows]:
        row = lane[LANE.row]
        kind, a, b, c = rows[row, 0], rows[row, 1], rows[row, 2], rows[row, 3]
        done = True
        if kind == CACHE and lane[LANE.leaf_steps] > 0:
            done = cache_leaf(mailbox, lane, layers, head, a, b)
        elif kind == REVERSE and lane[LANE.leaf_steps] > 0:
            done = back_leaf(mailbox, lane, layers, head, rows, a, b)
        elif kind in (ADVANCE, CACHE):
            done = _forward_row(mailbox, lane, layers, head, a, b, 1 if kind == CACHE else 0)
        elif kind == REVERSE:
            done = _back_row(mailbox, lane, layers, head, a, a, b, False)
        elif kind == WINDOW:
            done = _back_row(mailbox, lane, layers, head, a, b, c, True)
        elif kind == KEEP:
            lane[LANE.cache_start] = a
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


@inner
def _walk(mailbox, slots, rows):
    """Walk one lane until its rows are done or Python is needed."""
    noinline()
    lane, head = slots[:HEAD_AT], slots[HEAD_AT:]
    layers = slots[LAYERS_AT:].reshape(slots[LANE.layers], LAYER_SIZE)
    lane[LANE.mailbox_at], lane[LANE.mailbox_size] = address(mailbox), mailbox.size
    lane[LANE.layers_at] = address(layers)
    lane[LANE.used] = 0
    lane[LANE.status] = DONE
    _rows(mailbox, lane, layers, head, rows)
    finish(mailbox, words(lane[LANE.left_at]))  # nobody else may need the team meanwhile


@inner
def _team_of(slots, which, like):
    """The mailbox of one of two lanes beside each other; an empty one, where it has one thread."""
    size = slots[LANE.members] * LINE if slots[LANE.members] > 1 else 0
    return view(like, slots[LANE.mailboxes_at] + which * size * 8, (size,))


@named_job("lanes beside each other")
def _beside(slots, rows, other, other_rows, low, high):
    for piece in range(low, high):
        mailbox = _team_of(slots, piece & 1, slots)
        if piece > 1:
            subteams.help_until_ended(mailbox, piece >> 1)
        elif piece == 0:
            _walk(mailbox, slots, rows)
        else:
            _walk(mailbox, other, other_rows)
        if piece < 2 and mailbox.size > 0:
            subteams.end(mailbox)


@cache
def build_walk():
    """The walk, a program."""

    @program("walk along time")
    def walk(mailbox, slots, rows):
        """Carry out rows, from number `row` of the lane on: see the module.

        mailbox : of the team, see `workers`
        slots : of a lane, its head, what is left, and its layers: see `slots`. If another lane is
            to be walked beside it, each has threads of its own
        rows : (n, 4) int64, each a kind and three times
        """
        at = slots[LANE.beside_at]
        if at == 0:
            _walk(mailbox, slots, rows)
            return
        lane = words(at)
        other = view(lane, at, (LAYERS_AT + lane[LANE.layers] * LAYER_SIZE,))
        other_rows = view(lane, lane[LANE.actions_at], (lane[LANE.rows], 4))
        for which in range(2):
            subteams.begin(_team_of(slots, which, slots))
        # Pieces are taken in order: nobody helps in a team whose lane is not under way.
        function, data = job("lanes beside each other", (slots, rows, other, other_rows))
        count = 2 * slots[LANE.members]
        fork(mailbox, count, count, function, data)

    return walk
