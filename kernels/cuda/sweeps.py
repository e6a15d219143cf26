"""The sequential loops over a span of time, forward and in reverse, for any cell.

A block does R sequences and U of the H units. A step is a product (`block_product`), shared out
among all threads, and the cell's maths, one thread for each unit of each sequence.

*Block sweep*: one block has all units, so what passes from step to step stays in shared memory.
*Grid sweep*: the units of a slice of R sequences are spread over PARTS blocks. They exchange their
states (in reverse: deltas) through the second-level cache, with a grid barrier in each step.

Axes: T time (t0 the span's first step, n its steps), B sequences, H units, G gates, and by cell
S states, R residuals, D blocks of deltas, P params a unit.

Arguments that both kernels take, all flat and C-contiguous, of the cell's dtype unless said:

- W : G1 gates' rows of the recurrent weight, packed by `layout.pack`; G1 is G, less the gate of a
  second product
- W2 : the same for the second product, or empty
- params : (P, H), the cell's params
- states : (S, rows, B, H); step t reads row `first + t` and writes row `first + t + 1`
- residuals : (rows, B, R*H)
- lengths : (B,) int64; a sequence past its length keeps its state, and its deltas are zero. Where
  sequences are reset, there follow B + 1 places, counted from the first of them, and the times of
  the resets, sequence by sequence: those of sequence b lie between place b and the next
- restart : (S, H), what a reset sets the state to: the step reads it in place of that before it,
  which stays in `states`. Empty where there are no resets
- exchange : two buffers for each product, by which the blocks of a grid sweep pass vectors on;
  each is `Shape.exchanged` numbers, or words, as `exchange.buffers` makes them
- arrivals : (slices,) int32 zeros, the counters of the grid barrier
- t0, n : the span's first step and how many steps it has
- first, rows : the span's first row of `states`, and how many rows there are
- B, low : all sequences, and the first of this launch
"""

from functools import lru_cache

import numpy as np

from ..cells.registry import CELLS
from .block_product import block_product, hand_over
from .cells import functions
from .runtime import cuda, device, primitives

take, give, numbers, part, plus, prefetch, replaced, chosen, only = (
    primitives.take, primitives.give, primitives.numbers, primitives.part, primitives.plus,
    primitives.prefetch, primitives.replaced, primitives.chosen, primitives.only
)  # fmt: skip
AHEAD = 8  # steps before a number is loaded, it is brought to the second-level cache


@device
def find(lengths, B, b, t):
    """The place of sequence b's first reset that is not before t, and the end of its resets."""
    low, last = B + lengths[B + b], B + lengths[B + b + 1]
    high = last
    while low < high:
        middle = (low + high) // 2
        if lengths[middle] < t:
            low = middle + 1
        else:
            high = middle
    return low, last


