"""Absurd arguments, variables and files for every command: exit status 2 and one line, at once."""

import os
import subprocess
import sys

import numpy as np
import pytest
from model_files import archive, header
from test_files import BOMBS, HOSTILE

import fastbptt as fb
from fastbptt.commands.cli import main

NETWORK = ["-B", "-I", "-H", "-O", "--layers"]
WHOLE = {
    "plan": ["-T", *NETWORK],
    "bench": ["-T", *NETWORK, "--k1", "--k2", "--threads"],
    "demo": ["--hidden", "--streams", "--steps", "--seed"],
    "reach": ["--max-lag", "--samples", "--seed"],
}
NUMBERS = {"bench": ["--seconds"], "demo": ["--seconds"], "reach": ["--share"]}
ABSURD = ["-1", "nan", "inf", "-inf", "", " ", "soon", "True", "None", "1e400", "9" * 5000]
NOT_WHOLE = [*ABSURD, "1.5", "1e3", "0x10", str(10**24), str(2**63)]
FILES = {"reach": ["network.npz", "x.npy", "y.npy"]}


def refused(arguments, capsys, *words):
    """Return the one line that `fastbptt` prints before it exits with status 2."""
    with pytest.raises(SystemExit) as caught:
        main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and out == ""
    assert err.startswith("fastbptt") and err.count("\n") == 1 and len(err) < 1000, err
    for word in words:
        assert word in err
    return err


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder; no picture or JSON file may be left in it."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".png", ".json", ".onnx")]


@pytest.fixture
def data(tmp_path):
    """A network, x and y for `reach`."""
    layer = fb.RNN.init(2, 3, rng=0)
    fb.Network(layer, fb.Readout.init(3, 2, rng=0)).save(tmp_path / "network.npz")
    for name in ("x.npy", "y.npy"):
        np.save(tmp_path / name, np.ones((9, 2), "f4"))


@pytest.mark.parametrize("option", [(c, o) for c, options in WHOLE.items() for o in options])
def test_what_is_no_whole_number_is_refused(option, capsys):
    command, name = option
    for text in [*NOT_WHOLE, *(["0"] if name != "--seed" else [])]:
        refused([command, *FILES.get(command, ()), f"{name}={text}"], capsys, name)


@pytest.mark.parametrize("option", [(c, o) for c, options in NUMBERS.items() for o in options])
def test_what_is_no_number_is_refused(option, capsys, data):
    command, name = option
    for text in [*ABSURD, "0"]:
        refused([command, *FILES.get(command, ()), f"{name}={text}"], capsys, name.strip("-"))


@pytest.mark.parametrize(
    "arguments",
    ["plan --hidden=3000000000", "plan --inputs=9223372036854775807",
     "plan --batch=9223372036854775807",
     "plan --steps=9223372036854775807", "plan --steps=9000000000000000000 --memory=1GB",
     "plan --layers=1001", "bench --hidden=3000000", "bench -T 9223372036854775807",
     "bench --batch=99999999999999", "demo --hidden=3000000", "demo --hidden=9223372036854775807",
     "demo --streams=9223372036854775807", "bench --threads=4097"],
)  # fmt: skip
def test_sizes_that_nothing_could_hold_are_refused(arguments, capsys):
    refused(arguments.split(), capsys)


def test_a_plan_draws_no_weights_and_asks_for_no_memory(capsys):
    assert main(["plan", "-H", "3000000", "-T", "1000000000"]) == 0
    assert "TB" in capsys.readouterr().out
    args = ["-H", "64", "-I", "16", "-O", "8", "-T", "5000"]
    assert main(["plan", *args]) == 0
    network = fb.Network(fb.LSTM.init(16, 64, rng=0), fb.Readout.init(64, 8, rng=0))
    assert capsys.readouterr().out == f"{fb.frontier(network, 5000)}\n"


@pytest.mark.parametrize(
    "memory", ["9" * 5000, "9" * 5000 + "MB", "-1", "", " ", "nan", "None", "0", "1e9", str(2**63)]
)
def test_what_is_no_budget_is_refused(memory, capsys):
    refused(["plan", f"--memory={memory}"], capsys, "memory")
    if memory:
        refused(["demo", f"--budget={memory}"], capsys, "budget")


