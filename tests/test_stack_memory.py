"""Stacks and both directions within budgets, on threads: bits, peaks, progress, explanations."""

import numpy as np
import pytest
from checks import check_peak, least_bytes, policy
from fastbptt.kernels.cpu import split
from helpers import (
    BOTH_WAYS,
    DTYPES,
    STACKS,
    all_results,
    assert_same_bits,
    flatten,
    make_layer,
    make_problem,
)

import fastbptt as fb

LAYERS = [*STACKS, *BOTH_WAYS]
FEW = ["lstm/gru", "gru|lstm", BOTH_WAYS[-1]]
POLICIES = ["full", 0.3, 0.05, fb.Checkpointed(segment=37), fb.Truncated(40, 100)]
SIZES = (700, 3, 8, 14, 3)


def is_allowed(cell, memory):
    return not ("|" in cell and isinstance(memory, fb.Truncated))


PAIRS = [(cell, memory) for cell in LAYERS for memory in POLICIES if is_allowed(cell, memory)]


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Compile all kernels, and make first-call state, before anything is measured."""
    for cell in LAYERS:
        for dtype in DTYPES:
            for tokens in (False, True):
                q = make_problem(cell, (5000, 1, 3, 2, 2), dtype, tokens=tokens, dropout=0.5)
                given = {"input_grad": not tokens, "seed": 0}
                for memory in ("full", fb.Checkpointed(segment=2000)):
                    fb.bptt(q.network, q.x, q.y, memory=memory, **given)
            fb.bptt(q.network, q.x, None, lambda h, y, start: (0.0, h), seed=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell, memory", PAIRS, ids=str)
def test_measured_peak_is_within_the_plan(cell, memory, dtype):
    q = make_problem(cell, SIZES, dtype, dropout=0.3)
    memory = policy(memory, q.network, q.T, q.B)
    given = {"memory": memory, "state": q.state, "input_grad": True, "seed": 1}
    for more in ({}, {"lengths": q.lengths}):
        r, _ = check_peak(q.network, q.x, q.y, **given, **more)
        assert r.plan == fb.plan(q.network, q.T, q.B, **given, **more)
        if isinstance(memory, int):
            assert r.plan.peak_bytes <= memory


VARIANTS = {
    "tokens": ({"tokens": True}, lambda q: {}),
    "weights": ({}, lambda q: {"weights": q.rng.random((q.T, q.B)).astype("f4")}),
    "Fortran order": ({}, lambda q: {"x": np.asfortranarray(q.x), "y": np.asfortranarray(q.y)}),
    "reversed": ({}, lambda q: {"x": q.x[::-1, ::-1, ::-1], "y": q.y[::-1]}),
    "callable": ({}, lambda q: {"y": q.dh, "loss": lambda h, y, start: (0.0, y)}),
}


@pytest.mark.parametrize("memory", ["full", 0.05], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cell", LAYERS)
def test_measured_peak_is_within_the_plan_for_every_kind_of_input(cell, variant, memory):
    options, make = VARIANTS[variant]
    q = make_problem(cell, SIZES, "float32", **options)
    given = {"x": q.x, "y": q.y} | make(q)
    memory = policy(memory, q.network, q.T, q.B)
    check_peak(q.network, given.pop("x"), given.pop("y"), memory=memory, **given)


@pytest.mark.parametrize("ends", ["whole", "ragged"])
@pytest.mark.parametrize("cell", LAYERS)
def test_every_budget_is_kept_and_gives_the_same_bits(cell, ends):
    q = make_problem(cell, (250, 4, 3, 40, 2), "float32", dropout=0.4)
    given = {"seed": 3, "state": q.state, "input_grad": True}
    given |= {"lengths": q.lengths} if ends == "ragged" else {}
    exact, steps = fb.bptt(q.network, q.x, q.y, **given), []
    least = least_bytes(q.network, q.T, q.B)
    for budget in np.geomspace(least, exact.plan.peak_bytes, 9).astype(int):
        r, _ = check_peak(q.network, q.x, q.y, memory=int(budget), **given)
        assert r.plan.peak_bytes <= budget
        assert_same_bits(r, exact, f"budget {budget}")
        steps.append(r.plan.forward_steps)
    assert steps == sorted(steps, reverse=True) and steps[0] > steps[-1] == q.T
    for segment in (1, 7, 128, 249, 250, 2000):
        r = fb.bptt(q.network, q.x, q.y, memory=fb.Checkpointed(segment=segment), **given)
        assert_same_bits(r, exact, f"segment {segment}")


@pytest.mark.parametrize("cell", LAYERS)
def test_a_budget_too_small_names_the_least_that_works(cell):
    q = make_problem(cell, (120, 2, 3, 9, 2), "float32")
    least = least_bytes(q.network, q.T, q.B)
    r = fb.bptt(q.network, q.x, q.y, memory=least)
    assert r.plan.peak_bytes <= least
    assert_same_bits(r, fb.bptt(q.network, q.x, q.y))
    for call in (
        lambda: fb.bptt(q.network, q.x, q.y, memory=least - 1),
        lambda: fb.plan(q.network, q.T, q.B, memory=fb.Checkpointed(least - 1)),
    ):
        with pytest.raises(fb.MemoryLimitError, match=str(least)):
            call()


@pytest.mark.parametrize("cell", LAYERS)
def test_budgets_of_the_frontier_do_what_it_says(cell):
    network = make_problem(cell, (1, 2, 3, 16, 2), "float32").network
    rows = fb.frontier(network, 20_000, 2).checkpointed
    assert rows[0] == fb.plan(network, 20_000, 2) and rows[0].recomputes == 0
    peaks = [row.peak_bytes for row in rows]
    assert len(rows) >= 3 and peaks == sorted(peaks, reverse=True)
    for row in rows:
        plan = fb.plan(network, 20_000, 2, memory=row.peak_bytes)
        assert plan.forward_steps <= row.forward_steps and plan.peak_bytes <= row.peak_bytes
        assert row.time_factor == pytest.approx((row.forward_steps + 2 * 20_000) / 60_000)
        assert f"{row.forward_steps:,}" in str(row) and f"{row.forward_steps:,}" in str(rows)


@pytest.mark.parametrize("cell", BOTH_WAYS)
def test_what_a_pair_hands_on_and_its_gradient_are_in_every_plan(cell):
    """A pair's outputs are stored whole, for the layer above it or the loss."""
    layer = make_problem(cell, (1, 2, 3, 16, 2), "float32").layer
    network = fb.Network(layer, fb.Readout.init(layer.outputs, 2, rng=0))
    parts = getattr(layer, "layers", [layer])
    pairs = [k for k, part in enumerate(parts) if isinstance(part, fb.Bidirectional)]
    whole = {*pairs, *(k - 1 for k in pairs if k)}  # what a pair reads is stored, too
    width = sum(parts[k].outputs for k in whole)
    for memory in ("full", least_bytes(network, 5000, 2), fb.Checkpointed(segment=100)):
        less, more = (fb.plan(network, T, 2, memory=memory) for T in (5000 - 1000, 5000))
        if not isinstance(memory, int):
            assert more.fixed_bytes - less.fixed_bytes >= 2 * 1000 * 2 * width * 4
        assert more.peak_bytes >= 2 * 5000 * 2 * width * 4


