"""Layers side by side: the bits of one layer after the other, whatever a span, a part, a thread."""

import numpy as np
import pytest
from checks import check_peak
from fastbptt.kernels.cpu import split
from fastbptt.kernels.cpu.bound import Bound
from helpers import DTYPES, STACKS, all_results, assert_same_bits, flatten, make_problem

import fastbptt as fb

SIZES = {"one sequence": (700, 1, 9, 21, 3), "few sequences": (500, 3, 9, 21, 3)}
POLICIES = ["full", fb.Checkpointed(segment=130), fb.Truncated(90, 210)]
KINDS = ["rnn-tanh/rnn-relu", *STACKS]


@pytest.fixture
def short_parts(monkeypatch):
    """Parts of a few steps, so that many are done side by side in a short time."""
    monkeypatch.setattr(split, "_LEAST_ROWS", 4)
    monkeypatch.setattr(split, "_TASK", 1)


@pytest.fixture
def waves(monkeypatch):
    """The marks of the streams after each return of compiled code."""
    seen, walk = [], Bound.walk

    def note(self, rows, budget):
        status = walk(self, rows, budget)
        if len(self.layers) > 1:
            seen.append((self.get("leg"), self.marks.copy()))
        return status

    monkeypatch.setattr(Bound, "walk", note)
    return seen


def everything(q, memory="full", **given):
    h, state, cache = fb.forward(q.layer, q.x, q.state, seed=5, **given)
    g = fb.backward(cache, q.dh, q.dstate, deltas=True)
    last = fb.run(q.layer, q.x, q.state, keep="last", **given)
    found = flatten((h, state, g.layer, g.x, g.state, g.deltas, last))
    given |= {"state": q.state, "seed": 5, "memory": memory, "input_grad": q.x.dtype.kind == "f"}
    found += all_results(fb.bptt(q.network, q.x, q.y, q.loss, **given))
    own = fb.bptt(q.network, q.x, None, lambda h, y, start: (float(h.sum()), h), **given)
    return found + all_results(own)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("memory", POLICIES, ids=str)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("cell", KINDS)
