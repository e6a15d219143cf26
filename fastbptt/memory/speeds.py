"""How fast a network's plans are, from a few short runs, and what a plan should take.

A plan caches and reverses each of its T steps once, in *leaves* of some length, and runs all others
without caching: `seconds = T * leaf + (forward_steps - T) * advance`. Both rates depend on the
length of the leaves, since what begins and ends a leaf takes as long for one step as for thousands.
So they are measured at the lengths that the plans have, on samples of their schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

from . import schedules
from .plan import Costs, Frontier, Plan
from .schedules import Action

SECONDS = 1.0
"""What all runs together may take."""
_FIRST = 2  # steps of the first run of all
_GROWTH = 16  # the most by which the next one is longer
_RUNS = 5  # of one sample, at most: the shortest time counts, since other work only adds to it
_PASSES = 1, 3  # times that a sample runs a step without caching it: two, to tell the rates apart


@dataclass(frozen=True)
class Sample:
    """A policy: leaves of one length, each step before the last leaf run `passes` times more.

    It is not for users: with more than one pass it runs steps for nothing but their time. As in a
    schedule of several recomputes, there is one short span of steps to run for each leaf, and the
    further passes are long spans.
    """

    leaf: int
    passes: int

    @property
    def budget(self) -> None:
        """None: there is no budget."""

    def window(self, steps: int) -> None:
        """None: there are no windows."""

    def _again(self, steps: int) -> int:
        return max(0, steps - 1) // self.leaf * self.leaf

    def plan(self, costs: Costs) -> Plan:
        """Checkpoints before all leaves but the first, and one leaf."""
        T, again, outputs = costs.steps, self._again(costs.steps), int(costs.stores_outputs)
        if not again:
            return costs.plan(self, costs.full_bytes, T)
        size = again // self.leaf * costs.state_bytes + self.leaf * costs.step_bytes
        passes = outputs + self.passes
        return costs.plan(
            self, size, (1 + outputs) * T + self.passes * again, recomputes=passes
        )  # fmt: skip

    def schedule(self, plan: Plan) -> Iterator[Action]:
        """The further passes, then the leaves."""
        if again := self._again(plan.steps):
            for _ in range(self.passes - 1):
                yield "advance", 0, again
                yield "restore", 0
        yield from schedules.segmented(plan.steps, self.leaf)

    def leaves(self, plan: Plan) -> int:
        """The number of leaves."""
        return -(-plan.steps // self.leaf)

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

    No run has more than `most` steps. No run begins if it should end after SECONDS; but two of each
    plan's samples are needed, so a network of which a few steps take that long takes longer.
    """
    T = plans[0].steps
    if not T or not plans[0].batch:
        return Speeds(())
    most, count = min(T, most), 1 + len(_PASSES) * (len(plans) - 1)
    end, done = clock() + SECONDS, 0

    def share() -> float:
        return max(0.0, end - clock()) / (count - done)

    def least(number: int, steps: int, sample: Sample) -> tuple[float, Plan]:
        nonlocal done
        until, found, plan = clock() + share(), float("inf"), None
        for _ in range(_RUNS):
            seconds, plan = timed(number, steps, sample)
            found = min(found, seconds)
            if clock() + seconds > until:
                break
        done += 1
        assert plan is not None
        return found, plan

    steps, longer = 0, min(most, _FIRST)
    while longer > steps:  # until the runs of one length fill their share of the time
        steps = longer
        each = timed(0, steps, Sample(steps, 1))[0] / steps
        fitting = int(share() / (_RUNS * each)) if each else most
        longer = min(most, _GROWTH * steps, fitting)
    each = least(0, steps, Sample(steps, 1))[0] / steps
    points = [Speed(steps, each, each)]
    for number, plan in enumerate(plans[1:], 1):
        leaf = max(1, round(T / plan.memory.leaves(plan)))
        # Sums of all passes: the longest sample caches each step and runs it three times more.
        fitting = int(share() / (2 * sum(_PASSES) / len(_PASSES) * each)) if each else most
        steps = max(2, min(most, fitting))
        leaf = min(leaf, steps // 2)
        steps = max(2, round(steps / leaf)) * leaf
        points.append(_solve(leaf, [least(number, steps, Sample(leaf, n)) for n in _PASSES]))
        each = points[-1].leaf
    # Full caching runs no step without caching it: the rate is that of the next longest leaf.
    if len(points) > 1:
        points[0] = replace(points[0], advance=points[1].advance)
    return Speeds(tuple(_descending(points)))


def _solve(leaf: int, found: Sequence[tuple[float, Plan]]) -> Speed:
    """The rates from two samples: seconds = T * leaf + (forward_steps - T) * advance."""
    (one, few), (other, many) = found
    T = few.steps
    again, more = few.forward_steps - T, many.forward_steps - T
    # Beside other work the times may contradict each other: no rate is below zero.
    advance = min(max(0.0, (other - one) / (more - again)), one / again)
    return Speed(leaf, (one - again * advance) / T, advance)


def _descending(points: Sequence[Speed]) -> Iterator[Speed]:
    """The points whose leaves are shorter than those before: samples may have been cut alike."""
    last = float("inf")
    for point in points:
        if point.steps < last:
            yield point
            last = point.steps
