"""torch.nn's recurrent modules and fastbptt.torch's, inside PyTorch: python -m bench.torch_modules.

A run is a training step: forward, backward with the gradient of the input too, and Adam. Both have
the same weights and data. All take turns in one process, as in `bench.compare`, on its grid; the
figure is the median over all rounds, in microseconds a time step. Besides: what a call of a module
costs over that of the NumPy function at T = B = 1, and the memory of a long step.
"""

import argparse
import statistics
from pathlib import Path

import torch
from fastbptt.kernels.cpu import team

import fastbptt as fb
import fastbptt.torch as ours
from fastbptt.commands import info, measuring

from . import stored, torch_memory
from .compare import GRID, LAYERED_POINTS, LONG, TIMED

CELLS = ("RNN", "GRU", "LSTM")
LAYERED = {"2 x ": {"num_layers": 2}, "both ways ": {"bidirectional": True}}  # in float32
SMALL = 8  # inputs and units of the smallest calls
CALLS = 8  # that are timed at once, there: so few that other work seldom comes in between


def run_of(module, T, B):
    """One training step."""
    x = torch.randn(T, B, module.input_size, dtype=module.weight_hh_l0.dtype, requires_grad=True)
    dh = torch.randn_like(module(x)[0])
    optimizer = torch.optim.Adam(module.parameters(), 1e-5)

    def run():
        x.grad = None
        optimizer.zero_grad()
        module(x)[0].backward(dh)
        optimizer.step()

    return run


def time_point(cell, T, B, I, H, dtype, rounds, name="", options=None):
    """The median microseconds a step of both; ratio: torch.nn's over ours."""
    options = {"dtype": getattr(torch, dtype), **(options or {})}
    theirs, own = (getattr(package, cell)(I, H, **options) for package in (torch.nn, ours))
    own.load_state_dict(theirs.state_dict())
    runs = {"fastbptt": run_of(own, T, B), "torch": run_of(theirs, T, B)}
    for run in runs.values():
        run()
    seconds = measuring.medians(runs, rounds, TIMED, LONG)
    micros = {name: taken / T * 1e6 for name, taken in seconds.items()}
    sizes = {"cell": name + cell, "dtype": dtype, "T": T, "B": B, "I": I, "H": H}
    return {**sizes, "us_per_step": micros, "ratio": micros["torch"] / micros["fastbptt"]}


def smallest_calls(cell, rounds):
    """Microseconds of the smallest calls, each the least of some rounds."""
    module = getattr(ours, cell)(SMALL, SMALL)
    x, dh, weights = torch.randn(1, 1, SMALL), torch.ones(1, 1, SMALL), list(module.parameters())
    layer, given, back = fb.from_torch(module), x.numpy(), dh.numpy()

    def forward():
        with torch.no_grad():
            module(x)

    runs = {
        "run": lambda: fb.run(layer, given),
        "forward": forward,
        "NumPy pair": lambda: fb.backward(fb.forward(layer, given)[2], back, input_grad=False),
        "pair": lambda: torch.autograd.grad(module(x)[0], weights, dh),
    }
    taken = {name: [] for name in runs}
    for _ in range(100 * rounds):
        for name, run in runs.items():
            many = measuring.seconds(lambda run=run: [run() for _ in range(CALLS)])
            taken[name].append(many / CALLS * 1e6)
    return {"cell": cell, **{name: min(values) for name, values in taken.items()}}


def _line(point):
    sizes = " ".join(f"{axis}{point[axis]}" for axis in "TBIH")
    times = "  ".join(f"{name} {value:9.2f}" for name, value in point["us_per_step"].items())
    return f"{point['cell']:15} {point['dtype']} {sizes:22}  {times}  x{point['ratio']:.2f}"


def main():
    """Time the grid and store the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", nargs="+", default=CELLS, choices=CELLS)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--points", nargs="+", type=int, default=range(len(GRID)))
    parser.add_argument("--threads", type=int, default=team.available_cpus())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=stored.RESULTS / "torch_modules.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    fb.set_num_threads(args.threads)
    machine, points = info.describe(args.threads), []

    def measure(indices, cell, dtype, *more):
        for index in indices:
            points.append(time_point(cell, *GRID[index], dtype, args.rounds, *more))
            print(_line(points[-1]), flush=True)

    for cell in args.cells:
        for dtype in args.dtypes:
            measure(args.points, cell, dtype)
        for layered in LAYERED.items() if "float32" in args.dtypes else ():
            some = [index for index in LAYERED_POINTS if index in args.points]
            measure(some, cell, "float32", *layered)
    for name in dict.fromkeys(point["cell"] for point in points):
        mean = statistics.geometric_mean(p["ratio"] for p in points if p["cell"] == name)
        print(f"{name}: geometric mean {mean:.2f}")
    result = {
        "machine": machine, "rounds": args.rounds, "timed": TIMED, "points": points,
        "calls": [smallest_calls(cell, args.rounds) for cell in args.cells],
        "memory": torch_memory.peak(),
    }  # fmt: skip
    print(result["calls"], result["memory"], sep="\n")
    stored.save(args.out, result)


if __name__ == "__main__":
    main()
