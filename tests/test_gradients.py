"""fb.backward against the oracle and finite differences, for layers of every kind."""

import numpy as np
import oracle
import pytest
from helpers import (
    CASES,
    CELLS,
    DIFFERENCES,
    FEW_KINDS,
    GRADIENTS,
    assert_close,
    assert_gradient_close,
    flatten,
    like_state,
    make_problem,
    plain,
    spoil_beyond,
    wide,
)

import fastbptt as fb

pytestmark = pytest.mark.usefixtures("poisoned_empty")


@pytest.mark.parametrize("cell, sizes, dtype, tokens", CASES, ids=str)
def test_gradients_are_the_oracles(cell, sizes, dtype, tokens):
    q = make_problem(cell, sizes, dtype, tokens=tokens)
    tolerance = GRADIENTS[dtype]
    for dstate, lengths in [(None, None), (q.dstate, None), (q.dstate, q.lengths)]:
        steps = oracle.forward(plain(q.layer), wide(q.x), wide(q.state), lengths)[2]
        expected = oracle.backward(plain(q.layer), steps, wide(q.dh), wide(dstate))
        x, dh = q.x, q.dh
        if lengths is not None:
            x, dh = spoil_beyond(x, lengths), spoil_beyond(dh, lengths)
        cache = fb.forward(q.layer, x, q.state, lengths=lengths)[2]
        g = fb.backward(cache, dh, dstate, deltas=True)
        assert_gradient_close(g.layer, expected["layer"], q.layer, tolerance)
        assert_close(g.state, expected["state"], tolerance, "gradient of the state")
        assert_close(g.deltas, expected["deltas"], tolerance, "deltas")
        if tokens:
            assert g.x is None
        else:
            assert_close(g.x, expected["x"], tolerance, "gradient of x")


def test_what_is_not_asked_for_is_none():
    q = make_problem("lstm")
    g = fb.backward(fb.forward(q.layer, q.x)[2], q.dh, input_grad=False)
    assert g.x is None and g.deltas is None
    full = fb.backward(fb.forward(q.layer, q.x)[2], q.dh)
    assert full.x.shape == q.x.shape
    assert all(map(np.array_equal, flatten((g.layer, g.state)), flatten((full.layer, full.state))))


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_the_bias_gradient_is_the_sum_of_deltas(cell):
    q = make_problem(cell, (9, 4, 3, 7, 2))
    g = fb.backward(fb.forward(q.layer, q.x, lengths=q.lengths)[2], q.dh, deltas=True)
    assert_close(g.layer.b, g.deltas.sum(axis=(0, 1)), GRADIENTS["float64"])
    assert_close(g.layer.U, np.einsum("tbg,tbi->gi", g.deltas, q.x), GRADIENTS["float64"])
    assert_close(g.x, g.deltas @ q.layer.U, GRADIENTS["float64"])


def test_a_cache_is_consumed_by_backward_unless_it_is_kept():
    q = make_problem("lstm")
    cache = fb.forward(q.layer, q.x, q.state)[2]
    other = fb.forward(q.layer, -q.x, q.state)[2]  # a second cache does not disturb the first
    first = flatten(tuple(vars_of(fb.backward(cache, q.dh, q.dstate, keep=True))))
    again = flatten(tuple(vars_of(fb.backward(cache, 2 * q.dh, keep=True))))
    third = flatten(tuple(vars_of(fb.backward(cache, q.dh, q.dstate))))
    assert all(map(np.array_equal, first, third))
    assert not np.array_equal(first[0], again[0])
    with pytest.raises(ValueError, match="cache"):
        fb.backward(cache, q.dh)
    fb.backward(other, q.dh)


def vars_of(g):
    return g.layer, g.x, g.state


@pytest.mark.parametrize("ends", ["whole", "ragged"])
@pytest.mark.parametrize("cell", [*CELLS, *FEW_KINDS[2:]])
def test_backward_is_the_transpose_of_the_derivative_of_forward(cell, ends):
    """<J v, u> = <v, Jt u> for random directions v and u, J v by central differences."""
    q = make_problem(cell, (6, 3, 2, 5, 1), seed=3)
    lengths = q.lengths if ends == "ragged" else None
    own = len(q.layer.arrays())  # before x and the state
    inputs = [*q.layer.arrays(), q.x, *flatten(q.state)]

    def outputs(arrays):
        layer = q.layer.replace_arrays(arrays[:own])
        parts = iter(arrays[own + 1 :])
        state = like_state(q.layer, lambda width: next(parts))
        return flatten(fb.forward(layer, arrays[own], state, lengths=lengths)[:2])

    g = fb.backward(fb.forward(q.layer, q.x, q.state, lengths=lengths)[2], q.dh, q.dstate)
    transposed = flatten(vars_of(g))
    u = [q.dh, *flatten(q.dstate)]
    for _ in range(3):
        v = [q.rng.standard_normal(a.shape) for a in inputs]
        step = 1e-6
        above = outputs([a + step * d for a, d in zip(inputs, v, strict=True)])
        below = outputs([a - step * d for a, d in zip(inputs, v, strict=True)])
        Jv = [(a - b) / (2 * step) for a, b in zip(above, below, strict=True)]
        left = sum((a * b).sum() for a, b in zip(Jv, u, strict=True))
        right = sum((a * b).sum() for a, b in zip(v, transposed, strict=True))
        size = sum(np.linalg.norm(a) * np.linalg.norm(b) for a, b in zip(Jv, u, strict=True))
        assert abs(left - right) <= DIFFERENCES * size


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "lstm/gru"])
def test_the_chain_rule_over_pieces_is_the_whole_gradient(cell):
    q = make_problem(cell, (12, 3, 4, 5, 2))
    whole = fb.backward(fb.forward(q.layer, q.x, q.state)[2], q.dh, q.dstate)
    _, middle, first = fb.forward(q.layer, q.x[:5], q.state)
    last = fb.forward(q.layer, q.x[5:], middle)[2]
    g_last = fb.backward(last, q.dh[5:], q.dstate)
    g_first = fb.backward(first, q.dh[:5], g_last.state)
    tolerance = GRADIENTS["float64"]
    assert_close(np.concatenate([g_first.x, g_last.x]), whole.x, tolerance)
    assert_close(g_first.state, whole.state, tolerance)
    parts = zip(g_first.layer.arrays(), g_last.layer.arrays(), strict=True)
    for (a, b), c in zip(parts, whole.layer.arrays(), strict=True):
        assert_close(a + b, c, tolerance)
