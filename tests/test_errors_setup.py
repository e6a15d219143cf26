"""Rejected layers, networks, budgets, devices and files; a budget too small names the least."""

import numpy as np
import pytest
from checks import SIZES, bptt, f16, f64, least_bytes, rejected, small_problem
from helpers import assert_same_bits, make_problem

import fastbptt as fb
from fastbptt.backends.devices import DeviceError

T, B, I, H, O = SIZES


@pytest.fixture
def p():
    return small_problem()


def rnn(p, **changes):
    arrays = {"U": p.layer.U, "W": p.layer.W, "b": p.layer.b} | changes
    return fb.RNN(**arrays)


def lstm(**changes):
    shapes = {"U": (4 * H, I), "W": (4 * H, H), "b": (4 * H,)} | changes
    return fb.LSTM(*(np.zeros(shapes[name], "f4") for name in "UWb"))


LAYERS = {
    "float16 weights": (lambda p: rnn(p, U=f16(p.layer.U)), "U", "float16"),
    "complex weights": (lambda p: rnn(p, W=p.layer.W.astype("c8")), "W", "complex64"),
    "integer weights": (lambda p: rnn(p, b=np.zeros(H, int)), "b", "int64"),
    "mixed dtypes": (lambda p: rnn(p, W=f64(p.layer.W)), "float64", "float32"),
    "a list": (lambda p: rnn(p, b=[0.0] * H), "b", "list"),
    "nothing": (lambda p: rnn(p, U=None), "U", "None"),
    "W not square": (lambda p: rnn(p, W=np.zeros((H, H + 1), "f4")), "W", str((H, H + 1))),
    "U of other rows": (lambda p: rnn(p, U=np.zeros((H + 2, I), "f4")), "U", str((H + 2, I))),
    "U of one axis": (lambda p: rnn(p, U=np.zeros(H, "f4")), "U", str((H,))),
    "b of other rows": (lambda p: rnn(p, b=np.zeros(H + 2, "f4")), "b", str((H + 2,))),
    "no such activation": (lambda p: rnn(p, activation="swish"), "activation", "'swish'", "'tanh'"),
    "softmax in a layer": (lambda p: rnn(p, activation="softmax"), "activation", "'softmax'"),
    "activation is no name": (lambda p: rnn(p, activation=np.tanh), "activation"),
    "three gates": (lambda p: lstm(W=(3 * H, H)), "W", str((3 * H, H))),
    "rows of an RNN": (lambda p: lstm(U=(H, I)), "U", str((H, I)), str(4 * H)),
    "V of one axis": (lambda p: fb.Readout(np.zeros(H, "f4"), np.zeros(1, "f4")), "V", str((H,))),
    "c of another O": (
        lambda p: fb.Readout(np.zeros((O, H), "f4"), np.zeros(O + 1, "f4")),
        "c",
        str((O + 1,)),
    ),
    "relu readout": (
        lambda p: fb.Readout(p.readout.V, p.readout.c, "relu"),
        "activation",
        "'relu'",
        "'softmax'",
    ),
    "readout of another H": (
        lambda p: fb.Network(p.layer, fb.Readout.init(H + 3, O, rng=0)),
        "readout",
        str((O, H + 3)),
    ),
    "readout of another dtype": (
        lambda p: fb.Network(p.layer, fb.Readout.init(H, O, rng=0, dtype="float64")),
        "readout",
        "float64",
        "float32",
    ),
    "a readout as layer": (lambda p: fb.Network(p.readout, p.readout), "layer", "Readout"),
    "an array as layer": (lambda p: fb.Network(p.layer.W, p.readout), "layer", str((H, H))),
    "a layer as readout": (lambda p: fb.Network(p.layer, p.layer), "readout", "RNN"),
    "no inputs": (lambda p: fb.RNN.init(0, H), "inputs", "0"),
    "negative units": (lambda p: fb.LSTM.init(I, -1), "hidden", "-1"),
    "half a unit": (lambda p: fb.RNN.init(I, 2.5), "hidden", "2.5"),
    "no outputs": (lambda p: fb.Readout.init(H, 0), "outputs", "0"),
    "init in float16": (lambda p: fb.LSTM.init(I, H, dtype="float16"), "dtype", "float16"),
    "init in integers": (lambda p: fb.RNN.init(I, H, dtype="int32"), "dtype", "int32"),
    "init in nonsense": (lambda p: fb.RNN.init(I, H, dtype="floaty"), "dtype", "floaty"),
    "arrays too few": (
        lambda p: p.network.replace_arrays(p.network.arrays()[1:]),
        "arrays",
        "5",
        "4",
    ),
    "arrays in another order": (
        lambda p: p.network.replace_arrays(p.network.arrays()[::-1]),
        "arrays",
    ),
    "arrays of float16": (
        lambda p: p.network.replace_arrays([f16(a) for a in p.network.arrays()]),
        "float16",
    ),
    "to nowhere": (lambda p: p.network.to("moon"), "device", "'moon'"),
}


