"""One recurrent layer on the CPU, and its readout, for the length of one call."""

from functools import cache

import numpy as np

from . import forward_pass, linear, losses, reverse_pass, split
from .products import chains
from .team import hands
from .weights import Matrix

READOUTS, LOSSES = losses.READOUTS, losses.LOSSES
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
    panel, vector = np.empty((0, 0, 0), dtype), np.empty(0, dtype)
    return (0, 0, 1.0, vector, vector, vector, panel, panel, NO_IDS, NO_WEIGHTS, NO_BIAS, NO_BIAS,
            np.empty((0, 0), dtype), NO_TOTAL, NO_BIAS)  # fmt: skip


class Sum:
    """The running sum of a weight's gradient.

    It adds up in its own dtype over a panel of time and, if there are `several` panels, in float64
    across them. Tokens add to a table of rows in float64.
    """

    def __init__(self, weight, threads, several):
        self.weight = weight
        self.threads = threads
        self.several = several and weight.dtype != np.float64
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
            self.total = np.zeros(shape) if self.several else NO_TOTAL

    def flush(self):
        """End a panel."""
        if self.grad is not None and self.total.size and not self.tokens:
            mail, threads = hands(4 * self.weight.size, self.threads)
            linear.build_flush()(mail, threads, self.grad, self.total, False)

    def gradient(self):
        """The gradient, handed over: the next one starts at zero."""
        self.start()
        grad, total, own = self.grad, self.total, self.weight
        if self.tokens:
            grad = np.empty(own.shape, own.dtype)
            grad[own.outputs - own.front :] = total.T[: own.front]
            grad[: own.outputs - own.front] = total.T[own.front :]
        elif total.size:
            mail, threads = hands(4 * own.size, self.threads)
            linear.build_flush()(mail, threads, grad, total, True)
        self.grad = None
        return grad


class Head:
    """The readout of a layer's states, and the loss of its outputs, over stretches of time."""

    def __init__(self, readout, batch, workspace, threads, several):
        self.readout = readout
        self.weight = Matrix(readout.V, workspace, threads)
        self.sum = Sum(self.weight, threads, several)
        self.bias = np.array(readout.c)
        self.bias_total = None
        self.kind = READOUTS[readout.activation]
        self.batch = batch
        self.threads = threads

    def scratch(self, chunk):
        """Room for the outputs, losses and row numbers of two chunks."""
        rows = 2 * chunk * self.batch
        shape = 2 * chunk, self.batch, self.readout.outputs
        room = self.weight.workspace.empty(shape, self.readout.dtype)
        return room, np.empty(rows), np.empty(rows, np.int64)

    def outputs(self, h, o, lengths, start):
        """o = readout(V h + c) for a stretch (n, B, H) from `start` on, 0 past the lengths."""
        own = self.weight
        mail, threads = hands(h.shape[0] * self.batch * own.size, self.threads)
        losses.build_outputs()(
            mail, threads, self.kind, own.forth, self.bias, h, NO_IDS, o, lengths, start
        )

    def loss(self, kind, factor, h, scratch, y, targets, weights, total, lengths, start):
        """Add the loss at a stretch of states to `total`; scratch: see `scratch`."""
        own, (o, values, rows) = self.weight, scratch
        mail, threads = hands(h.shape[0] * self.batch * own.size, self.threads)
        losses.build_loss()(
            mail, threads, self.kind, LOSSES[kind], factor, own.forth, self.bias, h, o, y, targets,
            weights, values, rows, total, o[:0], lengths, start,
        )  # fmt: skip

    def loss_and_derivative(
        self, kind, factor, h, scratch, y, targets, weights, total, lengths, start, dh, panel_steps
    ):  # fmt: skip
        """Like `loss`; `dh` becomes dE/dh, and the readout's gradient adds up."""
        own, sum_, (o, values, rows) = self.weight, self.sum, scratch
        sum_.start()
        if self.bias_total is None:
            self.bias_total = np.zeros(own.outputs)
        mail, threads = hands(3 * h.shape[0] * self.batch * own.size, self.threads)
        losses.build_loss_and_derivative()(
            mail, threads, self.kind, LOSSES[kind], factor, own.forth, own.back, self.bias, h, o,
            y, targets, weights, values, rows, total, dh, lengths, start, panel_steps, sum_.grad,
            sum_.total, self.bias_total,
        )  # fmt: skip

    def with_loss(self, kind, factor, scratch, y, targets, weights, total):
        """The head of a stretch on the way back: see `reverse_pass.build_reverse`."""
        own, sum_, (o, values, _) = self.weight, self.sum, scratch
        sum_.start()
        if self.bias_total is None:
            self.bias_total = np.zeros(own.outputs)
        return (
            self.kind, LOSSES[kind], factor, own.forth, own.back, self.bias, o, y, targets, weights,
            values, total, sum_.grad, sum_.total, self.bias_total,
        )  # fmt: skip

    def flush(self):
        """End a panel of time."""
        self.sum.flush()

    def gradient(self):
        """Return the gradient of the readout."""
        dc = np.zeros_like(self.bias) if self.bias_total is None else self.bias_total
        self.bias_total = None
        return self.readout._with(V=self.sum.gradient(), c=dc.astype(self.bias.dtype))


