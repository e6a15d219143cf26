"""The time that a step needs at least, in three measures, each measured on this machine.

- **arithmetic**: its multiply-adds at the rate of the largest tile, with all threads at work;
- **weights**: the bytes of W and U that its products must bring from where they stay between two
  steps. That is W in the forward and in the reverse sweep of every step, and U once for each piece
  of a chunk. A thread brings all of W for its own sequences, or a gang's member its share of it.
  The rate is that of the tile's own loads, from arrays as large as what one thread brings;
- **chain**: the operations that wait for each other. In a sweep the sums of a unit, one term after
  another; its activations; the store; and the load of the next step's product. One vector of units
  is run alone, forward and in reverse, with as many terms as the layer has.

The three overlap in the best case, so the floor is the largest of them.
"""

import re
from functools import cache
from threading import Barrier, Thread

import numpy as np
from fastbptt.kernels.cells import registry as cells
from fastbptt.kernels.cpu import products, split, tile
from fastbptt.kernels.cpu.memory import Workspace
from fastbptt.kernels.cpu.weights import Matrix
from fastbptt.kernels.flat import compiler_fence, data, load, offset, store
from fastbptt.kernels.jit import OPTIONS
from numba import njit

from fastbptt.backends.cpu_footprint import footprint
from fastbptt.commands import info, measuring

SIZES = tuple(1 << n for n in range(14, 27))  # bytes of the arrays that the tile reads
_TERMS = 256  # rows of such an array, or fewer where it is small
_STEPS = 20_000  # of a chain


@njit(**OPTIONS)
def repeat_product(out, a, w, rows, inner_size, columns, count):
    """out += a @ w, `count` times; `w` is from `packed`."""
    for _ in range(count):
        products.product(
            data(out), columns, data(a), inner_size, rows, data(w), inner_size, 1, 0, columns
        )


def packed(inner_size, columns, value, dtype):
    """Return a matrix of one value, packed for the products."""
    weight = np.full((inner_size, columns), value, dtype)
    return Matrix(Workspace(), 1, weight).back


def best(function, rounds=9):
    """Return the least seconds of some runs; the first does not count."""
    function()
    return min(measuring.seconds(function) for _ in range(rounds))


