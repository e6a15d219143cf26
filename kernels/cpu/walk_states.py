"""Moving states as a lane walks: the live one, checkpoints, and the step cache; see `walk`."""

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
def open_cache(lane, layers, start, stop):
    """Carve a step cache out of the arena, if there is none, and begin it at the live state."""
    if lane[LANE.carved] == 0:
        steps = lane[LANE.window] if lane[LANE.window] else stop - start
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
        lane[LANE.cache_start] = lane[LANE.cache_stop] = start
        between(lane, layers, start, True)


@inner
def between(lane, layers, at, begins):
    """Copy the live state to the step cache's state before step `at`, or back."""
    for index in range(lane[LANE.layers]):
        size, count = state_bytes(lane, layers, index), layers[index, LAYER.states]
        live = layers[index, LAYER.live_at] + lane[LANE.live] * size
        row = layers[index, LAYER.states_at] + (at - lane[LANE.cache_start]) * size
        plane = layers[index, LAYER.rows] * size
        if begins:
            _copy_states(count, size, row, plane, live, 2 * size)
        else:
            _copy_states(count, size, live, 2 * size, row, plane)


@inner
def forget_before(lane, layers, start):
    """Move the cached steps from `start` on to the front."""
    shift, steps = start - lane[LANE.cache_start], lane[LANE.cache_stop] - start
    if shift <= 0:
        return
    for index in range(lane[LANE.layers]):
        size = state_bytes(lane, layers, index)
        for k in range(layers[index, LAYER.states]):
            at = layers[index, LAYER.states_at] + k * layers[index, LAYER.rows] * size
            copy_bytes(at, at + shift * size, (steps + 1) * size)
        size *= layers[index, LAYER.residuals]
        at = layers[index, LAYER.residuals_at]
        copy_bytes(at, at + shift * size, steps * size)
    lane[LANE.cache_start] = start
