"""Dropout of a stretch of states: see `kernels.masks`."""

from functools import cache

from ..access import data, get, put
from ..jit import apart
from ..masks import draw
from ..maths import like
from .workers import fork, job, named_job, program

_ROWS = 64  # in a piece


@named_job("dropout")
def _dropout(out, a, key, threshold, scale, t, B, H, low, high):
    apart()
    rows = out.shape[0] * B
    out_data, a_data = data(out), data(a)
    for r in range(low * _ROWS, min(rows, (high) * _ROWS)):
        own = draw(draw(key, t + r // B), r % B)
        for j in range(H):
            s = get(a_data, r * H + j)
            kept = draw(own, j) >= threshold
            put(out_data, r * H + j, s * like(scale, s) if kept else like(0, s))


@cache
def build_dropout():
    """Dropout of a stretch."""

    @program("dropout of a stretch")
    def dropout(mail, threads, out, a, key, threshold, scale, t):
        """out (n, B, H), which may be a, = a * mask / (1 - rate); t is the time of row 0."""
        n, B, H = out.shape
        function, arguments = job("dropout", (out, a, key, threshold, scale, t, B, H))
        fork(mail, threads, -(-n * B // _ROWS), function, arguments)

    return dropout
