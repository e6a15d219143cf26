"""RTRL by blocks: a block of cached steps, and J = ds/d(U, W, b, ...) at its beginning.

See `kernels.cpu.influence`. For each sequence, with a the first step of the block and b its end:

    J_b = Phi J_a + G_states        Phi = ds_b/ds_a: n rows that go back over the whole block
    dE/dtheta += G_loss + lambda_a J_a        one row, which goes back from the losses of a stretch

Where a sequence was reset in the block, rows end there, and Phi is 0. J has a part more, by the
state with which the sequence, or its piece after the last reset, began.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array
from ..kernels.cpu import influence as kernels
from ..kernels.cpu.team import get_num_threads, team_for
from .influence_rows import Rows, group_rows
from .influence_steps import Steps, Sums, alike
from .influence_weights import Form, Part, dense, in_panels, state_parts


class Totals(Sums):
    """The gradient so far: for each layer, influences on one row.

    first : (B, n) float64, by the state with which each sequence began
    own : (n,) float64, by the state that resets set
    """

    def __init__(self, forms: Sequence[Form], B: int):
        super().__init__(forms)
        n = forms[0].above
        self.first, self.own = np.zeros((B, n)), np.zeros(n)

    def stretch(self) -> list[list[Array]]:
        """Zeros for a stretch of steps."""
        item = self.forms[0].layer.dtype
        return [[np.zeros(p.shape(1, item.itemsize), item) for p in f.parts] for f in self.forms]

    def gradients(self) -> list[Any]:
        """The gradient of each layer."""
        parts = self.stretch() if self.parts is None else self.parts
        return [form.gradient(own) for form, own in zip(self.forms, parts, strict=True)]

    def of_own_state(self, given: bool) -> list[list[Array]]:
        """The gradient by the network's own state, for each layer one (H,) a state.

        given : whether sequences began from another state
        """
        return state_parts(self.forms, self.own if given else self.own + self.first.sum(axis=0))


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
    def room(self) -> int:
        """How many steps may come next."""
        return self.size - self.used

    def _influences(self) -> tuple[list[list[Array]], Array]:
        item, batch = self.dtype.itemsize, (self.B,)
        J = [[np.zeros(p.shape(f.above, item, batch), self.dtype) for p in f.parts]
             for f in self.forms]  # fmt: skip
        whole = Part("one", 1, self.n, 0)
        return J, np.zeros(whole.shape(self.n, item, batch), self.dtype)

    def plain(self) -> Any:
        """See `Steps`."""
        pairs = zip(self.J, self.forms, strict=True)
        J = [[dense(a, p.outputs) for a, p in zip(own, form.parts, strict=True)]
             for own, form in pairs]  # fmt: skip
        return super().plain(), J, dense(self.start, self.n), self.begun.copy()

    def put(self, plain: Any) -> None:
        """See `Steps`."""
        steps, J, start, begun = plain
        super().put(steps)
        for own, given in zip(self.J, J, strict=True):
            own[:] = alike("J", [in_panels(array) for array in given], own)
        (self.start,) = alike("J", [in_panels(start)], [self.start])
        (self.begun,) = alike("begun", [begun], [self.begun])

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
        mailbox, threads = team_for(
            self.n * sum(a.size for own in self.J for a in own), get_num_threads()
        )
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
