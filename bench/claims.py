"""Figures besides the comparison: python -m bench.claims.

The smallest calls, the first call of a process, budgets against full caching, vanishing deltas.
What is compared is timed in turns in one process. Figures are medians.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from fastbptt.kernels.cpu import team

import fastbptt as fb
from fastbptt.commands import info, measuring

from . import stored

_FIRST = """
import pathlib, sys, time
import numpy as np
start = time.perf_counter()
import fastbptt as fb
imported = time.perf_counter() - start
from fastbptt.kernels import disk
disk.folders = lambda: [pathlib.Path(sys.argv[1])]  # no other has compiled kernels
layer, x = fb.LSTM.init(8, 8, rng=0), np.ones((100, 1, 8), "float32")
start = time.perf_counter()
h, _, cache = fb.forward(layer, x)
fb.backward(cache, h)
print(imported, time.perf_counter() - start)
"""


def medians(rounds, *functions):
    """Return the median seconds of each function; they take turns, and the first round warms up."""
    taken = [[measuring.seconds(function) for function in functions] for _ in range(rounds + 1)]
    return [statistics.median(times) for times in zip(*taken[1:], strict=True)]


def smallest_calls():
    """Return the microseconds of calls at T=1, B=1, H=8; those of a network have a readout of 1."""
    layer, x = fb.RNN.init(8, 8, rng=0), np.ones((1, 1, 8), "float32")
    network, y = fb.Network(layer, fb.Readout.init(8, 1, rng=1)), np.ones((1, 1, 1), "float32")

    def both():
        h, _, cache = fb.forward(layer, x)
        fb.backward(cache, h)

    calls = {
        "forward and backward": both,
        "bptt": lambda: fb.bptt(network, x, y),
        "run": lambda: fb.run(network.layer, x),
    }
    taken = medians(3000, *calls.values())
    return {name: seconds * 1e6 for name, seconds in zip(calls, taken, strict=True)}


def first_call():
    """Return the seconds of the import and of the first forward and backward.

    `cold`: all kernels are compiled; `warm`: they are loaded from the disk cache.
    """
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, runs in (("cold", 1), ("warm", 5)):
            pairs = []
            for _ in range(runs):
                command = [sys.executable, "-c", _FIRST, folder]
                done = subprocess.run(command, capture_output=True, check=True)
                pairs.append([float(word) for word in done.stdout.split()])
            imported, called = map(statistics.median, zip(*pairs, strict=True))
            results[name] = {"import_s": imported, "call_s": called}
    return results


def budget(H, T=100_000):
    """Return time and memory with one recompute, relative to full caching.

    The budget is a fiftieth of full caching, or the smallest with one recompute if that is more.
    """
    network = fb.Network(fb.RNN.init(H, H, rng=0), fb.Readout.init(H, 1, rng=1))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((T, 1, H), np.float32), rng.standard_normal((T, 1, 1), np.float32)
    full = fb.plan(network, T)
    within = max(fb.frontier(network, T).checkpointed[1].peak_bytes, full.peak_bytes // 50)
    plan = fb.plan(network, T, memory=within)
    times = medians(
        5, lambda: fb.bptt(network, x, y), lambda: fb.bptt(network, x, y, memory=within)
    )
    return {
        "H": H,
        "T": T,
        "full_s": times[0],
        "budget_s": times[1],
        "time_ratio": times[1] / times[0],
        "memory_ratio": plan.peak_bytes / full.peak_bytes,
        "recomputes": plan.recomputes,
    }


def shares(T=1000, B=32, H=256, share=0.05):
    """Return time and memory within a share of the cached steps, and of all bytes.

    What does not depend on the schedule, weights and scratch, comes on top of the first share; in
    the second it is included, so that less is left for steps.
    """
    network = fb.Network(fb.LSTM.init(H, H, rng=0), fb.Readout.init(H, 1, rng=1))
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((T, B, width), np.float32) for width in (H, 1))
    full = fb.plan(network, T, B)
    budgets = {
        f"the fixed bytes and {share:.0%} of the cached steps": int(
            full.fixed_bytes + share * full.cache_bytes
        ),
        f"{share:.0%} of all bytes": int(share * full.peak_bytes),
    }
    plans = [fb.plan(network, T, B, memory=fb.Checkpointed(within)) for within in budgets.values()]
    memories = "full", *(plan.memory for plan in plans)
    full_s, *within_s = medians(
        5, *(lambda memory=memory: fb.bptt(network, x, y, memory=memory) for memory in memories)
    )
    rows = [
        {
            "budget": name,
            "peak_bytes": plan.peak_bytes,
            "memory_ratio": plan.peak_bytes / full.peak_bytes,
            "forward_steps": plan.forward_steps,
            "recomputes": plan.recomputes,
            "budget_s": taken,
            "time_ratio": taken / full_s,
        }
        for name, plan, taken in zip(budgets, plans, within_s, strict=True)
    ]
    return {
        "cell": "LSTM", "dtype": "float32", "T": T, "B": B, "I": H, "H": H, "O": 1,
        "full_s": full_s, "full_bytes": full.peak_bytes, "budgets": rows,
    }  # fmt: skip


def vanishing():
    """Return the time of a backward pass with vanishing deltas, relative to an ordinary one."""
    layer = fb.RNN.init(64, 64, rng=0)
    x = np.random.default_rng(0).standard_normal((20_000, 1, 64), np.float32)
    h, _, cache = fb.forward(layer, x)
    ordinary, faint = np.ones_like(h), np.full_like(h, 1e-38)
    faint[:-1] = 0
    times = medians(
        9,
        lambda: fb.backward(cache, ordinary, keep=True),
        lambda: fb.backward(cache, faint, keep=True),
    )
    return times[1] / times[0]


def main():
    """Measure, print and store the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=stored.RESULTS / "claims.json")
    args = parser.parse_args()
    machine = info.describe(team.available_cpus())
    result = {
        "machine": machine,
        "smallest_calls_us": smallest_calls(),
        "first_call": first_call(),
        "budget": [budget(H) for H in (64, 128, 256)],
        "shares": shares(),
        "vanishing_over_ordinary": vanishing(),
        "barrier_us": team.barrier_seconds() * 1e6,
    }
    stored.save(args.out, result)
    print(args.out.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
