"""Cells to draw from: all of the package, and some custom ones."""

import math

import helpers
import numpy as np
import oracle_cells
import oracle_losses

import fastbptt as fb

LEAK = 0.3


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def leaky_forward(a, s):
    n = math.tanh(a[0])
    return ((1 - LEAK) * s[0] + LEAK * n,), (n,)


def leaky_reverse(ds, s, previous, residuals):
    (n,) = residuals
    return (ds[0] * LEAK * (1 - n * n),), (ds[0] * (1 - LEAK),)


def timed_forward(a, s, p):
    leak, n = sigmoid(p[0]), math.tanh(a[0])
    return (s[0] + leak * (n - s[0]),), (leak, n)


def timed_reverse(ds, s, previous, residuals, p):
    leak, n = residuals
    dleak = ds[0] * (n - previous[0])
    return (ds[0] * leak * (1 - n * n),), (ds[0] * (1 - leak),), (dleak * leak * (1 - leak),)


def swing_forward(a, s):
    n, i = math.tanh(a[0]), sigmoid(a[1])
    v = 0.5 * s[1] + i * n
    return (0.9 * math.tanh(v + 0.5 * s[0]), v), (n, i)


def swing_reverse(ds, s, previous, residuals):
    n, i = residuals
    q = s[0] / 0.9
    du = ds[0] * 0.9 * (1 - q * q)
    dv = ds[1] + du
    return (dv * i * (1 - n * n), dv * n * i * (1 - i)), (0.5 * du, 0.5 * dv)


OWN = {
    "leaky": fb.Cell("leaky", 1, leaky_forward, leaky_reverse),
    "timed": fb.Cell("timed", 1, timed_forward, timed_reverse, parameters=1),
    "swing": fb.Cell("swing", 2, swing_forward, swing_reverse, states=2),
}
SOFTSIGN = fb.Activation("softsign", lambda a: a / (1 + abs(a)), lambda s: (1 - abs(s)) ** 2)


class Leaky:
    """The oracle's: s = (1 - LEAK) s' + LEAK tanh(a)."""

    states = 1

    @staticmethod
    def step(p, x, state):
        n = np.tanh(x @ p["U"].T + state[0] @ p["W"].T + p["b"])
        return ((1 - LEAK) * state[0] + LEAK * n,), n

    @staticmethod
    def reverse(p, before, after, n, dstate):
        (ds,) = dstate
        delta = ds * LEAK * (1 - n**2)
        return delta, (ds * (1 - LEAK) + delta @ p["W"],), {"W": delta.T @ before[0]}


class Timed:
    """The same with a trained leak a unit, the sigmoid of p."""

    states = 1

    @staticmethod
    def step(p, x, state):
        n = np.tanh(x @ p["U"].T + state[0] @ p["W"].T + p["b"])
        return (state[0] + oracle_losses.sigmoid(p["p"]) * (n - state[0]),), n

    @staticmethod
    def reverse(p, before, after, n, dstate):
        (ds,), leak = dstate, oracle_losses.sigmoid(p["p"])
        delta = ds * leak * (1 - n**2)
        dp = (ds * (n - before[0])).sum(axis=0) * leak * (1 - leak)
        own = {"W": delta.T @ before[0], "p": dp}
        return delta, (ds * (1 - leak) + delta @ p["W"],), own


class Swing:
    """Two states: v = v'/2 + sigmoid(a1) tanh(a0), s = 0.9 tanh(v + s'/2)."""

    states = 2

    @staticmethod
    def step(p, x, state):
        s, v = state
        a, b = np.split(x @ p["U"].T + s @ p["W"].T + p["b"], 2, axis=1)
        n, i = np.tanh(a), oracle_losses.sigmoid(b)
        v = 0.5 * v + i * n
        return (0.9 * np.tanh(v + 0.5 * s), v), (n, i)

    @staticmethod
    def reverse(p, before, after, saved, dstate):
        (n, i), (ds, dv) = saved, dstate
        du = ds * 0.9 * (1 - (after[0] / 0.9) ** 2)
        dv = dv + du
        delta = np.concatenate([dv * i * (1 - n**2), dv * n * i * (1 - i)], axis=1)
        return delta, (0.5 * du + delta @ p["W"], 0.5 * dv), {"W": delta.T @ before[0]}


oracle_cells.CELLS |= {"leaky": Leaky, "timed": Timed, "swing": Swing}
oracle_losses.ACTIVATIONS["softsign"] = (
    lambda a: a / (1 + abs(a)),
    lambda s: (1 - abs(s)) ** 2,
)
CELLS = [*helpers.CELLS, "rnn-softsign", *OWN]


def layer_of(name, inputs, hidden, dtype, rng):
    """A recurrent layer of the cell of that name."""
    if name in OWN:
        return OWN[name].init(inputs, hidden, rng=rng, dtype=dtype)
    if name == "rnn-softsign":
        return fb.RNN.init(inputs, hidden, rng=rng, dtype=dtype, activation=SOFTSIGN)
    return helpers.make_layer(name, inputs, hidden, dtype, rng)


def for_oracle(part, masks=None):
    """A layer or readout as the oracle's dict, in float64; `masks` are a stack's dropout."""
    if isinstance(part, fb.Stack):
        given = {} if masks is None else {"masks": tuple(masks)}
        return {"cell": "stack", "layers": [for_oracle(p) for p in part.layers], **given}
    if isinstance(part, fb.Bidirectional):
        ways = {name: for_oracle(getattr(part, name)) for name in ("forward", "backward")}
        return {"cell": "bidirectional", **ways}
    arrays = {n: np.asarray(getattr(part, n), float) for n in helpers.array_names(part)}
    if hasattr(part, "definition"):
        return {"cell": part.definition.name, **arrays}
    if isinstance(part, fb.RNN) and not isinstance(part.activation, str):
        return {"cell": "rnn", "activation": part.activation.name, **arrays}
    return helpers.plain(part)


def state_of(layer, draw):
    """A state of the layer, `draw(H)` giving each array of it."""
    parts = helpers.parts_of(layer)
    if parts is not None:
        return tuple(state_of(part, draw) for part in parts)
    arrays = tuple(draw(layer.hidden) for _ in range(layer.states))
    return arrays if len(arrays) > 1 else arrays[0]
