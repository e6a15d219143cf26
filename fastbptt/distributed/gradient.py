"""bptt over many processes: blocks of sequences, summed in a fixed tree."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np

from ..arrays import Array, ArrayLike
from ..calls.gradient import Result
from ..calls.progress import Progress
from ..engine.losses import Loss, Reduction
from ..layers.composite import AnyLayer, StateLike
from ..layers.network import Network
from ..memory.policies import Memory
from . import agreement, groups
from .groups import Group
from .running import Run
from .shares import Share
from .tree import Place, Tree


def bptt(
    comm: Any,
    network: Network[AnyLayer],
    x: ArrayLike,
    y: Any,
    loss: Loss = "squared_error",
    *,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | int | None = None,
    resets: ArrayLike | None = None,
    state: StateLike | None = None,
    memory: Memory = "full",
    reduction: Reduction = "sum",
    input_grad: bool = False,
    seed: int | None = None,
    t0: int = 0,
    device: str | None = None,
    progress: Progress = None,
    block: int = 16,
) -> Result[AnyLayer]:
    """Return the loss and the gradient of the sequences of many processes, each of which calls it.

    Loss and gradient have the same bits in all processes, and for every number of processes that
    hold the same sequences in the same order. Sequences are taken in blocks: `fastbptt.bptt` of
    each block, summed in a fixed tree.

    Parameters
    ----------
    comm : a communicator of mpi4py, or a group of torch.distributed whose backend is gloo
    network : as in `fastbptt.bptt`; the same numbers on all ranks
    x, y, weights, lengths, resets, state : as in `fastbptt.bptt`, for the rank's own sequences, of
        which it may have none (B = 0). Sequences are numbered over all ranks, in the order of the
        ranks. With an exact `memory`, ranks may have different T. A `y` for a loss of one's own is
        None or an array (T, B, ...)
    loss : as in `fastbptt.bptt`; a loss of one's own is called block by block
    memory : as in `fastbptt.bptt`, for the gradient of one block
    reduction : "sum", or "mean": divide by the number of positions that count on all ranks
    input_grad, t0, device : as in `fastbptt.bptt`
    seed : as in `fastbptt.bptt`; the masks are those of one call with all sequences
    progress : as in `fastbptt.bptt`, over the rank's own sequences; it may differ between ranks
    block : sequences that are taken together. Each rank holds a multiple of them, but for the last
        that has any

    Returns
    -------
    Result as of `fastbptt.bptt`. .loss and .grad are those of all sequences; .state, .grad_state
    and .grad_x are of the rank's own; .plan is that of its first block, besides which a rank holds
    sums of gradients, at most 2 log2(blocks) + 3

    Raises
    ------
    ValueError, TypeError : as in `fastbptt.bptt`; or on all ranks: what must be the same on them
        is not, or `block` does not fit
    RuntimeError : another rank has raised, has ended, or has not answered within the time-out of
        `comm`; or as in `fastbptt.bptt`
    MemoryLimitError, MemoryError : as in `fastbptt.bptt`
    """
    group = groups.of(comm)
    share = Share(
        network, x, y, loss, weights, lengths, resets, state, reduction, memory, input_grad, seed,
        t0, device, block,
    )  # fmt: skip
    told = groups.together(group, lambda: share.check().plain())
    terms = agreement.check(told, share.block)
    run = Run(share, first=sum(one.B for one in terms[: group.rank]))
    nodes = groups.together(group, lambda: run.all_blocks(progress))
    total = summed(group, [places for places, _ in nodes], run.grads, network)
    losses = Tree()
    for place, value in chain.from_iterable(own for _, own in nodes):
        losses.add(place, value)
    count = sum(one.count for one in terms)
    factor = 1.0 if reduction == "sum" else 1 / count if count else 0.0
    return run.result(total, losses.total() if len(losses) else 0.0, factor)


def summed(group: Group, places: list[list[Place]], own: Tree, network: Network) -> Array:
    """The sum of all gradients, in one vector, in every process.

    Each process adds up one part of the vector, so each sends and receives about two vectors.

    places : the nodes that each process holds; own : this one's
    """
    size, numbers = group.size, sum(array.size for array in network.arrays())
    width = -(-numbers // size)
    send = np.zeros((size, len(own), width), network.dtype)
    for k, (_, vector) in enumerate(own):
        padded = np.zeros(size * width, network.dtype)
        padded[:numbers] = vector
        send[:, k] = padded.reshape(size, width)
    back = [len(held) * width for held in places]
    out = [len(own) * width] * size
    found = groups.reach(group.exchange, send.reshape(-1), out, back).reshape(-1, width)
    tree = Tree()
    for place, part in zip(chain.from_iterable(places), found, strict=True):
        tree.add(place, part)
    part = tree.total() if len(tree) else np.zeros(width, network.dtype)
    return groups.reach(group.join, part)[:numbers]
