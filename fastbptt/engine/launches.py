"""A chain's kernels, launched from Python: a span of time and a layer each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ..arrays import Array
from ..backends.base import Launching
from .chain import Chain
from .readers import Reader, no_floats, no_ids, read
from .step_cache import StepCache


class Launches:
    """The layers of a chain, one span after another, on a device whose kernels Python launches."""

    def __init__(self, chain: Chain):
        self.chain, self.device = chain, cast(Launching, chain.device)
        xp = self.device.xp
        self.nothing, self.no_ids = no_floats(xp, chain.dtype), no_ids(xp)

    def advance(self, reader: Reader, start: int, stop: int, h: Array | None = None) -> None:
        """Move on without caching; `h`, if given, (stop - start, B, H) takes the top states."""
        chain = self.chain
        x, ids = read(reader, start, stop)
        n = stop - start
        last = len(chain.layers) - 1
        for index, layer in enumerate(chain.recurrences):
            out = self.nothing if index == last else chain.outputs[index][:n]
            if index == last and h is not None:
                out = h
            layer.forward(
                x, ids, chain.scratch[index], chain.live[index], chain.spare[index],
                chain.marks, out, start, stop, chain.row, False,
            )  # fmt: skip
            if index < last:
                x, ids = self._dropped(out, index, start), self.no_ids
        chain.row ^= n & 1

    def begin(self, cache: StepCache, start: int) -> None:
        """Start filling `cache` at the live state."""
        chain = self.chain
        cache.start = cache.stop = start
        for states, live in zip(cache.states, chain.live, strict=True):
            states[:, 0] = live[:, chain.row]

    def extend(
        self, cache: StepCache, reader: Reader, start: int, stop: int, h: Array | None = None
    ) -> None:
        """Move on from the end of `cache`, caching every step in it; `h` as in `advance`."""
        chain = self.chain
        x, ids = read(reader, start, stop)
        n, first = stop - start, start - cache.start
        last = len(chain.layers) - 1
        for index, layer in enumerate(chain.recurrences):
            out = h if index == last and h is not None else self.nothing
            states = cache.states[index]
            layer.forward(
                x, ids, chain.scratch[index], states, cache.residuals[index], chain.marks, out,
                start, stop, first, True,
            )  # fmt: skip
            if index < last:
                own = states[0, first + 1 : first + 1 + n]
                x, ids = self._dropped(own, index, start), self.no_ids
        cache.stop = stop

    def _dropped(self, states: Array, index: int, start: int) -> Array:
        """What the layer above `index` reads: its states, or after dropout a copy."""
        chain = self.chain
        if chain.dropout is None:
            return states
        out = chain.outputs[index][: len(states)]
        chain.dropout.apply(chain.device, out, states, chain.first + index, start)
        return out

    def end(self, cache: StepCache) -> None:
        """Stand at the end of `cache`."""
        chain = self.chain
        for states, live in zip(cache.states, chain.live, strict=True):
            live[:, chain.row] = states[:, cache.stop - cache.start]

    def top(self, cache: StepCache, start: int, stop: int) -> Array:
        """Return the states of the top layer at start..stop, a view (n, B, H) of the cache."""
        first = start - cache.start + 1
        return cache.states[-1][0, first : first + stop - start]

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
        chain = self.chain
        n, first = stop - start, start - cache.start
        for index in range(len(chain.layers) - 1, -1, -1):
            layer, states = chain.recurrences[index], cache.states[index]
            if index == 0:
                x, ids = read(reader, start, stop)
                below = self.nothing if dx is None else dx
            else:
                own = cache.states[index - 1][0, first + 1 : first + 1 + n]
                x, ids = self._dropped(own, index - 1, start), self.no_ids
                below = chain.below[index - 1][:n]
            scratch, whole = chain.scratch[index], deltas is not None
            if deltas is not None:
                rows = self.device.ahead * chain.chunk
                shape = rows, layer.batch, layer.blocks * layer.hidden
                scratch = deltas[index] if layer.deltas_in_order else scratch.reshape(shape)
            current = layer.reverse(
                (x, ids, below), (states, cache.residuals[index], chain.marks),
                (chain.carry[index], dh, scratch), (start, stop, first, chain.current, whole),
                head, chain.flush_steps,
            )  # fmt: skip
            if deltas is not None and not layer.deltas_in_order:
                deltas[index][...] = layer.deltas(scratch[:n])
            if index and chain.dropout is not None:
                chain.dropout.apply(chain.device, below, below, chain.first + index - 1, start)
            dh, head = below, self.device.no_head(chain.dtype)
        chain.current = current

    def forget_before(self, cache: StepCache, start: int) -> None:
        """Move the cached steps from `start` on to the front."""
        shift, steps = start - cache.start, cache.stop - start
        for states, residuals in zip(cache.states, cache.residuals, strict=True):
            for state in states:
                self.device.move_down(state, shift, steps + 1)
            self.device.move_down(residuals, shift, steps)
        cache.start = start
