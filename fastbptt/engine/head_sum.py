"""The readout at the end of a call: it takes a loss of its outputs back to the layer's states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..arrays import Array
from ..layers.network import Readout
from ..memory.blocking import BlockSizes, flush_steps
from .problem import Problem


class HeadSum(ABC):
    """Adds up a loss of the readout's outputs, span by span, and the readout's gradient.

    name : of the loss, for the kernels
    factor : by which the derivatives are multiplied
    """

    def __init__(
        self, name: str, readout: Readout, problem: Problem, blocks: BlockSizes, workspace: Any,
        multi_flush: bool,
    ):  # fmt: skip
        device, lengths = problem.device, problem.arrays.lengths
        self.device, self.name, self.workspace = device, name, workspace
        self.lengths = device.here(lengths.values)
        self.head = device.head(readout, problem.shapes.B, workspace, multi_flush, lengths.given)
        self.scratch = self.head.scratch(blocks.chunk)
        self.dh: Array | None = None
        self.total = device.xp.zeros(2)  # the sum, and its rounding error
        self.factor = 1.0

    @abstractmethod
    def _given(self, h: Array, start: int) -> tuple[Array, Array, Array]:
        """What the kernels read besides the states h of a span: y, classes, weights."""

    def fill(self, h: Array, start: int, dh: Array) -> None:
        """Add the loss of at most two chunks and the readout's gradient; `dh` becomes dE/dh."""
        self.head.loss_and_derivative(
            self.name, self.factor, h, self.scratch, self._given(h, start), self.total,
            self.lengths, start, dh, flush_steps(self.head.batch),
        )  # fmt: skip

    def derivative(self, h: Array, start: int) -> tuple[Array, Any]:
        """Return scratch for dE/dh and the head with which the chain fills it on its way back."""
        given = self._given(h, start)
        head = self.head.with_loss(self.name, self.factor, self.scratch, given, self.total)
        return self._room(), head

    def _room(self) -> Array:
        """Scratch for dE/dh."""
        if self.dh is None:
            shape = self.scratch[0].shape[0], self.head.batch, self.head.weight.inputs
            self.dh = self.workspace.empty(shape, self.head.readout.dtype)
        return self.dh

    def _bind_head(self, bound: Any) -> None:
        """Tell a bound lane where the head lies."""
        dh = self._room()
        self.head.bind(bound, self.name, self.factor, self.scratch, self.total)
        bound.set(has_loss=1, dh_steps=len(dh))
        bound.place("dh", dh, False)

    def flush(self) -> None:
        """Carry the readout's gradients into float64."""
        self.head.flush()

    def gradient(self) -> Readout | None:
        """Return the gradient of the readout."""
        return self.head.gradient()
