"""What cells and activations of the caller's own have in common: checks, traces and pickles."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import arguments
from ..kernels.cells.symbols import Symbol
from ..kernels.cells.symbols import where as choice
from .model import DEFINITIONS, Definition

_CLOSE = 1e-5  # how much a slope may differ from central differences, absolute or relative


class Traced(Definition):
    """A definition that is made of traces: these, not the functions, go to another process.

    traces : that of the forward function, and of the function of its derivatives, if one was given
    cell : the name by which kernels know it
    """

    traces: tuple[Any, ...]
    cell: str

    @property
    def made_of(self) -> str:
        """A digest of the traces."""
        return hashlib.sha256(repr(self.traces).encode()).hexdigest()[:16]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the traces: they hold all that the functions read."""
        return _unpickled, (type(self), self._settings(), self.traces)

    def _settings(self) -> dict[str, Any]:
        """The fields that are no functions."""
        raise NotImplementedError

    def _functions(self) -> dict[str, Callable[..., Any] | None]:
        """The fields that are functions, as the traces have them."""
        raise NotImplementedError

    def _define(self) -> None:
        """Have the kernels know the cell of these traces."""
        raise NotImplementedError

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _unpickled(kind: type[Traced], settings: dict[str, Any], traces: tuple[Any, ...]) -> Traced:
    made = object.__new__(kind)
    made._set(traces=traces, **settings)
    made._define()
    known = DEFINITIONS.get((kind.__name__, made.name))
    if isinstance(known, kind) and known.cell == made.cell:
        return known
    made._set(**made._functions())
    made.enter()
    return made


def where(condition: Any, a: Any, b: Any, surrogate: Callable[[Any], Any] | None = None) -> Any:
    """Choose between two values in a function of a `fastbptt.Cell` or `fastbptt.Activation`.

    These functions must not branch on numbers. Both values are computed, and one is taken, as
    `numpy.where` does. The derivative is that of the value taken.

    Parameters
    ----------
    condition : a comparison of numbers
    a : the value where the condition holds
    b : the value where it does not
    surrogate : a smooth function of the left side of the condition, <, <=, > or >=, minus its
        right. The choice keeps its value, but has the slope of `surrogate`: so a unit that spikes
        can be trained (Neftci et al. 2019). Python takes `1 < a` for `a > 1`

    Returns
    -------
    `a` or `b`; for arrays an array, elementwise

    Raises
    ------
    TypeError : the surrogate is no function, or the condition is no such comparison
    """
    if surrogate is not None and not callable(surrogate):
        raise TypeError(f"surrogate must be a function, not {arguments.describe(surrogate)}")
    if any(isinstance(value, Symbol) for value in (condition, a, b)):
        return choice(condition, a, b, surrogate)
    found = np.where(condition, a, b)
    return found[()] if isinstance(found, np.ndarray) else found


def check_name(kind: str, name: Any) -> None:
    """Raise unless a definition can have that name."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{kind}.name must be a word such as 'mgu', not {arguments.shown(name)}")


def check_function(name: str, value: Any) -> None:
    """Raise unless it is a function."""
    if not callable(value) or isinstance(value, type):
        raise TypeError(f"{name} must be a plain Python function, not {arguments.describe(value)}")


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function takes so many positional arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # a function of C's, which does not say
        return True
    return True


def number(name: str, graph: Any, value: Any) -> Any:
    """The node of a number that a function returned."""
    try:
        return graph.number(value)
    except TypeError as error:
        raise TypeError(f"{name} must return numbers: {error}") from None


def compare(name: str, value: float, expected: float) -> None:
    """Raise unless a given derivative is that by central differences."""
    if not abs(value - expected) <= _CLOSE * max(1.0, abs(expected)):
        raise ValueError(f"{name} must be {expected:.6g} by central differences, not {value:.6g}")
