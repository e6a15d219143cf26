"""A lane carried out by compiled code: what Python still does for it, and when.

Compiled code makes the copies that spans need (`copies`). The walk (`kernels.cpu.walk`) returns
where it cannot: for a caller's own loss, for what takes outputs as they come, for arrays whose
numbers it does not know, and for an id that does not exist, since the reader's error names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..arrays import Array
from ..kernels.cpu import passes, split
from ..kernels.cpu.bound import Bound
from ..kernels.cpu.slots import (
    ADD_STATE,
    DONE,
    FLUSH,
    LAYER,
    READ,
    READ_BACK,
    WRITE,
    WRITE_BACK,
)
from . import copies, time_views
from .copies import Copy
from .lanes import Consumer, Lane, Progress
from .readers import TokenReader, read
from .row_blocks import row_blocks
from .time_views import TimeView


class CompiledWalk:
    """One lane's way through its rows."""

    def __init__(self, lane: Lane, progress: Progress):
        self.lane, self.chain, self.progress = lane, lane.chain, progress
        chain, device = lane.chain, lane.chain.device
        self.bound = Bound(chain.recurrences, chain.batch, chain.dtype, device.threads)
        self.final = [np.empty(state.shape, chain.dtype) for state in lane.initial]
        self._bind()

    def _bind(self) -> None:
        bound, lane, chain = self.bound, self.lane, self.chain
        arena = lane.arena
        bound.set(
            chunk=chain.chunk, steps=lane.steps, between_steps=chain.call_steps,
            flush_steps=chain.flush_steps, room=lane.room or 0, stored=lane.stored,
            checkpoint=sum(s.size for s in lane.initial) * chain.dtype.itemsize,
        )  # fmt: skip
        bound.point(marks=chain.marks)
        bound.set(resets=chain.resets)
        if chain.pieces is not None:
            bound.point(mirror=chain.pieces)
        if arena is not None:
            bound.point(arena=arena)
        tokens = isinstance(lane.reader, TokenReader)
        self._bind_reader()
        cache, back = lane.cache, lane.loss is not None
        last = len(chain.recurrences) - 1
        runs = not back or arena is not None  # else all steps are cached already
        for index, own in enumerate(chain.recurrences):
            reads_tokens = tokens and index == 0
            arrays = (
                chain.scratch[index], chain.live[index], chain.spare[index],
                np.ascontiguousarray(lane.initial[index]), self.final[index],
            )  # fmt: skip
            own.bind(bound, index, reads_tokens, runs, arrays)
            if index < last:
                bound.point_layer(index, outputs=chain.outputs[index])
                self._bind_dropout(index)
            if cache is not None:
                states, residuals = cache.states[index], cache.residuals[index]
                bound.point_layer(index, states=states, residuals=residuals)
                bound.layers[index, LAYER.rows] = states.shape[1]
        if cache is not None:
            start, stop = cache.start, cache.stop
            bound.set(carved=1, cache_start=start, cache_stop=stop, cache_base=start)
        bound.work *= lane.steps
        self._bind_outputs()
        if back:
            self._bind_back(tokens)
        bound.set(continues=lane.carry is not None and lane.room is None)
        bound.end_copies()
        self._bind_spans()
        self._bind_leaves()

    def _bind_spans(self) -> None:
        """Layers go side by side in a span: where nothing is done between spans, they are long."""
        bound, chain = self.bound, self.chain
        forth, back = chain.call_steps, self.lane.back_steps or chain.call_steps
        if len(chain.recurrences) > 1:
            if bound.nothing_between_spans(READ, WRITE):
                forth = max(forth, chain.unheard)
            if bound.nothing_between_spans(READ_BACK, WRITE_BACK):
                back = max(back, chain.unheard)
        bound.set(call_steps=forth, back_steps=back)

    def _bind_leaves(self) -> None:
        """Have a leaf be run while the one before it is gone back over, if nothing forbids it."""
        bound, chain, arena = self.bound, self.chain, self.lane.arena
        moments = READ, WRITE, READ_BACK, WRITE_BACK
        if arena is None or not chain.ahead or chain.resets:
            return
        if not bound.nothing_between_spans(*moments):
            return
        (own,) = chain.recurrences
        z, v = own.scratch_ahead(chain.workspace)
        bound.run_ahead(chain.chunk, arena, z, v)

    def _bind_dropout(self, index: int) -> None:
        dropout, row = self.chain.dropout, self.bound.layers[index]
        if dropout is None:
            return
        from ..kernels.masks import key_of

        row[LAYER.drop] = passes.drop(self.chain.dtype).address
        numbers = row.view(np.uint64)
        numbers[LAYER.mask_key] = key_of(dropout.seed, self.chain.first + index)
        numbers[LAYER.mask_threshold] = dropout.threshold
        row.view(np.float64)[LAYER.mask_scale] = dropout.scale
        row[LAYER.mask_start], row[LAYER.mask_first] = dropout.t0, dropout.first

    def _bind_reader(self) -> None:
        reader, bound = self.lane.reader, self.bound
        if isinstance(reader, TokenReader) or reader.buffer is not None:
            bound.place("x", reader.buffer, False)
        else:
            bound.place("x", reader.array, True)
        self._copy(READ, copies.of_input(reader))

    def _place(self, name: str, view: TimeView) -> None:
        """Have spans be written to a view, or to its buffer."""
        whole = view.buffer is None
        self.bound.place(name, view.array if view.buffer is None else view.buffer, whole)

    def _copy(self, moment: int, own: list[Copy] | None) -> None:
        """Have compiled code make copies at a moment, or Python if it has more to do then."""
        if own is None or not all(copy.possible for copy in own):
            self.bound.ask(moment)
            return
        for copy in own:
            self.bound.copy(moment, copy)

    def _bind_outputs(self) -> None:
        out, bound = self.lane.outputs, self.bound
        if isinstance(out, Consumer):
            bound.place("h", out.buffer, False)
            self._copy(WRITE, None)
        elif out is not None:
            self._place("h", out)
            self._copy(WRITE, copies.of_outputs([out]))

    def _bind_back(self, tokens: bool) -> None:
        bound, lane, chain = self.bound, self.lane, self.chain
        assert lane.loss is not None
        chain.begin_reverse(lane.carry)
        lane.grad_state = [np.zeros(state.shape, chain.dtype) for state in lane.initial]
        self.zeros = np.zeros((0, 0, 0), chain.dtype)
        if lane.room is not None:
            self.zeros = np.zeros((chain.chunk, chain.batch, chain.layers[-1].hidden), chain.dtype)
        if lane.carry is not None:  # kept for the last window, where there are windows
            for index, given in enumerate(lane.carry):
                bound.point_layer(index, final_carry=np.ascontiguousarray(given))
        rows, p_rows, counts = chain.indices
        bound.point(zeros=self.zeros, rows=rows, p_rows=p_rows, counts=counts)
        last = len(chain.recurrences) - 1
        for index, own in enumerate(chain.recurrences):
            input_grad = index > 0 or lane.grad_x is not None
            arrays = (chain.carry[index], *self._copies(index, own))
            own.bind_back(bound, index, tokens and index == 0, input_grad, arrays)
            if index < last:
                bound.point_layer(index, below=chain.below[index])
                if split.flows(chain.batch):  # of the top layer they are those of the lane
                    _, p_rows, counts = chain.new_indices()
                    bound.point_layer(index, p_rows=p_rows, counts=counts)
        if lane.grad_x is not None:
            self._place("dx", lane.grad_x)
        self._bind_deltas()
        scored = lane.loss.bind(bound)
        self._copy(READ_BACK, None if scored is None else copies.of_input(lane.reader) + scored)

    def _bind_deltas(self) -> None:
        bound, lane, chain = self.bound, self.lane, self.chain
        bound.set(whole=len(lane.deltas) > 0)
        for index, (view, own) in enumerate(zip(lane.deltas, chain.recurrences, strict=False)):
            if own.deltas_in_order and view.buffer is None:
                bound.place_deltas(index, view.array, True)
                continue
            target = view.buffer if own.deltas_in_order else chain.scratch[index]
            assert target is not None
            bound.place_deltas(index, target, False)
        views = [*lane.deltas] if lane.grad_x is None else [lane.grad_x, *lane.deltas]
        ordered = not lane.deltas or chain.deltas_in_order  # else Python brings them in order
        self._copy(WRITE_BACK, copies.of_gradients(views) if ordered else None)

    def _copies(self, index: int, own: Any) -> tuple[Array, Array | None]:
        """Room for what the gradients of a span's last chunk still read: its states and x."""
        chain = self.chain
        shape = (chain.chunk + 1) * split.flows(chain.batch), chain.batch
        states = chain.workspace.empty((*shape, own.hidden), chain.dtype)
        if index == 0:
            if not isinstance(self.lane.reader, TokenReader):
                return states, None
            # Tokens, which take 8 bytes: the next span is read into the same buffer.
            return states, chain.workspace.empty((*shape, 8 // chain.dtype.itemsize), chain.dtype)
        # The states of the layer below, in the step cache too.
        below = chain.recurrences[index - 1].hidden
        return states, chain.workspace.empty((*shape, below), chain.dtype)

    def blocks(self, one_by_one: bool) -> Iterator[Array]:
        """The rows as blocks of numbers."""
        if not one_by_one:
            return row_blocks(self.lane.rows)
        return (block for row in self.lane.rows for block in row_blocks([row]))

    def begin(self) -> None:
        """Stand at the initial state."""
        lane, chain = self.lane, self.chain
        if lane.steps == 0:
            self.final = [state.copy() for state in lane.initial]
        chain.row = 0
        chain.set_state(lane.initial)

    def end(self) -> None:
        """Hand over what the lane has found, once its rows are done."""
        lane, chain, bound = self.lane, self.chain, self.bound
        lane.final = self.final if bound.get("noted") or lane.steps == 0 else []
        lane.stored = bound.get("stored")
        lane.cached = bound.get("cache_start"), bound.get("cache_stop")
        if lane.cache is not None:
            lane.cache.start, lane.cache.stop = lane.cached
        chain.row, chain.current = bound.get("live"), bound.get("current")
        if lane.loss is not None:
            if bound.get("continues"):
                lane.grad_state = [carried.copy() for carried in chain.carried()]
            chain.flush()
            lane.loss.flush()

    def answer(self) -> int:
        """Do what the walk has returned for; returns its status."""
        bound = self.bound
        status: int = bound.status
        self.chain.device.wait()
        if used := bound.get("used"):
            self.progress.add(used)
        if status == READ:
            self._read()
        elif status == WRITE:
            self._write()
        elif status == READ_BACK:
            self._read_back()
        elif status == WRITE_BACK:
            self._write_back()
        elif status == ADD_STATE:
            self.chain.current = bound.get("current")
            for total, carried in zip(self.lane.grad_state, self.chain.carried(), strict=True):
                total += carried
        elif status == FLUSH:
            self.chain.flush()
            assert self.lane.loss is not None
            self.lane.loss.flush()
        return status

    def _span(self) -> tuple[int, int]:
        return self.bound.get("start"), self.bound.get("stop")

    def _read(self) -> None:
        read(self.lane.reader, *self._span())

    def _write(self) -> None:
        (a, b), out = self._span(), self.lane.outputs
        if isinstance(out, Consumer):
            out.work(out.buffer[: b - a], a)
        elif out is not None:
            time_views.commit(out, a, b)

    def _read_back(self) -> None:
        a, b = self._span()
        self._read()
        loss, bound = self.lane.loss, self.bound
        if bound.get("leg") == 0:
            assert loss is not None
            loss.fetch(bound, self._top(a, b), a)

    def _top(self, start: int, stop: int) -> Any:
        """The states of the top layer at start..stop, a function, since few losses read them."""

        def states() -> Array:
            lane, chain, bound = self.lane, self.chain, self.bound
            H = chain.layers[-1].hidden
            row = bound.layers[-1]
            first = (start - bound.get("cache_base")) % (int(row[LAYER.rows]) - 1) + 1
            if lane.arena is None:
                assert lane.cache is not None
                return lane.cache.states[-1][0, first : first + stop - start]
            at = (int(row[LAYER.states_at]) - bound.get("arena_at")) // chain.dtype.itemsize
            size = chain.batch * H
            memory = lane.arena[at + first * size : at + (first + stop - start) * size]
            return memory.reshape(stop - start, chain.batch, H)

        return states

    def _write_back(self) -> None:
        lane, chain = self.lane, self.chain
        a, b = self._span()
        if lane.grad_x is not None:
            time_views.commit(lane.grad_x, a, b)
        for index, (out, own) in enumerate(zip(lane.deltas, chain.recurrences, strict=False)):
            if not own.deltas_in_order:
                flat = chain.scratch[index].reshape(-1)
                width = own.blocks * own.hidden
                blocks = flat[: (b - a) * chain.batch * width].reshape(b - a, chain.batch, width)
                time_views.buffer(out, a, b)[...] = own.deltas(blocks)
            time_views.commit(out, a, b)


def walk(walks: Sequence[CompiledWalk]) -> None:
    """Carry out a lane, or two at once: neither begins a row before both have ended the one before.

    Two have few rows, which are handed over one by one.
    """
    for own in walks:
        own.begin()
    budget = walks[0].chain.unheard
    for blocks in zip(*(own.blocks(one_by_one=len(walks) > 1) for own in walks), strict=True):
        going = list(zip(walks, blocks, strict=True))
        for own, block in going:
            own.bound.begin_rows(len(block))
        while going:
            own, block = going[0]
            if len(going) == 1:
                own.bound.walk(block, budget)
            else:
                other, other_block = going[1]
                own.bound.walk_beside(block, other.bound, other_block, budget)
            going = [pair for pair in going if pair[0].answer() != DONE]
    for own in walks:
        own.end()
