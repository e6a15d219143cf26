"""What bench.torch_modules stores, and the memory of a long step in PyTorch."""

import json
import sys

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("bench", reason="bench/ is not beside the tests")
from bench import figures, frameworks, headlines
from bench import torch_modules as modules


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is counted as Linux does")
def test_a_long_step_takes_its_budget_beyond_its_arrays_and_no_more():
    from bench import torch_memory

    found = torch_memory.peak(100_000, 4, 32, "8MB")
    assert 0 < found["bytes"] < 11e6  # every step cached takes 70 MB


def test_a_small_grid_is_measured_and_shown(monkeypatch, tmp_path):
    path = tmp_path / "result.json"
    options = ["--cells=GRU", "--dtypes=float32", "--points=0", "--rounds=1", f"--out={path}"]
    monkeypatch.setattr(sys, "argv", ["torch_modules", *options])
    monkeypatch.setattr(modules, "GRID", ((3, 1, 2, 4),))
    monkeypatch.setattr(modules, "LONG", 0.0)
    monkeypatch.setattr(modules, "CALLS", 1)
    step = {"T": 10, "I": 1, "H": 2, "memory": "1MB", "bytes": 5e5}
    monkeypatch.setattr(modules.torch_memory, "peak", lambda: step)
    modules.main()
    result = json.loads(path.read_text(encoding="utf-8"))
    assert [point["cell"] for point in result["points"]] == ["GRU", "2 x GRU", "both ways GRU"]
    result["machine"]["load before"] = 0.25
    monkeypatch.setattr(frameworks, "load", {"torch_modules": result}.get)
    text = figures.block("torch_modules")
    assert "| both ways GRU | float32 | 3 | 1 | 2 | 4 |" in text
    assert 'over T = 10 with `memory="1MB"` takes 0.5 MB' in text


def test_the_headlines_speak_of_the_modules_once_the_whole_grid_is_measured(monkeypatch):
    names = ("compare", "claims", "examples", "lengths_cost", "lengths", "torch_modules")
    known = {name: headlines.load(name) for name in names}
    small = {**known["torch_modules"], "points": known["torch_modules"]["points"][:1]}
    whole = [{**point, "ratio": 4.0} for point in known["compare"]["points"]]
    for points, shown in ((small["points"], False), (whole, True)):
        known["torch_modules"] = {**small, "points": points}
        monkeypatch.setattr(headlines, "load", known.get)
        text = headlines.headlines()
        assert ("Inside PyTorch" in text) == shown
    assert "4.0x (RNN), 4.0x (GRU) and 4.0x (LSTM) the speed of `torch.nn`" in text
