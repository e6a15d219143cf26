"""Registers, stack and shared memory of the CUDA kernels on each GPU: python -m bench.ptxas.

No GPU is needed. Kernels are compiled to PTX, and `ptxas -v` reports their registers, stack and
spills; so does the linker of the machine code that a GPU would run. Without --all, only the
configurations that CI checks are compiled, for A100 and H100. The table is written after each
kernel, and what is in it is not compiled again by the same compiler from the same sources.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import metadata
from itertools import product
from pathlib import Path

import numpy as np
from fastbptt.kernels.cuda import machine_code, rowwise, sweeps
from fastbptt.kernels.cuda.gpus import KNOWN
from fastbptt.kernels.cuda.layout import choose
from fastbptt.kernels.loss_table import GIVEN
from fastbptt.kernels.source import SOURCE_KEY

from .stored import RESULTS

FILE = RESULTS / "ptxas.json"
REGISTERS = 255  # the most of a thread, on every GPU
CELLS = ("rnn-tanh", "gru-after", "lstm")
OTHERS = ("rnn-sigmoid", "rnn-relu", "rnn-identity", "gru-before", "lstm-peephole")
SHORT = (
    *((cell, dtype, H, B) for cell in CELLS for dtype, H, B in (
        ("float32", 64, 1), ("float32", 256, 16), ("float32", 1024, 64), ("float64", 128, 16))),
    ("gru-before", "float32", 128, 1), ("gru-before", "float64", 256, 16),
    ("lstm-peephole", "float32", 128, 1), ("rnn-relu", "float32", 512, 1),
    ("lstm", "float64", 2048, 1),
)  # fmt: skip
LONG = (
    *product(CELLS, ("float32", "float64"), (32, 128, 256, 512, 1024, 2048), (1, 64)),
    *product(OTHERS, ("float32", "float64"), (128, 512), (1,)),
)  # fmt: skip
_INTEGERS = {"ids": np.int64, "lengths": np.int64, "targets": np.int64, "arrivals": np.int32,
             "order": np.int64, "starts": np.int64}  # fmt: skip
_FLOATS = {"z", "x", "bias", "W", "W2", "params", "states", "residuals", "h", "exchange", "dh",
           "carry", "delta", "v", "o", "c", "y", "out", "a", "d", "restart"}  # fmt: skip
_DOUBLES = {"weights", "values", "total", "restart_sums"}
_SCALARS = {
    **dict.fromkeys(("factor", "scale"), 1.0), **dict.fromkeys(("key", "threshold"), np.uint64(0)),
}  # fmt: skip


def kinds(kernel, dtype):
    """Return Numba's types of a kernel's arguments, by their names: scalars are ints by default."""

    def example(name):
        if name in _INTEGERS or (name == "exchange" and kernel.key[2].words):
            return np.empty(0, _INTEGERS.get(name, np.int64))
        if name in _FLOATS:
            return np.empty(0, dtype)
        if name in _DOUBLES:
            return np.empty(0)
        return _SCALARS.get(name, 0)

    code = kernel.__code__
    return machine_code.signature([example(name) for name in code.co_varnames[: code.co_argcount]])


def assembler():
    """Return the path of ptxas, or None."""
    for path in sys.path:
        found = next(Path(path).glob("nvidia/cu*/bin/ptxas"), None)
        if found is not None:
            return str(found)
    return shutil.which("ptxas")


def versions():
    """Return the versions of the programs that make the table."""
    said = subprocess.run([assembler(), "--version"], capture_output=True, text=True, check=True)
    release = re.search(r"release [\d.]+, V([\d.]+)", said.stdout)[1]
    packages = "numba-cuda", "nvidia-nvvm", "llvmlite"
    return {"ptxas": release, **{name: metadata.version(name) for name in packages}}


def resources(kernel, types, threads, capability):
    """Return registers, and bytes of stack and spills, of a kernel's PTX and machine code."""
    ptx = machine_code.compile_ptx(kernel, types, threads, capability)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx, encoding="ascii")
        arch = "-arch=sm_{}{}".format(*capability)
        said = subprocess.run(
            [assembler(), "-v", arch, str(file), "-o", str(Path(folder) / "kernel.cubin")],
            capture_output=True, text=True, check=True,
        ).stderr  # fmt: skip
    _, shipped = machine_code.machine_code(kernel, types, threads, capability)
    return {**_numbers(said), "as shipped": _numbers(shipped)}


def _numbers(said):
    """Return the numbers in the report of the assembler."""
    texts = (r"(\d+) bytes stack", r"(\d+) bytes spill stores", r"(\d+) bytes spill loads",
             r"Used (\d+) registers")  # fmt: skip
    stack, stores, loads, registers = (int(re.search(text, said)[1]) for text in texts)
    return {"registers": registers, "stack": stack, "spills": stores + loads}


