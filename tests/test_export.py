"""Networks as files of other programs: ONNX, run by onnxruntime, and the JSON of RTNeural."""

import io
import json

import numpy as np
import pytest
from helpers import CELLS, COMPOSITES, make_layer

import fastbptt as fb
from fastbptt.commands.cli import main

READOUTS = ["identity", "sigmoid", "tanh", "softmax", None]
T, B, I, H, O = 50, 4, 3, 5, 2
DTYPE = "float64"


def make_network(cell, readout="identity", dtype=DTYPE, state=None):
    rng = np.random.default_rng(0)
    layer = make_layer(cell, I, H, dtype, rng)
    head = readout and fb.Readout.init(layer.outputs, O, rng=rng, dtype=dtype, activation=readout)
    return fb.Network(layer, head, state)


def ours(network, x, states):
    """Outputs and final states, in one list, of a network that is given its states in one."""
    rest = iter(states)

    def nested(layer):
        if hasattr(layer, "parts"):
            return tuple(map(nested, layer.parts))
        found = [next(rest) for _ in range(layer.states)]
        return found[0] if len(found) == 1 else tuple(found)

    def flat(state):
        return [a for part in state for a in flat(part)] if isinstance(state, tuple) else [state]

    call = (fb.run, network.layer) if network.readout is None else (fb.predict, network)
    out, last = call[0](call[1], x, nested(network.layer))
    return [out, *flat(last)]


def session_of(network):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    file = io.BytesIO()
    fb.to_onnx(network, file)
    onnx.checker.check_model(onnx.load_from_string(file.getvalue()), full_check=True)
    return runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])


def agree_in_onnxruntime(network, T=T, B=B):
    rng, session = np.random.default_rng(1), session_of(network)
    names = [value.name for value in session.get_inputs()]
    given = {value.name: rng.uniform(-1, 1, (B, value.shape[-1])) for value in session.get_inputs()}
    given["x"] = rng.standard_normal((T, B, I))
    due = ours(network, given["x"], [given[name] for name in names[1:]])
    found = session.run(None, {name: value.astype("f4") for name, value in given.items()})
    for one, other in zip(found, due, strict=True):
        assert one.dtype == np.float32 and one.shape == other.shape
        assert np.abs(one - other).max() <= 2e-6 * np.abs(other).max()


@pytest.mark.parametrize("cell", [*CELLS, *COMPOSITES])
def test_onnxruntime_computes_the_same_outputs_and_states(cell):
    agree_in_onnxruntime(make_network(cell))


@pytest.mark.parametrize("readout", READOUTS)
def test_every_readout_is_in_the_onnx_model(readout):
    agree_in_onnxruntime(make_network("gru", readout))


@pytest.mark.parametrize("T, B", [(1, 1), (1000, 2)])
def test_one_onnx_model_takes_any_time_and_batch(T, B):
    agree_in_onnxruntime(make_network("lstm"), T, B)


def test_inputs_and_outputs_of_the_onnx_model_are_named_by_layer():
    session = session_of(make_network("lstm/gru"))
    found = [(value.name, value.shape) for value in session.get_inputs()]
    assert found == [("x", ["T", "B", I]), ("s0", ["B", H + 2]), ("c0", ["B", H + 2]),
                     ("s1", ["B", H])]  # fmt: skip
    outputs = [value.name for value in session.get_outputs()]
    assert outputs == ["o", "s0_next", "c0_next", "s1_next"]
    assert session_of(make_network("gru", None)).get_outputs()[0].name == "h"


