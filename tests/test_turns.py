"""Processes take turns in compiling, and nobody waits for one that is gone."""

import itertools
import subprocess
import sys
import time
from subprocess import PIPE
from types import SimpleNamespace

import pytest
from fastbptt.kernels import turns

needs_locks = pytest.mark.skipif(turns.fcntl is None, reason="locks of files need a POSIX system")


TURN = """
import sys
from pathlib import Path
from fastbptt.kernels import turns
places = [Path(sys.argv[1])]
print(turns.begin("kernel", places), flush=True)
sys.stdin.readline()
turns.end("kernel", places)
sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that has the turn to make a file in that folder; a line ends the turn."""
    process = subprocess.Popen(
        [sys.executable, "-c", TURN, str(tmp_path)], stdin=PIPE, stdout=PIPE, text=True
    )
    assert process.stdout.readline().split() == ["False"]
    yield process
    process.kill()
    process.communicate()


@needs_locks
@pytest.mark.parametrize("ends", ["by a line", "with its process"])
def test_one_process_waits_while_another_compiles(ends, holder, tmp_path, monkeypatch):
    def pause(seconds):  # called where a turn is waited for
        if ends == "by a line":
            print(file=holder.stdin, flush=True)
        else:
            holder.kill()
        time.sleep(seconds)

    monkeypatch.setattr(turns, "time", SimpleNamespace(sleep=pause, monotonic=time.monotonic))
    assert not turns.begin("another kernel", [tmp_path])
    assert turns.begin("kernel", [tmp_path])


@needs_locks
def test_a_process_that_was_stopped_is_not_waited_for_without_end(holder, tmp_path, monkeypatch):
    times = itertools.count(step=10.0)
    clock = SimpleNamespace(sleep=lambda seconds: None, monotonic=lambda: next(times))
    monkeypatch.setattr(turns, "time", clock)
    assert turns.begin("kernel", [tmp_path])


def test_without_a_folder_to_write_to_nobody_waits(tmp_path):
    (tmp_path / "file").touch()
    assert not turns.begin("kernel", [tmp_path / "file"])
    turns.end("kernel", [tmp_path / "file"])
