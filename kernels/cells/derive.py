"""The reverse of what a graph computes, as more nodes of that graph: see `symbols`.

The derivative by a node is the sum of what its users pass down, from the outputs to the inputs. At
a kink it is that of the branch taken, and a branch that is not taken passes exactly 0 down, even
where its own slope is infinite or no number.
"""

import math

from .symbols import Symbol, apply, in_order

_SLOPES = {
    "absolute": lambda y, x: apply("sign", x),
    "sigmoid": lambda y, x: y * (1 - y),
    "tanh": lambda y, x: 1 - y * y,
    "sin": lambda y, x: apply("cos", x),
    "cos": lambda y, x: -apply("sin", x),
    "arctan": lambda y, x: 1 / (1 + x * x),
    "arcsinh": lambda y, x: 1 / apply("sqrt", 1 + x * x),
    "erf": lambda y, x: _ERF * apply("exp", -(x * x)),
    "erfc": lambda y, x: -_ERF * apply("exp", -(x * x)),
}
_STEEP = {
    "exp": lambda y, x: y,
    "expm1": lambda y, x: y + 1,
    "log": lambda y, x: 1 / x,
    "log2": lambda y, x: 1 / math.log(2) / x,
    "log10": lambda y, x: 1 / math.log(10) / x,
    "log1p": lambda y, x: 1 / (1 + x),
    "sqrt": lambda y, x: 0.5 / y,
    "tan": lambda y, x: 1 + y * y,
    "sinh": lambda y, x: apply("cosh", x),
    "cosh": lambda y, x: apply("sinh", x),
    "arcsin": lambda y, x: 1 / apply("sqrt", 1 - x * x),
    "arccos": lambda y, x: -1 / apply("sqrt", 1 - x * x),
    "arccosh": lambda y, x: 1 / apply("sqrt", (x - 1) * (x + 1)),
    "arctanh": lambda y, x: 1 / (1 - x * x),
}
"""Slopes of functions of one number, of y and x; these may be infinite where y is a number."""

_ERF = 2 / math.sqrt(math.pi)


def _divide(y, n, u):
    if u.node.constant:
        return 1 / u, None
    slope = 1 / u
    return slope, -(y * slope)


def _power(y, x, exponent):
    by_x = exponent * x ** (exponent.node.value - 1 if exponent.node.constant else exponent - 1)
    return by_x, apply("where", x > 0, y * apply("log", x), 0)


def _arctan2(y, a, b):
    square = a * a + b * b
    return b / square, -a / square


_TWO = {
    "multiply": lambda y, a, b: (b, a),
    "divide": _divide,
    "power": _power,
    "remainder": lambda y, a, b: (None, -apply("floor_divide", a, b)),
    "hypot": lambda y, a, b: tuple(apply("where", y == 0, 0, x / y) for x in (a, b)),
    "arctan2": _arctan2,
    "copysign": lambda y, a, b: (apply("sign", a) * apply("copysign", 1.0, b), None),
}
"""Slopes of functions of two numbers, by each of them; see `_passed` for the others."""

_FLAT = {"sign", "floor", "ceil", "floor_divide"}
_CHOICES = {"where", "minimum", "maximum"}


def _product(d, slope, absorbs):
    """d * slope; 0 where d is 0, if it `absorbs` slopes that are no numbers."""
    product = d * slope
    return apply("where", d == 0, 0, product) if absorbs else product


def _extreme(op, d, y, a, b):
    """What a minimum or maximum passes down: with a constant, y tells which of the two it is."""
    passed = "greater_equal" if op == "minimum" else "less_equal"
    for number, limit in ((a, b), (b, a)):
        if limit.node.constant:
            found = apply("where", apply(passed, y, limit), 0, d)
            return (found, None) if number is a else (None, found)
    first = a < b if op == "minimum" else a > b
    return apply("where", first, d, 0), apply("where", first, 0, d)