COMMANDS = {
    "info": ["info"], "plan": ["plan"], "demo": ["demo"], "bench": ["bench"],
    "reach": ["reach", *FILES["reach"]], "export": ["export", "network.npz", "--onnx=a.onnx"],
}  # fmt: skip
VARIABLES = {
    "FASTBPTT_DEVICE": ["tpu", "CPU", " ", "cuda:", "cuda:-1", "x" * 5000],
    "FASTBPTT_NUM_THREADS": ["abc", "0", "-1", "1.5", "nan", "4097", "9" * 5000, str(2**64)],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("variable", VARIABLES)
def test_a_wrong_variable_is_named_by_every_command(variable, command, capsys, monkeypatch, data):
    fb.set_num_threads  # noqa: B018 - loads the module
    from fastbptt.kernels.cpu import team

    monkeypatch.setattr(team, "_limit", None)
    for value in VARIABLES[variable]:
        monkeypatch.setenv(variable, value)
        refused(COMMANDS[command], capsys, variable)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_width_of_vectors_is_named_by_every_command(command):
    done = subprocess.run(
        [sys.executable, "-m", "fastbptt", *COMMANDS[command]],
        env={**os.environ, "FASTBPTT_VECTOR_BYTES": "abc"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert "FASTBPTT_VECTOR_BYTES" in done.stderr and done.stderr.count("\n") == 1


def test_a_missing_gpu_is_named_before_any_work(capsys, monkeypatch, data):
    from fastbptt.backends import devices

    monkeypatch.setattr(devices, "missing_gpu", lambda: "there is none")
    monkeypatch.setenv("FASTBPTT_DEVICE", "cuda")
    for command in ("plan", "demo", "bench", "reach"):
        refused(COMMANDS[command], capsys, "FASTBPTT_DEVICE", "there is none")


OUT = {
    "plan": ["--out"], "demo": ["--out"], "bench": ["--out", "--json"], "reach": ["--out"],
    "export": ["--onnx", "--rtneural"],
}  # fmt: skip


@pytest.mark.parametrize("command", OUT)
def test_a_file_that_cannot_be_written_is_refused_before_any_work(command, capsys, tmp_path, data):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "file").write_text("kept")
    places = ["no/such/folder/a", folder, tmp_path / "file" / "a", "a" * 5000, ""]
    if sys.platform == "linux":
        places.append("/proc/a")  # where even root makes no file
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        places.append(tmp_path / "pipe")
    for option in OUT[command]:
        for place in places:
            refused([*COMMANDS[command], f"{option}={place}"], capsys, option)
    assert (tmp_path / "file").read_text() == "kept" and not list(folder.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_said_in_a_line(unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fastbptt", "plan"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "space" in done.stderr


def test_a_schedule_too_long_to_draw_is_refused(capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    arguments = ["plan", "--cell=rnn", "-H=1", "-I=1", "-O=1", "-T=10000000", "--memory=70kB"]
    network = fb.Network(fb.RNN.init(1, 1, rng=0), fb.Readout.init(1, 1, rng=0))
    least = fb.frontier(network, 10**7).checkpointed[-1].peak_bytes
    arguments[-1] = f"--memory={least}"
    refused([*arguments, "--out=a.png"], capsys, "--out", "actions")


@pytest.mark.parametrize("what", [*HOSTILE, *BOMBS])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_network_is_refused(what, capsys, tmp_path, data):
    content = HOSTILE[what] if what in HOSTILE else BOMBS[what]()
    (tmp_path / "network.npz").write_bytes(content)
    for command in ("reach", "export"):
        refused(COMMANDS[command], capsys, "network.npz")


ARRAYS = {
    "nothing": b"",
    "an archive": archive([("x.npy", header("<f4", (3,)))]),
    "terabytes": header("<f4", (10**6, 10**6)),
    "more than 64 bits": header("<f4", (10**18, 10**18)),
    "a negative size": header("<f4", (-1, 2)),
    "no such dtype": header("<q9", (3,)) + b"abc",
    "objects": header("|O", (3,)) + b"abc",
    "a program": header("__import__('os')", ()),
    "an open string": header("<f4", ()).replace(b"<f4'", b"<f4\n"),
    "deep": header("<f4", ()).replace(b"()", b"(" * 3000),
    "cut short": header("<f4", (3,))[:20],
    "digits": header("<f4", ()).replace(b"()", b"(" + b"1" * 6000 + b",)"),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_reach_refuses_hostile_arrays(what, capsys, tmp_path, data):
    for name in ("x.npy", "y.npy"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(ARRAYS[what])
        refused(COMMANDS["reach"], capsys, name)
        (tmp_path / name).write_bytes(whole)
