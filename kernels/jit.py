"""The one compilation policy: strict IEEE arithmetic, no interpreter lock, cached on disk.

Bits: no fast-math flag is ever set. Every fused multiply-add is written out, so a result does not
depend on how LLVM vectorises, unrolls or inlines a loop.

Cache: Numba keys its disk cache on the function's own code and file, not on what the function
calls. Every entry kernel therefore closes over `SOURCE_KEY`, which changes with any kernel source.
"""

import hashlib
from pathlib import Path

import numba


def _source_key():
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


SOURCE_KEY = _source_key()

OPTIONS = {"nogil": True, "error_model": "numpy"}

inner = numba.njit(**OPTIONS)
"""Decorate a function that is only called from other kernels."""

INLINED = {**OPTIONS, "forceinline": True}

scalar = numba.njit(**INLINED)
"""Decorate a function of numbers: inlined always, else LLVM could not vectorise the loop around it."""


def entry(function):
    """Decorate a kernel that Python calls; its closure must name `SOURCE_KEY`."""
    try:
        return numba.njit(**OPTIONS, cache=True)(function)
    except RuntimeError:  # nowhere to write: neither beside the package nor in the home directory
        return numba.njit(**OPTIONS)(function)
