"""Cells and activations of the caller's own: scalar Python functions, compiled by the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import arguments
from ..arguments import Seed
from ..arrays import Array, DTypeLike
from .model import Definition
from .recurrent import Recurrent

_STEP = 1e-6  # of the central differences
_CLOSE = 1e-5  # how much `reverse` may differ from them, absolute or relative


@dataclass(frozen=True, eq=False)
class Activation(Definition):
    """An activation g of your own for `fastbptt.RNN`: s = g(U x + W s' + b).

    Parameters
    ----------
    name : its name in files and messages, a Python identifier
    function : g(a), plain Python on numbers, traced like the functions of `fastbptt.Cell`
    slope : g'(a) as a function of s = g(a), so that a need not be stored

    Raises
    ------
    ValueError : the slope is not the derivative of the function (both are compared with central
        differences at once), or the name is no identifier
    TypeError : one of them is no function, or cannot be traced
    """

    name: str
    function: Callable[[float], float]
    slope: Callable[[float], float]
    cell: str = field(init=False, repr=False)

    activates = True

    def __post_init__(self) -> None:
        from ..kernels.cells import custom

        _check_name("Activation", self.name)
        for what in ("function", "slope"):
            _check_function(f"Activation.{what}", getattr(self, what))
        graph, value = custom.trace("Activation.function", self.function, single=True, a=1)
        forward = ((_node("Activation.function", graph, value),), ())
        graph, value = custom.trace("Activation.slope", self.slope, single=True, s=1)
        (ds,) = graph.inputs("ds", 1)
        _node("Activation.slope", graph, value)
        reverse = ((graph.number(ds * value),), (graph.number(0),))
        texts = custom.texts(forward, reverse)
        self._try(*texts.interpreted)
        cell = custom.define("rnn-own", self.name, texts, 1, 1, 0, 0)
        object.__setattr__(self, "cell", cell)
        self.enter()

    def _try(self, forward: Callable[..., Any], reverse: Callable[..., Any]) -> None:
        """Compare `slope` with central differences of `function`."""
        for a in np.random.default_rng(0).uniform(-2, 2, 20).tolist():
            low, g, high = (forward((x,), (), ())[0][0] for x in (a - _STEP, a, a + _STEP))
            found = reverse((1.0,), (g,), (), (), ())[0][0]
            _compare(f"Activation.slope at g({a:.3g})", found, (high - low) / (2 * _STEP))


@dataclass(frozen=True, eq=False)
class Cell(Definition):
    """A recurrent cell of your own: what it computes for one unit, as plain Python on numbers.

    Its layers can do all that the layers of the package can: every memory mode with the same bits,
    lengths, tokens, stacks and threads, compiled to vector code.

    Parameters
    ----------
    name : its name in files and messages, a Python identifier
    gates : G, the number of pre-activations of a unit: U is (G*H, I), W (G*H, H), b (G*H,)
    forward : `forward(a, s)` -> (states, residuals). `a` is a tuple of G pre-activations, `s` a
        tuple of the states before the step; W and the next layer read s[0]. `states` are the
        states after the step, `residuals` a tuple of all that `reverse` needs besides the states
    reverse : `reverse(ds, s, previous, residuals)` -> (deltas, dprevious). `ds` are the derivatives
        of the loss by the states after the step, `s` those states, `previous` the states before
        it; `deltas` are the derivatives by `a`, `dprevious` those by `previous`, without the part
        that goes through W, which the package adds
    states : the number of states of a unit
    parameters : the number of parameters of a unit besides U, W and b, such as time constants. If
        there are any, both functions take them as a last argument, a tuple `p`, and `reverse`
        returns a third tuple, the derivatives by them

    Each function is traced: it is called once, with symbols in place of numbers. Operators,
    functions of `math` and NumPy, `fastbptt.where` and calls of other functions are recorded and
    compiled for the CPU or the GPU. Variables that the functions read have the values of that
    moment. Constants take the dtype of the weights.

    `cell.init(inputs, hidden)` draws a layer, `cell(U, W, b)` makes one from arrays.

    Raises
    ------
    ValueError : `reverse` is not the derivative of `forward` (compared with central differences at
        once), a function returns other tuples, or a count or the name is wrong
    TypeError : a function cannot be traced, for example because it branches on a number
    """

    name: str
    gates: int
    forward: Callable[..., tuple[tuple[float, ...], tuple[float, ...]]]
    reverse: Callable[..., tuple[tuple[float, ...], ...]]
    states: int = 1
    parameters: int = 0
    cell: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from ..kernels.cells import custom

        _check_name("Cell", self.name)
        for what, least in (("gates", 1), ("states", 1), ("parameters", 0)):
            arguments.integer(f"Cell.{what}", getattr(self, what), least)
        if 2 * self.states + self.gates + self.parameters > 16:
            raise ValueError(
                f"Cell has too many gates, states and parameters: {self.gates}, {self.states} and "
                f"{self.parameters}; 2*states + gates + parameters may be up to 16"
            )
        for what in ("forward", "reverse"):
            _check_function(f"Cell.{what}", getattr(self, what))
        texts, residuals = self._trace()
        self._try(*texts.interpreted)
        cell = custom.define(
            "own", self.name, texts, self.gates, self.states, residuals, self.parameters
        )
        object.__setattr__(self, "cell", cell)
        self.enter()

    def __call__(self, U: Array, W: Array, b: Array, p: Array | None = None) -> Custom:
        """Return a layer of this cell with the given arrays.

        Parameters
        ----------
        U : (G*H, I) array, float32 or float64, input to hidden
        W : (G*H, H) array, same dtype, hidden to hidden
        b : (G*H,) array, same dtype
        p : (parameters*H,) array, same dtype: the first parameter of each unit, then the second;
            None for a cell without parameters

        Returns
        -------
        the layer, which refers to the arrays and does not copy them

        Raises
        ------
        ValueError, TypeError : an array of the wrong shape or dtype
        """
        return Custom(self, U, W, b, p)

    def init(
        self, inputs: int, hidden: int, *, rng: Seed = None, dtype: DTypeLike = "float32"
    ) -> Custom:
        """Return a layer of this cell, weights and p drawn uniformly from +-1/sqrt(H).

        Parameters
        ----------
        inputs : I, the number of input features or of token classes
        hidden : H, the number of units
        rng : a seed or NumPy Generator; None draws other weights in every call
        dtype : "float32" or "float64"

        Returns
        -------
        the layer, with new arrays

        Raises
        ------
        ValueError, TypeError : an argument of the wrong value or type
        """
        own = {"p": self.parameters} if self.parameters else {}
        drawn = Custom._draw(inputs, hidden, rng, dtype, gates=self.gates, **own)
        return Custom(self, **drawn)

    def _trace(self) -> tuple[Any, int]:
        """Return the texts of both functions, and the number of residuals."""
        from ..kernels.cells import custom

        gates, states = self.gates, self.states
        last = {"p": self.parameters} if self.parameters else {}
        name = "Cell.forward"
        due: tuple[int | None, ...] = (states, None)
        graph, value = custom.trace(name, self.forward, a=gates, s=states, **last)
        forward = _nodes(name, graph, _tuples(name, value, due))
        residuals = len(forward[1])
        name, due = "Cell.reverse", (gates, states, *last.values())
        given = {"ds": states, "s": states, "previous": states, "kept": residuals, **last}
        graph, value = custom.trace(name, self.reverse, **given)
        deltas, dprevious, *dp = _nodes(name, graph, _tuples(name, value, due))
        return custom.texts(forward, (sum(dp, deltas), dprevious)), residuals

    def _try(self, forward: Callable[..., Any], reverse: Callable[..., Any]) -> None:
        """Compare `reverse` with central differences of `forward`."""
        rng = np.random.default_rng(0)
        for _ in range(5):
            a, s, p, ds = (
                rng.uniform(-1, 1, n)
                for n in (self.gates, self.states, self.parameters, self.states)
            )
            states, residuals = forward(a, s, p)
            deltas, dprevious = reverse(ds, states, s, residuals, p)
            slopes = iter((*deltas, *dprevious))  # after the deltas the derivatives by p
            for what, values in (("a", a), ("p", p), ("s", s)):
                for index in range(len(values)):
                    value, ends = values[index], []
                    for step in (_STEP, -_STEP):
                        values[index] = value + step
                        ends.append(np.dot(ds, forward(a, s, p)[0]))
                    values[index] = value
                    expected = (ends[0] - ends[1]) / (2 * _STEP)
                    name = f"Cell.reverse: derivative by {what}[{index}]"
                    _compare(name, next(slopes), expected)


@dataclass(frozen=True, eq=False, repr=False)
class Custom(Recurrent):
    """A layer of a cell of your own: see `fastbptt.Cell`, which makes it.

    Parameters
    ----------
    definition : the Cell
    U : (G*H, I) array, float32 or float64
    W : (G*H, H) array, same dtype
    b : (G*H,) array, same dtype
    p : (parameters*H,) array, same dtype, or None

    The state is an array (B, H), or for a cell of more than one state a tuple of them.
    """

    definition: Cell
    U: Array
    W: Array
    b: Array
    p: Array | None = None

    params_name = "p"

    def __post_init__(self) -> None:
        if not isinstance(self.definition, Cell):
            raise TypeError(
                f"definition must be a fastbptt.Cell, not {arguments.describe(self.definition)}"
            )
        count = self.definition.parameters
        if (self.p is None) != (count == 0):
            what = f"an array ({count}*H,)" if count else "None"
            raise ValueError(f"p must be {what} for the cell {self.definition.name!r}")
        self._check_recurrent(**({"p": count} if count else {}))

    @property
    def gates(self) -> int:  # type: ignore[override]
        """G: the pre-activations of a unit."""
        return self.definition.gates

    @property
    def states(self) -> int:  # type: ignore[override]
        """The states of a unit."""
        return self.definition.states

    @property
    def cell(self) -> str:
        """The name of the cell's maths in the kernels."""
        return self.definition.cell

    def __repr__(self) -> str:
        return f"{self.definition.name}({self.inputs} -> {self.hidden}, {self.dtype})"


def where(condition: Any, a: Any, b: Any) -> Any:
    """Choose between two values in a function of a `fastbptt.Cell` or `fastbptt.Activation`.

    These functions must not branch on numbers. Both values are computed, and one is taken, as
    `numpy.where` does.

    Parameters
    ----------
    condition : a comparison of numbers
    a : the value where the condition holds
    b : the value where it does not

    Returns
    -------
    `a` or `b`; for arrays an array, elementwise
    """
    found = np.where(condition, a, b)
    return found[()] if isinstance(found, np.ndarray) else found


def _check_name(kind: str, name: Any) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{kind}.name must be a word such as 'mgu', not {arguments.shown(name)}")


def _check_function(name: str, value: Any) -> None:
    if not hasattr(value, "__code__"):
        raise TypeError(f"{name} must be a plain Python function, not {arguments.describe(value)}")


def _tuples(name: str, value: Any, sizes: tuple[int | None, ...]) -> Any:
    fits = isinstance(value, tuple) and len(value) == len(sizes)
    if not fits or any(
        not isinstance(part, tuple) or size not in (None, len(part))
        for part, size in zip(value, sizes, strict=True)
    ):
        due = ", ".join("any number" if size is None else str(size) for size in sizes)
        came = arguments.shown(value)
        raise ValueError(f"{name} must return {len(sizes)} tuples, of {due} numbers, not {came}")
    return value


def _node(name: str, graph: Any, value: Any) -> Any:
    try:
        return graph.number(value)
    except TypeError as error:
        raise TypeError(f"{name} must return numbers: {error}") from None


def _nodes(name: str, graph: Any, parts: Any) -> list[tuple[Any, ...]]:
    return [tuple(_node(name, graph, value) for value in part) for part in parts]


def _compare(name: str, value: float, expected: float) -> None:
    if not abs(value - expected) <= _CLOSE * max(1.0, abs(expected)):
        raise ValueError(f"{name} must be {expected:.6g} by central differences, not {value:.6g}")
