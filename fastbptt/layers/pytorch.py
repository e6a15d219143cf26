"""Conversion between layers and PyTorch's recurrent modules; both compute the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import arguments
from ..arrays import Array
from ..kernels import optional
from .composite import Bidirectional, Layer, Stack
from .recurrent import GRU, LSTM, RNN, Recurrent

_DIRECTIONS = ("", "_reverse")  # PyTorch's suffixes for the weights of a direction


def from_torch(module: Any) -> Layer:
    """Return the layer that computes what a PyTorch module computes.

    Parameters
    ----------
    module : torch.nn.RNN, GRU or LSTM, or that of fastbptt.torch, of float32 or float64, on any
        device

    Returns
    -------
    RNN, GRU or LSTM; for a bidirectional module a Bidirectional; for more than one layer a Stack of
    these, with the module's dropout. Its arrays are NumPy arrays and copies. b is bias_ih +
    bias_hh, zero where the module has no bias; bn of a GRU is the n rows of bias_hh.

    A layer is always time-major: give it x.transpose(0, 1) where the module is `batch_first`. Its
    state is one array (or pair) for each layer and direction, where PyTorch has one array for all.
    Dropout acts in `forward` and `bptt` only, as the module's dropout acts in training only.

    Raises
    ------
    ImportError : PyTorch is not installed
    ValueError : a module with `proj_size`, or on the device "meta"
    TypeError : another module or dtype
    """
    torch = _torch("from_torch")
    if not isinstance(module, torch.nn.RNNBase):
        raise TypeError(
            f"module must be torch.nn.RNN, GRU or LSTM, not {arguments.describe(module)}"
        )
    if getattr(module, "proj_size", 0):
        raise ValueError(
            f"module must be without proj_size, not {module.proj_size}: fastbptt.LSTM has no "
            "projection of its states"
        )
    if module.weight_ih_l0.is_meta:
        raise ValueError("module must hold numbers, but it is on the device 'meta'")
    directions = _DIRECTIONS[: 1 + module.bidirectional]
    layers = []
    for number in range(module.num_layers):
        parts = [_layer_of(module, f"_l{number}{end}") for end in directions]
        layers.append(Bidirectional(*parts) if module.bidirectional else parts[0])
    return layers[0] if len(layers) == 1 else Stack(layers, float(module.dropout))


def _layer_of(module: Any, end: str) -> Recurrent:
    def read(name: str) -> Array:
        tensor = getattr(module, name + end)
        if tensor.dtype.is_floating_point and tensor.dtype.itemsize < 4:
            raise TypeError(f"module must be float32 or float64, not {tensor.dtype}")
        return np.array(tensor.detach().cpu().numpy())

    U, W = read("weight_ih"), read("weight_hh")
    rows, H = W.shape
    if module.bias:
        b, recurrent = read("bias_ih"), read("bias_hh")
    else:
        b, recurrent = np.zeros(rows, W.dtype), np.zeros(rows, W.dtype)
    if module.mode == "GRU":
        b[: 2 * H] += recurrent[: 2 * H]
        return GRU(U, W, b, recurrent[2 * H :].copy())
    b += recurrent
    return LSTM(U, W, b) if module.mode == "LSTM" else RNN(U, W, b, module.nonlinearity)


def to_torch(layer: Layer) -> Any:
    """Return the PyTorch module that computes what a layer computes.

    Parameters
    ----------
    layer : a layer that PyTorch has, too: an RNN with tanh or relu, a GRU with reset="after", an
        LSTM without peepholes; a Bidirectional of one of these; a Stack of equal ones

    Returns
    -------
    torch.nn.RNN, GRU or LSTM on the CPU, time-major, of the layer's dtype; its parameters are
    copies. bias_ih is b; bias_hh is zero, except for bn of a GRU. `from_torch(to_torch(layer))` has
    the same arrays, to the bit; a Stack of one layer comes back as that layer.

    Raises
    ------
    ImportError : PyTorch is not installed
    ValueError : PyTorch has no module for the layer; the message says why
    TypeError : something other than a layer
    """
    torch = _torch("to_torch")
    if not isinstance(layer, (Recurrent, Bidirectional, Stack)):
        raise TypeError(f"layer must be a layer such as LSTM, not {arguments.describe(layer)}")
    layer = layer.to("cpu")
    stacked = layer.layers if isinstance(layer, Stack) else (layer,)
    levels = [_directions(part) for part in stacked]
    first = levels[0][0]
    for number, level in enumerate(levels):
        for part in level:
            where = "layer" if len(stacked) == 1 else f"layer.layers[{number}]"
            _check(where, part, first)
        if len(level) != len(levels[0]):
            raise ValueError(
                "layer must be Bidirectional in all layers of the Stack or in none: PyTorch has "
                "one `bidirectional` for all"
            )
    options: dict[str, Any] = {"num_layers": len(levels), "bidirectional": len(levels[0]) == 2}
    if isinstance(first, RNN):
        options["nonlinearity"] = first.activation
    if len(levels) > 1:
        options["dropout"] = float(getattr(layer, "dropout", 0.0))
    # Made on the device "meta": drawing weights would change the state of PyTorch's generator.
    module = getattr(torch.nn, type(first).__name__)(
        first.inputs, first.hidden, dtype=getattr(torch, str(first.dtype)), device="meta", **options
    ).to_empty(device="cpu")
    with torch.no_grad():
        for number, level in enumerate(levels):
            for part, end in zip(level, _DIRECTIONS, strict=False):
                _write(torch, module, f"_l{number}{end}", part)
    return module


def _directions(layer: Any) -> Sequence[Recurrent]:
    return (layer.forward, layer.backward) if isinstance(layer, Bidirectional) else (layer,)


def _check(where: str, part: Recurrent, first: Recurrent) -> None:
    """Raise ValueError unless a PyTorch module can hold the layer together with `first`."""
    problem = None
    if type(part) not in (RNN, GRU, LSTM):
        problem = f"an RNN, GRU or LSTM, not {part!r}"
    elif isinstance(part, RNN) and part.activation not in ("tanh", "relu"):
        problem = f"an RNN of tanh or relu, not {part.activation!r}"
    elif isinstance(part, GRU) and part.reset != "after":
        problem = f"a GRU with reset='after', not {part.reset!r}"
    elif isinstance(part, LSTM) and part.p is not None:
        problem = "an LSTM without peepholes p"
    elif part.cell != first.cell or part.hidden != first.hidden:
        problem = f"of the cell and width of {first!r}, like all others, not {part!r}"
    if problem:
        raise ValueError(f"{where} must be {problem}: PyTorch has no module for it")


def _write(torch: Any, module: Any, end: str, part: Recurrent) -> None:
    recurrent = np.zeros_like(part.b)
    if isinstance(part, GRU):
        recurrent[2 * part.hidden :] = part.bn
    arrays = {"weight_ih": part.U, "weight_hh": part.W, "bias_ih": part.b, "bias_hh": recurrent}
    for name, array in arrays.items():
        getattr(module, name + end).copy_(torch.from_numpy(np.array(array)))


def _torch(what: str) -> Any:
    return optional.load("torch", f"{what} needs PyTorch, the package")
