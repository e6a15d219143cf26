"""torch.nn's recurrent modules and fastbptt.torch's, inside PyTorch: python -m bench.torch_modules.

A run is the forward and the backward pass of a module: the gradients of weights and input, on the
same weights and data. All take turns in one process, as in `bench.compare`; the figure is the
median over all rounds, in microseconds a time step. T = 1 shows what a call costs.
"""

import argparse
import statistics
from pathlib import Path

import torch
from fastbptt.kernels.cpu import team

import fastbptt as fb
import fastbptt.torch as ours
from fastbptt.commands import info, measuring

from . import stored

TIMED = 3  # runs in a turn; one if it takes LONG seconds or more
LONG = 1.0
CELLS = ("RNN", "GRU", "LSTM")
GRID = (
    (1, 1, 8, 8), (1000, 1, 16, 32), (1000, 1, 64, 64), (1000, 1, 256, 256), (1000, 8, 64, 64),
    (1000, 32, 64, 64), (32, 64, 32, 128), (500, 32, 256, 256), (20000, 4, 32, 32),
)  # fmt: skip
LAYERED = {"num_layers": 2, "dropout": 0.2, "bidirectional": True, "batch_first": True}
LAYERED_POINTS = (1, 2, 4)  # indices of GRID


def run_of(module, T, B, batch_first=False):
    """One forward and backward pass."""
    x = torch.randn(*((B, T) if batch_first else (T, B)), module.input_size, requires_grad=True)
    dh = torch.randn_like(module(x)[0])
    needed = [x, *module.parameters()]

    def run():
        for tensor in needed:
            tensor.grad = None
        module(x)[0].backward(dh)

    return run


def time_point(cell, T, B, I, H, rounds, options):
    """The median microseconds a step of both; ratio: torch.nn's over ours."""
    theirs = getattr(torch.nn, cell)(I, H, **options)
    own = getattr(ours, cell)(I, H, **options)
    own.load_state_dict(theirs.state_dict())
    first = options.get("batch_first", False)
    runs = {"fastbptt.torch": run_of(own, T, B, first), "torch.nn": run_of(theirs, T, B, first)}
    for run in runs.values():
        run()
    seconds = measuring.medians(runs, rounds, TIMED, LONG)
    micros = {name: taken / T * 1e6 for name, taken in seconds.items()}
    sizes = {"cell": cell, "T": T, "B": B, "I": I, "H": H, "options": options}
    ratio = micros["torch.nn"] / micros["fastbptt.torch"]
    return {**sizes, "us_per_step": micros, "ratio": ratio}


def _line(point):
    sizes = " ".join(f"{axis}{point[axis]}" for axis in "TBIH")
    times = "  ".join(f"{name} {value:9.2f}" for name, value in point["us_per_step"].items())
    layered = " layered" if point["options"] else ""
    return f"{point['cell']:4} {sizes:22}  {times}  x{point['ratio']:.2f}{layered}"


def main():
    """Time the grid and store the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", nargs="+", default=CELLS, choices=CELLS)
    parser.add_argument("--points", nargs="+", type=int, default=range(len(GRID)))
    parser.add_argument("--threads", type=int, default=team.available_cpus())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=stored.RESULTS / "torch_modules.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    fb.set_num_threads(args.threads)
    machine, points = info.describe(args.threads), []
    for cell in args.cells:
        plain = [(index, {}) for index in args.points]
        layered = [(index, LAYERED) for index in LAYERED_POINTS if index in args.points]
        for index, options in plain + layered:
            points.append(time_point(cell, *GRID[index], args.rounds, options))
            print(_line(points[-1]), flush=True)
        mean = statistics.geometric_mean(p["ratio"] for p in points if p["cell"] == cell)
        print(f"{cell}: geometric mean {mean:.2f}")
    result = {"machine": machine, "rounds": args.rounds, "timed": TIMED, "points": points}
    stored.save(args.out, result)


if __name__ == "__main__":
    main()
