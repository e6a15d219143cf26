"""One gradient over processes on this machine, one thread each: python -m bench.distributed.

A call of one process with all sequences, and of two with half of them each, over MPI and over gloo;
beside them `fastbptt.bptt` of the same blocks, one after another. Without time steps there is
nothing to compute: those calls show what the processes' talk costs, and how it grows with the
gradient. All calls of a job take turns; the figure is the median, in milliseconds.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

import fastbptt as fb
from fastbptt.commands import info, measuring

from . import stored

BLOCK, PROCESSES = 16, (1, 2)
POINTS = ((100, 64, 16, 16), (1000, 64, 64, 64), (200, 64, 256, 256))  # T, all sequences, I, H
TALK = (16, 64, 256, 512)  # I and H where T = 0
ENVIRONMENT = {
    **os.environ,
    "FASTBPTT_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PRTE_MCA_hwloc_default_binding_policy": "none",  # other processes may be on one of the cores
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}


def starter(over, processes):
    """The command that starts a job's processes, without what they do."""
    if over == "mpi":
        places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        mpiexec = shutil.which("mpiexec", path=places)
        if mpiexec is None:
            raise SystemExit("there is no mpiexec: pip install 'fastbptt[distributed]'")
        return [mpiexec, "-n", str(processes), sys.executable]
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    return [*torchrun, "--nproc-per-node", str(processes)]


def network_of(I, H):
    """An LSTM and its readout."""
    return fb.Network(fb.LSTM.init(I, H, rng=0), fb.Readout.init(H, I, rng=1))


def joined(over):
    """The communicator of this process, its rank, how many there are, and the end."""
    if over == "mpi":
        from mpi4py import MPI

        world = MPI.COMM_WORLD
        return world, world.rank, world.size, lambda: None
    import torch.distributed as dist

    dist.init_process_group("gloo")
    return dist.group.WORLD, dist.get_rank(), dist.get_world_size(), dist.destroy_process_group


def in_blocks(network, x):
    """The same gradients by `fastbptt.bptt` alone, one block after another."""
    for start in range(0, x.shape[1], BLOCK):
        part = x[:, start : start + BLOCK]
        fb.bptt(network, part, part)


def job(over, rounds):
    """What each process does; the first prints the milliseconds of each call."""
    comm, rank, size, end = joined(over)
    calls = {}

    def enter(name, T, B, I, H):
        network, x = network_of(I, H), np.zeros((T, B // size, I), np.float32)
        calls[name] = lambda: fb.distributed.bptt(comm, network, x, x, block=BLOCK)
        if size == 1:
            calls[f"{name} alone"] = lambda: in_blocks(network, x)

    for T, B, I, H in POINTS:
        enter(f"T{T} H{H}", T, B, I, H)
    for H in TALK:
        enter(f"T0 H{H}", 0, BLOCK * size, H, H)
    taken = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            seconds = measuring.seconds(call)
            if turn:  # the first loads or compiles the kernels
                taken[name].append(seconds)
    end()
    if rank == 0:
        print(json.dumps({name: 1e3 * statistics.median(own) for name, own in taken.items()}))


def measured(over, rounds):
    """The milliseconds of each call, by the number of processes."""
    found = {}
    for processes in PROCESSES:
        own = ["-m", "bench.distributed", "--job", over, "--rounds", str(rounds)]
        command = [*starter(over, processes), *own]
        done = subprocess.run(
            command, env=ENVIRONMENT, cwd=stored.ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
        line = next(line for line in done.stdout.splitlines() if "{" in line)
        found[processes] = json.loads(line[line.index("{") : line.rindex("}") + 1])
    return found


def points_of(found):
    """The points of a result, from what `measured` has found for each way to talk."""
    points, talk = [], []
    (alone,) = {over: by[1] for over, by in list(found.items())[:1]}.values()
    for T, B, I, H in POINTS:
        name = f"T{T} H{H}"
        ms = {over: {str(n): by[n][name] for n in PROCESSES} for over, by in found.items()}
        sizes = {"cell": "LSTM", "T": T, "sequences": B, "I": I, "H": H}
        points.append({**sizes, "alone_ms": alone[f"{name} alone"], "ms": ms})
    for H in TALK:
        ms = {over: by[2][f"T0 H{H}"] for over, by in found.items()}
        talk.append({"H": H, "bytes": network_of(H, H).flat().nbytes, "ms": ms})
    return {"points": points, "talk": talk}


def main():
    """Start the jobs and store the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--over", nargs="+", default=("mpi", "torch"), choices=("mpi", "torch"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--job", choices=("mpi", "torch"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=stored.RESULTS / "distributed.json")
    args = parser.parse_args()
    if args.job:
        job(args.job, args.rounds)
        return
    machine = info.describe(1)
    found = {over: measured(over, args.rounds) for over in args.over}
    result = {"machine": machine, "rounds": args.rounds, "block": BLOCK, **points_of(found)}
    stored.save(args.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
