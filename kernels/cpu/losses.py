"""Readouts and losses over a span of time: o = h(V s + c), E and dE/do * h'.

Loss values are float64. A row is one (t, b), number t*B + b of the span. The first arguments of a
loss's function are o, start, outputs: the row is o[start : start + outputs], V s + c on entry.
"""

import math

import numpy as np

from ..flat import data, get, offset, put
from ..jit import inner, noinline
from ..loss_table import GIVEN, NUMBERS, READOUTS
from ..maths import cast_like, exp, sigmoid, tanh
from .linear import multiply_rows, project_rows

_SIGMOID, _TANH, _SOFTMAX = (READOUTS[name] for name in ("sigmoid", "tanh", "softmax"))
_SQUARED_ERROR, _CROSS_ENTROPY, _GIVEN = (
    NUMBERS[name] for name in ("squared_error", "cross_entropy", GIVEN)
)


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
def apply_readout(o, start, outputs, readout):
    """o = h(o) for the activation of that number."""
    if readout == _SIGMOID:
        for j in range(start, start + outputs):
            put(o, j, sigmoid(get(o, j)))
    elif readout == _TANH:
        for j in range(start, start + outputs):
            put(o, j, tanh(get(o, j)))
    elif readout == _SOFTMAX:
        _softmax(o, start, outputs)


@inner
def _before_activation(d, s, readout, mean):
    """dE/da from d = dE/do at the output s; `mean` is sum_j d_j o_j, for the softmax's Jacobian."""
    one = cast_like(1, s)
    if readout == _SIGMOID:
        return d * (s * (one - s))
    if readout == _TANH:
        return d * (one - s * s)
    if readout == _SOFTMAX:
        return s * (d - mean)
    return d


@inner
def _squared_error(o, start, outputs, readout, y, y_start, scale):
    """E = ||o - y||^2; o becomes scale * dE/do * h'."""
    apply_readout(o, start, outputs, readout)
    value = 0.0
    mean = 0.0  # sum_j (o_j - y_j) o_j
    for j in range(outputs):
        s = get(o, start + j)
        error = s - get(y, y_start + j)
        value += np.float64(error) * np.float64(error)
        if readout == _SOFTMAX:
            mean += np.float64(error) * np.float64(s)
    for j in range(outputs):
        s = get(o, start + j)
        d = (s - get(y, y_start + j)) * cast_like(2 * scale, s)
        put(o, start + j, _before_activation(d, s, readout, cast_like(2 * scale * mean, s)))
    return value


@inner
def _squared_errors(o, start, outputs, readout, y, y_start, weights, w_start, scale):
    """`_squared_error` with a weight for each output; those of weight 0 are left out."""
    noinline()
    apply_readout(o, start, outputs, readout)
    value = mean = 0.0
    for j in range(outputs):
        share = get(weights, w_start + j)
        if share != 0:
            s = get(o, start + j)
            error = np.float64(s - get(y, y_start + j))
            value += share * (error * error)
            mean += share * (error * np.float64(s))
    for j in range(outputs):
        share, s = get(weights, w_start + j), get(o, start + j)
        d = cast_like(0, s)
        if share != 0:
            d = (s - get(y, y_start + j)) * cast_like(2 * scale * share, s)
        put(o, start + j, _before_activation(d, s, readout, cast_like(2 * scale * mean, s)))
    return value


@inner
def _given_derivative(o, start, outputs, readout, do, do_start):
    """o becomes do * h'; E is the caller's."""
    noinline()
    apply_readout(o, start, outputs, readout)
    mean = 0.0
    if readout == _SOFTMAX:
        for j in range(outputs):
            mean += np.float64(get(do, do_start + j)) * np.float64(get(o, start + j))
    for j in range(outputs):
        d, s = get(do, do_start + j), get(o, start + j)
        put(o, start + j, _before_activation(d, s, readout, cast_like(mean, s)))
    return 0.0


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
def _logistic_loss(a, wanted):
    """-(y log o + (1 - y) log(1 - o)) from the logit a."""
    return (a if a > 0 else 0.0) - a * wanted + math.log1p(math.exp(-abs(a)))


