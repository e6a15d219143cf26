"""Bad arguments of learners are errors before any work, which name them."""

import numpy as np
import pytest
from helpers import make_problem

import fastbptt as fb


def problem():
    return make_problem("rnn-tanh", (60, 2, 3, 5, 2))


def distance(h, y, start):
    return float(((h - y) ** 2).sum()), 2 * (h - y)


BAD = [
    (lambda q: fb.Online(q.layer, gradient=fb.Truncated(2, 3)), TypeError, "network must be"),
    (lambda q: fb.Online(q.network, gradient=None), TypeError, "gradient must be fastbptt"),
    (lambda q: fb.Online(q.network, gradient=fb.Full()), TypeError, "gradient must be fastbptt"),
    (lambda q: fb.Online(q.network, 0, gradient=fb.Truncated(2, 3)), ValueError, "B must be at"),
    (lambda q: fb.Online(q.network, gradient=fb.Truncated(2, 3), loss="hinge"), ValueError, "loss"),
    (lambda q: fb.Online(q.network, gradient=fb.Truncated(2, 3), loss="cross_entropy"),
     ValueError, "needs a readout with activation 'softmax'"),
    (lambda q: fb.Online(fb.Network(q.layer, None), gradient=fb.Truncated(2, 3)),
     ValueError, "needs a readout"),
    (lambda q: fb.Online(q.network, 2, gradient=fb.Truncated(2, 3), state=q.state[0]),
     ValueError, r"state must have shape \(2, 5\)"),
    (lambda q: fb.Online(fb.Network(fb.Bidirectional(q.layer, q.layer), None),
                         gradient=fb.Truncated(2, 3), loss=distance), ValueError, "Bidirectional"),
    (lambda q: fb.Truncated(2, 3, weights="old"), ValueError, "weights must be one of"),
    (lambda q: fb.plan(q.network, None), ValueError,
     "T must be an integer with memory=full.* goes with Truncated, RTRL and SnAp1"),
    (lambda q: fb.plan(q.layer, None, memory=fb.Truncated(2, 3)), ValueError, "must be a Network"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_learners_and_plans_are_refused(case):
    make, error, text = BAD[case]
    with pytest.raises(error, match=text):
        make(problem())


class OnGPU:
    """What looks like an array on a GPU."""

    __cuda_array_interface__ = None


PUSHES = [
    ((np.zeros((4, 3)), None), ValueError, r"x must have shape \(n, 2, 3\), or \(2, 3\)"),
    ((np.zeros((4, 2, 4)), None), ValueError, "x must have shape"),
    ((np.zeros((2, 3), "float32"), None), TypeError, "x must be float64"),
    ((np.zeros((2, 3)), np.zeros((2, 3))), ValueError, r"y must have shape \(2, 2\)"),
    ((np.zeros((2, 3)), np.zeros((2, 2), "float32")), TypeError, "y must be float64"),
    ((np.zeros((4, 2, 3)), np.zeros((3, 2, 2))), ValueError, r"y must have shape \(4, 2, 2\)"),
    ((np.zeros((2, 2), int), None), TypeError, "x must hold floats like the pieces before"),
    ((np.full((1, 2), 7), None), ValueError, r"x must hold classes 0..2, not 7, at t=0"),
    ((OnGPU(), None), TypeError, "x must be in the CPU's memory"),
    ((np.zeros((2, 3)), OnGPU()), TypeError, "y must be in the CPU's memory"),
    ((np.zeros((2, 3)), None, np.zeros(3)), ValueError, r"weights must have shape \(2,\) or \(\)"),
    ((np.zeros((2, 3)), None, np.array(["a"])), TypeError, "weights must be"),
    ((np.zeros((2, 3)), None, None, np.zeros(2)), TypeError, "resets must be booleans"),
    ((np.zeros((2, 3)), None, None, np.zeros(3, bool)), ValueError, "resets must have shape"),
]


@pytest.mark.parametrize("case", range(len(PUSHES)))
def test_bad_pieces_are_refused_before_any_work(case):
    given, error, text = PUSHES[case]
    x, y, weights, resets = (*given, None, None)[:4]
    q = problem()
    learner = fb.Online(q.network, 2, gradient=fb.Truncated(4, 6))
    learner.push(q.x[:5], q.y[:5])
    with pytest.raises(error, match=text):
        learner.push(x, y, weights=weights, resets=resets)
    assert learner.time == 5


def test_networks_of_other_sizes_are_refused():
    q = problem()
    learner = fb.Online(q.network, 2, gradient=fb.Truncated(4, 6))
    others = [
        make_problem("rnn-tanh", (3, 1, 3, 6, 2)).network,
        make_problem("rnn-relu", (3, 1, 3, 5, 2)).network,
        make_problem("rnn-tanh", (3, 1, 3, 5, 2), "float32").network,
        fb.Network(q.layer, q.readout, q.state[0]),
        fb.Network(q.layer, None),
    ]
    for other in others:
        with pytest.raises(ValueError, match="network must have the sizes of the one before"):
            learner.network = other
    with pytest.raises(TypeError, match="network must be a fastbptt"):
        learner.network = q.layer
    assert learner.network is q.network
    assert "Truncated" in repr(learner) and "table" in learner.push(q.x)._repr_html_()
