"""The product of a step, shared out among the threads of a block, and the grid barrier.

A block keeps the weights of its units on the chip for the whole sweep: in registers first, in
shared memory next, and only what does not fit is read again each step, from the second-level cache.

The barrier is a counter that only grows, for each group of blocks. It has two halves, so that a
block does what the others do not need in between:

- `arrive`: all threads of a block have written (syncthreads). One of them adds 1, and its addition
  releases: who acquires it sees what that thread has seen, through the syncthreads the writes of
  all its block.
- `wait`: the same thread reads the count until it is the number of blocks times the number of
  barriers so far. The reads are relaxed, since each that acquires may empty the first-level cache,
  and one fence after the last acquires for all. The other threads go on only after it
  (syncthreads).
- What blocks exchange alternates between two buffers. A block that writes for step t+1 has passed
  the barrier of step t, before which every block had read what step t-1 left in that buffer.
- Data of other blocks is read by relaxed loads, which go to the second-level cache.
- It cannot deadlock as long as all blocks of a group are resident. There are no more blocks in a
  launch than multiprocessors, the loader has made sure that a block fits on one, and the launch is
  cooperative, so the driver starts it only when all blocks fit.

What blocks exchange has the form that it takes in shared memory: a row of `tile.row` numbers for
each sequence, padded with zeros, or several pieces of all rows, one after the other. So a block
copies one straight range, 16 bytes a load, and all its loads are on their way before the first is
used.

With `shape.words` there is no barrier. What blocks exchange are words of 64 bits, a number and the
time that it is of, written by one store, and a block reads each until it has the time that it waits
for, as NCCL does for short messages. A word is a whole: no fence is needed between its halves. A
block that writes for step t+1 has read all others' words of step t, which they wrote after they had
read those of step t-1 in that buffer. Padding says the last of all times.

The simulator runs the blocks of such a launch side by side, but its memory is coherent and in
order: it cannot show a missing fence.
"""

from .banks import total_step
from .layout import COPIED, ON_THE_WAY
from .runtime import cuda, device, primitives

clear, copy_rows, fetch, give, give_rows, multiply_registers, multiply_read, combine = (
    primitives.clear, primitives.copy_rows, primitives.fetch, primitives.give,
    primitives.give_rows, primitives.multiply_registers, primitives.multiply_read,
    primitives.combine
)  # fmt: skip
release_one, wait_for = primitives.release_one, primitives.wait_for
give_words, copy_words = primitives.give_words, primitives.copy_words


@device
def arrive(arrivals, group):
    """The first half of a grid barrier of the group: this block has written.

    arrivals : int32, a counter for each group, 0 at the launch
    """
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        release_one(arrivals, group)


@device
def wait(arrivals, group, count):
    """The second half: as many blocks have arrived as all barriers so far have."""
    if cuda.threadIdx.x == 0:
        wait_for(arrivals, group, count)
    cuda.syncthreads()


def hand_over(tile, shape, vector):
    """Functions by which a block hands the numbers of its units over, before a product.

    tile : the Tile of the product
    shape : the Shape of the sweep
    vector : where the rows begin in shared memory, in elements

    `pass_on` hands over those of a thread, a tuple of one a gate, for product number `time`. After
    `wait_all` all threads may multiply. In between others need not be waited for. `range_of` says
    where a block's rows are.
    """
    ROW, PIECES, H, R, PARTS = tile.row, tile.pieces, shape.hidden, shape.rows, shape.parts
    TOGETHER, WORDS = PARTS > 1, shape.words

    @device
    def range_of(before, times, b0, B):
        """Where buffer number `times` begins for the block, and the next piece of it."""
        step = (B + R - 1) // R * R * ROW
        return before + (times & 1) * PIECES * step + b0 * ROW, step

    @device
    def pass_on(shared, exchange, start, step, arrivals, values, mine, r, unit, time):
        if WORDS:
            if mine:
                at = start + r * ROW
                give_words(exchange, at, step, unit, H, values, ROW, PIECES, time + 1)
        elif TOGETHER:
            if mine:
                give_rows(exchange, start + r * ROW, step, unit, H, values, ROW, PIECES)
            arrive(arrivals, cuda.blockIdx.y)
        elif mine:
            give(shared, vector + r * ROW + unit, H, values)

    @device
    def wait_all(arrivals, times):
        if WORDS:
            pass  # each word is waited for
        elif TOGETHER:
            wait(arrivals, cuda.blockIdx.y, PARTS * times)
        else:
            cuda.syncthreads()

    return range_of, pass_on, wait_all


