"""The arguments that all calls share, checked and brought to one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import arguments, devices, dropout, states
from .along import Reversal, Turned
from .chain import Chain
from .compound import Bidirectional, Stack, Strand, leaves, stages
from .kernels.cpu import team
from .layers import Network, Readout, Recurrent
from .sizes import Sizes, Spans, panel_steps, sizes
from .sources import Floats, Ids, Lengths
from .typing import Array, Layer, State


def recurrent(layer: Any) -> Layer:
    """`layer`, which must be a recurrent layer."""
    if not isinstance(layer, (Recurrent, Stack, Bidirectional)):
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
        seed: int | None = None,
        t0: int = 0,
        drops: bool = False,
    ):
        self.layer = recurrent(layer)
        self.leaves = list(leaves(layer))
        self.stages = stages(layer)
        check_dropout(seed, t0)
        self.dropout = dropout.of(layer, seed, t0) if drops else None
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
            states.zeros(self.leaves, self.B)
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

    @property
    def held(self) -> bool:
        """Whether outputs are held for all T: where a layer is Bidirectional."""
        return len(self.stages) > 1 or len(self.stages[0]) > 1

    def source(self, steps: int, reversal: Reversal | None = None) -> Floats | Ids:
        """x, a stretch at a time; with `reversal` turned round in time."""
        x: Any = self.x if reversal is None else Turned(self.x, reversal)
        if self.tokens:
            layer = self.layer
            return Ids("x", x, layer.inputs, layer.dtype, self.lengths.live, steps)
        return Floats(x, steps)

    def chain(self, spans: Spans, several: bool = True, strand: Strand | None = None) -> Chain:
        """The layers of a strand, by default the only one.

        `several`: whether gradients may add up over more than a panel of time.
        """
        strand = self.stages[0][0] if strand is None else strand
        threads = team.get_num_threads()
        panel = panel_steps(self.B)
        return Chain(
            strand.layers, self.B, self.lengths, spans, panel, threads, several, self.dropout,
            strand.below + 1,
        )  # fmt: skip

    def spans(self, readout: Readout | None = None) -> Spans:
        """How this call cuts time when there is no budget."""
        return self.cut(self.sizes(readout).free_spans, self.tokens, self.direct)

    def cut(self, spans: Spans, listed: bool, direct: bool) -> Spans:
        """The spans that fit how the arrays lie and what the layer is."""
        if self.held or not direct:
            return spans.short()
        if len(self.leaves) > 1:
            return spans.handing_on()
        return spans.lists() if listed else spans

    def sizes(self, readout: Readout | None = None) -> Sizes:
        """The bytes that this call needs."""
        return sizes(self.layer, readout, self.T, self.B)

    def outputs(self) -> Array:
        """An array for the states that the layer hands on, 0 past each sequence's end."""
        make = np.zeros if self.held else np.empty
        return make((self.T, self.B, self.layer.outputs), self.layer.dtype)

    def out(self, array: Array) -> Array:
        """Drop the batch axis of a result (T, B, ...) where x had none."""
        return array[:, 0] if self.squeeze else array

    def pack(self, values: Sequence[Array]) -> State:
        return states.pack(self.layer, values, self.squeeze)
