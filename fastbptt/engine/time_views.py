"""Arrays of all T as one direction sees them: some of the columns, along time or against it.

A view is data: which columns, which order of time, and a buffer where the kernels cannot work in
the array's own memory. `read`, `buffer` and `commit` do what it says, a span at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..arrays import AlongTime, Array, in_memory, module_of
from ..backends.base import Backend
from ..lazy import Lazy


class TimeReversal(NamedTuple):
    """Time reversed within the length of each sequence: step t of sequence b is L[b]-1-t.

    Where sequences are reset, it is reversed within each of their pieces, which stay in order.

    steps : T; lengths : (B,) integers, or None where all sequences have T steps and no resets
    pieces : as in `problem.Lengths`
    """

    steps: int
    lengths: Array | None
    pieces: Array | None = None


class TimeView(NamedTuple):
    """Columns of an array (T, B, width), in a direction's own time.

    array : those columns; device : whose kernels read and write
    buffer : (steps, B, width) on the device; None where the kernels work in `array` itself
    reversal : None along time
    adds : whether what is written adds to what is there
    """

    array: AlongTime
    device: Backend
    buffer: Array | None
    reversal: TimeReversal | None = None
    adds: bool = False


def view(
    device: Backend,
    array: AlongTime,
    steps: int,
    reversal: TimeReversal | None = None,
    columns: slice | None = None,
    adds: bool = False,
) -> TimeView:
    """Make a TimeView for spans of up to `steps` steps."""
    part = array if columns is None else array[:, :, columns]
    if not adds and reversal is None and device.zero_copy(part):
        return TimeView(device.writable(part), device, None)
    buffer = device.xp.empty((steps, *part.shape[1:]), array.dtype)
    return TimeView(part, device, buffer, reversal, adds)


def read(own: TimeView, start: int, stop: int) -> Array:
    """The span (n, B, width), contiguous and on the device."""
    if own.buffer is None:
        return own.array[start:stop]
    target = own.buffer[: stop - start]
    for a, b in pieces(own.array, start, stop):
        values = read_span(own.array, own.reversal, a, b)
        own.device.copy_to(target[a - start : b - start], values)
    return target


def buffer(own: TimeView, start: int, stop: int) -> Array:
    """Where to write the span; then `commit` it."""
    return own.array[start:stop] if own.buffer is None else own.buffer[: stop - start]


def commit(own: TimeView, start: int, stop: int) -> None:
    """Take over what was written to the buffer of the same span."""
    if own.buffer is None:
        return
    values: Any = own.buffer[: stop - start]
    if module_of(own.array) is np:
        values = own.device.home(values)
    if own.reversal is not None:
        _write_reversed(own, start, stop, values)
    elif own.adds:
        own.array[start:stop] += values
    else:
        own.device.copy_to(own.array[start:stop], values)


def pieces(array: AlongTime, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The steps start..stop in the pieces to read: one, unless the array is not in memory."""
    return array.pieces(start, stop) if isinstance(array, Lazy) else iter(((start, stop),))


def read_span(array: AlongTime, reversal: TimeReversal | None, start: int, stop: int) -> Array:
    """The steps start..stop of an array in that order of time, a view or a copy."""
    if reversal is None:
        return in_memory(array[start:stop])
    if reversal.lengths is None:
        return in_memory(array[reversal.steps - stop : reversal.steps - start])[::-1]
    times, _ = _rows(reversal, start, stop)
    return picked(array, np.maximum(times, 0), np.arange(array.shape[1]))


def picked(array: AlongTime, times: Array, rows: Array) -> Array:
    """The steps times (n, k) of the sequences rows (k,), in memory: (n, k, ...)."""
    if isinstance(array, Lazy):
        return array.picked(times, rows)
    xp = module_of(array)
    return array[xp.asarray(times), xp.asarray(rows)]


def _rows(reversal: TimeReversal, start: int, stop: int) -> tuple[Array, Array]:
    # Steps past the end of a sequence read some row that exists: they do not count.
    own = np.arange(start, stop)[:, None]
    ends, pieces = reversal.lengths, reversal.pieces
    times = (reversal.steps if ends is None else ends) - 1 - own
    if ends is not None and pieces is not None:
        for b, end in enumerate(ends.tolist()):
            cuts = np.array([0, *pieces[pieces[b] : pieces[b + 1]], end])
            number = np.searchsorted(cuts, own[:, 0], side="right").clip(max=len(cuts) - 1)
            inside = own[:, 0] < end
            times[inside, b] = (cuts[number - 1] + cuts[number] - 1 - own[:, 0])[inside]
    return times, times >= 0


def time_of(reversal: TimeReversal | None, t: int, b: int) -> int:
    """The time of an array that step t of sequence b is."""
    if reversal is None:
        return t
    times = _rows(reversal, t, t + 1)[0][0]
    return int(times[b] if len(times) > 1 else times[0])  # one for all where all have T steps


def _write_reversed(own: TimeView, start: int, stop: int, values: Array) -> None:
    array, reversal = own.array, own.reversal
    assert reversal is not None
    if reversal.lengths is None:
        part = array[reversal.steps - stop : reversal.steps - start][::-1]
        part[...] = part + values if own.adds else values
        return
    times, live = _rows(reversal, start, stop)
    xp = module_of(array)
    t, b = xp.asarray(times[live]), xp.asarray(np.nonzero(live)[1])
    some = values[xp.asarray(live)]
    array[t, b] = array[t, b] + some if own.adds else some
