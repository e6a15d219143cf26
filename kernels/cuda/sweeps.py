"""The sequential loops over a stretch of time, forward and in reverse, for any cell.

A block does `rows` sequences and `units` of the H units, and keeps the weights of its units on the
chip for the whole stretch: in registers first, in shared memory next, and only what does not fit is
read again each step, from the second-level cache. A step is a product, shared out among all
threads, and the cell's maths, a thread for each unit of each sequence.

*Block sweep*: one block has all units, so what passes from step to step stays in shared memory.
*Grid sweep*: the units of a slice of sequences are spread over `parts` blocks, which hand their
states (in reverse: deltas) to each other through the second-level cache and meet once a step.

That meeting (`_meet`) is a counter that only grows. All threads of a block have written
(syncthreads); one of them makes all that visible to the device (its fence is cumulative: it orders
what it has seen through the syncthreads), adds 1, and waits until the count is `parts` times the
number of meetings so far; its read acquires, and the others go on only after it (syncthreads). This
is how CUDA's own cooperative groups meet. What is exchanged alternates between two buffers: a block
that writes for step t+1 has passed the meeting of step t, before which every block had read what
step t-1 left in that buffer. Data of other blocks is read past the first-level cache, which is not
coherent. It cannot hang as long as all blocks of a slice are resident: there are no more blocks in
a launch than multiprocessors, the loader has made sure that a block fits on one, and the launch is
cooperative, so the driver starts it once there is room for all. The simulator runs the blocks of
such a launch side by side, but its memory is coherent and in order: it cannot show a missing fence.

Layouts as on the CPU: see `kernels.cpu.sweeps`. `W` are weights in the order of `shapes.pack`.
"""

from functools import lru_cache

import numpy as np

from ..cells.registry import CELLS
from .cells import functions
from .runtime import cuda, device, primitives

take, give, numbers, part, plus, replaced, chosen, only, fetch, clear = (
    getattr(primitives, name)
    for name in [
        "take",
        "give",
        "numbers",
        "part",
        "plus",
        "replaced",
        "chosen",
        "only",
        "fetch",
        "clear",
    ]
)
multiply_held, multiply_read, combine, coherent, wait_for = (
    getattr(primitives, name)
    for name in ["multiply_held", "multiply_read", "combine", "coherent", "wait_for"]
)


@device
def grid_barrier(arrivals, group, blocks, times):
    """Meet the other blocks of the group, for the so many-th time: see above."""
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        cuda.threadfence()
        cuda.atomic.add(arrivals, group, 1)
        wait_for(arrivals, group, blocks * times)
        cuda.threadfence()
    cuda.syncthreads()


