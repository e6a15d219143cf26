"""SnAp-1, against its recursion written in NumPy from derivatives of one unit at a time."""

import numpy as np
import pytest
from helpers import make_problem

import fastbptt as fb

pytestmark = pytest.mark.usefixtures("poisoned_empty")
T = 11
EXACT = 1e-12


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def unit(cell, j, weights, x, state):
    """Unit j's states after a step, and their derivatives by its states before and its weights.

    weights : (U, W, b, ...); the derivatives are complex steps, exact to rounding
    """
    step = 1e-30

    def after(own, rows):
        U, W, b, *bn = rows
        s = [part.astype(complex) for part in state]
        for part, value in zip(s, own, strict=True):
            part[j] = value
        a, w = U @ x + b, W @ s[0]
        if cell == "rnn-tanh":
            return (np.tanh(a[0] + w[0]),)
        if cell == "lstm":
            i, f, g, o = a + w
            c = sigmoid(f) * s[1][j] + sigmoid(i) * np.tanh(g)
            return sigmoid(o) * np.tanh(c), c
        r, z = sigmoid(a[:2] + w[:2])
        n = np.tanh(a[2] + r * (w[2] + bn[0][0]))
        return ((1 - z) * n + z * s[0][j],)

    H = len(state[0])
    rows = [array[j::H].astype(complex) for array in weights]
    own = [part[j] for part in state]
    value = [v.real for v in after(own, rows)]
    by_state = []
    for k in range(len(own)):
        moved = [v + step * 1j * (n == k) for n, v in enumerate(own)]
        by_state.append([v.imag / step for v in after(moved, rows)])
    by_weights = []
    for n, array in enumerate(rows):
        slopes = np.zeros((len(own), *array.shape))
        for at in np.ndindex(array.shape):
            moved = [part.copy() for part in rows]
            moved[n][at] += step * 1j
            slopes[(slice(None), *at)] = [v.imag / step for v in after(own, moved)]
        by_weights.append(slopes)
    return value, np.array(by_state).T, by_weights


def masked_recursion(cell, network, x, y):
    """The gradient of a network of one sequence, its layer's weights and then the readout's."""
    *weights, V, c = network.arrays()
    H, S = V.shape[1], 2 if cell == "lstm" else 1
    state = [np.zeros(H) for _ in range(S)]
    J = [[np.zeros((S, *array[j::H].shape)) for array in weights] for j in range(H)]
    grads = [np.zeros_like(array) for array in network.arrays()]
    for x_t, y_t in zip(x, y, strict=True):
        found = [unit(cell, j, weights, x_t, state) for j in range(H)]
        state = [np.array([value[k] for value, _, _ in found]) for k in range(S)]
        do = 2 * (V @ state[0] + c - y_t)
        dh = V.T @ do
        for j, (_, by_state, by_weights) in enumerate(found):
            for n, own in enumerate(by_weights):
                J[j][n] = np.tensordot(by_state, J[j][n], 1) + own
                grads[n][j::H] += dh[j] * J[j][n][0]
        grads[-2] += np.outer(do, state[0])
        grads[-1] += do
    return np.concatenate([grad.ravel() for grad in grads])


def assert_close(a, b):
    assert np.linalg.norm(a - b) <= EXACT * np.linalg.norm(b)


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru"])
def test_it_is_the_masked_recursion(cell):
    q = make_problem(cell, (T, 1, 3, 5, 2))
    due = masked_recursion(cell, q.network, q.x[:, 0], q.y[:, 0])
    r = fb.bptt(q.network, q.x, q.y, memory=fb.SnAp1())
    assert_close(r.grad.flat(), due)
    assert not r.plan.exact and r.grad_state is None and r.grad.state is None
    learner, total = fb.Online(q.network, gradient=fb.SnAp1()), 0.0
    for a, b in ((0, 1), (1, 1), (1, 4), (4, T)):
        u = learner.push(q.x[a:b, 0], q.y[a:b, 0])
        total = total + (0 if u.grad is None else u.grad.flat())
    assert_close(total, due)
    assert not np.allclose(due, fb.bptt(q.network, q.x, q.y).grad.flat(), rtol=1e-3)


def diagonal(layer):
    """The layer with the diagonal of each gate's W alone."""
    W, H = layer.W, layer.hidden
    mask = np.tile(np.eye(H), (len(W) // H, 1))
    return layer.replace_arrays([a * mask if a is W else a for a in layer.arrays()])


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru", "gru-before", "lstm-peephole"])
def test_it_is_exact_for_one_layer_whose_w_is_diagonal(cell):
    q = make_problem(cell, (90, 2, 3, 5, 2))
    network = fb.Network(diagonal(q.layer), q.network.readout)
    options = {"resets": q.rng.random((90, 2)) < 0.1, "lengths": [90, 70], "state": q.state}
    due = fb.bptt(network, q.x, q.y, **options)
    r = fb.bptt(network, q.x, q.y, memory=fb.SnAp1(), **options)
    for name in ("U", "b", *{"bn", "p"} & set(vars(q.layer))):
        own, wanted = (getattr(one.grad.layer, name) for one in (r, due))
        if own is not None:
            assert_close(own, wanted)
    mask = diagonal(q.layer).W != 0
    assert_close(r.grad.layer.W[mask], due.grad.layer.W[mask])
    assert abs(r.loss - due.loss) <= EXACT * due.loss


def test_in_a_stack_gradients_pass_down_within_a_step():
    """With steps that forget their state, in which nothing passes from step to step."""
    q = make_problem("gru-before/rnn-tanh/lstm-peephole", (T, 2, 3, 5, 2), dropout=0.3)
    resets = np.ones((T, 2), bool)
    found = [fb.bptt(q.network, q.x, q.y, memory=m, resets=resets, seed=1).grad.flat()
             for m in ("full", fb.SnAp1())]  # fmt: skip
    assert_close(found[1], found[0])