@lru_cache(maxsize=256)
def forward_kernel(name, dtype, shape, resets=False):
    """The forward sweep of the cell of that name, as plain Python to be compiled.

    resets : whether there are any

    Arguments besides those of the module's docstring:

    z : (n, B, G*H), U x without the bias, or with `tokens` (I, G*H), a row for each token
    x : (n, B, I), whose last columns are the drives; not read without any
    ids : (n, B) int64 tokens, or empty; tokens : 1 if there are any
    bias : (blocks*H,), b in the order of the cell
    h : (n, B, H), takes the states, 0 past a sequence's length; wanted : 0 if it is empty
    cached : 1: all states and residuals are stored. 0: `states` has two rows, which alternate
    """
    cell = CELLS[name]
    GATES, BLOCKS, PARAMS = cell.gates, cell.blocks, len(cell.sums)
    STATES, RESIDUALS = cell.states, cell.residuals
    SPLIT, SECOND, DRIVES = int(cell.split), cell.second, cell.drives
    FIRST = cell.gates - SECOND
    H, U, R, PIECES = shape.hidden, shape.units, shape.rows, shape.first.pieces
    TOGETHER = shape.parts > 1
    THREADS = shape.threads
    ROW, ROW2 = shape.first.row, shape.second.row
    TOTAL, TOTAL2 = shape.total_steps
    WEIGHTS, WEIGHTS2, VECTOR, VECTOR2, TOTALS, TOTALS2, _ = shape.places
    SUMS = R * max(shape.first.wide, shape.second.wide)
    LOCAL, LOCAL2 = shape.first.local_size, shape.second.local_size
    step, _, gate, _ = functions(name, dtype)
    start, multiply = block_product(shape.first, shape, WEIGHTS, VECTOR, TOTALS)
    start2, multiply2 = block_product(shape.second, shape, WEIGHTS2, VECTOR2, TOTALS2)
    range_of, pass_on, wait_all = hand_over(shape.first, shape, VECTOR)
    range_of2, pass_on2, wait_all2 = hand_over(shape.second, shape, VECTOR2)
    zero, DTYPE, RESETS, EACH = dtype(0), np.dtype(dtype), resets, 1 + SECOND

    def forward(
        z, x, ids, tokens, bias, W, W2, params, states, residuals, h, lengths, restart, exchange,
        arrivals, t0, n, first, rows, cached, wanted, I, B, low,
    ):  # fmt: skip
        shared = cuda.shared.array(0, DTYPE, 16)
        local = cuda.local.array(LOCAL, DTYPE)
        local2 = cuda.local.array(LOCAL2, DTYPE)
        sums = cuda.local.array(SUMS, DTYPE)
        tid = cuda.threadIdx.x
        r, unit = tid // U, cuda.blockIdx.x * U + tid % U
        b0 = low + cuda.blockIdx.y * R
        b = b0 + r
        mine = r < R and unit < H and b < B
        if not mine:  # reads what its own block has, writes nothing
            b, unit = b0, cuda.blockIdx.x * U
        if not TOGETHER:  # else the vectors come with their padding
            for k in range(tid, R * (ROW + SECOND * ROW2), THREADS):
                shared[VECTOR + k] = zero
            cuda.syncthreads()
        plane = rows * B * H
        here = first if cached else first & 1
        start(shared, local, W)
        if SECOND > 0:
            start2(shared, local2, W2)
        s = take(states, (here * B + b) * H + unit, plane, STATES)
        p = take(params, unit, H, PARAMS)
        biases = take(bias, unit, H, BLOCKS)
        end = lengths[b]
        cursor, last = 0, 0
        if RESETS:
            cursor, last = find(lengths, B, b, t0)
        begin, piece = range_of(0, 0, b0, B)
        if RESETS and cursor < last and lengths[cursor] == t0:
            s = take(restart, unit, H, STATES)
            cursor += 1
        pass_on(shared, exchange, begin, piece, arrivals, (s[0],), mine, r, unit, 0)
        size, at = B * H, b * H + unit  # of a step, and the thread's place in it
        at_state, at_residual = (first + 1) * size + at, first * RESIDUALS * size
        at_residual += b * RESIDUALS * H + unit
        at_z = (ids[b] if tokens else b) * GATES * H + unit
        coming = take(z, at_z, H, GATES)
        for t in range(n):
            live = mine and t0 + t < end
            wait_all(arrivals, t * EACH + 1)
            multiply(shared, local, sums, W, exchange, begin, piece, t)
            cuda.syncthreads()
            a = plus(biases, coming, 0)
            a = plus(a, take(shared, TOTALS + r % R * TOTAL + tid % U, U, FIRST), SPLIT)
            if SECOND > 0:
                v = gate(a, s, p)
                begin, piece2 = range_of2(2 * PIECES * piece, t, b0, B)
                pass_on2(shared, exchange, begin, piece2, arrivals, (v,), mine, r, unit, t)
                wait_all2(arrivals, t * EACH + 2)
                multiply2(shared, local2, sums, W2, exchange, begin, piece2, t)
                cuda.syncthreads()
                a = plus(a, take(shared, TOTALS2 + r % R * TOTAL2 + tid % U, U, 1), FIRST)
            after, extra = step(a, s, p + take(x, (t * B + b) * I + I - DRIVES, 1, DRIVES))
            s = chosen(live, numbers(shared, after), s)
            kept = s
            if t + 1 < n:  # hand it over first: what follows has the barrier and the product to end
                if RESETS and cursor < last and lengths[cursor] == t0 + t + 1:
                    s = take(restart, unit, H, STATES)
                    cursor += 1
                begin, piece = range_of(0, t + 1, b0, B)
                pass_on(shared, exchange, begin, piece, arrivals, (s[0],), mine, r, unit, t + 1)
                at_z += GATES * size
                if tokens:
                    at_z = ids[(t + 1) * B + b] * GATES * H + unit
                elif t + 1 + AHEAD < n:
                    prefetch(z, at_z + AHEAD * GATES * size, H, GATES)
                coming = take(z, at_z, H, GATES)
            if mine:
                if cached:
                    give(states, at_state, plane, kept)
                    give(residuals, at_residual, H, numbers(shared, extra))
                if wanted:
                    h[at] = kept[0] if live else zero
            at, at_state, at_residual = at + size, at_state + size, at_residual + RESIDUALS * size
        if mine and not cached:
            give(states, (((first + n) & 1) * B + b) * H + unit, plane, s)

    forward.key = name, dtype.__name__, shape, *(("resets",) if resets else ())
    return forward


