"""Dropout whose mask is a function of seed, layer, time, sequence and unit, and never stored.

The generator is SplitMix64's output function (Steele, Lea and Flood 2014), applied to a counter:
once for a row, from whose number it makes a key, and once for each unit.
"""

from functools import cache

import numpy as np

from ..access import data, get, put
from ..jit import apart, scalar
from ..maths import like
from .workers import fork, job, named_job, program

_GOLDEN, _FIRST, _SECOND = (
    np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_ROWS = 64  # in a piece
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


@scalar
def _mix(z):
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    return z ^ (z >> _31)


@scalar
def _next(key, n):
    return _mix(key + _GOLDEN * (np.uint64(n) + np.uint64(1)))


@named_job("dropout")
def _dropout(out, a, key, threshold, scale, t, B, H, low, high):
    apart()
    rows = out.shape[0] * B
    out_data, a_data = data(out), data(a)
    for r in range(low * _ROWS, min(rows, (high) * _ROWS)):
        own = _next(_next(key, t + r // B), r % B)
        for j in range(H):
            s = get(a_data, r * H + j)
            kept = _next(own, j) >= threshold
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


def key_of(seed, layer):
    """The key of a layer's masks."""
    mask = 2**64 - 1

    def mix(z):
        z = ((z ^ (z >> 30)) * int(_FIRST)) & mask
        z = ((z ^ (z >> 27)) * int(_SECOND)) & mask
        return z ^ (z >> 31)

    key = mix((layer + 1) * int(_GOLDEN) & mask)
    while True:  # 64 bits of the seed at a time
        key = mix((key ^ (seed & mask)) + int(_GOLDEN) & mask)
        seed >>= 64
        if not seed:
            return np.uint64(key)
