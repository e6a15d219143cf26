"""Real-time recurrent learning by blocks: many derivatives over states that they share.

J = ds/d(U, W, b, ...) of a sequence, n states by P parameters, is carried forward over a block of
steps by n rows that go back over it at once, row i from the derivative 1 by state i. They read the
same states, residuals and weights (Schmidhuber 1992). What a row leaves in each step, its deltas,
times what the step read is the block's own part of J; what it carries out of the block is its row
of Phi = ds_b/ds_a, by which the J before it goes on: J_b = Phi J_a + G.

An *influence* is the part of J of one weight, (K, panels, rows, width): K inputs of the weight, its
outputs in panels of `width`, and the n rows. So a panel of all rows is a matrix that `product`
reads as it is, and K comes first since a weight's inputs are the terms that rows share.
"""

from functools import cache

from ..cells import registry as cells
from ..flat import at, compiler_fence, data, get, load, offset, put, store
from ..jit import inner, noinline
from ..maths import cast_like
from . import sweeps
from .linear import multiply_rows, project_rows
from .products import panel, product
from .workers import fork, job, named_job, program

RUNS, RESET, ENDED = 0, 1, 2  # of a step of a sequence: see `back`
W_BACK, SECOND_BACK, U_BACK, PARAMS, RESTART, ADDRESSES = range(6)  # of a step: see `back`


@cache
def build_run(CELL):
    """Steps of a layer forward, every one of them cached; a program."""
    cell = cells.CELLS[CELL]
    GATES, BLOCKS, DRIVES = cell.gates, cell.blocks, cell.drives
    sweep = sweeps.build_forward(CELL)

    @program(f"influence run {CELL}", cells.title(CELL))
    def run(mailbox, x, weights, z, cache, none, recurrent, first):
        """Run the steps of x.

        x : (n, B, I)
        weights : (U packed, b in the order of the cell)
        z : (n, B, blocks*H) scratch
        cache : (states, residuals, marks): see `sweeps`, whose time 0 is that of x[0]
        none : (0, B, H)
        recurrent : see `sweeps`, without x
        first : the row of `states` before x[0]
        """
        n, B, I = x.shape
        H = cache[0].shape[3]
        U, bias = weights
        project_rows(data(z), BLOCKS * H, data(x), I, data(cache[2]), False,
                     (data(U), I - DRIVES, GATES * H), bias, 0, n * B)  # fmt: skip
        sweep(mailbox, data(z), cache, none, 0, (*recurrent, x), (0, n, first, 1), (0, B, 0, H),
              (0, 1))  # fmt: skip

    return run


