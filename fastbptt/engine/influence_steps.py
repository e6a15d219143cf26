"""Consecutive steps, cached with the weights that they were run with, to go back over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from .. import arguments
from ..arrays import Array
from ..kernels.cpu import influence as kernels
from ..kernels.cpu.team import team_for
from .influence_weights import Back, Form, Run

Drop: TypeAlias = Callable[[Array, int], None]
"""`drop(values, layer)`: what is passed on of the outputs (m, B, H) of a layer, in place."""

_PLAIN = "states", "residuals", "previous"
_RING = (*_PLAIN, "tables", "dropped", "masks")


class Sums:
    """The gradient of layers so far, added up over stretches of steps.

    parts : for each layer, arrays as `stretch` makes them; float64 from the second stretch on
    """

    def __init__(self, forms: Sequence[Form]):
        self.forms = forms
        self.parts: list[list[Array]] | None = None

    def stretch(self) -> list[list[Array]]:
        """Zeros for a stretch of steps."""
        raise NotImplementedError

    def add(self, parts: list[list[Array]]) -> None:
        """Add what a stretch of steps has."""
        if self.parts is not None:
            for own, more in zip(self.parts, parts, strict=True):
                own[:] = [np.add(a, b, dtype=np.float64) for a, b in zip(own, more, strict=True)]
        else:
            self.parts = parts


class Steps:
    """Consecutive steps that are cached, and how they were run.

    size, used : the most steps, and how many there are
    states : for each layer (S, size+1, B, H); residuals (size, B, R*H); previous (size, B, H), the
        outputs that each step has read; tables (size, ADDRESSES)
    x : (size, B, I); dropped, masks : for each layer but the top, what is passed on of its outputs
        (size, B, H), and by what they were multiplied; none without dropout
    cuts : (size, B): see `kernels.cpu.influence`
    backs : for each step the weights with which it was run, one a layer
    """

    def __init__(self, forms: list[Form], B: int, size: int, initial: Sequence[Array], drops: bool):
        dtype = forms[0].layer.dtype
        self.forms, self.B, self.size, self.used, self.dtype = forms, B, size, 0, dtype
        self.states = [np.zeros((f.layer.states, size + 1, B, f.hidden), dtype) for f in forms]
        for states, values in zip(self.states, initial, strict=True):
            states[:, 0] = values
        self.residuals = [np.zeros((size, B, f.cell.residuals * f.hidden), dtype) for f in forms]
        self.previous = [np.zeros((size, B, f.hidden), dtype) for f in forms]
        self.tables = [np.zeros((size, kernels.ADDRESSES), np.int64) for _ in forms]
        self.x = np.zeros((size, B, forms[0].layer.inputs), dtype)
        above = forms[:-1] if drops else []
        self.dropped = [np.zeros((size, B, f.hidden), dtype) for f in above]
        self.masks = [np.zeros((size, B, f.hidden), dtype) for f in above]
        self.cuts = np.zeros((size, B), np.int64)
        self.backs: list[Sequence[Back]] = [()] * size

    @property
    def n(self) -> int:
        """States of a sequence."""
        return self.forms[0].above

    @property
    def ring_bytes(self) -> int:
        """The bytes of the arrays of steps."""
        arrays = [a for name in _RING for a in getattr(self, name)]
        return sum(a.nbytes for a in (*arrays, self.x, self.cuts))

    @property
    def held(self) -> set[Back]:
        """The weights that the steps were run with."""
        return {back for backs in self.backs[: self.used] for back in backs}

    def copy_ring(self) -> None:
        """Have the arrays of steps be this one's own."""
        for name in _RING:
            setattr(self, name, [array.copy() for array in getattr(self, name)])
        self.x, self.cuts, self.backs = self.x.copy(), self.cuts.copy(), list(self.backs)

    def plain(self) -> Any:
        """All of it in plain arrays and numbers, copies, of any machine."""
        p, found = self.used, []
        numbers = np.zeros(p, np.int64)
        for t, backs in enumerate(self.backs[:p]):
            if not t or backs[0] is not self.backs[t - 1][0]:
                pairs = zip(backs, self.forms, strict=True)
                found.append([back.plain(form) for back, form in pairs])
            numbers[t] = len(found) - 1
        steps = [[a.copy() for a in getattr(self, name)] for name in _PLAIN]
        return p, steps, [self.x.copy(), self.cuts.copy()], numbers, found

    def put(self, plain: Any) -> None:
        """Stand where `plain` was taken. Raises ValueError or TypeError if it does not fit."""
        p, steps, (x, cuts), numbers, found = plain
        self.used = arguments.integer("used", p, 0, self.size)
        for name, given in zip(_PLAIN, steps, strict=True):
            setattr(self, name, alike(name, given, getattr(self, name)))
        (self.x,), (self.cuts,) = alike("x", [x], [self.x]), alike("cuts", [cuts], [self.cuts])
        versions = [
            tuple(Back.of_plain(form, own) for form, own in zip(self.forms, backs, strict=True))
            for backs in found
        ]
        if self.cuts.size and not 0 <= self.cuts.min() <= self.cuts.max() <= kernels.ENDED:
            raise ValueError("cuts of a learner must be known")
        for t, number in enumerate(numbers[:p].tolist()):
            self.backs[t] = versions[arguments.integer("weights", number, 0, len(versions) - 1)]
            for table, back in zip(self.tables, self.backs[t], strict=True):
                table[t] = back.addresses

    def final(self) -> list[Array]:
        """For each layer, the state after the last step, a view (S, B, H)."""
        return [states[:, self.used] for states in self.states]

    def read(self, layer: int) -> Array:
        """What a layer reads, (size, B, inputs)."""
        if layer == 0:
            return self.x
        return self.dropped[layer - 1] if self.dropped else self.states[layer - 1][0, 1:]

    def run(
        self, runs: Sequence[Run], x: Array, ends: Array, resets: Array, drop: Drop | None = None
    ) -> Array:
        """Run at most `room` steps; return the outputs of the top layer, a view.

        x : (m, B, I) floats
        ends : (B,) int64, how many of the steps count
        resets : int64, the numbers t*B + b of the resets among them, ascending
        """
        m, p = len(x), self.used
        stop = p + m
        self.x[p:stop] = x
        cuts = self.cuts[p:stop]
        cuts[...] = kernels.RUNS
        cuts.reshape(-1)[resets] = kernels.RESET
        if ends.size and ends.min() < m:
            over = np.arange(m)[:, None] >= ends
            cuts[over] = kernels.ENDED
            self.x[p:stop][over] = 0  # it may hold anything, and is multiplied by deltas of 0
        marks = np.concatenate([ends, resets])
        for layer, (form, run) in enumerate(zip(self.forms, runs, strict=True)):
            self._run(layer, form, run, marks, stop)
            previous = self.previous[layer][p:stop]
            previous[...] = self.states[layer][0, p:stop]
            previous.reshape(m * self.B, form.hidden)[resets] = run.restart[0]
            self.tables[layer][p:stop] = run.back.addresses
            if drop is not None and layer + 1 < len(self.forms):
                mask = self.masks[layer][p:stop]
                mask[...] = 1
                drop(mask, layer)
                outputs = self.states[layer][0, p + 1 : stop + 1]
                np.multiply(outputs, mask, out=self.dropped[layer][p:stop])
        self.backs[p:stop] = [tuple(run.back for run in runs)] * m
        self.used = stop
        return self.states[-1][0, p + 1 : stop + 1]

    def _run(self, layer: int, form: Form, run: Run, marks: Array, stop: int) -> None:
        p, B, H = self.used, self.B, form.hidden
        z = np.empty((stop - p, B, form.cell.blocks * H), self.dtype)
        cache = self.states[layer], self.residuals[layer], marks
        recurrent = *run.recurrent, np.empty((1, B, H), self.dtype), run.restart, np.empty(0)
        none = np.empty((0, B, H), self.dtype)
        kernels.build_run(form.layer.cell)(
            team_for(0, 1)[0], self.read(layer)[p:stop], run.input, z, cache, none, recurrent, p
        )


def alike(name: str, given: Any, own: Sequence[Array]) -> list[Array]:
    """Copies of the given arrays, which must have the shapes and dtypes of one's own."""
    found = []
    for array, due in zip(given, own, strict=True):
        if array.shape != due.shape or array.dtype != due.dtype:
            raise ValueError(
                f"{name} of a learner must be {due.dtype} {due.shape}, not {array.dtype} "
                f"{array.shape}"
            )
        found.append(np.array(array, order="C"))
    return found
