"""Absurd numbers for every whole-number argument: an error that names it, at once."""

import math
from functools import partial

import numpy as np
import pytest
from checks import SIZES, rejected, small_problem

import fastbptt as fb
from fastbptt import arguments

T, B, I, H, O = SIZES
P = small_problem()
STACK = fb.Network(
    fb.Stack([fb.RNN.init(I, H, rng=0), fb.RNN.init(H, H, rng=1)], dropout=0.5), P.readout
)
MOST, HUGE = 2**63 - 1, 10**5000


def leaky_forward(a, s):
    return (a[0],), ()


def leaky_reverse(ds, s, previous, residuals):
    return (ds[0],), (0.0,)


cell = partial(fb.Cell, "absurd", forward=leaky_forward, reverse=leaky_reverse)
callable_loss = partial(fb.bptt, STACK, P.x, None, lambda h, y, start: (0.0, h))

# What takes the argument, and the least and the most that it may be.
INTEGERS = {
    "T of plan": (lambda v: fb.plan(P.network, v, memory=fb.Truncated(1, 2)), "T", 0, MOST),
    "T of frontier": (lambda v: fb.frontier(P.network, v), "T", 0, 10**15),
    "T of explain": (lambda v: fb.explain(P.layer, v), "T", 0, MOST),
    "T within a budget": (lambda v: fb.plan(P.network, v, memory="1MB"), "T", 0, 10**15),
    "B of plan": (lambda v: fb.plan(P.network, 5, v), "B", 0, 10**15),
    "B of frontier": (lambda v: fb.frontier(P.network, 5, v), "B", 0, 10**15),
    "B of explain": (lambda v: fb.explain(P.layer, 5, v), "B", 0, MOST),
    "k1": (lambda v: fb.Truncated(v, MOST), "k1", 1, MOST),
    "k2": (lambda v: fb.Truncated(1, v), "k2", 1, MOST),
    "segment": (lambda v: fb.Checkpointed(segment=v), "segment", 1, MOST),
    "budget": (lambda v: fb.Checkpointed(v), "memory", 0, MOST),
    "memory of plan": (lambda v: fb.plan(P.network, 5, memory=v), "memory", 10**6, MOST),
    "memory of bptt": (lambda v: fb.bptt(P.network, P.x, P.y, memory=v), "memory", 10**6, MOST),
    "inputs": (lambda v: fb.RNN.init(v, H), "inputs", 1, 100),
    "hidden": (lambda v: fb.LSTM.init(I, v), "hidden", 1, 100),
    "hidden of a GRU": (lambda v: fb.GRU.init(I, v), "hidden", 1, 100),
    "hidden of a readout": (lambda v: fb.Readout.init(v, O), "hidden", 1, 100),
    "outputs": (lambda v: fb.Readout.init(H, v), "outputs", 1, 100),
    "inputs of a cell": (lambda v: cell(gates=1).init(v, H), "inputs", 1, 100),
    "hidden of a cell": (lambda v: cell(gates=1).init(I, v), "hidden", 1, 100),
    "gates": (lambda v: cell(gates=v), "gates", 1, 1),
    "states": (lambda v: cell(gates=1, states=v), "states", 1, 1),
    "parameters": (lambda v: cell(gates=1, parameters=v), "parameters", 0, 0),
    "t0 of bptt": (lambda v: fb.bptt(STACK, P.x, P.y, seed=0, t0=v), "t0", 0, MOST - T),
    "t0 of a callable": (lambda v: callable_loss(seed=0, t0=v), "t0", 0, MOST - T),
    "t0 of plan": (lambda v: fb.plan(STACK, T, seed=0, t0=v), "t0", 0, MOST - T),
    "seed of bptt": (lambda v: fb.bptt(STACK, P.x, P.y, seed=v), "seed", 0, HUGE),
    "seed of forward": (lambda v: fb.forward(STACK.layer, P.x, seed=v), "seed", 0, HUGE),
    "seed of plan": (lambda v: fb.plan(STACK, T, seed=v), "seed", 0, HUGE),
    "length": (lambda v: fb.run(P.layer, P.x[:, 0], lengths=v), "lengths", 0, T),
    "samples": (lambda v: reach(samples=v), "samples", 1, MOST),
    "max_lag": (lambda v: reach(max_lag=v), "max_lag", 1, T - 1),
    "seed of a reach": (lambda v: reach(seed=v), "seed", 0, HUGE),
    "threads": (lambda v: fb.set_num_threads(v), "n", 1, 4096),
}  # fmt: skip
NONE_IS_ONE = {"T of plan", "length", "max_lag", "budget", "segment", "seed of plan"}


