"""Where a learner of windows stands."""

from __future__ import annotations

from typing import NamedTuple

from ..arrays import Array
from ..engine.packed import Packed
from .asked import Entry


class Place(NamedTuple):
    """Where a learner stands; a push that fails goes back to the place before it.

    time : steps so far
    due : the first of them whose loss is not in a window yet
    parts : the weights that steps in the ring were run with, and the first step of each; where old
        ones are not kept, only today's
    reset : the time of the last reset
    begun : the sequences that have begun from the network's own state, (B,) booleans
    entries : of a loss of the caller's own, from `due` on
    """

    time: int = 0
    due: int = 0
    parts: tuple[tuple[int, Packed], ...] = ()
    reset: int = -1
    begun: Array | None = None
    entries: tuple[Entry, ...] = ()
