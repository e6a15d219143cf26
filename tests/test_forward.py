"""fb.forward, fb.run and fb.predict against the oracle, for layers of every kind."""

import numpy as np
import oracle
import pytest
from helpers import (
    CASES,
    DTYPES,
    SIZES,
    STATES,
    assert_close,
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


@pytest.mark.parametrize("cell, sizes, dtype, tokens", CASES, ids=str)
def test_states_and_outputs_are_the_oracles(cell, sizes, dtype, tokens):
    q = make_problem(cell, sizes, dtype, tokens=tokens)
    layer, tolerance = plain(q.layer), STATES[dtype]
    for state, lengths in [(None, None), (q.state, None), (None, q.lengths), (q.state, q.lengths)]:
        expected, final, _ = oracle.forward(layer, wide(q.x), wide(state), lengths)
        x = q.x if lengths is None else spoil_beyond(q.x, lengths)
        calls = {
            "forward": fb.forward(q.layer, x, state, lengths=lengths)[:2],
            "run": fb.run(q.layer, x, state, lengths=lengths),
        }
        for name, (h, last) in calls.items():
            assert h.dtype == np.dtype(dtype)
            assert_close(h, expected, tolerance, f"h of {name}")
            assert_close(last, final, tolerance, f"final state of {name}")
        o, last = fb.predict(q.network, x, state, lengths=lengths)
        due, _ = oracle.predict(layer, plain(q.readout), wide(q.x), wide(state), lengths)
        ends = np.full(q.B, q.T) if lengths is None else lengths
        valid = np.arange(q.T)[:, None] < ends
        assert_close(o[valid], due[valid], tolerance, "o")
        assert not o[~valid].any()
        assert_close(last, final, tolerance, "final state of predict")
        h, last = fb.run(q.layer, x, state, lengths=lengths, keep="last")
        some = ends > 0
        assert_close(
            h[some], expected[ends - 1, np.arange(q.B)][some] if q.T else h[some], tolerance
        )
        assert_close(last, final, tolerance, "final state with keep='last'")


@pytest.mark.parametrize("head", ["identity", "sigmoid", "tanh", "softmax"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_outputs_of_predict_are_the_oracles(cell, sizes, dtype, head):
    q = make_problem(cell, sizes, dtype, readout=head)
    for state, lengths in [(None, None), (q.state, q.lengths)]:
        x = q.x if lengths is None else spoil_beyond(q.x, lengths)
        o, last = fb.predict(q.network, x, state, lengths=lengths)
        expected, final = oracle.predict(
            plain(q.layer), plain(q.readout), wide(q.x), wide(state), lengths
        )
        assert o.shape == (q.T, q.B, q.O) and o.dtype == np.dtype(dtype)
        assert_close(last, final, STATES[dtype], "final state")
        valid = np.arange(q.T)[:, None] < (np.full(q.B, q.T) if lengths is None else lengths)
        assert_close(o[valid], expected[valid], STATES[dtype], "o")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(7, 3, 4, 6, 2), (1, 1, 1, 1, 1), (300, 2, 3, 17, 5)], ids=str)
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_keep_last_gives_the_last_state_only(cell, sizes, dtype):
    q = make_problem(cell, sizes, dtype)
    h, state = fb.run(q.layer, q.x, q.state)
    last, same_state = fb.run(q.layer, q.x, q.state, keep="last")
    assert np.array_equal(last, h[-1])
    assert all(map(np.array_equal, flatten(same_state), flatten(state)))
    h, state = fb.run(q.layer, q.x, lengths=q.lengths)
    _, same_state = fb.run(q.layer, q.x, lengths=q.lengths, keep="last")
    assert all(map(np.array_equal, flatten(same_state), flatten(state)))


def test_any_memory_layout_of_weights_and_state_gives_the_same_bits(tmp_path):
    q = make_problem("lstm", (6, 3, 5, 9, 2), "float32")
    expected, _ = fb.run(q.layer, q.x, q.state)
    ways = zip(*(in_other_layouts(a, tmp_path) for a in (q.layer.U, q.layer.W)), strict=True)
    for (name, U), (_, W) in ways:
        h, _ = fb.run(fb.LSTM(U, W, q.layer.b[::-1].copy()[::-1]), q.x, q.state)
        assert np.array_equal(h, expected), name
    state = tuple(np.asfortranarray(part) for part in q.state)
    assert np.array_equal(fb.run(q.layer, q.x, state)[0], expected)


@pytest.mark.parametrize(
    "kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
)
def test_tokens_of_every_integer_type_are_one_hot_vectors(kind):
    q = make_problem("lstm", (8, 3, 100, 6, 2), tokens=True)
    one_hot = np.eye(100)[q.x]
    h, state = fb.run(q.layer, q.x.astype(kind))
    expected, final = fb.run(q.layer, one_hot)
    assert_close(h, expected, STATES["float64"])
    assert_close(state, final, STATES["float64"])


def test_a_result_is_not_touched_by_a_later_call():
    q = make_problem("lstm")
    first = flatten(fb.run(q.layer, q.x, q.state))
    check = untouched(*first)
    fb.run(q.layer, 2 * q.x)
    fb.forward(q.layer, 2 * q.x)
    check()


def test_states_stay_within_tolerance_over_a_thousand_steps():
    for cell in ("rnn-tanh", "lstm"):
        q = make_problem(cell, (1000, 2, 8, 32, 2), "float32")
        expected, final, _ = oracle.forward(plain(q.layer), wide(q.x))
        h, state = fb.run(q.layer, q.x)
        assert_close(h, expected, STATES["float32"])
        assert_close(state, final, STATES["float32"])
