"""Memory through which the blocks of a grid sweep pass on what the others multiply."""

import numpy as np

_LATER = np.int64(0x7FFFFFFF) << 32  # a word of a time that is later than all others


def buffers(xp, shape, batch, dtype):
    """Return the buffers of a sweep before its first step, two of each product.

    Padding is zeros. Words, `shape.words`, say that they are of no time yet, and padding that it
    is of the last.
    """
    if shape.parts == 1:
        return xp.empty(0, np.int64 if shape.words else dtype)
    sizes = shape.exchanged(batch)
    if not shape.words:
        return xp.zeros(2 * sum(sizes), dtype)
    found = []
    for tile, size in zip((shape.first, shape.second), sizes, strict=True):
        words = np.full((2, tile.pieces, size // max(1, tile.pieces * tile.row), tile.row), _LATER)
        place = np.arange(tile.pieces * tile.row).reshape(tile.pieces, 1, tile.row)
        words[:, :, :batch] = np.where(place < tile.inner, 0, words[:, :, :batch])
        found.append(words.reshape(-1))
    return xp.asarray(np.concatenate(found))
