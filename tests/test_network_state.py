"""A network's own state: where sequences begin, and trained like a weight."""

import copy
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from checks import rejected
from helpers import (
    BOTH_WAYS,
    CELLS,
    DIFFERENCES,
    STACKS,
    assert_close,
    assert_same_bits,
    flatten,
    like_state,
    make_problem,
    rounded,
)

import fastbptt as fb


def problem(cell="lstm", sizes=(7, 3, 4, 6, 2), dtype="float64", **options):
    p = make_problem(cell, sizes, dtype, **options)
    p.own = like_state(p.layer, lambda width: rounded(p.rng, (width,), dtype, 0.5))
    p.network = fb.Network(p.layer, p.readout, p.own)
    p.for_all = expanded(p.own, p.B)
    return p


def expanded(state, batch):
    if isinstance(state, tuple):
        return tuple(expanded(part, batch) for part in state)
    return np.repeat(state[None], batch, axis=0)


def summed(state):
    return tuple(map(summed, state)) if isinstance(state, tuple) else state.sum(axis=0)


@pytest.mark.parametrize("cell", [*CELLS, *STACKS, *BOTH_WAYS])
def test_the_gradient_agrees_with_finite_differences(cell):
    p = problem(cell)
    resets = p.rng.random((p.T, p.B)) < 0.3
    r = fb.bptt(p.network, p.x, p.y, lengths=p.lengths, resets=resets)
    arrays = flatten(p.own)
    way = [rounded(p.rng, a.shape, "float64") for a in arrays]
    losses = []
    for step in (1e-5, -1e-5):
        moved = iter([a + step * d for a, d in zip(arrays, way, strict=True)])
        state = like_state(p.layer, lambda width, moved=moved: next(moved))
        network = fb.Network(p.layer, p.readout, state)
        losses.append(fb.evaluate(network, p.x, p.y, lengths=p.lengths, resets=resets))
    slope = (losses[0] - losses[1]) / 2e-5
    exact = sum(np.vdot(g, d) for g, d in zip(flatten(r.grad.state), way, strict=True))
    assert exact == pytest.approx(slope, rel=DIFFERENCES, abs=DIFFERENCES * abs(r.loss))


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", *STACKS, *BOTH_WAYS])
def test_it_stands_for_the_state_of_every_sequence(cell):
    p = problem(cell)
    r = fb.bptt(p.network, p.x, p.y, input_grad=True)
    bare = fb.Network(p.layer, p.readout)
    same = fb.bptt(bare, p.x, p.y, state=p.for_all, input_grad=True)
    assert r.loss == same.loss and same.grad.state is None
    for part in ("state", "grad_state", "grad_x"):
        for a, b in zip(flatten(getattr(r, part)), flatten(getattr(same, part)), strict=True):
            assert np.array_equal(a, b)
    assert_close(r.grad.state, summed(same.grad_state), 1e-12)
    for call in (fb.predict, lambda network, x, **given: fb.evaluate(network, x, p.y, **given)):
        one, other = call(p.network, p.x), call(bare, p.x, state=p.for_all)
        assert np.array_equal(*(v[0] if isinstance(v, tuple) else v for v in (one, other)))


