"""An audio effect in PyTorch: a GRU learns a compressor, on pieces of 2**17 samples.

A compressor turns loud sound down. It follows the level of the sound, quickly when that rises and
slowly when it falls: here within 1 ms and 60 ms, which are 48 and 2,880 samples. So the error at a
sample depends on thousands of samples before it. cuDNN, which runs PyTorch's layers on a GPU, takes
at most 65,535 steps, and PyTorch's own loop on a CPU keeps every step. Here a piece is longer, its
gradient is exact, and what the GRU holds for it stays within a budget.

A recurrent layer and a linear one find the gain at each sample. The loss is that of such models of
effects (Wright, Damskagg and Valimaki 2019): the squared error over the squared signal.

    python examples/torch_audio_effect.py [--samples 131072] [--updates 60] [--budget 64MB]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from training import bar

import fastbptt.torch

RATE = 48_000  # samples a second
ATTACK, RELEASE = 0.001, 0.060  # seconds
THRESHOLD, RATIO = 0.1, 8.0  # above the threshold, an eighth of what the level rises by is left


def phrases(samples: int, count: int, seed: int) -> np.ndarray:
    """Notes of falling loudness, of all pitches and lengths: (T, B) float64 from -1 to 1."""
    rng = np.random.default_rng(seed)
    sound = np.zeros((samples, count))
    for b in range(count):
        start = 0
        while start < samples:
            length = int(RATE * rng.uniform(0.05, 0.4))
            t = np.arange(min(length, samples - start)) / RATE
            tone = sum(np.sin(2 * np.pi * rng.uniform(80, 2000) * t) for _ in range(3)) / 3
            sound[start : start + len(t), b] = rng.uniform(0.05, 1.0) * np.exp(-8 * t) * tone
            start += length
    return sound


@njit
def compressed(sound: np.ndarray) -> np.ndarray:
    """Each column of (T, B), turned down by the level that is followed."""
    out = np.empty_like(sound)
    rise, fall = np.exp(-1 / (ATTACK * RATE)), np.exp(-1 / (RELEASE * RATE))
    for b in range(sound.shape[1]):
        level = 0.0
        for t in range(len(sound)):
            now = abs(sound[t, b])
            keep = rise if now > level else fall
            level = keep * level + (1 - keep) * now
            over = max(1.0, level / THRESHOLD)
            out[t, b] = sound[t, b] * over ** (1 / RATIO - 1)
    return out


def pair(samples: int, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The effect's input and output, both (T, B, 1) float32."""
    sound = phrases(samples, count, seed)
    dry, wet = (torch.from_numpy(a).float()[..., None] for a in (sound, compressed(sound)))
    return dry, wet


class Effect(torch.nn.Module):  # type: ignore[misc]
    """A gain for each sample, at first 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(1, width)
        self.gain = torch.nn.Linear(width, 1)
        torch.nn.init.zeros_(self.gain.weight)
        torch.nn.init.ones_(self.gain.bias)

    def forward(self, dry: torch.Tensor) -> torch.Tensor:
        """What the effect makes of dry sound, both (T, B, 1)."""
        return dry * self.gain(self.gru(dry)[0])


def error_to_signal(found: torch.Tensor, wet: torch.Tensor) -> torch.Tensor:
    """0 is perfect, 1 is silence."""
    return (found - wet).square().sum() / wet.square().sum()


def seconds_of(model: Effect, dry: torch.Tensor, wet: torch.Tensor) -> float:
    """How long one gradient takes."""
    start = time.perf_counter()
    torch.autograd.grad(error_to_signal(model(dry), wet), list(model.parameters()))
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> tuple[float, float]:
    """Train, report; returns the error on unheard sound, before and after."""
    parser = argparse.ArgumentParser(description="A GRU learns a compressor, in PyTorch.")
    parser.add_argument("--samples", type=int, default=2**17)
    parser.add_argument("--pieces", type=int, default=4, help="that are learnt at once")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--budget", default="64MB", help="for what the GRU holds")
    parser.add_argument(
        "--compared", type=int, default=4096, help="steps that torch.nn is timed on"
    )
    given = parser.parse_args(arguments)
    dry, wet = pair(given.samples, given.pieces, seed=0)
    unheard = pair(given.samples, 1, seed=1)
    torch.manual_seed(0)
    model = Effect(given.width)
    part = slice(given.compared)
    plain = seconds_of(model, dry[part], wet[part]) / len(dry[part])
    fastbptt.torch.accelerate(model, given.budget)

    def unheard_error() -> float:
        with torch.no_grad():
            return error_to_signal(model(unheard[0]), unheard[1]).item()

    before = unheard_error()
    optimizer = torch.optim.Adam(model.parameters())
    start = time.perf_counter()
    for update in bar(range(given.updates), "exact gradients"):
        for group in optimizer.param_groups:
            group["lr"] = given.rate * (1 - update / given.updates) + 1e-4
        optimizer.zero_grad()
        error_to_signal(model(dry), wet).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    ours = (time.perf_counter() - start) / given.updates / len(dry)
    after = unheard_error()
    print(f"recurrent layer      {model.gru}")
    print(f"steps, sequences     {len(dry):,}, {given.pieces}")
    print(f"an update            {ours * 1e6:.2f} us a step")
    print(f"torch.nn's gradient  {plain * 1e6:.2f} us a step, over {len(dry[part]):,} steps")
    print(f"error to signal      {before:.3f} -> {after:.4f}, on sound that it never heard")
    return before, after


if __name__ == "__main__":
    main()
