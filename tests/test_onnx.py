"""ONNX's own tests of its RNN, GRU and LSTM nodes, and ONNX Runtime, as outside oracles."""

import warnings

import numpy as np
import pytest
from helpers import STATES, assert_close

import fastbptt as fb

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

NODES = [
    *(f"gru_{name}" for name in (
        "batchwise", "bidirectional", "defaults", "reverse", "seq_length", "with_initial_bias"
    )),
    *(f"lstm_{name}" for name in (
        "batchwise", "bidirectional", "defaults", "reverse", "with_initial_bias", "with_peepholes"
    )),
    *(f"simple_rnn_{name}" for name in (
        "batchwise", "bidirectional", "defaults", "reverse", "with_initial_bias"
    )),
    "rnn_seq_length",
]  # fmt: skip
# Where our gates are among ONNX's: r, z, n in z, r, h; i, f, g, o in i, o, f, c.
GATES = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}
PEEPHOLES = [0, 2, 1]  # i, f, o in i, o, f
INPUTS = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
OUTPUTS = ["Y", "Y_h", "Y_c"]


def in_our_order(rows, order):
    """The blocks of rows of a weight or bias, put into our order of gates."""
    blocks = rows.reshape(len(order), -1, *rows.shape[1:])
    return np.ascontiguousarray(blocks[order]).reshape(rows.shape)


def layer_of(op, attributes, given, direction):
    """The layer of one direction of a node."""
    U, W = (in_our_order(given[name][direction], GATES[op]) for name in "WR")
    H = W.shape[1]
    b, recurrent = np.zeros_like(U[:, 0]), np.zeros_like(U[:, 0])
    if "B" in given:
        halves = np.split(given["B"][direction], 2)
        b, recurrent = (in_our_order(half, GATES[op]) for half in halves)
    if op == "RNN":
        names = attributes.get("activations", [b"Tanh", b"Tanh"])
        return fb.RNN(U, W, b + recurrent, names[direction].decode().lower())
    if op == "GRU":
        reset = "after" if attributes.get("linear_before_reset") else "before"
        n = slice(2 * H, None)
        return fb.GRU(U, W, np.append(b[: 2 * H] + recurrent[: 2 * H], b[n]), recurrent[n], reset)
    p = in_our_order(given["P"][direction], PEEPHOLES) if "P" in given else None
    return fb.LSTM(U, W, b + recurrent, p)


def run_node(node, values):
    """The outputs {name: array} of an RNN, GRU or LSTM node, computed by us."""
    given = {known: values[own] for known, own in zip(INPUTS, node.input, strict=False) if own}
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    understood = {"hidden_size", "direction", "layout", "linear_before_reset", "activations"}
    assert set(attributes) <= understood
    direction = attributes.get("direction", b"forward").decode()
    x, ends = given["X"], given.get("sequence_lens")
    if attributes.get("layout"):
        x = x.swapaxes(0, 1)
    T, B = x.shape[:2]
    H, D = attributes["hidden_size"], 1 + (direction == "bidirectional")
    planes = []
    for name in ("initial_h", "initial_c")[: 1 + (node.op_type == "LSTM")]:
        start = given.get(name, np.zeros((D, B, H), x.dtype))
        planes.append(start.swapaxes(0, 1) if attributes.get("layout") and name in given else start)
    starts = [tuple(plane[d] for plane in planes) for d in range(D)]
    starts = [start if len(start) > 1 else start[0] for start in starts]
    layers = [layer_of(node.op_type, attributes, given, d) for d in range(D)]
    if direction == "forward":
        h, last = fb.run(layers[0], x, starts[0], lengths=ends)
        lasts = [last]
    else:  # a reverse direction alone is the second half of both
        h, lasts = fb.run(
            fb.Bidirectional(layers[0], layers[-1]), x, (starts[0], starts[-1]), lengths=ends
        )
        h, lasts = h[..., -D * H :], lasts[-D:]
    found = {"Y": h.reshape(T, B, D, H).transpose(0, 2, 1, 3)}
    lasts = [last if isinstance(last, tuple) else (last,) for last in lasts]
    found |= {name: np.stack(plane) for name, plane in zip(OUTPUTS[1:], zip(*lasts, strict=True),
                                                           strict=False)}  # fmt: skip
    if attributes.get("layout"):
        found["Y"] = found["Y"].transpose(2, 0, 1, 3)
        found |= {name: found[name].swapaxes(0, 1) for name in OUTPUTS[1:] if name in found}
    return {own: found[known] for known, own in zip(OUTPUTS, node.output, strict=False) if own}


