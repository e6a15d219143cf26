"""The loss of a stretch of time and its derivative by the top layer's states."""

import numpy as np

from . import arguments
from .kernels.cpu import losses
from .kernels.cpu.recurrence import Linear
from .kernels.cpu.team import share
from .sources import NO_IDS, Floats, Ids, Weights, counts

NAMES = ("squared_error", "cross_entropy", "binary_cross_entropy")


def check_name(loss):
    """Raise unless `loss` is a callable or the name of a loss."""
    if not callable(loss):
        arguments.choice("loss", loss, NAMES)


def check(loss, readout):
    """Raise unless `loss` is a callable or a name that fits the readout."""
    check_name(loss)
    if callable(loss):
        return
    if readout is None:
        raise ValueError(f"loss={loss!r} needs a readout, but the network's readout is None")
    due = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}.get(loss)
    if due and readout.activation != due:
        raise ValueError(
            f"loss={loss!r} needs a readout with activation {due!r}, not {readout.activation!r}"
        )


class Output:
    """The readout over a stretch: o = h(V s + c)."""

    def __init__(self, readout, batch, steps, threads):
        self.readout = readout
        self.linear = Linear(readout.V, readout.c, threads)
        self.kind = losses.READOUTS[readout.activation]
        self.threads = threads
        self.batch = batch
        self.panel = np.empty((steps, batch, readout.outputs), readout.dtype)

    def preactivate(self, h, out):
        """out = V h + c."""
        self.linear.project(out, h, NO_IDS)

    def activate(self, out, lengths, start):
        """out = h(out), 0 past a sequence's length."""
        rows = out.shape[0] * out.shape[1]
        share(
            losses.build_activate(), 16 * out.size, rows, out, self.linear.outputs, self.kind,
            lengths, start, self.batch, threads=self.threads,
        )  # fmt: skip


class NamedLoss:
    """A loss by name, through the readout."""

    def __init__(self, name, output, source, weights, lengths, factor):
        self.kind = losses.LOSSES[name]
        self.output = output
        self.source = source
        self.weights = weights
        self.lengths = lengths.values
        self.factor = factor
        steps, batch = output.panel.shape[:2]
        self.values = np.empty((steps, batch))
        self.rows = np.empty(steps * batch, np.int64)
        self.total = np.zeros(2)

    def add(self, h, start, dh=None):
        """Add the stretch's loss; with `dh`, fill it with dE/dh and add the readout's gradients."""
        n, batch = h.shape[:2]
        output, o = self.output, self.output.panel[:n]
        y, targets = self.source.stretch(start, start + n)
        weights = self.weights.stretch(start, start + n)
        output.preactivate(h, o)
        share(
            losses.build_loss(), 32 * o.size, n * batch, o, output.linear.outputs, output.kind,
            self.kind, y, targets, self.lengths, weights, self.factor, self.values, start, batch,
            threads=output.threads,
        )  # fmt: skip
        count = losses.build_counted_rows()(self.rows, self.lengths, weights, start, n, batch)
        losses.build_add_losses()(self.total, self.values, self.rows, count)
        if dh is not None:
            output.linear.pull_back(dh, o)
            output.linear.accumulate(h, NO_IDS, o, self.rows, count)

    def flush(self):
        """End a panel of the readout's gradients."""
        self.output.linear.flush()

    def value(self):
        """The loss so far."""
        total, error = self.total
        return float((total + error if np.isfinite(error) else total) * self.factor)

    def gradient(self):
        """Return the gradient of the readout."""
        V, c = self.output.linear.gradients()
        return type(self.output.readout)(V, c, self.output.readout.activation)


