"""A Stepper refuses before any work, and what it refuses or is interrupted in leaves no trace."""

import threading
import tracemalloc

import numpy as np
import pytest
from checks import rejected
from helpers import assert_equal_bits, make_problem

import fastbptt as fb
from fastbptt.engine import stepping


@pytest.fixture
def p():
    return make_problem("rnn-tanh", (6, 3, 4, 5, 2))


class OnGPU:
    shape, dtype, ndim = (3, 4), np.dtype("f8"), 2

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.shape, "typestr": "<f8", "data": (0, False), "version": 3}


def other(cell="rnn-tanh", H=5, dtype="float64"):
    return make_problem(cell, (6, 3, 4, H, 2), dtype).network


def both_ways(p):
    return fb.Bidirectional(p.layer, p.layer)


def above(p):
    return fb.Stack([both_ways(p), fb.RNN.init(10, 3, dtype="float64")])


def within(p):
    return fb.Network(both_ways(p), fb.Readout.init(10, 1, dtype="float64"))


MODELS = {
    "Bidirectional": (lambda p: both_ways(p), ["network", "Bidirectional", "future"]),
    "above": (above, ["network", "Bidirectional", "future"]),
    "within": (within, ["network", "Bidirectional", "future"]),
    "no readout": (lambda p: fb.Network(p.layer, None), ["network", "readout", "None"]),
    "a readout": (lambda p: p.readout, ["network", "Readout"]),
    "an array": (lambda p: p.x, ["network", "float64 array"]),
}  # fmt: skip


@pytest.mark.parametrize("what", MODELS)
def test_a_model_that_cannot_step_is_refused(p, what):
    make, words = MODELS[what]
    rejected(lambda: fb.Stepper(make(p)), *words)


def test_arrays_on_a_gpu_are_refused(p, monkeypatch):
    s = fb.Stepper(p.layer, 3)
    rejected(lambda: s.step(OnGPU()), "x", "GPU", ".get()")  # whether there is CuPy or not
    monkeypatch.setattr("fastbptt.arrays.wrapped", lambda value: value)
    rejected(lambda: s.step(OnGPU()), "x", "GPU", ".get()")
    rejected(lambda: s.process(OnGPU()), "xs", "GPU")
    rejected(lambda: fb.Stepper(p.layer, 3, state=OnGPU()), "state", "GPU")
    on_gpu = p.layer._with(U=OnGPU())
    rejected(lambda: fb.Stepper(on_gpu), "network.arrays()[0]", "GPU", '.to("cpu")')
    rejected(lambda: s.update(on_gpu), "network.arrays()[0]", "GPU")


@pytest.mark.parametrize("B, words", [(0, "at least 1"), (-1, "at least 1"), (2.0, "integer"),
                                      (True, "integer"), ("3", "integer")])  # fmt: skip
def test_a_wrong_batch_is_refused(p, B, words):
    rejected(lambda: fb.Stepper(p.network, B), "B", words)


CALLS = {
    "x: an axis too few": (lambda s, p: s.step(p.x[0, 0]), ["x", "(3, 4)", "(4,)"]),
    "x: an axis too many": (lambda s, p: s.step(p.x), ["x", "(3, 4)", "(6, 3, 4)"]),
    "x: features": (lambda s, p: s.step(p.x[0, :, :3]), ["x", "(3, 4)", "(3, 3)"]),
    "x: float32": (lambda s, p: s.step(p.x[0].astype("f4")), ["x", "float64", "float32"]),
    "x: complex": (lambda s, p: s.step(p.x[0] + 0j), ["x", "complex128"]),
    "x: text": (lambda s, p: s.step("ab"), ["x", "str"]),
    "x: None": (lambda s, p: s.step(None), ["x", "None"]),
    "x: masked": (lambda s, p: s.step(np.ma.masked_array(p.x[0])), ["x", "masked"]),
    "x: a token": (lambda s, p: s.step(np.array([0, 4, 1])), ["x", "0..3", "x[1]", "4"]),
    "x: tokens": (lambda s, p: s.step(np.array([[0, 1, 1]])), ["x", "tokens", "(3)", "(1, 3)"]),
    "x: an integer": (lambda s, p: s.step(1), ["x", "(3)", "()"]),
    "xs: no time": (lambda s, p: s.process(p.x[0]), ["xs", "(n, 3, 4)", "(3, 4)"]),
    "xs: sequences": (lambda s, p: s.process(p.x[:, :2]), ["xs", "(n, 3, 4)", "(6, 2, 4)"]),
    "xs: float32": (lambda s, p: s.process(p.x.astype("f4")), ["xs", "float64", "float32"]),
    "xs: a token": (lambda s, p: s.process(np.array([[0] * 3, [1, -1, 0]])), ["xs[1, 1]", "-1"]),
    "out: shape": (lambda s, p: s.step(p.x[0], np.empty(2)), ["out", "(3, 2)", "(2,)"]),
    "out: dtype": (lambda s, p: s.step(p.x[0], np.empty((3, 2), "f4")), ["out", "float64"]),
    "out: order": (lambda s, p: s.step(p.x[0], np.empty((2, 3)).T), ["out", "C-contiguous"]),
    "out: a list": (lambda s, p: s.step(p.x[0], [0.0]), ["out", "NumPy array", "list"]),
    "outs: steps": (lambda s, p: s.process(p.x, np.empty((5, 3, 2))), ["out", "(6, 3, 2)"]),
    "outs: shared": (lambda s, p: s.process(p.x, p.x.reshape(-1)[:36].reshape(6, 3, 2)),
                     ["out", "no memory"]),
    "state": (lambda s, p: setattr(s, "state", p.state[0]), ["state", "(3, 5)", "(5,)"]),
    "update: sizes": (lambda s, p: s.update(other(H=6)), ["network", "5", "6"]),
    "update: dtype": (lambda s, p: s.update(other(dtype="float32")),
                      ["network", "float64", "float32"]),
    "update: a cell": (lambda s, p: s.update(other("rnn-relu")), ["network", "tanh", "relu"]),
    "update: a layer": (lambda s, p: s.update(p.layer), ["network", "readout", "RNN"]),
}  # fmt: skip


