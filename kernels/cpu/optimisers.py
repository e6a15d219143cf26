"""One step of an optimiser, in place, in one pass over its arrays; and the norm of some arrays.

Arrays come as the rows of a table of int64, see the columns below; `like` is an array of their
dtype. Numbers that depend on the step alone come as float64, and are used in that dtype.
"""

import math
from functools import cache

from ..flat import at, compiler_fence, get, load, put, store
from ..jit import entry, inner, noinline
from ..maths import cast_like
from .subnormals import flush_to_zero, restore

SIZE, WEIGHT, GRAD, FIRST, SECOND = range(5)
COLUMNS = 5


@inner
def _squares(values, size):
    """The sum of squares, in float64, in four partial sums of a fixed order."""
    a = b = c = d = 0.0
    whole = size // 4 * 4
    for i in range(0, whole, 4):
        p, q = cast_like(get(values, i), a), cast_like(get(values, i + 1), a)
        r, s = cast_like(get(values, i + 2), a), cast_like(get(values, i + 3), a)
        a += p * p
        b += q * q
        c += r * r
        d += s * s
    for i in range(whole, size):
        p = cast_like(get(values, i), a)
        a += p * p
    return (a + b) + (c + d)


@inner
def _scaled(like, out, values, size, scale):
    factor = cast_like(scale, get(like, 0))
    for i in range(size):
        put(out, i, get(values, i) * factor)


@inner
def _adam(like, table, row, scale, rate, decay, keep, beta1, beta2, root, eps):
    noinline()
    w, g = at(like, table[row, WEIGHT]), at(like, table[row, GRAD])
    m, v = at(like, table[row, FIRST]), at(like, table[row, SECOND])
    zero = get(like, 0)
    scale, rate, decay = cast_like(scale, zero), cast_like(rate, zero), cast_like(decay, zero)
    keep, root, eps = cast_like(keep, zero), cast_like(root, zero), cast_like(eps, zero)
    new1, new2 = cast_like(1 - beta1, zero), cast_like(1 - beta2, zero)
    old2 = cast_like(beta2, zero)
    for i in range(table[row, SIZE]):
        (weight,), (slope,) = load(w, i, 1, 1), load(g, i, 1, 1)
        (mean,), (square,) = load(m, i, 1, 1), load(v, i, 1, 1)
        slope = slope * scale + weight * decay
        mean = mean + new1 * (slope - mean)
        square = square * old2 + new2 * (slope * slope)
        weight = weight * keep - rate * (mean / (math.sqrt(square) * root + eps))
        store(m, i, 1, (mean,), 0)
        store(v, i, 1, (square,), 1)
        store(w, i, 1, (weight,), 2)
    compiler_fence()


@inner
def _sgd(like, table, row, scale, rate, decay, momentum, now, ahead):
    noinline()
    w, g = at(like, table[row, WEIGHT]), at(like, table[row, GRAD])
    zero = get(like, 0)
    scale, rate, decay = cast_like(scale, zero), cast_like(rate, zero), cast_like(decay, zero)
    momentum, now, ahead = cast_like(momentum, zero), cast_like(now, zero), cast_like(ahead, zero)
    if table[row, FIRST] == 0:
        for i in range(table[row, SIZE]):
            (weight,), (slope,) = load(w, i, 1, 1), load(g, i, 1, 1)
            store(w, i, 1, (weight - rate * (slope * scale + weight * decay),), 0)
    else:
        m = at(like, table[row, FIRST])
        for i in range(table[row, SIZE]):
            (weight,), (slope,), (mean,) = load(w, i, 1, 1), load(g, i, 1, 1), load(m, i, 1, 1)
            slope = slope * scale + weight * decay
            mean = mean * momentum + slope
            store(m, i, 1, (mean,), 0)
            store(w, i, 1, (weight - rate * (slope * now + mean * ahead),), 1)
    compiler_fence()


@cache
def build_optimisers():
    """Kernels (norm, scale, adam, sgd); each takes the first `count` rows of the table."""

    @entry
    def norm(like, table, count):
        """The norm of all that GRAD names together."""
        total = 0.0
        for row in range(count):
            total += _squares(at(like, table[row, GRAD]), table[row, SIZE])
        return math.sqrt(total)

    @entry
    def scale(like, table, count, factor):
        """Write GRAD times a factor to WEIGHT."""
        for row in range(count):
            target, source = at(like, table[row, WEIGHT]), at(like, table[row, GRAD])
            _scaled(like, target, source, table[row, SIZE], factor)

    @entry
    def adam(like, table, count, scale, rate, decay, keep, betas, root, eps):
        """Kingma and Ba (2015): FIRST and SECOND are the running means of g and of g*g.

        scale : of the gradient; rate : lr / (1 - beta1^t); root : 1 / sqrt(1 - beta2^t)
        decay : of the weights, added to the gradient; keep : what weights are multiplied by first
        """
        before = flush_to_zero()
        for row in range(count):
            _adam(like, table, row, scale, rate, decay, keep, betas[0], betas[1], root, eps)
        restore(before)

    @entry
    def sgd(like, table, count, scale, rate, decay, momentum, now, ahead):
        """FIRST, unless 0, is the velocity; a step goes along now * g + ahead * velocity."""
        before = flush_to_zero()
        for row in range(count):
            _sgd(like, table, row, scale, rate, decay, momentum, now, ahead)
        restore(before)

    return norm, scale, adam, sgd
