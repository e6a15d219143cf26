"""What is built and installed: the wheel, the source distribution, and a read-only install.

The suite itself runs on the editable install.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from checks import HANGS

import fastbptt

ROOT = Path(__file__).resolve().parents[1]
OPTIONAL = ("scipy", "torch", "jax", "matplotlib", "tqdm")

SMALL_RUN = """
import json, sys
for name in {blocked}:
    sys.modules[name] = None  # importing it fails
import numpy as np
import fastbptt as fb
network = fb.Network(fb.RNN.init(3, 4, rng=0), fb.Readout.init(4, 2, rng=1))
x, y = np.ones((5, 2, 3), np.float32), np.zeros((5, 2, 2), np.float32)
loss = fb.bptt(network, x, y).loss
files = {{n: m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "fastbptt"}}
print(json.dumps([loss, files]))
"""


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution, built from a copy so that the work tree stays clean."""
    copy = tmp_path_factory.mktemp("source") / "fastbptt"
    ignore = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=ignore)
    built = tmp_path_factory.mktemp("sdist")
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    run(["-c", code, str(built)], cwd=copy)
    return next(built.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel, built from the source distribution."""
    built = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", built, sdist)
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def sealed(wheel, tmp_path_factory):
    """A folder with nothing but the installed wheel, in which nothing can be written.

    Permissions do not bind root, so a file takes the name of each cache folder as well.
    """
    target = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-compile", "--target", target, wheel)
    folders = [target, *(path for path in target.rglob("*") if path.is_dir())]
    for folder in folders:
        (folder / "__pycache__").write_text("")
        folder.chmod(0o555)
    yield target
    for folder in folders:
        folder.chmod(0o755)


@pytest.fixture(scope="module")
def sealed_run(sealed, tmp_path_factory):
    """Compute a small gradient there, from an empty folder, with a home that does not exist."""
    homes = ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME")
    empty = tmp_path_factory.mktemp("empty")
    result = small_run(empty, PYTHONPATH=str(sealed), **dict.fromkeys(homes, "/dev/null/home"))
    assert list(empty.iterdir()) == []
    return result


def test_wheel_holds_every_module_and_no_other_top_level_name(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"fastbptt"}
    modules = {f"fastbptt/{path}" for path in sources("fastbptt")}
    modules |= {f"fastbptt/kernels/{path}" for path in sources("kernels")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert "fastbptt/py.typed" in names


def test_sdist_holds_the_tests_and_the_licence(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "setup.py"}
    assert wanted | {f"tests/{path}" for path in sources("tests")} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_wheel_runs_from_an_empty_folder(sealed, sealed_run):
    _, files = sealed_run
    assert {"fastbptt", "fastbptt.kernels"} <= set(files)
    for name, file in files.items():
        assert Path(file).is_relative_to(sealed), name


def test_a_read_only_install_and_home_give_the_same_result(sealed_run, tmp_path):
    assert sealed_run[0] == small_run(tmp_path)[0]


def test_import_and_layers_load_nothing_heavier_than_numpy():
    code = "import sys, json, fastbptt as fb; fb.RNN.init(2, 3); print(json.dumps([*sys.modules]))"
    loaded = set(json.loads(run(["-c", code])))
    assert {"fastbptt.layers.recurrent", "numpy"} <= loaded
    assert not loaded & {"numba", "llvmlite", *OPTIONAL}


def test_only_numpy_and_numba_are_required():
    hard = [text for text in metadata.requires("fastbptt") if "extra ==" not in text]
    assert sorted(text.split(">")[0] for text in hard) == ["numba", "numpy"]


def test_the_installed_version_is_the_packages_own():
    assert metadata.version("fastbptt") == fastbptt.__version__


def test_the_console_script_is_the_module():
    script = shutil.which("fastbptt", path=str(Path(sys.executable).parent))
    assert script, "the editable install has put no fastbptt beside this interpreter"
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout == run(["-m", "fastbptt", "--help"])


def sources(folder):
    """Return the folder's Python files, relative to it."""
    return {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob("*.py")}


def small_run(cwd, **environment):
    """Run a small gradient in a new interpreter; returns its loss and our modules' files."""
    code = SMALL_RUN.format(blocked=OPTIONAL)
    return json.loads(run(["-c", code], cwd=cwd, **environment))


def pip(*arguments):
    run(["-m", "pip", "--disable-pip-version-check", *map(str, arguments), "--quiet"])


def run(arguments, cwd=None, **environment):
    """Run this Python with the arguments and return what it printed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "NUMBA_CACHE"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**kept, **environment},
        timeout=HANGS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
