"""One recurrent layer on the CPU, and its readout, during one call."""

import numpy as np

from ..layer import LayerHead, LayerRecurrence
from ..loss_table import LOSSES, READOUTS
from . import linear, loss_programs
from .passes import passes
from .products import chains
from .slots import HEAD, LAYER
from .team import team_for
from .weights import Matrix

NO_IDS = np.empty((0, 0), np.int64)
NO_TOTAL = np.empty((0, 0))


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

    def bind(self, bound, kind, factor, scratch, total):
        """Have a lane end in this readout and a loss."""
        own, sum_, (o, values, _) = self.weight, self.sum, scratch
        self.start()
        row = bound.head
        row[HEAD.readout], row[HEAD.loss] = self.kind, LOSSES[kind].number
        row[HEAD.factor : HEAD.factor + 1].view(np.float64)[0] = factor
        row[HEAD.outputs] = own.outputs
        bound.point_head(
            v=own.forth, v_back=own.back, c=self.bias, o=o, values=values, total=total,
            dv=sum_.grad, dc=self.bias_total,
        )  # fmt: skip
        if sum_.total.size:
            bound.point_head(dv_total=sum_.total)
        bound.work += 3 * self.batch * own.size

    def flush(self):
        """Add the sums since the last flush to the float64 totals."""
        self.sum.flush()


class Recurrence(LayerRecurrence):
    """A layer's passes over time, which the walk of a lane calls: see `bound`."""

    def __init__(self, weights, batch, chunk, workspace, threads, multi_flush):
        super().__init__(
            weights, np, batch, chunk, lambda weight: Sum(weight, threads, multi_flush)
        )
        self.threads = threads
        H = self.hidden
        rows = 2 * chunk + 1 if self.cell.second else 0
        self.multiplied = workspace.empty((rows, batch, H), self.dtype)

    @property
    def work(self):
        """Multiply-adds of a step forward."""
        return self.batch * (self.weights.input.size + self.weights.recurrent.size)

    def bind(self, bound, index, tokens):
        """Have a layer of a lane be this one: its sizes and its passes."""
        own, H = self.weights, self.hidden
        row = bound.layers[index]
        compiled = passes(self.layer.cell, self.dtype)
        row[LAYER.forward], row[LAYER.reverse], row[LAYER.left] = (one.address for one in compiled)
        row[LAYER.hidden], row[LAYER.states], row[LAYER.residuals] = H, self.states, self.residuals
        row[LAYER.inputs], row[LAYER.tokens] = own.input.inputs, tokens
        row[LAYER.v_rows] = len(self.multiplied)
        item, first = self.dtype.itemsize, own.parts[0].outputs
        row[LAYER.w_chains], row[LAYER.w_back_chains] = (
            chains(H, first, item),
            chains(first, H, item),
        )
        row[LAYER.second_chains] = chains(H, H, item)
        bound.point_layer(index, params=own.params, v=self.multiplied)
        bound.work += self.work

    def bind_forward(self, bound, index, tokens):
        """Have a layer of a lane run forward with these weights."""
        own = self.weights
        u = own.input.table if tokens else own.input.forth
        bound.point_layer(index, u=u, bias=own.bias, w=own.parts[0].forth)
        if len(own.parts) > 1:
            bound.point_layer(index, second=own.parts[1].forth)

    def bind_reverse(self, bound, index, tokens, input_grad):
        """Have a layer of a lane go back, and add to these gradients."""
        own, grads, recurrent = self.weights, self.input, self.recurrent
        grads.start(tokens)
        recurrent.start()
        if self.sums is None:
            self.sums = np.zeros(self.blocks * self.hidden)
        bound.point_layer(
            index, w_back=own.parts[0].back, du=grads.grad, dsum=self.sums, dw=recurrent.grad
        )
        if len(own.parts) > 1:
            bound.point_layer(index, second_back=own.parts[1].back)
        if input_grad:
            bound.point_layer(index, u_back=own.input.back)
        if grads.total.size:
            bound.point_layer(index, du_total=grads.total)
        if recurrent.total.size:
            bound.point_layer(index, dw_total=recurrent.total)
        bound.work += 2 * self.work

    def flush(self):
        """Add the sums since the last flush to the float64 totals."""
        self.input.flush()
        self.recurrent.flush()
