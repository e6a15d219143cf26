"""The two products of BPTT, each with one order of summation.

An element of `product` adds over k ascending; an element of `outer` adds over the rows in the
order given (time descending, then batch ascending). Every tile holds one chain of fused
multiply-adds per element, and blocking only cuts a chain in two, so the result does not depend on
which rows, columns, segment or thread a call covers, nor on the shape of the tile it meets.
"""

import numpy as np

from ..jit import inner
from .tile import VECTOR_BYTES, tile

# Rows of a tile and its vectors of columns, widest first: as many sums as registers hold.
_TILES = (
    {6: (4, 2, 1), 4: (4, 2, 1), 2: (8, 4, 2, 1), 1: (8, 4, 2, 1)}
    if VECTOR_BYTES == 64
    else {6: (2, 1), 4: (2, 1), 2: (4, 2, 1), 1: (8, 4, 2, 1)}
)
_PANEL_BYTES = 256  # a row of a panel: what the widest tile reads at once
_INNER_BLOCK = 256  # terms of a sum that keep a strip of w in the first-level cache
_ROW_BLOCK = 128  # the same for `outer`, whose terms are rows


def tiles(rows):
    """(rows, vectors) of the largest tile that a product of that many rows meets."""
    height = next((height for height in _TILES if height <= rows), 1)
    return height, _TILES[height][0]


def panel_columns(dtype):
    """Columns in a panel of a packed matrix."""
    return _PANEL_BYTES // np.dtype(dtype).itemsize


def pack(w):
    """`w` (inner_size, columns) as panels of columns one after another, each contiguous."""
    width = panel_columns(w.dtype)
    if w.shape[1] <= width:
        return np.array(w, order="C").reshape(-1)
    packed = np.empty(w.size, w.dtype)
    used = 0
    for start in range(0, w.shape[1], width):
        panel = w[:, start : start + width]
        packed[used : used + panel.size].reshape(panel.shape)[...] = panel
        used += panel.size
    return packed


def _build_strip(R):
    """A strip of R rows by any number of columns."""
    widths = _TILES[R]
    V0, V1, V2, V3 = (widths + (0, 0, 0))[:4]

    @inner
    def strip(
        out, o, o_step, a, i, a_step, a_next, w, j, w_next, rows, first, last, columns, lanes
    ):
        while columns >= V0 * lanes:
            tile(out, o, o_step, a, i, a_step, a_next, w, j, w_next, rows, first, last, 0, R, V0, 0)
            o, j, columns = o + V0 * lanes, j + V0 * lanes, columns - V0 * lanes
        if V1 > 0 and columns >= V1 * lanes:
            tile(out, o, o_step, a, i, a_step, a_next, w, j, w_next, rows, first, last, 0, R, V1, 0)
            o, j, columns = o + V1 * lanes, j + V1 * lanes, columns - V1 * lanes
        if V2 > 0 and columns >= V2 * lanes:
            tile(out, o, o_step, a, i, a_step, a_next, w, j, w_next, rows, first, last, 0, R, V2, 0)
            o, j, columns = o + V2 * lanes, j + V2 * lanes, columns - V2 * lanes
        if V3 > 0 and columns >= V3 * lanes:
            tile(out, o, o_step, a, i, a_step, a_next, w, j, w_next, rows, first, last, 0, R, V3, 0)
            o, j, columns = o + V3 * lanes, j + V3 * lanes, columns - V3 * lanes
        if columns > 0:
            tile(
                out, o, o_step, a, i, a_step, a_next, w, j, w_next, rows, first, last, columns,
                R, 1, 1,
            )  # fmt: skip

    return strip


_strip6, _strip4, _strip2, _strip1 = (_build_strip(R) for R in (6, 4, 2, 1))


@inner
def _block(
    out, o, o_step, height, a, i, a_step, a_next, w, j, w_next, rows, first, last, columns, lanes
):
    """`height` rows by `columns` columns."""
    r = 0
    while r + 6 <= height:
        _strip6(
            out, o + r * o_step, o_step, a, i + r * a_step, a_step, a_next, w, j, w_next,
            rows, first, last, columns, lanes,
        )  # fmt: skip
        r += 6
    if r + 4 <= height:
        _strip4(
            out, o + r * o_step, o_step, a, i + r * a_step, a_step, a_next, w, j, w_next,
            rows, first, last, columns, lanes,
        )  # fmt: skip
        r += 4
    if r + 2 <= height:
        _strip2(
            out, o + r * o_step, o_step, a, i + r * a_step, a_step, a_next, w, j, w_next,
            rows, first, last, columns, lanes,
        )  # fmt: skip
        r += 2
    if r < height:
        _strip1(
            out, o + r * o_step, o_step, a, i + r * a_step, a_step, a_next, w, j, w_next,
            rows, first, last, columns, lanes,
        )  # fmt: skip


@inner
def product(out, out_start, out_step, a, a_start, a_step, rows, w, inner_size, columns):
    """out[r, j] += sum_k a[r, k] * w[k, j] for `rows` rows; w is packed (inner_size, columns)."""
    lanes = VECTOR_BYTES // out.itemsize
    width = _PANEL_BYTES // out.itemsize
    for k in range(0, inner_size, _INNER_BLOCK):
        last = min(k + _INNER_BLOCK, inner_size)
        for j in range(0, columns, width):
            count = min(width, columns - j)
            _block(
                out, out_start + j, out_step, rows, a, a_start, a_step, 1,
                w, j * inner_size, count, None, k, last, count, lanes,
            )  # fmt: skip


@inner
def outer(out, a, inner_size, d, columns, rows, count, low, high):
    """out[k, j] += sum_r a[r, k] * d[r, j] over r in rows[:count], for low <= j < high."""
    lanes = VECTOR_BYTES // out.itemsize
    width = 2 * VECTOR_BYTES // out.itemsize
    for n in range(0, count, _ROW_BLOCK):
        last = min(n + _ROW_BLOCK, count)
        for j in range(low, high, width):
            _block(
                out, j, columns, inner_size, a, 0, 1, inner_size,
                d, j, columns, rows, n, last, min(width, high - j), lanes,
            )  # fmt: skip
