"""What ragged lengths cost, us beside PyTorch's packed sequences: python -m bench.lengths.

A forward and a backward pass of an LSTM over a batch whose sequences end at different times, timed
in turn, round by round, in one process: by us with `lengths`, by PyTorch with
pack_padded_sequence, and by both over the whole padded batch, as if nothing ended. The figure is
the median over all rounds, in milliseconds a pass; whoever has taken a while sits out the other
rounds, since PyTorch's way back through a packed batch takes time that grows with T squared.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from fastbptt.kernels.cpu import team

import fastbptt as fb
from fastbptt.commands import info, measuring

from .figures import RESULTS

I = H = 64
SHORTEST, T = 1000, 4000
TIMED = 3  # runs, or one where it takes LONG seconds
LONG = 0.1
ENOUGH = 10.0  # seconds, after which one sits out


def cases():
    """(what it is, the lengths of its sequences)."""
    rng = np.random.default_rng(0)
    yield "one sequence, the shortest", np.array([SHORTEST])
    yield "one sequence, half", np.array([T // 2])
    yield "one sequence, whole", np.array([T])
    yield "16 sequences, ragged", rng.integers(SHORTEST, T + 1, 16)
    yield "16 sequences, one of them whole", np.array([T] + [SHORTEST] * 15)
    yield "16 sequences, all whole", np.full(16, T)


def passes(lengths, dtype, threads):
    """{who: a function that does one pass and returns the gradient of W}."""
    rng, B = np.random.default_rng(1), len(lengths)
    layer = fb.LSTM.init(I, H, rng=rng, dtype=dtype)
    x, dh = (rng.standard_normal((T, B, width)).astype(dtype) for width in (I, H))
    dh[np.arange(T)[:, None] >= lengths] = 0  # so that padded passes have the same gradient
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


def time_case(name, lengths, dtype, threads, rounds):
    """Median milliseconds of each, after all were seen to compute the same.

    ratio: the faster of PyTorch's two ways over ours; of_padded: ours over ours as if nothing ended
    """
    runs = passes(lengths, dtype, threads)
    seconds = {who: [] for who in runs}
    due = runs["torch padded"]().astype(float)
    tolerance = 1e-3 if dtype == "float32" else 1e-10
    for who, run in runs.items():
        start = time.perf_counter()
        error = np.linalg.norm(run() - due) / np.linalg.norm(due)
        taken = time.perf_counter() - start
        if taken > ENOUGH:
            seconds[who].append(taken)
        if not error <= tolerance:
            raise SystemExit(f"{name}: the gradient of {who} is off by {error:.2g}")
    for _ in range(rounds):
        for who, run in runs.items():
            if sum(seconds[who]) < ENOUGH:
                seconds[who] += measuring.turn(run, TIMED, LONG)
    millis = {who: statistics.median(taken) * 1e3 for who, taken in seconds.items()}
    return {
        "case": name,
        "dtype": dtype,
        "T": T,
        "B": len(lengths),
        "I": I,
        "H": H,
        "lengths": lengths.tolist(),
        "live": float(lengths.mean() / T),
        "ms": millis,
        "runs": {who: len(taken) for who, taken in seconds.items()},
        "ratio": min(millis["torch"], millis["torch padded"]) / millis["fastbptt"],
        "of_padded": millis["fastbptt"] / millis["fastbptt padded"],
    }


def main():
    """Time all cases and write a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--threads", type=int, default=team.available_cpus())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "lengths_cost.json")
    args = parser.parse_args()
    machine = info.describe(args.threads) | {"load before": os.getloadavg()[0]}
    points = []
    for dtype in args.dtypes:
        for name, lengths in cases():
            points.append(time_case(name, lengths, dtype, args.threads, args.rounds))
            print(_line(points[-1]), flush=True)
    result = {"machine": machine, "cell": "LSTM", "rounds": args.rounds, "points": points}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _line(point):
    times = "  ".join(f"{who} {value:7.1f}" for who, value in point["ms"].items())
    return (
        f"{point['case']:32} {point['dtype']}  {point['live']:4.0%} live  {times} ms"
        f"  x{point['ratio']:.2f}, {point['of_padded']:.0%} of padded"
    )


if __name__ == "__main__":
    main()
