"""Dropout between the layers of a Stack."""

from __future__ import annotations

from ..arrays import Array
from ..backends.base import Backend
from ..layers.composite import Layer, Stack


class PartSeed(int):
    """The seed of a call on a part of a batch, whose sequences the masks count from `first` on."""

    first: int

    def __new__(cls, seed: int, first: int) -> PartSeed:
        """The seed of the sequences from `first` on."""
        self = super().__new__(cls, seed)
        self.first = first
        return self


class Dropout:
    """The masks of one call: of layer, time t0 + t, sequence first + b and unit."""

    def __init__(self, rate: float, seed: int, t0: int):
        self.seed, self.t0 = seed, t0
        self.first = seed.first if isinstance(seed, PartSeed) else 0
        self.threshold = min(2**64 - 1, int(rate * 2**64))
        self.scale = 1 / (1 - rate)

    def apply(self, device: Backend, out: Array, values: Array, layer: int, start: int) -> None:
        """`out` (n, B, H), which may be `values`, becomes those states of `layer` that are kept."""
        from ..kernels.masks import key_of  # here, since it loads Numba

        key, start = key_of(self.seed, layer), self.t0 + start
        device.drop(out, values, key, self.threshold, self.scale, start, self.first)


def of(layer: Layer, seed: int | None, t0: int) -> Dropout | None:
    """The dropout of a call, or None. Raises ValueError where it needs a seed and there is none."""
    if not isinstance(layer, Stack) or not layer.dropout or len(layer.layers) == 1:
        return None
    if seed is None:
        raise ValueError(
            f"seed must be given for a Stack with dropout={layer.dropout}, to draw the masks from"
        )
    return Dropout(layer.dropout, seed, t0)
