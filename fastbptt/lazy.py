"""Arrays that are not in memory, such as a data set of h5py or zarr: read a stretch at a time.

A Source is a caller's data set; a Lazy is a part of it along time, seen as an array (T, B, ...).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

PIECE = 1 << 15
"""The bytes that are copied at a time, or one step's where that has more."""

HELD = 1 << 20
"""The most bytes of a stretch that is held, or one step's where that has more."""


class Source:
    """A data set of shape (T, ...), and the stretch of it that was read last.

    A stretch is whole chunks of the data set where they are small enough, since some libraries
    unpack a chunk anew for every step of it. Threads may share a Source.
    """

    def __init__(self, name: str, given: Any):
        self.name, self.given = name, given
        self.shape = tuple(map(int, given.shape))
        self.dtype = np.dtype(given.dtype)
        step = max(1, prod(self.shape[1:]) * self.dtype.itemsize)
        chunk = _chunk(given)
        self.steps = max(1, min(chunk * max(1, PIECE // (chunk * step)), HELD // step))
        self.piece = max(1, PIECE // step)
        self._last: tuple[int, np.ndarray] = -1, self.some(slice(0, 0))

    def some(self, times: slice, *rest: int) -> np.ndarray:
        """Read from the data set; raises TypeError where it gives something else than it says."""
        key = (times, *rest) if rest else times
        found = self.given[key]
        if isinstance(found, np.ma.MaskedArray):  # as netCDF4 gives, whether values miss or not
            if np.ma.is_masked(found):
                raise TypeError(
                    f"{self.name} must have no masked values, but has some at "
                    f"t={times.start}..{times.stop - 1}: fill them, and give weights of 0 there"
                )
            found = found.data
        found = np.asarray(found)
        due = (times.stop - times.start, *self.shape[1 + len(rest) :])
        if found.dtype != self.dtype or found.shape != due:
            raise TypeError(
                f"{self.name} must give its steps {times.start}..{times.stop} as {self.dtype} of "
                f"shape {due}, as its own dtype and shape say, not as {found.dtype} of shape "
                f"{found.shape}"
            )
        return found

    def read(self, start: int, stop: int) -> np.ndarray:
        """The steps start..stop: from the stretches that they lie in, a view if it is one."""
        if start >= stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        first, last = start // self.steps, (stop - 1) // self.steps
        if first == last:
            begin = first * self.steps
            return self._stretch(first)[start - begin : stop - begin]
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for number in range(first, last + 1):
            begin = max(start, number * self.steps)
            end = min(stop, (number + 1) * self.steps)
            out[begin - start : end - start] = self.read(begin, end)
        return out

    def _stretch(self, number: int) -> np.ndarray:
        held, values = self._last
        if held != number:
            begin = number * self.steps
            values = self.some(slice(begin, min(begin + self.steps, self.shape[0])))
            self._last = number, values
        return values


def _chunk(given: Any) -> int:
    """The steps of a chunk of a data set; 1 where it has none."""
    chunks = getattr(given, "chunks", None)
    first = chunks[0] if isinstance(chunks, tuple) and chunks else 1
    if isinstance(first, tuple):  # dask has the length of each chunk
        first = first[0] if first else 1
    return max(1, first) if isinstance(first, int) else 1


@dataclass(frozen=True, eq=False)
class Lazy:
    """The steps start..stop of a Source, as an array of that dtype and shape.

    batch : whether an axis of one sequence is put in after time
    columns : of the last axis
    """

    source: Source
    start: int
    stop: int
    batch: bool = False
    columns: slice = field(default_factory=lambda: slice(None))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numbers' dtype."""
        return self.source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes, time first."""
        rest = self.source.shape[1:]
        if self.columns != slice(None):
            rest = *rest[:-1], len(range(*self.columns.indices(rest[-1])))
        return (self.stop - self.start, *((1,) if self.batch else ()), *rest)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        """T."""
        return self.stop - self.start

    def __getitem__(self, key: Any) -> Lazy:
        """A part along time, `[a:b]`; with an axis more, `[:, None]`; or columns, `[:, :, a:b]`."""
        if isinstance(key, slice):
            start, stop, _ = key.indices(len(self))
            first, last = self.start + start, self.start + max(start, stop)
            return Lazy(self.source, first, last, self.batch, self.columns)
        return replace(self, batch=True) if key[1] is None else replace(self, columns=key[2])

    def read(self) -> np.ndarray:
        """All its steps, in memory."""
        values = self.source.read(self.start, self.stop)
        return (values[:, None] if self.batch else values)[..., self.columns]

    def picked(self, times: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The steps times (n, k) of the sequences rows (k,), in memory: (n, k, ...).

        The times of a sequence are read from the first to the last of them.
        """
        out = np.empty((*times.shape, *self.shape[2:]), self.dtype)
        for k, (own, row) in enumerate(zip(times.T, rows.tolist(), strict=True)):
            if own.size:
                first, last = int(own.min()), int(own.max())
                span = slice(self.start + first, self.start + last + 1)
                values = self.source.some(span) if self.batch else self.source.some(span, row)
                out[:, k] = values[own - first][..., self.columns]
        return out

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The steps start..stop in pieces of at most PIECE bytes."""
        for begin in range(start, stop, self.source.piece):
            yield begin, min(begin + self.source.piece, stop)
