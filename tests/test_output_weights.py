"""Loss weights: a number for each output, or for each position."""

import numpy as np
import pytest
from checks import check_peak, least_bytes, policy
from helpers import (
    BOTH_WAYS,
    DTYPES,
    LOSS_READOUTS,
    LOSSES,
    STACKS,
    all_results,
    assert_bptt_close,
    assert_close,
    drop_batch,
    in_other_layouts,
    make_problem,
    oracle_bptt,
    untouched,
)

import fastbptt as fb

pytestmark = pytest.mark.usefixtures("poisoned_empty")

SUMS = [case for case in LOSS_READOUTS if case[0] != "cross_entropy"]
REDUCTIONS = ["sum", "mean"]


def holes(q, share=0.5):
    """Weights of the outputs, some of them 0: whole rows, too."""
    weights = q.rng.standard_normal((q.T, q.B, q.O)) * (q.rng.random((q.T, q.B, q.O)) > share)
    weights[q.rng.random((q.T, q.B)) < 0.3] = 0
    return weights


def check(q, weights, **options):
    """bptt and evaluate are the oracle's, also with NaN targets where the weights are 0."""
    y = q.y.copy()
    if y.dtype.kind == "f":
        y[np.broadcast_to(weights[..., None] if weights.ndim == 2 else weights, y.shape) == 0] = (
            np.nan
        )
    expected = oracle_bptt(q, weights=np.asarray(weights, float), **options)
    r = fb.bptt(q.network, q.x, y, q.loss, weights=weights, input_grad=True, **options)
    assert_bptt_close(r, expected, q)
    value = fb.evaluate(q.network, q.x, y, q.loss, weights=weights, **options)
    assert_close(value, expected["loss"], LOSSES[q.dtype])
    return r


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss, readout", SUMS)
def test_outputs_of_weight_0_are_left_out_and_others_scaled(loss, readout, dtype, reduction):
    for sizes in ((23, 3, 4, 6, 5), (7, 2, 3, 5, 1), (3, 1, 2, 4, 37)):
        if readout == "softmax" and sizes[-1] == 1:
            continue  # it is 1, whatever the weights
        q = make_problem("rnn-tanh", sizes, dtype, loss, readout)
        check(q, holes(q), reduction=reduction)
        check(q, holes(q)[..., 0], reduction=reduction)
        check(q, holes(q), reduction=reduction, lengths=q.lengths, state=q.state)
        check(q, np.zeros(q.y.shape), reduction=reduction)


@pytest.mark.parametrize("cell", ["lstm", STACKS[0], BOTH_WAYS[0]])
def test_every_schedule_and_number_of_threads_gives_the_same_bits(cell, set_threads):
    q = make_problem(cell, (61, 3, 4, 6, 5))
    weights, y = holes(q), q.y.copy()
    y[weights == 0] = np.nan
    due = all_results(check(q, weights, reduction="mean"))
    memories = ["full", fb.Checkpointed(segment=7), least_bytes(q.network, q.T, q.B)]
    for threads, memory in enumerate(memories, 1):
        set_threads(threads)
        r = fb.bptt(q.network, q.x, y, weights=weights, reduction="mean", memory=memory,
                    input_grad=True)  # fmt: skip
        assert all(map(np.array_equal, all_results(r), due)), memory


def test_windows_take_the_weights_of_their_losses():
    q = make_problem("gru", (50, 2, 3, 5, 4))
    weights = holes(q)
    r = fb.bptt(q.network, q.x, q.y, weights=weights, memory=fb.Truncated(3, 8))
    assert_bptt_close(r, oracle_bptt(q, weights=weights, truncation=(3, 8)), q)


@pytest.mark.parametrize("kind", ["?", "b", "B", "q", "Q", "f", "d"])
def test_weights_of_any_type_count_as_their_values(kind):
    q = make_problem("rnn-tanh", (6, 2, 3, 4, 2), "float32")
    ends = np.iinfo(kind) if np.dtype(kind).kind in "iu" else None
    values = [1, 0, 2] if ends is None else [ends.min, 0, ends.max]
    weights = np.resize(np.array(values, kind), (6, 2, 2))
    got, due = (all_results(check(q, w, reduction="mean")) for w in (weights, weights.astype("d")))
    assert all(map(np.array_equal, got, due))


def test_small_weights_act_in_float64():
    """Of float32 outputs: 1 + 2**-30 has no float32, and a weight of 1e-300 is not 0."""
    q = make_problem("rnn-tanh", (4, 1, 2, 3, 2), "float32")
    ones = np.ones((4, 1, 2))
    value, more = (fb.evaluate(q.network, q.x, q.y, weights=w) for w in (ones, ones * (1 + 2**-30)))
    assert (more - value) / value == pytest.approx(2**-30, rel=1e-3)
    tiny, subnormal = (
        fb.evaluate(q.network, q.x, q.y, weights=w * ones, reduction="mean")
        for w in (1e-300, 1e-310)
    )
    assert tiny > 0 == subnormal


