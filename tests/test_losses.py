"""fb.bptt and fb.evaluate with every loss, against the oracle and finite differences."""

import numpy as np
import oracle
import pytest
from helpers import (
    CELLS,
    DIFFERENCES,
    DTYPES,
    GRADIENTS,
    LOSS_READOUTS,
    LOSSES,
    SIZES,
    all_results,
    assert_bptt_close,
    assert_close,
    assert_no_alias,
    assert_same_bits,
    drop_batch,
    flatten,
    in_other_layouts,
    make_problem,
    oracle_bptt,
    plain,
    spoil_beyond,
    untouched,
)

import fastbptt as fb

pytestmark = pytest.mark.usefixtures("poisoned_empty")


def check(q, x=None, y=None, **options):
    """bptt and evaluate agree with the oracle; returns bptt's result."""
    expected = oracle_bptt(q, **options)
    x, y = q.x if x is None else x, q.y if y is None else y
    floats = q.x.dtype.kind == "f"
    r = fb.bptt(q.network, x, y, q.loss, input_grad=floats, **options)
    assert_bptt_close(r, expected, q)
    assert (r.grad_x is not None) == floats
    value = fb.evaluate(q.network, x, y, loss=q.loss, **options)
    assert isinstance(value, float)
    assert_close(value, expected["loss"], LOSSES[q.dtype], "loss of evaluate")
    return r


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_and_size_is_the_oracles(cell, sizes, dtype, tokens):
    q = make_problem(cell, sizes, dtype, tokens=tokens)
    check(q)
    check(q, state=q.state, lengths=q.lengths)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss, head", LOSS_READOUTS)
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_every_loss_and_readout_is_the_oracles(cell, loss, head, dtype, reduction):
    for sizes in ((7, 3, 4, 6, 5), (1, 1, 3, 17, 2), (19, 1, 2, 5, 37)):
        q = make_problem(cell, sizes, dtype, loss, head)
        weights = q.rng.random((q.T, q.B)).astype(dtype)
        check(q, reduction=reduction)
        check(q, weights=weights, lengths=q.lengths, state=q.state, reduction=reduction)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss, head", LOSS_READOUTS)
def test_weights_scale_positions_and_zeros_leave_them_out(loss, head, reduction):
    q = make_problem("rnn-tanh", (9, 4, 3, 5, 3), "float64", loss, head)
    per_time = q.rng.random(9)
    for weights in (per_time, per_time * (per_time < 0.5), np.zeros(9), np.eye(9)[-1]):
        check(q, weights=weights, reduction=reduction)
    per_position = q.rng.standard_normal((9, 4)) * (q.rng.random((9, 4)) < 0.6)
    check(q, weights=per_position, lengths=q.lengths, reduction=reduction)
    if q.y.dtype.kind == "f":  # left out, not multiplied: 0 * NaN would be NaN
        y = np.where((per_position == 0)[..., None], np.nan, q.y)
        check(q, y=y, weights=per_position, reduction=reduction)


@pytest.mark.parametrize("loss, head", [LOSS_READOUTS[0], *LOSS_READOUTS[-2:]])
def test_what_lies_beyond_the_lengths_never_matters(loss, head):
    for tokens in (False, True):
        q = make_problem("lstm", (9, 4, 3, 5, 3), "float64", loss, head, tokens)
        spoiled = {"x": spoil_beyond(q.x, q.lengths), "y": spoil_beyond(q.y, q.lengths)}
        clean = check(q, lengths=q.lengths)
        r = check(q, **spoiled, lengths=q.lengths)
        assert all(map(np.array_equal, all_results(r), all_results(clean)))
        check(q, **spoiled, lengths=q.lengths, reduction="mean")


@pytest.mark.parametrize("loss, head", [LOSS_READOUTS[0], *LOSS_READOUTS[-2:]])
@pytest.mark.parametrize("cell", ["rnn-relu", "lstm"])
def test_leaving_out_the_batch_axis_leaves_it_out_of_the_results(cell, loss, head):
    q = make_problem(cell, (11, 1, 4, 6, 3), "float64", loss, head)
    x, y, state = drop_batch(q.x), drop_batch(q.y), drop_batch(q.state)
    for length in (None, 4, 0):
        lengths = None if length is None else np.array([length])
        weights = q.rng.random(11)
        options = {"weights": weights, "input_grad": True}
        r = fb.bptt(q.network, x, y, loss, state=state, lengths=length, **options)
        due = fb.bptt(q.network, q.x, q.y, loss, state=q.state, lengths=lengths, **options)
        assert r.loss == due.loss and r.grad_x.shape == (11, 4)
        assert all(map(np.array_equal, r.grad.arrays(), due.grad.arrays()))
        rest = flatten(drop_batch((due.grad_x, due.grad_state, due.state)))
        assert all(map(np.array_equal, flatten((r.grad_x, r.grad_state, r.state)), rest))
        one = fb.evaluate(q.network, x, y, loss=loss, weights=weights, lengths=length, state=state)
        assert_close(one, due.loss, LOSSES["float64"])