@pytest.mark.parametrize("wrong", LAYERS)
def test_models_reject(p, wrong):
    make, *words = LAYERS[wrong]
    rejected(lambda: make(p), *words)


MEMORY = {
    "negative bytes": lambda: -4096,
    "half bytes": lambda: 1024.5,
    "None": lambda: None,
    "True": lambda: True,
    "a list": lambda: ["full"],
    "a class": lambda: fb.Full,
    "empty": lambda: "",
    "a word": lambda: "lots",
    "unit alone": lambda: "MB",
    "unknown unit": lambda: "64XB",
    "negative": lambda: "-64MB",
    "not a number": lambda: "nanMB",
    "endless": lambda: "infMB",
    "two numbers": lambda: "6 4MB",
}
POLICIES = {
    "k1 beyond k2": (lambda: fb.Truncated(5, 4), "k1", "k2", "5", "4"),
    "k1 of zero": (lambda: fb.Truncated(0, 4), "k1", "0"),
    "negative k1": (lambda: fb.Truncated(-2, 4), "k1", "-2"),
    "k1 no integer": (lambda: fb.Truncated(1.5, 4), "k1", "1.5"),
    "k2 no integer": (lambda: fb.Truncated(1, "4"), "k2", "'4'"),
    "k2 nothing": (lambda: fb.Truncated(1, None), "k2", "None"),
    "segment of zero": (lambda: fb.Checkpointed(segment=0), "segment", "0"),
    "negative segment": (lambda: fb.Checkpointed(segment=-9), "segment", "-9"),
    "segment no integer": (lambda: fb.Checkpointed(segment=2.5), "segment", "2.5"),
    "neither budget nor segment": (lambda: fb.Checkpointed(), "budget", "segment"),
    "both budget and segment": (lambda: fb.Checkpointed("1MB", segment=3), "budget", "segment"),
    "budget in parsecs": (lambda: fb.Checkpointed("5 parsecs"), "'5 parsecs'"),
    "negative budget": (lambda: fb.Checkpointed(-3), "budget", "-3"),
}


@pytest.mark.parametrize("wrong", MEMORY)
def test_memory_is_full_a_size_or_a_policy(p, wrong):
    memory = MEMORY[wrong]()
    came = [str(memory)] if isinstance(memory, (int, float)) else []
    came += [repr(memory)] if isinstance(memory, str) else []
    rejected(lambda: bptt(p, memory=memory), "memory", *came)
    rejected(lambda: fb.plan(p.network, T, B, memory=memory), "memory", *came)


@pytest.mark.parametrize("wrong", POLICIES)
def test_policies_reject(p, wrong):
    """When it is made or, at the latest, when it is used."""
    make, *words = POLICIES[wrong]
    errors = (
        (ValueError,)
        if wrong.startswith("k1 of") or wrong == "k1 beyond k2"
        else (ValueError, TypeError)
    )
    rejected(lambda: bptt(p, memory=make()), *words, errors=errors)


