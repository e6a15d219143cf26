"""States as users write them, and as the kernels do: for each layer an array (planes, B, H).

A user's state is an array (B, H) for a layer of one plane, a tuple of such arrays for more, and a
tuple of its layers' states for a Stack or a Bidirectional; the batch axis is left out where x
leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import arguments
from .backends import Backend
from .compound import Bidirectional, Stack, shaped
from .layers import Recurrent
from .typing import Array, Layer, State

if TYPE_CHECKING:
    from .inputs import Call


def zeros(device: Backend, layers: Sequence[Recurrent], batch: int) -> list[Array]:
    """The zero state of each layer, on a device."""
    return [device.xp.zeros((layer.planes, batch, layer.hidden), layer.dtype) for layer in layers]


def copied(
    device: Backend, layers: Sequence[Recurrent], given: Sequence[tuple[Array, ...]], batch: int
) -> list[Array]:
    """The state that `unpack` has checked, as new arrays on a device."""
    found = zeros(device, layers, batch)
    for values, planes in zip(found, given, strict=True):
        for plane, part in enumerate(planes):
            device.fill(values[plane], part)
    return found


def unpack(call: Call, name: str, layer: Layer, state: State) -> list[tuple[Array, ...]]:
    """Check the user's `state` of `layer`; returns its arrays (B, H), a tuple a recurrent layer."""
    if not isinstance(layer, Recurrent):
        parts = _parts(layer)
        kind = type(layer).__name__
        given = _tuple(name, state, len(parts), f"{len(parts)} states for {kind}")
        found = []
        for index, (own, one) in enumerate(zip(parts, given, strict=True)):
            found += unpack(call, f"{name}[{index}]", own, one)
        return found
    planes: Sequence[State] = (state,)
    names: Sequence[str] = (name,)
    if layer.planes > 1:
        what = f"{layer.planes} arrays for {type(layer).__name__}"
        planes = _tuple(name, state, layer.planes, what)
        names = [f"{name}[{plane}]" for plane in range(layer.planes)]
    shape = (layer.hidden,) if call.squeeze else (call.B, layer.hidden)
    checked = []
    for part, part_name in zip(planes, names, strict=True):
        array = arguments.floats(part_name, call.given(part_name, part), shape, layer.dtype)
        checked.append(array.reshape(call.B, layer.hidden))
    return [tuple(checked)]


def _parts(layer: Bidirectional | Stack) -> Sequence[Layer]:
    if isinstance(layer, Bidirectional):
        return layer.forward, layer.backward
    return layer.layers


def _tuple(name: str, state: State, count: int, what: str) -> Sequence[State]:
    if not isinstance(state, (tuple, list)) or len(state) != count:
        raise TypeError(f"{name} must be a tuple of {what}, not {arguments.describe(state)}")
    return state


def pack(call: Call, values: Sequence[Array]) -> State:
    """Return new arrays in the user's form from arrays (planes, B, H), one a recurrent layer."""

    def one(planes: Array) -> State:
        parts = tuple(call.handed_out(plane[0] if call.squeeze else plane) for plane in planes)
        return parts if len(parts) > 1 else parts[0]

    return shaped(call.layer, map(one, values))
