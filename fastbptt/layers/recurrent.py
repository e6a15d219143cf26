"""Recurrent layers: frozen dataclasses of the user's own arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from .. import arguments
from ..arguments import Seed
from ..arrays import Array, DType, DTypeLike, Shape
from .drawing import uniform
from .model import Definition, Model

if TYPE_CHECKING:
    from typing_extensions import Self

Activation: TypeAlias = Literal["tanh", "sigmoid", "relu", "identity"] | Definition
"""g of an Elman layer: one of these, or a fastbptt.Activation."""


class Recurrent(Model):
    """A layer of one recurrent cell: `gates` pre-activations and `states` states per unit.

    `params` are the cell's own parameters, (k, H) or (k*H,), or None; `params_name` their field.
    """

    gates = 1
    states = 1
    params_name: str | None = None

    U: Array
    W: Array
    b: Array

    if TYPE_CHECKING:

        @property
        def cell(self) -> str: ...

    def _check_recurrent(self, **params: int) -> None:
        W = arguments.floats(f"{type(self).__name__}.W", self.W, ("G*H", "H"))
        hidden = W.shape[1]
        rows = self.gates * hidden
        shapes: dict[str, Shape] = {name: (k * hidden,) for name, k in params.items()}
        self._check(W=(rows, hidden), U=(rows, "I"), b=(rows,), **shapes)
        if hidden == 0:
            raise ValueError(f"{type(self).__name__}.W must have at least one unit, not {W.shape}")
        if self.inputs == 0:
            raise ValueError(
                f"{type(self).__name__}.U must have at least one input, not {self.U.shape}"
            )

    @property
    def dtype(self) -> DType:
        """The dtype of all arrays, float32 or float64."""
        return self.W.dtype

    @property
    def inputs(self) -> int:
        """The number of input features I, or of token classes."""
        return self.U.shape[1]

    @property
    def hidden(self) -> int:
        """The number of hidden units H."""
        return self.W.shape[1]

    @property
    def outputs(self) -> int:
        """The width of the states that the layer hands on."""
        return self.hidden

    @property
    def params(self) -> Array | None:
        """The cell's own parameters, or None."""
        return None if self.params_name is None else getattr(self, self.params_name)

    def _gradient(self, U: Array, W: Array, b: Array, params: Array | None) -> Self:
        """Return the gradient of the layer, of its own type."""
        own = self.params
        if self.params_name is None or own is None or params is None:
            return self._with(U=U, W=W, b=b)
        return self._with(U=U, W=W, b=b, **{self.params_name: params.reshape(own.shape)})

    @classmethod
    def _draw(
        cls, inputs: int, hidden: int, rng: Seed, dtype: DTypeLike, gates: int = 0, **params: int
    ) -> dict[str, Array]:
        inputs = arguments.integer("inputs", inputs, 1)
        hidden = arguments.integer("hidden", hidden, 1)
        rows = (gates or cls.gates) * hidden
        shapes = {"U": (rows, inputs), "W": (rows, hidden), "b": (rows,)}
        shapes |= {name: (k * hidden,) for name, k in params.items()}
        return uniform(shapes, {"inputs": inputs, "hidden": hidden}, rng, dtype)

    def __repr__(self) -> str:
        extra = "".join(f", {value!r}" for value in self._values() if isinstance(value, str))
        return f"{type(self).__name__}({self.inputs} -> {self.hidden}, {self.dtype}{extra})"


@dataclass(frozen=True, eq=False, repr=False)
class RNN(Recurrent):
    """Elman layer (Elman 1990): s_t = g(U x_t + W s_{t-1} + b).

    Parameters
    ----------
    U : (H, I) array, float32 or float64, input to hidden (PyTorch's weight_ih_l0)
    W : (H, H) array, same dtype, hidden to hidden (weight_hh_l0)
    b : (H,) array, same dtype (bias_ih_l0 + bias_hh_l0)
    activation : g, one of "tanh", "sigmoid", "relu", "identity", or a fastbptt.Activation

    The arrays are held, not copied, and read afresh in every call. The state is an array (B, H).
    """

    U: Array
    W: Array
    b: Array
    activation: Activation = "tanh"

    def __post_init__(self) -> None:
        self._check_recurrent()
        if not (isinstance(self.activation, Definition) and self.activation.activates):
            known = ("tanh", "sigmoid", "relu", "identity")
            arguments.choice("activation", self.activation, known)

    @property
    def cell(self) -> str:
        """The name of the cell's maths in the kernels."""
        own = getattr(self.activation, "cell", None)
        return f"rnn-{self.activation}" if own is None else own

    @classmethod
    def init(
        cls,
        inputs: int,
        hidden: int,
        *,
        rng: Seed = None,
        dtype: DTypeLike = "float32",
        activation: Activation = "tanh",
    ) -> Self:
        """Draw weights uniformly from +-1/sqrt(H), as PyTorch does; `rng`: a seed or Generator."""
        return cls(**cls._draw(inputs, hidden, rng, dtype), activation=activation)


