"""The layers of a lane side by side: the sweep of one layer beside those above and below it.

A span is cut into parts. A task is one layer's work on one part. Tasks of the same kind and layer
are a *stream*, and are done in order:

    way forward    sweeps, L streams     layer i waits for layer i-1 on the same part
    way back       sweeps, L streams     layer i waits for layer i+1 on the same part
                   gradients, L streams  those of a layer wait for its sweep of the same part

What passes between two streams lies in one of two halves of a buffer, by turns, so a stream also
waits until what it overwrites has been read: two parts ahead at most.

The *mark* of a stream is twice the number of its tasks that are done, and one more while one is
under way. A thread looks for a stream whose next task may begin, and takes it by raising its mark.
It waits only while other threads have tasks under way, so one thread alone does all of them. Each
task is done by one thread, as if there were no others.
"""

from ..jit import inner
from .addresses import call, view, words
from .atomics import compare_exchange, load_acquire, store_release
from .layer_spans import back_layer, forward_layer
from .slots import LANE, LAYER, LEFT, LEFT_SIZE
from .workers import finish, fork, job, named_job, wait

_PARTS = 8  # of a span, for each layer; where that makes them long enough
_LEAST_PARTS = 4  # in fewer, too little is done side by side


@inner
def steps_of_part(lane, n):
    """Steps of a part of a span of n steps; 0 where layers are better run one after another."""
    least, steps = lane[LANE.wave_least], lane[LANE.chunk]
    if least == 0:
        return 0
    wanted = max(least, n // (_PARTS * lane[LANE.layers]))
    while steps > wanted or 2 * steps > lane[LANE.between_steps]:
        if steps % 2 and lane[LANE.chunk] < lane[LANE.steps]:
            break  # parts and chunks must end together; a chunk of all T is the only one
        steps //= 2
    fits = least <= 2 * steps <= 4 * wanted and 2 * steps <= lane[LANE.between_steps]
    return steps if fits and n >= _LEAST_PARTS * steps else 0


@inner
def _marks(lane):
    at = lane[LANE.wave_marks_at]
    return view(words(at), at, (2 * lane[LANE.layers],))


@inner
def _lanes(lane):
    """For each layer a copy of the lane's slots, in which there is one thread."""
    at = lane[LANE.wave_lanes_at]
    return view(words(at), at, (lane[LANE.layers], lane.size))


@inner
def _done(marks, stream):
    """How many tasks of a stream are done."""
    return load_acquire(marks, stream) >> 1


@inner
def _may_begin(marks, L, stream, task, back):
    """Whether task number `task` of a stream has all that it waits for."""
    if stream >= L:
        return _done(marks, stream - L) > task
    source, reader = (stream + 1, stream - 1) if back else (stream - 1, stream + 1)
    if 0 <= source < L and _done(marks, source) <= task:
        return False
    if 0 <= reader < L and _done(marks, reader) < task - 1:
        return False
    return back == 0 or _done(marks, L + stream) >= task - 1


@inner
def _take(marks, L, streams, tasks, back):
    """Take a task: (its stream, its number); the stream is -1 if none may begin, -2 at the end."""
    found = -2
    for number in range(streams):
        # What is nearest to the end of the way comes first; gradients come last.
        stream = number if back or number >= L else L - 1 - number
        mark = load_acquire(marks, stream)
        if mark == 2 * tasks:
            continue
        found = -1
        if mark & 1 or not _may_begin(marks, L, stream, mark >> 1, back):
            continue
        if compare_exchange(marks, stream, mark, mark + 1):
            return stream, mark >> 1
    return found, 0


@inner
def _do(lanes, layers, head, stream, part, steps, back, option):
    """Do the task of a stream in part number `part`, counted from step 0 of the lane."""
    L, half = len(layers), part & 1
    index = stream % L
    lane = lanes[index]
    left_at = lane[LANE.wave_left_at] + (2 * index + half) * LEFT_SIZE * 8
    if stream >= L:
        left = words(left_at)
        call(layers[index, LAYER.left], (left_at, 0, left[LEFT.pieces]))
        return
    start = max(lane[LANE.start], part * steps)
    stop = min(lane[LANE.stop], (part + 1) * steps)
    shift = half * (lane[LANE.between_steps] // 2)
    if back:
        lane[LANE.half], lane[LANE.left_at] = 1 - half, left_at
        back_layer(lane, layers, head, index, start, stop, option, shift)
    else:
        forward_layer(lane, layers, index, start, stop, option, shift)


@named_job("layers side by side")
def _side_by_side(marks, lanes, layers, head, first, tasks, steps, back, option, low, high):
    L = len(layers)
    streams = L * (1 + back)
    for _ in range(low, high):  # any piece does all that it can
        spins = 0
        while True:
            stream, task = _take(marks, L, streams, tasks, back)
            if stream >= 0:
                part = first + (tasks - 1 - task if back else task)
                _do(lanes, layers, head, stream, part, steps, back, option)
                store_release(marks, stream, 2 * (task + 1))
                spins = 0
            elif stream == -1:
                wait(spins)
                spins += 1
            else:
                break


@inner
def side_by_side(mailbox, lane, layers, head, steps, back, option):
    """All layers over the lane's span, in parts of `steps` steps.

    back : whether they go back
    option : on the way forward whether steps are cached, on the way back whether losses count
    """
    finish(mailbox, words(lane[LANE.left_at]))
    marks, lanes = _marks(lane), _lanes(lane)
    for index in range(len(layers)):
        marks[2 * index] = marks[2 * index + 1] = 0
        own = lanes[index]
        own[:] = lane
        own[LANE.threads], own[LANE.wave] = 1, 1
        if layers[index, LAYER.counts_at]:
            own[LANE.p_rows_at] = layers[index, LAYER.p_rows_at]
            own[LANE.counts_at] = layers[index, LAYER.counts_at]
    first = lane[LANE.start] // steps
    tasks = -(-lane[LANE.stop] // steps) - first
    function, arguments = job(
        "layers side by side",
        (marks, lanes, layers, head, first, tasks, steps, back, option),
    )
    threads = min(lane[LANE.threads], len(layers) * (1 + back))
    fork(mailbox, threads, threads, function, arguments)
