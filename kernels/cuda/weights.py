"""A layer's weights on the GPU as the passes read them: for one call, or for a cache's calls."""

from ..cells import CELLS
from . import cards, seam, sweeps
from .shapes import choose, pack


class Matrix:
    """A weight on the GPU; the last `front` outputs come before the others in what is read."""

    def __init__(self, weight, front=0):
        xp = seam.arrays()
        weight = xp.asarray(weight)
        self.shape = self.outputs, self.inputs = weight.shape
        self.dtype = weight.dtype
        self.front = front
        self.value = xp.concatenate([weight[-front:], weight[:-front]]) if front else weight
        self.value = xp.ascontiguousarray(self.value)
        self._table = None

    @property
    def table(self):
        """The weight transposed, a row for each token."""
        if self._table is None:
            self._table = seam.arrays().ascontiguousarray(self.value.T)
        return self._table

    def hold(self, value=True):
        """Let go of the caller's array, of which `value` keeps a copy."""
        self.value = self.value.copy() if value else None


class Weights:
    """The weights, bias and own parameters of a layer; after `hold` nobody writes to them."""

    def __init__(self, layer, batch):
        self.layer, self.batch = layer, batch
        self.cell = cell = CELLS[layer.cell]
        self.hidden, self.dtype = layer.hidden, layer.dtype
        xp, H = seam.arrays(), layer.hidden
        self.input = Matrix(layer.U, H if cell.split else 0)
        self.recurrent = Matrix(layer.W)
        bias = xp.asarray(layer.b)
        if cell.split:  # no bias where W s stands alone
            bias = xp.concatenate([xp.roll(bias, H), xp.zeros(H, layer.dtype)])
        self.bias = xp.ascontiguousarray(bias)
        own = layer.own
        own = xp.empty(0, layer.dtype) if own is None else xp.asarray(own).reshape(-1)
        self.own = xp.ascontiguousarray(own)
        self._sweeps = {}

    def hold(self, tokens):
        """Copy or pack all that the way back reads: the caller's arrays may have changed by then.

        W is packed for the sweep anyway, and now or then costs the same; cuBLAS reads U as it is,
        so that takes a copy. `tokens`: whether the layer reads them, so that nobody asks for the
        gradient by its input.
        """
        if self.batch:
            self.sweep(reverse=True)
        self.input.hold(value=not tokens)
        self.recurrent.hold(value=False)
        self.own, self.bias = self.own.copy(), None

    def sweep(self, reverse):
        """The kernel of a direction, its shape and the weights as it reads them."""
        if reverse not in self._sweeps:
            self._sweeps[reverse] = self._make_sweep(reverse)
        return self._sweeps[reverse]

    def _make_sweep(self, reverse):
        xp, cell, H = seam.arrays(), self.cell, self.hidden
        shape, _ = choose(
            cards.card(cards.current()), self.layer.cell, H, self.batch, self.dtype.itemsize,
            reverse,
        )  # fmt: skip
        make = sweeps.reverse_kernel if reverse else sweeps.forward_kernel
        W = self.recurrent.value.reshape(cell.gates, H, H)
        first = cell.gates - cell.second
        parts = W[:first], W[first:]
        if reverse:  # one product over all gates
            parts = [part.reshape(1, -1, H).transpose(0, 2, 1) for part in parts]
        packed = [
            pack(xp, part, tile, shape.parts, shape.units, shape.threads)
            for part, tile in zip(parts, (shape.first, shape.second), strict=True)
            if tile.inner
        ]
        if not cell.second:
            packed.append(packed[0][:0])
        return make(self.layer.cell, self.dtype.type, shape), shape, packed
