"""Memory policies, and the Plan that one of them comes to for given sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from . import arguments, checkpointing, schedule
from .typing import Action, Memory, Policy

_UNITS = {"b": 1}
for _i, _letter in enumerate("kmgt", 1):
    _UNITS[_letter + "b"], _UNITS[_letter + "ib"] = 1000**_i, 1024**_i

_LONGEST = 60  # characters of a budget
_EXPECTED = (
    'memory must be "full", bytes (an int, or text such as "64MB" or "1.5GiB", that fits into 64 '
    "bits), Full(), Checkpointed(...) or Truncated(k1, k2)"
)


@dataclass(frozen=True)
class Full:
    """Cache every step: the exact gradient, each step run once.

    Recommended whenever T cached steps fit; `memory="full"` is the same, and the default.
    Memory grows with T: T*C bytes, C being the bytes of one cached step of all sequences.
    """


@dataclass(frozen=True)
class Checkpointed:
    """Keep some states, and run the steps between them again: the exact gradient in less memory.

    ``Checkpointed(budget)`` is recommended for sequences whose steps do not all fit: it caches
    everything if that stays within the budget, and else takes the schedule with the fewest
    forward steps whose peak does. The budget is an int of bytes or text such as ``"64MB"``
    (10^6 bytes) or ``"1.5GiB"`` (2^30); `memory="64MB"` is the same. With one recompute, so less
    than 2T forward steps, memory grows with the square root of T: about sqrt(2*S*C*T) bytes, S
    being the bytes of a state and C of a cached step; with r recomputes, so less than (r+1)*T
    forward steps, with the (r+1)-th root.

    ``Checkpointed(segment=L)`` keeps a state every L steps and runs all but the last segment
    twice: (T/L)*S + L*C bytes. Not recommended but for comparison: a budget of as many bytes runs
    no more steps.

    The gradient is that of `Full`: on the CPU to the bit. Schedules: Griewank and Walther,
    "Revolve" (2000); Maddison, "Step-based checkpointing with high-level algorithmic
    differentiation" (2024), of which this is the case of leaves cached step by step.
    """

    budget: int | None = None
    _: KW_ONLY
    segment: int | None = None

    if TYPE_CHECKING:  # the budget may be given as text

        def __init__(
            self, budget: str | int | None = None, *, segment: int | None = None
        ) -> None: ...

    def __post_init__(self) -> None:
        if (self.budget is None) == (self.segment is None):
            raise ValueError(
                "Checkpointed must be given one of budget and segment, not "
                + ("neither" if self.budget is None else "both")
            )
        if self.budget is not None:
            object.__setattr__(self, "budget", parse_bytes(self.budget))
        else:
            object.__setattr__(self, "segment", arguments.integer("segment", self.segment, 1))


@dataclass(frozen=True)
class Truncated:
    """Every k1 steps, go back over at most the last k2: not the exact gradient.

    Recommended only where dependencies beyond k2 steps do not matter, or for speed in training on
    streams. k1 is the stride, k2 the window, ``k2 >= k1 >= 1``; k1 = k2 cuts time in chunks and
    detaches. Each loss counts once, in the window where it is among the last k1 steps. Memory does
    not grow with T: k2*C bytes; about T*k2/k1 steps back. k2 >= T is full BPTT.
    """

    k1: int
    k2: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "k1", arguments.integer("k1", self.k1, 1))
        object.__setattr__(self, "k2", arguments.integer("k2", self.k2, 1))
        if self.k2 < self.k1:
            raise ValueError(f"k2, the window, must be at least k1={self.k1}, not {self.k2}")


class MemoryLimitError(ValueError):
    """A budget in which no exact schedule fits; `least_bytes` is the least budget that works."""

    def __init__(self, budget: int, least_bytes: int) -> None:
        super().__init__(budget, least_bytes)
        self.budget, self.least_bytes = budget, least_bytes

    def __str__(self) -> str:
        return (
            f"memory: a budget of {self.budget} bytes ({human(self.budget)}) is too small for an "
            f"exact gradient; the least that works is {self.least_bytes} bytes "
            f"({human(self.least_bytes)})"
        )


def parse_bytes(budget: str | int) -> int:
    """The bytes of a budget: an int, or text such as "64MB" (10^6) or "1.5GiB" (2^30)."""
    if not isinstance(budget, str):
        return arguments.integer("memory budget", budget, 0)
    if len(budget) > _LONGEST:
        raise ValueError(f"{_EXPECTED}, not {arguments.describe(budget)}")
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z]+)\s*", budget.lower(), re.ASCII)
    if not match or match[2] not in _UNITS:
        raise ValueError(f"{_EXPECTED}, not {budget!r}")
    size = int(Fraction(match[1]) * _UNITS[match[2]])
    if size > arguments.MOST:
        raise ValueError(
            f"memory must be at most {arguments.MOST} bytes, to fit into 64 bits, not {budget!r}"
        )
    return size


def as_policy(memory: Memory) -> Policy:
    """The policy that a `memory=` argument stands for."""
    if isinstance(memory, (Full, Checkpointed, Truncated)):
        return memory
    if isinstance(memory, str):
        return Full() if memory == "full" else Checkpointed(memory)
    try:
        return Checkpointed(arguments.integer("memory", memory, 0))
    except TypeError:
        raise TypeError(f"{_EXPECTED}, not {arguments.describe(memory)}") from None


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
    forward_steps, backward_steps : steps run forward (again included), and back
    recomputes : the most times that a step is run again
    exact : whether the gradient is exact: False where it is truncated
    held : whether outputs are held for all T, as a Bidirectional's are; if there are recomputes,
        one is for these outputs, and `actions` are those of one strand after that
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
    held: bool = False

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
        """The whole schedule as plain data; see `fastbptt.schedule` for what each action means."""
        return tuple(self.schedule())

    def schedule(self) -> Iterator[Action]:
        """The same actions, one at a time."""
        if self.held and self.recomputes:
            yield from (("advance", 0, self.steps), ("restore", 0))
        yield from self._strand_schedule()

    def _strand_schedule(self) -> Iterator[Action]:
        T, memory = self.steps, self.memory
        if isinstance(memory, Truncated):
            return schedule.truncated(T, memory.k1, memory.k2)
        if self.recomputes == 0 or isinstance(memory, Full):
            return schedule.full(T)
        if memory.segment is not None:
            return schedule.segmented(T, memory.segment)
        assert memory.budget is not None  # as Checkpointed sees to
        spare = memory.budget - self.fixed_bytes
        return schedule.optimal(T, spare, self.state_bytes, self.step_bytes)

    def __str__(self) -> str:
        """A small table."""
        rows = [
            ("memory", _name(self.memory)),
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


def make_plan(
    T: int, B: int, state_bytes: int, step_bytes: int, fixed_bytes: int, memory: Memory,
    whole_step: int | None = None,
) -> Plan:  # fmt: skip
    """What `memory` comes to for T steps, given the bytes of a state, a step and the fixed part.

    `whole_step`: where outputs are held for all T, the bytes of a cached step of all strands. Then
    full caching takes all of them at once, and any other schedule runs once more before it, to
    compute the outputs, and then is each strand's in turn.
    """
    memory = as_policy(memory)
    S, C = state_bytes, step_bytes
    whole = C if whole_step is None else whole_step
    again = 0 if whole_step is None else 1  # sweeps for the outputs alone
    cache_bytes, forward_steps, backward_steps, recomputes, exact = T * whole, T, T, 0, True
    if isinstance(memory, Truncated):
        if whole_step is not None:
            raise ValueError(
                "memory must not be Truncated with a Bidirectional layer, whose outputs depend on "
                "all that follows; take full or a budget"
            )
        cache_bytes = min(T, memory.k2) * C
        backward_steps = schedule.truncated_backward_steps(T, memory.k1, memory.k2)
        exact = memory.k2 >= T
    elif isinstance(memory, Checkpointed) and memory.segment is not None:
        L, earlier = memory.segment, (T - 1) // memory.segment  # segments before the last
        if earlier > 0:
            last = T - earlier * L
            cache_bytes = max((earlier - 1) * S + L * C, earlier * S + last * C)
            forward_steps, recomputes = (1 + again) * T + earlier * L, 1 + again
    elif isinstance(memory, Checkpointed):
        assert memory.budget is not None  # as Checkpointed sees to
        spare = memory.budget - fixed_bytes
        if spare < T * whole or spare < 0:
            least = checkpointing.least_feasible(T, S, C)
            if spare < least:
                raise MemoryLimitError(memory.budget, fixed_bytes + least)
            tree = checkpointing.best(T, spare, S, C)
            cache_bytes, forward_steps = tree.peak, again * T + tree.forward_steps
            recomputes = again + tree.recomputes
    if fixed_bytes + cache_bytes > arguments.MOST:
        raise ValueError(
            f"T={T} and B={B} take {human(fixed_bytes + cache_bytes)}, a number of bytes that does "
            "not fit into 64 bits"
        )
    return Plan(
        steps=T,
        batch=B,
        memory=memory,
        state_bytes=S,
        step_bytes=C,
        fixed_bytes=fixed_bytes,
        cache_bytes=cache_bytes,
        forward_steps=forward_steps,
        backward_steps=backward_steps,
        recomputes=recomputes,
        exact=exact,
        held=whole_step is not None,
    )


def frontier(
    T: int,
    state_bytes: int,
    step_bytes: int,
    plan_of: Callable[[Policy], Plan],
    budget_of: Callable[[int], int],
    held: bool = False,
) -> Frontier:
    """The plans for full caching and for the least memory with one, two and three recomputes.

    `plan_of(policy)` makes a plan; `budget_of(cache_bytes)` is the budget that leaves so many bytes
    for checkpoints and cached steps. Where outputs are `held`, one recompute is for these.
    """
    plans = [plan_of(Full())]
    for recomputes in (1, 2, 3):
        least = checkpointing.least_memory(T, state_bytes, step_bytes, recomputes - held)
        if least < plans[-1].cache_bytes:  # a short sequence may need no more recomputes
            plans.append(plan_of(Checkpointed(budget_of(least))))
    return Frontier(plans)


def human(size: int) -> str:
    """Bytes in decimal units, as a budget may be written."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if size >= 1000**power:
            return f"{size / 1000**power:.4g} {unit}"
    return f"{size} B"


def _name(memory: Policy) -> str:
    if isinstance(memory, Full):
        return "full"
    if isinstance(memory, Truncated):
        return f"truncated, k1={memory.k1}, k2={memory.k2}"
    if memory.segment is not None:
        return f"checkpointed, a state every {memory.segment} steps"
    return f"checkpointed, budget {human(memory.budget or 0)}"
