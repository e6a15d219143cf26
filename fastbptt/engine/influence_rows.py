"""Rows of derivatives that go back together over cached steps: see `kernels.cpu.influence`."""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from ..kernels.cpu import influence as kernels
from .influence_steps import Steps
from .influence_weights import Form

_GROUP_BYTES = 1 << 20  # of the deltas of rows that go back together: they stay in a core's cache
_HEIGHT = 6  # rows of a tile


def group_rows(form: Form, size: int) -> int:
    """Rows of a layer that go back over a block together."""
    row = size * form.deltas * form.layer.dtype.itemsize
    return min(form.rows, max(_HEIGHT, _GROUP_BYTES // row // _HEIGHT * _HEIGHT))


class Rows:
    """Rows of derivatives that go back over steps start..stop of sequence b.

    count : the most rows
    carried, restarts : (rows, n), the derivatives by the states before the steps, and by those that
        resets have set
    """

    def __init__(self, steps: Steps, b: int, start: int, stop: int, count: int):
        self.steps, self.b, self.start, self.stop = steps, b, start, stop
        dtype, n, forms = steps.dtype, stop - start, steps.forms
        empty = lambda width: np.empty(n * count * width, dtype)  # noqa: E731
        self.delta = empty(max(form.deltas for form in forms))
        widest = max((form.layer.inputs for form in forms[1:]), default=0)
        self.below = empty(widest), empty(widest)
        shapes = [part.shape(1, dtype.itemsize) for form in forms for part in form.parts]
        self.near = np.empty(n * max(panels * width for _, panels, _, width in shapes), dtype)
        self.ones = np.ones(n, dtype)

    def zeros(self, layer: int, count: int = 1) -> Array:
        """No derivatives by the states of a layer, (S, 2, count, H)."""
        form = self.steps.forms[layer]
        return np.zeros((form.layer.states, 2, count, form.hidden), self.steps.dtype)

    def units(self, layer: int, low: int, count: int) -> Array:
        """The derivatives of the states low.. of a layer by themselves."""
        carry = self.zeros(layer, count)
        state, unit = np.divmod(np.arange(low, low + count), carry.shape[3])
        carry[state, 0, np.arange(count), unit] = 1
        return carry

    def none(self, layer: int, count: int) -> Array:
        """No derivatives by the outputs of a layer."""
        return np.empty((0, count, self.steps.forms[layer].hidden), self.steps.dtype)

    def back(
        self, top: int, carry: Array, dh: Array, out: list[list[Array]], first: int | None = None
    ) -> None:
        """Go back through the layers from `top` down, and add to influences.

        carry : (S, 2, N, H), the derivatives by the states of `top` after the steps; dh : (n, N, H)
            or (0, N, H), those by its outputs
        out : for each layer and part, influences, on one row; or on all rows of J, and `first` is
            the state that the first of these rows is of
        """
        block, N = self.steps, carry.shape[2]
        self.carried = np.zeros((N, block.n), block.dtype)
        self.restarts = np.zeros((N, block.n), block.dtype)
        n = self.stop - self.start
        for layer in range(top, -1, -1):
            form = block.forms[layer]
            H, inputs = form.hidden, form.layer.inputs if layer else 0
            delta = self.delta[: n * N * form.deltas].reshape(n, N, form.deltas)
            below = self.below[layer % 2][: n * N * inputs].reshape(n, N, inputs)
            if not layer:
                below = below[:0]
            restarts = np.zeros((form.layer.states, N, H), block.dtype)
            dv, v = (
                np.empty((N, H), block.dtype),
                np.zeros((n * bool(form.cell.second), H), block.dtype),
            )
            kernels.build_back(form.layer.cell)(
                (block.states[layer], block.residuals[layer], block.cuts), block.tables[layer],
                block.read(layer), (carry, dh, delta, below, restarts), (dv, v), form.chains[1:],
                (self.start, self.stop, self.b),
            )  # fmt: skip
            if layer and block.masks:
                below *= block.masks[layer - 1][self.start : self.stop, self.b, None]
            self._add(layer, form, delta, v, out[layer], 0 if first is None else first - form.first)
            at = slice(form.first, form.first + form.rows)
            self.carried[:, at] = carry[:, 0].transpose(1, 0, 2).reshape(N, form.rows)
            self.restarts[:, at] = restarts.transpose(1, 0, 2).reshape(N, form.rows)
            if layer:
                carry, dh = self.zeros(layer - 1, N), below

    def _add(
        self, layer: int, form: Form, delta: Array, v: Array, out: list[Array], first: int
    ) -> None:
        """Add the products of deltas and what the steps have read to influences."""
        block, b = self.steps, self.b
        for part, target in zip(form.parts, out, strict=True):
            if part.reads == "v":
                a, step = v.reshape(-1), form.hidden
            elif part.reads == "one":
                a, step = self.ones, 1
            else:
                values = block.read(layer) if part.reads == "x" else block.previous[layer]
                width = values.shape[2]
                step = block.B * width
                a = values.reshape(-1)[self.start * step + b * width :]
            kernels.build_sums()(
                target, delta, a, self.near, (first, part.column, part.outputs, step)
            )
