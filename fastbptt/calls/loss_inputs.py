"""The loss of a call and what goes with it, checked: y, weights, reduction, a caller's function."""

from __future__ import annotations

from typing import Any, TypeAlias

from .. import arguments
from ..arrays import AlongTime, Array, module_of
from ..engine.losses import (
    CallableLoss,
    Loss,
    LossFunction,
    LossName,
    NamedLoss,
    Reduction,
)
from ..kernels.loss_table import LOSSES
from ..layers.network import Network, Readout
from .inputs import Inputs

CheckedLoss: TypeAlias = NamedLoss | CallableLoss


def check_name(loss: Any) -> None:
    """Raise unless `loss` is a callable or the name of a loss."""
    if not callable(loss):
        arguments.choice("loss", loss, tuple(LOSSES))


def check(
    network: Network, inputs: Inputs, y: Any, loss: Loss, weights: Any, reduction: Reduction
) -> CheckedLoss:
    """Check a loss and what goes with it, before any work."""
    check_name(loss)
    arguments.choice("reduction", reduction, ("sum", "mean"))
    if callable(loss):
        return _callable(network, inputs, y, loss, weights, reduction)
    readout = _check_readout(loss, network.readout)
    weights = _check_weights(weights, inputs)
    y = _check_targets(y, loss, inputs, readout)
    return NamedLoss(loss, readout, y, weights, reduction)


def _check_readout(loss: LossName, readout: Readout | None) -> Readout:
    if readout is None:
        raise ValueError(f"loss={loss!r} needs a readout, but the network's readout is None")
    needed = LOSSES[loss].readout
    if needed and readout.activation != needed:
        raise ValueError(
            f"loss={loss!r} needs a readout with activation {needed!r}, not {readout.activation!r}"
        )
    return readout


def _check_targets(y: Any, loss: LossName, inputs: Inputs, readout: Readout) -> AlongTime:
    y = inputs.along_time("y", y)
    if LOSSES[loss].classes:
        if y.dtype.kind not in "iu":
            raise TypeError(f"y must hold integer classes for {loss}, not {y.dtype}")
        arguments.check_shape("y", y, inputs.times())
    else:
        arguments.check_floats("y", y, inputs.times(readout.outputs), readout.dtype)
    return y[:, None] if inputs.squeeze else y


def _check_weights(weights: Any, inputs: Inputs) -> AlongTime | None:
    if weights is None:
        return None
    weights = inputs.along_time("weights", weights)
    one_each = inputs.squeeze or weights.ndim == 1
    arguments.check_shape("weights", weights, (inputs.T,) if one_each else (inputs.T, inputs.B))
    return weights


def _callable(
    network: Network, inputs: Inputs, y: Any, loss: LossFunction, weights: Any, reduction: Reduction
) -> CallableLoss:
    if weights is not None:
        raise ValueError("weights must be None with a callable loss, which weighs by itself")
    if reduction != "sum":
        raise ValueError(f'reduction must be "sum" with a callable loss, not {reduction!r}')
    if y is not None:
        _check_sequence(y, inputs.T)

    y = by_position(y)

    def ask(h: Array, start: int) -> tuple[float, Array]:
        return _ask(inputs, loss, y, h, start)

    return CallableLoss(ask, network.readout)


def by_position(y: Any) -> Any:
    """What cuts a caller's y along time: a frame's own brackets go by its labels."""
    return y.iloc if hasattr(type(y), "iloc") else y


def _check_sequence(y: Any, steps: int) -> None:
    try:
        length = len(y)
        y[0:0]
    except (TypeError, KeyError):
        raise TypeError(
            f"y must be None or a sequence along time, not {arguments.describe(y)}"
        ) from None
    if length != steps:
        raise ValueError(f"y must have T={steps} entries along time, not {length}")


def _ask(inputs: Inputs, loss: LossFunction, y: Any, h: Array, start: int) -> tuple[float, Array]:
    """What a caller's loss says of the states h (n, B, H), checked."""
    given = inputs.outputs.copied(h)
    lengths, n = inputs.problem.arrays.lengths, len(h)
    if lengths.given:
        past = ~lengths.live(start, start + n)
        given[module_of(given).asarray(past)] = 0
    given = inputs.outputs.out(given)
    result = loss(given, None if y is None else y[start : start + n], start)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(f"loss must return a pair (value, dh), not {arguments.describe(result)}")
    try:
        value = float(result[0])
    except (TypeError, ValueError, OverflowError):
        raise TypeError(
            f"loss must return a number first, not {arguments.describe(result[0])}"
        ) from None
    name = "dh returned by loss"
    dh = arguments.floats(name, inputs.given(name, result[1]), given.shape, h.dtype)
    return value, dh[:, None] if inputs.squeeze else dh
