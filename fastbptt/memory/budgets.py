"""Budgets: bytes as text and as numbers, and the error of one that is too small."""

from __future__ import annotations

import re
from fractions import Fraction

from .. import arguments
from .plan import human

_UNITS = {"b": 1}
for _i, _letter in enumerate("kmgt", 1):
    _UNITS[_letter + "b"], _UNITS[_letter + "ib"] = 1000**_i, 1024**_i

_LONGEST = 60  # the most characters of a budget
EXPECTED = (
    'memory must be "full", "auto", bytes (an int, or text such as "64MB" or "1.5GiB", that fits '
    "into 64 bits), Full(), Checkpointed(...) or Truncated(k1, k2)"
)


class MemoryLimitError(ValueError):
    """No exact schedule fits into the budget.

    Attributes
    ----------
    budget : bytes that were given; with "auto", half of those that are free
    least_bytes : smallest budget (bytes) that allows an exact gradient
    auto : whether `memory` was "auto"
    """

    def __init__(self, budget: int, least_bytes: int, auto: bool = False) -> None:
        super().__init__(budget, least_bytes, auto)
        self.budget, self.least_bytes, self.auto = budget, least_bytes, auto

    def __str__(self) -> str:
        size = f"{self.budget} bytes ({human(self.budget)})"
        given = f"a budget of {size}"
        if self.auto:
            given = f'"auto" may take half of the free memory, {size}, which'
        return (
            f"memory: {given} is too small for an exact "
            f"gradient; the least that works is {self.least_bytes} bytes "
            f"({human(self.least_bytes)})"
        )


def parse_bytes(budget: str | int) -> int:
    """A budget in bytes, from an int or text such as "64MB" (10^6) or "1.5GiB" (2^30)."""
    if not isinstance(budget, str):
        return arguments.integer("memory budget", budget, 0)
    if len(budget) > _LONGEST:
        raise ValueError(f"{EXPECTED}, not {arguments.describe(budget)}")
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z]+)\s*", budget.lower(), re.ASCII)
    if not match or match[2] not in _UNITS:
        raise ValueError(f"{EXPECTED}, not {budget!r}")
    size = int(Fraction(match[1]) * _UNITS[match[2]])
    if size > arguments.MOST:
        raise ValueError(
            f"memory must be at most {arguments.MOST} bytes, to fit into 64 bits, not {budget!r}"
        )
    return size
