"""The arguments of `Online.push`, checked and brought to the form of a Piece."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from .. import arguments
from ..arrays import Array, on_gpu
from ..calls import loss_inputs
from ..engine.output_losses import OutputLoss
from ..kernels.loss_table import LOSSES
from ..layers.network import Network
from .pieces import Piece

_TINY = np.finfo(np.float64).tiny


def taken(name: str, value: Any) -> Array:
    """`value` as a NumPy array."""
    if on_gpu(value):
        raise TypeError(
            f"{name} must be in the CPU's memory, not on a GPU: learners run on the CPU for now"
        )
    return arguments.array(name, value)


class Form:
    """The form that the pieces of a learner have.

    axes : the batch axis (B,), or () where there is none
    """

    def __init__(self, network: Network[Any], B: int | None, loss: Any):
        self.layer, self.readout, self.loss = network.layer, network.readout, loss
        self.dtype, self.B = network.dtype, B
        self.axes: tuple[int, ...] = () if B is None else (B,)
        self.batch = 1 if B is None else B
        self.lost = () if B is not None else (0,)  # takes from outputs the axis that x lacks
        self.classes = isinstance(loss, str) and LOSSES[loss].classes  # type: ignore[index]
        # Of one step of the most common pieces.
        self._x = (*self.axes, network.layer.inputs)
        self._y: Any = None
        if isinstance(loss, str) and not self.classes:
            self._y = (*self.axes, network.readout.outputs)  # type: ignore[union-attr]

    def check(
        self, x: Any, y: Any, weights: Any, resets: Any, start: int
    ) -> tuple[Piece, tuple[Any, ...]]:
        """The Piece of these; and what takes from outputs the axes that x lacks."""
        if weights is resets is None and type(x) is np.ndarray is type(y):
            dtype, shape, due = self.dtype, x.shape, y.shape
            if x.dtype == dtype == y.dtype:
                if shape == self._x and due == self._y:
                    x, y = x.reshape(1, self.batch, -1), y.reshape(1, self.batch, -1)
                    return Piece(x, y, None, None, start), (0, *self.lost)
                if shape[1:] == self._x and due[1:] == self._y and len(x) == len(y):
                    form = len(x), self.batch
                    x, y = x.reshape(*form, self._x[-1]), y.reshape(*form, self._y[-1])
                    return Piece(x, y, None, None, start), (slice(None), *self.lost)
        return self._checked(x, y, weights, resets, start)

    def _checked(
        self, x: Any, y: Any, weights: Any, resets: Any, start: int
    ) -> tuple[Piece, tuple[Any, ...]]:
        layer, dtype, B = self.layer, self.dtype, self.B
        x = taken("x", x)
        tokens = x.dtype.kind in "iu"
        if tokens and layer.drives:
            raise TypeError(f"x must be {dtype} for a layer with drives, not tokens ({x.dtype})")
        if not tokens and x.dtype != dtype:
            arguments.check_floats("x", x, x.shape, dtype)
        due = self.axes if tokens else self._x
        missing = 1 + len(due) - x.ndim  # 1 where the time axis is left out
        if missing not in (0, 1) or x.shape[1 - missing :] != due:
            raise ValueError(_shapes("x", due, x.shape, B))
        n = 1 if missing else len(x)
        lead: tuple[int, ...] = () if missing else (n,)
        x = x.reshape(n, self.batch, *due[len(self.axes) :])
        if tokens:
            x = self._ids("x", x, layer.inputs, None, lead)
        cuts = None if resets is None else self._resets(resets, lead, n)
        found: Array | None = None
        if isinstance(self.loss, str):
            found = None if weights is None else self._weights(weights, lead, n)
            y = None if y is None else self._targets(y, found, lead, n)
        else:
            y = _entries(y, weights, self.loss, n, bool(missing))
        return Piece(x, y, found, cuts, start), (0 if missing else slice(None), *self.lost)

    def _ids(
        self, name: str, ids: Array, classes: int, counted: Array | None, lead: tuple[int, ...]
    ) -> Array:
        """Ids as int64 within 0..classes-1; those that do not count may be anything: they are 0."""
        wrong = (ids < 0) | (ids >= classes)
        if wrong.any():
            bad = wrong if counted is None else wrong & counted
            if bad.any():
                t, b = np.argwhere(bad)[0].tolist()
                hint = ": integers are tokens" if name == "x" else ""
                at = f", at t={t} of the piece" if lead else ""
                at += "" if self.B is None else f", b={b}"
                raise ValueError(
                    f"{name} must hold classes 0..{classes - 1}, not {ids[t, b]}{at}{hint}"
                )
            ids = np.where(wrong, 0, ids)
        return np.ascontiguousarray(ids, np.int64)

    def _resets(self, resets: Any, lead: tuple[int, ...], n: int) -> Array | None:
        values = taken("resets", resets)
        if values.size and values.dtype != np.bool_:
            raise TypeError(f"resets must be booleans, not {values.dtype}")
        full = (*lead, *self.axes)
        if values.shape not in (lead, full):
            either = f" or {lead}" if self.axes else ""
            raise ValueError(f"resets must have shape {full}{either}, not {values.shape}")
        if not values.any():
            return None
        if values.shape == full:
            return values.reshape(n, self.batch)
        return np.repeat(values.reshape(n, 1), self.batch, axis=1)

    def _weights(self, weights: Any, lead: tuple[int, ...], n: int) -> Array:
        values = taken("weights", weights)
        if values.dtype.kind not in "fiub":
            raise TypeError(f"weights must be real numbers, not {values.dtype}")
        assert self.readout is not None
        full, outputs = (*lead, *self.axes), self.readout.outputs
        allowed = [full, lead] if self.axes else [full]
        if not self.classes:
            allowed.append((*full, outputs))
        if values.shape not in allowed:
            raise ValueError(
                f"weights must have shape {' or '.join(map(str, allowed))} with "
                f"loss={self.loss!r}, not {values.shape}"
            )
        found = values.astype(np.float64)
        found[abs(found) < _TINY] = 0  # kernels flush them
        if values.shape == lead != full:
            return np.repeat(found.reshape(n, 1), self.batch, axis=1)
        if values.shape == full or outputs == 1:
            return found.reshape(n, self.batch)
        return found.reshape(n, self.batch, outputs)

    def _targets(self, y: Any, weights: Array | None, lead: tuple[int, ...], n: int) -> Array:
        readout, y = self.readout, taken("y", y)
        assert readout is not None
        full = (*lead, *self.axes)
        if not self.classes:
            arguments.check_floats("y", y, (*full, readout.outputs), readout.dtype)
            return y.reshape(n, self.batch, readout.outputs)
        if y.dtype.kind not in "iu":
            raise TypeError(f"y must hold integer classes for {self.loss}, not {y.dtype}")
        arguments.check_shape("y", y, full)
        counted = None if weights is None else weights != 0
        return self._ids("y", y.reshape(n, self.batch), readout.outputs, counted, lead)


def _shapes(name: str, due: tuple[int, ...], shape: tuple[int, ...], B: int | None) -> str:
    tail = "".join(f", {size}" for size in due)
    one = f"({', '.join(map(str, due))}{',' * (len(due) == 1)})"
    hint = "; give B= to the learner for a batch axis" if B is None else ""
    return (
        f"{name} must have shape (n{tail or ','}), or {one} for one step, not {tuple(shape)}{hint}"
    )


def _entries(y: Any, weights: Any, loss: Any, n: int, single: bool) -> Any:
    """The entries of y for a loss of the caller's own, copied: the caller may use y again."""
    if weights is not None:
        what = "an OutputLoss" if isinstance(loss, OutputLoss) else "a callable loss"
        raise ValueError(f"weights must be None with {what}, which weighs by itself")
    if y is None:
        return None
    if single:
        return y[None].copy() if isinstance(y, np.ndarray) else [copy.deepcopy(y)]
    loss_inputs.check_sequence(y, n)
    y = loss_inputs.by_position(y)
    return y.copy() if isinstance(y, np.ndarray) else copy.deepcopy(y[0:n])


class Own:
    """A loss of the caller's own as a method calls it: with the batch axis, and checked."""

    def __init__(self, function: Any, slope: str, squeeze: bool):
        self.function, self.slope, self.squeeze = function, slope, squeeze

    def __call__(self, values: Array, y: Any, start: int) -> tuple[float, Array]:
        given = values[:, 0] if self.squeeze else values
        found = self.function(given, y, start)
        value, slope = loss_inputs.answer(found, self.slope, taken, given.shape, given.dtype)
        return value, slope[:, None] if self.squeeze else slope


def own_loss(loss: Any, squeeze: bool) -> Any:
    """A loss for a method: the name, or the caller's function in the form (n, B, ...)."""
    if isinstance(loss, str):
        return loss
    if isinstance(loss, OutputLoss):
        return OutputLoss(Own(loss.function, "do", squeeze))
    return Own(loss, "dh", squeeze)
