"""Lists of sequences of different lengths as one array, padded or packed end to end, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import arguments
from ..arrays import Array, home, module_of


def pad(sequences: Sequence[Array]) -> tuple[Array, Array]:
    """Put sequences beside each other, with zeros after their ends.

    Parameters
    ----------
    sequences : list of B arrays of one dtype that differ in their first axis alone, time: inputs
        (T_b, I), tokens or classes (T_b,), targets (T_b, O). T_b may be 0

    Returns
    -------
    x : (T, B, ...) array, T being the longest of them
    lengths : (B,) int64, T_b of each, for the argument `lengths`

    Raises
    ------
    ValueError, TypeError : no sequences, or one that differs from the first in dtype or other axes
    """
    given = _checked(sequences)
    steps = [len(one) for one in given]
    x = _zeros(given[0], max(steps), len(given))
    for b, one in enumerate(given):
        x[: len(one), b] = one
    return x, np.array(steps, np.int64)


def pack(sequences: Sequence[Array], batch: int = 1) -> tuple[Array, Array, Array, Array]:
    """Lay sequences end to end in `batch` rows, which become about equally long.

    The longest go first, each to the row that is the shortest so far. Where a sequence lies depends
    on the lengths and on `batch` alone: inputs and their targets, packed apart, fit together.

    Parameters
    ----------
    sequences : list of arrays as in `pad`
    batch : B, the number of rows

    Returns
    -------
    x : (T, B, ...) array, T being the longest row; 0 after the end of a row
    resets : (T, B) booleans, True where a sequence begins, for the argument `resets`
    lengths : (B,) int64, the steps of each row, for the argument `lengths`
    where : (n, 3) int64, for each sequence b, start and stop: it is x[start:stop, b]

    Raises
    ------
    ValueError, TypeError : no sequences, or one that differs from the first in dtype or other axes;
        `batch` is no integer of 1 or more
    """
    given = _checked(sequences)
    batch = arguments.integer("batch", batch, 1)
    where, ends = _layout([len(one) for one in given], batch)
    x = _zeros(given[0], int(ends.max()), batch)
    resets = np.zeros(x.shape[:2], bool)
    for one, (b, start, stop) in zip(given, where.tolist(), strict=True):
        x[start:stop, b] = one
        resets[start : start + (stop > start), b] = True
    return x, module_of(x).asarray(resets), ends, where


def unpad(h: Array, lengths: Any) -> list[Array]:
    """Take sequences that `pad` has put beside each other apart again.

    Parameters
    ----------
    h : (T, B, ...) array, such as the states or outputs of a call on what `pad` gave
    lengths : (B,) integers, as `pad` gave them; or one, where h is without the batch axis

    Returns
    -------
    list of B new arrays (T_b, ...)

    Raises
    ------
    ValueError, TypeError : lengths that do not fit h
    """
    h = arguments.array("h", h)
    if isinstance(lengths, (int, np.integer)) and 0 < h.ndim < 3:
        h, lengths = h[:, None], [lengths]
    _check_axes(h)
    ends = _integers("lengths", lengths, (h.shape[1],))
    for b, end in enumerate(ends):
        arguments.integer(f"lengths[{b}]", end, 0, len(h))
    return [h[:end, b].copy() for b, end in enumerate(ends)]


def unpack(h: Array, where: Array) -> list[Array]:
    """Take sequences that `pack` has laid end to end apart again.

    Parameters
    ----------
    h : (T, B, ...) array, such as the states or outputs of a call on what `pack` gave
    where : (n, 3) integers, as `pack` gave them

    Returns
    -------
    list of n new arrays (T_i, ...), in the order in which `pack` was given them

    Raises
    ------
    ValueError, TypeError : `where` does not fit h
    """
    h = arguments.array("h", h)
    _check_axes(h)
    rows = _integers("where", where, ("n", 3))
    for i, (b, start, stop) in enumerate(rows):
        if not (0 <= b < h.shape[1] and 0 <= start <= stop <= len(h)):
            raise ValueError(
                f"where must lie within h of {len(h)} steps and {h.shape[1]} rows, "
                f"but where[{i}] is {b, start, stop}"
            )
    return [h[start:stop, b].copy() for b, start, stop in rows]


def _layout(steps: list[int], batch: int) -> tuple[Array, Array]:
    """Row, start and stop of each sequence, and the steps of each row."""
    ends = np.zeros(batch, np.int64)
    where = np.zeros((len(steps), 3), np.int64)
    for i in sorted(range(len(steps)), key=lambda i: -steps[i]):
        b = int(ends.argmin())
        where[i] = b, ends[b], ends[b] + steps[i]
        ends[b] += steps[i]
    return where, ends


def _checked(sequences: Any) -> list[Array]:
    if not isinstance(sequences, (list, tuple)):
        raise TypeError(f"sequences must be a list of arrays, not {arguments.describe(sequences)}")
    if not sequences:
        raise ValueError("sequences must hold at least one array, not none")
    given = [arguments.array(f"sequences[{i}]", one) for i, one in enumerate(sequences)]
    first = given[0]
    for i, one in enumerate(given):
        name = f"sequences[{i}]"
        if one.ndim not in (1, 2):
            raise ValueError(f"{name} must have shape (T,) or (T, I), not {one.shape}")
        if one.dtype != first.dtype:
            raise TypeError(f"{name} must be {first.dtype} like sequences[0], not {one.dtype}")
        if module_of(one) is not module_of(first):
            raise TypeError(f"{name} must lie where sequences[0] does, not on another device")
        arguments.check_shape(name, one, ("T", *first.shape[1:]))
    return given


def _zeros(like: Array, steps: int, batch: int) -> Array:
    return module_of(like).zeros((steps, batch, *like.shape[1:]), like.dtype)


def _check_axes(h: Array) -> None:
    if h.ndim < 2:
        raise ValueError(f"h must have shape (T, B, ...), not {h.shape}")


def _integers(name: str, value: Any, shape: tuple[int | str, ...]) -> list[Any]:
    """Integers of that shape as Python's own."""
    found = np.asarray(value) if isinstance(value, (list, tuple)) else arguments.array(name, value)
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, not {found.dtype}")
    arguments.check_shape(name, found, shape)
    return home(found).tolist()