@pytest.mark.parametrize("loss, head", LOSS_READOUTS)
def test_bptt_is_the_finite_difference_of_evaluate(loss, head):
    q = make_problem("lstm", (6, 2, 2, 3, 3), "float64", loss, head)
    options = {"lengths": np.array([6, 4]), "weights": q.rng.random((6, 2)), "reduction": "mean"}
    r = fb.bptt(q.network, q.x, q.y, loss, state=q.state, input_grad=True, **options)
    inputs = [*q.network.arrays(), q.x, *q.state]
    gradient = [*r.grad.arrays(), r.grad_x, *r.grad_state]

    def value(arrays):
        network = q.network.replace_arrays(arrays[:5])
        state = tuple(arrays[6:])
        return fb.evaluate(network, arrays[5], q.y, loss=loss, state=state, **options)

    for index, array in enumerate(inputs):  # all of the array at once, in random directions
        direction = q.rng.standard_normal(array.shape)
        shifted = [list(inputs), list(inputs)]
        shifted[0][index] = array + 1e-5 * direction
        shifted[1][index] = array - 1e-5 * direction
        slope = (value(shifted[0]) - value(shifted[1])) / 2e-5
        due = (gradient[index] * direction).sum()
        scale = np.linalg.norm(gradient[index]) * np.linalg.norm(direction)
        assert abs(slope - due) <= DIFFERENCES * scale + 1e-10


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss, head", LOSS_READOUTS[-2:])
def test_cross_entropies_stay_right_where_the_readout_saturates(loss, head, dtype):
    q = make_problem("rnn-tanh", (5, 3, 2, 4, 3), dtype, loss, head)
    q.readout.V[...] *= 1000
    r = fb.bptt(q.network, q.x, q.y, loss)
    assert_close(r.loss, oracle_bptt(q)["loss"], LOSSES[dtype])
    assert all(np.isfinite(a).all() for a in r.grad.arrays())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss, head", [LOSS_READOUTS[0], *LOSS_READOUTS[-2:]])
def test_any_memory_layout_of_x_y_and_weights_gives_the_same_bits(loss, head, dtype, tmp_path):
    q = make_problem("lstm", (14, 3, 5, 9, 4), dtype, loss, head)
    weights = q.rng.random((14, 3)).astype(dtype)
    due = all_results(fb.bptt(q.network, q.x, q.y, loss, weights=weights, input_grad=True))
    given = {"x": q.x, "y": q.y, "weights": weights}
    for argument, array in given.items():
        for name, other in in_other_layouts(array, tmp_path):
            now = {**given, argument: other}
            r = fb.bptt(
                q.network, now["x"], now["y"], loss, weights=now["weights"], input_grad=True
            )
            same = map(np.array_equal, all_results(r), due)
            assert all(same), f"{argument} {name}"


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "uint64"])
def test_class_ids_may_have_any_integer_type(kind):
    q = make_problem("rnn-tanh", loss="cross_entropy", readout="softmax", tokens=True)
    due = fb.bptt(q.network, q.x, q.y, q.loss)
    r = fb.bptt(q.network, q.x.astype(kind), q.y.astype(kind), q.loss)
    assert all(map(np.array_equal, all_results(r), all_results(due)))


@pytest.mark.parametrize("T", [5, 0])
def test_inputs_are_not_modified_and_results_do_not_alias_them(T):
    q = make_problem("lstm", (T, 2, 3, 4, 2))
    weights = q.rng.random((T, 2))
    given = [q.x, q.y, weights, *q.state, q.lengths, *q.network.arrays()]
    unchanged = untouched(*given)
    for memory in ("full", fb.Checkpointed(segment=2), fb.Truncated(1, 2)):
        r = fb.bptt(q.network, q.x, q.y, weights=weights, lengths=q.lengths, state=q.state,
                    memory=memory, input_grad=True)  # fmt: skip
        assert_no_alias(all_results(r), given)
        for result in all_results(r):
            result[...] = 7
        fb.evaluate(q.network, q.x, q.y, loss="squared_error", weights=weights, state=q.state)
    unchanged()
    first = all_results(fb.bptt(q.network, q.x, q.y))
    unchanged = untouched(*first)
    fb.bptt(q.network, 2 * q.x, q.y)
    unchanged()


def test_the_loss_is_added_in_float64():
    """2**24 + 1 has no float32: a float32 sum would stop growing at 2**24."""
    layer = fb.RNN(*(np.zeros(s, "float32") for s in ((1, 1), (1, 1), (1,))))
    readout = fb.Readout(np.zeros((1, 1), "float32"), np.zeros(1, "float32"))
    y = np.ones((64, 1, 1), "float32")
    y[0] = 4096
    r = fb.bptt(fb.Network(layer, readout), np.zeros((64, 1, 1), "float32"), y)
    assert r.loss == 2.0**24 + 63


