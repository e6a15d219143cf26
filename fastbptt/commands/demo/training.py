"""The demo's network: a character LSTM, trained by truncated BPTT and sampled from."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from . import text

if TYPE_CHECKING:
    from ...arrays import Array
    from ...layers.network import Network

CHUNK = 32
"""Steps of a training chunk; the next chunk starts from its final state, without its gradient."""


def new_network(hidden: int, seed: int) -> Network:
    """Return a character LSTM with fresh weights."""
    import fastbptt as fb

    layer = fb.LSTM.init(text.CLASSES, hidden, rng=seed)
    readout = fb.Readout.init(hidden, text.CLASSES, rng=seed + 1, activation="softmax")
    return fb.Network(layer, readout)


class Learning:
    """The course of training: (seconds, bits per character) on each text, and the baselines."""

    def __init__(self) -> None:
        self.training: list[tuple[float, float]] = []
        self.held_out: list[tuple[float, float]] = []
        self.baselines: dict[str, float] = {}
        self.characters = self.updates = 0
        self.seconds = 0.0


def train(
    network: Network,
    train_ids: Array,
    held_ids: Array,
    seconds: float,
    B: int,
    *,
    rate: float = 1e-2,
    show: Callable[[float, float, str], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Learning:
    """Train by truncated BPTT for some seconds, at least one update; weights change in place.

    The text is cut into B parallel streams. Each chunk of `CHUNK` steps starts from the final state
    of the previous one, and its gradient stops there. A part of the held-out text is scored during
    training, all of it at the end. `show(elapsed, seconds, note)` is called after each update.
    """
    import fastbptt as fb

    x, y = text.streams(train_ids, B)
    held_x, held_y = text.streams(held_ids, B)
    adam, learning = fb.Adam(clip=1.0), Learning()
    state, at, recent = None, 0, np.log2(text.CLASSES)
    start = clock()
    while (elapsed := clock() - start) < seconds or not learning.updates:
        if elapsed >= len(learning.held_out) * seconds / 12:
            bits = held_out_bits(network, held_x[:500], held_y[:500])
            learning.held_out.append((elapsed, bits))
        part = slice(at, at + CHUNK)
        r = fb.bptt(network, x[part], y[part], "cross_entropy", state=state, reduction="mean")
        fade = 0.5 + 0.5 * np.cos(np.pi * elapsed / seconds)
        adam.lr = rate * (0.02 + 0.98 * fade)
        adam.step(network, r.grad)
        state, at = r.state, at + CHUNK
        if at + CHUNK > len(x):
            state, at = None, 0
        recent += (r.loss / np.log(2) - recent) * max(0.03, 1 / (1 + learning.updates))
        learning.training.append((elapsed, recent))
        learning.updates += 1
        learning.characters += x[part].size
        if show:
            show(elapsed, seconds, f"{recent:.2f} bits per character")
    learning.seconds = clock() - start
    learning.held_out.append((learning.seconds, held_out_bits(network, held_x, held_y)))
    return learning


def held_out_bits(network: Network, x: Array, y: Array) -> float:
    """Return bits per character of the network on other text, from a zero state."""
    import fastbptt as fb

    return fb.evaluate(network, x, y, loss="cross_entropy", reduction="mean") / np.log(2)


def sample(network: Network, prompt: str, count: int, temperature: float, seed: int = 0) -> str:
    """Return the prompt and `count` characters; each is drawn, then fed back as input."""
    import fastbptt as fb

    rng = np.random.default_rng(seed)
    ids = list(text.encode(prompt.encode()))
    o, state = fb.predict(network, np.array(ids))
    for _ in range(count):
        p = o[-1].astype(np.float64) ** (1 / temperature)
        ids.append(rng.choice(len(p), p=p / p.sum()))
        o, state = fb.predict(network, np.array(ids[-1:]), state)
    return text.decode(ids)
