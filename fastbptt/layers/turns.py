"""Threads that take turns at one object, whose calls are not made for two at once."""

from __future__ import annotations

import os
from threading import RLock
from typing import Any


class Turns:
    """Of one object: `with turns.mine():` waits until no other thread is in a call of it.

    A forked process has a lock of its own: the thread that held the parent's is not in it.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, Any] = {}

    def mine(self) -> Any:
        """The lock of this process, which a thread may take again while it holds it."""
        pid = os.getpid()
        lock = self._locks.get(pid)
        return self._locks.setdefault(pid, RLock()) if lock is None else lock

    def __reduce__(self) -> Any:
        """A copy of an object is used by itself."""
        return Turns, ()
