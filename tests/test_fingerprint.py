"""Code stands for a function only while all that the function reads is the same."""

import ctypes
import math

import numpy as np
import pytest
from checks import run_python
from fastbptt.kernels import disk
from fastbptt.kernels.fingerprint import fingerprint


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The only folder where compiled code is kept."""
    monkeypatch.setattr(disk, "folders", lambda: [tmp_path])


# Each sets f, a function of a number that returns VALUE, which it reads in another way.
READS = {
    "a global": "def f(a): return VALUE",
    "a module's attribute": "consts.K = VALUE\ndef f(a): return consts.K",
    "a module in a module": "consts.sub.K = VALUE\ndef f(a): return consts.sub.K",
    "a module that holds itself": "consts.K, consts.consts = VALUE, consts\n"
    "def f(a): return consts.consts.K",
    "a module in a variable": "consts.K = VALUE\ndef f(a):\n    c = consts\n    return c.K",
    "a compiled helper": "@numba.njit\ndef helper(a): return VALUE\ndef f(a): return helper(a)",
    "a plain helper": "def helper(a): return VALUE\ndef f(a): return helper(a)",
    "a helper of a module": "@numba.njit\ndef g(a): return VALUE\nconsts.g = g\n"
    "def f(a): return consts.g(a)",
    "a helper's helper": "@numba.njit\ndef g(a): return VALUE\n@numba.njit\n"
    "def helper(a): return g(a)\nhelper(0.5)\ndef f(a): return helper(a)",
    "a long table": "table = np.ones(5000)\ntable[2500] = VALUE\ndef f(a): return table[2500]",
    "a table in a tuple": "tables = (np.full(3, VALUE),)\ndef f(a): return tables[0][1]",
    "a tuple": "pair = (1.0, VALUE)\ndef f(a): return pair[1]",
    "a closure": "def make(k):\n    def f(a): return k\n    return f\nf = make(VALUE)",
    "a default": "def helper(a, k=VALUE): return k\ndef f(a): return helper(a)",
}
READING = """
import types
import numba, numpy as np
import fastbptt as fb
from fastbptt.kernels import jit
from fastbptt.kernels.cells import registry as cells

def kernel(name, f):
    CELL = fb.Activation(name, lambda a: f(a) * a, lambda s: f(s)).cell
    def step(a):
        return cells.forward(CELL, (a,), (a,), ())[0][0]
    return jit.entry(step)

def read(name, source, value, then=None):
    consts = types.ModuleType("consts")
    consts.sub = types.ModuleType("consts.sub")
    found = {"numba": numba, "np": np, "consts": consts, "VALUE": value}
    exec(source, found)
    made = kernel(name.replace(" ", "_").replace("'", ""), found["f"])
    if then is not None:
        found["VALUE"] = consts.K = consts.sub.K = then
        if "table" in found:
            found["table"][:] = then
    return made(1.0), sum(made.stats.cache_misses.values())
"""


def test_an_own_function_that_reads_another_value_is_compiled_anew(tmp_path):
    """By one process after another, which share a cache on disk."""
    code = f"{READING}\nfor item in {list(READS.items())!r}:\n    print(*read(*item, %s))"
    for value, missed in (("1.0", 1), ("1.5", 1), ("1.0", 0), ("1.5", 0)):
        out = run_python(code % value, NUMBA_CACHE_DIR=str(tmp_path))
        found = dict(zip(READS, out.splitlines(), strict=True))
        assert found == dict.fromkeys(READS, f"{value} {missed}")


def test_own_functions_of_one_name_in_one_process_keep_what_they_read(folder):
    given = {}
    exec(READING, given)
    for name, source in READS.items():
        assert given["read"]("one", source, 1.0)[0] == 1.0, name
        assert given["read"]("one", source, 1.5)[0] == 1.5, name


def test_what_an_own_function_reads_counts_as_it_was_when_it_was_defined(folder):
    given = {}
    exec(READING, given)
    for name, source in READS.items():
        assert given["read"]("one", source, 1.0, then=1.5)[0] == 1.0, name


def reader(value):
    return lambda: value


VALUES = {
    "numbers by type": (1, 1.0, True, np.float32(1), np.float64(1), np.int64(1), 1 + 0j),
    "zeros by sign": (0.0, -0.0),
    "text and bytes": ("1", b"1"),
    "containers": ((1, 2), frozenset({1, 2}), (1, (2,)), ((1,), 2), (1, 2, ())),
    "arrays": (
        np.arange(2000),
        np.arange(2000.0),
        np.arange(2000).reshape(40, 50),
        np.where(np.arange(2000) == 1000, 0, np.arange(2000)),
    ),
    "functions": (reader(1), reader(2), reader(1.0), lambda: 1, lambda k=1: k, lambda *, k=1: k),
}


@pytest.mark.parametrize("kind", VALUES)
def test_every_value_has_a_fingerprint_of_its_own(kind):
    found = [fingerprint(reader(value)) for value in VALUES[kind]]
    assert len(set(found)) == len(found)
    assert found == [fingerprint(reader(value)) for value in VALUES[kind]]


def test_a_keyword_default_counts():
    def make(k):
        def function(*, k=k):
            return k

        return function

    assert fingerprint(make(1)) == fingerprint(make(1)) != fingerprint(make(2))


@pytest.mark.parametrize(
    "value",
    [object(), math, [1], type("A", (), {}), ctypes.c_double(1), np.array([None])],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_told_from_another_value_is_refused(value):
    with pytest.raises(TypeError, match=f"encloses a {type(value).__qualname__}"):
        fingerprint(reader(value))
