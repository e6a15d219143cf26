"""Train one network on sequences that lie on many machines.

Each process has sequences of its own and computes their gradient. `fastbptt.distributed.bptt` adds
up the gradients, so every process makes the same update, and all networks stay equal to the last
bit. The result does not depend on the number of processes. Here they are on one machine:

    mpiexec -n 2 python examples/many_machines.py
    torchrun --nproc-per-node 2 examples/many_machines.py

Many machines need a list of hosts (`mpiexec --hostfile`, `torchrun --nnodes`), and no other
program.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastbptt as fb

BLOCK = 16


def processes() -> tuple[Any, int, int, Callable[[], None]]:
    """What starts this process has: a communicator, our rank, how many there are, and the end."""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun
        import torch.distributed as dist

        dist.init_process_group("gloo")
        end = dist.destroy_process_group
        return dist.group.WORLD, dist.get_rank(), dist.get_world_size(), end
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    return world, world.Get_rank(), world.Get_size(), lambda: None


def sequences(first: int, stop: int, steps: int) -> np.ndarray:
    """Noisy oscillations (steps + 1, stop - first, 1), each drawn by its number alone."""
    found = np.empty((steps + 1, stop - first, 1), np.float32)
    t = np.arange(steps + 1)
    for number in range(first, stop):
        rng = np.random.default_rng(number)
        wave = np.sin(2 * np.pi * t / rng.uniform(8, 30) + rng.uniform(0, 6))
        found[:, number - first, 0] = wave + 0.05 * rng.standard_normal(steps + 1)
    return found


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """Train, and report; returns the errors of the first and the last update."""
    parser = argparse.ArgumentParser(description="Train on sequences that lie on many machines.")
    parser.add_argument("--sequences", type=int, default=128, help="of all processes")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--hidden", type=int, default=24)
    parser.add_argument("--updates", type=int, default=100)
    args = parser.parse_args(arguments)

    comm, rank, size, end = processes()
    blocks = -(-args.sequences // BLOCK)
    first, stop = (min(args.sequences, blocks * n // size * BLOCK) for n in (rank, rank + 1))
    x = sequences(first, stop, args.steps)  # elsewhere: read from this machine's own disk
    network = fb.Network(
        fb.LSTM.init(1, args.hidden, rng=1), fb.Readout.init(args.hidden, 1, rng=2)
    )

    descent, errors = fb.SGD(lr=0.05, momentum=0.9), []
    began = time.perf_counter()
    for _ in range(args.updates):
        r = fb.distributed.bptt(comm, network, x[:-1], x[1:], reduction="mean", block=BLOCK)
        errors.append(r.loss)
        descent.step(network, r.grad)  # in place: the next call reads it
    seconds = time.perf_counter() - began
    if rank == 0:
        print(f"{args.sequences} sequences of {args.steps} steps in {size} processes")
        print(f"squared error of the next value: {errors[0]:.4f}, then {errors[-1]:.4f}")
        print(f"{seconds / args.updates * 1e3:.1f} ms an update", flush=True)
    end()
    return errors[0], errors[-1]


if __name__ == "__main__":
    main()
