"""The two products of BPTT, each with one order of summation.

An element of `product` adds over k ascending; an element of `outer` adds over the rows in the
order given (time descending, then batch ascending). Every tile holds one chain of fused
multiply-adds per element, and blocking only cuts a chain in two, so the result does not depend on
which rows, columns, segment or thread a call covers, nor on the shape of the tile it meets.
"""

import numpy as np

from ..access import get, itemsize, put, room
from ..jit import inner
from ..maths import like
from .tile import PANEL_VECTORS, VECTOR_BYTES, tile

# Rows of a tile and its vectors of columns, widest first: sums that the registers hold.
_TILES = (
    {6: (4, 2, 1), 4: (4, 2, 1), 2: (8, 4, 2, 1), 1: (8, 4, 2, 1)}
    if VECTOR_BYTES == 64
    else {6: (2, 1), 4: (2, 1), 2: (4, 2, 1), 1: (8, 4, 2, 1)}
)
_PANEL_BYTES = PANEL_VECTORS * VECTOR_BYTES
_INNER_BLOCK = 256  # terms of a sum: keeps a panel of w in the first-level cache
_ROW_BLOCK = 64  # terms, which are rows, that `outer` brings together at once,
_OUTER_BYTES = 512  # bytes of each in d
_OUTER_HEIGHT = 48  # and columns of each in a
_NEAR_A = _ROW_BLOCK * _OUTER_HEIGHT * 8
_NEAR_D = _ROW_BLOCK * _OUTER_BYTES


def tiles(rows):
    """(rows, vectors) of the largest tile that a product of that many rows meets."""
    height = next((height for height in _TILES if height <= rows), 1)
    return height, _TILES[height][0]


def packed_size(inner_size, columns, itemsize):
    """Numbers in a packed matrix: its last panel is filled up with zeros."""
    width = _PANEL_BYTES // itemsize
    return inner_size * -(-columns // width) * width


def pack(w):
    """`w` (inner_size, columns) as panels of columns one after another, each contiguous."""
    inner_size, columns = w.shape
    width = _PANEL_BYTES // w.itemsize
    packed = np.empty(packed_size(inner_size, columns, w.itemsize), w.dtype)
    panels = packed.reshape(-1, inner_size, width)
    whole = columns // width
    panels[:whole] = w[:, : whole * width].reshape(inner_size, whole, width).transpose(1, 0, 2)
    if whole * width < columns:
        panels[-1, :, : columns - whole * width] = w[:, whole * width :]
        panels[-1, :, columns - whole * width :] = 0
    return packed


def _build_strip(R):
    """A strip of R rows by any number of columns."""
    V0, V1, V2, V3 = (_TILES[R] + (0, 0, 0))[:4]

    @inner
    def strip(out, o, o_step, a, i, a_step, a_next, w, w_start, w_panel, first, last, columns):
        lanes = VECTOR_BYTES // itemsize(out)
        width = _PANEL_BYTES // itemsize(out)
        j = 0
        while j + V0 * lanes <= columns:
            wj = w_start + j // width * w_panel + j % width
            tile(out, o + j, o_step, a, i, a_step, a_next, w, wj, w_panel, first, last, 0, R, V0, 0)
            j += V0 * lanes
        if V1 > 0 and j + V1 * lanes <= columns:
            wj = w_start + j // width * w_panel + j % width
            tile(out, o + j, o_step, a, i, a_step, a_next, w, wj, w_panel, first, last, 0, R, V1, 0)
            j += V1 * lanes
        if V2 > 0 and j + V2 * lanes <= columns:
            wj = w_start + j // width * w_panel + j % width
            tile(out, o + j, o_step, a, i, a_step, a_next, w, wj, w_panel, first, last, 0, R, V2, 0)
            j += V2 * lanes
        if V3 > 0 and j + V3 * lanes <= columns:
            wj = w_start + j // width * w_panel + j % width
            tile(out, o + j, o_step, a, i, a_step, a_next, w, wj, w_panel, first, last, 0, R, V3, 0)
            j += V3 * lanes
        if j < columns:
            wj = w_start + j // width * w_panel + j % width
            tile(
                out, o + j, o_step, a, i, a_step, a_next, w, wj, w_panel, first, last,
                columns - j, R, 1, 1,
            )  # fmt: skip

    return strip


_strip6, _strip4, _strip2, _strip1 = (_build_strip(R) for R in (6, 4, 2, 1))


@inner
def _block(out, o, o_step, height, a, i, a_step, a_next, w, j, w_panel, first, last, columns):
    """Add to `height` rows by `columns` columns: panels outside, so that one serves every row."""
    width = _PANEL_BYTES // itemsize(out)
    if height == 1:
        _strip1(out, o, o_step, a, i, a_step, a_next, w, j, w_panel, first, last, columns)
        return
    for c in range(0, columns, width):
        count = min(width, columns - c)
        p, q, r, left = j + c // width * w_panel, o + c, i, height
        while left >= 6:
            _strip6(out, q, o_step, a, r, a_step, a_next, w, p, w_panel, first, last, count)
            q, r, left = q + 6 * o_step, r + 6 * a_step, left - 6
        if left >= 4:
            _strip4(out, q, o_step, a, r, a_step, a_next, w, p, w_panel, first, last, count)
            q, r, left = q + 4 * o_step, r + 4 * a_step, left - 4
        if left >= 2:
            _strip2(out, q, o_step, a, r, a_step, a_next, w, p, w_panel, first, last, count)
            q, r, left = q + 2 * o_step, r + 2 * a_step, left - 2
        if left > 0:
            _strip1(out, q, o_step, a, r, a_step, a_next, w, p, w_panel, first, last, count)


@inner
def product(out, out_start, out_step, a, a_start, a_step, rows, w, inner_size, columns):
    """out[r, j] += sum_k a[r, k] * w[k, j] for `rows` rows; w is packed (inner_size, columns)."""
    panel = inner_size * (_PANEL_BYTES // itemsize(out))
    for k in range(0, inner_size, _INNER_BLOCK):
        last = min(k + _INNER_BLOCK, inner_size)
        _block(out, out_start, out_step, rows, a, a_start, a_step, 1, w, 0, panel, k, last, columns)


@inner
def outer(out, a, inner_size, d, columns, rows, count, low, high):
    """out[k, j] += sum_r a[r, k] * d[r, j] over r in rows[:count], for low <= j < high.

    Rows lie far apart, so blocks of both are brought together first, on the stack.
    """
    width = _PANEL_BYTES // itemsize(out)
    span = _OUTER_BYTES // itemsize(out)
    panel = _ROW_BLOCK * width
    near_a, near_d = room(a, _NEAR_A), room(d, _NEAR_D)
    for n in range(0, count, _ROW_BLOCK):
        terms = min(_ROW_BLOCK, count - n)
        for j in range(low, high, span):
            wide = min(span, high - j)
            for m in range(terms):
                d_start = get(rows, n + m) * columns + j
                for c in range(0, wide, width):
                    target = c // width * panel + m * width
                    for e in range(width):
                        inside = c + e < wide
                        value = get(d, d_start + c + e) if inside else like(0, get(d, d_start))
                        put(near_d, target + e, value)
            for k in range(0, inner_size, _OUTER_HEIGHT):
                height = min(_OUTER_HEIGHT, inner_size - k)
                for m in range(terms):
                    a_start = get(rows, n + m) * inner_size + k
                    for e in range(height):
                        put(near_a, m * height + e, get(a, a_start + e))
                _block(
                    out, k * columns + j, columns, height, near_a, 0, 1, height,
                    near_d, 0, panel, 0, terms, wide,
                )  # fmt: skip
