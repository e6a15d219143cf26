"""How time and memory are measured."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

SETTLING = 0.05
"""Seconds that a turn first runs untimed: threads of whoever came before spin on for a while."""


def turn(run: Callable[[], object], timed: int, long: float = float("inf")) -> list[float]:
    """Return the seconds of `timed` runs, or of one that takes `long` and so needs no settling."""
    begun = time.perf_counter()
    run()
    first = time.perf_counter() - begun
    if first >= long:
        return [first]
    while time.perf_counter() - begun < SETTLING:
        run()
    seconds = []
    for _ in range(timed):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def peak(run: Callable[[], Any]) -> tuple[Any, int]:
    """Return a result of bptt, and the peak of the bytes allocated beyond the gradients in it.

    Python's own objects are among them, which no plan counts. The kernels must have been loaded.
    """
    from ..kernels.cpu import memory

    memory._held.clear()  # what earlier calls left to work in would not be counted
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = run()
        most = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    returned = [*result.grad.arrays(), *([] if result.grad_x is None else [result.grad_x])]
    return result, most - sum(array.nbytes for array in returned)
