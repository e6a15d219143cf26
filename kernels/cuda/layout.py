"""The layout of a sweep on a card: chosen for a cell's sizes by a model of a step's cost."""

from functools import lru_cache
from itertools import product
from typing import NamedTuple

from ..cells.registry import CELLS
from .banks import BANKS, total_step

VECTOR_BYTES = 16  # that a thread loads at once
COPIED = 8  # loads of a thread on their way at a time while it copies: each takes four registers
ON_THE_WAY = 4  # the same while it reads weights
# Whether float32 grid sweeps exchange words instead of having barriers: to be measured on a GPU.
WORDS = False
_UNROLLED = 2048  # multiply-adds in a straight line at most
_OTHER = 56, 24  # registers of a thread besides weights, sums and vectors: fixed, for each word
# The model's constants. None is measured with these kernels yet.
# Bytes a cycle of a multiprocessor from the second-level cache: half of what NVIDIA's whitepaper
# on the A100 gives, 5120 for all 108.
_READ = 24.0
# Cycles of a load from there: 262 and 263 measured on A100 and H100, arXiv:2402.13499.
_TRIP = 262.0
# A grid barrier waits for it one time after the other: until what was written is there, for the
# addition, for a read that missed it and one that finds it.
_BARRIER = 4 * _TRIP
_EACH = 10.0  # more for each block, since the counter adds one after the other: a guess
_SYNC = 40.0  # cycles of a syncthreads: a guess, for 8 warps
_LATENCY = 4.0  # from a multiply-add to the next of the same sum, arXiv:1804.06826
# Of a cell's maths, one operation after the other: some 50 of 4 cycles, 4 of special functions.
_CELL = 260.0


class Card(NamedTuple):
    """The limits of a card, or of the simulator, for a kernel."""

    capability: tuple  # (major, minor)
    processors: int
    shared: int  # bytes that a block may have
    threads: int = 1024  # of a block at most
    warp: int = 32
    registers: int = 65536  # of a multiprocessor
    halves: int = 2  # float32 multiply-adds in the time of a float64 one


