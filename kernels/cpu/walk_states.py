"""Copying states as a lane walks: the live one, checkpoints, and the step cache; see `walk`.

The step cache is a ring of slots. Its steps lie one after another from slot 0 on; after the last
slot comes slot 0 again. Row r of the states is the one before the step of slot r, and row r + 1 the
one after it. So what is forgotten is overwritten in time, and nothing is moved, except for the one
state between the last slot and slot 0, which lies in both of their rows.
"""

from ..jit import inner
from .addresses import copy_bytes
from .slots import LANE, LAYER


@inner
def state_bytes(lane, layers, index):
    return lane[LANE.batch] * layers[index, LAYER.hidden] * lane[LANE.item]


@inner
def _copy_states(count, size, target, target_step, source, source_step):
    for k in range(count):
        copy_bytes(target + k * target_step, source + k * source_step, size)


@inner
def checkpoint(lane, layers, at, save):
    """Copy the live state to a checkpoint, or back."""
    for index in range(lane[LANE.layers]):
        size, count = state_bytes(lane, layers, index), layers[index, LAYER.states]
        live = layers[index, LAYER.live_at] + lane[LANE.live] * size
        if save:
            _copy_states(count, size, at, size, live, 2 * size)
        else:
            _copy_states(count, size, live, 2 * size, at, size)
        at += count * size


@inner
def set_initial(lane, layers):
    for index in range(lane[LANE.layers]):
        size, count = state_bytes(lane, layers, index), layers[index, LAYER.states]
        live = layers[index, LAYER.live_at] + lane[LANE.live] * size
        _copy_states(count, size, live, 2 * size, layers[index, LAYER.initial_at], size)


@inner
def note_final(lane, layers, stop):
    if stop != lane[LANE.steps] or lane[LANE.noted]:
        return
    lane[LANE.noted] = 1
    for index in range(lane[LANE.layers]):
        size, count = state_bytes(lane, layers, index), layers[index, LAYER.states]
        live = layers[index, LAYER.live_at] + lane[LANE.live] * size
        _copy_states(count, size, layers[index, LAYER.final_at], size, live, 2 * size)


@inner
def slot_of(lane, layers, t):
    """The slot of step t in the step cache: the row of the state before it."""
    return (t - lane[LANE.cache_base]) % (layers[0, LAYER.rows] - 1)


@inner
def lap_end(lane, layers, t):
    """The end of the steps from t on that may lie one after another."""
    return t + layers[0, LAYER.rows] - 1 - slot_of(lane, layers, t)


@inner
def lap_start(lane, layers, stop):
    """The first of the steps before `stop` that lie one after another."""
    return stop - 1 - slot_of(lane, layers, stop - 1)


@inner
def open_cache(lane, layers, start, stop):
    """Carve a step cache out of the arena, if there is none, and begin it at the live state."""
    if lane[LANE.carved] == 0:
        steps = lane[LANE.room] if lane[LANE.room] else stop - start
        at = lane[LANE.arena_at] + lane[LANE.stored] * lane[LANE.checkpoint]
        for index in range(lane[LANE.layers]):
            size = state_bytes(lane, layers, index)
            layers[index, LAYER.states_at] = at
            layers[index, LAYER.rows] = steps + 1
            at += layers[index, LAYER.states] * (steps + 1) * size
            layers[index, LAYER.residuals_at] = at
            at += steps * layers[index, LAYER.residuals] * size
        lane[LANE.carved] = 1
        lane[LANE.cache_start] = lane[LANE.cache_stop] = start
    if lane[LANE.cache_stop] == lane[LANE.cache_start]:
        lane[LANE.cache_start] = lane[LANE.cache_stop] = lane[LANE.cache_base] = start
        between(lane, layers, 0, True)


@inner
def close_lap(lane, layers, start):
    """Where the cache goes on with step `start` in slot 0: copy the state before it there."""
    if start == lane[LANE.cache_base] or slot_of(lane, layers, start) > 0:
        return
    for index in range(lane[LANE.layers]):
        size, at = state_bytes(lane, layers, index), layers[index, LAYER.states_at]
        plane = layers[index, LAYER.rows] * size
        _copy_states(layers[index, LAYER.states], size, at, plane, at + plane - size, plane)


@inner
def between(lane, layers, row, begins):
    """Copy the live state to the step cache's states in that row, or back."""
    for index in range(lane[LANE.layers]):
        size, count = state_bytes(lane, layers, index), layers[index, LAYER.states]
        live = layers[index, LAYER.live_at] + lane[LANE.live] * size
        at, plane = layers[index, LAYER.states_at] + row * size, layers[index, LAYER.rows] * size
        if begins:
            _copy_states(count, size, at, plane, live, 2 * size)
        else:
            _copy_states(count, size, live, 2 * size, at, plane)
