"""The arguments that all calls share, checked and brought to one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import arguments, devices, states
from .chain import Chain
from .kernels.cpu import team
from .layers import Network, Readout, Recurrent
from .sizes import Sizes, Spans, panel_steps, sizes
from .sources import Floats, Ids, Lengths
from .typing import Array, Layer, State


def recurrent(layer: Any) -> Layer:
    """`layer`, which must be a recurrent layer."""
    if not isinstance(layer, Recurrent):
        raise TypeError(
            f"layer must be a recurrent layer such as fastbptt.LSTM, "
            f"not {arguments.describe(layer)}"
        )
    return layer


def check_dropout(seed: int | None, t0: int) -> None:
    """Check the arguments that dropout will take: a seed or None, and the time of x[0]."""
    if seed is not None:
        arguments.integer("seed", seed, 0)
    arguments.integer("t0", t0, 0)


def network(value: Any) -> Network:
    """`value`, which must be a Network."""
    if not isinstance(value, Network):
        raise TypeError(f"network must be a fastbptt.Network, not {arguments.describe(value)}")
    return value


class Call:
    """The checked arguments that all functions share."""

    def __init__(
        self,
        layer: Layer,
        x: Array,
        state: State | None = None,
        lengths: Array | int | None = None,
        device: str | None = None,
    ):
        self.layer = recurrent(layer)
        self.layers = [layer]
        devices.require(device)
        x = arguments.array("x", x)
        self.tokens = x.dtype.kind in "iu"
        if self.tokens:
            if x.ndim not in (1, 2):
                raise ValueError(f"x of tokens must have shape (T, B) or (T,), not {x.shape}")
        else:
            if x.ndim not in (2, 3):
                raise ValueError(
                    f"x must have shape (T, B, {layer.inputs}) or (T, {layer.inputs}), "
                    f"not {x.shape}"
                )
            arguments.floats("x", x, ("T", "B", layer.inputs)[3 - x.ndim :], layer.dtype)
        self.squeeze = x.ndim == (1 if self.tokens else 2)
        self.x = x[:, None] if self.squeeze else x
        self.T, self.B = self.x.shape[:2]
        self.lengths = self._check_lengths(lengths)
        self.initial = (
            states.zeros(self.layers, self.B)
            if state is None
            else states.unpack("state", layer, state, self.B, self.squeeze)
        )

    def _check_lengths(self, lengths: Any) -> Lengths:
        if lengths is None:
            return Lengths(None, self.T, self.B)
        if self.squeeze:
            values = np.array([arguments.integer("lengths", lengths, 0)])
        else:
            values = arguments.array("lengths", lengths)
            if values.dtype.kind not in "iu":
                raise TypeError(f"lengths must be integers, not {values.dtype}")
            arguments.check_shape("lengths", values, (self.B,))
        for b, length in enumerate(values):
            if not 0 <= length <= self.T:
                raise ValueError(f"lengths must lie in 0..T={self.T}, but lengths[{b}] is {length}")
        return Lengths(values, self.T, self.B)

    @property
    def direct(self) -> bool:
        """Whether the kernels can read x where it lies, or as tokens, for a whole segment."""
        return self.tokens or (self.x.flags.c_contiguous and self.x.flags.aligned)

    def source(self, steps: int) -> Floats | Ids:
        if self.tokens:
            layer = self.layer
            return Ids("x", self.x, layer.inputs, layer.dtype, self.lengths.live, steps)
        return Floats(self.x, steps)

    def chain(self, spans: Spans, several: bool = True) -> Chain:
        """The layers; `several`: whether gradients may add up over more than a panel of time."""
        threads = team.get_num_threads()
        panel = panel_steps(self.B)
        return Chain(self.layers, self.B, self.lengths, spans, panel, threads, several)

    def spans(self, readout: Readout | None = None) -> Spans:
        """How this call cuts time when there is no budget."""
        spans = self.sizes(readout).free_spans
        if not self.direct:
            return spans.short()
        return spans.lists() if self.tokens else spans

    def sizes(self, readout: Readout | None = None) -> Sizes:
        """The bytes that this call needs."""
        return sizes(self.layers, readout, self.T, self.B)

    def out(self, array: Array) -> Array:
        """Drop the batch axis of a result (T, B, ...) where x had none."""
        return array[:, 0] if self.squeeze else array

    def pack(self, values: Sequence[Array]) -> State:
        return states.pack(self.layer, values, self.squeeze)
