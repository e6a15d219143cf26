"""What is linear in a stretch of time: input products, weight gradients, sums.

Arrays are C-contiguous; a row is one (t, b), number t*B + b of the stretch.
"""

from functools import cache

from ..access import data, get, put
from ..maths import like
from .products import outer, product
from .workers import kernel


@cache
def build_project():
    """out = a @ w + bias over rows."""

    @kernel("project")
    def project(out, a, ids, w, bias, inner_size, columns, low, high):
        """Rows low..high of `out`; if `ids` is not empty, row r of `a` is one-hot at ids[r]."""
        for r in range(low, high):
            for j in range(columns):
                put(out, r * columns + j, get(bias, j))
        if ids.size == 0:
            product(
                data(out), low * columns, columns, data(a), low * inner_size, inner_size,
                high - low, data(w), inner_size, columns,
            )  # fmt: skip
            return
        for r in range(low, high):
            w_start = get(ids, r) * columns
            for j in range(columns):
                s = get(out, r * columns + j) + get(w, w_start + j)
                put(out, r * columns + j, s)

    return project


@cache
def build_multiply():
    """out = a @ w over rows."""

    @kernel("multiply")
    def multiply(out, a, w, inner_size, columns, low, high):
        """Rows low..high of `out`."""
        for i in range(low * columns, high * columns):
            put(out, i, 0)
        product(
            data(out), low * columns, columns, data(a), low * inner_size, inner_size,
            high - low, data(w), inner_size, columns,
        )  # fmt: skip

    return multiply


@cache
def build_accumulate():
    """Gradients of a linear map from `a` to what `d` is the derivative by."""

    @kernel("accumulate")
    def accumulate(total, panel, bias, a, ids, inner_size, d, columns, rows, count, low, high):
        """panel[k, j] += sum of a[r, k] d[r, j] over rows, for columns low..high.

        Tokens add straight to `total`, since a panel would be nearly all zeros; so does the bias,
        if `bias` is not empty.
        """
        if ids.size == 0:
            outer(
                data(panel), data(a), inner_size, data(d), columns, data(rows), count, low, high,
            )  # fmt: skip
        else:
            for n in range(count):
                r = get(rows, n)
                t_start = get(ids, r) * columns
                for j in range(low, high):
                    s = get(total, t_start + j) + get(d, r * columns + j)
                    put(total, t_start + j, s)
        if bias.size > 0:
            for n in range(count):
                d_start = get(rows, n) * columns
                for j in range(low, high):
                    put(bias, j, get(bias, j) + get(d, d_start + j))

    return accumulate


@cache
def build_flush():
    """Carry a panel into the float64 total."""

    @kernel("flush")
    def flush(total, panel, low, high):
        """total += panel; panel = 0."""
        for i in range(low, high):
            s = get(panel, i)
            put(total, i, get(total, i) + s)
            put(panel, i, like(0, s))

    return flush
