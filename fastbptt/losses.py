"""The loss of a stretch of time and its derivative by the top layer's states."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from . import arguments
from .along import Along
from .arrays import module_of
from .backends import Backend
from .layers import Network, Readout
from .sources import Floats, Ids, Lengths, Weights, counts
from .spans import Spans, panel_steps
from .typing import Array, DType, Loss, LossFunction, Reduction

if TYPE_CHECKING:
    from .chain import Chain
    from .inputs import Call

NAMES = ("squared_error", "cross_entropy", "binary_cross_entropy")


def check_name(loss: Any) -> None:
    """Raise unless `loss` is a callable or the name of a loss."""
    if not callable(loss):
        arguments.choice("loss", loss, NAMES)


def check(loss: Loss, readout: Readout | None) -> None:
    """Raise unless `loss` is a callable or a name that fits the readout."""
    check_name(loss)
    if callable(loss):
        return
    if readout is None:
        raise ValueError(f"loss={loss!r} needs a readout, but the network's readout is None")
    due = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}.get(loss)
    if due and readout.activation != due:
        raise ValueError(
            f"loss={loss!r} needs a readout with activation {due!r}, not {readout.activation!r}"
        )


def direct(y: Any) -> bool:
    """Whether the kernels can read floats where they lie, or take classes, for a whole segment."""
    if not isinstance(y, np.ndarray) or y.dtype.kind in "iu":
        return True
    return bool(y.flags.c_contiguous and y.flags.aligned)


class NamedLoss:
    """A loss by name, through the readout."""

    def __init__(
        self,
        device: Backend,
        workspace: Any,
        name: str,
        head: Any,
        source: Floats | Ids,
        weights: Weights,
        lengths: Lengths,
        factor: float,
        chunk: int,
    ):
        self.device = device
        self.kind = name
        self.head = head
        self.source = source
        self.weights = weights
        self.lengths = device.here(lengths.values)
        self.factor = factor
        self.scratch = head.scratch(chunk)
        self.workspace = workspace
        self.dh: Array | None = None
        self.total = device.xp.zeros(2)  # the sum, and its rounding error

    def _given(self, start: int, stop: int) -> tuple[Array, Array, Array]:
        y, targets = self.source.stretch(start, stop)
        return y, targets, self.weights.stretch(start, stop)

    def add(self, h: Array, start: int) -> None:
        """Add the loss of at most two chunks."""
        given = self._given(start, start + len(h))
        self.head.loss(
            self.kind, self.factor, h, self.scratch, *given, self.total, self.lengths, start
        )

    def fill(self, h: Array, start: int, dh: Array) -> None:
        """Add the loss of at most two chunks and the readout's gradient; `dh` becomes dE/dh."""
        self.head.loss_and_derivative(
            self.kind, self.factor, h, self.scratch, *self._given(start, start + len(h)),
            self.total, self.lengths, start, dh, panel_steps(self.head.batch),
        )  # fmt: skip

    def derivative(self, h: Array, start: int) -> tuple[Array, Any]:
        """Return scratch for dE/dh and the head with which the chain fills it on its way back."""
        if self.dh is None:
            shape = self.scratch[0].shape[0], self.head.batch, h.shape[2]
            self.dh = self.workspace.empty(shape, h.dtype)
        given = self._given(start, start + len(h))
        return self.dh, self.head.with_loss(
            self.kind, self.factor, self.scratch, *given, self.total
        )

    def flush(self) -> None:
        """End a panel of the readout's gradients."""
        self.head.flush()

    def value(self) -> float:
        """The loss so far."""
        total, error = self.device.home(self.total)
        return float((total + error if np.isfinite(error) else total) * self.factor)

    def gradient(self) -> Readout | None:
        """Return the gradient of the readout."""
        return self.head.gradient()


