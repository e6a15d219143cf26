"""Layers and a readout that go on step by step: a lane that is bound once, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import AlongTime, Array, in_memory
from ..backends import devices
from ..kernels.cpu import stepping
from ..kernels.cpu.bound import address_of
from ..kernels.cpu.slots import LANE, LAYER, LAYER_SIZE, LAYERS_AT, STEPPER, STEPPER_SIZE
from ..kernels.cpu.team import team_for
from ..kernels.jit import prepare
from ..layers.composite import Layer, recurrent_layers
from ..layers.network import Readout
from ..memory.blocking import flush_steps
from .compiled import CompiledWalk
from .footprint import footprint
from .lanes import SILENT, Lane
from .problem import Arrays, Lengths, problem_of
from .reserving import reserved
from .stages import Stages

# The most multiply-adds of a call that keeps the interpreter's lock: less than a millisecond of
# work. Of many sequences they are fewer, since those are shared out among threads.
_HELD, _HELD_OF_MANY = 1 << 23, 1 << 21
_WEIGHTS = LAYER.u_at, LAYER.bias_at, LAYER.w_at, LAYER.second_at, LAYER.params_at


class InUse(RuntimeError):
    """Another thread is using the same lane."""


class Steps:
    """Where a sequence, or a batch of them, stands; it reads floats, or tokens.

    slots : of the lane, and behind them those of `kernels.cpu.stepping`
    reads, row, out_row : the dtype of the inputs, and the shapes of a step's inputs and outputs
    adds : multiply-adds of a step
    most_held : of a call that keeps the interpreter's lock
    unheard : steps of a call, at most: Ctrl-C is heard after each
    held : the kernel of short calls
    """

    def __init__(self, layer: Layer, readout: Readout | None, batch: int, tokens: bool):
        self.layer, self.readout, self.batch, self.tokens = layer, readout, batch, tokens
        self.reads = np.dtype(np.int64) if tokens else layer.dtype
        self.row = (batch,) if tokens else (batch, layer.inputs)
        self.out_row = batch, layer.outputs if readout is None else readout.outputs
        self._bind()
        few = self.stages.device.one_thread_each(batch)
        self.most_held = _HELD if few else _HELD_OF_MANY
        self.adds = self.walk.bound.work // self.walk.lane.steps
        if readout is not None:
            self.adds += batch * readout.V.size
        self._free: Any
        self.held, self._free = stepping.build_steps()
        self._claim, self._keep, self._adopt = stepping.build_changes()

    def _bind(self) -> None:
        """Bind a lane over arrays that nobody reads; each call says where its own are."""
        layer, B, T = self.layer, self.batch, flush_steps(self.batch)
        device = devices.device("cpu")
        self.parts = list(recurrent_layers(layer))
        initial = [np.zeros((own.states, B, own.hidden), layer.dtype) for own in self.parts]
        arrays = Arrays(reserved((T, *self.row), self.reads), Lengths(None, T, B), initial)
        problem = problem_of(layer, device, arrays)
        blocks = footprint(layer, self.readout, T, B, device).blocks(indexed=self.tokens)
        self.stages = stages = Stages(problem, blocks, multi_flush=False)
        reader = stages.reader(0, problem.stages[0][0])
        self.walk = CompiledWalk(Lane(stages.top, reader, (), initial, T), SILENT)
        self.walk.bound.divide(1)
        stages.top.marks[:] = np.iinfo(np.int64).max  # no sequence ends
        self.unheard = blocks.unheard
        self.slots = np.zeros(LAYERS_AT + LAYER_SIZE * len(self.parts) + STEPPER_SIZE, np.int64)
        self.slots[:-STEPPER_SIZE] = self.walk.bound.slots
        self.slots[LANE.layers_at] = address_of(self.slots) + LAYERS_AT * 8
        self.slots[LANE.x_step] = self.slots[LANE.h_step] = 0
        own, item = self.slots[-STEPPER_SIZE:], layer.dtype.itemsize
        alone, _ = team_for(0, 1)
        own[STEPPER.run_at] = stepping.run_of(layer.dtype).address
        own[STEPPER.alone_at], own[STEPPER.alone_size] = address_of(alone), alone.size
        own[STEPPER.x_row] = np.prod(self.row) * self.reads.itemsize
        own[STEPPER.out_row] = np.prod(self.out_row) * item
        own[STEPPER.classes] = layer.inputs if self.tokens else 0
        own[STEPPER.span] = blocks.unheard
        self.head: Any = None
        if self.readout is not None:
            self.head = device.head(self.readout, B, stages.workspace, False, False)
            self.hidden = stages.workspace.empty((blocks.call_steps, B, layer.outputs), layer.dtype)
            own[STEPPER.span], own[STEPPER.hidden_at] = len(self.hidden), address_of(self.hidden)
            own[STEPPER.outputs], own[STEPPER.readout] = self.readout.outputs, self.head.kind
            own[STEPPER.v_at] = address_of(self.head.weight.forth)
            own[STEPPER.c_at] = address_of(self.head.bias)

    def prepare(self, x: Array, out: Array) -> None:
        """Compile the kernel of short calls for arrays like these, or load it."""
        prepare(self.held, self.slots, x, out, 1)

    # Steps.

    def run(self, x: AlongTime, out: Array, refuse: Callable[[Array, int], object]) -> None:
        """Run the steps of x, and write their outputs to `out`, C-contiguous.

        x : (n, ...), of the shape and dtype of `row` and `reads`, or for tokens of any integers
        refuse : `refuse(ids, t)` raises for the first of the tokens from time t on that is none

        If anything is raised, the state is as it was.
        """
        if len(x) * self.adds <= self.most_held:
            part = self._brought(x)
            status = self.held(self.slots, part, out, len(part))
            if status == stepping.CLASS:
                refuse(in_memory(x), 0)
            _check(status)
            return
        _check(self._claim(self.slots, 1))
        try:
            before = self.state(mine=True)
            try:
                self._run(x, out, refuse)
            except BaseException:
                self.set_state(before, mine=True)
                raise
        finally:
            self._claim(self.slots, 0)

    def _run(self, x: AlongTime, out: Array, refuse: Callable[[Array, int], object]) -> None:
        for start in range(0, len(x), self.unheard):
            given = in_memory(x[start : start + self.unheard])
            part = self._brought(given)
            if self.tokens and (part.min() < 0 or part.max() >= self.layer.inputs):
                refuse(given, start)
            mailbox, threads = team_for(len(part) * self.adds, self.stages.device.threads)
            self._divide(threads)
            self._free(mailbox, self.slots, part, out[start : start + len(part)], len(part))

    def _brought(self, x: AlongTime) -> Array:
        """A stretch of x as kernels read it."""
        part = np.ascontiguousarray(in_memory(x), self.reads)
        if not part.flags.aligned:
            part = part.copy()
        return self.stages.device.writable(part)

    def _divide(self, threads: int) -> None:
        """Have so many threads do the work of long calls."""
        bound, own = self.walk.bound, self.slots[-STEPPER_SIZE:]
        bound.divide(threads)
        self.slots[LANE.parts] = bound.get("parts")
        layers = self.slots[LAYERS_AT:-STEPPER_SIZE].reshape(-1, LAYER_SIZE)
        layers[:, LAYER.members] = bound.layers[:, LAYER.members]
        own[STEPPER.threads], own[STEPPER.wave_least] = threads, bound.get("wave_least")

    # The state.

    def _flat(self) -> Array:
        return np.empty(sum(own.states * own.hidden for own in self.parts) * self.batch,
                        self.layer.dtype)  # fmt: skip

    def _split(self, flat: Array) -> list[Array]:
        found, start = [], 0
        for own in self.parts:
            stop = start + own.states * own.hidden * self.batch
            found.append(flat[start:stop].reshape(own.states, self.batch, own.hidden))
            start = stop
        return found

    def state(self, mine: bool = False) -> list[Array]:
        """The state of each layer, (states, B, H), copied. `mine`: the lane is claimed."""
        flat = self._flat()
        _check(self._keep(self.slots, flat, 1, mine))
        return self._split(flat)

    def set_state(self, state: Sequence[Any], mine: bool = False) -> None:
        """Stand at a state, for each layer (states, B, H)."""
        flat = self._flat()
        for target, values in zip(self._split(flat), state, strict=True):
            target[...] = values
        _check(self._keep(self.slots, flat, 0, mine))

    # Weights.

    def update(self, layer: Layer, readout: Readout | None) -> None:
        """Go on with other weights, of a model with the same structure."""
        device, workspace = self.stages.device, self.stages.device.workspace()
        numbers, arrays = [], []
        weights = [device.weights(own, self.batch, workspace) for own in recurrent_layers(layer)]
        for index, own in enumerate(weights):
            tokens = self.tokens and index == 0
            u = own.input.table if tokens else own.input.forth
            second = own.parts[1].forth if len(own.parts) > 1 else own.input.none
            first = LAYERS_AT + index * LAYER_SIZE
            numbers += [first + slot for slot in _WEIGHTS]
            arrays += [u, own.bias, own.parts[0].forth, second, own.params]
        first = len(self.slots) - STEPPER_SIZE
        if readout is not None:
            head = device.head(readout, self.batch, workspace, False, False)
            numbers += [first + STEPPER.v_at, first + STEPPER.c_at]
            arrays += [head.weight.forth, head.bias]
        values = np.array([address_of(array) if array.size else 0 for array in arrays])
        _check(self._adopt(self.slots, np.array(numbers), values))
        # What slots pointed to before is free from here on; what they point to now is kept.
        self.layer, self.readout, self._weights = layer, readout, arrays


def _check(status: int) -> None:
    if status == stepping.BUSY:
        raise InUse(
            "this Stepper is in a long call of another thread, which must end first: give each "
            "thread a Stepper of its own"
        )
