"""fb.backward against the oracle, finite differences and its own contract."""

import numpy as np
import oracle
import pytest
from helpers import (
    CELLS,
    DIFFERENCES,
    DTYPES,
    GRADIENTS,
    SIZES,
    assert_close,
    assert_gradient_close,
    assert_no_alias,
    drop_batch,
    flatten,
    in_other_layouts,
    make_problem,
    plain,
    spoil_beyond,
    untouched,
    wide,
)

import fastbptt as fb

pytestmark = pytest.mark.usefixtures("poisoned_empty")


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
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


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("cell", ["rnn-sigmoid", "lstm"])
def test_leaving_out_the_batch_axis_leaves_it_out_of_the_gradients(cell, tokens):
    q = make_problem(cell, (11, 1, 4, 6, 3), tokens=tokens)
    for length in (None, 4, 0):
        lengths = None if length is None else np.array([length])
        cache = fb.forward(q.layer, q.x, q.state, lengths=lengths)[2]
        expected = fb.backward(cache, q.dh, q.dstate, deltas=True)
        cache = fb.forward(q.layer, drop_batch(q.x), drop_batch(q.state), lengths=length)[2]
        g = fb.backward(cache, drop_batch(q.dh), drop_batch(q.dstate), deltas=True)
        for name in ("x", "state", "deltas"):
            if getattr(expected, name) is not None:
                dropped = flatten(drop_batch(getattr(expected, name)))
                assert all(map(np.array_equal, flatten(getattr(g, name)), dropped)), name
        assert all(map(np.array_equal, g.layer.arrays(), expected.layer.arrays()))


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
    with pytest.raises((ValueError, RuntimeError), match="cache"):
        fb.backward(cache, q.dh)
    fb.backward(other, q.dh)


def vars_of(g):
    return g.layer, g.x, g.state


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_memory_layout_of_x_and_dh_gives_the_same_bits(dtype, tokens, tmp_path):
    q = make_problem("lstm", (14, 3, 5, 9, 2), dtype, tokens=tokens)
    expected = vars_of(fb.backward(fb.forward(q.layer, q.x)[2], q.dh))
    for name, x in in_other_layouts(q.x, tmp_path):
        got = vars_of(fb.backward(fb.forward(q.layer, x)[2], q.dh))
        assert all(map(np.array_equal, flatten(got), flatten(expected))), f"x {name}"
    for name, dh in in_other_layouts(q.dh, tmp_path):
        got = vars_of(fb.backward(fb.forward(q.layer, q.x)[2], dh))
        assert all(map(np.array_equal, flatten(got), flatten(expected))), f"dh {name}"


@pytest.mark.parametrize("T", [5, 0])
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_inputs_are_not_modified_and_gradients_do_not_alias_them(cell, T):
    q = make_problem(cell, (T, 2, 3, 4, 2))
    given = [q.x, q.dh, *flatten(q.state), *flatten(q.dstate), *q.layer.arrays()]
    check = untouched(*given)
    for lengths in (None, np.zeros(2, int)):
        h, state, cache = fb.forward(q.layer, q.x, q.state, lengths=lengths)
        expected = fb.backward(cache, q.dh, q.dstate, deltas=True, keep=True)
        h[...] = np.nan  # the caller may do with results what he likes
        for part in flatten(state):
            part[...] = np.nan
        g = fb.backward(cache, q.dh, q.dstate, deltas=True)
        results = flatten((*vars_of(g), g.deltas))
        for got, due in zip(results, flatten((*vars_of(expected), expected.deltas)), strict=True):
            assert np.array_equal(got, due)
        assert_no_alias(results, given)
        for result in results:
            result[...] = 7
    check()


@pytest.mark.parametrize("ends", ["whole", "ragged"])
@pytest.mark.parametrize("cell", CELLS)
def test_backward_is_the_transpose_of_the_derivative_of_forward(cell, ends):
    """<J v, u> = <v, Jt u> for random directions v and u, J v by central differences."""
    q = make_problem(cell, (6, 3, 2, 5, 1), seed=3)
    lengths = q.lengths if ends == "ragged" else None
    own = len(q.layer.arrays())
    inputs = [*q.layer.arrays(), q.x, *flatten(q.state)]

    def outputs(arrays):
        layer = q.layer.replace_arrays(arrays[:own])
        state = arrays[own + 1] if len(arrays) == own + 2 else tuple(arrays[own + 1 :])
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


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
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


def test_weights_updated_in_place_are_read_by_the_next_call():
    q = make_problem("rnn-tanh")
    fb.backward(fb.forward(q.layer, q.x)[2], q.dh)
    q.layer.W[...] *= 0.5
    steps = oracle.forward(plain(q.layer), q.x)[2]
    expected = oracle.backward(plain(q.layer), steps, q.dh)
    g = fb.backward(fb.forward(q.layer, q.x)[2], q.dh)
    assert_gradient_close(g.layer, expected["layer"], q.layer, GRADIENTS["float64"])
