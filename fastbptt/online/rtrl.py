"""RTRL on a sequence that never ends: see `engine.influence`."""

from __future__ import annotations

from typing import Any

from ..engine.influence import Block, Totals
from ..engine.influence_weights import state_parts
from ..layers.composite import shaped
from .carried import Carried


class Rtrl(Carried):
    """RTRL: J is carried forward by blocks (a `Method`)."""

    steps, totals = Block, Totals

    def _of_state(self, totals: Totals) -> Any:
        flat = totals.own if self._given is not None else totals.own + totals.first.sum(axis=0)
        return shaped(self._form.layer, iter(state_parts(self._forms, flat)))
