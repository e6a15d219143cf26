"""A layer's weights on the GPU as the passes read them: for one call, or for a cache's calls."""

from ..layer import LayerWeights, WeightMatrix
from . import gpus, runtime, sweeps
from .layout import choose, pack


class Matrix(WeightMatrix):
    """A weight on the GPU."""

    def __init__(self, weight, front=0):
        xp = runtime.arrays()
        weight = xp.asarray(weight)
        super().__init__(weight, front)
        self.value = xp.ascontiguousarray(self.ordered(xp, weight))
        self._table = None

    @property
    def table(self):
        """The weight transposed, a row for each token."""
        if self._table is None:
            self._table = runtime.arrays().ascontiguousarray(self.value.T)
        return self._table

    def hold(self, value=True):
        """Forget the caller's array; `value`: copy it before, for the reverse pass."""
        self.value, self._table = self.value.copy() if value else None, None


class Weights(LayerWeights):
    """The weights, bias and params of a layer; after `hold` nobody writes to them."""

    def __init__(self, layer, batch):
        xp = runtime.arrays()
        super().__init__(layer, xp, Matrix, xp.ascontiguousarray)
        self.batch = batch
        self._sweeps = {}

    def hold(self, tokens, runs):
        """Copy or pack all that ways back read: the caller's arrays may change before them.

        W is packed for the sweeps anyway, which costs the same now or then. cuBLAS reads U as it
        is, so U is copied. `tokens`: whether the layer reads tokens, so that no gradient by its
        input will be asked for. `runs`: whether steps will be run again.
        """
        if self.batch:
            self.sweep(reverse=True)
            if runs:
                self.sweep(reverse=False)
        self.input.hold(value=runs or not tokens)
        self.recurrent.hold(value=False)
        self.params, self.bias = self.params.copy(), self.bias.copy() if runs else None

    def sweep(self, reverse):
        """Return (kernel, shape, packed weights) of the forward or the reverse sweep."""
        if reverse not in self._sweeps:
            self._sweeps[reverse] = self._make_sweep(reverse)
        return self._sweeps[reverse]

    def _make_sweep(self, reverse):
        xp, cell, H = runtime.arrays(), self.cell, self.hidden
        shape, _ = choose(
            gpus.card(gpus.current()), self.layer.cell, H, self.batch, self.dtype.itemsize, reverse
        )
        W = self.recurrent.value.reshape(cell.gates, H, H)
        parts = W[: self.first], W[self.first :]
        if reverse:  # one product over all gates
            parts = [part.reshape(1, -1, H).transpose(0, 2, 1) for part in parts]
        packed = [
            pack(xp, part, tile, shape.parts, shape.units, shape.threads)
            for part, tile in zip(parts, (shape.first, shape.second), strict=True)
            if tile.inner
        ]
        if not cell.second:
            packed.append(packed[0][:0])
        return self.kernel(reverse, shape), shape, packed

    def kernel(self, reverse, shape, resets=False):
        """The forward or the reverse sweep; `resets`: whether sequences may be reset."""
        make = sweeps.reverse_kernel if reverse else sweeps.forward_kernel
        return make(self.layer.cell, self.dtype.type, shape, resets)
