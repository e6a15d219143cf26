"""Rejected arguments: a ValueError or TypeError that names each, and nothing changes."""

import numpy as np
import pytest
from checks import (
    SIZES,
    bptt,
    c64,
    changed,
    contents,
    f16,
    f64,
    longdouble,
    policy,
    rejected,
    small_problem,
)
from helpers import flatten

import fastbptt as fb

T, B, I, H, O = SIZES


@pytest.fixture
def p():
    return small_problem()


# An argument that all calls with x share: name, what is wrong with it, words in the message.
X = {
    "wrong features": (lambda p: {"x": p.x[:, :, 1:]}, "x", str((T, B, I - 1)), str(I)),
    "too few axes": (lambda p: {"x": p.x[:, 0, 0]}, "x", str((T,))),
    "too many axes": (lambda p: {"x": p.x[None]}, "x", str((1, T, B, I))),
    "float16": (lambda p: {"x": f16(p.x)}, "x", "float16", "float32"),
    "complex": (lambda p: {"x": c64(p.x)}, "x", "complex64"),
    "object": (lambda p: {"x": p.x.astype(object)}, "x", "object"),
    "text": (lambda p: {"x": p.x.astype(str)}, "x"),
    "longdouble": (lambda p: {"x": longdouble(p.x)}, "x", str(np.dtype("longdouble"))),
    "bool": (lambda p: {"x": p.x > 0}, "x", "bool"),
    "float64 beside float32": (lambda p: {"x": f64(p.x)}, "x", "float64", "float32"),
    "a list": (lambda p: {"x": p.x.tolist()}, "x", "list"),
    "nothing": (lambda p: {"x": None}, "x", "None"),
    "a string": (lambda p: {"x": "x.npy"}, "x", "str"),
    "3-d tokens": (lambda p: {"x": p.tokens[None]}, "x", str((1, T, B))),
    "state of another batch": (
        lambda p: {"state": p.state[1:]},
        "state",
        str((B - 1, H)),
        str((B, H)),
    ),
    "state without a batch axis": (lambda p: {"state": p.state[0]}, "state", str((H,))),
    "state of float64": (lambda p: {"state": f64(p.state)}, "state", "float64", "float32"),
    "state of float16": (lambda p: {"state": f16(p.state)}, "state", "float16"),
    "a pair as an RNN's state": (lambda p: {"state": (p.state, p.state)}, "state", "tuple"),
    "a number as state": (lambda p: {"state": 0.0}, "state", "float"),
    "negative length": (lambda p: {"lengths": np.array([1, -2, 3])}, "lengths", "-2"),
    "length beyond T": (
        lambda p: {"lengths": np.array([1, T + 7, 3])},
        "lengths",
        str(T + 7),
        str(T),
    ),
    "lengths of another batch": (
        lambda p: {"lengths": np.ones(B + 1, int)},
        "lengths",
        str((B + 1,)),
    ),
    "2-d lengths": (lambda p: {"lengths": np.ones((B, 1), int)}, "lengths", str((B, 1))),
    "float lengths": (lambda p: {"lengths": np.full(B, 2.0)}, "lengths", "float64"),
    "bool lengths": (lambda p: {"lengths": np.ones(B, bool)}, "lengths", "bool"),
    "no such device": (lambda p: {"device": "abacus"}, "device", "'abacus'", "cpu"),
    "device is no name": (lambda p: {"device": 3}, "device", "3"),
    "unknown class": (lambda p: {"x": changed(p.tokens, (4, 1), I + 9)}, "x", str(I + 9), "4", "1"),
    "negative class": (lambda p: {"x": changed(p.tokens, (5, 2), -7)}, "x", "-7", "5", "2"),
    "class of 33 bits": (lambda p: {"x": changed(p.tokens, (3, 0), 2**32 + 1)}, "x", "3", "0"),
    "class of 64 bits": (
        lambda p: {"x": changed(p.tokens.astype("u8"), (3, 2), 2**64 - 2)},
        "x",
        "3",
        "2",
    ),
}

