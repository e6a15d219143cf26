"""What this machine can do, measured: arithmetic, BLAS, bandwidth: python -m bench.roofline.

The floor of a forward and backward pass is its multiply-adds over the measured arithmetic: three
products of (I + H) x G*H a row, whatever the implementation.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from fastbptt.kernels.access import data
from fastbptt.kernels.cpu import products, team, tile
from fastbptt.kernels.cpu.memory import Workspace
from fastbptt.kernels.cpu.weights import Matrix
from fastbptt.kernels.jit import OPTIONS
from numba import njit

from fastbptt.commands import info

RESULTS = Path(__file__).parent / "results"
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
def repeat_product(out, a, w, rows, inner_size, columns, count):
    """out += a @ w, `count` times; `w` is from `packed`."""
    for _ in range(count):
        products.product(
            data(out), 0, columns, data(a), 0, inner_size, rows, data(w), inner_size, 1, 0, columns
        )


def packed(inner_size, columns, value, dtype):
    """A matrix of one value as the products take it."""
    weight = np.full((inner_size, columns), value, dtype)
    return Matrix(weight, Workspace(), 1).back


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


def best(function, rounds=9):
    """The least seconds of several runs, after one that is not counted."""
    function()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return min(taken)


def tile_peak(dtype):
    """Multiply-adds a second of one core in the largest tile, in thousand millions.

    The tile reads its panel from a matrix of one panel that fits the first-level cache.
    """
    terms = 128
    columns = tile.PANEL_VECTORS * tile.VECTOR_BYTES // np.dtype(dtype).itemsize
    out, a = np.zeros(6 * columns, dtype), np.full(6 * terms, 1e-3, dtype)
    w = packed(terms, columns, 1e-3, dtype)
    seconds = best(lambda: repeat_product(out, a, w, 6, terms, columns, 20_000))
    return 6 * terms * columns * 20_000 / seconds / 1e9


def product(dtype, rows, inner_size, columns):
    """The same for a whole product."""
    out, a = np.zeros(rows * columns, dtype), np.full(rows * inner_size, 1e-3, dtype)
    w = packed(inner_size, columns, 1e-3, dtype)
    count = max(1, 200_000_000 // (rows * inner_size * columns))
    seconds = best(lambda: repeat_product(out, a, w, rows, inner_size, columns, count))
    return rows * inner_size * columns * count / seconds / 1e9


def blas(dtype):
    """The same for NumPy's BLAS on one thread, as it comes and with other cores' kernels."""
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
    """GB a second that one core reads and copies (bytes read plus bytes written)."""
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


def over_floor(compare, peaks, threads):
    """How many times its floor each point of a comparison took us."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}
    rows = []
    for point in compare["points"]:
        if point["cell"] not in gates:  # several layers
            continue
        B, I, H = point["B"], point["I"], point["H"]
        work = 3 * B * gates[point["cell"]] * H * (I + H)
        floor = work / (peaks[point["dtype"]] * threads) / 1e3
        took = point["us_per_step"]["fastbptt"]
        names = {name: point[name] for name in ("cell", "dtype", "T", "B", "I", "H")}
        rows.append({**names, "floor_us": floor, "us": took, "over_floor": took / floor})
    return rows


def main():
    """Measure, print and write a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--compare", type=Path, default=RESULTS / "compare.json")
    parser.add_argument("--out", type=Path, default=RESULTS / "roofline.json")
    args = parser.parse_args()
    threads = team.available_cpus()
    peaks = {dtype: tile_peak(dtype) for dtype in ("float32", "float64")}
    shapes = ((1, 64, 64), (1, 256, 256), (1, 1024, 1024), (32, 64, 256), (32, 1024, 1024))
    result = {
        "machine": info.describe(threads),
        "tile": peaks,
        "products": {
            dtype: {"x".join(map(str, shape)): product(dtype, *shape) for shape in shapes}
            for dtype in peaks
        },
        "blas": {dtype: blas(dtype) for dtype in peaks},
        "bandwidth": bandwidth(),
        "units": "multiply-adds: 1e9 a second, one core; bandwidth: GB a second, one core",
    }
    if args.compare.exists():
        compare = json.loads(args.compare.read_text())
        result["points"] = over_floor(compare, peaks, compare["machine"]["threads"])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for name in ("tile", "products", "blas", "bandwidth"):
        print(name, json.dumps(result[name], indent=1))
    for row in result.get("points", ()):
        shape = " ".join(f"{axis}{row[axis]}" for axis in "TBIH")
        print(f"{row['cell']:4} {row['dtype']} {shape:24} {row['over_floor']:6.2f} x the floor")


if __name__ == "__main__":
    main()