@pytest.fixture(scope="module")
def cases():
    """ONNX's recurrent node tests by name."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it makes the tests of all nodes, overflows included
        found = load_model_tests(kind="node")
    recurrent = {}
    for case in found:
        nodes = [] if case.model is None else case.model.graph.node
        if any(node.op_type in GATES for node in nodes):
            assert len(nodes) == 1
            recurrent[case.name.removeprefix("test_")] = case
    return recurrent


def test_these_are_all_of_onnxs_recurrent_node_tests(cases):
    assert sorted(cases) == sorted(NODES) and len(cases) == 18


@pytest.mark.parametrize("name", NODES)
def test_a_node_of_onnx_has_the_outputs_that_onnx_says(name, cases):
    case = cases[name]
    graph = case.model.graph
    (node,) = graph.node
    assert case.data_sets
    for inputs, outputs in case.data_sets:
        values = dict(zip((value.name for value in graph.input), inputs, strict=True))
        found = run_node(node, values)
        assert list(found) == [value.name for value in graph.output]
        for (what, ours), due in zip(found.items(), outputs, strict=True):
            assert ours.dtype == due.dtype
            np.testing.assert_allclose(ours, due, rtol=case.rtol, atol=case.atol, err_msg=what)
            assert_close(ours, due, STATES["float32"], what)


VARIANTS = [
    ("RNN", {}),
    ("RNN", {"activations": "Relu"}),
    ("RNN", {"activations": "Sigmoid"}),
    ("GRU", {"linear_before_reset": 0}),
    ("GRU", {"linear_before_reset": 1}),
    ("LSTM", {}),
    ("LSTM", {"P": True}),
]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op, options", VARIANTS, ids=str)
def test_a_node_with_everything_has_the_outputs_of_onnx_runtime(op, options, direction):
    """Lengths, initial states, biases and peepholes, which ONNX's own tests try one at a time."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    rng, T, B, I, H = np.random.default_rng(0), 9, 4, 3, 5
    D, G = 1 + (direction == "bidirectional"), len(GATES[op])
    draw = lambda *shape: rng.uniform(-0.8, 0.8, shape).astype("f4")  # noqa: E731
    values = {
        "X": draw(T, B, I), "W": draw(D, G * H, I), "R": draw(D, G * H, H),
        "B": draw(D, 2 * G * H), "sequence_lens": np.array([T, 1, 6, 3], np.int32),
        "initial_h": draw(D, B, H), "initial_c": draw(D, B, H), "P": draw(D, 3 * H),
    }  # fmt: skip
    options = dict(options)
    names = INPUTS[: 8 if options.pop("P", False) else 7 if op == "LSTM" else 6]
    if "activations" in options:
        options["activations"] = [options["activations"]] * D
    outputs = OUTPUTS[: 3 if op == "LSTM" else 2]
    node = onnx.helper.make_node(op, names, outputs, hidden_size=H, direction=direction, **options)
    kinds = {name: onnx.TensorProto.INT32 if name == "sequence_lens" else onnx.TensorProto.FLOAT
             for name in (*names, *outputs)}  # fmt: skip
    tensors = {
        name: onnx.helper.make_tensor_value_info(
            name, kind, values[name].shape if name in values else None
        )
        for name, kind in kinds.items()
    }
    graph = onnx.helper.make_graph(
        [node], "node", [tensors[n] for n in names], [tensors[n] for n in outputs]
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8
    )
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    due = session.run(outputs, {name: values[name] for name in names})
    found = run_node(node, values)
    for name, expected in zip(outputs, due, strict=True):
        assert_close(found[name], expected, STATES["float32"], name)
