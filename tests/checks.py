"""What the robustness tests share: a rejection, the least budget a refusal names, subprocesses."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fastbptt as fb


def rejected(call, *words, errors=(ValueError, TypeError)):
    """Run `call`: it fails with exactly one of `errors`, whose message has all the words."""
    with pytest.raises(errors) as caught:
        call()
    assert type(caught.value) in errors, f"a {type(caught.value).__name__}"
    message = str(caught.value)
    for word in words:
        whole = rf"(?<!\w){re.escape(word)}(?!\w)"
        assert re.search(whole, message), f"no {word!r} in {message!r}"


def least_bytes(network, T, B=1):
    """The least budget that works, as the refusal of one byte names it among its numbers."""
    with pytest.raises(fb.MemoryLimitError) as caught:
        fb.plan(network, T, B, memory=1)
    message = str(caught.value)
    numbers = [int(re.sub("[_,]", "", n)) for n in re.findall(r"\d[\d_,]*", message)]
    works = [n for n in numbers if n > 1 and _works(network, T, B, n)]
    assert works, f"no budget that works in {message!r}"
    return min(works)


def _works(network, T, B, budget):
    try:
        fb.plan(network, T, B, memory=budget)
    except fb.MemoryLimitError:
        return False
    return True


def start_python(code, *options, cwd=None, **variables):
    """A new interpreter running `code`, with these environment variables (None: unset)."""
    environment = {**os.environ, **variables}
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.Popen(
        [sys.executable, *options, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=cwd or Path(__file__).parent,
        start_new_session=True,
    )


def run_python(code, *options, timeout=60, **given):
    """What `code` prints in a new interpreter; its failure, or a hang, is the test's."""
    with start_python(code, *options, **given) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"hangs: no end within {timeout} s")
        finally:
            kill(process)
    assert process.returncode == 0, err
    return out


def kill(process):
    """End the process and all that it forked."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
