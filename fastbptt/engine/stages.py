"""All directions of a layer in one call, and what they read and write.

A layer without a Bidirectional is one direction, and its states pass from layer to layer span by
span. A Bidirectional is two directions, each of which needs all of its input before the stage above
can begin: so what it reads, its outputs and their gradient are stored for all T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..arrays import Array
from ..layers.composite import Direction
from ..layers.recurrent import Recurrent
from ..memory.blocking import BlockSizes
from .chain import Chain
from .kept import Kept
from .lanes import Consumer, Lane, OutputsLane
from .problem import Problem
from .readers import Reader, float_reader, token_reader
from .step_cache import StepCache
from .time_views import TimeReversal, TimeView, view


@dataclass(frozen=True, eq=False)
class Tape:
    """What a way forward leaves for any number of ways back, at once too: nobody writes to it.

    problem, blocks, multi_flush : of the way forward
    weights : on the device, one for each recurrent layer
    stored : the outputs of each stage but the last
    caches : every step, one for each direction; none where steps are to be run again
    workspace : has the memory of all of these
    kept : where steps are to be run again, what is kept for that
    """

    problem: Problem
    blocks: BlockSizes
    multi_flush: bool
    weights: Sequence[Any]
    stored: list[Array]
    caches: Sequence[StepCache]
    workspace: Any
    kept: Kept | None = None


class Stages:
    """The chains of a problem, stage by stage from the bottom, and what is stored between them.

    With a `tape` they go back over it, in working memory of their own.
    """

    def __init__(
        self,
        problem: Problem,
        blocks: BlockSizes,
        multi_flush: bool = True,
        tape: Tape | None = None,
    ):
        self.problem, self.blocks, self.device = problem, blocks, problem.device
        self.multi_flush, self.T = multi_flush, problem.shapes.T
        self.workspace = workspace = self.device.workspace()
        batch = problem.shapes.B
        self.weights: Sequence[Any] = (
            [self.device.weights(layer, batch, workspace) for layer in problem.recurrent]
            if tape is None
            else tape.weights
        )
        self.stages = [
            [(own, Chain(problem, own, own.of(self.weights), blocks, multi_flush)) for own in stage]
            for stage in problem.stages
        ]
        self.directions = [pair for stage in self.stages for pair in stage]  # in the state's order
        lengths = problem.arrays.lengths
        cut = lengths.given or lengths.resets.size > 0
        self.reversal = TimeReversal(self.T, lengths.values if cut else None)
        if any(own.reverse for own, _ in self.directions):
            self.reversal = self.reversal._replace(pieces=lengths.pieces)
        # The outputs of each stage but the last.
        self.stored: list[Array] = [] if tape is None else tape.stored
        self.forth: list[Lane] = []  # that have computed the final states, in their order
        self.back: dict[int, Lane] = {}  # by direction, that have the gradient of the initial ones

    @property
    def top(self) -> Chain:
        """The chain whose outputs, or the last of whose outputs, the readout reads."""
        return self.stages[-1][-1][1]

    @property
    def joined(self) -> bool:
        """Whether the outputs are those of two directions, joined."""
        return len(self.stages[-1]) > 1

    def beside(self, level: int) -> bool:
        """Whether the directions of a stage are two that go at once: where each is one thread's."""
        few = self.device.one_thread_each(self.problem.shapes.B)
        return len(self.stages[level]) == 2 and few

    # What lanes read and write.

    def reversal_of(self, direction: Direction) -> TimeReversal | None:
        return self.reversal if direction.reverse else None

    def reader(self, level: int, direction: Direction) -> Reader:
        steps, reversal = self.blocks.call_steps, self.reversal_of(direction)
        if level:
            return float_reader(self.device, self.stored[level - 1], steps, reversal)
        problem = self.problem
        if not problem.shapes.tokens:
            return float_reader(self.device, problem.arrays.x, steps, reversal)
        layer = problem.layer
        return token_reader(
            self.device, problem.arrays.x, steps, name="x", classes=layer.inputs,
            dtype=layer.dtype, counted=problem.arrays.lengths.live, reversal=reversal,
        )  # fmt: skip

    def columns(self, array: Array, level: int, which: int, steps: int | None = None) -> TimeView:
        """The columns of a stage's outputs that are a direction's, in its own time."""
        steps = self.blocks.call_steps if steps is None else steps
        stage = self.stages[level]
        if len(stage) == 1:
            return view(self.device, array, steps)
        widths = [own.layers[-1].hidden for own, _ in stage]
        first = sum(widths[:which])
        columns = slice(first, first + widths[which])
        return view(self.device, array, steps, self.reversal_of(stage[which][0]), columns)

    def grad_of_input(
        self, array: Array | None, level: int, which: int, adds: bool
    ) -> TimeView | None:
        """The gradient of what a stage reads, in the time of one of its directions."""
        if array is None:
            return None
        stage, steps = self.stages[level], self.blocks.call_steps
        reversal = self.reversal_of(stage[which][0])
        return view(self.device, array, steps, reversal, adds=adds or len(stage) > 1)

    def store(self, level: int) -> Array:
        """An array of zeros for a stage's outputs, or for their gradient."""
        width = sum(own.layers[-1].hidden for own, _ in self.stages[level])
        shape = self.T, self.problem.shapes.B, width
        memory = self.workspace.empty(shape, self.problem.layer.dtype)
        memory[...] = 0
        return memory

    def drop(self, values: Array, level: int) -> list[OutputsLane]:
        """Dropout of a stage's outputs, or of their gradient, in place."""
        dropout = self.problem.dropout
        if dropout is None:
            return []
        layer = self.stages[level + 1][0][0].below

        def work(start: int, stop: int) -> None:
            part = values[start:stop]
            dropout.apply(self.device, part, part, layer, start)

        return [OutputsLane(work, self.T, self.blocks.call_steps)]

    def caches(self, arena: Array) -> list[StepCache]:
        """Caches of all T, one a direction, carved out of a flat array."""
        found, used = [], 0
        for _, chain in self.directions:
            cache = StepCache(arena[used:], chain.recurrences, self.T)
            used += cache.size
            found.append(cache)
        return found

    def consumer(self, work: Any) -> Consumer:
        """A Consumer of the outputs, a chunk at a time."""
        shape = self.blocks.chunk, self.problem.shapes.B, self.problem.layer.outputs
        return Consumer(self.workspace.empty(shape, self.problem.layer.dtype), work)

    def arena(self, size: int) -> Array:
        dtype = self.problem.layer.dtype
        return self.workspace.empty(size // dtype.itemsize, dtype)

    # Results.

    def final_states(self) -> list[Array]:
        """The state of each recurrent layer after the last step, (states, B, H)."""
        lanes = [
            self.forth[n] if n < len(self.forth) else self.back[n]
            for n in range(len(self.directions))
        ]
        return [state for lane in lanes for state in lane.final]

    def grad_states(self) -> list[Array]:
        """The derivative by each recurrent layer's initial state, (states, B, H)."""
        count = len(self.directions)
        return [state for n in range(count) for state in self.back[n].grad_state]

    def gradients(self) -> list[Recurrent]:
        """The gradient of each recurrent layer."""
        return [part for _, chain in self.directions for part in chain.gradients()]

    def restart_gradients(self) -> list[Array]:
        """The derivative by the state that resets set, a float64 (states, H) for each layer."""
        return [part.restart_gradient() for _, own in self.directions for part in own.recurrences]

    def tape(self, caches: Sequence[StepCache], kept: Kept | None = None) -> Tape:
        """What ways back need of these stages, which then do nothing more."""
        lowest = {own.first for own, _ in self.stages[0]}  # the layers that read x
        for number, own in enumerate(self.weights):
            own.hold(self.problem.shapes.tokens and number in lowest, kept is not None)
        for _, chain in self.directions:
            chain.release()
        return Tape(
            self.problem, self.blocks, self.multi_flush, self.weights, self.stored, caches,
            self.workspace, kept,
        )  # fmt: skip

    def release(self) -> None:
        """Give back the memory that calls share."""
        self.workspace.release()
        for _, chain in self.directions:
            chain.release()
