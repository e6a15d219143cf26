"""SnAp-1 on a sequence that never ends: see `engine.snap`."""

from __future__ import annotations

from ..engine.snap import Snap, SnapTotals
from .carried import Carried


class SnapOne(Carried):
    """SnAp-1: J has each unit's influence on itself alone (a `Method`)."""

    steps = Snap

    def _sums(self) -> SnapTotals:
        return SnapTotals(self._forms)

    def _of_state(self, totals: SnapTotals) -> None:
        """None: a state is not among what J is the derivative by."""
