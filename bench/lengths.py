"""Sequences of unequal lengths, beside PyTorch's packed sequences: python -m bench.lengths.

A forward and a backward pass of an LSTM over a batch whose sequences end at different times: by
fastbptt with `lengths`, by PyTorch with pack_padded_sequence, and by both over the whole padded
batch. All take turns in one process. The figure is the median over all rounds, in milliseconds a
pass. What has taken ENOUGH seconds skips the remaining rounds: PyTorch's backward pass through a
packed batch takes time that grows with T squared.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from fastbptt.kernels.cpu import team

import fastbptt as fb
from fastbptt.commands import info, measuring

from . import stored

I = H = 64
SHORTEST, T = 1000, 4000
TIMED = 3  # runs in a turn; one if it takes LONG seconds or more
LONG = 0.1
ENOUGH = 10.0  # seconds of one contestant


def cases():
    """Yield (name, lengths of the sequences)."""
    rng = np.random.default_rng(0)
    yield "one sequence, the shortest", np.array([SHORTEST])
    yield "one sequence, half", np.array([T // 2])
    yield "one sequence, whole", np.array([T])
    yield "16 sequences, ragged", rng.integers(SHORTEST, T + 1, 16)
    yield "16 sequences, one of them whole", np.array([T] + [SHORTEST] * 15)
    yield "16 sequences, all whole", np.full(16, T)


def passes(lengths, dtype, threads):
    """Return {name: a function that does one pass and returns the gradient of W}."""
    rng, B = np.random.default_rng(1), len(lengths)
    layer = fb.LSTM.init(I, H, rng=rng, dtype=dtype)
    x, dh = (rng.standard_normal((T, B, width)).astype(dtype) for width in (I, H))
    dh[np.arange(T)[:, None] >= lengths] = 0  # then padded passes have the same gradient
    fb.set_num_threads(threads)
    torch.set_num_threads(threads)
    module = fb.to_torch(layer)
    x_torch, dh_torch = torch.from_numpy(x).requires_grad_(), torch.from_numpy(dh)

    def ours(given):
        cache = fb.forward(layer, x, lengths=given)[2]
        return fb.backward(cache, dh).layer.W

    def torchs(packed):
        x_torch.grad = None
        module.zero_grad()
        given = x_torch
        if packed:
            given = torch.nn.utils.rnn.pack_padded_sequence(given, lengths, enforce_sorted=False)
        h, _ = module(given)
        if packed:
            h, _ = torch.nn.utils.rnn.pad_packed_sequence(h, total_length=T)
        h.backward(dh_torch)
        return module.weight_hh_l0.grad.numpy().copy()

    return {
        "fastbptt": lambda: ours(lengths),
        "torch": lambda: torchs(True),
        "fastbptt padded": lambda: ours(None),
        "torch padded": lambda: torchs(False),
    }


def time_case(case, lengths, dtype, threads, rounds):
    """Return the median milliseconds of each; all must compute the same gradient first.

    live : share of the steps within the lengths
    ratio : time of PyTorch, packed or padded, whichever is faster, over that of fastbptt
    of_padded : time of fastbptt over its time for the whole padded batch
    """
    runs = passes(lengths, dtype, threads)
    seconds = {name: [] for name in runs}
    expected = runs["torch padded"]().astype(float)
    tolerance = 1e-3 if dtype == "float32" else 1e-10
    for name, run in runs.items():
        start = time.perf_counter()
        error = np.linalg.norm(run() - expected) / np.linalg.norm(expected)
        taken = time.perf_counter() - start
        if taken > ENOUGH:
            seconds[name].append(taken)
        if not error <= tolerance:
            raise SystemExit(f"{case}: the gradient of {name} is off by {error:.2g}")
    for _ in range(rounds):
        for name, run in runs.items():
            if sum(seconds[name]) < ENOUGH:
                seconds[name] += measuring.turn(run, TIMED, LONG)
    millis = {name: statistics.median(taken) * 1e3 for name, taken in seconds.items()}
    return {
        "case": case,
        "dtype": dtype,
        "T": T,
        "B": len(lengths),
        "I": I,
        "H": H,
        "lengths": lengths.tolist(),
        "live": float(lengths.mean() / T),
        "ms": millis,
        "runs": {name: len(taken) for name, taken in seconds.items()},
        "ratio": min(millis["torch"], millis["torch padded"]) / millis["fastbptt"],
        "of_padded": millis["fastbptt"] / millis["fastbptt padded"],
    }


def main():
    """Time all cases and store the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--threads", type=int, default=team.available_cpus())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=stored.RESULTS / "lengths_cost.json")
    args = parser.parse_args()
    machine = info.describe(args.threads)
    points = []
    for dtype in args.dtypes:
        for case, lengths in cases():
            points.append(time_case(case, lengths, dtype, args.threads, args.rounds))
            print(_line(points[-1]), flush=True)
    result = {"machine": machine, "cell": "LSTM", "rounds": args.rounds, "points": points}
    stored.save(args.out, result)


def _line(point):
    times = "  ".join(f"{name} {value:7.1f}" for name, value in point["ms"].items())
    return (
        f"{point['case']:32} {point['dtype']}  {point['live']:4.0%} live  {times} ms"
        f"  x{point['ratio']:.2f}, {point['of_padded']:.0%} of padded"
    )


if __name__ == "__main__":
    main()
