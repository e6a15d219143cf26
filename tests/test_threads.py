"""Threads change the time and nothing else: runs of sequences, sweeps beside products, gangs."""

import time

import numpy as np
import pytest
from checks import HANGS
from fastbptt.kernels.cells.registry import CELLS as SPECS
from fastbptt.kernels.cpu import split, team, workers
from helpers import CELLS, DTYPES, assert_same_bits, flatten, make_problem

import fastbptt as fb

# Large enough for the team to be woken; odd enough to leave remainders everywhere.
SIZES = {
    "one sequence, products beside the sweep": (130, 1, 33, 96, 7),
    "few sequences": (70, 3, 20, 100, 5),
    "runs of sequences": (40, 17, 31, 65, 9),
    "wide": (30, 1, 40, 192, 3),
}


def everything(p, memory="full", **given):
    h, state, cache = fb.forward(p.layer, p.x, p.state, **given)
    g = fb.backward(cache, p.dh, p.dstate, deltas=True)
    r = fb.bptt(p.network, p.x, p.y, state=p.state, memory=memory, input_grad=True, **given)
    last = fb.run(p.layer, p.x, p.state, keep="last", **given)
    parts = h, state, g.layer, g.x, g.state, g.deltas, r.grad, r.grad_x, r.state, r.grad_state, last
    return [np.array(r.loss), *flatten(parts)]


@pytest.fixture(params=[0.0, float("inf")], ids=["gangs", "no gangs"])
def barrier(request, monkeypatch):
    """The assumed cost of a barrier: 0, so that gangs are used where possible, or infinite."""
    monkeypatch.setattr(split, "barrier_seconds", lambda: request.param)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", [CELLS[0], "lstm"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("lengths", [False, True])
def test_any_number_of_threads_gives_the_same_bits(
    sizes, cell, dtype, lengths, barrier, set_threads
):
    p = make_problem(cell, sizes, dtype)
    given = {"lengths": p.lengths} if lengths else {}
    set_threads(1)
    alone = everything(p, **given)
    for threads in (2, 3, 5):
        set_threads(threads)
        for _ in range(2):  # the second time, the workers are surely awake
            for one, other in zip(alone, everything(p, **given), strict=True):
                assert one.tobytes() == other.tobytes()


def test_a_wide_sweep_is_done_by_a_gang_where_barriers_are_cheap(monkeypatch):
    monkeypatch.setattr(split, "barrier_seconds", lambda: 0.0)
    assert split.gang_size(2, SPECS["lstm"], 192, 1, 4) == 2
    runs = split.gang_size(2, SPECS["lstm"], 192, 8, 4)
    assert runs == 1  # two runs of sequences need no barrier
    assert split.gang_size(2, SPECS["lstm"], 100, 1, 4) == 1  # no whole panels
    monkeypatch.setattr(split, "barrier_seconds", lambda: float("inf"))
    assert split.gang_size(2, SPECS["lstm"], 192, 1, 4) == 1


def until(happens):
    """Repeat what needs two threads at once until it is true; a busy machine may take a while."""
    if team.available_cpus() < 2:
        pytest.skip("needs two processors")
    end = time.monotonic() + HANGS
    while not happens():
        assert time.monotonic() < end, f"no second thread came within {HANGS} s"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_a_gang_of_two_gives_the_bits_of_one(cell, dtype, monkeypatch, set_threads):
    monkeypatch.setattr(split, "barrier_seconds", lambda: 0.0)
    p = make_problem(cell, SIZES["wide"], dtype)

    def bits_and_sizes(mailbox):
        """The results of both passes, and the number of members of the last gang of each."""
        mailbox[workers._SIZE] = 0
        h, state, cache = fb.forward(p.layer, p.x, p.state)
        forward, mailbox[workers._SIZE] = int(mailbox[workers._SIZE]), 0
        g = fb.backward(cache, p.dh, p.dstate, deltas=True)
        parts = flatten((h, state, g.layer, g.x, g.state, g.deltas))
        return [a.tobytes() for a in parts], (forward, int(mailbox[workers._SIZE]))

    set_threads(1)
    alone, sizes = bits_and_sizes(team.team(2).mailbox)
    assert sizes == (0, 0)
    set_threads(2)
    seen = set()

    def both_passes_had_two():
        bits, sizes = bits_and_sizes(team.team(2).mailbox)
        assert bits == alone
        seen.update(enumerate(sizes))
        return {(0, 2), (1, 2)} <= seen

    until(both_passes_had_two)


def test_two_threads_meet_in_a_finite_time(set_threads):
    set_threads(2)
    measure = team.barrier_seconds.__wrapped__  # not the answer of an earlier, busier moment
    until(lambda: 0 < measure() < float("inf"))


def test_a_thread_alone_meets_nobody(monkeypatch):
    monkeypatch.setattr(team, "team_for", lambda work, threads: (team._SOLO, 1))
    assert team.barrier_seconds.__wrapped__() == float("inf")


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_memory_that_is_used_again_shows_in_no_result(cell, set_threads):
    p, q = (make_problem(cell, (200, 2, 12, 80, 3), "float32") for _ in range(2))
    first = everything(p)
    kept = [np.copy(a) for a in first]
    fb.bptt(q.network, 3 * q.x, q.y)
    everything(q)
    for one, other in zip(first, kept, strict=True):
        assert one.tobytes() == other.tobytes()
    for one, other in zip(everything(p), kept, strict=True):
        assert one.tobytes() == other.tobytes()


def test_long_truncation_in_odd_windows_has_the_bits_of_one_thread(set_threads):
    """A flush would be due where half a window begins, at 37 * 4096 steps."""
    p = make_problem("rnn-tanh", (152_000, 1, 4, 128, 2), "float32")
    given = {"memory": fb.Truncated(75, 150)}
    set_threads(1)
    alone = fb.bptt(p.network, p.x, p.y, **given)
    set_threads(2)
    assert_same_bits(fb.bptt(p.network, p.x, p.y, **given), alone)
