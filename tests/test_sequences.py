"""pad, pack, unpad and unpack: lists of sequences as one array, and back."""

from inspect import signature
from itertools import pairwise

import numpy as np
import pytest
from helpers import assert_close, make_problem, untouched

import fastbptt as fb

LENGTHS = [5, 9, 0, 2, 7, 9, 1]


def series(shape=(3,), dtype="float64", lengths=LENGTHS):
    rng = np.random.default_rng(1)
    make = rng.standard_normal if np.dtype(dtype).kind == "f" else lambda s: rng.integers(0, 9, s)
    return [np.asarray(make((n, *shape))).astype(dtype) for n in lengths]


KINDS = [((3,), "float64"), ((1,), "float32"), ((), "int64"), ((), "uint8"), ((), "float32"),
         ((2,), "bool")]  # fmt: skip


@pytest.mark.parametrize("shape, dtype", KINDS)
def test_what_is_padded_is_got_back(shape, dtype):
    given = series(shape, dtype)
    unchanged = untouched(*given)
    x, lengths = fb.pad(given)
    assert x.shape == (9, 7, *shape) and x.dtype == dtype and lengths.tolist() == LENGTHS
    assert not any(x[n:, b].any() for b, n in enumerate(LENGTHS))
    for ends in (lengths, LENGTHS, lengths.astype("u1")):
        back = fb.unpad(x, ends)
        assert all(map(np.array_equal, back, given)) and len(back) == 7
    back[0][...] = 1
    x[...] = 1
    unchanged()


@pytest.mark.parametrize("batch", [1, 2, 3, 20])
@pytest.mark.parametrize("shape, dtype", KINDS)
def test_what_is_packed_is_got_back(shape, dtype, batch):
    given = series(shape, dtype)
    unchanged = untouched(*given)
    x, resets, lengths, where = fb.pack(given, batch)
    T = lengths.max()
    assert x.shape == (T, batch, *shape) and x.dtype == dtype
    assert resets.shape == (T, batch) and resets.dtype == bool
    assert lengths.sum() == sum(LENGTHS) and where.shape == (7, 3)
    back = fb.unpack(x, where)
    assert all(map(np.array_equal, back, given)) and len(back) == 7
    begins = {(start, b) for (b, start, stop) in where.tolist() if stop > start}
    assert begins == {tuple(at) for at in np.argwhere(resets).tolist()}
    used = np.zeros((T, batch), int)
    for b, start, stop in where:
        used[start:stop, b] += 1
    assert np.array_equal(used, np.arange(T)[:, None] < lengths)  # once each, and without gaps
    assert not x[used == 0].any()
    back[0][...] = 1
    x[...] = 1
    unchanged()


def test_rows_are_balanced_the_longest_first():
    _, _, lengths, where = fb.pack(series(), 3)
    assert sorted(lengths.tolist()) == [10, 11, 12]
    assert where[1].tolist() == [0, 0, 9] and where[5].tolist() == [1, 0, 9]
    assert where[4].tolist() == [2, 0, 7] and where[0].tolist() == [2, 7, 12]
    targets = fb.pack(series((2,), "float32"), 3)
    assert np.array_equal(targets[3], where)  # by the lengths alone: targets fit their inputs
    many = np.random.default_rng(0).integers(1, 100, 200)
    _, _, lengths, _ = fb.pack([np.zeros((n, 1)) for n in many], 8)
    assert lengths.max() - lengths.min() <= 5


def test_states_of_padded_sequences_are_those_of_each_alone():
    q = make_problem("lstm", (9, 7, 3, 5, 2))
    given = series()
    x, lengths = fb.pad(given)
    h, _ = fb.run(q.layer, x, lengths=lengths)
    for one, own in zip(fb.unpad(h, lengths), given, strict=True):
        assert_close(one, fb.run(q.layer, own)[0], 1e-12)


def test_states_of_packed_sequences_are_those_of_each_alone_if_cut_where_resets_are():
    q = make_problem("lstm", (9, 7, 3, 5, 2))
    given = series()
    x, resets, lengths, where = fb.pack(given, 2)
    h = np.zeros((*x.shape[:2], 5))
    for b in range(2):
        cuts = [*np.flatnonzero(resets[:, b]), lengths[b]]
        for start, stop in pairwise(cuts):
            h[start:stop, b] = fb.run(q.layer, x[start:stop, b])[0]
    for one, own in zip(fb.unpack(h, where), given, strict=True):
        assert_close(one, fb.run(q.layer, own)[0], 1e-12)


