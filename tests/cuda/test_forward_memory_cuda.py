"""`forward` under every memory policy on a GPU: what the CPU computes, of the weights of then."""

import numpy as np
import pytest
from checks import policy
from helpers import BOTH_WAYS, GRADIENTS, assert_close, flatten, make_problem

import fastbptt as fb
from fastbptt.calls import device_choice

MEMORIES = ["full", 0.0, fb.Checkpointed(segment=2), fb.Truncated(2, 5), fb.Truncated(3, 3)]


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("memory", MEMORIES, ids=str)
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm-peephole", "gru-before/lstm", BOTH_WAYS[0]])
def test_gradients_are_those_of_the_cpu_under_the_same_policy(cell, memory, tokens):
    if "|" in cell and isinstance(memory, fb.Truncated):
        memory = fb.Checkpointed(segment=1)
    p = make_problem(cell, (7, 3, 4, 5, 2), "float32", tokens=tokens, dropout=0.3)

    def both(device, spoil=False):
        memory_ = policy(memory, p.layer, p.T, p.B)
        h, state, cache = fb.forward(p.layer, p.x, p.state, lengths=p.lengths, memory=memory_,
                                     seed=1, t0=2, device=device)  # fmt: skip
        before = [np.array(a) for a in p.layer.arrays()]
        for a in p.layer.arrays() if spoil else ():
            a[...] = np.nan
        first, second = (
            fb.backward(cache, p.dh, p.dstate, deltas=True, keep=keep) for keep in (True, False)
        )
        for a, old in zip(p.layer.arrays(), before, strict=True):
            a[...] = old
        found = [flatten((g.layer, g.x, g.state, g.deltas)) for g in (first, second)]
        assert all(map(np.array_equal, *found))
        return [*flatten((h, state)), *found[0]], cache.plan

    due, _ = both("cpu")
    found, plan = both("cuda", spoil=True)
    assert plan.exact != isinstance(memory, fb.Truncated)
    assert not isinstance(memory, fb.Checkpointed) or plan.recomputes
    for one, other in zip(found, due, strict=True):
        assert_close(one, other, GRADIENTS["float32"], floor=0.1)


def test_auto_asks_the_gpu(monkeypatch):
    p = make_problem("lstm", (7, 3, 4, 5, 2), "float32")
    full = fb.plan(p.layer, 10**5, 3)
    device = type(device_choice.of_numpy("cuda", p.layer, 7, 3))
    half = full.peak_bytes // 2
    for free, due in ((2 * full.peak_bytes + 2, fb.Full()), (2 * half, fb.Checkpointed(half))):
        monkeypatch.setattr(device, "free_bytes", lambda self, free=free: free)
        assert fb.plan(p.layer, 10**5, 3, memory="auto").memory == due
