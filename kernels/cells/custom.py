"""A caller's own functions of one unit as the maths of a cell: traced, derived and written anew.

To Numba a bare 1 beside a float32 makes a float64, which would halve the speed and change the
numbers. In the new text constants have the dtype of the weights, and exp and tanh are our own.
"""

from typing import NamedTuple

from . import emit, tracing
from .derive import derivatives, kept
from .spec import CELLS, Cell
from .symbols import Graph, Symbol, in_order

_FORWARD = ("a", "s", "p")
_REVERSE = ("ds", "s", "previous", "kept", "p")


class Trace(NamedTuple):
    """What a function computes, as plain data.

    rows : (operation, the numbers of the rows of its operands, value) of each node
    outputs : tuples of the numbers of rows
    """

    rows: tuple
    outputs: tuple

    @classmethod
    def of(cls, outputs):
        """The trace of tuples of nodes."""
        number, rows = {}, []
        nodes = in_order([node for part in outputs for node in part], surrogates=True)
        for node in nodes:
            rows.append((node.op, tuple(number[x] for x in node.operands), node.value))
            number[node] = len(number)
        return cls(tuple(rows), tuple(tuple(number[x] for x in part) for part in outputs))

    def nodes(self):
        """Return a new graph and the outputs, tuples of its nodes."""
        graph, nodes = Graph(), []
        for op, operands, value in self.rows:
            nodes.append(graph.node(op, *(nodes[x] for x in operands), value=value))
        return graph, tuple(tuple(nodes[x] for x in part) for part in self.outputs)

    def function(self, arguments):
        """Return it as a function of tuples of Python's numbers, so named."""
        return emit.interpreted("traced", emit.source("traced", arguments, self.nodes()[1]))


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

    single : with the first symbol alone
    counts : by the name of the tuple; the drives `d` are what follows the params in `p`

    Errors bear the name and the caller's line.
    """
    graph, given = Graph(), []
    for what, count in counts.items():
        first = counts["p"] if what == "d" else 0
        given.append(graph.inputs("p" if what == "d" else what, first + count)[first:])
    return graph, tracing.trace(name, function, *(given[0] if single else given))


def texts(forward, reverse):
    """Return the texts of functions whose outputs are tuples of tuples of nodes."""
    return Texts(
        emit.source("forward", _FORWARD, forward), emit.source("reverse", _REVERSE, reverse)
    )


def derived(graph, states, gates, parameters):
    """Return the texts of a cell of these states, nodes of `graph`, and how many numbers it keeps.

    parameters : the numbers of `p`, drives included
    """
    given = {
        name: [symbol.node for symbol in graph.inputs(name, count)]
        for name, count in (("a", gates), ("s", len(states)), ("p", parameters))
    }
    found = derivatives(graph, states, graph.inputs("ds", len(states)))
    zero = graph.number(0)
    deltas, dprevious = (
        [found[node].node if node in found else zero for node in nodes]
        for nodes in ((*given["a"], *given["p"]), given["s"])
    )
    names = {node: ("s", k) for k, node in enumerate(states) if not node.constant}
    names |= {node: ("previous", k) for k, node in enumerate(given["s"])}
    names |= {node: ("p", k) for k, node in enumerate(given["p"])}
    held = kept(_needed([*deltas, *dprevious]), names.keys())
    names |= {node: ("kept", k) for k, node in enumerate(held)}
    reverse = graph.rewritten((deltas, dprevious), names)
    residuals = tuple(graph.number(Symbol(graph, node)) for node in held)
    return texts((states, residuals), reverse), len(held)


def _needed(outputs):
    """The nodes known before the derivatives by the states that these are made of."""
    late, found = set(), []
    for node in in_order(outputs):
        later = node.op == "input" and node.value[0] == "ds"
        if later or any(operand in late for operand in node.needs):
            late.add(node)
            found += [operand for operand in node.needs if operand not in late]
    return [*found, *(node for node in outputs if node not in late)]


def define(prefix, name, texts, gates, states, residuals, parameters, drives=0):
    """Enter a cell of these texts; returns the name by which kernels know it."""
    counts = "-".join(map(str, (gates, states, residuals, parameters, drives)))
    key = f"{prefix}-{name}-{counts}-{emit.digest(*texts)}"
    CELLS[key] = Cell(
        gates, states, residuals, *map(emit.compiled, texts._fields, texts),
        sums=tuple(range(gates, gates + parameters)), extra=parameters + drives, drives=drives,
    )  # fmt: skip
    return key
