"""One recurrent layer on the CPU, and its readout, for the length of one call."""

from functools import cache

import numpy as np

from ..cells import CELLS
from . import linear, losses, passes
from .memory import flat
from .products import build_pack, chains, packed_size
from .shared import ready
from .team import hands

READOUTS, LOSSES = losses.READOUTS, losses.LOSSES
NO_IDS = np.empty((0, 0), np.int64)
NO_WEIGHTS = np.empty((0, 0))
NO_TOTAL = np.empty((0, 0))
NO_BIAS = np.empty(0)


@cache
def _passes(cell):
    return passes.build_forward(cell), passes.build_reverse(cell)


@cache
def no_head(dtype):
    """What `Recurrence.reverse` takes for `head` where there is no loss."""
    panel, vector = np.empty((0, 0, 0), dtype), np.empty(0, dtype)
    return (0, 0, 1.0, vector, vector, vector, panel, panel, NO_IDS, NO_WEIGHTS, NO_BIAS, NO_BIAS,
            np.empty((0, 0), dtype), NO_TOTAL, NO_BIAS)  # fmt: skip


class Linear:
    """A weight and a bias, packed for the products, and the running sums of their gradients.

    The gradient of the weight adds up in its own dtype over a panel of time and, if there are
    `several` panels, in float64 across them; that of the bias in float64. Tokens read the weight as
    a table of rows and add to such a table in float64.
    """

    def __init__(self, weight, bias, workspace, threads, several):
        ready(weight.dtype)
        self.workspace = workspace
        self.weight = weight
        self.outputs, self.inputs = weight.shape
        self.dtype = weight.dtype
        self.size = weight.size
        self.threads = threads
        self.several = several and self.dtype != np.float64
        self.bias = np.array(bias) if bias is not None else None
        self.grad = None
        self._forth = self._back = self._table = None

    def _pack(self, transposed):
        inner, columns = self.weight.shape[::-1] if transposed else self.weight.shape
        size = packed_size(inner, columns, self.dtype.itemsize)
        packed = self.workspace.empty(size, self.dtype)
        memory, row_step, column_step = flat(self.weight)
        if transposed:
            row_step, column_step = column_step, row_step
        mail, threads = hands(2 * self.size, self.threads)
        build_pack()(mail, threads, packed, memory, row_step, column_step, inner, columns)
        return packed

    @property
    def forth(self):
        """weight.T in panels, for `x @ weight.T`."""
        if self._forth is None:
            self._forth = self._pack(transposed=True)
        return self._forth

    @property
    def back(self):
        """The weight in panels, for `d @ weight`."""
        if self._back is None:
            self._back = self._pack(transposed=False)
        return self._back

    @property
    def table(self):
        """weight.T, a row for each token."""
        if self._table is None:
            self._table = np.array(self.weight.T, order="C").reshape(-1)
        return self._table

    def start(self, tokens=False):
        """Set the gradients to zero, if they are not there yet."""
        if self.grad is not None:
            return
        self.tokens = tokens
        shape = self.weight.shape
        self.grad = np.zeros((0, 0) if tokens else shape, self.dtype)
        if tokens:
            self.total = np.zeros(shape[::-1])
        else:
            self.total = np.zeros(shape) if self.several else NO_TOTAL
        self.bias_total = NO_BIAS if self.bias is None else np.zeros(self.outputs)

    def flush(self):
        """End a panel."""
        if self.grad is not None and self.total.size and not self.tokens:
            mail, threads = hands(4 * self.size, self.threads)
            linear.build_flush()(mail, threads, self.grad, self.total, False)

    def gradients(self):
        """(weight's gradient, bias's gradient), handed over: the next ones start at zero."""
        self.start()
        grad, total = self.grad, self.total
        if self.tokens:
            grad = np.empty(self.weight.shape, self.dtype)
            grad[...] = total.T
        elif total.size:
            mail, threads = hands(4 * self.size, self.threads)
            linear.build_flush()(mail, threads, grad, total, True)
        self.grad = None
        return grad, None if self.bias is None else self.bias_total.astype(self.dtype)


