"""Cells of the caller's own: Python functions of one unit's numbers, compiled by the package."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

from .. import arguments
from ..arguments import Seed
from ..arrays import Array, DTypeLike
from .definitions import Traced, check_function, check_name, compare, number, takes
from .recurrent import Recurrent

_STEP = 1e-6  # of the central differences
_MOST = 16  # numbers of a unit that a kernel's loop writes


@dataclass(frozen=True, eq=False)
class Cell(Traced):
    """A recurrent cell of your own: what it computes for one unit, as plain Python on numbers.

    Its layers can do all that the layers of the package can: every memory mode with the same bits,
    lengths, tokens, stacks and threads, compiled to vector code.

    Parameters
    ----------
    name : its name in files and messages, a Python identifier
    gates : G, the number of pre-activations of a unit: U is (G*H, I), W (G*H, H), b (G*H,)
    forward : `forward(a, s, p)` -> states. `a` is a tuple of G pre-activations, `s` a tuple of the
        states before the step, `p` one of the unit's parameters, which may be left out where it has
        none; the result is the tuple of the states after the step. W and the next layer read s[0].
        With drives, `forward(a, s, p, d)`, `d` being a tuple of them
    reverse : None: the derivatives are derived from `forward`, and the fewest numbers are kept for
        them. If given, `reverse(ds, s, previous, residuals)` -> (deltas, dprevious), and `forward`
        returns (states, residuals), `residuals` being a tuple of all that `reverse` needs besides
        the states. `ds` are the derivatives of the loss by the states after the step, `s` those
        states, `previous` the states before it; `deltas` are the derivatives by `a`, `dprevious`
        those by `previous`, without the part that goes through W, which the package adds. With
        parameters both functions take `p` as a last argument, and `reverse` returns a third tuple,
        the derivatives by them. With drives both take `p` and `d`, and `reverse` returns four
    states : the number of states of a unit
    parameters : the number of parameters of a unit besides U, W and b, such as time constants
    drives : the last so many columns of x are not multiplied by U, which then is (G*H, I - drives),
        but go to `forward` as they are, the same for all units, such as the time since the last
        step. In a Stack only the first layer may have any

    Each function is traced: it is called once, with symbols in place of numbers. Operators,
    functions of `math` and NumPy, `fastbptt.where` and calls of other functions are recorded and
    compiled for the CPU or the GPU. Variables that the functions read have the values of that
    moment. Constants take the dtype of the weights.

    `cell.init(inputs, hidden)` draws a layer, `cell(U, W, b)` makes one from arrays.

    Raises
    ------
    ValueError : a given `reverse` is not the derivative of `forward` (compared with central
        differences at once), a function returns other tuples, or a count or the name is wrong
    TypeError : a function cannot be traced, for example because it branches on a number
    """

    name: str
    gates: int
    forward: Callable[..., tuple[Any, ...]]
    reverse: Callable[..., tuple[tuple[float, ...], ...]] | None = None
    _: KW_ONLY
    states: int = 1
    parameters: int = 0
    drives: int = 0
    cell: str = field(init=False, repr=False)
    traces: tuple[Any, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_name("Cell", self.name)
        for what, least in (("gates", 1), ("states", 1), ("parameters", 0), ("drives", 0)):
            arguments.integer(f"Cell.{what}", getattr(self, what), least)
        if 2 * self.states + self.gates + self.parameters + self.drives > _MOST:
            raise ValueError(
                f"Cell has too many gates, states, parameters and drives: {self.gates}, "
                f"{self.states}, {self.parameters} and {self.drives}; 2*states + gates + "
                f"parameters + drives may be up to {_MOST}"
            )
        check_function("Cell.forward", self.forward)
        if self.reverse is None:
            self._set(traces=(self._trace(),))
        else:
            check_function("Cell.reverse", self.reverse)
            self._set(traces=self._trace_both(self.reverse))
            self._try(*self._texts()[0].interpreted)
        self._define()
        self.enter()

    @property
    def _last(self) -> dict[str, int]:
        """The last arguments of each function, and how many numbers they have."""
        last = {"p": self.parameters} if self.parameters or self.drives else {}
        return {**last, "d": self.drives} if self.drives else last

    def _trace(self) -> Any:
        """Return the trace of `forward` alone."""
        from ..kernels.cells import custom

        name, last = "Cell.forward", self._last
        if not last and not takes(self.forward, 2):
            last = {"p": 0}
        if not takes(self.forward, 2 + len(last)):
            due = ("(a, s) or (a, s, p)", "(a, s, p)", "(a, s, p, d)")[len(self._last)]
            raise TypeError(f"{name} must take {due}, not {inspect.signature(self.forward)}")
        try:
            graph, value = custom.trace(name, self.forward, a=self.gates, s=self.states, **last)
        except TypeError as error:
            if "has no callable" not in str(error):  # NumPy of a tuple
                raise
            raise TypeError(f"{error}: a and s are tuples, and a[0] is a number") from error
        if not isinstance(value, tuple) or len(value) != self.states:
            raise ValueError(
                f"{name} must return a tuple of {self.states} numbers, the states after the step, "
                f"not {arguments.shown(value)}"
            )
        return custom.Trace.of((tuple(number(name, graph, each) for each in value),))

    def _trace_both(self, reverse: Callable[..., Any]) -> tuple[Any, ...]:
        """Return the traces of `forward` and a `reverse` that was given."""
        from ..kernels.cells import custom

        gates, states, last = self.gates, self.states, self._last
        name = "Cell.forward"
        graph, value = custom.trace(name, self.forward, a=gates, s=states, **last)
        forward = _nodes(name, graph, value, (states, None))
        residuals = len(forward[1])
        if states + residuals > _MOST:
            raise ValueError(
                f"{name} must return at most {_MOST} states and residuals, not "
                f"{states} and {residuals}"
            )
        name, given = "Cell.reverse", {"ds": states, "s": states, "previous": states}
        graph, value = custom.trace(name, reverse, **given, kept=residuals, **last)
        deltas, dprevious, *more = _nodes(name, graph, value, (gates, states, *last.values()))
        return custom.Trace.of(forward), custom.Trace.of((sum(more, deltas), dprevious))

    def _texts(self) -> tuple[Any, int]:
        """Return the texts of both functions, and the number of residuals."""
        from ..kernels.cells import custom

        graph, forward = self.traces[0].nodes()
        if len(self.traces) == 1:
            return custom.derived(graph, forward[0], self.gates, self.parameters + self.drives)
        return custom.texts(forward, self.traces[1].nodes()[1]), len(forward[1])

    def _define(self) -> None:
        from ..kernels.cells import custom

        texts, residuals = self._texts()
        counts = self.gates, self.states, residuals, self.parameters, self.drives
        self._set(cell=custom.define("own", self.name, texts, *counts))

    def _settings(self) -> dict[str, Any]:
        return {
            name: getattr(self, name)
            for name in ("name", "gates", "states", "parameters", "drives")
        }  # fmt: skip

    def _functions(self) -> dict[str, Callable[..., Any] | None]:
        names = ("a", "s", "p"), ("ds", "s", "previous", "kept", "p")
        calls = [trace.function(each) for trace, each in zip(self.traces, names, strict=False)]
        gates, count = self.gates, self.gates + self.parameters

        def forward(a: Any, s: Any, p: Any = (), d: Any = ()) -> Any:
            found = calls[0](a, s, (*p, *d))
            return found if calls[1:] else found[0]

        def reverse(ds: Any, s: Any, previous: Any, kept: Any, p: Any = (), d: Any = ()) -> Any:
            deltas, dprevious = calls[1](ds, s, previous, kept, (*p, *d))
            parts = deltas[:gates], dprevious, deltas[gates:count], deltas[count:]
            return parts[: 2 + len(self._last)]

        return {"forward": forward, "reverse": reverse if calls[1:] else None}

    def __call__(self, U: Array, W: Array, b: Array, p: Array | None = None) -> Custom:
        """Return a layer of this cell with the given arrays.

        Parameters
        ----------
        U : (G*H, I) array, or (G*H, I - drives), float32 or float64, input to hidden
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
        inputs : I, the number of input features, drives included, or of token classes
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
        if arguments.integer("inputs", inputs, 1) <= self.drives:
            raise ValueError(
                f"inputs must be at least {self.drives + 1} for a cell of {self.drives} drives, "
                f"not {inputs}"
            )
        columns = inputs - self.drives
        drawn = Custom._draw(columns, hidden, rng, dtype, gates=self.gates, **own)
        return Custom(self, **drawn)

    def _try(self, forward: Callable[..., Any], reverse: Callable[..., Any]) -> None:
        """Compare `reverse` with central differences of `forward`."""
        rng = np.random.default_rng(0)
        for _ in range(5):
            a, s, p, ds = (
                rng.uniform(-1, 1, n)
                for n in (self.gates, self.states, self.parameters + self.drives, self.states)
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
                    compare(name, next(slopes), expected)


@dataclass(frozen=True, eq=False, repr=False)
class Custom(Recurrent):
    """A layer of a cell of your own: see `fastbptt.Cell`, which makes it.

    Parameters
    ----------
    definition : the Cell
    U : (G*H, I) array, or (G*H, I - drives), float32 or float64
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
    def inputs(self) -> int:
        """The number of input features I, drives included, or of token classes."""
        return self.U.shape[1] + self.definition.drives

    @property
    def drives(self) -> int:  # type: ignore[override]
        """The number of the last columns of x, which are not multiplied by U."""
        return self.definition.drives

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


def _nodes(
    name: str, graph: Any, value: Any, sizes: tuple[int | None, ...]
) -> list[tuple[Any, ...]]:
    """The nodes of tuples of so many numbers; None for any number."""
    fits = isinstance(value, tuple) and len(value) == len(sizes)
    if not fits or any(
        not isinstance(part, tuple) or size not in (None, len(part))
        for part, size in zip(value, sizes, strict=True)
    ):
        due = ", ".join("any number" if size is None else str(size) for size in sizes)
        came = arguments.shown(value)
        raise ValueError(f"{name} must return {len(sizes)} tuples, of {due} numbers, not {came}")
    return [tuple(number(name, graph, each) for each in part) for part in value]
