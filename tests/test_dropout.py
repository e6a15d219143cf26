"""Dropout between the layers of a Stack, against masks that the tests draw themselves."""

import numpy as np
import oracle
import oracle_dropout
import pytest
from checks import rejected
from helpers import (
    BOTH_WAYS,
    DTYPES,
    GRADIENTS,
    LOSSES,
    STATES,
    all_results,
    assert_bptt_close,
    assert_close,
    assert_gradient_close,
    assert_same_bits,
    flatten,
    make_problem,
    oracle_bptt,
    plain,
    wide,
)

import fastbptt as fb

pytestmark = pytest.mark.usefixtures("poisoned_empty")
LAYERS = ["lstm/gru", "gru-before/rnn-tanh/lstm-peephole", *BOTH_WAYS[1:]]


def seen_above(index, width, rate, seed, t0, T, B, dtype):
    """The package's mask: what layer `index` + 1 of a stack, which copies its input, reads where
    all states below are 1. (T, B, width).
    """
    one = np.ones(width, dtype)
    eye, none = np.eye(width, dtype=dtype), np.zeros((width, width), dtype)
    constant = fb.RNN(none, none, one, activation="identity")
    stack = fb.Stack([constant] * (index + 1) + [fb.RNN(eye, none, 0 * one, "identity")], rate)
    seen = np.zeros((T, B, width), dtype)

    def loss(h, y, start):
        seen[start : start + len(h)] = h
        return 0.0, h

    x = np.zeros((T, B, width), dtype)
    fb.bptt(fb.Network(stack, None), x, None, loss, seed=seed, t0=t0)
    return seen


def masks_of(q, seed, t0=0):
    """The expected masks of each layer of the problem's stack but the top one."""
    return [
        oracle_dropout.mask(seed, k, q.layer.dropout, t0, (q.T, q.B, part.outputs), q.dtype)
        for k, part in enumerate(q.layer.layers[:-1])
    ]


def test_the_generator_of_the_tests_is_splitmix64():
    first = oracle_dropout.numbers(np.zeros(1, np.uint64), np.arange(3, dtype=np.uint64))
    assert [int(n) for n in first] == [  # as published for seed 0
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "layer, rate, seed, t0",
    [(0, 0.5, 0, 0), (1, 0.1, 7, 3), (2, 0.9, 2**64 - 1, 10**12), (0, 0.3, 2**64, 0),
     (1, 1 - 2**-53, 2**200 + 5, 1), (0, 2**-60, 1, 0)],
)  # fmt: skip
def test_the_masks_are_those_of_splitmix64(layer, rate, seed, t0, dtype):
    due = oracle_dropout.mask(seed, layer, rate, t0, (90, 3, 40), dtype)
    assert np.array_equal(seen_above(layer, 40, rate, seed, t0, 90, 3, dtype), due)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_the_share_that_is_kept_is_what_was_asked_for_and_is_scaled(rate, dtype):
    seen = seen_above(0, 50, rate, 7, 0, 400, 5, dtype)
    kept = seen != 0
    values = np.unique(seen[kept])
    assert len(values) == 1 and values[0] == np.dtype(dtype).type(1 / (1 - rate))
    for axes in ((0, 1, 2), (1, 2), (0, 2), (0, 1)):  # of all, of each time, sequence and unit
        share = kept.mean(axis=axes)
        count = kept.size / share.size
        assert (abs(share - (1 - rate)) <= 5 * (rate * (1 - rate) / count) ** 0.5).all()


def likeness(one, other):
    """The correlation of two masks of a half, in its standard deviations."""
    a, b = ((mask != 0) - 0.5 for mask in (one, other))
    return abs((a * b).sum() * 4 / a.size**0.5)