@pytest.mark.parametrize("what", CALLS)
def test_a_wrong_argument_is_refused_and_changes_nothing(p, what):
    call, words = CALLS[what]
    s = fb.Stepper(p.network, 3, state=p.state)
    whole = s.process(p.x)
    s.reset()
    s.process(p.x[:2])
    x, before = p.x.copy(), s.state
    rejected(lambda: call(s, p), *words)
    assert_equal_bits((s.state, p.x), (before, x))
    assert_equal_bits(s.process(p.x[2:]), whole[2:])


class Stops:
    """A data set whose last steps raise when they are read."""

    def __init__(self, values, error):
        self.values, self.error = values, error
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, times):
        if times.stop > len(self.values) - 1:
            raise self.error
        return self.values[times]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_block_that_is_interrupted_leaves_the_state_as_it_was(p, error, monkeypatch):
    s = fb.Stepper(p.network, 3)
    x = np.random.default_rng(1).standard_normal((100_000, 3, 4))
    before, expected = s.state, fb.predict(p.network, x)[0]
    with pytest.raises(error):
        s.process(Stops(x, error))
    assert_equal_bits(s.state, before)
    tokens = np.zeros((100_000, 3), np.int64)
    tokens[-1, 2] = 7
    rejected(lambda: s.process(tokens), "xs[99999, 2]", "7")
    assert_equal_bits(s.state, before)
    assert_equal_bits(s.process(x), expected)


def test_other_calls_are_refused_while_another_thread_is_in_a_long_one(p, monkeypatch):
    s, within, go_on = fb.Stepper(p.network, 3), threading.Event(), threading.Event()
    x = np.random.default_rng(1).standard_normal((100_000, 3, 4))
    expected = fb.predict(p.network, x)

    def waits(work, threads):
        within.set()
        assert go_on.wait(60)
        return team_for(work, threads)

    team_for = stepping.team_for
    monkeypatch.setattr(stepping, "team_for", waits)
    found = []
    thread = threading.Thread(target=lambda: found.append(s.process(x)))
    thread.start()
    assert within.wait(60)
    steps = (lambda: s.step(p.x[0]), lambda: s.process(p.x), lambda: s.process(x))
    for call in (
        *steps,
        s.reset,
        lambda: s.state,
        lambda: s.update(p.network),
        lambda: s.save("s"),
    ):
        with pytest.raises(RuntimeError, match="another thread"):
            call()
    go_on.set()
    thread.join(60)
    assert_equal_bits((found[0], s.state), expected)


def test_steps_from_many_threads_are_done_one_after_another(p):
    """Whatever the order, as many steps of the same x lead to the same state."""
    s, x = fb.Stepper(p.layer, 3), p.x[0]
    expected = fb.run(p.layer, np.tile(x, (4000, 1, 1)))[1]
    threads = [threading.Thread(target=lambda: [s.step(x) for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_equal_bits(s.state, expected)


def allocated(call, times=200):
    """The most bytes that are allocated at once while a call is made so often."""
    call()
    tracemalloc.start()
    try:
        call()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(times):
            call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("B", [None, 3])
def test_a_step_allocates_nothing_but_its_result(B):
    layer = fb.RNN.init(4, 300, rng=0, dtype="float64")
    s, x = fb.Stepper(layer, B), np.ones((B, 4) if B else 4)
    out, xs = s.step(x), np.tile(x, (6,) + (1,) * x.ndim)  # short: a long call keeps the state
    outs = s.process(xs)
    assert out.nbytes <= allocated(lambda: s.step(x)) < out.nbytes + 1000
    assert allocated(lambda: s.step(x, out)) < 1000 < out.nbytes  # Python's own
    assert allocated(lambda: s.process(xs, outs)) < 2000 < outs[0].nbytes
    one, two = (allocated(lambda: s.update(layer), times) for times in (1, 20))
    assert two < 1.2 * one
