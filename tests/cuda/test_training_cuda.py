"""Optimisers, `fit`, processes and exports of networks on a GPU: the numbers of the CPU."""

import numpy as np
import pytest
from fastbptt.kernels.cuda import runtime
from helpers import assert_close, make_problem
from ranks import on_ranks
from test_arrays_cuda import there
from test_optimisers import KINDS, gradients

import fastbptt as fb
from fastbptt.distributed import groups

pytestmark = pytest.mark.usefixtures("strict")


def problem(cell="gru"):
    return make_problem(cell, (6, 4, 3, 4, 2), "float64")


def on_device(network):
    return all(type(a) is type(runtime.arrays().zeros(1)) for a in network.arrays())


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("kind, options", KINDS)
def test_optimisers_step_where_the_network_is_and_go_on_from_a_file(kind, options, clip, tmp_path):
    """The same numbers as on the CPU, with what is kept moved there once the network is."""
    home = problem("lstm").network
    away, path = there(home), tmp_path / "optimiser.npz"
    own, other = (kind(0.05, clip=clip, **options) for _ in range(2))
    for number, grad in enumerate(gradients(home, 6)):
        own.step(home, grad)
        other.step(away, there(grad))
        assert on_device(away)
        if number == 2:
            other.save(path)
            other = fb.load(path)
        if number == 4:
            away = away.to("cpu").to("cuda")
    assert other.steps == 6
    for a, b in zip(away.arrays(), home.arrays(), strict=True):
        assert_close(a.get(), b, 1e-13)
    if clip:
        scaled = fb.clip_norm(there(grad), clip)
        assert on_device(scaled)
        assert_close(scaled.to("cpu").flat(), fb.clip_norm(grad, clip).flat(), 1e-14)


@pytest.mark.parametrize(
    "options",
    [{"validation": 0.5, "batch": 1}, {"window": 4, "lengths": np.array([6, 3, 0, 5])},
     {"weights": np.arange(24.0).reshape(6, 4), "resets": np.eye(6, 4) > 0, "batch": 3}],
    ids=["batches", "windows", "weights"],
)  # fmt: skip
def test_fit_goes_on_where_the_network_is(options, tmp_path):
    p, found = problem(), []
    for where, move in (("cpu", lambda a: a), ("cuda", lambda a: a), (None, there)):
        given = {name: move(value) for name, value in options.items()}
        call = {"progress": None, "seed": 1, "device": where, **given}
        for epochs in (1, 2):  # the second goes on from the file
            one = fb.fit(*map(move, (p.network, p.x, p.y)), optimizer=fb.Adam(0.05, clip=1.0),
                         epochs=epochs, path=tmp_path / f"{where}.npz", **call)  # fmt: skip
        assert on_device(one.network) is (where is None)
        home = one.network.to("cpu").flat()
        found.append((home, np.array([epoch.score for epoch in one.history])))
    for other in found[1:]:
        assert_close(other, found[0], 1e-10)


def test_fit_takes_lists_of_sequences():
    p = problem()
    lists = [[a[: 3 + b, b].copy() for b in range(4)] for a in (p.x, p.y)]
    found = []
    for move in (lambda a: a, there):
        x, y = ([move(one) for one in items] for items in lists)
        one = fb.fit(move(p.network), x, y, optimizer=fb.SGD(0.1), epochs=1, batch=2, seed=1,
                     progress=None)  # fmt: skip
        found.append(one.network.to("cpu").flat())
    assert_close(*found, 1e-10)


@pytest.mark.parametrize("counts", [[4], [2, 2]], ids=str)
def test_processes_add_up_what_their_gpus_have(counts, monkeypatch):
    monkeypatch.setattr(groups, "of", lambda comm: comm)
    p = problem()
    ends, lengths = np.cumsum([0, *counts]), np.array([6, 4, 0, 5])
    call = {"reduction": "mean", "input_grad": True}
    due = fb.bptt(p.network, p.x, p.y, lengths=lengths, state=p.state, **call)

    def job(comm):
        a, b = ends[comm.rank], ends[comm.rank + 1]
        given = [there(np.ascontiguousarray(v[:, a:b])) for v in (p.x, p.y)]
        return fb.distributed.bptt(comm, there(p.network), *given, lengths=lengths[a:b], block=2,
                                   state=there(p.state[a:b]), **call)  # fmt: skip

    results = on_ranks(len(counts), job)
    for r in results:
        assert r.loss == pytest.approx(due.loss, rel=1e-12) and on_device(r.grad)
        assert_close(r.grad.to("cpu").flat(), due.grad.flat(), 1e-10)
    for name, axis in (("grad_x", 1), ("state", 0), ("grad_state", 0)):
        whole = np.concatenate([getattr(r, name).get() for r in results], axis)
        assert_close(whole, getattr(due, name), 1e-10)


