"""The sequential loops over a stretch of time, forward and in reverse, for any cell.

Layouts, all C-contiguous: `z`, `delta` (n, B, G*H); `states` (planes, rows, B, H), row 0 of a leaf
being the state before its first step; `kept` (rows, B, kept*H); `carry` (planes, 2, B, H).
A sequence past its length keeps its state, and its deltas are zero.
"""

from .. import cells
from ..access import data, get, load, put, settle, store
from ..jit import inner
from ..maths import like
from .products import product
from .workers import kernel


@inner
def _running(lengths, t, b, end):
    """The end of the run of sequences b, b+1, ... that are still going at time t."""
    while b < end and t < get(lengths, b):
        b += 1
    return b


@inner
def _copy_rows(array, source, target, stride, planes, size):
    for k in range(planes):
        for j in range(size):
            put(array, target + k * stride + j, get(array, source + k * stride + j))


def build_forward(CELL):
    """The forward sweep of the cell of that name."""
    GATES, STATES, KEPT, *_ = cells.CELLS[CELL]

    @kernel(f"forward {CELL}")
    def forward(z, states, kept, h, lengths, W, t0, n, B, H, first, rows, cached, low, high):
        """Steps t0..t0+n for sequences low..high: `z` holds U x + b on entry.

        cached: states go to rows first+1.. of `states`, what reverse needs to `kept`.
        Otherwise the states alternate between rows 0 and 1 (`first` is the one to start from).
        """
        plane = rows * B * H
        width = GATES * H
        z_data, states_data, W_data = data(z), data(states), data(W)
        for t in range(n):
            before = first + t if cached else (first + t) & 1
            after = before + 1 if cached else 1 - before
            b = low
            while b < high:
                end = _running(lengths, t0 + t, b, high)
                product(
                    z_data, (t * B + b) * width, width,
                    states_data, (before * B + b) * H, H,
                    end - b, W_data, H, width,
                )  # fmt: skip
                for r in range(b, end):
                    z_start = (t * B + r) * width
                    old = (before * B + r) * H
                    new = (after * B + r) * H
                    keep = ((first + t) * B + r) * KEPT * H if cached else r * KEPT * H
                    for j in range(H):
                        a = load(z, z_start + j, H, GATES)
                        s = load(states, old + j, plane, STATES)
                        s, extra = cells.forward(CELL, a, s)
                        store(states, new + j, plane, s, 0)
                        store(kept, keep + j, H, extra, STATES)
                    settle()
                if end < high:
                    old, new = (before * B + end) * H, (after * B + end) * H
                    _copy_rows(states, old, new, plane, STATES, H)
                b = end + 1
            if h.size > 0:
                for b in range(low, high):
                    live = t0 + t < get(lengths, b)
                    for j in range(H):
                        s = get(states, (after * B + b) * H + j)
                        put(h, (t * B + b) * H + j, s if live else like(0, s))

    return forward


def build_reverse(CELL):
    """The reverse sweep of the cell of that name."""
    GATES, STATES, KEPT, *_ = cells.CELLS[CELL]

    @kernel(f"reverse {CELL}")
    def reverse(
        states, kept, dh, carry, delta, lengths, W, t0, n, B, H, first, rows, current, low, high
    ):
        """Steps t0+n down to t0 for sequences low..high; fills `delta`.

        delta_t = (W^T delta_{t+1} + dE_t/ds_t) * g'(a_t) (Werbos 1990). `carry[:, current]` holds
        the derivatives by the state after the stretch; after n steps, by that before it.
        """
        plane = rows * B * H
        width = GATES * H
        carry_data, delta_data, W_data = data(carry), data(delta), data(W)
        for t in range(n - 1, -1, -1):
            before, after = first + t, first + t + 1
            b = low
            while b < high:
                end = _running(lengths, t0 + t, b, high)
                for r in range(b, end):
                    carried = (current * B + r) * H
                    passed = ((1 - current) * B + r) * H
                    old = (before * B + r) * H
                    new = (after * B + r) * H
                    keep = (before * B + r) * KEPT * H
                    d_start = (t * B + r) * width
                    h_start = (t * B + r) * H
                    for j in range(H):
                        ds = load(carry, carried + j, 2 * B * H, STATES)
                        ds = (ds[0] + load(dh, h_start + j, 1, 1)[0],) + ds[1:]
                        s = load(states, new + j, plane, STATES)
                        previous = load(states, old + j, plane, STATES)
                        extra = load(kept, keep + j, H, KEPT)
                        d, ds = cells.reverse(CELL, ds, s, previous, extra)
                        store(delta, d_start + j, H, d, 0)
                        store(carry, passed + j, 2 * B * H, ds, GATES)
                    settle()
                product(
                    carry_data, ((1 - current) * B + b) * H, H,
                    delta_data, (t * B + b) * width, width,
                    end - b, W_data, width, H,
                )  # fmt: skip
                if end < high:
                    old, new = (current * B + end) * H, ((1 - current) * B + end) * H
                    _copy_rows(carry, old, new, 2 * B * H, STATES, H)
                    for j in range(width):
                        put(delta, (t * B + end) * width + j, 0)
                b = end + 1
            current = 1 - current

    return reverse
