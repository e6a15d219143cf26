"""A caller's own loss of the readout's outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import arguments
from ..arrays import Array
from ..kernels.loss_table import GIVEN
from ..layers.network import Readout
from ..memory.blocking import BlockSizes
from .head_sum import HeadSum
from .problem import Problem
from .readers import float_reader, no_ids, no_weights, read


@dataclass(frozen=True, eq=False)
class OutputLoss:
    """A loss of one's own of the readout's outputs, as the `loss` of `bptt` and `evaluate`.

    Parameters
    ----------
    function : `function(o, y, start) -> (value, do)`. It is called for one span of time after
        another, each step once: o (n, B, O) are the outputs of the steps from `start` on, a new
        array, 0 past the lengths; y the n entries for them, or None; value is the loss of the span,
        a number; do is dL/do, of the shape and dtype of o

    The derivative by the network's weights, those of the readout included, follows from do. What do
    holds past the lengths does not matter; value should leave these steps out.

    Raises
    ------
    TypeError : `function` cannot be called
    """

    function: Callable[[Array, Any, int], tuple[float, Array]]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(
                f"function must be a callable (o, y, start), not "
                f"{arguments.describe(self.function)}"
            )


@dataclass(frozen=True, eq=False)
class CheckedOutputLoss:
    """An OutputLoss, its arguments checked.

    ask : `ask(o, start)` -> (value, do), o (n, B, O) being a new array on the device, do of that
        shape anywhere
    """

    ask: Callable[[Array, int], tuple[float, Array]]
    readout: Readout

    indexed = False

    def zero_copy(self, problem: Problem) -> bool:
        """No: what it returns may lie anywhere."""
        return False

    def sum(
        self, problem: Problem, blocks: BlockSizes, workspace: Any, multi_flush: bool
    ) -> OutputSum:
        """What adds up the loss of a problem."""
        return OutputSum(self, problem, blocks, workspace, multi_flush)


class OutputSum(HeadSum):
    """Adds up a caller's own loss of the outputs, span by span, and the readout's gradient.

    The kernels take what the caller returns in the place of targets.
    """

    def __init__(
        self,
        loss: CheckedOutputLoss,
        problem: Problem,
        blocks: BlockSizes,
        workspace: Any,
        multi_flush: bool,
    ):
        super().__init__(GIVEN, loss.readout, problem, blocks, workspace, multi_flush)
        self.ask, self.sum = loss.ask, 0.0

    def _ask(self, h: Array, start: int) -> Array:
        """Add the loss of a span; return what the caller says, wherever it lies."""
        shape = (*h.shape[:2], self.head.weight.outputs)
        o = self.device.xp.empty(shape, self.head.readout.dtype)
        self.head.outputs(h, o, self.lengths, start)
        value, do = self.ask(o, start)
        self.sum += value
        return do

    def _derivative(self, h: Array, start: int) -> Array:
        """Add the loss of a span; return dE/do, as kernels read it."""
        do = self._ask(h, start)
        return read(float_reader(self.device, do, len(h)), 0, len(h))[0]

    def _given(self, h: Array, start: int) -> tuple[Array, Array, Array]:
        xp = self.device.xp
        return self._derivative(h, start), no_ids(xp), no_weights(xp)

    def add(self, h: Array, start: int) -> None:
        """Add the loss of a span."""
        self._ask(h, start)

    def bind(self, bound: Any) -> None:
        """Tell a bound lane where the head lies; ask at each span."""
        self._bind_head(bound)

    def fetch(self, bound: Any, states: Callable[[], Array], start: int) -> None:
        """Ask the caller about a span."""
        bound.take_targets(self._derivative(states(), start))

    def value(self) -> float:
        """The loss so far."""
        return self.sum

    def take(self) -> float:
        """The loss so far, which then begins at 0."""
        found, self.sum = self.sum, 0.0
        return found
