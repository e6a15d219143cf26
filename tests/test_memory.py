"""Measured peaks stay within their plans, and plans within their budgets."""

import tracemalloc

import numpy as np
import pytest
from checks import check_peak, least_bytes, policy
from helpers import CELLS, assert_same_bits, make_layer, make_problem

import fastbptt as fb

MiB = 2**20

POLICIES = ["full", 0.3, 0.05, fb.Checkpointed(segment=37), fb.Truncated(40, 100)]


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Compile all kernels, and make first-call state, before anything is measured."""
    for cell in CELLS:
        for dtype in ("float32", "float64"):
            for tokens in (False, True):
                p = make_problem(cell, (3, 2, 3, 4, 2), dtype, tokens=tokens)
                for memory in ("full", fb.Checkpointed(segment=1), fb.Truncated(1, 2)):
                    fb.bptt(p.network, p.x, p.y, memory=memory, input_grad=not tokens)
            fb.bptt(p.network, p.x, None, lambda h, y, start: (0.0, h))
    for dtype in ("float32", "float64"):
        p = make_problem("rnn-tanh", (5000, 1, 3, 4, 2), dtype)  # more than one flush
        fb.bptt(p.network, p.x, p.y)
    for loss, readout in (("cross_entropy", "softmax"), ("binary_cross_entropy", "sigmoid")):
        p = make_problem("lstm", (3, 2, 3, 4, 2), "float32", loss, readout)
        fb.bptt(p.network, p.x, p.y, loss)


@pytest.mark.parametrize("memory", POLICIES, ids=str)
@pytest.mark.parametrize(
    "cell, sizes, dtype",
    [
        ("rnn-tanh", (1500, 4, 8, 32, 3), "float32"),
        ("rnn-relu", (4000, 1, 5, 17, 30), "float32"),
        ("lstm", (1500, 3, 8, 20, 3), "float32"),
        ("lstm", (700, 2, 40, 16, 20), "float64"),
        ("rnn-tanh", (40, 3, 200, 100, 60), "float64"),  # the weights outweigh the cache
    ],
)
def test_measured_peak_is_within_the_plan(cell, sizes, dtype, memory):
    p = make_problem(cell, sizes, dtype)
    memory = policy(memory, p.network, p.T, p.B)
    r, _ = check_peak(p.network, p.x, p.y, memory=memory, state=p.state, input_grad=True)
    if isinstance(memory, int):
        assert r.plan.peak_bytes <= memory


VARIANTS = {
    "tokens": ({"tokens": True}, lambda p: {}),
    "small tokens": ({"tokens": True}, lambda p: {"x": p.x.astype("u1")}),
    "lengths": ({}, lambda p: {"lengths": p.lengths}),
    "weights": (
        {},
        lambda p: {"weights": p.rng.random((p.T, p.B)).astype("f4"), "reduction": "mean"},
    ),
    "Fortran order": ({}, lambda p: {"x": np.asfortranarray(p.x), "y": np.asfortranarray(p.y)}),
    "reversed": ({}, lambda p: {"x": p.x[::-1, ::-1, ::-1], "y": p.y[::-1]}),
    "every second": ({}, lambda p: {"x": np.repeat(p.x, 2, 2)[:, :, ::2]}),
    "cross-entropy": (
        {"loss": "cross_entropy", "readout": "softmax"},
        lambda p: {"loss": "cross_entropy"},
    ),
    "binary": (
        {"loss": "binary_cross_entropy", "readout": "sigmoid"},
        lambda p: {"loss": "binary_cross_entropy"},
    ),
}


@pytest.mark.parametrize("memory", ["full", 0.05, fb.Truncated(40, 100)], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_measured_peak_is_within_the_plan_for_every_kind_of_input(variant, memory):
    options, make = VARIANTS[variant]
    p = make_problem("lstm", (1500, 3, 30, 16, 40), "float32", **options)
    given = {"x": p.x, "y": p.y} | make(p)
    memory = policy(memory, p.network, p.T, p.B)
    check_peak(p.network, given.pop("x"), given.pop("y"), memory=memory, **given)


@pytest.mark.parametrize("memory", ["full", 0.05, fb.Truncated(40, 100)], ids=str)
@pytest.mark.parametrize("readout", [False, True])
def test_measured_peak_is_within_the_plan_for_a_callable_without_y(memory, readout):
    p = make_problem("lstm", (1500, 3, 8, 16, 4), "float32")
    dh = np.ones((1500, 3, 16), "f4")
    network = p.network if readout else fb.Network(p.layer, None)
    memory = policy(memory, network, p.T, p.B)
    check_peak(network, p.x, None, lambda h, y, start: (0.0, dh[: len(h)]), memory=memory)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("memory", ["full", 0.05, fb.Truncated(40, 100)], ids=str)
def test_measured_peak_is_within_the_plan_for_any_number_of_threads(memory, threads, set_threads):
    set_threads(threads)
    p = make_problem("lstm", (700, 2, 40, 16, 20), "float64")
    memory = policy(memory, p.network, p.T, p.B)
    fb.bptt(p.network, p.x, p.y, memory=memory)  # the threads are there when it is measured
    check_peak(p.network, p.x, p.y, memory=memory)


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_every_budget_from_the_least_to_full_is_kept_and_never_runs_more_for_more(cell):
    p = make_problem(cell, (250, 8, 3, 96, 2), "float32")
    full = fb.plan(p.network, p.T, p.B)
    least, steps = least_bytes(p.network, p.T, p.B), []
    exact = fb.bptt(p.network, p.x, p.y)
    for budget in np.geomspace(least, full.peak_bytes, 12).astype(int):
        r, _ = check_peak(p.network, p.x, p.y, memory=int(budget))
        assert r.plan.peak_bytes <= budget
        assert_same_bits(r, exact)
        steps.append(r.plan.forward_steps)
    assert steps == sorted(steps, reverse=True) and steps[0] > steps[-1] == p.T


@pytest.mark.parametrize("k1, k2", [(20, 50), (50, 50), (1, 30)])
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_peak_of_truncation_does_not_grow_with_time(cell, k1, k2):
    network = make_problem(cell, (1, 8, 16, 32, 4), "float32").network
    plans = [fb.plan(network, T, 8, memory=fb.Truncated(k1, k2)) for T in (500, 5000, 50_000)]
    assert len({plan.peak_bytes for plan in plans}) == 1
    assert plans[0].peak_bytes <= fb.plan(network, k1 + k2, 8).peak_bytes
    for T in (500, 2500):
        x, y = np.zeros((T, 8, 16), "f4"), np.zeros((T, 8, 4), "f4")
        r = check_peak(network, x, y, memory=fb.Truncated(k1, k2))[0]
        assert r.plan.peak_bytes == plans[0].peak_bytes


@pytest.mark.parametrize(
    "memory",
    [
        "full",
        0.2,
        "4MB",
        1_000_000,
        fb.Full(),
        fb.Checkpointed("1MiB"),
        fb.Checkpointed(segment=100),
        fb.Truncated(7, 30),
    ],
    ids=str,
)
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_bptt_carries_out_the_plan(cell, memory):
    p = make_problem(cell, (2000, 3, 4, 16, 2), "float32")
    memory = policy(memory, p.network, p.T, p.B)
    given = {"memory": memory, "lengths": p.lengths, "reduction": "mean", "input_grad": True}
    plan = fb.plan(p.network, 2000, 3, **given)
    assert fb.bptt(p.network, p.x, p.y, **given).plan == plan
    T = 2000
    assert plan.time_factor == pytest.approx(
        (plan.forward_steps + 2 * plan.backward_steps) / (3 * T)
    )
    assert plan.forward_steps >= T and plan.backward_steps >= T
    assert len(list(plan.actions)) > 0
    if not isinstance(memory, fb.Truncated):
        assert plan.backward_steps == T
    if memory in ("full", fb.Full()):
        assert plan.time_factor == 1
    one = fb.bptt(p.network, p.x[:, 0], p.y[:, 0], memory=memory).plan
    assert one == fb.plan(p.network, 2000, memory=memory)


def test_plans_of_other_arguments_differ():
    network = make_problem("lstm").network
    plans = [
        fb.plan(network, T, B, memory=m)
        for T in (90, 91)
        for B in (1, 2)
        for m in ("full", fb.Truncated(9, 9))
    ]
    assert all(
        (one == other) == (i == j) for i, one in enumerate(plans) for j, other in enumerate(plans)
    )


@pytest.mark.parametrize("memory", POLICIES, ids=str)
def test_no_time_at_all_has_a_plan(memory):
    p = make_problem("lstm", (0, 2, 3, 5, 2), "float32")
    memory = policy(memory, p.network, 0, 2)
    plan = fb.plan(p.network, 0, 2, memory=memory)
    assert plan.forward_steps == plan.backward_steps == 0 and np.isfinite(plan.time_factor)
    assert fb.bptt(p.network, p.x, p.y, memory=memory).plan == plan and str(plan)


SIZES_IN_BYTES = {"2MB": 2 * 10**6, "3MiB": 3 * MiB, "400MB": 4 * 10**8}


@pytest.mark.parametrize("text", SIZES_IN_BYTES)
def test_mb_is_a_million_bytes_and_mib_two_to_the_twentieth(text):
    network = make_problem("rnn-tanh", (1, 4, 8, 32, 3), "float32").network
    budget = SIZES_IN_BYTES[text]
    one, other = (fb.plan(network, 10**6, 4, memory=m) for m in (text, budget))
    assert one == other and one.peak_bytes <= budget
    assert one.peak_bytes > 0.95 * budget  # a budget is made use of


def big_network():
    return fb.Network(make_layer("rnn-tanh", 16, 256, "float32", 0), fb.Readout.init(256, 2, rng=0))


def test_frontier_has_the_known_least_memory_for_a_million_steps():
    """Elman, float32, H=256, B=32: MiB for state and cache."""
    rows = fb.frontier(big_network(), 10**6, 32)
    assert [round(plan.cache_bytes / MiB, 1) for plan in rows] == [31250.0, 44.2, 5.7, 2.2]
    factors = [plan.time_factor for plan in rows]
    assert factors[0] == 1 and factors == sorted(factors)
    assert factors[1] < 4 / 3 and factors[2] < 5 / 3 and factors[3] < 2


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_budgets_of_the_frontier_do_what_it_says(cell):
    p = make_problem(cell, (3000, 2, 3, 16, 2), "float32")
    for r, row in enumerate(fb.frontier(p.network, 3000, 2).checkpointed):
        plan = fb.plan(p.network, 3000, 2, memory=row.peak_bytes)
        assert plan.forward_steps <= row.forward_steps < (r + 1) * 3000 + 1
        assert plan.peak_bytes <= row.peak_bytes


def test_plans_and_frontiers_print_as_tables():
    network = big_network()
    rows = fb.frontier(network, 10**6, 32)
    for plan in rows:
        lines = str(plan).splitlines()
        assert len(lines) >= 4 and max(map(len, lines)) <= 100
        assert "peak" in str(plan) and f"{plan.forward_steps:,}" in str(plan)
    lines = str(rows).splitlines()
    assert len(lines) >= len(rows) + 1 == 5 and max(map(len, lines)) <= 100
    assert str(fb.plan(network, 10, memory=fb.Truncated(2, 4))) != str(fb.plan(network, 10))


@pytest.mark.parametrize("tokens", [False, True])
def test_memory_maps_larger_than_the_budget_are_read_stretch_by_stretch(tmp_path, tokens):
    T, B, I, O = 20_000, 4, 64, 16
    p = make_problem("rnn-tanh", (1, B, I, 16, O), "float32")
    shape, dtype = ((T, B), "i8") if tokens else ((T, B, I), "f4")
    x = np.memmap(tmp_path / "x", dtype, "w+", shape=shape)
    y = np.memmap(tmp_path / "y", "f4", "w+", shape=(T, B, O))
    if not tokens:
        x[:, :, 0] = np.sin(np.arange(T))[:, None]
    budget = policy(0.02, p.network, T, B)
    r, peak = check_peak(p.network, x, y, memory=budget)
    assert r.plan.peak_bytes <= budget < y.nbytes and (tokens or budget < x.nbytes)
    assert_same_bits(r, fb.bptt(p.network, np.array(x), np.array(y)))
    # The readers that cache nothing hold no more than their results.
    fb.evaluate(p.network, x[:8], y[:8])  # compiles, which takes memory, too
    fb.run(p.layer, x[:8], keep="last")
    tracemalloc.start()
    fb.evaluate(p.network, x, y)
    h = fb.run(p.layer, x, keep="last")[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert h.shape == (B, 16) and peak <= 4_000_000
