"""The fewest forward steps of an exact gradient in a given number of bytes.

A checkpoint (a state) costs S bytes, a cached step C. A schedule is a binary tree over the steps:
a node either caches all its steps (a leaf) or runs its left part without caching, stores the state
there, does its right part and then its left part. A leaf below d right turns has d checkpoints
outstanding, its own first state among them, and so room for ``c[d] = (m - d*S) // C`` steps; a leaf
below e left turns is run e + 1 times. What is sought is the tree of T steps with the fewest runs,

    F(n, m) = n if n*C <= m else min_j [ j + F(n - j, m - S) + F(j, m) ].

A *spine* is a chain of right turns with the leaf that ends it. Let R be the least number of
recomputes that reaches T. On fewer than R - 1 left turns nothing beats running every spine to the
full depth D. That leaves the spines below exactly R - 1 left turns, whose left parts are leaves:
one that starts at depth i and ends at k holds c[i] + ... + c[k] steps and costs c[i] - c[k] runs
more than if it ended at once. Together they must hold what is left of T as cheaply as possible, a
knapsack, and for one price per run every spine's best end is a suffix maximum. At the critical
price each has a nearest and a farthest best end; the *low* tree takes all the nearest, the *high*
tree all the farthest, T lies between, and one single spine is left to end between the two.

The result is the optimum F for one recompute (there is one spine), and for C a multiple of S, as
for every cell of this package: then a further run never buys more than the one before. For another
C >= S it may lie above F by fewer runs than that one spine costs between its two ends (never more
than one run seen, in a few cases of a hundred). For C < S, which no cell has, it is legal but may
lie well above. Small problems of these two kinds therefore go through the recursion itself.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from itertools import accumulate
from math import comb, gcd
from operator import mul
from typing import NamedTuple, TypeAlias

import numpy as np

from ..arrays import Array
from .capacity import Filled, capacities, least, reaches
from .capacity import capacity as capacity

_MOST_STEPS = 10**15
_TABLE_WORK = 100_000  # pairs (n, j) times depths in the recursion itself: 10 to 20 ms
_MOST_TABLES = 16  # recomputes of a tree that compiled code follows: others have few leaves
_ROWS = 64  # rows of sums that are stored; a tree with more recomputes has a small depth


class Tables(NamedTuple):
    """A tree for compiled code: `left(n, d, k)` follows from them as in Spine and Threshold.

    P : P[d] = c[0] + ... + c[d-1], int64
    low, high : the sums at (k, d) of the low and of the high tree; unused for one recompute
    """

    P: Array
    low: Array
    high: Array


def least_feasible(T: int, S: int, C: int) -> int:
    """The least bytes in which T steps can be reversed, with any number of recomputes."""
    return min(T * C, S + C)


def least_recomputes(T: int, m: int, S: int, C: int) -> int:
    """The least r for which m bytes reach T steps with no step run again more than r times."""
    if m < least_feasible(T, S, C):
        raise ValueError(f"{T} steps of {C} bytes need {least_feasible(T, S, C)} bytes, got {m}")
    return least(T, lambda r: reaches(T, m, S, C, r))


def least_memory(T: int, S: int, C: int, recomputes: int) -> int:
    """The least bytes that reach T steps with no step run again more than `recomputes` times."""
    _check_steps(T)
    return least(T * C, lambda m: reaches(T, m, S, C, recomputes))


def _check_steps(T: int) -> None:
    if T > _MOST_STEPS:  # it would take minutes to find the schedule
        raise ValueError(f"T must be at most {_MOST_STEPS} for a schedule of checkpoints, not {T}")


def forward_steps(T: int, m: int, S: int, C: int) -> int:
    """Forward steps, recomputation included, of the schedule for T steps in m bytes."""
    return best(T, m, S, C).forward_steps


@lru_cache(maxsize=8)
def best(T: int, m: int, S: int, C: int) -> Tree:
    """The tree of fewest forward steps for T steps in m bytes.

    It has `forward_steps`, `leaves`, `recomputes` (the most times that a step is run again), `peak`
    (the bytes that are really used) and `left(n, d, k)`: of a node of n steps, d outstanding
    checkpoints and at most k recomputes left, the number of steps of its left part; 0 for a leaf.
    """
    _check_steps(T)
    R = least_recomputes(T, m, S, C)
    if R == 0:
        return Leaf(T, C)
    if R == 1:
        return Spine(T, m, S, C)
    c = list(capacities(m, S, C))
    if C % S and T * T * len(c) <= 2 * _TABLE_WORK:
        return Table(T, c, S, C)
    return Threshold(T, c, R, S, C)


class Leaf:
    """A tree of one leaf: every step is cached."""

    leaves = 1

    def __init__(self, T: int, C: int):
        self.forward_steps, self.recomputes, self.peak = T, 0, T * C

    def left(self, n: int, d: int, k: int) -> int:
        return 0

    def tables(self) -> None:
        """None: there is one leaf."""


def _spine_end(P: Sequence[int] | Filled, n: int, d: int) -> int:
    """The depth at which a spine of n steps from depth d ends; P[i] = c[0] + ... + c[i-1]."""
    return bisect_left(P, P[d] + n, d + 1) - 1


def _spine_left(P: Sequence[int] | Filled, n: int, d: int) -> int:
    """The steps of the first leaf of that spine; all its other leaves are full."""
    end = _spine_end(P, n, d)
    return n - (P[end + 1] - P[d + 1])


class Spine:
    """One recompute: F = 2T - c[k], k the first with c[0] + ... + c[k] >= T."""

    recomputes = 1

    def __init__(self, T: int, m: int, S: int, C: int):
        self.P = P = Filled(T, m, S, C)
        k = len(P) - 2
        self.forward_steps, self.leaves = 2 * T - (P[k + 1] - P[k]), k + 1
        # The bytes of m that i checkpoints and a full leaf leave unused repeat after p leaves.
        later = ((P[i + 1] - P[i]) * C + i * S for i in range(1, min(k, P.p) + 1))
        self.peak = max(self.left(T, 0, 1) * C, max(later, default=0))

    def left(self, n: int, d: int, k: int) -> int:
        return 0 if n <= self.P[d + 1] - self.P[d] else _spine_left(self.P, n, d)

    def tables(self) -> Tables:
        return Tables(self.P.numbers(), np.zeros((2, 1), np.int64), np.zeros((2, 1), np.int64))


class Sums:
    """`at(k, d)`: the sum of a figure over a tree from depth d with k recomputes left.

    `row[d]` is the figure of one spine from d (k = 1); a tree from d with k > 1 is the trees with
    k - 1 that hang on its spine, so that at(k, d) = at(k - 1, d) + at(k, d + 1).
    """

    def __init__(self, row: list[int]):
        self.rows: list[list[int]] = [[], row]

    def at(self, k: int, d: int) -> int:
        if k <= _ROWS:
            while len(self.rows) <= k:
                self.rows.append(list(accumulate(reversed(self.rows[-1])))[::-1])
            return self.rows[k][d]
        row = self.rows[1]
        return sum(comb(k - 2 + i, i) * row[d + i] for i in range(len(row) - d))


class Threshold:
    """Two recomputes or more: the low and the high tree at the critical price; see the module."""

    def __init__(self, T: int, c: list[int], R: int, S: int, C: int):
        self.c, self.recomputes = c, R
        self.P = P = [0, *accumulate(c)]
        D = len(c) - 1
        spines = [1]  # how many start at each depth; at D, the ends of the spines further up
        for i in range(D):
            spines.append(spines[-1] * (R - 1 + i) // (i + 1))

        def tree(ends: Iterable[int]) -> tuple[list[int], list[int], int, int]:
            """For each spine its steps and its added runs, and both summed over all spines."""
            steps = [P[end + 1] - P[d] for d, end in enumerate(ends)]
            runs = [c[d] - c[end] for d, end in enumerate(ends)]
            return steps, runs, sum(map(mul, spines, steps)), sum(map(mul, spines, runs))

        # Newton's method on the price: the chord between a tree that holds too few steps (no spine
        # goes on) and one that holds enough (all go to the end) gives the next price to try.
        low, high = tree(range(D + 1)), tree([D] * (D + 1))
        while True:
            nearest, farthest = _best_ends(P, c, high[2] - low[2], high[3] - low[3])
            near, far = tree(nearest), tree(farthest)
            if near[2] >= T:
                high = near
            elif far[2] < T:
                low = far
            else:
                break
        self.low, self.high = Sums(near[0]), Sums(far[0])
        low_runs, high_runs = Sums(near[1]), Sums(far[1])
        self._settle(T, nearest, S, C, low_runs, high_runs)
        self.leaves = self._count(T, Sums(_lengths(nearest)), Sums(_lengths(farthest)))

    def left(self, n: int, d: int, k: int) -> int:
        """The right part is filled as in the high tree before the left part exceeds the low one."""
        if n <= self.c[d]:
            return 0
        if k == 1:
            return _spine_left(self.P, n, d)
        at = self.low.at
        return max(at(k - 1, d), n - self.high.at(k, d + 1))

    def tables(self) -> Tables | None:
        D, R = len(self.c), self.recomputes
        if R > _MOST_TABLES or self.high.at(R, 0) > _MOST_STEPS:
            return None

        def rows(sums: Sums) -> Array:
            table = np.zeros((R + 1, D + 1), np.int64)
            for k in range(1, R + 1):
                table[k, :D] = [sums.at(k, d) for d in range(D)]
            return table

        return Tables(np.array(self.P, np.int64), rows(self.low), rows(self.high))

    def _between(self, d: int, k: int) -> int:
        """Steps that the high tree from depth d with k recomputes holds more than the low one."""
        return self.high.at(k, d) - self.low.at(k, d)

    def _settle(
        self, T: int, nearest: list[int], S: int, C: int, low_runs: Sums, high_runs: Sums
    ) -> None:
        """Find the one spine between low and high; from it, the forward steps and the peak.

        On the way down to it, right parts that are passed by are high and left parts are low. So
        `unfilled`, the steps that the node lacks to be high, changes only with a turn to the right.
        """
        c, P, R = self.c, self.P, self.recomputes
        D, period = len(c) - 1, C // gcd(S, C)  # of the bytes that d checkpoints and a leaf leave
        used = [d * S + room * C for d, room in enumerate(c)]
        below = list(accumulate(reversed(used), max))[::-1]  # the largest use at depth d and deeper
        low, high = self.low.at, self.high.at
        unfilled, runs = high(R, 0) - T, high_runs.at(R, 0)
        d, k, peak = 0, R, 0
        while True:
            # Turn left as long as the left part is not wholly low.
            turn = 1 + bisect_right(range(1, k), unfilled, key=partial(self._between, d))
            if turn < k:
                peak = max(peak, below[d + 1])
                k = turn
            if k == 1 or d == D:
                break
            unfilled -= high(k - 1, d) - low(k - 1, d)
            runs -= high_runs.at(k - 1, d) - low_runs.at(k - 1, d)
            peak = max(peak, below[d] if k > 2 else max(used[d : min(nearest[d] + 1, d + period)]))
            d += 1
        n = high(k, d) - unfilled
        end = _spine_end(P, n, d)
        runs += c[d] - c[end] - high_runs.at(k, d)
        first = self.left(n, d, k) or n
        self.peak = max(peak, d * S + first * C, *used[d + 1 : end + 1])
        # R + 1 runs a step, less R - e for each step below e < R left turns. If every spine ended
        # at once, that would be 1 for each step of capacity R - 1, and R - 1 - e more for the
        # ends further up, which are all at depth D. `runs` is what longer spines add.
        saved = sum(comb(R - 2 + i, i) * room for i, room in enumerate(c))
        self.forward_steps = (R + 1) * T - saved - c[D] * comb(R + D - 1, D + 1) + runs

    def _count(self, T: int, low_leaves: Sums, high_leaves: Sums) -> int:
        """The number of leaves, by the way of `_settle` to the one spine between low and high."""
        low, high, D = self.low.at, self.high.at, len(self.c) - 1
        d, k = 0, self.recomputes
        unfilled, leaves = high(k, 0) - T, high_leaves.at(k, 0)
        while True:
            k = min(k, 1 + bisect_right(range(1, k), unfilled, key=partial(self._between, d)))
            if k == 1 or d == D:
                break
            unfilled -= high(k - 1, d) - low(k - 1, d)
            leaves -= high_leaves.at(k - 1, d) - low_leaves.at(k - 1, d)
            d += 1
        end = _spine_end(self.P, high(k, d) - unfilled, d)
        return leaves - high_leaves.at(k, d) + end - d + 1


def _lengths(ends: Sequence[int]) -> list[int]:
    """The leaves of a spine from each depth, by the depth at which it ends."""
    return [end - d + 1 for d, end in enumerate(ends)]


def _best_ends(
    P: Sequence[int], c: Sequence[int], steps: int, runs: int
) -> tuple[list[int], list[int]]:
    """For each start the nearest and the farthest best end; `steps` steps are worth `runs` runs."""
    nearest: list[int] = []
    farthest: list[int] = []
    top = None
    for end in range(len(c) - 1, -1, -1):
        worth = runs * P[end + 1] + steps * c[end]
        if top is None or worth > top:
            top, near, far = worth, end, end
        elif worth == top:
            near = end
        nearest.append(near)
        farthest.append(far)
    return nearest[::-1], farthest[::-1]


class Table:
    """The recursion for F itself, for small problems; among the best trees, few recomputes."""

    def __init__(self, T: int, c: list[int], S: int, C: int):
        never = T * T + 1  # more than any schedule
        right, right_most = [0] + [never] * T, [0] * (T + 1)
        self.splits = []
        for room in reversed(c):
            # For n steps at this depth: F, the most times a step is run again, the left part.
            F, most, split = list(range(min(room, T) + 1)), [0] * (T + 1), [0] * (T + 1)
            for n in range(len(F), T + 1):
                runs = [j + F[j] + right[n - j] for j in range(1, n)]
                fewest = min(runs)
                most[n], split[n] = min(
                    (max(most[j] + 1, right_most[n - j]), j)
                    for j, total in enumerate(runs, 1)
                    if total == fewest
                )
                F.append(min(fewest, never))
            self.splits.append(split)
            right, right_most = F, most
        self.splits.reverse()
        self.forward_steps, self.recomputes = right[T], right_most[T]
        self.peak, self.leaves, nodes = 0, 0, [(T, 0)]
        while nodes:
            n, d = nodes.pop()
            if j := self.splits[d][n]:
                nodes += [(j, d), (n - j, d + 1)]
            else:
                self.peak = max(self.peak, d * S + n * C)
                self.leaves += 1

    def left(self, n: int, d: int, k: int) -> int:
        return self.splits[d][n]

    def tables(self) -> None:
        """None: such trees are small."""


Tree: TypeAlias = Leaf | Spine | Threshold | Table
