"""A key of all kernel sources, in the names of compiled code on disk."""

import hashlib
import os
from pathlib import Path

from . import interpreter  # noqa: F401 - refuses those in which Numba would crash


def source_key():
    """The key of all kernel sources as they are on disk now."""
    digest = hashlib.sha256(os.environ.get("FASTBPTT_VECTOR_BYTES", "").encode())
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# Taken here, before any kernel module is read: sources edited later must not get this key.
SOURCE_KEY = source_key()
