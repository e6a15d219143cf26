"""The language model in PyTorch: the same losses with and without fastbptt.torch."""

import importlib.util
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def main(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    path = EXAMPLES / "torch_language_model.py"
    spec = importlib.util.spec_from_file_location("torch_language_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.main
    sys.modules.pop("training", None)


def test_accelerated_it_has_the_same_losses(main, capsys):
    sizes = ["--words=6000", "--vocabulary=200", "--width=24", "--window=40", "--batch=3"]
    plain = main([*sizes, "--plain"])
    full, within = main(sizes), main([*sizes, "--memory=600kB"])
    assert len(plain) == 50 and within == full
    assert full == pytest.approx(plain, abs=1e-5)
    assert sum(full[-5:]) < 0.8 * sum(full[:5])
    out = capsys.readouterr().out
    assert "memory=600kB" in out and "2,000" not in out
