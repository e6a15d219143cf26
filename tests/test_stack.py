"""Stacks and both directions of time: against the oracle, and their contract."""

import numpy as np
import oracle
import pytest
from checks import rejected
from helpers import (
    BOTH_WAYS,
    DTYPES,
    GRADIENTS,
    LOSS_READOUTS,
    LOSSES,
    SIZES,
    STACKS,
    STATES,
    all_results,
    assert_bptt_close,
    assert_close,
    assert_gradient_close,
    assert_no_alias,
    drop_batch,
    flatten,
    in_other_layouts,
    make_layer,
    make_problem,
    oracle_bptt,
    plain,
    spoil_beyond,
    untouched,
    wide,
)

import fastbptt as fb

pytestmark = pytest.mark.usefixtures("poisoned_empty")
LAYERS = [*STACKS, *BOTH_WAYS]
FEW = ["lstm/gru", "gru|lstm", BOTH_WAYS[-1]]
# Every size in both dtypes; tokens, or segments, in one of the two. All of it for a layer alone is
# in test_gradients.py and its like.
KINDS = [(s, d, (i + j) % 2 == 1) for i, s in enumerate(SIZES) for j, d in enumerate(DTYPES)]


def rows_of(g):
    return g.layer, g.x, g.state, g.deltas


@pytest.mark.parametrize("sizes, dtype, tokens", KINDS, ids=str)
@pytest.mark.parametrize("cell", LAYERS)
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


@pytest.mark.parametrize("sizes, dtype, tokens", KINDS, ids=str)
@pytest.mark.parametrize("cell", LAYERS)
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


@pytest.mark.parametrize("sizes, dtype, segments", KINDS, ids=str)
@pytest.mark.parametrize("cell", LAYERS)
def test_loss_and_gradients_of_bptt_are_the_oracles(cell, sizes, dtype, segments):
    q = make_problem(cell, sizes, dtype)
    memory = fb.Checkpointed(segment=3) if segments else "full"
    weights = q.rng.random((q.T, q.B)).astype(dtype) * (q.rng.random((q.T, q.B)) < 0.8)
    for options in (
        {},
        {"state": q.state, "lengths": q.lengths},
        {"state": q.state, "lengths": q.lengths, "weights": weights, "reduction": "mean"},
    ):
        given = {"x": q.x, "y": q.y}
        if "lengths" in options:
            given = {name: spoil_beyond(array, q.lengths) for name, array in given.items()}
        r = fb.bptt(q.network, **given, **options, memory=memory, input_grad=True)
        assert_bptt_close(r, oracle_bptt(q, **options), q)
        assert_close(fb.evaluate(q.network, **given, **options), r.loss, LOSSES[dtype])


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("loss, head", LOSS_READOUTS)
@pytest.mark.parametrize("cell", FEW)
def test_every_loss_and_readout_is_the_oracles(cell, loss, head, tokens):
    q = make_problem(cell, (9, 3, 4, 6, 3), "float64", loss, head, tokens)
    options = {"state": q.state, "lengths": q.lengths}
    due = oracle_bptt(q, **options)
    for memory in ("full", fb.Checkpointed(segment=4)):
        r = fb.bptt(q.network, q.x, q.y, loss, memory=memory, input_grad=not tokens, **options)
        assert_bptt_close(r, due, q)


@pytest.mark.parametrize("memory", ["full", fb.Checkpointed(segment=4)], ids=["full", "segments"])
@pytest.mark.parametrize("cell", FEW)
def test_a_callable_loss_sees_every_position_once(cell, memory):
    q, seen = make_problem(cell, (30, 3, 4, 6, 2)), []
    options = {"state": q.state, "lengths": q.lengths, "memory": memory, "input_grad": True}

    def loss(h, y, start):
        seen.extend(range(start, start + len(h)))
        return float((h * y).sum()), y

    h = fb.run(q.layer, q.x, q.state, lengths=q.lengths)[0]
    r = fb.bptt(q.network, q.x, q.dh, loss, **options)
    assert sorted(seen) == list(range(30))
    assert_close(r.loss, float((h * q.dh).sum()), LOSSES["float64"])
    g = fb.backward(fb.forward(q.layer, q.x, q.state, lengths=q.lengths)[2], q.dh)
    pairs = zip(flatten((r.grad.layer, r.grad_x, r.grad_state)), flatten((g.layer, g.x, g.state)),
                strict=True)  # fmt: skip
    for ours, due in pairs:
        assert_close(ours, due, GRADIENTS["float64"])
    assert not any(array.any() for array in r.grad.readout.arrays())


@pytest.mark.parametrize("cell", STACKS)
def test_truncation_of_a_stack_is_the_sum_over_the_windows_of_the_contract(cell):
    for T in (0, 1, 5, 9):
        q = make_problem(cell, (T, 2, 2, 3, 2))
        for k1, k2 in [(1, 1), (1, 3), (2, 5), (3, 3), (4, 7), (2, 9), (4, 20)]:
            due = oracle_bptt(q, state=q.state, truncation=(k1, k2), lengths=q.lengths)
            given = {"state": q.state, "memory": fb.Truncated(k1, k2), "lengths": q.lengths}
            assert_bptt_close(fb.bptt(q.network, q.x, q.y, input_grad=True, **given), due, q)


