"""Leaves of a schedule, each run while the one before it is gone back over.

A schedule caches a leaf, goes back over it, restores the state before the steps to its left, and
does the same with them. Their first state is in a checkpoint all the time. So the next leaf may be
run while this one is gone back over, in the memory that is freed on the way back.

A leaf is cached in *parts*, which end at multiples of `leaf_steps`, a power of two. A part lies in
one piece: its states, one more than it has steps, and then its residuals. Leaves lie by turns at
the low end of the arena, behind the checkpoints, with parts that follow each other upwards, and at
its high end, downwards. The arena has room for one part more than the longest leaf takes, in which
the next leaf begins; from then on its parts take the place of those that are done with.

A *round* is some parts of the leaf and some of the next one. It has three streams of tasks, a part
each, which are done in order:

    back     the sweep in reverse; waits for the gradients two parts before, whose scratch it takes
    sums     the gradients of the weights; wait for the sweep of the same part
    ahead    the next leaf; waits until enough of this one is done with to have room

Marks and threads are as in `wavefront`.
"""

from ..jit import inner, noinline
from .addresses import address, call, copy_bytes, view, words
from .atomics import compare_exchange, load_acquire, store_release
from .layer_spans import back_layer, forward_layer
from .slots import (
    CACHE,
    DISCARD,
    LANE,
    LANE_SIZE,
    LAYER,
    LAYER_SIZE,
    LEFT,
    LEFT_SIZE,
    RESTORE,
    TIME,
)
from .split import next_cut, previous_cut
from .walk_states import note_final, state_bytes
from .workers import finish, fork, job, named_job, wait

_BACK, _SUMS, _AHEAD, _STREAMS = range(4)


@inner
def _parts(lane, start, stop):
    """In how many parts the steps start..stop are."""
    if stop <= start:
        return 0
    return ((stop - 1) >> lane[LANE.leaf_bits]) - (start >> lane[LANE.leaf_bits]) + 1


@inner
def _bytes(lane, layers, start, stop):
    """The bytes of the parts of a leaf that begins at `start`, up to `stop`."""
    states, parts = layers[0, LAYER.states], _parts(lane, start, stop)
    numbers = (stop - start) * (states + layers[0, LAYER.residuals]) + parts * states
    return numbers * state_bytes(lane, layers, 0)


@inner
def _place(lane, layers, base, down, first, start, stop):
    """The address of the part start..stop of a leaf that begins at `first`."""
    if down:
        return base - _bytes(lane, layers, first, stop)
    return base + _bytes(lane, layers, first, start)


@inner
def _point(lane, layers, at, start, stop):
    """Have slots describe the part start..stop at that address, and be those of its span."""
    rows, size = stop - start + 1, state_bytes(lane, layers, 0)
    layers[0, LAYER.states_at], layers[0, LAYER.rows] = at, rows
    layers[0, LAYER.residuals_at] = at + layers[0, LAYER.states] * rows * size
    lane[LANE.start], lane[LANE.stop], lane[LANE.cache_base] = start, stop, start


@inner
def _copies(lane, stream):
    """The slots of the lane and of the layer that a stream has of its own."""
    own = 1 if stream == _AHEAD else 0
    lane_at = lane[LANE.leaf_lanes_at] + own * LANE_SIZE * 8
    layer_at = lane[LANE.leaf_layers_at] + own * LAYER_SIZE * 8
    like = words(lane_at)
    return view(like, lane_at, (LANE_SIZE,)), view(like, layer_at, (1, LAYER_SIZE))


@inner
def _left_at(lane, part):
    return lane[LANE.leaf_left_at] + (part & 1) * LEFT_SIZE * 8


@inner
def _fits(lane, layers, left, end):
    """Whether the next leaf has room up to `end` while this one is there up to `left`."""
    room = abs(lane[LANE.leaf_base] - lane[LANE.ahead_base])
    used = _bytes(lane, layers, lane[LANE.leaf_start], left)
    return used + _bytes(lane, layers, lane[LANE.ahead_start], end) <= room


@inner
def _done(marks, stream):
    return load_acquire(marks, stream) >> 1


@inner
def _may_begin(marks, lane, layers, stream, task, until, forth):
    """Whether task number `task` of a stream has all that it waits for."""
    if stream == _BACK:
        return _done(marks, _SUMS) >= task - 1
    if stream == _SUMS:
        return _done(marks, _BACK) > task
    at, bits = lane[LANE.at], lane[LANE.leaf_bits]
    if at == until:
        return True  # there is no other leaf
    freed, left = _done(marks, _SUMS), at
    if freed > 0:
        left = max(until, (((at - 1) >> bits) - freed + 1) << bits)
    end = min(forth, ((lane[LANE.ahead_to] >> bits) + task + 1) << bits)
    return _fits(lane, layers, left, end)


