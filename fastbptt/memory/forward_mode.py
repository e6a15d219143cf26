"""Gradients that are carried forward in time: no step is needed again, and T is without bound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import arguments
from .plan import Costs, Plan, Policy
from .schedules import Action


@dataclass(frozen=True)
class ForwardMode:
    """What RTRL and SnAp1 have in common as policies: nothing is stored for a way back.

    exact : whether the gradient is that of full BPTT
    """

    exact: ClassVar[bool] = True

    def steps(self, states: int) -> int:
        """The steps of a block, of a network of so many states."""
        raise NotImplementedError

    @property
    def budget(self) -> None:
        """None: there is no budget."""

    def window(self, steps: int) -> None:
        """None: there are no windows."""

    def room(self, steps: int) -> None:
        """None: there are no windows."""

    def plan(self, costs: Costs) -> Plan:
        """Not asked for: `calls.forward_mode` makes these plans."""
        raise NotImplementedError

    def schedule(self, plan: Plan) -> Iterator[Action]:
        """Every step is run once, and what is carried goes on with it."""
        return iter((("carry", 0, plan.steps),) if plan.steps else ())

    def leaves(self, plan: Plan) -> int:
        """0: nothing is gone back over."""
        return 0

    def of_one_direction(self, plan: Plan) -> Policy:
        """The same policy; not used, since a Bidirectional is refused."""
        return self


@dataclass(frozen=True)
class RTRL(ForwardMode):
    """Real-time recurrent learning: the exact gradient of every loss back to the first step.

    J, the derivative of the states by all weights, is carried forward (the inductive way: Williams
    and Zipser 1989), by blocks (Schmidhuber 1992): every `block` steps one row for each of the n
    states goes back over the block, all at once. That takes O(H^3) a step on average, in place of
    O(H^4), and O(H^3) bytes, for each sequence of the batch. Memory does not grow with T, nothing
    is run twice, and updates are due at the end of every push of an `Online`, whatever the block.

    Parameters
    ----------
    block : steps of a block. By default n, the states of all layers, which is about the fastest. 1
        is the classic dense recursion

    With a network that does not change, the gradient is that of full BPTT, to rounding. Where it
    changes between pushes, it is exact along the path that was really run: a block goes on across
    a change, and keeps one packed copy of the weights for each change in it. A Bidirectional needs
    the future, and is refused. dL/dx is not to be had.

    Raises
    ------
    ValueError : block < 1
    TypeError : block is no integer
    """

    block: int | None = None

    def __post_init__(self) -> None:
        if self.block is not None:
            object.__setattr__(self, "block", arguments.integer("block", self.block, 1))

    def steps(self, states: int) -> int:
        """`block`, or n."""
        return states if self.block is None else self.block

    def __str__(self) -> str:
        return "RTRL" if self.block is None else f"RTRL, block={self.block}"


@dataclass(frozen=True)
class SnAp1(ForwardMode):
    """The recursion of RTRL with each unit's influence on itself alone: not the exact gradient.

    SnAp-1 of Menick et al., "A practical sparse approximation for real time recurrent learning"
    (2020). It takes O(parameters) a step and as many bytes, for each sequence of the batch. It is
    exact for one layer whose W is diagonal in each gate. An LSTM's unit is taken with both of its
    states. In a Stack the gradient passes down within a step alone. There is no gradient by an
    initial state. A Bidirectional is refused, and dL/dx is not to be had.
    """

    exact: ClassVar[bool] = False

    def steps(self, states: int) -> int:
        """Steps that are run at a time."""
        return 256

    def __str__(self) -> str:
        return "SnAp-1"


def policy_of(memory: Any) -> ForwardMode | None:
    """The policy, if it is one that carries the gradient forward."""
    return memory if isinstance(memory, ForwardMode) else None
