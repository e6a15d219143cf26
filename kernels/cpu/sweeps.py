"""The sequential loops over a span of time, forward and in reverse, for any cell.

A sequence past its length keeps its state, and its deltas are zero. Where a sequence is reset, the
step reads `restart` in place of the state before it, which stays as it is in `states`: it is the
output of the step before. On the way back the derivative ends there. Arguments that both sweeps
take, arrays of the cell's dtype unless said:

- mailbox : by which the members of a gang meet at a barrier, see `workers`
- cache : (states (S, rows, B, H), of which step t reads row `first + t` and writes the next;
  residuals (rows, B, R*H); marks int64, the lengths (B,) and after them the resets: see `resets`)
- recurrent : (W packed, its `chains`, the gate of a second product packed or empty, its `chains`,
  params (P, H), v: scratch for what the second product multiplies, restart (S, H): what a state
  is set to, restart_sums: see `resets`, x (n, B, I), whose last columns are the drives)
- span : its first step t0, how many steps n it has, its first row of `states`, and a fourth that
  each sweep names
- part : (low, high, left, right): the sequences low..high of this call, and its units left..right,
  which are all, or a gang member's share
- member : (rank, size), of the member and of its gang; 0 and 1 without one
"""

from ..cells import registry as cells
from ..flat import compiler_fence, data, get, load, offset, put, store
from ..jit import inner, noinline
from ..maths import cast_like
from .products import product
from .resets import end_pieces, find, is_at, is_before, seek
from .workers import barrier


@inner
def _running(lengths, t, b, end):
    """The end of the run of sequences b, b+1, ... that are not past their length at time t."""
    while b < end and t < get(lengths, b):
        b += 1
    return b


@inner
def _copy_rows(array, source, target, stride, count, low, high):
    for k in range(count):
        for j in range(low, high):
            put(array, target + k * stride + j, get(array, source + k * stride + j))


@inner
def _before(states, start, plane, restart, H, cut):
    """Where the state before a step is: (an array, its first number, from state to state)."""
    if cut:
        return data(restart), 0, H
    return data(states), start, plane


@inner
def _gather(target, place, states, source, restart, marks, cursor, row, rows, H):
    """Copy rows of states to target[place:], `restart` in place of those of sequences reset."""
    for r in range(rows):
        cut = is_at(marks, cursor, row + r)
        cursor += cut
        values, old, _ = _before(states, source + r * H, 0, restart, H, cut)
        for j in range(H):
            store(target, place + r * H + j, 0, load(values, old + j, 0, 1), 0)
    compiler_fence()


