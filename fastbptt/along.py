"""Arrays of all T as one strand sees them: some of the columns, along time or against it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import module_of
from .backends import Backend
from .sources import Lengths
from .typing import Array


class Reversal:
    """Time turned round within the length of each sequence: step t of sequence b is L[b]-1-t."""

    def __init__(self, lengths: Lengths, steps: int):
        self.steps = steps
        self.lengths = lengths.values if lengths.given else None

    def _rows(self, start: int, stop: int) -> tuple[Array, Array]:
        # Steps past the end of a sequence read some row that exists: they do not count.
        assert self.lengths is not None
        times = self.lengths - 1 - np.arange(start, stop)[:, None]
        return times, times >= 0

    def read(self, array: Array, start: int, stop: int) -> Array:
        """The steps start..stop of `array` turned round, a view or a copy."""
        if self.lengths is None:
            return array[self.steps - stop : self.steps - start][::-1]
        times, _ = self._rows(start, stop)
        xp = module_of(array)
        return array[xp.asarray(np.maximum(times, 0)), xp.arange(array.shape[1])]

    def write(self, array: Array, start: int, stop: int, values: Array, adds: bool) -> None:
        """Set, or add to, the steps start..stop of `array` turned round."""
        if self.lengths is None:
            part = array[self.steps - stop : self.steps - start][::-1]
            part[...] = part + values if adds else values
            return
        times, live = self._rows(start, stop)
        xp = module_of(array)
        t, b = xp.asarray(times[live]), xp.asarray(np.nonzero(live)[1])
        some = values[xp.asarray(live)]
        array[t, b] = array[t, b] + some if adds else some


# What an array says of itself that must be copied to be read by a kernel.
_COPIED = np.empty((2, 2))[:, :1].flags


class Turned:
    """An array of T steps turned round, for reading a stretch at a time."""

    def __init__(self, array: Array, reversal: Reversal):
        self.array, self.reversal = array, reversal
        self.shape, self.dtype, self.flags = array.shape, array.dtype, _COPIED

    def __getitem__(self, index: slice) -> Array:
        """The steps of a slice."""
        return self.reversal.read(self.array, index.start, index.stop)


class Along:
    """Columns first..first+width of an array (T, B, ...), a stretch of a strand's time at a time.

    `adds`: what is written adds to what is there. Where the strand's stretch is the array's own
    memory nothing is copied.
    """

    def __init__(
        self,
        device: Backend,
        array: Array,
        steps: int,
        reversal: Reversal | None = None,
        first: int = 0,
        width: int | None = None,
        adds: bool = False,
    ):
        width = array.shape[2] if width is None else width
        self.part = array if width == array.shape[2] else array[:, :, first : first + width]
        self.device, self.reversal, self.adds = device, reversal, adds
        self._panel: Any = None
        if not adds and reversal is None and device.direct(self.part):
            self.part = device.writable(self.part)
        else:
            self._panel = device.xp.empty((steps, array.shape[1], width), array.dtype)

    def take(self, start: int, stop: int) -> Array:
        """The stretch (n, B, width), contiguous."""
        if self._panel is None:
            return self.part[start:stop]
        room = self._panel[: stop - start]
        values = (
            self.part[start:stop]
            if self.reversal is None
            else self.reversal.read(self.part, start, stop)
        )
        self.device.fill(room, values)
        return room

    def room(self, start: int, stop: int) -> Array:
        """Where to write the stretch; then say `done`."""
        return self.part[start:stop] if self._panel is None else self._panel[: stop - start]

    def done(self, start: int, stop: int) -> None:
        """Take over what was written to the room of the same stretch."""
        if self._panel is None:
            return
        values = self._panel[: stop - start]
        if module_of(self.part) is np:
            values = self.device.home(values)
        if self.reversal is not None:
            self.reversal.write(self.part, start, stop, values, self.adds)
        elif self.adds:
            self.part[start:stop] += values
        else:
            self.device.fill(self.part[start:stop], values)
