"""Timing of several in turn: what a turn is."""

from __future__ import annotations

import time
from collections.abc import Callable

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