class Tile(NamedTuple):
    """A product of `inner` numbers of each row with a block's `columns`, by lanes * groups threads.

    Each thread has `wide` columns and one of every `lanes` vectors of 16 bytes along `inner`: so
    `quads` vectors a column. The first `registers` of them stay in registers, the next `shared` in
    shared memory, and the others are read in each step.
    """

    inner: int
    columns: int
    width: int  # numbers in a vector
    lanes: int
    wide: int
    registers: int
    shared: int
    pieces: int = 1  # in which a row is loaded into shared memory, if it does not fit as a whole

    @property
    def quads(self):
        return -(-self.inner // (self.lanes * self.width))

    @property
    def piece(self):
        """Vectors of a thread in a piece."""
        return -(-self.quads // self.pieces)

    @property
    def row(self):
        """Numbers of a row, or of a piece of it, in shared memory."""
        return self.piece * self.lanes * self.width

    @property
    def groups(self):
        return -(-self.columns // self.wide)

    @property
    def total(self):
        """Numbers of a row of the product."""
        return self.groups * self.wide

    @property
    def threads(self):
        return self.groups * self.lanes

    @property
    def local_size(self):
        """Numbers in a thread's local array of weights; at least one, since an array has some."""
        return max(1, self.registers * self.wide * self.width)


class Shape(NamedTuple):
    """A sweep: `parts` blocks of `units` units each, for `rows` sequences, in `threads` threads.

    first, second : the Tiles of the two products; `second` is NO_TILE where there is none
    words : the blocks of a grid sweep exchange words that each say their step, and have no barrier
    """

    hidden: int
    units: int
    parts: int
    rows: int
    threads: int
    first: Tile
    second: Tile
    words: bool = False

    @property
    def places(self):
        """Where weights, vectors and totals of both products begin in shared memory, and its size.

        In numbers, not bytes.
        """
        found, at = [], 0
        for tile in (self.first, self.second):
            found.append(at)
            at += tile.shared * tile.wide * self.threads * tile.width
        for tile in (self.first, self.second):
            found.append(at)
            at += self.rows * tile.row
        for step in self.total_steps:
            found.append(at)
            at += self.rows * step + 3 & ~3
        return (*found, at)

    @property
    def total_steps(self):
        """From a row of either product's totals to the next."""
        return [total_step(tile, self.rows, self.units) for tile in (self.first, self.second)]

    def exchanged(self, batch):
        """Numbers that the blocks of a grid sweep pass on for each product, in one buffer of two.

        There is a row for each sequence of all slices, as it is in shared memory.
        """
        batch = _up(batch, self.rows)
        return [tile.pieces * batch * tile.row for tile in (self.first, self.second)]

    def shared_bytes(self, itemsize):
        """Bytes of shared memory."""
        return self.places[-1] * itemsize


NO_TILE = Tile(0, 0, 1, 1, 1, 0, 0)


def _up(n, step):
    return -(-n // step) * step


def _cost(card, tile, rows, threads, item):
    """Cycles of a product."""
    warps = threads / card.warp
    wide = card.halves if item == 8 else 1
    vector = VECTOR_BYTES / item
    each = tile.quads * vector * wide  # multiply-adds one after the other, for each sum of a thread
    adds = each * max(rows * tile.wide, _LATENCY, warps / 4 * rows * tile.wide)
    loads = warps * tile.quads * rows * 2  # of vectors, each the same for many threads
    loads += warps * tile.shared * tile.wide * 4
    vectors = (tile.quads - tile.registers - tile.shared) * tile.wide  # that a thread reads
    trips = -(-vectors // max(ON_THE_WAY, tile.wide))
    read = max(vectors * threads * VECTOR_BYTES / _READ, trips * _TRIP)
    sums, shuffles = rows * tile.wide, 0.0
    lanes = tile.lanes
    while lanes > 1:
        sums = sums // 2 if sums % 2 == 0 else sums
        shuffles += sums
        lanes //= 2
    steps = tile.lanes.bit_length() - 1
    shuffles *= warps * item / 4
    return max(adds, loads) + read + shuffles + 30 * steps + 60


def _tiles(card, inner, columns, rows, item, pieces):
    """Ways to divide a product among threads, the weights not placed yet."""
    width = VECTOR_BYTES // item
    for lanes, wide in product((1, 2, 4, 8, 16, 32), (1, 2, 4, 8)):
        if (lanes > 1 and lanes * width >= 2 * inner) or (wide > 1 and wide >= 2 * columns):
            continue
        tile = Tile(inner, columns, width, lanes, wide, 0, 0, pieces)
        if tile.threads <= card.threads and rows * wide <= 64:
            yield tile


def _placed(card, tiles, rows, threads, item):
    """The tiles with their weights placed, or None if they do not fit on the card."""
    words = item // 4
    most = min(255, card.registers // _up(threads, 4 * card.warp)) // 8 * 8  # 4 schedulers
    free = most - _OTHER[0] - _OTHER[1] * words
    shared = card.shared // item
    for tile in tiles:
        shared -= rows * (tile.row + tile.total + BANKS) + 16
    placed = []
    for tile in tiles:
        if not tile.inner:
            placed.append(tile)
            continue
        sums = rows * tile.wide * words
        vectors = min(rows, 4) * tile.width * words
        each = tile.wide * tile.width * words  # registers of a vector of each column
        own = (free - sums - vectors) // sum(1 for t in tiles if t.inner)
        registers = max(0, min(tile.quads, own // each))
        if registers < tile.quads:  # the others need registers, too, two vectors at a time
            registers = max(0, min(tile.quads, own // each - 2))
        if tile.pieces > 1:
            placed.append(tile)
            continue
        registers = min(registers, max(0, _UNROLLED // (rows * tile.wide * tile.width)))
        if own < 0:
            return None
        one = tile.wide * threads * tile.width
        if registers + shared // one < tile.quads:  # reading in each step takes addresses
            registers = max(0, registers - -(-16 // each))
        more = max(0, min(tile.quads - registers, shared // one))
        shared -= more * one
        placed.append(tile._replace(registers=registers, shared=more))
    return None if shared < 0 else placed


def _candidates(card, cell, hidden, batch, item, reverse, pieces=1):
    found = CELLS[cell]
    gates, second = found.gates - found.second, found.second
    for parts in _parts(card, hidden):
        units = -(-hidden // parts)
        if units * (parts - 1) >= hidden or parts == 1 < pieces:
            continue
        for rows in (1, 2, 4, 8, 16):
            if (rows > 1 and rows >= 2 * batch) or units * rows > card.threads:
                continue
            inner, columns = (gates * hidden, units) if reverse else (hidden, gates * units)
            ways = [_tiles(card, inner, columns, rows, item, pieces)]
            ways.append(_tiles(card, hidden, units, rows, item, pieces) if second else [NO_TILE])
            for tiles in product(*map(list, ways)):
                threads = max(units * rows, *(tile.threads for tile in tiles))
                threads = _up(threads, max(card.warp, *(tile.lanes for tile in tiles)))
                if threads > card.threads:
                    continue
                placed = _placed(card, tiles, rows, threads, item)
                if placed is not None:
                    words = WORDS and parts > 1 and item == 4
                    yield Shape(hidden, units, parts, rows, threads, *placed, words)


def _parts(card, hidden):
    """Into how many blocks the units may be divided."""
    most = min(card.processors, hidden)
    return sorted({1, *(1 << k for k in range(1, most.bit_length()) if 1 << k <= most), most})


def _step_cost(card, shape, batch, item):
    """Cycles of a step of all sequences, where a multiprocessor has one block at a time."""
    slices = -(-batch // shape.rows)
    at_once = max(1, card.processors // shape.parts)
    cycles = _CELL + 2 * _SYNC + _cost(card, shape.first, shape.rows, shape.threads, item)
    exchange = _exchange_cost(shape, shape.first, item)
    if shape.second.inner:
        cycles += _CELL + 2 * _SYNC
        cycles += _cost(card, shape.second, shape.rows, shape.threads, item)
        exchange += _exchange_cost(shape, shape.second, item)
    if shape.parts > 1:
        cycles += exchange
    return -(-slices // at_once) * cycles


def _exchange_cost(shape, tile, item):
    """Cycles of a grid barrier, and of copying what all blocks have passed on."""
    size = tile.pieces * shape.rows * tile.row * item
    trips = -(-size // (VECTOR_BYTES * shape.threads * COPIED))
    return _BARRIER + _EACH * shape.parts + trips * _TRIP + size / _READ


@lru_cache(maxsize=1024)
def choose(card, cell, hidden, batch, item, reverse):
    """Return (shape, cycles a step) of the sweep that should take the least time.

    item : bytes of a number
    """
    best, pieces = None, 1
    while best is None:
        for shape in _candidates(card, cell, hidden, batch, item, reverse, pieces):
            key = (_step_cost(card, shape, batch, item), shape)
            if best is None or key < best:
                best = key
        if best is None and pieces > hidden:
            raise ValueError(f"no layout of H={hidden} fits on this card")
        pieces *= 2
    return best[1], best[0]


def pack(xp, weight, tile, parts, units, threads):
    """Return `weight` (gates, H, inner) in the order in which kernels read it.

    The order is (parts, quads, wide, threads, width), padded with zeros.
    """
    gates, hidden, inner = weight.shape
    row = tile.quads * tile.lanes * tile.width
    whole = xp.zeros((gates, parts * units, row), weight.dtype)
    whole[:, :hidden, :inner] = weight
    whole = whole.reshape(gates, parts, units, row).transpose(1, 0, 2, 3)
    wider = xp.zeros((parts, tile.total, row), weight.dtype)
    wider[:, : gates * units] = whole.reshape(parts, gates * units, row)
    wider = wider.reshape(parts, tile.groups, tile.wide, tile.quads, tile.lanes, tile.width)
    wider = wider.transpose(0, 3, 2, 1, 4, 5).reshape(parts, tile.quads, tile.wide, -1, tile.width)
    packed = xp.zeros((parts, tile.quads, tile.wide, threads, tile.width), weight.dtype)
    packed[:, :, :, : tile.threads] = wider
    return packed.reshape(-1)
