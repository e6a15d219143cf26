"""The same gradient by fastbptt, PyTorch and JAX, on the same weights and data.

Each function takes a model, x and y, and returns a Peer, or None where the library is not installed
or does not have the layer. A Peer runs a forward and a backward pass, with the gradients of
weights, input and initial state. For a layer y is dL/dh, so the loss is the sum of h*y. For a
Network y holds the targets of the squared error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import util
from typing import Any, NamedTuple

import numpy as np

from ...layers import composite
from ..building import CELLS, make_layer


class Peer(NamedTuple):
    """One library's gradient.

    run : computes it once
    gradient : turns what `run` returned into arrays, in the order of `model.arrays()`
    """

    run: Callable[[], Any]
    gradient: Callable[[Any], list[Any]]


def problem(
    cell: str, T: int, B: int, I: int, H: int, dtype: str, layers: int = 1,
    bidirectional: bool = False,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Return a layer, x and dL/dh."""
    rng = np.random.default_rng(0)
    layer = make_layer(cell, I, H, layers, bidirectional, rng, dtype)
    x, dh = (rng.standard_normal((T, B, width)).astype(dtype) for width in (I, layer.outputs))
    return layer, x, dh


def fastbptt(model: Any, x: Any, y: Any, threads: int, memory: Any = "full") -> Peer:
    """Our own gradient; `memory` is for a Network only."""
    import fastbptt as fb

    fb.set_num_threads(threads)
    if isinstance(model, fb.Network):
        return Peer(
            lambda: fb.bptt(model, x, y, memory=memory, input_grad=True),
            lambda result: result.grad.arrays(),
        )
    return Peer(
        lambda: fb.backward(fb.forward(model, x)[2], y),
        lambda gradient: gradient.layer.arrays(),
    )


def torch(model: Any, x: Any, y: Any, threads: int) -> Peer | None:
    """torch.nn.RNN, GRU or LSTM on the CPU, with several layers and both directions too."""
    if not util.find_spec("torch"):
        return None
    import torch

    layer, readout = _parts(model)
    layers = _plain_layers(layer)
    if layers is None:
        return None
    torch.set_num_threads(threads)
    module, weights = _torch_module(layer, layers)
    needed = list(module.parameters())
    dtype, linear = getattr(torch, str(layer.dtype)), None
    if readout is not None:
        linear = torch.nn.Linear(readout.inputs, readout.outputs, dtype=dtype)
        _set(zip((linear.weight, linear.bias), readout.arrays(), strict=True))
        weights += [linear.weight, linear.bias]
        needed += [linear.weight, linear.bias]
    x, y = torch.from_numpy(x).clone(), torch.from_numpy(y)
    state = [
        torch.zeros(len(layers), x.shape[1], layers[0].hidden, dtype=dtype)
        for _ in range(layers[0].states)
    ]
    initial = tuple(state) if len(state) > 1 else state[0]
    needed += [x, *state]
    for tensor in needed:
        tensor.requires_grad_()

    def run() -> None:
        for tensor in needed:
            tensor.grad = None
        h, _ = module(x, initial)
        if linear is None:
            h.backward(y)
        else:
            ((linear(h) - y) ** 2).sum().backward()

    def gradient(_: None) -> list[Any]:
        pairs = (each if isinstance(each, tuple) else (each, 0) for each in weights)
        return [tensor.grad.numpy()[start:].copy() for tensor, start in pairs]

    return Peer(run, gradient)


def _torch_module(layer: Any, layers: list[Any]) -> tuple[Any, list[Any]]:
    """Return the module with the layer's weights, and the tensors in the order of its arrays.

    A pair (tensor, start) is for an array that is the rest of a tensor.
    """
    import torch

    stack = layer.layers if isinstance(layer, composite.Stack) else (layer,)
    module = getattr(torch.nn, type(layers[0]).__name__)(
        layer.inputs, layers[0].hidden, num_layers=len(stack),
        dtype=getattr(torch, str(layer.dtype)),
        bidirectional=isinstance(stack[0], composite.Bidirectional),
    )  # fmt: skip
    weights: list[Any] = []
    for part, (U, W, b, b_hidden) in zip(layers, module.all_weights, strict=True):
        _set([(U, part.U), (W, part.W), (b, part.b), (b_hidden, np.zeros_like(part.b))])
        weights += [U, W, b]
        if hasattr(part, "bn"):  # a GRU: PyTorch holds it in the other bias
            start = 2 * part.hidden
            _set([(b_hidden[start:], part.bn)])
            weights.append((b_hidden, start))
    return module, weights


