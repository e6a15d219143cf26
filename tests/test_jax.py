"""JAX as an outside oracle: jax.lax.scan and jax.grad in float64."""

import functools
import importlib.util
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from helpers import (
    CELLS,
    DTYPES,
    GRADIENTS,
    LOSS_READOUTS,
    LOSSES,
    STATES,
    assert_close,
    flatten,
    make_problem,
    wide,
)

import fastbptt as fb

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed"
)


@pytest.fixture(scope="module")
def jax_process():
    """One process for JAX alone: os.fork warns wherever its threads run."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


def in_jax(cell, loss, head, *problem):
    """((loss, final state), gradients of arrays, x and state), as NumPy arrays."""
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax.tree.map(np.asarray, compiled(cell, loss, head)(*problem))


@functools.cache
def compiled(cell, loss, head):
    """A function of (arrays, x, state, y, weights), the arrays being U, W, b, params, V and c."""
    import jax
    import jax.numpy as jnp

    activation = {
        "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu, "identity": lambda a: a
    }  # fmt: skip

    sigmoid, split = jax.nn.sigmoid, functools.partial(jnp.split, axis=1)

    def total(arrays, x, state, y, weights):
        U, W, b, *params, V, c = arrays

        def rnn(state, x_t):
            return (activation[cell.removeprefix("rnn-")](x_t @ U.T + state[0] @ W.T + b),)

        def lstm(state, x_t):
            s, memory = state
            p_i, p_f, p_o = jnp.split(params[0], 3) if params else (0, 0, 0)
            i, f, g, o = split(x_t @ U.T + s @ W.T + b, 4)
            i, f = sigmoid(i + p_i * memory), sigmoid(f + p_f * memory)
            memory = f * memory + i * jnp.tanh(g)
            return sigmoid(o + p_o * memory) * jnp.tanh(memory), memory

        def gru(state, x_t):
            (s,), W_n = state, jnp.split(W, 3)[2]
            (x_r, x_z, x_n), (s_r, s_z, s_n) = split(x_t @ U.T + b, 3), split(s @ W.T, 3)
            r, z = sigmoid(x_r + s_r), sigmoid(x_z + s_z)
            reset = (r * s) @ W_n.T + params[0] if cell == "gru-before" else r * (s_n + params[0])
            n = jnp.tanh(x_n + reset)
            return ((1 - z) * n + z * s,)

        def step(state, x_t):
            state = {"rnn": rnn, "lstm": lstm, "gru": gru}[cell.partition("-")[0]](state, x_t)
            return state, state[0]

        final, h = jax.lax.scan(step, state, x)
        a = h @ V.T + c
        if loss == "cross_entropy":
            E = -jnp.take_along_axis(jax.nn.log_softmax(a), y[..., None], axis=2)[..., 0]
        elif loss == "binary_cross_entropy":
            E = -(y * jax.nn.log_sigmoid(a) + (1 - y) * jax.nn.log_sigmoid(-a)).sum(axis=2)
        else:
            o = jax.nn.softmax(a) if head == "softmax" else activation[head](a)
            E = ((o - y) ** 2).sum(axis=2)
        return (weights * E).sum(), final

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))


CASES = [
    *((cell, "squared_error", "identity") for cell in CELLS),
    *(("lstm", loss, head) for loss, head in LOSS_READOUTS[1:]),
]


@pytest.mark.parametrize("cell, loss, head", CASES)
def test_loss_states_and_gradients_are_those_of_jax(jax_process, cell, loss, head):
    for dtype in DTYPES:
        q = make_problem(cell, (15, 3, 4, 9, 5), dtype, loss, head)
        weights = q.rng.random((15, 3)).astype(dtype)
        state = q.state if isinstance(q.state, tuple) else (q.state,)
        problem = wide((tuple(q.network.arrays()), q.x, state, q.y, weights))
        job = jax_process.submit(in_jax, cell, loss, head, *problem)
        (due, final), (arrays, dx, dstate) = job.result()

        options = {"weights": weights, "state": q.state, "input_grad": True}
        r = fb.bptt(q.network, q.x, q.y, loss, **options)
        assert_close(r.loss, due, LOSSES[dtype], "loss")
        for ours, theirs in zip(flatten(r.state), final, strict=True):
            assert_close(ours, theirs, STATES[dtype], "final state")
        gradients = [*r.grad.arrays(), r.grad_x, *flatten(r.grad_state)]
        for ours, theirs in zip(gradients, (*arrays, dx, *dstate), strict=True):
            assert_close(ours, theirs, GRADIENTS[dtype])
