"""The same work by us, by PyTorch and by JAX, on the same weights and data.

Each takes a model, x and y: for a layer y is dL/dh, so the loss is the sum of h*y; for a Network y
are the targets of the squared error. It returns a Peer, which runs a forward and a backward pass
with the gradients of weights, input and initial state, or None where it cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import util
from typing import Any, NamedTuple

import numpy as np

from ...layers import composite

CELLS = ("RNN", "GRU", "LSTM")


class Peer(NamedTuple):
    """One who does the work.

    run : does it once; gradient : what run() returned as arrays, in the order of model.arrays()
    """

    run: Callable[[], Any]
    gradient: Callable[[Any], list[Any]]


def make_layer(
    cell: str, inputs: int, hidden: int, layers: int, bidirectional: bool, rng: Any, dtype: str
) -> Any:
    """Return a layer, or with more than one a Stack, in one direction or both."""
    import fastbptt as fb

    found: list[Any] = []
    for _ in range(layers):
        width = found[-1].outputs if found else inputs
        ways = [getattr(fb, cell).init(width, hidden, rng=rng, dtype=dtype) for _ in "fb"]
        found.append(fb.Bidirectional(*ways) if bidirectional else ways[0])
    return found[0] if layers == 1 else fb.Stack(found)


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
    """Us; `memory` is of use to a Network only."""
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
    """torch.nn.RNN, GRU or LSTM on the CPU, of several layers and both directions too."""
    if not util.find_spec("torch"):
        return None
    import torch

    layer, readout = _parts(model)
    leaves = list(composite.recurrent_layers(layer))
    if any(type(part).__name__ not in CELLS for part in leaves):
        return None
    torch.set_num_threads(threads)
    dtype = getattr(torch, str(layer.dtype))
    stack = layer.layers if isinstance(layer, composite.Stack) else (layer,)
    module = getattr(torch.nn, type(leaves[0]).__name__)(
        layer.inputs, leaves[0].hidden, num_layers=len(stack), dtype=dtype,
        bidirectional=isinstance(stack[0], composite.Bidirectional),
    )  # fmt: skip
    own: list[Any] = []  # what stands for our arrays, in their order
    with torch.no_grad():
        for part, (U, W, b, b_hidden) in zip(leaves, module.all_weights, strict=True):
            b_hidden.zero_()
            pairs = [(U, part.U), (W, part.W), (b, part.b)]
            own += [U, W, b]
            if hasattr(part, "bn"):
                pairs.append((b_hidden[2 * part.hidden :], part.bn))
                own.append((b_hidden, 2 * part.hidden))
            for tensor, array in pairs:
                tensor.copy_(torch.from_numpy(array))
    weights = list(module.parameters())
    if readout is not None:
        head = torch.nn.Linear(readout.inputs, readout.outputs, dtype=dtype)
        with torch.no_grad():
            for tensor, array in zip((head.weight, head.bias), readout.arrays(), strict=True):
                tensor.copy_(torch.from_numpy(array))
        own += [head.weight, head.bias]
        weights += [head.weight, head.bias]
    x, y = torch.from_numpy(x).clone(), torch.from_numpy(y)
    state = [
        torch.zeros(len(leaves), x.shape[1], leaves[0].hidden, dtype=dtype)
        for _ in range(leaves[0].states)
    ]
    initial = tuple(state) if len(state) > 1 else state[0]
    needed = [x, *state, *weights]
    for tensor in needed:
        tensor.requires_grad_()

    def run() -> None:
        for tensor in needed:
            tensor.grad = None
        h, _ = module(x, initial)
        if readout is None:
            h.backward(y)
        else:
            ((head(h) - y) ** 2).sum().backward()

    def gradient(_: None) -> list[Any]:
        pairs = (each if isinstance(each, tuple) else (each, 0) for each in own)
        return [tensor.grad.numpy()[start:].copy() for tensor, start in pairs]

    return Peer(run, gradient)


def jax(model: Any, x: Any, y: Any, threads: int) -> Peer | None:
    """lax.scan under jit, the input product outside the scan; JAX chooses its threads itself."""
    if not util.find_spec("jax"):
        return None
    import jax

    jax.config.update("jax_enable_x64", True)
    from jax import numpy as jnp

    layer, _ = _parts(model)
    leaves = list(composite.recurrent_layers(layer))
    if any(type(part).__name__ not in CELLS for part in leaves):
        return None
    weights = [jnp.asarray(array.T) for array in model.arrays()]
    x, y = jnp.asarray(x), jnp.asarray(y)
    state = [
        [jnp.zeros((x.shape[1], part.hidden), part.dtype) for _ in range(part.states)]
        for part in leaves
    ]

    def total(weights: Any, x: Any, state: Any, y: Any) -> Any:
        given = iter(weights)
        h = _in_jax(layer, given, x, iter(state))
        head = list(given)
        return ((h @ head[0] + head[1] - y) ** 2).sum() if head else (h * y).sum()

    both = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    return Peer(
        lambda: jax.block_until_ready(both(weights, x, state, y)),
        lambda result: [np.asarray(array).T for array in result[1][0]],
    )


def _in_jax(layer: Any, weights: Any, x: Any, states: Any) -> Any:
    """The states of a layer, whose weights and initial states come in order."""
    from jax import lax
    from jax import numpy as jnp

    if isinstance(layer, composite.Stack):
        for part in layer.layers:
            x = _in_jax(part, weights, x, states)
        return x
    if isinstance(layer, composite.Bidirectional):
        along = _in_jax(layer.forward, weights, x, states)
        against = _in_jax(layer.backward, weights, x[::-1], states)
        return jnp.concatenate([along, against[::-1]], axis=-1)
    U, W, b, *own = (next(weights) for _ in layer.arrays())
    step: Any = _STEPS[type(layer).__name__]
    return lax.scan(lambda carry, z: step(carry, z, W, *own), next(states), x @ U + b)[1]


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
    """The layer, and the readout or None."""
    return getattr(model, "layer", model), getattr(model, "readout", None)


PEERS: dict[str, Callable[..., Peer | None]] = {"fastbptt": fastbptt, "torch": torch, "jax": jax}


def installed() -> list[str]:
    """Return the names of those that can be imported."""
    return [name for name in PEERS if util.find_spec(name)]
