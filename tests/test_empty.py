"""No time, no sequences: every call has an answer, of the shapes that are due, and zero gradients.

`tests/cuda/test_empty_cuda.py` makes the same claims of a GPU.
"""

import numpy as np
import pytest
from helpers import BOTH_WAYS, CELLS, STACKS, flatten, make_problem, name_of
from test_own import TIMED

import fastbptt as fb

LAYERS = [*CELLS, *STACKS, *BOTH_WAYS, TIMED]


@pytest.fixture(params=[(5, 0), (0, 3), (0, 0)], ids=["no sequence", "no time", "neither"])
def sizes(request):
    return request.param


def problem(cell, sizes, tokens):
    own = not isinstance(cell, str)
    p = make_problem("rnn-tanh" if own else cell, (*sizes, 3, 4, 2), "float32", tokens=tokens)
    if own:
        p.layer = cell.init(3, 4, rng=0)
        p.network = fb.Network(p.layer, p.readout)
    p.no_lengths = np.zeros(p.B, int)
    return p


def widths(layer):
    """G*H of each recurrent layer, in the order of the state."""
    parts = getattr(layer, "layers", None) or (
        (layer.forward, layer.backward) if isinstance(layer, fb.Bidirectional) else None
    )
    return [layer.b.size] if parts is None else [n for part in parts for n in widths(part)]


def assert_zero(arrays, like):
    for a, b in zip(arrays, like, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype and not a.any()


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("cell", LAYERS, ids=name_of)
def test_forward_and_backward(cell, sizes, tokens):
    p = problem(cell, sizes, tokens)
    for lengths in (None, p.no_lengths):
        h, state, cache = fb.forward(p.layer, p.x, p.state, lengths=lengths)
        assert h.shape == p.dh.shape
        g = fb.backward(cache, p.dh, p.dstate, deltas=True)
        assert_zero(g.layer.arrays(), p.layer.arrays())
        assert [d.shape for d in flatten(g.deltas)] == [(*sizes, n) for n in widths(p.layer)]
        assert g.x is None if tokens else g.x.shape == p.x.shape
        for given, found in ((p.state, state), (p.dstate, g.state)):  # nothing in between
            for a, b in zip(flatten(given), flatten(found), strict=True):
                assert np.array_equal(a, b)


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("cell", LAYERS, ids=name_of)
def test_bptt_in_every_mode(cell, sizes, tokens):
    p = problem(cell, sizes, tokens)
    memories = ["full", 10**7, fb.Checkpointed(segment=2), fb.Truncated(2, 3)]
    for memory in memories[: None if "|" not in name_of(cell) else -1]:
        for lengths in (None, p.no_lengths):
            given = {"memory": memory, "lengths": lengths, "input_grad": not tokens}
            r = fb.bptt(p.network, p.x, p.y, weights=np.ones(sizes), reduction="mean", **given)
            assert r.loss == 0 and (tokens or r.grad_x.shape == p.x.shape)
            assert_zero(r.grad.arrays(), p.network.arrays())
            r = fb.bptt(p.network, p.x, None, lambda h, y, start: (0.0, h), **given)
            assert_zero(r.grad.arrays(), p.network.arrays())
        assert fb.plan(p.network, *sizes, memory=memory).steps == p.T
    assert len(fb.frontier(p.network, *sizes)) >= 1


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("cell", LAYERS, ids=name_of)
def test_run_predict_and_evaluate(cell, sizes, tokens):
    p = problem(cell, sizes, tokens)
    for lengths in (None, p.no_lengths):
        given = {"state": p.state, "lengths": lengths}
        assert fb.run(p.layer, p.x, **given)[0].shape == p.dh.shape
        assert fb.run(p.layer, p.x, keep="last", **given)[0].shape == (p.B, p.layer.outputs)
        assert fb.predict(p.network, p.x, **given)[0].shape == p.y.shape
        assert fb.evaluate(p.network, p.x, p.y, **given) == 0


@pytest.mark.parametrize("memory", [fb.RTRL(), fb.SnAp1()], ids=str)
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm/gru"])
def test_bptt_that_goes_forward(cell, sizes, memory):
    p = problem(cell, sizes, tokens=False)
    for lengths in (None, p.no_lengths):
        r = fb.bptt(p.network, p.x, p.y, state=p.state, memory=memory, lengths=lengths)
        assert r.loss == 0
        assert_zero(r.grad.arrays(), p.network.arrays())
        assert all(np.array_equal(*s) for s in zip(flatten(r.state), flatten(p.state), strict=True))
        if memory == fb.RTRL():
            assert_zero(flatten(r.grad_state), flatten(p.state))
