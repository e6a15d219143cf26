"""Follow a system that drifts, one step at a time, by each method of online learning.

A resonator is driven by noise, and its pitch moves without end: what was learnt goes out of date. A
small network sees the noise and predicts the resonator's saturated output. It learns from every
step as it comes, and nothing that came is needed again. The methods differ in which gradient they
take, and so in the error that they leave and in the time of a step.

    python examples/drift.py [--steps 60000] [--out drift.png]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from training import bar

import fastbptt as fb

METHODS: list[tuple[str, Any, float]] = [
    ("truncated, k1=16, k2=16", fb.Truncated(16, 16), 1e-2),
    ("truncated, k1=16, k2=64: replay", fb.Truncated(16, 64), 1e-2),
    ("truncated, k1=16, k2=64: stale", fb.Truncated(16, 64, weights="stale"), 1e-2),
    ("truncated, k1=16, k2=64: stored", fb.Truncated(16, 64, weights="stored"), 1e-2),
    ("truncated, k1=1, k2=64: stale", fb.Truncated(1, 64, weights="stale"), 1e-3),
    ("SnAp-1, an update a step", fb.SnAp1(), 1e-3),
    ("RTRL, an update a step", fb.RTRL(), 1e-3),
]
"""Name, gradient, and the rate of Adam for that many updates."""


def resonator(steps: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Noise (steps, 1), and the output of a resonator of moving pitch that it drives (steps, 1)."""
    noise = rng.standard_normal(steps)
    t = np.arange(steps)
    pitch = 0.35 + 0.2 * np.sin(2 * np.pi * t / 20_000) + 0.05 * np.sin(2 * np.pi * t / 3_700)
    damping, last, before = 0.93, 0.0, 0.0
    out = np.empty(steps)
    for now, (turn, push) in enumerate(zip(2 * damping * np.cos(pitch), noise, strict=True)):
        last, before = turn * last - damping**2 * before + push, last
        out[now] = last
    x, y = noise[:, None], np.tanh(0.5 * out)[:, None]
    return x.astype(np.float32), y.astype(np.float32)


def follow(
    name: str, gradient: Any, rate: float, x: np.ndarray, y: np.ndarray, hidden: int
) -> tuple[np.ndarray, float]:
    """Learn by one method; returns the squared error of every step and the microseconds of one."""
    network = fb.Network(fb.GRU.init(1, hidden, rng=0), fb.Readout.init(hidden, 1, rng=1))
    learner = fb.Online(network, gradient=gradient)
    adam = fb.Adam(rate, clip=1.0)
    learner.push(x[:1], y[:1])  # the first call loads or compiles the kernels
    learner.reset()
    errors, spent = np.empty(len(x)), 0.0
    for t in bar(range(len(x)), name):
        begin = time.perf_counter()
        update = learner.push(x[t], y[t])
        spent += time.perf_counter() - begin
        # The prediction was made before the network could learn from this step.
        errors[t] = ((update.outputs - y[t]) ** 2).sum()
        if update.grad is not None:
            adam.step(network, update.grad)  # in place: the learner sees it at the next push
    return errors, spent / len(x) * 1e6


def draw(path: Path, found: dict[str, tuple[np.ndarray, float]], scale: float) -> None:
    """Draw the error against time, and against the microseconds of a step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (errors, micros) in found.items():
        window = max(1, len(errors) // 60)
        parts = errors[: len(errors) // window * window].reshape(-1, window).mean(axis=1) / scale
        (line,) = left.plot(np.arange(len(parts)) * window, parts, label=name)
        late = errors[len(errors) // 2 :].mean() / scale
        right.plot(micros, late, "o", color=line.get_color())
        right.annotate(name, (micros, late), (6, 4), textcoords="offset points", fontsize=8)
    left.set_xlabel("steps")
    left.set_ylabel("squared error / variance")
    left.set_yscale("log")
    left.legend(fontsize=8)
    right.set_xlabel("microseconds a step")
    right.set_ylabel("squared error / variance, second half")
    right.set_xscale("log")
    right.margins(x=0.4, y=0.2)
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> dict[str, tuple[float, float]]:
    """Follow by each method; returns the error of the second half and the time of a step."""
    parser = argparse.ArgumentParser(description="Follow a system that drifts.")
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--out", type=Path, help="a picture to draw; needs matplotlib")
    args = parser.parse_args(arguments)
    x, y = resonator(args.steps, np.random.default_rng(0))
    scale = float(y.var())
    print(f"{args.steps:,} steps, a GRU of {args.hidden} units.\n")
    print(f"{'method':32}{'error / variance':>18}{'us a step':>11}", flush=True)
    found: dict[str, tuple[np.ndarray, float]] = {}
    result: dict[str, tuple[float, float]] = {}
    for name, gradient, rate in METHODS:
        found[name] = errors, micros = follow(name, gradient, rate, x, y, args.hidden)
        late = float(errors[len(errors) // 2 :].mean()) / scale
        result[name] = late, micros
        print(f"{name:32}{late:18.4f}{micros:11.1f}", flush=True)
    if args.out is not None:
        draw(args.out, found, scale)
    return result


if __name__ == "__main__":
    main()