def _product(tile, rows, threads, weights, vector, totals, together):
    """Functions of a block for the product of a vector, one a row, with the weights of `tile`.

    The offsets of weights, vector and totals in shared memory are numbers of elements. In a grid
    sweep, `together`, the vectors are fetched from where all blocks have left their parts of them.
    """
    WIDTH, Q, M, QUADS = tile.width, tile.lanes, tile.wide, tile.quads
    HELD, SHARED = tile.held, tile.shared
    READ = QUADS - HELD - SHARED
    INNER, PIECES, PIECE = tile.inner, tile.pieces, tile.piece
    ROW, TOTAL, GROUPS = tile.row, tile.total, tile.groups
    SPAN = Q * WIDTH
    STEP = threads * WIDTH  # between the vectors of a thread's weights
    SIZE = QUADS * M * STEP
    FETCHED, SUMS = HELD * M, rows * M

    @device
    def start(shared, held, W):
        """Bring the weights that stay on the chip there."""
        tid = cuda.threadIdx.x
        first = cuda.blockIdx.x * SIZE + tid * WIDTH
        fetch(held, W, first, STEP, FETCHED)
        for i in range(SHARED * M):
            for c in range(WIDTH):
                place = weights + i * STEP + tid * WIDTH + c
                shared[place] = W[first + (HELD * M + i) * STEP + c]

    @device
    def fetch_vectors(shared, exchange, base, b0, B, piece):
        low = piece * ROW
        span = min(ROW, INNER - low)
        for k in range(cuda.threadIdx.x, rows * span, threads):
            r, j = k // span, k % span
            if b0 + r < B:
                there = coherent(exchange, base + (b0 + r) * INNER + low + j)
                shared[vector + r * ROW + j] = there
        cuda.syncthreads()

    @device
    def multiply(shared, held, sums, W, exchange, base, b0, B):
        """Set totals[row, column] to the product; `totals` may be read after a syncthreads."""
        tid = cuda.threadIdx.x
        lane, group = tid % Q, tid // Q
        clear(sums, SUMS)
        at = vector + lane * WIDTH
        if together:
            fetch_vectors(shared, exchange, base, b0, B, 0)
        multiply_held(sums, held, shared, at, ROW, SPAN, rows, M, HELD)
        for i in range(SHARED):
            multiply_read(
                sums, shared, weights + i * M * STEP + tid * WIDTH, STEP, shared,
                at + (HELD + i) * SPAN, ROW, rows, M,
            )  # fmt: skip
        if READ > 0:
            first = cuda.blockIdx.x * SIZE + tid * WIDTH
            for i in range(HELD + SHARED, PIECE):
                multiply_read(
                    sums, W, first + i * M * STEP, STEP, shared, at + i * SPAN, ROW, rows, M
                )
            for piece in range(1, PIECES):
                cuda.syncthreads()
                fetch_vectors(shared, exchange, base, b0, B, piece)
                for i in range(piece * PIECE, min(QUADS, (piece + 1) * PIECE)):
                    multiply_read(
                        sums, W, first + i * M * STEP, STEP, shared,
                        at + (i - piece * PIECE) * SPAN, ROW, rows, M,
                    )  # fmt: skip
        combine(sums, lane, group < GROUPS, shared, totals + group * M, TOTAL, rows, M, Q)

    return start, multiply


