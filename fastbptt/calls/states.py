"""States as users write them, checked, and as the engine has them: arrays (states, B, H).

A user's state is an array (B, H) for a layer of one state, a tuple of such arrays for more, and a
tuple of its layers' states for a Stack or a Bidirectional; the batch axis is left out where x
leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import arguments
from ..arrays import Array
from ..backends.base import Backend
from ..layers.composite import Layer, State
from ..layers.recurrent import Recurrent

Given = list[tuple[Array, ...]]
"""The arrays (B, H) of a state, checked: a tuple for each recurrent layer."""


def zeros(device: Backend, layers: Sequence[Recurrent], batch: int) -> list[Array]:
    """The zero state of each layer, on a device."""
    return [device.xp.zeros((layer.states, batch, layer.hidden), layer.dtype) for layer in layers]


def copied(
    device: Backend, layers: Sequence[Recurrent], given: Given | None, batch: int
) -> list[Array]:
    """The state that `check` has checked, or zeros, as new arrays on a device."""
    found = zeros(device, layers, batch)
    if given is not None:
        for values, parts in zip(found, given, strict=True):
            for target, part in zip(values, parts, strict=True):
                device.copy_to(target, part)
    return found


def check(
    name: str,
    layer: Layer,
    state: State,
    batch: int,
    squeeze: bool,
    given: Callable[[str, Any], Array],
) -> Given:
    """Check the user's `state` of `layer`; returns its arrays.

    Parameters
    ----------
    name : the argument that it is, for errors
    batch : B; squeeze : whether the batch axis is left out
    given : `given(name, value)`, the value as an array where x lies
    """
    if not isinstance(layer, Recurrent):
        parts = layer.parts
        states = _tuple(name, state, len(parts), f"{len(parts)} states for {type(layer).__name__}")
        found: Given = []
        for index, (own, one) in enumerate(zip(parts, states, strict=True)):
            found += check(f"{name}[{index}]", own, one, batch, squeeze, given)
        return found
    arrays: Sequence[State] = (state,)
    names: Sequence[str] = (name,)
    if layer.states > 1:
        what = f"{layer.states} arrays for {type(layer).__name__}"
        arrays = _tuple(name, state, layer.states, what)
        names = [f"{name}[{number}]" for number in range(layer.states)]
    shape = (layer.hidden,) if squeeze else (batch, layer.hidden)
    checked = []
    for part, part_name in zip(arrays, names, strict=True):
        array = arguments.floats(part_name, given(part_name, part), shape, layer.dtype)
        checked.append(array.reshape(batch, layer.hidden))
    return [tuple(checked)]


def _tuple(name: str, state: State, count: int, what: str) -> Sequence[State]:
    if not isinstance(state, (tuple, list)) or len(state) != count:
        raise TypeError(f"{name} must be a tuple of {what}, not {arguments.describe(state)}")
    return state
