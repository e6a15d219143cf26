"""Resets and a network's own state on the GPU: the pieces are sequences of their own there, too."""

import numpy as np
import pytest
from fastbptt.kernels.cuda import layout, weights
from helpers import GRADIENTS, assert_close
from test_resets import check, problem

import fastbptt as fb

SIZES = (9, 3, 3, 5, 2)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    "cell, dtype",
    [("rnn-tanh", "float32"), ("lstm-peephole", "float64"), ("gru", "float64"),
     ("gru-before", "float32"), ("lstm/gru", "float64"), ("gru|lstm", "float64")],
)  # fmt: skip
def test_pieces_are_sequences_of_their_own(cell, dtype, own):
    p = problem(cell, SIZES, dtype)
    network = p.own if own else p.network
    check(p, network, state=p.state)
    check(p, network, memory=fb.Checkpointed(segment=4), lengths=p.lengths)
    if "|" not in cell:
        check(p, network, fb.Truncated(2, 5), (2, 5), state=p.state)


@pytest.mark.parametrize("parts", [1, 2])
def test_units_of_a_slice_may_be_spread_over_blocks(parts, monkeypatch, card):
    def choose(card, cell, hidden, batch, item, reverse):
        found = layout._candidates(card, cell, hidden, batch, item, reverse)
        return next(s for s in found if (s.parts, s.rows) == (parts, 2)), 1.0

    monkeypatch.setattr(weights, "choose", choose)
    p = problem("gru-before", SIZES, "float64")
    check(p, p.own, lengths=p.lengths)


def test_forward_and_backward_agree_with_the_cpu():
    p = problem("lstm", SIZES)
    found = []
    for device in ("cpu", "cuda"):
        h, state, cache = fb.forward(p.layer, p.x, p.state, resets=p.resets, device=device)
        g = fb.backward(cache, p.dh, p.dstate, deltas=True)
        o, _ = fb.predict(p.own, p.x, resets=p.resets, device=device)
        last, _ = fb.run(p.layer, p.x, resets=p.resets, keep="last", device=device)
        found.append((h, state, g.x, g.state, g.deltas, o, last, tuple(g.layer.arrays())))
    assert_close(found[1], found[0], GRADIENTS["float64"])


def test_none_set_launches_the_kernels_of_calls_without():
    p = problem("rnn-tanh", SIZES, "float32")
    no = np.zeros((p.T, p.B), bool)
    one, other = (fb.bptt(p.own, p.x, p.y, resets=resets) for resets in (None, no))
    assert one.loss == other.loss
    for a, b in zip(one.grad.arrays(), other.grad.arrays(), strict=True):
        assert np.array_equal(a, b)
