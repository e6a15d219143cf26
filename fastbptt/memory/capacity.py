"""How many steps m bytes reach: sums of c[i] = (m - i*S) // C, the room beside i checkpoints.

The time hardly depends on T: with p = C / gcd(S, C) and q = S / gcd(S, C), c[i + p] = c[i] - q, so
a sum over i is p sums of polynomials, each in closed form.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from math import comb, gcd

import numpy as np

from ..arrays import Array

_FEW = 256  # so many terms are added one by one


def capacities(m: int, S: int, C: int) -> Iterator[int]:
    """c[0], c[1], ... while they are at least one step."""
    while m >= C:
        yield m // C
        m -= S


def _terms(m: int, S: int, C: int, r: int) -> Iterator[int]:
    """The running sums of N_r(m) = sum_i binom(r - 1 + i, i) * c[i]."""
    total, weight = 0, 1
    for i, c in enumerate(capacities(m, S, C)):
        total += weight * c
        yield total
        weight = weight * (r + i) // (i + 1)
        if not weight:  # r = 0: one leaf
            return


def capacity(m: int, S: int, C: int, r: int) -> int:
    """The most steps that m bytes can reverse if no step is run again more than r times."""
    count = (m - C) // S + 1  # of the c[i] that are at least one step
    p, q = C // gcd(S, C), S // gcd(S, C)
    if r == 0 or count <= _FEW or count <= p * (r + 1):
        return max(_terms(m, S, C, r), default=0)
    total = 0
    for t in range(p):  # terms i = t + p*j: a polynomial in j of degree r, by its differences
        c = (m - t * S) // C
        values = [comb(r - 1 + t + p * j, r - 1) * (c - q * j) for j in range(r + 1)]
        length = (count - t - 1) // p + 1
        for k in range(r + 1):
            total += values[0] * comb(length, k + 1)
            values = [b - a for a, b in pairwise(values)]
    return total


def reaches(T: int, m: int, S: int, C: int, r: int) -> bool:
    """Whether capacity(m, S, C, r) >= T."""
    few = any(total >= T for total in islice(_terms(m, S, C, r), _FEW))
    return few or ((m - C) // S >= _FEW and capacity(m, S, C, r) >= T)


def least(stop: int, true: Callable[[int], bool]) -> int:
    """The least n < stop with true(n), by bisection; `stop` if there is none.

    true(n) must imply true(n + 1).
    """
    low, high = 0, stop
    while low < high:
        middle = (low + high) // 2
        if true(middle):
            high = middle
        else:
            low = middle + 1
    return low


class Filled:
    """The sequence P[i] = c[0] + ... + c[i-1], up to the first that is at least T."""

    def __init__(self, T: int, m: int, S: int, C: int):
        self.p, self.q = C // gcd(S, C), S // gcd(S, C)
        self.first = array("Q", [0])  # P[0] ... P[p]
        for c in islice(capacities(m, S, C), self.p):
            self.first.append(self.first[-1] + c)
            if self.first[-1] >= T:
                break
        whole = len(self.first) - 1
        self.length = whole + 1
        if self.first[-1] < T:
            count = (m - C) // S + 1
            self.length = whole + 1 + least(count - whole, lambda i: self[whole + i] >= T)

    def __len__(self) -> int:
        return self.length

    def numbers(self) -> Array:
        """The sequence as an int64 array."""
        j, t = np.divmod(np.arange(self.length), self.p)
        first = np.array(self.first, np.int64)
        if self.length <= len(first):
            return first[: self.length]
        grown = j * first[self.p] - self.p * self.q * (j * (j - 1) // 2)
        return grown + first[t] - t * self.q * j

    def __getitem__(self, i: int) -> int:
        j, t = divmod(i, self.p)
        first = self.first
        if j == 0:
            return first[t]
        return j * first[self.p] - self.p * self.q * (j * (j - 1) // 2) + first[t] - t * self.q * j
