"""bptt, evaluate and predict on the GPU are the oracle's, in every mode, for every cell."""

import numpy as np
import oracle
import pytest
import test_own
from helpers import (
    BOTH_WAYS,
    CELLS,
    DTYPES,
    GRADIENTS,
    LOSS_READOUTS,
    STATES,
    all_results,
    assert_bptt_close,
    assert_close,
    flatten,
    make_problem,
    oracle_bptt,
    plain,
    spoil_beyond,
    wide,
)

import fastbptt as fb

SIZES = [(7, 3, 4, 6, 2), (1, 1, 1, 1, 1), (5, 4, 3, 11, 3), (9, 2, 1, 5, 1)]
LAYERED = ["lstm/gru", "gru|lstm", "lstm/lstm-peephole|gru/rnn-tanh"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_loss_gradients_and_states_are_the_oracles(cell, sizes, dtype):
    p = make_problem(cell, sizes, dtype)
    r = fb.bptt(p.network, p.x, p.y, state=p.state, input_grad=True)
    assert_bptt_close(r, oracle_bptt(p, state=p.state), p)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", LAYERED)
def test_stacks_and_both_directions_are_the_oracles(cell, dtype):
    p = make_problem(cell, dtype=dtype)
    r = fb.bptt(p.network, p.x, p.y, lengths=p.lengths, state=p.state, input_grad=True)
    assert_bptt_close(r, oracle_bptt(p, lengths=p.lengths, state=p.state), p)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize(("loss", "readout"), LOSS_READOUTS)
def test_every_loss_readout_and_kind_of_input(loss, readout, tokens, dtype):
    p = make_problem("gru", dtype=dtype, loss=loss, readout=readout, tokens=tokens)
    weights = np.abs(p.rng.standard_normal((p.T, p.B)))
    weights[1::3] = 0
    given = {"weights": weights, "lengths": p.lengths, "reduction": "mean"}
    x, y = spoil_beyond(p.x, p.lengths), spoil_beyond(p.y, p.lengths)
    r = fb.bptt(p.network, x, y, loss, **given)
    expected = oracle_bptt(p, **given)
    assert_bptt_close(r, expected, p)
    value = fb.evaluate(p.network, x, y, loss, **given)
    assert_close(value, r.loss, GRADIENTS[dtype], "evaluate")


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru-before", "gru|lstm"])
@pytest.mark.parametrize(
    "memory", [fb.Checkpointed(segment=3), "least", fb.Truncated(2, 5)], ids=str
)
def test_schedules_agree_with_the_cpu(cell, memory):
    p = make_problem(cell, (23, 2, 3, 5, 2), "float64")
    if isinstance(memory, fb.Truncated) and "|" in cell:
        pytest.skip("a Bidirectional is never truncated: that is an error on every device")
    if memory == "least":
        memory = 1
        try:
            fb.plan(p.network, p.T, p.B, memory=memory)
        except fb.MemoryLimitError as error:
            memory = error.least_bytes
    given = {"state": p.state, "input_grad": True}
    r = fb.bptt(p.network, p.x, p.y, memory=memory, **given)
    assert r.plan == fb.plan(p.network, p.T, p.B, memory=memory)
    assert r.plan.recomputes or isinstance(memory, fb.Truncated)
    exact = memory if isinstance(memory, fb.Truncated) else "full"
    expected = fb.bptt(p.network, p.x, p.y, memory=exact, device="cpu", **given)
    for one, other in zip(all_results(r), all_results(expected), strict=True):
        assert_close(one, np.asarray(other), 1e-9)


@pytest.mark.parametrize("cell", [*CELLS, *BOTH_WAYS[:1], "lstm/gru"])
def test_forward_and_backward_agree_with_the_cpu_where_lengths_differ(cell):
    p = make_problem(cell, (8, 3, 2, 5, 2), "float64")
    x, dh = spoil_beyond(p.x, p.lengths), spoil_beyond(p.dh, p.lengths)
    found = {}
    for device in ("cpu", "cuda"):
        h, state, cache = fb.forward(p.layer, x, p.state, lengths=p.lengths, device=device)
        g = fb.backward(cache, dh, p.dstate, deltas=True)
        found[device] = h, state, g.x, g.state, tuple(g.layer.arrays()), g.deltas
    assert_close(found["cuda"], found["cpu"], 1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
def test_run_and_predict_agree_with_the_oracle(dtype):
    p = make_problem("lstm", (9, 3, 2, 5, 4), dtype, readout="softmax")
    h, state = fb.run(p.layer, p.x, p.state)
    expected = oracle.forward(plain(p.layer), wide(p.x), wide(p.state))
    assert_close(h, expected[0], STATES[dtype])
    last, same = fb.run(p.layer, p.x, p.state, keep="last")
    assert_close(last, h[-1], 0) is None and assert_close(same, state, 0)
    o, _ = fb.predict(p.network, p.x, p.state)
    assert_close(o.sum(axis=2), np.ones((9, 3)), 1e-6)


def test_dropout_draws_the_same_masks_as_on_the_cpu():
    p = make_problem("lstm/gru", dtype="float64", dropout=0.4)
    given = {"seed": 7, "t0": 3, "input_grad": True}
    one = fb.bptt(p.network, p.x, p.y, **given)
    other = fb.bptt(p.network, p.x, p.y, device="cpu", **given)
    for a, b in zip(all_results(one), all_results(other), strict=True):
        assert_close(a, np.asarray(b), 1e-10)


def test_a_callable_loss_sees_every_position_once_and_numpy_arrays():
    p = make_problem("rnn-tanh", (20, 2, 3, 5, 2), "float64")
    seen = np.zeros(p.T, int)

    def loss(h, y, start):
        assert isinstance(h, np.ndarray)
        seen[start : start + len(h)] += 1
        return float((h**3).sum()), 3 * h**2

    one = fb.bptt(p.network, p.x, None, loss)
    assert (seen == 1).all()
    other = fb.bptt(p.network, p.x, None, loss, device="cpu")
    for a, b in zip(all_results(one), all_results(other), strict=True):
        assert_close(a, np.asarray(b), 1e-10, floor=1e-10)


def test_own_cells_and_activations_run_from_the_same_source():
    lstm = fb.Cell("own_lstm", 4, test_own.lstm_forward, test_own.lstm_reverse, states=2)
    leaky = fb.Cell("leaky", 1, test_own.leaky_forward, test_own.leaky_reverse)
    timed = fb.Cell("timed", 1, test_own.timed_forward, test_own.timed_reverse, parameters=1)
    soft = fb.Activation("softsign", lambda a: a / (1 + abs(a)), lambda s: (1 - abs(s)) ** 2)
    rng = np.random.default_rng(0)
    drift = fb.Cell("drift", 1, lambda a, s, p, d: (s[0] * np.exp(-d[0]) + a[0],), drives=1)
    own = (cell.init(3, 5, rng=rng) for cell in (lstm, leaky, timed, test_own.ALONE, drift))
    for layer in (*own, fb.RNN.init(3, 5, rng=rng, activation=soft)):
        x = np.abs(rng.standard_normal((6, 2, 3))).astype("float32")
        results = []
        for device in ("cpu", "cuda"):
            h, _, cache = fb.forward(layer, x, device=device, lengths=np.array([6, 4]))
            g = fb.backward(cache, h)
            results.append((h, tuple(g.layer.arrays()), g.x))
        assert_close(results[1], results[0], 1e-5)


def test_no_steps_no_sequences_and_no_batch_axis():
    p = make_problem("lstm", (0, 2, 3, 5, 2))
    r = fb.bptt(p.network, p.x, p.y, state=p.state)
    assert r.loss == 0 and not any(a.any() for a in r.grad.arrays())
    empty = np.zeros((4, 0, 3))
    h, _, cache = fb.forward(p.layer, empty)
    assert h.shape == (4, 0, 5) and not fb.backward(cache, h).layer.W.any()
    q = make_problem("lstm", (6, 1, 3, 5, 2))
    one, other = fb.run(q.layer, q.x[:, 0])[0], fb.run(q.layer, q.x)[0]
    assert np.array_equal(one, other[:, 0])


def test_the_same_call_gives_the_same_bits():
    p = make_problem("gru", (9, 3, 4, 6, 3), "float32", "cross_entropy", "softmax", tokens=True)
    one, other = (fb.bptt(p.network, p.x, p.y, p.loss) for _ in range(2))
    for a, b in zip(all_results(one), all_results(other), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_stay_in_their_sequence(dtype):
    p = make_problem("lstm", (6, 3, 2, 5, 2), dtype)
    x = p.x.copy()
    x[2, 1] = np.nan
    r = fb.bptt(p.network, x, p.y, input_grad=True)
    assert np.isnan(r.loss) and np.isnan(r.grad.layer.W).any()
    clean = fb.bptt(p.network, p.x, p.y, input_grad=True)
    assert np.array_equal(r.grad_x[:, [0, 2]], clean.grad_x[:, [0, 2]])
    assert np.isnan(fb.run(p.layer, x)[0][2:, 1]).all()


def spoil_state(state, b, value):
    """A copy of the state that holds `value` in sequence b."""

    def spoiled(part):
        if isinstance(part, tuple):
            return tuple(map(spoiled, part))
        part = part.copy()
        part[b] = value
        return part

    return spoiled(state)


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("cell", [*CELLS, *LAYERED, "own"])
def test_a_state_that_only_steps_past_an_end_read_does_not_matter(cell, tokens):
    dropout = 0.3 if "/" in cell else 0.0
    own = cell == "own"
    p = make_problem(CELLS[0] if own else cell, (6, 3, 4, 5, 2), tokens=tokens, dropout=dropout)
    if own:
        timed = fb.Cell("timed", 1, test_own.timed_forward, test_own.timed_reverse, parameters=1)
        p.layer = timed.init(4, 5, rng=0, dtype="float64")
        p.network = fb.Network(p.layer, p.readout)
    for value in (np.inf, np.nan):
        state = spoil_state(p.state, 1, value)
        given = {"lengths": np.array([6, 0, 4]), "seed": 3}
        one, other = (
            fb.bptt(p.network, p.x, p.y, state=state, input_grad=not tokens, device=device, **given)
            for device in ("cuda", "cpu")
        )
        assert all(np.isfinite(a).all() for a in one.grad.arrays())
        results = []
        for device in ("cuda", "cpu"):
            cache = fb.forward(p.layer, p.x, state, device=device, **given)[2]
            g = fb.backward(cache, p.dh, p.dstate, deltas=True)
            results.append((g.x, g.state, g.deltas, tuple(g.layer.arrays())))
        assert_close(tuple(one.grad.arrays()), tuple(other.grad.arrays()), 1e-10)
        for a, b in zip(flatten(results[0]), flatten(results[1]), strict=True):
            assert_close(a, b, 1e-10)


@pytest.mark.parametrize("cell", ["rnn-relu", "rnn-identity"])
def test_a_state_that_overflows_at_its_own_end_does_not_matter_later(cell):
    p = make_problem(cell, (6, 3, 4, 5, 2))
    layer = p.layer.replace_arrays([np.abs(a) for a in p.layer.arrays()])
    x, lengths = p.x.copy(), np.array([6, 3, 4])
    x[2, 1] = 1.7e308
    results = []
    for device in ("cuda", "cpu"):
        with np.errstate(over="ignore"):
            _, state, cache = fb.forward(layer, x, lengths=lengths, device=device)
        g = fb.backward(cache, p.dh * 1e-3)
        results.append((g.x, g.layer.W, g.layer.b, g.state))
        assert np.isinf(state[1]).any() and np.isfinite(g.layer.W).all()
    assert_close(results[0], results[1], 1e-10)


def test_arrays_of_any_layout_and_a_memory_map(tmp_path):
    from helpers import in_other_layouts

    p = make_problem("rnn-tanh", (6, 2, 3, 4, 2))
    expected = fb.run(p.layer, p.x)[0]
    for name, x in in_other_layouts(p.x, tmp_path):
        assert_close(fb.run(p.layer, x)[0], expected, 1e-15, name)
