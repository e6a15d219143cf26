"""Dropout of a stretch of states: see `kernels.masks`."""

from functools import cache

from ..flat import data, get, put
from ..jit import noinline
from ..masks import draw
from ..maths import cast_like
from .workers import fork, job, named_job, program

_ROWS = 64  # in a piece


@named_job("dropout")
def _dropout(out, a, key, threshold, scale, t, B, H, low, high):
    noinline()
    rows = out.shape[0] * B
    out_data, a_data = data(out), data(a)
    for r in range(low * _ROWS, min(rows, (high) * _ROWS)):
        own = draw(draw(key, t + r // B), r % B)
        for j in range(H):
            s = get(a_data, r * H + j)
            residuals = draw(own, j) >= threshold
            put(out_data, r * H + j, s * cast_like(scale, s) if residuals else cast_like(0, s))


@cache
def build_dropout():
    """Dropout of a stretch."""

    @program("dropout of a stretch")
    def dropout(mailbox, threads, out, a, key, threshold, scale, t):
        """out (n, B, H), which may be a, = a * mask / (1 - rate); t is the time of row 0."""
        n, B, H = out.shape
        function, arguments = job("dropout", (out, a, key, threshold, scale, t, B, H))
        fork(mailbox, threads, -(-n * B // _ROWS), function, arguments)

    return dropout
