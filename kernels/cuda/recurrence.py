"""One recurrent layer on the GPU, and its readout, during one call.

The interface is that of `kernels.cpu.recurrence`. A span is cut into chunks for which there is
scratch. Forward: one product for the inputs of a chunk, then one launch of the sweep. In reverse:
the loss, one launch of the sweep, and one product for each weight's gradient. All of that is queued
on the current stream, and nothing here waits for the GPU.
"""

import numpy as np

from ..layer import LayerHead, LayerRecurrence
from . import gpus, rowwise, runtime
from .exchange import buffers
from .weights import Matrix

_SLICES = 32768  # blocks of a launch along the batch


def _chunks(start, stop, chunk):
    """[start, stop) cut at the multiples of `chunk`."""
    while start < stop:
        end = min(stop, (start // chunk + 1) * chunk)
        yield start, end
        start = end


class Sum:
    """The running sum of a weight's gradient, in float64.

    It has the order in which the weight is read. Tokens add to a table of rows.
    """

    def __init__(self, weight):
        self.weight = weight
        self.total = None
        self.tokens = False

    def start(self, tokens=False):
        """Set the gradient to zero, if it is not there yet."""
        if self.total is None:
            self.tokens = tokens
            shape = self.weight.shape[::-1] if tokens else self.weight.shape
            self.total = runtime.arrays().zeros(shape, np.float64)

    def add(self, d, a, at=0):
        """Add d^T a to the gradient, from row `at` on: d (rows, outputs), a (rows, inputs)."""
        self.start()
        self.total[at : at + d.shape[1]] += runtime.matmul(d.T, a)

    def gradient(self):
        """Return the gradient; the next one starts at zero."""
        self.start(self.tokens)
        total, self.total = (self.total.T if self.tokens else self.total), None
        front = self.weight.front
        if front:
            xp = runtime.arrays()
            total = xp.concatenate([total[front:], total[:front]])
        return runtime.arrays().ascontiguousarray(total.astype(self.weight.dtype))


class Head(LayerHead):
    """The readout of a layer's states, and the loss of its outputs, over spans of time."""

    def __init__(self, readout, batch, ragged):
        xp, weight = runtime.arrays(), Matrix(readout.V)
        bias = xp.ascontiguousarray(xp.asarray(readout.c))
        super().__init__(readout, xp, batch, weight, Sum(weight), bias)
        self.ragged = ragged
        self.dtype = weight.dtype.type

    def _product(self, h, o):
        runtime.matmul(_rows(h), self.weight.value.T, out=_rows(o))

    def outputs(self, h, o, lengths, start):
        """o = readout(V h + c) for a span (n, B, H) from `start` on, 0 past the lengths."""
        n, B, O = o.shape
        self._product(h, o)
        kernel = rowwise.outputs_kernel(self.readout.activation, self.dtype)
        rowwise.elements(kernel, n * B, (o, self.bias, lengths, start, n * B, B, O))

    def scratch(self, chunk):
        """Scratch for the outputs of a chunk and their losses."""
        xp = runtime.arrays()
        o = xp.empty((chunk, self.batch, self.weight.outputs), self.weight.dtype)
        return o, xp.empty(chunk * self.batch)

    def _loss(self, loss, factor, h, scratch, given, total, lengths, start):
        """Add the losses of a chunk to `total`; returns factor * dE/d(V h + c)."""
        n, B, _ = h.shape
        y, targets, weights = given
        o, values = scratch[0][:n], scratch[1][: n * B]
        self._product(h, o)
        many = weights.shape[2] > 1
        kernel = rowwise.loss_kernel(loss, self.readout.activation, self.dtype, many)
        rowwise.elements(
            kernel, n * B,
            (o, self.bias, y, targets, weights, weights.shape[2], lengths, values, float(factor),
             start, B, o.shape[2]),
        )  # fmt: skip
        total[:1] += values.sum()
        return o

    def loss(self, kind, factor, h, scratch, given, total, lengths, start):
        """Add the loss of a span of outputs to `total`; given: (y, targets, weights).

        `rowwise` has the arguments' shapes.
        """
        for a, b, part in self._cut(h, scratch, given):
            self._loss(kind, factor, h[a:b], scratch, part, total, lengths, start + a)

    def loss_and_derivative(
        self, kind, factor, h, scratch, given, total, lengths, start, dh, flush_steps
    ):
        """Like `loss`; `dh` becomes dE/dh, and the readout's gradient adds up."""
        for a, b, part in self._cut(h, scratch, given):
            do = self._loss(kind, factor, h[a:b], scratch, part, total, lengths, start + a)
            self._back(do, h[a:b], dh[a:b], part[2], lengths, start + a)

    def _back(self, do, h, dh, weights, lengths, start):
        runtime.matmul(_rows(do), self.weight.value, out=_rows(dh))
        self.start()
        if self.ragged or weights.size:  # 0 times a state that is NaN is NaN
            h = _counted(h, weights, lengths, start)
        self.sum.add(_rows(do), _rows(h))
        self.bias_total += _rows(do).sum(axis=0, dtype=np.float64)

    def _cut(self, h, scratch, given):
        for a, b in _chunks(0, len(h), len(scratch[0])):
            yield a, b, _rows_of(given, slice(a, b))

    def with_loss(self, kind, factor, scratch, given, total):
        """What `Recurrence.reverse` takes for `head`."""
        return self, kind, factor, scratch, given, total

    def flush(self):
        """Nothing: every chunk adds up in float64."""


def _rows_of(given, steps):
    """Those steps of (y, targets, weights), of which any may be empty."""
    return tuple(part[steps] if part.size else part for part in given)


def _rows(array):
    """(n, B, width) as (n * B, width)."""
    return array.reshape(-1, array.shape[-1])


def _counted(array, weights, lengths, start):
    """The array (n, B, width) with 0 in rows that do not count."""
    out = runtime.arrays().empty(array.shape, array.dtype)
    _, B, width = array.shape
    rowwise.elements(
        rowwise.counted_kernel(array.dtype.type),
        array.size,
        (out, array, weights, weights.shape[2], lengths, start, array.size, B, width),
    )
    return out


class Recurrence(LayerRecurrence):
    """A layer's passes over time; `scratch` (chunk, B, blocks*H) takes pre-activations."""

    def __init__(self, weights, chunk, ragged):
        super().__init__(weights, runtime.arrays(), weights.batch, chunk, Sum)
        self.ragged, self.resets = ragged, None
        self._exchanges = {}

    def restarts(self, state, resets):
        """Have sequences be reset: see `LayerRecurrence`."""
        super().restarts(state, resets)
        self.resets = resets

    def _sweep(self, reverse):
        """(kernel, shape, packed weights) of a sweep, and memory for what its blocks exchange."""
        kernel, shape, packed = self.weights.sweep(reverse)
        if self.restart is not None:
            kernel = self.weights.kernel(reverse, shape, resets=True)
        if reverse not in self._exchanges:
            xp = runtime.arrays()
            self._exchanges[reverse] = buffers(xp, shape, self.batch, self.dtype)
        return kernel, shape, packed, self._exchanges[reverse]

    def _launch(self, kernel, shape, exchange, args):
        """Launch a sweep, as many sequences at a time as the card has room for."""
        xp, B = runtime.arrays(), self.batch
        if shape.words:  # those of the launch before say later times
            exchange = exchange.copy()
        at_once = _SLICES
        if shape.parts > 1:
            at_once = max(1, gpus.card(gpus.current()).processors // shape.parts)
        for low in range(0, B, at_once * shape.rows):
            slices = -(-(min(B, low + at_once * shape.rows) - low) // shape.rows)
            arrivals = xp.zeros(slices if shape.parts > 1 else 0, np.int32)
            runtime.launch(
                kernel, (shape.parts, slices), shape.threads, (*args[:-1], exchange, arrivals,
                *args[-1], B, low), shape.shared_bytes(self.dtype.itemsize), shape.parts > 1,
            )  # fmt: skip

    def forward(self, x, ids, scratch, states, residuals, lengths, h, start, stop, first, cached):
        """Steps start..stop: the arguments are those of `kernels.cpu.recurrence`."""
        if not self.batch:
            return
        kernel, shape, (W, W_second), exchange = self._sweep(reverse=False)
        weights, own = self.weights, self.weights.input
        flat = scratch.reshape(-1)
        for a, b in _chunks(start, stop, self.chunk):
            n, at = b - a, a - start
            here = ids[at : at + n]
            if ids.size:
                z = own.table
            else:
                z = flat[: n * self.batch * own.outputs].reshape(-1, own.outputs)
                runtime.matmul(self._undriven(x[at : at + n]), own.value.T, out=z)
            row = first + at
            if not cached:
                row &= 1
            self._launch(
                kernel, shape, exchange,
                (z, x[at : at + n], here, int(ids.size > 0), weights.bias, W, W_second,
                 weights.params, states, residuals, h[at : at + n], lengths, self._restart,
                 (a, n, row, states.shape[1], int(cached), int(h.size > 0), x.shape[-1])),
            )  # fmt: skip

    def reverse(self, source, cache, back, span, head, flush_steps):
        """Steps stop back to start: adds the gradients, fills `dx`, and `delta` if it is `whole`.

        source : (x, ids, dx), the input as floats or as tokens, and its derivative
        cache : (states, residuals, lengths as in `sweeps`)
        back : (carry, dh, delta). dh is (n, B, H), or of a chunk: scratch where there is a loss,
            else zeros
        span : (start, stop, first, current, whole), as in `kernels.cpu.reverse_pass`
        head : from `Head.with_loss`, or None
        flush_steps : not used

        Returns the half of `carry` that is now current.
        """
        x, ids, dx = source
        states, residuals, lengths = cache
        carry, dh, delta = back
        start, stop, first, current, whole = span
        if not self.batch:
            return current
        xp, B, H = runtime.arrays(), self.batch, self.hidden
        kernel, shape, (W, W_second), exchange = self._sweep(reverse=True)
        self.input.start(tokens=ids.size > 0)
        self.recurrent.start()
        if self.restart_sums is None:
            self.start_restarts()
        sums = xp.empty(0) if self.restart_sums is None else self.restart_sums
        every_step = len(dh) >= stop - start and head is None
        multiplied = xp.empty((self.chunk if self.cell.second else 0, B, H), self.dtype)
        for a, b in reversed(list(_chunks(start, stop, self.chunk))):
            n, at = b - a, a - start
            here = slice(at, at + n)
            given = dh[here] if every_step else dh[:n]
            row = first + at
            if head is not None:
                readout, kind, factor, buffer, all_given, total = head
                readout.loss_and_derivative(
                    kind, factor, states[0, row + 1 : row + 1 + n], buffer,
                    _rows_of(all_given, here), total, lengths, a, given, flush_steps,
                )  # fmt: skip
            d = delta[here] if whole else delta.reshape(-1)[: n * B * self.blocks * H]
            self._launch(
                kernel, shape, exchange,
                (states, residuals, given, carry, d, multiplied, lengths, self._restart, sums, W,
                 W_second, self.weights.params, x[here],
                 (a, n, row, states.shape[1], current, x.shape[-1])),
            )  # fmt: skip
            current ^= n & 1
            d = d.reshape(n * B, self.blocks * H)
            self._add(d, x[here], ids[here], states[0, row : row + n], multiplied[:n], lengths, a)
            if dx.size:
                self._below(d, dx[here])
        return current

    def _undriven(self, x):
        """The rows of x without the drives, which U does not multiply."""
        rows, drives = _rows(x), self.cell.drives
        return runtime.arrays().ascontiguousarray(rows[:, :-drives]) if drives else rows

    def _below(self, d, dx):
        """dx (n, B, I) becomes the derivative by x."""
        width, drives = self.cell.gates * self.hidden, self.cell.drives
        if not drives:
            runtime.matmul(d[:, :width], self.weights.input.value, out=_rows(dx))
            return
        own = d.reshape(len(d), -1, self.hidden)[:, -drives:].sum(axis=2)
        below = runtime.matmul(d[:, :width], self.weights.input.value)
        dx[...] = runtime.arrays().concatenate([below, own], axis=1).reshape(dx.shape)

    def _add(self, d, x, ids, before, multiplied, lengths, start):
        """Add the gradients of a chunk, d (rows, blocks*H)."""
        xp, H, cell = runtime.arrays(), self.hidden, self.cell
        width, last = cell.gates * H, (cell.gates - cell.second) * H
        before = self._read(before, start)
        if self.ragged:  # 0 times NaN past a sequence's length is NaN
            unweighted = xp.empty((0, 0, 0))
            before = _counted(before, unweighted, lengths, start)
            x = x if ids.size else _counted(x, unweighted, lengths, start)
        if ids.size:
            rowwise.scatter(xp, self.input.total, d, ids.reshape(-1), d.shape[1], width)
        else:
            self.input.add(d[:, :width], self._undriven(x))
        skip = cell.split * H
        self.recurrent.add(d[:, skip : skip + last], _rows(before))
        if cell.second:
            self.recurrent.add(d[:, last:width], _rows(multiplied), last)
        sums = d.sum(axis=0, dtype=np.float64)
        self.sums = sums if self.sums is None else self.sums + sums

    @property
    def _restart(self):
        return runtime.arrays().empty(0, self.dtype) if self.restart is None else self.restart

    def _read(self, before, start):
        """The states that the steps from `start` on have read, (n, B, H)."""
        if self.resets is None:
            return before
        first = start * self.batch
        low, high = np.searchsorted(self.resets, (first, first + len(before) * self.batch))
        if low == high:
            return before
        before = before.copy()
        rows = runtime.arrays().asarray(self.resets[low:high] - first)
        _rows(before)[rows] = self.restart[0]
        return before

    def flush(self):
        """Nothing: every chunk adds up in float64."""


def drop(out, values, key, threshold, scale, start, first):
    """Dropout of a span (n, B, H): see `rowwise.dropout_kernel`."""
    _, B, H = out.shape
    rowwise.elements(
        rowwise.dropout_kernel(out.dtype.type),
        out.size,
        (out, values, key, np.uint64(threshold), float(scale), start, first, out.size, B, H),
    )
