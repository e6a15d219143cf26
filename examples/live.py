"""Play through an LSTM amplifier live: blocks of samples, as a sound card asks for them.

A sound card at 48 kHz hands over a block of 64 to 256 samples and wants the next one back before
that has been played: 1.3 to 5.3 ms later. A network that is late once is heard as a click. Here a
network learns the amplifier of amplifier.py, and a Stepper then plays notes that it never heard, a
block whenever one is due. Its state stays where it is between blocks; nothing is allocated.

    python examples/live.py [--seconds 5] [--hidden 24] [--model in.npz] [--picture out.png]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from amplifier import RATE, pair
from training import bar

import fastbptt as fb

BLOCKS = (64, 128, 256)  # samples


def learnt(hidden: int, seconds: float, updates: int) -> fb.Network:
    """Return a network that has learnt the amplifier from so many seconds of sound."""
    x, y = pair(seconds, seed=0)
    layer = fb.LSTM.init(1, hidden, rng=2)
    layer.U[:] *= 5  # strings are quiet: 0.15 V on average
    layer.b[hidden : 2 * hidden] += 1  # the forget gates start nearly open
    network = fb.Network(layer, fb.Readout.init(hidden, 1, rng=3))
    adam = fb.Adam(lambda step: 0.02 * (1 - step / updates) + 1e-4, clip=1.0)
    for _ in bar(range(updates), "learning"):
        r = fb.bptt(network, x, y, memory="64MB", reduction="mean")
        adam.step(network, r.grad)
    return network


def play(network: fb.Network, sound: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Play the sound in real time; returns what is heard, and the seconds that each block took."""
    amplifier = fb.Stepper(network)
    heard = np.empty_like(sound)
    amplifier.process(sound[:block], heard[:block])  # all is loaded before the sound begins
    amplifier.reset()
    taken = np.empty(len(sound) // block)
    begun = time.perf_counter()
    for n in range(len(taken)):
        time.sleep(max(0.0, begun + n * block / RATE - time.perf_counter()))  # until it is due
        now = slice(n * block, (n + 1) * block)
        start = time.perf_counter()
        amplifier.process(sound[now], heard[now])  # what a sound card's callback would do
        taken[n] = time.perf_counter() - start
    return heard[: len(taken) * block], taken


def draw(path: str, taken: dict[int, np.ndarray]) -> None:
    """Draw how many blocks took how much of the time that they had."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for block, seconds in taken.items():
        shares = np.sort(seconds * RATE / block)
        beyond = 1 - np.arange(len(shares)) / len(shares)
        axes.step(100 * shares, beyond, where="post", label=f"{block} samples")
    axes.axvline(100, color="black", linewidth=0.8)
    axes.text(95, 0.5, "heard as a click beyond", ha="right", va="center", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="share of the time that a block has (%)")
    axes.set(ylabel="blocks that took more", title="An LSTM amplifier at 48 kHz")
    axes.legend(frameon=False)
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> dict[int, np.ndarray]:
    """Play and report; returns the seconds that each block took, for each length of blocks."""
    parser = argparse.ArgumentParser(description="An LSTM amplifier, block by block.")
    parser.add_argument("--seconds", type=float, default=5, help="of sound, for each block length")
    parser.add_argument("--hidden", type=int, default=24)
    parser.add_argument("--updates", type=int, default=100, help="of the weights, before it plays")
    parser.add_argument("--model", help="a network that is there already, of one input and output")
    parser.add_argument("--picture", help="write a picture of the times, if matplotlib is there")
    args = parser.parse_args(arguments)

    if args.model:
        network = fb.load(Path(args.model))
    else:
        network = learnt(args.hidden, min(args.seconds, 5), args.updates)
    sound, wanted = pair(args.seconds, seed=1)
    whole, _ = fb.predict(network, sound)
    error = float(np.sum((whole - wanted) ** 2.0) / np.sum(wanted**2.0))
    print(f"{network.layer!r}, error-to-signal ratio {error:.3f} on notes that it never heard.")
    print(f"Each line is {args.seconds:g} s at {RATE:,} Hz, played as they pass:\n")
    print("samples  time (ms)  median (us)  99.9% (us)   most (us)  share  late")
    taken = {}
    for block in BLOCKS:
        heard, seconds = play(network, sound, block)
        assert np.array_equal(heard, whole[: len(heard)])  # not a bit depends on the blocks
        due, us = block / RATE, 1e6 * seconds
        print(
            f"{block:7}  {1000 * due:9.2f}  {np.median(us):11.1f}  "
            f"{np.quantile(us, 0.999):10.1f}  {us.max():10.1f}  "
            f"{seconds.mean() / due:5.1%}  {np.sum(seconds > due):4}"
        )
        taken[block] = seconds
    amplifier, out, each = fb.Stepper(network), np.empty(1, np.float32), []
    for sample in sound[:RATE]:
        start = time.perf_counter()
        amplifier.step(sample, out)
        each.append(time.perf_counter() - start)
    one = 1e6 * float(np.median(each))
    print(f"\nSample by sample: {one:.1f} us each, of {1e6 / RATE:.1f} us that there are.")
    if args.picture:
        draw(args.picture, taken)
        print(f"{args.picture}: how many blocks took how much of their time")
    return taken


if __name__ == "__main__":
    main()