def sweep_row(name, cell, dtype, H, B, reverse):
    """Return a row of the table: the resources of one sweep of one layer on one GPU."""
    card = KNOWN[name]
    kind = getattr(np, dtype)
    item = np.dtype(kind).itemsize
    shape, cycles = choose(card, cell, H, B, item, reverse)
    make = sweeps.reverse_kernel if reverse else sweeps.forward_kernel
    kernel = make(cell, kind, shape)
    found = resources(kernel, kinds(kernel, kind), shape.threads, card.capability)
    return {
        "card": name, "kernel": kernel.__name__, "cell": cell, "dtype": dtype, "H": H, "B": B,
        "parts": shape.parts, "rows": shape.rows, "threads": shape.threads, **found,
        "shared": shape.shared_bytes(item), "model_cycles": round(cycles),
    }  # fmt: skip


def head_rows(name):
    """Yield rows of the kernels of one thread an element or a row, in float32 and float64."""
    for kind in (np.float32, np.float64):
        kernels = [
            *(rowwise.loss_kernel(loss, readout, kind, many) for loss, readout, many in (
                ("squared_error", "identity", False), ("squared_error", "softmax", False),
                ("cross_entropy", "softmax", False), ("binary_cross_entropy", "sigmoid", False),
                ("squared_error", "softmax", True), ("binary_cross_entropy", "sigmoid", True),
                (GIVEN, "softmax", False))),
            rowwise.outputs_kernel("tanh", kind), rowwise.counted_kernel(kind),
            rowwise.dropout_kernel(kind), rowwise.scatter_kernel(kind),
        ]  # fmt: skip
        for kernel in kernels:
            found = resources(kernel, kinds(kernel, kind), rowwise.THREADS, KNOWN[name].capability)
            what = " ".join(str(part) for part in kernel.key[:-1])
            yield {
                "card": name, "kernel": f"{kernel.__name__} {what}".strip(), "dtype": kind.__name__,
                "threads": rowwise.THREADS, **found, "shared": 0,
            }  # fmt: skip


def faults(row):
    """Return the limits that a row exceeds, in words."""
    card, found = KNOWN[row["card"]], []
    for code in (row, row["as shipped"]):
        found += [f"{code[what]} bytes of {what}" for what in ("stack", "spills") if code[what]]
        most = min(REGISTERS, card.registers // row["threads"])
        if code["registers"] > most:
            found.append(f"{code['registers']} registers of {row['threads']} threads")
    if row["shared"] > card.shared:
        found.append(f"{row['shared']} bytes of shared memory")
    return found


def _job(row):
    """The arguments of `sweep_row` that made a row, or None."""
    if "cell" not in row:
        return None
    names = ("card", "cell", "dtype", "H", "B")
    return (*(row[name] for name in names), row["kernel"] == "reverse")


def kept(file):
    """The rows of sweeps in a file that this compiler has made from these sources, by their job."""
    if not file.exists():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    if (found.get("sources"), found["versions"]) != (SOURCE_KEY, versions()):
        return {}
    return {_job(row): row for row in found["rows"] if _job(row)}


def write(file, rows):
    """Write the table, as a whole or not at all."""
    head = json.dumps({"versions": versions(), "sources": SOURCE_KEY})[1:-1]
    lines = ",\n".join(json.dumps(row) for row in rows)
    part = file.with_name(f"{file.name}.part")
    part.write_text(f'{{{head}, "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    part.replace(file)


def table(whole, processes, file):
    """Write the rows as they are made, and return them.

    They are of LONG for all GPUs if `whole`, else of SHORT for two.
    """
    gpus = KNOWN if whole else ("A100", "H100")
    jobs = [
        (card, *point, reverse)
        for card in gpus for point in (LONG if whole else SHORT) for reverse in (False, True)
    ]  # fmt: skip
    found = {job: row for job, row in kept(file).items() if job in set(jobs)}
    with ProcessPoolExecutor(processes) as pool:
        made = {pool.submit(sweep_row, *job): job for job in jobs if job not in found}
        for done in as_completed(made):
            found[made[done]] = done.result()
            write(file, [found[job] for job in jobs if job in found])
    rows = [found[job] for job in jobs] + [row for card in gpus for row in head_rows(card)]
    write(file, rows)
    return rows


def main():
    """Make the table and store it; returns 1 where a kernel exceeds a limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="all configurations, 7.5 to 10.0")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if assembler() is None:
        parser.exit(2, "ptxas is not installed: pip install nvidia-cuda-nvcc\n")
    file = args.out or (FILE.with_name("ptxas_all.json") if args.all else FILE)
    rows = table(args.all, args.processes, file)
    wrong = [(row, faults(row)) for row in rows if faults(row)]
    for row, what in wrong:
        print(row["card"], row["kernel"], row.get("cell", ""), row["dtype"], row.get("H", ""),
              row.get("B", ""), "; ".join(what))  # fmt: skip
    print(f"{len(rows)} kernels, {len(wrong)} that do not fit; {file}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