@pytest.mark.parametrize("cell", BOTH_WAYS)
def test_nothing_against_time_can_be_truncated(cell):
    q = make_problem(cell)
    for call in (
        lambda: fb.bptt(q.network, q.x, q.y, memory=fb.Truncated(2, 3)),
        lambda: fb.bptt(q.network, q.x, q.y, memory=fb.Truncated(2, 300)),
        lambda: fb.plan(q.network, q.T, q.B, memory=fb.Truncated(2, 3)),
    ):
        rejected(call, "memory", "Truncated", "Bidirectional", errors=(ValueError,))


@pytest.mark.parametrize("cell", FEW)
def test_leaving_out_the_batch_axis_leaves_it_out_of_everything(cell):
    for tokens in (False, True):
        q = make_problem(cell, (11, 1, 4, 6, 3), tokens=tokens)
        x, y, state, dh, dstate = (drop_batch(a) for a in (q.x, q.y, q.state, q.dh, q.dstate))
        for length in (None, 11, 4, 0):
            lengths = None if length is None else np.array([length])
            h, last, cache = fb.forward(q.layer, q.x, q.state, lengths=lengths)
            g = fb.backward(cache, q.dh, q.dstate, deltas=True)
            dropped = flatten(drop_batch((h, last, g.state, g.deltas)))
            h, last, cache = fb.forward(q.layer, x, state, lengths=length)
            g = fb.backward(cache, dh, dstate, deltas=True)
            assert h.shape == (11, q.layer.outputs)
            assert all(map(np.array_equal, flatten((h, last, g.state, g.deltas)), dropped))
            o = fb.predict(q.network, x, state, lengths=length)[0]
            due = fb.predict(q.network, q.x, q.state, lengths=lengths)[0]
            assert np.array_equal(o, due[:, 0])
            due = fb.run(q.layer, q.x, q.state, lengths=lengths, keep="last")[0]
            last = fb.run(q.layer, x, state, lengths=length, keep="last")[0]
            assert np.array_equal(last, due[0])
            given = {"input_grad": not tokens}
            r = fb.bptt(q.network, x, y, state=state, lengths=length, **given)
            due = fb.bptt(q.network, q.x, q.y, state=q.state, lengths=lengths, **given)
            dropped = flatten(drop_batch((due.state, due.grad_state)))
            assert all(map(np.array_equal, flatten((r.state, r.grad_state)), dropped))
            assert all(map(np.array_equal, r.grad.arrays(), due.grad.arrays()))
            assert tokens or np.array_equal(r.grad_x, due.grad_x[:, 0])
            assert r.loss == due.loss == fb.bptt(
                q.network, x, y, state=state, lengths=length, memory=fb.Checkpointed(segment=3)
            ).loss  # fmt: skip


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("cell", FEW)
def test_any_memory_layout_gives_the_same_bits(cell, tokens, tmp_path):
    q = make_problem(cell, (14, 3, 5, 9, 2), "float32", tokens=tokens)

    def everything(x=q.x, y=q.y, dh=q.dh, **given):
        h, state, cache = fb.forward(q.layer, x, q.state, **given)
        g = fb.backward(cache, dh, q.dstate, deltas=True)
        r = fb.bptt(q.network, x, y, input_grad=not tokens, **given)
        return [*flatten((h, state, *rows_of(g))), *all_results(r)]

    for given in ({}, {"lengths": q.lengths}):
        expected = everything(**given)
        for name, array in {"x": q.x, "y": q.y, "dh": q.dh}.items():
            for way, other in in_other_layouts(array, tmp_path):
                got = everything(**{name: other}, **given)
                assert all(map(np.array_equal, got, expected)), f"{name} {way}"


@pytest.mark.parametrize("T", [5, 0])
@pytest.mark.parametrize("cell", FEW)
def test_inputs_are_not_modified_and_results_do_not_alias_them_or_each_other(cell, T):
    q = make_problem(cell, (T, 2, 3, 4, 2))
    given = [q.x, q.y, q.dh, q.lengths, *flatten((q.state, q.dstate)), *q.network.arrays()]
    check, results = untouched(*given), []
    for lengths in (None, q.lengths, np.zeros(2, int)):
        h, state, cache = fb.forward(q.layer, q.x, q.state, lengths=lengths)
        first = flatten(rows_of(fb.backward(cache, q.dh, q.dstate, deltas=True, keep=True)))
        results += [h, *flatten(state)]
        for result in results:
            result[...] = 7  # the caller's own; the cache keeps what it needs
        again = flatten(rows_of(fb.backward(cache, q.dh, q.dstate, deltas=True)))
        assert all(map(np.array_equal, first, again))
        results += [*first, *again]
        r = fb.bptt(q.network, q.x, q.y, state=q.state, lengths=lengths, input_grad=True)
        results += flatten((r.grad, r.grad_x, r.grad_state, r.state))
        results += flatten(fb.run(q.layer, q.x, q.state, lengths=lengths))
        results += flatten(fb.run(q.layer, q.x, q.state, lengths=lengths, keep="last"))
        results += flatten(fb.predict(q.network, q.x, q.state, lengths=lengths))
    assert_no_alias(results, given)
    for number, result in enumerate(results):
        result[...] = number
    assert all((result == number).all() for number, result in enumerate(results))
    check()