def test_bits_do_not_depend_on_threads(
    cell, sizes, memory, dropout, short_parts, waves, set_threads
):
    q = make_problem(cell, sizes, "float32", dropout=dropout)
    for given in ({}, {"lengths": q.lengths}):
        set_threads(1)
        alone = everything(q, memory, **given)
        assert not any(marks.any() for _, marks in waves)
        for threads in (2, 4):
            set_threads(threads)
            for one, other in zip(alone, everything(q, memory, **given), strict=True):
                assert one.tobytes() == other.tobytes()
        assert any(marks.any() for _, marks in waves)  # they did go side by side
        waves.clear()


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_bits_are_the_same_in_float64_and_with_tokens_and_classes(
    loss, tokens, short_parts, set_threads
):
    readout = "softmax" if loss == "cross_entropy" else "identity"
    q = make_problem(STACKS[0], SIZES["few sequences"], "float64", loss, readout, tokens)
    set_threads(1)
    alone = everything(q)
    set_threads(2)
    for one, other in zip(alone, everything(q), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("part", [1, 3, 50])
@pytest.mark.parametrize("cell", STACKS)
def test_bits_do_not_depend_on_where_the_walk_returns(cell, part, short_parts, monkeypatch):
    """A span ends after every chunk, or after three, and with it all that is side by side."""
    q = make_problem(cell, SIZES["few sequences"], "float32", dropout=0.3)
    expected, walk = everything(q, fb.Checkpointed(segment=200)), Bound.walk

    def some_chunks(self, rows, budget):
        steps = part * self.get("chunk")
        for name in ("call_steps", "back_steps"):
            self.set(**{name: min(steps, self.get(name))})
        return walk(self, rows, 1)

    monkeypatch.setattr(Bound, "walk", some_chunks)
    for one, due in zip(everything(q, fb.Checkpointed(segment=200)), expected, strict=True):
        assert one.tobytes() == due.tobytes()


def test_gradients_are_flushed_at_the_same_steps(short_parts, set_threads):
    """More than one flush in float32, and windows of a number of steps that is no power of two."""
    q = make_problem("rnn-tanh/rnn-relu", (5000, 3, 2, 5, 2), "float32")
    for memory in ("full", fb.Truncated(500, 1100)):
        set_threads(1)
        alone = fb.bptt(q.network, q.x, q.y, memory=memory)
        set_threads(2)
        assert_same_bits(fb.bptt(q.network, q.x, q.y, memory=memory), alone)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory", POLICIES, ids=str)
def test_measured_peak_is_within_the_plan(memory, dtype, short_parts, set_threads):
    set_threads(2)
    q = make_problem(STACKS[1], (1500, 3, 8, 14, 3), dtype, dropout=0.3)
    fb.bptt(q.network, q.x, q.y, memory=memory, seed=1)  # compiled before it is measured
    check_peak(q.network, q.x, q.y, memory=memory, seed=1, input_grad=True)


def test_layers_go_side_by_side_where_it_pays():
    equal, tall = [(4, 64, 64)] * 2, [(4, 512, 64), (4, 16, 512)]
    assert split.wave_least(2, 1, equal, 10) > 0
    assert split.wave_least(1, 1, equal, 10) == 0  # one thread
    assert split.wave_least(2, 1, equal[:1], 10) == 0  # one layer
    assert split.wave_least(2, 8, equal, 10) == 0  # each thread has sequences of its own
    assert split.wave_least(2, 1, equal, 1000) == 0  # threads share the readout
    assert split.wave_least(2, 1, tall, 10) == 0  # one layer is nearly all
    assert split.wave_least(2, 4, [(1, 2, 2)] * 2, 0) > split.wave_least(2, 4, equal, 1)


@pytest.mark.parametrize("B", [1, 4])
@pytest.mark.parametrize("T", [50, 51, 100, 251, 600])
def test_above_a_bidirectional(T, B, short_parts, set_threads, waves):
    """Their chunks are shorter, and parts must end where chunks do, whatever T is."""
    layer = fb.Stack(
        [
            fb.Bidirectional(fb.LSTM.init(3, 8, rng=0), fb.LSTM.init(3, 8, rng=1)),
            fb.LSTM.init(16, 24, rng=2),
            fb.LSTM.init(24, 24, rng=3),
        ]
    )
    rng = np.random.default_rng(0)
    x, dh = rng.normal(size=(T, B, 3)).astype("f4"), rng.normal(size=(T, B, 24)).astype("f4")
    found = []
    for threads in (1, 2):
        set_threads(threads)
        h, _, cache = fb.forward(layer, x)
        g = fb.backward(cache, dh)
        found.append([h, *g.layer.arrays(), g.x])
    assert any(marks.any() for _, marks in waves)
    for one, other in zip(*found, strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_long_call_goes_side_by_side_with_nothing_made_shorter(set_threads, waves):
    set_threads(2)
    q = make_problem("lstm/lstm", (6000, 1, 40, 40, 2), "float32")
    h, _, cache = fb.forward(q.layer, q.x)
    g = fb.backward(cache, q.dh)
    assert any(marks.any() for _, marks in waves)
    set_threads(1)
    again, _, cache = fb.forward(q.layer, q.x)
    assert np.array_equal(h, again)
    for one, other in zip(g.layer.arrays(), fb.backward(cache, q.dh).layer.arrays(), strict=True):
        assert np.array_equal(one, other)


def test_explain_says_which_threads_do_what(set_threads):
    set_threads(2)
    one, two = fb.LSTM.init(32, 32, rng=0), fb.LSTM.init(32, 32, rng=1)
    tiny = fb.RNN.init(32, 2, rng=2)
    assert "sweep other layers" in fb.explain(fb.Stack([one, two]), 1000)
    assert "sweep other layers" not in fb.explain(fb.Stack([one, tiny]), 1000)  # not worth it
    both = fb.explain(fb.Bidirectional(one, two), 1000)
    assert both.count("one for each direction") == 2
    assert "sweep other layers" not in both
    assert "for each direction" not in fb.explain(fb.Bidirectional(one, two), 1000, 8)
    set_threads(1)
    assert "one thread does all" in fb.explain(fb.Bidirectional(one, two), 1000)
