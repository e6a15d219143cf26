"""What is derived from a forward function: its reverse, and the fewest numbers to keep for it."""

import itertools
import math

import numpy as np
import pytest
from checks import rejected
from fastbptt.kernels.cells import custom
from fastbptt.kernels.cells.derive import kept
from fastbptt.kernels.cells.symbols import Graph, apply, in_order
from test_own import lstm_forward, sigmoid
from test_tracing import written

import fastbptt as fb


def derived(function, gates=2, states=1, parameters=0):
    """(forward, reverse, numbers kept) of a cell, as Python computes it."""
    counts = {"a": gates, "s": states, **({"p": parameters} if parameters else {})}
    graph, value = custom.trace("f", function, **counts)
    nodes = tuple(map(graph.number, value))
    texts, count = custom.derived(graph, nodes, gates, parameters)
    return (*texts.interpreted, count)


def slopes(function, a, s=(0.4,), p=(), ds=None):
    """The derivatives of a cell by a, p and s."""
    forward, reverse, _ = derived(function, len(a), len(s), len(p))
    after, residuals = forward(a, s, p)
    deltas, dprevious = reverse(ds or (1.0,) * len(s), after, s, residuals, p)
    return [*map(float, (*deltas, *dprevious))]


def differences(function, a, s=(0.4,), p=(), ds=None, step=1e-6):
    """The same by central differences of the function itself."""
    given, found = np.array([*a, *p, *s], float), []

    def loss(values):
        parts = np.split(values, [len(a), len(a) + len(p)])
        arguments = [tuple(parts[0]), tuple(parts[2]), *([tuple(parts[1])] if p else [])]
        return np.dot(ds or (1.0,) * len(s), [float(x) for x in function(*arguments)])

    for index in range(len(given)):
        ends = (given + sign * step * (np.arange(len(given)) == index) for sign in (1, -1))
        found.append((loss(next(ends)) - loss(next(ends))) / (2 * step))
    return found


def agrees(function, *given, **options):
    found, due = slopes(function, *given, **options), differences(function, *given, **options)
    return np.allclose(found, due, rtol=1e-6, atol=1e-7), (found, due)


ONE = [
    "abs(x)", "-x", "np.exp(x)", "np.expm1(x)", "np.log(x)", "np.log2(x)", "np.log10(x)",
    "np.log1p(x)", "np.sqrt(x)", "np.sin(x)", "np.cos(x)", "np.tan(x)", "np.arcsin(x)",
    "np.arccos(x)", "np.arctan(x)", "np.sinh(x)", "np.cosh(x)", "np.tanh(x)", "np.arcsinh(x)",
    "np.arccosh(1 + x)", "np.arctanh(x)", "math.erf(x)", "math.erfc(x)", "np.square(x)",
    "np.cbrt(x)", "np.exp2(x)", "np.reciprocal(x)", "np.sign(x)", "np.floor(3 * x)", "np.trunc(x)",
    "1 / (1 + np.exp(-x))", "2 / (np.exp(x) + 3)", "x ** 5", "x ** -2", "x ** 0.5", "2 ** x",
    "x % 0.3", "0.7 % x", "x // 0.3", "np.clip(x, 0.1, 0.5)", "np.minimum(x, 0.3)",
    "np.maximum(0.3, x)", "(x > 0.5) * x", "np.deg2rad(x)", "np.fabs(x - 1)", "3.0",
]  # fmt: skip
TWO = [
    "x + y", "x - y", "x * y", "x / y", "x ** y", "x % y", "x // y", "np.hypot(x, y)",
    "np.arctan2(x, y)", "np.copysign(x, -y)", "np.minimum(x, y)", "np.maximum(x, y)",
    "np.where(x < y, x * y, x)", "np.where(x > y, x * y, y)", "np.fmod(3 * x, y)", "x * x * y",
]  # fmt: skip


@pytest.mark.parametrize("text", [*ONE, *TWO])
def test_slopes_are_those_by_central_differences(text):
    f = written(f"def f(a, s):\n    x, y = a\n    return ({text},)")
    for a in ((0.37, 0.62), (0.83, 0.21)):
        right, found = agrees(f, a)
        assert right, found


