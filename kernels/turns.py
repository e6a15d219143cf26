"""Processes that take turns in compiling: one compiles a kernel, the others wait for its file.

Many processes are often started at once, on a machine where nothing is compiled yet. A turn is a
lock of the system on one byte of a file, so it ends with its process, whatever happens to that.
"""

import hashlib
import os
import time
from contextlib import suppress

from . import disk

try:
    import fcntl
except ImportError:  # Windows: each process compiles for itself
    fcntl = None

_PATIENCE = 120.0  # seconds for which another process is waited for; it may have been stopped
_PAUSE = 0.02
_files = {}  # open for as long as the process lives: to close one would end its turns


def _file(places):
    """A descriptor of the file that processes share in the first of the folders that allows it."""
    key = tuple(places)
    if key not in _files:
        _files[key] = None
        for folder in places:
            with suppress(OSError):
                os.makedirs(folder, disk.NEW_FOLDER, exist_ok=True)
                if disk.trusted(os.stat(folder)):
                    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
                    _files[key] = os.open(folder / "fastbptt.turns", flags, disk.NEW_FILE)
                    break
    return _files[key]


def _place(name):
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:3], "big")


def begin(name, places):
    """Wait until no other process makes the file of that name; returns whether one did.

    The turn is this process's until `end`. After a while it goes on without.
    """
    file, waited = _file(places) if fcntl else None, False
    ends = time.monotonic() + _PATIENCE
    while file is not None and time.monotonic() < ends:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(name))
            break
        except (BlockingIOError, PermissionError):
            waited = True
            time.sleep(_PAUSE)
        except OSError:  # a file system without locks
            break
    return waited


def end(name, places):
    """Let other processes make the file of that name, or find it made."""
    file = _file(places) if fcntl else None
    if file is not None:
        with suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_UN, 1, _place(name))
