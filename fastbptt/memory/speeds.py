"""How fast a network's plans are, from a few short runs, and what a plan should take.

A plan caches and reverses each of its T steps once, in *leaves* of some length, and runs all others
without caching: `seconds = T * leaf + (forward_steps - T) * advance`. Both rates depend on the
length of the leaves, since what begins and ends a leaf takes as long for one step as for thousands.
So they are measured at the lengths that the plans have, on samples of their schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import comb
from time import perf_counter

from . import optimal, schedules
from .optimal import Tree
from .plan import Costs, Frontier, Plan
from .schedules import Action

SECONDS = 1.0
"""What all runs together may take."""
_FIRST = 2  # steps of the first run of all
_GROWTH = 16  # the most by which the next one is longer
_ROUNDS = 3  # for which the runs are made short enough: the least time of each sample counts
_MOST_ROUNDS = 8  # where runs are short since T is
_LONGER = 2.0  # times that a step of a sample with recomputes takes, about
_RECOMPUTES = 1, 3  # of samples: two numbers, to tell the rates apart
_LEAVES = 4  # of a sample, at least: as few as need three recomputes
_UNIT = 1 << 40  # bytes of a cached step, where a checkpoint takes one: then leaves are equal


@lru_cache(maxsize=8)
def _tree(T: int, leaf: int, recomputes: int) -> Tree:
    """A tree whose leaves have that many steps each, but for a shorter one."""
    if leaf >= T or not recomputes:
        return optimal.Leaf(T, 1)
    if recomputes == 1:
        return optimal.Spine(T, leaf * _UNIT + _UNIT - 1, 1, _UNIT)
    return optimal.Threshold(T, [leaf] * (_depth(-(-T // leaf)) + 1), recomputes, 1, _UNIT)


def _depth(leaves: int) -> int:
    """The least depth with room for so many leaves, by three recomputes."""
    depth = 1
    while comb(depth + 3, 3) < leaves:
        depth += 1
    return depth


def _least(leaves: int) -> int:
    """The least number of leaves, not below `leaves`, that needs three recomputes, not two."""
    return max(leaves, _LEAVES, comb(_depth(leaves) + 2, 2) + 1)


@dataclass(frozen=True)
class Sample:
    """A policy with leaves of one length, and no, one or three recomputes.

    It is not for users, since leaves of different lengths make better use of the memory; but how
    fast these are is what a plan's leaves take on average.
    """

    leaf: int
    recomputes: int

    @property
    def budget(self) -> None:
        """None: there is no budget."""

    def window(self, steps: int) -> None:
        """None: there are no windows."""

    def room(self, steps: int) -> None:
        """None: there are no windows."""

    def plan(self, costs: Costs) -> Plan:
        """A checkpoint for each turn to the right, and a leaf."""
        T, outputs, leaf = costs.steps, int(costs.stores_outputs), self.leaf
        tree = _tree(T, leaf, self.recomputes)
        if not tree.recomputes:
            return costs.plan(self, costs.full_bytes, T)
        leaves = -(-T // leaf)
        turns = leaves - 1 if self.recomputes == 1 else min(leaves - 1, _depth(leaves))
        return costs.plan(
            self, turns * costs.state_bytes + leaf * costs.step_bytes,
            outputs * T + tree.forward_steps, recomputes=outputs + tree.recomputes,
        )  # fmt: skip

    def schedule(self, plan: Plan) -> Iterator[Action]:
        """The tree's."""
        return schedules.TreeSchedule(plan.steps, _tree(plan.steps, self.leaf, self.recomputes))

    def leaves(self, plan: Plan) -> int:
        """The leaves of the tree."""
        return _tree(plan.steps, self.leaf, self.recomputes).leaves

    def of_one_direction(self, plan: Plan) -> Sample:
        """The same policy."""
        return self


@dataclass(frozen=True)
class Speed:
    """The rates at one length of leaves.

    Attributes
    ----------
    steps : steps of a leaf
    leaf : seconds to run, cache and reverse a step
    advance : seconds to run a step without caching it
    """

    steps: float
    leaf: float
    advance: float


