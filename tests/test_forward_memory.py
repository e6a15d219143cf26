"""`forward` and `backward` under every memory policy: the bits of full caching, within the plan."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import oracle
import pytest
from checks import policy, rejected
from fastbptt.kernels.cpu.slots import ACTIONS
from helpers import (
    BOTH_WAYS,
    CELLS,
    GRADIENTS,
    STACKS,
    assert_close,
    assert_gradient_close,
    flatten,
    make_problem,
    name_of,
    plain,
    wide,
)
from test_cache import assert_same, at_once, between_spans
from test_own import OWN_LSTM, TIMED

import fastbptt as fb
from fastbptt.engine.lanes import SILENT
from fastbptt.engine.row_blocks import row_blocks
from fastbptt.memory import schedules
from fastbptt.memory.blocking import Footprint

FEW = ["rnn-tanh", "lstm-peephole", "gru-before", "lstm/gru", *BOTH_WAYS[:2]]
EXACT = [0.0, 0.3, 1.0, fb.Checkpointed(segment=37), fb.Checkpointed(segment=1), "auto"]
SHORT = fb.Truncated(40, 100)


def problem(cell, tokens=False, dropout=0.0, sizes=(301, 3, 4, 5, 2), dtype="float32"):
    p = make_problem(cell if isinstance(cell, str) else CELLS[0], sizes, dtype, tokens=tokens,
                     dropout=dropout)  # fmt: skip
    if not isinstance(cell, str):
        p.layer, p.state, p.dstate = cell.init(sizes[2], sizes[3], rng=0, dtype=dtype), None, None
    return p


def forward(p, memory="full", **given):
    given = {"lengths": p.lengths, "seed": 0, "t0": 5} | given
    return fb.forward(p.layer, p.x, p.state, memory=policy(memory, p.layer, p.T, p.B), **given)


def backward(p, cache, **given):
    # Of every second unit: copied a chunk at a time, so that there are several spans.
    dh = np.repeat(given.pop("dh", p.dh), 2, axis=2)[:, :, ::2]
    g = fb.backward(cache, dh, p.dstate, deltas=True, **given)
    return [np.copy(a) for a in flatten((g.layer, g.x, g.state, g.deltas))]


def both(p, memory="full", **given):
    h, state, cache = forward(p, memory, **given)
    return [*flatten((h, state)), *backward(p, cache)]


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("cell", [*CELLS, *STACKS, *BOTH_WAYS, OWN_LSTM, TIMED], ids=name_of)
def test_every_exact_policy_gives_the_bits_of_full_caching(cell, tokens):
    p = problem(cell, tokens, dropout=0.3)
    ragged = {} if len(name_of(cell)) % 2 else {"lengths": None}
    due = both(p, **ragged)
    for memory in [*EXACT, "full", *([] if "|" in name_of(cell) else [fb.Truncated(7, 301)])]:
        assert_same(both(p, memory, **ragged), due)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(9000, 1, 3, 4, 2), (40, 17, 31, 65, 9)])
def test_flushes_chunks_and_threads_show_in_no_bit(sizes, dtype, set_threads):
    p = problem("rnn-tanh", sizes=sizes, dtype=dtype)
    set_threads(1)
    due = both(p)
    for threads in (1, 3):
        set_threads(threads)
        for memory in (0.0, 0.2, fb.Checkpointed(segment=3000)):
            assert_same(both(p, memory), due)


@pytest.mark.parametrize("cell", FEW)
def test_both_calls_run_the_steps_of_the_plan_and_the_second_goes_on_from_the_first(cell):
    p = problem(cell)
    lanes = 1  # a Bidirectional's two directions, and what is above, run one after the other
    if "|" in cell:
        lanes = sum(1 + ("|" in part) for part in cell.split("/"))
    for memory in (0.02, fb.Checkpointed(segment=37)):
        before = SILENT.done
        _, _, cache = forward(p, memory)
        plan, T = cache.plan, p.T
        assert plan == fb.plan(p.layer, T, p.B, memory=policy(memory, p.layer, T, p.B))
        first = SILENT.done - before
        backward(p, cache, keep=True)
        ran = SILENT.done - before
        again = SILENT.done
        backward(p, cache)
        again = SILENT.done - again
        assert plan.recomputes and first == lanes * T
        if "|" not in cell:
            assert ran == plan.forward_steps + plan.backward_steps
            assert again == ran  # all of it once more
        if "/" not in cell:
            assert sum(b - a for kind, a, b in (row for row in plan.actions if len(row) == 3)
                       if kind in ("advance", "cache")) == plan.forward_steps  # fmt: skip


@pytest.mark.parametrize("steps, recomputes", [(50_000, 1), (4000, 2), (300, 3)])
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_compiled_rows_go_on_where_the_way_forward_has_stopped(cell, steps, recomputes):
    layer = problem(cell).layer
    plan = fb.frontier(layer, steps, 3)[recomputes]
    rows = list(plan.schedule())
    first = schedules.forth(plan.schedule())
    assert rows[len(first)][0] == "reverse" and len(first) > 2
    found = row_blocks(schedules.after(plan.schedule(), len(first)))
    due = [(ACTIONS[name], *times, 0, 0)[:4] for name, *times in rows[len(first) :]]
    assert np.array_equal(np.concatenate([block.copy() for block in found]), due)
    assert list(schedules.after(plan.schedule(), len(first))) == rows[len(first) :]


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru-before", "lstm/gru"])
def test_truncation_is_the_sum_over_the_windows_of_the_contract(cell, ends):
    for T in (0, 1, 3, 8, 9):
        for k1, k2 in [(1, 1), (1, 4), (2, 5), (3, 3), (4, 8), (4, 20)]:
            p = problem(cell, sizes=(T, 2, 2, 3, 2), dtype="float64")
            given = {"lengths": np.minimum([9, 4], T)} if ends else {}
            h, _, cache = fb.forward(p.layer, p.x, p.state, memory=fb.Truncated(k1, k2), **given)
            g = fb.backward(cache, p.dh, p.dstate, deltas=True)
            layer, windows = plain(p.layer), oracle.windows(T, k1, k2)
            due_h, _, steps = oracle.forward(layer, wide(p.x), wide(p.state), given.get("lengths"))
            assert_close(h, due_h, GRADIENTS["float64"])
            found = []
            for s, a, b in windows:
                dh = np.where((a <= np.arange(T)) & (np.arange(T) < b), p.dh.T, 0.0).T
                end = wide(p.dstate) if b == T else None
                found.append(oracle.backward(layer, steps, dh, end, s, b))
            if not found:
                assert_same(flatten(g.state), flatten(p.dstate))
                continue
            due = {name: found[0][name] for name in ("layer", "x", "deltas", "state")}
            for (s, _, _), one in list(zip(windows, found, strict=True))[1:]:
                one = one if s == 0 else one | {"state": oracle.mapped(np.zeros_like, one["state"])}
                due = {name: oracle.mapped(np.add, due[name], one[name]) for name in due}
            assert_gradient_close(g.layer, due["layer"], p.layer, GRADIENTS["float64"], 1e-3)
            for name in ("x", "deltas", "state"):
                assert_close(getattr(g, name), due[name], GRADIENTS["float64"], name, 1e-3)


def test_truncation_is_that_of_bptt_with_a_loss_that_hands_out_dh(set_threads):
    p = problem("lstm", sizes=(9000, 1, 3, 4, 2))
    network = fb.Network(p.layer, None)
    r = fb.bptt(network, p.x, None, lambda h, y, at: (0.0, p.dh[at : at + len(h)]), state=p.state,
                memory=SHORT, input_grad=True)  # fmt: skip
    p.dstate = None
    due = [*flatten((r.state, r.grad.layer, r.grad_x, r.grad_state))]
    for threads in (1, 3):
        set_threads(threads)
        found = both(p, SHORT, lengths=None)
        assert_same(found[1:-1], due)


@pytest.mark.parametrize("memory", [0.0, 0.3, fb.Checkpointed(segment=37), SHORT], ids=str)
@pytest.mark.parametrize("cell", FEW[:-1])
def test_any_number_of_threads_may_go_back_and_one_that_is_interrupted_spoils_nothing(
    cell, memory, monkeypatch
):
    if "|" in cell and memory is SHORT:
        memory = 0.5
    blocks = Footprint.blocks  # so that there are many spans
    short = {"chunk": 8, "indexed": 8, "call_steps": 8, "unheard": 8}
    monkeypatch.setattr(
        Footprint, "blocks", lambda *given, **named: blocks(*given, **named)._replace(**short)
    )
    p = problem(cell, dropout=0.3)
    several = [p.dh * np.float32(n + 1) for n in range(4)]
    due = [backward(p, forward(p, memory)[2], dh=dh) for dh in several]
    cache = forward(p, memory)[2]
    for _ in range(2):
        found = at_once(4, lambda n: backward(p, cache, dh=several[n], keep=True))
        for one, other in zip(found, due, strict=True):
            assert_same(one, other)
    for keep, stop in ((True, 0), (False, 3), (False, 30)):
        for used in (cache, forward(p, memory)[2]):
            spans = iter(range(10**6))

            def interrupt(spans=spans, stop=stop):
                if next(spans) == stop:
                    raise KeyboardInterrupt

            with between_spans(interrupt), pytest.raises(KeyboardInterrupt):
                backward(p, used, keep=keep)
            assert_same(backward(p, used, keep=True), due[0])
            assert_same(backward(p, used, dh=several[1], keep=True), due[1])
    assert_same(backward(p, cache), due[0])
    rejected(lambda: backward(p, cache), "consumed")


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("cell", FEW)
def test_weights_changed_after_forward_do_not_count(cell, tokens):
    p = problem(cell, tokens)
    for memory in (0.0, *([] if "|" in cell else [SHORT])):
        due = both(p, memory)
        h, state, cache = forward(p, memory)
        before = [a.copy() for a in p.layer.arrays()]
        for a in p.layer.arrays():
            a[...] = np.nan
        for keep in (True, False):
            assert_same([*flatten((h, state)), *backward(p, cache, keep=keep)], due)
        for a, old in zip(p.layer.arrays(), before, strict=True):
            a[...] = old


def test_results_are_the_callers_own():
    p = problem("lstm")
    due = both(p, 0.0)
    h, state, cache = forward(p, 0.0)
    for a in flatten((h, state)):
        a[...] = np.nan
    assert_same(backward(p, cache), due[3:])


def test_a_budget_too_small_names_the_least_that_works():
    p = problem("gru")
    with pytest.raises(fb.MemoryLimitError) as caught:
        forward(p, 1)
    assert_same(both(p, caught.value.least_bytes), both(p))
    with pytest.raises(fb.MemoryLimitError):
        forward(p, caught.value.least_bytes - 1)
    for memory in ("fulls", -1, 2.5, None, "12 apples"):
        rejected(lambda memory=memory: fb.forward(p.layer, p.x, memory=memory), "memory")
    rejected(lambda: fb.forward(p.layer, p.x, t0=-1), "t0")


def test_t0_continues_the_masks_of_dropout():
    p = problem("lstm/gru", dropout=0.5)
    whole = fb.forward(p.layer, p.x, seed=3)[0]
    _, state, _ = fb.forward(p.layer, p.x[:100], seed=3)
    for memory in ("full", 0.0):
        part = {"memory": policy(memory, p.layer, 201, p.B), "seed": 3}
        h = fb.forward(p.layer, p.x[100:], state, t0=100, **part)[0]
        assert np.array_equal(h, whole[100:])
        assert not np.array_equal(fb.forward(p.layer, p.x[100:], state, **part)[0], h)


@pytest.mark.parametrize("cell", ["lstm", "lstm/gru", BOTH_WAYS[0]])
def test_frontiers_of_layers_are_those_of_both_calls(cell):
    p = problem(cell, sizes=(3000, 2, 4, 16, 2))
    rows = fb.frontier(p.layer, p.T, p.B)
    assert [row.recomputes for row in rows] == [0, 1, 2, 3]
    for row in rows:
        assert fb.plan(p.layer, p.T, p.B, memory=row.peak_bytes).peak_bytes <= row.peak_bytes
    assert rows[0].peak_bytes < fb.plan(p.network, p.T, p.B).peak_bytes
    rejected(lambda: fb.plan(p.readout, 3), "network", "layer")


def test_predicted_seconds_of_a_layer():
    p = problem("rnn-tanh", sizes=(400, 2, 4, 16, 2))
    assert all(row.seconds > 0 for row in fb.frontier(p.layer, p.T, p.B, seconds=True))


def test_calls_of_threads_each_with_a_cache_of_its_own():
    p = problem("lstm")
    due = both(p)
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda memory: both(p, memory), [0.0, 0.3, "full"] * 2):
            assert_same(found, due)
