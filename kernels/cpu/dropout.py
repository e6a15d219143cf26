"""Dropout of a span of outputs: see `kernels.masks`."""

from functools import cache

from ..flat import data, get, put
from ..jit import inner, noinline
from ..masks import draw
from ..maths import cast_like
from .workers import fork, job, named_job, program

_ROWS = 64  # in a piece


@named_job("dropout")
def _dropout(out, a, key, threshold, scale, t, first, B, H, low, high):
    noinline()
    rows = out.shape[0] * B
    out_data, a_data = data(out), data(a)
    for r in range(low * _ROWS, min(rows, high * _ROWS)):
        row_key = draw(draw(key, t + r // B), first + r % B)
        for j in range(H):
            s = get(a_data, r * H + j)
            alive = draw(row_key, j) >= threshold
            put(out_data, r * H + j, s * cast_like(scale, s) if alive else cast_like(0, s))


@inner
def drop(mailbox, threads, out, a, key, threshold, scale, t, first):
    """out = a * mask / (1 - rate): see `build_dropout`."""
    n, B, H = out.shape
    function, arguments = job("dropout", (out, a, key, threshold, scale, t, first, B, H))
    fork(mailbox, threads, -(-n * B // _ROWS), function, arguments)


@cache
def build_dropout():
    """Dropout of a span, a program."""

    @program("dropout of a span")
    def dropout(mailbox, threads, out, a, key, threshold, scale, t, first):
        """out = a * mask / (1 - rate).

        mailbox, threads : the team (see `workers`), and how many of its threads may help
        out, a : (n, B, H); they may be the same array
        key : uint64, the key of the layer's masks
        threshold : uint64; a unit whose number is below it is dropped
        scale : 1 / (1 - rate)
        t : time of row 0
        first : the number of sequence 0 in the whole batch, of which the call may have a part
        """
        drop(mailbox, threads, out, a, key, threshold, scale, t, first)

    return dropout
