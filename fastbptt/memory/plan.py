"""A plan: what a gradient takes in bytes and steps, and the schedule that gets it, as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from .. import arguments
from .schedules import Action


@dataclass(frozen=True)
class Costs:
    """What a policy plans from: T, B, and the bytes of each thing that a schedule holds.

    Attributes
    ----------
    steps, batch : T and B
    state_bytes, step_bytes : S, the bytes of a checkpoint, and C, those of a cached step
    fixed_bytes : what is needed whatever the schedule
    all_step_bytes : where outputs are stored for all T, the bytes of a cached step of all
        directions together: full caching takes all of them at once, and any other schedule runs
        once more before it, to compute the outputs, and then is each direction's in turn. Else None
    """

    steps: int
    batch: int
    state_bytes: int
    step_bytes: int
    fixed_bytes: int
    all_step_bytes: int | None = None

    @property
    def stores_outputs(self) -> bool:
        """Whether outputs are stored for all T."""
        return self.all_step_bytes is not None

    @property
    def full_bytes(self) -> int:
        """The bytes of all steps cached."""
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
        """The Plan of a policy; each step is run back once unless `backward_steps` is given.

        Raises ValueError where its bytes do not fit into 64 bits.
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
    """A memory policy: it plans itself and makes its own schedule."""

    @property
    def budget(self) -> int | None:
        """The bytes that the peak must not exceed, or None."""
        ...

    def window(self, steps: int) -> int | None:
        """Steps of T that windows go back over at most; None if there are no windows."""
        ...

    def plan(self, costs: Costs) -> Plan:
        """What the policy comes to. Raises MemoryLimitError if no schedule fits its budget."""
        ...

    def schedule(self, plan: Plan) -> Iterator[Action]:
        """The actions of that plan."""
        ...

    def of_one_direction(self, plan: Plan) -> Policy:
        """What each direction of a layer that stores its outputs goes by, under that plan."""
        ...


@dataclass(frozen=True)
class Plan:
    """What a gradient of `steps` steps and `batch` sequences takes, and in which order it is done.

    Attributes
    ----------
    steps, batch : T and B
    memory : the policy
    state_bytes, step_bytes : S, the bytes of a checkpoint, and C, those of a cached step
    fixed_bytes : what is needed whatever the schedule
    cache_bytes : for checkpoints and cached steps together, at the schedule's peak
    forward_steps, backward_steps : steps run forward (recomputation included), and back
    recomputes : the most times that a step is run again
    exact : whether the gradient is exact: False where it is truncated
    stores_outputs : whether outputs are stored for all T, as a Bidirectional's are; if there are
        recomputes, one is for these outputs, and `actions` are those of one direction after that
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

    @property
    def peak_bytes(self) -> int:
        """Bound on the bytes allocated beyond x, y and the returned gradients."""
        return self.fixed_bytes + self.cache_bytes

    @property
    def time_factor(self) -> float:
        """Time against that of full caching, a step back taken as two steps forward."""
        return (self.forward_steps + 2 * self.backward_steps) / (3 * self.steps or 1) or 1.0

    @property
    def actions(self) -> tuple[Action, ...]:
        """The schedule as plain data; `fastbptt.memory.schedules` says what each action means."""
        return tuple(self.schedule())

    def schedule(self) -> Iterator[Action]:
        """The same actions, one at a time."""
        if self.stores_outputs and self.recomputes:
            yield from (("advance", 0, self.steps), ("restore", 0))
        yield from self.memory.schedule(self)

    def of_one_direction(self, state_bytes: int, step_bytes: int) -> Plan:
        """The plan of one direction, with its own S and C, where outputs are stored."""
        policy = self.memory.of_one_direction(self)
        costs = Costs(self.steps, self.batch, state_bytes, step_bytes, self.fixed_bytes)
        return policy.plan(costs)

    def __str__(self) -> str:
        """A small table."""
        rows = [
            ("memory", str(self.memory)),
            ("steps, sequences", f"{self.steps:,}, {self.batch:,}"),
            ("gradient", "exact" if self.exact else "truncated"),
            ("peak", human(self.peak_bytes)),
            ("  states and cache", human(self.cache_bytes)),
            ("  fixed", human(self.fixed_bytes)),
            ("forward steps", f"{self.forward_steps:,}"),
            ("backward steps", f"{self.backward_steps:,}"),
            ("recomputes", str(self.recomputes)),
            ("time factor", f"{self.time_factor:.3f}"),
        ]
        return "\n".join(f"{name:<20}{value}" for name, value in rows)


class Frontier(tuple[Plan, ...]):
    """Plans from much memory and little time to little memory and much time; str() is a table."""

    __slots__ = ()

    def __str__(self) -> str:
        """A line for each plan."""
        head = ("recomputes", "peak memory", "states and cache", "forward steps", "time factor")
        rows = [
            (
                str(plan.recomputes) if plan.recomputes else "0 (full)",
                human(plan.peak_bytes),
                human(plan.cache_bytes),
                f"{plan.forward_steps:,}",
                f"{plan.time_factor:.3f}",
            )
            for plan in self
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join(
            "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
            for row in (head, *rows)
        )


def human(size: int) -> str:
    """Bytes in decimal units, as a budget may be written."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if size >= 1000**power:
            return f"{size / 1000**power:.4g} {unit}"
    return f"{size} B"
