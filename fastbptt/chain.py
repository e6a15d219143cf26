"""The recurrent layers of one call, bottom to top: their state, their cache, their gradients.

The chain moves along time in stretches. Its live state is where it stands; a leaf caches every
step of a segment for the reverse sweep; the carry is the derivative by the live state on the way
back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .backends import Backend
from .dropout import Dropout
from .layers import Recurrent
from .sources import Floats, Ids, Lengths, no_floats, no_ids
from .spans import Spans
from .typing import Array


class Leaf:
    """The cache of up to `capacity` consecutive steps, carved out of a flat array."""

    def __init__(
        self, device: Backend, memory: Array, recurrences: Sequence[Any], capacity: int
    ) -> None:
        self.device = device
        self.start = self.stop = 0
        self.states: list[Array] = []
        self.kept: list[Array] = []
        used = 0
        for layer in recurrences:
            rows = layer.batch * layer.hidden
            for parts, steps, planes in (
                (self.states, capacity + 1, layer.planes),
                (self.kept, capacity, layer.kept),
            ):
                size = steps * planes * rows
                parts.append(memory[used : used + size])
                used += size
        for index, layer in enumerate(recurrences):
            B, H = layer.batch, layer.hidden
            self.states[index] = self.states[index].reshape(layer.planes, capacity + 1, B, H)
            self.kept[index] = self.kept[index].reshape(capacity, B, layer.kept * H)
        self.size = used  # numbers
        self.memory = memory[:used]

    def forget_before(self, start: int) -> None:
        """Move the steps from `start` on to the front."""
        shift = start - self.start
        steps = self.stop - start
        for states, kept in zip(self.states, self.kept, strict=True):
            for plane in states:
                self.device.move_down(plane, shift, steps + 1)
            self.device.move_down(kept, shift, steps)
        self.start = start


class Chain:
    """Layers stacked along one direction of time, with the scratch for a chunk of time."""

    def __init__(
        self,
        device: Backend,
        layers: Sequence[Recurrent],
        batch: int,
        lengths: Lengths,
        spans: Spans,
        panel_steps: int,
        several: bool,
        dropout: Dropout | None = None,
        first: int = 0,
        weights: Sequence[Any] | None = None,
    ):
        self.device = device
        self.layers = layers
        self.dropout, self.first = dropout, first
        self.batch = batch
        self.lengths = device.here(lengths.values)
        self.chunk, self.segment = spans.chunk, spans.segment
        self.panel_steps = panel_steps
        self.dtype = layers[0].dtype
        self.workspace = device.workspace()
        if weights is None:
            weights = [device.weights(layer, batch, self.workspace) for layer in layers]
        self.weights = weights
        self.recurrences = [
            device.recurrence(own, batch, spans.chunk, self.workspace, several, lengths.given)
            for own in weights
        ]
        xp = device.xp
        self.nothing, self.no_ids = no_floats(xp, self.dtype), no_ids(xp)
        ahead = device.ahead
        self.panels = [self._panel(ahead * r.blocks * r.hidden) for r in self.recurrences]
        self.outputs = [self._panel(layer.hidden, self.segment) for layer in layers[:-1]]
        self.live = [xp.zeros((r.planes, 2, batch, r.hidden), self.dtype) for r in self.recurrences]
        self.row = 0
        self.spare = [xp.empty((1, batch, r.kept * r.hidden), self.dtype) for r in self.recurrences]
        self.carry: Any = None

    @property
    def state_bytes(self) -> int:
        """S: the bytes of a checkpoint."""
        numbers = sum(r.planes * r.hidden for r in self.recurrences)
        return numbers * self.batch * self.dtype.itemsize

    @property
    def step_bytes(self) -> int:
        """C: the bytes of a cached step."""
        kept = sum(r.kept * r.hidden for r in self.recurrences)
        return self.state_bytes + kept * self.batch * self.dtype.itemsize

    @property
    def plain(self) -> bool:
        """Whether every layer's deltas come out of the kernels as they are handed to callers."""
        return all(recurrence.plain for recurrence in self.recurrences)

    def _panel(self, width: int, steps: int | None = None) -> Array:
        steps = self.chunk if steps is None else steps
        return self.workspace.empty((steps, self.batch, width), self.dtype)

    def set_state(self, state: Sequence[Array]) -> None:
        """Stand at `state`: for each layer (planes, B, H)."""
        for live, values in zip(self.live, state, strict=True):
            self.device.fill(live[:, self.row], values)

    def state(self) -> list[Array]:
        """Return views of the live state, for each layer (planes, B, H)."""
        return [live[:, self.row] for live in self.live]

    def advance(self, source: Floats | Ids, start: int, stop: int, h: Array | None = None) -> None:
        """Move on without caching; `h`, if given, (stop - start, B, H) takes the top states."""
        x, ids = source.stretch(start, stop)
        n = stop - start
        last = len(self.layers) - 1
        for index, layer in enumerate(self.recurrences):
            out = self.nothing if index == last else self.outputs[index][:n]
            if index == last and h is not None:
                out = h
            layer.forward(
                x, ids, self.panels[index], self.live[index], self.spare[index],
                self.lengths, out, start, stop, self.row, False,
            )  # fmt: skip
            if index < last:
                x, ids = self._handed_on(out, index, start), self.no_ids
        self.row ^= n & 1

    def begin(self, leaf: Leaf, start: int) -> None:
        """Start filling `leaf` at the live state."""
        leaf.start = leaf.stop = start
        for states, live in zip(leaf.states, self.live, strict=True):
            states[:, 0] = live[:, self.row]

    def fill(
        self, leaf: Leaf, source: Floats | Ids, start: int, stop: int, h: Array | None = None
    ) -> None:
        """Move on from the end of `leaf`, caching every step in it."""
        x, ids = source.stretch(start, stop)
        n, first = stop - start, start - leaf.start
        last = len(self.layers) - 1
        for index, layer in enumerate(self.recurrences):
            out = h if index == last and h is not None else self.nothing
            states = leaf.states[index]
            layer.forward(
                x, ids, self.panels[index], states, leaf.kept[index], self.lengths, out,
                start, stop, first, True,
            )  # fmt: skip
            if index < last:
                x, ids = (
                    self._handed_on(states[0, first + 1 : first + 1 + n], index, start),
                    self.no_ids,
                )
        leaf.stop = stop

    def _handed_on(self, states: Array, index: int, start: int) -> Array:
        """What the layer above `index` reads: its states, or after dropout a copy."""
        if self.dropout is None:
            return states
        panel = self.outputs[index][: len(states)]
        self.dropout.apply(self.device, panel, states, self.first + index, start)
        return panel

    def end(self, leaf: Leaf) -> None:
        """Stand at the end of `leaf`."""
        for states, live in zip(leaf.states, self.live, strict=True):
            live[:, self.row] = states[:, leaf.stop - leaf.start]

    def top(self, leaf: Leaf, start: int, stop: int) -> Array:
        """Return the states of the top layer at start..stop, a view (n, B, H) of the cache."""
        first = start - leaf.start + 1
        return leaf.states[-1][0, first : first + stop - start]

    def begin_reverse(self, carry: Sequence[Array] | None = None) -> None:
        """Start back in time with derivative `carry` by the live state, or zero."""
        if self.carry is None:
            self.carry = [self.device.xp.empty_like(live) for live in self.live]
            self.below = [self._panel(layer.hidden, self.segment) for layer in self.layers[:-1]]
            self.lists = self.device.lists(2 * self.chunk * self.batch)
        self.current = 0
        for index, own in enumerate(self.carry):
            own[:, 0] = 0 if carry is None else carry[index]

    def reverse(
        self,
        leaf: Leaf,
        source: Floats | Ids,
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
        n, first = stop - start, start - leaf.start
        for index in range(len(self.layers) - 1, -1, -1):
            layer, states = self.recurrences[index], leaf.states[index]
            wide = self.device.ahead * self.chunk, layer.batch, layer.blocks * layer.hidden
            if index == 0:
                x, ids = source.stretch(start, stop)
                below = self.nothing if dx is None else dx
            else:
                handed = leaf.states[index - 1][0, first + 1 : first + 1 + n]
                x, ids = self._handed_on(handed, index - 1, start), self.no_ids
                below = self.below[index - 1][:n]
            scratch, whole = self.panels[index], deltas is not None
            if deltas is not None:
                scratch = deltas[index] if layer.plain else scratch.reshape(wide)
            current = layer.reverse(
                x, ids, below, scratch, states,
                leaf.kept[index], self.lengths, dh, self.carry[index], self.current, start,
                stop, first, whole, head, self.lists, self.panel_steps,
            )  # fmt: skip
            if deltas is not None and not layer.plain:
                deltas[index][...] = layer.deltas(scratch[:n])
            if index and self.dropout is not None:
                self.dropout.apply(self.device, below, below, self.first + index - 1, start)
            dh, head = below, self.device.no_head(self.dtype)
        self.current = current

    def flush(self) -> None:
        """End a panel of the weight gradients."""
        for layer in self.recurrences:
            layer.flush()

    def release(self) -> None:
        """Give back the memory that calls share: nothing more can be asked of this chain."""
        self.workspace.release()

    def carried(self) -> list[Array]:
        """Return views of the derivative by the state before the last stretch, one a layer."""
        return [carry[:, self.current] for carry in self.carry]

    def gradients(self) -> list[Recurrent]:
        """Return a gradient for each layer, of the layer's own type, and start anew."""
        return [recurrence.gradient() for recurrence in self.recurrences]