class Recurrence:
    """A layer's passes over time, with scratch and running gradients of their own.

    Arrays: `scratch` (chunk, B, 2*blocks*H); `states` (planes, rows, B, H); `kept` (n, B, kept*H).
    """

    def __init__(self, weights, batch, chunk, workspace, threads, several):
        self.weights = weights
        self.cell, self.layer = cell, layer = weights.cell, weights.layer
        self.hidden = H = layer.hidden
        self.planes, self.kept, self.blocks = cell.states, cell.kept, cell.delta_blocks
        self.batch = batch
        self.chunk = chunk
        self.threads = threads
        self.dtype = dtype = layer.dtype
        self.input = Sum(weights.input, threads, several)
        self.recurrent = Sum(weights.recurrent, threads, several)
        rows = 2 * chunk + 1 if cell.second else 0
        self.multiplied = workspace.empty((rows, batch, H), dtype)
        self.sums = None
        self._forward, self._reverse = _passes(layer.cell)
        item, first = dtype.itemsize, weights.parts[0].outputs
        self.chains = chains(H, first, item), chains(first, H, item), chains(H, H, item)
        self.plain = self.blocks == cell.gates  # the blocks of deltas are the gates', in order

    def _hands(self, steps, products):
        inputs, recurrent = self.weights.input.size, self.weights.recurrent.size
        work = steps * self.batch * (recurrent * products + inputs)
        mail, threads = hands(work, self.threads)
        members = split.gang_size(threads, self.cell, self.hidden, self.batch, self.dtype.itemsize)
        parts = split.sweep_parts(threads, self.batch)
        chunk = self.chunk
        if parts < threads and members == 1:  # the shorter, the less waiting at either end
            cost = self.batch * (recurrent + 2000)
            while chunk * 8 > steps and chunk * self.batch > 64 and chunk * cost > 1_000_000:
                chunk //= 2
        return mail, threads, parts, members, chunk

    def _weights(self, packed, chained):
        first, *second = (getattr(part, packed) for part in self.weights.parts)
        return (first, chained, second[0] if second else first[:0], self.chains[2],
                self.weights.own, self.multiplied)  # fmt: skip

    def forward(self, x, ids, scratch, states, kept, lengths, h, start, stop, first, cached):
        """Steps start..stop from row `first` of `states`; `h`, if not empty, takes the states."""
        own = self.weights.input
        self._forward(
            *self._hands(stop - start, 1), start, stop, first, cached, (states, kept, lengths), h,
            scratch, (x, ids, own.table if ids.size else own.forth, self.weights.bias),
            self._weights("forth", self.chains[0]),
        )  # fmt: skip

    def reverse(
        self, x, ids, dx, delta, states, kept, lengths, dh, carry, current, start, stop, first,
        whole, head, lists, panel_steps,
    ):  # fmt: skip
        """Steps stop back to start: adds the gradients, fills `dx`, and `delta` if it is `whole`.

        Returns which half of `carry` is now current. See `reverse_pass.build_reverse`.
        """
        weight, own, recurrent = self.weights.input, self.input, self.recurrent
        own.start(tokens=ids.size > 0)
        recurrent.start()
        if self.sums is None:
            self.sums = np.zeros(self.blocks * self.hidden)
        self._reverse(
            *self._hands(stop - start, 3), panel_steps, start, stop, first, current, whole,
            (states, kept, lengths), (carry, dh, delta),
            (x, ids, weight.back if dx.size else weight.none, dx, own.grad, own.total, self.sums),
            self._weights("back", self.chains[1]), (recurrent.grad, recurrent.total), head, lists,
        )  # fmt: skip
        return current ^ ((stop - start) & 1)

    def flush(self):
        """End a panel of time."""
        self.input.flush()
        self.recurrent.flush()

    def gradient(self):
        """Return the gradient of the layer, handed over."""
        H, cell = self.hidden, self.cell
        sums = np.zeros(self.blocks * H) if self.sums is None else self.sums
        self.sums = None
        if self.plain and not cell.sums:
            db, own = sums.astype(self.dtype), None
            return self.layer._gradient(self.input.gradient(), self.recurrent.gradient(), db, own)
        blocks = sums.astype(self.dtype).reshape(-1, H)
        db = blocks[[cell.order.index(gate) for gate in range(cell.gates)]].reshape(-1)
        return self.layer._gradient(
            self.input.gradient(), self.recurrent.gradient(), db, blocks[list(cell.sums)]
        )

    def deltas(self, blocks):
        """The deltas (n, B, G*H), gate by gate, from all blocks of a stretch."""
        n, B = blocks.shape[:2]
        blocks = blocks.reshape(n, B, self.blocks, self.hidden)
        order = [self.cell.order.index(gate) for gate in range(self.cell.gates)]
        return blocks[:, :, order].reshape(n, B, self.cell.gates * self.hidden)