def block_product(tile, shape, weights, vector, totals):
    """Functions of a block: `start`, and `multiply`, the product of weights and a vector a row.

    tile : the Tile of the product
    shape : the Shape of the sweep
    weights, vector, totals : where each begins in shared memory, in elements

    Arguments of the functions:

    shared : the block's shared memory
    local : (tile.local_size,) the thread's registers for weights
    sums : (rows * wide,) the thread's registers for sums
    W : the packed weights of all blocks, as `layout.pack` orders them
    exchange : where `together`, the vectors of all sequences, (pieces, rows, tile.row)
    start, step : where this block's vectors begin there, and from a piece to the next
    time : which product it is, counted from 0
    """
    rows, threads, together = shape.rows, shape.threads, shape.parts > 1
    WIDTH, Q, M, QUADS = tile.width, tile.lanes, tile.wide, tile.quads
    REGISTERS, SHARED = tile.registers, tile.shared
    READ = QUADS - REGISTERS - SHARED
    PIECES, PIECE = tile.pieces, tile.piece
    ROW, GROUPS, TOTAL = tile.row, tile.groups, total_step(tile, rows, shape.units)
    SPAN = Q * WIDTH
    WORDS = shape.words
    STEP = threads * WIDTH  # between the vectors of a thread's weights
    SIZE = QUADS * M * STEP
    SOME = -(-ON_THE_WAY // M)  # vectors whose weights are read at a time
    FETCHED, SUMS, VECTORS = REGISTERS * M, rows * M, rows * ROW // WIDTH

    @device
    def start(shared, local, W):
        """Load the weights that stay on the chip for the whole sweep."""
        tid = cuda.threadIdx.x
        first = cuda.blockIdx.x * SIZE + tid * WIDTH
        fetch(local, W, first, STEP, FETCHED)
        for i in range(SHARED * M):
            for c in range(WIDTH):
                place = weights + i * STEP + tid * WIDTH + c
                shared[place] = W[first + (REGISTERS * M + i) * STEP + c]

    @device
    def fetch_vectors(shared, exchange, start, time):
        """Load the vectors of all rows, or a piece of each, into shared memory."""
        tid = cuda.threadIdx.x
        if WORDS:
            copy_words(shared, vector, exchange, start, tid, threads, VECTORS, COPIED, time + 1)
        else:
            copy_rows(shared, vector, exchange, start, tid, threads, VECTORS, COPIED)
        cuda.syncthreads()

    @device
    def read(sums, W, first, shared, at, low, high):
        """Multiply vectors low..high by weights that are read, some of them at a time."""
        for i in range(low, high - SOME + 1, SOME):
            multiply_read(
                sums, W, first + i * M * STEP, STEP, shared, at + i * SPAN, ROW, SPAN, rows, M, SOME
            )
        for i in range(high - (high - low) % SOME, high):
            multiply_read(
                sums, W, first + i * M * STEP, STEP, shared, at + i * SPAN, ROW, SPAN, rows, M, 1
            )

    @device
    def multiply(shared, local, sums, W, exchange, start, step, time):
        """Set totals[row, column] to the product, which may be read after a syncthreads."""
        tid = cuda.threadIdx.x
        lane, group = tid % Q, tid // Q
        at = vector + lane * WIDTH
        if together:
            fetch_vectors(shared, exchange, start, time)
        clear(sums, SUMS)
        multiply_registers(sums, local, shared, at, ROW, SPAN, rows, M, REGISTERS)
        for i in range(SHARED):
            multiply_read(
                sums, shared, weights + i * M * STEP + tid * WIDTH, STEP, shared,
                at + (REGISTERS + i) * SPAN, ROW, SPAN, rows, M, 1,
            )  # fmt: skip
        if READ > 0:
            first = cuda.blockIdx.x * SIZE + tid * WIDTH
            read(sums, W, first, shared, at, REGISTERS + SHARED, PIECE)
            for piece in range(1, PIECES):
                cuda.syncthreads()
                fetch_vectors(shared, exchange, start + piece * step, time)
                low = piece * PIECE  # past the end of few vectors in many pieces
                read(
                    sums, W, first, shared, at - low * SPAN, low, max(low, min(QUADS, low + PIECE))
                )
        combine(sums, lane, group < GROUPS, shared, totals + group * M, TOTAL, rows, M, Q)

    return start, multiply
