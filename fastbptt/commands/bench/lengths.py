"""The measurements of `bench`: each memory policy and each peer, at one length after another."""

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
"""Turns of each contestant at one length, at most; fewer if they would exceed --seconds."""
TIMED = 3
"""Runs that are timed in a turn; one if it takes LONG seconds or more."""
LONG = 0.2
EXACT = {"float32": 1e-3, "float64": 1e-9}
"""Relative error of an exact gradient above which it is wrong, and no figure is written."""


@dataclass
class Point:
    """The measurements of one contestant at one length; None where there is none.

    planned_bytes, forward_steps : of the plan
    measured_bytes : peak of the bytes allocated beyond x, y and the returned gradients; includes
        Python's own objects, which no plan counts
    gradient_error : norm of the difference between the weights' gradient and the float64 gradient
        with every step cached, over the norm of the latter
    left_out : why nothing was measured
    no_error : why the error was not measured
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
    """Measures one network at one length after another."""

    def __init__(self, network: Any, batch: int, window: Any, others: list[str], threads: int):
        self.network, self.batch, self.window = network, batch, window
        self.others, self.threads = others, threads
        self.latest: dict[str, float] = {}  # least seconds a step, at the previous length
        self.reference_reason: str | None = None

    def points(
        self, lengths: list[int], seconds: float, show: Callable[[float, float, str], None]
    ) -> list[Point]:
        """Measure all lengths; `show(done, total, note)` reports progress in steps."""
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
        """Return the most steps that these lengths can take."""
        return sum(lengths) * (4 + len(self.others)) * (1 + ROUNDS)

    def is_wrong(self, point: Point) -> bool:
        """Whether a gradient that should be exact has too large an error."""
        if point.gradient_error is None or point.name.startswith("truncated"):
            return False
        return not point.gradient_error <= EXACT[str(self.network.dtype)]

    def _data(self, T: int) -> tuple[Any, Any]:
        rng, dtype = np.random.default_rng(1), self.network.dtype
        x = rng.standard_normal((T, self.batch, self.network.layer.inputs), dtype)
        return x, rng.standard_normal((T, self.batch, self.network.readout.outputs), dtype)

    def _compile(self) -> None:
        """Run every kernel once, with T in one flush and in two: some kernels run only with two."""
        from ...memory.blocking import flush_steps

        for T in (2, flush_steps(self.batch) + 1):
            x, y = self._data(T)
            for memory in self._policies(T).values():
                peers.fastbptt(self.network, x, y, self.threads, memory or "full").run()
        wide = x[:2].astype(float), y[:2].astype(float)
        peers.fastbptt(_wide(self.network), *wide, self.threads).run()

    def _length(self, T: int, seconds: float, found: list[Point]) -> Iterator[tuple[float, str]]:
        """Measure one length; yields the share of its work done so far, and the next contestant."""
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
        """Return `memory` for each contestant of ours; None where no such plan exists."""
        import fastbptt as fb

        found = fb.frontier(self.network, T, self.batch).checkpointed
        rows = {row.recomputes: row for row in found}
        budgets = [rows[n].peak_bytes if n in rows else None for n in (1, 2)]
        window = f"truncated {self.window.k1}, {self.window.k2}"
        bidirectional = any(len(stage) > 1 for stage in stages(self.network.layer))
        return {
            "full": "full",
            "one recompute": budgets[0],
            "two recomputes": budgets[1],
            window: None if bidirectional else self.window,
        }

    def _peer(self, name: str, policies: dict[str, Any], x: Any, y: Any) -> peers.Peer | None:
        if name in policies:
            return peers.fastbptt(self.network, x, y, self.threads, policies[name])
        return peers.PEERS[name](self.network, x, y, self.threads)

    def _reason(self, point: Point, policies: dict[str, Any], seconds: float) -> str | None:
        """Return why this contestant is left out, or None."""
        name, T = point.name, point.T
        if name in policies:
            if policies[name] is None:
                if name.startswith("truncated"):
                    return "a bidirectional layer cannot be truncated"
                return "so short a sequence has no such schedule"
            needed = point.planned_bytes or 0
        else:
            if name not in peers.installed():
                return "not installed"
            # A guess: they store more of each step, and do not say how much.
            needed = 3 * peer_plan(self.network, T, self.batch, "full").peak_bytes
        shortage = _memory_shortage(needed)
        if shortage is not None:
            return shortage
        if self.latest.get(name, 0) * T > seconds / 3:
            return f"one run would take {self.latest[name] * T:,.0f} s"
        return None

    def _reference(self, T: int, x: Any, y: Any) -> list[Any] | None:
        """Return the float64 gradient with every step cached, or None where that does not fit."""
        wide = _wide(self.network)
        needed = peer_plan(wide, T, self.batch, "full").peak_bytes + 16 * x.size + 8 * y.size
        self.reference_reason = _memory_shortage(needed)
        if self.reference_reason is not None:
            return None
        peer = peers.fastbptt(wide, x.astype(float), y.astype(float), self.threads)
        return peer.gradient(peer.run())


def peer_plan(network: Any, T: int, batch: int, memory: Any) -> Any:
    """Return the plan that `peers.fastbptt` runs."""
    import fastbptt as fb

    return fb.plan(network, T, batch, memory=memory, input_grad=True)


def _memory_shortage(needed: int) -> str | None:
    """Return a reason if `needed` bytes are more than three quarters of those available."""
    available = info.available_bytes()
    if available is None or needed <= 0.75 * available:
        return None
    return f"would take {needed / 1e9:.1f} GB, of {available / 1e9:.1f} GB available"


def _wide(network: Any) -> Any:
    """Return the network in float64."""
    layer, readout = (
        part.replace_arrays([np.asarray(array, float) for array in part.arrays()])
        for part in (network.layer, network.readout)
    )
    return type(network)(layer, readout)


def _error(gradient: list[Any], reference: list[Any]) -> float:
    """Return the norm of the difference over that of the reference, over all arrays."""
    pairs = zip(gradient, reference, strict=True)
    difference = sum(float(np.square(np.float64(one) - other).sum()) for one, other in pairs)
    return float(np.sqrt(difference / sum(float(np.square(other).sum()) for other in reference)))
