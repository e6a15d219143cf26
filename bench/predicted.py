"""Predicted beside measured seconds, over the plans of the frontier: python -m bench.predicted.

For each network and length, `fb.frontier(..., seconds=True)` predicts, and then `fb.bptt` runs each
plan whose peak is at most a share of the memory here. Plans and predictions take turns in one
process. A figure is the median over the rounds; off is predicted / measured - 1.
"""

import argparse
import os
import statistics
from pathlib import Path

import numpy as np
from fastbptt.kernels.cpu import team

import fastbptt as fb
from fastbptt.commands import info, measuring
from fastbptt.commands.building import make_layer

from . import stored

CELLS = ("RNN", "LSTM", "GRU")
LENGTHS = (10**3, 10**4, 10**5, 10**6)
BATCHES = (1, 32)
I = H = O = 64
SHARE = 0.3  # of the available memory: the most for the arrays of a run, and for its data
LONG = 2.0  # seconds of a run from which one round is enough


def points(cell, T, B, dtype, rounds):
    """Yield a point for each plan of the frontier; measured_s is None for those left out."""
    layer, rng = make_layer(cell, I, H, 1, False, 0, dtype), np.random.default_rng(1)
    network = fb.Network(layer, fb.Readout.init(H, O, rng=2, dtype=dtype))
    most = SHARE * (info.available_bytes() or 4e9)
    rows = fb.frontier(network, T, B, seconds=True)
    spent = {number: [row.seconds] for number, row in enumerate(rows)}
    taken = {number: [] for number in spent}
    if T * B * (I + O) * layer.dtype.itemsize <= most:
        x, y = (np.resize(rng.standard_normal(2**16).astype(dtype), (T, B, n)) for n in (I, O))
        for _ in range(rounds):
            for number, row in enumerate(fb.frontier(network, T, B, seconds=True)):
                spent[number].append(row.seconds)
                known = taken[number]
                if row.peak_bytes > most or (known and known[0] >= LONG):
                    continue

                def run(memory=row.memory):
                    fb.bptt(network, x, y, memory=memory)

                known += measuring.turn(run, 1, LONG)
    for number, row in enumerate(rows):
        predicted = statistics.median(spent[number])
        measured = statistics.median(taken[number]) if taken[number] else None
        yield {
            "cell": cell, "dtype": dtype, "T": T, "B": B, "I": I, "H": H, "O": O,
            "recomputes": row.recomputes, "peak_bytes": row.peak_bytes,
            "forward_steps": row.forward_steps, "leaves": row.memory.leaves(row),
            "predicted_s": predicted, "predictions_s": spent[number],
            "measured_s": measured, "runs": len(taken[number]),
            "off": None if measured is None else predicted / measured - 1,
        }  # fmt: skip


def main():
    """Measure the grid and store the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", nargs="+", default=CELLS, choices=CELLS)
    parser.add_argument("--steps", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--dtypes", nargs="+", default=["float32"])
    parser.add_argument("--threads", type=int, default=team.available_cpus())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=stored.RESULTS / "predicted.json")
    args = parser.parse_args()
    machine = info.describe(args.threads)
    fb.set_num_threads(args.threads)
    found = []
    for dtype in args.dtypes:
        for cell in args.cells:
            for B in args.batches:
                for T in args.steps:
                    for point in points(cell, T, B, dtype, args.rounds):
                        found.append(point)
                        print(_line(point), flush=True)
    off = [abs(point["off"]) for point in found if point["off"] is not None]
    result = {
        "machine": machine | {"load after": os.getloadavg()[0]},
        "rounds": args.rounds,
        "most_off": max(off),
        "median_off": statistics.median(off),
        "left_out": sum(point["off"] is None for point in found),
        "points": found,
    }
    stored.save(args.out, result)
    print(f"off by {max(off):.0%} at most, {statistics.median(off):.0%} in the median")


def _line(point):
    sizes = f"{point['cell']:4} {point['dtype']} T={point['T']:<9,} B={point['B']:<3}"
    line = f"{sizes} {point['recomputes']} recomputes  {point['predicted_s']:9.4f} s predicted"
    if point["off"] is None:
        return f"{line}, not run: too much memory"
    return f"{line} {point['measured_s']:9.4f} s measured  {point['off']:+.0%}"


if __name__ == "__main__":
    main()
