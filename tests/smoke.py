"""A gradient of each built-in cell and of a custom one against the oracle: `python tests/smoke.py`.

It needs no pytest and takes seconds, or some ten seconds a cell where kernels must be compiled.
It is for Pythons in which the suite does not run.
"""

import platform

import numpy as np
import oracle
import oracle_cells
from helpers import assert_bptt_close, make_problem, oracle_bptt

import fastbptt as fb


def check_cell(cell):
    """bptt is the oracle's; a checkpointed gradient has the same bits."""
    q = make_problem(cell, (9, 3, 4, 6, 2))
    given = {"state": q.state, "lengths": q.lengths}
    r = fb.bptt(q.network, q.x, q.y, input_grad=True, **given)
    assert_bptt_close(r, oracle_bptt(q, **given), q)
    again = fb.bptt(q.network, q.x, q.y, memory=fb.Checkpointed(segment=2), **given)
    assert again.loss == r.loss
    assert all(map(np.array_equal, again.grad.arrays(), r.grad.arrays()))


def mix_forward(a, s):
    n = np.tanh(a[0])
    return (0.7 * s[0] + 0.3 * n,), (n,)


def mix_reverse(ds, s, previous, residuals):
    (n,) = residuals
    return (ds[0] * 0.3 * (1 - n * n),), (ds[0] * 0.7,)


def mix_alone(a, s):
    return mix_forward(a, s)[0]


class Mix:
    """The oracle's."""

    states = 1

    @staticmethod
    def step(p, x, state):
        n = np.tanh(x @ p["U"].T + state[0] @ p["W"].T + p["b"])
        return (0.7 * state[0] + 0.3 * n,), n

    @staticmethod
    def reverse(p, before, after, n, dstate):
        delta = dstate[0] * 0.3 * (1 - n**2)
        return delta, (dstate[0] * 0.7 + delta @ p["W"],), {"W": delta.T @ before[0]}


def check_own_cell(*functions):
    """The gradient of a cell made of plain Python is that of the same in NumPy."""
    oracle_cells.CELLS["mix"] = Mix
    layer = fb.Cell("mix", 1, *functions).init(4, 6, rng=0, dtype="float64")
    x, dh = np.random.default_rng(0).standard_normal((9, 3, 4)), np.ones((9, 3, 6))
    due = {"cell": "mix", "U": layer.U, "W": layer.W, "b": layer.b}
    expected = oracle.backward(due, oracle.forward(due, x)[2], dh)
    g = fb.backward(fb.forward(layer, x)[2], dh)
    for ours, name in zip(g.layer.arrays(), "UWb", strict=True):
        np.testing.assert_allclose(ours, expected["layer"][name], rtol=1e-10, atol=1e-12)


def main():
    """Check all; the first fault ends it."""
    for cell in ("rnn-tanh", "lstm", "lstm-peephole", "gru", "gru-before"):
        check_cell(cell)
    check_own_cell(mix_forward, mix_reverse)
    check_own_cell(mix_alone)
    print(
        f"smoke: all cells are right in Python {platform.python_version()}, NumPy {np.__version__}"
    )


if __name__ == "__main__":
    main()
