"""Schedules: in which order steps are run, kept and reversed, as plain data.

A schedule is an iterator of tuples, made as it is read: T may be 10^7 and windows a million.
There is one current state (at first the initial state, at position 0; the state at position a is
the one before step a), a stack of checkpoints, and one leaf of cached steps.

===================  =============================================================================
("advance", a, b)    run from the current state, at a, to b; cache nothing
("store", a)         push the current state, at a, on the stack
("restore", a)       the current state is now that at a: the top of the stack, where it stays, or
                     for a = 0 the initial state, which is always there and never on the stack
("discard", a)       pop the checkpoint at a
("cache", a, b)      run from the current state, at a, to b and cache every step, behind what is
                     cached already
("reverse", a, b)    go back over the leaf [a, b), which is all that is cached; then it is free
("window", s, a, b)  start with deltas of zero at b and go back to s; of the losses only those at
                     a <= t < b count; the leaf stays
("keep", s)          forget the cached steps before s
===================  =============================================================================

`reverse` carries the deltas on from the leaf after it. Whenever a leaf [a, b) is reversed, the
state at a is the top of the stack (for a = 0 the initial state).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from .optimal import best

Action: TypeAlias = "tuple[Any, ...]"
"""A step of a schedule: its name and its times."""

Schedule: TypeAlias = Iterator[Action]


def full(T: int) -> Schedule:
    """Every step cached."""
    return _walk(T, lambda n, d, k: 0)


def segmented(T: int, L: int) -> Schedule:
    """A state every L steps; each segment but the last is run twice."""
    return _walk(T, lambda n, d, k: L if n > L else 0)


def optimal(T: int, m: int, S: int, C: int) -> Schedule:
    """The fewest forward steps in m bytes, S a checkpoint and C a cached step."""
    tree = best(T, m, S, C)
    return _walk(T, tree.left, tree.recomputes)


def truncated(T: int, k1: int, k2: int) -> Schedule:
    """Truncated BPTT: every k1 steps a window that reaches at most k2 steps back.

    Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories" (1990): BPTT(k2; k1). What windows share stays cached, so no step is run
    twice, and at most k2 steps are cached at a time. With T <= k2 the windows add up to full BPTT,
    done in one.
    """
    if k2 >= T:
        k1 = T
    start = 0
    for a in range(0, T, k1 or 1):
        b = min(a + k1, T)
        s = max(0, a - (k2 - k1))
        if s > start:
            yield "keep", s
            start = s
        yield "cache", a, b
        yield "window", s, a, b


def truncated_backward_steps(T: int, k1: int, k2: int) -> int:
    """Steps that the windows of `truncated` go back over, added up."""
    if k2 >= T:
        return T
    overlap = k2 - k1
    later = -(-T // k1) - 1  # windows after the first
    growing = min(later, overlap // k1)  # those that still reach back to 0
    return T + k1 * growing * (growing + 1) // 2 + (later - growing) * overlap


def _walk(T: int, left: Callable[[int, int, int], int], recomputes: int = 0) -> Schedule:
    """Carry out a tree of splits, right part before left; `left` as in `checkpointing.best`."""
    at = 0
    # Four numbers a node, as numbers: tuples of them would outweigh small checkpoints.
    pending = array("q", (0, T, 0, recomputes) if T else ())
    while pending:
        a, n, d, k = pending[-4:]
        del pending[-4:]
        if n == 0:  # a right part is done
            yield "discard", a
            continue
        if at != a:
            yield "restore", a
        j = left(n, d, k)
        if j == 0:
            yield "cache", a, a + n
            yield "reverse", a, a + n
            at = a + n
        else:
            at = a + j
            yield "advance", a, at
            yield "store", at
            pending.extend((a, j, d, k - 1, at, 0, d, k, at, n - j, d + 1, k))
