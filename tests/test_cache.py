"""A cache is read and never written: by threads at once, after Ctrl-C, and when weights change.

`tests/cuda/test_cache_cuda.py` makes the same claims of a GPU.
"""

import gc
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from threading import Barrier, Event, current_thread, main_thread

import numpy as np
import pytest
from helpers import BOTH_WAYS, CELLS, STACKS, flatten, make_problem, name_of
from test_own import OWN_LSTM, TIMED

import fastbptt as fb

FEW = ["rnn-tanh", "lstm-peephole", "gru-before", "lstm/gru", BOTH_WAYS[0]]


def problem(cell, tokens=False, dropout=0.0):
    T = 6 if on_gpu() else 600  # in the simulator all takes long
    return make_problem(cell, (T, 3, 4, 5, 2), "float32", tokens=tokens, dropout=dropout)


def on_gpu():
    return fb.explain(fb.RNN.init(1, 1, rng=0), 1).startswith("device     cuda")


def forward(p):
    return fb.forward(p.layer, p.x, p.state, lengths=p.lengths, seed=0)[2]


def backward(p, cache, **given):
    # Of every second unit: copied a chunk at a time, so that there are several spans.
    dh = np.repeat(given.pop("dh", p.dh), 2, axis=2)[:, :, ::2]
    return results(fb.backward(cache, dh, p.dstate, deltas=True, **given))


def results(g):
    return [np.copy(a) for a in flatten((g.layer, g.x, g.state, g.deltas))]


def assert_same(found, due):
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found, due, strict=True))


def at_once(count, function):
    """The results, or errors, of a function of a number, each on its own thread."""
    barrier = Barrier(count)

    def work(n):
        barrier.wait()
        try:
            return function(n)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


@contextmanager
def between_spans(function):
    """Have a function called between two spans of time."""
    with pytest.MonkeyPatch.context() as patch:
        name = "cuda" if on_gpu() else "cpu"
        device = getattr(import_module(f"fastbptt.backends.{name}"), name.upper())
        patch.setattr(device, "wait", lambda self: function())
        yield


@pytest.mark.parametrize("cell", FEW)
def test_threads_at_once_on_one_cache_get_the_bits_they_get_alone(cell):
    p = problem(cell, dropout=0.3)
    several = [p.dh * np.float32(n + 1) for n in range(6)]
    due = [backward(p, forward(p), dh=dh) for dh in several]
    cache = forward(p)
    for found, one in zip(
        at_once(6, lambda n: backward(p, cache, dh=several[n], keep=True)), due, strict=True
    ):
        assert_same(found, one)
    assert_same(backward(p, cache), due[0])


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("cell", FEW)
def test_one_that_was_interrupted_leaves_the_cache_as_it_was(cell, keep):
    p = problem(cell)
    due, cache = backward(p, forward(p)), forward(p)

    def interrupt():
        raise KeyboardInterrupt

    with between_spans(interrupt):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                backward(p, cache, keep=keep)
    assert_same(backward(p, cache, keep=True), due)
    assert_same(backward(p, cache), due)


@pytest.mark.parametrize("cell", ["lstm", BOTH_WAYS[0]])
def test_of_threads_that_would_consume_a_cache_exactly_one_does(cell):
    p = problem(cell)
    due = backward(p, forward(p))
    for _ in range(3):
        cache = forward(p)
        found = at_once(4, lambda n, cache=cache: backward(p, cache))
        errors = [one for one in found if isinstance(one, ValueError)]
        assert len(errors) == 3 and all("consumed" in str(error) for error in errors)
        assert_same(next(one for one in found if not isinstance(one, ValueError)), due)
        assert repr(cache) == "Cache(consumed)"


def test_what_is_at_work_on_a_cache_outlives_its_consumption():
    p, q = problem("lstm"), problem("lstm")
    due, cache = backward(p, forward(p)), forward(p)
    begun, consumed = Event(), Event()

    def wait():
        if current_thread() is not main_thread():
            begun.set()
            consumed.wait()

    with between_spans(wait), ThreadPoolExecutor(1) as pool:
        kept = pool.submit(backward, p, cache, keep=True)
        begun.wait()
        try:
            assert_same(backward(p, cache), due)
            q.x[...] = np.float32(7)
            others = [forward(q) for _ in range(3)]  # in the memory of the cache, were it free
        finally:
            consumed.set()
        assert_same(kept.result(), due)
    assert len(others) == 3


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("cell", [*CELLS, *STACKS, *BOTH_WAYS, OWN_LSTM, TIMED], ids=name_of)
def test_weights_changed_after_forward_do_not_count(cell, tokens):
    p = problem(cell if isinstance(cell, str) else CELLS[0], tokens)
    if not isinstance(cell, str):
        p.layer, p.state, p.dstate = cell.init(4, 5, rng=0), None, None
    due = backward(p, forward(p))
    for lay in (np.array, np.asfortranarray, lambda a: np.repeat(a, 2, axis=-1)[..., ::2]):
        p.layer = p.layer.replace_arrays([lay(a) for a in p.layer.arrays()])
        cache = forward(p)
        before = [a.copy() for a in p.layer.arrays()]
        for a in p.layer.arrays():
            a[...] = np.nan
        assert_same(backward(p, cache, keep=True), due)
        for a, old in zip(p.layer.arrays(), before, strict=True):
            a[...] = old
        assert_same(backward(p, cache), due)


@pytest.mark.parametrize("cell", ["lstm", BOTH_WAYS[0]])
def test_a_cache_gives_its_memory_back_consumed_or_not(cell):
    p = make_problem(cell, (2000, 3, 4, 32, 2), "float32")
    small = p.T * p.B * 4  # no array of all steps and units is as small

    def use(end):
        cache = forward(p)
        for _ in range(3):
            fb.backward(cache, p.dh, keep=True)
        end(cache)

    gc.disable()
    try:
        for end in (lambda cache: None, lambda cache: fb.backward(cache, p.dh)):
            use(end)
            use(end)
            tracemalloc.start()
            use(end)
            first = tracemalloc.get_traced_memory()[0]
            for _ in range(4):
                use(end)
            assert tracemalloc.get_traced_memory()[0] <= first + small
            tracemalloc.stop()
    finally:
        gc.enable()


@pytest.mark.parametrize("cell", ["lstm", BOTH_WAYS[0]])
def test_going_back_again_and_again_takes_no_more_memory(cell):
    p = make_problem(cell, (2000, 3, 4, 32, 2), "float32")
    cache = forward(p)
    fb.backward(cache, p.dh, keep=True)
    tracemalloc.start()
    fb.backward(cache, p.dh, keep=True)
    first = tracemalloc.get_traced_memory()[0]
    for _ in range(4):
        fb.backward(cache, p.dh, keep=True)
    assert tracemalloc.get_traced_memory()[0] <= first + p.T * p.B * 4
    tracemalloc.stop()
