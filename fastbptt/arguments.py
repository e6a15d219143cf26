"""Checks of arguments. Every message names the argument, what was expected and what was got."""

from __future__ import annotations

import operator
import os
from collections.abc import Collection
from typing import IO, Any, TypeAlias, cast

import numpy as np

from . import arrays
from .arrays import AlongTime, Array, DType, Shape

Seed: TypeAlias = "int | np.random.Generator | None"
"""A seed, a NumPy Generator, or None for numbers that differ in every call."""

Path: TypeAlias = "str | os.PathLike[str]"
"""A path, as a string or a Path."""

File: TypeAlias = "Path | IO[bytes]"
"""A path, or an open binary file."""

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_EXPECTED = "an array of bool, integers, float32 or float64"
MOST = 2**63 - 1
"""The largest count, time or number of bytes: each must fit into 64 bits."""


def describe(value: object) -> str:
    """A value in a few words, for an error message."""
    if isinstance(value, np.ma.MaskedArray):
        return "a masked array"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array of shape {value.shape}"
    return f"{type(value).__name__} {shown(value)}"


def shown(value: object) -> str:
    """A value as an error message shows it: at most 60 characters."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"{'-' * (value < 0)}2**{value.bit_length() - 1} or more"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # raised by the caller's own __repr__
        return "that cannot be shown"
    return text if len(text) <= 60 else text[:57] + "..."


def array(name: str, value: Any, expected: str = _EXPECTED) -> Array:
    """`value` as a plain NumPy array, or on a GPU as a CuPy array: see `arrays.taken`.

    Raises TypeError for what is no plain array of real numbers.
    """
    return cast(Array, _taken(name, value, expected, lazy=False))


def along_time(name: str, value: Any) -> AlongTime:
    """`value` as `array` returns it, but what is not in memory stays where it is: a Lazy."""
    return _taken(name, value, _EXPECTED, lazy=True)


def _taken(name: str, value: Any, expected: str, lazy: bool) -> AlongTime:
    try:
        return arrays.taken(name, value, lazy)
    except arrays.Unreadable as error:
        why = f": {error}" if str(error) else ""
        raise TypeError(f"{name} must be {expected}, not {describe(value)}{why}") from None


def floats(name: str, value: Any, shape: Shape, dtype: DType | None = None) -> Array:
    """`value` as a float32 or float64 array of that shape, and of that dtype if one is given.

    A letter in the shape stands for an axis of any size. Raises TypeError for another dtype,
    ValueError for another shape.
    """
    value = array(name, value)
    check_floats(name, value, shape, dtype)
    return value


def check_floats(name: str, value: AlongTime, shape: Shape, dtype: DType | None = None) -> None:
    """Raise as `floats` does unless an array that `array` or `along_time` returned is as asked."""
    if dtype is None:
        if value.dtype not in FLOATS:
            raise TypeError(f"{name} must be float32 or float64, not {value.dtype}")
    elif value.dtype != dtype:
        raise TypeError(
            f"{name} must be {dtype}, the dtype of the weights, not {value.dtype}: convert it, "
            f"since no call casts silently (of a list, make numpy.asarray(..., {dtype.name!r}))"
        )
    check_shape(name, value, shape)


def check_shape(name: str, value: AlongTime, shape: Shape) -> None:
    """Raise ValueError unless the shape fits; a letter in `shape` is an axis of any size."""
    if value.shape == shape:
        return
    fits = value.ndim == len(shape) and all(
        isinstance(due, str) or due == size for due, size in zip(shape, value.shape, strict=True)
    )
    if not fits:
        due = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
        raise ValueError(f"{name} must have shape {due}, not {value.shape}")


def integer(name: str, value: Any, least: int, most: int | None = MOST) -> int:
    """`value` as an int, least <= value <= most; `most=None` sets no upper bound.

    Raises TypeError for what is no integer (bool included), ValueError outside the bounds.
    """
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, not {describe(value)}")
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {describe(value)}") from None
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {shown(value)}")
    if most is not None and value > most:
        why = ", to fit into 64 bits" if most == MOST else ""
        raise ValueError(f"{name} must be at most {most}{why}, not {shown(value)}")
    return value


def dtype(value: Any) -> DType:
    """`value` as NumPy's float32 or float64; raises TypeError for any other."""
    try:
        found = np.dtype(value)
    except (TypeError, ValueError, SyntaxError):
        found = None
    if value is None or found is None or found not in FLOATS:  # NumPy reads None as float64
        raise TypeError(f"dtype must be float32 or float64, not {shown(value)}")
    return found


def choice(name: str, value: Any, options: Collection[str]) -> str:
    """Return `value`, which must be one of the strings in `options`."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {_listed(options)}, not {describe(value)}")
    if value not in options:
        raise ValueError(f"{name} must be one of {_listed(options)}, not {shown(value)}")
    return value


def flag(name: str, value: Any) -> bool:
    """Return `value` as a bool; raises TypeError unless it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, not {describe(value)}")
    return bool(value)


def _listed(options: Collection[str]) -> str:
    return ", ".join(repr(option) for option in options)
