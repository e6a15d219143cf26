"""What bptt and evaluate reject besides x: targets, weights, losses and what a callable returns."""

import numpy as np
import pytest
from checks import SIZES, bptt, c64, changed, f64, rejected, small_problem, train
from helpers import assert_same_bits

import fastbptt as fb

T, B, I, H, O = SIZES


@pytest.fixture
def p():
    return small_problem()


def harmless(h, y, start):
    return 0.0, np.zeros_like(h)


BPTT = {
    "y of another width": (lambda p: {"y": p.y[:, :, 1:]}, "y", str((T, B, O - 1)), str((T, B, O))),
    "y of another T": (lambda p: {"y": p.y[1:]}, "y", str((T - 1, B, O))),
    "y without a batch axis": (lambda p: {"y": p.y[:, 0]}, "y", str((T, O))),
    "y of float64": (lambda p: {"y": f64(p.y)}, "y", "float64", "float32"),
    "complex y": (lambda p: {"y": c64(p.y)}, "y", "complex64"),
    "y a list": (lambda p: {"y": p.y.tolist()}, "y", "list"),
    "no y": (lambda p: {"y": None}, "y", "None"),
    "class ids for squared error": (lambda p: {"y": p.ids}, "y"),
    "unknown loss": (lambda p: {"loss": "hinge"}, "loss", "'hinge'", "'squared_error'"),
    "no loss": (lambda p: {"loss": None}, "loss", "None"),
    "cross-entropy without softmax": (lambda p: {"loss": "cross_entropy", "y": p.ids}, "softmax"),
    "binary cross-entropy without sigmoid": (lambda p: {"loss": "binary_cross_entropy"}, "sigmoid"),
    "named loss without readout": (lambda p: {"network": p.bare}, "readout", "None"),
    "weights with a callable": (
        lambda p: {"loss": harmless, "weights": np.ones(T, "f4")},
        "weights",
    ),
    "mean with a callable": (
        lambda p: {"loss": harmless, "reduction": "mean"},
        "reduction",
        "'mean'",
    ),
    "weights of another T": (lambda p: {"weights": np.ones(T + 1, "f4")}, "weights", str((T + 1,))),
    "weights (B, T)": (lambda p: {"weights": np.ones((B, T), "f4")}, "weights", str((B, T))),
    "a number as weights": (lambda p: {"weights": 2.0}, "weights", "float"),
    "complex weights": (lambda p: {"weights": np.ones(T, "c8")}, "weights", "complex64"),
    "unknown reduction": (lambda p: {"reduction": "max"}, "reduction", "'max'", "'mean'"),
    "a layer for a network": (lambda p: {"network": p.layer}, "network", "Network"),
    "no network": (lambda p: {"network": None}, "network", "None"),
}
VALUE_ERRORS = {
    "cross-entropy without softmax",
    "binary cross-entropy without sigmoid",
    "named loss without readout",
    "weights with a callable",
    "mean with a callable",
    "unknown loss",
}


@pytest.mark.parametrize("function", ["bptt", "evaluate"])
@pytest.mark.parametrize("wrong", BPTT)
def test_training_rejects(p, function, wrong):
    make, *words = BPTT[wrong]
    errors = (ValueError,) if wrong in VALUE_ERRORS else (ValueError, TypeError)
    rejected(lambda: train(getattr(fb, function), p, **make(p)), *words, errors=errors)


@pytest.mark.parametrize("index, id", [((4, 1), O), ((0, 2), -1), ((5, 0), 2**40)])
def test_class_ids_of_y_are_checked_and_the_position_named(p, index, id):
    y = changed(p.ids, index, id)
    for memory in ("full", fb.Checkpointed(segment=4), fb.Truncated(2, 4)):
        rejected(
            lambda m=memory: fb.bptt(p.softmax, p.x, y, "cross_entropy", memory=m),
            "y",
            *map(str, index),
            errors=(ValueError,),
        )
    rejected(lambda: fb.bptt(p.softmax, p.x, f64(y), "cross_entropy"), "y", "float64")


def test_ids_past_a_sequences_length_do_not_matter(p):
    lengths = np.array([4, 6, 0])
    x, y = p.tokens.copy(), p.ids.copy()
    x[4:, 0], y[4:, 0], x[:, 2], y[:, 2] = -5, 99, 10**12, -1
    good = [np.where(np.arange(T)[:, None] < lengths, a, 0) for a in (x, y)]
    for memory in ("full", fb.Checkpointed(segment=2), fb.Truncated(1, 3)):
        one, other = (
            fb.bptt(p.softmax, *pair, "cross_entropy", lengths=lengths, memory=memory)
            for pair in ((x, y), good)
        )
        assert_same_bits(one, other)
    assert fb.run(p.layer, x, lengths=lengths)[0].any()


def test_input_gradient_of_tokens_is_an_error_in_bptt_and_none_in_backward(p):
    rejected(lambda: bptt(p, x=p.tokens, input_grad=True), "input_grad", errors=(ValueError,))
    h, _, cache = fb.forward(p.layer, p.tokens)
    assert fb.backward(cache, h).x is None


RETURNS = {
    "nothing": lambda h: None,
    "the value alone": lambda h: 1.0,
    "a triple": lambda h: (1.0, h, h),
    "dh of another shape": lambda h: (1.0, h[1:]),
    "dh of another dtype": lambda h: (1.0, f64(h)),
    "dh a list": lambda h: (1.0, h.tolist()),
    "a value that is no number": lambda h: ("one", h),
    "a value that no float holds": lambda h: (10**5000, h),
}


@pytest.mark.parametrize("what", RETURNS)
def test_what_a_callable_loss_returns_is_checked(p, what):
    rejected(lambda: bptt(p, loss=lambda h, y, start: RETURNS[what](h)), "loss")


@pytest.mark.parametrize("y", [5, dict.fromkeys(range(6), 0.0), set(range(6))], ids=repr)
def test_a_y_that_cannot_be_cut_along_time_is_rejected_before_the_callable_is_called(y):
    network = fb.Network(fb.RNN.init(2, 3, rng=0), None)
    with pytest.raises(TypeError, match="y must be"):
        fb.bptt(network, np.zeros((6, 1, 2), "f4"), y, lambda h, y, start: pytest.fail("called"))
