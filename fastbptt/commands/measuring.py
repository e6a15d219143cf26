"""How time and memory are measured."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

SETTLING = 0.05
"""Seconds that a turn first runs untimed: threads of the previous contestant still spin."""


def seconds(run: Callable[[], object]) -> float:
    """Return the seconds of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def turn(run: Callable[[], object], timed: int, long: float = float("inf")) -> list[float]:
    """Return the seconds of `timed` runs, after some that do not count.

    Where the first run takes `long` seconds or more, its time alone is returned.
    """
    begun = time.perf_counter()
    first = seconds(run)
    if first >= long:
        return [first]
    while time.perf_counter() - begun < SETTLING:
        run()
    return [seconds(run) for _ in range(timed)]


def medians(
    runs: dict[str, Callable[[], object]], rounds: int, timed: int, long: float
) -> dict[str, float]:
    """Return the median seconds of each run; they take turns, so that all meet the same noise."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name] += turn(run, timed, long)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def peak(run: Callable[[], Any]) -> tuple[Any, int]:
    """Return a result of bptt, and the peak of the bytes allocated beyond its gradients.

    The peak includes Python's own objects, which no plan counts. The kernels must be loaded before.
    """
    from ..kernels.cpu import memory

    memory._held.clear()  # workspace left by earlier calls would not be counted
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = run()
        most = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    returned = [*result.grad.arrays(), *([] if result.grad_x is None else [result.grad_x])]
    return result, most - sum(array.nbytes for array in returned)


def peak_resident() -> int:
    """Return the most bytes that this process has held in memory; on Linux alone."""
    # Not getrusage's: that of a new process begins with the peak of the one that started it.
    with open("/proc/self/status", encoding="ascii") as file:
        (peak,) = (line.split()[1] for line in file if line.startswith("VmHWM:"))
    return int(peak) * 1024
