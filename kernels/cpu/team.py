"""Plain Python threads for jitted loops that hold no interpreter lock.

A kernel takes a range (low, high) as its last two arguments; any cut of the range gives the same
bits, so the number of threads never shows in a result.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Lock

_SMALL = 400_000  # multiply-adds below which handing work over costs more than it gives

_lock = Lock()
_pool = None
_limit = None


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
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"FASTBPTT_NUM_THREADS must be a positive integer, not {text!r}")
    return int(text)


def parts(work, total, threads=None):
    """Into how many parts `share` would cut a job."""
    return max(1, min(threads or get_num_threads(), total, 1 + work // _SMALL))


def share(kernel, work, total, *arguments, threads=1):
    """Run `kernel(*arguments, low, high)` over parts of range(total).

    `work` is the number of multiply-adds in all: a small job stays on the calling thread.
    """
    count = parts(work, total, threads)
    if count == 1:
        kernel(*arguments, 0, total)
        return
    cuts = [total * part // count for part in range(count + 1)]
    others = [_workers().submit(kernel, *arguments, low, high) for low, high in pairwise(cuts[1:])]
    try:
        kernel(*arguments, cuts[0], cuts[1])
    finally:  # arrays must outlive the workers, whatever interrupts this thread
        for other in others:
            other.result()


def _workers():
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(32, available_cpus()), "fastbptt")
        return _pool


def _forget():
    global _pool, _lock
    _pool, _lock = None, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