CALLS = {
    "forward": lambda p, x, **rest: fb.forward(p.layer, x, **rest),
    "run": lambda p, x, **rest: fb.run(p.layer, x, **rest),
    "last": lambda p, x, **rest: fb.run(p.layer, x, keep="last", **rest),
    "predict": lambda p, x, **rest: fb.predict(p.network, x, **rest),
    "evaluate": lambda p, x, **rest: fb.evaluate(p.network, x, p.y, **rest),
    "bptt": lambda p, x, **rest: fb.bptt(p.network, x, p.y, **rest),
    "checkpointed": lambda p, x, **rest: fb.bptt(
        p.network, x, p.y, memory=fb.Checkpointed(segment=2), **rest
    ),
    "truncated": lambda p, x, **rest: fb.bptt(p.network, x, p.y, memory=fb.Truncated(2, 3), **rest),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("wrong", X)
def test_every_call_rejects(p, call, wrong):
    make, *words = X[wrong]
    given = make(p)
    x = given.pop("x", p.x)
    before = contents(p)
    rejected(lambda: CALLS[call](p, x, **given), *words)
    assert contents(p) == before


LSTM_STATES = {
    "one array": lambda s: s,
    "a triple": lambda s: (s, s, s),
    "a single": lambda s: (s,),
    "None in the pair": lambda s: (s, None),
    "c of another shape": lambda s: (s, s[:, 1:]),
    "s of another dtype": lambda s: (f64(s), s),
}


@pytest.mark.parametrize("state", LSTM_STATES)
def test_lstm_state_is_a_pair_of_states(p, state):
    state = LSTM_STATES[state](p.state)
    rejected(lambda: fb.forward(p.lstm, p.x, state), "state")
    h, _, cache = fb.forward(p.lstm, p.x)
    rejected(lambda: fb.backward(cache, h, state), "dstate")


@pytest.mark.parametrize(
    "memory", ["full", 0.1, fb.Checkpointed(segment=1000), fb.Truncated(7, 20)]
)
@pytest.mark.parametrize("t", [0, 2611, 4999])
def test_a_bad_token_is_named_wherever_it_stands(p, memory, t):
    tokens = np.zeros(5000, np.uint8)
    tokens[t] = 200
    y = np.zeros((5000, O), np.float32)
    memory = policy(memory, p.network, 5000)
    rejected(
        lambda: fb.bptt(p.network, tokens, y, memory=memory),
        "x",
        "200",
        str(t),
        errors=(ValueError,),
    )


OTHERS = {
    "run keeps what": (lambda p: fb.run(p.layer, p.x, keep="some"), "keep", "'some'", "'last'"),
    "predict without readout": (lambda p: fb.predict(p.bare, p.x), "readout", "None"),
    "forward of a network": (lambda p: fb.forward(p.network, p.x), "layer", "Network"),
    "forward of nothing": (lambda p: fb.forward(None, p.x), "layer", "None"),
    "predict of a layer": (lambda p: fb.predict(p.layer, p.x), "network"),
    "progress is no callable": (lambda p: bptt(p, progress=3), "progress", "3"),
    "t0 is no integer": (lambda p: bptt(p, t0="soon"), "t0", "'soon'"),
    "backward without cache": (lambda p: fb.backward("cache", p.dh), "cache", "str"),
    "explain nothing": (lambda p: fb.explain(None, 10), "layer", "None"),
    "explain float16": (lambda p: fb.explain(p.layer, 10, dtype="float16"), "dtype", "float16"),
    "plan of a negative T": (lambda p: fb.plan(p.network, -1), "T", "-1"),
    "plan of half a step": (lambda p: fb.plan(p.network, 2.5), "T", "2.5"),
    "plan of a negative B": (lambda p: fb.plan(p.network, 5, -3), "B", "-3"),
    "frontier of a negative T": (lambda p: fb.frontier(p.network, -1), "T", "-1"),
    "no batch axis, state with one": (
        lambda p: fb.run(p.layer, p.x[:, 0], p.state[:1]),
        "state",
        str((1, H)),
    ),
    "no batch axis, y with one": (lambda p: bptt(p, x=p.x[:, 0]), "y", str((T, B, O))),
    "no batch axis, bad token": (lambda p: fb.run(p.layer, np.array([0, 1, 9])), "x", "9", "2"),
    "no batch axis, long length": (
        lambda p: fb.run(p.layer, p.x[:, 0], lengths=T + 1),
        "lengths",
        str(T + 1),
    ),
}


@pytest.mark.parametrize("wrong", OTHERS)
def test_other_arguments(p, wrong):
    call, *words = OTHERS[wrong]
    rejected(lambda: call(p), *words)


DH = {
    "shape": (lambda dh: dh[1:], "dh", str((T - 1, B, H)), str((T, B, H))),
    "no batch axis": (lambda dh: dh[:, 0], "dh", str((T, H))),
    "float64": (f64, "dh", "float64", "float32"),
    "float16": (f16, "dh", "float16"),
    "integers": (lambda dh: dh.astype(int), "dh", "int64"),
    "list": (lambda dh: dh.tolist(), "dh", "list"),
    "None": (lambda dh: None, "dh", "None"),
}


@pytest.mark.parametrize("wrong", DH)
def test_a_rejected_backward_leaves_its_cache_usable(p, wrong):
    make, *words = DH[wrong]
    expected = fb.backward(fb.forward(p.layer, p.x)[2], p.dh)
    h, _, cache = fb.forward(p.layer, p.x)
    kept = h.copy()
    rejected(lambda: fb.backward(cache, make(p.dh)), *words)
    rejected(lambda: fb.backward(cache, p.dh, p.state[1:]), "dstate", str((B - 1, H)))
    g = fb.backward(cache, p.dh)
    assert np.array_equal(h, kept)
    for one, other in zip(
        flatten((g.layer, g.x)), flatten((expected.layer, expected.x)), strict=True
    ):
        assert np.array_equal(one, other)


def test_a_cache_is_consumed_unless_kept(p):
    cache = fb.forward(p.layer, p.x)[2]
    first = fb.backward(cache, p.dh, keep=True)
    second = fb.backward(cache, p.dh)
    assert np.array_equal(first.x, second.x)
    for keep in (False, True):
        with pytest.raises(ValueError, match="cache"):
            fb.backward(cache, p.dh, keep=keep)


def test_nan_is_no_error(p):
    r = bptt(p, x=changed(p.x, (2, 1, 0), np.nan))
    assert np.isnan(r.loss)
