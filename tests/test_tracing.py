"""Functions of a cell's numbers are traced: what may stand in them, and what the trace computes."""

import functools
import math
import re
import types

import numba
import numpy as np
import pytest
from checks import rejected, run_python
from fastbptt.kernels.cells import custom, emit, registry

import fastbptt as fb


def text_of(function):
    """The text of a function of two numbers, which returns one or a tuple of them."""
    graph, value = custom.trace("function", function, a=2)
    values = value if isinstance(value, tuple) else (value,)
    return emit.source("function", ("a",), (tuple(map(graph.number, values)),))


def traced(function):
    """The function as its trace computes it, in NumPy's float64."""
    call = emit.interpreted("function", text_of(function))
    return lambda a: call(a)[0][0]


ONE = [
    np.abs, np.absolute, np.arccos, np.arccosh, np.arcsin, np.arcsinh, np.arctan, np.arctanh,
    np.cbrt, np.ceil, np.cos, np.cosh, np.deg2rad, np.exp, np.exp2, np.expm1, np.fabs, np.floor,
    np.isfinite, np.isinf, np.isnan, np.log, np.log10, np.log1p, np.log2, np.negative, np.positive,
    np.rad2deg, np.reciprocal, np.sign, np.sin, np.sinh, np.sqrt, np.square, np.tan, np.tanh,
    np.trunc,
]  # fmt: skip
TWO = [
    np.add, np.arctan2, np.copysign, np.divide, np.equal, np.floor_divide, np.fmod, np.greater,
    np.greater_equal, np.hypot, np.less, np.less_equal, np.logical_and, np.logical_or,
    np.logical_xor, np.maximum, np.minimum, np.multiply, np.not_equal, np.power, np.remainder,
    np.subtract,
]  # fmt: skip
NUMBERS = (-2.5, -1.0, -0.5, -0.0, 0.0, 0.5, 0.75, 1.0, 3.0, 40.0, math.inf, -math.inf, math.nan)
NEAR = {np.float32: 3e-6, np.float64: 1e-14}


def due_of(x, y):
    """What NumPy makes of two numbers; of one power it would take a short cut, so of two each."""
    xs, ys = np.array([x, x]), np.array([y, y])
    with np.errstate(all="ignore"):
        return [float(f(xs)[0]) for f in ONE] + [float(f(xs, ys)[0]) for f in TWO]


@pytest.mark.parametrize("dtype", NEAR)
def test_compiled_functions_are_those_of_numpy(dtype):
    text = text_of(lambda a: (*(f(a[0]) for f in ONE), *(f(a[0], a[1]) for f in TWO)))
    call = numba.njit(error_model="numpy")(emit.compiled("function", text))
    for x in map(dtype, NUMBERS):
        for y in map(dtype, NUMBERS):
            for f, one, due in zip(ONE + TWO, call((x, y))[0], due_of(x, y), strict=True):
                near = np.isclose(one, due, rtol=NEAR[dtype], atol=NEAR[dtype], equal_nan=True)
                assert near, f"np.{f.__name__} of {x}, {y}: {one}, not {due}"
    kinds = set(re.findall(r"float\d+|int\d+|bool", str(call.nopython_signatures[0].return_type)))
    assert kinds == {dtype.__name__}


OF_MATH = [
    "acos", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "degrees", "erf", "erfc",
    "exp", "expm1", "fabs", "floor", "isfinite", "isinf", "isnan", "log", "log10", "log1p", "log2",
    "radians", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
]  # fmt: skip


@pytest.mark.parametrize("name", [*OF_MATH, *(n for n in ("cbrt", "exp2") if hasattr(math, n))])
def test_functions_of_math_are_found(name):
    found = {"math": math}
    exec(f"def f(a): return math.{name}(a[0])", found)
    for x in (0.25, 0.5, 0.75):
        due = float(getattr(math, name)(x))
        assert np.isclose(traced(found["f"])((x, 0.0)), due, rtol=1e-14)


