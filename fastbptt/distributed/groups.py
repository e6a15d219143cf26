"""The processes of a call, and how they speak to each other: over MPI or torch.distributed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from .. import arguments
from ..arrays import Array

Told = TypeVar("Told")


class Group(Protocol):
    """Processes that call the same methods in the same order."""

    rank: int
    size: int

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, plain data, in the order of their ranks."""
        ...

    def exchange(self, send: Array, out: Sequence[int], back: Sequence[int]) -> Array:
        """Send `out[r]` numbers of `send` to rank r; returns those from all, `back[r]` from r."""
        ...

    def join(self, part: Array) -> Array:
        """The parts of all, of one size, end to end."""
        ...


class OverMPI:
    """An intracommunicator of mpi4py."""

    def __init__(self, comm: Any):
        self.comm, self.rank, self.size = comm, comm.Get_rank(), comm.Get_size()

    def gather(self, value: Any) -> list[Any]:
        """See Group."""
        return self.comm.allgather(value)

    def exchange(self, send: Array, out: Sequence[int], back: Sequence[int]) -> Array:
        """See Group."""
        found = np.empty(sum(back), send.dtype)
        self.comm.Alltoallv([send, list(out)], [found, list(back)])
        return found

    def join(self, part: Array) -> Array:
        """See Group."""
        found = np.empty(part.size * self.size, part.dtype)
        self.comm.Allgather(part, found)
        return found


class OverTorch:
    """A group of torch.distributed whose CPU tensors go through gloo."""

    def __init__(self, group: Any):
        import torch.distributed as dist

        self.group, self.dist = group, dist
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def gather(self, value: Any) -> list[Any]:
        """See Group."""
        found: list[Any] = [None] * self.size
        self.dist.all_gather_object(found, value, group=self.group)
        return found

    def exchange(self, send: Array, out: Sequence[int], back: Sequence[int]) -> Array:
        """See Group."""
        import torch

        given = torch.from_numpy(send)
        found = torch.empty(sum(back), dtype=given.dtype)
        self.dist.all_to_all_single(found, given, list(back), list(out), group=self.group)
        return found.numpy()

    def join(self, part: Array) -> Array:
        """See Group."""
        import torch

        given = torch.from_numpy(part)
        found = torch.empty((self.size, part.size), dtype=given.dtype)
        self.dist.all_gather(list(found), given, group=self.group)
        return found.numpy().reshape(-1)


def of(comm: Any) -> Group:
    """The processes of `comm`; raises where it is neither of the two, or no gloo group."""
    mpi, dist = sys.modules.get("mpi4py.MPI"), sys.modules.get("torch.distributed")
    if mpi is not None and isinstance(comm, mpi.Comm):
        if comm == mpi.COMM_NULL or comm.Is_inter():
            raise ValueError(
                "comm must be an intracommunicator that this process is in, such as COMM_WORLD, "
                f"not {'an intercommunicator' if comm != mpi.COMM_NULL else 'COMM_NULL'}"
            )
        return OverMPI(comm)
    if dist is not None and isinstance(comm, getattr(dist, "ProcessGroup", ())):
        try:
            backends = dist.get_backend_config(comm)
        except Exception as error:  # several kinds, and PyTorch documents none
            raise ValueError(f"comm must be a group that this process is in: {error}") from None
        if "cpu:gloo" not in backends.split(","):
            raise ValueError(
                f"comm must be a group of gloo, not of {backends}: make one beside it, "
                "torch.distributed.new_group(backend='gloo')"
            )
        return OverTorch(comm)
    raise TypeError(
        "comm must be a communicator of mpi4py, such as MPI.COMM_WORLD, or a torch.distributed "
        "group, such as torch.distributed.group.WORLD once init_process_group has been called, "
        f"not {arguments.describe(comm)}"
    )


class Lost(RuntimeError):
    """The other processes cannot be reached: nothing more can be done together."""


def reach(call: Callable[..., Told], *given: Any) -> Told:
    """What a method of a Group returns; raises Lost where the others do not answer."""
    try:
        return call(*given)
    except Exception as error:
        text = " ".join(str(error).split())
        raise Lost(
            "a process of comm has ended, or has not answered within the time-out of comm: "
            f"{type(error).__name__}: {text[:300]}"
        ) from error


def together(group: Group, work: Callable[[], Told]) -> list[Told]:
    """What `work()`, plain data, returns in each process; where it raises in one, raise in all."""
    failure: BaseException | None = None
    value = None
    try:
        value = work()
    except BaseException as error:  # the others wait, whatever it is
        failure = error
    try:
        text = None if failure is None else f"{type(failure).__name__}: {failure}"
        told = reach(group.gather, (text, value))
    except Lost:
        if failure is None:
            raise
    try:
        if failure is not None:
            raise failure
    finally:
        del failure  # it refers to this frame
    for rank, (text, _) in enumerate(told):
        if text is not None:
            raise RuntimeError(f"rank {rank} of comm has failed: {text}")
    return [one for _, one in told]
