"""Weights as the products read them: panels of columns one after another, padded with zeros."""

from functools import cache

from ..flat import get, itemsize, put
from ..maths import cast_like
from .products import PANEL_BYTES
from .workers import fork, job, named_job, program


@named_job("pack panels")
def pack_panels(packed, w, row_step, column_step, inner_size, columns, low, high):
    """Panels low..high of w[k, j] = w.flat[k * row_step + j * column_step], padded with 0."""
    width = PANEL_BYTES // itemsize(packed)
    block = 64  # rows at a time: where w is transposed, a line of the cache serves several
    for panel in range(low, high):
        first = panel * width
        count = min(width, columns - first)
        for k in range(0, inner_size, block):
            last = min(k + block, inner_size)
            if column_step == 1:
                for n in range(k, last):
                    target, source = (panel * inner_size + n) * width, n * row_step + first
                    for j in range(count):
                        put(packed, target + j, get(w, source + j))
            else:
                for j in range(count):
                    source = (first + j) * column_step
                    for n in range(k, last):
                        value = get(w, source + n * row_step)
                        put(packed, (panel * inner_size + n) * width + j, value)
            for n in range(k, last):
                target = (panel * inner_size + n) * width
                for j in range(count, width):
                    put(packed, target + j, cast_like(0, get(w, 0)))


@cache
def build_pack():
    """A matrix as panels of columns one after another, each contiguous; a program."""

    @program("pack")
    def pack(mailbox, threads, packed, w, row_step, column_step, inner_size, columns):
        """Pack the matrix w[k, j] = w.flat[k * row_step + j * column_step].

        mailbox, threads : the team (see `workers`), and how many of its threads may help
        packed : (packed_size(inner_size, columns, itemsize),)
        w : flat, over the matrix's memory
        row_step, column_step : numbers from row to row and from column to column
        inner_size, columns : the matrix's shape
        """
        panels = -(-columns // (PANEL_BYTES // itemsize(packed)))
        function, data = job("pack panels", (packed, w, row_step, column_step, inner_size, columns))
        fork(mailbox, threads, panels, function, data)

    return pack