# Each sets f, a function of a tuple of two numbers; CONSTS is a module.
WRITTEN = {
    "operators": "def f(a): return (+a[0] - 2) * (3 - a[1]) / (1 + a[0]) ** 2 + 2 ** a[1]",
    "reflected": "def f(a): return 1 / a[0] - 3 // a[1] + 7 % a[0] + (-2) * a[1] ** -3",
    "whole and other powers": "def f(a): return a[0] ** 0 + a[0] ** 5 + a[1] ** 0.5 + a[0] ** 99",
    "divmod and in place": "def f(a):\n    x, y = divmod(a[0], a[1])\n    x += y\n    return x",
    "conditions as numbers": "def f(a): return (a[0] > a[1]) * 2 + (a[0] <= 0.5)",
    "conditions of conditions": "def f(a):\n"
    "    return fb.where((a[0] > 0) & ~(a[1] > 1) | (a[0] == 2), a[0], 0) ** 2",
    "where": "def f(a): return np.where(a[0] < a[1], a[0], 3) + fb.where(a[0] > 0, 1, a[1])",
    "clip": "def f(a): return np.clip(a[0], 0.4, a[1]) + np.clip(a[1], None, 0.1)",
    "a function of math": "from math import tanh as t\ndef f(a): return t(a[0]) * math.pi",
    "a function of two numbers": "def f(a): return math.pow(a[0], a[1]) + math.log(a[0], 2)",
    "a helper of that name": "def tanh(a): return math.tanh(a)\ndef f(a): return tanh(a[0])",
    "a helper's helper": "def g(x): return math.exp(x)\ndef h(x): return g(x) / 2\n"
    "def f(a): return h(a[0])",
    "a compiled helper": "@numba.njit\ndef g(x): return math.exp(x)\ndef f(a): return g(a[0])",
    "a cached helper": "@functools.cache\ndef g(x): return math.exp(x)\ndef f(a): return g(a[0])",
    "a wrapped helper": "def twice(g):\n    @functools.wraps(g)\n    def w(x): return 2 * g(x)\n"
    "    return w\n@twice\ndef g(x): return math.exp(x)\ndef f(a): return g(a[0])",
    "a partial helper": "def g(k, x): return k * math.exp(x)\np = functools.partial(g, 3)\n"
    "def f(a): return p(a[0])",
    "a method": "class C:\n    k = 3\n    def m(self, x): return self.k * math.exp(x)\n"
    "m = C().m\ndef f(a): return m(a[0])",
    "a helper of a module": "def g(x): return math.exp(x)\nCONSTS.g = g\n"
    "def f(a): return CONSTS.g(a[0])",
    "a nested function": "def f(a):\n    def g(x): return math.exp(x)\n    return g(a[0])",
    "an enclosed function": "def make(g):\n    def f(a): return g(a[0])\n    return f\n"
    "f = make(math.tanh)",
    "a count that two functions share": "def make():\n    n = 0\n"
    "    def g(x):\n        nonlocal n\n        n += 1\n        return math.sin(x)\n"
    "    def f(a): return g(a[0]) + n * g(a[1])\n    return f\nf = make()",
    "an enclosed function that calls itself": "def make():\n"
    "    def f(a, n=3): return math.sin(a[0]) if n == 0 else f((a[0] / 2, 0), n - 1)\n"
    "    return f\nf = make()",
    "defaults": "def g(x, k=0.5, *, m=2): return x * k + m\ndef f(a): return g(a[0])",
    "loops": "def f(a):\n    x = a[0]\n    for _ in range(3): x = math.sin(x) + a[1]\n    return x",
    "comprehensions": "def f(a): return sum(math.exp(x) for x in a) + max([1, 2])",
    "slices": "def f(a):\n    x, y = a[:2]\n    (z,) = a[-1:]\n    return x - y * z",
    "an index from outside": "IDX = 1\ndef f(a): return a[IDX] * LIST[IDX]",
    "tables": "def f(a): return a[0] * TABLE[1] + TABLE[2] * a[1] + np.int64(2) * a[0]",
    "branches on what is known": "def f(a): return a[0] if TABLE[0] > 0 else math.no",
    "what stays a number": "def f(a): return math.exp(0.5) * a[0] + np.sqrt(2) + math.floor(2.5)",
    "infinity": "def f(a): return np.minimum(a[0], math.inf) + np.maximum(a[1], -math.inf)",
}


