"""The harness of bench.gpu without a GPU: the tests give it a simulated clock."""

import pytest

gpu = pytest.importorskip("bench.gpu")


@pytest.fixture
def seconds(monkeypatch):
    """A simulated GPU: a run takes as many seconds as it returns."""
    monkeypatch.setattr(gpu, "_seconds", lambda run: run())
    monkeypatch.setattr(gpu, "_free", lambda: None)


def test_a_point_is_the_median_of_each_peer_and_says_why_one_is_missing(seconds):
    taken = iter([0.0, 9.0, *(3.0, 1.0, 2.0), *(6.0, 8.0, 7.0)])

    def ours(*sizes):
        return {"forward": lambda: next(taken), "both": lambda: next(taken)}

    def other(*sizes):
        return {"forward": lambda: 4.0, "both": lambda: 21.0}

    def broken(name, T, *sizes):
        raise RuntimeError(f"cannot do {T} steps\nat all")

    makers = {"fastbptt": ours, "cuDNN": other, "FlashRNN": broken}
    point = gpu.time_point("LSTM", 1000, 1, 32, "float32", makers, 3)
    assert point["us_per_step"]["forward"] == {"fastbptt": 2000.0, "cuDNN": 4000.0}
    assert point["us_per_step"]["both"] == {"fastbptt": 7000.0, "cuDNN": 21000.0}
    assert point["missing"] == {"FlashRNN": "RuntimeError: cannot do 1000 steps"}
    text = gpu.line(point)
    assert "(2.00x)" in text and "(3.00x)" in text and "LSTM" in text


def test_our_own_failure_is_not_part_of_the_result(seconds):
    def broken(*sizes):
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        gpu.time_point("RNN", 10, 1, 32, "float32", {"fastbptt": broken}, 1)


def test_what_does_not_fit_on_the_card_is_said(seconds):
    point = gpu.time_point("LSTM", 10**7, 64, 1024, "float64", {"fastbptt": None}, 1)
    assert "do not fit" in point["missing"]["fastbptt"] and gpu.line(point)


def test_the_grid_is_the_whole_one():
    assert len(gpu.GRID) == 2 * 7 * 3 and {T for T, _, _ in gpu.GRID} == {1000, 100_000}