SHAPES = {
    "one sequence": (130, 1, 33, 64, 7),
    "few sequences": (70, 3, 20, 40, 5),
    "runs of sequences": (40, 17, 31, 35, 9),
}


def everything(q, **given):
    h, state, cache = fb.forward(q.layer, q.x, q.state, seed=5, **given)
    g = fb.backward(cache, q.dh, q.dstate, deltas=True)
    last = fb.run(q.layer, q.x, q.state, keep="last", **given)
    o = fb.predict(q.network, q.x, q.state, **given)
    found = flatten((h, state, g.layer, g.x, g.state, g.deltas, last, o))
    for memory in ("full", fb.Checkpointed(segment=16)):
        r = fb.bptt(q.network, q.x, q.y, memory=memory, seed=5, input_grad=True, **given)
        found += all_results(r)
    return found


@pytest.mark.parametrize("barrier", [0.0, float("inf")], ids=["gangs", "no gangs"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("cell", LAYERS)
def test_any_number_of_threads_gives_the_same_bits(
    cell, sizes, dtype, barrier, monkeypatch, set_threads
):
    monkeypatch.setattr(split, "barrier_seconds", lambda: barrier)
    q = make_problem(cell, sizes, dtype, dropout=0.3)
    for given in ({}, {"lengths": q.lengths}):
        set_threads(1)
        alone = everything(q, **given)
        for threads in (2, 5):
            set_threads(threads)
            for one, other in zip(alone, everything(q, **given), strict=True):
                assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("memory", ["full", fb.Checkpointed(segment=40)], ids=["full", "segments"])
@pytest.mark.parametrize("cell", FEW)
def test_progress_grows_to_the_plans_total(cell, memory):
    q, told = make_problem(cell, (400, 3, 4, 6, 2)), []
    r = fb.bptt(q.network, q.x, q.y, memory=memory, progress=lambda *pair: told.append(pair))
    total = r.plan.forward_steps + r.plan.backward_steps
    done = [pair[0] for pair in told]
    assert {pair[1] for pair in told} == {total} and done == sorted(done) and done[-1] == total


@pytest.mark.parametrize("cell", LAYERS)
def test_explain_has_a_line_for_every_recurrent_layer(cell):
    layer = make_layer(cell, 4, 6, "float32", np.random.default_rng(0))
    network = fb.Network(layer, fb.Readout.init(layer.outputs, 2, rng=0))
    count = len(cell.replace("|", "/").split("/"))
    alone = fb.explain(fb.LSTM.init(4, 6, rng=0), 100, 2).splitlines()
    shared = [line for line in alone if line.startswith(("device", "call"))]
    for model in (layer, network):
        lines = fb.explain(model, 100, 2, dtype="float64").splitlines()
        assert len(lines) - len(shared) == count * (len(alone) - len(shared))