def test_a_networks_own_initial_state_is_in_the_metadata():
    state = (np.arange(5.0), np.full(5, 1 / 3))
    session = session_of(make_network("lstm", state=state))
    held = session.get_modelmeta().custom_metadata_map
    assert held.keys() == {"s0", "c0"}
    for name, own in zip(("s0", "c0"), state, strict=True):
        np.testing.assert_array_equal(np.float32(json.loads(held[name])), np.float32(own))
    assert session_of(make_network("lstm")).get_modelmeta().custom_metadata_map == {}


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def rtneural(model, x):
    """What RTNeural makes of a model: model_loader.h, dense.h, gru.h and lstm.h, in NumPy."""
    width, out = model["in_shape"][-1], x
    for layer in model["layers"]:
        size, weights = layer["shape"][-1], layer["weights"]
        kernel = np.array(weights[0])
        assert kernel.shape[0] == width
        if layer["type"] == "dense":
            out = out @ kernel + np.array(weights[1])  # a row of the JSON is an input's
            activation = layer["activation"]
            if activation == "softmax":
                out = np.exp(out) / np.exp(out).sum(-1, keepdims=True)
            elif activation:
                out = {"tanh": np.tanh, "sigmoid": sigmoid}[activation](out)
        else:
            out = {"gru": gru, "lstm": lstm}[layer["type"]](out, size, *map(np.array, weights))
        width = size
        assert out.shape[1] == width
    return out


