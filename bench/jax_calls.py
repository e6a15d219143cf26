"""Calls of fastbptt.jax beside lax.scan, and what JAX's call backs cost: python -m bench.jax_calls.

A run is the jitted gradient of an LSTM's weights and input, in microseconds a time step, the median
of interleaved rounds. Then an empty call, of an array of SMALL numbers that comes back: through
`jax.pure_callback`, which is how fastbptt.jax is called, and as a typed call of XLA's foreign
function interface, whose handler Numba compiles here. Such a handler holds no interpreter lock and
has no Python: the difference is what could be saved if all that a call does were compiled.
"""

import argparse
import ctypes
from pathlib import Path

import jax
import numpy as np
from fastbptt.kernels.cpu import team
from jax import numpy as jnp
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

import fastbptt as fb
from fastbptt.commands import info, measuring
from fastbptt.jax import recurrent

from . import stored

SIZES = ((1, 1, 8, 8), (100, 1, 16, 32), (1000, 1, 64, 64), (1000, 32, 64, 64), (20000, 1, 64, 64))
SMALL = 8
LONG, TIMED = 1.0, 3


def layer_of(layer, x):
    """The same LSTM by lax.scan."""
    drive = x @ layer.U.T + layer.b

    def step(state, a):
        s, c = state
        i, f, g, o = jnp.split(a + s @ layer.W.T, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        s = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (s, c), s

    zero = jnp.zeros((x.shape[1], layer.hidden), x.dtype)
    return jax.lax.scan(step, (zero, zero), drive)[1]


def time_point(T, B, I, H, rounds):
    """The median microseconds a step of both; ratio: lax.scan's over ours."""
    rng = np.random.default_rng(0)
    layer = jax.tree.map(jnp.asarray, fb.LSTM.init(I, H, rng=rng))
    x, dh = (jnp.asarray(rng.standard_normal((T, B, n)), "float32") for n in (I, H))

    def gradient(run):
        loss = jax.jit(jax.grad(lambda layer, x: (run(layer, x) * dh).sum(), argnums=(0, 1)))
        return lambda: jax.block_until_ready(loss(layer, x))

    runs = {
        "fastbptt.jax": gradient(lambda layer, x: recurrent(layer, x)[0]),
        "lax.scan": gradient(layer_of),
    }
    for run in runs.values():
        run()
    seconds = measuring.medians(runs, rounds, TIMED, LONG)
    micros = {name: taken / T * 1e6 for name, taken in seconds.items()}
    ratio = micros["lax.scan"] / micros["fastbptt.jax"]
    return {"T": T, "B": B, "I": I, "H": H, "us_per_step": micros, "ratio": ratio}


@intrinsic
def _at(typing, address):
    """The memory at an address."""

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.uintp), generate


@njit(inline="always")
def _data(buffers):
    """The numbers of the first of some buffers."""
    buffer = carray(_at(carray(_at(buffers), (1,), np.uintp)[0]), (4,), np.uintp)
    return carray(_at(buffer[3]), (SMALL,), np.float32)


@cfunc(types.intp(types.uintp))
def _handler(frame):
    """Copy the first argument to the first result; XLA's c_api.h lays out what it reads.

    XLA first asks for the version of the interface that it was made for, here 0.3.
    """
    own = carray(_at(frame), (15,), np.uintp)
    if own[1]:  # an extension: the metadata that is asked for
        metadata = carray(_at(own[1]), (4,), np.uintp)[3]
        version = carray(_at(metadata), (8,), np.int32)
        version[6], version[7] = 0, 3
        return 0
    numbers, copy = _data(own[9]), _data(own[14])
    for k in range(SMALL):
        copy[k] = numbers[k]
    return 0


def empty_calls(rounds):
    """Microseconds of a jitted call that does nothing but call, the least of some rounds."""
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype = ctypes.py_object
    capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    jax.ffi.register_ffi_target("fastbptt_copy", capsule(_handler.address, None, None), "cpu")
    due = jax.ShapeDtypeStruct((SMALL,), jnp.float32)
    calls = {
        "jit alone": lambda x: x + 1,
        "typed FFI": lambda x: jax.ffi.ffi_call("fastbptt_copy", due)(x) + 1,
        "pure_callback": lambda x: jax.pure_callback(np.asarray, due, x) + 1,
    }
    x, taken = jnp.arange(SMALL, dtype="float32"), {}
    runs = {name: jax.jit(call) for name, call in calls.items()}
    for name, run in runs.items():
        assert np.array_equal(run(x), np.arange(1, SMALL + 1)), name
    for _ in range(10 * rounds):
        for name, run in runs.items():
            many = lambda run=run: [jax.block_until_ready(run(x)) for _ in range(20)]  # noqa: E731
            taken.setdefault(name, []).append(measuring.seconds(many) / 20 * 1e6)
    return {name: min(values) for name, values in taken.items()}


def main():
    """Time all and store the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", nargs="+", type=int, default=range(len(SIZES)))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=stored.RESULTS / "jax_calls.json")
    args = parser.parse_args()
    machine, points = info.describe(team.get_num_threads()), []
    for index in args.points:
        points.append(time_point(*SIZES[index], args.rounds))
        print(points[-1], flush=True)
    calls = empty_calls(args.rounds)
    print(calls)
    stored.save(args.out, {"machine": machine, "rounds": args.rounds, "timed": TIMED,
                           "points": points, "empty_calls": calls})  # fmt: skip


if __name__ == "__main__":
    main()