@pytest.mark.parametrize(
    "cell, sizes, tokens",
    [
        ("rnn-tanh", SIZES, False),
        ("rnn-relu", (800, 2, 3, 9, 3), False),
        ("lstm", (300, 1, 3, 17, 2), False),
        ("lstm", (401, 4, 30, 8, 2), True),
    ],
)
def test_a_budget_too_small_names_the_least_that_works(cell, sizes, tokens):
    p = make_problem(cell, sizes, "float32", tokens=tokens)
    least = least_bytes(p.network, p.T, p.B)
    exact = fb.bptt(p.network, p.x, p.y, memory=least)
    assert_same_bits(exact, fb.bptt(p.network, p.x, p.y))
    assert exact.plan.peak_bytes <= least
    for memory in (least - 1, fb.Checkpointed(least - 1)):
        with pytest.raises(fb.MemoryLimitError, match=str(least)):
            fb.bptt(p.network, p.x, p.y, memory=memory)
        with pytest.raises(fb.MemoryLimitError, match=str(least)):
            fb.plan(p.network, p.T, p.B, memory=memory)


NO_GPU = "this machine has a GPU that the package can use"


def gpu_works():
    try:
        fb.run(fb.RNN.init(1, 1, rng=0), np.zeros((1, 1), "f4"), device="cuda")
    except DeviceError:
        return False
    return True


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
@pytest.mark.parametrize("by", ["argument", "environment", "to"])
def test_a_forced_gpu_that_is_not_there_says_what_is_missing(p, monkeypatch, device, by):
    if gpu_works():
        pytest.skip(NO_GPU)
    given = {"device": device} if by == "argument" else {}
    if by == "environment":
        monkeypatch.setenv("FASTBPTT_DEVICE", device)
    calls = {
        "to": [lambda: p.network.to(device)],
    }.get(
        by,
        [
            lambda: fb.forward(p.layer, p.x, **given),
            lambda: fb.run(p.layer, p.x, **given),
            lambda: fb.predict(p.network, p.x, **given),
            lambda: fb.evaluate(p.network, p.x, p.y, **given),
            lambda: fb.bptt(p.network, p.x, p.y, **given),
        ],
    )
    for call in calls:
        with pytest.raises(DeviceError, match=r"(?i)cuda|gpu"):
            call()
    monkeypatch.delenv("FASTBPTT_DEVICE", raising=False)
    assert np.isfinite(bptt(p).loss)


def test_an_unknown_device_in_the_environment_is_named(p, monkeypatch):
    monkeypatch.setenv("FASTBPTT_DEVICE", "abacus")
    rejected(lambda: bptt(p), "FASTBPTT_DEVICE", "'abacus'")
    assert np.isfinite(bptt(p, device="cpu").loss)


class Planted:
    """A pickle that would create a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("entries", ["others", "none", "pickled"])
def test_a_file_that_is_no_model_is_rejected_by_name(tmp_path, entries):
    path, planted = tmp_path / "model.npz", tmp_path / "planted"
    entry = {"others": {"a": np.zeros(3)}, "none": {}}.get(entries)
    if entry is None:
        entry = {
            name: np.array([Planted(str(planted))], object) for name in ("U", "W", "b", "layer")
        }
    np.savez(path, **entry)
    rejected(lambda: fb.load(path), "model.npz")
    assert not planted.exists()


def test_a_file_that_is_no_archive_is_rejected_by_name(tmp_path):
    (tmp_path / "model.npz").write_text("weights", encoding="utf-8")
    rejected(lambda: fb.load(tmp_path / "model.npz"), "model.npz")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fb.load(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no archive", b"\x93NUMPY"])
def test_a_damaged_file_is_a_value_error_that_names_it(tmp_path, content):
    path = tmp_path / "damaged.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.npz"):
        fb.load(path)


def test_a_file_cut_short_is_a_value_error(tmp_path):
    path = tmp_path / "model.npz"
    fb.LSTM.init(3, 4, rng=0).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"model\.npz"):
        fb.load(path)
