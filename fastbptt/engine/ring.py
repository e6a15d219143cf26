"""A ring of the last steps of a sequence that never ends, and the lane that runs over it.

The step cache is the ring of `kernels.cpu.walk_states`: step t is in slot t modulo its size, R, and
nothing is moved. What the lane reads besides states lies in arrays of 2R steps, in which every step
stands twice, R apart. So any R steps one after another lie in one piece in them: to the lane, the
steps of a window that begins at slot s are those from s on, below 2R. A window's place in the ring
depends on its times alone, hence its bits do, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array
from ..backends.base import Backend
from ..kernels.cpu import short
from ..kernels.cpu.bound import address_of
from ..kernels.cpu.slots import ACTIONS, DONE, HEAD, LANE, LAYER
from ..layers.composite import recurrent_layers
from ..layers.network import Network
from ..memory.blocking import BlockSizes
from .compiled import CompiledWalk
from .lanes import SILENT, Lane
from .losses import NamedLoss
from .packed import Packed
from .prepared import layer_at
from .problem import Arrays, Lengths, problem_of
from .ring_steps import Steps
from .ring_sums import RingSums
from .stages import Stages, Tape
from .step_cache import StepCache

CACHE, WINDOW = ACTIONS["cache"], ACTIONS["window"]
_GOING_ON = 1  # the phase of a row that has begun: see `kernels.cpu.walk`
_HEAD = [HEAD.v_at, HEAD.v_back_at, HEAD.c_at]
WEIGHTS = [
    getattr(LAYER, name)
    for name in (
        "u_at", "bias_at", "w_at", "second_at", "params_at", "u_back_at", "w_back_at",
        "second_back_at", "restart_at",
    )
]  # fmt: skip


class Ring:
    """The last steps, their lane, and the gradient of the windows that have gone back so far.

    size : R; each : loss weights of a position
    packed : the weights that kernels read
    """

    def __init__(
        self, packed: Packed, batch: int, size: int, loss: Any, blocks: BlockSizes, device: Backend,
        *, tokens: bool, each: int, replays: bool,
    ):  # fmt: skip
        """`loss`: its name, or a checked function of the caller's; `replays`: with room for that"""
        self.packed, self.batch, self.size, self.tokens = packed, batch, size, tokens
        self.each, self.loaded, self.form = each, packed.bits, packed.form
        layer, readout, dtype = self.form.layer, self.form.readout, self.form.dtype
        layers, steps = list(recurrent_layers(layer)), 2 * size
        self.steps = own = Steps(self.form, batch, size, loss, tokens, each)
        checked: Any = loss
        if isinstance(loss, str):
            checked = NamedLoss(loss, readout, own.y, own.weights, "sum")  # type: ignore[arg-type]
        lengths = Lengths(None, steps, batch)
        lengths.cut(batch * size, [np.full(batch * size, steps * batch)])
        self.marks = lengths.marks
        initial = [np.zeros((n.states, batch, n.hidden), dtype) for n in layers]
        restart = [np.zeros(state.shape[::2], dtype) for state in initial]
        arrays = Arrays(own.x, lengths, initial, None if self.form.state is None else restart)
        problem = problem_of(layer, device, arrays)
        tape = Tape(problem, blocks, True, packed.weights, [], (), None)
        stages = Stages(problem, blocks, True, tape)
        self.chain = chain = stages.top
        total = checked.sum(problem, blocks, chain.workspace, True)
        self.head = getattr(total, "head", None)  # of the outputs; a callable has none
        if self.head is None and readout is not None:
            self.head = device.head(readout, batch, chain.workspace, True, False)
        numbers = (size * chain.step_bytes + chain.state_bytes) // dtype.itemsize
        self.arena = np.zeros(numbers * (1 + replays), dtype)
        self.cache = StepCache(self.arena, chain.recurrences, size)
        self.again = StepCache(self.arena[numbers:], chain.recurrences, size) if replays else None
        lane = Lane(
            chain, stages.reader(0, problem.stages[0][0]), (), initial, steps, room=size,
            loss=total, cache=self.cache, arena=self.arena,
        )  # fmt: skip
        self.walk = CompiledWalk(lane, SILENT)
        self.bound = bound = self.walk.bound
        bound.set(cache_stop=steps, resets=0)
        self.rows, self.by_time = np.zeros((2, 4), np.int64), 0
        self.step_work = sum(own.work for own in chain.recurrences)
        for index, layer in enumerate(layers):  # room to pack its input weights in another order
            if chain.recurrences[index].cell.split:
                bound.point_layer(index, ordered=np.empty(layer.U.size, dtype))
        self.sums = RingSums(stages, bound, total, self.head, self.form, size, tokens)
        self.use(packed)
        self._forget_arrays()

    def _forget_arrays(self) -> None:
        """Keep alive what slots point to, but for weights and gradients, which have owners."""
        pointed, bound = set(self.bound.slots.tolist()), self.bound
        pointed -= {at for slots in self.packed.slots for at in slots} | {*self.packed.head_slots}
        pointed -= {address_of(array) for array in self.sums.arrays()}
        bound.keep = [a for a in bound.keep if a is not None and address_of(a) in pointed]

    # Weights and gradients.

    def use(self, packed: Packed) -> None:
        """Have kernels read these weights from here on."""
        self.sums.fold()
        if packed.weights is not self.packed.weights:
            self.loaded = packed.bits
        elif packed.bits is not self.loaded:
            self.fill(packed.own, packed)
        self.packed, head = packed, self.head
        for row, own, weights, restart, slots in zip(
            self.bound.layers, self.chain.recurrences, packed.weights, packed.restart, packed.slots,
            strict=True,
        ):  # fmt: skip
            own.weights = weights
            if restart is not None:
                own.restart = restart
            row[WEIGHTS[: len(slots)]] = slots
        if head is not None:
            head.weight, head.bias = packed.head, packed.c
            self.bound.head[_HEAD] = packed.head_slots

    def fill(self, network: Network[Any], packed: Packed) -> None:
        """Pack the network's weights where those lie that kernels read, if `sums.short`."""
        self.loaded = []  # what is there if this is interrupted
        slots, (_, _, put_layer, _, _, put_head, _) = self.bound.slots, short.build_short()
        for index, (layer, own, row) in enumerate(
            zip(
                recurrent_layers(network.layer), self.chain.recurrences, self.bound.layers,
                strict=True,
            )
        ):  # fmt: skip
            # There it says whether the cell has a second product.
            rows, row[LAYER.v_rows] = int(row[LAYER.v_rows]), int(own.cell.second)
            params = np.empty(0, layer.dtype) if layer.params is None else layer.params
            put_layer(
                slots, layer_at(index), int(own.cell.split), layer.U, layer.W, layer.b, params,
                self.walk.final[index],
            )  # fmt: skip
            row[LAYER.v_rows] = rows
        if self.head is not None:
            assert network.readout is not None
            put_head(slots, network.readout.V, network.readout.c, self.head.sum.grad)
        self.packed, self.loaded = packed, packed.bits

    # Steps.

    def state(self, time: int) -> list[Array]:
        """For each layer a view of the state before that step, (states, B, H)."""
        row = (time - 1) % self.size + 1 if time else 0
        return [states[:, row] for states in self.cache.states]

    def copies(self) -> list[Array]:
        """Copies of all steps."""
        return [array.copy() for array in self._arrays()]

    def put_back(self, copies: Sequence[Array]) -> None:
        """Have the steps be those of `copies`."""
        for array, copy in zip(self._arrays(), copies, strict=True):
            if array.shape != copy.shape or array.dtype != copy.dtype:
                raise ValueError(f"a ring's array must be {array.dtype} {array.shape}")
            array[...] = copy
        self.steps.written()

    def take_over(self, other: Ring) -> None:
        """Have the steps be those of another ring, which may know one loss weight a position."""
        given = [
            theirs if own.shape == theirs.shape else np.broadcast_to(theirs[..., None], own.shape)
            for own, theirs in zip(self._arrays(), other._arrays(), strict=True)
        ]
        self.put_back(given)

    def _arrays(self) -> list[Array]:
        return [self.cache.memory, *self.steps.arrays()]

    # Work.

    def forward(self, time: int, steps: int, cuts: bool) -> None:
        """Run steps that have been put, within one lap; `cuts`: whether any has a reset."""
        start = time % self.size or (self.size if time else 0)
        self.rows[0] = CACHE, start, start + steps, 0
        self._mark(start, start + steps, cuts)
        self._go(steps * self.step_work)

    def outputs(self, time: int, steps: int, out: Array) -> None:
        """The readout's outputs of steps within one lap, or the states without a readout."""
        row = time % self.size + 1
        h = self.cache.states[-1][0, row : row + steps]
        if self.head is None:
            out[...] = h
        else:
            self.head.outputs(h, out, self.chain.lengths, 0)

    def again_from(self, start: int, stop: int, cuts: bool) -> None:
        """Run steps start..stop once more, from the state before them, beside the ring."""
        again, low = self.again, start % self.size
        assert again is not None
        for kept, copy in zip(self.cache.states, again.states, strict=True):
            copy[:, 0] = kept[:, low]
        self._cached_in(again, low)
        self.rows[0] = CACHE, low, low + stop - start, 0
        self._mark(low, low + stop - start, cuts)
        self._go((stop - start) * self.step_work)

    def end_again(self) -> None:
        """Go back to the ring's own steps."""
        self._cached_in(self.cache, 0)

    def _cached_in(self, cache: StepCache, base: int) -> None:
        self.bound.set(cache_base=base)
        for row, states, residuals in zip(
            self.bound.layers, cache.states, cache.residuals, strict=True
        ):
            row[LAYER.states_at] = address_of(states)
            row[LAYER.residuals_at] = address_of(residuals)

    def back(
        self, start: int, first_loss: int, stop: int, parts: Sequence[tuple[int, Packed]],
        cuts: bool,
    ) -> None:  # fmt: skip
        """Go back over a window.

        parts : the weights of its steps, each with the first step that has them; the last first
        """
        steps, low, end = stop - start, start % self.size, stop
        self.by_time = by_time = low - start
        self._mark(low, stop + by_time, cuts)
        self.sums.begin(steps)
        self.bound.lane[LANE.since_flush] = 0
        for begin, packed in parts:
            begin = max(begin, start)
            if packed is not self.packed:
                self.use(packed)
            at = begin + by_time
            self.rows[0] = WINDOW, at, max(at, min(first_loss, end) + by_time), end + by_time
            self._go(2 * (end - begin) * self.step_work, end < stop)
            end = begin

    def carried(self) -> list[Array]:
        """The derivative by the state before the window, for each layer (states, B, H)."""
        self.chain.current = self.bound.get("current")
        return self.chain.carried()

    def time_of(self, step: int) -> int:
        """The time of a step of the lane, in the window that it goes back over."""
        return step - self.by_time

    def _mark(self, start: int, stop: int, cuts: bool) -> None:
        """Have the lane know the resets of these steps, in its own time."""
        count = 0
        if cuts:
            found = np.flatnonzero(self.steps.resets[start:stop]) + start * self.batch
            count = found.size
            self.marks[self.batch : self.batch + count] = found
        self.bound.lane[LANE.resets] = count

    def _go(self, work: int, going_on: bool = False) -> None:
        bound, rows, budget = self.bound, self.rows[:1], self.chain.unheard
        bound.begin_rows(1)
        if going_on:
            lane = bound.lane
            lane[LANE.phase], lane[LANE.at], lane[LANE.leg] = _GOING_ON, rows[0, 3], 0
        bound.work = work
        while bound.walk(rows, budget) != DONE:
            self.walk.answer()

    def drop(self) -> None:
        """Forget windows that were not ended, and be ready for another."""
        self.sums.drop()
        self.end_again()

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays, weights aside."""
        outside = [a for a in self.bound.keep if not np.may_share_memory(a, self.arena)]
        outside += [self.arena, *self.steps.arrays(), *self.sums.arrays()]
        return sum({address_of(a): a.nbytes for a in outside if a.nbytes}.values())
