"""A network as an ONNX model, written without the package of that name.

The field numbers below are those of onnx.proto3. ONNX's RNN, GRU and LSTM compute what ours do,
with the blocks of their gates in another order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import File
from ..arrays import Array
from ..layers.composite import Bidirectional, Layer, Stack
from ..layers.model import arrays_of, written
from ..layers.network import Network, Readout
from ..layers.recurrent import GRU, LSTM, RNN, Recurrent
from . import parts
from .protobuf import MOST_BYTES, message

_IR, _OPSET = 7, 14  # read by all runtimes since 2021
_FLOAT, _INT64 = 1, 7  # TensorProto.DataType
# Where ONNX's gates are among ours: z, r, h in r, z, n; i, o, f, c in i, f, g, o.
_GATES = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}
_PEEPHOLES = [0, 2, 1]  # i, o, f in i, f, o
_ACTIVATIONS = {"tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu", "identity": "Affine"}
_READOUTS = {"tanh": "Tanh", "sigmoid": "Sigmoid", "softmax": "Softmax"}


def to_onnx(network: Network | Layer, path: File) -> None:
    """Write a network, or a layer, as an ONNX model that other runtimes can run.

    Parameters
    ----------
    network : a Network or a layer, of RNN, GRU, LSTM, Stack and Bidirectional
    path : a string or Path ("~" is the home directory), or an open binary file. An existing file is
        replaced only when the new one is complete

    The model is in float32, whatever the network's dtype. T and B are free, from 1 on: onnxruntime
    ends the process at a GRU or LSTM without any steps or sequences. Its inputs are x (T, B, I) and
    the states of the recurrent layers, in the order of our state: s0 (B, H), and c0 for an LSTM,
    then s1 and so on. Its outputs are o (T, B, O), or without a readout the states h (T, B, H) of
    the top layer, and the final states s0_next, c0_next and so on. A sequence begins with zeros, or
    with the network's own initial state: the model's metadata hold it as lists of numbers, by the
    names of the inputs. Tokens are one-hot vectors in x. Dropout is off.

    Raises
    ------
    ValueError : a Cell or Activation of your own, a number that float32 does not hold, or a model
        larger than the 2 GiB of an ONNX file
    TypeError : no network or layer, or no path
    OSError : the file cannot be written
    """
    given = parts.network_of(network)
    size = 4 * sum(array.size for array in given.arrays())
    if size > MOST_BYTES - (1 << 20):
        raise ValueError(f"network must fit into the 2 GiB of an ONNX file, not take {size} bytes")
    data = _model(parts.converted(given, np.float32, finite=False))
    written(path, lambda file: file.write(data))


def _model(network: Network) -> bytes:
    graph = _Graph()
    graph.inputs.append(_value("x", ("T", "B", network.layer.inputs)))
    h = graph.layer("x", network.layer)
    if network.readout is None:
        graph.node("Identity", [h], ["h"])
        output = _value("h", ("T", "B", network.layer.outputs))
    else:
        graph.readout(h, network.readout)
        output = _value("o", ("T", "B", network.readout.outputs))
    initial = [] if network.state is None else list(arrays_of(network.state))
    metadata = [
        message((1, name), (2, str(array.tolist())))
        for name, array in zip(graph.states, initial, strict=False)
    ]
    fields = (
        (1, graph.nodes), (2, "network"), (5, graph.constants.values()), (11, graph.inputs),
        (12, [output, *graph.outputs]),
    )  # fmt: skip
    operators = message((1, ""), (2, _OPSET))
    return message((1, _IR), (2, "fastbptt"), (7, message(*fields)), (8, operators), (14, metadata))


class _Graph:
    """The graph as it grows, from x upwards."""

    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.constants: dict[str, bytes] = {}
        self.inputs: list[bytes] = []
        self.outputs: list[bytes] = []  # the final states
        self.states: list[str] = []  # the names of the initial ones
        self.count = 0  # of recurrent layers

    def constant(self, name: str, array: Array) -> str:
        kind = _INT64 if array.dtype == np.int64 else _FLOAT
        raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
        self.constants[name] = message((1, array.shape), (2, kind), (8, name), (9, raw))
        return name

    def axis(self, number: int) -> str:
        return self.constant(f"axis{number}", np.array([number], np.int64))

    def node(self, kind: str, reads: list[str], makes: list[str], **attributes: Any) -> str:
        """Enter a node; returns the name of its first output."""
        known = [_attribute(name, value) for name, value in attributes.items()]
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(message((1, reads), (2, makes), (3, name), (4, kind), (5, known)))
        return makes[0]

    def layer(self, x: str, layer: Layer) -> str:
        """Enter a layer that reads `x`; returns the name of its outputs."""
        if isinstance(layer, Stack):
            for part in layer.layers:
                x = self.layer(x, part)
            return x
        if isinstance(layer, Bidirectional):
            pair = [self.recurrent(x, layer.forward), self.recurrent(x, layer.backward, "reverse")]
            return self.node("Concat", pair, [f"{pair[0]}_{pair[1]}"], axis=2)
        return self.recurrent(x, layer)

    def recurrent(self, x: str, layer: Recurrent, direction: str = "forward") -> str:
        kind, number, H = type(layer).__name__, self.count, layer.hidden
        self.count += 1
        order, recurrent_bias = _GATES[kind], np.zeros_like(layer.b)
        attributes: dict[str, Any] = {"hidden_size": H, "direction": direction}
        if isinstance(layer, GRU):
            recurrent_bias[2 * H :] = layer.bn
            attributes["linear_before_reset"] = int(layer.reset == "after")
        if isinstance(layer, RNN):
            attributes["activations"] = [_ACTIVATIONS[str(layer.activation)]]
            if layer.activation == "identity":  # alpha a + beta
                attributes |= {"activation_alpha": [1.0], "activation_beta": [0.0]}
        biases = [_reordered(b, order) for b in (layer.b, recurrent_bias)]
        weights = {"W": _reordered(layer.U, order), "R": _reordered(layer.W, order)}
        weights["B"] = np.concatenate(biases)
        reads = [x, *(self.constant(f"{k}{number}", w[None]) for k, w in weights.items())]
        reads.append("")  # the lengths, which are those of x
        makes = [f"Y{number}"]
        for letter in "sc"[: layer.states]:
            name = f"{letter}{number}"
            self.states.append(name)
            self.inputs.append(_value(name, ("B", H)))
            self.outputs.append(_value(f"{name}_next", ("B", H)))
            reads.append(self.node("Unsqueeze", [name, self.axis(0)], [f"{name}_first"]))
            makes.append(f"{name}_last")
        if isinstance(layer, LSTM) and layer.p is not None:
            reads.append(self.constant(f"P{number}", _reordered(layer.p, _PEEPHOLES)[None]))
        self.node(kind, reads, makes, **attributes)
        for last in makes[1:]:
            self.node("Squeeze", [last, self.axis(0)], [last.replace("_last", "_next")])
        return self.node("Squeeze", [makes[0], self.axis(1)], [f"h{number}"])

    def readout(self, h: str, readout: Readout) -> None:
        known = _READOUTS.get(readout.activation)
        V, c = self.constant("V", readout.V.T), self.constant("c", readout.c)
        self.node("MatMul", [h, V], ["Vs"])
        self.node("Add", ["Vs", c], ["a" if known else "o"])
        if known:
            self.node(known, ["a"], ["o"], **({"axis": 2} if known == "Softmax" else {}))


def _reordered(rows: Array, order: list[int]) -> Array:
    """The blocks of rows of a weight or bias in another order."""
    blocks = rows.reshape(len(order), -1, *rows.shape[1:])
    return blocks[order].reshape(rows.shape)


def _value(name: str, shape: tuple[str | int, ...]) -> bytes:
    """A ValueInfoProto of float32; a letter is an axis of any size."""
    axes = [message((2 if isinstance(axis, str) else 1, axis)) for axis in shape]
    tensor = message((1, _FLOAT), (2, message((1, axes))))
    return message((1, name), (2, message((1, tensor))))


# By the type of a value: the field of an AttributeProto that holds it, and the number of that type.
_KINDS = {int: (3, 2), str: (4, 3), float: (7, 6), list: (9, 8)}


def _attribute(name: str, value: Any) -> bytes:
    kind: Any = type(value)
    if isinstance(value, list):
        kind = float if isinstance(value[0], float) else list
    field, number = _KINDS[kind]
    return message((1, name), (field, value), (20, number))