def lstm(x, size, kernel, recurrent, bias):
    assert kernel.shape[1] == recurrent.shape[1] == len(bias) == 4 * size
    h, c, states = np.zeros(size), np.zeros(size), []
    for row in x:
        i, f, g, o = np.split(row @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.array(states)


def gru(x, size, kernel, recurrent, bias):
    assert kernel.shape[1] == recurrent.shape[1] == 3 * size and bias.shape == (2, 3 * size)
    h, states = np.zeros(size), []
    for row in x:
        a, b = np.split(row @ kernel + bias[0], 3), np.split(h @ recurrent + bias[1], 3)
        z, r = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
        h = (1 - z) * np.tanh(a[2] + r * b[2]) + z * h
        states.append(h)
    return np.array(states)


@pytest.mark.parametrize(
    "cell, readout",
    [*(("lstm", readout) for readout in READOUTS), ("gru", "identity"), ("lstm/gru", "tanh")],
)
def test_rtneural_computes_the_same_outputs(cell, readout, tmp_path):
    network = make_network(cell, readout)
    fb.to_rtneural(network, tmp_path / "model.json")
    model = json.loads((tmp_path / "model.json").read_text())
    x = np.random.default_rng(1).standard_normal((T, I))
    due = (fb.run(network.layer, x) if readout is None else fb.predict(network, x))[0]
    np.testing.assert_allclose(rtneural(model, x), due, rtol=1e-12, atol=1e-14)


def test_rtneural_gets_the_numbers_of_float32_in_full(tmp_path):
    layer = fb.LSTM.init(I, H, rng=0)
    fb.to_rtneural(layer, tmp_path / "model.json")
    (written,) = json.loads((tmp_path / "model.json").read_text())["layers"]
    assert (np.float32(written["weights"][0]).T == layer.U).all()


SQUARE = fb.Activation("export_square", lambda a: a * a)
LEAKY = fb.Cell("export_leaky", 1, lambda a, s: (s[0] / 2 + np.tanh(a[0]),))


def spoiled(cell, number, dtype=DTYPE):
    network = make_network(cell, dtype=dtype)
    network.layer.W[3, 2] = number
    return network


def own_layers():
    layer = fb.RNN.init(I, H, rng=0)
    yield fb.RNN(layer.U, layer.W, layer.b, SQUARE)
    yield LEAKY(layer.U, layer.W, layer.b)


@pytest.mark.parametrize("export", [fb.to_onnx, fb.to_rtneural])
def test_cells_of_your_own_are_refused(export):
    for layer in own_layers():
        for given in (layer, fb.Stack([fb.GRU.init(2, I), layer])):
            with pytest.raises(ValueError, match=r"network\.layer.* must be .* built-in"):
                export(given, io.BytesIO())


REFUSED = {
    "gru-before": "reset", "lstm-peephole": "peepholes", "rnn-tanh": "GRU or LSTM",
    "gru|lstm": "Bidirectional", "lstm/rnn-relu": r"layers\[1\]",
}  # fmt: skip


@pytest.mark.parametrize("cell", REFUSED)
def test_what_rtneural_has_no_layer_for_is_refused(cell):
    with pytest.raises(ValueError, match=f"(?s){REFUSED[cell]}.*RTNeural"):
        fb.to_rtneural(make_network(cell), io.BytesIO())


def test_numbers_that_a_file_cannot_hold_are_refused(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(ValueError, match=r"network\.layer\.W.*float32.*1e\+300 at \(3, 2\)"):
        fb.to_onnx(spoiled("gru", 1e300), path)
    for number in (np.nan, -np.inf):
        fb.to_onnx(spoiled("gru", number), io.BytesIO())
        with pytest.raises(ValueError, match=r"network\.layer\.W must hold finite.*\(3, 2\)"):
            fb.to_rtneural(spoiled("gru", number), path)
    with pytest.raises(ValueError, match=r"network\.state"):
        fb.to_rtneural(make_network("gru", state=np.zeros(H)), path)
    assert not path.exists()


@pytest.mark.parametrize("export", [fb.to_onnx, fb.to_rtneural])
def test_what_is_no_network_or_no_path_is_refused(export, tmp_path):
    network = make_network("gru")
    for wrong in (network.readout, None, "gru", [network]):
        with pytest.raises(TypeError, match="network must be"):
            export(wrong, tmp_path / "file")
    for wrong in (None, 3, io.StringIO()):
        with pytest.raises(TypeError, match="path must be"):
            export(network, wrong)
    with pytest.raises(FileNotFoundError, match="existing folder"):
        export(network, tmp_path / "none" / "file")
    assert not list(tmp_path.iterdir())


def test_a_larger_model_than_onnx_has_is_refused():
    U = np.broadcast_to(np.zeros((), "f4"), (1, 1 << 29))
    layer = fb.RNN(U, np.zeros((1, 1), "f4"), np.zeros(1, "f4"))
    with pytest.raises(ValueError, match="2 GiB"):
        fb.to_onnx(layer, io.BytesIO())


def test_the_command_writes_what_the_functions_write(tmp_path, capsys):
    network = make_network("gru", dtype="float32")
    network.save(tmp_path / "network.npz")
    for name, export in (("onnx", fb.to_onnx), ("rtneural", fb.to_rtneural)):
        due, path = io.BytesIO(), tmp_path / name
        export(network, due)
        assert main(["export", str(tmp_path / "network.npz"), f"--{name}", str(path)]) == 0
        assert path.read_bytes() == due.getvalue() and str(path) in capsys.readouterr().out


def test_the_command_takes_the_network_of_a_training(tmp_path):
    network, due = make_network("lstm", dtype="float32"), io.BytesIO()
    training, path = tmp_path / "training.npz", tmp_path / "net.onnx"
    x = np.zeros((2, 1, network.layer.inputs), "f4")
    y = np.zeros((2, 1, network.readout.outputs), "f4")
    found = fb.fit(
        network, x, y, optimizer=fb.SGD(), epochs=1, path=training, progress=None
    )  # fmt: skip
    fb.to_onnx(found.network, due)
    assert main(["export", str(training), "--onnx", str(path)]) == 0
    assert path.read_bytes() == due.getvalue()


@pytest.mark.parametrize(
    "arguments, says",
    [([], "--onnx"), (["--onnx", "network.npz"], "different files"),
     (["--onnx", "a", "--rtneural", "a"], "different files"),
     (["--onnx", "a", "--rtneural", "b"], "RTNeural")],
)  # fmt: skip
def test_a_command_that_cannot_write_all_files_writes_none(
    arguments, says, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    make_network("rnn-tanh").save("network.npz")
    before = (tmp_path / "network.npz").read_bytes()
    with pytest.raises(SystemExit):
        main(["export", "network.npz", *arguments])
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["network.npz"]
    assert (tmp_path / "network.npz").read_bytes() == before
