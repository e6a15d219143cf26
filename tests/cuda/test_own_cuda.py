"""A cell of one's own on the device, against its own function run by NumPy.

`python -m tests.cuda.ptx` has its PTX run on the CPU; in the simulator Python calls the function.
"""

import numpy as np
import pytest
from helpers import GRADIENTS, STATES, assert_close

import fastbptt as fb

T, B, I, H = 5, 2, 2, 3


def mixed(a, s, p):
    """Two states, branches, and functions whose code on a GPU is long."""
    grown = np.where(a[1] > 0, np.sqrt(1 + abs(s[0])), np.log1p(np.square(a[1])))
    one = np.tanh(a[0] + p[0]) * grown / 2 + np.minimum(s[1], 0.5) * 0.3
    return one, np.exp(-abs(a[1])) * s[1] + np.arctan(a[0] * s[0]) / 4


def bumps(a, s):
    """More of them. Not sin, cos, tan and powers, whose PTX has a stack or calls: it is not run."""
    held = np.maximum(1 / np.cosh(s[0]), np.log(abs(a[0]) + 4)) + np.expm1(-np.square(s[0]))
    return (0.3 * held + np.hypot(a[0], 0.5) * 0.1 + np.sign(s[0]) * 0.01 * a[0],)


CELLS = {
    "mixed": fb.Cell("cuda_mixed", 2, mixed, states=2, parameters=1),
    "bumps": fb.Cell("cuda_bumps", 1, bumps),
}


def outputs(layer, function, arrays, x):
    """The states of all steps by NumPy, from the cell's function."""
    U, W, b, *p = arrays
    states, found = tuple(np.zeros((B, H)) for _ in range(layer.definition.states)), []
    for now in x:
        a = np.split(now @ U.T + states[0] @ W.T + b, layer.definition.gates, axis=1)
        more = ([p[0].reshape(-1, H)[k] for k in range(layer.definition.parameters)],) if p else ()
        states = function(a, states, *more)
        found.append(states[0])
    return np.stack(found)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell, function", [("mixed", mixed), ("bumps", bumps)])
def test_a_traced_cell_is_its_function_and_its_slopes_are_differences(cell, function, dtype):
    layer, rng = CELLS[cell].init(I, H, rng=0, dtype=dtype), np.random.default_rng(1)
    x, dh = rng.standard_normal((T, B, I)).astype(dtype), rng.standard_normal((T, B, H))
    h, _, cache = fb.forward(layer, x)
    g = fb.backward(cache, dh.astype(dtype))
    given = [array.astype(float) for array in (*layer.arrays(), x)]
    dh = dh.astype(dtype).astype(float)

    def loss():
        return float((outputs(layer, function, given[:-1], given[-1]) * dh).sum())

    assert_close(h, outputs(layer, function, given[:-1], given[-1]), STATES[dtype])
    for array, found in zip(given, (*g.layer.arrays(), g.x), strict=True):
        due = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            value, sides = array[place], []
            for step in (1e-6, -1e-6):
                array[place] = value + step
                sides.append(loss())
            array[place] = value
            due[place] = (sides[0] - sides[1]) / 2e-6
        assert_close(found, due, max(GRADIENTS[dtype], 1e-8))
