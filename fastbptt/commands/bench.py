"""`fastbptt bench`: time, memory and gradient error of each way to keep steps, against T."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import info, options, peers
from .bar import Bar
from .measuring import peak, turn

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
    left_out : why nothing was measured
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


def add_command(commands: Any) -> None:
    """Add `bench` to the command line."""
    parser = commands.add_parser(
        "bench",
        help="time per step, peak memory and gradient error across sequence lengths",
        description="One gradient (of weights, input and initial state) with every step cached, "
        "checkpointed with one and with two recomputes, and truncated, beside PyTorch and JAX "
        "where they are installed: a table, a JSON file and a picture.",
    )
    whole = parser.number(int, 1)
    lengths = [10**power for power in range(2, 7)]
    text = "default: 100 to 1000000"
    parser.add_argument("-T", "--lengths", type=whole, nargs="+", default=lengths, help=text)
    options.add_network(parser, batch=1, inputs=16, hidden=64, outputs=8)
    parser.add_argument("--k1", type=whole, default=50, help="stride of truncation; default: 50")
    parser.add_argument("--k2", type=whole, default=50, help="window of truncation; default: 50")
    parser.add_argument("--threads", type=whole, help="default: all CPUs that may be used")
    others = [name for name in peers.PEERS if name != "fastbptt"]
    text = "whom to time beside us, or nobody; default: all that are installed"
    parser.add_argument("--peers", nargs="*", choices=others, default=others, help=text)
    text = "timed at each length, about; who would take a third of it for one run is left out"
    parser.add_argument("--seconds", type=parser.number(float, 0.01), default=30, help=text)
    parser.add_argument("--out", type=options.new_file, default="bench.png", help="the picture")
    parser.add_argument("--json", type=options.new_file, default="bench.json", help="the figures")
    parser.set_defaults(run=lambda args: run(parser, args))


def run(parser: Any, args: argparse.Namespace) -> int:
    """Measure, print the table, write both files; returns the exit status."""
    import fastbptt as fb

    from ..kernels.cpu import team

    try:
        window = fb.Truncated(args.k1, args.k2)
    except ValueError as error:
        parser.error(str(error))
    if not options.has_extras("bench", "matplotlib", "tqdm"):
        return 1
    from .bench_picture import draw

    threads = args.threads or team.get_num_threads()
    fb.set_num_threads(threads)
    lengths = sorted(set(args.lengths))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if load is not None and load > 0.5 * team.available_cpus():
        text = f"others are at work here (load {load:.1f}): the times will be too long"
        print(f"fastbptt bench: {text}", file=sys.stderr)
    bench = Bench(options.network(args, seed=0), args.batch, window, args.peers, threads)
    with Bar("steps", bench.work(lengths)) as bar:
        points = bench.points(lengths, args.seconds, bar.show)
    print(table(points))
    print("Peaks are measured with Python's own objects, which no plan counts; JAX's and PyTorch's")
    print("cannot be traced. Times are medians of runs in turn.")
    wrong = [p for p in points if bench.is_wrong(p)]
    for point in wrong:
        text = f"{point.name} at T={point.T:,} has a gradient error of {point.gradient_error:.3g}"
        print(f"fastbptt bench: {text}: its figures are not to be trusted", file=sys.stderr)
    if wrong:
        return 1
    names = ("cell", "batch", "inputs", "hidden", "outputs", "dtype", "k1", "k2", "seconds")
    result = {
        "machine": info.describe(threads) | {"load before": load},
        "shape": {name: getattr(args, name) for name in names},
        "points": [asdict(point) for point in points],
    }
    Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(args.out, result)
    print(f"\nFigures: {args.json}\nPicture: {args.out}")
    return 0


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
        from ..sizes import panel_steps

        for T in (2, panel_steps(self.batch) + 1):
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
            point.left_out = self._reason(point, policies, seconds)
            if point.left_out is not None:
                continue
            peer = self._peer(name, policies, x, y)
            if peer is None:
                point.left_out = "does not have this layer"
                continue
            memory = policies.get(name)
            if memory is not None:
                plan = peer_plan(self.network, T, self.batch, memory)
                point.planned_bytes, point.forward_steps = plan.peak_bytes, plan.forward_steps
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
        if self.reference_reason:
            for point in points.values():
                point.left_out = point.left_out or f"no error: {self.reference_reason}"

    def _policies(self, T: int) -> dict[str, Any]:
        """What `memory` is for each of our contestants; None where there is no such plan."""
        import fastbptt as fb

        rows = {row.recomputes: row for row in fb.frontier(self.network, T, self.batch)}
        budgets = [rows[n].peak_bytes if n in rows else None for n in (1, 2)]
        window = f"truncated {self.window.k1}, {self.window.k2}"
        return {
            "full": "full",
            "one recompute": budgets[0],
            "two recomputes": budgets[1],
            window: self.window,
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
                return "so short a sequence has no such schedule"
            needed = peer_plan(self.network, T, self.batch, policies[name]).peak_bytes
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


def table(points: list[Point]) -> str:
    """The figures as text."""
    head = ("T", "steps kept", "us a step", "peak measured", "planned", "gradient error", "")
    rows = [
        (
            f"{p.T:,}",
            p.name,
            "" if p.us_per_step is None else f"{p.us_per_step:.3g}",
            "" if p.measured_bytes is None else f"{p.measured_bytes / 1e6:,.3f} MB",
            "" if p.planned_bytes is None else f"{p.planned_bytes / 1e6:,.3f} MB",
            "" if p.gradient_error is None else f"{p.gradient_error:.2g}",
            p.left_out or "",
        )
        for p in points
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.ljust(width) if index in (1, 6) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _lacking(needed: int) -> str | None:
    """Say so if so many bytes are more than three quarters of what there is."""
    there = info.available_bytes()
    if there is None or needed <= 0.75 * there:
        return None
    return f"would need {needed / 1e9:.1f} GB, of {there / 1e9:.1f} GB available"


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
