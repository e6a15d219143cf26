"""The loss of a span of time and its derivative by the top layer's states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from ..arrays import AlongTime, Array, DType, in_memory, module_of
from ..backends.base import Launching
from ..kernels import loss_table
from ..layers.network import Readout
from ..memory.blocking import BlockSizes
from . import copies, time_views
from .copies import Copy
from .head_sum import HeadSum
from .output_losses import OutputLoss, OutputSum
from .problem import Problem
from .readers import (
    TokenReader,
    WeightReader,
    counts,
    float_reader,
    read,
    read_weights,
    token_reader,
    weight_reader,
)
from .time_views import TimeView

LossName: TypeAlias = loss_table.LossName

LossFunction: TypeAlias = Callable[[Array, Any, int], "tuple[float, Array]"]
"""`loss(h, y, start) -> (value, dh)`, for the span of time that begins at start."""

Loss: TypeAlias = "LossName | LossFunction | OutputLoss"
Reduction: TypeAlias = Literal["sum", "mean"]


@dataclass(frozen=True, eq=False)
class NamedLoss:
    """A loss by name, through the readout, its arguments checked.

    y : (T, B, O) floats, or (T, B) classes
    weights : (T,), (T, B) or (T, B, O) of any real dtype, or None
    """

    name: LossName
    readout: Readout
    y: AlongTime
    weights: AlongTime | None
    reduction: Reduction

    @property
    def classes(self) -> bool:
        """Whether y holds classes."""
        return loss_table.LOSSES[self.name].classes

    @property
    def indexed(self) -> bool:
        """Whether the kernels index rows for it."""
        return self.classes or self.weights is not None

    def zero_copy(self, problem: Problem) -> bool:
        """Whether the kernels can read y where it lies, or as classes, for a whole call."""
        if self.weights is not None and self.weights.ndim == 3:
            return False  # they are as many as y's numbers, and are copied
        return self.classes or problem.device.zero_copy(self.y)

    def sum(
        self, problem: Problem, blocks: BlockSizes, workspace: Any, multi_flush: bool
    ) -> NamedSum:
        """What adds up the loss of a problem."""
        return NamedSum(self, problem, blocks, workspace, multi_flush)


@dataclass(frozen=True, eq=False)
class CallableLoss:
    """A caller's own loss of the states, its arguments checked.

    ask : `ask(h, start)` -> (value, dh), h (n, B, H) being on the device, dh of that shape anywhere
    readout : takes no part, and has a zero gradient
    """

    ask: Callable[[Array, int], tuple[float, Array]]
    readout: Readout | None

    indexed = False

    def zero_copy(self, problem: Problem) -> bool:
        """No: what it returns may lie anywhere."""
        return False

    def sum(
        self, problem: Problem, blocks: BlockSizes, workspace: Any, multi_flush: bool
    ) -> CallableSum:
        """What adds up the loss of a problem."""
        return CallableSum(self, problem)


class NamedSum(HeadSum):
    """Adds up a loss by name, span by span, and the readout's gradient."""

    def __init__(
        self,
        loss: NamedLoss,
        problem: Problem,
        blocks: BlockSizes,
        workspace: Any,
        multi_flush: bool,
    ):
        super().__init__(loss.name, loss.readout, problem, blocks, workspace, multi_flush)
        device, shapes, readout = problem.device, problem.shapes, loss.readout
        lengths = problem.arrays.lengths

        def counted(start: int, stop: int) -> Array:
            live = lengths.live(start, stop)
            if loss.weights is None:
                return live
            part = counts(device.home(in_memory(loss.weights[start:stop])))
            if part.ndim == 3:
                return live & part.any(axis=2)
            return live & (part[:, None] if part.ndim == 1 else part)

        if loss.reduction == "mean":
            starts = range(0, shapes.T, blocks.indexed)
            stops = (min(start + blocks.indexed, shapes.T) for start in starts)
            count = sum(
                int(np.count_nonzero(counted(*at))) for at in zip(starts, stops, strict=True)
            )
            self.factor = 1.0 / count if count else 0.0
        steps = blocks.call_steps
        self.weights: WeightReader = weight_reader(device, loss.weights, shapes.B, steps)
        if loss.classes:
            self.reader: Any = token_reader(
                device,
                loss.y,
                steps,
                name="y",
                classes=readout.outputs,
                dtype=readout.dtype,
                counted=counted,
            )
        else:
            self.reader = float_reader(device, loss.y, steps)

    def _read(self, start: int, stop: int) -> tuple[Array, Array, Array]:
        y, classes = read(self.reader, start, stop)
        return y, classes, read_weights(self.weights, start, stop)

    def _given(self, h: Array, start: int) -> tuple[Array, Array, Array]:
        return self._read(start, start + len(h))

    def add(self, h: Array, start: int) -> None:
        """Add the loss of at most two chunks."""
        self.head.loss(
            self.name, self.factor, h, self.scratch, self._given(h, start), self.total,
            self.lengths, start,
        )  # fmt: skip

    def bind(self, bound: Any) -> list[Copy]:
        """Tell a bound lane where the head and what it reads lie."""
        self._bind_head(bound)
        reader = self.reader
        if isinstance(reader, TokenReader):
            bound.place_head("targets", reader.buffer, False)
        else:
            whole = reader.buffer is None
            bound.place_head("y", reader.array if whole else reader.buffer, whole)
        if self.weights.array is not None:
            bound.place_weights(self.weights.buffer)
        return copies.of_loss(reader, self.weights)

    def fetch(self, bound: Any, states: Callable[[], Array], start: int) -> None:
        """Read targets and weights of a span into their buffers."""
        self._read(start, bound.get("stop"))

    def value(self) -> float:
        """The loss so far."""
        total, error = self.device.home(self.total)
        return float((total + error if np.isfinite(error) else total) * self.factor)

    def take(self) -> float:
        """The loss so far, which then begins at 0."""
        found, self.total[...] = self.value(), 0
        return found


