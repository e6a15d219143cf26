"""Every rejected argument: a ValueError or TypeError that names it and what came, and no harm."""

import numpy as np
import pytest
from checks import rejected
from helpers import assert_same_bits, flatten, make_problem

import fastbptt as fb

T, B, I, H, O = SIZES = (6, 3, 4, 5, 2)


@pytest.fixture
def p():
    """One problem of each kind, float32; `loose` is without a batch axis."""
    p = make_problem("rnn-tanh", SIZES, "float32")
    p.lstm = make_problem("lstm", SIZES, "float32").layer
    p.tokens = np.random.default_rng(1).integers(0, I, (T, B))
    p.softmax = fb.Network(
        p.layer, make_problem("rnn-tanh", SIZES, "float32", readout="softmax").readout
    )
    p.sigmoid = fb.Network(
        p.layer, make_problem("rnn-tanh", SIZES, "float32", readout="sigmoid").readout
    )
    p.bare = fb.Network(p.layer, None)
    p.ids = p.rng.integers(0, O, (T, B))
    return p


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def bptt(p, **changes):
    given = {"network": p.network, "x": p.x, "y": p.y} | changes
    return fb.bptt(given.pop("network"), given.pop("x"), given.pop("y"), **given)


def contents(p):
    return [a.tobytes() for a in (*p.network.arrays(), p.x, p.y, p.state, p.tokens)]


def harmless(h, y, start):
    return 0.0, np.zeros_like(h)


f16, f64, c64, longdouble = (
    lambda a, name=name: a.astype(name)
    for name in ("float16", "float64", "complex64", "longdouble")
)

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
    "state of another batch": (lambda p: {"state": p.state[1:]}, "state", str((B - 1, H)), str((B, H))),
    "state without a batch axis": (lambda p: {"state": p.state[0]}, "state", str((H,))),
    "state of float64": (lambda p: {"state": f64(p.state)}, "state", "float64", "float32"),
    "state of float16": (lambda p: {"state": f16(p.state)}, "state", "float16"),
    "a pair as an RNN's state": (lambda p: {"state": (p.state, p.state)}, "state", "tuple"),
    "a number as state": (lambda p: {"state": 0.0}, "state", "float"),
    "negative length": (lambda p: {"lengths": np.array([1, -2, 3])}, "lengths", "-2"),
    "length beyond T": (lambda p: {"lengths": np.array([1, T + 7, 3])}, "lengths", str(T + 7), str(T)),
    "lengths of another batch": (lambda p: {"lengths": np.ones(B + 1, int)}, "lengths", str((B + 1,))),
    "2-d lengths": (lambda p: {"lengths": np.ones((B, 1), int)}, "lengths", str((B, 1))),
    "float lengths": (lambda p: {"lengths": np.full(B, 2.0)}, "lengths", "float64"),
    "bool lengths": (lambda p: {"lengths": np.ones(B, bool)}, "lengths", "bool"),
    "no such device": (lambda p: {"device": "abacus"}, "device", "'abacus'", "cpu"),
    "device is no name": (lambda p: {"device": 3}, "device", "3"),
    "unknown class": (lambda p: {"x": changed(p.tokens, (4, 1), I + 9)}, "x", str(I + 9), "4", "1"),
    "negative class": (lambda p: {"x": changed(p.tokens, (5, 2), -7)}, "x", "-7", "5", "2"),
    "class of 33 bits": (lambda p: {"x": changed(p.tokens, (3, 0), 2**32 + 1)}, "x", "3", "0"),
    "class of 64 bits": (lambda p: {"x": changed(p.tokens.astype("u8"), (3, 2), 2**64 - 2)}, "x", "3", "2"),
}  # fmt: skip