def written(source):
    found = {name: globals()[name] for name in ("math", "np", "numba", "fb", "functools")}
    table = np.array([0.25, 0.5, 0.75])
    found |= {"CONSTS": types.ModuleType("consts"), "TABLE": table, "LIST": [1, 2.5]}
    exec(source, found)
    return found["f"]


@pytest.mark.parametrize("what", WRITTEN)
def test_what_may_stand_in_a_function_computes_what_it_does_in_python(what):
    for a in ((0.3, 0.6), (0.75, 0.2)):
        found, due = traced(written(WRITTEN[what]))(a), written(WRITTEN[what])(a)
        assert np.isclose(found, float(due), rtol=1e-14)


KNOWN_ONLY_LATER = {
    "if": "    if a[0] > 0:\n        return a[0]\n    return a[1]",
    "and": "    return a[0] > 0 and a[1]",
    "a chain": "    return 0 < a[0] < 1",
    "while": "    x = a[0]\n    while x < 1:\n        x = x + 1\n    return x",
    "min": "    return min(a[0], a[1])",
    "max": "    return max(a[0], 0.0)",
    "bool": "    return bool(a[0])",
}
PLAIN = {
    "float": "    return float(a[0])",
    "int": "    return int(a[0])",
    "round": "    return round(a[0])",
    "an index": "    return a[a[0]]",
    "range": "    return sum(range(a[0]))",
    "math in a container": "    return TANH[0](a[0])",
    "math as an argument": "    return with_default(a[0])",
    "math in a partial": "    return PARTIAL(a[0])",
}
FAILING = {
    "len": ("    return len(a[0])", "fb.where"),
    "unpacking": ("    x, y = a[0]\n    return x", "sequence"),
    "too many": ("    return math.hypot(a[0], a[1], 1.0)", "hypot"),
    "another gate": ("    return a[2]", "IndexError"),
    "a division": ("    return a[0] / (1 // 0)", "ZeroDivisionError"),
    "a name": ("    return a[0] * nothing", "nothing"),
    "a text": ("    return a[0] + 'text'", "str"),
    "an array": ("    return a[0] * np.ones(3)", "(3,)"),
    "an unknown function": ("    return np.sinc(a[0])", "sinc"),
    "an unknown ufunc": ("    return np.heaviside(a[0], 0)", "heaviside"),
    "an unknown function of math": ("    return math.gamma(a[0])", "gamma"),
    "a reduction": ("    return np.add.reduce(a[0])", "add"),
}
REFUSED = {name: (text, "fb.where") for name, text in KNOWN_ONLY_LATER.items()}
REFUSED |= {name: (text, "np") for name, text in PLAIN.items()} | FAILING


def with_default(x, g=math.tanh):
    return g(x)


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_traced_names_its_line_and_the_way_out(what):
    body, word = REFUSED[what]
    lines = body.splitlines()
    source = "\n" * 40 + "def f(a):\n" + body
    found = {"np": np, "math": math, "TANH": (math.tanh,), "with_default": with_default}
    found["PARTIAL"] = functools.partial(math.tanh)
    exec(compile(source, "a_file.py", "exec"), found)
    line = 42 + next((i for i, text in enumerate(lines) if "while" in text), 0)
    if what == "math as an argument":
        place = f"test_tracing.py, line {with_default.__code__.co_firstlineno + 1}"
    else:
        place = f"a_file.py, line {line}"
    rejected(lambda: text_of(found["f"]), "function", place, word)
    if what in KNOWN_ONLY_LATER:
        with pytest.raises(TypeError, match=r"np\.minimum"):
            text_of(found["f"])


def test_a_line_is_that_of_the_helper():
    def helper(x):
        return x if x > 0 else -x

    with pytest.raises(TypeError, match=f"line {helper.__code__.co_firstlineno + 1}:"):
        fb.Activation("helped", lambda a: helper(a), lambda s: s)


def test_equal_expressions_are_computed_once():
    text = text_of(lambda a: np.exp(a[0]) * a[1] + np.exp(a[0]) * a[1] - 1 / (1 + np.exp(a[0])))
    assert text.count("exp(") == 1 and len(re.findall(r" \* ", text)) == 1


def test_signed_zeros_and_nan_are_constants_of_their_own():
    text = text_of(lambda a: (a[0] + 0.0, a[0] + -0.0, a[0] + math.nan, a[1] + math.nan))
    assert re.findall(r"like\((\S+),", text) == ["0.0", "-0.0", "nan"]


