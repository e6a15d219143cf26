"""Many processes for real: MPI and torch.distributed, jobs and the example."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checks import HANGS
from distributed_job import PATIENCE, SHARES, digest, problem_call
from ranks import on_ranks

from fastbptt.distributed import groups

TESTS = Path(__file__).parent
ROOT = TESTS.parent
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
# Open MPI asks whether root, and more processes than cores, are meant. By default a process that
# waits spins, on the one core that it is bound to.
ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "FASTBPTT_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}

needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
    reason="mpi4py or mpiexec is not installed",
)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)


def run(command, **options):
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=HANGS, **options
    )


@pytest.fixture
def due(monkeypatch, set_threads):
    """The bits that every process must find."""
    set_threads(1)
    monkeypatch.setattr(groups, "of", lambda comm: comm)
    (r,) = on_ranks(1, problem_call([11]))
    return digest(r)


def check(found, due):
    """What all processes of a job found."""
    size = len(found)
    for rank, one in enumerate(found):
        assert one["bits"] == {str(n): due for n in range(rank + 1, size + 1)}
        assert one["after"] == due
        assert "ValueError: all ranks of comm must have the same network" in one["disagree"]
        mine = "KeyError: 'in the loss'"
        others = f"RuntimeError: rank {size - 1} of comm has failed: {mine}"
        assert one["raises"] == (mine if rank == size - 1 else others)
        assert one["strange"].startswith("ValueError: comm must be"), one["strange"]


@needs_mpi
def test_a_job_of_mpi(tmp_path, due):
    size = len(SHARES)
    done = run(
        [MPIEXEC, "-n", size, sys.executable, TESTS / "distributed_job.py", "mpi", tmp_path],
        env=ENVIRONMENT,
    )
    files = [tmp_path / f"{rank}.json" for rank in range(size)]
    assert all(file.exists() for file in files), done.stdout + done.stderr
    found = [json.loads(file.read_text()) for file in files]
    check(found, due)
    assert done.returncode  # one process was killed, and mpiexec has ended the others
    assert not any("seconds" in one for one in found)


@needs_torch
def test_a_job_of_torch(tmp_path, due):
    size, jobs = 2, []
    for rank in range(size):
        environment = ENVIRONMENT | {"RANK": str(rank), "WORLD_SIZE": str(size)}
        command = [sys.executable, str(TESTS / "distributed_job.py"), "torch", str(tmp_path)]
        jobs.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    errors = [job.communicate(timeout=HANGS)[1] for job in jobs]
    files = [tmp_path / f"{rank}.json" for rank in range(size)]
    assert all(file.exists() for file in files), errors
    found = [json.loads(file.read_text()) for file in files]
    check(found, due)
    assert [job.returncode for job in jobs] == [0, -9]
    assert found[0]["dies"].startswith("Lost: a process of comm has ended"), found[0]["dies"]
    assert found[0]["seconds"] < PATIENCE / 2
    assert "cuda:nccl" in found[0]["nccl"] and "gloo" in found[0]["nccl"]


@pytest.fixture(scope="module")
def error_line():
    """The line that the example prints of its errors, of whoever ran first."""
    return []


@pytest.mark.parametrize(
    "start",
    [
        pytest.param([MPIEXEC, "-n", 2, sys.executable], marks=needs_mpi, id="mpiexec"),
        pytest.param(
            [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", 2],
            marks=needs_torch,
            id="torchrun",
        ),
    ],
)
def test_the_example_learns_the_same_however_it_is_started(start, error_line):
    example = ROOT / "examples" / "many_machines.py"
    sizes = ["--sequences=40", "--steps=60", "--hidden=8", "--updates=40"]
    done = run([*start, example, *sizes], env=ENVIRONMENT)
    assert not done.returncode, done.stderr
    assert "40 sequences of 60 steps in 2 processes" in done.stdout
    line = re.search("squared error.*: (.*), then (.*)", done.stdout)
    assert float(line[2]) < 0.7 * float(line[1])
    error_line.append(line[0])
    assert error_line[0] == line[0]