def reach(**given):
    return fb.gradient_reach(P.network, P.x, P.y, **given)


WRONG = {
    "minus one": -1,
    "a negative number of 64 bits": -(2**63),
    "a negative number of 5,000 digits": -HUGE,
    "a half": 0.5,
    "a float that is whole": 3.0,
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "text": "soon",
    "digits": "7",
    "bytes": b"7",
    "True": True,
    "False": np.False_,
    "a list": [7],
    "an array": np.array([7, 8]),
    "a complex number": 3 + 0j,
    "a class": int,
}
FLOATS = (np.float32(3), np.array(3.0))


@pytest.fixture(autouse=True)
def threads_put_back(set_threads):
    """Undo the case that sets the number of threads."""


@pytest.mark.parametrize("what", INTEGERS)
def test_what_is_no_such_whole_number_is_named(what):
    call, name, least, _ = INTEGERS[what]
    wrong = [*WRONG.values(), *FLOATS, least - 1] if least <= 1 else [*WRONG.values(), *FLOATS]
    if what not in NONE_IS_ONE:
        wrong.append(None)
    for value in wrong:
        rejected(lambda v=value: call(v), name)


@pytest.mark.parametrize("what", INTEGERS)
def test_whole_numbers_that_are_too_large_are_named(what):
    call, name, _, most = INTEGERS[what]
    for value in (2**63, 2**80, 10**24, HUGE):
        if value > most:
            rejected(lambda v=value: call(v), name, errors=(ValueError,))
    if most < MOST and most not in (1, 0, 100, 10**15):
        rejected(lambda: call(most + 1), name, errors=(ValueError,))


@pytest.mark.parametrize("what", INTEGERS)
def test_the_least_and_the_most_are_taken(what):
    call, _, least, most = INTEGERS[what]
    call(least)
    if what not in ("T of frontier", "T within a budget"):  # these take seconds
        call(most)
        call(np.array(most) if most <= MOST else most)


def test_a_number_that_does_not_fit_into_64_bits_is_said_to_be_that():
    for call in (lambda: fb.plan(P.network, 2**80), lambda: fb.plan(P.network, 5, memory=2**63),
                 lambda: fb.plan(P.network, 5, memory="10000000TB"),
                 lambda: fb.plan(P.network, 2**62), lambda: fb.frontier(P.network, 2**62),
                 lambda: fb.plan(P.network, 2**31, 2**31),
                 lambda: fb.LSTM.init(2**31, 2**31)):  # fmt: skip
        with pytest.raises(ValueError, match="fit into 64 bits"):
            call()


@pytest.mark.parametrize(
    "text",
    ["9" * 5000 + "MB", "9" * 10**6, "9" * 99 + "." + "9" * 99 + "GB", "999999999TB", " " * 10**6],
    ids=["digits", "no unit", "a fraction", "too large", "blanks"],
)  # fmt: skip
def test_an_absurd_budget_is_refused_in_a_short_message(text):
    for call in (fb.Checkpointed, lambda m: fb.plan(P.network, 5, memory=m)):
        with pytest.raises(ValueError, match=r"^memory") as caught:
            call(text)
        assert len(str(caught.value)) < 400


DEVICES = [None, 3, True, 1.5, b"cpu", "", "tpu", "CPU", "cuda:", "cuda:-1", "cuda:x", "x" * 10**5,
           "cuda:" + "9" * 5000, ["cpu"]]  # fmt: skip


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: repr(d)[:20])
def test_what_is_no_device_is_named_by_every_call(device):
    calls = [lambda: P.network.to(device), lambda: P.layer.to(device)]
    if device is not None:
        calls += [
            lambda: fb.run(P.layer, P.x, device=device),
            lambda: fb.forward(P.layer, P.x, device=device),
            lambda: fb.predict(P.network, P.x, device=device),
            lambda: fb.evaluate(P.network, P.x, P.y, device=device),
            lambda: fb.bptt(P.network, P.x, P.y, device=device),
            lambda: fb.plan(P.network, T, device=device),
            lambda: fb.frontier(P.network, T, device=device),
            lambda: fb.explain(P.layer, T, device=device),
            lambda: reach(device=device),
        ]
    for call in calls:
        rejected(call, "device")


