"""What each process of a job does: `python distributed_job.py mpi FOLDER`, or torch for mpi.

Each leaves what it found in FOLDER. At the end the last one dies in the middle of a call.
"""

import hashlib
import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
from helpers import make_problem
from ranks import calls

import fastbptt as fb

SHARES = {1: [11], 2: [4, 7], 3: [0, 8, 3], 4: [4, 4, 3, 0]}
PATIENCE = 120  # seconds: the time-out of the group


def problem_call(shares):
    """The call of each rank: a problem with dropout and lengths, so that numbers of rows matter."""
    q = make_problem("lstm/gru", (9, 11, 3, 5, 2), dropout=0.3)
    lengths = np.array([9, 3, 0, 9, 4, 5, 5, 2, 1, 0, 4])
    options = {"seed": 5, "reduction": "mean", "block": 4, "lengths": lengths}
    return calls(q.network, q.x, q.y, "squared_error", shares, options)


def digest(r):
    """The bits of what all processes have in common."""
    return hashlib.sha256(np.array(r.loss).tobytes() + r.grad.flat().tobytes()).hexdigest()


def over_mpi(folder):
    """The rank; communicators of the first 1, 2, ... processes; one that this process is not in."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    comms = [world.Split(int(world.rank >= n)) for n in range(1, world.size + 1)]
    return world.rank, comms, MPI.COMM_NULL


def over_torch(folder):
    """The same, for torch.distributed; there each process makes all groups."""
    import torch.distributed as dist

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size,
        timeout=timedelta(seconds=PATIENCE),
    )  # fmt: skip
    groups = [dist.new_group(range(n)) for n in range(1, size)]
    strange = type(dist.group.WORLD)(0, 1)  # in none of PyTorch's lists
    return rank, [*groups, dist.group.WORLD], strange


def raised(call, *given):
    """What a call raises, in words."""
    try:
        call(*given)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def nccl(comm):
    """Have the group be one of NCCL, as far as can be without a GPU."""
    import torch.distributed as dist

    dist.get_backend_config = lambda group: "cuda:nccl"
    return problem_call([11])(comm, 0)


def main(kind, folder):
    """Do it all, the same in every process."""
    fb.set_num_threads(1)
    rank, comms, strange = over_mpi(folder) if kind == "mpi" else over_torch(folder)
    world, size = comms[-1], len(comms)
    found = {"bits": {}}
    for n, comm in enumerate(comms, 1):
        if rank < n:
            found["bits"][n] = digest(problem_call(SHARES[n])(comm, rank))

    q = make_problem("lstm/gru", (9, 4, 3, 5, 2))
    x, y, network = q.x, q.y, q.network
    network = network.with_flat(network.flat() + (rank == size - 1))
    found["disagree"] = raised(fb.distributed.bptt, world, network, x, y)

    def loss(o, y, start):
        if rank == size - 1:
            raise KeyError("in the loss")
        return 0.0, o

    arguments = world, q.network, x, None, fb.OutputLoss(loss)
    found["raises"] = raised(lambda: fb.distributed.bptt(*arguments, block=4))
    found["after"] = digest(problem_call(SHARES[size])(world, rank))  # nobody is out of step
    found["strange"] = raised(problem_call([11]), strange, 0)

    def dies(o, y, start):
        if rank == size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0.0, o

    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    arguments = world, q.network, x, None, fb.OutputLoss(dies)
    began = time.monotonic()
    found["dies"] = raised(lambda: fb.distributed.bptt(*arguments, block=4))
    found["seconds"] = time.monotonic() - began
    if kind == "torch":
        found["nccl"] = raised(nccl, world)
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # nothing can be put away with the others any more


if __name__ == "__main__":
    main(*sys.argv[1:])
