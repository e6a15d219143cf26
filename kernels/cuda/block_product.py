"""The product of a step, shared out among the threads of a block, and the grid barrier.

A block keeps the weights of its units on the chip for the whole sweep: in registers first, in
shared memory next, and only what does not fit is read again each step, from the second-level cache.

The barrier is a counter that only grows, for each group of blocks:

- All threads of a block have written (syncthreads). One of them makes that visible to the device
  (its fence is cumulative: it orders what the thread has seen through the syncthreads), adds 1, and
  waits until the count is the number of blocks times the number of barriers so far. Its read
  acquires, and the other threads go on only after it (syncthreads). CUDA's cooperative groups do
  the same.
- What blocks exchange alternates between two buffers. A block that writes for step t+1 has passed
  the barrier of step t, before which every block had read what step t-1 left in that buffer.
- Data of other blocks is read past the first-level cache, which is not coherent.
- It cannot deadlock as long as all blocks of a group are resident. There are no more blocks in a
  launch than multiprocessors, the loader has made sure that a block fits on one, and the launch is
  cooperative, so the driver starts it only when all blocks fit.

The simulator runs the blocks of such a launch side by side, but its memory is coherent and in
order: it cannot show a missing fence.
"""

from .runtime import cuda, device, primitives

clear, fetch, multiply_registers, multiply_read, combine, coherent, wait_for = (
    primitives.clear,
    primitives.fetch,
    primitives.multiply_registers,
    primitives.multiply_read,
    primitives.combine,
    primitives.coherent,
    primitives.wait_for,
)


@device
def grid_barrier(arrivals, group, blocks, times):
    """Grid barrier number `times` of the group.

    arrivals : int32, a counter for each group, 0 at the launch
    blocks : how many blocks the group has
    """
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        cuda.threadfence()
        cuda.atomic.add(arrivals, group, 1)
        wait_for(arrivals, group, blocks * times)
        cuda.threadfence()
    cuda.syncthreads()


def block_product(tile, rows, threads, weights, vector, totals, together):
    """Functions of a block: `start`, and `multiply`, the product of weights and a vector a row.

    tile : the Tile of the product
    rows : sequences of the block, each with a vector
    threads : of the block
    weights, vector, totals : where each begins in shared memory, in elements
    together : the block is one of a grid sweep, whose blocks write the vectors to `exchange`

    Arguments of the functions:

    shared : the block's shared memory
    local : (tile.local_size,) the thread's registers for weights
    sums : (rows * wide,) the thread's registers for sums
    W : the packed weights of all blocks, as `layout.pack` orders them
    exchange : vectors of all sequences from `base` on, (B, inner), where `together`
    b0 : the block's first sequence, of B
    """
    WIDTH, Q, M, QUADS = tile.width, tile.lanes, tile.wide, tile.quads
    REGISTERS, SHARED = tile.registers, tile.shared
    READ = QUADS - REGISTERS - SHARED
    INNER, PIECES, PIECE = tile.inner, tile.pieces, tile.piece
    ROW, TOTAL, GROUPS = tile.row, tile.total, tile.groups
    SPAN = Q * WIDTH
    STEP = threads * WIDTH  # between the vectors of a thread's weights
    SIZE = QUADS * M * STEP
    FETCHED, SUMS = REGISTERS * M, rows * M

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
    def fetch_vectors(shared, exchange, base, b0, B, piece):
        """Load a piece of the vectors of all rows into shared memory."""
        low = piece * ROW
        span = min(ROW, INNER - low)
        for k in range(cuda.threadIdx.x, rows * span, threads):
            r, j = k // span, k % span
            if b0 + r < B:
                there = coherent(exchange, base + (b0 + r) * INNER + low + j)
                shared[vector + r * ROW + j] = there
        cuda.syncthreads()

    @device
    def multiply(shared, local, sums, W, exchange, base, b0, B):
        """Set totals[row, column] to the product, which may be read after a syncthreads."""
        tid = cuda.threadIdx.x
        lane, group = tid % Q, tid // Q
        clear(sums, SUMS)
        at = vector + lane * WIDTH
        if together:
            fetch_vectors(shared, exchange, base, b0, B, 0)
        multiply_registers(sums, local, shared, at, ROW, SPAN, rows, M, REGISTERS)
        for i in range(SHARED):
            multiply_read(
                sums, shared, weights + i * M * STEP + tid * WIDTH, STEP, shared,
                at + (REGISTERS + i) * SPAN, ROW, rows, M,
            )  # fmt: skip
        if READ > 0:
            first = cuda.blockIdx.x * SIZE + tid * WIDTH
            for i in range(REGISTERS + SHARED, PIECE):
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
