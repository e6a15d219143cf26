"""States as users write them, and as the kernels do: for each layer an array (planes, B, H).

A user's state is an array (B, H) for a layer of one plane and a tuple of such arrays for more; the
batch axis is left out where x leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import arguments
from .typing import Array, Layer, State


def zeros(layers: Sequence[Layer], batch: int) -> list[Array]:
    """The zero state of each layer."""
    return [np.zeros((layer.planes, batch, layer.hidden), layer.dtype) for layer in layers]


def unpack(name: str, layer: Layer, state: State, batch: int, squeeze: bool) -> list[Array]:
    """Return the user's `state` of `layer` as a list with one new array (planes, B, H)."""
    if layer.planes == 1:
        parts: Sequence[State] = (state,)
        names: Sequence[str] = (name,)
    else:
        if not isinstance(state, (tuple, list)) or len(state) != layer.planes:
            raise TypeError(
                f"{name} must be a tuple of {layer.planes} arrays for {type(layer).__name__}, "
                f"not {arguments.describe(state)}"
            )
        parts, names = state, [f"{name}[{plane}]" for plane in range(layer.planes)]
    shape = (layer.hidden,) if squeeze else (batch, layer.hidden)
    values = np.empty((layer.planes, batch, layer.hidden), layer.dtype)
    for plane, (part, part_name) in enumerate(zip(parts, names, strict=True)):
        values[plane] = arguments.floats(part_name, part, shape, layer.dtype)
    return [values]


def pack(layer: Layer, values: Sequence[Array], squeeze: bool) -> State:
    """Return new arrays in the user's form from a list with one array (planes, B, H)."""
    parts = tuple(plane[0].copy() if squeeze else plane.copy() for plane in values[0])
    return parts if layer.planes > 1 else parts[0]
