"""A layer's weights as a step was run with them, for the way back over it, and J's parts.

See `kernels.cpu.influence` for what an influence is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .. import arguments
from ..arrays import Array
from ..kernels.cells.registry import CELLS
from ..kernels.cpu.memory import Workspace
from ..kernels.cpu.products import PANEL_BYTES, chains
from ..kernels.cpu.weights import Weights
from ..layers.recurrent import Recurrent


class Part(NamedTuple):
    """One weight of a layer, as J has a part for it.

    reads : what its inputs are: "x", "s" the states before the step, "v" what the second product
        multiplied, or "one", whose weights are the biases and whatever else only sums deltas
    inputs, outputs : K, and how many blocks of deltas times H
    column : the first of these deltas
    """

    reads: str
    inputs: int
    outputs: int
    column: int

    def shape(self, rows: int, item: int, batch: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The shape of an influence on so many rows."""
        width = PANEL_BYTES // item
        return (*batch, self.inputs, -(-self.outputs // width), rows, width)


@dataclass(frozen=True, eq=False)
class Form:
    """What does not change of a layer: its sizes, its cell, the parts of J that it has.

    layer : one of these sizes
    first : the number of its first state among those of all layers
    above : states of this layer and of those above it, which are the rows of its influences
    """

    layer: Recurrent
    first: int
    above: int

    @cached_property
    def cell(self) -> Any:
        return CELLS[self.layer.cell]

    @property
    def hidden(self) -> int:
        return self.layer.hidden

    @property
    def rows(self) -> int:
        """Its states."""
        return self.layer.states * self.hidden

    @property
    def deltas(self) -> int:
        return self.cell.delta_blocks * self.hidden

    @property
    def read(self) -> int:
        """Columns of what it reads that U multiplies."""
        return self.layer.inputs - self.layer.drives

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        cell, H = self.cell, self.hidden
        first = (cell.gates - cell.second) * H
        second = (Part("v", H, H, first),) if cell.second else ()
        return (
            Part("x", self.read, cell.gates * H, 0),
            Part("s", H, first, int(cell.split) * H),
            *second,
            Part("one", 1, self.deltas, 0),
        )

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """The shapes of what is packed for the way back: W, its part of a second product, and U."""
        H, cell = self.hidden, self.cell
        return [
            (self.parts[1].outputs, H),
            (H if cell.second else 0, H),
            (cell.gates * H if self.first else 0, self.read),
        ]

    @cached_property
    def chains(self) -> tuple[int, int, int]:
        """Of W forward, of W back, and of a second product."""
        H, item = self.hidden, self.layer.dtype.itemsize
        first = self.parts[1].outputs
        return chains(H, first, item), chains(first, H, item), chains(H, H, item)

    def gradient(self, parts: Sequence[Array]) -> Recurrent:
        """The layer's gradient from influences on one row."""
        pairs = zip(parts, self.parts, strict=True)
        return self.from_dense(
            [dense(own, part.outputs)[0].astype(self.layer.dtype).T for own, part in pairs]
        )

    def from_dense(self, parts: Sequence[Array]) -> Recurrent:
        """The layer's gradient from arrays (outputs, inputs), one a part."""
        cell, H = self.cell, self.hidden
        front = H if cell.split else 0
        U, W, sums = parts[0], np.concatenate(parts[1:-1]), parts[-1].reshape(-1, H)
        U = np.concatenate([U[front:], U[:front]])
        b = sums[[cell.order.index(gate) for gate in range(cell.gates)]].reshape(-1)
        params = sums[list(cell.sums)] if cell.sums else None
        return self.layer._gradient(U, W, b, params)


def dense(influence: Array, outputs: int) -> Array:
    """An influence (..., K, panels, rows, width) as a new array (..., rows, K, outputs)."""
    moved = np.moveaxis(influence, -2, -4)
    return np.array(moved.reshape(*moved.shape[:-2], -1)[..., :outputs], order="C")


def in_panels(values: Array) -> Array:
    """The influence of an array (..., rows, K, outputs)."""
    width = PANEL_BYTES // values.itemsize
    *lead, outputs = values.shape
    panels = -(-outputs // width)
    padded = np.zeros((*lead, panels * width), values.dtype)
    padded[..., :outputs] = values
    return np.array(np.moveaxis(padded.reshape(*lead, panels, width), -4, -2), order="C")


def unpacked(packed: Array, inner: int, columns: int) -> Array:
    """A packed matrix as a new array (inner, columns)."""
    width = PANEL_BYTES // packed.itemsize
    panels = -(-columns // width)
    moved = packed.reshape(panels, inner, width).transpose(1, 0, 2)
    return np.array(moved.reshape(inner, panels * width)[:, :columns], order="C")


def repacked(matrix: Array) -> Array:
    """A matrix, packed."""
    width = PANEL_BYTES // matrix.itemsize
    inner, columns = matrix.shape
    panels = -(-columns // width)
    padded = np.zeros((inner, panels * width), matrix.dtype)
    padded[:, :columns] = matrix
    moved = padded.reshape(inner, panels, width).transpose(1, 0, 2)
    return np.array(moved, order="C").reshape(-1)


def forms(layers: Sequence[Recurrent]) -> list[Form]:
    """The forms of layers, bottom to top."""
    total = sum(layer.states * layer.hidden for layer in layers)
    found, first = [], 0
    for layer in layers:
        found.append(Form(layer, first, total - first))
        first += found[-1].rows
    return found


def state_parts(forms: Sequence[Form], flat: Array) -> list[list[Array]]:
    """For each layer, from n numbers, those of each of its states, (H,)."""
    found = []
    for form in forms:
        rows = flat[form.first : form.first + form.rows].astype(form.layer.dtype)
        found.append([row.copy() for row in rows.reshape(-1, form.hidden)])
    return found


class Back:
    """A layer's weights, packed for the way back, and the state that a reset sets.

    They have one owner a step, and nobody writes to them.
    """

    def __init__(self, arrays: Sequence[Array]):
        self.arrays = list(arrays)  # W, its part of a second product, U, params, restart
        self.addresses = np.array(
            [array.__array_interface__["data"][0] for array in self.arrays], np.int64
        )

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays)

    def same(self, other: Back) -> bool:
        """Whether another has the same numbers."""
        return all(map(np.array_equal, self.arrays, other.arrays))

    def plain(self, form: Form) -> list[Array]:
        """The arrays as any machine has them."""
        matrices = zip(self.arrays, form.matrices, strict=False)
        return [unpacked(*own) for own in ((a, *shape) for a, shape in matrices)] + self.arrays[3:]

    @classmethod
    def of_plain(cls, form: Form, arrays: Sequence[Array]) -> Back:
        """The weights of `plain`."""
        layer = form.layer
        shapes = [*form.matrices, (len(form.cell.sums) * form.hidden,), (layer.states, form.hidden)]
        for array, shape in zip(arrays, shapes, strict=True):
            arguments.check_floats("weights", array, shape, layer.dtype)
        return cls([*map(repacked, arrays[:3]), *(array.copy() for array in arrays[3:])])


class Run:
    """A layer's weights as the network has them now, packed for both ways."""

    def __init__(self, form: Form, layer: Recurrent, restart: Array | None):
        own = Weights(layer, Workspace(), 1)
        none = own.input.none
        restart = (
            np.zeros((layer.states, layer.hidden), layer.dtype) if restart is None else restart
        )
        second = own.parts[1] if len(own.parts) > 1 else None
        self.input = own.input.forth, own.bias
        self.recurrent = (
            own.parts[0].forth, form.chains[0], none if second is None else second.forth,
            form.chains[2], own.params,
        )  # fmt: skip
        self.restart = restart
        H = layer.hidden  # of each gate's own W, on which SnAp-1 is built
        gates = layer.W.reshape(-1, H, H)
        self.diagonal = np.array(np.diagonal(gates, axis1=1, axis2=2), order="C").reshape(-1)
        u_back = own.input.back if form.first else none
        w_second = none if second is None else second.back
        self.back = Back([own.parts[0].back, w_second, u_back, own.params, restart])

    def _arrays(self) -> Iterator[Array]:
        yield from self.input
        yield from (self.recurrent[0], self.recurrent[2], self.diagonal)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays())
