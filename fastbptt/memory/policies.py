"""Memory policies: each makes its own plan and its own schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .. import arguments
from . import optimal, schedules
from .budgets import EXPECTED, parse_bytes
from .budgets import MemoryLimitError as MemoryLimitError
from .forward_mode import ForwardMode
from .plan import Costs, Frontier, Plan, Policy, human
from .schedules import Action


@dataclass(frozen=True)
class Full:
    """Cache every step: the exact gradient, each step run once.

    Recommended if T cached steps fit into memory. `memory="full"` is the same, and the default.
    Memory grows with T: T*C bytes, where C is the bytes of a cached step of all sequences.
    """

    @property
    def budget(self) -> None:
        """None: there is no budget."""

    def window(self, steps: int) -> None:
        """None: there are no windows."""

    def room(self, steps: int) -> None:
        """None: there are no windows."""

    def plan(self, costs: Costs) -> Plan:
        """Every step is cached, and run once."""
        return costs.plan(self, costs.full_bytes, costs.steps)

    def schedule(self, plan: Plan) -> Iterator[Action]:
        """Cache all steps, then reverse them."""
        return schedules.full(plan.steps)

    def leaves(self, plan: Plan) -> int:
        """One: all steps are reversed at once."""
        return 1

    def of_one_direction(self, plan: Plan) -> Full:
        """The same policy."""
        return self

    def __str__(self) -> str:
        return "full"


@dataclass(frozen=True)
class Checkpointed:
    """Store some states, and run the steps between them again: the exact gradient in less memory.

    Also known as checkpointing, rematerialization, revolve or treeverse.

    Parameters
    ----------
    budget : bytes: an int, or text such as ``"64MB"`` (10^6 bytes) or ``"1.5GiB"`` (2^30).
        Recommended if the steps of all T do not fit. Caches every step if that is within the
        budget; else takes the schedule of fewest forward steps whose peak is. `memory="64MB"` is
        the same
    segment : L, in place of a budget: store a state every L steps, and run all but the last L steps
        twice, in (T/L)*S + L*C bytes. For comparison only: a budget of as many bytes never runs
        more steps

    With one recompute, so fewer than 2T forward steps, memory grows with the square root of T:
    about sqrt(2*S*C*T) bytes, where S is the bytes of a state and C those of a cached step. With r
    recomputes, so fewer than (r+1)*T forward steps, it grows with the (r+1)-th root.

    On the CPU the gradient has the same bits as with `Full`. Schedules: Griewank and Walther,
    "Revolve" (2000); Maddison, "Step-based checkpointing with high-level algorithmic
    differentiation" (2024), in which this is the case of many cached steps between checkpoints.

    Raises
    ------
    ValueError : both or none of the two; a text that is no number of bytes; a number out of range
    TypeError : a budget or segment that is no integer or text
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

    def window(self, steps: int) -> None:
        """None: there are no windows."""

    def room(self, steps: int) -> None:
        """None: there are no windows."""

    def plan(self, costs: Costs) -> Plan:
        """The schedule of the segments, or that of the fewest forward steps within the budget."""
        if self.segment is not None:
            return self._plan_segments(costs, self.segment)
        assert self.budget is not None  # __post_init__ has checked it
        spare = self.budget - costs.fixed_bytes
        if spare >= max(0, costs.full_bytes):
            return costs.plan(self, costs.full_bytes, costs.steps)
        T, S, C = costs.steps, costs.state_bytes, costs.step_bytes
        least = optimal.least_feasible(T, S, C)
        if spare < least:
            raise MemoryLimitError(self.budget, costs.fixed_bytes + least)
        tree, again = optimal.best(T, spare, S, C), int(costs.stores_outputs)
        return costs.plan(
            self, tree.peak, again * T + tree.forward_steps, recomputes=again + tree.recomputes
        )

    def _plan_segments(self, costs: Costs, L: int) -> Plan:
        T, S, C, again = costs.steps, costs.state_bytes, costs.step_bytes, int(costs.stores_outputs)
        earlier = (T - 1) // L  # segments before the last
        if earlier <= 0:
            return costs.plan(self, costs.full_bytes, T)
        last = T - earlier * L
        return costs.plan(
            self, max((earlier - 1) * S + L * C, earlier * S + last * C),
            (1 + again) * T + earlier * L, recomputes=1 + again,
        )  # fmt: skip

    def schedule(self, plan: Plan) -> Iterator[Action]:
        """A tree of splits; without recomputes all steps at once."""
        if plan.recomputes == 0:
            return schedules.full(plan.steps)
        if self.segment is not None:
            return schedules.segmented(plan.steps, self.segment)
        assert self.budget is not None
        spare = self.budget - plan.fixed_bytes
        return schedules.optimal(plan.steps, spare, plan.state_bytes, plan.step_bytes)

    def leaves(self, plan: Plan) -> int:
        """The leaves of the tree of splits."""
        if plan.recomputes == 0:
            return 1
        if self.segment is not None:
            return -(-plan.steps // self.segment)
        assert self.budget is not None
        spare = self.budget - plan.fixed_bytes
        return optimal.best(plan.steps, spare, plan.state_bytes, plan.step_bytes).leaves

    def of_one_direction(self, plan: Plan) -> Full | Checkpointed:
        """Full if all directions fit at once, else the peak of the plan as a budget.

        That is enough, since no direction has a larger state or step. With the whole budget a
        direction might take more memory than the plan says, to run fewer steps.
        """
        if plan.recomputes == 0:
            return Full()
        return self if self.budget is None else Checkpointed(plan.peak_bytes)

    def __str__(self) -> str:
        if self.segment is not None:
            return f"checkpointed, a state every {self.segment} steps"
        return f"checkpointed, budget {human(self.budget or 0)}"


OldWeights: TypeAlias = Literal["replay", "stale", "stored"]
"""What stands for weights that have changed since: see Truncated."""


@dataclass(frozen=True)
class Truncated:
    """Every k1 steps, go back over at most the last k2 steps: not the exact gradient.

    BPTT(k2; k1) of Williams and Peng (1990). Recommended only where dependencies beyond k2 steps do
    not matter, or for training on streams.

    Parameters
    ----------
    k1 : the stride: steps between windows
    k2 : the window: steps that each goes back over, ``k2 >= k1 >= 1``
    weights : for `Online`, whose network may change while steps wait for their window: what stands
        for the weights that they were run with. "replay": the window is run again with today's;
        "stale": states and gates as they were, today's weights in the products of the way back;
        "stored": the weights of each step are kept with it, and used on the way back. A call with
        one network has no need of it: there all three are the same

    Each loss counts once, in the window where it is among the last k1 steps. k1 = k2 cuts time into
    windows without overlap, and holds the state before each constant. Memory is k2*C bytes, or
    (k2+1)*C where windows overlap, and does not grow with T; about T*k2/k1 steps are run back.
    k2 >= T is full BPTT. With `forward` and `backward`, unless k2 >= T, all steps are run a
    second time, when dL/dh is known.

    Raises
    ------
    ValueError : not k2 >= k1 >= 1; another name for `weights`
    TypeError : k1 or k2 is no integer; `weights` is no string
    """

    k1: int
    k2: int
    _: KW_ONLY
    weights: OldWeights = "replay"

    def __post_init__(self) -> None:
        arguments.choice("weights", self.weights, ("replay", "stale", "stored"))
        object.__setattr__(self, "k1", arguments.integer("k1", self.k1, 1))
        object.__setattr__(self, "k2", arguments.integer("k2", self.k2, 1))
        if self.k2 < self.k1:
            raise ValueError(f"k2, the window, must be at least k1={self.k1}, not {self.k2}")

    @property
    def budget(self) -> None:
        """None: there is no budget; k2 sets the memory."""

    def window(self, steps: int) -> int:
        """The steps of a window: k2, or all T if these are fewer."""
        return min(steps, self.k2)

    def room(self, steps: int) -> int:
        """The steps of the cache: where windows overlap, a ring with room for one step more.

        So the next step never overwrites the oldest one, which a window may still need.
        """
        overlap = self.k1 < self.k2 < steps
        return self.window(steps) + overlap

    def plan(self, costs: Costs) -> Plan:
        """One window after the other; exact if k2 >= T."""
        if costs.stores_outputs:
            raise ValueError(
                "memory must not be Truncated with a Bidirectional layer, whose outputs depend on "
                "all that follows; take full or a budget"
            )
        T, exact = costs.steps, self.k2 >= costs.steps
        again = int(costs.apart and not exact)  # the first window ends before the outputs do
        return costs.plan(
            self, self.room(T) * costs.step_bytes, T + again * T,
            backward_steps=schedules.truncated_backward_steps(T, self.k1, self.k2),
            recomputes=again, exact=exact,
        )  # fmt: skip

    def schedule(self, plan: Plan) -> Iterator[Action]:
        """Window by window."""
        return schedules.truncated(plan.steps, self.k1, self.k2)

    def leaves(self, plan: Plan) -> int:
        """The number of windows."""
        return 1 if self.k2 >= plan.steps else -(-plan.steps // self.k1)

    def of_one_direction(self, plan: Plan) -> Policy:
        """The same policy; not used, since `plan` refuses layers that store their outputs."""
        return self

    def __str__(self) -> str:
        return f"truncated, k1={self.k1}, k2={self.k2}"


def is_auto(memory: Memory) -> bool:
    """Whether the memory that is free is to choose the policy."""
    return isinstance(memory, str) and memory == "auto"


def windows_of(memory: Any) -> Truncated | None:
    """The policy, if it is one of windows."""
    return memory if isinstance(memory, Truncated) else None


def as_policy(memory: Memory) -> Policy:
    """The policy that an argument `memory=` means, but for "auto"."""
    if isinstance(memory, (Full, Checkpointed, Truncated, ForwardMode)):
        return memory
    if isinstance(memory, str):
        return Full() if memory == "full" else Checkpointed(memory)
    try:
        return Checkpointed(arguments.integer("memory", memory, 0))
    except TypeError:
        raise TypeError(f"{EXPECTED}, not {arguments.describe(memory)}") from None


def frontier(
    T: int,
    state_bytes: int,
    step_bytes: int,
    plan_of: Callable[[Policy], Plan],
    budget_of: Callable[[int], int],
    stores_outputs: bool = False,
) -> Frontier:
    """The plans for full caching and for the least memory with one, two and three recomputes.

    `plan_of(policy)` makes a plan. `budget_of(cache_bytes)` is the budget that leaves so many bytes
    for checkpoints and cached steps. Where outputs are stored, one recompute is for the outputs.
    """
    plans = [plan_of(Full())]
    for recomputes in (1, 2, 3):
        least = optimal.least_memory(T, state_bytes, step_bytes, recomputes - stores_outputs)
        if least < plans[-1].cache_bytes:  # a short sequence may need no more recomputes
            plans.append(plan_of(Checkpointed(budget_of(least))))
    return Frontier(plans)


Memory: TypeAlias = "str | int | Policy"
"""What `memory=` takes: "full", "auto", a budget (text, or an int of bytes), or a policy."""
