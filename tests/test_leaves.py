"""A leaf is run while the one before it is gone back over; results do not depend on it."""

import numpy as np
import pytest
from checks import check_peak
from fastbptt.kernels.cpu import split
from fastbptt.kernels.cpu.bound import Bound
from fastbptt.kernels.cpu.slots import LANE
from helpers import CELLS, make_problem
from results import same

import fastbptt as fb
from fastbptt.engine import row_blocks

SEGMENTS = [1, 5, 16, 61, 150, 299]  # some end where parts do, some do not; the last leaf is short


@pytest.fixture(autouse=True)
def shared_rounds(monkeypatch):
    """Rounds are shared out among threads however little there is to do in them."""
    monkeypatch.setattr(split, "_LEAF", 1)


@pytest.fixture
def ahead(monkeypatch):
    """An entry for each return of compiled code that runs leaves beside each other."""
    found, walk = [], Bound.walk

    def noted(self, rows, budget):
        status = walk(self, rows, budget)
        if self.get("leaf_steps"):
            found.append(True)
        return status

    monkeypatch.setattr(Bound, "walk", noted)
    return found


def gradient(p, memory="full", **given):
    """A call that is told to report does not go the short way of small calls."""
    return fb.bptt(
        p.network, p.x, p.y, state=p.state, memory=memory, input_grad=True,
        progress=lambda *at: None, **given,
    )  # fmt: skip


@pytest.mark.parametrize("B", [1, 3, 7])
@pytest.mark.parametrize("cell", CELLS)
def test_bits_are_those_of_full(cell, B, ahead, set_threads):
    p = make_problem(cell, (300, B, 3, 17, 2), "float32")
    for given in ({}, {"lengths": p.lengths}):
        due = gradient(p, **given)
        for threads in (2, 3):
            set_threads(threads)
            for L in SEGMENTS:
                ahead.clear()
                assert same(gradient(p, fb.Checkpointed(segment=L), **given), due)
                assert ahead, "leaves were not run beside each other"


@pytest.mark.parametrize("recomputes", [1, 2, 3])
@pytest.mark.parametrize("cell, dtype", [("lstm", "float32"), ("gru", "float64")])
def test_bits_of_budgets_are_those_of_full(cell, dtype, recomputes, ahead, set_threads):
    """Leaves of unequal lengths, some of them followed by others than a leaf."""
    p = make_problem(cell, (9000, 1, 4, 20, 1), dtype)  # more than two flushes
    due = gradient(p)
    for threads in (2, 3):
        set_threads(threads)
        memory = fb.frontier(p.network, p.T)[recomputes].memory
        assert same(gradient(p, memory), due)
    assert ahead


@pytest.mark.parametrize("block", [1, 7, 256])
@pytest.mark.parametrize("B", [1, 5])
def test_bits_do_not_depend_on_where_the_walk_returns(B, block, monkeypatch, set_threads):
    """The clock is made to cut after every part; blocks of rows end between leaves that follow."""
    p, walk, found = make_problem("lstm", (300, B, 3, 9, 2), "float32"), Bound.walk, []
    due = gradient(p)

    def one_part(self, rows, budget):
        status = walk(self, rows, 1)
        found.append(self.slots[[LANE.ahead_start, LANE.ahead_to, LANE.ahead_stop]].copy())
        return status

    monkeypatch.setattr(Bound, "walk", one_part)
    monkeypatch.setattr(row_blocks, "BLOCK", block)
    for threads in (2, 3):
        set_threads(threads)
        for L in SEGMENTS:
            assert same(gradient(p, fb.Checkpointed(segment=L)), due)
    assert len(found) > 100
    assert any(start < to < stop for start, to, stop in found)  # in the midst of both


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("memory", [fb.Checkpointed(segment=64), 1, 2, 3], ids=str)
@pytest.mark.parametrize("sizes", [(3000, 1, 5, 40, 2), (20000, 1, 3, 8, 1), (900, 4, 5, 24, 2)])
@pytest.mark.parametrize("cell", ["rnn-tanh", "gru-before"])
def test_measured_peak_is_within_the_plan(cell, sizes, memory, threads, set_threads):
    set_threads(threads)
    p = make_problem(cell, sizes, "float32")
    if isinstance(memory, int):
        memory = fb.frontier(p.network, p.T, p.B)[memory].memory
    check_peak(p.network, p.x, p.y, memory=memory, input_grad=True)


def test_what_needs_copies_or_python_goes_one_leaf_after_the_other(ahead, set_threads):
    set_threads(2)
    memory = fb.Checkpointed(segment=20)
    p = make_problem("lstm", (200, 2, 6, 9, 3), "float32", tokens=True)
    q = make_problem("lstm", (200, 2, 6, 9, 3), "float32")
    r = make_problem("lstm", (200, 2, 6, 9, 3), "float32", "cross_entropy", "softmax")

    def own(h, y, start):
        return float((h * h).sum()), 2 * h

    for call in (
        lambda memory: fb.bptt(p.network, p.x, p.y, memory=memory),
        lambda memory: fb.bptt(q.network, q.x[:, ::-1], q.y, memory=memory),
        lambda memory: fb.bptt(q.network, q.x, q.y, weights=np.ones(200), memory=memory),
        lambda memory: fb.bptt(r.network, r.x, r.y, r.loss, memory=memory),
    ):
        assert same(call(memory), call("full"))
    found, due = (fb.bptt(q.network, q.x, None, own, memory=m) for m in (memory, "full"))
    assert same(found.grad, due.grad)
    assert not ahead
    p.x[117, 1] = 6
    with pytest.raises(ValueError, match="117"):
        fb.bptt(p.network, p.x, p.y, memory=memory)


def test_progress_counts_every_step(ahead, set_threads):
    set_threads(2)
    p, told = make_problem("rnn-tanh", (4000, 1, 3, 8, 2), "float32"), []
    memory = fb.Checkpointed(segment=100)
    r = fb.bptt(p.network, p.x, p.y, memory=memory, progress=lambda *at: told.append(at))
    assert ahead
    total = r.plan.forward_steps + r.plan.backward_steps
    assert told[-1] == (total, total)
