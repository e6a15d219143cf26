"""RTRL on a sequence that never ends: see `engine.influence`."""

from __future__ import annotations

from typing import Any

from ..engine.influence import Block, Totals
from ..layers.composite import state_of
from .carried import Carried


class Rtrl(Carried):
    """RTRL: J is carried forward by blocks (a `Method`)."""

    steps = Block

    def _sums(self) -> Totals:
        return Totals(self._forms, self._B)

    def _of_state(self, totals: Totals) -> Any:
        return state_of(self._form.layer, totals.of_own_state(self._given is not None))
