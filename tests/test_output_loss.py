"""fb.OutputLoss: a caller's own loss of the readout's outputs."""

import numpy as np
import pytest
from checks import check_peak, least_bytes, policy
from helpers import (
    BOTH_WAYS,
    DIFFERENCES,
    DTYPES,
    GRADIENTS,
    LOSSES,
    STACKS,
    all_results,
    assert_bptt_close,
    assert_close,
    drop_batch,
    make_problem,
    oracle_bptt,
    spoil_beyond,
    untouched,
)

import fastbptt as fb

pytestmark = pytest.mark.usefixtures("poisoned_empty")

READOUTS = ["identity", "sigmoid", "tanh", "softmax"]


class Squares:
    """The squared error within the lengths, as a function of the outputs that records its calls."""

    def __init__(self, lengths=None):
        self.lengths, self.seen, self.shapes = lengths, [], set()

    def __call__(self, o, y, start):
        self.seen += range(start, start + len(o))
        self.shapes.add(o.shape[1:])
        live = np.ones(o.shape, bool)
        if self.lengths is not None:
            live = np.arange(start, start + len(o))[:, None] < self.lengths
            live = np.broadcast_to(live[..., None], o.shape)
            assert not o[~live].any()
        d = np.where(live, o - y, 0)
        return (d.astype(float) ** 2).sum(), np.where(live, 2 * d, np.nan).astype(o.dtype)


def check(q, **options):
    """An OutputLoss of squares is the oracle's squared error; returns bptt's result."""
    truncated = options.pop("truncation", None)
    memory = fb.Truncated(*truncated) if truncated else options.pop("memory", "full")
    squares = Squares(options.get("lengths"))
    r = fb.bptt(q.network, q.x, q.y, fb.OutputLoss(squares), memory=memory,
                input_grad=q.x.dtype.kind == "f", **options)  # fmt: skip
    expected = oracle_bptt(q, truncation=truncated, **options)
    assert_bptt_close(r, expected, q)
    assert sorted(squares.seen) == list(range(q.T)) and squares.shapes <= {(q.B, q.O)}
    squares.seen.clear()
    value = fb.evaluate(q.network, q.x, q.y, fb.OutputLoss(squares), **options)
    assert_close(value, expected["loss"], LOSSES[q.dtype])
    assert sorted(squares.seen) == list(range(q.T))
    return r


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", STACKS[0], BOTH_WAYS[0]])
def test_the_gradient_goes_through_every_readout_and_layer(cell, readout, dtype):
    for sizes in ((50, 3, 4, 6, 5), (1, 1, 1, 1, 1), (0, 2, 3, 5, 2)):
        q = make_problem(cell, sizes, dtype, readout=readout)
        check(q)
        check(q, lengths=q.lengths, state=q.state)


@pytest.mark.parametrize("cell", ["rnn-tanh", STACKS[0], BOTH_WAYS[0]])
def test_every_exact_schedule_and_number_of_threads_gives_the_same_gradient_bits(cell, set_threads):
    q = make_problem(cell, (61, 3, 4, 6, 5), tokens=True)
    due = all_results(check(q, lengths=q.lengths))[1:]
    memories = ["full", fb.Checkpointed(segment=7), least_bytes(q.network, q.T, q.B)]
    for threads, memory in enumerate(memories, 1):
        set_threads(threads)
        got = all_results(check(q, memory=memory, lengths=q.lengths))[1:]
        assert all(map(np.array_equal, got, due)), memory


@pytest.mark.parametrize("truncation", [(3, 8), (1, 50), (7, 7)])
def test_windows_take_each_loss_once(truncation):
    check(make_problem("lstm", (50, 3, 4, 6, 5), readout="sigmoid"), truncation=truncation)


