"""A layer's weights on the CPU as the passes read them: for one call, or for a cache's calls."""

import numpy as np

from ..cells import CELLS
from .memory import flat
from .products import build_pack, packed_size
from .shared import ready
from .team import hands


class Matrix:
    """A weight, packed for the products when they first need it.

    The last `front` outputs come before the others in what is read.
    """

    def __init__(self, weight, workspace, threads, front=0):
        ready(weight.dtype)
        self.workspace = workspace
        self.weight = weight
        self.shape = self.outputs, self.inputs = weight.shape
        self.dtype = weight.dtype
        self.size = weight.size
        self.threads = threads
        self.front = front
        self.none = np.empty(0, self.dtype)  # what kernels take where they need no weight
        self._forth = self._back = self._table = None

    def _ordered(self):
        if not self.front:
            return self.weight
        return np.concatenate([self.weight[-self.front :], self.weight[: -self.front]])

    def _pack(self, transposed):
        weight = self._ordered()
        inner, columns = weight.shape[::-1] if transposed else weight.shape
        size = packed_size(inner, columns, self.dtype.itemsize)
        packed = self.workspace.empty(size, self.dtype)
        memory, row_step, column_step = flat(weight)
        if transposed:
            row_step, column_step = column_step, row_step
        mail, threads = hands(2 * self.size, self.threads)
        build_pack()(mail, threads, packed, memory, row_step, column_step, inner, columns)
        return packed

    @property
    def forth(self):
        """weight.T in panels, for `x @ weight.T`."""
        if self._forth is None:
            self._forth = self._pack(transposed=True)
        return self._forth

    @property
    def back(self):
        """The weight in panels, for `d @ weight`."""
        if self._back is None:
            self._back = self._pack(transposed=False)
        return self._back

    @property
    def table(self):
        """weight.T, a row for each token."""
        if self._table is None:
            self._table = np.array(self._ordered().T, order="C").reshape(-1)
        return self._table

    def hold(self, back=True):
        """Let go of the caller's array, with `back` packed before."""
        if back:
            self._back = self.back
        self.weight = None


class Weights:
    """The weights, bias and own parameters of a layer; after `hold` nobody writes to them."""

    def __init__(self, layer, workspace, threads):
        self.layer = layer
        self.cell = cell = CELLS[layer.cell]
        H, first = layer.hidden, (cell.gates - cell.second) * layer.hidden
        self.input = Matrix(layer.U, workspace, threads, H if cell.split else 0)
        self.recurrent = Matrix(layer.W, workspace, threads)
        self.parts = (self.recurrent,)  # a product each
        if cell.second:
            cut = layer.W[:first], layer.W[first:]
            self.parts = tuple(Matrix(part, workspace, threads) for part in cut)
        self.bias = np.array(layer.b)
        if cell.split:  # no bias where W s stands alone
            self.bias = np.concatenate([np.roll(layer.b, H), np.zeros(H, layer.dtype)])
        own = layer.own
        self.own = np.empty(0, layer.dtype) if own is None else np.array(own).reshape(-1)

    def hold(self, tokens):
        """Pack all that the way back reads: the caller's arrays may have changed by then.

        Packed now or then costs the same, where a copy would come on top. `tokens`: whether the
        layer reads them, so that nobody asks for the gradient by its input.
        """
        self.input.hold(back=not tokens)
        for part in self.parts:
            part.hold()
        self.recurrent.hold(back=False)
