"""One recurrent layer on the CPU, for the length of one call."""

from functools import cache

import numpy as np

from ..cells import CELLS
from . import linear, sweeps
from .products import pack
from .team import share

NO_IDS = np.empty((0, 0), np.int64)
NO_WEIGHTS = np.empty((0, 0))


@cache
def _sweeps(cell):
    return sweeps.build_forward(cell), sweeps.build_reverse(cell)


class Linear:
    """A weight and a bias, packed for `x @ weight.T + bias`, and their gradients.

    Gradients add in the weights' dtype within a panel of time and in float64 across panels; the
    running sums lie transposed, (inputs, outputs), like the packed weight.
    """

    def __init__(self, weight, bias, threads):
        self.outputs, self.inputs = weight.shape
        self.dtype = weight.dtype
        self.weight = weight
        self.size = weight.size
        self.bias = None if bias is None else np.ascontiguousarray(bias)
        self.threads = threads
        self.total = self._forth = self._back = None

    @property
    def forth(self):
        """weight.T in panels, for `x @ weight.T`."""
        if self._forth is None:
            self._forth = pack(self.weight.T)
        return self._forth

    @property
    def back(self):
        """The weight in panels, for `d @ weight`."""
        if self._back is None:
            self._back = pack(self.weight)
        return self._back

    @property
    def table(self):
        """weight.T, a row for each token."""
        if self._forth is None:
            self._forth = np.array(self.weight.T, order="C").reshape(-1)
        return self._forth

    def project(self, out, a, ids):
        """out = a W^T + b over all rows of `out` (n, B, outputs)."""
        rows = out.shape[0] * out.shape[1]
        share(
            linear.build_project(), rows * self.size, rows, out, a, ids,
            self.table if ids.size else self.forth, self.bias, self.inputs, self.outputs,
            threads=self.threads,
        )  # fmt: skip

    def pull_back(self, out, d):
        """out = d W: what the derivative by the outputs says of the inputs."""
        rows = out.shape[0] * out.shape[1]
        share(
            linear.build_multiply(), rows * self.size, rows,
            out, d, self.back, self.outputs, self.inputs, threads=self.threads,
        )  # fmt: skip

    def accumulate(self, a, ids, d, rows, count):
        """Add the gradients of a stretch, over the first `count` of `rows`."""
        if self.total is None:
            self._start(tokens=ids.size > 0)
        share(
            linear.build_accumulate(), count * self.size, self.outputs,
            self.total, self.panel, self.bias_total, a, ids, self.inputs, d, self.outputs, rows,
            count, threads=self.threads,
        )  # fmt: skip

    def _start(self, tokens):
        self.total = np.zeros((self.inputs, self.outputs))
        self.bias_total = np.zeros(0 if self.bias is None else self.outputs)
        if tokens:
            self.panel = np.empty((0, 0), self.dtype)
        elif self.dtype == np.float64:
            self.panel = self.total
        else:
            self.panel = np.zeros((self.inputs, self.outputs), self.dtype)

    def reset(self):
        """Set the gradients to zero."""
        self.total = None

    def flush(self):
        """End a panel."""
        if self.total is not None and self.panel.size and self.panel is not self.total:
            flush = linear.build_flush()
            share(flush, 4 * self.total.size, self.total.size, self.total, self.panel,
                  threads=self.threads)  # fmt: skip

    def gradients(self):
        """(weight's gradient, bias's gradient), new arrays."""
        weight = np.zeros((self.outputs, self.inputs), self.dtype)
        bias = None if self.bias is None else np.zeros(self.outputs, self.dtype)
        if self.total is not None:
            self.flush()
            weight[...] = self.total.T
            if bias is not None:
                bias[...] = self.bias_total
        return weight, bias


class Recurrence:
    """A layer's weights packed, its sweeps, and its running gradients.

    Arrays: `z`/`delta` (n, B, G*H) scratch; `states` (planes, rows, B, H); `kept` (n, B, kept*H).
    """

    def __init__(self, cell, U, W, b, batch, threads):
        self.planes = CELLS[cell].states
        self.kept = CELLS[cell].kept
        self.hidden = W.shape[1]
        self.batch = batch
        self.threads = threads
        self.input = Linear(U, b, threads)
        self.recurrent = Linear(W, None, threads)
        self._forward, self._reverse = _sweeps(cell)

    def forward(self, x, ids, z, states, kept, h, lengths, t0, n, first, cached):
        """Steps t0..t0+n from row `first` of `states`; see `sweeps.build_forward`."""
        B, H = self.batch, self.hidden
        self.input.project(z, x, ids)
        share(
            self._forward, n * B * self.recurrent.size, B,
            z, states, kept, h, lengths, self.recurrent.forth, t0, n, B, H, first,
            states.shape[1], cached, threads=self.threads,
        )  # fmt: skip

    def reverse(self, states, kept, dh, carry, current, delta, lengths, t0, n, first):
        """Steps t0+n back to t0: fills `delta`; returns which half of `carry` is now current."""
        B, H = self.batch, self.hidden
        share(
            self._reverse, n * B * self.recurrent.size, B,
            states, kept, dh, carry, delta, lengths, self.recurrent.back, t0, n, B, H, first,
            states.shape[1], current, threads=self.threads,
        )  # fmt: skip
        return current ^ (n & 1)

    def accumulate(self, x, ids, before, delta, rows, count):
        """Add the weight gradients of a stretch; `before` holds the states before each step."""
        self.input.accumulate(x, ids, delta, rows, count)
        self.recurrent.accumulate(before, NO_IDS, delta, rows, count)

    def reset(self):
        """Set the gradients to zero."""
        self.input.reset()
        self.recurrent.reset()

    def flush(self):
        """End a panel of time."""
        self.input.flush()
        self.recurrent.flush()

    def gradients(self):
        """(dU, dW, db), new arrays."""
        dU, db = self.input.gradients()
        return dU, self.recurrent.gradients()[0], db
