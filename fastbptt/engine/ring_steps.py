"""What a ring keeps of each step besides its states: inputs, targets, loss weights and resets."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..kernels.loss_table import LOSSES
from ..layers.network import Network


class Steps:
    """Arrays of 2R steps, in which every step stands twice, R apart.

    x : (2R, B, I), or int64 tokens (2R, B)
    y : (2R, B, O), or int64 classes (2R, B); None for a loss of the caller's own
    weights : float64 (2R, B) or (2R, B, O), of the losses; None for a loss of the caller's own
    resets : booleans (2R, B)
    """

    def __init__(
        self, form: Network[Any], batch: int, size: int, loss: Any, tokens: bool, each: int
    ):
        steps = 2 * size

        def along_time(width: int, ids: bool) -> Array:
            shape = (steps, batch) if ids else (steps, batch, width)
            return np.zeros(shape, np.int64 if ids else form.dtype)

        self.x = along_time(form.layer.inputs, tokens)
        self.y = self.weights = None
        if isinstance(loss, str):
            assert form.readout is not None
            self.y = along_time(form.readout.outputs, LOSSES[loss].classes)  # type: ignore[index]
            self.weights = np.ones((steps, batch) if each == 1 else (steps, batch, each))
        self.resets = np.zeros((steps, batch), bool)
        self._plain = self._uncut = True  # whether all weights are 1, and no reset is set
        self._x, self._y, self._weights, self._resets = (
            None if a is None else a.reshape(2, size, *a.shape[1:])
            for a in (self.x, self.y, self.weights, self.resets)
        )

    def put(self, slot: int, steps: int, x: Array, y: Any, weights: Any, resets: Any) -> None:
        """Write steps that do not go beyond slot R; no weights are ones, no resets are none."""
        stop = slot + steps
        self._x[:, slot:stop] = x  # type: ignore[index]
        if y is not None and self._y is not None:
            self._y[:, slot:stop] = y
        if self._weights is not None and not (weights is None and self._plain):
            self._weights[:, slot:stop] = 1.0 if weights is None else weights
            self._plain = False
        if not (resets is None and self._uncut):
            self._resets[:, slot:stop] = False if resets is None else resets  # type: ignore[index]
            self._uncut = False

    def arrays(self) -> list[Array]:
        """All arrays that there are."""
        return [a for a in (self.x, self.y, self.weights, self.resets) if a is not None]

    def written(self) -> None:
        """Somebody has written to the arrays."""
        self._plain = self._uncut = False

    def check(self, form: Network[Any]) -> None:
        """Raise unless all ids exist: kernels do not ask again."""
        for ids, classes in (
            (self.x, form.layer.inputs),
            (self.y, 0 if form.readout is None else form.readout.outputs),
        ):
            if ids is not None and ids.ndim == 2 and ids.size:
                least, most = int(ids.min()), int(ids.max())
                if least < 0 or most >= classes:
                    raise ValueError(f"ids must lie in 0..{classes - 1}, not {least}..{most}")
