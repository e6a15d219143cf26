"""The gradient of a network by a plan, whether it is one strand or several."""

from __future__ import annotations

from collections.abc import Sequence

from .along import Along
from .chain import Leaf
from .engine import Progress, backward_stretches, propagate
from .losses import GivenDerivative, LossSum
from .memory import Checkpointed, Full, Plan, make_plan
from .passage import Passage
from .typing import Array, ProgressCallback


def gradients(
    passage: Passage,
    loss_sum: LossSum,
    plan: Plan,
    grad_x: Array | None,
    report: ProgressCallback | None,
) -> tuple[list[Array], list[Array]]:
    """Run the plan; returns the final states and the derivatives by the initial ones.

    The strands and `loss_sum` hold the gradients and the loss afterwards; `grad_x`, if given, is
    filled.
    """
    call = passage.call
    if not call.held:
        strand, chain = passage.strands[0]
        dx = None
        if grad_x is not None:
            dx = Along(call.device, grad_x, chain.segment, adds=not plan.exact)
        progress = Progress(report, plan.forward_steps + plan.backward_steps)
        grad_state = propagate(
            chain, passage.source(0, strand), loss_sum, plan, call.initial, grad_x=dx,
            progress=progress,
        )  # fmt: skip
        return [state.copy() for state in chain.state()], grad_state
    return _Held(passage, loss_sum, plan, report).run(grad_x)


class _Held:
    """Outputs first, then the loss, then back through each strand in turn.

    A top stage of one strand needs no outputs: the loss goes back with it, stretch by stretch.
    """

    def __init__(
        self, passage: Passage, loss_sum: LossSum, plan: Plan, report: ProgressCallback | None
    ):
        self.passage, self.loss_sum, self.plan = passage, loss_sum, plan
        self.full = plan.recomputes == 0
        self.single = len(passage.stages[-1]) == 1
        self.run_first = len(passage.strands) - self.single  # strands
        self.plans = [self._plan_of(number) for number in range(len(passage.strands))]
        work = self.run_first * plan.steps  # of the outputs
        for number, own in enumerate(self.plans):
            cached = self.full and number < self.run_first
            work += own.backward_steps + (0 if cached else own.forward_steps)
        self.progress = Progress(report, plan.forward_steps + plan.backward_steps, max(1, work))
        self.workspace = passage.device.workspace()

    def _plan_of(self, number: int) -> Plan:
        plan, chain = self.plan, self.passage.strands[number][1]
        memory = Full() if self.full else plan.memory
        if isinstance(memory, Checkpointed) and memory.budget is not None:
            # What the plan takes is enough: no strand has a larger state or step. With the whole
            # budget a strand might run fewer steps in more memory than the plan says.
            memory = Checkpointed(plan.peak_bytes)
        return make_plan(
            plan.steps, plan.batch, chain.state_bytes, chain.step_bytes, plan.fixed_bytes, memory
        )

    def run(self, grad_x: Array | None) -> tuple[list[Array], list[Array]]:
        passage, chain = self.passage, self.passage.strands[0][1]
        size = self.plan.cache_bytes + self._state_bytes()
        arena = self.workspace.empty(size // chain.dtype.itemsize, chain.dtype)
        levels = len(passage.stages) - self.single
        leaves = passage.leaves(arena) if self.full else None
        top = None if self.single else passage.room(len(passage.stages) - 1)
        passage.forward(top, leaves, self.progress, levels)
        final = [
            [state.copy() for state in own.state()] for _, own in passage.strands[: self.run_first]
        ]
        dh = None if top is None else self._loss(top)
        grad_state: list[list[Array]] = [[] for _ in passage.strands]
        for level in range(len(passage.stages) - 1, -1, -1):
            below = passage.room(level - 1) if level else grad_x
            for which in range(len(passage.stages[level])):
                number = sum(len(stage) for stage in passage.stages[:level]) + which
                leaf = leaves[number] if leaves is not None and number < self.run_first else None
                room = leaves[number].memory if leaves is not None else arena
                grad_state[number] = self._back(level, which, number, dh, below, room, leaf)
            if level:
                assert below is not None
                passage.drop(below, level - 1)
            dh = below
        if self.single:
            final.append([state.copy() for state in passage.strands[-1][1].state()])
        self.workspace.release()
        return _flat(final), _flat(grad_state)

    def _state_bytes(self) -> int:
        if not self.full:
            return self.plan.state_bytes
        return sum(chain.state_bytes for _, chain in self.passage.strands)

    def _loss(self, top: Array) -> Array:
        passage = self.passage
        dh = passage.room(len(passage.stages) - 1)
        for a, b in backward_stretches(0, passage.call.T, passage.spans.chunk):
            self.loss_sum.fill(top[a:b], a, dh[a:b])
        self.loss_sum.flush()
        return dh

    def _back(
        self, level: int, which: int, number: int, dh: Array | None, below: Array | None,
        arena: Array, leaf: Leaf | None,
    ) -> list[Array]:  # fmt: skip
        passage = self.passage
        strand, chain = passage.stages[level][which]
        loss: LossSum | GivenDerivative = self.loss_sum
        if dh is not None:
            loss = GivenDerivative(passage.columns(dh, level, which), chain.dtype)
        return propagate(
            chain, passage.source(level, strand), loss, self.plans[number],
            strand.of(passage.call.initial),
            grad_x=None if below is None else passage.below(below, level, which),
            progress=self.progress, arena=arena, leaf=leaf,
        )  # fmt: skip


def _flat(lists: Sequence[list[Array]]) -> list[Array]:
    return [array for part in lists for array in part]
