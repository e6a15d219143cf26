"""All directions of a layer in one call, and the programs that run them.

A layer without a Bidirectional is one direction, and its states pass from layer to layer span by
span. A Bidirectional is two directions, each of which needs all of its input before the stage above
can begin: so what it reads, its outputs and their gradient are stored for all T.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..arrays import Array
from ..layers.composite import Direction
from ..layers.recurrent import Recurrent
from ..memory.blocking import BlockSizes
from ..memory.plan import Plan
from ..memory.schedules import Action
from .chain import Chain
from .losses import GivenDerivative, LossSum
from .problem import Problem
from .readers import Reader, float_reader, token_reader
from .runner import Consumer, Derivative, Lane, Program, Progress, ProgressCallback, Sweepless, run
from .step_cache import StepCache
from .time_views import TimeReversal, TimeView, view


@dataclass(eq=False)
class WayBack:
    """What the way back through all stages is given; lists have an entry for each direction.

    rows, caches, arenas : of each lane
    loss : of the top stage's states; or dh, the gradient of the outputs, (T, B, outputs)
    window : steps that are cached at a time at most, or None
    carry : for each recurrent layer, dE/d(final state), or None
    deltas : for each recurrent layer, an array (T, B, G*H) to fill, or none at all
    adds : whether windows overlap, and so add to dE/dx
    """

    rows: Sequence[Iterable[Action]]
    caches: Sequence[StepCache | None]
    arenas: Sequence[Array | None]
    loss: LossSum | None = None
    dh: Array | None = None
    window: int | None = None
    carry: Sequence[Array] | None = None
    deltas: Sequence[Array] = ()
    adds: bool = False


@dataclass(frozen=True, eq=False)
class Tape:
    """What a way forward leaves for any number of ways back, at once too: nobody writes to it.

    problem, blocks, multi_flush : of the way forward
    weights : on the device, one for each recurrent layer
    stored : the outputs of each stage but the last
    caches : every step, one for each direction
    workspace : has the memory of all of these
    """

    problem: Problem
    blocks: BlockSizes
    multi_flush: bool
    weights: Sequence[Any]
    stored: list[Array]
    caches: Sequence[StepCache]
    workspace: Any


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
        self.reversal = TimeReversal(self.T, lengths.values if lengths.given else None)
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

    # What lanes read and write.

    def _reversal(self, direction: Direction) -> TimeReversal | None:
        return self.reversal if direction.reverse else None

    def _reader(self, level: int, direction: Direction) -> Reader:
        steps, reversal = self.blocks.call_steps, self._reversal(direction)
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

    def _columns(self, array: Array, level: int, which: int, steps: int | None = None) -> TimeView:
        """The columns of a stage's outputs that are a direction's, in its own time."""
        steps = self.blocks.call_steps if steps is None else steps
        stage = self.stages[level]
        if len(stage) == 1:
            return view(self.device, array, steps)
        widths = [own.layers[-1].hidden for own, _ in stage]
        first = sum(widths[:which])
        columns = slice(first, first + widths[which])
        return view(self.device, array, steps, self._reversal(stage[which][0]), columns)

    def _grad_of_input(
        self, array: Array | None, level: int, which: int, adds: bool
    ) -> TimeView | None:
        """The gradient of what a stage reads, in the time of one of its directions."""
        if array is None:
            return None
        stage, steps = self.stages[level], self.blocks.call_steps
        reversal = self._reversal(stage[which][0])
        return view(self.device, array, steps, reversal, adds=adds or len(stage) > 1)

    def store(self, level: int) -> Array:
        """An array of zeros for a stage's outputs, or for their gradient."""
        width = sum(own.layers[-1].hidden for own, _ in self.stages[level])
        shape = self.T, self.problem.shapes.B, width
        memory = self.workspace.empty(shape, self.problem.layer.dtype)
        memory[...] = 0
        return memory

    def _drop(self, values: Array, level: int) -> list[Sweepless]:
        """Dropout of a stage's outputs, or of their gradient, in place."""
        dropout = self.problem.dropout
        if dropout is None:
            return []
        layer = self.stages[level + 1][0][0].below

        def work(start: int, stop: int) -> None:
            part = values[start:stop]
            dropout.apply(self.device, part, part, layer, start)

        return [Sweepless(work, self.T, self.blocks.call_steps)]

    def caches(self, arena: Array) -> list[StepCache]:
        """Caches of all T, one a direction, carved out of a flat array."""
        found, used = [], 0
        for _, chain in self.directions:
            cache = StepCache(self.device, arena[used:], chain.recurrences, self.T)
            used += cache.size
            found.append(cache)
        return found

    # Programs.

    def _add_forward(
        self, program: Program, out: Array | Consumer | None, caches: Sequence[StepCache],
        levels: int,
    ) -> tuple[int, ...]:  # fmt: skip
        """Add the lowest stages, way forward; `out` takes the outputs of the last stage of all.

        Each direction caches its steps if there are `caches`. Returns the lanes to wait for.
        """
        after: tuple[int, ...] = ()
        for level in range(levels):
            if level == len(self.stages) - 1:
                return self._add_stage(program, level, out, caches, after)
            outputs = self.store(level)
            after = self._add_stage(program, level, outputs, caches, after)
            self.stored.append(outputs)
            drops = self._drop(outputs, level)
            after = program.add(drops, after) if drops else after
        return after

    def _add_stage(
        self, program: Program, level: int, out: Array | Consumer | None,
        caches: Sequence[StepCache], after: tuple[int, ...],
    ) -> tuple[int, ...]:  # fmt: skip
        action = "cache" if caches else "advance"
        rows: Sequence[Action] = ((action, 0, self.T),) if self.T else ()
        lanes = []
        for which, (own, chain) in enumerate(self.stages[level]):
            outputs: TimeView | Consumer | None = None
            if isinstance(out, Consumer):
                outputs = out
            elif out is not None:
                outputs = self._columns(out, level, which)
            number = len(self.forth) + which
            initial = own.of(self.problem.arrays.initial)
            lanes.append(
                Lane(
                    chain, self._reader(level, own), rows, initial, self.T, outputs=outputs,
                    cache=caches[number] if caches else None,
                )
            )  # fmt: skip
        self.forth += lanes
        return program.add(lanes, after)

    def _add_backward(
        self, program: Program, after: tuple[int, ...], way: WayBack, grad_x: Array | None
    ) -> None:
        """Add all stages, top to bottom, way back; `grad_x` takes dE/dx."""
        number, dh = len(self.directions), way.dh
        for level in range(len(self.stages) - 1, -1, -1):
            number -= len(self.stages[level])
            below = self.store(level - 1) if level else grad_x
            for which in range(len(self.stages[level])):
                lane = self._lane_back(way, level, which, number + which, dh)
                lane.grad_x = self._grad_of_input(below, level, which, way.adds)
                self.back[number + which] = lane
                # One at a time: both add to the gradient of what they read, and may share an arena.
                after = program.add([lane], after)
            if level:
                assert below is not None
                drops = self._drop(below, level - 1)
                after = program.add(drops, after) if drops else after
            dh = below

    def _lane_back(
        self, way: WayBack, level: int, which: int, number: int, dh: Array | None
    ) -> Lane:
        """The lane of one direction, `dh` being the gradient of its stage's outputs, if stored."""
        own, chain = self.stages[level][which]
        loss: Derivative | None = way.loss
        steps = chain.call_steps
        if dh is not None:
            in_place = self.device.zero_copy(dh) and (not way.deltas or chain.deltas_in_order)
            steps = steps if in_place else chain.chunk
            loss = GivenDerivative(self._columns(dh, level, which, steps), chain.dtype)
        reversal = self._reversal(own)
        return Lane(
            chain,
            self._reader(level, own),
            way.rows[number],
            own.of(self.problem.arrays.initial),
            self.T,
            window=way.window,
            loss=loss,
            deltas=[view(self.device, out, steps, reversal) for out in own.of(way.deltas)],
            carry=None if way.carry is None else own.of(way.carry),
            cache=way.caches[number],
            arena=way.arenas[number],
            back_steps=steps,
        )

    def forward(self, out: Array | Consumer | None, caches: Sequence[StepCache] = ()) -> None:
        """Run all stages; `out` takes the outputs, each direction's steps go to its cache."""
        program = Program()
        if isinstance(out, Consumer) and self.problem.stores_outputs:
            whole, own = self.store(len(self.stages) - 1), out
            after = self._add_forward(program, whole, caches, len(self.stages))

            def work(start: int, stop: int) -> None:
                own.work(whole[start:stop], start)

            program.add([Sweepless(work, self.T, len(own.buffer))], after)
        else:
            self._add_forward(program, out, caches, len(self.stages))
        run(program)

    def consumer(self, work: Any) -> Consumer:
        """A Consumer of the outputs, a chunk at a time."""
        shape = self.blocks.chunk, self.problem.shapes.B, self.problem.layer.outputs
        return Consumer(self.workspace.empty(shape, self.problem.layer.dtype), work)

    def backward(
        self, caches: Sequence[StepCache], dh: Array, carry: Sequence[Array] | None,
        grad_x: Array | None, deltas: Sequence[Array],
    ) -> None:  # fmt: skip
        """Go back through all steps, which the caches hold; fill `grad_x` and `deltas`."""
        rows = [self._all_back] * len(caches)
        program = Program()
        way = WayBack(rows, caches, [None] * len(caches), dh=dh, carry=carry, deltas=deltas)
        self._add_backward(program, (), way, grad_x)
        run(program)

    @property
    def _all_back(self) -> Sequence[Action]:
        return (("reverse", 0, self.T),) if self.T else ()

    def gradient(
        self, plan: Plan, loss: LossSum, grad_x: Array | None, report: ProgressCallback | None
    ) -> None:
        """Run the plan; the chains and `loss` hold the gradients and the loss afterwards."""
        if self.problem.stores_outputs:
            self._gradient_of_stored(plan, loss, grad_x, report)
            return
        arena = self._arena(plan.cache_bytes + plan.state_bytes)
        window = plan.memory.window(self.T)
        way = WayBack(
            [plan.schedule()], [None], [arena], loss=loss, window=window, adds=not plan.exact
        )
        program = Program()
        self._add_backward(program, (), way, grad_x)
        run(program, Progress(report, plan.forward_steps + plan.backward_steps))

    def _gradient_of_stored(
        self, plan: Plan, loss: LossSum, grad_x: Array | None, report: ProgressCallback | None
    ) -> None:
        """Outputs first, then the loss, then back through each direction in turn.

        A top stage of one direction needs no outputs: the loss goes back with it, span by span.
        """
        count, full = len(self.directions), plan.recomputes == 0
        first = count if self.joined else count - 1  # directions that compute outputs first
        plans = [
            plan.of_one_direction(chain.state_bytes, chain.step_bytes)
            for _, chain in self.directions
        ]
        states = sum(chain.state_bytes for _, chain in self.directions)
        arena = self._arena(plan.cache_bytes + (states if full else plan.state_bytes))
        own: list[StepCache] = self.caches(arena) if full else []

        program = Program()
        after = self._add_forward(program, None, own, len(self.stages) - 1)
        dh: Array | None = None
        if self.joined:
            top = len(self.stages) - 1
            outputs, dh = self.store(top), self.store(top)
            after = self._add_stage(program, top, outputs, own, after)
            after = program.add([self._loss_of(outputs, loss, dh)], after)
        ran = [full and number < first for number in range(count)]
        way = WayBack(
            [self._all_back if ran[n] else plans[n].schedule() for n in range(count)],
            [own[n] if ran[n] else None for n in range(count)],
            [own[n].memory if full else arena for n in range(count)],
            loss=loss, dh=dh,
        )  # fmt: skip
        self._add_backward(program, after, way, grad_x)
        work = first * plan.steps + sum(own.backward_steps for own in plans)
        work += sum(own.forward_steps for own, done in zip(plans, ran, strict=True) if not done)
        steps = plan.forward_steps + plan.backward_steps
        run(program, Progress(report, steps, max(1, work)))

    def _loss_of(self, outputs: Array, loss: LossSum, dh: Array) -> Sweepless:
        def work(start: int, stop: int) -> None:
            loss.fill(outputs[start:stop], start, dh[start:stop])
            if start == 0:
                loss.flush()

        return Sweepless(work, self.T, self.blocks.chunk, backward=True)

    def _arena(self, size: int) -> Array:
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

    def tape(self, caches: Sequence[StepCache]) -> Tape:
        """What ways back need of these stages, which then do nothing more."""
        lowest = {own.first for own, _ in self.stages[0]}  # the layers that read x
        for number, own in enumerate(self.weights):
            own.hold(self.problem.shapes.tokens and number in lowest)
        for _, chain in self.directions:
            chain.release()
        return Tape(
            self.problem, self.blocks, self.multi_flush, self.weights, self.stored, caches,
            self.workspace,
        )  # fmt: skip

    def release(self) -> None:
        """Give back the memory that calls share."""
        self.workspace.release()
        for _, chain in self.directions:
            chain.release()