def expression(rng, leaves, depth):
    """A random expression of smooth functions and kinks, of some size."""
    if depth == 0:
        return rng.choice(leaves)
    one, two = (expression(rng, leaves, depth - 1) for _ in range(2))
    form = rng.choice([
        "np.tanh({0})", "sig({0})", "np.sin({0})", "np.exp(-abs({0}))", "np.sqrt(1 + ({0}) ** 2)",
        "np.where({0} > {1}, {0}, 0.3 * ({1}))", "np.maximum({0}, {1})", "np.minimum({0}, 0.4)",
        "({0}) * ({1})", "({0}) - 0.7 * ({1})", "({0}) / (1.5 + ({1}) ** 2)", "np.log1p(abs({0}))",
    ])  # fmt: skip
    return form.format(one, two)


@pytest.mark.parametrize("seed", range(40))
def test_random_cells_are_those_by_central_differences(seed):
    rng = np.random.default_rng(seed)
    leaves = ["a[0]", "a[1]", "s[0]", "s[1]", "p[0]", "x"]
    found = {"np": np, "sig": sigmoid}
    lines = [f"x = {expression(rng, leaves[:-1], 2)}"]  # shared by both states
    lines.append(f"return {expression(rng, leaves, 3)}, x + {expression(rng, leaves, 2)}")
    exec("def f(a, s, p):\n    " + "\n    ".join(lines), found)
    a, s, p = rng.standard_normal(2), rng.standard_normal(2), rng.standard_normal(1)
    given = tuple(a), tuple(s), tuple(p)
    right, values = agrees(found["f"], *given, ds=(0.8, -1.3))
    assert right, (lines, values)
    assert derived(found["f"], 2, 2, 1)[2] <= 2


# function of x = a[0], x, the slope at it
KINKS = {
    "abs": (lambda x: abs(x), 0, 0),
    "the branch taken": (lambda x: fb.where(x < 0, 0, x), 0, 1),
    "the other branch": (lambda x: fb.where(x <= 0, 0, x), 0, 0),
    "a maximum is the constant": (lambda x: np.maximum(x, 0), 0, 0),
    "in either order": (lambda x: np.maximum(0, x), 0, 0),
    "a minimum is the constant": (lambda x: np.minimum(x, 0), 0, 0),
    "a root not taken": (lambda x: fb.where(x > 0, np.sqrt(x), 0), -1, 0),
    "a root at 0 not taken": (lambda x: fb.where(x > 0, np.sqrt(x), x), 0, 1),
    "a logarithm not taken": (lambda x: fb.where(x > 0, np.tanh(np.log(x)) * x, 2 * x), -1, 2),
    "a quotient not taken": (lambda x: np.maximum(x, np.where(x == 0, 1, 1 / x)), 0, 0),
    "a sigmoid that is 0": (lambda x: 1 / (1 + np.exp(-x)), -800, 0),
    "another": (lambda x: 1 / np.cosh(x), 800, 0),
    "a distance of 0": (lambda x: np.hypot(x, 0), 0, 0),
}


@pytest.mark.parametrize("what", KINKS)
def test_at_a_kink_the_slope_is_that_of_the_branch_taken(what):
    f, x, due = KINKS[what]
    assert slopes(lambda a, s: (f(a[0]),), (x,))[0] == due


def test_a_nan_is_not_hidden():
    for f in (np.tanh, lambda x: np.maximum(x, 0), lambda x: fb.where(x < 0, 0, x), np.exp):
        found = slopes(lambda a, s, f=f: (f(a[0]) * s[0],), (math.nan,))
        assert np.isnan(found).any()


def smooth(u):
    return math.tanh(2 * u)


def test_a_surrogate_gives_the_slope_and_not_the_value():
    def f(a, s):
        return (fb.where(a[0] * s[0] > a[1], 1.0, 0.0, surrogate=smooth) * s[0],)

    a, s = (0.7, 0.1), 0.4
    u = a[0] * s - a[1]
    forward, _, _ = derived(f)
    assert forward(a, (s,), ())[0] == (s,)
    slope = s * 2 * (1 - math.tanh(2 * u) ** 2)
    assert np.allclose(slopes(f, a, (s,)), [slope * s, -slope, slope * a[0] + 1], rtol=1e-14)
    assert fb.where(2 > 1, 3, 4, surrogate=smooth) == 3
    for wrong, word in (
        (lambda x: fb.where((x > 0) & (x < 1), 1, 0, surrogate=smooth), "compare"),
        (lambda x: fb.where(x == 0, 1, 0, surrogate=smooth), "compare"),
        (lambda x: fb.where(x > 0, 1, 0, surrogate=2), "surrogate"),
        (lambda x: fb.where(x > 0, 1, 0, surrogate=lambda u: None), "None"),
    ):
        rejected(lambda wrong=wrong: derived(lambda a, s: (wrong(a[0]),)), "test_derived.py", word)


