"""A caller's own functions of one unit as the maths of a cell: traced, and written anew.

To Numba a bare 1 beside a float32 makes a float64, which would halve the speed and change the
numbers. In the new text constants have the dtype of the weights, and exp and tanh are our own.
"""

from typing import NamedTuple

from . import emit, tracing
from .spec import CELLS, Cell
from .symbols import Graph

_FORWARD = ("a", "s", "p")
_REVERSE = ("ds", "s", "previous", "kept", "p")


class Texts(NamedTuple):
    """The source texts of a cell's two functions."""

    forward: str
    reverse: str

    @property
    def interpreted(self):
        """Both functions for Python's own numbers."""
        return tuple(map(emit.interpreted, self._fields, self))


def trace(name, function, single=False, **counts):
    """Call the function with tuples of so many symbols; returns their graph and its result.

    `single`: with the first symbol alone. Errors bear the name and the caller's line.
    """
    graph = Graph()
    given = [graph.inputs(*item) for item in counts.items()]
    return graph, tracing.trace(name, function, *(given[0] if single else given))


def texts(forward, reverse):
    """Return the texts of functions whose outputs are tuples of tuples of nodes."""
    return Texts(
        emit.source("forward", _FORWARD, forward), emit.source("reverse", _REVERSE, reverse)
    )


def define(prefix, name, texts, gates, states, residuals, parameters):
    """Enter a cell of these texts; returns the name by which kernels know it."""
    counts = f"{gates}-{states}-{residuals}-{parameters}"
    key = f"{prefix}-{name}-{counts}-{emit.digest(*texts)}"
    CELLS[key] = Cell(
        gates, states, residuals, *map(emit.compiled, texts._fields, texts),
        sums=tuple(range(gates, gates + parameters)), extra=parameters,
    )  # fmt: skip
    return key
