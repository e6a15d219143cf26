"""The threads of the process's one team: how many, awake when needed, gone after a fork.

Any cut of a kernel's range gives the same bits, so the number of threads never shows in a result.
"""

import os
import time
from functools import cache
from threading import Lock, Semaphore, Thread

import numpy as np

MOST_THREADS = 4096
_SMALL = 200_000  # multiply-adds in a call that are not worth waking anyone

_lock = Lock()
_team = None
_limit = None


@cache
def available_cpus():
    """CPUs this process may use: its affinity, cut by a container's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        count = os.cpu_count() or 1
    return max(1, min(count, _quota()))


def _quota():
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return max(1, round(int(quota) / int(period))) if quota != "max" else 1 << 30
    except (OSError, ValueError):
        return 1 << 30


def set_num_threads(n):
    """Set how many threads one call uses, the calling one included."""
    global _limit
    _limit = n


def get_num_threads():
    """How many threads one call uses."""
    return _limit or _from_environment() or available_cpus()


def _from_environment():
    text = os.environ.get("FASTBPTT_NUM_THREADS", "").strip()
    if not text:
        return None
    if not text.isdecimal() or len(text) > 10 or not 1 <= int(text) <= MOST_THREADS:
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise ValueError(
            f"FASTBPTT_NUM_THREADS must be a whole number from 1 to {MOST_THREADS}, not {shown!r}"
        )
    return int(text)


class Team:
    """Workers, and the mail through which compiled code reaches them (see `workers`)."""

    def __init__(self, workers):
        from .workers import LINE

        self.mail = np.zeros((workers + 1) * LINE, np.int64)
        self.states = self.mail[::LINE][1:]
        self.bells = [Semaphore(0) for _ in range(workers)]
        self.rung = [False] * workers
        for worker in range(workers):
            Thread(target=self._work, args=(worker,), name="fastbptt", daemon=True).start()

    def _work(self, worker):
        serve = _serve()
        while True:
            self.bells[worker].acquire()
            self.rung[worker] = False
            serve(self.mail, worker + 1)

    def wake(self):
        """Call back those who went to sleep; they come when they come."""
        for worker, state in enumerate(self.states):
            if state == 0 and not self.rung[worker]:
                self.rung[worker] = True
                self.bells[worker].release()


@cache
def _serve():
    from .workers import build_serve

    return build_serve()


def team(threads):
    """The team, with at least `threads` - 1 workers."""
    global _team
    if _team is None or len(_team.bells) < threads - 1:
        with _lock:
            if _team is None or len(_team.bells) < threads - 1:
                _team = Team(threads - 1)
    return _team


_SOLO = np.zeros(16, np.int64)


def hands(work, threads):
    """(mail, threads) for a kernel of so many multiply-adds: the team, or no one but the caller."""
    if threads == 1 or work < _SMALL:
        return _SOLO, 1
    own = team(threads)
    own.wake()
    return own.mail, threads


@cache
def barrier_seconds():
    """How long two threads take to meet, measured once: it is what distant cores differ in most.

    Infinity where the second thread does not come.
    """
    from .workers import build_barriers

    meet, found, count = build_barriers(), np.zeros(1, np.int64), 500
    best = float("inf")
    for _ in range(20):
        mail, _ = hands(_SMALL, 2)
        started = time.perf_counter()
        meet(mail, 2, found, count)
        if found[0] == 2:
            best = min(best, (time.perf_counter() - started) / count)
    return best


def _forget():
    global _team, _lock
    _team, _lock = None, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