class CallableLoss:
    """A caller's own loss of the states, `loss(h, y, start) -> (value, dh)`."""

    def __init__(
        self,
        call: Call,
        function: LossFunction,
        readout: Readout | None,
        y: Any,
    ):
        self.call, self.device = call, call.device
        self.function = function
        self.readout = readout
        self.y = y
        self.lengths = call.lengths
        self.squeeze = call.squeeze
        self.total = 0.0

    def add(self, h: Array, start: int) -> None:
        """Add the loss of a stretch."""
        self._ask(h, start)

    def fill(self, h: Array, start: int, dh: Array) -> None:
        """Add the loss of a stretch; `dh` becomes its derivative by h."""
        self.device.fill(dh, self.derivative(h, start)[0])

    def derivative(self, h: Array, start: int) -> tuple[Array, Any]:
        """Add the loss of a stretch; return its derivative by h, and no head."""
        shape, dh = self._ask(h, start)
        dh = self.call.given("dh returned by loss", dh)
        dh = arguments.floats("dh returned by loss", dh, shape, h.dtype)
        dh = dh[:, None] if self.squeeze else dh
        panel, _ = Floats(self.device, dh, len(h)).stretch(0, len(h))
        return panel, self.device.no_head(h.dtype)

    def _ask(self, h: Array, start: int) -> tuple[tuple[int, ...], Any]:
        given = self.call.handed_out(h)
        if self.lengths.given:
            past = ~self.lengths.live(start, start + len(h))
            given[module_of(given).asarray(past)] = 0
        given = given[:, 0] if self.squeeze else given
        y = None if self.y is None else self.y[start : start + len(h)]
        result = self.function(given, y, start)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(
                f"loss must return a pair (value, dh), not {arguments.describe(result)}"
            )
        value, derivative = result
        try:
            self.total += float(value)
        except (TypeError, ValueError, OverflowError):
            raise TypeError(
                f"loss must return a number first, not {arguments.describe(value)}"
            ) from None
        return given.shape, derivative

    def flush(self) -> None:
        """Nothing: a callable has no gradients of its own."""

    def value(self) -> float:
        """The loss so far."""
        return self.total

    def gradient(self) -> Readout | None:
        """Return the readout's gradient, which is zero, or None."""
        if self.readout is None:
            return None
        zeros = [module_of(a).zeros(a.shape, a.dtype) for a in self.readout.arrays()]
        return self.readout.replace_arrays(zeros)


LossSum: TypeAlias = NamedLoss | CallableLoss


class GivenDerivative:
    """In place of a loss: its derivative by a strand's states is there already."""

    def __init__(self, dh: Along, dtype: DType):
        self.dh, self.dtype = dh, dtype
        self.device = dh.device

    def derivative(self, h: Array, start: int) -> tuple[Array, Any]:
        """Return the derivative by the states of a stretch, and no head."""
        return self.dh.take(start, start + len(h)), self.device.no_head(self.dtype)

    def flush(self) -> None:
        """Nothing: the readout is not seen from here."""


def loss_sum(
    network: Network,
    call: Call,
    y: Any,
    loss: Loss,
    weights: Array | None,
    reduction: Reduction,
    spans: Spans,
    chain: Chain,
    several: bool,
) -> LossSum:
    """Check a loss and what goes with it, and return what adds it up stretch by stretch."""
    check(loss, network.readout)
    arguments.choice("reduction", reduction, ("sum", "mean"))
    if callable(loss):
        return _callable(network, call, y, loss, weights, reduction)
    weights = _check_weights(weights, call)
    device = call.device

    def counted(start: int, stop: int) -> Array:
        live = call.lengths.live(start, stop)
        if weights is None:
            return live
        part = device.home(weights[start:stop])
        return live & counts(part[:, None] if part.ndim == 1 else part)

    readout = network.readout
    assert readout is not None  # as check() sees to
    factor = 1.0
    if reduction == "mean":
        steps = spans.listed
        starts = range(0, call.T, steps)
        count = sum(int(np.count_nonzero(counted(a, min(a + steps, call.T)))) for a in starts)
        factor = 1.0 / count if count else 0.0
    source = _targets(y, loss, call, readout, counted, spans.segment)
    head = device.head(readout, call.B, chain.workspace, several, call.lengths.given)
    scales = Weights(device, weights, call.B, spans.segment)
    return NamedLoss(
        device, chain.workspace, loss, head, source, scales, call.lengths, factor, spans.chunk
    )


def _targets(
    y: Any,
    loss: Loss,
    call: Call,
    readout: Readout,
    counted: Callable[[int, int], Array],
    steps: int,
) -> Floats | Ids:
    y = call.given("y", y)
    times = (call.T,) if call.squeeze else (call.T, call.B)
    if loss == "cross_entropy":
        if y.dtype.kind not in "iu":
            raise TypeError(f"y must hold integer classes for cross_entropy, not {y.dtype}")
        arguments.check_shape("y", y, times)
        y = y[:, None] if call.squeeze else y
        return Ids(call.device, "y", y, readout.outputs, readout.dtype, counted, steps)
    arguments.floats("y", y, (*times, readout.outputs), readout.dtype)
    return Floats(call.device, y[:, None] if call.squeeze else y, steps)


def _callable(
    network: Network,
    call: Call,
    y: Any,
    loss: LossFunction,
    weights: Array | None,
    reduction: Reduction,
) -> CallableLoss:
    if weights is not None:
        raise ValueError("weights must be None with a callable loss, which weighs by itself")
    if reduction != "sum":
        raise ValueError(f'reduction must be "sum" with a callable loss, not {reduction!r}')
    if y is not None:
        _check_sequence(y, call.T)
    return CallableLoss(call, loss, network.readout, y)


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


def _check_weights(weights: Any, call: Call) -> Array | None:
    if weights is None:
        return None
    weights = call.given("weights", weights)
    if weights.dtype.kind not in "fiub":
        raise TypeError(f"weights must be real numbers, not {weights.dtype}")
    one_each = call.squeeze or weights.ndim == 1
    arguments.check_shape("weights", weights, (call.T,) if one_each else (call.T, call.B))
    return weights
