"""The two products of BPTT, each with one order of summation.

An element of `product` adds over k ascending; an element of `outer` adds over the rows in the
order given (time descending, then batch ascending). One fused multiply-add per term, one chain per
element: the result does not depend on which rows, columns, segment or thread a call covers.
"""

from ..access import get, put
from ..jit import inner
from ..maths import fma


@inner
def product(out, out_start, out_step, a, a_start, a_step, rows, w, inner_size, columns):
    """out[r, j] += sum_k a[r, k] * w[k, j] for `rows` rows; w is (inner_size, columns)."""
    for r in range(rows):
        o = out_start + r * out_step
        i = a_start + r * a_step
        k = 0
        while k + 4 <= inner_size:
            a0, a1, a2, a3 = get(a, i + k), get(a, i + k + 1), get(a, i + k + 2), get(a, i + k + 3)
            w0 = k * columns
            w1, w2, w3 = w0 + columns, w0 + 2 * columns, w0 + 3 * columns
            for j in range(columns):
                s = fma(a0, get(w, w0 + j), get(out, o + j))
                s = fma(a1, get(w, w1 + j), s)
                s = fma(a2, get(w, w2 + j), s)
                put(out, o + j, fma(a3, get(w, w3 + j), s))
            k += 4
        while k < inner_size:
            a0 = get(a, i + k)
            for j in range(columns):
                put(out, o + j, fma(a0, get(w, k * columns + j), get(out, o + j)))
            k += 1


@inner
def outer(out, a, inner_size, d, columns, rows, count, low, high):
    """out[k, j] += sum_r a[r, k] * d[r, j] over r in rows[:count], for low <= j < high."""
    n = 0
    while n + 4 <= count:
        r0, r1, r2, r3 = get(rows, n), get(rows, n + 1), get(rows, n + 2), get(rows, n + 3)
        for k in range(inner_size):
            a0 = get(a, r0 * inner_size + k)
            a1 = get(a, r1 * inner_size + k)
            a2 = get(a, r2 * inner_size + k)
            a3 = get(a, r3 * inner_size + k)
            for j in range(low, high):
                s = fma(a0, get(d, r0 * columns + j), get(out, k * columns + j))
                s = fma(a1, get(d, r1 * columns + j), s)
                s = fma(a2, get(d, r2 * columns + j), s)
                put(out, k * columns + j, fma(a3, get(d, r3 * columns + j), s))
        n += 4
    while n < count:
        r0 = get(rows, n)
        for k in range(inner_size):
            a0 = get(a, r0 * inner_size + k)
            for j in range(low, high):
                s = get(out, k * columns + j)
                put(out, k * columns + j, fma(a0, get(d, r0 * columns + j), s))
        n += 1
