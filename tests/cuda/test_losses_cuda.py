"""Losses of one's own of the outputs, and weights of outputs, on the GPU."""

import numpy as np
import pytest
from helpers import DTYPES, GRADIENTS, assert_bptt_close, assert_close, make_problem, oracle_bptt

import fastbptt as fb

SUMS = [("squared_error", "identity"), ("squared_error", "softmax"), ("squared_error", "tanh"),
        ("binary_cross_entropy", "sigmoid")]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss, readout", SUMS)
def test_outputs_of_weight_0_are_left_out_and_others_scaled(loss, readout, reduction, dtype):
    q = make_problem("rnn-tanh", (7, 3, 4, 6, 3), dtype, loss, readout)
    weights = q.rng.standard_normal((7, 3, 3)) * (q.rng.random((7, 3, 3)) > 0.4)
    weights[2:4, 1] = 0
    y = np.where(weights == 0, np.nan, q.y).astype(dtype)
    given = {"weights": weights, "lengths": q.lengths, "reduction": reduction}
    r = fb.bptt(q.network, q.x, y, loss, input_grad=True, **given)
    expected = oracle_bptt(q, **given)
    assert_bptt_close(r, expected, q)
    assert_close(fb.evaluate(q.network, q.x, y, loss, **given), r.loss, GRADIENTS[dtype])


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm/gru", "gru|lstm"])
@pytest.mark.parametrize("readout", ["identity", "sigmoid", "tanh", "softmax"])
def test_a_loss_of_the_outputs_is_called_once_a_step_and_goes_through_the_readout(readout, cell):
    q, seen = make_problem(cell, readout=readout), []

    def squares(o, y, start):
        seen.extend(range(start, start + len(o)))
        live = (np.arange(start, start + len(o))[:, None] < q.lengths)[..., None]
        assert not o[~np.broadcast_to(live, o.shape)].any()
        d = np.where(live, o - y, 0)
        return (d**2).sum(), np.where(live, 2 * d, np.nan)

    loss, memory = fb.OutputLoss(squares), fb.Checkpointed(segment=3)
    r = fb.bptt(q.network, q.x, q.y, loss, lengths=q.lengths, memory=memory, input_grad=True)
    assert_bptt_close(r, oracle_bptt(q, lengths=q.lengths), q)
    assert sorted(seen) == list(range(q.T))
    value = fb.evaluate(q.network, q.x, q.y, loss, lengths=q.lengths)
    assert_close(value, r.loss, GRADIENTS["float64"])
