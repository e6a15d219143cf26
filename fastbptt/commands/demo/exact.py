"""The demo's exact gradient through a long text, its memory and time measured."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...display.bar import Bar
from .. import options
from ..measuring import peak
from .training import new_network

if TYPE_CHECKING:
    from ...arrays import Array
    from ...calls.gradient import Result
    from ...layers.network import Network
    from ...memory.plan import Frontier, Plan

HIDDEN = 64
"""Units of the LSTM."""


@dataclass
class ExactRun:
    """The plan, seconds and measured peak of the exact gradient within one budget."""

    plan: Plan
    seconds: float
    measured_bytes: int


@dataclass
class Exact:
    """The exact gradient within several budgets, the one asked for first.

    steps : characters
    bits : loss per character
    same : whether all gradients are equal to the bit
    frontier, between : plans for the picture, with predicted times
    """

    steps: int
    runs: list[ExactRun]
    bits: float
    same: bool
    frontier: Frontier
    between: list[Plan]


def exact_gradient(ids: Array, budget: str, hidden: int = HIDDEN, seed: int = 0) -> Exact:
    """Compute the exact gradient of an LSTM through the whole text, and measure its memory.

    It is computed again within the smallest budgets of one and of two recomputes, where these are
    below `budget`. Their times are predicted first, by short runs.
    """
    import fastbptt as fb

    x, y = ids[:-1], ids[1:]
    network = new_network(hidden, seed)
    steps = len(x)
    frontier = fb.frontier(network, steps).checkpointed
    plans = [fb.plan(network, steps, memory=budget)]
    least = [row.peak_bytes for row in frontier[1:3] if row.peak_bytes < plans[0].peak_bytes]
    plans += [fb.plan(network, steps, memory=size) for size in least]
    print(f"\nExact gradient of an LSTM with {hidden} units (float32)")
    print(f"through {steps:,} characters, within {budget} and the least budgets:", flush=True)
    warm_up(network)
    speeds = options.speeds(network, frontier, tokens=True)
    frontier, plans = speeds.all(frontier), [*map(speeds.predicted, plans)]
    runs: list[ExactRun] = []
    results = []
    work = [plan.forward_steps + plan.backward_steps for plan in plans]
    with Bar("steps", sum(work)) as bar:

        def within(plan: Plan, before: int) -> Result:
            def show(done: int, _: int) -> None:
                bar.show(before + done, sum(work))

            return fb.bptt(network, x, y, "cross_entropy", memory=plan.memory, progress=show)

        for index, plan in enumerate(plans):
            start = time.perf_counter()
            result, most = peak(partial(within, plan, sum(work[:index])))
            seconds = time.perf_counter() - start
            runs.append(ExactRun(plan, seconds, most))
            results.append([np.array(result.loss), *result.grad.arrays()])
    same = all(
        np.array_equal(one, other)
        for arrays in results[1:]
        for one, other in zip(arrays, results[0], strict=True)
    )
    bits = float(results[0][0]) / steps / np.log(2)
    between = list(speeds.all(options.between(network, steps, 1, frontier)))
    return Exact(steps, runs, bits, same, frontier, between)


def warm_up(network: Network) -> None:
    """Run every kernel once, so that none compiles while time and memory are measured.

    Some kernels run only where T is longer than one flush, some only where it is short.
    """
    import fastbptt as fb

    from ...memory.blocking import flush_steps

    note = "  compiling the kernels (only the first run on a machine does) ..."
    notice = threading.Timer(1.5, print, [note], {"flush": True})
    notice.start()
    try:
        for steps in (flush_steps(1) + 1, 2):
            x = np.zeros((steps, 1), np.uint8)
            fb.bptt(network, x, x, "cross_entropy", reduction="mean")
        fb.evaluate(network, x, x, loss="cross_entropy")
        fb.predict(network, x)
    finally:
        notice.cancel()
