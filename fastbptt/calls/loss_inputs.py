"""The loss of a call and what goes with it, checked: y, weights, reduction, a caller's function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from .. import arguments
from ..arrays import AlongTime, Array, DType, Shape, module_of
from ..engine.losses import (
    CallableLoss,
    Loss,
    LossFunction,
    LossName,
    NamedLoss,
    Reduction,
)
from ..engine.output_losses import CheckedOutputLoss, OutputLoss
from ..kernels.loss_table import LOSSES
from ..layers.network import Network, Readout
from .inputs import Inputs

CheckedLoss: TypeAlias = NamedLoss | CallableLoss | CheckedOutputLoss


def check_name(loss: Any) -> None:
    """Raise unless `loss` is the name of a loss, a callable or an OutputLoss."""
    if loss is OutputLoss:
        raise TypeError(
            "loss must be a name, a function or OutputLoss(f), not the class OutputLoss"
        )
    if not is_own(loss):
        arguments.choice("loss", loss, tuple(LOSSES))


def is_own(loss: Any) -> bool:
    """Whether a loss is a function of the caller's."""
    return callable(loss) or isinstance(loss, OutputLoss)


def check(
    network: Network, inputs: Inputs, y: Any, loss: Loss, weights: Any, reduction: Reduction
) -> CheckedLoss:
    """Check a loss and what goes with it, before any work."""
    check_name(loss)
    arguments.choice("reduction", reduction, ("sum", "mean"))
    if not isinstance(loss, str):
        return _own(network, inputs, y, loss, weights, reduction)
    readout = check_readout(loss, network.readout)
    weights = _check_weights(weights, loss, inputs, readout)
    y = _check_targets(y, loss, inputs, readout)
    return NamedLoss(loss, readout, y, weights, reduction)


def _readout(loss: object, readout: Readout | None) -> Readout:
    if readout is None:
        raise ValueError(
            f"loss={arguments.shown(loss)} needs a readout, but the network's readout is None"
        )
    return readout


def check_readout(loss: LossName, readout: Readout | None) -> Readout:
    """The readout, which must fit a loss by name."""
    readout = _readout(loss, readout)
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


def _check_weights(
    weights: Any, loss: LossName, inputs: Inputs, readout: Readout
) -> AlongTime | None:
    """Weights (T,), (T, B) or (T, B, O): which of these is said by the axes that x has."""
    if weights is None:
        return None
    weights = inputs.along_time("weights", weights)
    if weights.dtype.kind not in "fiub":
        raise TypeError(f"weights must be real numbers, not {weights.dtype}")
    if weights.ndim == 3 - inputs.squeeze:
        if LOSSES[loss].classes:
            raise ValueError(
                f"weights must have shape {inputs.times()} with loss={loss!r}, which is one number "
                f"for all outputs of a position, not {weights.shape}"
            )
        arguments.check_shape("weights", weights, inputs.times(readout.outputs))
        return weights[:, None] if inputs.squeeze else weights
    one_each = inputs.squeeze or weights.ndim == 1
    arguments.check_shape("weights", weights, (inputs.T,) if one_each else (inputs.T, inputs.B))
    return weights


def _own(
    network: Network, inputs: Inputs, y: Any, loss: LossFunction | OutputLoss, weights: Any,
    reduction: Reduction,
) -> CallableLoss | CheckedOutputLoss:  # fmt: skip
    what = "an OutputLoss" if isinstance(loss, OutputLoss) else "a callable loss"
    if weights is not None:
        raise ValueError(f"weights must be None with {what}, which weighs by itself")
    if reduction != "sum":
        raise ValueError(f'reduction must be "sum" with {what}, not {reduction!r}')
    if y is not None:
        check_sequence(y, inputs.T)
    y = by_position(y)
    if isinstance(loss, OutputLoss):
        function, readout = loss.function, _readout(loss, network.readout)

        def of_outputs(o: Array, start: int) -> tuple[float, Array]:
            return _ask(inputs, function, "do", y, inputs.outputs.moved(o), start)

        return CheckedOutputLoss(of_outputs, readout)
    of_states = loss

    def ask(h: Array, start: int) -> tuple[float, Array]:
        given = inputs.outputs.copied(h)
        lengths, n = inputs.problem.arrays.lengths, len(h)
        if lengths.given:
            past = ~lengths.live(start, start + n)
            given[module_of(given).asarray(past)] = 0
        return _ask(inputs, of_states, "dh", y, given, start)

    return CallableLoss(ask, network.readout)


def by_position(y: Any) -> Any:
    """What cuts a caller's y along time: a frame's own brackets go by its labels."""
    return y.iloc if hasattr(type(y), "iloc") else y


def check_sequence(y: Any, steps: int) -> None:
    """Raise unless y can be cut along time and has so many entries."""
    try:
        length = len(y)
        y[0:0]
    except (TypeError, KeyError):
        raise TypeError(
            f"y must be None or a sequence along time, not {arguments.describe(y)}"
        ) from None
    if length != steps:
        raise ValueError(f"y must have T={steps} entries along time, not {length}")


def _ask(
    inputs: Inputs, loss: LossFunction, slope: str, y: Any, given: Array, start: int
) -> tuple[float, Array]:
    """What a caller's loss says of a span (n, B, ...) that is the caller's own, checked.

    slope : what it must return besides the value, "dh" or "do"
    """
    shape, dtype = given.shape, given.dtype
    stop = start + len(given)
    result = loss(inputs.outputs.out(given), None if y is None else y[start:stop], start)
    due = (shape[0], *shape[2:]) if inputs.squeeze else shape
    value, found = answer(result, slope, inputs.given, due, dtype)
    return value, found[:, None] if inputs.squeeze else found


def answer(
    result: Any, slope: str, given: Callable[[str, Any], Array], shape: Shape, dtype: DType
) -> tuple[float, Array]:
    """What a caller's loss has returned, checked; `given(name, value)`: the value as an array."""
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            f"loss must return a pair (value, {slope}), not {arguments.describe(result)}"
        )
    try:
        value = float(result[0])
    except (TypeError, ValueError, OverflowError):
        raise TypeError(
            f"loss must return a number first, not {arguments.describe(result[0])}"
        ) from None
    name = f"{slope} returned by loss"
    return value, arguments.floats(name, given(name, result[1]), shape, dtype)
