"""`fastbptt bench`: time, memory and gradient error of each memory policy, against T."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...display import tables
from ...display.bar import Bar
from ...layers.drawing import UNDRAWN
from .. import info, options
from . import peers
from .lengths import Bench, Point


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
    threads = parser.number(int, 1, 4096)
    parser.add_argument("--threads", type=threads, help="default: all CPUs that may be used")
    others = [name for name in peers.PEERS if name != "fastbptt"]
    text = "libraries to compare with, or none; default: all that are installed"
    parser.add_argument("--peers", nargs="*", choices=others, default=others, help=text)
    text = "at each length, about; what would take a third of it for one run is left out"
    parser.add_argument("--seconds", type=parser.number(float, 0.01), default=30, help=text)
    parser.add_argument("--out", type=options.new_file, default="bench.png", help="the picture")
    parser.add_argument("--json", type=options.new_file, default="bench.json", help="the figures")
    parser.set_defaults(run=lambda args: run(parser, args))


def run(parser: Any, args: argparse.Namespace) -> int:
    """Measure, print the table and write both files; returns the exit status."""
    import fastbptt as fb

    from ...kernels.cpu import team

    try:
        window = fb.Truncated(args.k1, args.k2)
        undrawn = options.network(args, UNDRAWN)
    except ValueError as error:
        parser.error(str(error))
    weights = sum(array.nbytes for array in undrawn.arrays())
    step = args.batch * (args.inputs + args.outputs) * undrawn.dtype.itemsize
    options.check_memory(parser, "weights, x and y", 2 * weights + max(args.lengths) * step)
    if not options.has_extras("bench", "matplotlib", "tqdm"):
        return 1
    from .picture import draw

    threads = args.threads or team.get_num_threads()
    fb.set_num_threads(threads)
    lengths = sorted(set(args.lengths))
    machine = info.describe(threads)
    load = machine["load before"]
    if load is not None and load > 0.5 * team.available_cpus():
        text = f"other programs are running (load {load:.1f}): the times will be too long"
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
    names = ("cell", "layers", "bidirectional", "batch", "inputs", "hidden", "outputs", "dtype",
             "k1", "k2", "seconds")  # fmt: skip
    result = {
        "machine": machine,
        "shape": {name: getattr(args, name) for name in names},
        "points": [asdict(point) for point in points],
    }
    Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(args.out, result)
    print(f"\nFigures: {args.json}\nPicture: {args.out}")
    return 0


def table(points: list[Point]) -> str:
    """Return the figures as text."""
    head = ("T", "method", "us a step", "peak measured", "planned", "gradient error", "note")
    rows = [
        (
            f"{p.T:,}",
            p.name,
            "" if p.us_per_step is None else f"{p.us_per_step:.3g}",
            "" if p.measured_bytes is None else f"{p.measured_bytes / 1e6:,.3f} MB",
            "" if p.planned_bytes is None else f"{p.planned_bytes / 1e6:,.3f} MB",
            "" if p.gradient_error is None else f"{p.gradient_error:.2g}",
            p.left_out or (f"no error: float64 {p.no_error}" if p.no_error else ""),
        )
        for p in points
    ]
    return tables.aligned([head, *rows], left=(1, 6))