def test_seeds_layers_times_sequences_and_units_have_masks_of_their_own():
    shape = (300, 6, "float32")
    masks = [seen_above(0, 40, 0.5, seed, 0, *shape) for seed in (0, 1, 2, 2**64, 2**64 + 1)]
    masks += [seen_above(layer, 40, 0.5, 0, 0, *shape) for layer in (1, 2)]
    masks += [seen_above(0, 40, 0.5, 0, t0, *shape) for t0 in (300, 10**12)]
    for index, one in enumerate(masks):
        for other in masks[:index]:
            assert likeness(one, other) < 5
        for axis in range(3):  # neighbours in time, sequence and unit
            assert likeness(one, np.roll(one, 1, axis)) < 5


def test_a_mask_depends_on_nothing_but_seed_layer_time_sequence_and_unit():
    whole = seen_above(1, 20, 0.3, 5, 0, 90, 6, "float32")
    assert np.array_equal(whole[:, :4], seen_above(1, 20, 0.3, 5, 0, 90, 4, "float32"))
    assert np.array_equal(whole[:50, :, :9], seen_above(1, 9, 0.3, 5, 0, 50, 6, "float32"))
    assert np.array_equal(whole[31:], seen_above(1, 20, 0.3, 5, 31, 59, 6, "float32"))
    assert np.array_equal(whole != 0, seen_above(1, 20, 0.3, 5, 0, 90, 6, "float64") != 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", LAYERS)
def test_states_and_gradients_are_the_oracles_under_these_masks(cell, dtype):
    q = make_problem(cell, (11, 3, 4, 6, 2), dtype, dropout=0.4)
    layer = plain(q.layer, masks_of(q, 3))
    for lengths in (None, q.lengths):
        h, final, steps = oracle.forward(layer, wide(q.x), wide(q.state), lengths)
        due = oracle.backward(layer, steps, wide(q.dh), wide(q.dstate))
        got, last, cache = fb.forward(q.layer, q.x, q.state, lengths=lengths, seed=3)
        assert_close(got, h, STATES[dtype], "h")
        assert_close(last, final, STATES[dtype], "final state")
        g = fb.backward(cache, q.dh, q.dstate, deltas=True)
        assert_gradient_close(g.layer, due["layer"], q.layer, GRADIENTS[dtype])
        for name in ("x", "state", "deltas"):
            assert_close(getattr(g, name), due[name], GRADIENTS[dtype], name)


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("memory", ["full", fb.Checkpointed(segment=4)], ids=["full", "segments"])
@pytest.mark.parametrize("cell", LAYERS)
def test_loss_and_gradients_of_bptt_are_the_oracles_under_these_masks(cell, memory, tokens):
    q = make_problem(cell, (11, 3, 4, 6, 2), "float64", tokens=tokens, dropout=0.4)
    for t0 in (0, 9):
        given = {"state": q.state, "lengths": q.lengths}
        due = oracle_bptt(q, masks_of(q, 8, t0), **given)
        given |= {"memory": memory, "input_grad": not tokens}
        assert_bptt_close(fb.bptt(q.network, q.x, q.y, seed=8, t0=t0, **given), due, q)


def test_truncation_under_dropout_is_the_sum_over_the_windows_of_the_contract():
    q = make_problem("lstm/gru/rnn-tanh", (9, 2, 2, 3, 2), dropout=0.3)
    for k1, k2 in [(1, 1), (2, 5), (3, 3), (4, 7), (4, 20)]:
        due = oracle_bptt(q, masks_of(q, 1), state=q.state, truncation=(k1, k2))
        given = {"state": q.state, "memory": fb.Truncated(k1, k2), "input_grad": True}
        assert_bptt_close(fb.bptt(q.network, q.x, q.y, seed=1, **given), due, q)


def test_t0_continues_the_masks_so_that_pieces_are_the_whole():
    q = make_problem("lstm/gru/rnn-tanh", (40, 3, 4, 6, 2), dropout=0.3)
    whole = fb.bptt(q.network, q.x, q.y, state=q.state, seed=2, t0=5, memory=fb.Truncated(20, 20))
    first = fb.bptt(q.network, q.x[:20], q.y[:20], state=q.state, seed=2, t0=5)
    second = fb.bptt(q.network, q.x[20:], q.y[20:], state=first.state, seed=2, t0=25)
    assert all(map(np.array_equal, flatten(second.state), flatten(whole.state)))
    assert_close(first.loss + second.loss, whole.loss, LOSSES["float64"])
    halves = zip(first.grad.arrays(), second.grad.arrays(), whole.grad.arrays(), strict=True)
    for a, b, due in halves:
        assert_close(a + b, due, GRADIENTS["float64"])
    again = fb.bptt(q.network, q.x[20:], q.y[20:], state=first.state, seed=2)
    assert not np.array_equal(flatten(again.state)[-1], flatten(second.state)[-1])


@pytest.mark.parametrize("cell", LAYERS)
def test_sequences_of_the_front_of_a_batch_are_dropped_as_in_the_whole(cell):
    q = make_problem(cell, (30, 5, 4, 6, 2), "float32", dropout=0.3)
    h, _, cache = fb.forward(q.layer, q.x, seed=4)
    few, _, cache_of_few = fb.forward(q.layer, q.x[:, :2], seed=4)
    assert np.array_equal(few, h[:, :2])
    g = fb.backward(cache_of_few, q.dh[:, :2])
    assert np.array_equal(g.x, fb.backward(cache, q.dh).x[:, :2])


@pytest.mark.parametrize("cell", LAYERS)
def test_forward_and_bptt_drop_the_same_and_other_calls_nothing(cell):
    q = make_problem(cell, (30, 3, 4, 6, 2), "float32", dropout=0.5)
    without = fb.Network(fb.Stack(q.layer.layers), q.readout)
    seen = np.zeros_like(q.dh)

    def loss(h, y, start):
        seen[start : start + len(h)] = h
        return 0.0, h

    fb.bptt(fb.Network(q.layer, None), q.x, None, loss, seed=6)
    assert np.array_equal(seen, fb.forward(q.layer, q.x, seed=6)[0])
    h, state = fb.run(q.layer, q.x, q.state)
    assert not np.array_equal(seen, h)
    for one, other in zip(
        flatten((h, state, fb.predict(q.network, q.x, q.state))),
        flatten((*fb.run(without.layer, q.x, q.state), fb.predict(without, q.x, q.state))),
        strict=True,
    ):
        assert np.array_equal(one, other)
    assert fb.evaluate(q.network, q.x, q.y) == fb.evaluate(without, q.x, q.y)


def test_dropout_of_nothing_is_no_dropout():
    q = make_problem("lstm/gru", (20, 3, 4, 6, 2), "float32")
    assert_same_bits(fb.bptt(q.network, q.x, q.y), fb.bptt(q.network, q.x, q.y, seed=1, t0=3))
    alone = fb.Network(fb.Stack(q.layer.layers[:1], 0.5), fb.Readout.init(8, 2, rng=0))
    one, other = (fb.bptt(alone, q.x, q.y, seed=seed) for seed in (None, 1))
    for a, b in zip(all_results(one), all_results(other), strict=True):
        assert np.array_equal(a, b)  # there is no layer above that would see it


def test_a_seed_is_asked_for_where_states_are_dropped():
    q = make_problem("lstm/gru", (5, 2, 4, 6, 2), "float32", dropout=0.25)
    for call in (
        lambda: fb.forward(q.layer, q.x),
        lambda: fb.bptt(q.network, q.x, q.y),
        lambda: fb.bptt(q.network, q.x, q.y, memory=fb.Truncated(2, 3)),
    ):
        rejected(call, "seed", "dropout", "0.25", errors=(ValueError,))
    with_seed = {"seed": 0, "memory": fb.Checkpointed(segment=2)}
    r = fb.bptt(q.network, q.x, q.y, **with_seed)
    assert r.plan == fb.plan(q.network, 5, 2, **with_seed)
