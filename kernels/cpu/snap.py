"""SnAp-1 (Menick et al. 2020): of J, the influence of a unit's weights on that unit alone.

J has for each weight of a unit the derivatives of the unit's own S states, so it is S times as
large as the weights. A step takes it on by the unit's own S x S matrix, ds/ds' of its states with
all other units held constant, and adds what the step itself has: the derivative of the states by a
pre-activation, times what the weight reads.
"""

from functools import cache

from ..cells import registry as cells
from ..flat import compiler_fence, data, get, load, offset, put, store
from ..jit import inner, noinline, scalar
from ..maths import cast_like
from .influence import ENDED, RESET
from .workers import program

SPAN = 32  # steps that a row of J, which stays in the first-level cache, is taken on at once


@cache
def _mixed(states, s, last):
    """sum_k m[s, k] old[k] for k up to `last`, of tuples."""
    at = s * states + last
    if last == 0:
        return scalar(lambda m, old: m[at] * old[0])
    before = _mixed(states, s, last - 1)
    return scalar(lambda m, old: before(m, old) + m[at] * old[last])


@cache
def _taken_on(states, s):
    """What a step makes of the first s + 1 of a unit's derivatives, `old`: a tuple."""
    mixed = _mixed(states, s, states - 1)
    if s == 0:
        return scalar(lambda m, own, old, read: (mixed(m, old) + own[0] * read,))
    before = _taken_on(states, s - 1)
    return scalar(
        lambda m, own, old, read: before(m, own, old, read) + (mixed(m, old) + own[s] * read,)
    )


