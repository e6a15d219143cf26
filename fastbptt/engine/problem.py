"""What a call is about, once its arguments are checked: sizes, and apart from them arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..arrays import AlongTime, Array, DType
from ..backends.base import Backend
from ..layers.composite import Direction, Layer, LayerShape, stages
from ..layers.recurrent import Recurrent
from .dropout import Dropout


class Lengths:
    """Where sequences end, and where they begin anew.

    given : whether lengths were given
    values : the lengths (B,); all T where None were given
    resets : (K,) the numbers t*B + b of the resets with 0 < t < the length of b, ascending
    marks : both, one after the other: what the CPU's kernels read
    first : (B,) booleans, whether a sequence of some steps is reset at t = 0; None if none is
    """

    def __init__(self, values: Array | None, steps: int, batch: int):
        self.given, self.batch = values is not None, batch
        self.marks = np.full(batch, steps, np.int64)
        if values is not None:
            self.marks[:] = values
        self.first: Array | None = None

    @property
    def values(self) -> Array:
        return self.marks[: self.batch]

    @property
    def resets(self) -> Array:
        return self.marks[self.batch :]

    def cut(self, count: int, blocks: Iterable[Array]) -> None:
        """Have so many resets, which come block by block."""
        batch = self.batch
        marks = np.empty(batch + count, np.int64)
        marks[:batch] = self.marks[:batch]
        place = batch
        for block in blocks:
            marks[place : place + len(block)] = block
            place += len(block)
        self.marks = marks

    @cached_property
    def pieces(self) -> Array | None:
        """The times of the resets, sequence by sequence, after B + 1 places where those begin.

        These count from the start of the array. None without resets.
        """
        batch, resets = self.batch, self.resets
        if not resets.size:
            return None
        found = np.empty(batch + 1 + resets.size, np.int64)
        rows = resets % batch
        found[: batch + 1] = batch + 1
        found[1 : batch + 1] += np.cumsum(np.bincount(rows, minlength=batch))
        found[batch + 1 :] = resets[np.argsort(rows, kind="stable")] // batch
        return found

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
    restart : for each of them, the trained state that resets set, (states, H), on the device; None
        where that is zero and has no gradient
    """

    x: AlongTime
    lengths: Lengths
    initial: list[Array]
    restart: list[Array] | None = None


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
