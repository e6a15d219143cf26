"""Memory as the kernels like it: aligned, flat, and never typed as read-only."""

from math import prod

import numpy as np

_LINE = 64  # bytes: a vector that straddles two lines of the cache takes two loads
_SMALL = 4096  # bytes below which it does not matter


def empty(shape, dtype):
    """An uninitialised C-contiguous array that begins on a cache line."""
    shape = (shape,) if isinstance(shape, int) else shape
    size = prod(shape) * dtype.itemsize
    if size < _SMALL:
        return np.empty(shape, dtype)
    memory = np.empty(size + _LINE, np.uint8)
    return on_a_line(memory, size).view(dtype).reshape(shape)


def on_a_line(memory, size):
    """The first `size` of bytes that begin on a cache line; `memory` holds at least 64 more."""
    offset = -memory.__array_interface__["data"][0] % _LINE
    return memory[offset : offset + size]


class _Memory:
    """An array's memory as NumPy is told of it: flat, and writable as kernels are compiled for."""

    def __init__(self, array, size):
        self.array = array
        self.__array_interface__ = {
            "data": (array.__array_interface__["data"][0], False),
            "shape": (size,) if size is not None else array.shape,
            "typestr": array.dtype.str,
            "version": 3,
        }


def writable(array):
    """A C-contiguous array as one that kernels take, which are not compiled for read-only ones."""
    return array if array.flags.writeable else np.asarray(_Memory(array, None))


def flat(array):
    """(flat array over the memory of a matrix, its steps from row to row and column to column)."""
    flags, item = array.flags, array.itemsize
    if flags.c_contiguous and flags.aligned and flags.writeable:
        return array.reshape(-1), array.shape[1], 1
    if not flags.aligned or any(step < 0 or step % item for step in array.strides):
        array = np.array(array, order="C")
    rows, columns = (step // item for step in array.strides)
    last = (array.shape[0] - 1) * rows + (array.shape[1] - 1) * columns
    return np.asarray(_Memory(array, last + 1)), rows, columns
