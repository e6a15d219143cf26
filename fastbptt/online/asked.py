"""A loss of the caller's own, asked about the steps of a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..engine.losses import CallableLoss
from ..engine.output_losses import CheckedOutputLoss, OutputLoss
from ..layers.network import Network


class Entry(NamedTuple):
    """y of the steps start..stop, for a loss of the caller's own."""

    start: int
    stop: int
    y: Any


class Asked:
    """Asks a caller's loss about the steps of which there is a y; others have no loss.

    loss : a name, or a function in the form of `piece_inputs.own_loss`
    entries : of the window that is gone back over; time_of : the time of the lane's steps
    """

    def __init__(self, loss: Any, time_of: Callable[[int], int]):
        self.loss, self.time_of = loss, time_of
        self.entries: tuple[Entry, ...] = ()

    def checked(self, network: Network[Any]) -> Any:
        """The loss as the engine takes it."""
        if isinstance(self.loss, str):
            return self.loss
        if isinstance(self.loss, OutputLoss):
            assert network.readout is not None
            return CheckedOutputLoss(self._asker(self.loss.function), network.readout)
        return CallableLoss(self._asker(self.loss), network.readout)

    def _asker(self, function: Any) -> Callable[[Array, int], tuple[float, Array]]:
        def ask(values: Array, start: int) -> tuple[float, Array]:
            start = self.time_of(start)
            total, slope = 0.0, np.zeros_like(values)
            for entry in self.entries:
                low, high = max(start, entry.start), min(start + len(values), entry.stop)
                if low < high:
                    part = slice(low - start, high - start)
                    y = entry.y[low - entry.start : high - entry.start]
                    value, slope[part] = function(values[part].copy(), y, low)
                    total += value
            return total, slope

        return ask
