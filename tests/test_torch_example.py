"""The examples in PyTorch at small sizes: what they learn, and the losses of torch.nn."""

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(autouse=True)
def from_their_folder(monkeypatch):
    """Import from the folder of the examples; one thread, since torch.nn's wait for each other."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for name in ("training", *(path.stem for path in EXAMPLES.glob("torch_*.py"))):
        sys.modules.pop(name, None)


def test_the_language_model_has_the_losses_of_torch_nn(capsys):
    from torch_language_model import main

    sizes = ["--words=6000", "--vocabulary=200", "--width=24", "--window=40", "--batch=3"]
    both = main(sizes)
    assert len(both["torch.nn"]) == 50 and main([*sizes, "--memory=600kB"]) == both
    full = both["fastbptt"]
    assert full == pytest.approx(both["torch.nn"], abs=1e-5)
    assert sum(full[-5:]) < 0.8 * sum(full[:5])
    out = capsys.readouterr().out
    assert "memory=600kB" in out and out.count("windows a second") == 4


def test_packed_lines_are_told_apart_as_by_torch_nn(capsys):
    from torch_lines import main, packed, read_lines

    both = main(["--lines=150", "--epochs=4", "--width=24", "--batch=48", "--rate=0.01"])
    ours = both["fastbptt"]
    assert ours == pytest.approx(both["torch.nn"], abs=1e-5)
    assert sum(ours[-8:]) < 0.85 * sum(ours[:8])
    assert capsys.readouterr().out.count("updates a second") == 2
    letters, files = packed(read_lines(9))
    assert len(letters.batch_sizes) > 20 and len(files) == 36


def test_the_effect_is_learnt_in_one_piece_within_its_budget(capsys):
    from torch_audio_effect import main

    sizes = ["--samples=3000", "--updates=40", "--width=8", "--budget=400kB", "--compared=50"]
    before, after = main(sizes)
    assert after < 0.6 * before
    assert "memory=400kB" in capsys.readouterr().out


def test_the_compressor_turns_loud_sound_down_and_lets_go():
    import numpy as np
    from torch_audio_effect import RATE, RATIO, THRESHOLD, compressed

    sound = np.full((RATE, 1), 0.8)
    sound[RATE // 2 :] = 0.02
    out = compressed(sound)[:, 0]
    assert out[0] == pytest.approx(0.8)  # the level is still low
    assert out[RATE // 2 - 1] == pytest.approx(THRESHOLD * 8 ** (1 / RATIO))
    assert out[RATE // 2] < 0.01 and out[-1] == pytest.approx(0.02)