class CountedSquares:
    """A callable loss, sum of (h - y)**2, that records the positions and shapes of its calls."""

    def __init__(self, with_y=True):
        self.with_y, self.seen, self.shapes = with_y, [], set()

    def __call__(self, h, y, start):
        assert (y is not None) == self.with_y
        assert y is None or y.shape == h.shape
        self.seen += range(start, start + len(h))
        self.shapes.add(h.shape[1:])
        d = h - y if self.with_y else h
        return float((d.astype(float) ** 2).sum()), 2 * d


@pytest.mark.parametrize("memory", ["full", fb.Checkpointed(segment=7), fb.Truncated(3, 8)],
                         ids=str)  # fmt: skip
@pytest.mark.parametrize("with_y", [True, False], ids=["y", "no-y"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_callable_loss_sees_every_position_once_and_replaces_the_readout(dtype, with_y, memory):
    q = make_problem("lstm", (50, 3, 4, 6, 6), dtype)
    y = q.y if with_y else None
    truncation = (3, 8) if isinstance(memory, fb.Truncated) else None
    eye = {"V": np.eye(6), "c": np.zeros(6), "activation": "identity"}
    due = oracle.bptt(
        plain(q.layer), eye, q.x.astype(float), q.y.astype(float) * with_y, truncation=truncation
    )
    for network in (q.network, fb.Network(q.layer, None)):
        loss = CountedSquares(with_y)
        r = fb.bptt(network, q.x, y, loss, memory=memory)
        assert sorted(loss.seen) == list(range(50)) and loss.shapes == {(3, 6)}
        assert_close(r.loss, due["loss"], LOSSES[dtype])
        for name in "UWb":
            assert_close(getattr(r.grad.layer, name), due["layer"][name], GRADIENTS[dtype], name)
        if network.readout is None:
            assert r.grad.readout is None
        else:
            assert not any(a.any() for a in r.grad.readout.arrays())
        loss = CountedSquares(with_y)
        assert_close(fb.evaluate(network, q.x, y, loss=loss), due["loss"], LOSSES[dtype])
        assert sorted(loss.seen) == list(range(50))


def test_a_callable_loss_sees_no_batch_axis_where_there_is_none():
    q = make_problem("rnn-tanh", (20, 1, 4, 6, 6))
    loss = CountedSquares()
    r = fb.bptt(q.network, q.x[:, 0], q.y[:, 0], loss)
    due = fb.bptt(q.network, q.x, q.y, CountedSquares())
    assert loss.shapes == {(6,)} and r.loss == pytest.approx(due.loss, rel=1e-12)
    assert_close(r.grad.layer.W, due.grad.layer.W, GRADIENTS["float64"])


def test_a_callable_loss_cannot_reach_beyond_the_lengths():
    q = make_problem("rnn-tanh", (9, 4, 3, 5, 5))

    def spoiled(h, y, start):
        live = (np.arange(start, start + len(h))[:, None] < q.lengths)[..., None]
        assert not h[~live[..., 0]].any()
        return float((np.where(live, h, 0) ** 2).sum()), np.where(live, 2 * h, np.nan)

    r = fb.bptt(q.network, q.x, None, spoiled, lengths=q.lengths, input_grad=True)
    clean = fb.bptt(q.network, q.x, None, CountedSquares(False), lengths=q.lengths, input_grad=True)
    assert r.loss == pytest.approx(clean.loss, rel=1e-12)
    for got, due in zip(all_results(r), all_results(clean), strict=True):
        assert_close(got, due, GRADIENTS["float64"])


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("kind", ["?", "b", "B", "h", "H", "i", "I", "q", "Q", "f", "d"])
def test_weights_of_any_type_count_as_their_values(kind, reduction):
    """The least value of a signed type has no positive counterpart, but it is not 0."""
    q = make_problem("rnn-tanh", (6, 2, 3, 4, 2))
    ends = np.iinfo(kind) if np.dtype(kind).kind in "iu" else np.finfo("f4")
    least, most = (False, True) if kind == "?" else (ends.min, ends.max)
    values = [least, most, 0, 1, least, 0] if kind != "d" else [-2.0, np.pi, 0, -0.0, 1e-300, 1]
    per_time = np.array(values, kind)
    for weights in (per_time, np.stack([per_time, per_time[::-1]], axis=1)):
        r, due = (
            fb.bptt(q.network, q.x, q.y, weights=w, reduction=reduction)
            for w in (weights, weights.astype(float))
        )
        assert_same_bits(r, due)
        many = np.broadcast_to(weights.reshape(6, -1), (6, 2)).astype(float)
        expected = oracle_bptt(q, weights=many, reduction=reduction)
        assert_close(r.loss, expected["loss"], LOSSES["float64"], "loss")
        value = fb.evaluate(q.network, q.x, q.y, weights=weights, reduction=reduction)
        assert_close(value, expected["loss"], LOSSES["float64"], "evaluate")
