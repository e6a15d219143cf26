"""Kernels with one thread an element or a row: losses, readouts, dropout, tokens' gradients.

Products come before or after, by cuBLAS. A row is one (t, b), number t*B + b of the span.

Arguments that kernels share, all arrays flat and of the kernel's dtype unless said:

- o : (rows, O), V h on entry
- c : (O,)
- lengths : (B,) int64
- weights : (rows, each) float64, `each` being 1 or O; or empty and `each` 0, for all 1
- t : time of row 0
- rows, B, O, H : how many there are
- size : elements of the array
"""

import math
from functools import cache

import numpy as np

from ..loss_table import GIVEN, LOSSES
from ..masks import draw
from .cells import maths_of, on_device
from .runtime import SIMULATED, cuda, device, launch

THREADS = 128


def elements(kernel, size, args):
    """Run a kernel that has a thread for each of so many elements, or rows."""
    if size:
        threads = _threads(size)
        launch(kernel, (-(-size // threads), 1), threads, args)


def _threads(size):
    """Threads of a block; in the simulator each is a Python thread, so no more than needed."""
    return min(THREADS, max(1, size)) if SIMULATED else THREADS


@cache
def _readout(readout, dtype):
    """A function (o, start, outputs) that applies the activation to a row, in place.

    Softmax returns log(sum exp) in float64, the others 0.
    """
    exp, tanh, sigmoid = maths_of(dtype)

    @device
    def identity(o, start, outputs):
        return 0.0

    @device
    def apply_sigmoid(o, start, outputs):
        for j in range(start, start + outputs):
            o[j] = sigmoid(o[j])
        return 0.0

    @device
    def apply_tanh(o, start, outputs):
        for j in range(start, start + outputs):
            o[j] = tanh(o[j])
        return 0.0

    @device
    def softmax(o, start, outputs):
        top = o[start]
        for j in range(start + 1, start + outputs):
            top = o[j] if o[j] > top else top
        total = 0.0
        for j in range(start, start + outputs):
            o[j] = exp(o[j] - top)
            total += float(o[j])
        scale = dtype(1 / total)
        for j in range(start, start + outputs):
            o[j] = o[j] * scale
        return float(top) + math.log(total)

    return {"identity": identity, "sigmoid": apply_sigmoid, "tanh": apply_tanh, "softmax": softmax}[
        readout
    ]


@cache
def outputs_kernel(readout, dtype):
    """o = readout(o + c), 0 past a sequence's length; a thread a row."""
    apply = _readout(readout, dtype)
    zero = dtype(0)

    def outputs(o, c, lengths, t, rows, B, O):
        r = cuda.grid(1)
        if r < rows:
            live = t + r // B < lengths[r % B]
            for j in range(O):
                o[r * O + j] = o[r * O + j] + c[j] if live else zero
            if live:
                apply(o, r * O, O)

    outputs.key = readout, dtype.__name__
    return outputs


@cache
def _row_loss(loss, readout, dtype, many):
    """A function (o, start, outputs, y, at, target, scale, weights) -> E of a row.

    o becomes scale * dE/do * h'. If `many`, weights[at:] are those of the outputs, and part of E.
    """
    apply = _readout(readout, dtype)
    sigmoid = maths_of(dtype)[2]
    one, zero = dtype(1), dtype(0)
    SIGMOID, TANH, SOFTMAX = (readout == name for name in ("sigmoid", "tanh", "softmax"))

    @device
    def before_activation(d, s, mean):
        if SIGMOID:
            d = d * s * (one - s)
        if TANH:
            d = d * (one - s * s)
        if SOFTMAX:  # mean: sum_j d_j o_j
            d = s * (d - mean)
        return d

    @device
    def squared_error(o, start, outputs, y, at, target, scale, weights):
        apply(o, start, outputs)
        value, mean = 0.0, 0.0
        for j in range(outputs):
            share = weights[at + j] if many else 1.0
            if share != 0.0:
                error = float(o[start + j] - y[at + j])
                value += share * (error * error)
                mean += share * (error * float(o[start + j]))
        for j in range(outputs):
            share = weights[at + j] if many else 1.0
            s = o[start + j]
            d = zero
            if share != 0.0:
                d = (s - y[at + j]) * dtype(2 * scale * share)
            o[start + j] = before_activation(d, s, dtype(2 * scale * mean))
        return value

    @device
    def given(o, start, outputs, y, at, target, scale, weights):
        apply(o, start, outputs)
        mean = 0.0
        if SOFTMAX:
            for j in range(outputs):
                mean += float(y[at + j]) * float(o[start + j])
        for j in range(outputs):
            o[start + j] = before_activation(y[at + j], o[start + j], dtype(mean))
        return 0.0

    @device
    def cross_entropy(o, start, outputs, y, at, target, scale, weights):
        wanted = float(o[start + target])
        value = apply(o, start, outputs) - wanted
        for j in range(outputs):
            hit = one if j == target else zero
            o[start + j] = (o[start + j] - hit) * dtype(scale)
        return value

    @device
    def binary_cross_entropy(o, start, outputs, y, at, target, scale, weights):
        value = 0.0
        for j in range(outputs):
            share = weights[at + j] if many else 1.0
            d = zero
            if share != 0.0:
                a, wanted = o[start + j], y[at + j]
                wide = float(a)
                positive = wide if wide > 0 else 0.0
                each = positive - wide * float(wanted) + math.log1p(math.exp(-abs(wide)))
                value += share * each
                d = (sigmoid(a) - wanted) * dtype(scale * share)
            o[start + j] = d
        return value

    return {
        "squared_error": squared_error,
        "cross_entropy": cross_entropy,
        "binary_cross_entropy": binary_cross_entropy,
        GIVEN: given,
    }[loss]


@cache
def _counts():
    """Whether row r counts."""

    @device
    def counts(weights, each, lengths, t, r, B):
        if t + r // B >= lengths[r % B]:
            return False
        for j in range(r * each, r * each + each):
            if weights[j] != 0.0:
                return True
        return each == 0

    return counts


@cache
def loss_kernel(loss, readout, dtype, many):
    """values[r] = w E and o = factor w dE/do h', from o = V h; 0 where a row does not count.

    A thread a row. `many`: whether each output has a weight of its own. Arguments besides those of
    the module's docstring:

    y : (rows, O), targets : (rows,) int64; the one that the loss does not read is empty
    values : (rows,) float64
    factor : float64, by which the derivatives are multiplied
    """
    row_loss = _row_loss(loss, readout, dtype, many)
    counts = _counts()
    zero = dtype(0)
    CLASSES = loss != GIVEN and LOSSES[loss].classes

    def loss_rows(o, c, y, targets, weights, each, lengths, values, factor, t, B, O):
        r = cuda.grid(1)
        if r < values.size:
            if not counts(weights, each, lengths, t, r, B):
                values[r] = 0.0
                for j in range(r * O, r * O + O):
                    o[j] = zero
            else:
                for j in range(O):
                    o[r * O + j] = o[r * O + j] + c[j]
                target = targets[r] if CLASSES else 0
                weight = weights[r] if each and not many else 1.0
                scale = weight * factor
                values[r] = weight * row_loss(o, r * O, O, y, r * O, target, scale, weights)

    loss_rows.key = loss, readout + " each" * many, dtype.__name__
    return loss_rows


@cache
def counted_kernel(dtype):
    """out = a where a row counts, else 0: in a product 0 times NaN is NaN. A thread an element.

    out, a : (size // width, width); width : numbers in a row
    """
    counts, zero = _counts(), dtype(0)

    def counted(out, a, weights, each, lengths, t, size, B, width):
        i = cuda.grid(1)
        if i < size:
            out[i] = a[i] if counts(weights, each, lengths, t, i // width, B) else zero

    counted.key = (dtype.__name__,)
    return counted


@cache
def dropout_kernel(dtype):
    """out = a * mask / (1 - rate). A thread an element.

    out, a : (size // H, H); they may be the same array
    key : uint64, the key of the layer's masks
    threshold : uint64; a unit whose number is below it is dropped
    scale : float64, 1 / (1 - rate)
    first : the number of sequence 0 in the whole batch, of which the call may have a part
    """
    draw_ = on_device(draw, dtype)
    zero = dtype(0)

    def dropout(out, a, key, threshold, scale, t, first, size, B, H):
        i = cuda.grid(1)
        if i < size:
            r = i // H
            row_key = draw_(draw_(key, t + r // B), first + r % B)
            out[i] = a[i] * dtype(scale) if draw_(row_key, i % H) >= threshold else zero

    dropout.key = (dtype.__name__,)
    return dropout


@cache
def scatter_kernel(dtype):
    """total[i, j] += sum of d[r, j] over the rows r of token i, in order.

    A block has one token and some columns, so no two threads add to one element.

    total : (I, columns) float64
    d : (rows, step), of which the first `columns` columns add
    order : (rows,) int64, the rows sorted by token
    starts : (I + 1,) int64, where each token's rows begin in `order`
    """

    def scatter(total, d, order, starts, step, columns):
        c = cuda.blockIdx.x
        j = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
        if j < columns and starts[c] < starts[c + 1]:
            value = total[c * columns + j]
            for n in range(starts[c], starts[c + 1]):
                value += float(d[order[n] * step + j])
            total[c * columns + j] = value

    scatter.key = (dtype.__name__,)
    return scatter


def scatter(xp, total, d, ids, step, columns):
    """Add the gradients by a table's rows: total[ids[r], j] += d[r, j]; see `scatter_kernel`."""
    tokens = total.shape[0]
    order = xp.argsort(ids, kind="stable")
    starts = xp.searchsorted(ids[order], xp.arange(tokens + 1)).astype(np.int64)
    threads = _threads(columns)
    launch(
        scatter_kernel(d.dtype.type),
        (tokens, -(-columns // threads)),
        threads,
        (total, d, order, starts, step, columns),
    )