def test_files_of_other_programs_and_our_own_are_those_of_the_cpu(tmp_path):
    home = problem("lstm/gru").network
    for name, write in (("onnx", fb.to_onnx), ("json", fb.to_rtneural), ("npz", fb.Network.save)):
        for network, path in ((home, "home"), (there(home), "away")):
            write(network, tmp_path / f"{path}.{name}")
        if name == "npz":
            own, other = (fb.load(tmp_path / f"{path}.npz").flat() for path in ("home", "away"))
            assert np.array_equal(own, other)
        else:
            own, other = ((tmp_path / f"{path}.{name}").read_bytes() for path in ("home", "away"))
            assert own == other


X, Y = np.zeros((6, 3)), np.zeros((6, 2))


@pytest.mark.parametrize("gradient", [fb.Truncated(2, 4), fb.RTRL(), fb.SnAp1()], ids=str)
@pytest.mark.parametrize(
    "make, named",
    [(lambda n, g: fb.Online(there(n), gradient=g), r"network.arrays\(\)\[0\]"),
     (lambda n, g: fb.Online(n, gradient=g, state=there(np.zeros(4))), "state"),
     (lambda n, g: fb.Online(n, gradient=g).push(there(X), Y), "x"),
     (lambda n, g: fb.Online(n, gradient=g).push(X, there(Y)), "y"),
     (lambda n, g: fb.Online(n, gradient=g).push(X, Y, weights=there(X[:, 0])), "weights"),
     (lambda n, g: fb.Online(n, gradient=g).push(X, Y, resets=there(X[:, 0] > 0)), "resets"),
     (lambda n, g: setattr(fb.Online(n, gradient=g), "network", there(n)),
      r"network.arrays\(\)\[0\]"),
     (lambda n, g: fb.Stepper(there(n)), r"network.arrays\(\)\[0\]"),
     (lambda n, g: fb.Stepper(n, state=there(np.zeros(4))), "state"),
     (lambda n, g: fb.Stepper(n).step(there(X[0])), "x"),
     (lambda n, g: fb.Stepper(n).process(there(X)), "xs"),
     (lambda n, g: fb.Stepper(n).update(there(n)), r"network.arrays\(\)\[0\]"),
     (lambda n, g: setattr(fb.Stepper(n), "state", there(np.zeros(4))), "state")],
)  # fmt: skip
def test_learners_and_steppers_refuse_what_is_on_a_gpu(make, named, gradient):
    with pytest.raises(TypeError, match=rf"^{named} must be in .*CPU.* not on a GPU"):
        make(problem().network, gradient)
    with pytest.raises(TypeError, match=r"^out must be a NumPy array"):
        fb.Stepper(problem().network).step(X[0], out=there(Y[0]))


@pytest.mark.parametrize("policy", [fb.RTRL(), fb.SnAp1()], ids=str)
def test_policies_that_carry_the_gradient_forward_refuse_a_gpu(policy, monkeypatch):
    p = problem()
    call = {"memory": policy}
    with pytest.raises(ValueError, match=r"runs on the CPU.*FASTBPTT_DEVICE='cuda'"):
        fb.bptt(p.network, p.x, p.y, **call)
    monkeypatch.delenv("FASTBPTT_DEVICE")
    with pytest.raises(ValueError, match=r"runs on the CPU.*not with arrays on a GPU"):
        fb.bptt(*map(there, (p.network, p.x, p.y)), **call)
    with pytest.raises(ValueError, match=r"runs on the CPU.*not with arrays on a GPU"):
        fb.bptt(p.network, there(p.x), p.y, **call)
    with pytest.raises(TypeError, match=r"^y "):
        fb.bptt(p.network, p.x, there(p.y), **call)
    with pytest.raises(TypeError, match=r"^state"):
        fb.bptt(p.network, p.x, p.y, state=there(p.state), **call)
