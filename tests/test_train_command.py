"""`fastbptt train`: the files it writes, what it reads, and its errors."""

import csv

import numpy as np
import pytest

import fastbptt as fb
from fastbptt.commands.cli import main

SMALL = ["--cell=rnn", "--hidden=5", "--epochs=3", "--no-picture"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A file of numbers and of tokens, in the folder where the command is run."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x, ids = rng.standard_normal((30, 8, 3)), rng.integers(0, 3, (30, 8))
    np.savez("data.npz", x=x, y=np.roll(x, 1, 0)[..., :2], ids=ids, lengths=np.full(8, 30))
    return tmp_path


def test_the_network_the_table_and_the_picture_are_written(data, capsys):
    pytest.importorskip("matplotlib", reason="it draws the picture")
    options = ["--batch=3", "--memory=1MB", "--out=net.npz", "--patience=9", "--validation=0.25"]
    assert main(["train", "data.npz", *SMALL[:-1], *options]) == 0
    out = capsys.readouterr().out
    assert "Network: net.npz" in out and "RNN(3 -> 5, float64" in out
    with np.load("data.npz") as file:
        x, y = file["x"][:, 6:], file["y"][:, 6:]
    with open("net.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    best = fb.evaluate(fb.load("net.npz"), x, y, reduction="mean")
    assert best == min(float(row["validation"]) for row in rows)
    assert f"{best:.6g}" in out and len(rows) == 3
    assert (data / "net.png").read_bytes().startswith(b"\x89PNG")


def test_tokens_and_classes_are_learnt_and_a_training_goes_on(data, capsys):
    options = ["train", "data.npz", "--x=ids", "--y=ids", *SMALL, "--resume=on.npz", "--window=10"]
    assert main(options) == 0
    assert "cross_entropy" in capsys.readouterr().out
    network = fb.load("trained.npz")
    assert network.readout.activation == "softmax" and network.layer.inputs == 3
    assert main([*options, "--epochs=5"]) == 0
    assert len(fb.load("on.npz").history) == 5


def test_numbers_of_another_type_are_converted_where_that_loses_nothing(data, capsys):
    x, up = np.random.default_rng(0).standard_normal((9, 4, 3)), np.ones((9, 4, 2))
    np.savez("mixed.npz", x=x.astype("f4"), y=up)
    assert main(["train", "mixed.npz", *SMALL]) == 0
    for y in (up > 0, up.astype(int)):
        np.savez("flags.npz", x=x.astype("f4"), y=y)
        assert main(["train", "flags.npz", "--loss=binary_cross_entropy", *SMALL]) == 0
    np.savez("large.npz", x=x.astype("f4"), y=np.full((9, 4, 2), 2**24 + 1))
    with pytest.raises(SystemExit):
        main(["train", "large.npz", "--loss=squared_error", *SMALL])
    assert "y must be float32, the dtype of the weights, not int64" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["other.npz"], "other.npz"),
        (["data.npz", "--x=none"], "argument --x: no array 'none', only x, y, ids"),
        (["data.npz", "--weights=w"], "argument --weights: no array 'w'"),
        (["data.npz", "--y=lengths"], r"y must have shape"),
        (["data.npz", "--batch=9"], "batch must be at most 6"),
        (["data.npz", "--memory=1kB"], "too small"),
        (["data.npz", "--loss=cross_entropy"], "y must have shape"),
        (["data.npz", "--out=x.csv"], "argument --out: must not end in .csv"),
        (["data.npz", "--resume=data.npz"], "path must be a file written by save"),
        (["noise.npz"], "noise.npz' must be a whole .npz file"),
    ],
)
def test_wrong_options_are_one_line_and_nothing_is_written(options, message, data, capsys):
    (data / "noise.npz").write_bytes(b"noise" * 100)
    before = sorted(data.iterdir())
    with pytest.raises(SystemExit) as ended:
        main(["train", *options, *SMALL])
    error = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and message in error[-1] and len(error) == 1
    assert sorted(data.iterdir()) == before


def test_a_loss_that_is_not_finite_leaves_the_last_good_network(data, capsys):
    assert main(["train", "data.npz", *SMALL, "--lr=1e300", "--optimizer=sgd"]) == 1
    assert "validation data is inf in epoch 1" in capsys.readouterr().err
    assert np.isfinite(fb.load("trained.npz").flat()).all()
