"""Threads that take turns at one object, whose calls are not made for two at once."""

from __future__ import annotations

import os
from threading import RLock
from typing import Any


class Turns:
    """Of one object: `with turns.mine():` waits until no other thread is in a call of it.

    A forked process has a lock of its own: the thread that held the parent's is not in it. What
    that thread was doing to the object has stopped midway there, so that it is of no use.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, Any] = {}

    def mine(self) -> Any:
        """The lock of this process, which a thread may take again while it holds it.

        Raises RuntimeError where the process was forked while another thread was in a call.
        """
        pid = os.getpid()
        lock = self._locks.get(pid)
        return self._forked(pid) if lock is None else lock

    def _forked(self, pid: int) -> Any:
        for other, lock in self._locks.copy().items():
            if other != pid and not lock.acquire(blocking=False):
                raise RuntimeError(
                    "this process was forked while another thread was in a call of this object, "
                    "which is not whole here: make a new one, or load or copy one before the fork"
                )
        return self._locks.setdefault(pid, RLock())

    def __reduce__(self) -> Any:
        """A copy of an object is used by itself."""
        return Turns, ()
