"""The sequential loops over a stretch of time, forward and in reverse, for any cell.

A block does `rows` sequences and `units` of the H units, and keeps the weights of its units on the
chip for the whole stretch: in registers first, in shared memory next, and only what does not fit is
read again each step, from the second-level cache. A step is a product, shared out among all
threads, and the cell's maths, a thread for each unit of each sequence.

*Block sweep*: one block has all units, so what passes from step to step stays in shared memory.
*Grid sweep*: the units of a slice of sequences are spread over `parts` blocks, which hand their
states (in reverse: deltas) to each other through the second-level cache and meet once a step.

That meeting (`_meet`) is a counter that only grows. A block's threads first make their writes
visible to the device (fence), then all of them have done so (syncthreads), then one adds 1 and
waits until the count is `parts` times the number of meetings so far; its read acquires, and the
others go on only after it (syncthreads). What is exchanged alternates between two buffers: a block
that writes for step t+1 has passed the meeting of step t, before which every block had read what
step t-1 left in that buffer. Data of other blocks is read past the first-level cache, which is not
coherent. It cannot hang as long as all blocks of a slice are resident: the launcher asks for a
cooperative launch, which fails where they are not. The simulator runs the blocks of such a launch
in threads of their own, but its memory is coherent and in order, so it cannot show a missing fence.

Layouts as on the CPU: see `kernels.cpu.sweeps`. `W` are weights in the order of `shapes.pack`.
"""

from functools import lru_cache

import numpy as np

from ..cells import CELLS
from .cells import functions
from .seam import cuda, device, primitives

take, give, part, plus, replaced, chosen, only, fetch, clear = (
    getattr(primitives, name)
    for name in "take give part plus replaced chosen only fetch clear".split()
)
multiply_held, multiply_read, combine, coherent, wait_for = (
    getattr(primitives, name)
    for name in "multiply_held multiply_read combine coherent wait_for".split()
)


@device
def _meet(arrivals, group, blocks, times):
    """Meet the other blocks of the group, for the so many-th time: see above."""
    cuda.threadfence()
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        cuda.atomic.add(arrivals, group, 1)
        wait_for(arrivals, group, blocks * times)
        cuda.threadfence()
    cuda.syncthreads()


def _product(tile, rows, threads, weights, vector, totals):
    """Functions of a block for the product of a vector, one a row, with the weights of `tile`.

    The offsets of weights, vector and totals in shared memory are numbers of elements.
    """
    WIDTH, Q, M, QUADS = tile.width, tile.lanes, tile.wide, tile.quads
    HELD, SHARED = tile.held, tile.shared
    READ = QUADS - HELD - SHARED
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
    def multiply(shared, held, sums, W):
        """Set totals[row, column] to the product; `totals` may be read after a syncthreads."""
        tid = cuda.threadIdx.x
        lane, group = tid % Q, tid // Q
        clear(sums, SUMS)
        at = vector + lane * WIDTH
        multiply_held(sums, held, shared, at, ROW, SPAN, rows, M, HELD)
        for i in range(SHARED):
            multiply_read(
                sums, shared, weights + i * M * STEP + tid * WIDTH, STEP, shared,
                at + (HELD + i) * SPAN, ROW, rows, M,
            )  # fmt: skip
        if READ > 0:
            first = cuda.blockIdx.x * SIZE + tid * WIDTH
            for i in range(HELD + SHARED, QUADS):
                multiply_read(
                    sums, W, first + i * M * STEP, STEP, shared, at + i * SPAN, ROW, rows, M
                )
        combine(sums, lane, group < GROUPS, shared, totals + group * M, TOTAL, rows, M, Q)

    return start, multiply


