"""One recurrent layer on the CPU, and its readout, during one call."""

from functools import cache

import numpy as np

from ..layer import LayerHead, LayerRecurrence
from ..loss_table import LOSSES, READOUTS
from . import forward_pass, linear, loss_programs, reverse_pass, split
from .products import chains
from .team import team_for
from .weights import Matrix

NO_IDS = np.empty((0, 0), np.int64)
NO_WEIGHTS = np.empty((0, 0))
NO_TOTAL = np.empty((0, 0))
NO_BIAS = np.empty(0)


@cache
def _passes(cell):
    return forward_pass.build_forward(cell), reverse_pass.build_reverse(cell)


@cache
def no_head(dtype):
    """What `Recurrence.reverse` takes for `head` where there is no loss."""
    sequence, vector = np.empty((0, 0, 0), dtype), np.empty(0, dtype)
    return (
        0, 0, 1.0, vector, vector, vector, sequence, sequence, NO_IDS, NO_WEIGHTS, NO_BIAS,
        NO_BIAS, np.empty((0, 0), dtype), NO_TOTAL, NO_BIAS,
    )  # fmt: skip


class Sum:
    """The running sum of a weight's gradient.

    It adds up in the weight's dtype from flush to flush and, if there are several flushes
    (`multi_flush`), in float64 across them. Tokens add to a table of rows in float64.
    """

    def __init__(self, weight, threads, multi_flush):
        self.weight = weight
        self.threads = threads
        self.multi_flush = multi_flush and weight.dtype != np.float64
        self.grad = None

    def start(self, tokens=False):
        """Set the gradient to zero, if it is not there yet."""
        if self.grad is not None:
            return
        self.tokens = tokens
        shape = self.weight.shape
        self.grad = np.zeros((0, 0) if tokens else shape, self.weight.dtype)
        if tokens:
            self.total = np.zeros(shape[::-1])
        else:
            self.total = np.zeros(shape) if self.multi_flush else NO_TOTAL

    def flush(self):
        """Add the sum since the last flush to the float64 total."""
        if self.grad is not None and self.total.size and not self.tokens:
            mailbox, threads = team_for(4 * self.weight.size, self.threads)
            linear.build_flush()(mailbox, threads, self.grad, self.total, False)

    def gradient(self):
        """Return the gradient; the next one starts at zero."""
        self.start()
        grad, total, own = self.grad, self.total, self.weight
        if self.tokens:
            grad = np.empty(own.shape, own.dtype)
            grad[own.outputs - own.front :] = total.T[: own.front]
            grad[: own.outputs - own.front] = total.T[own.front :]
        elif total.size:
            mailbox, threads = team_for(4 * own.size, self.threads)
            linear.build_flush()(mailbox, threads, grad, total, True)
        self.grad = None
        return grad


class Head(LayerHead):
    """The readout of a layer's states, and the loss of its outputs, over spans of time."""

    def __init__(self, readout, batch, workspace, threads, multi_flush):
        weight = Matrix(workspace, threads, readout.V)
        sum_ = Sum(weight, threads, multi_flush)
        super().__init__(readout, np, batch, weight, sum_, np.array(readout.c))
        self.kind = READOUTS[readout.activation]
        self.threads = threads

    def scratch(self, chunk):
        """Scratch for the outputs, losses and row indices of two chunks."""
        rows = 2 * chunk * self.batch
        shape = 2 * chunk, self.batch, self.readout.outputs
        o = self.weight.workspace.empty(shape, self.readout.dtype)
        return o, np.empty(rows), np.empty(rows, np.int64)

    def outputs(self, h, o, lengths, start):
        """o = readout(V h + c) for a span (n, B, H) from `start` on, 0 past the lengths."""
        own = self.weight
        mailbox, threads = team_for(h.shape[0] * self.batch * own.size, self.threads)
        loss_programs.build_outputs()(
            mailbox, threads, self.kind, own.forth, self.bias, h, NO_IDS, o, lengths, start
        )

    def loss(self, kind, factor, h, scratch, y, targets, weights, total, lengths, start):
        """Add the loss of a span of outputs to `total`; see `loss_programs` for the arguments."""
        own, (o, values, rows) = self.weight, scratch
        mailbox, threads = team_for(h.shape[0] * self.batch * own.size, self.threads)
        loss_programs.build_loss()(
            mailbox, threads, self.kind, LOSSES[kind].number, factor, own.forth, self.bias, h, o, y,
            targets, weights, values, rows, total, o[:0], lengths, start
        )  # fmt: skip

    def loss_and_derivative(
        self, kind, factor, h, scratch, y, targets, weights, total, lengths, start, dh, flush_steps
    ):
        """Like `loss`; `dh` becomes dE/dh, and the readout's gradient adds up."""
        own, sum_, (o, values, rows) = self.weight, self.sum, scratch
        self.start()
        mailbox, threads = team_for(3 * h.shape[0] * self.batch * own.size, self.threads)
        loss_programs.build_loss_and_derivative()(
            mailbox, threads, self.kind, LOSSES[kind].number, factor, own.forth, own.back,
            self.bias, h, o, y, targets, weights, values, rows, total, dh, lengths, start,
            flush_steps, sum_.grad, sum_.total, self.bias_total,
        )  # fmt: skip

    def with_loss(self, kind, factor, scratch, y, targets, weights, total):
        """What `Recurrence.reverse` takes for `head`: see `reverse_pass.build_reverse`."""
        own, sum_, (o, values, _) = self.weight, self.sum, scratch
        self.start()
        return (
            self.kind, LOSSES[kind].number, factor, own.forth, own.back, self.bias, o, y, targets,
            weights, values, total, sum_.grad, sum_.total, self.bias_total,
        )  # fmt: skip

    def flush(self):
        """Add the sums since the last flush to the float64 totals."""
        self.sum.flush()


