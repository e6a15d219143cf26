"""A ring of the last steps of a sequence that never ends, and the lane that runs over it.

The step cache is the ring of `kernels.cpu.walk_states`: step t is in slot t modulo its size, R, and
nothing is moved. What the lane reads besides states lies in arrays of 2R steps, in which every step
stands twice, R apart. So any R steps one after another lie in one piece in them: to the lane, the
steps of a window that begins at slot s are those from s on, up to 2R. A window's place in the ring
depends on its times alone, hence its bits do, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..backends.base import Backend
from ..kernels.cpu.bound import address_of
from ..kernels.cpu.slots import ACTIONS, DONE, HEAD, LANE, LAYER
from ..kernels.cpu.weights import Matrix
from ..kernels.loss_table import LOSSES
from ..layers.composite import rebuilt, recurrent_layers
from ..layers.network import Network
from ..memory.blocking import BlockSizes
from .compiled import CompiledWalk
from .lanes import SILENT, Lane
from .losses import NamedLoss
from .problem import Arrays, Lengths, problem_of
from .stages import Stages, Tape
from .step_cache import StepCache

CACHE, WINDOW = ACTIONS["cache"], ACTIONS["window"]
_GOING_ON = 1  # the phase of a row that has begun: see `kernels.cpu.walk`
_WEIGHTS = (
    "u_at", "bias_at", "w_at", "second_at", "params_at", "u_back_at", "w_back_at",
    "second_back_at", "restart_at",
)  # fmt: skip


class Kept(NamedTuple):
    """What a ring keeps of each step besides its states, in arrays of 2R steps.

    x : (2R, B, I), or int64 tokens (2R, B)
    y : (2R, B, O), or int64 classes (2R, B); None for a loss of the caller's own
    weights : float64 (2R, B) or (2R, B, O), the loss weights; None for a loss of the caller's own
    resets : booleans (2R, B)
    """

    x: Array
    y: Array | None
    weights: Array | None
    resets: Array

    def put(self, slot: int, steps: int, *values: Any) -> None:
        """Write steps that do not go beyond slot R; None leaves what is there."""
        for array, value in zip(self, values, strict=True):
            if array is not None and value is not None:
                half = len(array) // 2
                array[slot : slot + steps] = value
                array[half + slot : half + slot + steps] = value


class Packed:
    """The weights of a network as they were at one moment, as kernels read them.

    own : the network with arrays of its own, to tell whether another is the same
    """

    def __init__(self, network: Network[Any], device: Backend, tokens: bool):
        self.own = network._rebuilt(iter([np.array(a, order="C") for a in network.arrays()]))
        self.bits = [array.tobytes() for array in self.own.arrays()]
        self.layers = list(recurrent_layers(self.own.layer))
        workspace = device.workspace()
        self.weights = [device.weights(layer, 1, workspace) for layer in self.layers]
        self.restart: list[Array | None] = [None] * len(self.layers)
        if self.own.state is not None:
            flat = iter(self.own.arrays()[-sum(n.states for n in self.layers) :])
            self.restart = [np.stack([next(flat) for _ in range(n.states)]) for n in self.layers]
        self.head = None
        if self.own.readout is not None:
            self.head = Matrix(workspace, device.threads, self.own.readout.V)
        self._pack(tokens)

    def _pack(self, tokens: bool) -> None:
        """Write down the addresses of all that is packed, in the order of `_WEIGHTS`."""
        self.slots: list[list[int]] = []
        for index, (own, restart) in enumerate(zip(self.weights, self.restart, strict=True)):
            read, second = tokens and index == 0, own.parts[1:]
            arrays = [
                own.input.table if read else own.input.forth, own.bias, own.parts[0].forth,
                second[0].forth if second else None, own.params,
                own.input.back if index else None, own.parts[0].back,
                second[0].back if second else None,
            ]  # fmt: skip
            self.slots.append([0 if a is None or not a.size else address_of(a) for a in arrays])
            if restart is not None:
                self.slots[-1].append(address_of(restart))
        if self.head is not None:
            assert self.own.readout is not None
            self.head_slots = [address_of(a) for a in (self.head.forth, self.head.back)]
            self.head_slots.append(address_of(self.own.readout.c))

    def same(self, network: Network[Any]) -> bool:
        """Whether a network of the same form has the same numbers, bit by bit."""
        return all(
            array.tobytes() == bits for array, bits in zip(network.arrays(), self.bits, strict=True)
        )

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays."""
        matrices: list[Any] = [] if self.head is None else [self.head]
        arrays = [*self.own.arrays(), *(a for a in self.restart if a is not None)]
        for own in self.weights:
            matrices += [own.input, *own.parts]
            arrays += [own.bias, own.params]
        arrays += [a for m in matrices for a in (m._forth, m._back, m._table) if a is not None]
        return sum(array.nbytes for array in arrays) + sum(map(len, self.bits))


