"""Forward and backward pass of fastbptt, PyTorch and JAX: python -m bench.compare.

All take turns in one process. A turn begins with runs that do not count, since the threads of the
previous library still spin for some milliseconds; then a few runs are timed. The figure is the
median over all rounds, in microseconds a time step.
"""

import argparse
import statistics
from pathlib import Path

from fastbptt.kernels.cpu import team

from fastbptt.commands import info, measuring
from fastbptt.commands.bench import peers

from . import stored

TIMED = 3  # runs in a turn; one if it takes LONG seconds or more
LONG = 1.0
GRID = (
    (1000, 1, 16, 32), (1000, 1, 64, 64), (1000, 1, 128, 128), (1000, 1, 256, 256),
    (300, 1, 1024, 1024), (1000, 8, 64, 64), (1000, 32, 64, 64), (32, 64, 32, 128),
    (500, 32, 256, 256), (60, 32, 1024, 1024), (20000, 1, 64, 64), (20000, 4, 32, 32),
)  # fmt: skip
LAYERED = (("LSTM", 2, False), ("LSTM", 1, True))  # cell, layers, bidirectional
LAYERED_POINTS = (0, 1, 3, 6, 8)  # indices of GRID; in float32


def time_point(cell, T, B, I, H, dtype, threads, rounds, names, layers=1, bidirectional=False):
    """Return the median microseconds a step of each peer; ratio: fastest other over fastbptt."""
    problem = peers.problem(cell, T, B, I, H, dtype, layers, bidirectional)
    found = {name: peers.PEERS[name](*problem, threads) for name in names}
    runs = {name: peer.run for name, peer in found.items() if peer is not None}
    for run in runs.values():
        run()
    seconds = measuring.medians(runs, rounds, TIMED, LONG)
    micros = {name: taken / T * 1e6 for name, taken in seconds.items()}
    others = [value for name, value in micros.items() if name != "fastbptt"]
    name = f"{layers} x {cell}" if layers > 1 else f"{cell} both ways" if bidirectional else cell
    point = {"cell": name, "dtype": dtype, "T": T, "B": B, "I": I, "H": H, "us_per_step": micros}
    if others:
        point["ratio"] = min(others) / micros["fastbptt"]
    return point


def main():
    """Time the grid and store the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", nargs="+", default=peers.CELLS, choices=peers.CELLS)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--peers", nargs="+", default=list(peers.PEERS), choices=peers.PEERS)
    parser.add_argument("--points", nargs="+", type=int, default=range(len(GRID)))
    parser.add_argument("--threads", type=int, default=team.available_cpus())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=stored.RESULTS / "compare.json")
    args = parser.parse_args()
    machine = info.describe(args.threads)
    points = []

    def measure(indices, cell, dtype, *layers):
        found = []
        for index in indices:
            sizes = cell, *GRID[index], dtype
            found.append(time_point(*sizes, args.threads, args.rounds, args.peers, *layers))
            print(_line(found[-1]), flush=True)
        points.extend(found)
        ratios = [point["ratio"] for point in found if "ratio" in point]
        if ratios:
            name = f"{found[0]['cell']} {dtype}"
            print(f"{name}: geometric mean {statistics.geometric_mean(ratios):.2f}")

    for cell in args.cells:
        for dtype in args.dtypes:
            measure(args.points, cell, dtype)
    for cell, *layers in LAYERED:
        if cell in args.cells and "float32" in args.dtypes:
            measure([i for i in LAYERED_POINTS if i in args.points], cell, "float32", *layers)
    result = {
        "machine": machine,
        "rounds": args.rounds,
        "timed": TIMED,
        "points": points,
    }
    stored.save(args.out, result)


def _line(point):
    shape = " ".join(f"{axis}{point[axis]}" for axis in "TBIH")
    times = "  ".join(f"{name} {value:8.2f}" for name, value in point["us_per_step"].items())
    ratio = f"  x{point['ratio']:.2f}" if "ratio" in point else ""
    return f"{point['cell']:4} {point['dtype']} {shape:24} {times}{ratio}"


if __name__ == "__main__":
    main()
