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

CELLS = ("RNN", "LSTM")


class Peer(NamedTuple):
    """One who does the work.

    run : does it once; gradient : what run() returned as arrays, in the order of model.arrays()
    """

    run: Callable[[], Any]
    gradient: Callable[[Any], list[Any]]


def problem(cell: str, T: int, B: int, I: int, H: int, dtype: str) -> tuple[Any, Any, Any]:
    """Return a layer, x and dL/dh."""
    import fastbptt as fb

    rng = np.random.default_rng(0)
    layer = getattr(fb, cell).init(I, H, rng=rng, dtype=dtype)
    x, dh = (rng.standard_normal((T, B, width)).astype(dtype) for width in (I, H))
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
    """torch.nn.RNN or LSTM on the CPU."""
    if not util.find_spec("torch"):
        return None
    import torch

    layer, readout = _parts(model)
    if type(layer).__name__ not in CELLS:
        return None
    torch.set_num_threads(threads)
    dtype = getattr(torch, str(layer.dtype))
    module = getattr(torch.nn, type(layer).__name__)(layer.inputs, layer.hidden, dtype=dtype)
    weights = [module.weight_ih_l0, module.weight_hh_l0, module.bias_ih_l0]
    if readout is not None:
        head = torch.nn.Linear(readout.inputs, readout.outputs, dtype=dtype)
        weights += [head.weight, head.bias]
    with torch.no_grad():
        module.bias_hh_l0.zero_()
        for weight, array in zip(weights, model.arrays(), strict=True):
            weight.copy_(torch.from_numpy(array))
    x, y = torch.from_numpy(x).clone(), torch.from_numpy(y)
    state = [torch.zeros(1, x.shape[1], layer.hidden, dtype=dtype) for _ in range(layer.planes)]
    initial = tuple(state) if layer.planes > 1 else state[0]
    leaves = [x, *state, *weights, module.bias_hh_l0]
    for leaf in leaves:
        leaf.requires_grad_()

    def run() -> None:
        for leaf in leaves:
            leaf.grad = None
        h, _ = module(x, initial)
        if readout is None:
            h.backward(y)
        else:
            ((head(h) - y) ** 2).sum().backward()

    return Peer(run, lambda _: [weight.grad.numpy().copy() for weight in weights])


def jax(model: Any, x: Any, y: Any, threads: int) -> Peer | None:
    """lax.scan under jit, the input product outside the scan; JAX chooses its threads itself."""
    if not util.find_spec("jax"):
        return None
    import jax

    jax.config.update("jax_enable_x64", True)
    from jax import lax, nn
    from jax import numpy as jnp

    layer, _ = _parts(model)
    if type(layer).__name__ not in CELLS:
        return None
    lstm = type(layer).__name__ == "LSTM"
    weights = [jnp.asarray(array.T) for array in model.arrays()]
    x, y = jnp.asarray(x), jnp.asarray(y)
    state = [jnp.zeros((x.shape[1], layer.hidden), layer.dtype) for _ in range(layer.planes)]

    def step(W: Any) -> Callable[[Any, Any], Any]:
        def rnn_step(carry: Any, z: Any) -> Any:
            s = jnp.tanh(z + carry[0] @ W)
            return [s], s

        def lstm_step(carry: Any, z: Any) -> Any:
            i, f, g, o = jnp.split(z + carry[0] @ W, 4, axis=-1)
            c = nn.sigmoid(f) * carry[1] + nn.sigmoid(i) * jnp.tanh(g)
            s = nn.sigmoid(o) * jnp.tanh(c)
            return [s, c], s

        return lstm_step if lstm else rnn_step

    def total(weights: Any, x: Any, state: Any, y: Any) -> Any:
        U, W, b, *head = weights
        h = lax.scan(step(W), state, x @ U + b)[1]
        return ((h @ head[0] + head[1] - y) ** 2).sum() if head else (h * y).sum()

    both = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    return Peer(
        lambda: jax.block_until_ready(both(weights, x, state, y)),
        lambda result: [np.asarray(array).T for array in result[1][0]],
    )


def _parts(model: Any) -> tuple[Any, Any]:
    """The layer, and the readout or None."""
    return getattr(model, "layer", model), getattr(model, "readout", None)


PEERS: dict[str, Callable[..., Peer | None]] = {"fastbptt": fastbptt, "torch": torch, "jax": jax}


def installed() -> list[str]:
    """Return the names of those that can be imported."""
    return [name for name in PEERS if util.find_spec(name)]
