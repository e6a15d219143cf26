"""The source text of a function that computes what a graph says: see `symbols`.

The text says all that the function computes, values included, so it stands for its code in names
of kernels. Its constants have the dtype of the arguments; `cast_like` is in `maths`.
"""

import hashlib
import linecache
import math

import numpy as np

from ..jit import scalar
from ..maths import cast_like, exp, sigmoid, tanh
from .symbols import in_order

_INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/",
    "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=",
    "equal": "==", "not_equal": "!=", "logical_and": "&", "logical_or": "|",
}  # fmt: skip
_CAST = {"floor_divide": "//", "remainder": "%", "power": "**"}  # Numba might widen these
_FORMS = {
    "negative": "-{}", "logical_not": "not {}", "absolute": "abs({})",
    "where": "{1} if {0} else {2}",
}  # fmt: skip

MATH = {
    "expm1": math.expm1, "log": math.log, "log2": math.log2, "log10": math.log10,
    "log1p": math.log1p, "sqrt": math.sqrt, "sin": math.sin, "cos": math.cos, "tan": math.tan,
    "arcsin": math.asin, "arccos": math.acos, "arctan": math.atan, "arctan2": math.atan2,
    "sinh": math.sinh, "cosh": math.cosh, "arcsinh": math.asinh, "arccosh": math.acosh,
    "arctanh": math.atanh, "erf": math.erf, "erfc": math.erfc, "hypot": math.hypot,
    "copysign": math.copysign,
}  # fmt: skip
"""Operations for which we have no function of our own: Python's, which Numba knows."""


@scalar
def minimum(a, b):
    """NumPy's: NaN if one of them is."""
    least = a if a < b else b
    return a if a != a else least


@scalar
def maximum(a, b):
    """NumPy's: NaN if one of them is."""
    most = a if a > b else b
    return a if a != a else most


@scalar
def sign(x):
    """-1, 0, 1 or NaN."""
    zero = cast_like(0, x)
    above = cast_like(1, x) if x > zero else x
    return cast_like(-1, x) if x < zero else above


@scalar
def floor(x):
    """The whole number below; from 2^52 on every number is whole, and may be no int64."""
    return cast_like(math.floor(x), x) if abs(x) < cast_like(2.0**52, x) else x


@scalar
def ceil(x):
    """The whole number above."""
    return -floor(-x)


_COMPILED = {
    **MATH, "minimum": minimum, "maximum": maximum, "sign": sign, "floor": floor, "ceil": ceil,
    "exp": exp, "tanh": tanh, "sigmoid": sigmoid, "cast_like": cast_like,
    "inf": math.inf, "nan": math.nan,
}  # fmt: skip
_INTERPRETED = {
    **{name: getattr(np, name, known) for name, known in _COMPILED.items()},
    "cast_like": lambda value, x: np.float64(value),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def source(name, arguments, outputs):
    """Return the text of a function of the tuples named in `arguments`.

    It returns a tuple of tuples: the values of the nodes in `outputs`.
    """
    number = f"{arguments[0]}[0]"
    names, lines = {}, []
    for node in in_order([node for part in outputs for node in part]):
        if node.op == "input":
            name_of_tuple, index = node.value
            names[node], text = f"{name_of_tuple}{index}", f"{name_of_tuple}[{index}]"
        else:
            text = _expression(node, [names[x] for x in node.needs], number)
            names[node] = f"{'c' if node.op == 'constant' else 'v'}{len(names)}"
        lines.append(f"    {names[node]} = {text}")
    parts = ["".join(f"{names[node]}, " for node in part).rstrip() for part in outputs]
    result = " ".join(f"({part})," for part in parts)
    return "\n".join([f"def {name}({', '.join(arguments)}):", *lines, f"    return {result}\n"])


def _expression(node, values, number):
    if node.op == "constant":
        return f"cast_like({node.value!r}, {number})"
    if node.op in _INFIX:
        return f" {_INFIX[node.op]} ".join(values)
    if node.op in _CAST:
        return f"cast_like({values[0]} {_CAST[node.op]} {values[1]}, {values[0]})"
    if node.op in _FORMS:
        return _FORMS[node.op].format(*values)
    call = f"{node.op}({', '.join(values)})"
    return f"cast_like({call}, {values[0]})" if node.op in MATH else call


def digest(*texts):
    """A short text that stands for these."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def compiled(name, text):
    """Return the function of that text, for Numba; a traceback into it shows its lines."""
    file = f"<{name}, traced by fastbptt, {digest(text)}>"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    function = _run(text, file, {**_COMPILED, "__name__": __name__}, name)
    function.__qualname__ = f"{name}.{digest(text)}"
    function.distinct = True  # see `jit`
    return function


def interpreted(name, text):
    """Return the function of that text, for Python, on tuples of float64 numbers."""
    function = _run(text, f"<{name}>", dict(_INTERPRETED), name)

    def call(*tuples):
        with np.errstate(all="ignore"):
            return function(*(tuple(map(np.float64, part)) for part in tuples))

    return call


def _run(text, file, found, name):
    exec(compile(text, file, "exec"), found)
    return found[name]
