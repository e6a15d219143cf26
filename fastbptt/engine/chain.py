"""The layers of one direction, bottom to top: their state, scratch, carry and gradients.

The chain moves along time a span at a time, each span a kernel call a layer. Its live state is
where it stands; a StepCache takes consecutive steps for the reverse sweep; the carry
is the derivative by the live state on the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array
from ..layers.composite import Direction
from ..layers.recurrent import Recurrent
from ..memory.blocking import BlockSizes, flush_steps
from .problem import Problem


class Chain:
    """Layers that run together in one direction, with the scratch for a chunk of time.

    `weights` are theirs on the device, one a layer: only read, so that chains may share them.
    `multi_flush`: whether gradients may add up over more than one flush.
    """

    def __init__(
        self,
        problem: Problem,
        direction: Direction,
        weights: Sequence[Any],
        blocks: BlockSizes,
        multi_flush: bool,
    ):
        device, shapes = problem.device, problem.shapes
        self.device, self.layers = device, direction.layers
        self.dropout, self.first = problem.dropout, direction.below + 1
        self.batch = shapes.B
        lengths, restart = problem.arrays.lengths, problem.arrays.restart
        self.resets, marks = lengths.resets.size, lengths.marks
        self.pieces = lengths.pieces if direction.reverse or not device.compiled else None
        if self.pieces is not None and not device.compiled:
            marks = np.concatenate([lengths.values, self.pieces])
        self.marks = device.here(marks)
        self.lengths = self.marks[: self.batch]
        self.chunk, self.call_steps = blocks.chunk, blocks.call_steps
        self.unheard, self.ahead = blocks.unheard, blocks.ahead
        self.flush_steps = flush_steps(self.batch)
        self.dtype = self.layers[0].dtype
        self.workspace = device.workspace()
        self.recurrences = [
            device.recurrence(
                own, self.batch, self.chunk, self.workspace, multi_flush, shapes.ragged
            )
            for own in weights
        ]
        if self.resets:
            states = [None] * len(self.layers) if restart is None else direction.of(restart)
            for recurrence, state in zip(self.recurrences, states, strict=True):
                recurrence.restarts(state, lengths.resets)
        xp = device.xp
        ahead = device.ahead
        self.scratch = [self._buffer(ahead * r.blocks * r.hidden) for r in self.recurrences]
        self.outputs = [self._buffer(r.hidden, self.call_steps) for r in self.recurrences[:-1]]
        self.live = [
            xp.zeros((r.states, 2, self.batch, r.hidden), self.dtype) for r in self.recurrences
        ]
        self.row = 0
        self.spare = [
            xp.empty((1, self.batch, r.residuals * r.hidden), self.dtype) for r in self.recurrences
        ]
        self.carry: Any = None

    @property
    def state_bytes(self) -> int:
        """S: the bytes of a checkpoint."""
        numbers = sum(r.states * r.hidden for r in self.recurrences)
        return numbers * self.batch * self.dtype.itemsize

    @property
    def step_bytes(self) -> int:
        """C: the bytes of a cached step."""
        numbers = sum(r.residuals * r.hidden for r in self.recurrences)
        return self.state_bytes + numbers * self.batch * self.dtype.itemsize

    @property
    def deltas_in_order(self) -> bool:
        """Whether every layer's deltas come out of the kernels as they are handed to callers."""
        return all(recurrence.deltas_in_order for recurrence in self.recurrences)

    def _buffer(self, width: int, steps: int | None = None) -> Array:
        steps = self.chunk if steps is None else steps
        return self.workspace.empty((steps, self.batch, width), self.dtype)

    def set_state(self, state: Sequence[Array]) -> None:
        """Stand at `state`: for each layer (states, B, H)."""
        for live, values in zip(self.live, state, strict=True):
            self.device.copy_to(live[:, self.row], values)

    def state(self) -> list[Array]:
        """Return views of the live state, for each layer (states, B, H)."""
        return [live[:, self.row] for live in self.live]

    def begin_reverse(self, carry: Sequence[Array] | None = None) -> None:
        """Start back in time with derivative `carry` by the live state, or zero."""
        if self.carry is None:
            self.carry = [self.device.xp.empty_like(live) for live in self.live]
            self.below = [self._buffer(layer.hidden, self.call_steps) for layer in self.layers[:-1]]
            self.indices = self.new_indices()
        self.current = 0
        for index, own in enumerate(self.carry):
            own[:, 0] = 0 if carry is None else carry[index]

    def new_indices(self) -> Any:
        """Room for the indices of the rows of two chunks."""
        return self.device.indices(2 * self.chunk * self.batch, self.resets > 0)

    def flush(self) -> None:
        """Carry the weight gradients into float64."""
        for layer in self.recurrences:
            layer.flush()

    def release(self) -> None:
        """Give back the memory that calls share: nothing more can be asked of this chain."""
        self.workspace.release()

    def carried(self) -> list[Array]:
        """Return views of the derivative by the state before the last span, one a layer."""
        return [carry[:, self.current] for carry in self.carry]

    def gradients(self) -> list[Recurrent]:
        """Return a gradient for each layer, of the layer's own type, and start anew."""
        return [recurrence.gradient() for recurrence in self.recurrences]
