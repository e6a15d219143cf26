"""A layer's weights on the CPU as the passes read them: for one call, or for a cache's calls."""

from functools import partial

import numpy as np

from ..layer import LayerWeights, WeightMatrix
from .memory import flat
from .packing import build_pack
from .products import packed_size
from .shared import ready
from .team import team_for


class Matrix(WeightMatrix):
    """A weight, packed for the products when they first need it."""

    def __init__(self, workspace, threads, weight, front=0):
        ready(weight.dtype)
        super().__init__(weight, front)
        self.weight, self.workspace, self.threads = weight, workspace, threads
        self.none = np.empty(0, self.dtype)  # what kernels take where they need no weight
        self._forth = self._back = self._table = None

    def _pack(self, transposed):
        weight = self.ordered(np, self.weight)
        inner, columns = weight.shape[::-1] if transposed else weight.shape
        size = packed_size(inner, columns, self.dtype.itemsize)
        packed = self.workspace.empty(size, self.dtype)
        memory, row_step, column_step = flat(weight)
        if transposed:
            row_step, column_step = column_step, row_step
        mailbox, threads = team_for(2 * self.size, self.threads)
        build_pack()(mailbox, threads, packed, memory, row_step, column_step, inner, columns)
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
            self._table = np.array(self.ordered(np, self.weight).T, order="C").reshape(-1)
        return self._table

    def hold(self, back=True):
        """Forget the caller's array; `back`: pack it before, for the reverse pass."""
        if back:
            self._back = self.back
        self.weight = None


class Weights(LayerWeights):
    """The weights, bias and params of a layer; after `hold` nobody writes to them."""

    def __init__(self, layer, workspace, threads):
        matrix = partial(Matrix, workspace, threads)
        super().__init__(layer, np, matrix, np.array)
        self.parts = (self.recurrent,)  # the weight of each product
        if self.cell.second:
            first = self.first * self.hidden
            self.parts = matrix(layer.W[:first]), matrix(layer.W[first:])

    def hold(self, tokens, runs):
        """Pack all that the reverse pass reads: the caller's arrays may change before it.

        Packing costs the same now or then, and a copy would come on top. `tokens`: whether the
        layer reads tokens, so that no gradient by its input will be asked for. `runs`: whether
        steps will be run again, for which the way forward has packed everything already.
        """
        self.input.hold(back=not tokens)
        for part in self.parts:
            part.hold()
        self.recurrent.hold(back=False)
