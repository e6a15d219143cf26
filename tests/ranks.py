"""Threads in place of processes: a Group of `fastbptt.distributed` for each, and what each does."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise

import numpy as np

import fastbptt as fb

WAIT = 300  # seconds that a rank waits for the others


class Thread:
    """The ranks of one call; what they tell each other goes through pickle, as in processes."""

    def __init__(self, rank, size, barrier, told):
        self.rank, self.size, self.barrier, self.told = rank, size, barrier, told

    def gather(self, value):
        self.told[self.rank] = pickle.dumps(value)
        self.barrier.wait(WAIT)
        found = [pickle.loads(one) for one in self.told]
        self.barrier.wait(WAIT)
        return found

    def exchange(self, send, out, back):
        assert len(send) == sum(out)
        parts = []
        for numbers, counts in self.gather((send, list(out))):
            ends = list(accumulate(counts))
            parts.append(numbers[ends[self.rank] - counts[self.rank] : ends[self.rank]])
        assert [len(part) for part in parts] == list(back)
        return np.concatenate(parts)

    def join(self, part):
        return np.concatenate(self.gather(part))


def on_ranks(size, work):
    """What `work(comm)` returns or raises on each rank; `comm.rank` tells which it is."""
    barrier, told = threading.Barrier(size), [None] * size

    def one(rank):
        try:
            return work(Thread(rank, size, barrier, told))
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


def parts(shares):
    """Where each rank's sequences are, slices, from how many each has."""
    return [slice(*ends) for ends in pairwise(accumulate(shares, initial=0))]


def part_of(value, own, axis=1):
    """The sequences of a rank in an argument; a state has them on axis 0."""
    if isinstance(value, tuple):
        return tuple(part_of(one, own, 0) for one in value)
    return value[own] if axis == 0 else value[:, own]


def calls(network, x, y, loss, shares, options):
    """The call of each rank, `call(comm)` or `call(comm, rank)`, for `shares` of the sequences."""

    def cut(name, value, own):
        if name in ("state", "lengths"):
            return part_of(value, own, 0)
        each = name in ("weights", "resets") and value.ndim > 1
        return part_of(value, own) if each else value

    def call(comm, rank=None):
        own = parts(shares)[comm.rank if rank is None else rank]
        given = {name: cut(name, value, own) for name, value in options.items()}
        targets = None if y is None else y[:, own]
        return fb.distributed.bptt(comm, network, x[:, own], targets, loss, **given)

    return call
