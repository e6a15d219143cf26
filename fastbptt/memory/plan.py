"""A plan: the bytes and steps of a gradient, and the schedule that computes it, as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from math import log
from typing import Protocol

from .. import arguments
from . import html
from .schedules import Action


@dataclass(frozen=True)
class Costs:
    """What a policy plans with: T, B, and the bytes of a checkpoint, a cached step and the rest.

    Attributes
    ----------
    steps, batch : T and B
    state_bytes, step_bytes : S and C, the bytes of a checkpoint and of a cached step
    fixed_bytes : bytes that do not depend on the schedule
    all_step_bytes : where outputs are stored for all T, the bytes of a cached step of all
        directions together, else None. Full caching needs these at once. Any other schedule first
        runs all steps once more, to compute the outputs, and is then carried out by one direction
        after the other
    apart : whether they are those of `forward` and `backward`, where all outputs come first
    """

    steps: int
    batch: int
    state_bytes: int
    step_bytes: int
    fixed_bytes: int
    all_step_bytes: int | None = None
    apart: bool = False

    @property
    def stores_outputs(self) -> bool:
        """Whether outputs are stored for all T."""
        return self.all_step_bytes is not None

    @property
    def full_bytes(self) -> int:
        """Bytes of the cache if every step is cached."""
        each = self.step_bytes if self.all_step_bytes is None else self.all_step_bytes
        return self.steps * each

    def plan(
        self,
        policy: Policy,
        cache_bytes: int,
        forward_steps: int,
        *,
        backward_steps: int | None = None,
        recomputes: int = 0,
        exact: bool = True,
    ) -> Plan:
        """Make the Plan of a policy; `backward_steps` is T unless given.

        Raises ValueError where the number of bytes does not fit into 64 bits.
        """
        peak = self.fixed_bytes + cache_bytes
        if peak > arguments.MOST:
            raise ValueError(
                f"T={self.steps} and B={self.batch} take {human(peak)}, a number of bytes that "
                "does not fit into 64 bits"
            )
        return Plan(
            steps=self.steps,
            batch=self.batch,
            memory=policy,
            state_bytes=self.state_bytes,
            step_bytes=self.step_bytes,
            fixed_bytes=self.fixed_bytes,
            cache_bytes=cache_bytes,
            forward_steps=forward_steps,
            backward_steps=self.steps if backward_steps is None else backward_steps,
            recomputes=recomputes,
            exact=exact,
            stores_outputs=self.stores_outputs,
        )


class Policy(Protocol):
    """A memory policy: it makes its own plan and its own schedule."""

    @property
    def budget(self) -> int | None:
        """The most bytes that the peak may have, or None for no limit."""
        ...

    def window(self, steps: int) -> int | None:
        """The most steps that a window goes back over, of T = `steps`; None without windows."""
        ...

    def room(self, steps: int) -> int | None:
        """The most steps that are cached at a time, or one more; None without windows."""
        ...

    def plan(self, costs: Costs) -> Plan:
        """The plan at these costs. Raises MemoryLimitError if no schedule fits the budget."""
        ...

    def schedule(self, plan: Plan) -> Iterator[Action]:
        """The actions of a plan of this policy."""
        ...

    def leaves(self, plan: Plan) -> int:
        """How many times cached steps are reversed: the "reverse" or "window" of its actions."""
        ...

    def of_one_direction(self, plan: Plan) -> Policy:
        """The policy of each single direction, under a plan whose outputs are stored."""
        ...


@dataclass(frozen=True, repr=False)
class Plan:
    """The bytes and steps that a gradient takes, and its schedule; str() is a table.

    Attributes
    ----------
    steps, batch : T and B
    memory : the policy: Full, Checkpointed or Truncated
    state_bytes, step_bytes : S and C, the bytes of a checkpoint and of a cached step, each of all
        B sequences
    fixed_bytes : bytes that do not depend on the schedule: packed weights, accumulators, scratch
    cache_bytes : bytes of checkpoints and cached steps together, at the peak of the schedule
    forward_steps, backward_steps : steps that are run forward (recomputation included) and back
    recomputes : the most times that a step is run again
    exact : whether the gradient is exact; False for Truncated and SnAp1
    stores_outputs : whether outputs are stored for all T, as for a Bidirectional. One recompute is
        then for these outputs, if there are any, and `actions` are those of one direction
    auto : where `memory` was "auto", why it chose this policy, else None. It does not count where
        plans are compared
    seconds : the time that `frontier` predicts, where it was asked for, else None. It does not
        count where plans are compared
    """

    steps: int
    batch: int
    memory: Policy
    state_bytes: int
    step_bytes: int
    fixed_bytes: int
    cache_bytes: int
    forward_steps: int
    backward_steps: int
    recomputes: int = 0
    exact: bool = True
    stores_outputs: bool = False
    auto: str | None = field(default=None, compare=False)
    seconds: float | None = field(default=None, compare=False)

    @property
    def peak_bytes(self) -> int:
        """Upper bound of the bytes that the call allocates beyond x, y and the results."""
        return self.fixed_bytes + self.cache_bytes

    @property
    def time_factor(self) -> float:
        """Estimated time divided by that of full caching; a step back counts as two forward."""
        return (self.forward_steps + 2 * self.backward_steps) / (3 * self.steps or 1) or 1.0

    @property
    def actions(self) -> tuple[Action, ...]:
        """The schedule as a tuple of actions: see `fastbptt.memory.schedules`."""
        return tuple(self.schedule())

    def schedule(self) -> Iterator[Action]:
        """Iterate over the actions; unlike `actions` it takes no memory for all of them.

        Returns
        -------
        iterator of tuples such as ("advance", 0, 100)
        """
        actions = self.memory.schedule(self)
        if self.runs_first:
            return chain((("advance", 0, self.steps), ("restore", 0)), actions)
        return actions

    @property
    def runs_first(self) -> bool:
        """Whether all steps are run for the outputs alone before the policy's own schedule."""
        return self.recomputes > 0 and (self.stores_outputs or not self.exact)

    def of_one_direction(self, state_bytes: int, step_bytes: int) -> Plan:
        """Where outputs are stored, the plan of one direction, with the direction's S and C."""
        policy = self.memory.of_one_direction(self)
        costs = Costs(self.steps, self.batch, state_bytes, step_bytes, self.fixed_bytes)
        return policy.plan(costs)

    def _rows(self) -> list[tuple[str, str]]:
        rows = [
            ("memory", str(self.memory)),
            *([("  auto", self.auto)] if self.auto else []),
            ("steps, sequences", f"{self.steps:,}, {self.batch:,}"),
            ("gradient", self._gradient),
            ("peak", human(self.peak_bytes)),
            ("  states and cache", human(self.cache_bytes)),
            ("  fixed", human(self.fixed_bytes)),
            ("forward steps", f"{self.forward_steps:,}"),
            ("backward steps", f"{self.backward_steps:,}"),
            ("recomputes", str(self.recomputes)),
            ("time factor", f"{self.time_factor:.3f}"),
        ]
        if self.seconds is not None:
            rows.append(("predicted time", duration(self.seconds)))
        return rows

    def __str__(self) -> str:
        """A small table."""
        return "\n".join(f"{name:<20}{value}" for name, value in self._rows())

    @property
    def _gradient(self) -> str:
        if self.exact:
            return "exact"
        return "truncated" if str(self.memory).startswith("truncated") else "not exact"

    def __repr__(self) -> str:
        sizes = f"{human(self.peak_bytes)}, time factor {self.time_factor:.3f}"
        return f"Plan(T={self.steps}, B={self.batch}, {self.memory}: {self._gradient}, {sizes})"

    def _repr_html_(self) -> str:
        return html.table("Plan", self._rows())