def _chosen(d, y, condition, a, b):
    """What a choice passes down; where it is a relu, y tells which of the two it is."""
    test = condition.node
    if test.op in ("greater", "less") and test.operands == (a.node, b.node) and b.node.constant:
        condition = apply(test.op, y, b)
    return None, apply("where", condition, d, 0), apply("where", condition, 0, d)


def _passed(node, d, guarded):
    """What a node whose derivative is d passes to each of its operands; None for nothing."""
    op, y, *x = node.op, *(Symbol(d.graph, each) for each in (node, *node.operands))
    if op == "add":
        return d, d
    if op == "subtract":
        return d, None if x[1].node.constant else -d
    if op == "negative":
        return (-d,)
    if op == "where":
        return (None, None, None, d) if len(x) == 4 else _chosen(d, y, *x)
    if op in _CHOICES:
        return _extreme(op, d, y, *x)
    if op in _FLAT or node.logical or node.op == "input":
        return (None,) * len(x)
    if op == "divide" and x[1].node.constant:
        return d / x[1], None
    if op == "remainder":
        return d, _product(d, _TWO[op](y, *x)[1], guarded)
    if op in _TWO:
        steep = guarded or op == "power"
        return [
            None if slope is None or of.node.constant else _product(d, slope, steep)
            for slope, of in zip(_TWO[op](y, *x), x, strict=True)
        ]
    steep = op in _STEEP
    return (_product(d, (_STEEP if steep else _SLOPES)[op](y, *x), guarded or steep),)


def derivatives(graph, outputs, seeds):
    """Return {node: the derivative by it, a symbol} of sum_k seeds[k] * outputs[k]."""
    found = {}

    def add(node, d):
        if not node.constant and d is not None:
            found[node] = found[node] + d if node in found else d

    for node, seed in zip(outputs, seeds, strict=True):
        add(node, seed)
    nodes = in_order(outputs, surrogates=True)
    choices = [node for node in nodes if node.op in _CHOICES and len(node.operands) < 4]
    branches = [part for node in choices for part in node.operands[-2:]]
    guarded = set(in_order(branches, surrogates=True))
    for node in reversed(nodes):
        if node in found:
            for operand, d in zip(
                node.operands, _passed(node, found[node], node in guarded), strict=True
            ):
                add(operand, d)
    return found


def kept(outputs, free):
    """Return the fewest nodes from which, with the `free` ones, these outputs can be computed.

    Every input that is not free must be cut off from the outputs: a smallest cut of the nodes,
    found by augmenting paths (Ford and Fulkerson 1956). Of all such cuts it is that nearest to the
    outputs, so that least is computed again.

    outputs : nodes that are due, made of free nodes and of what may be kept
    """
    room = {_SOURCE: {}, _SINK: {}}  # what may still flow from place to place

    def connect(one, other, size):
        room.setdefault(one, {})[other] = size
        room.setdefault(other, {}).setdefault(one, 0)

    due = [node for node in outputs if node not in free]
    for node in in_order(due, free):
        if node in free or node.constant:
            continue
        connect((node, "in"), (node, "out"), 1)
        if node.op == "input":
            connect(_SOURCE, (node, "in"), math.inf)
        for operand in node.needs:
            if operand not in free and not operand.constant:
                connect((operand, "out"), (node, "in"), math.inf)
    for node in due:
        if not node.constant:
            connect((node, "out"), _SINK, math.inf)
    while True:
        found = _reached(_SINK, lambda at: (other for other in room[at] if room[other][at] > 0))
        if _SOURCE not in found:
            cut = {at[0] for at in found if at != _SINK and (at[0], "in") not in found}
            return sorted(cut, key=lambda node: node.place)
        at = _SOURCE
        while at != _SINK:
            room[at][found[at]] -= 1
            room[found[at]][at] += 1
            at = found[at]


_SOURCE, _SINK = ("source", "out"), ("sink", "in")


def _reached(start, neighbours):
    """{what is reached from there, step by step: by way of what}."""
    found, waiting = {start: None}, [start]
    for at in waiting:
        for other in neighbours(at):
            if other not in found:
                found[other] = at
                waiting.append(other)
    return found
