"""How a call cuts time into blocks, and how many bytes that takes.

From long to short: a *call* is the steps of one kernel call; a *flush* is the steps whose weight
gradients are summed in the dtype of the weights, before they are added in float64; a *chunk* is the
steps that have scratch at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from .optimal import least_feasible
from .plan import Costs

# Of one indexed row: a token, a class, a weight, their checks; and a chunk's tokens once more.
INDEX_BYTES = 40
CHUNKS_BETWEEN_LAYERS = 4  # chunks of states that a layer passes to the next per kernel call
_LEAST_ROWS = 16  # rows of the shortest chunk, if there are so many: products of fewer are slow
_LEAST_PART_ROWS = 16  # of a part of a leaf that is run beside another
_LEAF_PARTS = 4  # of the longest leaf at least: the next one takes the place of those done with
_PARTS = 16  # of the longest leaf for which there is room whatever the budget
_SLOTS = 1 << 12  # bytes by which two leaves beside each other are told what to do
_INDEXED = 4  # rows are indexed for at least so many chunks
_INDEXED_ROWS = 1 << 14  # rows that are indexed at a time where no budget limits them
_FLUSH_ROWS = 4096  # rows of a flush


def flush_steps(batch: int) -> int:
    """Steps of a flush: a power of two."""
    return _power_of_two_below(_FLUSH_ROWS // max(1, batch))


def _power_of_two_below(n: int) -> int:
    return 1 << max(0, int(n).bit_length() - 1)


class BlockSizes(NamedTuple):
    """How many steps are done at a time.

    chunk : steps that there is scratch for
    indexed : steps whose tokens, classes and loss weights are checked and indexed together
    call_steps : steps of a kernel call
    unheard : steps after which compiled schedules come back to Python, to hear Ctrl-C
    ahead : bytes of room for a leaf that is run while the one before it is gone back over, beyond
        those of the longest; 0 where that is not done
    """

    chunk: int
    indexed: int
    call_steps: int
    unheard: int
    ahead: int = 0

    def _copying(self) -> BlockSizes:
        half = max(1, _power_of_two_below(self.chunk // 2))
        return BlockSizes(half, half, half, self.unheard)

    def _between_layers(self) -> BlockSizes:
        steps = max(self.chunk, min(CHUNKS_BETWEEN_LAYERS * self.chunk, self.call_steps))
        return BlockSizes(self.chunk, steps, steps, self.unheard)


@dataclass(frozen=True)
class Footprint:
    """The bytes that a call needs besides checkpoints and cached steps.

    Attributes
    ----------
    total : T
    batch : B
    base : bytes that do not depend on the block sizes
    per_step : bytes of scratch per step of a chunk; enough also where a call copies its input and
        has chunks of half the length
    state, step : S and C, the bytes of a checkpoint and of a cached step
    fitting : steps whose scratch stays in the processor's cache
    longest : steps of a kernel call that keeps within its time
    flush : the most steps of a chunk
    layers : layers that run together in one direction, each reading the one below
    all_step, all_state : C and S of all directions together if outputs are stored, else 0
    stores_outputs : whether outputs are stored for all T
    one_chunk_calls : whether a kernel call is one chunk, whose scratch includes all that it reads
    apart : whether it is that of `forward` and `backward`: see `engine.footprint`
    ahead : bytes of scratch per step of a leaf that is run while another is gone back over; 0 where
        that is not done
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
    apart: bool = False
    ahead: int = 0

    def blocks(
        self,
        scratch: int | None = None,
        *,
        zero_copy: bool = True,
        indexed: bool = False,
        leaf: int = 0,
    ) -> BlockSizes:
        """Block sizes for this memory layout and layer.

        Parameters
        ----------
        scratch : bytes to keep within; None where no budget limits them
        zero_copy : whether the kernels read and write every array of the call without a copy
        indexed : whether there are tokens, classes or loss weights, whose rows are indexed
        leaf : the most steps of a leaf, if one may be run while the one before is gone back over
        """
        blocks = self._free if scratch is None else self._within(scratch)
        if self.one_chunk_calls:
            return blocks
        if self.stores_outputs or not zero_copy:
            return blocks._copying()
        if self.layers > 1:
            return blocks._between_layers()
        if indexed:
            return blocks._replace(call_steps=blocks.indexed)
        return self._beside(blocks, self.scratch() if scratch is None else scratch, leaf)

    def _beside(self, blocks: BlockSizes, scratch: int, leaf: int) -> BlockSizes:
        """The longest chunks, if any, that leave room in the scratch to run a leaf ahead.

        A chunk is a part of the leaf: there is one part more than in a leaf, and a state in each.
        """
        least = self._least_part()
        chunk = min(blocks.chunk, max(least, _power_of_two_below(leaf // _LEAF_PARTS)))
        while self.ahead and leaf and chunk >= least:
            room = chunk * self.step + (leaf // chunk + 3) * self.state
            if room + chunk * (self.per_step + self.ahead) + self.state + _SLOTS <= scratch:
                return blocks._replace(chunk=chunk, ahead=room)
            chunk //= 2
        return blocks

    def _least_part(self) -> int:
        """Steps of the shortest part of a leaf that is run beside another."""
        return 2 * _power_of_two_below(max(1, -(-_LEAST_PART_ROWS // max(1, self.batch)) - 1))

    @cached_property
    def _free(self) -> BlockSizes:
        return self._blocks(self.fitting, _INDEXED_ROWS // max(1, self.batch))

    def _within(self, scratch: int) -> BlockSizes:
        return self._blocks(scratch // self._each(_INDEXED), self._free.indexed, scratch)

    def _blocks(self, chunk: int, indexed: int, scratch: int | None = None) -> BlockSizes:
        # A chunk is all of T or a power of two.
        chunk = max(1, min(chunk, self.fitting, self.flush, self.longest, self.total))
        chunk = chunk if chunk == self.total else _power_of_two_below(chunk)
        if self.one_chunk_calls:
            return BlockSizes(chunk, chunk, chunk, chunk)
        if scratch is not None:
            indexed = min(indexed, (scratch - chunk * self.per_step) // self._index_bytes)
        call = _power_of_two_below(self.longest)
        indexed = min(_power_of_two_below(max(_INDEXED * chunk, indexed)), call)
        indexed, steps = (max(chunk, min(steps, self.total)) for steps in (indexed, call))
        return BlockSizes(chunk, indexed, steps, call)

    @property
    def _index_bytes(self) -> int:
        return 0 if self.one_chunk_calls else max(1, INDEX_BYTES * self.batch)

    def _each(self, indexed: int) -> int:
        return self.per_step + indexed * self._index_bytes

    def scratch(self) -> int:
        """Bytes of scratch where no budget limits them."""
        return self._free.chunk * self.per_step + self._free.indexed * self._index_bytes

    @property
    def first(self) -> int:
        """Bytes of the state before the first of the cached steps, of all directions."""
        return self.all_state or self.state

    def _least_scratch(self) -> int:
        steps = min(self._free.chunk, -(-_LEAST_ROWS // max(1, self.batch)))
        least = steps * self._each(_INDEXED)
        if self.ahead:  # room for a leaf of many short parts beside another
            part = self._least_part() * (self.per_step + self.ahead + self.step)
            least = max(least, part + _PARTS * self.state + _SLOTS)
        return min(self.scratch(), least)

    def scratch_within(self, budget: int) -> int:
        """Bytes of `budget` to set aside for scratch; less than 0 if the budget is too small.

        At most a third of the bytes beyond the least that works. The bytes that are left for
        checkpoints and cached steps never become fewer as the budget grows.
        """
        least = self._least_scratch()
        spare = budget - self.base - least_feasible(self.total, self.state, self.step)
        if spare < least:
            return -1
        return spare - max(spare - self.scratch(), min(2 * spare // 3, spare - least))

    def budget(self, cache_bytes: int) -> int:
        """Smallest budget (bytes) that leaves `cache_bytes` for checkpoints and cached steps."""
        least = least_feasible(self.total, self.state, self.step)
        more = max(0, cache_bytes - least)
        scratch = max(min(self.scratch(), -(-more // 2)), self._least_scratch())
        return self.base + least + more + scratch

    def costs(self, steps: int, scratch: int) -> Costs:
        """The Costs that a policy plans with, for T = `steps`."""
        all_steps = self.all_step if self.stores_outputs else None
        fixed = self.base + scratch
        return Costs(steps, self.batch, self.state, self.step, fixed, all_steps, self.apart)
