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


def check(
    network: Network[Any], B: int | None, loss: Any, given: tuple[Any, Any, Any, Any], start: int
) -> tuple[Piece, tuple[Any, ...]]:
    """The Piece of (x, y, weights, resets); and what takes from outputs the axes that x lacks."""
    x, y, weights, resets = given
    layer, dtype = network.layer, network.dtype
    x = x if type(x) is np.ndarray and x.dtype == dtype else taken("x", x)
    tokens = x.dtype.kind in "iu"
    if tokens and layer.drives:
        raise TypeError(f"x must be {dtype} for a layer with drives, not tokens ({x.dtype})")
    batch = 0 if B is None else 1
    missing = 1 + batch + (not tokens) - x.ndim  # 1: the time axis
    inner = () if B is None else (B,)
    due = inner if tokens else (*inner, layer.inputs)
    if missing not in (0, 1) or x.shape[1 - missing :] != due:
        raise ValueError(_shapes("x", due, x.shape, B))
    if not tokens and x.dtype != dtype:
        arguments.check_floats("x", x, x.shape, dtype)
    single = missing == 1
    n = 1 if single else len(x)
    lead: tuple[int, ...] = () if single else (n,)
    x = x.reshape(n, 1 if B is None else B, *due[batch:])
    if tokens:
        x = _ids("x", x, layer.inputs, None, single, B)
    cuts = None if resets is None else _resets(resets, lead, inner, x.shape[:2])
    if isinstance(loss, str):
        found = _weights(weights, loss, network, lead, inner, x.shape[:2])
        y = _targets(y, loss, network, (lead, inner, x.shape[:2]), found)
    else:
        found, y = None, _entries(y, weights, loss, n, single)
    axes = (0 if single else slice(None), *((0,) if B is None else ()))
    return Piece(x, y, found, cuts, start), axes


def _shapes(name: str, due: tuple[int, ...], shape: tuple[int, ...], B: int | None) -> str:
    tail = "".join(f", {size}" for size in due)
    one = f"({', '.join(map(str, due))}{',' * (len(due) == 1)})"
    hint = "; give B= to the learner for a batch axis" if B is None else ""
    return (
        f"{name} must have shape (n{tail or ','}), or {one} for one step, not {tuple(shape)}{hint}"
    )


def _ids(
    name: str, ids: Array, classes: int, counted: Array | None, single: bool, B: int | None
) -> Array:
    """Ids as int64 within 0..classes-1; those that do not count may be anything, and become 0."""
    wrong = (ids < 0) | (ids >= classes)
    if wrong.any():
        bad = wrong if counted is None else wrong & counted
        if bad.any():
            t, b = np.argwhere(bad)[0].tolist()
            hint = f": integers are tokens, 0..{classes - 1}" if name == "x" else ""
            at = "" if single else f" at t={t} of the piece"
            at += "" if B is None else f" at b={b}"
            raise ValueError(
                f"{name} must hold classes 0..{classes - 1}, not {ids[t, b]}{at}{hint}"
            )
        ids = np.where(wrong, 0, ids)
    return np.ascontiguousarray(ids, np.int64)


def _resets(
    resets: Any, lead: tuple[int, ...], inner: tuple[int, ...], form: tuple[int, ...]
) -> Array | None:
    values = taken("resets", resets)
    if values.size and values.dtype != np.bool_:
        raise TypeError(f"resets must be booleans, not {values.dtype}")
    if values.shape not in (lead, (*lead, *inner)):
        either = f" or {lead}" if inner else ""
        raise ValueError(f"resets must have shape {(*lead, *inner)}{either}, not {values.shape}")
    if not values.any():
        return None
    if values.shape == lead:
        return np.repeat(values.reshape(-1, 1), form[1], axis=1)
    return values.reshape(form)


def _weights(
    weights: Any, loss: str, network: Network[Any], lead: tuple[int, ...], inner: tuple[int, ...],
    form: tuple[int, ...],
) -> Array | None:  # fmt: skip
    if weights is None:
        return None
    values = taken("weights", weights)
    if values.dtype.kind not in "fiub":
        raise TypeError(f"weights must be real numbers, not {values.dtype}")
    assert network.readout is not None
    full, outputs = (*lead, *inner), network.readout.outputs
    allowed = [full, lead] if inner else [full]
    if not LOSSES[loss].classes:  # type: ignore[index]
        allowed.append((*full, outputs))
    if values.shape not in allowed:
        shapes = " or ".join(map(str, allowed))
        raise ValueError(f"weights must have shape {shapes} with loss={loss!r}, not {values.shape}")
    found = values.astype(np.float64)
    found[abs(found) < _TINY] = 0  # kernels flush them
    if values.shape == full:
        return found.reshape(form)
    if values.shape == lead:
        return np.repeat(found.reshape(-1, 1), form[1], axis=1)
    return found.reshape(*form, outputs)


def _targets(
    y: Any, loss: str, network: Network[Any], forms: tuple[Any, Any, Any], weights: Array | None
) -> Array | None:
    if y is None:
        return None
    lead, inner, form = forms
    readout = network.readout
    assert readout is not None
    y = y if type(y) is np.ndarray else taken("y", y)
    if not LOSSES[loss].classes:  # type: ignore[index]
        arguments.check_floats("y", y, (*lead, *inner, readout.outputs), readout.dtype)
        return y.reshape(*form, readout.outputs)
    if y.dtype.kind not in "iu":
        raise TypeError(f"y must hold integer classes for {loss}, not {y.dtype}")
    arguments.check_shape("y", y, (*lead, *inner))
    counted = None if weights is None else weights != 0
    return _ids(
        "y", y.reshape(form), readout.outputs, counted, not lead, inner[0] if inner else None
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