@inner
def _take(marks, lane, layers, until, forth):
    """Take a task: (its stream, its number); the stream is -1 if none may begin, -2 at the end."""
    found = -2
    for stream in range(_STREAMS):
        tasks = _parts(lane, until, lane[LANE.at])
        if stream == _AHEAD:
            tasks = _parts(lane, lane[LANE.ahead_to], forth)
        mark = load_acquire(marks, stream)
        if mark == 2 * tasks:
            continue
        found = -1
        if mark & 1 or not _may_begin(marks, lane, layers, stream, mark >> 1, until, forth):
            continue
        if compare_exchange(marks, stream, mark, mark + 1):
            return stream, mark >> 1
    return found, 0


@inner
def _back(lane, layers, head, task, until):
    own, layer = _copies(lane, _BACK)
    part = ((lane[LANE.at] - 1) >> lane[LANE.leaf_bits]) - task
    start = max(until, part << lane[LANE.leaf_bits])
    stop = min(lane[LANE.at], (part + 1) << lane[LANE.leaf_bits])
    at = _place(lane, layers, lane[LANE.leaf_base], lane[LANE.leaf_down], lane[LANE.leaf_start],
                start, stop)  # fmt: skip
    _point(own, layer, at, start, stop)
    own[LANE.half], own[LANE.left_at] = 1 - (part & 1), _left_at(lane, part)
    back_layer(own, layer, head, 0, start, stop, 1, 0)
    own[LANE.current] ^= (stop - start) & 1


@inner
def _sums(lane, layers, task):
    left_at = _left_at(lane, ((lane[LANE.at] - 1) >> lane[LANE.leaf_bits]) - task)
    call(layers[0, LAYER.left], (left_at, 0, words(left_at)[LEFT.pieces]))


@inner
def _ahead_place(lane, layers, start, stop):
    base, down, first = lane[LANE.ahead_base], lane[LANE.ahead_down], lane[LANE.ahead_start]
    return _place(lane, layers, base, down, first, start, stop)


@inner
def _state_before(lane, layers, t):
    """Where the next leaf's state before step t is: its address, and the bytes between states."""
    size, first = state_bytes(lane, layers, 0), lane[LANE.ahead_start]
    if t == first:
        return lane[LANE.ahead_from], size
    start = previous_cut(t, first, lane[LANE.leaf_steps])
    return _ahead_place(lane, layers, start, t) + (t - start) * size, (t - start + 1) * size


@inner
def _ahead(lane, layers, task, forth):
    own, layer = _copies(lane, _AHEAD)
    part = (lane[LANE.ahead_to] >> lane[LANE.leaf_bits]) + task
    start = max(lane[LANE.ahead_to], part << lane[LANE.leaf_bits])
    stop = min(forth, (part + 1) << lane[LANE.leaf_bits])
    at, size = _ahead_place(lane, layers, start, stop), state_bytes(lane, layers, 0)
    source, step = _state_before(lane, layers, start)
    for k in range(layers[0, LAYER.states]):
        copy_bytes(at + k * (stop - start + 1) * size, source + k * step, size)
    _point(own, layer, at, start, stop)
    forward_layer(own, layer, 0, start, stop, 1, 0)


@named_job("a leaf beside the next one")
def _beside(marks, lane, layers, head, until, forth, low, high):
    for _ in range(low, high):  # any piece does all that it can
        spins = 0
        while True:
            stream, task = _take(marks, lane, layers, until, forth)
            if stream == -1:
                wait(spins)
                spins += 1
                continue
            if stream == _BACK:
                _back(lane, layers, head, task, until)
            elif stream == _SUMS:
                _sums(lane, layers, task)
            elif stream == _AHEAD:
                _ahead(lane, layers, task, forth)
            else:
                break
            store_release(marks, stream, 2 * (task + 1))
            spins = 0


@inner
def _round(mailbox, lane, layers, head, until, forth):
    """Go back from `at` until `until`, and run the next leaf up to `forth`."""
    noinline()
    finish(mailbox, words(lane[LANE.left_at]))
    marks_at = lane[LANE.leaf_marks_at]
    marks = view(words(marks_at), marks_at, (_STREAMS,))
    for stream in (_BACK, _AHEAD):
        own, layer = _copies(lane, stream)
        own[:] = lane
        layer[:] = layers
        own[LANE.threads], own[LANE.wave], own[LANE.layers_at] = 1, 1, address(layer)
        own[LANE.left_at] = _left_at(lane, 0)
        if stream == _AHEAD:
            layer[0, LAYER.z_at] = lane[LANE.ahead_z_at]
            layer[0, LAYER.v_at] = lane[LANE.ahead_v_at]
            layer[0, LAYER.v_rows] = min(1, layer[0, LAYER.v_rows])
    for stream in range(_STREAMS):
        marks[stream] = 0
    steps = (lane[LANE.at] - until) + (forth - lane[LANE.ahead_to])
    threads = min(lane[LANE.threads], 3) if steps >= lane[LANE.leaf_least] else 1
    function, arguments = job(
        "a leaf beside the next one", (marks, lane, layers, head, until, forth)
    )
    fork(mailbox, threads, threads, function, arguments)
    lane[LANE.current] = _copies(lane, _BACK)[0][LANE.current]
    lane[LANE.used] += steps
    lane[LANE.at], lane[LANE.ahead_to] = until, forth


