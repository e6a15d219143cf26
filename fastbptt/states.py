"""States as users write them, and as the kernels do: for each layer an array (planes, B, H).

A user's state is an array (B, H) for a layer of one plane, a tuple of such arrays for more, and a
tuple of its layers' states for a Stack or a Bidirectional; the batch axis is left out where x
leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import arguments
from .compound import Bidirectional, Stack, shaped
from .layers import Recurrent
from .typing import Array, Layer, State


def zeros(layers: Sequence[Recurrent], batch: int) -> list[Array]:
    """The zero state of each layer."""
    return [np.zeros((layer.planes, batch, layer.hidden), layer.dtype) for layer in layers]


def unpack(name: str, layer: Layer, state: State, batch: int, squeeze: bool) -> list[Array]:
    """Return the user's `state` of `layer` as new arrays (planes, B, H), one a recurrent layer."""
    if not isinstance(layer, Recurrent):
        parts = _parts(layer)
        kind = type(layer).__name__
        given = _tuple(name, state, len(parts), f"{len(parts)} states for {kind}")
        found = []
        for index, (own, one) in enumerate(zip(parts, given, strict=True)):
            found += unpack(f"{name}[{index}]", own, one, batch, squeeze)
        return found
    planes: Sequence[State] = (state,)
    names: Sequence[str] = (name,)
    if layer.planes > 1:
        what = f"{layer.planes} arrays for {type(layer).__name__}"
        planes = _tuple(name, state, layer.planes, what)
        names = [f"{name}[{plane}]" for plane in range(layer.planes)]
    shape = (layer.hidden,) if squeeze else (batch, layer.hidden)
    values = np.empty((layer.planes, batch, layer.hidden), layer.dtype)
    for plane, (part, part_name) in enumerate(zip(planes, names, strict=True)):
        values[plane] = arguments.floats(part_name, part, shape, layer.dtype)
    return [values]


def _parts(layer: Bidirectional | Stack) -> Sequence[Layer]:
    if isinstance(layer, Bidirectional):
        return layer.forward, layer.backward
    return layer.layers


def _tuple(name: str, state: State, count: int, what: str) -> Sequence[State]:
    if not isinstance(state, (tuple, list)) or len(state) != count:
        raise TypeError(f"{name} must be a tuple of {what}, not {arguments.describe(state)}")
    return state


def pack(layer: Layer, values: Sequence[Array], squeeze: bool) -> State:
    """Return new arrays in the user's form from arrays (planes, B, H), one a recurrent layer."""

    def one(planes: Array) -> State:
        parts = tuple(plane[0].copy() if squeeze else plane.copy() for plane in planes)
        return parts if len(parts) > 1 else parts[0]

    return shaped(layer, map(one, values))
