"""Rows of a product's totals in shared memory, padded for few conflicts of its banks."""

from functools import lru_cache

BANKS = 32  # of shared memory, and lanes of a warp


@lru_cache(maxsize=1024)
def total_step(tile, rows, units):
    """From a row of a product's totals to the next, padded for few conflicts of memory's banks."""
    if rows == 1 or not tile.inner:
        return tile.total
    words = 4 // tile.width  # of a number, in banks of 4 bytes
    return min(
        range(tile.total, tile.total + BANKS // words),
        key=lambda step: (_conflicts(tile, rows, units, step, words), step),
    )


def _conflicts(tile, rows, units, step, words):
    """Cycles in which a warp stores its totals, and in which it loads those of its units."""
    count, mask, lanes = rows * tile.wide, tile.lanes // 2, range(BANKS)
    base = [0] * BANKS
    while mask:  # as in `combine`
        if count % 2 == 0:
            count //= 2
            base = [
                at + (count if lane & mask else 0) for at, lane in zip(base, lanes, strict=True)
            ]
        mask //= 2
    cycles = 0
    for k in range(count):
        places = {
            lane // tile.lanes * tile.wide + (at + k) // tile.wide * step + (at + k) % tile.wide
            for at, lane in zip(base, lanes, strict=True)
        }
        cycles += _cycles(places, words)
    return cycles + _cycles({lane // units % rows * step + lane % units for lane in lanes}, words)


def _cycles(places, words):
    """The most of these numbers that lie in one bank."""
    banks = [place * words % BANKS for place in places]
    return max(map(banks.count, banks))
