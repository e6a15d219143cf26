"""Across processes: forks, Ctrl-C, environment variables, warnings, and the cache on disk."""

import ast
import os
import shutil
from pathlib import Path

import pytest
from checks import run_python

import fastbptt as fb

SMALL = """
import hashlib
import numpy as np
import fastbptt as fb
from helpers import all_results, make_problem

p = make_problem("lstm", (600, 16, 4, 48, 2), "float32")

def answer(_=None):
    results = all_results(fb.bptt(p.network, p.x, p.y, memory="4MB"))
    return hashlib.sha256(b"".join(a.tobytes() for a in results)).hexdigest()
"""


@pytest.fixture(scope="module")
def due():
    """The answer of a plain process."""
    return run_python(SMALL + "print(answer())").strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    "how",
    [
        """
pid = os.fork()
if not pid:
    os._exit(0 if answer() == before else 3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
""",
        """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(answer, range(6), chunksize=1) == [before] * 6
""",
    ],
    ids=["os.fork", "multiprocessing"],
)
def test_a_process_forked_after_a_call_can_call_again(due, how):
    # Python itself warns of forks beside other threads; here that is the question.
    code = f"import os\n{SMALL}\nbefore = answer()\n{how}\nassert answer() == before\nprint(before)"
    assert run_python(code).strip() == due


# Ctrl-C comes from a thread of the process itself, in the third walk of the call: then it is
# known how many walks began after it, with no clock. The call waits for it in the 50th.
LONG = """
import os, signal, threading
from fastbptt.kernels.cpu.bound import Bound
from fastbptt.layers.composite import recurrent_layers

signal.signal(signal.SIGINT, signal.default_int_handler)
spans, third, sent = [], threading.Event(), threading.Event()

walk = Bound.walk

def noted(bound, *given):
    spans.append(0)
    if len(spans) == 3:
        third.set()
    if len(spans) >= 50:
        sent.wait()
    status = walk(bound, *given)
    spans[-1] = bound.get("used")
    return status

def press_ctrl_c(seen):
    third.wait()
    os.kill(os.getpid(), signal.SIGINT)
    seen.append(len(spans))
    sent.set()

def interrupted(network, B, call):
    seen = []
    Bound.walk = noted
    presses = threading.Thread(target=press_ctrl_c, args=(seen,))
    presses.start()
    try:
        call()
    except KeyboardInterrupt:
        print("interrupted", end=" ")
    else:
        print("finished", end=" ")
    presses.join()
    adds = 3 * B * sum(part.U.size + part.W.size for part in recurrent_layers(network.layer))
    print(len(spans) - seen[0], max(spans), max(spans) * adds)

def long(cell, T, B, H):
    make = fb.LSTM.init if cell == "lstm" else fb.RNN.init
    network = fb.Network(make(4, H, rng=0), fb.Readout.init(H, 2, rng=1))
    x = np.broadcast_to(np.uint8(1), (T, B))
    return network, x, np.broadcast_to(np.float32(0.1), (T, B, 2))
"""
# The arguments of `long`, and the call on its result.
INTERRUPTED = {
    "full": ("'rnn', 10**6, 1, 256", "fb.bptt(n, x, y)"),
    "budget": ("'lstm', 10**6, 16, 64", "fb.bptt(n, x, y, memory='64MB')"),
    "truncated": ("'lstm', 10**6, 16, 64", "fb.bptt(n, x, y, memory=fb.Truncated(500, 1000))"),
    "wide": ("'lstm', 10**5, 16, 1024", "fb.bptt(n, x, y, memory='400MB')"),
    "narrow": ("'rnn', 10**8, 1, 2", "fb.evaluate(n, x, y)"),
    "run": ("'rnn', 10**8, 1, 64", "fb.run(n.layer, x, keep='last')"),
    "forward": ("'rnn', 10**6, 1, 256", "fb.forward(n.layer, x)"),
    "backward": ("'lstm', 100_000, 8, 128", "fb.backward(cache, h)"),
}


@pytest.mark.parametrize("what", INTERRUPTED)
def test_ctrl_c_stops_a_long_call_and_leaves_the_package_usable(due, what):
    sizes, call = INTERRUPTED[what]
    cached = "h, _, cache = fb.forward(n.layer, x)" if what == "backward" else ""
    code = [
        *(SMALL, LONG, f"n, x, y = long({sizes})", cached),
        *(f"interrupted(n, x.shape[1], lambda: {call})", "print(answer())"),
    ]
    how, later, steps, adds, after = run_python("\n".join(code)).split()
    assert how == "interrupted"
    assert int(later) <= 1, "walks that began after Ctrl-C"
    # What one core does in some 50 ms.
    assert int(steps) <= 2**16 and int(adds) <= 5e9
    assert after == due


