"""Rejected stacks, pairs of directions, and their states."""

import numpy as np
import pytest
from checks import rejected

import fastbptt as fb

rng = np.random.default_rng(0)
lstm, wide_lstm = fb.LSTM.init(3, 4, rng=rng), fb.LSTM.init(3, 5, rng=rng)
double, on_top = fb.LSTM.init(3, 4, rng=rng, dtype="float64"), fb.GRU.init(4, 6, rng=rng)
MADE = {
    "no layers": (lambda: fb.Stack([]), "Stack.layers", "one"),
    "one layer, not a list": (lambda: fb.Stack(lstm), "Stack.layers", "LSTM"),
    "nothing": (lambda: fb.Stack(None), "Stack.layers", "None"),
    "an array": (lambda: fb.Stack([lstm, lstm.W]), "Stack.layers[1]", str(lstm.W.shape)),
    "a readout": (lambda: fb.Stack([fb.Readout.init(3, 4, rng=0)]), "Stack.layers[0]", "Readout"),
    "a stack in a stack": (
        lambda: fb.Stack([lstm, fb.Stack([on_top])]),
        "Stack.layers[1]",
        "Stack",
    ),
    "a network": (lambda: fb.Stack([fb.Network(lstm, None)]), "Stack.layers[0]", "Network"),
    "widths": (lambda: fb.Stack([wide_lstm, on_top]), "Stack.layers[1]", "5", "4"),
    "width of a pair": (
        lambda: fb.Stack([fb.Bidirectional(lstm, lstm), on_top]),
        "Stack.layers[1]",
        "8",
        "4",
    ),
    "dtypes": (
        lambda: fb.Stack([double, on_top]),
        "Stack.layers[1]",
        "float64",
        "float32",
    ),
    "dropout of 1": (lambda: fb.Stack([lstm, on_top], 1.0), "dropout", "1.0"),
    "negative dropout": (lambda: fb.Stack([lstm, on_top], -0.1), "dropout", "-0.1"),
    "dropout of nan": (lambda: fb.Stack([lstm, on_top], float("nan")), "dropout", "nan"),
    "dropout as text": (lambda: fb.Stack([lstm, on_top], "half"), "dropout", "'half'"),
    "dropout as a flag": (lambda: fb.Stack([lstm, on_top], True), "dropout", "True"),
    "both directions of a stack": (
        lambda: fb.Bidirectional(fb.Stack([lstm]), lstm),
        "Bidirectional.forward",
        "Stack",
    ),
    "both directions of both": (
        lambda: fb.Bidirectional(lstm, fb.Bidirectional(lstm, lstm)),
        "Bidirectional.backward",
        "Bidirectional",
    ),
    "one direction": (lambda: fb.Bidirectional(lstm, None), "Bidirectional.backward", "None"),
    "other inputs": (lambda: fb.Bidirectional(lstm, on_top), "Bidirectional.backward", "3", "4"),
    "another dtype": (
        lambda: fb.Bidirectional(lstm, double),
        "Bidirectional.backward",
        "float32",
        "float64",
    ),
    "a readout of half the states": (
        lambda: fb.Network(fb.Bidirectional(lstm, lstm), fb.Readout.init(4, 2, rng=0)),
        "readout",
        "8",
    ),
}


@pytest.mark.parametrize("wrong", MADE)
def test_layers_of_layers_reject(wrong):
    make, *words = MADE[wrong]
    rejected(make, *words)


both = fb.Bidirectional(lstm, lstm)
stack = fb.Stack([both, fb.RNN.init(8, 6, rng=rng)])
x, dh = np.zeros((5, 2, 3), "f4"), np.zeros((5, 2, 6), "f4")
s4, s6 = np.zeros((2, 4), "f4"), np.zeros((2, 6), "f4")
CALLS = {
    "an array for a state": (lambda: fb.forward(stack, x, s6), "state", "2", "Stack"),
    "too few states": (lambda: fb.forward(stack, x, (s6,)), "state", "2", "Stack"),
    "no pair": (lambda: fb.forward(stack, x, (s4, s6)), "state[0]", "Bidirectional"),
    "an array of a state": (lambda: fb.run(stack, x, ((s4, (s4, s4)), s6)), "state[0][0]", "LSTM"),
    "a shape": (
        lambda: fb.run(stack, x, (((s4, s4), (s4, s6)), s6)),
        "state[0][1][1]",
        str(s4.shape),
        str(s6.shape),
    ),
    "a dtype": (
        lambda: fb.run(stack, x, (((s4, s4), (s4, s4)), s6.astype(float))),
        "state[1]",
        "float64",
    ),
    "a derivative": (
        lambda: fb.backward(fb.forward(stack, x)[2], dh, (((s4, s4), (s4, s4)), s4)),
        "dstate[1]",
        str(s6.shape),
        str(s4.shape),
    ),
    "dh of one direction": (
        lambda: fb.backward(fb.forward(both, x)[2], np.zeros((5, 2, 4), "f4")),
        "dh",
        str((5, 2, 8)),
        str((5, 2, 4)),
    ),
    "a seed of text": (lambda: fb.forward(stack, x, seed="one"), "seed", "'one'"),
    "a negative seed": (lambda: fb.forward(stack, x, seed=-1), "seed", "-1"),
    "negative time": (
        lambda: fb.bptt(fb.Network(stack, None), x, None, lambda h, y, s: (0.0, h), t0=-3),
        "t0",
        "-3",
    ),
}


@pytest.mark.parametrize("wrong", CALLS)
def test_calls_on_layers_of_layers_reject(wrong):
    call, *words = CALLS[wrong]
    rejected(call, *words)
