"""Threads change the time and nothing else: runs of sequences, sweeps beside products, gangs."""

import numpy as np
import pytest
from fastbptt.kernels.cells.registry import CELLS as ANATOMY
from fastbptt.kernels.cpu import split, team
from helpers import CELLS, DTYPES, flatten, make_problem

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
    """Barriers that cost nothing, so that gangs are taken wherever they can be, or everything."""
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
    assert split.gang_size(2, ANATOMY["lstm"], 192, 1, 4) == 2
    assert (
        split.gang_size(2, ANATOMY["lstm"], 192, 8, 4) == 1
    )  # two runs of sequences need no barrier
    assert split.gang_size(2, ANATOMY["lstm"], 100, 1, 4) == 1  # no whole panels
    monkeypatch.setattr(split, "barrier_seconds", lambda: float("inf"))
    assert split.gang_size(2, ANATOMY["lstm"], 192, 1, 4) == 1


def test_a_barrier_takes_a_time():
    assert team.barrier_seconds() > 0


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