def minimal_gated(a, s):
    f, n = sigmoid(a[0]), math.tanh(a[1])
    return ((1 - f) * s[0] + f * n,)


def gru_like(a, s):
    r, z = sigmoid(a[0]), sigmoid(a[1])
    n = math.tanh(a[2] + r * s[0])
    return ((1 - z) * n + z * s[0],)


# function, gates, states, the most to keep: what a cell of the package does, or would
KEPT = {
    "lstm": (lambda a, s: lstm_forward(a, s)[0], 4, 2, 4),
    "minimal gated unit": (minimal_gated, 2, 1, 2),
    "gru": (gru_like, 3, 1, 3),
    "tanh": (lambda a, s: (math.tanh(a[0]),), 1, 1, 0),
    "sigmoid": (lambda a, s: (sigmoid(a[0]),), 1, 1, 0),
    "relu": (lambda a, s: (np.maximum(a[0], 0),), 1, 1, 0),
    "relu by a choice": (lambda a, s: (fb.where(a[0] > 0, a[0], 0),), 1, 1, 0),
    "identity": (lambda a, s: (a[0],), 1, 1, 0),
    "exp": (lambda a, s: (math.exp(a[0]),), 1, 1, 0),
    "leaky": (lambda a, s: (0.7 * s[0] + math.tanh(a[0]),), 1, 1, 1),
    "many functions of one number": (lambda a, s: (np.sin(a[0]) * np.exp(a[0]) * a[0],), 1, 1, 1),
    "a sum of gates": (lambda a, s: (np.sin(a[0] + a[1]) * np.cos(a[0] + a[1]),), 2, 1, 1),
    "what is a state": (lambda a, s: (np.sin(s[1] * a[0]), a[0]), 1, 2, 0),
    "nothing": (lambda a, s: (s[0] + 1,), 1, 1, 0),
}


@pytest.mark.parametrize("what", KEPT)
def test_no_more_is_kept_than_a_cell_of_the_package_would(what):
    function, gates, states, most = KEPT[what]
    assert derived(function, gates, states)[2] == most


@pytest.mark.parametrize("seed", range(20))
def test_no_smaller_choice_of_what_to_keep_would_do(seed):
    rng, graph = np.random.default_rng(seed), Graph()
    inputs = graph.inputs("a", 3)
    symbols = [*inputs, *graph.inputs("s", 1)]
    for _ in range(8):
        one, two = (symbols[i] for i in rng.integers(len(symbols), size=2))
        symbols.append(apply(rng.choice(["multiply", "hypot"]), one, two))
    outputs = [symbols[i].node for i in rng.choice(range(6, 12), 3, replace=False)]
    free = {symbols[3].node, symbols[int(rng.integers(4, 10))].node}

    def enough(held):
        reached = in_order([n for n in outputs if n not in free], free | set(held))
        return not any(n.op == "input" and n not in free | set(held) for n in reached)

    found = kept(outputs, free)
    assert enough(found)
    nodes = in_order(outputs)
    assert not any(map(enough, itertools.combinations(nodes, len(found) - 1))) or not found


def test_a_record_computes_what_was_recorded():
    graph, value = custom.trace("f", gru_like, a=3, s=1)
    trace = custom.Trace.of((tuple(map(graph.number, value)),))
    again = custom.Trace.of(trace.nodes()[1])
    a, s = (0.1, 0.2, 0.3), (0.4,)
    assert again == trace
    assert trace.function(("a", "s"))(a, s)[0] == pytest.approx(gru_like(a, s), rel=1e-15)


def test_long_loops_do_not_overflow_the_stack():
    def f(a, s):
        x = s[0]
        for _ in range(3000):
            x = x + 0.001 * (a[0] - x)
        return (x,)

    right, found = agrees(f, (0.3,))
    assert right, found
