"""SnAp-1: some cached steps, and J, each unit's influence on itself alone: see `kernels.cpu.snap`.

The losses of a step go down through the layers within that step alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array
from ..kernels.cpu import influence as kernels
from ..kernels.cpu.snap import SPAN, build_snap
from .influence_steps import Drop, Steps, Sums, alike
from .influence_weights import Form, Run

_PARTS = "x", "s", "v", "one"  # of a layer, in the order of the kernel


class SnapTotals(Sums):
    """The gradient so far: for each layer and part (outputs, inputs)."""

    def stretch(self) -> list[list[Array]]:
        """Zeros for a stretch of steps."""
        return [[np.zeros(shape, f.layer.dtype) for shape in shapes(f)] for f in self.forms]

    def gradients(self) -> list[Any]:
        """The gradient of each layer."""
        parts = self.stretch() if self.parts is None else self.parts
        return [
            form.from_dense([part.astype(form.layer.dtype) for part in own if part.size])
            for form, own in zip(self.forms, parts, strict=True)
        ]


def shapes(form: Form) -> list[tuple[int, int]]:
    """(outputs, inputs) of each of the kernel's parts; of one that is not there (0, H)."""
    found = {part.reads: (part.outputs, part.inputs) for part in form.parts}
    return [found.get(name, (0, form.hidden)) for name in _PARTS]


class Snap(Steps):
    """The steps of a stretch, and J after them.

    J : for each layer and part (B, S, outputs, inputs)
    current : for each layer the state after the last step, (S, B, H), which nobody writes to
    """

    def __init__(self, forms: list[Form], B: int, size: int, initial: Sequence[Array], drops: bool):
        super().__init__(forms, B, size, initial, drops)
        self.J = [
            [np.zeros((B, f.layer.states, *shape), self.dtype) for shape in shapes(f)]
            for f in forms
        ]
        self.current = [state.copy() for state in initial]
        self.runs: Sequence[Run] = ()

    @property
    def room(self) -> int:
        """How many steps may come next."""
        return self.size

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        own = [*self.current, *(array for parts in self.J for array in parts)]
        return self.ring_bytes + sum(a.nbytes for a in own)

    def fork(self, steps: int) -> Snap:
        """One that may go on for so many steps; this one stays as it is."""
        other = copy.copy(self)  # what steps have left is written anew by each run
        other.J = [[array.copy() for array in own] for own in self.J]
        return other

    def plain(self) -> Any:
        """All of it in plain arrays, copies."""
        J = [[array.copy() for array in own] for own in self.J]
        return [state.copy() for state in self.current], J

    def put(self, plain: Any) -> None:
        """Stand where `plain` was taken. Raises ValueError or TypeError if it does not fit."""
        current, J = plain
        self.current = alike("state", current, self.current)
        self.J = [alike("J", *pair) for pair in zip(J, self.J, strict=True)]

    def take_spare(self, other: Snap) -> None:
        """Nothing: there is no spare."""

    def run(
        self, runs: Sequence[Run], x: Array, ends: Array, resets: Array, drop: Drop | None = None
    ) -> Array:
        """Run steps: see `Steps`."""
        for states, own in zip(self.states, self.current, strict=True):
            states[:, 0] = own
        self.used, self.runs, self.backs = 0, runs, [()] * self.size
        h = super().run(runs, x, ends, resets, drop)
        self.current = [state.copy() for state in super().final()]
        return h

    def final(self) -> list[Array]:
        """For each layer, the state after the last step, (S, B, H)."""
        return self.current

    def learn(self, dh: Array | None, totals: SnapTotals) -> None:
        """Take J on over the last steps, and add the gradient of their losses."""
        m, top = self.used, len(self.forms) - 1
        shape = m, self.B, self.forms[-1].hidden
        slopes = np.zeros(shape, self.dtype) if dh is None else np.ascontiguousarray(dh)
        parts = totals.stretch()
        for layer in range(top, -1, -1):
            form, run = self.forms[layer], self.runs[layer]
            S, H, D = form.layer.states, form.hidden, form.cell.delta_blocks
            empty = lambda *shape: np.empty((SPAN, *shape), self.dtype)  # noqa: E731
            build_snap(form.layer.cell)(
                (self.states[layer], self.residuals[layer], self.cuts[:m]),
                (self.read(layer)[:m], self.previous[layer][:m]),
                (run.recurrent[4], run.restart, run.diagonal), slopes, tuple(self.J[layer]),
                tuple(parts[layer]),
                (empty(S, S, H), empty(S, D, H), empty(H), np.eye(S, dtype=self.dtype)),
            )  # fmt: skip
            if layer:
                slopes = self._below(layer, slopes)
        totals.add(parts)

    def end(self) -> None:
        """Nothing: a stretch may end anywhere."""

    def _below(self, layer: int, slopes: Array) -> Array:
        """The derivatives by the outputs of the layer below, of each step's loss, through it.

        Every step is gone back over as if it began a sequence from the state that it did begin
        from, so that nothing goes further.
        """
        form, m, B = self.forms[layer], self.used, self.B
        S, H, inputs = form.layer.states, form.hidden, form.layer.inputs
        found = np.zeros((m, B, inputs), self.dtype)
        cuts = self.cuts[:m].copy()
        alone = np.where(cuts == kernels.ENDED, cuts, kernels.RESET)
        for b in range(B):
            begun = self.states[layer][:, :m, b].transpose(1, 0, 2).copy()  # (m, S, H)
            begun[cuts[:, b] == kernels.RESET] = self.runs[layer].restart
            table = self.tables[layer][:m].copy()
            first = begun.__array_interface__["data"][0]
            table[:, kernels.RESTART] = first + np.arange(m) * (S * H * begun.itemsize)
            empty = lambda *shape: np.empty(shape, self.dtype)  # noqa: E731
            below, carry = empty(m, 1, inputs), np.zeros((S, 2, 1, H), self.dtype)
            rows = (
                carry, np.ascontiguousarray(slopes[:, b : b + 1]), empty(m, 1, form.deltas), below,
                np.zeros((S, 1, H), self.dtype),
            )  # fmt: skip
            kernels.build_back(form.layer.cell)(
                (self.states[layer], self.residuals[layer], alone), table, self.read(layer), rows,
                (empty(1, H), empty(m * bool(form.cell.second), H)), form.chains[1:], (0, m, b),
            )  # fmt: skip
            found[:, b] = below[:, 0]
        if self.masks:
            found *= self.masks[layer - 1][:m]
        return found