@lru_cache(maxsize=256)
def reverse_kernel(name, dtype, shape, resets=False):
    """The reverse sweep of the cell of that name, as plain Python to be compiled.

    resets : whether there are any

    Arguments besides those of the module's docstring:

    dh : (n, B, H), the loss's derivatives by the outputs
    carry : (S, 2, B, H); half `current` holds the derivatives by the state after the span. Those by
        the state before it end in the half that is current after n steps
    delta : (n, B, D*H), written
    v : (n, B, H), takes what the second product multiplied, or empty
    restart_sums : (S, B, H) float64, to which the derivatives by `restart` are added, or empty
    x : as in `forward_kernel`
    """
    cell = CELLS[name]
    STATES, RESIDUALS = cell.states, cell.residuals
    DELTAS, PARAMS = cell.delta_blocks, len(cell.sums)
    SPLIT, SECOND, DRIVES = int(cell.split), cell.second, cell.drives
    FIRST = cell.gates - SECOND
    H, U, R, PIECES = shape.hidden, shape.units, shape.rows, shape.first.pieces
    TOGETHER = shape.parts > 1
    THREADS = shape.threads
    ROW, ROW2 = shape.first.row, shape.second.row
    TOTAL, TOTAL2 = shape.total_steps
    WEIGHTS, WEIGHTS2, VECTOR, VECTOR2, TOTALS, TOTALS2, _ = shape.places
    SUMS = R * max(shape.first.wide, shape.second.wide)
    LOCAL, LOCAL2 = shape.first.local_size, shape.second.local_size
    _, step, _, ungate = functions(name, dtype)
    start, multiply = block_product(shape.first, shape, WEIGHTS, VECTOR, TOTALS)
    start2, multiply2 = block_product(shape.second, shape, WEIGHTS2, VECTOR2, TOTALS2)
    range_of, pass_on, wait_all = hand_over(shape.first, shape, VECTOR)
    range_of2, pass_on2, wait_all2 = hand_over(shape.second, shape, VECTOR2)
    zero, DTYPE, RESETS, EACH = dtype(0), np.dtype(dtype), resets, 1 + SECOND

    def reverse(
        states, residuals, dh, carry, delta, v, lengths, restart, restart_sums, W, W2, params, x,
        exchange, arrivals, t0, n, first, rows, current, I, B, low,
    ):  # fmt: skip
        shared = cuda.shared.array(0, DTYPE, 16)
        local = cuda.local.array(LOCAL, DTYPE)
        local2 = cuda.local.array(LOCAL2, DTYPE)
        sums = cuda.local.array(SUMS, DTYPE)
        tid = cuda.threadIdx.x
        r, unit = tid // U, cuda.blockIdx.x * U + tid % U
        b0 = low + cuda.blockIdx.y * R
        b = b0 + r
        mine = r < R and unit < H and b < B
        if not mine:  # reads what its own block has, writes nothing
            b, unit = b0, cuda.blockIdx.x * U
        if not TOGETHER:  # else the vectors come with their padding
            for k in range(tid, R * (ROW + SECOND * ROW2), THREADS):
                shared[VECTOR + k] = zero
            cuda.syncthreads()
        start(shared, local, W)
        if SECOND > 0:
            start2(shared, local2, W2)
        plane = rows * B * H
        ds = take(carry, (current * B + b) * H + unit, 2 * B * H, STATES)
        p = take(params, unit, H, PARAMS)
        end = lengths[b]
        size = B * H  # of a step; then the thread's places in the last
        at, at_state = ((n - 1) * B + b) * H + unit, ((first + n - 1) * B + b) * H + unit
        at_residual = ((first + n - 1) * B + b) * RESIDUALS * H + unit
        at_delta = ((n - 1) * B + b) * DELTAS * H + unit
        s = take(states, at_state + size, plane, STATES)
        before = take(states, at_state, plane, STATES)
        extra = take(residuals, at_residual, H, RESIDUALS)
        into = dh[at]
        cursor = 0
        if RESETS:
            cursor, _ = find(lengths, B, b, t0 + n)
        begin, piece = range_of(0, 0, b0, B)
        for k in range(n):
            t = n - 1 - k
            live = mine and t0 + t < end
            previous, cut = before, False
            if RESETS and cursor > B + lengths[B + b] and lengths[cursor - 1] == t0 + t:
                previous, cut = take(restart, unit, H, STATES), True
                cursor -= 1
            own = p + take(x, (t * B + b) * I + I - DRIVES, 1, DRIVES)
            d, passed = step(plus(ds, (into,), 0), s, previous, extra, own)
            d, passed = only(live, numbers(shared, d)), numbers(shared, passed)
            if SECOND > 0:
                begin, piece2 = range_of2(2 * PIECES * piece, k, b0, B)
                pass_on2(
                    shared, exchange, begin, piece2, arrivals, part(d, FIRST, 1), mine, r, unit, k
                )
                wait_all2(arrivals, k * EACH + 1)
                multiply2(shared, local2, sums, W2, exchange, begin, piece2, k)
                cuda.syncthreads()
                more = take(shared, TOTALS2 + r % R * TOTAL2 + tid % U, U, 1)
                waiting, added, multiplied = ungate(more[0], previous, extra)
                d = replaced(d, only(live, waiting))
                passed = plus(passed, (added,), 0)
            begin, piece = range_of(0, k, b0, B)
            pass_on(
                shared, exchange, begin, piece, arrivals, part(d, SPLIT, FIRST), mine, r, unit, k
            )
            if mine:  # what follows has the barrier and the product to end
                give(delta, at_delta, H, d)
                if SECOND > 0:
                    v[at] = multiplied if live else zero
            if t > 0:
                at, at_state, at_delta = at - size, at_state - size, at_delta - DELTAS * size
                at_residual -= RESIDUALS * size
                s, before = before, take(states, at_state, plane, STATES)
                extra, into = take(residuals, at_residual, H, RESIDUALS), dh[at]
                if t > AHEAD:
                    prefetch(states, at_state - AHEAD * size, plane, STATES)
                    prefetch(residuals, at_residual - AHEAD * RESIDUALS * size, H, RESIDUALS)
                    prefetch(dh, at - AHEAD * size, 0, 1)
            wait_all(arrivals, (k + 1) * EACH)
            multiply(shared, local, sums, W, exchange, begin, piece, k)
            cuda.syncthreads()
            passed = plus(passed, take(shared, TOTALS + r % R * TOTAL + tid % U, U, 1), 0)
            ds = chosen(live, passed, ds)
            if RESETS and cut:
                if mine and restart_sums.size > 0:
                    for i in range(STATES):
                        restart_sums[(i * B + b) * H + unit] += ds[i]
                ds = only(not cut, ds)
        if mine:
            give(carry, ((current ^ (n & 1)) * B + b) * H + unit, 2 * B * H, ds)

    reverse.key = name, dtype.__name__, shape, *(("resets",) if resets else ())
    return reverse
