"""How much of the machine's memory is free for this process: `memory="auto"` takes at most half."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..kernels.cpu.groups import LISTED, ROOT, folders, lines, words

_UNKNOWN = 1 << 32  # bytes, where the system says nothing
_NONE = 1 << 60  # bytes: version 1 of the groups writes a huge number for no limit
# By version of the control groups: the limit, what is used, and the part of that which is a copy
# of files that the system drops when memory is short.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_bytes() -> int:
    """Bytes that this process may still allocate; where unknown, half of all."""
    found = known_bytes()
    return _half_of_all() if found is None else found


def known_bytes(
    meminfo: str = "/proc/meminfo", groups: str = LISTED, root: str = ROOT
) -> int | None:
    """Bytes that this process may still allocate; None where the system does not say.

    On Linux the least of what the whole system has and what each control group leaves that the
    process is in; on Windows what the system calls available.
    """
    if sys.platform == "win32":
        return _of_windows()
    return min([*_of_system(meminfo), *_of_groups(groups, root)], default=None)


def _of_system(meminfo: str) -> Iterator[int]:
    for line in lines(meminfo):
        name, _, rest = line.partition(":")
        size = rest.split()
        if name == "MemAvailable" and size and size[0].isdecimal():
            yield int(size[0]) * 1024


def _of_groups(groups: str, root: str) -> Iterator[int]:
    for folder in folders("memory", groups, root):
        for limit, used, dropped in _FILES:
            most = _number(folder / limit)
            now = _number(folder / used) if most is not None and most < _NONE else None
            if most is not None and now is not None:
                yield max(0, most - max(0, now - _of_files(folder, dropped)))


def _number(path: Path) -> int | None:
    found = words(path)
    return int(found[0]) if len(found) == 1 and found[0].isdecimal() else None


def _of_files(folder: Path, name: str) -> int:
    found = (line.split() for line in lines(folder / "memory.stat"))
    return sum(int(own[1]) for own in found if len(own) == 2 and own[0] == name)


class _Status(ctypes.Structure):
    """What Windows fills in: MEMORYSTATUSEX."""

    _fields_ = [
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("all", "available", "pages", "free", "own", "ours")),
        ("extended", ctypes.c_uint64),
    ]


def _of_windows() -> int | None:
    status = _Status(length=ctypes.sizeof(_Status))
    kernel: Any = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]
    return int(status.available) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None


def _half_of_all() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return _UNKNOWN
