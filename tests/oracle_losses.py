"""The oracle's activations, readouts and losses."""

import numpy as np


def sigmoid(a):
    return np.exp(-np.logaddexp(0, -a))


ACTIVATIONS = {
    "tanh": (np.tanh, lambda s: 1 - s**2),
    "sigmoid": (sigmoid, lambda s: s * (1 - s)),
    "relu": (lambda a: np.maximum(a, 0), lambda s: (s > 0).astype(float)),
    "identity": (lambda a: a, np.ones_like),
}


def readout_forward(readout, s):
    """The pre-activation a and the output o = h(a)."""
    a = s @ readout["V"].T + readout["c"]
    if readout["activation"] == "softmax":
        e = np.exp(a - a.max(axis=1, keepdims=True))
        return a, e / e.sum(axis=1, keepdims=True)
    return a, ACTIVATIONS[readout["activation"]][0](a)


def readout_reverse(readout, o, do):
    """dE/da from dE/do."""
    if readout["activation"] == "softmax":
        return o * (do - (o * do).sum(axis=1, keepdims=True))
    return do * ACTIVATIONS[readout["activation"]][1](o)


def loss_and_derivative(name, readout, a, o, y, weights=1.0):
    """E (B,) at one time and dE/da (B, O); `weights`: of the outputs; y may be anything if 0."""
    if name != "cross_entropy":
        y = np.where(weights != 0, y, 0)
    if name == "squared_error":
        do = 2 * weights * (o - y)
        return (weights * (o - y) ** 2).sum(axis=1), readout_reverse(readout, o, do)
    if name == "binary_cross_entropy":  # -y log o - (1-y) log(1-o), by a so that it can saturate
        return (weights * (np.logaddexp(0, a) - y * a)).sum(axis=1), weights * (o - y)
    assert name == "cross_entropy"  # -log o[y]
    rows = np.arange(len(y))
    shifted = a - a.max(axis=1, keepdims=True)
    one_hot = np.zeros_like(a)
    one_hot[rows, y] = 1
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[rows, y], o - one_hot