def test_the_environment_sets_the_number_of_threads(due):
    large = """
import threading
q = make_problem("lstm", (150, 32, 64, 192, 2), "float32")
fb.bptt(q.network, q.x, q.y)
print(answer(), sum(thread.name == "fastbptt" for thread in threading.enumerate()))
"""
    for n in (1, 2, 3):
        bits, workers = run_python(SMALL + large, FASTBPTT_NUM_THREADS=str(n)).split()
        assert bits == due
        assert int(workers) == n - 1


@pytest.mark.parametrize("value", ["0", "-2", "two", "1.5"])
def test_a_bad_number_of_threads_in_the_environment_is_named(value):
    code = (
        SMALL
        + "try:\n    answer()\nexcept (ValueError, TypeError) as e:\n    print(type(e).__name__, e)"
    )
    out = run_python(code, FASTBPTT_NUM_THREADS=value)
    assert out.split()[0] in ("ValueError", "TypeError")
    assert "FASTBPTT_NUM_THREADS" in out and value in out


@pytest.mark.parametrize("by", ["variable", "option"])
def test_import_and_a_call_warn_of_nothing(due, by):
    how = {"PYTHONWARNINGS": "error"} if by == "variable" else {}
    options = ["-W", "error"] if by == "option" else []
    assert run_python(SMALL + "print(answer())", *options, **how).strip() == due
    code = (
        "import sys, fastbptt as fb\nfb.LSTM, fb.Truncated(1, 2)\nassert 'numba' not in sys.modules"
    )
    run_python(code, *options, **how)


ACTIVATE = """
import sys
import numpy as np
import fastbptt as fb
from fastbptt.kernels import jit
jit._PATIENCE = 0  # every compilation is announced at once
sys.stderr = sys.stdout
one = np.ones((1, 1), "f4")
h, _ = fb.run(fb.RNN(one, 0 * one, 0 * one[0]), 0.5 * one[None])
print(fb.__file__, h.item())
"""


@pytest.fixture
def copied(tmp_path):
    """A copy of the package's sources, on the path, with a compiler cache of its own."""
    import fastbptt.kernels

    package = tmp_path / "path" / "fastbptt"
    ignore = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc")
    shutil.copytree(Path(fb.__file__).parent, package, ignore=ignore)
    shutil.copytree(
        Path(fastbptt.kernels.__file__).parent,
        package / "kernels",
        ignore=ignore,
        dirs_exist_ok=True,
    )

    def activate():
        out = run_python(
            ACTIVATE,
            cwd=package.parent,
            PYTHONPATH=str(package.parent),
            NUMBA_CACHE_DIR=str(tmp_path / "cache"),
            PYTHONDONTWRITEBYTECODE="1",
        )
        *activate.said, last = out.splitlines()
        file, value = last.rsplit(maxsplit=1)
        assert Path(file).parent == package
        return float(value)

    activate.package, activate.cache = package, tmp_path / "cache"
    return activate


def square_tanh(folder):
    """Make every compiled function named tanh return its square; how many returns that changed."""
    changed = 0
    for path in folder.rglob("*.py"):
        tree, before = ast.parse(path.read_text(encoding="utf-8")), changed
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and "tanh" in function.name:
                for node in ast.walk(function):
                    if isinstance(node, ast.Return) and node.value is not None:
                        node.value = ast.BinOp(node.value, ast.Mult(), node.value)
                        changed += 1
        if changed > before:
            path.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
    return changed


def test_compiled_code_is_cached_on_disk_and_never_stale(copied):
    def files():
        return {path: path.stat().st_mtime_ns for path in copied.cache.rglob("*") if path.is_file()}

    tanh = 0.46211715726000975
    assert copied() == pytest.approx(tanh, abs=3e-7)
    compiled = files()
    assert compiled
    assert any("compiling the RNN kernels for float32" in line for line in copied.said)
    assert copied() == pytest.approx(tanh, abs=3e-7)
    assert files() == compiled and not copied.said, "a second process compiled again"
    assert square_tanh(copied.package / "kernels") > 0, "no function named tanh in the kernels"
    assert copied() == pytest.approx(tanh**2, abs=3e-7)
    assert not list(copied.package.rglob("*.nbc"))


def test_kernels_that_other_processes_compiled_are_not_mixed_up(tmp_path):
    """Numba gives functions alike in name and types the same symbol in every process."""
    code = """
import numpy as np, fastbptt as fb
x = np.random.default_rng(0).standard_normal((9, 2, 3))
for name in {!r}:
    layer = fb.RNN.init(3, 4, rng=1, dtype="float64", activation=name)
    g = {{"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0), "identity": lambda a: a}}[name]
    h, s = [], np.zeros((2, 4))
    for x_t in x:
        s = g(x_t @ layer.U.T + s @ layer.W.T + layer.b)
        h.append(s)
    print(np.abs(fb.run(layer, x)[0] - h).max() < 1e-12)
"""
    alike = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": "0"}
    # The first compiles what all share, so that the next two compile the same number of functions.
    for names in (["identity"], ["tanh"], ["relu"], ["tanh", "relu"]):
        out = run_python(code.format(names), **alike)
        assert out.split() == ["True"] * len(names), names
