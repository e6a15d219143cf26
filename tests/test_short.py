"""Small calls: from the second of a shape on they go a short way, with the bits of the general."""

import threading

import numpy as np
import pytest
from results import forward_and_backward, same

import fastbptt as fb
from fastbptt.calls import short, short_calls

LAYERS = {
    "rnn": lambda dtype: fb.RNN.init(3, 7, rng=0, dtype=dtype),
    "lstm": lambda dtype: fb.LSTM.init(3, 8, rng=0, dtype=dtype),
    "peepholes": lambda dtype: fb.LSTM.init(3, 5, rng=0, dtype=dtype, peepholes=True),
    "gru": lambda dtype: fb.GRU.init(3, 9, rng=0, dtype=dtype),
    "gru before": lambda dtype: fb.GRU.init(3, 16, rng=0, dtype=dtype, reset="before"),
    "stack": lambda dtype: fb.Stack(
        [fb.LSTM.init(3, 8, rng=0, dtype=dtype), fb.GRU.init(8, 5, rng=1, dtype=dtype)]
    ),
}


@pytest.fixture
def check(monkeypatch):
    """`check(call)` compares the short way of a call with the general one."""
    monkeypatch.setattr(short_calls, "_known", {})

    def check(call):
        with monkeypatch.context() as patch:
            patch.setattr(short, "call_of", lambda *arguments: None)
            due = call()
        for _ in range(3):
            assert same(call(), due)
        assert any(isinstance(found, tuple) for found in short_calls._known.values())
        return due

    return check


def given(layer, T, B, squeeze=False):
    """Random (x, dh, y of two outputs) for a layer."""
    rng = np.random.default_rng(5)
    shape = (T,) if squeeze else (T, B)
    widths = layer.inputs, layer.outputs, 2
    return [rng.normal(size=(*shape, width)).astype(layer.dtype) for width in widths]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("T", "B", "squeeze"), [(1, 1, False), (6, 1, True), (40, 9, False)])
def test_same_bits(name, dtype, T, B, squeeze, check):
    layer = LAYERS[name](dtype)
    x, dh, y = given(layer, T, B, squeeze)
    network = fb.Network(layer, fb.Readout.init(layer.outputs, 2, rng=2, dtype=dtype))
    _, state = check(lambda: fb.run(layer, x))
    check(lambda: fb.run(layer, x, state, keep="last"))
    check(lambda: forward_and_backward(layer, x, dh))
    check(lambda: forward_and_backward(layer, x, dh, state, state, input_grad=False))
    check(lambda: forward_and_backward(layer, x, dh, state, deltas=True))
    check(lambda: forward_and_backward(layer, x, np.asfortranarray(dh), None, state))
    check(lambda: fb.bptt(network, x, y))
    check(lambda: fb.bptt(network, x, y, state=state, reduction="mean", input_grad=True))
    check(lambda: fb.bptt(network, x, y, memory="10MB"))


def test_checkpointed(check):
    layer = LAYERS["lstm"]("float32")
    x, _, y = given(layer, 30, 2)
    network = fb.Network(layer, fb.Readout.init(8, 2, rng=2))
    least = fb.frontier(network, 30, 2)[1].peak_bytes
    assert check(lambda: fb.bptt(network, x, y, memory=least)).plan.recomputes == 1


@pytest.mark.parametrize("activation", ["identity", "tanh", "softmax", "sigmoid"])
def test_readouts(activation, check):
    layer = LAYERS["gru"]("float32")
    x, _, y = given(layer, 5, 3)
    network = fb.Network(layer, fb.Readout.init(9, 2, rng=2, activation=activation))
    check(lambda: fb.bptt(network, x, y))
    if activation == "sigmoid":
        check(lambda: fb.bptt(network, x, abs(y) / 9, "binary_cross_entropy"))


def test_own_cell(check):
    leaky = fb.Activation("short_leaky", lambda a: a * 0.9, lambda s: 0.9)
    layer = fb.RNN.init(3, 4, rng=0, activation=leaky)
    x, dh, _ = given(layer, 5, 2)
    check(lambda: forward_and_backward(layer, x, dh))


