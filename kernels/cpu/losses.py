"""Readouts and losses over a stretch of time: o = h(V s + c), E and dE/do * h'.

Loss values are float64. A row is one (t, b), number t*B + b of the stretch.
"""

import math
from functools import cache

import numpy as np

from ..access import get, put
from ..jit import SOURCE_KEY, entry, inner
from ..maths import exp, like, sigmoid, tanh
from .workers import kernel

READOUTS = {"identity": 0, "sigmoid": 1, "tanh": 2, "softmax": 3}
LOSSES = {"squared_error": 0, "cross_entropy": 1, "binary_cross_entropy": 2}


@inner
def _softmax(o, start, outputs):
    """o = softmax(o); returns log(sum exp) in float64."""
    top = get(o, start)
    for j in range(1, outputs):
        value = get(o, start + j)
        top = value if value > top else top
    for j in range(outputs):
        put(o, start + j, exp(get(o, start + j) - top))
    total = 0.0
    for j in range(outputs):
        total += get(o, start + j)
    scale = like(1 / total, top)
    for j in range(outputs):
        put(o, start + j, get(o, start + j) * scale)
    return top + math.log(total)


@inner
def _apply(o, start, outputs, readout):
    if readout == 1:
        for j in range(start, start + outputs):
            put(o, j, sigmoid(get(o, j)))
    elif readout == 2:
        for j in range(start, start + outputs):
            put(o, j, tanh(get(o, j)))
    elif readout == 3:
        _softmax(o, start, outputs)


@inner
def _squared_error(o, start, outputs, readout, y, scale):
    """E = ||o - y||^2; o becomes scale * dE/do * h'."""
    _apply(o, start, outputs, readout)
    value = 0.0
    mean = 0.0  # of the softmax's Jacobian: sum_j dE/do_j o_j
    for j in range(start, start + outputs):
        s = get(o, j)
        error = s - get(y, j)
        value += np.float64(error) * np.float64(error)
        if readout == 3:
            mean += np.float64(error) * np.float64(s)
    for j in range(start, start + outputs):
        s = get(o, j)
        one = like(1, s)
        d = (s - get(y, j)) * like(2 * scale, s)
        if readout == 1:
            d *= s * (one - s)
        elif readout == 2:
            d *= one - s * s
        elif readout == 3:
            d = s * (d - like(2 * scale * mean, s))
        put(o, j, d)
    return value


@inner
def _cross_entropy(o, start, outputs, target, scale):
    """E = -log o_target; o becomes scale * (o - onehot(target))."""
    chosen = np.float64(get(o, start + target))
    value = _softmax(o, start, outputs) - chosen
    for j in range(outputs):
        s = get(o, start + j)
        hit = like(1, s) if j == target else like(0, s)
        put(o, start + j, (s - hit) * like(scale, s))
    return value


@inner
def _binary_cross_entropy(o, start, outputs, y, scale):
    """E = -sum(y log o + (1 - y) log(1 - o)), from the logits; o becomes scale * (o - y)."""
    value = 0.0
    for j in range(start, start + outputs):
        a = np.float64(get(o, j))
        wanted = get(y, j)
        value += (a if a > 0 else 0.0) - a * np.float64(wanted) + math.log1p(math.exp(-abs(a)))
        s = sigmoid(get(o, j))
        put(o, j, (s - wanted) * like(scale, s))
    return value


@cache
def build_activate():
    """The readout's activation."""

    @kernel("activate")
    def activate(o, outputs, readout, lengths, t0, B, low, high):
        """o = h(o) over rows low..high, 0 past a sequence's length."""
        for r in range(low, high):
            if t0 + r // B < get(lengths, r % B):
                _apply(o, r * outputs, outputs, readout)
            else:
                for j in range(r * outputs, (r + 1) * outputs):
                    put(o, j, 0)

    return activate


@inner
def _counts(lengths, weights, t, b, r):
    return t < get(lengths, b) and (weights.size == 0 or get(weights, r) != 0)


@cache
def build_loss():
    """Loss values and their derivatives."""

    @kernel("loss")
    def loss(
        o, outputs, readout, kind, y, targets, lengths, weights, factor, values, t0, B, low, high
    ):
        """For rows low..high: values[r] = w E, and o, V s + c on entry, becomes factor w dE/do h'.

        Rows past their length or of weight 0 become 0. `weights` may be empty (all 1); `targets`
        serves cross entropy, `y` the other losses.
        """
        for r in range(low, high):
            start = r * outputs
            if not _counts(lengths, weights, t0 + r // B, r % B, r):
                for j in range(start, start + outputs):
                    put(o, j, 0)
                continue
            weight = get(weights, r) if weights.size > 0 else 1.0
            if kind == 0:
                value = _squared_error(o, start, outputs, readout, y, weight * factor)
            elif kind == 1:
                value = _cross_entropy(o, start, outputs, get(targets, r), weight * factor)
            else:
                value = _binary_cross_entropy(o, start, outputs, y, weight * factor)
            put(values, r, weight * value)

    return loss


@cache
def build_counted_rows():
    """The rows whose loss counts, in the order in which gradients add."""
    key = SOURCE_KEY

    @entry
    def counted_rows(rows, lengths, weights, t0, n, B):
        """Fill `rows` with those inside their length and of weight not 0; return how many."""
        key  # noqa: B018 - enters the disk cache's key
        count = 0
        for t in range(n - 1, -1, -1):
            for b in range(B):
                if _counts(lengths, weights, t0 + t, b, t * B + b):
                    put(rows, count, t * B + b)
                    count += 1
        return count

    return counted_rows


@cache
def build_add_losses():
    """The sum of the loss values."""
    key = SOURCE_KEY

    @entry
    def add_losses(total, values, rows, count):
        """Add values[rows[:count]] to the pair total = (sum, its rounding error) (Knuth's TwoSum).

        The pair makes the sum as good as exact, so forward and reverse order give one number.
        """
        key  # noqa: B018 - enters the disk cache's key
        s, error = total[0], total[1]
        for n in range(count):
            value = get(values, get(rows, n))
            new = s + value
            part = new - s
            error += (s - (new - part)) + (value - part)
            s = new
        total[0], total[1] = s, error

    return add_losses
