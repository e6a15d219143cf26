"""Arrays on the device stay there and come back as such; NumPy's go there and come back.

In the simulator the device's arrays are those of `mirror`, which is as strict as CuPy.
"""

import mirror
import numpy as np
import pytest
from fastbptt.kernels.cuda import runtime
from helpers import assert_close, make_problem

import fastbptt as fb
from fastbptt.backends import cuda_footprint
from fastbptt.layers.model import Model

LAYERS = ["rnn-tanh", "lstm-peephole", "gru", "gru-before", "lstm/gru", "gru|lstm",
          "lstm/lstm-peephole|gru/rnn-tanh"]  # fmt: skip


pytestmark = pytest.mark.usefixtures("strict")


def there(value):
    """The same on the device."""
    if isinstance(value, Model):
        return value.to("cuda")
    if isinstance(value, tuple):
        return tuple(map(there, value))
    return runtime.arrays().asarray(value) if isinstance(value, np.ndarray) else value


def arrays_of(value):
    """All arrays of a result, in order."""
    if isinstance(value, tuple):
        return [array for part in value for array in arrays_of(part)]
    if isinstance(value, Model):
        return value.arrays()
    return [] if value is None or isinstance(value, (float, int)) else [value]


def check(function, *args, **given):
    """The function on the device's arrays gives the device's, on NumPy's NumPy's: the same."""
    home = arrays_of(function(*args, **given))
    away = arrays_of(function(*map(there, args), **{k: there(v) for k, v in given.items()}))
    assert len(home) == len(away) > 0
    for one, other in zip(home, away, strict=True):
        assert type(one) is np.ndarray
        assert type(other) is type(runtime.arrays().zeros(1))
        assert one.dtype == other.dtype and np.array_equal(one, other.get(), equal_nan=True)
    return home


def bptt(network, x, y, loss="squared_error", **given):
    r = fb.bptt(network, x, y, loss, **given)
    assert isinstance(r.loss, float)
    return r.grad, r.state, r.grad_state, r.grad_x


@pytest.mark.parametrize("memory", ["full", fb.Checkpointed(segment=3)], ids=str)
@pytest.mark.parametrize("cell", LAYERS)
def test_bptt(cell, memory):
    p = make_problem(cell, (8, 2, 3, 4, 2))
    given = {"lengths": p.lengths, "state": p.state, "input_grad": True, "memory": memory}
    check(bptt, p.network, p.x, p.y, **given)


@pytest.mark.parametrize("cell", ["lstm", "lstm/gru"])
def test_truncated_bptt(cell):
    p = make_problem(cell, (9, 2, 3, 4, 2))
    check(bptt, p.network, p.x, p.y, memory=fb.Truncated(2, 5), state=p.state, input_grad=True)


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
def test_classes_weights_and_means(tokens):
    p = make_problem("gru", loss="cross_entropy", readout="softmax", tokens=tokens)
    weights = p.rng.random((p.T, p.B))
    for one in (weights, weights[:, 0]):
        given = {"weights": one, "reduction": "mean", "lengths": p.lengths}
        check(bptt, p.network, p.x, p.y, "cross_entropy", **given)


def test_a_class_that_does_not_exist_is_named():
    p = make_problem("gru", loss="cross_entropy", readout="softmax", tokens=True)
    x = p.x.copy()
    x[3, 1] = 99
    said = r"x must hold classes 0\.\.3, but at t=3, b=1 it is 99"
    for network, tokens, y in ((p.network, x, p.y), map(there, (p.network, x, p.y))):
        with pytest.raises(ValueError, match=said):
            fb.bptt(network, tokens, y, "cross_entropy")


@pytest.mark.parametrize("cell", LAYERS)
def test_forward_and_backward(cell):
    p = make_problem(cell, (6, 3, 2, 4, 2))

    def both(layer, x, state, lengths, dh, dstate):
        h, final, cache = fb.forward(layer, x, state, lengths=lengths)
        g = fb.backward(cache, dh, dstate, deltas=True)
        return h, final, g.layer, g.x, g.state, g.deltas

    check(both, p.layer, p.x, p.state, p.lengths, p.dh, p.dstate)


@pytest.mark.parametrize("cell", LAYERS)
def test_run_predict_and_evaluate(cell):
    p = make_problem(cell, (6, 3, 2, 4, 2))
    check(fb.run, p.layer, p.x, p.state, lengths=p.lengths)
    check(fb.run, p.layer, p.x, p.state, lengths=p.lengths, keep="last")
    check(fb.predict, p.network, p.x, p.state)
    values = (fb.evaluate(*map(there, args)) for args in 2 * [(p.network, p.x, p.y)])
    assert len({fb.evaluate(p.network, p.x, p.y), *values}) == 1