def test_a_long_sequence_is_asked_about_in_many_spans():
    q = make_problem("rnn-tanh", (9000, 1, 2, 4, 3), "float32")
    calls = []

    def squares(o, y, start):
        calls.append((start, len(o)))
        return float(((o - y).astype(float) ** 2).sum()), 2 * (o - y)

    r = fb.bptt(q.network, q.x, q.y, fb.OutputLoss(squares))
    due = fb.bptt(q.network, q.x, q.y)
    assert len(calls) > 2 and sum(n for _, n in calls) == q.T
    assert r.loss == pytest.approx(due.loss, rel=1e-9)
    assert all(map(np.array_equal, all_results(r)[1:], all_results(due)[1:]))


def test_without_the_batch_axis_the_function_sees_none():
    q = make_problem("rnn-tanh", (20, 1, 4, 6, 5))
    squares = Squares()
    r = fb.bptt(q.network, drop_batch(q.x), drop_batch(q.y), fb.OutputLoss(squares))
    due = fb.bptt(q.network, q.x, q.y)
    assert squares.shapes == {(5,)} and r.loss == pytest.approx(due.loss, rel=1e-12)
    assert all(map(np.array_equal, r.grad.arrays(), due.grad.arrays()))


def test_a_cross_entropy_written_by_hand_is_the_one_by_name():
    q = make_problem("gru", (30, 2, 3, 5, 4), loss="cross_entropy", readout="softmax")

    def cross_entropy(o, y, start):
        chosen = np.take_along_axis(o, y[..., None], axis=2)
        do = np.zeros_like(o)
        np.put_along_axis(do, y[..., None], -1 / chosen, axis=2)
        return -np.log(chosen).sum(), do

    r = fb.bptt(q.network, q.x, q.y, fb.OutputLoss(cross_entropy), input_grad=True)
    assert_bptt_close(r, oracle_bptt(q), q)


@pytest.mark.parametrize("readout", READOUTS)
def test_bptt_is_the_finite_difference_of_evaluate(readout):
    q = make_problem("rnn-tanh", (6, 2, 2, 3, 3), readout=readout)
    loss = fb.OutputLoss(lambda o, y, start: ((o**3).sum() + (o[0] * o[-1]).sum(),
                                              3 * o**2 + slope_of_ends(o)))  # fmt: skip

    def slope_of_ends(o):
        d = np.zeros_like(o)
        d[0] += o[-1]
        d[-1] += o[0]
        return d

    r = fb.bptt(q.network, q.x, None, loss)
    arrays = q.network.arrays()
    for index, array in enumerate(arrays):
        step = 1e-5 * q.rng.standard_normal(array.shape)
        ends = []
        for sign in (1, -1):
            moved = [a + sign * step if i == index else a for i, a in enumerate(arrays)]
            network = q.network.replace_arrays(moved)
            ends.append(fb.evaluate(network, q.x, None, loss))
        due = (r.grad.arrays()[index] * step).sum()
        scale = np.linalg.norm(r.grad.arrays()[index]) * np.linalg.norm(step)
        assert abs((ends[0] - ends[1]) / 2 - due) <= DIFFERENCES * scale + 1e-13


def test_what_the_function_does_with_its_arrays_changes_nothing():
    q = make_problem("rnn-tanh", (40, 2, 3, 5, 4), "float32")
    due = fb.bptt(q.network, q.x, q.y)
    unchanged = untouched(q.x, q.y, *q.network.arrays())
    kept, one = [], np.empty((40, 2, 4), "f4")

    def keeps(o, y, start):
        kept.append((start, o))
        return 0, np.asfortranarray(2 * (o - y))

    def overwrites(o, y, start):
        o -= y
        o *= 2
        return 0, o

    def returns_the_same_array(o, y, start):
        one[: len(o)] = 2 * (o - y)
        return 0, one[: len(o)]

    memory = fb.Checkpointed(segment=6)
    for function in (keeps, overwrites, returns_the_same_array):
        r = fb.bptt(q.network, q.x, q.y, fb.OutputLoss(function), memory=memory)
        assert all(map(np.array_equal, r.grad.arrays(), due.grad.arrays())), function
    outputs, _ = fb.predict(q.network, q.x)
    kept.sort(key=lambda pair: pair[0])
    assert np.array_equal(np.concatenate([o for _, o in kept]), outputs)
    unchanged()


