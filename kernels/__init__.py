"""Numba kernels of fastbptt: the cells' maths and, one folder a device, the sweeps over time."""

import hashlib
import os
from pathlib import Path


def _refuse_subinterpreters():
    """Raise in any interpreter of the process but the first, where Numba crashes or hangs."""
    try:
        try:
            import _interpreters as interpreters
        except ImportError:  # Python 3.12 and before
            import _xxsubinterpreters as interpreters
    except ImportError:
        return
    if interpreters.get_current() != interpreters.get_main():
        raise RuntimeError(
            "fastbptt works in the main interpreter of a process only, not in a subinterpreter: "
            "Numba, which compiles its kernels, does not support them"
        )


_refuse_subinterpreters()


def source_key():
    """The key of all kernel sources as they are now on disk."""
    digest = hashlib.sha256(os.environ.get("FASTBPTT_VECTOR_BYTES", "").encode())
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# Taken here, before any kernel module is read: code edited in between must not go by the new key.
SOURCE_KEY = source_key()
