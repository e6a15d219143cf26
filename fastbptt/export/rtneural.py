"""A network as the JSON that RTNeural reads, an engine in C++ for audio in real time.

Its loader takes weights as Keras lays them out: a row for each input, gates side by side.
"""

from __future__ import annotations

import json
from typing import Any

from ..arguments import File
from ..arrays import Array
from ..layers.composite import Bidirectional, Layer, Stack
from ..layers.model import written
from ..layers.network import Network
from ..layers.recurrent import GRU, LSTM
from . import parts

_READOUTS = {"identity": "", "tanh": "tanh", "sigmoid": "sigmoid", "softmax": "softmax"}


def to_rtneural(network: Network | Layer, path: File) -> None:
    """Write a network, or a layer, as JSON that RTNeural's `json_parser` reads.

    Parameters
    ----------
    network : a Network or a layer: an LSTM, a GRU with reset "after", or a Stack of these; a
        readout becomes a dense layer
    path : a string or Path ("~" is the home directory), or an open binary file. An existing
        file is replaced only when the new one is complete

    RTNeural runs one sequence, a step at a time, from a state of zero. Dropout is off. The numbers
    are written in full.

    Raises
    ------
    ValueError : what RTNeural has no layer for: an RNN, peepholes, reset "before", a Bidirectional,
        an initial state, a Cell or Activation of your own; NaN or infinity
    TypeError : no network or layer, or no path
    OSError : the file cannot be written
    """
    given = parts.network_of(network)
    if given.state is not None:
        raise ValueError("network.state must be None: RTNeural begins from zero")
    given = parts.converted(given, given.dtype, finite=True)
    layer, readout = given.layer, given.readout
    if isinstance(layer, Stack):
        named = [(f"network.layer.layers[{i}]", part) for i, part in enumerate(layer.layers)]
    else:
        named = [("network.layer", layer)]
    described = [_recurrent(name, part) for name, part in named]
    if readout is not None:
        weights = [readout.V.T, readout.c]
        described.append(_layer("dense", _READOUTS[readout.activation], readout.outputs, weights))
    model = {"in_shape": [None, None, layer.inputs], "layers": described}
    data = json.dumps(model, allow_nan=False).encode()
    written(path, lambda file: file.write(data))


def _recurrent(name: str, layer: Any) -> dict[str, Any]:
    problem = None
    if isinstance(layer, Bidirectional):
        problem = "no Bidirectional, which needs the future"
    elif not isinstance(layer, (GRU, LSTM)):
        problem = f"a GRU or LSTM, not {layer!r}"
    elif isinstance(layer, GRU) and layer.reset != "after":
        problem = f"a GRU with reset='after', not {layer.reset!r}"
    elif isinstance(layer, LSTM) and layer.p is not None:
        problem = "an LSTM without peepholes p"
    if problem:
        raise ValueError(f"{name} must be {problem}: RTNeural has no layer for it")
    H = layer.hidden
    if isinstance(layer, LSTM):  # its gates are in our order
        return _layer("lstm", "tanh", H, [layer.U.T, layer.W.T, layer.b])
    order = [*range(H, 2 * H), *range(H), *range(2 * H, 3 * H)]  # z, r, n
    recurrent_bias = 0 * layer.b
    recurrent_bias[2 * H :] = layer.bn
    biases = [layer.b[order].tolist(), recurrent_bias.tolist()]
    return _layer("gru", "tanh", H, [layer.U[order].T, layer.W[order].T, biases])


def _layer(kind: str, activation: str, width: int, weights: list[Array | list]) -> dict[str, Any]:
    plain = [w if isinstance(w, list) else w.tolist() for w in weights]
    shape = [None, None, width]
    return {"type": kind, "activation": activation, "shape": shape, "weights": plain}