class Frontier(tuple[Plan, ...]):
    """A tuple of Plans, from the most memory to the least; str() is a table.

    Each plan takes less memory than the one before it, and more forward steps; the last may be that
    of RTRL, where it takes the least memory of all. Their times are predicted if `frontier` was
    given `seconds=True`.
    """

    __slots__ = ()

    @property
    def checkpointed(self) -> Frontier:
        """Those that cache steps: all but that of RTRL."""
        return Frontier(plan for plan in self if plan.step_bytes)

    @property
    def knee(self) -> Plan | None:
        """The plan to stop at: beyond it, memory saves little and costs time. None without times.

        Of the curve of seconds against the logarithm of the peak, both scaled to 0..1, it is the
        point farthest below the straight line between the ends (Satopää et al., "Finding a
        'kneedle' in a haystack", 2011). Where no point lies below, it is the fastest plan.
        """
        times = [plan.seconds for plan in self if plan.seconds is not None]
        if not times or len(times) < len(self):
            return None
        sizes = [log(max(1, plan.peak_bytes)) for plan in self]
        low, width = min(sizes), max(sizes) - min(sizes) or 1.0
        least, height = min(times), max(times) - min(times) or 1.0
        above = [
            (size - low) / width + (time - least) / height
            for size, time in zip(sizes, times, strict=True)
        ]
        best = min(range(len(self)), key=lambda i: above[i])
        if above[best] < 1 - 1e-9:
            return self[best]
        return self[times.index(least)]

    def __repr__(self) -> str:
        peaks = [human(plan.peak_bytes) for plan in self]
        of = f" of {', '.join(peaks)}" if peaks else ""
        return f"Frontier({len(self)} plan{'s' * (len(self) != 1)}{of})"

    def _repr_html_(self) -> str:
        head, rows = self._table()
        return html.table("Frontier", rows, head)

    def _table(self) -> tuple[list[str], list[list[str]]]:
        head = ["recomputes", "peak memory", "states and cache", "forward steps", "time factor"]
        rows = [
            [
                str(plan.recomputes)
                if plan.recomputes
                else f"0 ({'full' if plan.step_bytes else plan.memory})",
                human(plan.peak_bytes),
                human(plan.cache_bytes),
                f"{plan.forward_steps:,}",
                f"{plan.time_factor:.3f}",
            ]
            for plan in self
        ]
        knee = self.knee
        if knee is not None:
            head += ["predicted time", ""]
            for row, plan in zip(rows, self, strict=True):
                row += [duration(plan.seconds or 0.0), "knee" if plan is knee else ""]
        return head, rows

    def __str__(self) -> str:
        """A line for each plan; with times also the knee, and its bytes."""
        (head, rows), knee = self._table(), self.knee
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in (head, *rows)
        ]
        if knee is not None:
            lines.append(
                f"A good place to stop: {_RECOMPUTES[min(knee.recomputes, 4)]}, in "
                f"{human(knee.peak_bytes)} at least and about {duration(knee.seconds or 0.0)}."
            )
        return "\n".join(lines)


_RECOMPUTES = (
    "every step cached", "one recompute", "two recomputes", "three recomputes", "more recomputes",
)  # fmt: skip


def duration(seconds: float) -> str:
    """A time as text, such as "1.2 s"; long ones in minutes, hours and days."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def human(size: int) -> str:
    """A number of bytes as text, in decimal units, such as "64 MB"."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if size >= 1000**power:
            return f"{size / 1000**power:.4g} {unit}"
    return f"{size} B"
