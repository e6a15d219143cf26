"""What a step of online learning costs: python -m bench.online.

RTRL by blocks and SnAp-1, in long pieces and in single steps, beside the dense recursion
J = D J + dh/dtheta in NumPy and in JAX, where installed, for an Elman network. One sequence, one
thread, float32; microseconds a step, the least of all rounds. All take turns in one process.
"""

import argparse
import importlib.util
import os
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before NumPy is imported
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ.setdefault("XLA_FLAGS", _ONE_THREAD)

import numpy as np  # noqa: E402

import fastbptt as fb  # noqa: E402
from fastbptt.commands import info  # noqa: E402

from . import stored  # noqa: E402

SIZES = (("RNN", 16, 32), ("RNN", 16, 64), ("RNN", 16, 128), ("LSTM", 16, 64), ("LSTM", 16, 128))
OUTPUTS, PIECE, SINGLE, DENSE = 2, 512, 128, 8  # steps of a run of each kind


def dense_numpy(network, x, y):
    """The classic recursion, in NumPy's products."""
    U, W, b, V, c = network.arrays()
    H, I = U.shape
    J = np.zeros((H, H * (I + H + 1)), U.dtype)
    s, at = np.zeros(H, U.dtype), np.arange(H)
    for x_t, y_t in zip(x, y, strict=True):
        new = np.tanh(U @ x_t + W @ s + b)
        J = W @ J
        parts = J[:, : H * I].reshape(H, H, I), J[:, H * I : -H].reshape(H, H, H), J[:, -H:]
        for part, read in zip(parts, (x_t, s, 1), strict=True):
            part[at, at] += read
        J *= (1 - new * new)[:, None]
        s = new
        gradient = 2 * (V.T @ (V @ s + c - y_t)) @ J
    return gradient


def dense_jax(network, x, y):
    """The same as a compiled scan of JAX; returns a function to time."""
    import jax
    import jax.numpy as jnp

    U, W, b, V, c = (jnp.asarray(a) for a in network.arrays())
    H, I = U.shape

    @jax.jit
    def run(x, y):
        def step(carry, x_y):
            s, J_U, J_W, J_b = carry
            x_t, y_t = x_y
            new = jnp.tanh(U @ x_t + W @ s + b)
            eye = jnp.eye(H, dtype=U.dtype)
            d = (1 - new * new)[:, None]
            J_U = d[..., None] * (jnp.tensordot(W, J_U, 1) + eye[..., None] * x_t)
            J_W = d[..., None] * (jnp.tensordot(W, J_W, 1) + eye[..., None] * s)
            J_b = d * (W @ J_b + eye)
            dh = 2 * (V.T @ (V @ new + c - y_t))
            grads = jnp.tensordot(dh, J_U, 1), jnp.tensordot(dh, J_W, 1), dh @ J_b
            return (new, J_U, J_W, J_b), [g.sum() for g in grads]

        zeros = [jnp.zeros(shape, U.dtype) for shape in ((H,), (H, H, I), (H, H, H), (H, H))]
        return jax.lax.scan(step, tuple(zeros), (x, y))[1]

    return lambda: jax.block_until_ready(run(x, y))


def runs_of(cell, I, H):
    """For each contestant, (a function to time, steps that it does)."""
    rng = np.random.default_rng(0)
    network = fb.Network(getattr(fb, cell).init(I, H, rng=0), fb.Readout.init(H, OUTPUTS, rng=1))
    x, y = (rng.standard_normal((PIECE, width), np.float32) for width in (I, OUTPUTS))
    runs, held = {"run": (lambda: fb.run(network.layer, x, keep="last"), PIECE)}, {}
    for policy in (fb.RTRL(), fb.SnAp1()):
        learner = fb.Online(network, gradient=policy)
        learner.push(x, y)
        held[str(policy)] = learner.nbytes

        def pieces(learner=learner):
            learner.push(x, y)

        def single(learner=learner):
            for t in range(SINGLE):
                learner.push(x[t], y[t])

        runs[str(policy)] = pieces, PIECE
        runs[f"{policy}, single steps"] = single, SINGLE
    if cell == "RNN":
        runs["dense, NumPy"] = lambda: dense_numpy(network, x[:DENSE], y[:DENSE]), DENSE
        if importlib.util.find_spec("jax") is not None:
            runs["dense, JAX"] = dense_jax(network, x[:DENSE], y[:DENSE]), DENSE
    return runs, held


def time_point(cell, I, H, rounds):
    """The least microseconds a step of each contestant, and the bytes that ours hold."""
    runs, held = runs_of(cell, I, H)
    micros = {name: float("inf") for name in runs}
    for turn in range(rounds + 1):
        for name, (run, steps) in runs.items():
            start = time.perf_counter()
            run()
            if turn:  # the first one compiles
                taken = (time.perf_counter() - start) / steps * 1e6
                micros[name] = min(micros[name], taken)
    return {"cell": cell, "I": I, "H": H, "us_per_step": micros, "bytes_held": held}


def main():
    """Time the sizes and store the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", nargs="+", type=int, default=range(len(SIZES)))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=stored.RESULTS / "online.json")
    args = parser.parse_args()
    fb.set_num_threads(1)
    machine, points = info.describe(1), []
    for index in args.points:
        points.append(time_point(*SIZES[index], args.rounds))
        print(points[-1], flush=True)
    stored.save(args.out, {"machine": machine, "rounds": args.rounds, "points": points})


if __name__ == "__main__":
    main()
