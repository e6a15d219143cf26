"""Shared by the examples: Adam (Kingma and Ba 2015), and a progress bar if tqdm is installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

import fastbptt as fb


class Adam:
    """Updates a model's arrays in place; the norm of the gradient is clipped to `clip`."""

    def __init__(self, model: fb.Network, clip: float = 1.0) -> None:
        self.arrays, self.clip, self.updates = model.arrays(), clip, 0
        self.means = [np.zeros_like(a) for a in self.arrays]
        self.squares = [np.zeros_like(a) for a in self.arrays]

    def update(self, gradient: fb.Network, rate: float) -> None:
        """Take one step of size `rate` down the gradient."""
        self.updates += 1
        gradients = gradient.arrays()
        norm = np.sqrt(sum(float(np.vdot(g, g)) for g in gradients))
        scale = np.float32(min(1.0, self.clip / (norm + 1e-12)))
        rate *= float(np.sqrt(1 - 0.999**self.updates) / (1 - 0.9**self.updates))
        moments = zip(self.arrays, gradients, self.means, self.squares, strict=True)
        for a, g, mean, square in moments:
            g = g * scale
            mean += 0.1 * (g - mean)
            square += 0.001 * (g * g - square)
            a -= rate * mean / (np.sqrt(square) + 1e-8)


def bar(steps: Iterable[int], name: str) -> Iterator[int]:
    """Yield the steps, with a progress bar if tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield from steps
        return
    yield from tqdm(steps, desc=name, mininterval=0.5)
