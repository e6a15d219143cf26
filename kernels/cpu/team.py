"""The threads of the process's one team: how many, awake when needed, gone after a fork.

Any cut of a kernel's range gives the same bits, so the number of threads never shows in a result.
"""

import os
import time
from functools import cache
from threading import RLock, Semaphore, Thread

import numpy as np

from ..jit import prepare
from ..stacks import start
from .quota import quota

MOST = 4096  # threads that may be asked for
_SMALL = 200_000  # multiply-adds in a call that are not worth waking anyone
_STACK = 1 << 20  # bytes for a worker; kernels take some 20 KiB of it
_PATIENCE = 1.0  # seconds before a system that refused a thread is asked again

_lock = RLock()  # a signal's handler may make a call of its own in the middle of `team`
_team = None
_limit = None


def available_cpus():
    """CPUs this process may use now: its affinity, cut by a container's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        count = os.cpu_count() or 1
    return max(1, min(count, quota(), MOST))


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
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= MOST:
        raise ValueError(
            f"FASTBPTT_NUM_THREADS must be a positive integer of at most {MOST}, not {text!r}"
        )
    return int(text)


class Team:
    """Workers, and the mail through which compiled code reaches them (see `workers`).

    There are fewer than wanted where the system refuses more threads; it is asked again later.
    """

    def __init__(self, wanted):
        from .workers import LINE

        self.wanted = wanted
        self.mail = np.zeros((wanted + 1) * LINE, np.int64)
        self.states = self.mail[::LINE][1:]
        self.bells, self.rung = [], []
        self.retired = False
        self.serve = _serve()
        self._add_workers()

    def _add_workers(self):
        while len(self.bells) < self.wanted:
            worker, bell = len(self.bells), Semaphore(0)
            work = Thread(target=self._work, args=(worker, bell), name="fastbptt", daemon=True)
            if not start(work, _STACK):
                break
            self.rung.append(False)
            self.bells.append(bell)
        self.next_try = time.monotonic() + _PATIENCE

    def _work(self, worker, bell):
        while True:
            bell.acquire()
            self.rung[worker] = False
            if self.retired:
                return
            self.serve(self.mail, worker + 1)

    def wake(self):
        """Call back those who went to sleep; they come when they come."""
        if len(self.bells) < self.wanted and time.monotonic() > self.next_try:
            with _lock:
                self._add_workers()
        for worker in range(len(self.bells)):
            if self.states[worker] == 0 and not self.rung[worker]:
                self.rung[worker] = True
                self.bells[worker].release()

    def retire(self):
        """Let the workers end, each when it is next without work."""
        self.retired = True
        for bell in self.bells:
            bell.release()


@cache
def _serve():
    from .workers import build_serve

    serve = build_serve()
    # Now, since a worker is no place for it: see `stacks`.
    prepare(serve, np.zeros(0, np.int64), 1)
    return serve


def team(threads):
    """The team, with `threads` - 1 workers or more if the system allows them."""
    global _team
    if _team is None or _team.wanted < threads - 1:
        with _lock:
            if _team is None or _team.wanted < threads - 1:
                larger = Team(threads - 1)
                former, _team = _team, larger
                if former is not None:
                    former.retire()
    return _team


_SOLO = np.zeros(16, np.int64)


def hands(work, threads):
    """(mail, threads) for a kernel of so many multiply-adds: the team, or no one but the caller."""
    if threads == 1 or work < _SMALL:
        return _SOLO, 1
    own = team(threads)
    own.wake()
    return own.mail, min(threads, len(own.bells) + 1)


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
    _team, _lock = None, RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
