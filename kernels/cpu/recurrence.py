"""One recurrent layer on the CPU, and its readout, during one call."""

import numpy as np

from ..layer import LayerHead, LayerRecurrence
from ..loss_table import NUMBERS, READOUTS
from . import linear, loss_programs
from .binders import build_binders
from .passes import passes
from .products import chains
from .slots import HEAD, LAYER
from .team import team_for
from .weights import Matrix

NO_IDS = np.empty((0, 0), np.int64)
NO_TOTAL = np.empty((0, 0))

_ROWS = 64  # of a gradient that are added to at once


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

    def loss(self, kind, factor, h, scratch, given, total, lengths, start):
        """Add the loss of a span of outputs to `total`; see `loss_programs` for the arguments."""
        own = self.weight
        mailbox, threads = team_for(h.shape[0] * self.batch * own.size, self.threads)
        loss_programs.build_loss()(
            mailbox, threads, (self.kind, NUMBERS[kind], factor),
            (own.forth, own.forth, self.bias), h, scratch, given, scratch[0][:0], total, lengths,
            start,
        )  # fmt: skip

    def loss_and_derivative(
        self, kind, factor, h, scratch, given, total, lengths, start, dh, flush_steps
    ):
        """Like `loss`; `dh` becomes dE/dh, and the readout's gradient adds up."""
        own, sum_ = self.weight, self.sum
        self.start()
        mailbox, threads = team_for(3 * h.shape[0] * self.batch * own.size, self.threads)
        loss_programs.build_loss_and_derivative()(
            mailbox, threads, (self.kind, NUMBERS[kind], factor),
            (own.forth, own.back, self.bias), h, scratch, given, dh, total, lengths, start,
            (flush_steps, sum_.grad, sum_.total, self.bias_total),
        )  # fmt: skip

    def bind(self, bound, kind, factor, scratch, total):
        """Have a lane end in this readout and a loss."""
        own, sum_, (o, values, _) = self.weight, self.sum, scratch
        self.start()
        row = bound.head
        row[HEAD.readout], row[HEAD.loss] = self.kind, NUMBERS[kind]
        row[HEAD.factor : HEAD.factor + 1].view(np.float64)[0] = factor
        row[HEAD.outputs] = own.outputs
        pointed = (
            own.forth, own.back, self.bias, o, values, total, sum_.grad, sum_.total, self.bias_total
        )  # fmt: skip
        bound.hold(*pointed)
        build_binders()[2](row, *pointed)
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
        self.workspace = workspace

    def restarts(self, state, resets):
        """Have sequences be reset: see `LayerRecurrence`."""
        if not self.multiplied.size:  # the states of a step that has resets are copied there
            shape = (1, self.batch, self.hidden)
            self.multiplied = self.workspace.empty(shape, self.dtype)
        super().restarts(state, resets)

    @property
    def restart_size(self):
        """How many numbers are in `restart_sums`: see `resets`."""
        return super().restart_size + self.weights.first * self.hidden

    def _recurrent_gradient(self):
        """W's gradient, with what it has of the steps that read `restart`."""
        dW = super()._recurrent_gradient()
        if self.restart_sums is not None:
            last = self.weights.first * self.hidden
            deltas, state = self.restart_sums[-last:], self.restart[0]
            for j in range(0, last, _ROWS):
                dW[j : min(j + _ROWS, last)] += deltas[j : j + _ROWS, None] * state
        return dW

    @property
    def work(self):
        """Multiply-adds of a step forward."""
        return self.batch * (self.weights.input.size + self.weights.recurrent.size)

    def scratch_ahead(self, workspace):
        """Scratch (z, v) for a chunk forward while a sweep goes back: see `leaves`."""
        shape = self.chunk, self.batch, self.cell.blocks * self.hidden
        second = int(self.cell.second), self.batch, self.hidden
        return workspace.empty(shape, self.dtype), workspace.empty(second, self.dtype)

    def bind(self, bound, index, tokens, runs, arrays):
        """Have a layer of a lane be this one.

        tokens : whether it reads tokens
        runs : whether it runs forward, or all steps are cached already
        arrays : (z, live, spare, initial, final), see `slots`
        """
        own, H, row = self.weights, self.hidden, bound.layers[index]
        none, second = own.input.none, own.input.none
        u = w = none
        if runs:
            u, w = own.input.table if tokens else own.input.forth, own.parts[0].forth
            second = own.parts[1].forth if len(own.parts) > 1 else none
        pointed = own.params, self.multiplied, *arrays, u, own.bias, w, second
        bound.hold(*pointed)
        build_binders()[0](row, *pointed)
        if self.restart is not None:
            bound.point_layer(index, restart=self.restart)
        compiled = passes(self.layer.cell, self.dtype)
        row[LAYER.forward], row[LAYER.reverse], row[LAYER.left] = (one.address for one in compiled)
        row[LAYER.hidden], row[LAYER.states], row[LAYER.residuals] = H, self.states, self.residuals
        row[LAYER.inputs], row[LAYER.tokens] = self.layer.inputs, tokens
        row[LAYER.v_rows] = len(self.multiplied)
        item, first = self.dtype.itemsize, own.parts[0].outputs
        row[LAYER.w_chains] = chains(H, first, item)
        row[LAYER.w_back_chains] = chains(first, H, item)
        row[LAYER.second_chains] = chains(H, H, item)
        bound.work += self.work

    def bind_back(self, bound, index, tokens, input_grad, arrays):
        """Have a layer of a lane go back, and add to these gradients.

        tokens : whether it reads tokens
        input_grad : whether the derivative by its input is asked for
        arrays : (carry, copy of states, copy of x or None), see `slots`
        """
        own, grads, recurrent = self.weights, self.input, self.recurrent
        grads.start(tokens)
        recurrent.start()
        if self.sums is None:
            self.sums = np.zeros(self.blocks * self.hidden)
        carry, states_copy, x_copy = arrays
        w_back = own.parts[0].back
        second_back = own.parts[1].back if len(own.parts) > 1 else own.input.none
        u_back = own.input.back if input_grad else own.input.none
        pointed = (
            carry, w_back, second_back, u_back, grads.grad, grads.total, self.sums, recurrent.grad,
            recurrent.total, states_copy, states_copy[:0] if x_copy is None else x_copy,
        )  # fmt: skip
        bound.hold(*pointed)
        build_binders()[1](bound.layers[index], *pointed)
        self.start_restarts()
        if self.trains_restart:
            bound.point_layer(index, restart_sums=self.restart_sums)
        bound.work += 2 * self.work

    def flush(self):
        """Add the sums since the last flush to the float64 totals."""
        self.input.flush()
        self.recurrent.flush()