@pytest.mark.parametrize("sizes", [(7, 3, 4, 6, 2), (900, 2, 40, 50, 3)], ids=["small", "large"])
def test_a_state_that_is_given_comes_first_and_leaves_no_gradient(sizes):
    p = problem("lstm", sizes)
    bare = fb.Network(p.layer, p.readout)
    for _ in range(3):
        r = fb.bptt(p.network, p.x, p.y, state=p.state)
        assert not any(part.any() for part in flatten(r.grad.state))
        plainly = fb.bptt(bare, p.x, p.y, state=p.state)
        for a, b in zip(r.grad.layer.arrays(), plainly.grad.layer.arrays(), strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", STACKS[0]])
def test_small_calls_take_it_too(cell, squeeze):
    p = problem(cell, (7, 1, 4, 6, 2))
    x, y = (p.x[:, 0], p.y[:, 0]) if squeeze else (p.x, p.y)
    x, y = map(np.ascontiguousarray, (x, y))
    generally = fb.bptt(p.network, x, y, seed=0)
    for _ in range(3):
        assert_same_bits(fb.bptt(p.network, x, y), generally)


def test_it_is_read_afresh_in_every_call():
    p = problem("gru")
    before = fb.evaluate(p.network, p.x, p.y)
    p.own[...] = 0
    assert fb.evaluate(p.network, p.x, p.y) != before
    assert fb.evaluate(p.network, p.x, p.y) == fb.evaluate(fb.Network(p.layer, p.readout), p.x, p.y)


@pytest.mark.parametrize("cell", ["gru", "lstm", *STACKS, *BOTH_WAYS])
def test_it_is_one_of_the_networks_arrays(cell, tmp_path):
    p = problem(cell)
    arrays = p.network.arrays()
    own = flatten(p.own)
    assert all(a is b for a, b in zip(arrays[-len(own) :], own, strict=True))
    doubled = p.network.replace_arrays([2 * a for a in arrays])
    assert all(np.array_equal(a, 2 * b) for a, b in zip(doubled.arrays(), arrays, strict=True))
    p.network.save(tmp_path / "network.npz")
    for other in (fb.load(tmp_path / "network.npz"), pickle.loads(pickle.dumps(p.network)),
                  copy.deepcopy(p.network), p.network.to("cpu")):  # fmt: skip
        assert all(map(np.array_equal, other.arrays(), arrays)) and repr(other) == repr(p.network)
    assert repr(p.network).startswith("Network(layer=") and "state=" in repr(p.network)
    assert "state" not in repr(fb.Network(p.layer, p.readout))
    r = fb.bptt(p.network, p.x, p.y)
    assert [a.shape for a in r.grad.arrays()] == [a.shape for a in arrays]


def test_files_from_before_there_was_one_are_read():
    p = problem("gru")
    with io.BytesIO() as file, io.BytesIO() as old:
        fb.Network(p.layer, p.readout).save(file)
        file.seek(0)
        with np.load(file) as content:
            arrays = dict(content)
        structure = json.loads(str(arrays["structure"]))
        del structure["model"]["fields"]["state"]
        np.savez(old, **arrays | {"structure": np.array(json.dumps(structure))})
        old.seek(0)
        assert len(zipfile.ZipFile(old).namelist()) == len(arrays)
        old.seek(0)
        network = fb.load(old)
    assert network.state is None and all(
        map(np.array_equal, network.arrays(), fb.Network(p.layer, p.readout).arrays())
    )


def torch_of(array):
    return pytest.importorskip("torch", reason="PyTorch is not installed").from_numpy(array)


WRONG = {
    "another size": ("gru", lambda s: s[:-1], "Network.state"),
    "a batch axis": ("gru", lambda s: s[None], "Network.state"),
    "another dtype": ("gru", lambda s: s.astype("f4"), "Network.state"),
    "a list of texts": ("gru", lambda s: ["one"], "Network.state"),
    "one array for two": ("lstm", lambda s: s[0], "Network.state"),
    "a part of another size": ("lstm", lambda s: (s[0], s[1][1:]), "Network.state[1]"),
    "a layer too few": (STACKS[0], lambda s: s[:1], "Network.state"),
    "a layer's part": (STACKS[0], lambda s: (s[0][::-1][:1], s[1]), "Network.state[0]"),
    "one direction": ("gru|lstm", lambda s: s[0], "Network.state"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_states_that_do_not_fit_the_layer_are_refused(wrong):
    cell, change, name = WRONG[wrong]
    p = problem(cell)
    with pytest.raises((ValueError, TypeError), match=name.replace("[", r"\[")):
        fb.Network(p.layer, p.readout, change(p.own))


def test_a_state_that_is_given_is_checked_as_ever():
    p = problem("gru")
    rejected(lambda: fb.bptt(p.network, p.x, p.y, state=p.own), "state")


@pytest.mark.parametrize("bring", [list, torch_of, tuple], ids=["list", "tensor", "tuple"])
def test_a_state_of_another_package_is_an_array(bring, tmp_path):
    layer = fb.GRU.init(3, 4, rng=0)
    own = np.arange(4, dtype=np.float32) / 8
    given = bring(own) if bring is torch_of else bring(own.astype(float).tolist())
    layer = layer if bring is torch_of else fb.GRU.init(3, 4, rng=0, dtype="float64")
    network = fb.Network(layer, None, given)
    assert type(network.state) is np.ndarray and np.array_equal(network.state, own)
    network.save(tmp_path / "network.npz")
    assert np.array_equal(fb.load(tmp_path / "network.npz").flat(), network.flat())
    assert repr(network) and network._repr_html_() and network.to("cpu") is not None


def test_no_resets_of_no_time():
    layer = fb.GRU.init(3, 4, rng=0)
    network = fb.Network(layer, fb.Readout.init(4, 2, rng=1), np.zeros(4, np.float32))
    x, y = np.zeros((0, 3), np.float32), np.zeros((0, 2), np.float32)
    assert fb.bptt(network, x, y, resets=[]).loss == 0
