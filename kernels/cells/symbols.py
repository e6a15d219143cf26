"""Numbers whose values are not known yet: what is done with them is recorded as a graph.

An operation has NumPy's name for it. Equal operations on equal operands are one node, so common
sub-expressions are shared, and nodes are in an order in which they can be computed.
"""

import math
import numbers

import numpy as np

COMPARISONS = frozenset({"less", "less_equal", "greater", "greater_equal", "equal", "not_equal"})
LOGICAL = COMPARISONS | {"logical_and", "logical_or", "logical_not"}
OPERATIONS = LOGICAL | {
    "add", "subtract", "multiply", "divide", "floor_divide", "remainder", "power", "negative",
    "absolute", "sign", "floor", "ceil", "minimum", "maximum", "where",
    "exp", "expm1", "log", "log2", "log10", "log1p", "sqrt",
    "sin", "cos", "tan", "arcsin", "arccos", "arctan", "arctan2",
    "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh",
    "erf", "erfc", "hypot", "copysign", "sigmoid",
}  # fmt: skip

_COUNTS = {"where": 3, "erf": 1, "erfc": 1, "sigmoid": 1}  # of operands; NumPy knows the others
_MOST_FACTORS = 64  # a whole power up to this is a product


class Node:
    """An operation and its operands, which are nodes, or a "constant" or "input" and its value.

    The value of a constant is a float, that of an input is (name of the tuple, index). `place`
    counts the nodes of a graph: operands come before what is made of them. A "where" may have a
    fourth operand, its surrogate, which has its slope but not its value.
    """

    __slots__ = ("op", "operands", "place", "value")

    def __init__(self, op, operands, value, place):
        self.op, self.operands, self.value, self.place = op, operands, value, place

    @property
    def logical(self):
        """Whether it is true or false, not a number."""
        return self.op in LOGICAL

    @property
    def constant(self):
        """Whether it is a constant."""
        return self.op == "constant"

    @property
    def needs(self):
        """The operands that its value is made of."""
        return self.operands[:3]


class Graph:
    """All nodes of some functions' expressions."""

    def __init__(self):
        self._known = {}

    def node(self, op, *operands, value=None):
        """Return the node of that operation, operands and value: the same one every time."""
        text = value.hex() if op == "constant" else value  # zeros have signs; NaN is not NaN
        key = op, operands, text
        if key not in self._known:
            self._known[key] = Node(op, operands, value, len(self._known))
        return self._known[key]

    def inputs(self, name, count):
        """Return a tuple of symbols: the elements of the argument of that name."""
        return tuple(Symbol(self, self.node("input", value=(name, i))) for i in range(count))

    def number(self, value):
        """Return the node of a symbol or a Python or NumPy number, as a number."""
        node = self._node(value)
        if node.logical:
            one, zero = self.node("constant", value=1.0), self.node("constant", value=0.0)
            return self.node("where", node, one, zero)
        return node

    def truth(self, value):
        """Return the node of a symbol or number as true or false: whether it is not 0."""
        node = self._node(value)
        if not node.logical:
            return self.node("not_equal", node, self.node("constant", value=0.0))
        return node

    def symbol(self, node):
        """Return a node as a symbol."""
        return Symbol(self, node)

    def rewritten(self, outputs, names):
        """Return tuples of nodes in a new graph, in which some nodes are inputs of these names."""
        graph, new = Graph(), {}
        for node in in_order([node for part in outputs for node in part], names):
            if node in names:
                known = graph.node("input", value=names[node])
                new[node] = graph.truth(Symbol(graph, known)) if node.logical else known
            else:
                operands = (new[operand] for operand in node.needs)
                new[node] = graph.node(node.op, *operands, value=node.value)
        return tuple(tuple(new[node] for node in part) for part in outputs)

    def _node(self, value):
        if isinstance(value, Symbol):
            if value.graph is not self:
                raise TypeError("a number was kept from another call of the function")
            return value.node
        if isinstance(value, np.ndarray) and value.ndim == 0:
            value = value[()]
        if not isinstance(value, (numbers.Real, np.bool_)):
            raise TypeError(f"{_described(value)} stands where a number is due")
        return self.node("constant", value=float(value))


