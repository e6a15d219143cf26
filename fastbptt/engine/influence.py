"""RTRL by blocks: a block of cached steps, and J = ds/d(U, W, b, ...) at its beginning.

See `kernels.cpu.influence`. For each sequence, with a the first step of the block and b its end:

    J_b = Phi J_a + G_states        Phi = ds_b/ds_a: n rows that go back over the whole block
    dE/dtheta += G_loss + lambda_a J_a        one row, which goes back from the losses of a stretch

Where a sequence was reset in the block, rows end there, and Phi is 0. J has a part more, by the
state with which the sequence, or its piece after the last reset, began.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import Array
from ..kernels.cpu import influence as kernels
from ..kernels.cpu.team import get_num_threads, team_for
from .influence_weights import Back, Form, Part, Run, in_panels

_GROUP_BYTES = 1 << 20  # of the deltas of rows that go back together: they stay in a core's cache
_HEIGHT = 6  # rows of a tile

Drop = Callable[[Array, int], None]
"""`drop(values, layer)`: what is passed on of the outputs (m, B, H) of a layer, in place."""


class Totals:
    """The gradient so far.

    parts : for each layer, influences on one row; float64 from the second stretch of steps on
    first : (B, n) float64, by the state with which each sequence began
    own : (n,) float64, by the state that resets set
    """

    def __init__(self, forms: Sequence[Form], B: int):
        n = forms[0].above
        self.forms = forms
        self.parts: list[list[Array]] | None = None
        self.first, self.own = np.zeros((B, n)), np.zeros(n)

    def stretch(self) -> list[list[Array]]:
        """Zeros for a stretch of steps."""
        item = self.forms[0].layer.dtype
        return [[np.zeros(p.shape(1, item.itemsize), item) for p in f.parts] for f in self.forms]

    def add(self, parts: list[list[Array]]) -> None:
        """Add what a stretch of steps has."""
        if self.parts is not None:
            for own, more in zip(self.parts, parts, strict=True):
                own[:] = [np.add(a, b, dtype=np.float64) for a, b in zip(own, more, strict=True)]
        else:
            self.parts = parts

    def gradients(self) -> list[Any]:
        """The gradient of each layer."""
        parts = self.stretch() if self.parts is None else self.parts
        return [form.gradient(own) for form, own in zip(self.forms, parts, strict=True)]


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
    def ring_bytes(self) -> int:
        """The bytes of the arrays of steps, and of the weights that these were run with."""
        arrays = [a for name in _RING for a in getattr(self, name)]
        backs = {id(back): back.nbytes for backs in self.backs[: self.used] for back in backs}
        return sum(a.nbytes for a in (*arrays, self.x, self.cuts)) + sum(backs.values())

    def copy_ring(self) -> None:
        """Have the arrays of steps be this one's own."""
        for name in _RING:
            setattr(self, name, [array.copy() for array in getattr(self, name)])
        self.x, self.cuts, self.backs = self.x.copy(), self.cuts.copy(), list(self.backs)

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
            cuts[np.arange(m)[:, None] >= ends] = kernels.ENDED
        marks = np.concatenate([ends, resets])
        for layer, (form, run) in enumerate(zip(self.forms, runs, strict=True)):
            self._run(layer, form, run, marks, stop)
            previous = self.previous[layer][p:stop]
            previous[...] = self.states[layer][0, p:stop]
            previous.reshape(m * self.B, -1)[resets] = run.restart[0]
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


