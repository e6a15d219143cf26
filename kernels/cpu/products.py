"""The two products of BPTT, each with one order of summation.

An element of `product` adds over k ascending, in `chains` sums one after another; an element of
`outer` adds over the rows in the order given (time descending, then batch ascending). Every tile
holds one chain of fused multiply-adds per element and sum, and blocking only cuts a chain in two,
so the result does not depend on which rows, columns, span or thread a call covers, nor on the
shape of the tile.
"""

from functools import cache

from numba.extending import intrinsic

from ..flat import at, borrow, get, give_back, itemsize, offset, put, stack_array
from ..jit import inner, noinline
from ..maths import cast_like
from .shared import call, shared
from .tile import PANEL_VECTORS, VECTOR_BYTES, copy_row, tile

# Rows of a tile and its vectors of columns, widest first: sums that the registers hold.
_TILES = (
    {6: (4, 2, 1), 4: (4, 2, 1), 2: (8, 4, 2, 1), 1: (8, 4, 2, 1)}
    if VECTOR_BYTES == 64
    else {6: (2, 1), 4: (2, 1), 2: (4, 2, 1), 1: (8, 4, 2, 1)}
)
PANEL_BYTES = PANEL_VECTORS * VECTOR_BYTES
_INNER_BLOCK = 256 if VECTOR_BYTES < 64 else 128  # terms: keeps a panel in the first-level cache
_ROW_BLOCK = 64  # rows, which are the terms of its sums, that `outer` copies together at once
_WIDE = 2048  # bytes of a row of `a` from which it copies twice as many: the sums leave the cache
FEW_ROWS = 8  # the same where memory is short, or rows are few
_OUTER_BYTES = 512  # bytes of each row of `a`
_OUTER_HEIGHT = 48  # columns of each row of `d`
_D_BYTES = _OUTER_HEIGHT * 8
_FEW_D, _FEW_A = FEW_ROWS * _D_BYTES, FEW_ROWS * _OUTER_BYTES
_NEAR_ROWS = 48  # rows of `a` that a product of many terms copies together
_LINE = 64  # bytes
PANEL_COLUMNS = {size: PANEL_BYTES // size for size in (4, 8)}


def tiles(rows):
    """(rows, vectors) of the largest tile in a product of that many rows."""
    height = next((height for height in _TILES if height <= rows), 1)
    return height, _TILES[height][0]


@cache
def packed_size(inner_size, columns, itemsize):
    """Numbers in a packed matrix, whose last panel is padded with zeros."""
    width = PANEL_COLUMNS[itemsize]
    return inner_size * -(-columns // width) * width


@inner
def _near_columns(inputs, item):
    """Columns of `a` that `outer` copies, in whole panels."""
    width = PANEL_BYTES // item
    return -(-min(inputs, _OUTER_BYTES // item) // width) * width


@inner
def _is_far(terms, columns, item):
    """Whether a product copies rows of so many terms together: they are read often, and apart."""
    return terms > _INNER_BLOCK and columns * item >= 16 * PANEL_BYTES


@inner
def _row_block(inputs, item):
    """Rows that `outer` copies together at once."""
    return 2 * _ROW_BLOCK if inputs * item >= _WIDE else _ROW_BLOCK


def borrowed_bytes(outputs, inputs, item):
    """The most bytes that products with a weight, and its gradient, work in, in each thread."""
    near = _near_columns.py_func(inputs, item) + min(outputs, _OUTER_HEIGHT)
    numbers = _row_block.py_func(inputs, item) * near
    for terms, columns in ((inputs, outputs), (outputs, inputs)):
        if _is_far.py_func(terms, columns, item):
            numbers = max(numbers, _NEAR_ROWS * _INNER_BLOCK)
    return _LINE + numbers * item


@cache
def chains(inner_size, columns, itemsize):
    """Into how many sums a step's product is cut, for one row to fill the pipeline.

    The multiply-adds of a sum wait for each other, about four cycles each, and two can start in a
    cycle. So it takes eight sums side by side, and one row has only as many as vectors of columns.
    """
    vectors = -(-columns * itemsize // VECTOR_BYTES)
    wanted = 1 if vectors >= 8 else 2 if vectors > 2 else 4
    fits = inner_size % wanted == 0 and 16 <= inner_size // wanted <= _INNER_BLOCK
    return wanted if fits else 1


def _build_strip(R, C=1, NEAR=0):
    """A strip of R rows by any number of columns, in tiles with C sums an element."""
    V0, V1, V2, V3 = (*(V for V in _TILES[R] if V * C <= 8), 0, 0, 0)[:4]

    @inner
    def strip(out, o_step, a, a_step, a_next, w, w_panel, count, fresh, j, high):
        lanes = VECTOR_BYTES // itemsize(out)
        width = PANEL_BYTES // itemsize(out)
        while j + V0 * lanes <= high:
            p = j // width * w_panel + j % width
            tile(offset(out, j), o_step, a, a_step, a_next, offset(w, p), w_panel, count, fresh, 0,
                 (R, V0, C, 0, NEAR))  # fmt: skip
            j += V0 * lanes
        if V1 > 0 and j + V1 * lanes <= high:
            p = j // width * w_panel + j % width
            tile(offset(out, j), o_step, a, a_step, a_next, offset(w, p), w_panel, count, fresh, 0,
                 (R, V1, C, 0, NEAR))  # fmt: skip
            j += V1 * lanes
        if V2 > 0 and j + V2 * lanes <= high:
            p = j // width * w_panel + j % width
            tile(offset(out, j), o_step, a, a_step, a_next, offset(w, p), w_panel, count, fresh, 0,
                 (R, V2, C, 0, NEAR))  # fmt: skip
            j += V2 * lanes
        if V3 > 0 and j + V3 * lanes <= high:
            p = j // width * w_panel + j % width
            tile(offset(out, j), o_step, a, a_step, a_next, offset(w, p), w_panel, count, fresh, 0,
                 (R, V3, C, 0, NEAR))  # fmt: skip
            j += V3 * lanes
        if j < high:
            p = j // width * w_panel + j % width
            tile(offset(out, j), o_step, a, a_step, a_next, offset(w, p), w_panel, count, fresh,
                 high - j, (R, 1, C, 1, NEAR))  # fmt: skip

    return strip


_strip1 = _build_strip(1)
_strip1_2, _strip1_4 = (_build_strip(1, C) for C in (2, 4))


def _build_block(NEAR):
    """Some rows by some columns; NEAR: a_step is 1."""
    _strip6, _strip4, _strip2 = (_build_strip(R, 1, NEAR) for R in (6, 4, 2))

    @inner
    def block(out, o_step, height, a, a_step, a_next, w, w_panel, count, fresh, low, high):
        """Add to `height` rows by columns low..high; the loop over panels is outside.

        So a panel serves every row while it is in the cache.
        """
        noinline()
        width = PANEL_BYTES // itemsize(out)
        if height == 1:
            _strip1(out, o_step, a, a_step, a_next, w, w_panel, count, fresh, low, high)
            return
        while low < high:
            end = min(high, (low // width + 1) * width)
            q, r, left = 0, 0, height
            while left >= 6:
                _strip6(offset(out, q), o_step, offset(a, r), a_step, a_next, w, w_panel, count,
                        fresh, low, end)  # fmt: skip
                q, r, left = q + 6 * o_step, r + 6 * a_step, left - 6
            if left >= 4:
                _strip4(offset(out, q), o_step, offset(a, r), a_step, a_next, w, w_panel, count,
                        fresh, low, end)  # fmt: skip
                q, r, left = q + 4 * o_step, r + 4 * a_step, left - 4
            if left >= 2:
                _strip2(offset(out, q), o_step, offset(a, r), a_step, a_next, w, w_panel, count,
                        fresh, low, end)  # fmt: skip
                q, r, left = q + 2 * o_step, r + 2 * a_step, left - 2
            if left > 0:
                _strip1(offset(out, q), o_step, offset(a, r), a_step, a_next, w, w_panel, count,
                        fresh, low, end)  # fmt: skip
            low = end

    return block


_block, _near_block = _build_block(0), _build_block(1)


@inner
def _near_product(out, out_step, a, a_step, rows, w, inner_size, low, high):
    """The product of many terms: rows of `a`, which lie far apart, are copied together first."""
    width = PANEL_BYTES // itemsize(out)
    borrowed = borrow(_LINE + _NEAR_ROWS * _INNER_BLOCK * itemsize(out))
    if borrowed == 0:
        return False
    near = at(a, (borrowed + _LINE - 1) // _LINE * _LINE)
    for k in range(0, inner_size, _INNER_BLOCK):
        terms = min(_INNER_BLOCK, inner_size - k)
        for r in range(0, rows, _NEAR_ROWS):
            height = min(_NEAR_ROWS, rows - r)
            for m in range(height):
                source = (r + m) * a_step + k
                for e in range(terms):
                    put(near, e * height + m, get(a, source + e))
            _near_block(offset(out, r * out_step), out_step, height, near, 1, height,
                        offset(w, k * width), inner_size * width, terms, 0, low, high)  # fmt: skip
    give_back(borrowed)
    return True


def _share():
    """Share the two products, under the names of the functions below."""

    @shared("float n float n n float n n n n")
    def product(out, out_step, a, a_step, rows, w, inner_size, parts, low, high):
        width = PANEL_BYTES // itemsize(out)
        panel = inner_size * width
        if rows == 1 and parts == 2:
            _strip1_2(out, out_step, a, a_step, 1, w, panel, inner_size, 0, low, high)
            return
        if rows == 1 and parts == 4:
            _strip1_4(out, out_step, a, a_step, 1, w, panel, inner_size, 0, low, high)
            return
        far = rows >= 6 and parts == 1 and _is_far(inner_size, high - low, itemsize(out))
        if far and _near_product(out, out_step, a, a_step, rows, w, inner_size, low, high):
            return
        step = inner_size if rows == 1 else _INNER_BLOCK
        if parts > 1:
            step = inner_size // parts
        for k in range(0, inner_size, step):
            _block(out, out_step, rows, offset(a, k), a_step, 1, offset(w, k * width), panel,
                   min(step, inner_size - k), 1 if parts > 1 and k > 0 else 0, low,
                   high)  # fmt: skip

    @shared("float float n float n int n n n n n")
    def outer(out, d, d_step, a, a_step, rows, count, low, high, left, right):
        width = PANEL_BYTES // itemsize(out)
        span = _OUTER_BYTES // itemsize(out)
        # Not all of it is on the stack, which is as small as 64 KiB in some threads.
        near_a, near_d, block = stack_array(a, _FEW_A), stack_array(d, _FEW_D), FEW_ROWS
        many = min(count, _row_block(right - left, itemsize(out)))
        height, borrowed = min(high - low, _OUTER_HEIGHT), 0
        a_bytes = many * _near_columns(right - left, itemsize(out)) * itemsize(out)
        if count > FEW_ROWS:
            borrowed = borrow(_LINE + a_bytes + many * height * itemsize(out))
        if borrowed != 0:
            aligned = (borrowed + _LINE - 1) // _LINE * _LINE
            near_a, near_d, block = at(a, aligned), at(d, aligned + a_bytes), many
        panel = block * width
        for n in range(0, count, block):
            terms = min(block, count - n)
            for k in range(left, right, span):
                wide = min(span, right - k)
                for m in range(terms):
                    source = get(rows, n + m) * a_step + k
                    whole = wide // width * width
                    for c in range(0, whole, width):
                        copy_row(offset(near_a, c // width * panel + m * width),
                                 offset(a, source + c))  # fmt: skip
                    if whole < wide:
                        target = whole // width * panel + m * width
                        for e in range(wide - whole):
                            put(near_a, target + e, get(a, source + whole + e))
                        for e in range(wide - whole, width):
                            put(near_a, target + e, cast_like(0, get(a, source)))
                for j in range(low, high, _OUTER_HEIGHT):
                    height = min(_OUTER_HEIGHT, high - j)
                    for m in range(terms):
                        source = get(rows, n + m) * d_step + j
                        for e in range(height):
                            put(near_d, m * height + e, get(d, source + e))
                    _near_block(
                        offset(out, j * right + k), right, height, near_d, 1, height, near_a,
                        panel, terms, 0, 0, wide,
                    )  # fmt: skip
        if borrowed != 0:
            give_back(borrowed)

    @shared("float n n float n n float n")
    def panel(out, out_step, height, a, a_step, a_next, w, count):
        width = PANEL_BYTES // itemsize(out)
        for k in range(0, count, _INNER_BLOCK):
            _block(out, out_step, height, offset(a, k * a_next), a_step, a_next,
                   offset(w, k * width), 0, min(_INNER_BLOCK, count - k), 0, 0,
                   width)  # fmt: skip


_share()


@intrinsic
def product(typingctx, out, out_step, a, a_step, rows, w, inner_size, parts, low, high):
    """out[r, j] += sum_k a[r, k] * w[k, j] for `rows` rows and the columns low..high.

    `w` is packed; `parts` is 1 or what `chains` says; `low` is the first column of a panel.
    """
    given = out, out_step, a, a_step, rows, w, inner_size, parts, low, high
    return call("product", out, given)


@intrinsic
def outer(typingctx, out, d, d_step, a, a_step, rows, count, low, high, left, right):
    """out[j, k] += sum_r d[r, j] * a[r, k] for low <= j < high, left <= k < right.

    The sum is over r in rows[:count]; the rows of `out` are `right` apart. Rows of the factors are
    far apart in memory, so blocks of both are copied together first.
    """
    given = out, d, d_step, a, a_step, rows, count, low, high, left, right
    return call("outer", out, given)


@intrinsic
def panel(typingctx, out, out_step, height, a, a_step, a_next, w, count):
    """out[r, j] += sum_k a[r, k] * w[k, j] for `height` rows and the columns of one panel.

    a[r, k] is the number r * a_step + k * a_next; the rows of `out` are `out_step` apart.
    """
    given = out, out_step, height, a, a_step, a_next, w, count
    return call("panel", out, given)