def _set(pairs: Iterable[tuple[Any, Any]]) -> None:
    """Copy each (tensor, array) into the tensor."""
    import torch

    with torch.no_grad():
        for tensor, array in pairs:
            tensor.copy_(torch.from_numpy(array))


def jax(model: Any, x: Any, y: Any, threads: int) -> Peer | None:
    """lax.scan under jit, with the input product before the scan; JAX chooses its threads."""
    if not util.find_spec("jax"):
        return None
    import jax

    jax.config.update("jax_enable_x64", True)
    from jax import numpy as jnp

    layer, _ = _parts(model)
    layers = _plain_layers(layer)
    if layers is None:
        return None
    weights = [jnp.asarray(array.T) for array in model.arrays()]
    x, y = jnp.asarray(x), jnp.asarray(y)
    state = [
        [jnp.zeros((x.shape[1], part.hidden), part.dtype) for _ in range(part.states)]
        for part in layers
    ]

    def total(weights: Any, x: Any, state: Any, y: Any) -> Any:
        remaining = iter(weights)
        h = _in_jax(layer, remaining, x, iter(state))
        readout = list(remaining)
        return ((h @ readout[0] + readout[1] - y) ** 2).sum() if readout else (h * y).sum()

    both = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    return Peer(
        lambda: jax.block_until_ready(both(weights, x, state, y)),
        lambda result: [np.asarray(array).T for array in result[1][0]],
    )


def _in_jax(layer: Any, weights: Any, x: Any, states: Any) -> Any:
    """Return the outputs of a layer; `weights` and `states` are iterators, in the layer's order."""
    from jax import lax
    from jax import numpy as jnp

    if isinstance(layer, composite.Stack):
        for part in layer.layers:
            x = _in_jax(part, weights, x, states)
        return x
    if isinstance(layer, composite.Bidirectional):
        forward = _in_jax(layer.forward, weights, x, states)
        backward = _in_jax(layer.backward, weights, x[::-1], states)
        return jnp.concatenate([forward, backward[::-1]], axis=-1)
    U, W, b, *params = (next(weights) for _ in layer.arrays())
    step: Any = _STEPS[type(layer).__name__]
    return lax.scan(lambda carry, z: step(carry, z, W, *params), next(states), x @ U + b)[1]


def _rnn_step(carry: Any, z: Any, W: Any) -> Any:
    from jax import numpy as jnp

    s = jnp.tanh(z + carry[0] @ W)
    return [s], s


def _gru_step(carry: Any, z: Any, W: Any, bn: Any) -> Any:
    from jax import nn
    from jax import numpy as jnp

    (s,) = carry
    (x_r, x_z, x_n), (s_r, s_z, s_n) = jnp.split(z, 3, axis=-1), jnp.split(s @ W, 3, axis=-1)
    update = nn.sigmoid(x_z + s_z)
    new = jnp.tanh(x_n + nn.sigmoid(x_r + s_r) * (s_n + bn))
    s = (1 - update) * new + update * s
    return [s], s


def _lstm_step(carry: Any, z: Any, W: Any) -> Any:
    from jax import nn
    from jax import numpy as jnp

    i, f, g, o = jnp.split(z + carry[0] @ W, 4, axis=-1)
    c = nn.sigmoid(f) * carry[1] + nn.sigmoid(i) * jnp.tanh(g)
    s = nn.sigmoid(o) * jnp.tanh(c)
    return [s, c], s


_STEPS = {"RNN": _rnn_step, "GRU": _gru_step, "LSTM": _lstm_step}


def _parts(model: Any) -> tuple[Any, Any]:
    """Return the layer, and the readout or None."""
    return getattr(model, "layer", model), getattr(model, "readout", None)


def _plain_layers(layer: Any) -> list[Any] | None:
    """Return the layers of one direction, or None if one is not of CELLS."""
    layers = list(composite.recurrent_layers(layer))
    return layers if all(type(part).__name__ in CELLS for part in layers) else None


PEERS: dict[str, Callable[..., Peer | None]] = {"fastbptt": fastbptt, "torch": torch, "jax": jax}


def installed() -> list[str]:
    """Return the names of the libraries that can be imported."""
    return [name for name in PEERS if util.find_spec(name)]