@lru_cache(maxsize=256)
def forward_kernel(name, dtype, shape):
    """The forward sweep of the cell of that name, as plain Python to be compiled."""
    cell = CELLS[name]
    GATES, STATES, RESIDUALS, BLOCKS, OWN = (
        cell.gates, cell.states, cell.residuals, cell.blocks, len(cell.sums)
    )  # fmt: skip
    SPLIT, SECOND = int(cell.split), cell.second
    FIRST = cell.gates - SECOND
    H, U, R, PARTS = shape.hidden, shape.units, shape.rows, shape.parts
    TOGETHER = PARTS > 1
    THREADS = shape.threads
    ROW, ROW2 = shape.first.row, shape.second.row
    TOTAL, TOTAL2 = shape.first.total, shape.second.total
    WEIGHTS, WEIGHTS2, VECTOR, VECTOR2, TOTALS, TOTALS2, _ = shape.places
    SUMS = R * max(shape.first.wide, shape.second.wide)
    HELD, HELD2 = shape.first.registers, shape.second.registers
    step, _, gate, _ = functions(name, dtype)
    start, multiply = _product(shape.first, R, THREADS, WEIGHTS, VECTOR, TOTALS, TOGETHER)
    start2, multiply2 = _product(shape.second, R, THREADS, WEIGHTS2, VECTOR2, TOTALS2, TOGETHER)
    zero, DTYPE = dtype(0), np.dtype(dtype)

    @device
    def hand_over(shared, exchange, base, arrivals, times, place, value, mine, b, unit):
        """Let all threads that need it have what each has computed: `value`, of a unit."""
        if TOGETHER:
            if mine:
                exchange[base + b * H + unit] = value
            grid_barrier(arrivals, cuda.blockIdx.y, PARTS, times)
        else:
            if mine:
                shared[place + unit] = value
            cuda.syncthreads()

    def forward(
        z, ids, tokens, bias, W, W2, own, states, residuals, h, lengths, exchange, arrivals, t0, n,
        first, rows, cached, wanted, B, low,
    ):  # fmt: skip
        shared = cuda.shared.array(0, DTYPE, 16)
        held = cuda.local.array(HELD, DTYPE)
        held2 = cuda.local.array(HELD2, DTYPE)
        sums = cuda.local.array(SUMS, DTYPE)
        tid = cuda.threadIdx.x
        r, unit = tid // U, cuda.blockIdx.x * U + tid % U
        b0 = low + cuda.blockIdx.y * R
        b = b0 + r
        mine = r < R and unit < H and b < B
        if not mine:  # reads what is there, writes nothing
            b, unit = low, 0
        for k in range(tid, R * (ROW + SECOND * ROW2), THREADS):
            shared[VECTOR + k] = zero
        plane = rows * B * H
        here = first if cached else first & 1
        start(shared, held, W)
        if SECOND > 0:
            start2(shared, held2, W2)
        s = take(states, (here * B + b) * H + unit, plane, STATES)
        p = take(own, unit, H, OWN)
        biases = take(bias, unit, H, BLOCKS)
        end = lengths[b]
        row = ids[b] if tokens else b
        coming = take(z, row * GATES * H + unit, H, GATES)
        cuda.syncthreads()
        times = 0
        for t in range(n):
            live = mine and t0 + t < end
            times += 1
            base = (t & 1) * B * H
            hand_over(shared, exchange, base, arrivals, times, VECTOR + r * ROW, s[0], mine, b,
                      unit)  # fmt: skip
            a = plus(biases, coming, 0)
            if t + 1 < n:  # the loads of the next step have this one to arrive
                row = (t + 1) * B + b
                if tokens:
                    row = ids[row]
                coming = take(z, row * GATES * H + unit, H, GATES)
            multiply(shared, held, sums, W, exchange, base, b0, B)
            cuda.syncthreads()
            a = plus(a, take(shared, TOTALS + r % R * TOTAL + tid % U, U, FIRST), SPLIT)
            if SECOND > 0:
                v = gate(a, s, p)
                times += 1
                base = (2 + (t & 1)) * B * H
                hand_over(shared, exchange, base, arrivals, times, VECTOR2 + r * ROW2, v, mine, b,
                          unit)  # fmt: skip
                multiply2(shared, held2, sums, W2, exchange, base, b0, B)
                cuda.syncthreads()
                a = plus(a, take(shared, TOTALS2 + r % R * TOTAL2 + tid % U, U, 1), FIRST)
            after, extra = step(a, s, p)
            s = chosen(live, numbers(shared, after), s)
            if mine:
                if cached:
                    give(states, ((first + t + 1) * B + b) * H + unit, plane, s)
                    give(
                        residuals,
                        ((first + t) * B + b) * RESIDUALS * H + unit,
                        H,
                        numbers(shared, extra),
                    )
                if wanted:
                    h[(t * B + b) * H + unit] = s[0] if live else zero
        if mine and not cached:
            give(states, (((first + n) & 1) * B + b) * H + unit, plane, s)

    forward.key = name, dtype.__name__, shape
    return forward


