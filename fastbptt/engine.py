"""Runs a schedule: the one loop behind full, checkpointed and truncated gradients.

Time is cut into stretches, a kernel call each, short enough for progress and Ctrl-C to be heard.
Within a call the kernels cut it further, and never across the end of a panel, so panels are cut at
the same absolute times whatever the schedule.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any

from .along import Along
from .chain import Chain, Leaf
from .losses import GivenDerivative, LossSum
from .memory import Plan, Truncated
from .sources import Floats, Ids
from .typing import Array, ProgressCallback


class Progress:
    """Tells a callable (done, total), at most every 50 ms and at the end.

    Of `work` steps done in all, `total` are told: strands that run beside each other count as one.
    """

    def __init__(self, callback: ProgressCallback | None, total: int, work: int | None = None):
        self.callback, self.total, self.done, self.told = callback, total, 0, monotonic()
        self.work = total if work is None else work

    def add(self, steps: int) -> None:
        self.done += steps
        if self.callback is None:
            return
        now = monotonic()
        if now - self.told >= 0.05 or self.done == self.work:
            self.told = now
            self.callback(self.done * self.total // self.work, self.total)


def stretches(start: int, stop: int, steps: int) -> Iterator[tuple[int, int]]:
    """Cut [start, stop) at the multiples of `steps`."""
    while start < stop:
        end = min(stop, (start // steps + 1) * steps)
        yield start, end
        start = end


def backward_stretches(start: int, stop: int, steps: int) -> Iterator[tuple[int, int]]:
    """The same stretches, last first."""
    while stop > start:
        begin = max(start, (stop - 1) // steps * steps)
        yield begin, stop
        stop = begin


def propagate(
    chain: Chain,
    source: Floats | Ids,
    loss: LossSum | GivenDerivative,
    plan: Plan,
    initial: Sequence[Array],
    *,
    grad_x: Along | None = None,
    progress: Progress,
    arena: Array | None = None,
    leaf: Leaf | None = None,
) -> list[Array]:
    """Run `plan`'s schedule and return dL/d(initial state) for each layer.

    `chain` and `loss` hold the gradients and the loss afterwards, the chain's live state is the
    final state. `grad_x`, if given, is filled; `arena` is room for checkpoints and cached steps;
    `leaf`, if given, has cached all steps already.
    """
    return _Run(chain, source, loss, plan, initial, grad_x, progress, arena, leaf).run()


class _Run:
    def __init__(
        self,
        chain: Chain,
        source: Floats | Ids,
        loss: LossSum | GivenDerivative,
        plan: Plan,
        initial: Sequence[Array],
        grad_x: Along | None,
        progress: Progress,
        arena: Array | None,
        leaf: Leaf | None,
    ):
        self.chain, self.source, self.loss, self.plan = chain, source, loss, plan
        self.initial, self.grad_x = initial, grad_x
        self.progress = progress
        self.since_flush = 0
        if arena is None and leaf is None:
            size = _whole(plan.cache_bytes + plan.state_bytes, chain)
            arena = chain.workspace.empty(size, chain.dtype)
        self.arena: Any = arena
        self.checkpoint = _whole(plan.state_bytes, chain)
        self.stored = array("q")  # positions of the checkpoints at the front of the arena
        self.leaf: Any = leaf
        self.quiet: Any = None  # zeros for dh, where no loss counts
        self.final: list[Array] | None = None
        xp = chain.device.xp
        self.grad_state = [xp.zeros(state.shape, chain.dtype) for state in initial]
        self.continues = False  # whether the carry comes from a later leaf

    def run(self) -> list[Array]:
        chain = self.chain
        chain.begin_reverse()
        if self.leaf is not None:
            self._reverse(0, self.plan.steps)
        else:
            chain.set_state(self.initial)
            for action, *times in self.plan.schedule():
                getattr(self, "_" + action)(*times)
        if self.final is not None:
            chain.set_state(self.final)
        if self.continues:
            self.grad_state = [carried.copy() for carried in chain.carried()]
        chain.flush()
        self.loss.flush()
        return self.grad_state

    def _advance(self, start: int, stop: int) -> None:
        for a, b in stretches(start, stop, self.chain.segment):
            self.chain.advance(self.source, a, b)
            self._did(b - a)
        self._note_final(stop)

    def _cache(self, start: int, stop: int) -> None:
        chain = self.chain
        if self.leaf is None:
            self.leaf = self._new_leaf(stop - start)
            chain.begin(self.leaf, start)
        for a, b in stretches(start, stop, chain.segment):
            chain.fill(self.leaf, self.source, a, b)
            self._did(b - a)
        chain.end(self.leaf)
        self._note_final(stop)

    def _new_leaf(self, steps: int) -> Leaf:
        if isinstance(self.plan.memory, Truncated):
            steps = min(self.plan.steps, self.plan.memory.k2)
        room = self.arena[len(self.stored) * self.checkpoint :]
        return Leaf(self.chain.device, room, self.chain.recurrences, steps)

    def _did(self, steps: int) -> None:
        self.chain.device.wait()
        self.progress.add(steps)

    def _note_final(self, stop: int) -> None:
        if stop == self.plan.steps and self.final is None:
            self.final = [state.copy() for state in self.chain.state()]

    def _checkpoint(self, index: int) -> list[Array]:
        size = self.checkpoint
        memory = self.arena[index * size : (index + 1) * size]
        parts, used = [], 0
        for state in self.initial:
            parts.append(memory[used : used + state.size].reshape(state.shape))
            used += state.size
        return parts

    def _store(self, position: int) -> None:
        for saved, state in zip(
            self._checkpoint(len(self.stored)), self.chain.state(), strict=True
        ):
            saved[...] = state
        self.stored.append(position)

    def _restore(self, position: int) -> None:
        self.chain.set_state(self._checkpoint(len(self.stored) - 1) if position else self.initial)

    def _discard(self, position: int) -> None:
        self.stored.pop()

    def _reverse(self, start: int, stop: int) -> None:
        self._back(start, stop)
        self.leaf = None
        self.continues = True

    def _window(self, start: int, first_loss: int, stop: int) -> None:
        self.chain.begin_reverse()
        self._back(first_loss, stop)
        self._back(start, first_loss, loss=False)
        if start == 0:
            for total, carried in zip(self.grad_state, self.chain.carried(), strict=True):
                total += carried
        if self.since_flush >= self.chain.panel_steps:
            self._flush()

    def _keep(self, start: int) -> None:
        if start > self.leaf.start:
            self.leaf.forget_before(start)

    def _back(self, start: int, stop: int, loss: bool = True) -> None:
        chain = self.chain
        if not loss and self.quiet is None:
            self.quiet = chain.device.xp.zeros(
                (chain.chunk, chain.batch, chain.layers[-1].hidden), chain.dtype
            )
        for a, b in backward_stretches(start, stop, chain.segment):
            if loss:
                dh, head = self.loss.derivative(chain.top(self.leaf, a, b), a)
            else:
                dh, head = self.quiet, chain.device.no_head(chain.dtype)
            if self.grad_x is None:
                chain.reverse(self.leaf, self.source, a, b, dh, head)
            else:
                chain.reverse(self.leaf, self.source, a, b, dh, head, self.grad_x.room(a, b))
                self.grad_x.done(a, b)
            self._did(b - a)
            self.since_flush += b - a

    def _flush(self) -> None:
        self.chain.flush()
        self.loss.flush()
        self.since_flush = 0


def _whole(size: int, chain: Chain) -> int:
    return size // chain.dtype.itemsize