def test_a_model_is_not_moved_to_nowhere_by_the_environment(monkeypatch):
    monkeypatch.setenv("FASTBPTT_DEVICE", "cpu")
    rejected(lambda: P.network.to(None), "device", "None", errors=(TypeError,))


@pytest.mark.parametrize("rng", [-1, 1.5, math.nan, "one", True, np.True_, object(), [-1], b"1"])
def test_what_is_no_seed_of_weights_is_named(rng):
    for init in (fb.RNN.init, fb.LSTM.init, fb.GRU.init, fb.Readout.init, cell(gates=1).init):
        rejected(lambda i=init: i(3, 4, rng=rng), "rng")


@pytest.mark.parametrize(
    "dtype",
    [None, True, 3, HUGE, "f2", "int", ">f4", "f4,f4", "", "x" * 10**5, [], {"a": 1},
     "1" * 5000 + "f4"],
    ids=lambda d: repr(type(d)),
)  # fmt: skip
def test_what_is_no_dtype_is_named_in_a_short_message(dtype):
    for init in (fb.RNN.init, fb.Readout.init):
        with pytest.raises(TypeError, match="dtype") as caught:
            init(3, 4, dtype=dtype)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "share", [0, 1, -0.1, 2, math.nan, math.inf, "0.5", None, True, HUGE], ids=arguments.shown
)
def test_what_is_no_share_is_named(share):
    rejected(lambda: reach(share=share), "share")


@pytest.mark.parametrize(
    "dropout", [1, -0.1, 2, math.nan, math.inf, "0.5", None, True, HUGE], ids=arguments.shown
)
def test_what_is_no_dropout_is_named(dropout):
    rejected(lambda: fb.Stack([P.layer], dropout), "dropout")


class Shy:
    """An object whose repr fails."""

    def __repr__(self):
        raise RuntimeError("shy")


FLAGS = {
    "input_grad": lambda v: fb.bptt(P.network, P.x, P.y, input_grad=v),
    "input_grad of backward": lambda v: fb.backward(CACHE, P.dh, input_grad=v),
    "input_grad of plan": lambda v: fb.plan(P.network, T, input_grad=v),
    "deltas": lambda v: fb.backward(CACHE, P.dh, deltas=v),
    "keep": lambda v: fb.backward(CACHE, P.dh, keep=v),
    "keep of run": lambda v: fb.run(P.layer, P.x, keep=v),
    "peepholes": lambda v: fb.LSTM.init(3, 4, peepholes=v),
    "reset": lambda v: fb.GRU.init(3, 4, reset=v),
    "activation": lambda v: fb.RNN.init(3, 4, activation=v),
    "reduction": lambda v: fb.bptt(P.network, P.x, P.y, reduction=v),
    "loss": lambda v: fb.bptt(P.network, P.x, P.y, v),
    "progress": lambda v: fb.bptt(P.network, P.x, P.y, progress=v),
    "layer": lambda v: fb.run(v, P.x),
    "network": lambda v: fb.predict(v, P.x),
    "x": lambda v: fb.run(P.layer, v),
    "y": lambda v: fb.bptt(P.network, P.x, v),
    "lengths": lambda v: fb.run(P.layer, P.x, lengths=v),
    "state": lambda v: fb.run(P.layer, P.x, v),
    "weights": lambda v: fb.bptt(P.network, P.x, P.y, weights=v),
    "cache": lambda v: fb.backward(v, P.dh),
    "dh": lambda v: fb.backward(CACHE, v),
    "arrays": lambda v: P.layer.replace_arrays(v),
    "path": fb.load,
    "module": fb.from_torch,
    "layers": fb.Stack,
    "function": lambda v: fb.Activation("x", v, v),
    "name": lambda v: fb.Activation(v, lambda a: a, lambda s: 1.0),
}  # fmt: skip
CACHE = fb.forward(P.layer, P.x)[2]


@pytest.mark.parametrize("what", FLAGS)
def test_what_is_neither_flag_choice_nor_array_is_named(what):
    if what == "module":
        pytest.importorskip("torch", reason="torch is not installed")
    for value in (7, -1.5, math.nan, "absurd", b"full", HUGE, [None], {}, Shy()):
        if what in ("path", "name") and isinstance(value, str):
            continue
        rejected(lambda v=value: FLAGS[what](v), what.partition(" ")[0])
    assert fb.backward(CACHE, P.dh, keep=True).x is not None
