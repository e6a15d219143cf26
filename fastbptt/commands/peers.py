"""The same work by us, by PyTorch and by JAX: h of a layer, then all gradients of a weighted sum.

Each `prepare(cell, T, B, I, H, dtype, threads)` returns a function that does one forward and one
backward pass, with the gradients of weights, input and initial state, or None where it cannot.
"""

import numpy as np

CELLS = ("RNN", "LSTM")


def problem(T, B, I, H, dtype):
    """x and dL/dh."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((T, B, I)).astype(dtype), rng.standard_normal((T, B, H)).astype(
        dtype
    )


def fastbptt(cell, T, B, I, H, dtype, threads):
    """Us."""
    import fastbptt as fb

    fb.set_num_threads(threads)
    layer = getattr(fb, cell).init(I, H, rng=0, dtype=dtype)
    x, dh = problem(T, B, I, H, dtype)

    def run():
        cache = fb.forward(layer, x)[2]
        return fb.backward(cache, dh)

    return run


def torch(cell, T, B, I, H, dtype, threads):
    """torch.nn.RNN or LSTM on the CPU."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    kind = getattr(torch, dtype)
    layer = getattr(torch.nn, cell)(I, H, dtype=kind)
    x, dh = (torch.from_numpy(a) for a in problem(T, B, I, H, dtype))
    x.requires_grad_()
    state = [torch.zeros(1, B, H, dtype=kind, requires_grad=True) for _ in range(2)]
    initial = tuple(state) if cell == "LSTM" else state[0]

    def run():
        for parameter in (x, *state, *layer.parameters()):
            parameter.grad = None
        h, _ = layer(x, initial)
        h.backward(dh)

    return run


def jax(cell, T, B, I, H, dtype, threads):
    """lax.scan under jit, the input product outside the scan."""
    try:
        import jax
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    from jax import lax, nn
    from jax import numpy as jnp

    x, dh = (jnp.asarray(a) for a in problem(T, B, I, H, dtype))
    rows = (4 if cell == "LSTM" else 1) * H
    rng = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(rng.uniform(-1, 1, shape).astype(dtype) / H**0.5)  # noqa: E731
    weights = draw(I, rows), draw(H, rows), draw(rows)
    state = jnp.zeros((B, H), dtype), jnp.zeros((B, H), dtype)

    def step(W):
        def rnn(carry, z):
            s = jnp.tanh(z + carry[0] @ W)
            return (s, carry[1]), s

        def lstm(carry, z):
            i, f, g, o = jnp.split(z + carry[0] @ W, 4, axis=-1)
            c = nn.sigmoid(f) * carry[1] + nn.sigmoid(i) * jnp.tanh(g)
            s = nn.sigmoid(o) * jnp.tanh(c)
            return (s, c), s

        return lstm if cell == "LSTM" else rnn

    def total(weights, x, state):
        U, W, b = weights
        return (lax.scan(step(W), state, x @ U + b)[1] * dh).sum()

    gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    return lambda: jax.block_until_ready(gradient(weights, x, state))


PEERS = {"fastbptt": fastbptt, "torch": torch, "jax": jax}
