"""Layers made of layers: one on top of another, and both directions of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import arguments
from .layers import Recurrent
from .models import Model
from .typing import DType, Layer


@dataclass(frozen=True, eq=False, repr=False)
class Bidirectional(Model):
    """One layer along time and one against it, their states joined (Schuster and Paliwal 1997).

    Parameters
    ----------
    forward : a recurrent layer such as LSTM, which runs along time
    backward : another, of the same inputs and dtype, which runs against it, for each sequence from
        its own end

    The state is a pair: forward's after the last step, backward's after the first. The outputs are
    forward's units, then backward's, (T, B, 2H). Both the outputs and their gradient are held for
    all T in every memory mode.
    """

    forward: Recurrent
    backward: Recurrent

    def __post_init__(self) -> None:
        for name, layer in (("forward", self.forward), ("backward", self.backward)):
            if not isinstance(layer, Recurrent):
                raise TypeError(
                    f"Bidirectional.{name} must be a recurrent layer such as fastbptt.LSTM, "
                    f"not {arguments.describe(layer)}"
                )
        if self.backward.inputs != self.forward.inputs:
            raise ValueError(
                f"Bidirectional.backward must have {self.forward.inputs} inputs like forward, "
                f"not {self.backward.inputs}"
            )
        _check_dtype("Bidirectional.backward", self.backward, self.forward.dtype)

    @property
    def dtype(self) -> DType:
        """The dtype of all arrays, float32 or float64."""
        return self.forward.dtype

    @property
    def inputs(self) -> int:
        """The number of input features I, or of token classes."""
        return self.forward.inputs

    @property
    def outputs(self) -> int:
        """The width of the joined states."""
        return self.forward.outputs + self.backward.outputs

    def __repr__(self) -> str:
        return f"Bidirectional({self.forward!r}, {self.backward!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Stack(Model):
    """Layers on top of each other: each reads the states of the one below it.

    Parameters
    ----------
    layers : the layers, bottom to top; they may differ in cell and width, and be Bidirectional
    dropout : the share of states that the next layer sees as 0 in `forward` and `bptt`, the others
        being scaled by 1/(1 - dropout) (Srivastava et al. 2014)

    The state is a tuple of the layers' states. Which states are dropped is drawn from the `seed` of
    the call, the layer, the time, the sequence and the unit, and never stored.
    """

    layers: Sequence[Recurrent | Bidirectional]
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.layers, (list, tuple)):
            raise TypeError(
                f"Stack.layers must be a list of layers, not {arguments.describe(self.layers)}"
            )
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise ValueError("Stack.layers must hold at least one layer, not none")
        for index, layer in enumerate(self.layers):
            name = f"Stack.layers[{index}]"
            if not isinstance(layer, (Recurrent, Bidirectional)):
                raise TypeError(
                    f"{name} must be a recurrent layer such as fastbptt.LSTM, or Bidirectional, "
                    f"not {arguments.describe(layer)}"
                )
            if index and layer.inputs != self.layers[index - 1].outputs:
                raise ValueError(
                    f"{name} must have {self.layers[index - 1].outputs} inputs, as many as the "
                    f"layer below it has outputs, not {layer.inputs}"
                )
            _check_dtype(name, layer, self.layers[0].dtype)
        dropout = self.dropout
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)):
            raise TypeError(f"Stack.dropout must be a number, not {arguments.describe(dropout)}")
        if not 0 <= dropout < 1:
            raise ValueError(
                f"Stack.dropout must lie in 0 <= dropout < 1, not {arguments.shown(dropout)}"
            )

    @property
    def dtype(self) -> DType:
        """The dtype of all arrays, float32 or float64."""
        return self.layers[0].dtype

    @property
    def inputs(self) -> int:
        """The number of input features I, or of token classes."""
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        """The width of the top layer's states."""
        return self.layers[-1].outputs

    def __repr__(self) -> str:
        dropout = f", dropout={self.dropout}" if self.dropout else ""
        return f"Stack([{', '.join(map(repr, self.layers))}]{dropout})"


def _check_dtype(name: str, layer: Recurrent | Bidirectional, dtype: DType) -> None:
    if layer.dtype != dtype:
        raise TypeError(f"{name} must be {dtype} like the layer before it, not {layer.dtype}")


@dataclass(frozen=True, eq=False)
class Strand:
    """Recurrent layers that run together, in one direction of time.

    first : the number of the bottom one among all recurrent layers of the model
    below : the index in the Stack of what the strand reads: dropout is drawn by it
    """

    layers: tuple[Recurrent, ...]
    first: int = 0
    below: int = -1
    against_time: bool = False

    def of(self, flat: Sequence) -> list:
        """The strand's part of a list with an entry for each recurrent layer."""
        return list(flat[self.first : self.first + len(self.layers)])


def leaves(layer: Layer) -> Iterator[Recurrent]:
    """The recurrent layers of a layer, in the order of its state."""
    if isinstance(layer, Recurrent):
        yield layer
    elif isinstance(layer, Bidirectional):
        yield from (layer.forward, layer.backward)
    elif isinstance(layer, Stack):
        for part in layer.layers:
            yield from leaves(part)


def stages(layer: Layer) -> list[tuple[Strand, ...]]:
    """The strands of a layer: those of a stage read what the stage below hands on."""
    if isinstance(layer, Recurrent):
        return [(Strand((layer,)),)]
    parts = layer.layers if isinstance(layer, Stack) else (layer,)
    found: list[tuple[Strand, ...]] = []
    first = 0
    for index, part in enumerate(parts):
        if isinstance(part, Bidirectional):
            pair = (part.forward,), (part.backward,)
            found.append(
                tuple(Strand(one, first + k, index - 1, k == 1) for k, one in enumerate(pair))
            )
            first += 2
            continue
        if found and len(found[-1]) == 1:
            strand = found[-1][0]
            found[-1] = (Strand((*strand.layers, part), strand.first, strand.below),)
        else:
            found.append((Strand((part,), first, index - 1),))
        first += 1
    return found


def rebuilt(layer: Layer, parts: Iterator) -> Any:
    """The layer with its recurrent layers replaced, in order, by `parts` of our own making."""
    if isinstance(layer, Recurrent):
        return next(parts)
    if isinstance(layer, Bidirectional):
        return layer._with(forward=next(parts), backward=next(parts))
    return layer._with(layers=tuple(rebuilt(part, parts) for part in layer.layers))


def shaped(layer: Layer, parts: Iterator) -> Any:
    """One value for each recurrent layer, in the shape of the layer's state."""
    if isinstance(layer, Recurrent):
        return next(parts)
    if isinstance(layer, Bidirectional):
        return next(parts), next(parts)
    return tuple(shaped(part, parts) for part in layer.layers)
