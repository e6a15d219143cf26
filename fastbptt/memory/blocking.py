"""How a call cuts time into blocks, and which of its bytes go with that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from .optimal import least_feasible
from .plan import Costs

INDEX_BYTES = 40  # a row indexed: a token, a class, a weight, and what checking them takes
CHUNKS_BETWEEN_LAYERS = 4  # chunks of states that a layer passes to the next in one kernel call
_LEAST_ROWS = 16  # rows of the shortest chunk, if there are as many: a product of fewer is slow
_INDEXED = 4  # chunks for which rows are indexed, at least
_INDEXED_ROWS = 1 << 14  # rows indexed where no budget limits them
_FLUSH_ROWS = 4096  # rows that add up in float32 before they are carried into float64


def flush_steps(batch: int) -> int:
    """Steps after which weight gradients are carried into float64: a power of two."""
    return _power_of_two_below(_FLUSH_ROWS // max(1, batch))


def _power_of_two_below(n: int) -> int:
    return 1 << max(0, int(n).bit_length() - 1)


class BlockSizes(NamedTuple):
    """How many steps are done at a time.

    chunk : for which there is scratch; indexed : for which tokens, classes and weights are held;
    call_steps : of a kernel call
    """

    chunk: int
    indexed: int
    call_steps: int

    def _copying(self) -> BlockSizes:
        half = max(1, self.chunk // 2)
        return BlockSizes(half, half, half)

    def _between_layers(self) -> BlockSizes:
        steps = max(self.chunk, min(CHUNKS_BETWEEN_LAYERS * self.chunk, self.call_steps))
        return BlockSizes(self.chunk, steps, steps)


@dataclass(frozen=True)
class Footprint:
    """The bytes that a call needs besides checkpoints and cached steps.

    Attributes
    ----------
    total : T; batch : B
    base : bytes whatever the block sizes
    per_step : bytes of scratch for each step of a chunk, and of a chunk of half the length
    state, step : S and C; all_state, all_step : those of all directions together, if outputs are
        stored, else 0
    fitting : steps whose scratch stays in cache; longest : the steps of a kernel call that keeps
        within its time; flush : steps of a chunk at most
    layers : layers that run together in one direction, each reading the one below
    one_chunk_calls : whether a kernel call is one chunk, which has room for all it reads
    """

    total: int
    batch: int
    base: int
    per_step: int
    state: int
    step: int
    fitting: int
    longest: int
    flush: int
    layers: int = 1
    all_step: int = 0
    all_state: int = 0
    stores_outputs: bool = False
    one_chunk_calls: bool = False

    def blocks(
        self, scratch: int | None = None, *, zero_copy: bool = True, indexed: bool = False
    ) -> BlockSizes:
        """Block sizes for this memory layout and layer.

        Parameters
        ----------
        scratch : bytes to keep within; None where no budget limits them
        zero_copy : whether the kernels read and write every array of the call where it lies
        indexed : whether there are tokens, classes or weights, whose rows are indexed
        """
        blocks = self._free if scratch is None else self._within(scratch)
        if self.one_chunk_calls:
            return blocks
        if self.stores_outputs or not zero_copy:
            return blocks._copying()
        if self.layers > 1:
            return blocks._between_layers()
        return blocks._replace(call_steps=blocks.indexed) if indexed else blocks

    @cached_property
    def _free(self) -> BlockSizes:
        return self._blocks(self.fitting, _INDEXED_ROWS // max(1, self.batch))

    def _within(self, scratch: int) -> BlockSizes:
        return self._blocks(scratch // self._each(_INDEXED), self._free.indexed, scratch)

    def _blocks(self, chunk: int, indexed: int, scratch: int | None = None) -> BlockSizes:
        # Powers of two, if not all of T.
        chunk = max(1, min(chunk, self.fitting, self.flush, self.longest, self.total))
        chunk = chunk if chunk == self.total else _power_of_two_below(chunk)
        if self.one_chunk_calls:
            return BlockSizes(chunk, chunk, chunk)
        if scratch is not None:
            indexed = min(indexed, (scratch - chunk * self.per_step) // self._index_bytes)
        call = _power_of_two_below(self.longest)
        indexed = min(_power_of_two_below(max(_INDEXED * chunk, indexed)), call)
        steps = (max(chunk, min(steps, self.total)) for steps in (indexed, call))
        return BlockSizes(chunk, *steps)

    @property
    def _index_bytes(self) -> int:
        return 0 if self.one_chunk_calls else max(1, INDEX_BYTES * self.batch)

    def _each(self, indexed: int) -> int:
        return self.per_step + indexed * self._index_bytes

    def scratch(self) -> int:
        """Bytes of scratch where no budget limits them."""
        return self._free.chunk * self.per_step + self._free.indexed * self._index_bytes

    def _least_scratch(self) -> int:
        steps = min(self._free.chunk, -(-_LEAST_ROWS // max(1, self.batch)))
        return min(self.scratch(), steps * self._each(_INDEXED))

    def scratch_within(self, budget: int) -> int:
        """Bytes of `budget` to set aside for scratch: at most a third of what can be spared.

        What is left for checkpoints and cached steps never shrinks as the budget grows. Less than
        0 if the budget is too small.
        """
        least = self._least_scratch()
        spare = budget - self.base - least_feasible(self.total, self.state, self.step)
        if spare < least:
            return -1
        return spare - max(spare - self.scratch(), min(2 * spare // 3, spare - least))

    def budget(self, cache_bytes: int) -> int:
        """The least budget that leaves `cache_bytes` for checkpoints and cached steps."""
        least = least_feasible(self.total, self.state, self.step)
        more = max(0, cache_bytes - least)
        scratch = max(min(self.scratch(), -(-more // 2)), self._least_scratch())
        return self.base + least + more + scratch

    def costs(self, steps: int, scratch: int) -> Costs:
        """What a policy plans from, for T = `steps`."""
        all_steps = self.all_step if self.stores_outputs else None
        return Costs(steps, self.batch, self.state, self.step, self.base + scratch, all_steps)