@pytest.mark.parametrize("cell", STACKS)
def test_a_sequence_may_be_fed_to_a_stack_in_pieces(cell):
    q = make_problem(cell, (13, 3, 4, 9, 2))
    whole, final = fb.run(q.layer, q.x, q.state)
    state, parts = q.state, []
    for a, b in [(0, 1), (1, 1), (1, 8), (8, 13)]:
        h, state, _ = fb.forward(q.layer, q.x[a:b], state)
        parts.append(h)
    assert_close(np.concatenate(parts), whole, STATES["float64"])
    assert_close(state, final, STATES["float64"])


def test_a_stack_of_one_is_that_layer():
    q = make_problem("lstm", (20, 3, 4, 6, 2), "float32")
    stacked = fb.Network(fb.Stack([q.layer]), q.readout)
    one = fb.bptt(q.network, q.x, q.y, state=q.state, input_grad=True)
    other = fb.bptt(stacked, q.x, q.y, state=(q.state,), input_grad=True)
    assert isinstance(other.grad.layer, fb.Stack) and isinstance(other.state, tuple)
    for a, b in zip(all_results(one), all_results(other), strict=True):
        assert np.array_equal(a, b)


def test_each_direction_is_the_layer_alone_on_the_sequence_turned_round():
    q = make_problem("gru|lstm", (20, 3, 4, 6, 2), "float32")
    h, state = fb.run(q.layer, q.x, q.state, lengths=q.lengths)
    x = oracle.turned(q.x, q.lengths)
    alone, last = fb.run(q.layer.forward, q.x, q.state[0], lengths=q.lengths)
    assert np.array_equal(h[:, :, :6], alone) and np.array_equal(state[0], last)
    alone, last = fb.run(q.layer.backward, x, q.state[1], lengths=q.lengths)
    assert np.array_equal(h[:, :, 6:], oracle.turned(alone, q.lengths))
    assert all(map(np.array_equal, state[1], last))


@pytest.mark.parametrize("cell", LAYERS)
def test_a_nan_stays_in_its_sequence(cell):
    q = make_problem(cell, (9, 3, 4, 6, 2), "float32")
    clean = fb.bptt(q.network, q.x, q.y, input_grad=True)
    q.x[5, 1, 2] = np.nan
    h, state, cache = fb.forward(q.layer, q.x)
    g = fb.backward(cache, q.dh)
    r = fb.bptt(q.network, q.x, q.y, input_grad=True)
    others = [0, 2]
    for part in (h, g.x, r.grad_x):
        assert np.isnan(part[:, 1]).any() and np.isfinite(part[:, others]).all()
    for part in flatten((state, g.state)):
        assert np.isfinite(part[others]).all()
    assert np.isnan(r.loss) and all(np.isnan(a).any() for a in r.grad.arrays())
    assert np.array_equal(r.grad_x[:, others], clean.grad_x[:, others])


@pytest.mark.parametrize("cell", LAYERS)
def test_arrays_files_and_copies_keep_the_whole_layer(cell, tmp_path):
    layer = make_layer(cell, 4, 6, "float32", np.random.default_rng(0), dropout=0.25)
    network = fb.Network(layer, fb.Readout.init(layer.outputs, 2, rng=0))
    for number, model in enumerate((layer, network)):
        model.save(tmp_path / f"{number}.npz")
        other = fb.load(tmp_path / f"{number}.npz")
        assert repr(other) == repr(model) and type(other) is type(model)
        assert all(map(np.array_equal, other.arrays(), model.arrays()))
        doubled = model.replace_arrays([2 * a for a in model.arrays()])
        assert repr(doubled) == repr(model)
        for a, b in zip(doubled.arrays(), model.arrays(), strict=True):
            assert np.array_equal(a, 2 * b)
    if isinstance(layer, fb.Stack):
        assert layer.dropout == fb.load(tmp_path / "0.npz").dropout == 0.25
    parts = getattr(layer, "layers", None) or [layer.forward, layer.backward]
    own = [array for part in parts for array in part.arrays()]
    assert all(a is b for a, b in zip(layer.arrays(), own, strict=True))


def test_weights_updated_in_place_are_read_by_the_next_call():
    q = make_problem(BOTH_WAYS[-1])
    fb.bptt(q.network, q.x, q.y)
    for array in q.layer.arrays():
        array *= 0.5
    assert_bptt_close(fb.bptt(q.network, q.x, q.y), oracle_bptt(q), q)
