"""Recurrent layers: frozen dataclasses that hold the user's own arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from .. import arguments
from ..arguments import Seed
from ..arrays import Array, DType, DTypeLike, Shape
from . import drawing
from .drawing import RecurrentInit
from .model import Definition, Model

if TYPE_CHECKING:
    from typing_extensions import Self

Activation: TypeAlias = Literal["tanh", "sigmoid", "relu", "identity"] | Definition
"""The activation g of an RNN: one of these names, or a fastbptt.Activation."""


class Recurrent(Model):
    """A layer of one cell: each unit has `gates` pre-activations and `states` states.

    `params` are the parameters of the cell besides U, W and b, (k*H,), or None; `params_name` is
    the field that holds them. `drives` is the number of the last columns of x, which are not
    multiplied by U.
    """

    gates = 1
    states = 1
    drives = 0
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
        """The number of outputs of the layer: H."""
        return self.hidden

    @property
    def params(self) -> Array | None:
        """The parameters of the cell besides U, W and b, or None."""
        return None if self.params_name is None else getattr(self, self.params_name)

    def _gradient(self, U: Array, W: Array, b: Array, params: Array | None) -> Self:
        """Return these arrays as a layer of the same type: the gradient of this one."""
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
        return drawing.uniform(shapes, {"inputs": inputs, "hidden": hidden}, rng, dtype)

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

    The layer refers to the arrays and does not copy them; each call reads their current values.
    The state is an array (B, H).

    Raises
    ------
    ValueError, TypeError : an array of the wrong shape or dtype; another activation
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
        recurrent: RecurrentInit = "uniform",
    ) -> Self:
        """Return a layer with weights drawn uniformly from +-1/sqrt(H), as PyTorch does.

        Parameters
        ----------
        inputs : I, the number of input features or of token classes
        hidden : H, the number of units
        rng : a seed or NumPy Generator; None draws other weights in every call
        dtype : "float32" or "float64"
        activation : g, as in RNN
        recurrent : W is "uniform", "orthogonal" (Saxe et al. 2014) or the "identity" (Le et al.
            2015)

        Returns
        -------
        RNN with new arrays

        Raises
        ------
        ValueError, TypeError : an argument of the wrong value or type
        """
        rng = drawing.generator(rng)
        drawn = drawing.with_recurrent(cls._draw(inputs, hidden, rng, dtype), recurrent, rng)
        return cls(**drawn, activation=activation)


@dataclass(frozen=True, eq=False, repr=False)
class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), with forget gate.

    i, f, o = sigmoid(U x + W s' + b), g = tanh(U x + W s' + b), c = f*c' + i*g, s = o*tanh(c).

    Parameters
    ----------
    U : (4H, I) array, float32 or float64, rows of gates i, f, g, o (PyTorch's weight_ih_l0)
    W : (4H, H) array, same dtype (weight_hh_l0)
    b : (4H,) array, same dtype (bias_ih_l0 + bias_hh_l0)
    p : (3H,) array, same dtype, or None: peephole weights of i, f, o (Gers and Schmidhuber 2000),
        which add p*c' to the pre-activations of i and f, and p*c to that of o

    The layer refers to the arrays and does not copy them; each call reads their current values.
    The state is a pair (s, c) of arrays (B, H).

    Raises
    ------
    ValueError, TypeError : an array of the wrong shape or dtype
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
        peepholes: bool = False, recurrent: RecurrentInit = "uniform",
        forget_bias: float | None = None, chrono: tuple[float, float] | None = None,
    ) -> Self:  # fmt: skip
        """Return a layer with weights drawn uniformly from +-1/sqrt(H), as PyTorch does.

        Parameters
        ----------
        inputs : I, the number of input features or of token classes
        hidden : H, the number of units
        rng : a seed or NumPy Generator; None draws other weights in every call
        dtype : "float32" or "float64"
        peepholes : whether to draw peephole weights p, too
        recurrent : W is "uniform", or for each gate an "orthogonal" matrix or the "identity"
        forget_bias : the bias of the forget gate, often 1.0 (Jozefowicz et al. 2015); None draws it
        chrono : (tmin, tmax), the steps over which units shall remember, in place of `forget_bias`:
            the bias of f is log(u - 1), u uniform between them, that of i the opposite (Tallec and
            Ollivier 2018); 1 <= tmin <= tmax

        Returns
        -------
        LSTM with new arrays

        Raises
        ------
        ValueError, TypeError : an argument of the wrong value or type
        """
        if forget_bias is not None and chrono is not None:
            raise ValueError(
                f"forget_bias must be None with chrono, which sets the same bias, "
                f"not {arguments.shown(forget_bias)}"
            )
        rng = drawing.generator(rng)
        params = {"p": 3} if arguments.flag("peepholes", peepholes) else {}
        drawn = cls._draw(inputs, hidden, rng, dtype, **params)
        drawn = drawing.with_recurrent(drawn, recurrent, rng)
        if forget_bias is not None:
            bias = drawing.constant_bias("forget_bias", forget_bias, hidden)
            drawn = drawing.with_bias(drawn, {1: bias})
        if chrono is not None:
            bias = drawing.chrono_bias(chrono, hidden, rng)
            drawn = drawing.with_bias(drawn, {0: -bias, 1: bias})
        return cls(**drawn)


@dataclass(frozen=True, eq=False, repr=False)
class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014): s = (1-z)*n + z*s'.

    r, z = sigmoid(U x + W s' + b). The reset gate r acts after the product with W, as in cuDNN and
    PyTorch: n = tanh(U x + b + r*(W s' + bn)); or before it: n = tanh(U x + b + W (r*s') + bn).

    Parameters
    ----------
    U : (3H, I) array, float32 or float64, rows of gates r, z, n (PyTorch's weight_ih_l0)
    W : (3H, H) array, same dtype (weight_hh_l0)
    b : (3H,) array, same dtype (bias_ih_l0 + bias_hh_l0, but for n bias_ih_l0 alone)
    bn : (H,) array, same dtype (the n rows of bias_hh_l0)
    reset : "after" or "before"

    The layer refers to the arrays and does not copy them; each call reads their current values.
    The state is an array (B, H).

    Raises
    ------
    ValueError, TypeError : an array of the wrong shape or dtype; another `reset`
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
        reset: Literal["after", "before"] = "after", recurrent: RecurrentInit = "uniform",
        chrono: tuple[float, float] | None = None,
    ) -> Self:  # fmt: skip
        """Return a layer with weights drawn uniformly from +-1/sqrt(H), as PyTorch does.

        Parameters
        ----------
        inputs : I, the number of input features or of token classes
        hidden : H, the number of units
        rng : a seed or NumPy Generator; None draws other weights in every call
        dtype : "float32" or "float64"
        reset : "after" or "before", as in GRU
        recurrent : W is "uniform", or for each gate an "orthogonal" matrix or the "identity"
        chrono : (tmin, tmax), the steps over which units shall remember: the bias of z is
            log(u - 1), u uniform between them (Tallec and Ollivier 2018); 1 <= tmin <= tmax

        Returns
        -------
        GRU with new arrays

        Raises
        ------
        ValueError, TypeError : an argument of the wrong value or type
        """
        rng = drawing.generator(rng)
        drawn = cls._draw(inputs, hidden, rng, dtype, bn=1)
        drawn = drawing.with_recurrent(drawn, recurrent, rng)
        if chrono is not None:
            drawn = drawing.with_bias(drawn, {1: drawing.chrono_bias(chrono, hidden, rng)})
        return cls(**drawn, reset=reset)
