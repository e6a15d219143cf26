"""The plan of a sequence that never ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import html
from .plan import human


@dataclass(frozen=True, repr=False)
class EndlessPlan:
    """What an `Online` takes, whatever the number of steps; str() is a table.

    Attributes
    ----------
    batch : B
    memory : the policy
    fixed_bytes : bytes that a push of a few steps allocates for itself
    cache_bytes : bytes that are held between pushes, at most
    time_factor : estimated time of a step divided by that of a step of full BPTT; a step back
        counts as two forward
    exact : whether the gradient is exact
    """

    batch: int
    memory: Any
    fixed_bytes: int
    cache_bytes: int
    time_factor: float
    exact: bool

    @property
    def peak_bytes(self) -> int:
        """Upper bound of the bytes that are held, and allocated beyond x, y and the results."""
        return self.fixed_bytes + self.cache_bytes

    @property
    def steps(self) -> None:
        """None: they are without bound."""

    @property
    def forward_steps(self) -> None:
        """None: they are without bound."""

    @property
    def backward_steps(self) -> None:
        """None: they are without bound."""

    @property
    def actions(self) -> None:
        """None: the schedule has no end."""

    def _rows(self) -> list[tuple[str, str]]:
        return [
            ("memory", str(self.memory)),
            ("steps, sequences", f"without bound, {self.batch:,}"),
            ("gradient", "exact" if self.exact else "not exact"),
            ("peak", human(self.peak_bytes)),
            ("  held", human(self.cache_bytes)),
            ("  of a push", human(self.fixed_bytes)),
            ("time factor", f"{self.time_factor:.3f}"),
        ]

    def __str__(self) -> str:
        """A small table."""
        return "\n".join(f"{name:<20}{value}" for name, value in self._rows())

    def __repr__(self) -> str:
        kind = "exact" if self.exact else "not exact"
        sizes = f"{human(self.peak_bytes)}, time factor {self.time_factor:.3f} a step"
        return f"EndlessPlan(B={self.batch}, {self.memory}: {kind}, {sizes})"

    def _repr_html_(self) -> str:
        return html.table("EndlessPlan", self._rows())
