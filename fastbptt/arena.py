"""Memory for a call's checkpoints and cached steps, which the next call may use again.

The system hands out fresh memory a page at a time, as it is first touched, and that takes longer
than a sweep over it. C's allocator gives large pieces back to the system at once; so the last one
is held here for the next call, if it is not too large either.
"""

import numpy as np

from .kernels.cpu.memory import on_a_line

_LINE = 64
_LEAST, _MOST = 32_000_000, 128_000_000  # bytes that are worth holding
_held = []


def take(size, dtype):
    """Return an uninitialised array of `size` numbers; what was held and does not fit is freed."""
    wanted = size * dtype.itemsize + _LINE
    try:
        memory = _held.pop()
    except IndexError:  # no test before: another thread may take it meanwhile
        memory = None
    if memory is None or not wanted <= memory.nbytes <= wanted + wanted // 8:
        memory = np.empty(wanted, np.uint8)
    return on_a_line(memory, size * dtype.itemsize).view(dtype)


def give(array):
    """Hold the memory of an array from `take` to which nobody refers any more."""
    memory = array.base
    if _LEAST <= memory.nbytes <= _MOST:
        _held[:] = [memory]
