"""Runs a schedule: the one loop behind full, checkpointed and truncated gradients.

Time is cut into stretches, a kernel call each, short enough for progress and Ctrl-C to be heard.
Within a call the kernels cut it further, and never across the end of a panel, so panels are cut at
the same absolute times whatever the schedule.
"""

from time import monotonic

import numpy as np

from .chain import Leaf
from .kernels.cpu.recurrence import no_head


class Progress:
    """Tells a callable (done, total), at most every 50 ms and at the end."""

    def __init__(self, callback, total):
        self.callback, self.total, self.done, self.told = callback, total, 0, monotonic()

    def add(self, steps):
        self.done += steps
        if self.callback is None:
            return
        now = monotonic()
        if now - self.told >= 0.05 or self.done == self.total:
            self.told = now
            self.callback(self.done, self.total)


def stretches(start, stop, steps):
    """Cut [start, stop) at the multiples of `steps`."""
    while start < stop:
        end = min(stop, (start // steps + 1) * steps)
        yield start, end
        start = end


def backward_stretches(start, stop, steps):
    """The same stretches, last first."""
    while stop > start:
        begin = max(start, (stop - 1) // steps * steps)
        yield begin, stop
        stop = begin


def propagate(chain, source, loss, plan, initial, *, grad_x=None, progress=None):
    """Run `plan`'s schedule and return dL/d(initial state) for each layer.

    `chain` and `loss` hold the gradients and the loss afterwards, the chain's live state is the
    final state. `grad_x` (T, B, I), if given, is filled.
    """
    return _Run(chain, source, loss, plan, initial, grad_x, progress).run()


class _Run:
    def __init__(self, chain, source, loss, plan, initial, grad_x, progress):
        self.chain, self.source, self.loss, self.plan = chain, source, loss, plan
        self.initial, self.grad_x = initial, grad_x
        self.progress = Progress(progress, plan.forward_steps + plan.backward_steps)
        self.since_flush = 0
        size = _whole(plan.cache_bytes + plan.state_bytes, chain)
        self.arena = chain.workspace.empty(size, chain.dtype)
        self.checkpoint = _whole(plan.state_bytes, chain)
        self.stored = []  # positions of the checkpoints at the front of the arena
        self.leaf = None
        self.quiet = None  # zeros for dh, where no loss counts
        if grad_x is not None and not plan.exact:
            self.dx = np.empty((chain.segment, *grad_x.shape[1:]), chain.dtype)
        self.final = None
        self.grad_state = [np.zeros(state.shape, chain.dtype) for state in initial]
        self.continues = False  # whether the carry comes from a later leaf

    def run(self):
        chain = self.chain
        chain.set_state(self.initial)
        chain.begin_reverse()
        for action, *times in self.plan.schedule():
            getattr(self, "_" + action)(*times)
        if self.final is not None:
            chain.set_state(self.final)
        if self.continues:
            self.grad_state = [carried.copy() for carried in chain.carried()]
        chain.flush()
        self.loss.flush()
        return self.grad_state

    def _advance(self, start, stop):
        for a, b in stretches(start, stop, self.chain.segment):
            self.chain.advance(self.source, a, b)
            self.progress.add(b - a)
        self._note_final(stop)

    def _cache(self, start, stop):
        chain = self.chain
        if self.leaf is None:
            self.leaf = self._new_leaf(stop - start)
            chain.begin(self.leaf, start)
        for a, b in stretches(start, stop, chain.segment):
            chain.fill(self.leaf, self.source, a, b)
            self.progress.add(b - a)
        chain.end(self.leaf)
        self._note_final(stop)

    def _new_leaf(self, steps):
        if not self.plan.exact:
            steps = min(self.plan.steps, self.plan.memory.k2)
        return Leaf(self.arena[len(self.stored) * self.checkpoint :], self.chain.recurrences, steps)

    def _note_final(self, stop):
        if stop == self.plan.steps and self.final is None:
            self.final = [state.copy() for state in self.chain.state()]

    def _checkpoint(self, index):
        size = self.checkpoint
        memory = self.arena[index * size : (index + 1) * size]
        parts, used = [], 0
        for state in self.initial:
            parts.append(memory[used : used + state.size].reshape(state.shape))
            used += state.size
        return parts

    def _store(self, position):
        for saved, state in zip(
            self._checkpoint(len(self.stored)), self.chain.state(), strict=True
        ):
            saved[...] = state
        self.stored.append(position)

    def _restore(self, position):
        self.chain.set_state(self._checkpoint(len(self.stored) - 1) if position else self.initial)

    def _discard(self, position):
        self.stored.pop()

    def _reverse(self, start, stop):
        self._back(start, stop)
        self.leaf = None
        self.continues = True

    def _window(self, start, first_loss, stop):
        self.chain.begin_reverse()
        self._back(first_loss, stop)
        self._back(start, first_loss, loss=False)
        if start == 0:
            for total, carried in zip(self.grad_state, self.chain.carried(), strict=True):
                total += carried
        if self.since_flush >= self.chain.panel_steps:
            self._flush()

    def _keep(self, start):
        if start > self.leaf.start:
            self.leaf.forget_before(start)

    def _back(self, start, stop, loss=True):
        chain = self.chain
        if not loss and self.quiet is None:
            self.quiet = np.zeros((chain.chunk, chain.batch, chain.layers[-1].hidden), chain.dtype)
        for a, b in backward_stretches(start, stop, chain.segment):
            if loss:
                dh, head = self.loss.derivative(chain.top(self.leaf, a, b), a)
            else:
                dh, head = self.quiet, no_head(chain.dtype)
            if self.grad_x is None:
                chain.reverse(self.leaf, self.source, a, b, dh, head)
            elif self.plan.exact:
                chain.reverse(self.leaf, self.source, a, b, dh, head, self.grad_x[a:b])
            else:  # windows overlap
                chain.reverse(self.leaf, self.source, a, b, dh, head, self.dx[: b - a])
                self.grad_x[a:b] += self.dx[: b - a]
            self.progress.add(b - a)
            self.since_flush += b - a

    def _flush(self):
        self.chain.flush()
        self.loss.flush()
        self.since_flush = 0


def _whole(size, chain):
    return size // chain.dtype.itemsize