class CallableSum:
    """Adds up a caller's own loss, span by span."""

    def __init__(self, loss: CallableLoss, problem: Problem):
        self.loss, self.device = loss, problem.device
        self.total = 0.0

    def add(self, h: Array, start: int) -> None:
        """Add the loss of a span."""
        self.total += self.loss.ask(h, start)[0]

    def fill(self, h: Array, start: int, dh: Array) -> None:
        """Add the loss of a span; `dh` becomes its derivative by h."""
        self.device.copy_to(dh, self._ask(h, start))

    def derivative(self, h: Array, start: int) -> tuple[Array, Any]:
        """Add the loss of a span; return its derivative by h, and no head."""
        return self._ask(h, start), cast(Launching, self.device).no_head(h.dtype)

    def _ask(self, h: Array, start: int) -> Array:
        """Add the loss of a span; return its derivative by h, as kernels read it."""
        value, dh = self.loss.ask(h, start)
        self.total += value
        return read(float_reader(self.device, dh, len(h)), 0, len(h))[0]

    def bind(self, bound: Any) -> None:
        """Ask at each span."""

    def fetch(self, bound: Any, states: Callable[[], Array], start: int) -> None:
        """Ask the caller about a span."""
        bound.take(self._ask(states(), start))

    def flush(self) -> None:
        """Nothing: a callable has no gradients of its own."""

    def value(self) -> float:
        """The loss so far."""
        return self.total

    def take(self) -> float:
        """The loss so far, which then begins at 0."""
        found, self.total = self.total, 0.0
        return found

    def gradient(self) -> Readout | None:
        """Return the readout's gradient, which is zero, or None."""
        readout = self.loss.readout
        if readout is None:
            return None
        zeros = [module_of(a).zeros(a.shape, a.dtype) for a in readout.arrays()]
        return readout.replace_arrays(zeros)


LossSum: TypeAlias = NamedSum | CallableSum | OutputSum


class GivenDerivative:
    """In place of a loss: its derivative by a direction's outputs is there already."""

    def __init__(self, dh: TimeView, dtype: DType):
        self.dh, self.dtype = dh, dtype

    def derivative(self, h: Array, start: int) -> tuple[Array, Any]:
        """Return the derivative by the states of a span, and no head."""
        dh = time_views.read(self.dh, start, start + len(h))
        return dh, cast(Launching, self.dh.device).no_head(self.dtype)

    def bind(self, bound: Any) -> list[Copy]:
        """Tell a bound lane where the derivative lies."""
        whole = self.dh.buffer is None
        bound.place("dh", self.dh.array if self.dh.buffer is None else self.dh.buffer, whole)
        return copies.of_derivative(self.dh)

    def fetch(self, bound: Any, states: Callable[[], Array], start: int) -> None:
        """Read a span into the buffer."""
        time_views.read(self.dh, start, bound.get("stop"))

    def flush(self) -> None:
        """Nothing: the readout is not seen from here."""
