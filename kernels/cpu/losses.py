"""Readouts and losses over a stretch of time: o = h(V s + c), E and dE/do * h'.

Loss values are float64. A row is one (t, b), number t*B + b of the stretch.
"""

import math
from functools import cache

import numpy as np

from ..flat import data, get, put
from ..jit import inner, noinline
from ..loss_table import LOSSES, READOUTS
from ..maths import cast_like, exp, sigmoid, tanh
from .linear import accumulate, add_bias, multiply_rows, project_rows
from .workers import fork, job, named_job, program

_SIGMOID, _TANH, _SOFTMAX = (READOUTS[name] for name in ("sigmoid", "tanh", "softmax"))
_SQUARED_ERROR = LOSSES["squared_error"].number
_CROSS_ENTROPY = LOSSES["cross_entropy"].number


@inner
def _softmax(o, start, outputs):
    """o = softmax(o); returns log(sum exp) in float64."""
    noinline()
    top = get(o, start)
    for j in range(1, outputs):
        value = get(o, start + j)
        top = value if value > top else top
    for j in range(outputs):
        put(o, start + j, exp(get(o, start + j) - top))
    total = 0.0
    for j in range(outputs):
        total += get(o, start + j)
    scale = cast_like(1 / total, top)
    for j in range(outputs):
        put(o, start + j, get(o, start + j) * scale)
    return top + math.log(total)


@inner
def _apply(o, start, outputs, readout):
    if readout == _SIGMOID:
        for j in range(start, start + outputs):
            put(o, j, sigmoid(get(o, j)))
    elif readout == _TANH:
        for j in range(start, start + outputs):
            put(o, j, tanh(get(o, j)))
    elif readout == _SOFTMAX:
        _softmax(o, start, outputs)


@inner
def _squared_error(o, start, outputs, readout, y, y_start, scale):
    """E = ||o - y||^2; o becomes scale * dE/do * h'."""
    _apply(o, start, outputs, readout)
    value = 0.0
    mean = 0.0  # of the softmax's Jacobian: sum_j dE/do_j o_j
    for j in range(outputs):
        s = get(o, start + j)
        error = s - get(y, y_start + j)
        value += np.float64(error) * np.float64(error)
        if readout == _SOFTMAX:
            mean += np.float64(error) * np.float64(s)
    for j in range(outputs):
        s = get(o, start + j)
        one = cast_like(1, s)
        d = (s - get(y, y_start + j)) * cast_like(2 * scale, s)
        if readout == _SIGMOID:
            d *= s * (one - s)
        elif readout == _TANH:
            d *= one - s * s
        elif readout == _SOFTMAX:
            d = s * (d - cast_like(2 * scale * mean, s))
        put(o, start + j, d)
    return value


@inner
def _cross_entropy(o, start, outputs, target, scale):
    """E = -log o_target; o becomes scale * (o - onehot(target))."""
    chosen = np.float64(get(o, start + target))
    value = _softmax(o, start, outputs) - chosen
    for j in range(outputs):
        s = get(o, start + j)
        hit = cast_like(1, s) if j == target else cast_like(0, s)
        put(o, start + j, (s - hit) * cast_like(scale, s))
    return value


@inner
def _binary_cross_entropy(o, start, outputs, y, y_start, scale):
    """E = -sum(y log o + (1 - y) log(1 - o)), from the logits; o becomes scale * (o - y)."""
    value = 0.0
    for j in range(outputs):
        a = np.float64(get(o, start + j))
        wanted = get(y, y_start + j)
        value += (a if a > 0 else 0.0) - a * np.float64(wanted) + math.log1p(math.exp(-abs(a)))
        s = sigmoid(get(o, start + j))
        put(o, start + j, (s - wanted) * cast_like(scale, s))
    return value


@inner
def counts(lengths, weights, t, b, row):
    """Whether the loss at (t, b), which is `row` of `weights`, counts."""
    return t < get(lengths, b) and (weights.size == 0 or get(weights, row) != 0)


