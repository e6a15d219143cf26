"""What a direction reads, one span of time at a time, as the kernels want it.

A reader is data; `read` does what it says. A span of a C-contiguous array is passed on as a view,
of any other it is copied into a buffer. Tokens and classes are checked as they are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from ..arrays import AlongTime, Array, DType, in_memory, module_of
from ..backends.base import Backend
from .time_views import TimeReversal, pieces, read_span, time_of


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
    return xp.empty((0, 0, 0))


@dataclass(frozen=True, eq=False)
class FloatReader:
    """A float array of shape (T, B, features).

    buffer : (steps, B, features) on the device; None where the kernels read `array` itself
    """

    device: Backend
    array: AlongTime
    buffer: Array | None
    reversal: TimeReversal | None = None


@dataclass(frozen=True, eq=False)
class TokenReader:
    """Integers of shape (T, B): classes 0..`classes`-1 wherever `counted` says that they count.

    name : the argument that they are, for errors
    counted : `counted(start, stop)`, (n, B) booleans, in the reader's own time
    buffer : (steps, B) int64, where `array` lies
    dtype : of the floats that are not there
    """

    device: Backend
    array: AlongTime
    name: str
    classes: int
    dtype: DType
    counted: Callable[[int, int], Array]
    buffer: Array
    reversal: TimeReversal | None = None


Reader: TypeAlias = FloatReader | TokenReader


def float_reader(
    device: Backend, array: AlongTime, steps: int, reversal: TimeReversal | None = None
) -> FloatReader:
    """Make a reader of floats for spans of up to `steps` steps."""
    if reversal is None and device.zero_copy(array):
        return FloatReader(device, device.writable(array), None)
    buffer = device.xp.empty((steps, *array.shape[1:]), array.dtype)
    return FloatReader(device, array, buffer, reversal)


def token_reader(
    device: Backend,
    array: AlongTime,
    steps: int,
    *,
    name: str,
    classes: int,
    dtype: DType,
    counted: Callable[[int, int], Array],
    reversal: TimeReversal | None = None,
) -> TokenReader:
    """Make a reader of tokens or classes for spans of up to `steps` steps: see TokenReader."""
    buffer = module_of(array).empty((steps, array.shape[1]), np.int64)
    return TokenReader(device, array, name, classes, dtype, counted, buffer, reversal)


def read(reader: Reader, start: int, stop: int) -> tuple[Array, Array]:
    """Floats (n, B, features) and no ids, or no floats and ids (n, B); one of them is empty.

    Raises ValueError that names the position of a token or class that does not exist.
    """
    xp = reader.device.xp
    if isinstance(reader, TokenReader):
        return no_floats(xp, reader.dtype), _read_ids(reader, start, stop)
    if reader.buffer is None:
        return reader.array[start:stop], no_ids(xp)
    buffer = reader.buffer[: stop - start]
    for a, b in pieces(reader.array, start, stop):
        values = read_span(reader.array, reader.reversal, a, b)
        reader.device.copy_to(buffer[a - start : b - start], values)
    return buffer, no_ids(xp)


def one_hot(ids: Array, classes: int, dtype: DType) -> Array:
    """Tokens (n, B) as vectors (n, B, classes) of zeros and a one."""
    found = np.zeros((*ids.shape, classes), dtype)
    np.put_along_axis(found, ids[..., None], 1, axis=2)
    return found


def _read_ids(reader: TokenReader, start: int, stop: int) -> Array:
    ids = reader.buffer[: stop - start]
    for a, b in pieces(reader.array, start, stop):
        given = read_span(reader.array, reader.reversal, a, b)
        # uint64 beyond int64 turns negative, and is found below
        module_of(given).copyto(ids[a - start : b - start], given, casting="unsafe")
    if ids.size and (ids.min() < 0 or ids.max() >= reader.classes):
        wrong = (ids < 0) | (ids >= reader.classes)
        ids[wrong] = 0  # those that do not count may hold anything
        bad = reader.device.home(wrong) & reader.counted(start, stop)
        if bad.any():
            t, b = np.argwhere(bad)[0].tolist()
            at = time_of(reader.reversal, start + t, b)
            value = in_memory(reader.array[at : at + 1])[0, b]
            raise Misplaced(reader.name, reader.classes, at, b, value, reader.dtype.name).error()
    return reader.device.here(ids)


@dataclass(frozen=True)
class Misplaced:
    """A token or class that does not exist: of the argument `name`, at step t of sequence b.

    b : None where `name` is that of a single sequence; dtype : of the features that x may have
    """

    name: str
    classes: int
    t: int
    b: int | None
    value: Any
    dtype: str

    def error(self) -> ValueError:
        """The error that says so; `misplaced` finds this again in it."""
        where = f"t={self.t}" if self.b is None else f"t={self.t}, b={self.b}"
        hint = f": integers are tokens; give features as .astype({self.dtype!r})"
        error = ValueError(
            f"{self.name} must hold classes 0..{self.classes - 1}, but at {where} "
            f"it is {self.value}{hint if self.name.startswith('x') else ''}"
        )
        vars(error)["_misplaced"] = self
        return error


def misplaced(error: ValueError) -> Misplaced | None:
    """What an error says about a token or class, if it is about one."""
    found: Misplaced | None = vars(error).get("_misplaced")
    return found


_TINY = np.finfo(np.float64).tiny


def counts(weights: Array) -> Array:
    """Whether each loss weight is other than 0 for the kernels, which flush subnormal numbers."""
    if weights.dtype.kind != "f":  # the least of a signed type has no positive counterpart
        return weights != 0
    return ~(abs(weights) < _TINY)


@dataclass(frozen=True, eq=False)
class WeightReader:
    """Loss weights (T,), (T, B) or (T, B, O), or None; float64 in the kernels.

    buffer : (steps, B, 1 or O) float64 on the device, or empty for no weights
    """

    device: Backend
    array: AlongTime | None
    buffer: Array


def weight_reader(device: Backend, array: AlongTime | None, batch: int, steps: int) -> WeightReader:
    """Make a reader of loss weights for spans of up to `steps` steps."""
    if array is None:
        return WeightReader(device, None, no_weights(device.xp))
    each = array.shape[2] if array.ndim == 3 else 1
    return WeightReader(device, array, device.xp.empty((steps, batch, each)))


def read_weights(reader: WeightReader, start: int, stop: int) -> Array:
    """Rows start..stop, (n, B, 1 or O), or an empty array for no weights."""
    if reader.array is None:
        return reader.buffer
    buffer = reader.buffer[: stop - start]
    for a, b in pieces(reader.array, start, stop):
        part, target = in_memory(reader.array[a:b]), buffer[a - start : b - start]
        while part.ndim < 3:
            part = part[..., None]
        reader.device.copy_to(target, module_of(part).broadcast_to(part, target.shape))
    buffer *= counts(buffer)
    return buffer
