"""Arrays of other packages, in every argument: the bits are those of NumPy's."""

import numpy as np
import pytest
from arrays_brought import FRAMES, KINDS, PLACES, Exporter, module, problem
from checks import rejected
from helpers import untouched
from test_walk import numbers

import fastbptt as fb
from fastbptt import arguments

# Frames have at most two axes; without a batch axis, lengths are an int.
CASES = [
    (kind, place, batch)
    for kind in KINDS
    for place in PLACES
    for batch in (True, False)
    if batch == (kind not in FRAMES) and (batch or "lengths" not in place)
]


def assert_same(found, due):
    found, due = numbers(found), numbers(due)
    assert [(a.dtype, a.shape) for a in found] == [(a.dtype, a.shape) for a in due]
    assert all(np.array_equal(a, b) for a, b in zip(found, due, strict=True))


@pytest.mark.parametrize("kind, place, batch", CASES)
def test_any_kind_of_array_in_any_argument(kind, place, batch, tmp_path):
    p = problem(batch)
    _, call = PLACES[place]
    check = untouched(p.x, p.y, p.state, p.dh, p.tokens, p.weights)
    made = []

    def make(array):
        made.append(KINDS[kind](array, tmp_path))
        return made[-1]

    due = call(p, lambda array: array)
    assert_same(call(p, make), due)
    assert made
    check()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("kind", ["torch", "dlpack", "read-only dlpack", "xarray", "memoryview"])
def test_what_is_in_memory_is_not_copied(kind, dtype, tmp_path):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    given = KINDS[kind](array, tmp_path)
    found = arguments.array("x", given)
    assert type(found) is np.ndarray and found.dtype == array.dtype
    assert np.array_equal(found, array)
    again = arguments.array("x", given)
    assert found.ctypes.data == again.ctypes.data


def test_strides_of_a_tensor_are_kept():
    tensor = module("torch").arange(24.0).reshape(4, 3, 2).transpose(0, 1)
    found = arguments.array("x", tensor)
    assert found.shape == (3, 4, 2) and found.ctypes.data == tensor.data_ptr()


def test_weights_of_a_tensor_are_read_afresh():
    p, torch = problem(), module("torch")
    W = torch.from_numpy(p.layer.W.copy())
    layer = fb.RNN(p.layer.U, W, p.layer.b)
    assert type(layer.W) is np.ndarray and layer.W.ctypes.data == W.data_ptr()
    W *= 0.5
    halved = fb.RNN(p.layer.U, p.layer.W * np.float32(0.5), p.layer.b)
    assert_same(fb.run(layer, p.x), fb.run(halved, p.x))


@pytest.mark.parametrize("make", [list, tuple, np.array, lambda a: [np.int32(n) for n in a]])
def test_lengths_may_be_a_list(make):
    p = problem()
    lengths = [2, p.T, 0]
    due = fb.run(p.layer, p.x, lengths=np.array(lengths))
    assert_same(fb.run(p.layer, p.x, lengths=make(lengths)), due)


def test_lists_of_numbers_are_arrays_of_the_dtype_that_they_have():
    p = problem(batch=False)
    layer = fb.RNN.init(p.I, p.H, rng=0, dtype="float64")
    x = p.x.astype(float)
    assert_same(fb.run(layer, x.tolist()), fb.run(layer, x))
    assert_same(fb.run(layer, [[0, 0.5, 1, 2]]), fb.run(layer, np.array([[0, 0.5, 1, 2]])))
    assert_same(fb.run(p.layer, p.tokens.tolist()), fb.run(p.layer, p.tokens))
    weights = [0, 1, 0.5, 2, 1, 0]
    due = fb.evaluate(p.network, p.x, p.y, weights=np.array(weights))
    assert fb.evaluate(p.network, p.x, p.y, weights=weights) == due
    rejected(lambda: fb.run(p.layer, p.x.tolist()), "x", "list", "float64", "float32")


def test_no_lengths_of_no_sequences():
    assert fb.run(fb.RNN.init(2, 3), np.zeros((4, 0, 2), "f4"), lengths=[])[0].shape == (4, 0, 3)


def test_a_callable_loss_gets_the_rows_of_a_frame_by_position():
    pandas, p = module("pandas"), problem(batch=False)
    y = pandas.DataFrame(p.y, index=np.linspace(0.5, 0.9, p.T))  # brackets would go by these labels

    def loss(h, y, start):
        d = h[:, : p.O] - np.asarray(y)
        dh = np.zeros_like(h)
        dh[:, : p.O] = 2 * d
        return float((d**2).sum()), dh

    due = fb.bptt(p.network, p.x, p.y, loss)
    found = fb.bptt(p.network, p.x, y, loss)
    assert found.loss == due.loss and np.array_equal(found.grad.layer.W, due.grad.layer.W)
    norms = [fb.gradient_reach(p.network, p.x, one, loss).norms for one in (y, p.y)]
    assert np.array_equal(*norms)


@pytest.mark.parametrize("shape", [(6, 3, 4), (6, 4)])
def test_integer_features_are_told_from_tokens(shape):
    p = problem()
    x = np.full(shape, 7)
    words = ("x", "tokens", "features", "astype('float32')")
    rejected(lambda: fb.run(p.layer, x), *words, errors=(ValueError,))


class Plain(np.ndarray):
    """A sub-class that means the same by its numbers."""


def test_a_sub_class_that_changes_nothing_is_an_array():
    p = problem()
    assert_same(fb.run(p.layer, p.x.view(Plain)), fb.run(p.layer, p.x))


def test_an_old_exporter_that_knows_no_versions():
    class Old(Exporter):
        def __dlpack__(self, stream=None):
            return self._array.__dlpack__()

    array = np.arange(3.0)
    assert np.shares_memory(arguments.array("x", Old(array)), array)
