"""Schedules: the order in which steps are run, cached and reversed, as plain data.

A schedule is an iterator of actions. Each is a tuple: a name and times. They are made while they
are read, since T may be 10^7. An action works on three things: the current state (at first the
initial state, at position 0; the state at position a is the state before step a), a stack of
checkpoints, and a step cache, which holds consecutive steps.

===================  =============================================================================
("advance", a, b)    run from the current state, at a, to b; cache nothing
("store", a)         push the current state, at a, on the stack
("restore", a)       make the state at a the current one: the top of the stack, which stays there;
                     for a = 0 the initial state, which is always available and never on the stack
("discard", a)       pop the checkpoint at a
("cache", a, b)      run from the current state, at a, to b; append every step to the step cache
("reverse", a, b)    go back over the steps [a, b), which are all that is cached; empty the cache
("window", s, a, b)  start with deltas of zero at b and go back to s; only the losses at
                     a <= t < b count; the cache stays as it is
("keep", s)          remove the steps before s from the cache
===================  =============================================================================

`reverse` continues with the deltas of the `reverse` before it. Whenever steps [a, b) are reversed,
the state at a is the top of the stack (for a = 0 the initial state).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import Any, TypeAlias

from .optimal import Tree, best

Action: TypeAlias = "tuple[Any, ...]"
"""One action of a schedule: a tuple of its name and its times."""

Schedule: TypeAlias = Iterator[Action]


def full(T: int) -> Schedule:
    """Cache every step, then reverse all."""
    return _walk(T, lambda n, d, k: 0)


def segmented(T: int, L: int) -> Schedule:
    """Store a state every L steps; all but the last L steps are run twice."""
    return _walk(T, lambda n, d, k: L if n > L else 0)


def optimal(T: int, m: int, S: int, C: int) -> Schedule:
    """The fewest forward steps in m bytes; a checkpoint takes S bytes, a cached step C."""
    return TreeSchedule(T, best(T, m, S, C))


def truncated(T: int, k1: int, k2: int) -> Schedule:
    """Truncated BPTT: every k1 steps a window that reaches at most k2 steps back.

    Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories" (1990): BPTT(k2; k1). Steps that windows share stay cached, so no step is
    run twice, and at most k2 steps are cached at a time. With T <= k2 there is one window of all T:
    full BPTT.
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


def forth(schedule: Schedule) -> list[Action]:
    """The actions before the first that goes back."""
    return list(takewhile(lambda action: action[0] != "reverse", schedule))


def after(schedule: Schedule, done: int) -> Schedule:
    """The actions of a schedule but for the first `done`."""
    if isinstance(schedule, TreeSchedule):
        return TreeSchedule(schedule.steps, schedule.tree, schedule.done + done)
    return islice(schedule, done, None)


def truncated_backward_steps(T: int, k1: int, k2: int) -> int:
    """The sum of the steps that the windows of `truncated` go back over."""
    if k2 >= T:
        return T
    overlap = k2 - k1
    later = -(-T // k1) - 1  # windows after the first
    growing = min(later, overlap // k1)  # those of them that reach back to step 0
    return T + k1 * growing * (growing + 1) // 2 + (later - growing) * overlap


class TreeSchedule(Iterator["Action"]):
    """The actions of a tree of splits, right part before left.

    steps : T
    tree : the tree of `optimal.best`; compiled code makes the same actions from its `tables`
    done : actions at the beginning that are left out
    """

    def __init__(self, steps: int, tree: Tree, done: int = 0):
        self.steps, self.tree, self.done = steps, tree, done
        self._actions = islice(_walk(steps, tree.left, tree.recomputes), done, None)

    def __next__(self) -> Action:
        return next(self._actions)


def _walk(T: int, left: Callable[[int, int, int], int], recomputes: int = 0) -> Schedule:
    """The actions of a tree of splits, right part before left; `left` as in `optimal.best`."""
    # Two numbers a checkpoint, in flat arrays, since tuples might take more memory than its state:
    # its position, and the recomputes left to the steps before it.
    ends, turns = array("q"), array("q")
    at, a, n, k = 0, 0, T, recomputes
    while n:
        if at != a:
            yield "restore", a
        j = left(n, len(ends), k)
        if j:
            at = a + j
            yield "advance", a, at
            yield "store", at
            ends.append(at)
            turns.append(k - 1)
            a, n = at, n - j
            continue
        yield "cache", a, a + n
        yield "reverse", a, a + n
        at, n = a + n, 0
        if ends:
            end, k = ends.pop(), turns.pop()
            yield "discard", end
            a = ends[-1] if ends else 0
            n = end - a
