"""Stacks and both directions of time: what only they do, and their training."""

import numpy as np
import oracle
import pytest
from checks import rejected
from helpers import (
    BOTH_WAYS,
    COMPOSITES,
    GRADIENTS,
    LOSS_READOUTS,
    LOSSES,
    PAIRED_SIZES,
    STACKS,
    all_results,
    assert_bptt_close,
    assert_close,
    flatten,
    make_layer,
    make_problem,
    oracle_bptt,
    spoil_beyond,
)

import fastbptt as fb

pytestmark = pytest.mark.usefixtures("poisoned_empty")
FEW = ["lstm/gru", "gru|lstm", BOTH_WAYS[-1]]


@pytest.mark.parametrize("sizes, dtype, segments", PAIRED_SIZES, ids=str)
@pytest.mark.parametrize("cell", COMPOSITES)
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
def test_a_reverse_direction_cannot_be_truncated(cell):
    q = make_problem(cell)
    for call in (
        lambda: fb.bptt(q.network, q.x, q.y, memory=fb.Truncated(2, 3)),
        lambda: fb.bptt(q.network, q.x, q.y, memory=fb.Truncated(2, 300)),
        lambda: fb.plan(q.network, q.T, q.B, memory=fb.Truncated(2, 3)),
    ):
        rejected(call, "memory", "Truncated", "Bidirectional", errors=(ValueError,))


def test_a_stack_of_one_is_that_layer():
    q = make_problem("lstm", (20, 3, 4, 6, 2), "float32")
    stacked = fb.Network(fb.Stack([q.layer]), q.readout)
    one = fb.bptt(q.network, q.x, q.y, state=q.state, input_grad=True)
    other = fb.bptt(stacked, q.x, q.y, state=(q.state,), input_grad=True)
    assert isinstance(other.grad.layer, fb.Stack) and isinstance(other.state, tuple)
    for a, b in zip(all_results(one), all_results(other), strict=True):
        assert np.array_equal(a, b)


def test_each_direction_is_the_layer_alone_on_the_reversed_sequence():
    q = make_problem("gru|lstm", (20, 3, 4, 6, 2), "float32")
    h, state = fb.run(q.layer, q.x, q.state, lengths=q.lengths)
    x = oracle.reversed_in_time(q.x, q.lengths)
    alone, last = fb.run(q.layer.forward, q.x, q.state[0], lengths=q.lengths)
    assert np.array_equal(h[:, :, :6], alone) and np.array_equal(state[0], last)
    alone, last = fb.run(q.layer.backward, x, q.state[1], lengths=q.lengths)
    assert np.array_equal(h[:, :, 6:], oracle.reversed_in_time(alone, q.lengths))
    assert all(map(np.array_equal, state[1], last))


@pytest.mark.parametrize("cell", COMPOSITES)
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


@pytest.mark.parametrize("cell", COMPOSITES)
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
