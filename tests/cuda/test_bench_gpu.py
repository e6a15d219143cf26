"""The harness of bench.gpu without a GPU: the tests give it a simulated clock."""

import multiprocessing

import pytest

pytest.importorskip("bench", reason="bench/ is not beside the tests")
from bench import gpu, gpu_points


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


def test_the_most_valuable_points_come_first():
    chosen = gpu_points.points(["float32", "float64"])
    assert len(set(chosen)) == len(chosen) == 2 * (3 * 2 * 7 * 3 + 1)
    assert {point[0] for point in chosen[:16]} == {"LSTM"}
    assert chosen[15] == ("LSTM", 1024, 16, 768, "float32")
    assert {point[4] for point in chosen[:46]} == {"float32"}
    assert {point[1] for point in chosen[:92]} == {1000, 1024}


class Ready:
    def get(self, seconds):
        if seconds <= 0:
            raise multiprocessing.TimeoutError


def test_points_are_saved_as_they_come_and_the_minutes_are_kept(seconds, monkeypatch):
    now, saved = [100.0], []
    monkeypatch.setattr(gpu_points.time, "monotonic", lambda: now[0])

    def slow(name, T, B, H, dtype):
        now[0] += T / 1000  # a second for each thousand steps, and twice that for its runs
        return {"forward": lambda: 1.0, "both": lambda: 2.0}

    chosen = [("LSTM", T, 1, 8, "float32") for T in (1000, 20_000, 500, 400)]
    budget = gpu_points.Budget(0.25, spare=0)
    budget.factor = 0.0
    args = chosen, budget, lambda point: Ready(), {"fastbptt": slow}, 1
    late = gpu.time_all(*args, lambda done, left: saved.append((len(done), list(left))))
    assert late == [chosen[1]] and now[0] <= 115
    assert saved == [(1, chosen[1:]), (2, [chosen[1], chosen[3]]), (3, late), (3, late)]
