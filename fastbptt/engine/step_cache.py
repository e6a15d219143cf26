"""The cache of consecutive steps that a reverse sweep goes back over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arrays import Array


class StepCache:
    """Up to `capacity` consecutive steps of some layers, carved out of a flat array.

    states : for each layer (states, capacity + 1, B, H), row 0 being the state before the first
    residuals : for each layer (capacity, B, residuals*H): what its `reverse` needs besides states
    start, stop : the steps that are cached
    """

    def __init__(self, memory: Array, recurrences: Sequence[Any], capacity: int) -> None:
        self.start = self.stop = 0
        self.states: list[Array] = []
        self.residuals: list[Array] = []
        used = 0
        for layer in recurrences:
            B, H = layer.batch, layer.hidden
            size = layer.states * (capacity + 1) * B * H
            states = memory[used : used + size]
            self.states.append(states.reshape(layer.states, capacity + 1, B, H))
            used += size
            size = capacity * B * layer.residuals * H
            residuals = memory[used : used + size]
            self.residuals.append(residuals.reshape(capacity, B, layer.residuals * H))
            used += size
        self.size = used  # numbers
        self.memory = memory[:used]
