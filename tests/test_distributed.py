"""bptt over many processes: the bits do not depend on them, and all raise together.

Threads stand in for processes here; `test_distributed_processes.py` has real ones.
"""

import numpy as np
import pytest
from helpers import GRADIENTS, all_results, assert_close, flatten, make_problem, ragged
from ranks import calls, on_ranks, parts

import fastbptt as fb
from fastbptt.distributed import groups
from fastbptt.distributed.tree import Tree

pytestmark = pytest.mark.usefixtures("poisoned_empty")
T, B, BLOCK = 9, 11, 4
SHARES = [[11], [4, 7], [0, 8, 3], [4, 4, 3, 0], [8, 0, 0, 3]]


@pytest.fixture(autouse=True)
def threads_for_processes(monkeypatch, set_threads):
    set_threads(1)
    monkeypatch.setattr(groups, "of", lambda comm: comm)


def of_states(h, y, start):
    return float((h * y).sum()), y.astype(h.dtype)


def of_outputs(o, y, start):
    return float(((o - y) ** 2).sum()), 2 * (o - y)


def case(name):
    """A problem, its loss and its options."""
    cell, dtype, loss, readout, tokens, dropout = {
        "ragged": ("rnn-tanh", "float64", "squared_error", "identity", False, 0.0),
        "tokens": ("gru", "float64", "cross_entropy", "softmax", True, 0.0),
        "budget": ("lstm", "float32", "binary_cross_entropy", "sigmoid", False, 0.0),
        "dropout": ("lstm/gru", "float64", "squared_error", "identity", False, 0.4),
        "both ways": ("rnn-tanh|rnn-tanh", "float64", "squared_error", "identity", False, 0.0),
        "rtrl": ("rnn-tanh", "float64", "squared_error", "identity", False, 0.0),
        "snap": ("rnn-tanh", "float64", "squared_error", "identity", False, 0.0),
        "windows": ("rnn-tanh", "float64", "squared_error", "identity", False, 0.0),
        "of states": ("rnn-tanh", "float64", "squared_error", "identity", False, 0.0),
        "of outputs": ("rnn-tanh", "float64", "squared_error", "identity", False, 0.0),
    }[name]
    q = make_problem(cell, (T, B, 3, 5, 2), dtype, loss, readout, tokens, dropout=dropout)
    rng, network = q.rng, q.network
    resets = rng.random((T, B)) < 0.2
    options = {
        "ragged": {"lengths": ragged(T, B, rng), "weights": rng.random((T, B)) - 0.3,
                   "reduction": "mean", "input_grad": True, "state": q.state},
        "tokens": {"resets": resets, "weights": rng.integers(0, 2, T), "reduction": "mean"},
        "budget": {"memory": fb.Checkpointed(segment=2), "weights": rng.random((T, B, 2)),
                   "state": q.state},
        "dropout": {"seed": 2**70 + 1, "t0": 5, "state": q.state, "reduction": "mean"},
        "both ways": {"resets": resets[:, 0], "input_grad": True, "lengths": ragged(T, B, rng)},
        "rtrl": {"memory": fb.RTRL(), "lengths": ragged(T, B, rng), "state": q.state},
        "snap": {"memory": fb.SnAp1(), "reduction": "mean"},
        "windows": {"memory": fb.Truncated(2, 5), "input_grad": True},
        "of states": {"loss": of_states}, "of outputs": {"loss": fb.OutputLoss(of_outputs)},
    }[name]  # fmt: skip
    if name in ("both ways", "tokens"):
        own = (np.full(5, 0.1), np.full(5, -0.2)) if name == "both ways" else np.full(5, 0.3)
        network = fb.Network(q.layer, q.readout, own)
    if name == "of states":
        q.y = rng.standard_normal((T, B, 5))
    return network, q.x, q.y, options.pop("loss", loss), options


CASES = ["ragged", "tokens", "budget", "dropout", "both ways", "windows", "of states", "of outputs"]
CASES += ["rtrl", "snap"]


@pytest.mark.parametrize("name", CASES)
def test_bits_do_not_depend_on_how_many_processes_there_are(name):
    network, x, y, loss, options = case(name)
    due = fb.bptt(network, x, y, loss, **options)
    first = None
    for shares in SHARES:
        call = calls(network, x, y, loss, shares, {**options, "block": BLOCK})
        results = on_ranks(len(shares), call)
        joined = [np.array(results[0].loss), *results[0].grad.arrays()]
        for r in results:
            again = [np.array(r.loss), *r.grad.arrays()]
            assert all(np.array_equal(a, b) for a, b in zip(joined, again, strict=True))
        for own in ("state", "grad_state", "grad_x"):
            rows = [flatten(getattr(r, own)) for r in results]
            axis = 1 if own == "grad_x" else 0
            joined += [np.concatenate(arrays, axis) for arrays in zip(*rows, strict=True)]
        first = first or joined
        assert all(np.array_equal(a, b) for a, b in zip(first, joined, strict=True))
    tolerance = GRADIENTS[network.dtype.name]
    assert type(results[0].grad.layer) is type(network.layer)
    whole = [np.array(due.loss), *flatten((due.grad, due.state, due.grad_state, due.grad_x))]
    for one, other in zip(first, whole, strict=True):
        assert_close(one, other, tolerance, floor=1e-3)


