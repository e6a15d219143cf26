"""The readout, and the whole model: a layer and its readout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias

import numpy as np

from .. import arguments
from ..arguments import Seed
from ..arrays import Array, DType, DTypeLike
from .composite import AnyLayer, Layer, State
from .drawing import uniform
from .model import Model, arrays_of
from .recurrent import Recurrent

if TYPE_CHECKING:
    from typing_extensions import Self

ReadoutActivation: TypeAlias = Literal["identity", "sigmoid", "tanh", "softmax"]
"""The activation h of a Readout."""


@dataclass(frozen=True, eq=False, repr=False)
class Readout(Model):
    """Hidden to output: o_t = h(V s_t + c).

    Parameters
    ----------
    V : (O, H) array, float32 or float64, hidden to output
    c : (O,) array, same dtype
    activation : h, one of "identity", "sigmoid", "tanh", "softmax"

    The readout refers to the arrays and does not copy them; each call reads their current values.

    Raises
    ------
    ValueError, TypeError : an array of the wrong shape or dtype; another activation
    """

    V: Array
    c: Array
    activation: ReadoutActivation = "identity"

    def __post_init__(self) -> None:
        V = arguments.floats("Readout.V", self.V, ("O", "H"))
        self._check(V=V.shape, c=(V.shape[0],))
        if 0 in V.shape:
            raise ValueError(f"Readout.V must have at least one output and unit, not {V.shape}")
        arguments.choice("activation", self.activation, ("identity", "sigmoid", "tanh", "softmax"))

    @property
    def dtype(self) -> DType:
        """The dtype of both arrays, float32 or float64."""
        return self.V.dtype

    @property
    def inputs(self) -> int:
        """The number of hidden units H that it reads."""
        return self.V.shape[1]

    @property
    def outputs(self) -> int:
        """The number of outputs O."""
        return self.V.shape[0]

    @classmethod
    def init(
        cls,
        hidden: int,
        outputs: int,
        *,
        rng: Seed = None,
        dtype: DTypeLike = "float32",
        activation: ReadoutActivation = "identity",
    ) -> Self:
        """Return a readout with weights drawn uniformly from +-1/sqrt(H), as PyTorch does.

        Parameters
        ----------
        hidden : H, the number of units that it reads
        outputs : O, the number of outputs
        rng : a seed or NumPy Generator; None draws other weights in every call
        dtype : "float32" or "float64"
        activation : h, as in Readout

        Returns
        -------
        Readout with new arrays

        Raises
        ------
        ValueError, TypeError : an argument of the wrong value or type
        """
        hidden = arguments.integer("hidden", hidden, 1)
        outputs = arguments.integer("outputs", outputs, 1)
        shapes = {"V": (outputs, hidden), "c": (outputs,)}
        sizes = {"hidden": hidden, "outputs": outputs}
        return cls(**uniform(shapes, sizes, rng, dtype), activation=activation)

    def __repr__(self) -> str:
        return f"Readout({self.inputs} -> {self.outputs}, {self.dtype}, {self.activation!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Network(Model, Generic[AnyLayer]):
    """The whole model: a layer and the readout of its states.

    Parameters
    ----------
    layer : RNN, LSTM, GRU, Stack, Bidirectional, or a layer of a Cell
    readout : Readout of the layer's outputs; None where none is needed: with a callable loss
    state : the initial state where a call gives none, and the state after a reset, to be trained
        like a weight: the state of one sequence, in the layer's form without the batch axis. None
        is zero, and is not trained

    The network refers to the arrays and does not copy them; each call reads their current values.

    Raises
    ------
    ValueError, TypeError : the readout or the state does not fit the layer, or one of them is
        something else
    """

    layer: AnyLayer
    readout: Readout | None
    state: State | None = None

    @property
    def dtype(self) -> DType:
        """The dtype of all arrays, float32 or float64."""
        return self.layer.dtype

    def __post_init__(self) -> None:
        if not isinstance(self.layer, Model) or isinstance(self.layer, (Readout, Network)):
            raise TypeError(
                f"layer must be a recurrent layer such as fastbptt.LSTM, "
                f"not {arguments.describe(self.layer)}"
            )
        self._check_readout()
        if self.state is not None:
            state = _checked_state("Network.state", self.layer, self.state)
            object.__setattr__(self, "state", state)

    def __repr__(self) -> str:
        state = "" if self.state is None else f", state={_shapes(self.state)}"
        return f"Network(layer={self.layer!r}, readout={self.readout!r}{state})"

    def _parts(self, name: str) -> Iterator[tuple[str, str, list[Array]]]:
        yield from super()._parts(name)
        if self.state is not None:
            yield f"{name}.state".lstrip("."), _shapes(self.state), list(arrays_of(self.state))

    def _check_readout(self) -> None:
        if self.readout is None:
            return
        if not isinstance(self.readout, Readout):
            raise TypeError(
                f"readout must be a fastbptt.Readout or None, "
                f"not {arguments.describe(self.readout)}"
            )
        if self.readout.inputs != self.layer.outputs:
            raise ValueError(
                f"readout.V must have shape (O, {self.layer.outputs}) to read the layer's states, "
                f"not {self.readout.V.shape}"
            )
        if self.readout.dtype != self.layer.dtype:
            raise TypeError(
                f"readout must be {self.layer.dtype} like the layer, not {self.readout.dtype}"
            )


def _checked_state(name: str, layer: Layer, state: Any) -> State:
    """A state of one sequence, checked: tuples of NumPy's or CuPy's arrays, copies of no array."""
    if not isinstance(layer, Recurrent):
        parts = layer.parts
        what = f"{len(parts)} states for {type(layer).__name__}"
        given = _tuple_of(name, state, len(parts), what)
        return tuple(
            _checked_state(f"{name}[{index}]", own, one)
            for index, (own, one) in enumerate(zip(parts, given, strict=True))
        )
    shape, dtype = (layer.hidden,), layer.dtype

    def checked(name: str, given: Any) -> Array:
        value = arguments.floats(name, given, shape, dtype)
        return given if isinstance(given, np.ndarray) else value

    if layer.states == 1:
        return checked(name, state)
    what = f"{layer.states} arrays for {type(layer).__name__}"
    given = _tuple_of(name, state, layer.states, what)
    return tuple(checked(f"{name}[{number}]", one) for number, one in enumerate(given))


def _tuple_of(name: str, state: Any, count: int, what: str) -> tuple[Any, ...]:
    if not isinstance(state, (tuple, list)) or len(state) != count:
        raise TypeError(f"{name} must be a tuple of {what}, not {arguments.describe(state)}")
    return tuple(state)


def _shapes(state: State) -> str:
    if not isinstance(state, tuple):
        return str(state.shape)
    return f"({', '.join(map(_shapes, state))})"
