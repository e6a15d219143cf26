"""Shared by tests of public calls: rejections, least budgets, measured peaks, subprocesses."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from fastbptt.kernels.cpu.memory import _held
from helpers import flatten, make_problem

import fastbptt as fb

SIZES = (6, 3, 4, 5, 2)  # T, B, I, H, O of `small_problem`
# Python's own objects (frames, actions, views), which tracemalloc counts and no plan does.
OBJECTS = 100_000
HANGS = 600  # seconds, however busy the machine: no test may fail because others are at work

f16, f64, c64, longdouble = (
    lambda a, name=name: a.astype(name)
    for name in ("float16", "float64", "complex64", "longdouble")
)


def small_problem():
    """A float32 problem to spoil, with tokens, class ids and networks of other readouts."""
    p = make_problem("rnn-tanh", SIZES, "float32")
    T, B, I, H, O = SIZES
    p.tokens, p.ids = p.rng.integers(0, I, (T, B)), p.rng.integers(0, O, (T, B))
    p.lstm = fb.LSTM.init(I, H, rng=p.rng)
    p.bare = fb.Network(p.layer, None)
    p.softmax, p.sigmoid = (
        fb.Network(p.layer, fb.Readout.init(H, O, rng=p.rng, activation=name))
        for name in ("softmax", "sigmoid")
    )
    return p


def changed(array, index, value):
    """A copy with one element changed."""
    array = array.copy()
    array[index] = value
    return array


def train(function, p, **changes):
    """`fb.bptt` or `fb.evaluate` on the problem with some arguments changed."""
    given = {"network": p.network, "x": p.x, "y": p.y} | changes
    network, x, y = (given.pop(name) for name in ("network", "x", "y"))
    return function(network, x, y, **given)


def bptt(p, **changes):
    return train(fb.bptt, p, **changes)


def contents(p):
    """The bytes of everything that a call must not change."""
    arrays = (*p.network.arrays(), p.x, p.y, p.state, p.tokens, p.ids, p.dh)
    return [a.tobytes() for a in arrays]


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
    """The least budget that works: a budget of one byte is refused, and the message names it."""
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


def policy(memory, network, T, B=1):
    """The `memory` argument: a float stands for a budget between the least (0) and full (1)."""
    if not isinstance(memory, float):
        return memory
    least = least_bytes(network, T, B)
    return least + int(memory * (fb.plan(network, T, B).peak_bytes - least))


def measured(network, x, y, *args, **given):
    """The result, and the peak of traced bytes beyond the gradients that it holds."""
    fb.bptt(network, x, y, *args, **given)  # so that nothing is compiled below
    _held.clear()  # scratch from the pool would not be traced
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        r = fb.bptt(network, x, y, *args, **given)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    return r, peak - sum(a.nbytes for a in flatten((r.grad, r.grad_x, r.grad_state)))


def check_peak(network, x, y, *args, **given):
    r, peak = measured(network, x, y, *args, **given)
    assert peak <= r.plan.peak_bytes + OBJECTS, f"{peak} bytes, planned {r.plan.peak_bytes}"
    return r, peak


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


def run_python(code, *options, **given):
    """What `code` prints in a new interpreter. The test fails if it fails or hangs."""
    with start_python(code, *options, **given) as process:
        try:
            out, err = process.communicate(timeout=HANGS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"hangs: no end within {HANGS} s")
        finally:
            kill(process)
    assert process.returncode == 0, err
    return out


def run_command(*arguments, **options):
    """Run `fastbptt` with these arguments; messages about compiling are removed from stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "fastbptt", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=HANGS,
        **options,
    )
    done.stderr = re.sub(r"^fastbptt: compiling.*\n", "", done.stderr, flags=re.M)
    return done


def kill(process):
    """End the process and all that it forked."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