@inner
def _begin(lane, layers, start, stop, stored, down):
    """Let the leaf start..stop be the next one, which has `stored` checkpoints below it."""
    lane[LANE.ahead_start], lane[LANE.ahead_stop], lane[LANE.ahead_to] = start, stop, start
    lane[LANE.ahead_down] = down
    lane[LANE.ahead_base] = lane[LANE.arena_at] + stored * lane[LANE.checkpoint]
    lane[LANE.ahead_from] = lane[LANE.ahead_base] - lane[LANE.checkpoint]
    if start == 0:
        lane[LANE.ahead_from] = layers[0, LAYER.initial_at]
    if down:
        lane[LANE.ahead_base] = lane[LANE.arena_end]


@inner
def _budget(lane, steps):
    """The steps that a round may do, at least the first `steps`; 0 if they are too many for now."""
    room = lane[LANE.budget] - lane[LANE.used]
    if steps > room:
        if lane[LANE.used] > 0:
            lane[LANE.status] = TIME
            return 0
        return steps
    return room


@inner
def _forth(lane, layers, until, most):
    """How far the next leaf may come, if this one is gone back over until `until`."""
    forth, stop = lane[LANE.ahead_to], lane[LANE.ahead_stop]
    while forth < stop:
        end = next_cut(forth, stop, lane[LANE.leaf_steps])
        if forth > lane[LANE.ahead_to] and end - lane[LANE.ahead_to] > most:
            break
        if lane[LANE.at] > until and not _fits(lane, layers, until, end):
            break
        forth = end
    return forth


@inner
def cache_leaf(mailbox, lane, layers, head, start, stop):
    """A row that caches the leaf start..stop, unless it is there; returns whether it is done."""
    if lane[LANE.phase] == 0:
        lane[LANE.phase], lane[LANE.at] = 1, start  # there is no other leaf
        if lane[LANE.ahead_stop] == 0:
            _begin(lane, layers, start, stop, lane[LANE.stored], 0)
    while lane[LANE.ahead_to] < stop:
        end = next_cut(lane[LANE.ahead_to], stop, lane[LANE.leaf_steps])
        most = _budget(lane, end - lane[LANE.ahead_to])
        if most == 0:
            return False
        _round(mailbox, lane, layers, head, start, _forth(lane, layers, start, most))
    source, step = _state_before(lane, layers, stop)
    size = state_bytes(lane, layers, 0)
    live = layers[0, LAYER.live_at] + lane[LANE.live] * size
    for k in range(layers[0, LAYER.states]):
        copy_bytes(live + 2 * k * size, source + k * step, size)
    note_final(lane, layers, stop)
    lane[LANE.leaf_start], lane[LANE.ahead_stop] = start, 0
    lane[LANE.leaf_base], lane[LANE.leaf_down] = lane[LANE.ahead_base], lane[LANE.ahead_down]
    return True


@inner
def back_leaf(mailbox, lane, layers, head, rows, start, stop):
    """A row that goes back over the leaf start..stop; returns whether it is done."""
    if lane[LANE.phase] == 0:
        lane[LANE.phase], lane[LANE.at] = 1, stop
        row = lane[LANE.row]
        lane[LANE.ahead_start] = lane[LANE.ahead_to] = 0
        if row + 3 < lane[LANE.rows]:
            follows = rows[row + 1, 0] == DISCARD and rows[row + 2, 0] == RESTORE
            if follows and rows[row + 3, 0] == CACHE:
                _begin(lane, layers, rows[row + 3, 1], rows[row + 3, 2], lane[LANE.stored] - 1,
                       1 - lane[LANE.leaf_down])  # fmt: skip
    while lane[LANE.at] > start:
        at, steps = lane[LANE.at], lane[LANE.leaf_steps]
        until = previous_cut(at, start, steps)
        most = _budget(lane, at - until)
        if most == 0:
            return False
        while until > start and at - previous_cut(until, start, steps) <= most:
            until = previous_cut(until, start, steps)
        _round(mailbox, lane, layers, head, until, _forth(lane, layers, until, most))
    lane[LANE.continues] = 1
    return True
