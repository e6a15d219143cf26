"""What `forward` and `backward` hold together stays within the plan of the layer."""

import tracemalloc

import numpy as np
import pytest
from checks import OBJECTS, policy, rejected
from fastbptt.kernels.cpu.memory import _held
from helpers import BOTH_WAYS, flatten
from test_forward_memory import SHORT, backward, forward, problem

import fastbptt as fb
from fastbptt.calls import short_calls

CASES = [
    ("rnn-tanh", (1500, 4, 8, 32, 3), "float32"),
    ("rnn-relu", (4000, 1, 5, 17, 30), "float32"),
    ("lstm", (700, 2, 40, 16, 20), "float64"),
    ("rnn-tanh", (40, 3, 200, 100, 60), "float64"),  # the weights outweigh the cache
    ("gru-before", (900, 3, 8, 20, 3), "float32"),
    ("lstm/gru", (900, 2, 8, 20, 3), "float32"),
    (BOTH_WAYS[0], (900, 2, 8, 20, 3), "float32"),
    (BOTH_WAYS[1], (900, 2, 8, 20, 3), "float32"),
]


def check_peak(p, memory, x=None, dh=None, backs=1, deltas=False, warm=1, **given):
    x, dh = p.x if x is None else x, p.dh if dh is None else dh

    def calls():
        h, state, cache = fb.forward(p.layer, x, p.state, memory=memory, **given)
        for _ in range(backs):
            g = None
            g = fb.backward(cache, dh, p.dstate, deltas=deltas, keep=True)
        return flatten((h, state, g.layer, g.x, g.state, g.deltas)), cache.plan

    for _ in range(warm):
        calls()
    _held.clear()  # scratch from the pool would not be traced
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        arrays, plan = calls()
        peak = tracemalloc.get_traced_memory()[1] - before - sum(a.nbytes for a in arrays)
    finally:
        tracemalloc.stop()
    assert plan == fb.plan(p.layer, p.T, p.B, memory=memory)
    assert peak <= plan.peak_bytes + OBJECTS, f"{peak} bytes, planned {plan.peak_bytes}"
    return plan


def loaded(dtype):
    """Compile or load what the first short call ever needs, which takes memory, too."""
    p = problem("rnn-tanh", sizes=(2, 1, 3, 4, 2), dtype=dtype)
    for _ in range(3):
        fb.backward(fb.forward(p.layer, p.x)[2], p.dh)


@pytest.mark.parametrize("memory", ["full", 0.3, 0.0, fb.Checkpointed(segment=37), SHORT], ids=str)
@pytest.mark.parametrize("cell, sizes, dtype", CASES)
def test_both_calls_together_stay_within_the_plan(cell, sizes, dtype, memory):
    p = problem(cell, sizes=sizes, dtype=dtype)
    if "|" in cell and memory is SHORT:
        rejected(lambda: forward(p, memory), "memory", "Bidirectional")
        return
    memory = policy(memory, p.layer, p.T, p.B)
    loaded(dtype)
    for warm in (1, 2):  # the second call of a shape may make a layout, later ones may be short
        plan = check_peak(p, memory, warm=warm)
        short_calls._known.clear()
    assert not isinstance(memory, int) or plan.peak_bytes <= memory
    check_peak(p, memory, backs=2, deltas=True, lengths=p.lengths)
    check_peak(p, memory, np.asfortranarray(p.x), np.asfortranarray(p.dh))


@pytest.mark.parametrize("memory", [0.3, 0.0, SHORT], ids=str)
def test_tokens_and_dropout_stay_within_the_plan(memory):
    p = problem("lstm/gru", True, 0.3, (900, 2, 50, 20, 3))
    check_peak(p, policy(memory, p.layer, p.T, p.B), seed=1)


def test_a_cache_gives_its_memory_back():
    p = problem("lstm", sizes=(20_000, 4, 4, 16, 2))
    cache = forward(p, 0.3)[2]
    _held.clear()
    tracemalloc.start()
    try:
        del cache
        cache = forward(p, 0.3)[2]
        kept = tracemalloc.get_traced_memory()[0]
        backward(p, cache)
        _held.clear()
        assert tracemalloc.get_traced_memory()[0] < kept / 10 and cache is not None
    finally:
        tracemalloc.stop()
