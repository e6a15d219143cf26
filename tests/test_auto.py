"""`memory="auto"`: how much is free, what it chooses, and that it says so."""

import numpy as np
import pytest
from checks import rejected, run_command
from helpers import BOTH_WAYS, all_results, make_problem

import fastbptt as fb
from fastbptt.backends import free_memory

MB = 10**6
KB = 1024
FREE = {  # /proc/meminfo, /proc/self/cgroup, files of groups, what is free
    "no limit": ("MemTotal: 9 kB\nMemAvailable: 4 kB\n", "0::/\n", {"memory.max": "max"}, 4 * KB),
    "in the container's own group": (
        "MemAvailable: 4000 kB\n", "0::/\n", {"memory.max": "9000", "memory.current": "2000"}, 7000,
    ),
    "the whole system has less": (
        "MemAvailable: 4 kB\n", "0::/\n", {"memory.max": "9000", "memory.current": "2000"}, 4 * KB,
    ),
    "files that can be dropped are free": (
        None, "0::/a\n",
        {"a/memory.max": "9000", "a/memory.current": "8000",
         "a/memory.stat": "anon 1\ninactive_file 3000\nactive_file 5"}, 4000,
    ),
    "the least of those around it": (
        None, "0::/a/b\n",
        {"memory.max": "max", "memory.current": "1", "a/memory.max": "5000",
         "a/memory.current": "4500", "a/b/memory.max": "3000", "a/b/memory.current": "10"}, 500,
    ),
    "nothing is left": (
        None, "0::/\n", {"memory.max": "5000", "memory.current": "6000"}, 0,
    ),
    "of version 1": (
        None, "4:cpu:/y\n3:memory:/docker/1\n",
        {"memory/docker/1/memory.limit_in_bytes": "8000",
         "memory/docker/1/memory.usage_in_bytes": "3000",
         "memory/docker/1/memory.stat": "inactive_file 9\ntotal_inactive_file 1000",
         "cpu/y/memory.limit_in_bytes": "1", "cpu/y/memory.usage_in_bytes": "0"}, 6000,
    ),
    "of version 1, no limit": (
        None, "3:memory:/\n",
        {"memory/memory.limit_in_bytes": str(2**63 - 4096), "memory/memory.usage_in_bytes": "9"},
        None,
    ),
    "of another system": (None, None, {}, None),
    "nonsense": (
        "MemAvailable: much\nMemAvailable:\n", "nonsense\n",
        {"memory.max": "1 2", "memory.current": "three"}, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("meminfo, groups, files, due", FREE.values(), ids=FREE)
def test_free_memory_is_what_system_and_groups_leave(tmp_path, meminfo, groups, files, due):
    for name, text in {"meminfo": meminfo, "groups": groups, **files}.items():
        if text is not None:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + "\n")
    paths = tmp_path / "meminfo", tmp_path / "groups", tmp_path
    assert free_memory.known_bytes(*map(str, paths)) == due


def test_where_the_system_is_silent_half_of_all_memory_counts_as_free(monkeypatch):
    known = free_memory.free_bytes()
    monkeypatch.setattr(free_memory, "known_bytes", lambda: None)
    assert known > 0 and free_memory.free_bytes() > MB
    monkeypatch.setattr(free_memory.os, "sysconf", lambda name: {}[name], raising=False)
    with pytest.raises(KeyError):
        free_memory.free_bytes()  # the test's own fault, so that it is this that is asked
    monkeypatch.delattr(free_memory.os, "sysconf")
    assert free_memory.free_bytes() == 2**32


@pytest.fixture
def free(monkeypatch):
    """Set how many bytes are free; returns how often that was asked."""
    asked = []

    def set_free(size):
        monkeypatch.setattr(free_memory, "known_bytes", lambda: asked.append(size) or size)
        return asked

    return set_free


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm/gru", BOTH_WAYS[0]])
def test_auto_is_full_below_half_of_what_is_free_and_else_a_budget_of_that_half(cell, free):
    p = make_problem(cell, (4000, 4, 8, 32, 3), "float32")
    for model in (p.network, p.layer):
        full = fb.plan(model, p.T, p.B)
        for size, due in [
            (2 * full.peak_bytes + 2, fb.Full()),
            (2 * full.peak_bytes + 1, fb.Checkpointed(full.peak_bytes)),
            (full.peak_bytes, fb.Checkpointed(full.peak_bytes // 2)),
        ]:
            free(size)
            plan = fb.plan(model, p.T, p.B, memory="auto")
            assert plan.memory == due and plan == fb.plan(model, p.T, p.B, memory=due)
            assert plan.exact and plan.peak_bytes <= max(size // 2, 1)
            (line,) = (line for line in str(plan).splitlines() if "auto" in line)
            assert "half of the free memory" in line and ("not less" in line) == (due != fb.Full())
        assert "auto" not in str(full)


@pytest.mark.parametrize("steps", [4000, 6])
def test_calls_say_what_auto_has_chosen_and_ask_once_at_most(steps, free):
    p = make_problem("lstm", (steps, 2, 8, 32, 3), "float32")
    due = fb.bptt(p.network, p.x, p.y)
    for size in (100 * MB, 2 * MB):
        asked = free(size)
        for _ in range(3):  # a call may be a short one
            asked.clear()
            r = fb.bptt(p.network, p.x, p.y, memory="auto")
            assert len(asked) == (steps > 6)
            small = size == 2 * MB and steps > 6
            assert r.plan.memory == (fb.Checkpointed(MB) if small else fb.Full())
            assert r.plan.auto and "auto" in str(r.plan)
            assert all(map(np.array_equal, all_results(r), all_results(due)))
            asked.clear()
            h, _, cache = fb.forward(p.layer, p.x, memory="auto")
            assert len(asked) == (steps > 6) and cache.plan.auto
            assert cache.plan.memory == r.plan.memory
            g = fb.backward(cache, h)
            assert cache.plan.auto  # still there
            same = fb.backward(fb.forward(p.layer, p.x)[2], h)
            assert all(map(np.array_equal, g.layer.arrays(), same.layer.arrays()))


def test_auto_says_so_where_even_the_least_schedule_does_not_fit(free):
    p = make_problem("lstm", (4000, 2, 8, 256, 3), "float32")
    free(200_000)
    for call in (
        lambda: fb.bptt(p.network, p.x, p.y, memory="auto"),
        lambda: fb.forward(p.layer, p.x, memory="auto"),
        lambda: fb.plan(p.network, p.T, p.B, memory="auto"),
    ):
        with pytest.raises(fb.MemoryLimitError, match=r"auto.* half .* 100000 bytes") as caught:
            call()
        assert caught.value.auto and caught.value.least_bytes > caught.value.budget == 100_000
        assert str(caught.value.least_bytes) in str(caught.value)
    rejected(lambda: fb.plan(p.network, 9, memory="automatic"), "auto", errors=(ValueError,))


def test_the_command_takes_auto():
    done = run_command("plan", "-T", 1000, "-H", 16, "--memory", "auto")
    assert done.returncode == 0 and "full takes less than" in done.stdout