def test_what_lies_beyond_the_lengths_never_matters():
    q = make_problem("lstm", (9, 4, 3, 5, 3))
    q.x = spoil_beyond(q.x, q.lengths)
    q.y = spoil_beyond(q.y, q.lengths)
    for memory in ("full", fb.Checkpointed(segment=2)):
        check(q, lengths=q.lengths, memory=memory)


def test_gradient_reach_is_that_of_the_same_loss_by_name():
    q = make_problem("rnn-tanh", (60, 2, 3, 5, 4))
    own = fb.OutputLoss(lambda o, y, start: (1.0, 2 * (o - y)))
    got = fb.gradient_reach(q.network, q.x, q.y, own, max_lag=20)
    due = fb.gradient_reach(q.network, q.x, q.y, max_lag=20)
    assert_close(got.norms, due.norms, GRADIENTS["float64"])
    assert got.k2 == due.k2


@pytest.mark.parametrize("memory", ["full", 0.05, fb.Truncated(40, 100)], ids=str)
@pytest.mark.parametrize("order", "CF")
def test_measured_peak_is_within_the_plan(memory, order):
    q = make_problem("lstm", (1500, 3, 4, 8, 40), "float32")
    do = np.ones((1500, 3, 40), "f4", order)
    memory = policy(memory, q.network, q.T, q.B)
    loss = fb.OutputLoss(lambda o, y, start: (0.0, do[: len(o)]))
    fb.bptt(q.network, q.x, None, loss)  # all is loaded when it is measured
    r, _ = check_peak(q.network, q.x, None, loss=loss, memory=memory)
    assert r.plan == fb.plan(q.network, q.T, q.B, memory=memory, loss=loss)


WRONG = [
    (lambda o, y, start: 2 * o, TypeError, r"loss must return a pair \(value, do\), not"),
    (lambda o, y, start: (o, o), TypeError, "loss must return a number first"),
    (
        lambda o, y, start: (0.0, o[:1]),
        ValueError,
        r"do returned by loss must have shape \(2, 3, 2",
    ),
    (lambda o, y, start: (0.0, o.astype("f4")), TypeError, "do returned by loss must be float64"),
    (lambda o, y, start: (0.0, None), TypeError, "do returned by loss must be"),
]


@pytest.mark.parametrize("function, error, words", WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_a_wrong_answer_is_an_error(function, error, words):
    q = make_problem()
    with pytest.raises(error, match=words):
        fb.bptt(q.network, q.x, q.y, fb.OutputLoss(function))
    with pytest.raises(error, match=words):
        fb.evaluate(q.network, q.x, q.y, fb.OutputLoss(function))
    check(q)  # the package goes on


@pytest.mark.parametrize(
    "options, words",
    [
        ({"weights": np.ones(7)}, "weights must be None with an OutputLoss"),
        ({"reduction": "mean"}, 'reduction must be "sum" with an OutputLoss'),
        ({"y": np.zeros((6, 3, 2))}, "y must have T=7 entries"),
        ({"network": None}, "needs a readout, but the network's readout is None"),
    ],
)
def test_a_wrong_argument_is_an_error_before_any_work(options, words):
    q, called = make_problem(), []
    given = {"network": q.network, "x": q.x, "y": q.y} | options
    given["network"] = given["network"] or fb.Network(q.layer, None)
    for function in (fb.bptt, fb.evaluate):
        with pytest.raises(ValueError, match=words):
            function(loss=fb.OutputLoss(lambda *_: called.append(1)), **given)
    with pytest.raises(TypeError, match="function must be a callable"):
        fb.OutputLoss("squared_error")
    assert not called


def test_an_exception_of_the_function_reaches_the_caller():
    q = make_problem()

    def fails(o, y, start):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fb.bptt(q.network, q.x, q.y, fb.OutputLoss(fails))
    check(q)


def test_the_class_is_no_loss():
    q = make_problem("rnn-tanh", (5, 2, 3, 4, 2), "float32")
    with pytest.raises(TypeError, match=r"loss must be .*OutputLoss\(f\)"):
        fb.bptt(q.network, q.x, q.y, fb.OutputLoss)
