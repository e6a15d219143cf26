"""The steps that windows share stay where they are in the step cache, a ring."""

import numpy as np
import pytest
from checks import check_peak
from fastbptt.kernels.cpu.bound import Bound
from fastbptt.kernels.cpu.slots import CACHE, KEEP, LAYER
from helpers import all_results, assert_bptt_close, make_problem, oracle_bptt

import fastbptt as fb
from fastbptt.engine import compiled, row_blocks

# T is no multiple of k1 or k2; the steps go round the ring once, or many times.
SIZES = (97, 3, 4, 6, 2)
WINDOWS = [(1, 2), (1, 30), (3, 31), (7, 24), (20, 37), (12, 60), (30, 96)]
KINDS = ["rnn-tanh", "lstm", "gru-before/lstm"]


def planes(walk):
    """Of each layer the states (k, rows, n) and residuals (1, slots, n) in the arena, copied."""
    arena, bound = walk.lane.arena, walk.bound
    for row, own in zip(bound.layers, walk.chain.recurrences, strict=True):
        rows, size = int(row[LAYER.rows]), own.batch * own.hidden
        for name, shape in (
            (LAYER.states_at, (own.states, rows, size)),
            (LAYER.residuals_at, (1, rows - 1, own.residuals * size)),
        ):
            begin = (int(row[name]) - bound.get("arena_at")) // arena.itemsize
            part = arena[begin : begin + int(np.prod(shape))]
            yield part.copy().view(np.uint64).reshape(shape)  # bits: what is unwritten may be NaN


@pytest.fixture
def written(monkeypatch):
    """Of each row of a schedule its kind, its steps, and the most slots that it has written."""
    seen, walk, answer = [], Bound.walk, compiled.CompiledWalk.answer

    def noted(self, rows, budget):
        self.row = rows[0].tolist()
        return walk(self, rows, budget)

    def watched(self):
        before = self.arrays if hasattr(self, "arrays") else None
        status = answer(self)
        self.arrays = list(planes(self)) if self.bound.get("carved") else None
        if before is not None:
            pairs = zip(before, self.arrays, strict=True)
            most = max(int((a != b).any(axis=(0, 2)).sum()) for a, b in pairs)
            kind, start, stop, _ = self.bound.row
            seen.append((kind, stop - start, most))
        return status

    monkeypatch.setattr(Bound, "walk", noted)
    monkeypatch.setattr(compiled.CompiledWalk, "answer", watched)
    monkeypatch.setattr(row_blocks, "BLOCK", 1)
    return seen


def gradient(q, k1, k2, **given):
    memory = fb.Truncated(k1, k2)
    return fb.bptt(
        q.network, q.x, q.y, q.loss, state=q.state, memory=memory, input_grad=True, **given
    )


@pytest.mark.parametrize("k1, k2", WINDOWS)
@pytest.mark.parametrize("cell", KINDS)
def test_nothing_is_moved(cell, k1, k2, written):
    q = make_problem(cell, SIZES)
    for given in ({}, {"lengths": np.array([97, 55, 0])}):
        written.clear()
        r = gradient(q, k1, k2, **given)
        assert_bptt_close(r, oracle_bptt(q, state=q.state, truncation=(k1, k2), **given), q)
        kinds = {kind for kind, _, _ in written}
        assert {CACHE, KEEP} <= kinds
        for kind, steps, most in written:
            # The steps themselves, and one state again where they go on in slot 0.
            assert most <= (steps + 1 if kind == CACHE else 0)


@pytest.mark.parametrize("k1, k2", WINDOWS)
@pytest.mark.parametrize("cell", KINDS)
def test_bits_depend_neither_on_threads_nor_on_where_the_walk_returns(
    cell, k1, k2, monkeypatch, set_threads
):
    q, walk = make_problem(cell, (97, 1, 4, 40, 2), "float32"), Bound.walk
    set_threads(1)
    due = all_results(gradient(q, k1, k2))

    def short(self, rows, budget):
        self.set(call_steps=self.get("chunk"), back_steps=self.get("chunk"))
        return walk(self, rows, 1)

    for threads in (1, 2, 4):
        set_threads(threads)
        found = all_results(gradient(q, k1, k2))
        monkeypatch.setattr(Bound, "walk", short)
        found += all_results(gradient(q, k1, k2))
        monkeypatch.setattr(Bound, "walk", walk)
        for a, b in zip(found, due + due, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("k1, k2", [(1, 300), (7, 64), (100, 101), (50, 50)])
def test_the_ring_is_in_the_plan(k1, k2):
    q = make_problem("lstm", (1000, 2, 3, 30, 2), "float32")
    r, _ = check_peak(q.network, q.x, q.y, memory=fb.Truncated(k1, k2))
    assert r.plan.cache_bytes == (k2 + (k1 < k2)) * r.plan.step_bytes
