"""The files that are kept between processes: never wrong, never in the way."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from checks import run_python, start_python
from fastbptt.kernels import cache, disk, jit, turns
from fastbptt.kernels.cells import registry as cells

import fastbptt as fb
from fastbptt.calls import crossover


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The only folder where compiled code is kept."""
    place = tmp_path / "cache"
    monkeypatch.setattr(disk, "folders", lambda: [place])
    return place


def twice(x):
    return 2 * x


KERNELS = []  # kept alive: code of one symbol must not be freed while another copy is loaded


def misses():
    """Call the kernel of `twice` as a new process would; return whether it was compiled."""
    kernel = jit.entry(twice)
    KERNELS.append(kernel)
    assert kernel(1.5) == 3.0
    return sum(kernel.stats.cache_misses.values())


def test_a_kernel_is_compiled_once_and_then_loaded(folder):
    assert [misses(), misses(), misses()] == [1, 0, 0]
    assert len(list(folder.glob("*.nbc"))) == 1, "one file, and nothing half-written"


def garbled(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "cut to a few bytes": lambda content: content[:10],
    "emptied": lambda content: b"",
    "garbled": garbled,
    "of something else": lambda content: b"\xff" * 1000,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_compiled_again_and_replaced(folder, how):
    misses()
    (file,) = folder.glob("*.nbc")
    whole = file.read_bytes()
    file.write_bytes(DAMAGE[how](whole))
    assert [misses(), misses()] == [1, 0]


def test_the_file_of_another_kernel_is_not_taken(folder):
    misses()
    (file,) = folder.glob("*.nbc")
    kernel = jit.entry(lambda x: 3 * x)
    assert kernel(1.5) == 4.5
    (other,) = set(folder.glob("*.nbc")) - {file}
    shutil.copy(other, file)
    assert misses() == 1


def test_a_folder_in_the_place_of_a_file_is_left_alone(folder):
    misses()
    (file,) = folder.glob("*.nbc")
    file.unlink()
    file.mkdir()
    assert [misses(), misses()] == [1, 1]
    assert file.is_dir() and list(folder.glob("*.nbc")) == [file]


def test_a_folder_that_is_removed_is_made_again(folder):
    misses()
    shutil.rmtree(folder)
    assert [misses(), misses()] == [1, 0]


@pytest.mark.parametrize("call", ["makedirs", "open", "fdopen", "replace"])
def test_a_folder_that_takes_nothing_is_done_without(folder, call, monkeypatch):
    def full(*args, **given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(disk.os, call, full)
        assert misses() == 1
    assert not folder.exists() or not list(folder.glob("*.nbc"))
    assert [misses(), misses()] == [1, 0]


def test_the_next_folder_takes_what_the_first_does_not(tmp_path, monkeypatch):
    blocked, other = tmp_path / "a file", tmp_path / "other"
    blocked.write_text("where the folder would be")
    monkeypatch.setattr(disk, "folders", lambda: [blocked, other])
    assert [misses(), misses()] == [1, 0]
    assert len(list(other.glob("*.nbc"))) == 1


TINY = """
from fastbptt.kernels import jit
kernel = jit.entry({function})
print(kernel(1.5), sum(kernel.stats.cache_misses.values()))
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of the size of files are POSIX's")
def test_a_limit_of_the_size_of_files_is_no_error(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    code = limit + TINY.format(function="lambda x: 2 * x")
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path)).split() == ["3.0", "1"]
    assert not list(tmp_path.glob("*.nbc")) and not list(tmp_path.glob("*.partial"))


def test_numba_cache_dir_names_the_folder(tmp_path):
    code, named = TINY.format(function="lambda x: 2 * x"), tmp_path / "named"
    for due in ("1", "0"):
        out = run_python(code, NUMBA_CACHE_DIR=str(named))
        assert out.split() == ["3.0", due]
    assert list(named.glob("*.nbc"))


posix = pytest.mark.skipif(os.name != "posix", reason="this system has no POSIX permissions")


@posix
@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
def test_a_folder_that_others_may_write_into_is_not_used(folder, mode):
    misses()
    folder.chmod(mode)
    assert [misses(), misses()] == [1, 1]
    (file,) = folder.glob("*.nbc")
    file.unlink()
    assert misses() == 1 and not list(folder.glob("*.nbc"))


@posix
def test_a_file_that_others_may_write_is_replaced(folder):
    misses()
    (file,) = folder.glob("*.nbc")
    file.chmod(0o666)
    assert [misses(), misses()] == [1, 0]


@posix
@pytest.mark.skipif(
    os.name == "posix" and os.geteuid() != 0, reason="only root can give files away"
)
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_is_another_user_s_is_not_used(folder, what):
    misses()
    (file,) = folder.glob("*.nbc")
    os.chown(folder if what == "folder" else file, 12345, 12345)
    assert misses() == 1
    assert misses() == (1 if what == "folder" else 0)


def test_code_of_sources_that_were_edited_meanwhile_is_not_kept(folder, monkeypatch):
    monkeypatch.setattr(cache, "source_key", lambda: "of edited sources")
    assert [misses(), misses()] == [1, 1]


def test_what_is_compiled_is_announced_and_what_is_loaded_is_not(folder, monkeypatch, capsys):
    monkeypatch.setattr(jit, "_PATIENCE", 0)
    monkeypatch.setattr(jit, "_said", set())
    for kernel in (jit.entry(twice, "a kernel") for _ in range(3)):
        KERNELS.append(kernel)
        kernel(np.float32(1.5))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "compiling a kernel for float32, once" in said[0]
    jit.entry(twice, "a kernel")(1.5)
    assert "compiling a kernel for float64, once" in capsys.readouterr().err


def test_cells_have_the_names_that_people_give_them():
    softsign = fb.Activation("softsign", lambda a: a / (1 + abs(a)), lambda s: (1 - abs(s)) ** 2)
    names = ("lstm", "gru-after", "rnn-tanh", softsign.cell)
    assert [cells.title(name) for name in names] == ["LSTM", "GRU", "RNN", "softsign"]


PROBE = """
from .jit import entry, inner
CONSTANT = {}

@inner
def shift(x):
    return x + CONSTANT

@entry
def probe(x):
    return shift(x)
"""
RUN_PROBE = """
import sys
import numpy as np
from fastbptt.kernels import probe
print(probe.probe(getattr(np, sys.argv[1])(0)), sum(probe.probe.stats.cache_misses.values()))
"""


@pytest.fixture
def version(tmp_path):
    """Make a copy of the package with a kernel that adds a constant; returns the code to run it."""

    def make(name, constant):
        package = tmp_path / name / "fastbptt"
        ignore = shutil.ignore_patterns("__pycache__")
        if not package.exists():
            shutil.copytree(Path(fb.__file__).parent, package, ignore=ignore)
            kernels = Path(disk.__file__).parent
            shutil.copytree(kernels, package / "kernels", ignore=ignore, dirs_exist_ok=True)
        (package / "kernels" / "probe.py").write_text(PROBE.format(constant), encoding="utf-8")
        return {
            "PYTHONPATH": str(package.parent),
            "cwd": package.parent,
            "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    return make


def probe(where, dtype="float64"):
    value, missed = run_python(
        f"import sys; sys.argv = ['', {dtype!r}]{RUN_PROBE}", **where
    ).split()
    return float(value), int(missed)


def test_two_versions_share_a_cache_and_keep_their_own_code(version):
    one, two = version("one", 1), version("two", 2)
    assert [probe(one), probe(two), probe(one), probe(two)] == [(1, 1), (2, 1), (1, 0), (2, 0)]


def test_an_edited_source_never_meets_the_code_of_the_old_one(version):
    assert probe(version("one", 1)) == (1, 1)
    assert probe(version("one", 3)) == (3, 1)
    assert probe(version("one", 1)) == (1, 0)


def test_processes_that_compile_at_once_leave_a_whole_cache(version):
    where = version("one", 1)
    kinds = ("float32", "float64") * 4
    codes = (f"import sys; sys.argv = ['', {kind!r}]{RUN_PROBE}" for kind in kinds)
    started = [start_python(code, **where) for code in codes]
    for process in started:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0 and out.split()[0] == "1.0", err
    assert [probe(where, kind) for kind in kinds[:2]] == [(1, 0), (1, 0)]


def test_what_another_process_has_compiled_meanwhile_is_read(folder, monkeypatch):
    ended = []
    assert misses() == 1
    read = iter([None])  # not there at first; another process makes it meanwhile
    whole = disk.read
    monkeypatch.setattr(disk, "read", lambda *given: next(read, whole(*given)))
    monkeypatch.setattr(turns, "begin", lambda *given: True)
    monkeypatch.setattr(turns, "end", lambda *given: ended.append(given))
    assert misses() == 0
    assert len(ended) == 1


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_measurement_is_made_again(how, tmp_path, monkeypatch):
    measured = iter([crossover.Rates(1.0, 2.0, 3.0), crossover.Rates(4.0, 5.0, 6.0)])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(crossover, "measure", lambda device: next(measured))

    def call():
        crossover.rates.cache_clear()
        return crossover.rates("cpu").call

    try:
        assert [call(), call()] == [1.0, 1.0]
        (file,) = (tmp_path / "fastbptt").iterdir()
        file.write_bytes(DAMAGE[how](file.read_bytes()))
        assert [call(), call()] == [4.0, 4.0]
    finally:
        crossover.rates.cache_clear()
