"""A sum whose order is fixed: that of a binary tree over the numbers of what is added.

Node (level, n) is the sum of the terms n * 2^level .. (n + 1) * 2^level - 1. Whoever holds some
terms adds up the nodes that lie within them, and the nodes of all holders give the total. So its
bits do not depend on who held what.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

Place = tuple[int, int]
"""Level and number of a node."""


class Tree:
    """The sum of arrays or numbers that come in the order of their places. Arrays are added to."""

    def __init__(self) -> None:
        self._nodes: list[tuple[Place, Any]] = []

    def add(self, place: Place, value: Any) -> None:
        """Add a term, at level 0, or a whole node."""
        level, n = place
        while n % 2 and self._nodes and self._nodes[-1][0] == (level, n - 1):
            value = operator.iadd(self._nodes.pop()[1], value)
            level, n = level + 1, n // 2
        self._nodes.append(((level, n), value))

    def __len__(self) -> int:
        """The nodes held: of m terms in a row, at most 2 log2(m) + 2."""
        return len(self._nodes)

    def __iter__(self) -> Iterator[tuple[Place, Any]]:
        """The nodes held, in the order of their terms."""
        return iter(self._nodes)

    def total(self) -> Any:
        """The sum of all terms from 0 on; where there are no more, half of a node is the node."""
        *rest, (_, value) = self._nodes
        for _, left in reversed(rest):
            value = operator.iadd(left, value)
        return value
