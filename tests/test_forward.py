"""fb.forward, fb.run and fb.predict against the oracle."""

import numpy as np
import oracle
import pytest
from helpers import (
    CELLS,
    DTYPES,
    SIZES,
    STATES,
    assert_close,
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
def test_states_are_the_oracles(cell, sizes, dtype, tokens):
    q = make_problem(cell, sizes, dtype, tokens=tokens)
    for state, lengths in [(None, None), (q.state, None), (None, q.lengths), (q.state, q.lengths)]:
        expected, final, _ = oracle.forward(plain(q.layer), wide(q.x), wide(state), lengths)
        x = q.x if lengths is None else spoil_beyond(q.x, lengths)
        h, last, _ = fb.forward(q.layer, x, state, lengths=lengths)
        assert h.dtype == np.dtype(dtype)
        assert_close(h, expected, STATES[dtype], "h")
        assert_close(last, final, STATES[dtype], "final state")
        again, last_again = fb.run(q.layer, x, state, lengths=lengths)
        assert_close(again, expected, STATES[dtype], "h of run")
        assert_close(last_again, final, STATES[dtype], "final state of run")


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


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("cell", ["rnn-relu", "lstm"])
def test_leaving_out_the_batch_axis_leaves_it_out_of_the_results(cell, tokens):
    q = make_problem(cell, (11, 1, 4, 6, 3), tokens=tokens)
    x, state = drop_batch(q.x), drop_batch(q.state)
    for length in (None, 11, 4, 0):
        lengths = None if length is None else np.array([length])
        with_axis = fb.forward(q.layer, q.x, q.state, lengths=lengths)[:2]
        expected = flatten(drop_batch(with_axis))
        got = flatten(fb.forward(q.layer, x, state, lengths=length)[:2])
        assert [a.shape for a in got] == [(11, 6)] + [(6,)] * (len(got) - 1)
        assert all(map(np.array_equal, got, expected))
        assert all(map(np.array_equal, flatten(fb.run(q.layer, x, state, lengths=length)), got))
        o, _ = fb.predict(q.network, x, state, lengths=length)
        o_with_axis, _ = fb.predict(q.network, q.x, q.state, lengths=lengths)
        assert o.shape == (11, 3) and np.array_equal(o, o_with_axis[:, 0])


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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_a_sequence_may_be_fed_in_pieces(cell, dtype):
    q = make_problem(cell, (13, 3, 4, 9, 2), dtype)
    whole, final = fb.run(q.layer, q.x, q.state)
    state, parts = q.state, []
    for a, b in [(0, 1), (1, 1), (1, 8), (8, 13)]:
        h, state, _ = fb.forward(q.layer, q.x[a:b], state)
        parts.append(h)
    assert_close(np.concatenate(parts), whole, STATES[dtype])
    assert_close(state, final, STATES[dtype])


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_memory_layout_of_x_gives_the_same_bits(dtype, tokens, tmp_path):
    q = make_problem("lstm", (14, 3, 5, 9, 2), dtype, tokens=tokens)
    expected, _ = fb.run(q.layer, q.x)
    for name, x in in_other_layouts(q.x, tmp_path):
        assert np.array_equal(fb.forward(q.layer, x)[0], expected), name
        assert np.array_equal(fb.run(q.layer, x)[0], expected), name
        assert np.array_equal(fb.predict(q.network, x)[0], fb.predict(q.network, q.x)[0]), name


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


@pytest.mark.parametrize("T", [5, 0])
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_inputs_are_not_modified_and_results_do_not_alias_them(cell, T):
    q = make_problem(cell, (T, 2, 3, 4, 2))
    given = [q.x, *flatten(q.state), q.lengths, *q.network.arrays()]
    check = untouched(*given)
    results = []
    for lengths in (None, q.lengths, np.zeros(2, int)):
        results += flatten(fb.forward(q.layer, q.x, q.state, lengths=lengths)[:2])
        results += flatten(fb.run(q.layer, q.x, q.state, lengths=lengths))
        results += flatten(fb.run(q.layer, q.x, q.state, lengths=lengths, keep="last"))
        results += flatten(fb.predict(q.network, q.x, q.state, lengths=lengths))
    assert_no_alias(results, given)
    for result in results:
        result[...] = 7  # results are the caller's own, writable
    check()


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