@pytest.mark.parametrize("deltas", [False, True])
def test_weights_may_change_before_the_way_back(deltas, check):
    layer = LAYERS["gru"]("float32")
    x, dh, _ = given(layer, 5, 2)

    def call():
        own = layer.replace_arrays([array.copy() for array in layer.arrays()])
        _, _, cache = fb.forward(own, x)
        for array in own.arrays():
            array += 1
        return fb.backward(cache, dh, deltas=deltas)

    check(call)


def test_weights_of_now_are_used(check):
    layer = LAYERS["lstm"]("float32")
    x, _, _ = given(layer, 5, 2)
    first = check(lambda: fb.run(layer, x))
    layer.W[:] *= 2
    second = check(lambda: fb.run(layer, x))
    assert not same(first, second)


def test_cache_is_consumed_once_and_kept_on_request(check):
    layer = LAYERS["lstm"]("float32")
    x, dh, _ = given(layer, 5, 2)
    due = check(lambda: forward_and_backward(layer, x, dh))[2]
    _, _, cache = fb.forward(layer, x)
    assert isinstance(cache._tape, short.ShortTape)
    assert same(fb.backward(cache, dh, keep=True), due)
    with pytest.raises(ValueError, match="dh"):
        fb.backward(cache, dh[1:])
    assert same(fb.backward(cache, dh), due)
    with pytest.raises(ValueError, match="consumed"):
        fb.backward(cache, dh)


def test_threads_at_once(check):
    layer = LAYERS["lstm"]("float32")
    x, dh, _ = given(layer, 30, 2)
    due = check(lambda: forward_and_backward(layer, x, dh))[2]
    _, _, cache = fb.forward(layer, x)
    found = []

    def work():
        for _ in range(50):
            found.append(fb.backward(cache, dh, keep=True))
            found.append(forward_and_backward(layer, x, dh)[2])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 300
    assert all(same(own, due) for own in found)


def test_errors_stay(check):
    layer = LAYERS["lstm"]("float32")
    x, _, y = given(layer, 5, 2)
    network = fb.Network(layer, fb.Readout.init(8, 2, rng=2))
    check(lambda: fb.run(layer, x))
    check(lambda: fb.bptt(network, x, y))
    for bad in (x[:, :, :2], x.astype("f8"), x[0, 0], np.ma.masked_array(x), [1.0]):
        with pytest.raises((TypeError, ValueError), match="x must"):
            fb.run(layer, bad)
    with pytest.raises((TypeError, ValueError), match="state"):
        fb.run(layer, x, x[0])
    with pytest.raises(ValueError, match="y must"):
        fb.bptt(network, x, y[1:])
    with pytest.raises(ValueError, match="reduction"):
        fb.bptt(network, x, y, reduction="median")
    for bad in (False, 0.0):
        with pytest.raises(TypeError, match="t0"):
            fb.bptt(network, x, y, t0=bad)
    with pytest.raises(ValueError, match="device"):
        fb.run(layer, x, device="tpu")


def test_arrays_that_kernels_cannot_take_go_the_general_way(check):
    layer = LAYERS["rnn"]("float32")
    x, _, _ = given(layer, 5, 2)
    due = check(lambda: fb.run(layer, x))
    frozen = x.copy()
    frozen.setflags(write=False)
    for other in (np.asfortranarray(x), frozen, x[::-1].copy()[::-1]):
        for _ in range(3):
            assert same(fb.run(layer, other), due)


def test_few_shapes_are_remembered(monkeypatch):
    monkeypatch.setattr(short_calls, "_known", {})
    monkeypatch.setattr(short_calls, "_HELD", 4)
    layer = LAYERS["rnn"]("float32")
    for T in range(1, 10):
        x, _, _ = given(layer, T, 1)
        for _ in range(3):
            fb.run(layer, x)
    assert len(short_calls._known) <= 4