class Recurrence(LayerRecurrence):
    """A layer's passes over time: `scratch` and `states` as in `forward_pass.build_forward`."""

    def __init__(self, weights, batch, chunk, workspace, threads, multi_flush):
        super().__init__(
            weights, np, batch, chunk, lambda weight: Sum(weight, threads, multi_flush)
        )
        self.threads = threads
        H = self.hidden
        rows = 2 * chunk + 1 if self.cell.second else 0
        self.multiplied = workspace.empty((rows, batch, H), self.dtype)
        self._forward, self._reverse = _passes(self.layer.cell)
        item, first = self.dtype.itemsize, weights.parts[0].outputs
        self.chains = chains(H, first, item), chains(first, H, item), chains(H, H, item)

    def _team_for(self, steps, products):
        inputs, recurrent = self.weights.input.size, self.weights.recurrent.size
        work = steps * self.batch * (recurrent * products + inputs)
        mailbox, threads = team_for(work, self.threads)
        members = split.gang_size(threads, self.cell, self.hidden, self.batch, self.dtype.itemsize)
        parts = split.sweep_parts(threads, self.batch)
        chunk = self.chunk
        if parts < threads and members == 1:  # short chunks: less waiting at both ends of the span
            cost = self.batch * (recurrent + 2000)
            while chunk * 8 > steps and chunk * self.batch > 64 and chunk * cost > 1_000_000:
                chunk //= 2
        return mailbox, threads, parts, members, chunk

    def _weights(self, packed, chained):
        first, *second = (getattr(part, packed) for part in self.weights.parts)
        return (first, chained, second[0] if second else first[:0], self.chains[2],
                self.weights.params, self.multiplied)  # fmt: skip

    def forward(self, x, ids, scratch, states, residuals, lengths, h, start, stop, first, cached):
        """Steps start..stop: see `forward_pass.build_forward`; `scratch` is its z."""
        own = self.weights.input
        self._forward(
            *self._team_for(stop - start, 1),
            start,
            stop,
            first,
            cached,
            (states, residuals, lengths),
            h,
            scratch,
            (x, ids, own.table if ids.size else own.forth, self.weights.bias),
            self._weights("forth", self.chains[0]),
        )

    def reverse(
        self, x, ids, dx, delta, states, residuals, lengths, dh, carry, current, start, stop, first,
        whole, head, indices, flush_steps,
    ):  # fmt: skip
        """Steps stop back to start: adds the gradients, fills `dx`, and `delta` if it is `whole`.

        See `reverse_pass.build_reverse`. Returns the half of `carry` that is now current.
        """
        weight, own, recurrent = self.weights.input, self.input, self.recurrent
        own.start(tokens=ids.size > 0)
        recurrent.start()
        if self.sums is None:
            self.sums = np.zeros(self.blocks * self.hidden)
        self._reverse(
            *self._team_for(stop - start, 3), flush_steps, start, stop, first, current, whole,
            (states, residuals, lengths), (carry, dh, delta),
            (x, ids, weight.back if dx.size else weight.none, dx, own.grad, own.total, self.sums),
            self._weights("back", self.chains[1]), (recurrent.grad, recurrent.total), head, indices,
        )  # fmt: skip
        return current ^ ((stop - start) & 1)

    def flush(self):
        """Add the sums since the last flush to the float64 totals."""
        self.input.flush()
        self.recurrent.flush()
