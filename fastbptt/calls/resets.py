"""Where sequences begin anew (`resets=`), from which state, and that state's gradient.

A network's own state begins every sequence for which a call gives none, and every piece after a
reset. Resets at t = 0 are dealt with here; kernels meet those inside sequences alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import arguments
from ..arrays import Array, home
from ..backends.base import Backend
from ..engine.problem import Lengths
from ..layers.composite import Layer, State
from . import states
from .outputs import Outputs

if TYPE_CHECKING:
    from ..engine.stages import Stages

_BLOCK = 1 << 13  # booleans that are looked at together


def check(resets: Any, T: int, B: int, squeeze: bool) -> Array | None:
    """`resets` as booleans (T, B), a view in the caller's memory where that is not on a GPU."""
    if resets is None:
        return None
    values = home(arguments.array("resets", resets))
    if values.size and values.dtype != np.bool_:
        raise TypeError(f"resets must be booleans, not {values.dtype}")
    if values.shape != (T,) and (squeeze or values.shape != (T, B)):
        due = f"({T},)" if squeeze else f"({T}, {B}) or ({T},)"
        raise ValueError(f"resets must have shape {due}, not {values.shape}")
    values = values.astype(bool, copy=False)
    return np.broadcast_to(values[:, None] if values.ndim == 1 else values, (T, B))


def count(values: Array | None) -> int:
    """How many resets there are, for a plan: those past a length, and at t = 0, included."""
    return 0 if values is None else int(np.count_nonzero(values))


def enter(values: Array | None, lengths: Lengths) -> None:
    """Have sequences be reset."""
    if values is None or not values.size:
        return
    first = values[0] & (lengths.values > 0)
    lengths.first = first if first.any() else None
    found = sum(len(block) for block in _inside(values, lengths))
    if found:
        lengths.cut(found, _inside(values, lengths))


def _blocks(values: Array) -> Iterator[tuple[int, Array]]:
    T, B = values.shape
    step = max(1, _BLOCK // max(1, B))
    for start in range(0, T, step):
        yield start, values[start : start + step]


def _inside(values: Array, lengths: Lengths) -> Iterator[Array]:
    """The numbers t*B + b of resets with 0 < t < the length of b."""
    B, ends = values.shape[1], lengths.values.copy()
    for start, part in _blocks(values):
        t, b = np.nonzero(part)
        t += start
        yield (t * B + b)[(t > 0) & (t < ends[b])]


def own_state(
    layer: Layer, state: State | None, given: Callable[[str, Any], Array]
) -> states.Given | None:
    """The arrays (1, H) of a network's own state, checked to lie where x does."""
    if state is None:
        return None
    return states.check("network.state", layer, state, 1, True, given)


def for_batch(own: states.Given, batch: int) -> states.Given:
    """The same for each sequence of a batch, as views (B, H)."""
    return [
        tuple(np.broadcast_to(part, (batch, part.shape[1])) for part in parts)
        if all(isinstance(part, np.ndarray) for part in parts)
        else tuple(part.repeat(batch, axis=0) for part in parts)
        for parts in own
    ]


def set_first(
    device: Backend, initial: Sequence[Array], restart: Sequence[Array] | None, lengths: Lengths
) -> None:
    """Where a sequence is reset at t = 0, have its initial state be the one that resets set."""
    if lengths.first is None:
        return
    rows = device.xp.asarray(np.flatnonzero(lengths.first))
    for index, values in enumerate(initial):
        values[:, rows] = 0 if restart is None else restart[index][:, None]


def gradients(stages: Stages, outputs: Outputs, state_given: bool) -> tuple[State, State | None]:
    """The derivative by the initial state of a call, and by the network's own state or None.

    state_given : whether the call gave the initial state
    """
    arrays = stages.problem.arrays
    lengths = arrays.lengths
    initial, total = stages.grad_states(), None
    first = None if lengths.first is None else stages.device.xp.asarray(lengths.first)
    if arrays.restart is not None:
        sums = []
        for state, more in zip(initial, stages.restart_gradients(), strict=True):
            begun = state
            if state_given:
                begun = state[:, :0] if first is None else state[:, first]
            sums.append((begun.sum(axis=1, dtype=np.float64) + more).astype(state.dtype))
        total = outputs.per_layer(map(outputs.one, sums))
    if first is not None:
        for state in initial:
            state[:, first] = 0
    return outputs.state(initial), total


# Of small calls, which have no resets: states in the form that a caller gives them in.


def repeated(state: State, batch: int, squeeze: bool) -> State:
    """A network's own state as the state of a call, for each sequence."""
    if isinstance(state, tuple):
        return tuple(repeated(part, batch, squeeze) for part in state)
    if squeeze or not isinstance(state, np.ndarray):
        return state
    return np.repeat(state[None], batch, axis=0)


def summed(grad: State, squeeze: bool, given: bool) -> State:
    """The derivative by a network's own state from that by the initial one, perhaps `given`."""
    if isinstance(grad, tuple):
        return tuple(summed(part, squeeze, given) for part in grad)
    rows = grad[None] if squeeze else grad
    return rows[: 0 if given else None].sum(axis=0, dtype=np.float64).astype(grad.dtype)
