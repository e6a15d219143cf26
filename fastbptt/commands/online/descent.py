"""The optimiser of `online`: the package's own where it has one, else plain Adam."""

from __future__ import annotations

from typing import Any

import numpy as np


class PlainAdam:
    """Adam (Kingma and Ba 2015), with the norm of the gradient clipped to `clip`."""

    def __init__(self, lr: float, clip: float):
        self.lr, self.clip, self.steps = lr, clip, 0
        self.means: list[np.ndarray] = []
        self.squares: list[np.ndarray] = []

    def step(self, network: Any, grad: Any) -> None:
        """Take a step down the gradient, in place."""
        arrays, gradients = network.arrays(), grad.arrays()
        if not self.means:
            self.means = [np.zeros_like(a) for a in arrays]
            self.squares = [np.zeros_like(a) for a in arrays]
        self.steps += 1
        norm = np.sqrt(sum(float(np.vdot(g, g)) for g in gradients))
        share = min(1.0, self.clip / (norm + 1e-12))
        rate = self.lr * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        for a, g, mean, square in zip(arrays, gradients, self.means, self.squares, strict=True):
            g = g * a.dtype.type(share)
            mean += 0.1 * (g - mean)
            square += 0.001 * (g * g - square)
            a -= a.dtype.type(rate) * mean / (np.sqrt(square) + a.dtype.type(1e-8))


def adam(lr: float, clip: float) -> Any:
    """An object with `step(network, grad)`."""
    import fastbptt as fb

    if "Adam" in fb.__all__:
        return fb.Adam(lr=lr, clip=clip)
    return PlainAdam(lr, clip)