class Ring:
    """The last steps, their lane, and the gradient of the windows that have gone back so far.

    layers, readout : of a network, whose weights are taken from a `Packed`
    size : R
    loss : its name, or a checked function of the caller's
    replays : whether there is room to run a window once more
    """

    def __init__(
        self, packed: Packed, batch: int, size: int, loss: Any, blocks: BlockSizes, device: Backend,
        *, tokens: bool, each: int, replays: bool,
    ):  # fmt: skip
        self.packed, self.batch, self.size, self.tokens = packed, batch, size, tokens
        self.each = each
        network = packed.own
        layer, readout, dtype = network.layer, network.readout, network.dtype
        steps = 2 * size

        def along_time(width: int, ids: bool) -> Array:
            shape = (steps, batch) if ids else (steps, batch, width)
            return np.zeros(shape, np.int64 if ids else dtype)

        x = along_time(layer.inputs, tokens)
        y = weights = None
        checked: Any = loss
        if isinstance(loss, str):
            assert readout is not None
            y = along_time(readout.outputs, LOSSES[loss].classes)
            weights = np.ones((steps, batch) if each == 1 else (steps, batch, each))
            checked = NamedLoss(loss, readout, y, weights, "sum")  # type: ignore[arg-type]
        self.kept = Kept(x, y, weights, np.zeros((steps, batch), bool))
        lengths = Lengths(None, steps, batch)
        lengths.cut(batch * size, [np.full(batch * size, steps * batch)])
        self.marks = lengths.marks
        initial = [np.zeros((n.states, batch, n.hidden), dtype) for n in packed.layers]
        restart = None if network.state is None else packed.restart
        problem = problem_of(layer, device, Arrays(x, lengths, initial, restart))  # type: ignore
        tape = Tape(problem, blocks, True, packed.weights, [], (), None)
        self.stages = stages = Stages(problem, blocks, True, tape)
        self.chain = chain = stages.top
        self.total = checked.sum(problem, blocks, chain.workspace, True)
        numbers = size * chain.step_bytes // dtype.itemsize + chain.state_bytes // dtype.itemsize
        self.arena = np.zeros(numbers * (1 + replays), dtype)
        self.cache = StepCache(self.arena, chain.recurrences, size)
        self.again = StepCache(self.arena[numbers:], chain.recurrences, size) if replays else None
        lane = Lane(
            chain, stages.reader(0, problem.stages[0][0]), (), initial, steps, room=size,
            loss=self.total, cache=self.cache, arena=self.arena,
        )  # fmt: skip
        self.walk = CompiledWalk(lane, SILENT)
        self.bound = self.walk.bound
        self.bound.set(cache_stop=steps, resets=0)
        self.by_time = 0
        self.head = getattr(self.total, "head", None)  # of the outputs; a callable has none
        if self.head is None and readout is not None:
            self.head = device.head(readout, batch, chain.workspace, True, False)
        self.rows = np.zeros((2, 4), np.int64)
        self.more: list[Array | float] = [0.0] * len(packed.layers)
        self.step_work = sum(own.work for own in chain.recurrences)
        self._point_gradients()
        self.use(packed)
        pointed = set(self.bound.slots.tolist())
        own = {at for slots in packed.slots for at in slots}
        self.bound.keep = [  # not the weights and gradients, which change
            a for a in self.bound.keep if a is not None and address_of(a) in pointed - own
        ]

    def use(self, packed: Packed) -> None:
        """Have kernels read these weights from here on."""
        self._fold()
        self.packed, head = packed, self.head
        for row, own, weights, restart, slots in zip(
            self.bound.layers, self.chain.recurrences, packed.weights, packed.restart, packed.slots,
            strict=True,
        ):  # fmt: skip
            own.weights, own.layer = weights, weights.layer
            if restart is not None:
                own.restart = restart
            for name, at in zip(_WEIGHTS, slots, strict=False):
                row[getattr(LAYER, name)] = at
        if head is not None and packed.head is not None:
            head.weight, head.readout = packed.head, packed.own.readout
            head.bias = packed.own.readout.c  # type: ignore[union-attr]
            self.bound.head[[HEAD.v_at, HEAD.v_back_at, HEAD.c_at]] = packed.head_slots

    def _fold(self) -> None:
        """Take what W's gradient has of steps that read the state that resets set."""
        for index, own in enumerate(self.chain.recurrences):
            if own.restart_sums is None:
                continue
            deltas = own.restart_sums[own.states * own.batch * own.hidden :]
            if deltas.any():
                self.more[index] = self.more[index] + deltas[:, None] * own.restart[0]
                deltas[:] = 0

    def _point_gradients(self) -> None:
        """Have gradients add up in arrays of zeros."""
        for row, own in zip(self.bound.layers, self.chain.recurrences, strict=True):
            own.input.start(self.tokens and own is self.chain.recurrences[0])
            own.recurrent.start()
            if own.sums is None:
                own.sums = np.zeros(own.blocks * own.hidden)
            own.start_restarts()
            for name, array in (
                ("du_at", own.input.grad), ("du_total_at", own.input.total), ("dsum_at", own.sums),
                ("dw_at", own.recurrent.grad), ("dw_total_at", own.recurrent.total),
                ("restart_sums_at", own.restart_sums),
            ):  # fmt: skip
                at = 0 if array is None or not array.size else address_of(array)
                row[getattr(LAYER, name)] = at
        if (head := self.head) is not None:
            head.start()
            for slot, array in (
                (HEAD.dv_at, head.sum.grad), (HEAD.dv_total_at, head.sum.total),
                (HEAD.dc_at, head.bias_total),
            ):  # fmt: skip
                self.bound.head[slot] = address_of(array) if array.size else 0

    # States.

    def row(self, time: int) -> int:
        """The row of the cache's states that has the state before the step of that time."""
        return (time - 1) % self.size + 1 if time else 0

    def state(self, time: int) -> list[Array]:
        """For each layer a view of the state before that step, (states, B, H)."""
        return [states[:, self.row(time)] for states in self.cache.states]

    def copies(self) -> list[Array]:
        """Copies of all steps."""
        return [self.arena[: self.cache.size].copy(), *(a.copy() for a in self._arrays())]

    def put_back(self, copies: Sequence[Array]) -> None:
        """Have the steps be those of `copies`."""
        for array, copy in zip([self.cache.memory, *self._arrays()], copies, strict=True):
            array[...] = copy

    def take_over(self, other: Ring) -> None:
        """Have the steps be those of another ring, which may know one loss weight a position."""
        self.cache.memory[...] = other.cache.memory
        for array, given in zip(self._arrays(), other._arrays(), strict=True):
            array[...] = given if array.ndim == given.ndim else given[..., None]

    def _arrays(self) -> list[Array]:
        return [array for array in self.kept if array is not None]

    @property
    def outputs_width(self) -> int:
        """The width of what `outputs` gives."""
        readout = self.packed.own.readout
        return self.chain.layers[-1].hidden if readout is None else readout.outputs

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays, weights aside."""
        outside = [a for a in self.bound.keep if not np.may_share_memory(a, self.arena)]
        sizes = {address_of(a): a.nbytes for a in outside if a.nbytes}
        sizes.update((address_of(a), a.nbytes) for a in [self.arena, *self._arrays()])
        sums = 0
        for own in self.chain.recurrences:
            grads = own.input.grad, own.input.total, own.recurrent.grad, own.recurrent.total
            sums += sum(a.nbytes for a in (*grads, own.sums, own.restart_sums) if a is not None)
        if (head := self.head) is not None:
            sums += head.sum.grad.nbytes + head.sum.total.nbytes + head.bias_total.nbytes
        return sum(sizes.values()) + sums

    # Work.

    def forward(self, time: int, steps: int, cuts: bool) -> None:
        """Run steps that have been put, within one lap; `cuts`: whether any has a reset."""
        start = time % self.size or (self.size if time else 0)
        self.rows[0] = CACHE, start, start + steps, 0
        self._mark(start, start + steps, cuts)
        self._go(steps, 1)

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
        again = self.again
        assert again is not None
        for kept, copy in zip(self.cache.states, again.states, strict=True):
            copy[:, 0] = kept[:, start % self.size]
        low = start % self.size
        self._cached_in(again, low)
        self.rows[0] = CACHE, low, low + stop - start, 0
        self._mark(low, low + stop - start, cuts)
        self._go(stop - start, 1)

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
    ) -> list[Array]:  # fmt: skip
        """Go back over a window; returns the derivative by the state before its first step.

        parts : the weights of its steps, each with the first step that has them; the last first
        """
        low = start % self.size
        self.by_time = by_time = low - start
        self._mark(low, stop + by_time, cuts)
        end = stop
        self.bound.set(since_flush=0)
        for begin, packed in parts:
            begin = max(begin, start)
            if packed is not self.packed:
                self.use(packed)
            at = begin + by_time
            self.rows[0] = WINDOW, at, max(at, min(first_loss, end) + by_time), end + by_time
            self._go(end - begin, 2, going_on=end < stop)
            end = begin
        self.chain.current = self.bound.get("current")
        return self.chain.carried()

    def time_of(self, step: int) -> int:
        """The time of a step of the lane, in the window that it goes back over."""
        return step - self.by_time

    def _mark(self, start: int, stop: int, cuts: bool) -> None:
        """Have the lane know the resets of these steps, in its own time."""
        count = 0
        if cuts:
            found = np.flatnonzero(self.kept.resets[start:stop]) + start * self.batch
            count = found.size
            self.marks[self.batch : self.batch + count] = found
        self.bound.set(resets=count)

    def _go(self, steps: int, cost: int, going_on: bool = False) -> None:
        bound, walk, rows = self.bound, self.walk, self.rows[:1]
        bound.begin_rows(1)
        if going_on:
            lane = bound.lane
            lane[LANE.phase], lane[LANE.at], lane[LANE.leg] = _GOING_ON, rows[0, 3], 0
        bound.work = cost * steps * self.step_work
        budget = self.chain.unheard
        bound.walk(rows, budget)
        while walk.answer() != DONE:
            bound.walk(rows, budget)

    # Results.

    def take(self, of_state: Callable[[list[Array]], Any]) -> tuple[float, Network[Any]]:
        """The loss and the gradient of all windows since the last time, which then begin anew.

        of_state : makes the gradient by the network's own state of what resets have of it, for each
            layer (states, H) in float64
        """
        self._fold()
        restarts = self.stages.restart_gradients()
        parts = self.stages.gradients()
        for index, more in enumerate(self.more):
            if isinstance(more, np.ndarray):
                parts[index].W[: len(more)] += more  # in float64, as `Recurrence` adds it
        loss, own = self.total.take(), self.packed.own
        readout = self.total.gradient()
        self.more = [0.0] * len(parts)
        self._point_gradients()
        return loss, Network(rebuilt(own.layer, iter(parts)), readout, of_state(restarts))

    def drop(self) -> None:
        """Forget the gradient of all windows, some of which may not have been ended."""
        for own in self.chain.recurrences:
            own.restart_sums = None
        self.take(lambda restarts: None)
        self.end_again()
        self.bound.set(half=0)
