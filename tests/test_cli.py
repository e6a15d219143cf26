"""The command line: bad usage, and each command at small sizes, with its files and pictures."""

import importlib.util
import json
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from checks import policy, run_command

import fastbptt as fb
from fastbptt.commands import info, options, plan_picture, reach
from fastbptt.commands.bench import command as bench
from fastbptt.commands.bench import lengths as bench_lengths
from fastbptt.commands.bench import peers


def size_in_pixels(picture):
    """Return the sizes in the header of a PNG."""
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


@pytest.fixture
def saved(tmp_path):
    """The paths of a network, x and y."""
    rng = np.random.default_rng(0)
    layer = fb.LSTM.init(5, 8, rng=rng)
    network = fb.Network(layer, fb.Readout.init(8, 5, rng=rng, activation="softmax"))
    network.save(tmp_path / "network.npz")
    ids = rng.integers(0, 5, 201)
    np.save(tmp_path / "x.npy", ids[:-1])
    np.save(tmp_path / "y.npy", ids[1:])
    return [tmp_path / name for name in ("network.npz", "x.npy", "y.npy")]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["plan", "--hidden", "0"],
        ["plan", "--cell", "transformer"],
        ["plan", "--memory", "lots"],
        ["plan", "--memory", "1kB"],
        ["plan", "--out", "/no/such/folder/a.png"],
        ["demo", "--seconds", "-1"],
        ["demo", "--seconds", "nan"],
        ["demo", "--streams", "1000000000"],
        ["demo", "--budget", "64XB"],
        ["demo", "--budget", "1kB"],
        ["demo", "--out", "/no/such/folder/a.png"],
        ["bench", "--lengths", "0"],
        ["bench", "--lengths"],
        ["bench", "--k1", "5", "--k2", "3"],
        ["bench", "--peers", "tensorflow"],
        ["bench", "--threads", "half"],
        ["bench", "--json", "/no/such/folder/a.json"],
        ["bench", "--out", "/"],
        ["reach"],
        ["reach", "none.npz", "x.npy", "y.npy"],
        ["info", "--verbose"],
    ],
    ids=" ".join,
)
def test_bad_usage_exits_2_with_one_line(arguments, tmp_path):
    done = run_command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("fastbptt") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_plan_prints_the_frontier_or_one_plan():
    sizes = ["--cell", "rnn", "--steps", "100000", "--batch", "32"]
    frontier = run_command("plan", *sizes)
    assert frontier.returncode == 0 and len(frontier.stdout.splitlines()) >= 4
    plan = run_command("plan", *sizes, "--memory", "64MB")
    assert plan.returncode == 0 and "64" in plan.stdout


@pytest.mark.parametrize(
    "memory, panels", [(None, 1), ("full", 2), ("least", 3), ("1GB", 2)], ids=str
)
def test_plan_draws_the_frontier_the_schedule_and_of_a_long_one_a_close_up(
    memory, panels, tmp_path
):
    picture = tmp_path / "plan.png"
    if memory == "least":
        network = fb.Network(fb.RNN.init(4, 16), fb.Readout.init(16, 2))
        with pytest.raises(fb.MemoryLimitError) as caught:
            fb.plan(network, 1000, memory=1)
        memory = str(caught.value.least_bytes)
    arguments = ["--cell", "rnn", "-T", "1000", "-I", "4", "-H", "16", "-O", "2", "--out", picture]
    done = run_command("plan", *arguments, *([] if memory is None else ["--memory", memory]))
    assert done.returncode == 0, done.stderr
    assert size_in_pixels(picture) == (720 * panels, 600)


@pytest.mark.parametrize("T", [1, 2])
def test_plan_draws_the_shortest_sequences(T, tmp_path):
    done = run_command("plan", "-T", T, "--memory", "full", "--out", tmp_path / "plan.png")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("memory", ["full", 0.1, 0.01, fb.Checkpointed(segment=77)], ids=str)
def test_lines_of_a_schedule_run_every_step_and_reverse_it_once(memory):
    network = fb.Network(fb.RNN.init(4, 16, rng=0), fb.Readout.init(16, 2, rng=0))
    plan = fb.plan(network, 1000, memory=policy(memory, network, 1000))
    done, forward, again, back = 0, [], 0, []
    for kind, t, y, u, z in plan_picture.strokes(plan.schedule()):
        assert 0 <= t <= 1000 and 0 <= u <= 1000 and z >= y
        if kind == "stored":
            assert t == u
            continue
        assert y == done and z - y == abs(u - t)
        done = z
        if kind == "reversed":
            back += range(t - 1, u - 1, -1)
        elif kind in ("run", "cached"):
            forward += range(t, u)
        else:
            assert kind in ("again", "cached again")
            again += u - t
    assert forward == list(range(1000)) and back == list(reversed(range(1000)))
    assert len(forward) + again == plan.forward_steps


