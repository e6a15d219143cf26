"""Train in JAX: a GRU that repeats what it heard some steps ago, with optax.

The layer's steps run in the package's kernels; the readout, the loss and the optimiser are JAX.
The network is a pytree, so `jax.grad` returns a network of gradients, and optax updates it.

    python examples/jax_training.py [--updates 300] [--delay 5]
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import numpy as np
import optax
from jax import numpy as jnp

import fastbptt as fb
from fastbptt.jax import recurrent

STEPS, BATCH, HIDDEN = 200, 16, 32


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """Train and report; returns the mean squared error before and after."""
    parser = argparse.ArgumentParser(description="Train a GRU in JAX to repeat what it heard.")
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--delay", type=int, default=5)
    args = parser.parse_args(arguments)

    network = fb.Network(fb.GRU.init(1, HIDDEN, rng=0), fb.Readout.init(HIDDEN, 1, rng=1))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(5e-3))
    settings = optimizer.init(network)
    rng = np.random.default_rng(0)

    def draw() -> np.ndarray:
        return rng.uniform(-1, 1, (STEPS, BATCH, 1)).astype("float32")

    def loss(network: Any, x: Any) -> Any:
        h, _ = recurrent(network.layer, x)
        o = h[args.delay :] @ network.readout.V.T + network.readout.c
        return jnp.mean((o - x[: STEPS - args.delay]) ** 2)

    @jax.jit
    def update(network: Any, settings: Any, x: Any) -> tuple[Any, Any]:
        gradient = jax.grad(loss)(network, x)
        updates, settings = optimizer.update(gradient, settings, network)
        return optax.apply_updates(network, updates), settings

    check = draw()
    before = float(loss(network, check))
    for _ in range(args.updates):
        network, settings = update(network, settings, draw())
    after = float(loss(network, check))
    print(f"Mean squared error: untrained {before:.3f}, after {args.updates} updates {after:.3f}")

    trained = jax.tree.map(np.asarray, network)  # NumPy's again: for fb.predict, or to save it
    o, _ = fb.predict(trained, check)
    error = float(np.mean((o[args.delay :] - check[: STEPS - args.delay]) ** 2))
    print(f"The same by fb.predict: {error:.3f}")
    return before, after


if __name__ == "__main__":
    main()