def test_without_a_batch_axis_and_with_other_layouts():
    p = make_problem("lstm", (6, 1, 3, 4, 2))
    state = tuple(s[0] for s in p.state)
    check(bptt, p.network, p.x[:, 0], p.y[:, 0], lengths=4, state=state, input_grad=True)
    x = np.asfortranarray(p.x)
    assert_close(fb.run(p.layer, x)[0], fb.run(p.layer, p.x)[0], 0)


def test_dropout_and_a_callable_loss():
    p = make_problem("lstm/gru", dropout=0.3)
    kinds = set()

    def loss(h, y, start):
        kinds.add(type(h))
        assert type(y) is type(h) and len(y) == len(h)
        return float((h * h).sum()), h * 2

    check(bptt, p.network, p.x, p.y, loss, seed=3, lengths=p.lengths)
    assert kinds == {np.ndarray, type(runtime.arrays().zeros(1))}


@pytest.mark.parametrize("loss", ["squared_error", lambda h, y, start: (0.0, h * 2)])
def test_gradient_reach(loss):
    p = make_problem("rnn-tanh", (30, 2, 3, 4, 2))
    found = [
        fb.gradient_reach(network, x, y, loss, samples=3, max_lag=6, weights=weights)
        for network, x, y, weights in (
            map(move, (p.network, p.x, p.y, None if callable(loss) else p.y[:, :, 0] ** 2))
            for move in (lambda value: value, there)
        )
    ]
    assert_close(found[1].norms, found[0].norms, 1e-6)


def test_a_model_on_the_device_is_saved_and_comes_back(tmp_path):
    p = make_problem("lstm/gru")
    away = there(p.network)
    away.save(tmp_path / "model.npz")
    for model in (fb.load(tmp_path / "model.npz"), away.to("cpu")):
        for a, b in zip(model.arrays(), p.network.arrays(), strict=True):
            assert type(a) is np.ndarray and np.array_equal(a, b)
    assert "lstm" in repr(away).lower() or away.layer.layers


class Foreign:
    """An array of another package, whose work is on a stream of its own."""

    def __init__(self, array, stream):
        self.memory, self.stream = array, stream

    @property
    def __cuda_array_interface__(self):
        return {**self.memory.__array_interface__, "stream": self.stream}


@pytest.mark.skipif(not runtime.SIMULATED, reason="on a GPU PyTorch's tensors show the same")
def test_arrays_of_other_packages_come_in_on_their_stream_without_a_copy():
    p = make_problem("lstm")
    layer = fb.LSTM(*(Foreign(a, 5) for a in p.layer.arrays()))
    assert layer.dtype == p.layer.dtype and np.shares_memory(layer.U.inside, p.layer.U)
    expected = fb.run(p.layer, p.x)[0]
    h, _, cache = fb.forward(layer, Foreign(p.x, 5))
    assert np.array_equal(h.get(), expected)
    own = mirror.Stream.made[5]
    assert set(own.after) == {0} and mirror.Stream.null.after[-1] == 5, "before it, and after it"
    fb.backward(cache, Foreign(p.dh, 7))
    assert own.after[-1] == 7
    assert mirror.current == [mirror.Stream.null]
    p.layer.U[...] = 2.0  # weights are read afresh, where they are
    assert not np.array_equal(fb.run(layer, there(p.x))[0].get(), expected)


