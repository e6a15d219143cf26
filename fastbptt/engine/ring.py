"""A ring of the last steps of a sequence that never ends, and the lane that runs over it.

The step cache is the ring of `kernels.cpu.walk_states`: step t is in slot t modulo its size, R, and
nothing is moved. What the lane reads besides states lies in arrays of 2R steps, in which every step
stands twice, R apart. So any R steps one after another lie in one piece in them: to the lane, the
steps of a window that begins at slot s are those from s on, below 2R. A window's place in the ring
depends on its times alone, hence its bits do, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import numpy as np

from ..arrays import Array
from ..backends.base import Backend
from ..kernels.cpu import short
from ..kernels.cpu.bound import address_of
from ..kernels.cpu.slots import ACTIONS, DONE, HEAD, LANE, LAYER
from ..kernels.loss_table import LOSSES
from ..layers.composite import rebuilt, recurrent_layers
from ..layers.network import Network
from ..memory.blocking import BlockSizes, flush_steps
from .compiled import CompiledWalk
from .lanes import SILENT, Lane
from .losses import NamedLoss
from .packed import Packed
from .prepared import layer_at
from .problem import Arrays, Lengths, problem_of
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
        layers = list(recurrent_layers(layer))
        steps = 2 * size

        def along_time(width: int, ids: bool) -> Array:
            shape = (steps, batch) if ids else (steps, batch, width)
            return np.zeros(shape, np.int64 if ids else dtype)

        self.x = along_time(layer.inputs, tokens)
        self.y = self.weights = None
        checked: Any = loss
        if isinstance(loss, str):
            assert readout is not None
            self.y = along_time(readout.outputs, LOSSES[loss].classes)  # type: ignore[index]
            self.weights = np.ones((steps, batch) if each == 1 else (steps, batch, each))
            checked = NamedLoss(loss, readout, self.y, self.weights, "sum")  # type: ignore[arg-type]
        self.resets = np.zeros((steps, batch), bool)
        self.plain = self.uncut = True  # whether all weights are 1, and no reset is set
        self._halves = [None if a is None else a.reshape(2, size, *a.shape[1:]) for a in self.kept]
        lengths = Lengths(None, steps, batch)
        lengths.cut(batch * size, [np.full(batch * size, steps * batch)])
        self.marks = lengths.marks
        initial = [np.zeros((n.states, batch, n.hidden), dtype) for n in layers]
        restart = None if self.form.state is None else [np.zeros(s.shape[::2], dtype) for s in initial]  # noqa: E501
        problem = problem_of(layer, device, Arrays(self.x, lengths, initial, restart))
        tape = Tape(problem, blocks, True, packed.weights, [], (), None)
        self.stages = stages = Stages(problem, blocks, True, tape)
        self.chain = chain = stages.top
        self.total = checked.sum(problem, blocks, chain.workspace, True)
        self.head = getattr(self.total, "head", None)  # of the outputs; a callable has none
        if self.head is None and readout is not None:
            self.head = device.head(readout, batch, chain.workspace, True, False)
        numbers = (size * chain.step_bytes + chain.state_bytes) // dtype.itemsize
        self.arena = np.zeros(numbers * (1 + replays), dtype)
        self.cache = StepCache(self.arena, chain.recurrences, size)
        self.again = StepCache(self.arena[numbers:], chain.recurrences, size) if replays else None
        lane = Lane(
            chain, stages.reader(0, problem.stages[0][0]), (), initial, steps, room=size,
            loss=self.total, cache=self.cache, arena=self.arena,
        )  # fmt: skip
        self.walk = CompiledWalk(lane, SILENT)
        self.bound = bound = self.walk.bound
        bound.set(cache_stop=steps, resets=0)
        self.rows, self.by_time = np.zeros((2, 4), np.int64), 0
        self.step_work = sum(own.work for own in chain.recurrences)
        # Whether windows are so long that their sums are carried into float64 on the way.
        self.long, self.flush_steps = size > flush_steps(batch), flush_steps(batch)
        self.since, self.flushed = 0, False
        self.fast = not tokens and self.form.state is None
        self._kernels = short.build_short()
        self._parts = [
            (own, layer_at(n), int(own.cell.split), np.array(own._order),
             np.array(own.cell.sums, np.int64), np.empty_like(initial[n]), np.empty(0, dtype))
            for n, own in enumerate(chain.recurrences)
        ]  # fmt: skip
        for index, part in enumerate(self._parts):
            if part[2]:
                bound.point_layer(index, ordered=np.empty(layers[index].U.size, dtype))
        self.more: list[Array | float] = [0.0] * len(layers)
        self._point_gradients()
        self.use(packed)
        self._forget_arrays()

    @property
    def kept(self) -> list[Array | None]:
        """What is kept of each step besides its states, in arrays of 2R steps."""
        return [self.x, self.y, self.weights, self.resets]

    def _forget_arrays(self) -> None:
        """Keep alive what slots point to, but for weights and gradients, which have owners."""
        pointed, bound = set(self.bound.slots.tolist()), self.bound
        pointed -= {at for slots in self.packed.slots for at in slots} | {*self.packed.head_slots}
        for own in self.chain.recurrences:
            grads = own.input.grad, own.input.total, own.recurrent.grad, own.recurrent.total
            pointed -= {address_of(array) for array in (*grads, own.sums)}
        bound.keep = [a for a in bound.keep if a is not None and address_of(a) in pointed]

    # Weights and gradients.

    def use(self, packed: Packed) -> None:
        """Have kernels read these weights from here on."""
        self._fold()
        if packed.weights is self.packed.weights and packed.bits is not self.loaded:
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
        """Pack the network's weights in the place of those that kernels read; where `fast`."""
        slots, put_layer, put_head = self.bound.slots, self._kernels[2], self._kernels[5]
        for layer, part, row, final in zip(
            recurrent_layers(network.layer), self._parts, self.bound.layers, self.walk.final,
            strict=True,
        ):  # fmt: skip
            rows, row[LAYER.v_rows] = int(row[LAYER.v_rows]), int(part[0].cell.second)
            params = part[6] if layer.params is None else layer.params
            put_layer(slots, part[1], part[2], layer.U, layer.W, layer.b, params, final)
            row[LAYER.v_rows] = rows
        if self.head is not None:
            assert network.readout is not None
            put_head(slots, network.readout.V, network.readout.c, self.head.sum.grad)
        self.packed, self.loaded = packed, packed.bits

    def _fold(self) -> None:
        """Take what W's gradient has of steps that read the state that resets set."""
        for index, own in enumerate(self.chain.recurrences):
            if own.restart_sums is not None:
                deltas = own.restart_sums[own.states * own.batch * own.hidden :]
                self.more[index] = self.more[index] + deltas[:, None] * own.restart[0]
                deltas[:] = 0

    def _point_gradients(self) -> None:
        """Have gradients add up in arrays of zeros."""
        for row, own in zip(self.bound.layers, self.chain.recurrences, strict=True):
            tokens = self.tokens and own is self.chain.recurrences[0]
            own.input.start(tokens)
            own.recurrent.start()
            if own.sums is None:
                own.sums = np.zeros(own.blocks * own.hidden)
            own.start_restarts()
            none = own.sums[:0]
            for name, array in (
                ("du_at", own.input.grad), ("dsum_at", own.sums), ("dw_at", own.recurrent.grad),
                ("du_total_at", own.input.total if self.long or tokens else none),
                ("dw_total_at", own.recurrent.total if self.long else none),
                ("restart_sums_at", none if own.restart_sums is None else own.restart_sums),
            ):
                row[getattr(LAYER, name)] = address_of(array) if array.size else 0
        if (head := self.head) is not None:
            head.start()
            for slot, array in (
                (HEAD.dv_at, head.sum.grad), (HEAD.dc_at, head.bias_total),
                (HEAD.dv_total_at, head.sum.total if self.long else head.bias_total[:0]),
            ):  # fmt: skip
                self.bound.head[slot] = address_of(array) if array.size else 0

    # Steps.

    def put(self, slot: int, steps: int, x: Array, y: Any, weights: Any, resets: Any) -> None:
        """Write steps that do not go beyond slot R; no weights are ones, no resets are none."""
        stop = slot + steps
        own_x, own_y, own_weights, own_resets = self._halves
        own_x[:, slot:stop] = x  # type: ignore[index]
        if own_y is not None and y is not None:
            own_y[:, slot:stop] = y
        if own_weights is not None and not (weights is None and self.plain):
            own_weights[:, slot:stop] = 1.0 if weights is None else weights
            self.plain = False
        if not (resets is None and self.uncut):
            own_resets[:, slot:stop] = False if resets is None else resets  # type: ignore[index]
            self.uncut = False

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
            array[...] = copy
        self.plain = self.uncut = False

    def take_over(self, other: Ring) -> None:
        """Have the steps be those of another ring, which may know one loss weight a position."""
        given = [
            theirs if own.ndim == theirs.ndim else theirs[..., None]
            for own, theirs in zip(self._arrays(), other._arrays(), strict=True)
        ]
        self.put_back(given)

    def _arrays(self) -> list[Array]:
        return [self.cache.memory, *(array for array in self.kept if array is not None)]

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
        if self.since and self.since + steps > self.flush_steps:
            self.chain.flush()
            if self.head is not None:
                self.head.flush()
            self.since, self.flushed = 0, True
        self.since += steps
        self.flushed |= self.long
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
            found = np.flatnonzero(self.resets[start:stop]) + start * self.batch
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

    # Results.

    def take(self, of_state: Callable[[list[Array]], Any]) -> tuple[float, Network[Any]]:
        """The loss and the gradient of all windows since the last time, which then begin anew.

        of_state : makes the gradient by the network's own state of what resets have of it, for each
            layer (states, H) in float64
        """
        self.since = 0
        if self.fast and not self.flushed:
            return self._take_short()
        self.flushed = False
        self._fold()
        restarts = self.stages.restart_gradients()
        parts = self.stages.gradients()
        for index, more in enumerate(self.more):
            if isinstance(more, np.ndarray):
                parts[index].W[: len(more)] += more  # in float64, as `Recurrence` adds it
        self.more = [0.0] * len(parts)
        loss, readout = self.total.take(), self.total.gradient()
        self._point_gradients()
        return loss, Network(rebuilt(self.form.layer, iter(parts)), readout, of_state(restarts))

    def _take_short(self) -> tuple[float, Network[Any]]:
        """The same, by the kernels of short calls: nothing was carried into float64."""
        slots, dtype, parts = self.bound.slots, self.form.dtype, []
        _, _, _, put_back, take_back, _, take_head = self._kernels
        for own, at, _, order, sums, state, none in self._parts:
            layer, dU, dW = own.layer, own.input.grad, own.recurrent.grad
            db, given = np.empty(layer.b.shape, dtype), layer.params
            params = none if given is None else np.empty(given.shape, dtype)
            take_back(slots, at, order, sums, db, params, state)
            parts.append(layer._gradient(dU, dW, db, None if given is None else params))
            own.input.grad, own.recurrent.grad = np.zeros_like(dU), np.zeros_like(dW)
            put_back(slots, at, own.input.grad, own.recurrent.grad)
            own.sums.fill(0)
        head, total, readout = self.head, self.total, self.form.readout
        if head is None or head is not getattr(total, "head", None):
            loss, readout = total.take(), total.gradient()
        else:
            dV, dc = head.sum.grad, np.empty(readout.outputs, dtype)
            loss, error = take_head(slots, dc)
            if hasattr(total, "ask"):
                loss = total.take()
            elif isfinite(error):
                loss += error
            total.total.fill(0)
            head.bias_total.fill(0)
            head.sum.grad = grad = np.zeros_like(dV)
            self.bound.head[HEAD.dv_at] = address_of(grad)
            readout = readout._with(V=dV, c=dc)
        layer = rebuilt(self.form.layer, iter(parts))
        return loss, self.form._with(layer=layer, readout=readout, state=None)

    def drop(self) -> None:
        """Forget the gradient of all windows, some of which may not have been ended."""
        self.flushed = True
        for own in self.chain.recurrences:
            own.restart_sums = None
        self.take(lambda restarts: None)
        self.end_again()
