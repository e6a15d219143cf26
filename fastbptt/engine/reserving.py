"""Arrays that nobody reads or writes: a layout is made over them, for their sizes and addresses."""

from __future__ import annotations

from math import prod
from mmap import mmap

import numpy as np

from ..arrays import Array, DType


def reserved(shape: tuple[int, ...], dtype: DType) -> Array:
    """An array of which there are addresses, and no memory as long as nobody touches it."""
    size = prod(shape)
    return np.frombuffer(mmap(-1, max(1, size * dtype.itemsize)), dtype, size).reshape(shape)
