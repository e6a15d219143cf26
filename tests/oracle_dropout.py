"""Dropout's masks in NumPy, nothing of fastbptt imported: a counter-based SplitMix64.

A key of 64 bits gives a sequence of numbers, and each number may serve as a key. The seed gives the
layer's key, the layer's key one for each time, a time's key one for each sequence of the batch, and
a sequence's key one number for each unit. A unit is dropped if its number is below `rate` of 2**64.
"""

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(z):
    """SplitMix64's output function (Steele, Lea and Flood 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def numbers(key, index):
    """SplitMix64's numbers `index`, counted from 0, of the seeds `key`: arrays of uint64."""
    return mix(key + GOLDEN * (index + np.uint64(1)))


def layer_key(seed, layer):
    """The key of a layer's masks, (1,); all bits of the seed count, 64 at a time."""
    key = numbers(np.zeros(1, np.uint64), np.array([layer], np.uint64))
    for low in range(0, max(1, seed.bit_length()), 64):
        part = np.array([seed >> low & 2**64 - 1], np.uint64)
        key = numbers(key ^ part, np.zeros(1, np.uint64))
    return key


def mask(seed, layer, rate, t0, shape, dtype):
    """What the states of a stack's layer are multiplied by, (T, B, H): 0 or 1 / (1 - rate)."""
    T, B, H = (np.arange(n, dtype=np.uint64) for n in shape)
    times = numbers(layer_key(seed, layer), T + np.uint64(t0))
    drawn = numbers(numbers(times[:, None], B)[..., None], H)
    kept = drawn >= np.uint64(min(2**64 - 1, int(rate * 2**64)))
    return kept * np.dtype(dtype).type(1 / (1 - rate))
