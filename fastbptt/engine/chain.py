"""The layers of one direction, bottom to top: their state, scratch, carry and gradients.

The chain moves along time a span at a time, each span a kernel call a layer. Its live state is
where it stands; a StepCache takes consecutive steps for the reverse sweep; the carry
is the derivative by the live state on the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arrays import Array
from ..layers.composite import Direction
from ..layers.recurrent import Recurrent
from ..memory.blocking import BlockSizes, flush_steps
from .problem import Problem
from .readers import Reader, no_floats, no_ids, read
from .step_cache import StepCache


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
        self.lengths = device.here(problem.arrays.lengths.values)
        self.chunk, self.call_steps = blocks.chunk, blocks.call_steps
        self.unheard = blocks.unheard
        self.flush_steps = flush_steps(self.batch)
        self.dtype = self.layers[0].dtype
        self.workspace = device.workspace()
        self.recurrences = [
            device.recurrence(
                own, self.batch, self.chunk, self.workspace, multi_flush, shapes.ragged
            )
            for own in weights
        ]
        xp = device.xp
        self.nothing, self.no_ids = no_floats(xp, self.dtype), no_ids(xp)
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

    def advance(self, reader: Reader, start: int, stop: int, h: Array | None = None) -> None:
        """Move on without caching; `h`, if given, (stop - start, B, H) takes the top states."""
        x, ids = read(reader, start, stop)
        n = stop - start
        last = len(self.layers) - 1
        for index, layer in enumerate(self.recurrences):
            out = self.nothing if index == last else self.outputs[index][:n]
            if index == last and h is not None:
                out = h
            layer.forward(
                x, ids, self.scratch[index], self.live[index], self.spare[index],
                self.lengths, out, start, stop, self.row, False,
            )  # fmt: skip
            if index < last:
                x, ids = self._dropped(out, index, start), self.no_ids
        self.row ^= n & 1

    def begin(self, cache: StepCache, start: int) -> None:
        """Start filling `cache` at the live state."""
        cache.start = cache.stop = start
        for states, live in zip(cache.states, self.live, strict=True):
            states[:, 0] = live[:, self.row]

    def extend(
        self, cache: StepCache, reader: Reader, start: int, stop: int, h: Array | None = None
    ) -> None:
        """Move on from the end of `cache`, caching every step in it; `h` as in `advance`."""
        x, ids = read(reader, start, stop)
        n, first = stop - start, start - cache.start
        last = len(self.layers) - 1
        for index, layer in enumerate(self.recurrences):
            out = h if index == last and h is not None else self.nothing
            states = cache.states[index]
            layer.forward(
                x, ids, self.scratch[index], states, cache.residuals[index], self.lengths, out,
                start, stop, first, True,
            )  # fmt: skip
            if index < last:
                own = states[0, first + 1 : first + 1 + n]
                x, ids = self._dropped(own, index, start), self.no_ids
        cache.stop = stop

    def _dropped(self, states: Array, index: int, start: int) -> Array:
        """What the layer above `index` reads: its states, or after dropout a copy."""
        if self.dropout is None:
            return states
        out = self.outputs[index][: len(states)]
        self.dropout.apply(self.device, out, states, self.first + index, start)
        return out

    def end(self, cache: StepCache) -> None:
        """Stand at the end of `cache`."""
        for states, live in zip(cache.states, self.live, strict=True):
            live[:, self.row] = states[:, cache.stop - cache.start]

    def top(self, cache: StepCache, start: int, stop: int) -> Array:
        """Return the states of the top layer at start..stop, a view (n, B, H) of the cache."""
        first = start - cache.start + 1
        return cache.states[-1][0, first : first + stop - start]

    def begin_reverse(self, carry: Sequence[Array] | None = None) -> None:
        """Start back in time with derivative `carry` by the live state, or zero."""
        if self.carry is None:
            self.carry = [self.device.xp.empty_like(live) for live in self.live]
            self.below = [self._buffer(layer.hidden, self.call_steps) for layer in self.layers[:-1]]
            self.indices = self.device.indices(2 * self.chunk * self.batch)
        self.current = 0
        for index, own in enumerate(self.carry):
            own[:, 0] = 0 if carry is None else carry[index]

    def reverse(
        self,
        cache: StepCache,
        reader: Reader,
        start: int,
        stop: int,
        dh: Array,
        head: Any,
        dx: Array | None = None,
        deltas: Sequence[Array] | None = None,
    ) -> None:
        """Go back from stop to start and add the weight gradients, also those of `head`.

        `dh` (n, B, H) is dE/dh of the top layer; where `head` has a loss, scratch for it. Fills
        `dx` (n, B, I) and, for each layer, `deltas`.
        """
        n, first = stop - start, start - cache.start
        for index in range(len(self.layers) - 1, -1, -1):
            layer, states = self.recurrences[index], cache.states[index]
            if index == 0:
                x, ids = read(reader, start, stop)
                below = self.nothing if dx is None else dx
            else:
                own = cache.states[index - 1][0, first + 1 : first + 1 + n]
                x, ids = self._dropped(own, index - 1, start), self.no_ids
                below = self.below[index - 1][:n]
            scratch, whole = self.scratch[index], deltas is not None
            if deltas is not None:
                rows = self.device.ahead * self.chunk
                shape = rows, layer.batch, layer.blocks * layer.hidden
                scratch = deltas[index] if layer.deltas_in_order else scratch.reshape(shape)
            current = layer.reverse(
                x, ids, below, scratch, states,
                cache.residuals[index], self.lengths, dh, self.carry[index], self.current, start,
                stop, first, whole, head, self.indices, self.flush_steps,
            )  # fmt: skip
            if deltas is not None and not layer.deltas_in_order:
                deltas[index][...] = layer.deltas(scratch[:n])
            if index and self.dropout is not None:
                self.dropout.apply(self.device, below, below, self.first + index - 1, start)
            dh, head = below, self.device.no_head(self.dtype)
        self.current = current

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
