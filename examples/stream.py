"""Learn online from a file larger than the memory used for learning.

A file of sensor readings is memory-mapped: the operating system loads what a call reads. The
network passes over the file once, chunk by chunk. It carries its state from chunk to chunk and
takes truncated gradients (BPTT(k2; k1), Williams and Peng 1990), so memory does not grow with the
file. Halfway through, the signals change. The network, which never stops learning, adapts; a copy
that stopped learning just before the change does not.

    python examples/stream.py [--steps 4000000] [--file readings.f32]
"""

from __future__ import annotations

import argparse
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
from training import bar

import fastbptt as fb

SENSORS = 8
CHUNK = 2048
MEMORY = fb.Truncated(k1=64, k2=256)
"""Every 64 steps, their losses are backpropagated over at most 256 steps."""


def write_readings(path: Path, steps: int) -> None:
    """Write (steps, SENSORS) float32: mixed oscillators, whose periods change halfway."""
    rng = np.random.default_rng(0)
    file = np.memmap(path, np.float32, "w+", shape=(steps, SENSORS))
    mixing = rng.standard_normal((SENSORS, SENSORS)) / SENSORS**0.5
    for start in range(0, steps, 1 << 16):
        t = np.arange(start, min(start + (1 << 16), steps))[:, None]
        periods = np.geomspace(7, 90, SENSORS) * np.where(t < steps // 2, 1.0, 0.6)
        swings = np.sign(np.sin(2 * np.pi * t / periods)) @ mixing
        file[t[:, 0]] = swings + 0.1 * rng.standard_normal(swings.shape)
    file.flush()


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Learn and report; returns the printed errors, and the peak of memory."""
    parser = argparse.ArgumentParser(description="Learn online from a file larger than memory.")
    parser.add_argument("--steps", type=int, default=4_000_000)
    parser.add_argument("--hidden", type=int, default=48)
    parser.add_argument("--file", type=Path, help="for the readings; default: a temporary file")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = args.file or Path(folder) / "readings.f32"
        write_readings(path, args.steps)
        return learn(path, args.hidden)


def learn(path: Path, hidden: int) -> dict[str, float]:
    """Pass over the file once; each reading is predicted from those before it."""
    readings = np.memmap(path, np.float32, "r").reshape(-1, SENSORS)
    x, y = readings[:-1], readings[1:]
    network = fb.Network(
        fb.LSTM.init(SENSORS, hidden, rng=1), fb.Readout.init(hidden, SENSORS, rng=2)
    )
    plan = fb.plan(network, CHUNK, memory=MEMORY)
    print(f"{len(x):,} readings of {SENSORS} sensors, {path.stat().st_size / 1e6:.0f} MB on disk.")
    print(f"A chunk of {CHUNK:,} needs at most {plan.peak_bytes / 1e6:.1f} MB:\n")
    print(plan, "\n", flush=True)

    chunks = len(x) // CHUNK
    errors = np.zeros(chunks)  # of each chunk, before the network learns from it
    adam, state, frozen = fb.Adam(3e-3, clip=1.0), None, network
    fb.bptt(network, x[:2], y[:2])  # the first call loads or compiles the kernels
    tracemalloc.start()
    for chunk in bar(range(chunks), "online"):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        if chunk == chunks // 2 - 2:
            frozen = network.replace_arrays([a.copy() for a in network.arrays()])
        r = fb.bptt(network, x[part], y[part], state=state, memory=MEMORY, reduction="mean")
        errors[chunk], state = r.loss, r.state
        adam.step(network, r.grad)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    tenth = chunks // 10
    end = slice(len(x) - tenth * CHUNK, None)
    result: dict[str, float] = {
        "in the first hundredth": errors[: max(1, chunks // 100)].mean(),
        "before the change": errors[chunks // 2 - tenth : chunks // 2 - 1].mean(),
        "just after it": errors[chunks // 2 + 1 : chunks // 2 + 1 + max(1, chunks // 100)].mean(),
        "at the end": errors[-tenth:].mean(),
    }
    unlearnt = fb.evaluate(frozen, x[end], y[end], reduction="mean")
    result["at the end, had it stopped learning"] = unlearnt
    print("Squared error of the next reading, all sensors together:")
    for when, error in result.items():
        print(f"  {when:40} {error:.3f}")
    print(f"Peak of memory while learning, by tracemalloc: {peak / 1e6:.1f} MB")
    return {**result, "peak": peak}


if __name__ == "__main__":
    main()
