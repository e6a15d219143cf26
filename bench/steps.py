"""One step at a time, beside PyTorch's cells: python -m bench.steps.

A Stepper and PyTorch take turns in one process, on the same weights, a sequence of one: a call a
sample, as a sound card's or a controller's samples come; and blocks, beside `fb.run` on all of the
sequence. A figure is the median over the rounds, in microseconds a step. Then come a million steps,
after which the process holds no more memory than before.
"""

import argparse
import os
import resource
from pathlib import Path

import numpy as np
from fastbptt.kernels.cpu import team

import fastbptt as fb
from fastbptt.commands import info, measuring
from fastbptt.commands.building import make_layer

from . import stored

POINTS = (("LSTM", 1, 24), ("LSTM", 1, 32), ("LSTM", 1, 64), ("LSTM", 16, 128), ("GRU", 1, 40))
BLOCKS = (64, 256)
STEPS = 512  # of a run
MILLION = 1_000_000
TIMED, LONG = 3, 1.0


def runs_of(cell, I, H):
    """Return functions that each run STEPS steps, by name; `torch` is there if it imports."""
    layer = make_layer(cell, I, H, 1, False, 0, "float32")
    xs = np.random.default_rng(1).standard_normal((STEPS, I)).astype("float32")
    s, out, outs = fb.Stepper(layer), np.empty(H, "float32"), np.empty((STEPS, H), "float32")
    x = xs[0].copy()

    def step():
        for _ in range(STEPS):
            s.step(x)

    def step_out():
        for _ in range(STEPS):
            s.step(x, out)

    def process(block):
        for start in range(0, STEPS, block):
            s.process(xs[start : start + block], outs[start : start + block])

    found = {"step": step, "step, out=": step_out}
    found |= {f"process, {block}": (lambda block=block: process(block)) for block in BLOCKS}
    found["run"] = lambda: fb.run(layer, xs)
    return found | _torch(layer, x)


def _torch(layer, x):
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)  # more take turns waiting for each other over so little
    whole = fb.to_torch(layer)
    cell = {"LSTM": torch.nn.LSTMCell, "GRU": torch.nn.GRUCell}[type(layer).__name__](
        layer.inputs, layer.hidden
    )
    names = {name: f"{name}_l0" for name, _ in cell.named_parameters()}
    cell.load_state_dict({name: whole.state_dict()[long] for name, long in names.items()})
    given = torch.from_numpy(x)[None]

    def step():
        with torch.inference_mode():
            state = None
            for _ in range(STEPS):
                state = cell(given, state)

    return {"torch": step}


def resident():
    """Return the bytes that the process holds now, or at most so far where nothing says."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def million():
    """Take a million steps, and as many into `out`; returns by how many bytes the process grew."""
    s = fb.Stepper(fb.LSTM.init(1, 32, rng=0))
    x, out = np.ones(1, "float32"), np.empty(32, "float32")
    grown = {}
    for name, given in (("step", None), ("step, out=", out)):
        for _ in range(1000):
            s.step(x, given)
        before = resident()
        for _ in range(MILLION):
            s.step(x, given)
        grown[name] = resident() - before
    return grown


def main():
    """Time the points, take a million steps, and store the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=team.available_cpus())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=stored.RESULTS / "steps.json")
    args = parser.parse_args()
    machine = info.describe(args.threads)
    fb.set_num_threads(args.threads)
    points = []
    for cell, I, H in POINTS:
        runs = runs_of(cell, I, H)
        for run in runs.values():
            run()
        seconds = measuring.medians(runs, args.rounds, TIMED, LONG)
        micros = {name: taken / STEPS * 1e6 for name, taken in seconds.items()}
        points.append({"cell": cell, "dtype": "float32", "B": 1, "I": I, "H": H, "us": micros})
        print(points[-1], flush=True)
    result = {"machine": machine, "rounds": args.rounds, "timed": TIMED, "steps": STEPS}
    stored.save(args.out, result | {"points": points, "grown_bytes": million()})


if __name__ == "__main__":
    main()
