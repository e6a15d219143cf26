"""The loss of some steps of a learner, one stretch after another, and the readout's gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..backends.base import Backend
from ..kernels.loss_table import GIVEN, LOSSES
from ..layers.network import Readout
from ..memory.blocking import flush_steps
from .output_losses import OutputLoss
from .readers import no_ids, no_weights


class StepLoss:
    """A readout as it is now, packed, and a loss: its name, or a checked function of the caller's.

    readout : None with a function of the states
    loss : a name; `loss(h, y, start) -> (value, dh)`; or an OutputLoss
    """

    def __init__(self, readout: Readout | None, loss: Any, B: int, device: Backend):
        self.readout, self.loss, self.B = readout, loss, B
        self.head: Any = None
        if readout is not None:
            self.head = device.head(readout, B, device.workspace(), False, False)

    @property
    def nbytes(self) -> int:
        """The bytes of the weights that it has packed."""
        if self.head is None:
            return 0
        own = self.head.weight
        return sum(a.nbytes for a in (own.forth, own.back, self.head.bias))

    def outputs(self, h: Array) -> Array:
        """The readout's outputs, or copies of the states without one."""
        if self.head is None:
            return h.copy()
        o = np.empty((*h.shape[:2], self.head.weight.outputs), h.dtype)
        self.head.outputs(h, o, self._ends(h), 0)
        return o

    def __call__(
        self, h: Array, o: Array, y: Any, weights: Array | None, start: int
    ) -> tuple[float, Array]:
        """The loss of states h (m, B, H), contiguous, whose outputs are o, and dE/dh.

        y, weights : as in `online.pieces.Piece`, for these steps; start : the time of the first
        """
        loss, none = self.loss, no_weights(np)
        if isinstance(loss, OutputLoss):
            value, do = loss.function(o.copy(), y, start)
            do = np.ascontiguousarray(do)
            return value, self._through(GIVEN, h, (do, no_ids(np), none))[1]
        if not isinstance(loss, str):
            value, dh = loss(h.copy(), y, start)
            return value, dh
        if weights is not None:
            none = np.ascontiguousarray(weights.reshape(*h.shape[:2], -1))
        y = np.ascontiguousarray(y)  # it may have any strides
        given = y, no_ids(np), none
        if LOSSES[loss].classes:  # type: ignore[index]
            given = np.empty((0, 0, 0), h.dtype), y, none
        return self._through(loss, h, given)

    def _through(self, name: str, h: Array, given: tuple[Any, ...]) -> tuple[float, Array]:
        m, B, O = *h.shape[:2], self.head.weight.outputs
        rows = m * B
        scratch = np.empty((m, B, O), h.dtype), np.empty(rows), np.empty(rows, np.int64)
        dh, total = np.empty_like(h), np.zeros(2)
        self.head.loss_and_derivative(
            name, 1.0, h, scratch, given, total, self._ends(h), 0, dh, flush_steps(B)
        )
        return float(total[0] + (total[1] if np.isfinite(total[1]) else 0.0)), dh

    def _ends(self, h: Array) -> Array:
        return np.full(self.B, len(h), np.int64)

    def begin(self) -> None:
        """Have the gradient of the readout be zero: a push that failed may have left some."""
        if self.head is not None:
            self.head.gradient()

    def gradient(self) -> Readout | None:
        """The gradient of the readout since the last time."""
        if self.readout is None:
            return None
        if isinstance(self.loss, (str, OutputLoss)):
            return self.head.gradient()
        return self.readout.replace_arrays([np.zeros_like(a) for a in self.readout.arrays()])