CALLS = {
    "forward": lambda p, x, **rest: fb.forward(p.layer, x, **rest),
    "run": lambda p, x, **rest: fb.run(p.layer, x, **rest),
    "last": lambda p, x, **rest: fb.run(p.layer, x, keep="last", **rest),
    "predict": lambda p, x, **rest: fb.predict(p.network, x, **rest),
    "evaluate": lambda p, x, **rest: fb.evaluate(p.network, x, p.y, **rest),
    "bptt": lambda p, x, **rest: fb.bptt(p.network, x, p.y, **rest),
    "checkpointed": lambda p, x, **rest: fb.bptt(p.network, x, p.y, memory=fb.Checkpointed(segment=2), **rest),
    "truncated": lambda p, x, **rest: fb.bptt(p.network, x, p.y, memory=fb.Truncated(2, 3), **rest),
}  # fmt: skip


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
    "weights with a callable": (lambda p: {"loss": harmless, "weights": np.ones(T, "f4")}, "weights"),
    "mean with a callable": (lambda p: {"loss": harmless, "reduction": "mean"}, "reduction", "'mean'"),
    "weights of another T": (lambda p: {"weights": np.ones(T + 1, "f4")}, "weights", str((T + 1,))),
    "weights (B, T)": (lambda p: {"weights": np.ones((B, T), "f4")}, "weights", str((B, T))),
    "a number as weights": (lambda p: {"weights": 2.0}, "weights", "float"),
    "complex weights": (lambda p: {"weights": np.ones(T, "c8")}, "weights", "complex64"),
    "unknown reduction": (lambda p: {"reduction": "max"}, "reduction", "'max'", "'mean'"),
    "a layer for a network": (lambda p: {"network": p.layer}, "network", "Network"),
    "no network": (lambda p: {"network": None}, "network", "None"),
}  # fmt: skip
VALUE_ERRORS = {"cross-entropy without softmax", "binary cross-entropy without sigmoid",
                "named loss without readout", "weights with a callable", "mean with a callable",
                "unknown loss"}  # fmt: skip


@pytest.mark.parametrize("function", ["bptt", "evaluate"])
@pytest.mark.parametrize("wrong", BPTT)
def test_training_rejects(p, function, wrong):
    make, *words = BPTT[wrong]
    given = {"network": p.network, "x": p.x, "y": p.y} | make(p)
    errors = (ValueError,) if wrong in VALUE_ERRORS else (ValueError, TypeError)
    call = getattr(fb, function)
    rejected(
        lambda: call(*(given.pop(n) for n in ("network", "x", "y")), **given), *words, errors=errors
    )


@pytest.mark.parametrize("index, id", [((4, 1), O), ((0, 2), -1), ((5, 0), 2**40)])
def test_class_ids_of_y_are_checked_and_the_position_named(p, index, id):
    y = changed(p.ids, index, id)
    for memory in ("full", fb.Checkpointed(segment=4), fb.Truncated(2, 4)):
        rejected(lambda m=memory: fb.bptt(p.softmax, p.x, y, "cross_entropy", memory=m),
                 "y", *map(str, index), errors=(ValueError,))  # fmt: skip
    rejected(lambda: fb.bptt(p.softmax, p.x, f64(y), "cross_entropy"), "y", "float64")


@pytest.mark.parametrize(
    "memory", ["full", "100KB", fb.Checkpointed(segment=1000), fb.Truncated(7, 20)]
)
@pytest.mark.parametrize("t", [0, 2611, 4999])
def test_a_bad_token_is_named_wherever_it_stands(p, memory, t):
    tokens = np.zeros(5000, np.uint8)
    tokens[t] = 200
    y = np.zeros((5000, O), np.float32)
    rejected(
        lambda: fb.bptt(p.network, tokens, y, memory=memory),
        "x",
        "200",
        str(t),
        errors=(ValueError,),
    )


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
    "no batch axis, state with one": (lambda p: fb.run(p.layer, p.x[:, 0], p.state[:1]), "state", str((1, H))),
    "no batch axis, y with one": (lambda p: bptt(p, x=p.x[:, 0]), "y", str((T, B, O))),
    "no batch axis, bad token": (lambda p: fb.run(p.layer, np.array([0, 1, 9])), "x", "9", "2"),
    "no batch axis, long length": (lambda p: fb.run(p.layer, p.x[:, 0], lengths=T + 1), "lengths", str(T + 1)),
}  # fmt: skip


@pytest.mark.parametrize("wrong", OTHERS)
def test_other_arguments(p, wrong):
    call, *words = OTHERS[wrong]
    rejected(lambda: call(p), *words)


RETURNS = {
    "nothing": lambda h: None,
    "the value alone": lambda h: 1.0,
    "a triple": lambda h: (1.0, h, h),
    "dh of another shape": lambda h: (1.0, h[1:]),
    "dh of another dtype": lambda h: (1.0, f64(h)),
    "dh a list": lambda h: (1.0, h.tolist()),
    "a value that is no number": lambda h: ("one", h),
}


@pytest.mark.parametrize("what", RETURNS)
def test_what_a_callable_loss_returns_is_checked(p, what):
    rejected(lambda: bptt(p, loss=lambda h, y, start: RETURNS[what](h)), "loss")


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
        with pytest.raises((ValueError, TypeError, RuntimeError), match="cache"):
            fb.backward(cache, p.dh, keep=keep)


def test_nan_is_no_error(p):
    r = bptt(p, x=changed(p.x, (2, 1, 0), np.nan))
    assert np.isnan(r.loss)
