"""The arguments that all calls share, checked and brought to one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import arguments, choice, dropout, states
from .along import Reversal, Turned
from .arrays import stream_of
from .backends import CUDA
from .chain import Chain
from .compound import Bidirectional, Stack, Strand, leaves, rebuilt, stages
from .layers import Network, Readout, Recurrent
from .sizes import sizes
from .sources import Floats, Ids, Lengths
from .spans import Sizes, Spans, panel_steps
from .typing import Array, Layer, State


def recurrent(layer: Any) -> Layer:
    """`layer`, which must be a recurrent layer."""
    if not isinstance(layer, (Recurrent, Stack, Bidirectional)):
        raise TypeError(
            f"layer must be a recurrent layer such as fastbptt.LSTM, "
            f"not {arguments.describe(layer)}"
        )
    return layer


def check_dropout(seed: int | None, t0: int, T: int) -> None:
    """Check the arguments that dropout will take: a seed or None, and the time of x[0]."""
    if seed is not None:
        arguments.integer("seed", seed, 0, None)
    arguments.integer("t0", t0, 0)
    if t0 + T > arguments.MOST:
        raise ValueError(f"t0 + T must be at most {arguments.MOST}, not {t0} + {T}")


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
        given, x = x, arguments.array("x", x)
        stream = stream_of(given)
        self.x = x
        self.from_gpu = not isinstance(x, np.ndarray)  # and so all arrays, given and returned
        own = layer.arrays()
        if self.from_gpu or any(not isinstance(array, np.ndarray) for array in own):
            for number, array in enumerate(own):
                self._check_place(f"layer.arrays()[{number}]", array)
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
        check_dropout(seed, t0, self.T)
        self.dropout = dropout.of(layer, seed, t0) if drops else None
        self.lengths = self._check_lengths(lengths)
        initial = [] if state is None else self.unpack("state", state)
        self.device = choice.of_call(device, layer, self.x, self.T, self.B, stream)
        with self.device:
            self.initial = (
                states.zeros(self.device, self.leaves, self.B)
                if state is None
                else states.copied(self.device, self.leaves, initial, self.B)
            )

    def _check_place(self, name: str, value: Any) -> None:
        if isinstance(value, np.ndarray) == self.from_gpu:
            where = "on the GPU" if self.from_gpu else "a NumPy array"
            raise TypeError(f"{name} must be {where} like x, not {arguments.describe(value)}")
        if self.from_gpu and value.device != self.x.device:
            raise TypeError(f"{name} must be on {self.x.device} like x, not on {value.device}")

    def given(self, name: str, value: Any) -> Array:
        """`value`, which must be an array that lies where x does."""
        value = arguments.array(name, value)
        self._check_place(name, value)
        return value

    def unpack(self, name: str, state: State) -> list[tuple[Array, ...]]:
        """The arrays of a state of the layer, checked, a tuple for each recurrent layer."""
        return states.unpack(self, name, self.layer, state)

    def result(self, array: Array) -> Array:
        """An array on the device as the caller gets it: where x was."""
        return array if self.from_gpu else self.device.home(array)

    @property
    def ends(self) -> Array | int:
        """The lengths as a caller gives them."""
        return int(self.lengths.values[0]) if self.squeeze else self.lengths.values

    def handed_out(self, array: Array) -> Array:
        """A copy of an array on the device that the caller may keep."""
        if not self.device.on_gpu:
            return array.copy()
        copy = self.result(array)
        return copy.copy() if copy is array else copy

    def _check_lengths(self, lengths: Any) -> Lengths:
        if lengths is None:
            return Lengths(None, self.T, self.B)
        if self.squeeze:
            values = np.array([arguments.integer("lengths", lengths, 0)])
        else:
            values = arguments.array("lengths", lengths)
            if not isinstance(values, np.ndarray):
                with CUDA(values.device.id, stream_of(lengths)):
                    values = values.get()
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
        return self.tokens or self.device.direct(self.x)

    @property
    def held(self) -> bool:
        """Whether outputs are held for all T: where a layer is Bidirectional."""
        return len(self.stages) > 1 or len(self.stages[0]) > 1

    def source(self, steps: int, reversal: Reversal | None = None) -> Floats | Ids:
        """x, a stretch at a time; with `reversal` turned round in time."""
        x: Any = self.x if reversal is None else Turned(self.x, reversal)
        if self.tokens:
            layer = self.layer
            return Ids(self.device, "x", x, layer.inputs, layer.dtype, self.lengths.live, steps)
        return Floats(self.device, x, steps)

    def chain(
        self, spans: Spans, several: bool = True, strand: Strand | None = None,
        weights: Sequence[Any] | None = None,
    ) -> Chain:  # fmt: skip
        """The layers of a strand, by default the only one.

        `several`: whether gradients may add up over more than a panel of time. `weights`: those of
        the layers on the device, where they are there already.
        """
        strand = self.stages[0][0] if strand is None else strand
        panel = panel_steps(self.B)
        return Chain(
            self.device, strand.layers, self.B, self.lengths, spans, panel, several, self.dropout,
            strand.below + 1, weights,
        )  # fmt: skip

    def spans(self, readout: Readout | None = None) -> Spans:
        """How this call cuts time when there is no budget."""
        return self.cut(self.sizes(readout).free_spans, self.tokens, self.direct)

    def cut(self, spans: Spans, listed: bool, direct: bool) -> Spans:
        """The spans that fit how the arrays lie and what the layer is."""
        if self.device.on_gpu:  # there is room for all that
            return spans
        if self.held or not direct:
            return spans.short()
        if len(self.leaves) > 1:
            return spans.handing_on()
        return spans.lists() if listed else spans

    def sizes(self, readout: Readout | None = None) -> Sizes:
        """The bytes that this call needs."""
        return sizes(self.layer, readout, self.T, self.B, self.device)

    def array(self, width: int, zeros: bool = False) -> Array:
        """An array (T, B, width) of all steps to return, where x lies."""
        xp = self.device.xp if self.from_gpu else np
        make = xp.zeros if zeros else xp.empty
        return make((self.T, self.B, width), self.layer.dtype)

    def outputs(self) -> Array:
        """An array for the states that the layer hands on, 0 past each sequence's end."""
        return self.array(self.layer.outputs, zeros=self.held)

    def out(self, array: Array) -> Array:
        """Drop the batch axis of a result (T, B, ...) where x had none."""
        return array[:, 0] if self.squeeze else array

    def grad_of(self, layer: Layer, parts: Sequence[Recurrent]) -> Any:
        """The gradient of the layer, where x lies, from those of its recurrent layers."""
        found = rebuilt(layer, iter(parts))
        return self.moved(found)

    def moved(self, model: Any) -> Any:
        """A model of arrays on the device, its arrays where x lies."""
        if self.from_gpu or not self.device.on_gpu or model is None:
            return model
        return model._moved(self.device.home)

    def pack(self, values: Sequence[Array]) -> State:
        return states.pack(self, values)
