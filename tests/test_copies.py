"""Compiled code reads and writes arrays of any layout, span by span: the bits are those of NumPy.

Python's own readers and writers, which a GPU uses, are the reference: `in_python` has them do it.
"""

from collections import Counter

import numpy as np
import pytest
from arrays_brought import Slices
from fastbptt.kernels.cpu.bound import Bound
from fastbptt.kernels.cpu.slots import READ, READ_BACK, WRITE, WRITE_BACK
from test_walk import numbers

import fastbptt as fb
from fastbptt.engine.copies import Copy

rng = np.random.default_rng(7)
T, B, I, H, O = 150, 3, 5, 6, 4
COPYING = {READ, WRITE, READ_BACK, WRITE_BACK}
DTYPES = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
MEMORIES = ["full", "least", "windows"]

LAYER = fb.LSTM.init(I, H, rng=0)
BOTH = fb.Bidirectional(fb.LSTM.init(I, H, rng=0), fb.LSTM.init(I, H, rng=1))
LENGTHS = np.array([T, 40, 0])
TOKENS = rng.integers(0, I, (T, B))
CLASSES = rng.integers(0, O, (T, B))
X = rng.normal(size=(T, B, I)).astype(np.float32)
Y = rng.normal(size=(T, B, O)).astype(np.float32)


def network(layer, activation="softmax"):
    return fb.Network(layer, fb.Readout.init(layer.outputs, O, rng=3, activation=activation))


def memory_of(name, net):
    if name == "least":
        return fb.Checkpointed(fb.frontier(net, T, B).checkpointed[-1].peak_bytes)
    return fb.Truncated(8, 20) if name == "windows" else "full"


def gradient(layer, x, y, memory, **given):
    """Everything that `bptt` returns."""
    net = network(layer, "softmax" if y.ndim == 2 else "identity")
    loss = "cross_entropy" if y.ndim == 2 else "squared_error"
    given["input_grad"] = x.ndim == 3
    r = fb.bptt(net, x, y, loss, memory=memory_of(memory, net), **given)
    return numbers((r.loss, r.grad, r.state, r.grad_state, r.grad_x))


