"""What a call is about, once its arguments are checked: sizes, and apart from them arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..arrays import AlongTime, Array, DType
from ..backends.base import Backend
from ..layers.composite import Direction, Layer, LayerShape, stages
from ..layers.recurrent import Recurrent
from .dropout import Dropout


class Lengths:
    """The lengths (B,) of the sequences; all T when None was given."""

    def __init__(self, values: Array | None, steps: int, batch: int):
        self.given = values is not None
        self.values = np.full(batch, steps, np.int64)
        if values is not None:
            self.values[:] = values

    def live(self, start: int, stop: int) -> Array:
        """Whether each (t, b) of the span lies within its sequence, (n, B)."""
        return np.arange(start, stop)[:, None] < self.values


class Shapes(NamedTuple):
    """What plans, scratch and compiled passes depend on; hashable.

    T, B : steps and sequences
    dtype : of the weights and states
    layers : stage by stage and direction by direction, the (cell, hidden, inputs) of each layer
    tokens : whether x holds tokens
    ragged : whether sequences may end before T
    """

    T: int
    B: int
    dtype: DType
    layers: tuple[tuple[tuple[LayerShape, ...], ...], ...]
    tokens: bool
    ragged: bool


class Arrays(NamedTuple):
    """The arrays of a call.

    x : (T, B, I) floats or (T, B) tokens, wherever the caller has them
    lengths : of the sequences
    initial : for each recurrent layer, its state before x[0], (states, B, H), on the device
    """

    x: AlongTime
    lengths: Lengths
    initial: list[Array]


@dataclass(frozen=True, eq=False)
class Problem:
    """A layer, what it reads and where it runs: all that the engine is told.

    recurrent : the recurrent layers, in the order of the state
    stages : the directions of each stage, bottom to top
    """

    layer: Layer
    device: Backend
    shapes: Shapes
    arrays: Arrays
    dropout: Dropout | None
    recurrent: list[Recurrent]
    stages: list[tuple[Direction, ...]]

    @property
    def stores_outputs(self) -> bool:
        """Whether outputs are stored for all T: where a layer is Bidirectional."""
        return len(self.stages) > 1 or len(self.stages[0]) > 1

    @property
    def zero_copy(self) -> bool:
        """Whether the kernels can read x where it lies, or as tokens, for a whole call."""
        return self.shapes.tokens or self.device.zero_copy(self.arrays.x)


def problem_of(
    layer: Layer, device: Backend, arrays: Arrays, dropout: Dropout | None = None
) -> Problem:
    """The problem of these arrays, with its Shapes."""
    x = arrays.x
    own = stages(layer)
    structure = tuple(tuple(part.shapes for part in stage) for stage in own)
    recurrent = [part for stage in own for direction in stage for part in direction.layers]
    tokens = x.dtype.kind in "iu"
    T, B = x.shape[:2]
    shapes = Shapes(T, B, layer.dtype, structure, tokens, arrays.lengths.given)
    return Problem(layer, device, shapes, arrays, dropout, recurrent, own)