@pytest.mark.skipif(not runtime.SIMULATED, reason="on a GPU test_on_a_gpu.py measures CuPy's pool")
@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize(
    "memory", ["full", fb.Checkpointed(segment=4), fb.Truncated(2, 5)], ids=str
)
@pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "gru-before", "lstm/gru", "gru|lstm"])
def test_a_plan_bounds_the_bytes_on_the_device(cell, memory, tokens, monkeypatch):
    monkeypatch.setattr("fastbptt.backends.cuda_footprint._POOLED", 0)  # what CuPy's pool rounds up
    monkeypatch.setattr("fastbptt.backends.cuda.MOVED_BYTES", 256)
    monkeypatch.setattr("fastbptt.backends.cuda_footprint.MOVED_BYTES", 256)
    cuda_footprint.footprint.cache_clear()
    truncated = isinstance(memory, fb.Truncated)
    if truncated and "|" in cell:
        pytest.skip("a Bidirectional is never truncated: that is an error on every device")
    p = make_problem(cell, (12, 3, 5, 3, 4), "float64", tokens=tokens, dropout=0.2 * ("/" in cell))
    given = {"memory": memory, "lengths": p.lengths, "seed": 1, "weights": p.rng.random((p.T, p.B))}
    for network, x, y in ((p.network, p.x, p.y), map(there, (p.network, p.x, p.y))):
        at_home = network is p.network
        if not at_home:
            given["weights"] = there(given["weights"])
        r = fb.bptt(network, x, y, input_grad=not tokens, **given)
        returned = 0 if at_home else sum(a.nbytes for a in arrays_of((r.grad, r.grad_x)))
        del r
        before = mirror.memory.now
        mirror.memory.most = before
        r = fb.bptt(network, x, y, input_grad=not tokens, **given)
        assert mirror.memory.most - before - returned <= r.plan.peak_bytes
        assert mirror.memory.most > before
    cuda_footprint.footprint.cache_clear()


class Packed:
    """An array of another package on the GPU that speaks nothing but DLPack."""

    def __init__(self, array):
        self.memory, self.dtype, self.shape = array, array.dtype, array.shape

    def __dlpack__(self, **given):
        return self.memory.__dlpack__()

    def __dlpack_device__(self):
        return 2, 0


@pytest.mark.skipif(not runtime.SIMULATED, reason="the stand-in has this package's arrays")
def test_dlpack_is_read_where_it_is_and_results_speak_it():
    p = make_problem("lstm")
    layer = fb.LSTM(*map(Packed, p.layer.arrays()))
    assert np.shares_memory(layer.U.inside, p.layer.U)
    h, _ = fb.run(layer, Packed(p.x), tuple(map(Packed, p.state)))
    assert np.array_equal(np.from_dlpack(h), fb.run(p.layer, p.x, p.state)[0])
    network = fb.Network(layer, there(p.readout))
    r = fb.bptt(network, Packed(p.x), Packed(p.y), weights=Packed(np.ones((p.T, p.B))))
    assert r.loss == fb.bptt(p.network, p.x, p.y).loss and type(r.grad.layer.U) is type(h)
    for refused in (
        lambda: fb.run(p.layer, Packed(p.x)),
        lambda: fb.Stepper(p.layer).process(Packed(p.x)),
    ):
        with pytest.raises(TypeError, match="GPU"):
            refused()


def test_arrays_of_two_places_are_a_type_error():
    p = make_problem()
    away = there(p.network)
    for call in (
        lambda: fb.run(p.layer, there(p.x)),
        lambda: fb.run(away.layer, p.x),
        lambda: fb.bptt(away, there(p.x), p.y),
        lambda: fb.bptt(away, there(p.x), there(p.y), weights=np.ones(p.T)),
        lambda: fb.run(away.layer, there(p.x), p.state),
        lambda: fb.run(away.layer, there(p.x), device="cpu"),
    ):
        with pytest.raises(TypeError, match=r"x|y|weights|state|device"):
            call()


def test_plans_and_explanations_of_models_on_the_device():
    p = make_problem("lstm")
    assert fb.plan(there(p.network), 100, 2) == fb.plan(p.network, 100, 2)
    assert "where the arrays are" in fb.explain(there(p.network), 100, 2)
    assert "float64" in repr(there(p.layer))
    assert "float32" not in fb.explain(there(p.layer), 10, 1, dtype="float64")


@pytest.mark.parametrize("lengths", [None, [6, 4]])
def test_data_sets_are_read_to_the_device_a_stretch_at_a_time(lengths, monkeypatch):
    """Those of NumPy arrays go there and come back; a piece is one step."""
    from arrays_brought import Slices

    monkeypatch.setattr("fastbptt.lazy.PIECE", 8)
    p = make_problem("gru|lstm", (6, 2, 3, 4, 2), "float32")
    weights = np.arange(12.0).reshape(6, 2)

    def results(wrap):
        x, y, dh, w = (wrap(a) for a in (p.x, p.y, p.dh, weights))
        g = fb.backward(fb.forward(p.layer, x, lengths=lengths)[2], dh)
        r = fb.bptt(p.network, x, y, weights=w, lengths=lengths)
        return [np.array(r.loss), *r.grad.arrays(), g.x, *g.layer.arrays()]

    for a, b in zip(results(Slices), results(np.array), strict=True):
        assert isinstance(a, np.ndarray) and np.array_equal(a, b)