class CallableLoss:
    """A caller's own loss of the states, `loss(h, y, start) -> (value, dh)`."""

    def __init__(self, function, readout, y, lengths, squeeze):
        self.function = function
        self.readout = readout
        self.y = y
        self.lengths = lengths
        self.squeeze = squeeze
        self.total = 0.0

    def add(self, h, start, dh=None):
        """Add the stretch's loss; with `dh`, fill it."""
        given = h.copy()
        if self.lengths.given:
            given[~self.lengths.live(start, start + len(h))] = 0
        given = given[:, 0] if self.squeeze else given
        y = None if self.y is None else self.y[start : start + len(h)]
        result = self.function(given, y, start)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(
                f"loss must return a pair (value, dh), not {arguments.describe(result)}"
            )
        value, derivative = result
        try:
            self.total += float(value)
        except (TypeError, ValueError):
            raise TypeError(
                f"loss must return a number first, not {arguments.describe(value)}"
            ) from None
        if dh is not None:
            arguments.floats("dh returned by loss", derivative, given.shape, h.dtype)
            dh[...] = derivative[:, None] if self.squeeze else derivative

    def flush(self):
        """Nothing: a callable has no gradients of its own."""

    def value(self):
        """The loss so far."""
        return self.total

    def gradient(self):
        """Return the readout's gradient, which is zero, or None."""
        if self.readout is None:
            return None
        zeros = [np.zeros(a.shape, a.dtype) for a in self.readout.arrays()]
        return self.readout.replace_arrays(zeros)


def stage(network, call, y, loss, weights, reduction, steps, threads):
    """Check a loss and what goes with it, and return what adds it up stretch by stretch."""
    check(loss, network.readout)
    arguments.choice("reduction", reduction, ("sum", "mean"))
    if callable(loss):
        return _callable(network, call, y, loss, weights, reduction)
    weights = _check_weights(weights, call)

    def counted(start, stop):
        live = call.lengths.live(start, stop)
        if weights is None:
            return live
        part = weights[start:stop]
        return live & counts(part[:, None] if part.ndim == 1 else part)

    factor = 1.0
    if reduction == "mean":
        starts = range(0, call.T, steps)
        count = sum(int(np.count_nonzero(counted(a, min(a + steps, call.T)))) for a in starts)
        factor = 1.0 / count if count else 0.0
    source = _targets(y, loss, call, network.readout, counted, steps)
    output = Output(network.readout, call.B, steps, threads)
    scales = Weights(weights, call.B, steps)
    return NamedLoss(loss, output, source, scales, call.lengths, factor)


def _targets(y, loss, call, readout, counted, steps):
    y = arguments.array("y", y)
    times = (call.T,) if call.squeeze else (call.T, call.B)
    if loss == "cross_entropy":
        if y.dtype.kind not in "iu":
            raise TypeError(f"y must hold integer classes for cross_entropy, not {y.dtype}")
        arguments.check_shape("y", y, times)
        y = y[:, None] if call.squeeze else y
        return Ids("y", y, readout.outputs, readout.dtype, counted, steps)
    arguments.floats("y", y, (*times, readout.outputs), readout.dtype)
    return Floats(y[:, None] if call.squeeze else y, steps)


def _callable(network, call, y, loss, weights, reduction):
    if weights is not None:
        raise ValueError("weights must be None with a callable loss, which weighs by itself")
    if reduction != "sum":
        raise ValueError(f'reduction must be "sum" with a callable loss, not {reduction!r}')
    if y is not None:
        _check_sequence(y, call.T)
    return CallableLoss(loss, network.readout, y, call.lengths, call.squeeze)


def _check_sequence(y, steps):
    try:
        length = len(y)
        y[0:0]
    except (TypeError, KeyError):
        raise TypeError(
            f"y must be None or a sequence along time, not {arguments.describe(y)}"
        ) from None
    if length != steps:
        raise ValueError(f"y must have T={steps} entries along time, not {length}")


def _check_weights(weights, call):
    if weights is None:
        return None
    weights = arguments.array("weights", weights)
    if weights.dtype.kind not in "fiub":
        raise TypeError(f"weights must be real numbers, not {weights.dtype}")
    one_each = call.squeeze or weights.ndim == 1
    arguments.check_shape("weights", weights, (call.T,) if one_each else (call.T, call.B))
    return weights