@inner
def _binary_cross_entropy(o, start, outputs, y, y_start, scale):
    """E = -sum(y log o + (1 - y) log(1 - o)), from the logits; o becomes scale * (o - y)."""
    value = 0.0
    for j in range(outputs):
        wanted = get(y, y_start + j)
        value += _logistic_loss(np.float64(get(o, start + j)), np.float64(wanted))
        s = sigmoid(get(o, start + j))
        put(o, start + j, (s - wanted) * cast_like(scale, s))
    return value


@inner
def _binary_cross_entropies(o, start, outputs, y, y_start, weights, w_start, scale):
    """`_binary_cross_entropy` with a weight for each output; those of weight 0 are left out."""
    noinline()
    value = 0.0
    for j in range(outputs):
        share, a = get(weights, w_start + j), get(o, start + j)
        d = cast_like(0, a)
        if share != 0:
            wanted = get(y, y_start + j)
            value += share * _logistic_loss(np.float64(a), np.float64(wanted))
            d = (sigmoid(a) - wanted) * cast_like(scale * share, a)
        put(o, start + j, d)
    return value


@inner
def counts(lengths, weights, t, b, row):
    """Whether the loss at (t, b), row `row` of `weights`, counts: that of any of its outputs."""
    if t >= get(lengths, b):
        return False
    if weights.size == 0:
        return True
    each = weights.shape[2]
    found = False
    for j in range(row * each, row * each + each):
        found = found or get(weights, j) != 0
    return found


@inner
def loss_rows(kind, weight, h, o, given, values, derivative, lengths, t, sizes, low, high):
    """For rows low..high of a span from time t on: values[r] = w E, o = factor w dE/do h'.

    Rows past their length, or of weight 0, become 0.

    kind : (readout, loss, factor)
    weight : (V packed for V s, V packed for V^T do, c)
    given : (y, targets, weights, row); row r of the span is row + r of these arrays. A row has one
        weight or one for each output
    derivative : (dh, its first element); unless dh is empty, dE/dh goes there
    sizes : (B, H, O)
    """
    noinline()
    readout, loss, factor = kind
    V, V_back, c = weight
    y, targets, weights, row = given
    dh, dh_start = derivative
    B, H, O = sizes
    project_rows(o, O, h, H, data(targets), False, (data(V), H, O), c, low, high)
    for r in range(low, high):
        start = r * O
        if not counts(lengths, weights, t + r // B, r % B, row + r):
            for j in range(start, start + O):
                put(o, j, 0)
            continue
        at = (row + r) * O
        if weights.shape[2] > 1:
            each = data(weights)
            if loss == _SQUARED_ERROR:
                value = _squared_errors(o, start, O, readout, data(y), at, each, at, factor)
            else:
                value = _binary_cross_entropies(o, start, O, data(y), at, each, at, factor)
            put(values, r, value)
            continue
        share = get(weights, row + r) if weights.size > 0 else 1.0
        scale = share * factor
        if loss == _SQUARED_ERROR:
            value = _squared_error(o, start, O, readout, data(y), at, scale)
        elif loss == _GIVEN:
            value = _given_derivative(o, start, O, readout, data(y), at)
        elif loss == _CROSS_ENTROPY:
            value = _cross_entropy(o, start, O, get(targets, row + r), scale)
        else:
            value = _binary_cross_entropy(o, start, O, data(y), at, scale)
        put(values, r, share * value)
    if dh.size > 0:
        multiply_rows(offset(dh, dh_start), H, o, O, (data(V_back), O, H), low, high, high)


@inner
def index_rows(rows, start, lengths, weights, row, t, n, B):
    """Put into rows[start:] those (t, b) of n steps that count, last step first; return how many.

    They are numbered from 0 at (t, 0), which is row `row` of `weights`. This is the order in which
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
    """Add the values of `count` rows to the pair total = (sum, its rounding error).

    By Knuth's TwoSum. The pair makes the sum as good as exact, so that forward and reverse order
    give the same number.
    """
    s, error = total[0], total[1]
    for n in range(count):
        value = get(values, v_start + get(rows, r_start + n))
        new = s + value
        part = new - s
        error += (s - (new - part)) + (value - part)
        s = new
    total[0], total[1] = s, error
