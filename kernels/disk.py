"""Files that stay between processes: compiled code, and measurements; and files that are whole.

`read` and `write` never raise errors. A file of theirs is a checksum and its content. A file that
cannot be read, is not whole, or may come from another user counts as missing. A file that cannot
be written is not stored.
"""

import hashlib
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

_CHECKSUM = hashlib.sha256
_SIZE = _CHECKSUM().digest_size
_OTHERS_WRITE = 0o022
NEW_FOLDER, NEW_FILE = 0o755, 0o644  # before the umask


def user_folder():
    """A list of this user's folder, empty where there is no home directory."""
    with suppress(RuntimeError):
        given = os.environ.get("XDG_CACHE_HOME")
        return [(Path(given) if given else Path.home() / ".cache") / "fastbptt"]
    return []


def folders():
    """Where compiled code may be stored, the best folder first."""
    from numba.core import config

    named = [Path(config.CACHE_DIR)] if config.CACHE_DIR else []
    return [*named, Path(__file__).parent / "__pycache__", *user_folder()]


def trusted(status):
    """Whether only this user and root can have written the file, or into the folder."""
    if os.name != "posix":
        return True
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & _OTHERS_WRITE


def _checksum(name, content):
    return _CHECKSUM(name.encode() + b"\0" + content).digest()


def read(name, places):
    """The content of the file of that name in one of the folders, or None."""
    for folder in places:
        with suppress(OSError):
            if not trusted(os.stat(folder)):
                continue
            with open(folder / name, "rb") as file:
                if not trusted(os.fstat(file.fileno())):
                    continue
                whole = file.read()
            content = whole[_SIZE:]
            if whole[:_SIZE] == _checksum(name, content):
                return content
    return None


def write(name, content, places):
    """Write a file into the first folder that allows it, atomically."""
    for folder in places:
        with suppress(OSError):
            os.makedirs(folder, NEW_FOLDER, exist_ok=True)
            if not trusted(os.stat(folder)):
                continue
            with replacing(folder / name, NEW_FILE) as file:
                file.write(_checksum(name, content) + content)
            return


@contextmanager
def replacing(path, mode=0o666):
    """Open a new binary file, which takes the place of `path` once it is whole, or is removed."""
    partial = path.with_name(f".fastbptt-{uuid4().hex}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(partial, flags, mode), "wb") as file:
            yield file
        os.replace(partial, path)
    finally:
        with suppress(OSError):
            os.unlink(partial)
