"""The blocks of one process, gone through one after another, and what the call returns."""

from __future__ import annotations

from operator import imul
from typing import Any

from ..arrays import Array, home, module_of, on_its_gpu
from ..calls import gradient
from ..calls.gradient import Result
from ..calls.progress import Progress, reporter
from ..layers.composite import State
from ..memory.plan import Plan
from .shares import Share, mapped
from .tree import Place, Tree


class Run:
    """A process's own part of a call.

    first : the number of its first sequence among those of all
    """

    def __init__(self, share: Share, first: int):
        self.share, self.first = share, first
        self.grads, self.losses = Tree(), Tree()
        self.states: list[State] = []
        self.grad_states: list[State] = []
        self.grad_x: Array | None = None
        self.plan: Plan | None = None

    def all_blocks(self, progress: Progress) -> tuple[list[Place], list[tuple[Place, float]]]:
        """Run them; returns the nodes of the gradients' sum, and those of the losses' sum."""
        report, finish = reporter(progress)
        blocks, steps = self.share.blocks, 0
        try:
            for number, (start, stop) in enumerate(blocks):

                def told(done: int, total: int, number: int = number) -> None:
                    nonlocal steps
                    assert report is not None
                    steps = steps or total  # of a whole block
                    report(number * steps + done * steps // max(1, total), len(blocks) * steps)

                part = self.share.part(start, stop, self.first)
                result = gradient.bptt(**part, progress=None if report is None else told)
                self._keep(result, start, stop)
        finally:
            finish()
        return [place for place, _ in self.grads], list(self.losses)

    def _keep(self, result: Result[Any], start: int, stop: int) -> None:
        share = self.share
        if stop > start:
            place = 0, (self.first + start) // share.block
            self.grads.add(place, home(result.grad.flat()))
            self.losses.add(place, result.loss)
        self.states.append(result.state)
        self.grad_states.append(result.grad_state)
        self.plan = self.plan or result.plan
        part = result.grad_x
        if part is None or len(share.blocks) == 1:
            self.grad_x = part
            return
        if self.grad_x is None:
            shape = part.shape[0], share.B, part.shape[2]
            self.grad_x = module_of(part).empty(shape, part.dtype)
        self.grad_x[:, start:stop] = part

    def result(self, grad: Array, loss: float, factor: float) -> Result[Any]:
        """What the call returns.

        grad : the gradient of all sequences, in one vector; loss : theirs
        factor : what both, and the derivatives of the own sequences, are multiplied by
        """
        with on_its_gpu(self.share.network.arrays()[0]):
            return self._result(grad, loss, factor)

    def _result(self, grad: Array, loss: float, factor: float) -> Result[Any]:
        assert self.plan is not None
        network, xp = self.share.network, module_of(self.share.network.arrays()[0])
        known = self.grad_states[0] is not None  # SnAp1 has none
        grad_state: Any = mapped(_joined, *self.grad_states) if known else None
        if factor != 1:
            grad *= factor
            if known:
                mapped(lambda array: imul(array, factor), grad_state)
            if self.grad_x is not None:
                self.grad_x *= factor
        return Result(
            loss=loss * factor,
            grad=network.with_flat(xp.asarray(grad)),
            state=mapped(_joined, *self.states),
            grad_state=grad_state,
            grad_x=self.grad_x,
            plan=self.plan,
        )


def _joined(*parts: Array) -> Array:
    """Arrays (B, H) of one block after another."""
    return parts[0] if len(parts) == 1 else module_of(parts[0]).concatenate(parts)
