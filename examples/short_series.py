"""Learn a thousand short series of different lengths, laid end to end instead of padded.

In a padded batch every series takes the time and memory of the longest: here most of it is padding.
With `resets=` series are laid end to end in a few long rows, and the network begins each of them
anew, from an initial state of its own that is trained too. Both ways give the same loss and
gradient; the table says what each costs.

    python examples/short_series.py [--series 1000] [--rows 16] [--hidden 64] [--repeats 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np

import fastbptt as fb


def series(count: int, seed: int) -> list[np.ndarray]:
    """Return noisy waves (T_b, 1), most of them short, a few up to 30 times as long."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(600, 20 + rng.exponential(40.0, count) ** 1.2).astype(int)
    found = []
    for steps in lengths:
        wave = np.sin(rng.uniform(0.1, 0.5) * np.arange(steps) + rng.uniform(0, 6))
        found.append((wave + 0.1 * rng.standard_normal(steps))[:, None].astype(np.float32))
    return found


def targets(x: np.ndarray) -> np.ndarray:
    """Return what to predict: the next value, and at the end of a series nothing that counts."""
    return np.concatenate([x[1:], x[:1]])


def last_steps(resets: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the weights of a batch: 0 at the last step of each series, which none follows."""
    weights = np.ones(resets.shape, np.float32)
    weights[:-1][resets[1:]] = 0
    weights[ends - 1, np.arange(len(ends))] = 0
    return weights


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the least time of some calls, after one that compiles."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def main(arguments: list[str] | None = None) -> dict[str, fb.Result]:
    """Compare both ways; returns their results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(arguments)

    parts = series(args.series, seed=0)
    steps = sum(map(len, parts))
    layer = fb.GRU.init(1, args.hidden, rng=0)
    state = np.zeros(args.hidden, np.float32)  # trained: r.grad.state is its gradient
    network = fb.Network(layer, fb.Readout.init(args.hidden, 1, rng=1), state)

    padded, lengths = fb.pad(parts)
    packed, resets, ends, _ = fb.pack(parts, args.rows)
    no_resets = np.zeros(padded.shape[:2], bool)
    ways = {
        "padded": (padded, no_resets, lengths),
        "end to end": (packed, resets, ends),
    }
    print(f"{args.series:,} series of {lengths.min()} to {lengths.max()} steps, {steps:,} in all")
    print(f"{'':>12}{'T':>8}{'B':>7}{'steps x B':>12}{'x':>10}{'peak':>11}{'time':>10}")
    results = {}
    for name, (x, cuts, own_lengths) in ways.items():
        weights = last_steps(cuts, own_lengths)
        train = partial(
            fb.bptt, network, x, targets(x), weights=weights, lengths=own_lengths, resets=cuts,
            reduction="mean",
        )  # fmt: skip
        took, r = seconds(train, args.repeats), train()
        T, B = x.shape[:2]
        print(
            f"{name:>12}{T:>8,}{B:>7,}{T * B:>12,}{x.nbytes / 1e6:>7.2f} MB"
            f"{r.plan.peak_bytes / 1e6:>8.1f} MB{took:>8.3f} s"
        )
        results[name] = r
    one, other = results.values()
    far = max(
        float(np.linalg.norm(a - b) / np.linalg.norm(a))
        for a, b in zip(one.grad.arrays(), other.grad.arrays(), strict=True)
    )
    print(f"loss {one.loss:.6f} and {other.loss:.6f}; gradients differ by at most {far:.1e}")
    return results


if __name__ == "__main__":
    main()