def test_the_fallback_of_where_is_numpys():
    assert fb.where(True, 1.0, 2.0) == 1.0 and not isinstance(fb.where(1 > 0, 1, 2), np.ndarray)
    condition = np.array([True, False])
    assert np.array_equal(fb.where(condition, 1, [2, 3]), [1, 3])


def test_a_number_of_another_call_is_refused():
    held = []

    def keeps(a):
        held.append(a[0])
        return a[0] + held[0]

    text_of(keeps)
    rejected(lambda: text_of(keeps), "another call")


def test_numpy_of_the_tuple_in_place_of_its_number_says_so():
    with pytest.raises(TypeError, match=r"line \d+: .*: a and s are tuples, and a\[0\] is a num"):
        fb.Cell("tuples", 1, lambda a, s: (np.tanh(a),))


RELU = fb.Activation("own_relu", lambda a: fb.where(a < 0, 0, a), lambda s: np.where(s <= 0, 0, 1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_relu_by_where_is_the_relu_to_the_bit_nan_included(dtype):
    layer = fb.RNN.init(3, 9, rng=0, dtype=dtype, activation="relu")
    x = np.random.default_rng(0).standard_normal((20, 4, 3)).astype(dtype)
    x[7, 1, 0] = np.nan
    results = []
    for activation in ("relu", RELU):
        each = fb.RNN(*layer.arrays(), activation=activation)
        h, _, cache = fb.forward(each, x)
        results.append((h, *fb.backward(cache, np.ones_like(h)).layer.arrays()))
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other, equal_nan=True)


def scaled(k):
    return fb.Activation("scaled", lambda a: k * a, lambda s: k)


def test_activations_of_one_name_that_read_other_values_share_no_code():
    layer = fb.RNN.init(2, 3, rng=0, dtype="float64")
    x = np.ones((1, 1, 2))
    one, two, again = (
        fb.run(fb.RNN(*layer.arrays(), activation=scaled(k)), x)[0] for k in (1.0, 2.0, 1.0)
    )
    assert np.array_equal(2 * one, two) and np.array_equal(one, again)
    assert scaled(1.0).cell == scaled(1).cell != scaled(2.0).cell


BAD = (
    lambda: fb.Activation("bad", lambda a: a if a > 0 else 0, lambda s: 1),
    lambda: fb.Cell("bad", 1, lambda a, s: ((np.sinc(a[0]),), ()), lambda *given: given),
    lambda: fb.Cell("bad", 1, lambda a, s: (("x",), ()), lambda *given: given),
    lambda: fb.Cell("bad", 1, lambda a, s: ((a[0],), ()), lambda ds, s, q, k: ((None,), (0,))),
    lambda: fb.Activation("bad", lambda a: np.log(-1 - a * a), lambda s: 1),
    lambda: fb.Cell("bad", 1, lambda a, s: (a[0] if a[0] > 0 else 0,)),
    lambda: fb.Cell("bad", 1, lambda a, s: a[0]),
)


def test_bad_cells_leave_the_others_as_they_were():
    x = np.ones((3, 2, 2), "float32")
    for make in BAD:
        rejected(make)
        for layer in (fb.GRU.init(2, 3, rng=0), fb.RNN.init(2, 3, rng=0, activation=RELU)):
            h, _, cache = fb.forward(layer, x)
            assert np.isfinite(fb.backward(cache, h).layer.W).all()


def test_a_failure_to_compile_says_why():
    texts = custom.Texts(
        "def forward(a, s, p):\n    return (a[0] + nothing,), ()\n",
        "def reverse(ds, s, previous, kept, p):\n    return (ds[0],), (ds[0],)\n",
    )
    name = custom.define("own", "broken", texts, 1, 1, 0, 0)
    call = numba.njit(lambda a: registry.forward(name, (a,), (a,), ()))
    with pytest.raises(numba.TypingError, match="nothing"):
        call(1.0)


def test_math_may_be_built_into_the_interpreter():
    """As in the Python of some distributions: its loader is then a class, so it can be called."""
    out = run_python(
        "import math\nmath.__loader__ = type\nfrom fastbptt.kernels.cells import tracing\nprint(1)"
    )
    assert out == "1\n"
