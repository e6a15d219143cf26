"""The public type hints agree with the run-time signatures."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastbptt as fb

ROOT = Path(__file__).resolve().parents[1]


def test_names_for_type_checkers_are_those_loaded_when_first_used():
    tree = ast.parse((ROOT / "fastbptt" / "__init__.py").read_text(encoding="utf-8"))
    static = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            for alias in node.names:
                assert alias.name == alias.asname, "exported only if written `name as name`"
                static[alias.name] = node.module
    assert static == fb._HOME


@pytest.mark.parametrize("name", fb.__all__)
def test_every_public_function_says_what_it_takes_and_returns(name):
    function = getattr(fb, name)
    if isinstance(function, type):
        function = function.__init__
    hints = function.__annotations__
    code = function.__code__
    due = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    assert set(due) - {"self"} <= set(hints)
    assert "return" in hints


def test_the_words_of_signatures_load_nothing_heavier_than_numpy():
    code = "import sys, fastbptt.typing; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "fastbptt.typing" in loaded
    assert not loaded & {"numba", "llvmlite"}
