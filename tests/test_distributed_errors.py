"""Many processes: what one of them gives or does wrong is an error in all."""

import numpy as np
import pytest
from helpers import make_problem
from ranks import on_ranks, parts

import fastbptt as fb
from fastbptt.distributed import groups

SIZES = T, B, I, H, O = 6, 8, 3, 5, 2


@pytest.fixture
def threads_for_processes(monkeypatch, set_threads):
    set_threads(1)
    monkeypatch.setattr(groups, "of", lambda comm: comm)


def problem():
    q = make_problem("rnn-tanh", SIZES)
    q.tokens, q.classes = q.rng.integers(0, I, (T, B)), q.rng.integers(0, O, (T, B))
    q.resets, q.lengths = np.zeros((T, B), bool), np.full(B, T)
    q.softmax = fb.Network(
        q.layer, fb.Readout.init(H, O, rng=0, dtype="float64", activation="softmax")
    )
    q.relu = fb.Network(fb.RNN(q.layer.U, q.layer.W, q.layer.b, "relu"), q.readout)
    q.other = q.network.with_flat(np.nextafter(q.network.flat(), np.inf))
    q.half = q.network.replace_arrays([a.astype("float32") for a in q.network.arrays()])
    return q


def call(comm, own, q, network=None, x=None, y=None, loss="squared_error", **options):
    x, y = (q.x if x is None else x), (q.y if y is None else y)
    for name, axis in (("state", 0), ("lengths", 0), ("weights", 1), ("resets", 1)):
        if name in options:
            options[name] = options[name][own] if axis == 0 else options[name][:, own]
    network, given = network or q.network, (x[:, own], y[:, own])
    return fb.distributed.bptt(comm, network, *given, loss, **{"block": 4, **options})


def of_ranks(shares, options):
    """Each rank's call with its own changes of the arguments."""
    q = problem()

    def work(comm):
        return call(comm, parts(shares)[comm.rank], q, **options(q)[comm.rank])

    return on_ranks(len(shares), work)


DISAGREE = {
    "network": lambda q: {"network": q.other},
    "network, .*relu": lambda q: {"network": q.relu},
    "network, .*float32": lambda q: {
        "network": q.half, "x": q.x.astype("f"), "y": q.y.astype("f")},
    "kind of x": lambda q: {"x": q.tokens},
    "loss": lambda q: {"loss": "cross_entropy", "network": q.softmax, "y": q.classes},
    "reduction": lambda q: {"reduction": "mean"},
    "memory": lambda q: {"memory": "1MB"},
    "input_grad": lambda q: {"input_grad": True},
    "seed": lambda q: {"seed": 1},
    "t0": lambda q: {"t0": 3},
    "block": lambda q: {"block": 2},
    "weights": lambda q: {"weights": np.ones((T, B))},
    "lengths": lambda q: {"lengths": q.lengths},
    "resets": lambda q: {"resets": q.resets},
    "state": lambda q: {"state": q.state},
}  # fmt: skip


@pytest.mark.parametrize("what", DISAGREE)
def test_other_arguments_are_an_error_on_all_ranks(what, threads_for_processes):
    base = (lambda q: {"network": q.softmax}) if what == "loss" else lambda q: {}
    found = of_ranks([4, 0, 4], lambda q: [base(q), base(q), DISAGREE[what](q)])
    assert {type(error) for error in found} == {ValueError}
    assert len({str(error) for error in found}) == 1
    assert "but rank 0 has" in str(found[0]) and "and rank 2" in str(found[0])
    with pytest.raises(ValueError, match=f"have the same {what}"):
        raise found[0]


def test_functions_of_other_names_are_an_error(threads_for_processes):
    def one(h, y, start):
        raise AssertionError

    def other(h, y, start):
        raise AssertionError

    found = of_ranks([4, 4], lambda q: [{"loss": one}, {"loss": fb.OutputLoss(other)}])
    assert all("same loss" in str(e) and "one" in str(e) and "other" in str(e) for e in found)


def test_blocks_must_fit_all_ranks_but_the_last(threads_for_processes):
    found = of_ranks([0, 3, 5, 0], lambda q: [{}] * 4)
    assert all(isinstance(e, ValueError) and "block=4" in str(e) for e in found)
    assert all("rank 1 has 3" in str(e) for e in found)


def test_windows_need_the_same_number_of_steps(threads_for_processes):
    def options(q):
        memory = {"memory": fb.Truncated(2, 3)}
        return [memory, memory | {"x": q.x[:4], "y": q.y[:4]}]

    found = of_ranks([4, 4], options)
    assert all("same T, since windows" in str(error) for error in found)


BAD = {
    "x": lambda q: {"x": q.x[..., :2]},
    "y": lambda q: {"y": q.y[:-1]},
    "network": lambda q: {"network": q.layer},
    "block": lambda q: {"block": 0},
    "loss": lambda q: {"loss": "absolute"},
    "lengths": lambda q: {"lengths": np.full(B, T + 1)},
    "resets": lambda q: {"resets": q.resets.astype(int)},
    "memory": lambda q: {"memory": 10},
    "progress": lambda q: {"progress": 3},
    "seed": lambda q: {"seed": -1},
}


@pytest.mark.parametrize("what", BAD)
def test_what_one_rank_gives_wrong_raises_on_all(what, threads_for_processes):
    fine, bad, also = of_ranks([4, 4, 0], lambda q: [{}, BAD[what](q), {}])
    assert isinstance(bad, (ValueError, TypeError, fb.MemoryLimitError)) and what in str(bad)
    for error in (fine, also):
        assert isinstance(error, RuntimeError)
        assert str(error) == f"rank 1 of comm has failed: {type(bad).__name__}: {bad}"


def test_what_raises_during_the_work_raises_on_all(threads_for_processes):
    def loss(h, y, start):
        if np.isnan(y).any():
            raise KeyError("in the loss")
        return 0.0, h

    q = problem()
    q.y = np.zeros((T, B, H))
    q.y[0, 7] = np.nan

    def work(comm):
        return call(comm, parts([4, 4])[comm.rank], q, loss=loss)

    fine, bad = on_ranks(2, work)
    assert isinstance(bad, KeyError)
    assert "rank 1 of comm has failed: KeyError: 'in the loss'" in str(fine)


def test_ids_that_do_not_exist_raise_on_all(threads_for_processes):
    def options(q):
        tokens = q.tokens.copy()
        tokens[3, 6] = I
        return [{"x": q.tokens}, {"x": tokens}]

    fine, bad = of_ranks([4, 4], options)
    assert isinstance(bad, ValueError) and isinstance(fine, RuntimeError)
    assert "t=3, b=2" in str(bad).replace("[3, 2]", "t=3, b=2")


def test_targets_of_an_own_loss_are_cut_by_sequence(threads_for_processes):
    found = of_ranks([4, 4], lambda q: [{"loss": print, "y": q.y[:, :, 0].T[:T]}] * 2)
    assert all("y must be None or an array (T, B=4, ...)" in str(error) for error in found), found


@pytest.mark.parametrize("comm", [None, 3, "gloo", np.zeros(2)])
def test_comm_must_be_of_one_of_the_two(comm):
    q = problem()
    with pytest.raises(TypeError, match=r"comm must be .*mpi4py.*torch\.distributed"):
        fb.distributed.bptt(comm, q.network, q.x, q.y)
