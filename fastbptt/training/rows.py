"""The arrays of one step of an optimiser, as compiled code takes them; on a GPU as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from .. import arguments
from ..arrays import Array, module_of, on_gpu
from ..layers.model import Model
from ..layers.network import Network

Pairs: TypeAlias = "list[tuple[Array, Array]]"
"""Arrays of weights, and of their gradients."""

_TINY = 1e-6  # torch.nn.utils.clip_grad_norm_'s, so that both agree


def clipping(norm: float, most: float) -> float:
    """What a gradient of that norm is multiplied by; NaN where the norm is."""
    scale = most / (norm + _TINY)
    return 1.0 if scale > 1.0 else scale


def pairs(network: Any, grad: Any) -> Pairs:
    """The arrays of a model with their gradients; raises unless they fit, before any work."""
    if not isinstance(network, Model):
        raise TypeError(
            f"network must be a Network, a layer or a readout, not {arguments.describe(network)}"
        )
    if type(grad) is not type(network):
        raise TypeError(
            f"grad must be a {type(network).__name__} like network, not {arguments.describe(grad)}"
        )
    own, given = network.arrays(), grad.arrays()
    stateless = isinstance(grad, Network) and grad.state is None
    if stateless and isinstance(network, Network) and network.state is not None:
        own = network._with(state=None).arrays()
    if [a.shape for a in given] != [a.shape for a in own]:
        raise ValueError(
            f"grad must have arrays of the shapes {[a.shape for a in own]} like network, "
            f"not {[a.shape for a in given]}"
        )
    found = list(zip(own, given, strict=True))
    for number, (weight, slope) in enumerate(found):
        if not (type(weight) is type(slope) is np.ndarray and weight.dtype == slope.dtype):
            _check_pair(number, weight, slope)
        if isinstance(weight, np.ndarray) and not weight.flags.writeable:
            raise ValueError(f"network.arrays()[{number}] must be writable, not read-only")
    return found


def _check_pair(number: int, weight: Any, slope: Any) -> None:
    for name, array in (("network", weight), ("grad", slope)):
        if not (isinstance(array, np.ndarray) or on_gpu(array)):
            raise TypeError(
                f"{name}.arrays()[{number}] must be a NumPy or CuPy array, "
                f"not {arguments.describe(array)}"
            )
    if slope.dtype != weight.dtype:
        raise TypeError(
            f"grad.arrays()[{number}] must be {weight.dtype} like the network, not {slope.dtype}"
        )
    if module_of(slope) is not module_of(weight):
        raise TypeError(f"grad.arrays()[{number}] must lie where the network does")


def rows_for(found: Pairs, used: Rows | OnGPU | None = None) -> Rows | OnGPU:
    """What does the work of a step on such arrays: what did it before, if it can."""
    kind = Rows if isinstance(found[0][0], np.ndarray) else OnGPU
    return used if isinstance(used, kind) and used.room >= len(found) else kind(len(found))


class Rows:
    """Weights, their gradients and what is kept for them: rows of the table that kernels read.

    It may be used for one step after another: addresses of arrays that are the same objects as
    before are not asked for again, which would take longer than the step of a small network.
    """

    def __init__(self, room: int):
        from ..kernels.cpu.optimisers import COLUMNS  # here, since it loads Numba

        self._table = np.zeros((room, COLUMNS), np.int64)
        self._held: list[list[Any]] = [[None] * COLUMNS for _ in range(room)]
        self._copies: list[tuple[Array, Array]] = []
        self._count, self.room = 0, room

    def take(self, found: Pairs, means: Sequence[tuple[Array, ...]]) -> None:
        """Enter pairs, with the arrays that are kept for the first of them."""
        self._like, self._count = _LIKE[found[0][0].dtype.char], len(found)
        for row, (pair, kept) in enumerate(zip(found, means, strict=False)):
            held = self._held[row]
            for column, array in enumerate((*pair, *kept), _WEIGHT):
                if array is not held[column]:
                    held[column] = self._put(row, column, array)

    def _put(self, row: int, column: int, array: Array) -> Array | None:
        """Enter an array; returns it, or None where compiled code cannot read it in place."""
        used = array
        if not (array.flags.c_contiguous and array.flags.aligned):
            used = np.array(array, order="C")
            self._copies.append((array if column == _WEIGHT else used, used))
        self._table[row, 0] = used.size
        self._table[row, column] = used.__array_interface__["data"][0]
        return array if used is array else None

    def put_back(self) -> None:
        """Write weights that were copied to where they are from, and forget the gradient."""
        for array, used in self._copies:
            if used is not array:
                array[...] = used
        self._copies.clear()
        for held in self._held[: self._count]:
            held[_GRAD] = None

    def norm(self) -> float:
        """The norm of the gradient."""
        return float(_kernels()[0](self._like, self._table, self._count))

    def scale(self, factor: float) -> None:
        """Write the gradient times a factor to the weights."""
        _kernels()[1](self._like, self._table, self._count, factor)

    def adam(self, *numbers: Any) -> None:
        """A step: see the kernel."""
        _kernels()[2](self._like, self._table, self._count, *numbers)

    def sgd(self, *numbers: Any) -> None:
        """A step: see the kernel."""
        _kernels()[3](self._like, self._table, self._count, *numbers)


class OnGPU:
    """The same by the array operations of CuPy, which allocate."""

    def __init__(self, room: int):
        self.room = room

    def take(self, found: Pairs, means: Sequence[tuple[Array, ...]]) -> None:
        """Enter pairs, with the arrays that are kept for the first of them."""
        self._given = [(*pair, *kept) for pair, kept in zip(found, means, strict=False)]

    def put_back(self) -> None:
        """Nothing: no weights were copied."""

    def norm(self) -> float:
        """The norm of the gradient."""
        sums = [float((row[1].astype(np.float64) ** 2).sum()) for row in self._given]
        return math.sqrt(math.fsum(sums))

    def scale(self, factor: float) -> None:
        """Write the gradient times a factor to the weights."""
        for weight, slope in self._given:
            weight[...] = slope * factor

    def adam(
        self, scale: float, rate: float, decay: float, keep: float, betas: tuple[float, float],
        root: float, eps: float,
    ) -> None:  # fmt: skip
        """A step: see the kernel."""
        for weight, slope, mean, square in self._given:
            slope = slope * scale + weight * decay
            mean += (1 - betas[0]) * (slope - mean)
            square *= betas[1]
            square += (1 - betas[1]) * (slope * slope)
            weight *= keep
            weight -= rate * (mean / (square**0.5 * root + eps))

    def sgd(
        self, scale: float, rate: float, decay: float, momentum: float, now: float, ahead: float
    ) -> None:
        """A step: see the kernel."""
        for weight, slope, *kept in self._given:
            slope = slope * scale + weight * decay
            for mean in kept:
                mean *= momentum
                mean += slope
                slope = now * slope + ahead * mean
            weight -= rate * slope


_WEIGHT, _GRAD = 1, 2  # columns of the table
_LIKE = {char: np.zeros(1, char) for char in "fd"}


@cache
def _kernels() -> Any:
    from ..kernels.cpu.optimisers import build_optimisers

    return build_optimisers()
