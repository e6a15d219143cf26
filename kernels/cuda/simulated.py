"""The functions of `intrinsics` in plain Python, for Numba's simulator of CUDA.

Their docstrings are there. Here a shuffle between lanes is an exchange through memory, with the
same sums in the same order.
"""

import threading
from functools import lru_cache

import numpy as np

VECTOR_BYTES = 16


def _width(array):
    return VECTOR_BYTES // array.dtype.itemsize


def take(array, index, stride, count):
    return tuple(array[index + k * stride] for k in range(count))


def give(array, index, stride, values):
    for k, value in enumerate(values):
        array[index + k * stride] = value


def give_rows(array, start, step, index, stride, values, row, pieces):
    for k, value in enumerate(values):
        piece, place = divmod(index + k * stride, row) if pieces > 1 else (0, index + k * stride)
        array[start + piece * step + place] = value


def give_words(array, start, step, index, stride, values, row, pieces, time):
    low = np.array(values, np.float32).view(np.uint32).astype(np.int64)
    give_rows(array, start, step, index, stride, low | time << 32, row, pieces)


def prefetch(array, index, stride, count):
    assert index >= 0 and index + (count - 1) * stride < array.size


def reciprocal(value):
    return 1 / value


def numbers(array, values):
    return tuple(array.dtype.type(value) for value in values)


def part(values, start, count):
    return values[start : start + count]


def plus(values, more, start):
    found = list(values)
    for k, value in enumerate(more):
        found[start + k] = found[start + k] + value
    return tuple(found)


def replaced(values, first):
    return tuple(first) + tuple(values[len(first) :])


def chosen(condition, values, others):
    return values if condition else others


def only(condition, values):
    return values if condition else tuple(type(value)(0) for value in values)


def fetch(local, memory, start, stride, count):
    width = _width(memory)
    for i in range(count):
        for c in range(width):
            local[i * width + c] = memory[start + i * stride + c]


def clear(sums, count):
    sums[:count] = 0


@lru_cache(maxsize=1024)
def _places(rows, count, width, row_step, step):
    """Indices of the vectors of 16 bytes that a thread multiplies, (rows, count, width)."""
    row, vector, number = np.ix_(range(rows), range(count), range(width))
    return row * row_step + vector * step + number


def multiply_registers(sums, local, memory, start, row_step, step, rows, wide, count):
    if count:
        width = _width(memory)
        vectors = memory[start + _places(rows, count, width, row_step, step)]
        weights = local[: count * wide * width].reshape(count, wide, width)
        sums[: rows * wide] += np.einsum("ric,imc->rm", vectors, weights).reshape(-1)


def multiply_read(sums, weights, w_start, w_step, memory, start, row_step, step, rows, wide, count):
    width = _width(memory)
    vectors = memory[start + _places(rows, count, width, row_step, step)]
    found = weights[w_start + _places(wide, count, width, w_step, wide * w_step)]
    sums[: rows * wide] += np.einsum("ric,mic->rm", vectors, found).reshape(-1)


def combine(sums, lane, active, totals, start, row_step, rows, wide, lanes):
    thread = threading.current_thread()
    exchange = thread.block.lanes
    values, base, mask = [sums[k] for k in range(rows * wide)], 0, lanes // 2
    while mask:
        exchange[thread.thread_id] = values
        thread.syncthreads()
        theirs = exchange[thread.thread_id ^ mask]
        half = len(values) // 2
        if len(values) % 2:
            mixed = [a + b for a, b in zip(values, theirs, strict=True)]
        elif lane & mask:
            mixed = [a + b for a, b in zip(values[half:], theirs[half:], strict=True)]
            base += half
        else:
            mixed = [a + b for a, b in zip(values[:half], theirs[:half], strict=True)]
        thread.syncthreads()
        values, mask = mixed, mask // 2
    if active:
        for k, value in enumerate(values, base):
            totals[start + k // wide * row_step + k % wide] = value


def copy_rows(shared, place, memory, start, thread, threads, total, at_once):
    width = _width(memory)
    for k in range(thread * width, total * width, threads * width):
        shared[place + k : place + k + width] = memory[start + k : start + k + width]


def copy_words(shared, place, memory, start, thread, threads, total, at_once, time):
    width = _width(shared)
    for k in range(thread * width, total * width, threads * width):
        while np.any(memory[start + k : start + k + width] >> 32 < time):
            threading.current_thread().rest()
        words = memory[start + k : start + k + width].astype(np.uint32)
        shared[place + k : place + k + width] = words.view(shared.dtype)


def release_one(counts, index):
    counts[index] += 1


def wait_for(counts, index, least):
    while counts[index] < least:
        threading.current_thread().rest()
