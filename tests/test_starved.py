"""The system refuses threads, stacks or CPUs: the bits stay the same."""

import os
import sys
import threading
import time

import numpy as np
import pytest
from checks import HANGS, run_python
from fastbptt.kernels import flat
from fastbptt.kernels.cpu import quota, team
from helpers import all_results, make_problem

import fastbptt as fb

FRAME = 16384  # bytes of stack that a kernel's own frame may take


def gradients():
    p = make_problem("lstm", (150, 32, 16, 48, 2), "float32")
    return [np.array(a) for a in all_results(fb.bptt(p.network, p.x, p.y))]


def same(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "fastbptt"]


@pytest.fixture
def allowed(monkeypatch):
    """A list of one number: how many more threads the system lets anyone start."""
    start, left, others = threading.Thread.start, [0], workers()

    def grudging(thread):
        if left[0] == 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", grudging)
    monkeypatch.setattr(team, "_team", None)
    yield left
    team._team.retire()
    for thread in set(workers()).difference(others):
        thread.join(HANGS)  # or the next test would count it


@pytest.mark.parametrize("some", [0, 1, 2])
def test_a_call_does_with_the_threads_it_gets(allowed, set_threads, monkeypatch, some):
    set_threads(1)
    due, before = gradients(), set(workers())
    set_threads(4)
    allowed[0] = some
    assert same(gradients(), due) and len(set(workers()) - before) == some
    assert same(gradients(), due) and len(set(workers()) - before) == some
    allowed[0] = 8
    monkeypatch.setattr(team._team, "next_try", 0.0)
    assert same(gradients(), due) and len(set(workers()) - before) == 3, "it is not asked again"


def test_a_process_that_may_start_no_thread_works_alone():
    pytest.importorskip("resource", reason="this system limits no processes")
    out = run_python("""
import os, resource, threading
from fastbptt.kernels.cpu import team
from test_starved import fb, gradients, same, workers

fb.set_num_threads(1)
due = gradients()
team._serve()
if not os.getuid():  # nothing limits the superuser
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    threading.Thread(target=int).start()
except RuntimeError:
    pass
else:
    raise SystemExit("a thread could be started")
fb.set_num_threads(8)
print(same(gradients(), due), len(workers()))
""")
    assert out.split() == ["True", "0"]


def test_a_larger_team_takes_the_place_of_the_smaller(set_threads, monkeypatch):
    monkeypatch.setattr(team, "_team", None)
    before = set(workers())
    for threads in (2, 3, 5):
        set_threads(threads)
        gradients()
    end = time.monotonic() + 300
    while len(set(workers()) - before) > 4 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(set(workers()) - before) == 4
    team._team.retire()


@pytest.mark.parametrize(
    "n", [team.MOST_THREADS + 1, 2**40, 10**5000], ids=["more", "2^40", "10^5000"]
)
def test_more_threads_than_any_machine_has_are_rejected(n):
    with pytest.raises(ValueError, match=rf"\bn must be at most {team.MOST_THREADS}\b"):
        fb.set_num_threads(n)


@pytest.mark.parametrize("text", [str(team.MOST_THREADS + 1), "9" * 5000], ids=["more", "9..."])
def test_the_environments_number_of_threads_is_bounded_too(monkeypatch, text):
    monkeypatch.setattr(team, "_limit", None)
    monkeypatch.setenv("FASTBPTT_NUM_THREADS", text)
    with pytest.raises(ValueError, match=rf"FASTBPTT_NUM_THREADS must .* to {team.MOST_THREADS}\b"):
        gradients()


SMALL_STACK = """
import sys, threading
from helpers import CELLS, DTYPES, all_results, make_problem
import fastbptt as fb

def call():
    for cell in CELLS:
        for dtype in DTYPES if cell == "lstm" else DTYPES[:1]:
            p = make_problem(cell, (70, 3, 5, 70, 3), dtype)
            h, _, cache = fb.forward(p.layer, p.x, p.state)
            fb.backward(cache, p.dh, p.dstate, deltas=True)
            fb.run(p.layer, p.x, keep="last")
            fb.predict(p.network, p.x)
            fb.evaluate(p.network, p.x, p.y)
            for memory in ("full", fb.Checkpointed(segment=20), fb.Truncated(20, 30)):
                fb.bptt(p.network, p.x, p.y, memory=memory, input_grad=True, lengths=p.lengths)
    print("done")

threading.stack_size(65536)
fb.set_num_threads(3)
thread = threading.Thread(target=call)
thread.start()
thread.join()
"""


