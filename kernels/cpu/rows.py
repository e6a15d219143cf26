"""The rows of a schedule of checkpoints, made by compiled code: see `memory.schedules`."""

from functools import cache

from ..jit import entry, inner
from .slots import ADVANCE, CACHE, DISCARD, RESTORE, REVERSE, STORE

MOST = 6  # rows that one node adds


@inner
def _first_at_least(P, value, low):
    high = P.size
    while low < high:
        middle = (low + high) // 2
        if P[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@inner
def _left(P, low, high, n, d, k):
    """The steps of a node's left part, 0 for a leaf: see `memory.optimal`."""
    if n <= P[d + 1] - P[d]:
        return 0
    if k > 1:
        return max(low[k - 1, d], n - high[k, d + 1])
    end = _first_at_least(P, P[d] + n, d + 1) - 1
    return n - (P[end + 1] - P[d + 1])


@inner
def _add(rows, count, kind, a, b):
    rows[count, 0], rows[count, 1], rows[count, 2] = kind, a, b
    return count + 1


@cache
def build_rows():
    """Make the next rows of a schedule."""

    @entry
    def make(place, ends, turns, P, low, high, rows):
        """Fill `rows` (n, 4) from the front; returns how many, 0 at the end.

        place : (5,) int64: position of the current state; the node: its first step, its steps (0
            at the end) and the recomputes left to it; how many checkpoints are outstanding
        ends, turns : for each checkpoint its position, and the recomputes left to what lies before
        P, low, high : the tree, see `optimal.Tables`
        """
        count = 0
        while place[2] > 0 and count + MOST <= rows.shape[0]:
            a, n, k, d = place[1], place[2], place[3], place[4]
            if place[0] != a:
                count = _add(rows, count, RESTORE, a, 0)
            j = _left(P, low, high, n, d, k)
            if j > 0:
                count = _add(rows, count, ADVANCE, a, a + j)
                count = _add(rows, count, STORE, a + j, 0)
                ends[d], turns[d] = a + j, k - 1
                place[0], place[1], place[2], place[4] = a + j, a + j, n - j, d + 1
                continue
            count = _add(rows, count, CACHE, a, a + n)
            count = _add(rows, count, REVERSE, a, a + n)
            place[0] = a + n
            if d == 0:
                place[2] = 0
                continue
            d -= 1
            count = _add(rows, count, DISCARD, ends[d], 0)
            place[1] = ends[d - 1] if d > 0 else 0
            place[2], place[3], place[4] = ends[d] - place[1], turns[d], d
        return count

    return make
