"""What this machine can do, and what holds each size back: python -m bench.roofline.

Arithmetic, BLAS and bandwidth are measured, and then each size: the time of a forward and backward
pass with all gradients, and beside it the least that a step can take. That is the largest of three
floors, measured in the same run (`bench.floors` says how): the multiply-adds at the rate of the
largest tile, the bytes of the weights at the rate of the cache that they stay in, and the chain of
operations that wait for each other. The multiply-adds are those of three products of (I + H) x G*H
a row, in any implementation. `none_of_them` is the part of the time above the floor.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from fastbptt.kernels.cpu import team, tile
from fastbptt.kernels.jit import OPTIONS
from numba import njit

from fastbptt.commands import info
from fastbptt.commands.bench import peers

from . import compare, floors, stored
from .floors import best, packed, repeat_product

DTYPE = "float32"  # of the sizes
POINTS = (0, 1, 3, 4, 6, 8)  # indices of compare.GRID
SHAPES = ((1, 64, 64), (1, 256, 256), (1, 1024, 1024), (32, 64, 256), (32, 1024, 1024))
_LEVELS = {"16 KiB": 1 << 14, "256 KiB": 1 << 18, "4 MiB": 1 << 22, "256 MiB": 1 << 28}
_CORES = {64: ("SapphireRapids", "SkylakeX"), 32: ("Zen", "Haswell"), 16: ()}
_BLAS = """
import time, numpy as np
a = np.ones((1024, 1024), {dtype!r}); b = a.copy(); best = 1e9
for _ in range(12):
    start = time.perf_counter(); a @ b; best = min(best, time.perf_counter() - start)
print(1024**3 / best / 1e9)
"""


@njit(**OPTIONS)
def _read(words, count):
    found = words[0]
    for _ in range(count):
        for i in range(words.size):
            found ^= words[i]
    return found


@njit(**OPTIONS)
def _copy(target, source, count):
    for _ in range(count):
        for i in range(source.size):
            target[i] = source[i]


def product(dtype, rows, inner_size, columns):
    """Return the multiply-adds a second of one core in a whole product, in units of 10^9."""
    out, a = np.zeros(rows * columns, dtype), np.full(rows * inner_size, 1e-3, dtype)
    w = packed(inner_size, columns, 1e-3, dtype)
    count = max(1, 200_000_000 // (rows * inner_size * columns))
    seconds = best(lambda: repeat_product(out, a, w, rows, inner_size, columns, count))
    return rows * inner_size * columns * count / seconds / 1e9


def blas(dtype):
    """Return the same for NumPy's BLAS on one thread, with its default and with other kernels."""
    results = {}
    for core in ("", *_CORES[tile.VECTOR_BYTES]):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        if core:
            environment["OPENBLAS_CORETYPE"] = core
        command = [sys.executable, "-c", _BLAS.format(dtype=dtype)]
        text = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
        results[core or "as shipped"] = float(text)
    return results


def bandwidth():
    """Return the GB a second that one core reads, and copies (bytes read plus bytes written)."""
    results = {}
    for level, size in _LEVELS.items():
        words, target = np.ones(size // 8, np.int64), np.empty(size // 8, np.int64)
        count = max(1, (1 << 28) // size)
        read = best(lambda: _read(words, count), 5)  # noqa: B023 - used at once
        copied = best(lambda: _copy(target, words, count), 5)  # noqa: B023
        results[level] = {
            "read": size * count / read / 1e9,
            "copy": 2 * size * count / copied / 1e9,
        }
    return results


def point(cell, sizes, threads, rounds, measured):
    """Return the time of fastbptt at a size, its floors, and which of them is the largest."""
    timed = compare.time_point(cell, *sizes, DTYPE, threads, rounds, ["fastbptt"])
    name = peers.problem(cell, 1, 1, 1, 1, DTYPE)[0].cell
    micros, divided = floors.floors(name, *sizes, DTYPE, threads, measured)
    took, held_by = timed["us_per_step"]["fastbptt"], max(micros, key=micros.get)
    floor = micros[held_by]
    return {
        **{key: timed[key] for key in ("cell", "dtype", "T", "B", "I", "H")},
        "us": took,
        "floors_us": micros,
        "floor_us": floor,
        "over_floor": took / floor,
        "held_by": held_by,
        "none_of_them": max(0.0, 1 - floor / took),
        "divided": divided,
    }


def main():
    """Measure, print and store the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", nargs="+", default=peers.CELLS, choices=peers.CELLS)
    parser.add_argument("--points", nargs="+", type=int, default=POINTS, help="of bench.compare")
    parser.add_argument("--threads", type=int, default=team.available_cpus())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=stored.RESULTS / "roofline.json")
    args = parser.parse_args()
    machine = info.describe(args.threads)
    peaks = {dtype: floors.tile_peak(dtype) for dtype in ("float32", "float64")}
    measured = {
        "peak": floors.tile_peak(DTYPE, args.threads),
        "alone": floors.read_rates(DTYPE, 1),
        "together": floors.read_rates(DTYPE, args.threads),
    }
    result = {
        "machine": machine,
        "tile": peaks,
        "tile_together": measured["peak"],
        "products": {
            dtype: {"x".join(map(str, shape)): product(dtype, *shape) for shape in SHAPES}
            for dtype in peaks
        },
        "blas": {dtype: blas(dtype) for dtype in peaks},
        "bandwidth": bandwidth(),
        "reads": {
            str(size): {
                "level": floors.level_of(size),
                **{name: measured[name][size] for name in ("alone", "together")},
            }
            for size in floors.SIZES
        },
        "units": "multiply-adds: 1e9 a second, one core (tile_together: all threads); bandwidth "
        "and reads: GB a second, one core",
    }
    for name in ("tile", "tile_together", "products", "blas", "bandwidth", "reads"):
        print(name, json.dumps(result[name], indent=1))
    result["points"] = []
    for cell in args.cells:
        for index in args.points:
            found = point(cell, compare.GRID[index], args.threads, args.rounds, measured)
            result["points"].append(found)
            print(_line(found), flush=True)
    stored.save(args.out, result)


def _line(found):
    shape = " ".join(f"{axis}{found[axis]}" for axis in "TBIH")
    three = "  ".join(f"{name} {value:.3g}" for name, value in found["floors_us"].items())
    return (
        f"{found['cell']:4} {shape:24} {found['us']:9.2f} us, {found['over_floor']:5.2f} x the "
        f"floor ({three}); {found['held_by']}, {found['none_of_them']:.0%} none of them"
    )


if __name__ == "__main__":
    main()
