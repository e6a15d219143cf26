"""Optional packages that are missing or broken: messages say which, and why."""

import sys

import pytest
from checks import run_python
from fastbptt.kernels import optional
from helpers import make_problem

import fastbptt as fb
from fastbptt.commands.cli import main

REASON = "libnowhere.so.1: cannot open shared object file"


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """A function that plants a package whose import fails with REASON."""

    def break_(package, error="OSError"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f"raise {error}({REASON!r})\n")
        for name in list(sys.modules):
            if name.partition(".")[0] == package:
                monkeypatch.delitem(sys.modules, name)

    monkeypatch.syspath_prepend(tmp_path)
    return break_


@pytest.fixture
def missing(monkeypatch):
    """A function that hides a package."""

    class Hiding:
        def find_spec(self, name, path=None, target=None):
            if name == self.package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def hide(package):
        Hiding.package = package
        for name in list(sys.modules):
            if name.partition(".")[0] == package:
                monkeypatch.delitem(sys.modules, name)

    monkeypatch.setattr(sys, "meta_path", [Hiding(), *sys.meta_path])
    return hide


def progress(package):
    p = make_problem()
    fb.bptt(p.network, p.x, p.y, progress=True)


def convert(package):
    fb.to_torch(make_problem("lstm", dtype="float32").layer)


USES = {"tqdm": progress, "torch": convert}


@pytest.mark.parametrize("package", USES)
def test_a_missing_package_is_called_not_installed(missing, package):
    missing(package)
    with pytest.raises(ImportError, match=f"{package}, which is not installed"):
        USES[package](package)


@pytest.mark.parametrize("error", ["OSError", "ImportError", "AttributeError"])
@pytest.mark.parametrize("package", USES)
def test_of_a_broken_package_the_reason_is_shown(broken, package, error):
    broken(package, error)
    with pytest.raises(ImportError, match=f"{package}, which is installed.*{error}: {REASON}"):
        USES[package](package)


def test_a_package_that_misses_another_is_broken_and_not_missing(tmp_path, monkeypatch):
    (tmp_path / "fastbptt_outer.py").write_text("import fastbptt_inner\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"installed but cannot .* named 'fastbptt_inner'"):
        optional.load("fastbptt_outer", "a test needs")


def test_a_command_says_why_its_package_cannot_be_used(broken, capsys):
    broken("matplotlib")
    assert main(["plan", "--out", "plan.png"]) == 1
    assert REASON in capsys.readouterr().err


def fakes(folder, **packages):
    for name, text in packages.items():
        (folder / f"{name}.py").write_text(text)
    return {"PYTHONPATH": str(folder), "NUMBA_ENABLE_CUDASIM": "0", "FASTBPTT_DEVICE": None}


GPU = """
import numpy as np, fastbptt as fb
layer = fb.RNN.init(2, 3, rng=0)
try:
    fb.run(layer, np.zeros((2, 2), layer.dtype), device="cuda")
except RuntimeError as error:
    print(error)
print(fb.explain(layer, 5))
"""


@pytest.mark.parametrize("package", ["cupy", "numba_cuda"])
def test_a_broken_package_of_the_gpu_is_not_called_missing(tmp_path, package):
    if package == "cupy":
        pytest.importorskip("numba.cuda.cgutils", reason="numba-cuda is asked for first")
    given = fakes(tmp_path, **{"cupy": "", package: f"raise ImportError({REASON!r})"})
    out = run_python(GPU, **given)
    assert out.count(f"{package}, which is installed but cannot be imported") == 2
    assert out.count(REASON) == 2 and "not installed" not in out


def test_info_lists_every_optional_package_or_why_it_fails(tmp_path):
    given = fakes(
        tmp_path,
        cupy=f"raise OSError({REASON!r})",
        torch="__version__ = '0.fake'",
        jax="raise ModuleNotFoundError(\"No module named 'jax'\", name='jax')",
    )
    out = run_python("from fastbptt.commands.cli import main\nmain(['info'])", **given)
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert REASON in lines["cupy"] and "OSError" in lines["cupy"]
    assert lines["jax"] == optional.MISSING
    assert lines["torch"] != optional.MISSING
    assert {"numpy", "numba", "llvmlite", "numba-cuda", "matplotlib", "tqdm"} <= set(lines)


DISABLED = """
import numpy as np, fastbptt as fb
for _ in range(2):
    try:
        fb.run(fb.RNN.init(2, 3, rng=0), np.zeros((2, 2), "float32"))
    except RuntimeError as error:
        print(error)
"""


def test_kernels_that_numba_may_not_compile_say_so():
    lines = run_python(DISABLED, NUMBA_DISABLE_JIT="1").splitlines()
    assert len(lines) == 2 and all("NUMBA_DISABLE_JIT is set" in line for line in lines)
    assert "numba" in run_python(
        "from fastbptt.commands.cli import main\nmain(['info'])", NUMBA_DISABLE_JIT="1"
    )