@lru_cache(maxsize=256)
def reverse_kernel(name, dtype, shape):
    """The reverse sweep of the cell of that name, as plain Python to be compiled."""
    cell = CELLS[name]
    STATES, RESIDUALS, DELTAS, OWN = cell.states, cell.residuals, cell.delta_blocks, len(cell.sums)
    SPLIT, SECOND = int(cell.split), cell.second
    FIRST = cell.gates - SECOND
    H, U, R, PARTS = shape.hidden, shape.units, shape.rows, shape.parts
    TOGETHER = PARTS > 1
    THREADS = shape.threads
    ROW, ROW2 = shape.first.row, shape.second.row
    TOTAL, TOTAL2 = shape.first.total, shape.second.total
    WEIGHTS, WEIGHTS2, VECTOR, VECTOR2, TOTALS, TOTALS2, _ = shape.places
    SUMS = R * max(shape.first.wide, shape.second.wide)
    HELD, HELD2 = shape.first.registers, shape.second.registers
    _, step, _, ungate = functions(name, dtype)
    start, multiply = _product(shape.first, R, THREADS, WEIGHTS, VECTOR, TOTALS, TOGETHER)
    start2, multiply2 = _product(shape.second, R, THREADS, WEIGHTS2, VECTOR2, TOTALS2, TOGETHER)
    zero, DTYPE = dtype(0), np.dtype(dtype)

    @device
    def hand_over(shared, exchange, base, arrivals, times, place, d, mine, unit):
        """Let all threads that need it have the deltas `d` of a unit, a tuple with one a gate."""
        if TOGETHER:
            if mine:
                give(exchange, base + unit, H, d)
            grid_barrier(arrivals, cuda.blockIdx.y, PARTS, times)
        else:
            if mine:
                give(shared, place + unit, H, d)
            cuda.syncthreads()

    def reverse(
        states,
        residuals,
        dh,
        carry,
        delta,
        v,
        lengths,
        W,
        W2,
        own,
        exchange,
        arrivals,
        t0,
        n,
        first,
        rows,
        current,
        B,
        low,
    ):
        shared = cuda.shared.array(0, DTYPE, 16)
        held = cuda.local.array(HELD, DTYPE)
        held2 = cuda.local.array(HELD2, DTYPE)
        sums = cuda.local.array(SUMS, DTYPE)
        tid = cuda.threadIdx.x
        r, unit = tid // U, cuda.blockIdx.x * U + tid % U
        b0 = low + cuda.blockIdx.y * R
        b = b0 + r
        mine = r < R and unit < H and b < B
        if not mine:  # reads what is there, writes nothing
            b, unit = low, 0
        for k in range(tid, R * (ROW + SECOND * ROW2), THREADS):
            shared[VECTOR + k] = zero
        start(shared, held, W)
        if SECOND > 0:
            start2(shared, held2, W2)
        plane = rows * B * H
        ds = take(carry, (current * B + b) * H + unit, 2 * B * H, STATES)
        p = take(own, unit, H, OWN)
        end = lengths[b]
        at = first + n - 1  # the row of the leaf before the step
        s = take(states, ((at + 1) * B + b) * H + unit, plane, STATES)
        previous = take(states, (at * B + b) * H + unit, plane, STATES)
        extra = take(residuals, (at * B + b) * RESIDUALS * H + unit, H, RESIDUALS)
        into = dh[((n - 1) * B + b) * H + unit]
        cuda.syncthreads()
        times = 0
        for k in range(n):
            t = n - 1 - k
            live = mine and t0 + t < end
            d, passed = step(plus(ds, (into,), 0), s, previous, extra, p)
            d, passed = only(live, numbers(shared, d)), numbers(shared, passed)
            if SECOND > 0:
                times += 1
                base = (2 * FIRST + (k & 1)) * B * H
                hand_over(shared, exchange, base + b * H, arrivals, times, VECTOR2 + r * ROW2,
                          part(d, FIRST, 1), mine, unit)  # fmt: skip
                multiply2(shared, held2, sums, W2, exchange, base, b0, B)
                cuda.syncthreads()
                more = take(shared, TOTALS2 + r % R * TOTAL2 + tid % U, U, 1)
                waiting, added, multiplied = ungate(more[0], previous, extra)
                d = replaced(d, only(live, waiting))
                passed = plus(passed, (added,), 0)
                if mine:
                    v[(t * B + b) * H + unit] = multiplied if live else zero
            if mine:
                give(delta, (t * B + b) * DELTAS * H + unit, H, d)
            times += 1
            base = (k & 1) * FIRST * B * H
            hand_over(shared, exchange, base + b * FIRST * H, arrivals, times, VECTOR + r * ROW,
                      part(d, SPLIT, FIRST), mine, unit)  # fmt: skip
            if t > 0:  # the loads of the next step have this product to arrive
                s = previous
                at = first + t - 1
                previous = take(states, (at * B + b) * H + unit, plane, STATES)
                extra = take(residuals, (at * B + b) * RESIDUALS * H + unit, H, RESIDUALS)
                into = dh[((t - 1) * B + b) * H + unit]
            multiply(shared, held, sums, W, exchange, base, b0, B)
            cuda.syncthreads()
            passed = plus(passed, take(shared, TOTALS + r % R * TOTAL + tid % U, U, 1), 0)
            ds = chosen(live, passed, ds)
        if mine:
            give(carry, ((current ^ (n & 1)) * B + b) * H + unit, 2 * B * H, ds)

    reverse.key = name, dtype.__name__, shape
    return reverse
