"""Memory as kernels need it: aligned, flat, never typed as read-only, and touched before.

The system provides fresh memory a page at a time, when it is first touched. That may take longer
than the sweep that touches it, and C's allocator soon returns freed memory to the system. So the
scratch of one call is pooled for the next.
"""

from math import prod

import numpy as np

_LINE = 64  # bytes: a vector across two lines of the cache takes two loads
_SMALL = 1 << 15  # bytes that are not worth pooling
_ALIGNED = 4096  # bytes from which the alignment matters
_MOST = 128_000_000  # bytes in the pool
_held = {}  # the pool: id -> array of bytes, the oldest first


class Workspace:
    """The scratch of one call; none of it may be used after `release`."""

    def __init__(self):
        self._taken = []

    def empty(self, shape, dtype):
        """Return an uninitialised C-contiguous array."""
        shape = (shape,) if isinstance(shape, int) else shape
        size = prod(shape) * dtype.itemsize
        if size < _ALIGNED:
            return np.empty(shape, dtype)
        memory = self.block(size + _LINE)
        offset = -memory.__array_interface__["data"][0] % _LINE
        return memory[offset : offset + size].view(dtype).reshape(shape)

    def block(self, size):
        """Return an uninitialised array of bytes, not aligned."""
        if size < _SMALL:
            return np.empty(size, np.uint8)
        memory = _take(size)
        self._taken.append(memory)
        return memory

    def release(self):
        """Return the memory to the pool."""
        if not self._taken:
            return
        taken, self._taken = self._taken, []
        for memory in taken:
            _held[id(memory)] = memory
        excess = sum(memory.nbytes for memory in tuple(_held.values())) - _MOST
        for memory in tuple(_held.values()):  # the oldest first
            if excess > 0 and _held.pop(id(memory), None) is not None:
                excess -= memory.nbytes


def _take(size):
    for memory in tuple(_held.values()):
        fits = size <= memory.nbytes <= size + size // 8
        if fits and _held.pop(id(memory), None) is not None:  # else another thread has it
            return memory
    return np.empty(size, np.uint8)


class _Memory:
    """An array's memory in NumPy's protocol: flat, and writable, as kernels are compiled for."""

    def __init__(self, array, size):
        self.array = array
        self.__array_interface__ = {
            "data": (array.__array_interface__["data"][0], False),
            "shape": (size,) if size is not None else array.shape,
            "typestr": array.dtype.str,
            "version": 3,
        }


def writable(array):
    """A C-contiguous array as a writable one: kernels are not compiled for read-only arrays."""
    return array if array.flags.writeable else np.asarray(_Memory(array, None))


def flat(array):
    """Return (flat array over a matrix's memory, numbers from row to row, and column to column)."""
    flags, item = array.flags, array.itemsize
    if flags.c_contiguous and flags.aligned and flags.writeable:
        return array.reshape(-1), array.shape[1], 1
    if not flags.aligned or any(step < 0 or step % item for step in array.strides):
        array = np.array(array, order="C")
    rows, columns = (step // item for step in array.strides)
    last = (array.shape[0] - 1) * rows + (array.shape[1] - 1) * columns
    return np.asarray(_Memory(array, last + 1)), rows, columns