@inner
def share_of_units(H, panel, rank, size):
    """The units (low, high) of a gang's member: whole panels of `panel` columns."""
    if size == 1:
        return 0, H
    panels = -(-H // panel)
    return min(H, rank * panels // size * panel), min(H, (rank + 1) * panels // size * panel)


def build_forward(CELL):
    """The forward sweep of the cell of that name."""
    cell = cells.CELLS[CELL]
    GATES, STATES, RESIDUALS, BLOCKS, PARAMS, DRIVES = (
        cell.gates, cell.states, cell.residuals, cell.blocks, len(cell.sums), cell.drives
    )  # fmt: skip
    SPLIT, SECOND = int(cell.split), cell.second
    FIRST = GATES - SECOND  # gates whose product is with s

    @inner
    def multiply(z_row, s_row, rows, recurrent, H, left, right):
        """Add W s of so many rows to z."""
        width, step, W = FIRST * H, BLOCKS * H, data(recurrent[0])
        if right - left == H:
            product(z_row, step, s_row, H, rows, W, H, recurrent[1], 0, width)
        else:
            for gate in range(0, width, H):
                product(z_row, step, s_row, H, rows, W, H, recurrent[1], gate + left, gate + right)

    @inner
    def forward(mailbox, z, cache, h, first_row, recurrent, span, part, member):
        """Steps t0..t0+n.

        z : (n, B, blocks*H), U x + b on entry; becomes the pre-activations
        h : takes the outputs from row `first_row` on, 0 past a sequence's length; or empty
        first_row : the span's first row of `h` and of x
        span : (t0, n, first, cached). With `cached` all states and residuals are stored. Otherwise
            `states` has two rows, which alternate, `first` being the one to start from, and
            `residuals` one, as scratch
        """
        noinline()
        states, residuals, lengths = cache
        _, _, W_second, parts_second, params, v, restart, _, x = recurrent
        t0, n, first, cached = span
        low, high, left, right = part
        rank, size = member
        _, rows, B, H = states.shape
        I = x.shape[2]
        plane = rows * B * H
        step = BLOCKS * H
        width = FIRST * H
        gated = max(0, v.size - B * H)  # the gradients may still read other rows
        cursor = find(lengths, B, t0 * B)
        for t in range(n):
            before = first + t if cached else (first + t) & 1
            after = before + 1 if cached else 1 - before
            row = (t0 + t) * B
            cursor = seek(lengths, B, cursor, row + low)
            b = low
            while b < high:
                end = _running(lengths, t0 + t, b, high)
                z_row = offset(z, (t * B + b) * step + SPLIT * H)
                if not is_before(lengths, cursor, row + end):
                    s_row = offset(states, (before * B + b) * H)
                    multiply(z_row, s_row, end - b, recurrent, H, left, right)
                elif size == 1:
                    _gather(v, gated + b * H, states, (before * B + b) * H, restart, lengths,
                            cursor, row + b, end - b, H)  # fmt: skip
                    s_row = offset(v, gated + b * H)
                    multiply(z_row, s_row, end - b, recurrent, H, left, right)
                else:  # of a gang, whose members read the states of all
                    at = cursor
                    for r in range(b, end):
                        z_row = offset(z, (t * B + r) * step + SPLIT * H)
                        s_row = offset(states, (before * B + r) * H)
                        if is_at(lengths, at, row + r):
                            s_row = data(restart)
                            at += 1
                        multiply(z_row, s_row, 1, recurrent, H, left, right)
                if SECOND > 0:
                    at = cursor
                    for r in range(b, end):
                        cut = is_at(lengths, at, row + r)
                        at += cut
                        source, old = (t * B + r) * step, (before * B + r) * H
                        values, old, apart = _before(states, old, plane, restart, H, cut)
                        for j in range(left, right):
                            a = load(z, source + j, H, BLOCKS)
                            s = load(values, old + j, apart, STATES)
                            p = load(params, j, H, PARAMS)
                            gated_s = (cells.gate(CELL, a, s, p),)
                            store(v, gated + r * H + j, 0, gated_s, 0)
                        compiler_fence()
                    product(offset(z_row, width), step, offset(v, gated + b * H), H, end - b,
                            data(W_second), H, parts_second, left, right)  # fmt: skip
                for r in range(b, end):
                    cut = is_at(lengths, cursor, row + r)
                    cursor += cut
                    source = (t * B + r) * step
                    old = (before * B + r) * H
                    new = (after * B + r) * H
                    keep = ((first + t) * B + r) * RESIDUALS * H if cached else r * RESIDUALS * H
                    drives = load(x, (first_row + t * B + r) * I + I - DRIVES, 1, DRIVES)
                    values, old, apart = _before(states, old, plane, restart, H, cut)
                    for j in range(left, right):
                        a = load(z, source + j, H, BLOCKS)
                        s = load(values, old + j, apart, STATES)
                        p = load(params, j, H, PARAMS) + drives
                        s, extra = cells.forward(CELL, a, s, p)
                        store(states, new + j, plane, s, 0)
                        store(residuals, keep + j, H, extra, STATES)
                    compiler_fence()
                if end < high:
                    old, new = (before * B + end) * H, (after * B + end) * H
                    _copy_rows(states, old, new, plane, STATES, left, right)
                b = end + 1
            if h.size > 0:
                for b in range(low, high):
                    live = t0 + t < get(lengths, b)
                    for j in range(left, right):
                        s = get(states, (after * B + b) * H + j)
                        put(h, (first_row + t * B + b) * H + j, s if live else cast_like(0, s))
            if size > 1:
                barrier(mailbox, rank, size, t + 1)

    return forward


def build_reverse(CELL):
    """The reverse sweep of the cell of that name."""
    cell = cells.CELLS[CELL]
    GATES, STATES, RESIDUALS, DELTAS, PARAMS, DRIVES = (
        cell.gates, cell.states, cell.residuals, cell.delta_blocks, len(cell.sums), cell.drives
    )  # fmt: skip
    SPLIT, SECOND = int(cell.split), cell.second
    FIRST = GATES - SECOND
    NEXT = DELTAS + 1

    @inner
    def reverse(mailbox, cache, back, starts, recurrent, span, part, member):
        """Steps t0+n down to t0; fills `delta`.

        delta_t = (W^T delta_{t+1} + dE_t/ds_t) * g'(a_t) (Werbos 1990).

        back : (carry (S, 2, B, H), dh (n, B, H), which is dE_t/ds_t, delta (n, B, D*H))
        starts : (first element of dh, of delta, and of the v of `recurrent`, which from there on
            takes what the second product multiplied; its last B rows are scratch; first row of x)
        span : (t0, n, first, current). Half `current` of `carry` holds the derivatives by the state
            after the span. Those by the state before it end in the half that is current after n
            steps
        """
        noinline()
        states, residuals, lengths = cache
        carry, dh, delta = back
        dh_start, d_start, v_start, first_row = starts
        W, parts, W_second, parts_second, params, v, restart, restart_sums, x = recurrent
        t0, n, first, current = span
        low, high, left, right = part
        rank, size = member
        _, rows, B, H = states.shape
        I = x.shape[2]
        plane = rows * B * H
        step = DELTAS * H
        width = FIRST * H
        W_data = data(W)
        dv = v.size - B * H if SECOND > 0 else 0
        cursor = find(lengths, B, (t0 + n) * B)
        for t in range(n - 1, -1, -1):
            before, after = first + t, first + t + 1
            passing = 1 - current
            row = (t0 + t) * B
            cursor = seek(lengths, B, cursor, row + low)
            at = cursor
            b = low
            while b < high:
                end = _running(lengths, t0 + t, b, high)
                start = at
                for r in range(b, end):
                    cut = is_at(lengths, at, row + r)
                    at += cut
                    carried, passed = (current * B + r) * H, (passing * B + r) * H
                    old, new = (before * B + r) * H, (after * B + r) * H
                    keep = (before * B + r) * RESIDUALS * H
                    target = d_start + (t * B + r) * step
                    source = dh_start + (t * B + r) * H
                    drives = load(x, (first_row + t * B + r) * I + I - DRIVES, 1, DRIVES)
                    values, old, apart = _before(states, old, plane, restart, H, cut)
                    for j in range(left, right):
                        ds = load(carry, carried + j, 2 * B * H, STATES)
                        ds = (ds[0] + load(dh, source + j, 1, 1)[0],) + ds[1:]
                        s = load(states, new + j, plane, STATES)
                        previous = load(values, old + j, apart, STATES)
                        extra = load(residuals, keep + j, H, RESIDUALS)
                        p = load(params, j, H, PARAMS) + drives
                        d, ds = cells.reverse(CELL, ds, s, previous, extra, p)
                        store(delta, target + j, H, d, 0)
                        store(carry, passed + j, 2 * B * H, ds, DELTAS)
                    compiler_fence()
                if SECOND > 0:
                    for j in range(dv + b * H, dv + end * H):
                        put(v, j, 0)
                    product(
                        offset(v, dv + b * H), H,
                        offset(delta, d_start + (t * B + b) * step + width), step,
                        end - b, data(W_second), H, parts_second, left, right,
                    )  # fmt: skip
                    for r in range(b, end):
                        cut = is_at(lengths, start, row + r)
                        start += cut
                        passed, old = (passing * B + r) * H, (before * B + r) * H
                        keep = (before * B + r) * RESIDUALS * H
                        target = d_start + (t * B + r) * step
                        product_row = v_start + (t * B + r) * H
                        values, old, apart = _before(states, old, plane, restart, H, cut)
                        for j in range(left, right):
                            previous = load(values, old + j, apart, STATES)
                            extra = load(residuals, keep + j, H, RESIDUALS)
                            into = load(v, dv + r * H + j, 0, 1)[0]
                            ds = load(carry, passed + j, 0, 1)[0]
                            d, more, multiplied = cells.ungate(CELL, into, previous, extra)
                            store(delta, target + j, H, d, 0)
                            store(carry, passed + j, 0, (ds + more,), DELTAS)
                            store(v, product_row + j, 0, (multiplied,), NEXT)
                        compiler_fence()
                if end < high:
                    old, new = (current * B + end) * H, (passing * B + end) * H
                    _copy_rows(carry, old, new, 2 * B * H, STATES, left, right)
                    for gate in range(0, step, H):
                        for j in range(left, right):
                            put(delta, d_start + (t * B + end) * step + gate + j, 0)
                b = end + 1
            if size > 1:
                barrier(mailbox, rank, size, n - t)
            b = low
            while b < high:
                end = _running(lengths, t0 + t, b, high)
                product(
                    offset(carry, (passing * B + b) * H), H,
                    offset(delta, d_start + (t * B + b) * step + SPLIT * H), step,
                    end - b, W_data, width, parts, left, right,
                )  # fmt: skip
                b = end + 1
            end_pieces(lengths, cursor, row, carry, passing, restart_sums, part)
            current = passing

    return reverse
