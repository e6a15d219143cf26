"""Layers made of layers: one on top of another, and both directions of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, Union

from .. import arguments
from ..arrays import Array, DType
from .model import Model
from .recurrent import Recurrent

LayerShape: TypeAlias = "tuple[str, int, int]"
"""The name of a recurrent layer's cell, its hidden units and its inputs."""


@dataclass(frozen=True, eq=False, repr=False)
class Bidirectional(Model):
    """One layer in each direction of time, their states joined (Schuster and Paliwal 1997).

    Parameters
    ----------
    forward : a recurrent layer such as LSTM, which runs forward in time
    backward : another, with the same inputs and dtype, which runs in reverse, for each sequence
        from its own end

    The state is a pair: that of `forward` after the last step, and that of `backward` after it has
    read the first. The outputs (T, B, 2H) are the units of `forward`, then those of `backward`. The
    outputs and their gradient are stored for all T in every memory mode.

    Raises
    ------
    ValueError, TypeError : the layers differ in inputs or dtype, or are no recurrent layers
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
    def parts(self) -> tuple[Recurrent, Recurrent]:
        """Its two layers, in the order of the state."""
        return self.forward, self.backward

    @property
    def dtype(self) -> DType:
        """The dtype of all arrays, float32 or float64."""
        return self.forward.dtype

    @property
    def inputs(self) -> int:
        """The number of input features I, or of token classes."""
        return self.forward.inputs

    @property
    def drives(self) -> int:
        """The most drives that one of its layers has."""
        return max(self.forward.drives, self.backward.drives)

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
    dropout : probability, 0 <= dropout < 1, that the next layer reads 0 in place of a state, in
        `forward` and `bptt`; the other states are scaled by 1/(1 - dropout) (Srivastava et al.
        2014)

    The state is a tuple of the layers' states. A dropout mask is a function of the `seed` of the
    call, the layer, the time, the sequence and the unit; it is computed again on the way back and
    never stored.

    Raises
    ------
    ValueError, TypeError : no layers, layers that do not fit together, or a wrong dropout
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
            if index and layer.drives:
                raise ValueError(
                    f"{name} must have no drives, which the first layer alone may have, not "
                    f"{layer.drives}"
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
    def parts(self) -> Sequence[Recurrent | Bidirectional]:
        """Its layers, in the order of the state."""
        return self.layers

    @property
    def dtype(self) -> DType:
        """The dtype of all arrays, float32 or float64."""
        return self.layers[0].dtype

    @property
    def inputs(self) -> int:
        """The number of input features I, or of token classes."""
        return self.layers[0].inputs

    @property
    def drives(self) -> int:
        """The drives of its first layer."""
        return self.layers[0].drives

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


Layer: TypeAlias = Recurrent | Bidirectional | Stack
"""Any layer: what a Network holds, and what forward and run take."""

AnyLayer = TypeVar("AnyLayer", bound=Recurrent | Bidirectional | Stack)
"""The type of a layer, which is also the type of its gradient."""

StateLike: TypeAlias = Any
"""A state of ArrayLikes in place of arrays."""

State: TypeAlias = Union[Array, "tuple[State, ...]"]
"""RNN, GRU: an array (B, H); LSTM: a pair (s, c); Stack, Bidirectional: their layers' states."""


@dataclass(frozen=True, eq=False)
class Direction:
    """Recurrent layers that run together, in one direction of time.

    layers : bottom to top
    first : the number of the bottom one among all recurrent layers of the model
    below : the index in the Stack of the layer that the direction reads, for its dropout mask
    reverse : whether it runs in reverse time
    """

    layers: tuple[Recurrent, ...]
    first: int = 0
    below: int = -1
    reverse: bool = False

    @property
    def shapes(self) -> tuple[LayerShape, ...]:
        """Cell, hidden units and inputs of each layer."""
        return tuple((layer.cell, layer.hidden, layer.inputs) for layer in self.layers)

    def of(self, flat: Sequence) -> list:
        """The entries of this direction in a list with one entry for each recurrent layer."""
        return list(flat[self.first : self.first + len(self.layers)])


def recurrent_layers(layer: Layer) -> Iterator[Recurrent]:
    """The recurrent layers of a layer, in the order of its state."""
    if isinstance(layer, Recurrent):
        yield layer
    else:
        for part in layer.parts:
            yield from recurrent_layers(part)


def needs_future(layer: Layer) -> bool:
    """Whether some of it runs in reverse time."""
    parts = layer.layers if isinstance(layer, Stack) else (layer,)
    return any(isinstance(part, Bidirectional) for part in parts)


def stages(layer: Layer) -> list[tuple[Direction, ...]]:
    """The directions of a layer, stage by stage: a stage reads the outputs of the stage below."""
    if isinstance(layer, Recurrent):
        return [(Direction((layer,)),)]
    parts = layer.layers if isinstance(layer, Stack) else (layer,)
    found: list[tuple[Direction, ...]] = []
    first = 0
    for index, part in enumerate(parts):
        if isinstance(part, Bidirectional):
            pair = (part.forward,), (part.backward,)
            found.append(
                tuple(Direction(one, first + k, index - 1, k == 1) for k, one in enumerate(pair))
            )
            first += 2
            continue
        if found and len(found[-1]) == 1:
            direction = found[-1][0]
            found[-1] = (Direction((*direction.layers, part), direction.first, direction.below),)
        else:
            found.append((Direction((part,), first, index - 1),))
        first += 1
    return found


def rebuilt(layer: Layer, parts: Iterator) -> Any:
    """The layer with its recurrent layers replaced, in order, by `parts`, which are not checked."""
    if isinstance(layer, Recurrent):
        return next(parts)
    if isinstance(layer, Bidirectional):
        return layer._with(forward=next(parts), backward=next(parts))
    return layer._with(layers=tuple(rebuilt(part, parts) for part in layer.layers))


def shaped(layer: Layer, parts: Iterator) -> Any:
    """One value for each recurrent layer, nested as the layer's state is."""
    if isinstance(layer, Recurrent):
        return next(parts)
    return tuple(shaped(part, parts) for part in layer.parts)


def state_of(layer: Layer, parts: Iterable[Array | Sequence[Array]]) -> Any:
    """The state as users write it, from the arrays of each recurrent layer."""
    return shaped(layer, (own[0] if len(own) == 1 else tuple(own) for own in parts))