def assert_same(found, due):
    for array, expected in zip(found, due, strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.fixture
def returns(monkeypatch):
    """How often the walk has returned with each status."""
    walk, counted = Bound.walk, Counter()

    def counting(self, rows, budget):
        status = walk(self, rows, budget)
        counted[status] += 1
        return status

    beside = Bound.walk_beside

    def counting_both(self, rows, other, other_rows, budget):
        beside(self, rows, other, other_rows, budget)
        counted.update((self.status, other.status))

    monkeypatch.setattr(Bound, "walk", counting)
    monkeypatch.setattr(Bound, "walk_beside", counting_both)
    return counted


@pytest.fixture
def in_python(monkeypatch):
    """Calls a function while Python makes all copies, and checks that it does."""

    def call(function, *args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(Copy, "possible", False)
            return function(*args, **kwargs)

    return call


def strided(array):
    """Every second number of one axis, backwards along another, in Fortran's order."""
    wider = np.repeat(array, 2, axis=-1)
    return np.asfortranarray(wider[::-1])[::-1, ..., ::2]


def wide(array):
    """The columns of a wider array: numbers of a row still lie one after the other."""
    return np.concatenate([array, array], axis=-1)[..., : array.shape[-1]]


def backwards(array):
    return np.ascontiguousarray(array[::-1, ..., ::-1])[::-1, ..., ::-1]


LAYOUTS = [strided, wide, backwards]


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_of_any_dtype_are_read_as_int64(dtype, memory, returns):
    due = gradient(LAYER, TOKENS, CLASSES, memory)
    for relaid in (np.array, strided):
        x, y = relaid(TOKENS.astype(dtype)), relaid(CLASSES.astype(dtype))
        assert_same(gradient(LAYER, x, y, memory), due)
    assert not COPYING & returns.keys()


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_floats_of_any_layout_are_read_where_they_lie(layout, memory, lengths, returns):
    due = gradient(LAYER, X, Y, memory, lengths=lengths)
    assert_same(gradient(LAYER, layout(X), layout(Y), memory, lengths=lengths), due)
    assert not COPYING & returns.keys()


def weights_of_all_kinds():
    some = np.array([0, 1, 2, 3, 0, 100])[rng.integers(0, 6, (T, B))]
    for dtype in [*DTYPES, "float32", "float64", "bool"]:
        yield dtype, some.astype(dtype)
    yield "large", np.uint64(2**63) + some.astype("uint64") * np.uint64(1025)
    for dtype in ("float32", "float64"):
        least = np.finfo(dtype).smallest_subnormal
        odd = np.array([0, -0.0, least, -least, 3 * least, np.finfo(dtype).tiny, 0.1], dtype)
        yield f"subnormal {dtype}", odd[rng.integers(0, len(odd), (T, B))]
        yield f"NaN {dtype}", np.where(rng.random((T, B)) < 0.01, np.nan, some).astype(dtype)


WEIGHTS = dict(weights_of_all_kinds())


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_of_any_dtype_and_layout(kind, memory, returns, in_python):
    """Those that are 0 or subnormal as float64 do not count, and what they weigh may be wrong."""
    weights = WEIGHTS[kind]
    constant = np.broadcast_to(weights[:1], (T, B))  # no bytes from a time to the next
    for w in (weights, strided(weights), constant, weights[:, 0]):
        values = w.astype(np.float64).reshape(T, -1)
        y = np.where(np.abs(values) < np.finfo(np.float64).tiny, -1, CLASSES)
        due = in_python(gradient, LAYER, TOKENS, y, memory, weights=w)
        returns.clear()
        assert_same(gradient(LAYER, TOKENS, y, memory, weights=w), due)
        assert not COPYING & returns.keys()


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("x", [X, strided(X), TOKENS.astype("uint8")], ids=["C", "strided", "ids"])
def test_directions_read_and_write_their_columns_in_their_own_time(x, lengths, returns, in_python):
    """Both directions of a Bidirectional, whose gradients by x add, and a stack of two."""

    def results(layer):
        h, state, cache = fb.forward(layer, x, lengths=lengths)
        g = fb.backward(cache, strided(h), deltas=True)
        found = [h, state, g.layer, g.x, g.state, g.deltas, fb.run(layer, x, lengths=lengths)]
        return numbers([*found, gradient(layer, x, CLASSES, "least", lengths=lengths)])

    above = fb.Bidirectional(fb.LSTM.init(2 * H, H, rng=4), fb.LSTM.init(2 * H, H, rng=5))
    for layer in (LAYER, BOTH, fb.Stack([BOTH, above])):
        due = in_python(results, layer)
        assert returns[READ_BACK] > 0
        returns.clear()
        assert_same(results(layer), due)
        assert not COPYING & returns.keys()


def misaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    found = memory[1:].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


ELSEWHERE = {
    "alignment": (TOKENS, misaligned(CLASSES), None),
    "tokens in no memory": (Slices(TOKENS), CLASSES, None),
    "classes in no memory": (TOKENS, Slices(CLASSES), None),
    "weights in no memory": (TOKENS, CLASSES, Slices(WEIGHTS["float32"])),
}


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("kind", ELSEWHERE)
def test_what_compiled_code_cannot_reach_is_read_by_python(kind, memory, returns):
    x, y, weights = ELSEWHERE[kind]
    known = None if weights is None else WEIGHTS["float32"]
    due = gradient(LAYER, TOKENS, CLASSES, memory, weights=known)
    assert not COPYING & returns.keys()
    assert_same(gradient(LAYER, x, y, memory, weights=weights), due)
    assert COPYING & returns.keys()


BAD = [("int8", -1), ("int64", I), ("uint8", 255), ("uint64", 2**63 + 1), ("int32", 1 << 20)]


@pytest.mark.parametrize("dtype, bad", BAD)
@pytest.mark.parametrize("name", ["x", "y"])
def test_an_id_that_does_not_exist_is_named_in_every_mode(name, dtype, bad, in_python):
    arrays = {"x": TOKENS.astype(dtype), "y": CLASSES.astype(dtype)}
    arrays[name] = arrays[name].copy()
    arrays[name][70, 1] = bad
    classes = I if name == "x" else O
    due = f"{name} must hold classes 0..{classes - 1}, but at t=70, b=1 it is {bad}"
    if name == "x":
        due += ": integers are tokens; give features as .astype('float32')"
    for layer, memories in ((LAYER, MEMORIES), (BOTH, MEMORIES[:2])):
        for memory in memories:
            for way in (lambda call, *args: call(*args), in_python):
                with pytest.raises(ValueError) as error:
                    way(gradient, layer, arrays["x"], strided(arrays["y"]), memory)
                assert str(error.value) == due
    if name == "x":
        for call in (fb.run, fb.forward):
            with pytest.raises(ValueError) as error:
                call(BOTH, arrays["x"])
            assert str(error.value) == due


@pytest.mark.parametrize("memory", MEMORIES)
def test_ids_past_the_length_may_hold_anything(memory, returns):
    x, y, past = TOKENS.copy(), CLASSES.copy(), np.arange(T)[:, None] >= LENGTHS
    due = gradient(LAYER, x, y, memory, lengths=LENGTHS)
    x[past] = rng.integers(-(2**62), 2**62, past.sum())
    y[past] = -7
    assert_same(gradient(LAYER, x, y, memory, lengths=LENGTHS), due)
    assert not COPYING & returns.keys()


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("what", ["tokens", "floats"])
def test_buffers_are_not_filled_anew_while_other_threads_read_them(what, memory, set_threads):
    """Gradients of a span's last chunk are left to other threads while the next span begins."""
    steps, width, hidden = 3000, 16, 64
    layer = fb.LSTM.init(width, hidden, rng=0)
    net = fb.Network(layer, fb.Readout.init(hidden, O, rng=1, activation="softmax"))
    draw = np.random.default_rng(1)
    x, y = draw.integers(0, width, (steps, 1)), draw.integers(0, O, (steps, 1))
    if what == "floats":
        x = strided(draw.normal(size=(steps, 1, width)).astype(np.float32))
    own = {"full": "full", "windows": fb.Truncated(50, 150)}.get(memory)
    if own is None:
        own = next(row for row in fb.frontier(net, steps, 1) if row.recomputes == 1).memory

    def results(threads):
        set_threads(threads)
        r = fb.bptt(net, x, y, "cross_entropy", memory=own, input_grad=what == "floats")
        return numbers((r.loss, r.grad, r.grad_state, r.grad_x))

    due = results(1)
    for _ in range(5):
        assert_same(results(2), due)