@inner
def loss_rows(
    readout, loss, factor, V, V_back, c, h, h_start, o, o_start, y, targets, weights, row,
    values, v_start, dh, dh_start, lengths, t, B, H, O, low, high,
):  # fmt: skip
    """For rows low..high of a stretch from time t on: values[r] = w E, o = factor w dE/do h'.

    Row r of the stretch is row + r of `y`, `targets` and `weights`, of which `weights` may be empty
    (all 1); `targets` serves cross entropy, `y` the other losses. Rows past their length or of
    weight 0 become 0. Where `dh` is not empty, dE/dh goes there.
    """
    noinline()
    project_rows(o, o_start, O, h, h_start, targets, 0, False, V, c, H, O, low, high)
    o_data = data(o)
    for r in range(low, high):
        start = o_start + r * O
        if not counts(lengths, weights, t + r // B, r % B, row + r):
            for j in range(start, start + O):
                put(o_data, j, 0)
            continue
        weight = get(weights, row + r) if weights.size > 0 else 1.0
        scale = weight * factor
        if loss == _SQUARED_ERROR:
            value = _squared_error(o_data, start, O, readout, data(y), (row + r) * O, scale)
        elif loss == _CROSS_ENTROPY:
            value = _cross_entropy(o_data, start, O, get(targets, row + r), scale)
        else:
            value = _binary_cross_entropy(o_data, start, O, data(y), (row + r) * O, scale)
        put(values, v_start + r, weight * value)
    if dh.size > 0:
        multiply_rows(dh, dh_start, o, o_start, O, V_back, O, H, low, high, high)


@inner
def list_rows(rows, start, lengths, weights, row, t, n, B):
    """Put into rows[start:] those (t, b) of n steps that count, last step first; return how many.

    They are numbered from 0 at (t, 0), which is `row` of `weights`; this is the order in which
    gradients add.
    """
    noinline()
    count = 0
    for m in range(n - 1, -1, -1):
        for b in range(B):
            if counts(lengths, weights, t + m, b, row + m * B + b):
                put(rows, start + count, m * B + b)
                count += 1
    return count


@inner
def add_losses(total, values, v_start, rows, r_start, count):
    """Add the values of rows to the pair total = (sum, its rounding error) (Knuth's TwoSum).

    The pair makes the sum as good as exact, so forward and reverse order give one number.
    """
    s, error = total[0], total[1]
    for n in range(count):
        value = get(values, v_start + get(rows, r_start + n))
        new = s + value
        part = new - s
        error += (s - (new - part)) + (value - part)
        s = new
    total[0], total[1] = s, error


_ROWS = 48  # in a piece


@named_job("loss")
def _loss(
    readout, loss, factor, V, V_back, c, h, o, y, targets, weights, values, dh, lengths, t, B, H, O,
    low, high,
):  # fmt: skip
    rows = h.shape[0] * B
    for piece in range(low, high):
        loss_rows(
            readout, loss, factor, V, V_back, c, data(h), 0, o, 0, y, targets, weights, 0, values,
            0, dh, 0, lengths, t, B, H, O, piece * _ROWS, min(rows, (piece + 1) * _ROWS),
        )  # fmt: skip


@cache
def build_loss():
    """The loss of a stretch."""

    @program("loss of a stretch")
    def loss(
        mailbox,
        threads,
        readout,
        loss,
        factor,
        V,
        c,
        h,
        o,
        y,
        targets,
        weights,
        values,
        rows,
        total,
        nothing,
        lengths,
        t,
    ):
        """Add the loss at the states h (n, B, H), the first at time t, to `total`."""
        n, B, H = h.shape
        function, data_ = job(
            "loss",
            (readout, loss, factor, V, V, c, h, o, y, targets, weights, values, nothing, lengths, t,
             B, H, o.shape[2]),
        )  # fmt: skip
        fork(mailbox, threads, -(-n * B // _ROWS), function, data_)
        count = list_rows(rows, 0, lengths, weights, 0, t, n, B)
        add_losses(total, values, 0, rows, 0, count)

    return loss


@named_job("readout gradient")
def _readout_gradient(o, h, O, H, rows, count, grad, total, bias, ends, block, low, high):
    for piece in range(low, high):
        first, last = piece * block, min(O, (piece + 1) * block)
        accumulate(grad, total, ends, data(o), 0, O, data(h), 0, H, data(rows), 0, count, first,
                   last)  # fmt: skip
        add_bias(bias, data(o), 0, O, data(rows), 0, count, first, last)


@cache
def build_loss_and_derivative():
    """The loss of a stretch, its derivative by the states, and the readout's gradient."""

    @program("loss and derivative of a stretch")
    def loss(
        mailbox,
        threads,
        readout,
        loss,
        factor,
        V,
        V_back,
        c,
        h,
        o,
        y,
        targets,
        weights,
        values,
        rows,
        total,
        dh,
        lengths,
        t,
        flush_steps,
        grad,
        grad_total,
        bias,
    ):
        """Like `build_loss`, and dh (n, B, H) = dE/dh; adds to the gradients of V and c."""
        n, B, H = h.shape
        O = o.shape[2]
        function, data_ = job(
            "loss",
            (readout, loss, factor, V, V_back, c, h, o, y, targets, weights, values, dh, lengths, t,
             B, H, O),
        )  # fmt: skip
        fork(mailbox, threads, -(-n * B // _ROWS), function, data_)
        count = list_rows(rows, 0, lengths, weights, 0, t, n, B)
        add_losses(total, values, 0, rows, 0, count)
        block = 24
        function, data_ = job(
            "readout gradient",
            (o, h, O, H, rows, count, grad, grad_total, bias, t % flush_steps == 0, block),
        )  # fmt: skip
        fork(mailbox, threads, -(-O // block), function, data_)

    return loss


@named_job("outputs")
def _outputs(readout, V, c, h, ids, o, lengths, t, B, H, O, low, high):
    rows = h.shape[0] * B
    for piece in range(low, high):
        first, last = piece * _ROWS, min(rows, (piece + 1) * _ROWS)
        project_rows(o, 0, O, data(h), 0, ids, 0, False, V, c, H, O, first, last)
        for r in range(first, last):
            if t + r // B < get(lengths, r % B):
                _apply(data(o), r * O, O, readout)
            else:
                for j in range(r * O, (r + 1) * O):
                    put(o, j, 0)


@cache
def build_outputs():
    """The readout of a stretch."""

    @program("outputs of a stretch")
    def outputs(mailbox, threads, readout, V, c, h, ids, o, lengths, t):
        """o = readout(V h + c), 0 past a sequence's length; `ids` is empty."""
        n, B, H = h.shape
        function, data_ = job("outputs", (readout, V, c, h, ids, o, lengths, t, B, H, o.shape[2]))
        fork(mailbox, threads, -(-n * B // _ROWS), function, data_)

    return outputs
