"""Copies that compiled code makes of each span, where kernels cannot work in an array's own memory.

They do what `readers` and `time_views` do, which still serve a GPU, and arrays whose numbers
compiled code cannot reach: not aligned, or not in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..arrays import AlongTime, Array
from ..kernels.cpu.slots import ADD, FLOATS, IDS, PUT, WEIGHTS
from .readers import Reader, TokenReader, WeightReader
from .time_views import TimeView


class Copy(NamedTuple):
    """A copy of a span, between an array (T, B, ...) and a buffer.

    way : what is copied, and which way: see `kernels.cpu.slots`
    against : whether the span's time is reversed, within the length of each sequence
    classes : ids must be below it where they count
    weights : the buffer of the loss weights that say so, besides the lengths; None if all do
    scored : whether only spans have it whose losses count
    waits : whether gradients that are left to other threads may still use the buffer
    """

    way: int
    array: AlongTime
    buffer: Array
    against: bool = False
    classes: int = 0
    weights: Array | None = None
    scored: bool = False
    waits: bool = False

    @property
    def possible(self) -> bool:
        """Whether compiled code can reach the array's numbers."""
        return isinstance(self.array, np.ndarray) and self.array.flags.aligned


def of_input(reader: Reader) -> list[Copy]:
    """Copies of what a direction reads."""
    # The gradients of a span's last chunk read a copy of their tokens: see `compiled`.
    return [copy._replace(waits=copy.way == FLOATS) for copy in _of_reader(reader)]


def of_loss(reader: Reader, weights: WeightReader) -> list[Copy]:
    """Copies of what a loss reads: its weights, and then y, which may be wrong where they are 0."""
    found = _of_reader(reader)
    if weights.array is not None:
        own = Copy(WEIGHTS, weights.array, weights.buffer)
        found = [own, *(copy._replace(weights=weights.buffer) for copy in found)]
    return [copy._replace(scored=True) for copy in found]


def _of_reader(reader: Reader) -> list[Copy]:
    against = reader.reversal is not None
    if isinstance(reader, TokenReader):
        return [Copy(IDS, reader.array, reader.buffer, against, reader.classes)]
    if reader.buffer is None:
        return []
    return [Copy(FLOATS, reader.array, reader.buffer, against)]


def of_derivative(view: TimeView) -> list[Copy]:
    """Copies of the derivative by a direction's outputs."""
    return [copy._replace(scored=True) for copy in _of_view(FLOATS, view)]


def of_outputs(views: Sequence[TimeView]) -> list[Copy]:
    """Copies of what a direction writes on its way forward."""
    return [copy for view in views for copy in _of_view(ADD if view.adds else PUT, view)]


def of_gradients(views: Sequence[TimeView]) -> list[Copy]:
    """Copies of what a direction writes on its way back."""
    return [copy._replace(waits=True) for copy in of_outputs(views)]


def _of_view(way: int, view: TimeView) -> list[Copy]:
    if view.buffer is None:
        return []
    return [Copy(way, view.array, view.buffer, view.reversal is not None)]