def test_reach_prints_what_gradient_reach_returns_and_draws_it(saved, tmp_path):
    picture = tmp_path / "reach.png"
    options = ["--max-lag", 30, "--samples", 20, "--seed", 4, "--share", 0.05]
    done = run_command("reach", *saved, *options, "--out", picture)
    assert done.returncode == 0, done.stderr
    network, x, y = fb.load(saved[0]), *(np.load(path) for path in saved[1:])
    given = {"max_lag": 30, "samples": 20, "seed": 4, "share": 0.05}
    expected = fb.gradient_reach(network, x, y, "cross_entropy", **given)
    assert done.stdout == f"{expected}\nPicture: {picture}\n"
    assert size_in_pixels(picture) == (1440, 600)


@pytest.mark.parametrize("w", [0.0, 1.0, 1.1, 1e-5, 0.9])
def test_reach_draws_gradients_that_vanish_at_once_stay_or_explode(w, tmp_path):
    from fastbptt.commands.reach_picture import draw

    one = np.ones((1, 1))
    layer = fb.RNN(one, w * one, np.zeros(1), "identity")
    x, y = np.random.default_rng(0).standard_normal((2, 100, 1))
    network = fb.Network(layer, fb.Readout(one, np.zeros(1)))
    draw(tmp_path / "reach.png", fb.gradient_reach(network, x, y), f"w = {w}")
    assert size_in_pixels(tmp_path / "reach.png") == (1440, 600)


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda paths: paths[0].write_bytes(b"nothing"), "save()"),
        (lambda paths: fb.RNN.init(5, 3, rng=0).save(paths[0]), "Network"),
        (lambda paths: paths[1].write_bytes(b"nothing"), "x.npy"),
        (lambda paths: paths[1].write_bytes(paths[0].read_bytes()), "x.npy"),
        (lambda paths: np.save(paths[2], np.zeros(7, int)), "y"),
        (lambda paths: np.save(paths[1], np.full(200, 9)), "x"),
        (lambda paths: paths[2].unlink(), "y.npy"),
    ],
)
def test_reach_says_in_a_line_what_is_wrong_with_a_file(change, word, saved):
    change(saved)
    done = run_command("reach", *saved)
    assert done.returncode == 2 and done.stdout == ""
    assert word in done.stderr and done.stderr.count("\n") == 1


def test_reach_takes_the_loss_that_goes_with_the_readout(saved):
    assert set(reach.DEFAULTS.values()) == {"cross_entropy", "binary_cross_entropy"}
    done = run_command("reach", *saved, "--loss", "binary_cross_entropy")
    assert done.returncode == 2 and "sigmoid" in done.stderr