@dataclass(frozen=True, eq=False, repr=False)
class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), with forget gate.

    i, f, o = sigmoid(U x + W s' + b), g = tanh(U x + W s' + b), c = f*c' + i*g, s = o*tanh(c).

    Parameters
    ----------
    U : (4H, I) array, float32 or float64, rows of gates i, f, g, o (PyTorch's weight_ih_l0)
    W : (4H, H) array, same dtype (weight_hh_l0)
    b : (4H,) array, same dtype (bias_ih_l0 + bias_hh_l0)
    p : (3H,) array, same dtype, or None: peephole weights of i, f, o (Gers and Schmidhuber 2000):
        i and f see c' times theirs, o sees c

    The arrays are held, not copied, and read afresh in every call. The state is a pair (s, c) of
    arrays (B, H).
    """

    U: Array
    W: Array
    b: Array
    p: Array | None = None

    gates = 4
    states = 2
    params_name = "p"

    def __post_init__(self) -> None:
        self._check_recurrent(**({} if self.p is None else {"p": 3}))

    @property
    def cell(self) -> str:
        """The name of the cell's maths in the kernels."""
        return "lstm" if self.p is None else "lstm-peephole"

    @classmethod
    def init(
        cls, inputs: int, hidden: int, *, rng: Seed = None, dtype: DTypeLike = "float32",
        peepholes: bool = False,
    ) -> Self:  # fmt: skip
        """Draw weights uniformly from +-1/sqrt(H), as PyTorch does; `rng`: a seed or Generator.

        With `peepholes` the layer has peephole weights, too.
        """
        params = {"p": 3} if arguments.flag("peepholes", peepholes) else {}
        return cls(**cls._draw(inputs, hidden, rng, dtype, **params))


@dataclass(frozen=True, eq=False, repr=False)
class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014): s = (1-z)*n + z*s'.

    r, z = sigmoid(U x + W s' + b); the reset gate r acts after W, as in cuDNN and PyTorch,
    n = tanh(U x + b + r*(W s' + bn)), or before it, n = tanh(U x + b + W (r*s') + bn).

    Parameters
    ----------
    U : (3H, I) array, float32 or float64, rows of gates r, z, n (PyTorch's weight_ih_l0)
    W : (3H, H) array, same dtype (weight_hh_l0)
    b : (3H,) array, same dtype (bias_ih_l0 + bias_hh_l0, but for n bias_ih_l0 alone)
    bn : (H,) array, same dtype (the n rows of bias_hh_l0)
    reset : "after" or "before"

    The arrays are held, not copied, and read afresh in every call. The state is an array (B, H).
    """

    U: Array
    W: Array
    b: Array
    bn: Array
    reset: str = "after"

    gates = 3
    params_name = "bn"

    def __post_init__(self) -> None:
        self._check_recurrent(bn=1)
        arguments.choice("reset", self.reset, ("after", "before"))

    @property
    def cell(self) -> str:
        """The name of the cell's maths in the kernels."""
        return f"gru-{self.reset}"

    @classmethod
    def init(
        cls, inputs: int, hidden: int, *, rng: Seed = None, dtype: DTypeLike = "float32",
        reset: Literal["after", "before"] = "after",
    ) -> Self:  # fmt: skip
        """Draw weights uniformly from +-1/sqrt(H), as PyTorch does; `rng`: a seed or Generator."""
        return cls(**cls._draw(inputs, hidden, rng, dtype, bn=1), reset=reset)