@cache
def build_snap(CELL):
    """J of a layer over some steps, and the gradient of their losses; a program."""
    cell = cells.CELLS[CELL]
    GATES, STATES, RESIDUALS, DELTAS, PARAMS, DRIVES = (
        cell.gates, cell.states, cell.residuals, cell.delta_blocks, len(cell.sums), cell.drives
    )  # fmt: skip
    SPLIT, SECOND, SQUARE = int(cell.split), cell.second, cell.states**2
    FIRST = GATES - SECOND
    taken_on = _taken_on(STATES, STATES - 1)

    @inner
    def derivatives(units, states, residuals, previous, weights, x, places, H):
        """Of a step's states, by the states before it (`mix`) and by pre-activations (`own`)."""
        noinline()
        mix, own, v, eye = units
        params, diagonal = weights
        new, plane, keep, old, apart, drives_at = places
        drives = load(x, drives_at, 1, DRIVES)
        for s in range(STATES):
            at, by = s * DELTAS * H, s * STATES * H
            for j in range(H):
                ds = load(eye, s * STATES, 1, STATES)
                after = load(states, new + j, plane, STATES)
                before = load(previous, old + j, apart, STATES)
                extra = load(residuals, keep + j, H, RESIDUALS)
                p = load(params, j, H, PARAMS) + drives
                d, ds = cells.reverse(CELL, ds, after, before, extra, p)
                store(own, at + j, H, d, 0)
                store(mix, by + j, H, ds, DELTAS)
            compiler_fence()
            if SECOND > 0:
                for j in range(H):
                    before = load(previous, old + j, apart, STATES)
                    extra = load(residuals, keep + j, H, RESIDUALS)
                    into = get(own, at + FIRST * H + j) * get(diagonal, FIRST * H + j)
                    d, more, multiplied = cells.ungate(CELL, into, before, extra)
                    put(v, j, multiplied)
                    put(mix, by + j, get(mix, by + j) + more)
                    store(own, at + j, H, d, 0)
                compiler_fence()
            for gate in range(FIRST):
                for j in range(H):
                    share = get(own, at + (SPLIT + gate) * H + j) * get(diagonal, gate * H + j)
                    put(mix, by + j, get(mix, by + j) + share)

    @inner
    def rows_of_J(part, units, reads, slopes, n, H):
        """One weight's part of J over n steps, row after row.

        part : (J, gradient, rows, K, first of the rows of `own`)
        reads, slopes : (an array, numbers from step to step)
        """
        noinline()
        J, grad, rows, K, column = part
        mix, own, _, _ = units
        a, a_step = reads
        dh, dh_step = slopes
        plane = rows * K
        for row in range(rows):
            j, at = row % H, row * K
            for t in range(n):
                m = load(mix, t * SQUARE * H + j, H, SQUARE)
                new = load(own, t * STATES * DELTAS * H + column + row, DELTAS * H, STATES)
                slope = get(dh, t * dh_step + j)
                for k in range(K):
                    old = load(J, at + k, plane, STATES)
                    after = taken_on(m, new, old, load(a, t * a_step + k, 0, 1)[0])
                    total = load(grad, at + k, 0, 1)[0] + slope * after[0]
                    store(J, at + k, plane, after, 0)
                    store(grad, at + k, 0, (total,), STATES)
                compiler_fence()

    @inner
    def sums_of_J(part, units, slopes, n, H):
        """The part of what only sums deltas."""
        noinline()
        J, grad, _, _, _ = part
        mix, own, _, _ = units
        dh, dh_step = slopes
        for t in range(n):
            for block in range(DELTAS):
                at = block * H
                for j in range(H):
                    m = load(mix, t * SQUARE * H + j, H, SQUARE)
                    new = load(own, t * STATES * DELTAS * H + at + j, DELTAS * H, STATES)
                    old = load(J, at + j, DELTAS * H, STATES)
                    after = taken_on(m, new, old, cast_like(1, m[0]))
                    slope = load(dh, t * dh_step + j, 0, 1)[0]
                    total = load(grad, at + j, 0, 1)[0] + slope * after[0]
                    store(J, at + j, DELTAS * H, after, 0)
                    store(grad, at + j, 0, (total,), STATES)
                compiler_fence()

    @inner
    def part_of(influence, grad, b, column):
        """A part of J of a sequence, see `rows_of_J`."""
        _, states, rows, K = influence.shape
        return offset(influence, b * states * rows * K), data(grad), rows, K, column

    @program(f"snap {CELL}", cells.title(CELL))
    def snap(cache, reads, weights, dh, influences, grads, scratch):
        """Take J on over the steps, and add the gradient of their losses.

        cache : (states (S, rows, B, H), residuals (rows, B, R*H), cuts (m, B): see `influence`)
        reads : (x (m, B, I), the outputs before each step (m, B, H))
        weights : (params (P, H), the state that a reset sets (S, H), for each gate the diagonal of
            W (G*H,))
        dh : (m, B, H), the derivatives by the outputs of each step, of its own loss
        influences : J by (U, W, W of a second product, all that only sums deltas), each
            (B, S, rows, K), the last (B, S, D*H, 1)
        grads : of the same, (rows, K)
        scratch : (mix (SPAN, S, S, H), own (SPAN, S, D, H), v (SPAN, H), the unit matrix (S, S))
        """
        states, residuals, cuts = cache
        x, before = reads
        params, restart, diagonal = weights
        mix, own, v, eye = scratch
        _, rows, B, H = states.shape
        m, _, I = x.shape
        units = data(mix), data(own), data(v), data(eye)
        for b in range(B):
            t = 0
            while t < m and get(cuts, t * B + b) != ENDED:
                if get(cuts, t * B + b) == RESET:
                    for influence in influences:
                        size = influence.size // B
                        for k in range(b * size, (b + 1) * size):
                            put(influence, k, 0)
                first = t
                while t < min(m, first + SPAN):
                    row, n = t * B + b, t - first
                    cut = get(cuts, row)
                    if cut == ENDED or (cut == RESET and n > 0):
                        break
                    previous, old, apart = data(states), row * H, rows * B * H
                    if cut == RESET:
                        previous, old, apart = data(restart), 0, H
                    places = ((row + B) * H, rows * B * H, row * RESIDUALS * H, old, apart,
                              row * I + I - DRIVES)  # fmt: skip
                    step = (offset(mix, n * SQUARE * H), offset(own, n * STATES * DELTAS * H),
                            offset(v, n * H), data(eye))  # fmt: skip
                    derivatives(step, data(states), data(residuals), previous,
                                (data(params), data(diagonal)), data(x), places, H)  # fmt: skip
                    t += 1
                n, row = t - first, first * B + b
                slopes = offset(dh, row * H), B * H
                rows_of_J(part_of(influences[0], grads[0], b, 0), units,
                          (offset(x, row * I), B * I), slopes, n, H)  # fmt: skip
                rows_of_J(part_of(influences[1], grads[1], b, SPLIT * H), units,
                          (offset(before, row * H), B * H), slopes, n, H)  # fmt: skip
                if SECOND > 0:
                    rows_of_J(part_of(influences[2], grads[2], b, FIRST * H), units, (data(v), H),
                              slopes, n, H)  # fmt: skip
                sums_of_J(part_of(influences[3], grads[3], b, 0), units, slopes, n, H)

    return snap
