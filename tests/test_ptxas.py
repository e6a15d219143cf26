"""The CUDA kernels compile without a GPU, and use the resources that the stored table says."""

import json
import math
import re
from importlib import util

import numpy as np
import pytest
from numba import types

pytest.importorskip("numba_cuda", reason="CUDA kernels need numba-cuda")
pytest.importorskip("bench", reason="bench/ is not beside the tests")
from bench import ptxas

if not util.find_spec("cuda.bindings") or ptxas.assembler() is None or not util.find_spec("nvidia"):
    pytest.skip("compiling for CUDA needs numba-cuda[cu13] and ptxas", allow_module_level=True)

import test_tracing
from fastbptt.kernels import disk
from fastbptt.kernels.cuda import machine_code, rowwise

import fastbptt as fb

KEPT = json.loads(ptxas.FILE.read_text(encoding="utf-8"))
SWEEPS = [row for row in KEPT["rows"] if "cell" in row]
AGAIN = SWEEPS[::5]  # compiled here; bench.ptxas does all


def row_id(row):
    return "-".join(str(row[name]) for name in ("card", "kernel", "cell", "dtype", "H", "B"))


def test_no_kernel_of_the_table_spills_or_takes_more_than_a_card_has():
    assert {row["card"] for row in KEPT["rows"]} == {"A100", "H100"}
    assert len(SWEEPS) == 2 * 2 * len(ptxas.SHORT)
    for row in KEPT["rows"]:
        assert not ptxas.faults(row), row


def test_the_table_goes_on_where_it_was(tmp_path, monkeypatch):
    file = tmp_path / "table.json"
    ptxas.write(file, SWEEPS)
    monkeypatch.setattr(ptxas, "sweep_row", None)  # nothing is compiled again
    monkeypatch.setattr(ptxas, "head_rows", lambda card: [])
    rows = ptxas.table(False, 1, file)
    assert len(rows) == len(SWEEPS) and all(row in SWEEPS for row in rows)
    assert json.loads(file.read_text())["rows"] == rows and list(tmp_path.iterdir()) == [file]
    monkeypatch.setattr(ptxas, "SOURCE_KEY", "of other sources")
    assert ptxas.kept(file) == {}


@pytest.mark.parametrize("row", AGAIN, ids=row_id)
def test_a_kernel_takes_what_the_table_says(row):
    names = ("card", "cell", "dtype", "H", "B")
    found = ptxas.sweep_row(*(row[name] for name in names), row["kernel"] == "reverse")
    assert not ptxas.faults(found)
    if ptxas.versions() == KEPT["versions"]:
        assert found == row
    else:  # another compiler allocates registers in another way
        own = ("registers", "as shipped", "model_cycles")
        assert {k: v for k, v in found.items() if k not in own} == {
            k: v for k, v in row.items() if k not in own
        }


def roots(a, s):
    x = fb.where(a[0] > s[0], np.sqrt(np.abs(a[0])), np.log1p(np.square(a[0])))
    return (math.tanh(a[0]),), (x,)


def everything(a, s):
    kept = sum(f(a[0]) for f in test_tracing.ONE) + sum(f(a[0], s[0]) for f in test_tracing.TWO)
    return (math.tanh(a[0]),), (kept,)


def tanh_back(ds, s, previous, kept):
    return (ds[0] * (1 - s[0] * s[0]),), (0,)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", [roots, everything])
def test_an_own_cell_compiles(function, dtype, reverse):
    alone = fb.Cell(f"{function.__name__}_alone", 1, lambda a, s: (a[0] * function(a, s)[1][0],))
    for cell in (fb.Cell(function.__name__, 1, function, tanh_back), alone):
        one_compiles(function, cell.cell, dtype, reverse)


def one_compiles(function, cell, dtype, reverse):
    found = ptxas.sweep_row("H100", cell, dtype, 64, 64, reverse)
    assert found["registers"] and (function is everything or not ptxas.faults(found))


def test_the_kernels_of_one_thread_a_row_compile():
    rows = list(ptxas.head_rows("H100"))
    assert len(rows) == 22 and not any(map(ptxas.faults, rows))


@pytest.fixture
def kernel():
    return rowwise.counted_kernel(np.float32)


def compile_to(kernel, capability=(9, 0)):
    kinds = ptxas.kinds(kernel, np.float32)
    return machine_code.compiled(kernel, kinds, rowwise.THREADS, capability)


def test_machine_code_is_made_once_and_kept_on_disk(kernel, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "folders", lambda: [tmp_path])
    code = compile_to(kernel)
    assert code[:4] == b"\x7fELF"
    assert compile_to(kernel) == code
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    again = compile_to(kernel)
    assert len(again) == len(code) and machine_code.entry_of(again).isidentifier()
    assert compile_to(kernel, (8, 0)) not in (code, again)
    monkeypatch.setattr(machine_code, "machine_code", None)
    assert compile_to(kernel) == again
    assert len(list(tmp_path.iterdir())) == 2, "nothing half-written is left"
    monkeypatch.setattr(machine_code, "SOURCE_KEY", "of changed sources")
    with pytest.raises(TypeError, match="not callable"):
        compile_to(kernel)


def test_a_folder_that_cannot_be_written_is_passed_over(kernel, tmp_path, monkeypatch):
    blocked = tmp_path / "a file"
    blocked.write_text("where the folder would be")
    monkeypatch.setattr(disk, "folders", lambda: [blocked, tmp_path / "made"])
    compile_to(kernel)
    assert len(list((tmp_path / "made").iterdir())) == 1
    monkeypatch.setattr(disk, "folders", lambda: [blocked])
    assert compile_to(kernel)[:4] == b"\x7fELF", "without a cache it is made again"


def test_there_is_one_entry_and_it_takes_what_the_launcher_passes(kernel):
    kinds = ptxas.kinds(kernel, np.float32)
    ptx = machine_code.compile_ptx(kernel, kinds, rowwise.THREADS, (9, 0))
    assert ptx.count(".entry ") == 1 and "call.uni" not in ptx and ".extern .func" not in ptx
    cubin, _ = machine_code.machine_code(kernel, kinds, rowwise.THREADS, (9, 0))
    assert machine_code.entry_of(cubin).isidentifier()
    words = sum(7 if isinstance(kind, types.Array) else 1 for kind in kinds)
    assert len(re.findall(r"\.param \.[bu]64 ", ptx)) == words
