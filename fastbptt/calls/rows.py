"""Many calls in one: arrays with further leading axes, as `jax.vmap` adds them.

Each array has the same number of leading axes; one of size 1 is shared by all rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..arrays import Array
from ..layers.composite import State

Arrays = Sequence[Array]


def leading(arrays: Arrays, count: int) -> tuple[int, ...]:
    """The sizes of `count` leading axes of all arrays."""
    return np.broadcast_shapes(*(array.shape[:count] for array in arrays))


def each(
    work: Callable[[list[Array]], Iterable[Array]], arrays: Arrays, count: int, results: Arrays
) -> Arrays:
    """`results`, new arrays with the leading axes, filled with those of `work` row by row."""
    for index in np.ndindex(leading(arrays, count)):
        row = [
            array[tuple(i * (n > 1) for i, n in zip(index, array.shape, strict=False))]
            for array in arrays
        ]
        for target, value in zip(results, work(row), strict=True):
            target[index] = value
    return results


class Merged:
    """The leading axes as part of the batch axis, for a call that all rows share the layer of.

    lead : the sizes of the leading axes; batch : that of the batch axis, or () where x has none
    """

    def __init__(self, lead: tuple[int, ...], batch: tuple[int, ...]):
        self.lead, self.batch = lead, batch
        self.size = math.prod((*lead, *batch))

    def taken(self, array: Array, axis: int) -> Array:
        """An argument whose batch axis is, or would be, `axis` without the leading axes."""
        count = len(self.lead)
        array = np.broadcast_to(array, (*self.lead, *array.shape[count:]))
        array = np.moveaxis(array, range(count), range(axis, axis + count))
        rest = array.shape[axis + count + len(self.batch) :]
        return array.reshape(*array.shape[:axis], self.size, *rest)

    def resets(self, array: Array, axes: int) -> Array:
        """`resets`, which have so many axes without the leading ones, as (T, size)."""
        if axes == 1 and self.batch:  # for all sequences
            array = np.broadcast_to(array[..., None], (*array.shape, *self.batch))
        return self.taken(array, 1)

    def state(self, state: State) -> State:
        """A state, each array taken."""
        if isinstance(state, tuple):
            return tuple(self.state(part) for part in state)
        return self.taken(state, 0)

    def given(self, result: Array, axis: int) -> Array:
        """A result with the leading axes first again, and the batch axis at `axis` behind them."""
        shape = (*result.shape[:axis], *self.lead, *self.batch, *result.shape[axis + 1 :])
        count = len(self.lead)
        return np.moveaxis(result.reshape(shape), range(axis, axis + count), range(count))
