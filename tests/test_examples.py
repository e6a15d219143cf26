"""Each example runs at a small size and reaches its goal."""

import sys
import wave
from pathlib import Path

import numpy as np
import pytest

import fastbptt as fb

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(autouse=True)
def from_its_folder(monkeypatch, tmp_path):
    """Import from the folder of the examples; write into a temporary one."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    yield
    for name in ("training", *(path.stem for path in EXAMPLES.glob("*.py"))):
        sys.modules.pop(name, None)


def test_the_river_is_fitted_within_its_budget(capsys):
    from river import main

    before, after = main(["--hours=40000", "--updates=120", "--budget=3MB"])
    assert after < 0.6 * before
    out = capsys.readouterr().out
    assert "recomputes          1" in out
    assert f"{after:.3f}" in out
    assert "time constant" in out


def test_the_amplifier_is_learnt_by_an_exact_gradient_in_less_memory(capsys, tmp_path):
    from amplifier import main

    wav = tmp_path / "notes.wav"
    before, after = main(
        ["--seconds=1.5", "--updates=100", "--hidden=8", "--budget=2MB", f"--wav={wav}"]
    )
    assert after < 0.17 < before  # 0.18 is what the best linear filter of 64 taps leaves
    assert "recomputes          1" in capsys.readouterr().out
    with wave.open(str(wav)) as file:
        assert (file.getframerate(), file.getnframes()) == (48_000, 3 * 72_000)


@pytest.mark.parametrize("drive", [-8.0, -0.3, 0.0, 0.05, 2.0, 8.0])
@pytest.mark.parametrize("before", [-0.6, 0.0, 0.3])
def test_the_amplifiers_clipper_solves_its_equation(before, drive):
    from amplifier import IS, RATE, VT, C, R, clipper

    v = clipper(before, drive)
    slope = (drive - v) / (R * C) - 2 * IS / C * np.sinh(v / VT)
    assert v - before == pytest.approx(slope / RATE, abs=1e-9)
    assert abs(v) < 0.7  # volts: a diode's


def test_the_amplifier_lets_nothing_constant_through():
    from amplifier import amplifier

    assert abs(amplifier(np.full(4 * 48_000, 0.5))[-1]) < 1e-6


def test_online_learning_follows_a_change_in_little_memory(capsys):
    from stream import CHUNK, main

    result = main(["--steps=150000", "--hidden=24"])
    assert result["before the change"] < 0.6 * result["in the first hundredth"]
    assert result["at the end"] < 0.8 * result["just after it"]
    assert result["at the end"] < 0.8 * result["at the end, had it stopped learning"]
    assert result["peak"] < 150_000 * 8 * 4  # the file
    assert f"{CHUNK:,}" in capsys.readouterr().out


def test_short_series_end_to_end_have_the_loss_and_gradient_of_padded_ones(capsys):
    from short_series import main

    padded, packed = main(["--series=60", "--rows=4", "--hidden=8", "--repeats=1"]).values()
    assert packed.loss == pytest.approx(padded.loss, rel=1e-6)
    for one, other in zip(padded.grad.arrays(), packed.grad.arrays(), strict=True):
        assert np.linalg.norm(one - other) < 1e-4 * np.linalg.norm(one)
    assert packed.plan.peak_bytes < 0.5 * padded.plan.peak_bytes
    assert "end to end" in capsys.readouterr().out


def test_a_drifting_system_is_followed_by_every_method(capsys, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from drift import METHODS, main

    found = main(["--steps=4000", f"--out={tmp_path / 'drift.png'}"])
    assert list(found) == [name for name, *_ in METHODS]
    short, long, *_ = found.values()
    assert long[0] < 0.7 and long[0] < short[0]
    assert all(error < 1.05 for error, _ in found.values())  # 1 is what the mean leaves
    assert (tmp_path / "drift.png").read_bytes()[:4] == b"\x89PNG"
    assert f"{long[0]:.4f}" in capsys.readouterr().out


def test_the_optimiser_of_the_examples_descends():
    from training import Adam

    x = np.random.default_rng(0).standard_normal((50, 3), dtype="float32")
    network = fb.Network(fb.RNN.init(3, 4, rng=0), fb.Readout.init(4, 3, rng=1))
    adam, losses = Adam(network), []
    for _ in range(30):
        r = fb.bptt(network, x, x)
        losses.append(r.loss)
        adam.update(r.grad, rate=0.02)
    assert losses[-1] < 0.7 * losses[0]
