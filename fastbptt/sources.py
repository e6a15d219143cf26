"""A caller's arrays, one stretch of time at a time, as the kernels want them.

A stretch of a C-contiguous array is passed on as a view; of any other it is copied into a panel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import arguments
from .kernels.cpu.memory import writable
from .kernels.cpu.recurrence import NO_IDS, NO_WEIGHTS
from .typing import Array, DTypeLike

NO_FLOATS = {dtype: np.empty((0, 0, 0), dtype) for dtype in arguments.FLOATS}


class Floats:
    """A float array of shape (T, B, features)."""

    def __init__(self, values: Array, panel_steps: int):
        self.direct = values.flags.c_contiguous and values.flags.aligned
        self.values = writable(values) if self.direct else values
        shape = (panel_steps, *values.shape[1:])
        self._panel = None if self.direct else np.empty(shape, values.dtype)

    def stretch(self, start: int, stop: int) -> tuple[Array, Array]:
        """Rows start..stop and, since they are no tokens, no ids."""
        if self._panel is None:
            return self.values[start:stop], NO_IDS
        panel = self._panel[: stop - start]
        np.copyto(panel, self.values[start:stop])
        return panel, NO_IDS


class Ids:
    """Integers of shape (T, B): classes 0..`classes`-1 wherever `counts` says that they count."""

    def __init__(
        self,
        name: str,
        values: Array,
        classes: int,
        dtype: DTypeLike,
        counts: Callable[[int, int], Array],
        panel_steps: int,
    ):
        self.name = name
        self.values = values
        self.classes = classes
        self._counts = counts
        self._nothing = NO_FLOATS[np.dtype(dtype)]
        self._panel = np.empty((panel_steps, values.shape[1]), np.int64)

    def stretch(self, start: int, stop: int) -> tuple[Array, Array]:
        """No floats, and the ids of rows start..stop; those that do not count are 0.

        Raises ValueError that names the position of a class that does not exist.
        """
        given = self.values[start:stop]
        panel = self._panel[: stop - start]
        np.copyto(panel, given, casting="unsafe")  # uint64 beyond int64 turns negative: caught
        if panel.size and (panel.min() < 0 or panel.max() >= self.classes):
            wrong = (panel < 0) | (panel >= self.classes)
            panel[wrong] = 0
            wrong &= self._counts(start, stop)
            if wrong.any():
                t, b = np.argwhere(wrong)[0]
                raise ValueError(
                    f"{self.name} must hold classes 0..{self.classes - 1}, "
                    f"but at t={start + t}, b={b} it is {given[t, b]}"
                )
        return self._nothing, panel


_TINY = np.finfo(np.float64).tiny


def counts(weights: Array) -> Array:
    """Whether each loss weight is more than 0 for the kernels, which flush subnormal numbers."""
    return ~(np.abs(weights) < _TINY)


class Weights:
    """Loss weights (T,) or (T, B), or None; float64 in the kernels."""

    def __init__(self, values: Array | None, batch: int, panel_steps: int):
        self.values = values
        self._panel = NO_WEIGHTS if values is None else np.empty((panel_steps, batch))

    def stretch(self, start: int, stop: int) -> Array:
        """Rows start..stop, (n, B), or an empty array for no weights."""
        if self.values is None:
            return NO_WEIGHTS
        panel = self._panel[: stop - start]
        part = self.values[start:stop]
        np.copyto(panel, part[:, None] if part.ndim == 1 else part)
        panel *= counts(panel)
        return panel


class Lengths:
    """The lengths (B,) of the sequences; all T when None was given."""

    def __init__(self, values: Array | None, steps: int, batch: int):
        self.given = values is not None
        self.values = np.full(batch, steps, np.int64)
        if values is not None:
            self.values[:] = values

    def live(self, start: int, stop: int) -> Array:
        """Whether each (t, b) of the stretch lies within its sequence, (n, B)."""
        return np.arange(start, stop)[:, None] < self.values