@dataclass(frozen=True)
class Speeds:
    """The rates at several lengths of leaves, from the longest to the shortest."""

    points: tuple[Speed, ...]

    def seconds(self, plan: Plan) -> float:
        """What an exact plan should take; 0 where it has no steps or sequences."""
        if not self.points or not plan.steps:
            return 0.0
        speed = self._at(plan.steps / plan.memory.leaves(plan))
        again = plan.forward_steps - plan.steps
        return plan.steps * speed.leaf + again * speed.advance

    def predicted(self, plan: Plan) -> Plan:
        """The same plan with its seconds."""
        return replace(plan, seconds=self.seconds(plan))

    def all(self, plans: Iterable[Plan]) -> Frontier:
        """The same plans with their seconds."""
        return Frontier(map(self.predicted, plans))

    def _at(self, steps: float) -> Speed:
        """The rates at any length: between two points they are linear in 1/length.

        That is what a fixed time for each leaf and another for each step add up to, and so it holds
        beyond the shortest leaf, too. Beyond the longest the rates stay as they are.
        """
        points = self.points
        if steps >= points[0].steps or len(points) == 1:
            return points[0]
        index = next((i for i, p in enumerate(points[1:-1], 1) if steps >= p.steps), -1)
        long, short = points[index - 1], points[index]
        share = (1 / steps - 1 / long.steps) / (1 / short.steps - 1 / long.steps)
        beyond = share > 1

        def rate(at_long: float, at_short: float) -> float:
            more = at_short - at_long
            return at_short if beyond and more < 0 else at_long + share * more

        return Speed(steps, rate(long.leaf, short.leaf), rate(long.advance, short.advance))


Timed = Callable[[int, int, Sample], "tuple[float, Plan]"]
"""`timed(number, steps, sample)` runs so many steps in the manner of a plan, given by its number.

It returns the seconds and the plan that was carried out."""


def measure(
    plans: Sequence[Plan], most: int, timed: Timed, clock: Callable[[], float] = perf_counter
) -> Speeds:
    """Measure the rates of plans, the first of full caching, the others of shorter leaves each.

    No run has more than `most` steps, or as many as a sample of the shortest leaves needs. Runs
    end within SECONDS, unless that is too short even for a few steps of each sample.
    """
    T = plans[0].steps
    if not T or not plans[0].batch:
        return Speeds(())
    most, count = min(T, most), 1 + len(_RECOMPUTES) * (len(plans) - 1)
    end = clock() + SECONDS
    runs: list[_Runs] = []

    def target() -> float:
        """Seconds of the next sample's run, if as many rounds as planned are to fit."""
        left = max(0.0, end - clock()) / (count - len(runs))
        return min(left, SECONDS / (_ROUNDS * count))

    def first(number: int, steps: int, sample: Sample) -> _Runs:
        runs.append(_Runs(number, steps, sample, *timed(number, steps, sample)))
        return runs[-1]

    steps, longer = 0, min(most, _FIRST)
    while longer > steps:  # until a run is as long as it should be
        steps = longer
        each = timed(0, steps, Sample(steps, 0))[0] / steps
        longer = min(most, _GROWTH * steps, int(target() / each) if each else most)
    each = first(0, steps, Sample(steps, 0)).seconds / steps
    leaves = []
    for number, plan in enumerate(plans[1:], 1):
        leaf = max(1, round(T / plan.memory.leaves(plan)))
        steps = min(most, int(target() / (_LONGER * each)) if each else most)
        leaf = max(1, min(leaf, steps // _LEAVES))
        steps = _least(round(steps / leaf)) * leaf
        pair = [first(number, steps, Sample(leaf, n)) for n in _RECOMPUTES]
        each = _solve(leaf, pair).leaf
        leaves.append((leaf, pair))
    # Every sample in turn, not one after the other: so that a moment of other work, of the machine
    # or of another process, falls on few runs of each.
    for _ in range(_MOST_ROUNDS - 1):
        for run in runs:
            if clock() + run.seconds <= end:
                run.seconds = min(run.seconds, timed(run.number, run.steps, run.sample)[0])
    points = [_solve(leaf, pair) for leaf, pair in leaves]
    # Full caching runs no step without caching it: the rate is that of the next longest leaf.
    each = runs[0].seconds / runs[0].steps
    full = Speed(runs[0].steps, each, points[0].advance if points else each)
    return Speeds(tuple(_descending([full, *points])))


@dataclass
class _Runs:
    """The runs of a sample of a plan, given by its number: the least seconds, and what was run."""

    number: int
    steps: int
    sample: Sample
    seconds: float
    plan: Plan


def _solve(leaf: int, pair: Sequence[_Runs]) -> Speed:
    """The rates from two samples: seconds = T * leaf + (forward_steps - T) * advance."""
    one, other = pair
    T = one.plan.steps
    again, more = one.plan.forward_steps - T, other.plan.forward_steps - T
    # Beside other work the times may contradict each other: no rate is below zero.
    advance = min(max(0.0, (other.seconds - one.seconds) / (more - again)), one.seconds / again)
    return Speed(leaf, (one.seconds - again * advance) / T, advance)


def _descending(points: Sequence[Speed]) -> Iterator[Speed]:
    """The points whose leaves are shorter than those before: samples may have been cut alike."""
    last = float("inf")
    for point in points:
        if point.steps < last:
            yield point
            last = point.steps
