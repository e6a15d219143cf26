"""What `bench` measures: each way to keep steps, and each peer, at one length after the other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...layers.composite import stages
from .. import info
from ..measuring import peak, turn
from . import peers

ROUNDS = 5
"""Turns of each at one length, at most: fewer where they would take more than --seconds."""
TIMED = 3
LONG = 0.2
"""Seconds from which one run is timed in a turn, not TIMED."""
EXACT = {"float32": 1e-3, "float64": 1e-9}
"""Relative errors of exact gradients above which something is wrong: no figure is shown then."""


@dataclass
class Point:
    """What was measured of one contestant at one length; None where it was not.

    planned_bytes, forward_steps : of the plan
    measured_bytes : the peak of what is allocated beyond x, y and the returned gradients, Python's
        own objects among it, which no plan counts
    gradient_error : of the weights' gradient against that in float64 with every step cached: norm
        of the difference over the norm
    left_out, no_error : why nothing was measured, or not the error
    """

    name: str
    T: int
    us_per_step: float | None = None
    runs: int = 0
    measured_bytes: int | None = None
    planned_bytes: int | None = None
    forward_steps: int | None = None
    gradient_error: float | None = None
    left_out: str | None = None
    no_error: str | None = None


class Bench:
    """One network, measured at one length after the other."""

    def __init__(self, network: Any, batch: int, window: Any, others: list[str], threads: int):
        self.network, self.batch, self.window = network, batch, window
        self.others, self.threads = others, threads
        self.latest: dict[str, float] = {}  # least seconds a step, at the length before
        self.reference_reason: str | None = None

    def points(
        self, lengths: list[int], seconds: float, show: Callable[[float, float, str], None]
    ) -> list[Point]:
        """Measure all lengths; `show(done, total, note)` is told in steps."""
        total, done = self.work(lengths), 0.0
        found: list[Point] = []
        self._compile()
        for T in lengths:
            for share, note in self._length(T, seconds, found):
                show(done + share * self.work([T]), total, f"T={T:,} {note}")
            done += self.work([T])
        show(total, total, "")
        return found

    def work(self, lengths: list[int]) -> int:
        """Steps to be run for these lengths, at most."""
        return sum(lengths) * (4 + len(self.others)) * (1 + ROUNDS)

    def is_wrong(self, point: Point) -> bool:
        """Whether an exact gradient is not what it must be."""
        if point.gradient_error is None or point.name.startswith("truncated"):
            return False
        return not point.gradient_error <= EXACT[str(self.network.dtype)]

    def _data(self, T: int) -> tuple[Any, Any]:
        rng, dtype = np.random.default_rng(1), self.network.dtype
        x = rng.standard_normal((T, self.batch, self.network.layer.inputs), dtype)
        return x, rng.standard_normal((T, self.batch, self.network.readout.outputs), dtype)

    def _compile(self) -> None:
        """Run every kernel once: also those that only a run of more than a panel calls."""
        from ...memory.blocking import flush_steps

        for T in (2, flush_steps(self.batch) + 1):
            x, y = self._data(T)
            for memory in self._policies(T).values():
                peers.fastbptt(self.network, x, y, self.threads, memory or "full").run()
        wide = x[:2].astype(float), y[:2].astype(float)
        peers.fastbptt(_wide(self.network), *wide, self.threads).run()

    def _length(self, T: int, seconds: float, found: list[Point]) -> Iterator[tuple[float, str]]:
        """Measure one length; yields what share of its work is done, and what comes next."""
        policies = self._policies(T)
        points = {name: Point(name, T) for name in [*policies, *self.others]}
        found += points.values()
        x, y = self._data(T)
        yield 0, "reference"
        reference = self._reference(T, x, y)
        runs: dict[str, Callable[[], Any]] = {}
        begun = time.perf_counter()
        for index, (name, point) in enumerate(points.items()):
            yield index / len(points) / 2, name
            memory = policies.get(name)
            if memory is not None:
                plan = peer_plan(self.network, T, self.batch, memory)
                point.planned_bytes, point.forward_steps = plan.peak_bytes, plan.forward_steps
            point.left_out = self._reason(point, policies, seconds)
            if point.left_out is not None:
                continue
            peer = self._peer(name, policies, x, y)
            if peer is None:
                point.left_out = "does not have this layer"
                continue
            if memory is not None:
                result, point.measured_bytes = peak(peer.run)
            else:
                result = peer.run()
            if reference is not None:
                point.gradient_error = _error(peer.gradient(result), reference)
            del result
            runs[name] = peer.run
        taken: dict[str, list[float]] = {name: [] for name in runs}
        rounds = max(1, min(ROUNDS, int(seconds / (time.perf_counter() - begun))))
        for number in range(rounds):
            for index, (name, run) in enumerate(runs.items()):
                yield (1 + (number + index / len(runs)) / rounds) / 2, name
                taken[name] += turn(run, TIMED, LONG)
        for name, values in taken.items():
            self.latest[name] = min(values) / T
            points[name].us_per_step = statistics.median(values) / T * 1e6
            points[name].runs = len(values)
            points[name].no_error = self.reference_reason

    def _policies(self, T: int) -> dict[str, Any]:
        """What `memory` is for each of our contestants; None where there is no such plan."""
        import fastbptt as fb

        rows = {row.recomputes: row for row in fb.frontier(self.network, T, self.batch)}
        budgets = [rows[n].peak_bytes if n in rows else None for n in (1, 2)]
        window = f"truncated {self.window.k1}, {self.window.k2}"
        both = any(len(stage) > 1 for stage in stages(self.network.layer))
        return {
            "full": "full",
            "one recompute": budgets[0],
            "two recomputes": budgets[1],
            window: None if both else self.window,
        }

    def _peer(self, name: str, policies: dict[str, Any], x: Any, y: Any) -> peers.Peer | None:
        if name in policies:
            return peers.fastbptt(self.network, x, y, self.threads, policies[name])
        return peers.PEERS[name](self.network, x, y, self.threads)

    def _reason(self, point: Point, policies: dict[str, Any], seconds: float) -> str | None:
        """Why this contestant is left out, or None."""
        name, T = point.name, point.T
        if name in policies:
            if policies[name] is None:
                truncated = name.startswith("truncated")
                return (
                    "both directions cannot be truncated"
                    if truncated
                    else "so short a sequence has no such schedule"
                )
            needed = point.planned_bytes or 0
        else:
            if name not in peers.installed():
                return "not installed"
            # A guess: they keep more of each step than we do, and do not say how much.
            needed = 3 * peer_plan(self.network, T, self.batch, "full").peak_bytes
        lacking = _lacking(needed)
        if lacking is not None:
            return lacking
        if self.latest.get(name, 0) * T > seconds / 3:
            return f"one run would take {self.latest[name] * T:,.0f} s"
        return None

    def _reference(self, T: int, x: Any, y: Any) -> list[Any] | None:
        """The gradient in float64 with every step cached, or None where that does not fit."""
        wide = _wide(self.network)
        needed = peer_plan(wide, T, self.batch, "full").peak_bytes + 16 * x.size + 8 * y.size
        self.reference_reason = _lacking(needed)
        if self.reference_reason is not None:
            return None
        peer = peers.fastbptt(wide, x.astype(float), y.astype(float), self.threads)
        return peer.gradient(peer.run())


def peer_plan(network: Any, T: int, batch: int, memory: Any) -> Any:
    """The plan of what `peers.fastbptt` runs."""
    import fastbptt as fb

    return fb.plan(network, T, batch, memory=memory, input_grad=True)


def _lacking(needed: int) -> str | None:
    """Say so if so many bytes are more than three quarters of what there is."""
    there = info.available_bytes()
    if there is None or needed <= 0.75 * there:
        return None
    return f"would take {needed / 1e9:.1f} GB, of {there / 1e9:.1f} GB available"


def _wide(network: Any) -> Any:
    layer, readout = (
        part.replace_arrays([np.asarray(array, float) for array in part.arrays()])
        for part in (network.layer, network.readout)
    )
    return type(network)(layer, readout)


def _error(gradient: list[Any], reference: list[Any]) -> float:
    """Norm of the difference over the norm, all arrays together."""
    pairs = zip(gradient, reference, strict=True)
    difference = sum(float(np.square(np.float64(one) - other).sum()) for one, other in pairs)
    return float(np.sqrt(difference / sum(float(np.square(other).sum()) for other in reference)))