def _described(value):
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return repr(value) if value is None else f"a {type(value).__name__}"


def in_order(nodes, known=(), surrogates=False):
    """All nodes that the values of these need, as they were recorded; not beyond the `known`.

    surrogates : with what has the slope of a node, but not its value
    """
    found, waiting = set(), list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            if node not in known:
                waiting += node.operands if surrogates else node.needs
    return sorted(found, key=lambda node: node.place)


def apply(op, *operands):
    """Return the symbol of NumPy's operation of that name, on symbols and numbers."""
    graph = next((x.graph for x in operands if isinstance(x, Symbol)), None)
    if graph is None:
        return getattr(np, op)(*operands)
    op = _SAME.get(op, op)
    if op in _COMPOSED:
        return _COMPOSED[op](*operands)
    if op not in OPERATIONS:
        raise TypeError(f"{op} is not among the operations of a cell")
    count = _COUNTS.get(op) or getattr(np, op).nin
    if len(operands) != count:
        raise TypeError(f"{op} takes {count} numbers in a cell, not {len(operands)}")
    if op == "where":
        condition, *choices = operands
        nodes = (graph.truth(condition), *map(graph.number, choices))
    elif op in LOGICAL - COMPARISONS:
        nodes = tuple(map(graph.truth, operands))
    else:
        nodes = tuple(map(graph.number, operands))
    if op == "divide" and nodes[0].value == 1 and _exponent(nodes[1]) is not None:
        return apply("sigmoid", -Symbol(graph, _exponent(nodes[1])))
    if op == "negative" and nodes[0].op == "negative":
        return Symbol(graph, nodes[0].operands[0])
    return Symbol(graph, graph.node(op, *nodes))


def _exponent(node):
    """x of a node 1 + e^x, else None: 1/(1 + e^x) is a sigmoid, whose slope never overflows."""
    if node.op == "add":
        for one, other in (node.operands, node.operands[::-1]):
            if one.value == 1 and other.op == "exp":
                return other.operands[0]
    return None


def where(condition, a, b, surrogate=None):
    """A choice between two values, and what gives the slope in their place: see `fastbptt.where`.

    Raises TypeError where the surrogate has no difference to take, or returns no number.
    """
    chosen = apply("where", condition, a, b)
    if surrogate is None or not isinstance(condition, Symbol):
        return chosen
    if condition.node.op not in ("less", "less_equal", "greater", "greater_equal"):
        raise TypeError("a surrogate takes the difference of two numbers: compare them by < or >")
    graph = condition.graph
    left, right = (Symbol(graph, node) for node in condition.node.operands)
    smooth = graph.number(surrogate(left - right))
    return Symbol(graph, graph.node("where", *graph.number(chosen).operands, smooth))


def _power(x, y):
    """x^y; with a whole y a product, which is more exact and faster."""
    whole = isinstance(y, (numbers.Real, np.bool_)) and float(y).is_integer()
    if not whole or abs(y) > _MOST_FACTORS:
        graph = x.graph if isinstance(x, Symbol) else y.graph
        return Symbol(graph, graph.node("power", graph.number(x), graph.number(y)))
    if y == 0:
        return Symbol(x.graph, x.graph.number(1))
    exponent, product = abs(int(y)), None
    while exponent:
        if exponent % 2:
            product = x if product is None else product * x
        exponent //= 2
        x = x * x if exponent else x
    return 1 / product if y < 0 else product


def _where(condition, a=None, b=None):
    """NumPy's where, of three arguments."""
    if a is None or b is None:
        raise TypeError("np.where takes a condition and two values in a cell")
    return apply("where", condition, a, b)


def _clip(x, least=None, most=None):
    """NumPy's clip."""
    x = x if least is None else apply("maximum", x, least)
    return x if most is None else apply("minimum", x, most)


def _bitwise(op):
    def both(*operands):
        for x in operands:
            if not (x.node.logical if isinstance(x, Symbol) else isinstance(x, (bool, np.bool_))):
                raise TypeError("&, |, ^ and ~ take conditions, not numbers")
        return apply(op, *operands)

    return both