def test_one_process_with_one_block_has_the_bits_of_bptt():
    network, x, y, loss, options = case("ragged")
    options["reduction"] = "sum"
    (r,) = on_ranks(1, calls(network, x, y, loss, [B], options))
    due = fb.bptt(network, x, y, loss, **options)
    assert all(np.array_equal(*pair) for pair in zip(all_results(r), all_results(due), strict=True))
    assert r.plan == due.plan


def test_a_sequence_without_its_axis_and_processes_with_none():
    network, x, y, loss, _ = case("windows")

    def call(comm):
        if comm.rank:
            return fb.distributed.bptt(comm, network, x[:, :0], y[:, :0], loss)
        return fb.distributed.bptt(comm, network, x[:, 0], y[:, 0], loss)

    due = fb.bptt(network, x[:, 0], y[:, 0], loss)
    alone, none = on_ranks(2, call)
    assert alone.loss == none.loss == due.loss and alone.state.shape == (5,)
    assert none.state.shape == (0, 5)

    def nothing(comm):
        return fb.distributed.bptt(comm, network, x[:, :0], y[:, :0], loss, reduction="mean")

    r = on_ranks(2, nothing)[1]
    assert r.loss == 0 and not r.grad.flat().any()


def test_processes_may_have_sequences_of_other_lengths():
    network, x, y, loss, _ = case("windows")
    lengths = np.array([9, 3, 0, 7, 4, 5, 5, 2, 1, 0, 4])

    def call(comm):
        own = parts([4, 7])[comm.rank]
        T = lengths[own].max()
        given = x[:T, own], y[:T, own]
        return fb.distributed.bptt(
            comm, network, *given, loss, lengths=lengths[own].tolist(), block=4
        )

    whole = calls(network, x, y, loss, [11], {"lengths": lengths, "block": 4})
    (due,), results = on_ranks(1, whole), on_ranks(2, call)
    for r in results:
        assert r.loss == due.loss and np.array_equal(r.grad.flat(), due.grad.flat())


class Term(str):
    """A term or a sum of two, in words."""

    def __iadd__(self, other):
        return Term(f"({self}+{other})")


@pytest.mark.parametrize("shares", [[1], [5], [3, 4], [0, 7, 1, 2, 9], [16, 16, 8], [1] * 13])
def test_a_tree_adds_in_one_order_whoever_holds_what(shares):
    def due(terms):
        if len(terms) == 1:
            return terms[0]
        half = 1 << (len(terms) - 1).bit_length() - 1
        return f"({due(terms[:half])}+{due(terms[half:])})"

    whole = Tree()
    for own in parts(shares):
        tree = Tree()
        for n in range(own.start, own.stop):
            tree.add((0, n), Term(n))
            assert len(tree) <= 2 * np.log2(n + 1 - own.start) + 2
        for node in tree:
            whole.add(*node)
    assert whole.total() == due([str(n) for n in range(sum(shares))])


def test_what_is_not_in_memory_is_cut_too(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    network, x, y, loss, options = case("ragged")
    options["block"] = BLOCK
    due = on_ranks(2, calls(network, x, y, loss, [4, 7], options))
    with h5py.File(tmp_path / "data", "w") as file:
        for rank, own in enumerate(parts([4, 7])):
            for name, array in (("x", x), ("y", y), ("weights", options["weights"])):
                file.create_dataset(f"{name}{rank}", data=array[:, own])

        def call(comm):
            own, rank = parts([4, 7])[comm.rank], comm.rank
            given = options | {"lengths": options["lengths"][own], "state": options["state"][own]}
            given |= {"weights": file[f"weights{rank}"]}
            return fb.distributed.bptt(
                comm, network, file[f"x{rank}"], file[f"y{rank}"], loss, **given
            )

        for r, one in zip(on_ranks(2, call), due, strict=True):
            assert all(
                np.array_equal(*p) for p in zip(all_results(r), all_results(one), strict=True)
            )


def test_progress_is_of_the_own_sequences():
    network, x, y, loss, _ = case("windows")
    told = [[], []]

    def call(comm):
        own = parts([8, 3])[comm.rank]

        def progress(done, total):
            told[comm.rank].append((done, total))

        return fb.distributed.bptt(
            comm, network, x[:, own], y[:, own], loss, block=4, progress=progress
        )

    on_ranks(2, call)
    assert told[0][-1] == (4 * T, 4 * T) and told[1][-1] == (2 * T, 2 * T)
    assert told[0] == sorted(told[0])


def test_no_steps_are_reported_as_none():
    network, x, y, loss, _ = case("windows")
    given = network, x[:0, :8], y[:0, :8], loss
    told = []

    def call(comm):
        return fb.distributed.bptt(comm, *given, block=4, progress=lambda *at: told.append(at))

    (r,) = on_ranks(1, call)
    assert r.loss == 0 and set(told) <= {(0, 0)}
