"""A caller's arrays, one stretch of time at a time, as the kernels want them.

A stretch of a C-contiguous array is passed on as a view; of any other it is copied into a panel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .arrays import module_of
from .backends import Backend
from .typing import Array, DType, DTypeLike


@cache
def no_floats(xp: Any, dtype: DType) -> Array:
    """What kernels take for floats where there are none."""
    return xp.empty((0, 0, 0), dtype)


@cache
def no_ids(xp: Any) -> Array:
    """What kernels take for ids where there are none."""
    return xp.empty((0, 0), np.int64)


@cache
def no_weights(xp: Any) -> Array:
    """What kernels take for loss weights where there are none."""
    return xp.empty((0, 0))


class Floats:
    """A float array of shape (T, B, features)."""

    def __init__(self, device: Backend, values: Array, panel_steps: int):
        self.device = device
        self.direct = device.direct(values)
        self.values = device.writable(values) if self.direct else values
        shape = (panel_steps, *values.shape[1:])
        self._panel = None if self.direct else device.xp.empty(shape, values.dtype)
        self._no_ids = no_ids(device.xp)

    def stretch(self, start: int, stop: int) -> tuple[Array, Array]:
        """Rows start..stop and, since they are no tokens, no ids."""
        if self._panel is None:
            return self.values[start:stop], self._no_ids
        panel = self._panel[: stop - start]
        self.device.fill(panel, self.values[start:stop])
        return panel, self._no_ids


class Ids:
    """Integers of shape (T, B): classes 0..`classes`-1 wherever `counts` says that they count."""

    def __init__(
        self,
        device: Backend,
        name: str,
        values: Array,
        classes: int,
        dtype: DTypeLike,
        counts: Callable[[int, int], Array],
        panel_steps: int,
    ):
        self.device = device
        self.name = name
        self.values = values
        self.classes = classes
        self._counts = counts
        self._nothing = no_floats(device.xp, np.dtype(dtype))
        self._xp = module_of(getattr(values, "array", values))  # Turned, or an array
        self._panel = self._xp.empty((panel_steps, values.shape[1]), np.int64)

    def stretch(self, start: int, stop: int) -> tuple[Array, Array]:
        """No floats, and the ids of rows start..stop; those that do not count are 0.

        Raises ValueError that names the position of a class that does not exist.
        """
        given = self.values[start:stop]
        panel = self._panel[: stop - start]
        self._xp.copyto(
            panel, given, casting="unsafe"
        )  # uint64 beyond int64 turns negative: caught
        if panel.size and (panel.min() < 0 or panel.max() >= self.classes):
            wrong = (panel < 0) | (panel >= self.classes)
            panel[wrong] = 0
            bad = self.device.home(wrong) & self._counts(start, stop)
            if bad.any():
                t, b = np.argwhere(bad)[0].tolist()
                raise ValueError(
                    f"{self.name} must hold classes 0..{self.classes - 1}, "
                    f"but at t={start + t}, b={b} it is {given[t, b]}"
                )
        return self._nothing, self.device.here(panel)


_TINY = np.finfo(np.float64).tiny


def counts(weights: Array) -> Array:
    """Whether each loss weight is other than 0 for the kernels, which flush subnormal numbers."""
    if weights.dtype.kind != "f":  # the least of a signed type has no positive counterpart
        return weights != 0
    return ~(abs(weights) < _TINY)


class Weights:
    """Loss weights (T,) or (T, B), or None; float64 in the kernels."""

    def __init__(self, device: Backend, values: Array | None, batch: int, panel_steps: int):
        self.device = device
        self.values = values
        xp = device.xp
        self._panel = no_weights(xp) if values is None else xp.empty((panel_steps, batch))

    def stretch(self, start: int, stop: int) -> Array:
        """Rows start..stop, (n, B), or an empty array for no weights."""
        if self.values is None:
            return self._panel
        panel = self._panel[: stop - start]
        part = self.values[start:stop]
        if part.ndim == 1:
            part = module_of(part).broadcast_to(part[:, None], panel.shape)
        self.device.fill(panel, part)
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