def test_calls_work_in_a_thread_with_a_stack_of_64_kib():
    # Whatever is compiled or loaded by the first of them needs more, and so gets more.
    assert run_python(SMALL_STACK).split()[-1] == "done"


FRAMES = """
from numba.core.codegen import JITCodeLibrary

class Watched:
    '''Machine code, compiled or from the disk, of which a library keeps none.'''
    seen = {}
    def __get__(self, library, owner):
        return vars(library).get("code")
    def __set__(self, library, code):
        vars(library)["code"] = code
        if code:
            self.seen[library.name] = code

JITCodeLibrary._compiled_object = Watched()

from helpers import make_problem
import fastbptt as fb

for cell in ("rnn-tanh", "lstm", "gru", "gru-before"):
    p = make_problem(cell, (70, 3, 5, 70, 3), "float32")
    fb.bptt(p.network, p.x, p.y, input_grad=True, lengths=p.lengths)
    fb.predict(p.network, p.x)
for name, code in Watched.seen.items():
    at = code.find(b"\\x48\\x81\\xec")  # sub rsp, and four bytes
    while at >= 0:
        print(int.from_bytes(code[at + 3 : at + 7], "little"), name)
        at = code.find(b"\\x48\\x81\\xec", at + 1)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="reads x86-64 machine code"
)
def test_no_kernel_takes_much_of_the_stack():
    lines = run_python(FRAMES).splitlines()
    frames = [(int(size), name) for size, name in (line.split(maxsplit=1) for line in lines)]
    assert len(frames) > 10 and any("product" in name for _, name in frames)
    assert max(frames)[0] <= FRAME, max(frames)


def test_an_array_on_the_stack_is_bounded():
    from numba import njit
    from numba.core.errors import TypingError

    @njit
    def greedy(a):
        flat.stack_array(a, 65536)

    with pytest.raises((TypingError, ValueError), match=f"at most {flat.MOST_STACK} bytes"):
        greedy(np.zeros(1))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_the_number_of_threads_follows_the_affinity(monkeypatch):
    monkeypatch.setattr(team, "_limit", None)
    monkeypatch.delenv("FASTBPTT_NUM_THREADS", raising=False)
    cpus, due = os.sched_getaffinity(0), gradients()
    try:
        os.sched_setaffinity(0, {min(cpus)})
        assert team.get_num_threads() == 1 and same(gradients(), due)
    finally:
        os.sched_setaffinity(0, cpus)
    assert team.get_num_threads() == min(len(cpus), quota.quota()) and same(gradients(), due)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_process_held_to_one_cpu_from_the_start_works_alone(set_threads):
    out = run_python("""
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from test_starved import gradients, team, workers
print(b"".join(a.tobytes() for a in gradients()).hex(), team.get_num_threads(), len(workers()))
""", FASTBPTT_NUM_THREADS=None)  # fmt: skip
    set_threads(2)
    assert out.split() == [b"".join(a.tobytes() for a in gradients()).hex(), "1", "0"]


GROUPS = {
    "no limit": ("0::/\n", {"cpu.max": "max 100000"}, None),
    "in the container's own group": ("0::/\n", {"cpu.max": "150000 100000"}, 2),
    "less than one CPU": ("0::/\n", {"cpu.max": "20000 100000"}, 1),
    "of a service": ("0::/a.slice/b.service\n", {"a.slice/b.service/cpu.max": "300000 100000"}, 3),
    "the least of those around it": (
        "0::/a/b\n",
        {"cpu.max": "700000 100000", "a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"},
        2,
    ),
    "of version 1": (
        "4:memory:/x\n3:cpu,cpuacct:/docker/1\n",
        {
            "cpu,cpuacct/docker/1/cpu.cfs_quota_us": "400000",
            "cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000",
        },
        4,
    ),
    "of version 1, no limit": (
        "3:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        None,
    ),
    "of another system": (None, {}, None),
    "nonsense": ("nonsense\n", {"cpu.max": "one two three"}, None),
}


@pytest.mark.parametrize("groups, files, due", GROUPS.values(), ids=GROUPS)
def test_a_quota_of_cpu_time_is_found(tmp_path, groups, files, due):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    listed = tmp_path / "groups"
    if groups is not None:
        listed.write_text(groups)
    assert quota.read_quota(listed, tmp_path) == (quota.NONE if due is None else due)


def test_the_number_of_threads_follows_the_quota(monkeypatch):
    monkeypatch.setattr(team, "_limit", None)
    monkeypatch.delenv("FASTBPTT_NUM_THREADS", raising=False)
    due = gradients()
    monkeypatch.setattr(team, "quota", lambda: 1)
    assert team.get_num_threads() == 1 and same(gradients(), due)
