"""A lane carried out row by row in Python: where the kernels of a device are launched from there.

Time is cut into spans, a kernel launch each, short enough for progress and Ctrl-C to be heard.
Within a launch the kernels cut it further, and never across a flush, so gradients are carried into
float64 at the same absolute times whatever the schedule.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..arrays import Array
from . import time_views
from .lanes import Consumer, Derivative, Lane, Progress
from .launches import Launches
from .step_cache import StepCache


def spans(start: int, stop: int, steps: int) -> Iterator[tuple[int, int]]:
    """Cut [start, stop) at the multiples of `steps`."""
    while start < stop:
        end = min(stop, (start // steps + 1) * steps)
        yield start, end
        start = end


def backward_spans(start: int, stop: int, steps: int) -> Iterator[tuple[int, int]]:
    """The same spans, last first."""
    while stop > start:
        begin = max(start, (stop - 1) // steps * steps)
        yield begin, stop
        stop = begin


class Walk:
    """One lane's way through its rows: a method for each kind of row."""

    def __init__(self, lane: Lane, progress: Progress):
        self.lane, self.chain, self.progress = lane, lane.chain, progress
        self.launches = Launches(lane.chain)
        self.since_flush = 0
        self.checkpoint = sum(state.size for state in lane.initial)  # numbers
        self.stored = lane.stored  # checkpoints at the front of the arena
        self.cache: Any = lane.cache
        self.zeros: Any = None  # for dh, where no loss counts
        # Whether the carry comes from later steps; each window has its own.
        self.continues = lane.carry is not None and lane.room is None

    def walk(self) -> None:
        lane, chain = self.lane, self.chain
        chain.set_state(lane.initial)
        if lane.loss is not None:
            chain.begin_reverse(lane.carry)
            xp = chain.device.xp
            lane.grad_state = [xp.zeros(state.shape, chain.dtype) for state in lane.initial]
        if lane.steps == 0:
            self._note_final(0)
        for action, *times in lane.rows:
            getattr(self, "_" + action)(*times)
        if lane.loss is not None:
            if self.continues:
                lane.grad_state = [carried.copy() for carried in chain.carried()]
            chain.flush()
            lane.loss.flush()
        lane.stored = self.stored
        if self.cache is not None:
            lane.cached = self.cache.start, self.cache.stop

    def _advance(self, start: int, stop: int) -> None:
        for a, b in spans(start, stop, self.chain.call_steps):
            h = self._room_for_outputs(a, b)
            self.launches.advance(self.lane.reader, a, b, h)
            self._hand_over_outputs(h, a, b)
            self._did(b - a)
        self._note_final(stop)

    def _cache(self, start: int, stop: int) -> None:
        chain, lane = self.chain, self.lane
        if self.cache is None:
            assert lane.arena is not None
            room = lane.arena[self.stored * self.checkpoint :]
            steps = lane.room or stop - start
            self.cache = StepCache(room, chain.recurrences, steps)
        if self.cache.stop == self.cache.start:
            self.launches.begin(self.cache, start)
        for a, b in spans(start, stop, chain.call_steps):
            h = self._room_for_outputs(a, b)
            self.launches.extend(self.cache, lane.reader, a, b, h)
            self._hand_over_outputs(h, a, b)
            self._did(b - a)
        self.launches.end(self.cache)
        self._note_final(stop)

    def _room_for_outputs(self, start: int, stop: int) -> Array | None:
        out = self.lane.outputs
        if out is None:
            return None
        if isinstance(out, Consumer):
            return out.buffer[: stop - start]
        return time_views.buffer(out, start, stop)

    def _hand_over_outputs(self, h: Array | None, start: int, stop: int) -> None:
        out = self.lane.outputs
        if isinstance(out, Consumer):
            assert h is not None
            out.work(h, start)
        elif out is not None:
            time_views.commit(out, start, stop)

    def _did(self, steps: int) -> None:
        self.chain.device.wait()
        self.progress.add(steps)

    def _note_final(self, stop: int) -> None:
        if stop == self.lane.steps and not self.lane.final:
            self.lane.final = [state.copy() for state in self.chain.state()]

    def _checkpoint(self, index: int) -> list[Array]:
        size = self.checkpoint
        assert self.lane.arena is not None
        memory = self.lane.arena[index * size : (index + 1) * size]
        parts, used = [], 0
        for state in self.lane.initial:
            parts.append(memory[used : used + state.size].reshape(state.shape))
            used += state.size
        return parts

    def _store(self, position: int) -> None:
        stored = self._checkpoint(self.stored)
        for saved, state in zip(stored, self.chain.state(), strict=True):
            saved[...] = state
        self.stored += 1

    def _restore(self, position: int) -> None:
        initial = self.lane.initial
        self.chain.set_state(self._checkpoint(self.stored - 1) if position else initial)

    def _discard(self, position: int) -> None:
        self.stored -= 1

    def _reverse(self, start: int, stop: int) -> None:
        self._back(start, stop)
        self.cache = None
        self.continues = True

    def _window(self, start: int, first_loss: int, stop: int) -> None:
        self.chain.begin_reverse(self.lane.carry if stop == self.lane.steps else None)
        self._back(first_loss, stop)
        self._back(start, first_loss, loss=False)
        if start == 0:
            for total, carried in zip(self.lane.grad_state, self.chain.carried(), strict=True):
                total += carried
        if self.since_flush >= self.chain.flush_steps:
            self.chain.flush()
            self._loss.flush()
            self.since_flush = 0

    def _keep(self, start: int) -> None:
        if start > self.cache.start:
            self.launches.forget_before(self.cache, start)

    @property
    def _loss(self) -> Derivative:
        assert self.lane.loss is not None  # rows that go back belong to lanes with a loss
        return self.lane.loss

    def _back(self, start: int, stop: int, loss: bool = True) -> None:
        chain, lane = self.chain, self.lane
        if not loss and self.zeros is None:
            shape = chain.chunk, chain.batch, chain.layers[-1].hidden
            self.zeros = chain.device.xp.zeros(shape, chain.dtype)
        dx = None
        for a, b in backward_spans(start, stop, lane.back_steps or chain.call_steps):
            if loss:
                dh, head = self._loss.derivative(self.launches.top(self.cache, a, b), a)
            else:
                dh, head = self.zeros, self.launches.device.no_head(chain.dtype)
            if lane.grad_x is not None:
                dx = time_views.buffer(lane.grad_x, a, b)
            deltas = None
            if lane.deltas:
                deltas = [time_views.buffer(out, a, b) for out in lane.deltas]
            self.launches.reverse(self.cache, lane.reader, a, b, dh, head, dx, deltas)
            if lane.grad_x is not None:
                time_views.commit(lane.grad_x, a, b)
            for out in lane.deltas:
                time_views.commit(out, a, b)
            self._did(b - a)
            self.since_flush += b - a