def test_equal_weights_are_those_of_the_positions_and_layouts_do_not_matter(tmp_path):
    q = make_problem("lstm", (14, 3, 5, 9, 4))
    per_position = q.rng.random((14, 3))
    each = np.repeat(per_position[..., None], 4, axis=2)
    due = fb.bptt(q.network, q.x, q.y, weights=each)
    r = fb.bptt(q.network, q.x, q.y, weights=per_position)
    for got, expected in zip(all_results(r), all_results(due), strict=True):
        assert_close(got, expected, 1e-14)
    unchanged = untouched(each)
    views = [*in_other_layouts(each, tmp_path)]
    views.append(("broadcast", np.broadcast_to(per_position[..., None], each.shape)))
    for name, weights in views:
        r = fb.bptt(q.network, q.x, q.y, weights=weights)
        assert all(map(np.array_equal, all_results(r), all_results(due))), name
    unchanged()


def test_the_axes_of_x_say_whether_a_number_is_of_a_sequence_or_of_an_output():
    q = make_problem("rnn-tanh", (11, 3, 4, 6, 3))
    weights = q.rng.random((11, 3))
    x, y = q.x[:, 1], q.y[:, 1]
    r = fb.bptt(q.network, x, y, weights=weights, lengths=8, reduction="mean")
    due = fb.bptt(q.network, x[:, None], y[:, None], weights=weights[:, None], reduction="mean",
                  lengths=np.array([8]))  # fmt: skip
    assert r.loss == due.loss
    assert all(map(np.array_equal, r.grad.arrays(), due.grad.arrays()))
    check(q, weights)  # of sequences
    per_time = fb.bptt(q.network, x, y, weights=weights[:, 0]).loss
    assert per_time == fb.bptt(q.network, q.x, q.y, weights=weights[:, :1] * [0, 1, 0]).loss


def test_gradient_reach_draws_positions_of_which_any_output_counts():
    q = make_problem("rnn-tanh", (60, 2, 3, 5, 4))
    per_position = np.zeros((60, 2))
    per_position[40::5] = [1, 2]
    for x, y, positions in ((q.x, q.y, per_position), (q.x[:, 0], q.y[:, 0], per_position[:, 0])):
        each = np.repeat(positions[..., None], 4, axis=-1)
        got = fb.gradient_reach(q.network, x, y, weights=each, max_lag=20)
        due = fb.gradient_reach(q.network, x, y, weights=positions, max_lag=20)
        assert got.losses == due.losses == np.count_nonzero(positions) > 0
        assert_close(got.norms, due.norms, 1e-12)
        each[..., 1:] = 0
        one = fb.gradient_reach(q.network, x, y, weights=each, max_lag=20)
        assert one.losses == due.losses and not np.allclose(one.norms, due.norms)


@pytest.mark.parametrize("memory", ["full", 0.05, fb.Truncated(40, 100)], ids=str)
@pytest.mark.parametrize("kind", ["f4", "f8", "?"])
def test_measured_peak_is_within_the_plan(memory, kind):
    q = make_problem("lstm", (1500, 3, 4, 8, 40), "float32")
    weights = holes(q).astype(kind)
    memory = policy(memory, q.network, q.T, q.B)
    for reduction in REDUCTIONS:
        fb.bptt(q.network, q.x[:9], q.y[:9], weights=weights[:9], reduction=reduction)
        check_peak(q.network, q.x, q.y, memory=memory, weights=weights, reduction=reduction)


@pytest.mark.parametrize(
    "shape, words",
    [
        ((7, 3, 3), r"weights must have shape \(7, 3, 2\), not \(7, 3, 3\)"),
        ((7, 2), r"weights must have shape \(7, 3\), not \(7, 2\)"),
        ((7, 3, 2, 1), r"weights must have shape \(7, 3\), not"),
    ],
)
def test_weights_of_another_shape_are_an_error(shape, words):
    q = make_problem()
    for function in (fb.bptt, fb.evaluate, fb.gradient_reach):
        with pytest.raises(ValueError, match=words):
            function(q.network, q.x, q.y, weights=np.ones(shape))


def test_cross_entropy_has_no_weights_of_outputs():
    q = make_problem(loss="cross_entropy", readout="softmax")
    for x, y, shape in ((q.x, q.y, q.x.shape[:2]), (drop_batch(q.x), drop_batch(q.y), (7,))):
        with pytest.raises(ValueError, match=r"weights must have shape \(7.* with loss='cross_ent"):
            fb.bptt(q.network, x, y, q.loss, weights=np.ones((*shape, 2)))