@pytest.mark.skipif(
    "resets" not in signature(fb.bptt).parameters, reason="bptt does not take resets yet"
)
def test_the_gradient_of_packed_sequences_is_the_sum_of_those_of_each_alone():
    q = make_problem("lstm", (9, 7, 3, 5, 2))
    given, targets = series(), series((2,))
    alone = [fb.bptt(q.network, x, y) for x, y in zip(given, targets, strict=True)]
    for batch in (1, 2, 3):
        x, resets, lengths, _ = fb.pack(given, batch)
        y = fb.pack(targets, batch)[0]
        r = fb.bptt(q.network, x, y, resets=resets, lengths=lengths)
        assert r.loss == pytest.approx(sum(one.loss for one in alone), rel=1e-12)
        assert_close(r.grad.flat(), sum(one.grad.flat() for one in alone), 1e-12)


def test_sequences_of_no_steps_are_legal():
    empty = [np.zeros((0, 3), "f4")] * 2
    x, lengths = fb.pad(empty)
    assert x.shape == (0, 2, 3) and lengths.tolist() == [0, 0]
    x, resets, lengths, where = fb.pack(empty)
    assert x.shape == (0, 1, 3) and resets.shape == (0, 1) and not where.any()
    assert [one.shape for one in fb.unpack(x, where)] == [(0, 3), (0, 3)]
    assert fb.unpad(np.zeros((4, 0, 3)), []) == []


def test_without_the_batch_axis_there_is_one_length():
    h = np.arange(12.0).reshape(6, 2)
    (one,) = fb.unpad(h, 4)
    assert np.array_equal(one, h[:4])
    assert np.array_equal(fb.unpad(np.arange(6), np.int64(2))[0], [0, 1])


A, I8 = np.zeros((4, 3)), np.zeros(4, "i8")
WRONG = [
    ([], ValueError, "sequences must hold at least one array"),
    (A, TypeError, "sequences must be a list of arrays, not float64 array"),
    ([A, A.astype("f4")], TypeError, r"sequences\[1\] must be float64 like sequences\[0\]"),
    ([A, np.zeros((4, 2))], ValueError, r"sequences\[1\] must have shape \(T, 3\), not \(4, 2\)"),
    ([A, np.zeros(4)], ValueError, r"sequences\[1\] must have shape \(T, 3\), not \(4,\)"),
    ([np.zeros((2, 3, 4))], ValueError, r"sequences\[0\] must have shape \(T,\) or \(T, I\)"),
    ([np.array(1.0)], ValueError, r"sequences\[0\] must have shape"),
    ([np.array(["a"])], TypeError, r"sequences\[0\] must be an array of"),
    ([A, None], TypeError, r"sequences\[1\] must be"),
]


@pytest.mark.parametrize("given, error, words", WRONG)
def test_a_wrong_list_is_an_error(given, error, words):
    for function in (fb.pad, fb.pack):
        with pytest.raises(error, match=words):
            function(given)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: fb.pack([A], 0), ValueError, "batch must be at least 1"),
        (lambda: fb.pack([A], 1.0), TypeError, "batch must be an integer"),
        (lambda: fb.unpad(A, [1, 2]), ValueError, r"lengths must have shape \(3,\)"),
        (lambda: fb.unpad(A, [1, 2, 5]), ValueError, r"lengths\[2\] must be at most 4"),
        (lambda: fb.unpad(A, [1, 2, -1]), ValueError, r"lengths\[2\] must be at least 0"),
        (lambda: fb.unpad(A, [1, 2, 1.5]), TypeError, "lengths must be integers"),
        (lambda: fb.unpad(I8, [4]), ValueError, r"h must have shape \(T, B, ...\)"),
        (lambda: fb.unpad(A, 5), ValueError, r"lengths\[0\] must be at most 4"),
        (lambda: fb.unpad(None, [4]), TypeError, "h must be"),
        (lambda: fb.unpack(A, np.zeros((2, 2), int)), ValueError, r"where must have shape \(n"),
        (lambda: fb.unpack(A, [[3, 0, 1]]), ValueError, r"where\[0\] is \(3, 0, 1\)"),
        (lambda: fb.unpack(A, [[0, 2, 1]]), ValueError, "where must lie within h of 4 steps"),
        (lambda: fb.unpack(A, [[0, 0, 5]]), ValueError, r"where\[0\] is \(0, 0, 5\)"),
        (lambda: fb.unpack(A, [[0.0, 0, 4]]), TypeError, "where must be integers"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_an_error(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_one_length_is_of_one_sequence():
    with pytest.raises(TypeError, match="lengths"):
        fb.unpad(np.zeros((5, 3, 2)), 4)
