"""`fastbptt online`: streams of rows from files and stdin, what is learnt, and bad usage."""

import io
import re

import numpy as np
import pytest

import fastbptt as fb
from fastbptt.commands.cli import main
from fastbptt.commands.online.rows import Rows, Scale


def waves(count):
    t = np.arange(count)
    return np.stack([np.sin(t / 7), 3 * np.cos(t / 11) + 5], axis=1)


def table(rows, head="wave,other"):
    lines = [",".join("" if np.isnan(v) else f"{v:.5f}" for v in row) for row in rows]
    return "\n".join([head, *lines]) + "\n"


@pytest.mark.parametrize("kind", ["csv", "npy", "stdin"])
def test_a_stream_is_predicted_and_learnt(kind, tmp_path, capsys, monkeypatch):
    rows = waves(1500)
    rows[::97, 1] = np.nan
    path = str(tmp_path / f"rows.{kind}")
    if kind == "npy":
        np.save(path, rows)
    elif kind == "csv":
        (tmp_path / "rows.csv").write_text(table(rows))
    else:
        path = "-"
        monkeypatch.setattr("sys.stdin", io.StringIO(table(rows)))
    target = "1" if kind == "npy" else "other"
    own = [tmp_path / name for name in ("net.npz", "predicted.csv", "error.png")]
    network, predicted, picture = own
    arguments = ["online", path, "--target", target, "--every", "500", "-H", "12", "--cell", "gru"]
    arguments += [f"--save={network}", f"--predictions={predicted}", f"--out={picture}"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [line[0] for line in lines] == ["500", "1,000", "1,500"]
    assert float(lines[-1][1]) < 0.1 * float(lines[0][1])
    values = np.genfromtxt(predicted, skip_header=1)
    assert len(values) == 1500 and np.isnan(values[0])
    late = np.isfinite(rows[:, 1]) & (np.arange(1500) > 1200)
    assert np.abs(values - rows[:, 1])[late].mean() < 0.7  # of a wave of amplitude 3
    assert fb.load(network).layer.hidden == 12
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("gradient", ["rtrl", "snap"])
def test_a_gradient_may_be_carried_forward(gradient, tmp_path, capsys):
    np.save(tmp_path / "rows.npy", waves(600))
    arguments = ["online", str(tmp_path / "rows.npy"), "--every", "300", "-H", "6", "--cell", "rnn"]
    assert main([*arguments, f"--gradient={gradient}"]) == 0
    first, last = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    assert float(last[1]) < 0.7 * float(first[1])


def test_a_saved_network_goes_on_and_rows_may_be_few(tmp_path, capsys):
    (tmp_path / "rows.csv").write_text(table(waves(400), head="a,b"))
    arguments = ["online", str(tmp_path / "rows.csv"), "--ahead", "3", "--every", "200"]
    assert main([*arguments, f"--save={tmp_path / 'net.npz'}"]) == 0
    assert main([*arguments, f"--network={tmp_path / 'net.npz'}", "--rows", "100"]) == 0
    first, second = capsys.readouterr().out.split("Predicts")[1:]
    assert float(second.splitlines()[2].split()[1]) < float(first.splitlines()[2].split()[1])


def test_ctrl_c_ends_a_stream(tmp_path, capsys, monkeypatch):
    def endless():
        yield "a,b\n"
        for row in waves(300):
            yield f"{row[0]},{row[1]}\n"
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", endless())
    assert main(["online", "-", "--every", "200"]) == 0
    out = capsys.readouterr()
    assert "300  " in out.out and "interrupted" in out.err


def refused(arguments, match, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["online", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert re.search(match, error), error


BAD = {
    "": "must hold at least one row",
    "a,b\n1,2\n": "must hold more than 1 rows",
    "a,b\n1,2\n3\n": r"row 1 of .* must have 2 columns, not 1",
    "a,b\n1,2\n3,x\n": r"row 1 of .*could not convert",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_tables_are_one_line(text, tmp_path, capsys):
    (tmp_path / "rows.csv").write_text(text)
    refused([str(tmp_path / "rows.csv")], BAD[text], capsys)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["/no/such/file.csv"], "No such file"),
        (["{csv}", "--k1", "8", "--k2", "4"], "must be at least --k1, 8, not 4"),
        (["{csv}", "--gradient", "rtrl", "--k2", "4"], "--k2: not with --gradient rtrl"),
        (["{csv}", "--target", "z"], "--target must be one of a, b, not 'z'"),
        (["{csv}", "--network", "/no/such.npz"], "No such file"),
        (["{csv}", "--network", "{net}"], "must have 2 inputs and 2 outputs, not 3 and 1"),
        (["{csv}", "--rate", "-1"], "must be a number from 0"),
        (["{npy}"], "must hold numbers"),
    ],
)
def test_bad_usage_is_one_line(arguments, match, tmp_path, capsys):
    names = {"csv": "rows.csv", "net": "net.npz", "npy": "rows.npy"}
    paths = {key: str(tmp_path / name) for key, name in names.items()}
    (tmp_path / "rows.csv").write_text(table(waves(5), head="a,b"))
    np.save(tmp_path / "rows.npy", np.zeros((2, 2, 2)))
    fb.Network(fb.RNN.init(3, 4), fb.Readout.init(4, 1)).save(tmp_path / "net.npz")
    refused([text.format(**paths) for text in arguments], match, capsys)


def test_the_scale_is_the_mean_and_the_deviation_of_what_is_there():
    rows = np.random.default_rng(0).standard_normal((200, 3)) * [1, 5, 0] + [0, 9, 2]
    rows[::7, 1] = np.nan
    scale = Scale(3)
    for row in rows:
        scale.add(row)
    np.testing.assert_allclose(scale.mean, np.nanmean(rows, axis=0))
    np.testing.assert_allclose(scale.deviation, [*np.nanstd(rows[:, :2], axis=0), 1])


def test_a_table_without_a_head_has_numbers_for_names(tmp_path):
    (tmp_path / "rows.csv").write_text("1,2\n\n3,\n")
    rows = Rows(str(tmp_path / "rows.csv"))
    found = list(rows)
    rows.close()
    assert rows.names == ["0", "1"]
    assert np.array_equal(found, [[1, 2], [3, np.nan]], equal_nan=True)


@pytest.mark.parametrize("stdin", [False, True])
def test_a_table_may_begin_with_a_byte_order_mark(stdin, tmp_path, monkeypatch):
    text = "\ufeffwave,other\r\n1,2\r\n3,4\r\n"
    path = "-" if stdin else str(tmp_path / "rows.csv")
    (tmp_path / "rows.csv").write_bytes(text.encode())
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    rows = Rows(path)
    assert rows.names == ["wave", "other"] and np.array_equal(list(rows), [[1, 2], [3, 4]])
    rows.close()