def at_once(functions, rounds=9):
    """Return the least seconds in which all functions are done, each in a thread of its own."""
    if len(functions) == 1:
        return best(functions[0], rounds)
    least = float("inf")
    for _ in range(rounds + 1):  # the first compiles
        taken, ready = [], Barrier(len(functions))

        def run(function, taken=taken, ready=ready):
            ready.wait()
            taken.append(measuring.seconds(function))

        threads = [Thread(target=run, args=(function,)) for function in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        least = min(least, max(taken))
    return least


def tile_peak(dtype, threads=1):
    """Return the multiply-adds a second of so many cores together in the largest tile, in 10^9.

    The matrix is one packed panel, which fits the first-level cache.
    """
    terms, count = 128, 20_000
    columns = tile.PANEL_VECTORS * tile.VECTOR_BYTES // np.dtype(dtype).itemsize

    def work():
        out, a = np.zeros(6 * columns, dtype), np.full(6 * terms, 1e-3, dtype)
        w = packed(terms, columns, 1e-3, dtype)
        return lambda: repeat_product(out, a, w, 6, terms, columns, count)

    seconds = at_once([work() for _ in range(threads)])
    return 6 * terms * columns * count * threads / seconds / 1e9


def read_rates(dtype, threads):
    """Return {bytes: GB a second} of one core, as a tile of one row reads an array that large.

    With more threads, of each of so many cores that read their own arrays at once.
    """
    item = np.dtype(dtype).itemsize

    def work(size):
        terms = min(_TERMS, size // (2 * products.PANEL_BYTES))
        columns = size // (terms * item)
        out, a = np.zeros(columns, dtype), np.full(terms, 1e-3, dtype)
        w = packed(terms, columns, 1e-3, dtype)
        count = max(1, (1 << 27) // size)
        return lambda: repeat_product(out, a, w, 1, terms, columns, count)

    rates = {}
    for size in SIZES:
        seconds = at_once([work(size) for _ in range(threads)], 5)
        rates[size] = size * max(1, (1 << 27) // size) / seconds / 1e9
    return rates


def rate_of(rates, size):
    """The rate for an array of that many bytes: the best of all that are as large, or larger."""
    return max((rate for known, rate in rates.items() if known >= size), default=rates[SIZES[-1]])


def level_of(size, caches=None):
    """The cache that an array of that many bytes stays in, as the system names them, or DRAM."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    for name, count, unit in re.findall(r"(L\d) (\d+)([KMG])", caches or info.caches()):
        if size <= int(count) * units[unit]:
            return name
    return "DRAM"


def _build_chain(CELL):
    """The sweeps of one vector of units, `count` steps of nothing but what waits for the last."""
    cell = cells.CELLS[CELL]
    GATES, STATES, RESIDUALS, BLOCKS, DELTAS, PARAMS = (
        cell.gates, cell.states, cell.residuals, cell.blocks, cell.delta_blocks, len(cell.sums)
    )  # fmt: skip
    SPLIT = int(cell.split)

    @njit(**OPTIONS)
    def forward(z, states, residuals, params, W, H, lanes, parts, count):
        for t in range(count):
            before, after = (t & 1) * H, (1 - (t & 1)) * H
            products.product(
                offset(z, SPLIT * lanes), lanes, offset(states, before), H, 1, data(W), H, parts, 0,
                lanes,
            )  # fmt: skip
            for j in range(lanes):
                a = load(z, j, lanes, BLOCKS)
                s = load(states, before + j, 2 * H, STATES)
                p = load(params, j, lanes, PARAMS)
                s, extra = cells.forward(CELL, a, s, p)
                store(states, after + j, 2 * H, s, 0)
                store(residuals, j, lanes, extra, STATES)
            compiler_fence()

    @njit(**OPTIONS)
    def reverse(carry, states, residuals, params, delta, W, H, lanes, parts, count):
        for t in range(count):
            current, passing = (t & 1) * H, (1 - (t & 1)) * H
            for j in range(lanes):
                ds = load(carry, current + j, 2 * H, STATES)
                s = load(states, j, 2 * H, STATES)
                extra = load(residuals, j, lanes, RESIDUALS)
                p = load(params, j, lanes, PARAMS)
                d, ds = cells.reverse(CELL, ds, s, s, extra, p)
                store(delta, j, H, d, 0)
                store(carry, passing + j, 2 * H, ds, DELTAS)
            compiler_fence()
            products.product(
                offset(carry, passing), lanes, offset(delta, SPLIT * H), GATES * H, 1, data(W),
                GATES * H, parts, 0, lanes,
            )  # fmt: skip

    return forward, reverse


@cache
def chain(name, H, dtype):
    """Return the seconds of a step's chain, (forward, reverse), of the cell of that name."""
    cell, item = cells.CELLS[name], np.dtype(dtype).itemsize
    lanes = tile.VECTOR_BYTES // item
    forward, reverse = _build_chain(name)
    wide, step = cell.gates * H, cell.delta_blocks * H
    z, states = np.zeros(cell.blocks * lanes, dtype), np.full(cell.states * 2 * H, 0.1, dtype)
    residuals = np.full(max(1, cell.residuals * lanes), 0.1, dtype)
    params, carry = np.zeros(max(1, len(cell.sums) * lanes), dtype), np.ones_like(states)
    delta = np.zeros(step, dtype)
    forth, back = packed(H, lanes, 1e-3, dtype), packed(wide, lanes, 1e-3, dtype)
    count = max(100, _STEPS * 64 // H)
    parts = products.chains(H, wide, item), products.chains(wide, H, item)
    taken = (
        best(lambda: forward(z, states, residuals, params, forth, H, lanes, parts[0], count), 5),
        best(
            lambda: reverse(
                carry, states, residuals, params, delta, back, H, lanes, parts[1], count
            ),
            5,
        ),
    )
    return tuple(seconds / count for seconds in taken)


def division(name, T, B, I, H, item, threads):
    """Return how a pass is divided, as the kernels divide it.

    members : threads that share the units of a sweep; 1: each sweep is one thread's
    busy : threads that bring W at the same time
    chunk : steps of a chunk
    pieces : how often each thread brings U in a chunk, in the mean
    """
    runs = split.sweep_parts(threads, B)
    members = split.gang_size(threads, cells.CELLS[name], H, B, item)
    chunk = footprint(((name, H, I),), 0, 0, item, T, B, 1).blocks().chunk
    pieces = 1
    if runs < threads:
        rows = chunk * B
        pieces = -(-rows // split.piece_rows_of.py_func(rows, threads)) / threads
    return {"members": members, "busy": max(runs, members), "chunk": chunk, "pieces": pieces}


def weight_seconds(name, I, H, item, divided, alone, together):
    """Return the seconds to bring W and U in a step, and the cache where a thread's W stays.

    alone, together : rates of one core, from `read_rates`, by itself and beside all others
    """
    wide = cells.CELLS[name].gates * H
    rates = together if divided["busy"] > 1 else alone
    seconds, shares = 0.0, []
    for inner, columns in ((H, wide), (wide, H)):
        shares.append(products.packed_size(inner, columns, item) * item / divided["members"])
        seconds += shares[-1] / rate_of(rates, shares[-1]) / 1e9
    for inner, columns in ((I, wide), (wide, I)):
        size = products.packed_size(inner, columns, item) * item
        brought = size * divided["pieces"] / divided["chunk"]
        seconds += brought / rate_of(together, size) / 1e9
    return seconds, level_of(max(shares))


def floors(name, T, B, I, H, dtype, threads, measured):
    """Return the three floors of a step in microseconds, and what they rest on.

    measured : {"peak": multiply-adds of all threads, "alone", "together": rates}, in 10^9 a second
    """
    item, cell = np.dtype(dtype).itemsize, cells.CELLS[name]
    divided = division(name, T, B, I, H, item, threads)
    work = 3 * B * cell.gates * H * (I + H)
    seconds, level = weight_seconds(
        name, I, H, item, divided, measured["alone"], measured["together"]
    )
    micros = {
        "arithmetic": work / measured["peak"] / 1e3,
        "weights": seconds * 1e6,
        "chain": sum(chain(name, H, dtype)) * 1e6,
    }
    return micros, {**divided, "W in": level}