_SAME = {"true_divide": "divide", "mod": "remainder", "fabs": "absolute", "abs": "absolute"}
_COMPOSED = {
    "power": _power,
    "float_power": _power,
    "positive": lambda x: x,
    "square": lambda x: x * x,
    "reciprocal": lambda x: 1 / x,
    "exp2": lambda x: 2.0**x,
    "cbrt": lambda x: apply("sign", x) * abs(x) ** (1 / 3),
    "radians": lambda x: x * (math.pi / 180),
    "deg2rad": lambda x: x * (math.pi / 180),
    "degrees": lambda x: x * (180 / math.pi),
    "rad2deg": lambda x: x * (180 / math.pi),
    "trunc": lambda x: apply("where", x < 0, apply("ceil", x), apply("floor", x)),
    "fmod": lambda x, y: apply("copysign", apply("remainder", abs(x), abs(y)), x),
    "isnan": lambda x: x != x,
    "isinf": lambda x: abs(x) == math.inf,
    "isfinite": lambda x: abs(x) < math.inf,
    "logical_xor": lambda x, y: apply(
        "logical_and", apply("logical_or", x, y), ~apply("logical_and", x, y)
    ),
    "bitwise_and": _bitwise("logical_and"),
    "bitwise_or": _bitwise("logical_or"),
    "bitwise_xor": _bitwise("logical_xor"),
    "invert": _bitwise("logical_not"),
}
_FUNCTIONS = {np.where: _where, np.clip: _clip}

_BRANCH = (
    "a branch on a number that is not known yet: write fb.where(condition, a, b), "
    "np.minimum and np.maximum for min and max, & and | for and and or"
)
_PLAIN = (
    "a number that is not known yet is taken as a plain one: write np.* where math.* is not "
    "reached by a name, and fb.where(condition, a, b) for a choice"
)


def _refused(reason):
    def refuse(self, *args):
        raise TypeError(reason)

    return refuse


def _operator(op):
    return lambda self, other: apply(op, self, other)


def _reflected(op):
    return lambda self, other: apply(op, other, self)


class Symbol:
    """A number of a cell's function while it is traced; operators and NumPy's functions record."""

    __slots__ = ("graph", "node")
    __hash__ = object.__hash__

    def __init__(self, graph, node):
        self.graph, self.node = graph, node

    def __repr__(self):
        if self.node.op == "input":
            return "{}[{}]".format(*self.node.value)
        return repr(self.node.value) if self.node.op == "constant" else f"{self.node.op}(...)"

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        """Record a function of NumPy's that is applied to it."""
        if method != "__call__" or options:
            raise TypeError(f"np.{ufunc.__name__} takes numbers in a cell, and no options")
        if getattr(np, ufunc.__name__, None) is not ufunc:
            raise TypeError(f"{ufunc.__name__} is not among the operations of a cell")
        return apply(ufunc.__name__, *inputs)

    def __array_function__(self, function, types, args, options):
        """Record np.where and np.clip."""
        if function not in _FUNCTIONS:
            raise TypeError(f"np.{function.__name__} is not among the operations of a cell")
        return _FUNCTIONS[function](*args, **options)

    __neg__, __pos__, __abs__, __invert__ = (
        lambda self, op=op: apply(op, self) for op in ("negative", "positive", "absolute", "invert")
    )
    __lt__, __le__, __gt__, __ge__, __eq__, __ne__ = (
        _operator(op)
        for op in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
    )

    def __divmod__(self, other):
        return self // other, self % other

    def __rdivmod__(self, other):
        return other // self, other % self

    __bool__ = _refused(_BRANCH)
    __float__ = __int__ = __index__ = __complex__ = __round__ = _refused(_PLAIN)
    __len__ = __iter__ = _refused(
        "a number is taken as a sequence: fb.where(condition, a, b) chooses between numbers"
    )


for _name, _op in {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "power",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
}.items():  # fmt: skip
    setattr(Symbol, f"__{_name}__", _operator(_op))
    setattr(Symbol, f"__r{_name}__", _reflected(_op))