@lru_cache(maxsize=256)
def forward_kernel(name, dtype, shape):
    """The forward sweep of the cell of that name, as plain Python to be compiled."""
    cell = CELLS[name]
    GATES, STATES, KEPT, BLOCKS, OWN = (
        cell.gates, cell.states, cell.kept, cell.blocks, len(cell.sums)
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
    start, multiply = _product(shape.first, R, THREADS, WEIGHTS, VECTOR, TOTALS)
    start2, multiply2 = _product(shape.second, R, THREADS, WEIGHTS2, VECTOR2, TOTALS2)
    zero, DTYPE = dtype(0), np.dtype(dtype)

    @device
    def hand_over(shared, exchange, arrivals, side, buffer, times, value, mine, r, b, unit, b0, B):
        """Let all threads that need it have what each has computed: `value`, of a unit."""
        row = ROW if side == 0 else ROW2
        place = VECTOR if side == 0 else VECTOR2
        if TOGETHER:
            base = (2 * side + buffer) * B * H
            if mine:
                exchange[base + b * H + unit] = value
            _meet(arrivals, cuda.blockIdx.y, PARTS, times)
            for k in range(cuda.threadIdx.x, R * H, THREADS):
                if b0 + k // H < B:
                    there = coherent(exchange, base + b0 * H + k)
                    shared[place + k // H * row + k % H] = there
        elif mine:
            shared[place + r * row + unit] = value
        cuda.syncthreads()

    def forward(
        z, ids, tokens, bias, W, W2, own, states, kept, h, lengths, exchange, arrivals, t0, n,
        first, rows, cached, wanted, B, low,
    ):  # fmt: skip
        shared = cuda.shared.array(0, DTYPE)
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
        cuda.syncthreads()
        plane = rows * B * H
        here = first if cached else first & 1
        for k in range(tid, R * H, THREADS):
            if b0 + k // H < B:
                shared[VECTOR + k // H * ROW + k % H] = states[(here * B + b0) * H + k]
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
            a = plus(biases, coming, 0)
            if t + 1 < n:  # the loads of the next step have this one to arrive
                row = (t + 1) * B + b
                if tokens:
                    row = ids[row]
                coming = take(z, row * GATES * H + unit, H, GATES)
            multiply(shared, held, sums, W)
            cuda.syncthreads()
            a = plus(a, take(shared, TOTALS + r % R * TOTAL + tid % U, U, FIRST), SPLIT)
            if SECOND > 0:
                v = gate(a, s, p)
                times += 1
                hand_over(shared, exchange, arrivals, 1, t & 1, times, v, mine, r, b, unit, b0, B)
                multiply2(shared, held2, sums, W2)
                cuda.syncthreads()
                a = plus(a, take(shared, TOTALS2 + r % R * TOTAL2 + tid % U, U, 1), FIRST)
            after, extra = step(a, s, p)
            s = chosen(live, after, s)
            if mine:
                if cached:
                    give(states, ((first + t + 1) * B + b) * H + unit, plane, s)
                    give(kept, ((first + t) * B + b) * KEPT * H + unit, H, extra)
                if wanted:
                    h[(t * B + b) * H + unit] = s[0] if live else zero
            if t + 1 < n:
                times += 1
                hand_over(shared, exchange, arrivals, 0, t & 1, times, s[0], mine, r, b, unit, b0,
                          B)  # fmt: skip
        if mine and not cached:
            give(states, (((first + n) & 1) * B + b) * H + unit, plane, s)

    forward.key = name, dtype.__name__, shape
    return forward


@lru_cache(maxsize=256)
def reverse_kernel(name, dtype, shape):
    """The reverse sweep of the cell of that name, as plain Python to be compiled."""
    cell = CELLS[name]
    STATES, KEPT, DELTAS, OWN = cell.states, cell.kept, cell.delta_blocks, len(cell.sums)
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
    start, multiply = _product(shape.first, R, THREADS, WEIGHTS, VECTOR, TOTALS)
    start2, multiply2 = _product(shape.second, R, THREADS, WEIGHTS2, VECTOR2, TOTALS2)
    zero, DTYPE = dtype(0), np.dtype(dtype)

    @device
    def hand_over(shared, exchange, arrivals, side, buffer, times, d, mine, r, b, unit, b0, B):
        """Let all threads that need it have the deltas `d` of a unit, a tuple with one a gate."""
        row = ROW if side == 0 else ROW2
        place = VECTOR if side == 0 else VECTOR2
        wide = FIRST * H if side == 0 else H
        if TOGETHER:
            base = (2 * side * FIRST + buffer * (FIRST if side == 0 else 1)) * B * H
            if mine:
                give(exchange, base + b * wide + unit, H, d)
            _meet(arrivals, cuda.blockIdx.y, PARTS, times)
            for k in range(cuda.threadIdx.x, R * wide, THREADS):
                if b0 + k // wide < B:
                    there = coherent(exchange, base + b0 * wide + k)
                    shared[place + k // wide * row + k % wide] = there
        elif mine:
            give(shared, place + r * row + unit, H, d)
        cuda.syncthreads()

    def reverse(
        states, kept, dh, carry, delta, v, lengths, W, W2, own, exchange, arrivals, t0, n, first,
        rows, current, B, low,
    ):  # fmt: skip
        shared = cuda.shared.array(0, DTYPE)
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
        extra = take(kept, (at * B + b) * KEPT * H + unit, H, KEPT)
        into = dh[((n - 1) * B + b) * H + unit]
        cuda.syncthreads()
        times = 0
        for k in range(n):
            t = n - 1 - k
            live = mine and t0 + t < end
            d, passed = step(plus(ds, (into,), 0), s, previous, extra, p)
            d = only(live, d)
            if SECOND > 0:
                times += 1
                hand_over(shared, exchange, arrivals, 1, k & 1, times, part(d, FIRST, 1), mine, r,
                          b, unit, b0, B)  # fmt: skip
                multiply2(shared, held2, sums, W2)
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
            hand_over(shared, exchange, arrivals, 0, k & 1, times, part(d, SPLIT, FIRST), mine, r,
                      b, unit, b0, B)  # fmt: skip
            if t > 0:  # the loads of the next step have this product to arrive
                s = previous
                at = first + t - 1
                previous = take(states, (at * B + b) * H + unit, plane, STATES)
                extra = take(kept, (at * B + b) * KEPT * H + unit, H, KEPT)
                into = dh[((t - 1) * B + b) * H + unit]
            multiply(shared, held, sums, W)
            cuda.syncthreads()
            passed = plus(passed, take(shared, TOTALS + r % R * TOTAL + tid % U, U, 1), 0)
            ds = chosen(live, passed, ds)
        if mine:
            give(carry, ((current ^ (n & 1)) * B + b) * H + unit, 2 * B * H, ds)

    reverse.key = name, dtype.__name__, shape
    return reverse