@cache
def build_back(CELL):
    """Rows of derivatives back over steps of one sequence of a layer; a program."""
    cell = cells.CELLS[CELL]
    GATES, STATES, RESIDUALS, DELTAS, PARAMS_, DRIVES = (
        cell.gates, cell.states, cell.residuals, cell.delta_blocks, len(cell.sums), cell.drives
    )  # fmt: skip
    SPLIT, SECOND = int(cell.split), cell.second
    FIRST = GATES - SECOND
    NEXT = DELTAS + 1

    @inner
    def units(row, states, residuals, previous, params, x, places, H):
        """One row of one step: the cell's reverse function for each unit.

        row : (carry in, carry out, dh or delta, whether dh is there, delta)
        """
        noinline()
        carry, passed, dh, given, delta, plane = row
        new, new_step, keep, old, old_step, drives_at = places
        drives = load(x, drives_at, 1, DRIVES)
        for j in range(H):
            ds = load(carry, j, plane, STATES)
            if given:
                ds = (ds[0] + load(dh, j, 1, 1)[0],) + ds[1:]
            s = load(states, new + j, new_step, STATES)
            before = load(previous, old + j, old_step, STATES)
            extra = load(residuals, keep + j, H, RESIDUALS)
            p = load(params, j, H, PARAMS_) + drives
            d, ds = cells.reverse(CELL, ds, s, before, extra, p)
            store(delta, j, H, d, 0)
            store(passed, j, plane, ds, DELTAS)
        compiler_fence()

    @inner
    def second(row, residuals, previous, keep, old, H):
        """The deltas that wait for the second product: see `sweeps`."""
        noinline()
        dv, passed, delta, multiplied = row
        for j in range(H if SECOND > 0 else 0):
            before = load(previous, old + j, 1, STATES)
            extra = load(residuals, keep + j, H, RESIDUALS)
            d, more, values = cells.ungate(CELL, load(dv, j, 0, 1)[0], before, extra)
            ds = load(passed, j, 0, 1)[0]
            store(delta, j, H, d, 0)
            store(passed, j, 0, (ds + more,), DELTAS)
            store(multiplied, j, 0, (values,), NEXT)
        compiler_fence()

    @program(f"influence back {CELL}", cells.title(CELL))
    def back(cache, table, x, rows, scratch, chains, span):
        """Steps stop..start, backwards.

        cache : (states (S, steps+1, B, H), residuals (steps, B, R*H), cuts (steps, B) int64: RUNS;
            RESET, if the sequence is reset before the step; or ENDED, if it is over)
        table : (steps, ADDRESSES) int64: where the weights are that a step was run with. W and, if
            there is a second product, its part of W, packed for the way back; U likewise, if
            `below` is asked for; params (P, H); the state that a reset sets (S, H)
        x : (steps, B, I), whose last columns are the drives
        rows : (carry (S, 2, N, H), the derivatives by the states after the steps, in half 0 before
            and after; dh (n, N, H), those by the outputs of each step, or empty; delta
            (n, N, D*H), filled in; below (n, N, inputs), takes the derivatives by the inputs, or is
            empty; restarts (S, N, H), to which those by states that were set are added)
        scratch : (dv (N, H), v (n, H): what the second product multiplied)
        chains : of the two products with W
        span : (start, stop, b)
        """
        states, residuals, cuts = cache
        carry, dh, delta, below, restarts = rows
        dv, v = scratch
        start, stop, b = span
        _, planes, B, H = states.shape
        N, I, inputs = carry.shape[2], x.shape[2], below.shape[2]
        plane, step, width = planes * B * H, DELTAS * H, GATES * H
        current = 0
        for t in range(stop - 1, start - 1, -1):
            cut = get(cuts, t * B + b)
            row, n = t * B + b, t - start
            target = n * N * step
            if cut == ENDED:
                for k in range(target, target + N * step):
                    put(delta, k, 0)
                if below.size > 0:
                    for k in range(n * N * inputs, (n + 1) * N * inputs):
                        put(below, k, 0)
                continue
            passing = 1 - current
            weights = t * ADDRESSES
            like = data(carry)
            params = at(like, get(table, weights + PARAMS))
            previous, old, apart = data(states), row * H, plane
            if cut == RESET:
                previous, old, apart = at(like, get(table, weights + RESTART)), 0, H
            keep = row * RESIDUALS * H
            places = (row + B) * H, plane, keep, old, apart, row * I + I - DRIVES
            given = dh.size > 0
            for r in range(N):
                slope = offset(dh, (n * N + r) * H) if given else like
                units((offset(carry, (current * N + r) * H), offset(carry, (passing * N + r) * H),
                       slope, given, offset(delta, target + r * step), 2 * N * H), data(states),
                      data(residuals), previous, params, data(x), places, H)  # fmt: skip
            if SECOND > 0:
                for k in range(N * H):
                    put(dv, k, 0)
                packed = at(like, get(table, weights + SECOND_BACK))
                product(data(dv), H, offset(delta, target + FIRST * H), step, N, packed, H,
                        chains[1], 0, H)  # fmt: skip
                for r in range(N):
                    second((offset(dv, r * H), offset(carry, (passing * N + r) * H),
                            offset(delta, target + r * step), offset(v, n * H)), data(residuals),
                           previous, keep, old, H)  # fmt: skip
            product(offset(carry, passing * N * H), H, offset(delta, target + SPLIT * H), step, N,
                    at(like, get(table, weights + W_BACK)), FIRST * H, chains[0], 0, H)  # fmt: skip
            if below.size > 0:
                multiply_rows(offset(below, n * N * inputs), inputs, offset(delta, target), step,
                              (at(like, get(table, weights + U_BACK)), width, inputs), 0, N,
                              N)  # fmt: skip
            if cut == RESET:
                for s in range(STATES):
                    source, total = (2 * s + passing) * N * H, s * N * H
                    for k in range(N * H):
                        put(restarts, total + k, get(restarts, total + k) + get(carry, source + k))
                        put(carry, source + k, 0)
            current = passing
        if current == 1:
            for s in range(STATES):
                for k in range(N * H):
                    put(carry, 2 * s * N * H + k, get(carry, (2 * s + 1) * N * H + k))

    return back


@inner
def _pack_row(near, delta, delta_step, n, columns, width):
    """Columns of a row's deltas in panels, each (n, width), padded with zeros."""
    for p in range(0, columns, width):
        wide = min(width, columns - p)
        for t in range(n):
            place, source = p * n + t * width, t * delta_step + p
            for c in range(wide):
                put(near, place + c, get(delta, source + c))
            for c in range(wide, width):
                put(near, place + c, cast_like(0, get(delta, source)))


@cache
def build_sums():
    """The deltas of rows times what the steps read, added to an influence; a program."""

    @program("influence sums")
    def sums(out, delta, a, near, span):
        """out[k, j, first + i] += sum_t delta[t, i, column + j] a[t, k], j in panels.

        out : an influence
        delta : (n, N, D*H)
        a : flat, from the first number that is read
        near : scratch for the columns of a row of `delta`, in panels
        span : (first, column, columns, numbers from one step's row of `a` to the next)
        """
        K, panels, rows, width = out.shape
        n, N, step = delta.shape
        first, column, columns, a_step = span
        for i in range(N):
            _pack_row(data(near), offset(delta, i * step + column), N * step, n, columns, width)
            for p in range(panels):
                panel(offset(out, (p * rows + first + i) * width), panels * rows * width, K,
                      data(a), 1, a_step, offset(near, p * n * width), n)  # fmt: skip

    return sums


@named_job("influence multiply")
def _multiply(out, a, a_step, a_start, old, low, high):
    rows, n, width = out.shape[2], old.shape[2], out.shape[3]
    for piece in range(low, high):
        product(offset(out, piece * rows * width), width, offset(a, a_start), a_step, rows,
                offset(old, piece * n * width), n, 1, 0, width)  # fmt: skip


@cache
def build_multiply():
    """A matrix times an influence; a program."""

    @program("influence multiply")
    def multiply(mailbox, threads, out, a, a_step, a_start, old):
        """out[..., i, :] += sum_j a[i, j] old[..., j, :].

        mailbox, threads : the team (see `workers`), and how many of its threads may help
        out, old : influences, of `rows` and of n rows
        a : (rows, n), flat from `a_start` on, its rows `a_step` apart
        """
        function, data_ = job("influence multiply", (out, a, a_step, a_start, old))
        fork(mailbox, threads, old.shape[0] * old.shape[1], function, data_)

    return multiply
