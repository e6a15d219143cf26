"""The one compilation policy: strict IEEE arithmetic, no interpreter lock, cached on disk.

Bits: no fast-math flag is ever set. Every fused multiply-add is written out, so a result does not
depend on how LLVM vectorises, unrolls or inlines a loop.

Cache: Numba keys its disk cache on the function's own code and file, not on what the function
calls. Every entry kernel therefore closes over `SOURCE_KEY`, which changes with any kernel source.
"""

import numba

from . import SOURCE_KEY  # noqa: F401 - the entry kernels take it from here

OPTIONS = {"nogil": True, "error_model": "numpy"}

inner = numba.njit(**OPTIONS)
"""Decorate a function that is only called from other kernels."""

INLINED = {**OPTIONS, "forceinline": True}

scalar = numba.njit(**INLINED)
"""Decorate a function of numbers: always inlined, so that the loop around it vectorises."""


def entry(function):
    """Decorate a kernel that Python calls; its closure must name `SOURCE_KEY`."""
    try:
        return numba.njit(**OPTIONS, cache=True)(function)
    except RuntimeError:  # nowhere to write: neither beside the package nor in the home directory
        return numba.njit(**OPTIONS)(function)
