"""The cells of the page on cells, and drives: gradients, and the same bits in every memory mode."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from checks import rejected
from helpers import assert_close, assert_same_bits
from test_own import data

import fastbptt as fb

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cells.md"
FOUND = {}
with contextlib.redirect_stdout(io.StringIO()):
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S):
        exec(block, FOUND)
CELLS = {
    "gated": fb.Cell("gated", 2, FOUND["gated"]),
    **{name: FOUND[f"{name}_unit"] for name in ("leaky", "independent", "liquid", "firing")},
}


def make(cell, dtype="float64", hidden=11):
    """A layer, and an x of positive drives."""
    layer = CELLS[cell].init(5, hidden, rng=0, dtype=dtype)
    rng, x, dh = data(layer)
    x[..., 5 - layer.drives :] = np.abs(x[..., 5 - layer.drives :])
    if cell == "independent":
        layer.W[:] = 0
    return layer, x, dh, rng


def test_the_recipes_are_short():
    functions = re.findall(r"^def \w+\(a.*?(?=\n\n|\n```)", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(functions) == 6 and all(text.count("\n") + 1 < 15 for text in functions)


@pytest.mark.parametrize("cell", sorted(CELLS.keys() - {"firing"}))
def test_gradients_are_those_by_central_differences(cell):
    layer, x, dh, rng = make(cell)
    g = fb.backward(fb.forward(layer, x)[2], dh)
    arrays, gradients = [*layer.arrays(), x], [*g.layer.arrays(), g.x]
    for index, (array, gradient) in enumerate(zip(arrays, gradients, strict=True)):
        direction, step = rng.standard_normal(array.shape), 1e-6
        ends = []
        for along in (step, -step):
            given = [*arrays[:index], array + along * direction, *arrays[index + 1 :]]
            h, _ = fb.run(layer.replace_arrays(given[:-1]), given[-1])
            ends.append((h * dh).sum())
        slope = (ends[0] - ends[1]) / (2 * step)
        assert abs((gradient * direction).sum() - slope) <= 1e-6 * max(1, abs(slope)), index


def test_a_unit_that_fires_is_trained_by_the_slope_of_its_surrogate():
    """By differences of arctan(u) - arctan(u0) + spike, which has that slope and that value."""
    layer, x, dh, rng = make("firing")
    g = fb.backward(fb.forward(layer, x)[2], dh).layer
    U, W, b, p = layer.arrays()

    def loss(U, W, b, p, frozen=None):
        s, v, total, thresholds = 0.0, 0.0, 0.0, []
        for t in range(len(x)):
            s = np.zeros((x.shape[1], len(b))) if t == 0 else s
            v = v * (1 - s) / (1 + np.exp(-p)) + x[t] @ U.T + s @ W.T + b
            thresholds.append(v - 1)
            s = (v > 1) * 1.0
            if frozen is not None:
                s = np.arctan(v - 1) - np.arctan(frozen[t]) + (frozen[t] > 0)
            total += (s * dh[t]).sum()
        return total, thresholds

    value, frozen = loss(U, W, b, p)
    assert 0 < np.mean(np.array(frozen) > 0) < 1
    assert np.isclose(value, (fb.run(layer, x)[0] * dh).sum(), rtol=1e-12)
    for index, gradient in enumerate(g.arrays()):
        direction, step = rng.standard_normal(gradient.shape), 1e-6
        ends = []
        for along in (step, -step):
            given = layer.arrays()
            given[index] = given[index] + along * direction
            ends.append(loss(*given, frozen)[0])
        slope = (ends[0] - ends[1]) / (2 * step)
        assert abs((gradient * direction).sum() - slope) <= 1e-6 * max(1, abs(slope)), index


@pytest.mark.parametrize("cell", CELLS)
def test_every_memory_mode_and_number_of_threads_has_the_same_bits(cell, set_threads):
    layer, x, _, rng = make(cell)
    network = fb.Network(layer, fb.Readout.init(11, 2, rng=1, dtype="float64"))
    y, lengths = rng.standard_normal((30, 3, 2)), np.array([30, 0, 7])
    full = fb.bptt(network, x, y, lengths=lengths, input_grad=True)
    least = fb.plan(network, 30, 3, memory=fb.Checkpointed(segment=7)).peak_bytes
    for memory, threads in ((fb.Checkpointed(segment=7), 1), (least, 2), ("full", 3)):
        set_threads(threads)
        r = fb.bptt(network, x, y, lengths=lengths, memory=memory, input_grad=True)
        assert_same_bits(r, full)
        assert np.array_equal(r.grad_x, full.grad_x)
    cut = fb.bptt(network, x, y, memory=fb.Truncated(30, 30), input_grad=True)
    due = fb.bptt(network, x, y, input_grad=True)
    assert_close(cut.grad_x, due.grad_x, 1e-12)


def test_what_drives_say_reaches_the_cell_and_nothing_else():
    """An infinite drive makes no NaN beside it, and past a length it does not matter."""
    drift = fb.Cell("drift", 1, lambda a, s, p, d: (np.exp(-d[0]) * s[0] + a[0],), drives=1)
    layer = drift.init(5, 6, rng=0, dtype="float64")
    _, x, dh = data(layer)
    x[..., -1] = np.abs(x[..., -1])
    x[3, 1, -1] = np.inf  # forgets all
    x[7:, 2] = np.nan
    lengths = np.array([30, 4, 7])
    h, _, cache = fb.forward(layer, x, lengths=lengths)
    g = fb.backward(cache, dh)
    assert np.isfinite(h).all() and all(np.isfinite(a).all() for a in (*g.layer.arrays(), g.x))
    due = x[3, 1, :-1] @ layer.U.T + h[2, 1] @ layer.W.T + layer.b
    assert np.allclose(h[3, 1], due, rtol=1e-13)


def test_drives_go_both_ways_and_through_small_calls():
    one, other = (CELLS["liquid"].init(5, 4, rng=seed, dtype="float64") for seed in (0, 1))
    both = fb.Stack([fb.Bidirectional(one, other), fb.RNN.init(8, 3, rng=2, dtype="float64")])
    _, x, dh = data(both)
    x[..., -1:] = np.abs(x[..., -1:])
    lengths = np.array([30, 4, 7])
    g = fb.backward(fb.forward(both, x, lengths=lengths)[2], dh)
    direction = np.random.default_rng(3).standard_normal(x.shape)
    ends = (fb.run(both, x + e * direction, lengths=lengths)[0] for e in (1e-6, -1e-6))
    slope = np.subtract(*(float((h * dh).sum()) for h in ends)) / 2e-6
    assert abs((g.x * direction).sum() - slope) <= 1e-6 * abs(slope)
    results = []
    for _ in range(4):  # the later ones go the short way
        h, _, cache = fb.forward(one, x)
        results.append((h, fb.backward(cache, np.ones_like(h))))
    for h, g in results[1:]:
        assert np.array_equal(h, results[0][0]) and np.array_equal(g.x, results[0][1].x)
        for a, b in zip(g.layer.arrays(), results[0][1].layer.arrays(), strict=True):
            assert np.array_equal(a, b)


LIQUID = CELLS["liquid"]
WRONG = {
    "inputs": lambda: LIQUID.init(1, 4),
    "Stack.layers[1]": lambda: fb.Stack([fb.RNN.init(5, 5), LIQUID.init(5, 4)]),
    "drives": lambda: fb.run(LIQUID.init(5, 4), np.zeros((3, 2), "int64")),
    "x must": lambda: fb.run(LIQUID.init(5, 4), np.zeros((3, 2, 4), "float32")),
    "Cell.drives": lambda: fb.Cell("x", 1, FOUND["liquid"], parameters=2, drives=-1),
    "(a, s, p, d)": lambda: fb.Cell("x", 1, FOUND["leaky"], parameters=1, drives=1),
    "(a, s) or": lambda: fb.Cell("x", 1, lambda a: a),
    "1 numbers": lambda: fb.Cell("x", 1, lambda a, s: a[0]),
    "residuals": lambda: fb.Cell("x", 1, lambda a, s: (a, a * 16), lambda *given: given),
}


@pytest.mark.parametrize("word", WRONG)
def test_wrong_cells_and_drives_are_named(word):
    rejected(WRONG[word], word)
