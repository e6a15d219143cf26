"""SnAp-1 (Menick et al. 2020): of J, the influence of a unit's weights on that unit alone.

J has for each weight of a unit the derivatives of the unit's own S states, so it is S times as
large as the weights. A step takes it on by the unit's own S x S matrix, ds/ds' of its states with
all other units held constant, and adds what the step itself has: the derivative of the states by a
pre-activation, times what the weight reads.
"""

from functools import cache

from ..cells import registry as cells
from ..flat import compiler_fence, data, get, load, offset, put, store
from ..jit import inner, noinline
from .influence import ENDED, RESET
from .workers import program


@inner
def _one(J, plane, mix, own, H, a, K, grad, slope):
    """A weight's row of J, of cells of one state: see `build_snap`."""
    noinline()
    kept, new = get(mix, 0), get(own, 0)
    for k in range(K):
        value = kept * load(J, k, 0, 1)[0] + new * load(a, k, 0, 1)[0]
        total = load(grad, k, 0, 1)[0] + slope * value
        store(J, k, 0, (value,), 0)
        store(grad, k, 0, (total,), 1)
    compiler_fence()


@inner
def _two(J, plane, mix, own, H, a, K, grad, slope):
    """The same of cells of two states."""
    noinline()
    m00, m01, m10, m11 = get(mix, 0), get(mix, H), get(mix, 2 * H), get(mix, 3 * H)
    new0, new1 = get(own, 0), get(own, plane[1])
    for k in range(K):
        old = load(J, k, plane[0], 2)
        read = load(a, k, 0, 1)[0]
        first = m00 * old[0] + m01 * old[1] + new0 * read
        second = m10 * old[0] + m11 * old[1] + new1 * read
        total = load(grad, k, 0, 1)[0] + slope * first
        store(J, k, plane[0], (first, second), 0)
        store(grad, k, 0, (total,), 2)
    compiler_fence()


def _build_many(STATES):
    @inner
    def many(J, plane, mix, own, H, a, K, grad, slope):
        """The same of cells of any number of states."""
        noinline()
        for k in range(K):
            old = load(J, k, plane[0], STATES)
            read = get(a, k)
            for s in range(STATES):
                value = get(own, s * plane[1]) * read
                for other in range(STATES):
                    value += get(mix, (s * STATES + other) * H) * old[other]
                put(J, k + s * plane[0], value)
            put(grad, k, get(grad, k) + slope * get(J, k))

    return many


@cache
def build_snap(CELL):
    """J of a layer over some steps, and the gradient of their losses; a program."""
    cell = cells.CELLS[CELL]
    GATES, STATES, RESIDUALS, DELTAS, PARAMS, DRIVES = (
        cell.gates, cell.states, cell.residuals, cell.delta_blocks, len(cell.sums), cell.drives
    )  # fmt: skip
    SPLIT, SECOND = int(cell.split), cell.second
    FIRST = GATES - SECOND
    row_of_J = {1: _one, 2: _two}.get(STATES) or _build_many(STATES)

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
    def rows_of_J(J, plane, units, column, rows, a, K, grad, dh, H):
        """The rows of one weight; plane : numbers from state to state."""
        noinline()
        mix, own, _, _ = units
        for row in range(rows):
            j = row % H
            row_of_J(offset(J, row * K), (plane, DELTAS * H), offset(mix, j),
                     offset(own, column + row), H, a, K, offset(grad, row * K),
                     get(dh, j))  # fmt: skip

    @program(f"snap {CELL}", cells.title(CELL))
    def snap(cache, reads, weights, dh, influences, grads, scratch):
        """Take J on over the steps, and add the gradient of their losses.

        cache : (states (S, m+1, B, H), residuals (m, B, R*H), cuts (m, B): see `influence`)
        reads : (x (m, B, I), the outputs before each step (m, B, H))
        weights : (params (P, H), the state that a reset sets (S, H), for each gate the diagonal of
            W (G*H,))
        dh : (m, B, H), the derivatives by the outputs of each step, of its own loss
        influences : J by (U, W, W of a second product, all that only sums deltas), each
            (B, S, rows, K), the last (B, S, D*H, 1)
        grads : of the same, (rows, K)
        scratch : (mix (S, S, H), own (S, D, H), v (H,), ones (1,), the unit matrix (S, S))
        """
        states, residuals, cuts = cache
        x, before = reads
        params, restart, diagonal = weights
        mix, own, v, one, eye = scratch
        _, rows, B, H = states.shape
        m, _, I = x.shape
        units = data(mix), data(own), data(v), data(eye)
        for t in range(m):
            for b in range(B):
                row = t * B + b
                cut = get(cuts, row)
                if cut == ENDED:
                    continue
                previous, old, apart = data(states), row * H, rows * B * H
                if cut == RESET:
                    previous, old, apart = data(restart), 0, H
                    for influence in influences:
                        size = influence.size // B
                        for k in range(b * size, (b + 1) * size):
                            put(influence, k, 0)
                places = ((row + B) * H, rows * B * H, row * RESIDUALS * H, old, apart,
                          row * I + I - DRIVES)  # fmt: skip
                derivatives(units, data(states), data(residuals), previous,
                            (data(params), data(diagonal)), data(x), places, H)  # fmt: skip
                if cut == RESET:
                    for k in range(STATES * STATES * H):
                        put(mix, k, 0)
                slope = offset(dh, row * H)
                J, grad = influences[0], grads[0]
                rows_of_J(offset(J, b * (J.size // B)), J.shape[2] * J.shape[3], units, 0,
                          J.shape[2], offset(x, row * I), J.shape[3], data(grad), slope,
                          H)  # fmt: skip
                J, grad = influences[1], grads[1]
                rows_of_J(offset(J, b * (J.size // B)), J.shape[2] * J.shape[3], units, SPLIT * H,
                          J.shape[2], offset(before, row * H), J.shape[3], data(grad), slope,
                          H)  # fmt: skip
                if SECOND > 0:
                    J, grad = influences[2], grads[2]
                    rows_of_J(offset(J, b * (J.size // B)), J.shape[2] * J.shape[3], units,
                              FIRST * H, J.shape[2], data(v), J.shape[3], data(grad), slope,
                              H)  # fmt: skip
                J, grad = influences[3], grads[3]
                rows_of_J(offset(J, b * (J.size // B)), J.shape[2], units, 0, J.shape[2],
                          data(one), 1, data(grad), slope, H)  # fmt: skip

    return snap
