"""The threads of the process's one team: their number, and waking them.

However a kernel's work is divided, the bits are the same: results do not depend on the number of
threads. After a fork the child makes a new team.
"""

import os
import time
from functools import cache
from threading import RLock, Semaphore, Thread

import numpy as np

from ..jit import prepare
from ..stacks import start
from .quota import quota

MOST_THREADS = 4096  # that a caller may ask for
_SMALL = 200_000  # multiply-adds in a call that are not worth waking a worker
_STACK = 1 << 20  # bytes for a worker; kernels take some 20 KiB of it
_PATIENCE = 1.0  # seconds before the next try, where the system refused a thread

_lock = RLock()  # a signal handler may make a call of its own in the middle of `team`
_team = None
_limit = None


def available_cpus():
    """CPUs this process may use now: its affinity, cut by a container's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        count = os.cpu_count() or 1
    return max(1, min(count, quota(), MOST_THREADS))


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
    """Workers, and the mailbox through which compiled code reaches them (see `workers`).

    There are fewer than wanted where the system refuses more threads; it is tried again later.
    """

    def __init__(self, wanted):
        from .workers import LINE

        self.wanted = wanted
        self.mailbox = np.zeros((wanted + 1) * LINE, np.int64)
        self.states = self.mailbox[::LINE][1:]
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
            self.serve(self.mailbox, worker + 1)

    def wake(self):
        """Wakes sleeping workers; does not wait for them."""
        if len(self.bells) < self.wanted and time.monotonic() > self.next_try:
            with _lock:
                self._add_workers()
        for worker in range(len(self.bells)):
            if self.states[worker] == 0 and not self.rung[worker]:
                self.rung[worker] = True
                self.bells[worker].release()

    def retire(self):
        """Let each worker end when it next has no work."""
        self.retired = True
        for bell in self.bells:
            bell.release()


@cache
def _serve():
    from .workers import build_serve

    serve = build_serve()
    # Compiled here, since a worker's stack is too small for it: see `stacks`.
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


def team_for(work, threads):
    """(mailbox, threads) for a kernel of so many multiply-adds: the team, or the caller alone."""
    if threads == 1 or work < _SMALL:
        return _SOLO, 1
    own = team(threads)
    own.wake()
    return own.mailbox, min(threads, len(own.bells) + 1)


@cache
def barrier_seconds():
    """How long a barrier of two threads takes, measured once in a process.

    Machines with distant cores differ most in it. Infinity where the second thread never joins.
    """
    from .barriers import build_barriers

    run, found, count = build_barriers(), np.zeros(1, np.int64), 500
    best = float("inf")
    for _ in range(20):
        mailbox, _ = team_for(_SMALL, 2)
        started = time.perf_counter()
        run(mailbox, 2, found, count)
        if found[0] == 2:
            best = min(best, (time.perf_counter() - started) / count)
    return best


def _forget():
    global _team, _lock
    _team, _lock = None, RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