class Block(Steps):
    """The steps since the last block ended, and J before them.

    J : for each layer and part (B, K, panels, rows, width); start (B, 1, panels, n, width)
    begun : (B,) whether a sequence is still in its first piece
    spare : like (J, start), for those at the end of the block; None where there is none yet
    shared : whether another Block has the same J
    """

    def __init__(self, forms: list[Form], B: int, size: int, initial: Sequence[Array], drops: bool):
        super().__init__(forms, B, size, initial, drops)
        self.J, self.start = self._influences()
        self.start[:] = in_panels(np.eye(self.n, dtype=self.dtype)[:, None])
        self.begun = np.ones(B, bool)
        self.spare: Any = self._influences()
        self.shared = False

    @property
    def n(self) -> int:
        """States of a sequence."""
        return self.forms[0].above

    @property
    def room(self) -> int:
        """How many steps may come next."""
        return self.size - self.used

    def _influences(self) -> tuple[list[list[Array]], Array]:
        item, batch = self.dtype.itemsize, (self.B,)
        J = [[np.zeros(p.shape(f.above, item, batch), self.dtype) for p in f.parts]
             for f in self.forms]  # fmt: skip
        whole = Part("one", 1, self.n, 0)
        return J, np.zeros(whole.shape(self.n, item, batch), self.dtype)

    def fork(self, steps: int) -> Block:
        """A Block that may go on for so many steps; this one stays as it is."""
        other = copy.copy(self)
        other.shared = True
        if self.used + steps >= self.size:  # else only what comes after `used` is written
            other.copy_ring()
            other.begun = self.begun.copy()
        return other

    def take_spare(self, other: Block) -> None:
        """Have room for the next J in what `other`, which is gone, has beside this one's J."""
        self.spare = other.spare if other.J is self.J else (other.J, other.start)
        self.shared = False

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        J = sum(a.nbytes for own in self.J for a in own) + self.start.nbytes
        return self.ring_bytes + self.begun.nbytes + 2 * J

    def learn(self, dh: Array | None, totals: Totals) -> None:
        """Add the gradient of losses of the last steps, dh (m, B, H) by the outputs of the top.

        None: there are none.
        """
        if dh is None:
            return
        stop = self.used
        first, parts, top = stop - len(dh), totals.stretch(), len(self.forms) - 1
        mailbox, threads = team_for(self.n * sum(a.size for own in self.J for a in own), get_num_threads())
        for b in range(self.B):
            resets = np.flatnonzero(self.cuts[: first + 1, b] == kernels.RESET)
            start = int(resets[-1]) if resets.size else 0
            slopes = np.zeros((stop - start, 1, dh.shape[2]), self.dtype)
            slopes[first - start :, 0] = dh[:, b]
            rows = Rows(self, b, start, stop, 1)
            rows.back(top, rows.zeros(top), slopes, parts)
            totals.own += rows.restarts[0]
            if resets.size:
                continue
            carried = rows.carried
            for form, out, own in zip(self.forms, parts, self.J, strict=True):
                for target, old in zip(out, own, strict=True):
                    kernels.build_multiply()(
                        mailbox, threads, target, carried.reshape(-1), 0, form.first, old[b]
                    )
            whole = np.zeros((*self.start.shape[1:3], 1, self.start.shape[4]), self.dtype)
            kernels.build_multiply()(mailbox, 1, whole, carried.reshape(-1), 0, 0, self.start[b])
            begun = totals.first[b] if self.begun[b] else totals.own
            begun += whole.reshape(-1)[: self.n]
        totals.add(parts)

    def end(self) -> None:
        """Where the block is full: carry J over it, and begin the next one."""
        if self.room:
            return
        J, start = self._influences() if self.spare is None else self.spare
        for own in J:
            for array in own:
                array[...] = 0
        start[...] = 0
        for b in range(self.B):
            self._carry(b, J, start[b])
        self.spare = None if self.shared else (self.J, self.start)
        self.J, self.start, self.shared = J, start, False
        for states in self.states:
            states[:, 0] = states[:, self.size]
        self.backs = [()] * self.size
        self.used = 0

    def _carry(self, b: int, J: list[list[Array]], start: Array) -> None:
        """The new influences of a sequence, which are zeros on entry."""
        resets = np.flatnonzero(self.cuts[:, b] == kernels.RESET)
        begin = int(resets[-1]) if resets.size else 0
        phi, by_start = np.zeros((2, self.n, self.n), self.dtype)
        out = [[array[b] for array in own] for own in J]
        for top, form in enumerate(self.forms):
            group = group_rows(form, self.size)
            rows = Rows(self, b, begin, self.size, group)
            for low in range(0, form.rows, group):
                count = min(group, form.rows - low)
                first = form.first + low
                rows.back(top, rows.units(top, low, count), rows.none(top, count), out, first)
                at = slice(first, first + count)
                phi[at], by_start[at] = rows.carried, rows.restarts
        if resets.size:
            start[...] = in_panels(by_start[:, None])
            self.begun[b] = False
            return
        flat, n = phi.reshape(-1), self.n
        for form, new, old in zip(self.forms, out, self.J, strict=True):
            for target, own in zip(new, old, strict=True):
                threads = team_for(own[b].size * form.above, get_num_threads())
                kernels.build_multiply()(*threads, target, flat, n, form.first * (n + 1), own[b])
        kernels.build_multiply()(team_for(0, 1)[0], 1, start, flat, n, 0, self.start[b])


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

    def __init__(self, block: Block, b: int, start: int, stop: int, count: int):
        self.block, self.b, self.start, self.stop = block, b, start, stop
        dtype, n, forms = block.dtype, stop - start, block.forms
        empty = lambda width: np.empty(n * count * width, dtype)  # noqa: E731
        self.delta = empty(max(form.deltas for form in forms))
        widest = max((form.layer.inputs for form in forms[1:]), default=0)
        self.below = empty(widest), empty(widest)
        shapes = [part.shape(1, dtype.itemsize) for form in forms for part in form.parts]
        self.near = np.empty(n * max(panels * width for _, panels, _, width in shapes), dtype)
        self.ones = np.ones(n, dtype)

    def zeros(self, layer: int, count: int = 1) -> Array:
        """No derivatives by the states of a layer, (S, 2, count, H)."""
        form = self.block.forms[layer]
        return np.zeros((form.layer.states, 2, count, form.hidden), self.block.dtype)

    def units(self, layer: int, low: int, count: int) -> Array:
        """The derivatives of the states low.. of a layer by themselves."""
        carry = self.zeros(layer, count)
        state, unit = np.divmod(np.arange(low, low + count), carry.shape[3])
        carry[state, 0, np.arange(count), unit] = 1
        return carry

    def none(self, layer: int, count: int) -> Array:
        """No derivatives by the outputs of a layer."""
        return np.empty((0, count, self.block.forms[layer].hidden), self.block.dtype)

    def back(
        self, top: int, carry: Array, dh: Array, out: list[list[Array]], first: int | None = None
    ) -> None:
        """Go back through the layers from `top` down, and add to influences.

        carry : (S, 2, N, H), the derivatives by the states of `top` after the steps; dh : (n, N, H)
            or (0, N, H), those by its outputs
        out : for each layer and part, influences, on one row; or on all rows of J, and `first` is
            the state that the first of these rows is of
        """
        block, N = self.block, carry.shape[2]
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
            dv, v = np.empty((N, H), block.dtype), np.empty((n * bool(form.cell.second), H), block.dtype)
            kernels.build_back(form.layer.cell)(
                (block.states[layer], block.residuals[layer], block.cuts), block.tables[layer],
                block.read(layer), (carry, dh, delta, below, restarts), (dv, v), form.chains[1:],
                (self.start, self.stop, self.b),
            )  # fmt: skip
            if layer and block.masks:
                below *= block.masks[layer - 1][self.start : self.stop, self.b, None]
            self._add(layer, form, delta, v, out[layer], 0 if first is None else first - form.first)
            at = slice(form.first, form.first + form.rows)
            self.carried[:, at] = carry[:, 0].transpose(1, 0, 2).reshape(N, -1)
            self.restarts[:, at] = restarts.transpose(1, 0, 2).reshape(N, -1)
            if layer:
                carry, dh = self.zeros(layer - 1, N), below

    def _add(
        self, layer: int, form: Form, delta: Array, v: Array, out: list[Array], first: int
    ) -> None:
        """Add the products of deltas and what the steps have read to influences."""
        block, b = self.block, self.b
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
            kernels.build_sums()(target, delta, a, self.near, (first, part.column, part.outputs, step))


_RING = "states", "residuals", "previous", "tables", "dropped", "masks"
