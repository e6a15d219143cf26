"""The products of a span outside its sweep: input products and weight gradients, in pieces.

A row is one (t, b), number t*B + b of the span. `rows[:count]` are indices of rows, in the order in
which gradients add. A `weight` is (w packed, its inputs, its outputs).
"""

from functools import cache

from ..flat import data, get, itemsize, offset, put
from ..jit import inner, noinline
from ..maths import cast_like
from .products import PANEL_BYTES, outer, product
from .workers import fork, job, named_job, program


@inner
def _fill(out, o_step, bias, low, high):
    """Rows low..high of `out` become `bias`, `o_step` numbers apart."""
    for r in range(low, high):
        for j in range(bias.size):
            put(out, r * o_step + j, get(bias, j))


@inner
def project_rows(out, o_step, a, a_step, ids, tokens, weight, bias, low, high):
    """out = bias, and the first columns += a @ w, for rows low..high that are `o_step` apart.

    The rows of a are `a_step` apart, of which w takes the first columns.

    With `tokens`, row r of a is one-hot at ids[r], and `w` has a row for each token.
    """
    noinline()
    w, inputs, outputs = weight
    _fill(out, o_step, bias, low, high)
    if not tokens:
        product(
            offset(out, low * o_step), o_step, offset(a, low * a_step), a_step, high - low, w,
            inputs, 1, 0, outputs,
        )  # fmt: skip
        return
    for r in range(low, high):
        start, w_start = r * o_step, get(ids, r) * outputs
        for j in range(outputs):
            put(out, start + j, get(out, start + j) + get(w, w_start + j))


@inner
def multiply_rows(out, o_step, a, a_step, weight, low, high, end):
    """The first columns of out = a @ w for rows low..high, the others 0.

    The rows of out are `o_step` apart, those of a `a_step`. From row `end` on a is 0.
    """
    noinline()
    w, inputs, outputs = weight
    for j in range(low * o_step, high * o_step):
        put(out, j, 0)
    if low < end:
        product(
            offset(out, low * o_step), o_step, offset(a, low * a_step), a_step,
            min(high, end) - low, w, inputs, 1, 0, outputs,
        )  # fmt: skip


_NEAR = 1 << 18  # bytes of a weight that stay in the second-level cache for all rows of a chunk


@inner
def _columns(w, inputs, outputs):
    """Columns of a packed weight to do at once."""
    panels = max(1, _NEAR // itemsize(w) // (inputs * PANEL_BYTES // itemsize(w)))
    return min(outputs, panels * (PANEL_BYTES // itemsize(w)))


@inner
def project_part(out, o_step, a, a_step, ids, tokens, weight, bias, n, B, low, high):
    """Like `project_rows`, for sequences low..high of n steps."""
    if high - low == B or tokens:
        for m in range(1 if high - low == B else n):
            begin = m * B + low
            end = n * B if high - low == B else m * B + high
            project_rows(out, o_step, a, a_step, ids, tokens, weight, bias, begin, end)
        return
    for m in range(n):
        _fill(out, o_step, bias, m * B + low, m * B + high)
    _product_part(out, o_step, a, a_step, weight, n, B, low, high)


@inner
def multiply_part(out, o_step, a, a_step, weight, n, B, low, high, live):
    """Like `multiply_rows`, for sequences low..high of n steps; from step `live` on a is 0."""
    for m in range(n):
        for j in range((m * B + low) * o_step, (m * B + high) * o_step):
            put(out, j, 0)
    if live > 0:
        _product_part(out, o_step, a, a_step, weight, live, B, low, high)


@inner
def _product_part(out, o_step, a, a_step, weight, n, B, low, high):
    # The loop over blocks of columns is outside, so that a block serves all steps.
    w, inputs, outputs = weight
    whole = high - low == B
    step = _columns(w, inputs, outputs)
    for j in range(0, outputs, step):
        for m in range(1 if whole else n):
            row = m * B + low
            product(
                offset(out, row * o_step), o_step, offset(a, row * a_step), a_step,
                n * B if whole else high - low, w, inputs, 1, j, min(outputs, j + step),
            )  # fmt: skip


@inner
def accumulate(grad, total, ends, d, d_step, a, a_step, inputs, rows, count, low, high):
    """Add sum_r d[r, j] a[r, k] to grad (outputs, inputs) for j in low..high.

    `grad` is the sum since the last flush. If the next flush is after these rows (`ends`), and
    there is a `total`, it is added to that.
    """
    noinline()
    if inputs == 1:  # one row of many columns, not many rows of one column
        outer(data(grad), a, a_step, d, d_step, rows, count, 0, 1, low, high)
    else:
        outer(data(grad), d, d_step, a, a_step, rows, count, low, high, 0, inputs)
    if ends and total.size > 0:
        flush(grad, total, low * inputs, high * inputs)


@inner
def add_bias(bias, d, d_step, rows, count, low, high):
    """bias[j] += sum_r d[r, j] over rows, in float64."""
    for n in range(count):
        start = get(rows, n) * d_step
        for j in range(low, high):
            put(bias, j, get(bias, j) + get(d, start + j))


@inner
def scatter(table, outputs, d, d_step, ids, rows, count, low, high):
    """Add the gradients by a table's rows: table[ids[r], j] += d[r, j].

    table : (I, outputs) float64. Tokens add to it at once: a sum to be flushed would be nearly all
        zeros
    """
    for n in range(count):
        r = get(rows, n)
        start = get(ids, r) * outputs
        for j in range(low, high):
            put(table, start + j, get(table, start + j) + get(d, r * d_step + j))


@inner
def flush(grad, total, low, high):
    """total += grad; grad = 0."""
    for i in range(low, high):
        s = get(grad, i)
        put(total, i, get(total, i) + s)
        put(grad, i, cast_like(0, s))


_SPAN = 4096  # numbers in a piece


@named_job("flush")
def _flush(grad, total, low, high):
    for piece in range(low, high):
        flush(grad, total, piece * _SPAN, min(total.size, (piece + 1) * _SPAN))


@named_job("finish")
def _finish(grad, total, low, high):
    for piece in range(low, high):
        for i in range(piece * _SPAN, min(total.size, (piece + 1) * _SPAN)):
            s = get(grad, i)
            put(grad, i, cast_like(get(total, i) + s, s))


@cache
def build_flush():
    """Flush the running sum of a weight's gradient, a program."""

    @program("flush a gradient")
    def run(mailbox, threads, grad, total, last):
        """total += grad, grad = 0; or with `last`, grad = total + grad.

        mailbox, threads : the team (see `workers`), and how many of its threads may help
        grad : (outputs, inputs), the sum since the last flush
        total : (outputs, inputs) float64, the sum before it
        last : whether the gradient ends here
        """
        pieces = -(-total.size // _SPAN)
        if last:
            function, data_ = job("finish", (grad, total))
        else:
            function, data_ = job("flush", (grad, total))
        fork(mailbox, threads, pieces, function, data_)

    return run