@pytest.fixture(scope="module")
def benched(tmp_path_factory):
    """A small run without peers: its process, its JSON and its picture.

    Its time is not limited, so that nothing is left out on a busy machine.
    """
    folder = tmp_path_factory.mktemp("bench")
    sizes = ["-T", 30, 400, 2000, "-B", 2, "-I", 3, "-H", 12, "-O", 2, "--k1", 10, "--k2", 20]
    done = run_command("bench", *sizes, "--seconds", 10**6, "--peers", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done, json.loads((folder / "bench.json").read_text()), folder / "bench.png"


def test_bench_measures_each_method_at_each_length(benched):
    _, result, picture = benched
    names = ["full", "one recompute", "two recomputes", "truncated 10, 20"]
    points = {(p["T"], p["name"]): p for p in result["points"]}
    assert list(points) == [(T, name) for T in (30, 400, 2000) for name in names]
    for (T, name), point in points.items():
        assert point["left_out"] is None and point["runs"] >= 1 and point["us_per_step"] > 0
        assert 0 < point["measured_bytes"] <= point["planned_bytes"] + 100_000
        assert (point["forward_steps"] > T) == ("recompute" in name)
        if name == "full":
            assert 0 < point["gradient_error"] < 1e-5
        elif "recompute" in name:  # the same bits
            assert point["gradient_error"] == points[T, "full"]["gradient_error"]
        elif T > 20:
            assert point["gradient_error"] > points[T, "full"]["gradient_error"]
    assert points[2000, "one recompute"]["planned_bytes"] < points[2000, "full"]["planned_bytes"]
    assert size_in_pixels(picture) == (1872, 600)


def test_bench_records_the_machine_and_the_network(benched):
    done, result, _ = benched
    assert {"CPU", "vectors", "threads", "load before", "numpy", "date"} <= set(result["machine"])
    assert result["shape"] == {
        "cell": "lstm", "batch": 2, "inputs": 3, "hidden": 12, "outputs": 2, "dtype": "float32",
        "k1": 10, "k2": 20, "seconds": 10**6, "layers": 1, "bidirectional": False,
    }  # fmt: skip
    assert "100%" in done.stderr
    assert len([line for line in done.stdout.splitlines() if line.strip()]) == 1 + 12 + 4


def small_bench(others=(), seconds=1.0):
    network = fb.Network(fb.RNN.init(3, 8, rng=0), fb.Readout.init(8, 2, rng=1))
    small = bench_lengths.Bench(network, 1, fb.Truncated(5, 5), list(others), 1)
    return small, lambda lengths: small.points(lengths, seconds, lambda *_: None)


@pytest.fixture
def one_thread(set_threads):
    """The bench sets the number of threads; the fixture restores it."""
    set_threads(1)


def test_bench_leaves_out_what_does_not_fit_and_names_the_reason(monkeypatch, one_thread):
    small, points = small_bench()
    full = fb.plan(small.network, 3000).peak_bytes
    monkeypatch.setattr(info, "available_bytes", lambda: full)
    found = {point.name: point for point in points([3000])}
    assert found["full"].planned_bytes == full
    assert found["full"].us_per_step is None and "would take" in found["full"].left_out
    assert found["one recompute"].us_per_step > 0
    assert found["one recompute"].gradient_error is None  # float64 does not fit either
    assert found["one recompute"].left_out is None
    assert "would take" in found["one recompute"].no_error
    assert "no error: float64 would take" in bench.table(list(found.values()))


def test_bench_leaves_out_what_would_take_too_long_and_schedules_that_are_not(one_thread):
    small, points = small_bench(seconds=0.01)
    small.latest["full"] = 1.0
    found = {point.name: point for point in points([3])}
    assert found["full"].left_out == "one run would take 3 s"
    assert found["two recomputes"].left_out == "so short a sequence has no such schedule"


def test_bench_that_meets_a_wrong_gradient_says_so():
    small, _ = small_bench()
    for name, error, wrong in (
        ("full", 1e-6, False), ("full", 1e-2, True), ("full", float("nan"), True),
        ("truncated 5, 5", 0.5, False), ("one recompute", None, False), ("jax", 0.1, True),
    ):  # fmt: skip
        assert small.is_wrong(bench_lengths.Point(name, 10, gradient_error=error)) == wrong


@pytest.fixture(scope="module")
def other_process():
    """One process for the peers: where JAX's threads run, os.fork warns."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


def gradients_of_peers(name, cell, readout, layers, bidirectional):
    """Our gradient and the peer's, of a second run each, which must not add to the first."""
    layer, x, y = peers.problem(cell, 20, 3, 4, 6, "float64", layers, bidirectional)
    model = layer
    if readout:
        model, y = fb.Network(layer, fb.Readout.init(layer.outputs, 4, rng=1, dtype="float64")), x
    found = []
    for who in ("fastbptt", name):
        peer = peers.PEERS[who](model, x, y, 1)
        peer.run()
        found.append(peer.gradient(peer.run()))
    return found


@pytest.mark.parametrize("readout", [True, False])
@pytest.mark.parametrize(
    "cell, layers, bidirectional",
    [*((cell, 1, False) for cell in peers.CELLS), ("GRU", 2, True), ("LSTM", 2, False)],
)
@pytest.mark.parametrize("name", ["torch", "jax"])
def test_the_peers_compute_the_same_gradient(
    name, cell, layers, bidirectional, readout, other_process
):
    if not importlib.util.find_spec(name):
        pytest.skip(f"{name} is not installed")
    sizes = cell, readout, layers, bidirectional
    found = other_process.submit(gradients_of_peers, name, *sizes).result()
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("command", ["bench", "plan --out a.png", "reach --out a.png"])
def test_without_matplotlib_a_command_that_draws_names_the_extra(command, saved, tmp_path):
    words = command.split()
    if words[0] == "reach":
        words[1:1] = map(str, saved)
    code = "import sys; sys.modules['matplotlib'] = None\n"
    code += f"from fastbptt.commands.cli import main; sys.exit(main({words!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "fastbptt[cli]" in done.stderr and done.stderr.count("\n") == 1


def test_network_of_the_options_has_their_sizes():
    from fastbptt.commands.cli import Parser

    parser = Parser()
    options.add_network(parser, batch=1, inputs=2, hidden=3, outputs=4)
    args = parser.parse_args(["--cell", "rnn", "-H", "5", "--dtype", "float64"])
    network = options.network(args, seed=0)
    assert network.layer.W.shape == (5, 5) and network.layer.inputs == 2
    assert network.readout.outputs == 4 and network.dtype == np.float64


def test_info_names_the_machine_and_the_versions():
    done = run_command("info")
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(None, 1) for line in done.stdout.splitlines())
    names = {"fastbptt", "Python", "CPU", "vectors", "caches", "memory", "threads", "GPU"}
    assert names <= set(rows)
    assert rows["numpy"] == np.__version__