class Head:
    """The readout of a layer's states, and the loss of its outputs, over stretches of time."""

    def __init__(self, readout, batch, workspace, threads, several):
        self.readout = readout
        self.linear = Linear(readout.V, readout.c, workspace, threads, several)
        self.kind = READOUTS[readout.activation]
        self.batch = batch
        self.threads = threads

    def outputs(self, h, o, lengths, start):
        """o = readout(V h + c) for a stretch (n, B, H) from `start` on, 0 past the lengths."""
        own = self.linear
        mail, threads = hands(h.shape[0] * self.batch * own.size, self.threads)
        losses.build_outputs()(
            mail, threads, self.kind, own.forth, own.bias, h, NO_IDS, o, lengths, start
        )

    def loss(self, kind, factor, h, scratch, y, targets, weights, total, lengths, start):
        """Add the loss at a stretch of states to `total`; scratch: see `begin`."""
        own, (o, values, rows) = self.linear, scratch
        mail, threads = hands(h.shape[0] * self.batch * own.size, self.threads)
        losses.build_loss()(
            mail, threads, self.kind, kind, factor, own.forth, own.bias, h, o, y, targets, weights,
            values, rows, total, o[:0], lengths, start,
        )  # fmt: skip

    def with_loss(self, kind, factor, scratch, y, targets, weights, total):
        """The head of a stretch on the way back: see `passes.build_reverse`."""
        own, (o, values, _) = self.linear, scratch
        own.start()
        return (
            self.kind, kind, factor, own.forth, own.back, own.bias, o, y, targets, weights, values,
            total, own.grad, own.total, own.bias_total,
        )  # fmt: skip


class Recurrence:
    """A layer's weights packed, its passes over time, and its running gradients.

    Arrays: `scratch` (2, chunk, B, G*H); `states` (planes, rows, B, H); `kept` (n, B, kept*H).
    """

    def __init__(self, cell, U, W, b, batch, chunk, workspace, threads, several):
        self.planes = CELLS[cell].states
        self.kept = CELLS[cell].kept
        self.gates = CELLS[cell].gates
        self.hidden = W.shape[1]
        self.batch = batch
        self.chunk = chunk
        self.threads = threads
        self.input = Linear(U, b, workspace, threads, several)
        self.recurrent = Linear(W, None, workspace, threads, several)
        self._forward, self._reverse = _passes(cell)
        item = W.dtype.itemsize
        self.chains = (
            chains(self.hidden, self.gates * self.hidden, item),
            chains(self.gates * self.hidden, self.hidden, item),
        )

    def _hands(self, steps, products):
        work = steps * self.batch * (self.recurrent.size * products + self.input.size)
        mail, threads = hands(work, self.threads)
        members = passes.gang_size(
            threads, self.gates, self.hidden, self.batch, self.recurrent.dtype.itemsize
        )
        parts = passes.sweep_parts(threads, self.batch)
        chunk = self.chunk
        if parts < threads and members == 1:  # the shorter, the less waiting at either end
            cost = self.batch * (self.recurrent.size + 2000)
            while chunk * 8 > steps and chunk * self.batch > 64 and chunk * cost > 1_000_000:
                chunk //= 2
        return mail, threads, parts, members, chunk

    def forward(self, x, ids, scratch, states, kept, lengths, h, start, stop, first, cached):
        """Steps start..stop from row `first` of `states`; `h`, if not empty, takes the states."""
        own = self.input
        self._forward(
            *self._hands(stop - start, 1), start, stop, first, cached, (states, kept, lengths), h,
            scratch, (x, ids, own.table if ids.size else own.forth, own.bias),
            (self.recurrent.forth, self.chains[0]),
        )  # fmt: skip

    def reverse(
        self, x, ids, dx, delta, states, kept, lengths, dh, carry, current, start, stop, first,
        whole, head, lists, panel_steps,
    ):  # fmt: skip
        """Steps stop back to start: adds the gradients, fills `dx`, and `delta` if it is `whole`.

        Returns which half of `carry` is now current. See `passes.build_reverse`.
        """
        own, recurrent = self.input, self.recurrent
        own.start(tokens=ids.size > 0)
        recurrent.start()
        self._reverse(
            *self._hands(stop - start, 3), panel_steps, start, stop, first, current, whole,
            (states, kept, lengths), (carry, dh, delta),
            (x, ids, own.back if dx.size else own.forth[:0], dx, own.grad, own.total,
             own.bias_total),
            (recurrent.back, self.chains[1], recurrent.grad, recurrent.total),
            head, lists,
        )  # fmt: skip
        return current ^ ((stop - start) & 1)

    def flush(self):
        """End a panel of time."""
        self.input.flush()
        self.recurrent.flush()

    def gradients(self):
        """(dU, dW, db), handed over."""
        dU, db = self.input.gradients()
        return dU, self.recurrent.gradients()[0], db
