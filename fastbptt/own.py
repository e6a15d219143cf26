"""A caller's own cells and activations: scalar Python functions for the whole engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import arguments
from .layers import Recurrent
from .models import Definition
from .typing import Array, DTypeLike, Seed

_STEP = 1e-6  # of the central differences
_CLOSE = 1e-5  # what they may differ by from what `reverse` returns, times the largest of them


@dataclass(frozen=True, eq=False)
class Activation(Definition):
    """An activation g of your own for `fastbptt.RNN`: s = g(U x + W s' + b).

    Parameters
    ----------
    name : what it is called in files and messages
    function : g(a), plain Python on numbers, traced as those of `fastbptt.Cell`
    slope : g'(a) as a function of s = g(a), so that a need not be kept

    Raises ValueError where the slope is not that of the function, which is tried at once.
    """

    name: str
    function: Callable[[float], float]
    slope: Callable[[float], float]
    cell: str = field(init=False, repr=False)

    activates = True

    def __post_init__(self) -> None:
        from .kernels.cells import own

        _check_name("Activation", self.name)
        for what in ("function", "slope"):
            _check_function(f"Activation.{what}", getattr(self, what))
        graph, value = own.trace("Activation.function", self.function, single=True, a=1)
        forward = ((_node("Activation.function", graph, value),), ())
        graph, value = own.trace("Activation.slope", self.slope, single=True, s=1)
        (ds,) = graph.inputs("ds", 1)
        _node("Activation.slope", graph, value)
        reverse = ((graph.number(ds * value),), (graph.number(0),))
        texts = own.texts(forward, reverse)
        self._try(*texts.interpreted)
        cell = own.define("rnn-own", self.name, texts, 1, 1, 0, 0)
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

    From this it gets all that the cells of the package have: every memory mode and its bits,
    lengths, tokens, stacks, threads and vectors.

    Parameters
    ----------
    name : what it is called in files and messages
    gates : G, how many pre-activations a unit has: U is (G*H, I), W (G*H, H), b (G*H,)
    forward : `forward(a, s)` -> (states, kept): `a` is a tuple of G pre-activations, `s` one of the
        states before the step, s[0] being what W and the next layer see. `states` are those after
        the step, `kept` a tuple of whatever `reverse` needs besides
    reverse : `reverse(ds, s, previous, kept)` -> (deltas, dprevious): `ds` are the derivatives of
        the loss by the states after the step, `s` and `previous` those states and the ones before;
        `deltas` are the derivatives by `a`, `dprevious` those by `previous`, without what goes
        through W: that is added for you
    states : how many states a unit has
    parameters : how many numbers a unit has of its own, such as time constants. With any, both
        functions take them as a last argument, a tuple `p`, and `reverse` returns a third tuple,
        the derivatives by them

    Both functions are called once, with symbols for numbers: operators, functions of `math` and
    NumPy, `fastbptt.where` and calls of other functions are recorded, and compiled for the CPU or
    GPU. TypeError where one branches on a number. What they read counts as it is then.

    Numbers in the functions take the dtype of the weights. `cell.init(inputs, hidden)` draws a
    layer, `cell(U, W, b)` makes one of arrays. ValueError where `reverse`
    is not the derivative of `forward`, which is tried at once, on some numbers.
    """

    name: str
    gates: int
    forward: Callable[..., tuple[tuple[float, ...], tuple[float, ...]]]
    reverse: Callable[..., tuple[tuple[float, ...], ...]]
    states: int = 1
    parameters: int = 0
    cell: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from .kernels.cells import own

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
        texts, kept = self._trace()
        self._try(*texts.interpreted)
        cell = own.define("own", self.name, texts, self.gates, self.states, kept, self.parameters)
        object.__setattr__(self, "cell", cell)
        self.enter()

    def __call__(self, U: Array, W: Array, b: Array, p: Array | None = None) -> Custom:
        """Return a layer of this cell; `p` (parameters*H,) are the cell's own parameters."""
        return Custom(self, U, W, b, p)

    def init(
        self, inputs: int, hidden: int, *, rng: Seed = None, dtype: DTypeLike = "float32"
    ) -> Custom:
        """Draw weights uniformly from +-1/sqrt(H), as PyTorch does; `rng`: a seed or Generator."""
        own = {"p": self.parameters} if self.parameters else {}
        drawn = Custom._draw(inputs, hidden, rng, dtype, gates=self.gates, **own)
        return Custom(self, **drawn)

    def _trace(self) -> tuple[Any, int]:
        """Return the texts of both functions, and how many numbers are kept."""
        from .kernels.cells import own

        gates, states = self.gates, self.states
        last = {"p": self.parameters} if self.parameters else {}
        name, due = "Cell.forward", (states, None)
        graph, value = own.trace(name, self.forward, a=gates, s=states, **last)
        forward = _nodes(name, graph, _tuples(name, value, due))
        kept = len(forward[1])
        name, due = "Cell.reverse", (gates, states, *last.values())
        given = {"ds": states, "s": states, "previous": states, "kept": kept, **last}
        graph, value = own.trace(name, self.reverse, **given)
        deltas, dprevious, *dp = _nodes(name, graph, _tuples(name, value, due))
        return own.texts(forward, (sum(dp, deltas), dprevious)), kept

    def _try(self, forward: Callable[..., Any], reverse: Callable[..., Any]) -> None:
        """Compare `reverse` with central differences of `forward`."""
        rng = np.random.default_rng(0)
        for _ in range(5):
            a, s, p, ds = (
                rng.uniform(-1, 1, n)
                for n in (self.gates, self.states, self.parameters, self.states)
            )
            states, kept = forward(a, s, p)
            deltas, dprevious = reverse(ds, states, s, kept, p)
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
    U : (G*H, I) array, float32 or float64; W : (G*H, H); b : (G*H,); p : (parameters*H,) or None

    The state is an array (B, H), or a tuple of as many as the cell has states.
    """

    definition: Cell
    U: Array
    W: Array
    b: Array
    p: Array | None = None

    own_name = "p"

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
    def planes(self) -> int:  # type: ignore[override]
        """The states of a unit."""
        return self.definition.states

    @property
    def cell(self) -> str:
        """The name of the cell's maths in the kernels."""
        return self.definition.cell

    def __repr__(self) -> str:
        return f"{self.definition.name}({self.inputs} -> {self.hidden}, {self.dtype})"


def where(condition: Any, a: Any, b: Any) -> Any:
    """Return `a` where the condition holds, else `b`, as NumPy does: a choice in a cell's function.

    Both are computed. Takes numbers, arrays, and what stands for numbers while a
    `fastbptt.Cell` or `fastbptt.Activation` is made.
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
