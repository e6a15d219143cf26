"""Dropout's masks: a function of seed, layer, time, sequence and unit, never stored.

The generator is the output function of SplitMix64 (Steele, Lea and Flood 2014), applied to a
counter: for each row, whose number is then the row's key, and for each unit of the row.
"""

import numpy as np

from .jit import scalar

_GOLDEN, _FIRST, _SECOND = (
    np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


@scalar
def _mix(z):
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    return z ^ (z >> _31)


@scalar
def draw(key, n):
    """The n-th 64-bit number of a key, which may be a key itself."""
    return _mix(key + _GOLDEN * (np.uint64(n) + np.uint64(1)))


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
