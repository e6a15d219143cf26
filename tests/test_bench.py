"""What the benchmarks compute from what they measure, and what they leave behind."""

import json
import os

import numpy as np
import pytest
from fastbptt.kernels.cpu import split

pytest.importorskip("bench", reason="bench/ is not beside the tests")
from bench import claims, figures, floors, frameworks, load

MACHINE = {
    "date": "2026-01-02T03:04:05", "CPU": "C", "vectors": "512 bits", "threads": 2, "Python": "3",
    "numpy": "2", "numba": "0", "torch": "2", "jax": "0", "load before": 0.5,
}  # fmt: skip


def alive(process):
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_busy_processes_are_gone_afterwards_even_after_an_error():
    with pytest.raises(KeyboardInterrupt), load.busy(2) as processes:
        assert len(processes) == 2
        assert all(map(alive, processes))
        raise KeyboardInterrupt
    assert not any(map(alive, processes))


def test_a_rate_is_that_of_an_array_as_large_or_larger():
    rates = {1 << 14: 100.0, 1 << 20: 40.0, 1 << 26: 50.0}
    assert floors.rate_of(rates, 1 << 10) == 100
    assert floors.rate_of(rates, 1 << 15) == 50
    assert floors.rate_of({**dict.fromkeys(floors.SIZES, 9.0)}, 1 << 40) == 9


def test_the_level_is_the_smallest_cache_that_holds_the_array():
    caches = "L1 32K, L2 1024K, L3 32M"
    sizes = 1 << 15, (1 << 15) + 1, 1 << 21, 1 << 26
    assert [floors.level_of(size, caches) for size in sizes] == ["L1", "L2", "L3", "DRAM"]


@pytest.mark.parametrize("members", [1, 2])
def test_a_step_brings_w_twice_and_u_twice_a_chunk(members):
    divided = {"members": members, "busy": members, "chunk": 100, "pieces": 1}
    rates = dict.fromkeys(floors.SIZES, 1.0)  # GB a second
    seconds, _ = floors.weight_seconds("lstm", 256, 256, 4, divided, rates, rates)
    one = 4 * 256 * 256 * 4 / 1e9
    assert seconds == pytest.approx(2 * one / members + 2 * one / 100)


def test_a_pass_is_divided_as_the_kernels_divide_it(monkeypatch):
    monkeypatch.setattr(split, "barrier_seconds", lambda: 1e-7)
    many = floors.division("lstm", 1000, 32, 64, 64, 4, 2)
    assert (many["members"], many["busy"], many["pieces"]) == (1, 2, 1)
    wide = floors.division("lstm", 1000, 1, 1024, 1024, 4, 2)
    assert (wide["members"], wide["busy"]) == (2, 2)
    few = floors.division("rnn-tanh", 1000, 1, 64, 64, 4, 2)
    assert (few["members"], few["busy"]) == (1, 1)


def test_shares_name_their_budgets(monkeypatch):
    monkeypatch.setattr(claims, "medians", lambda rounds, *functions: [2.0, 3.0, 5.0])
    found = claims.shares(T=100, B=2, H=8, share=0.7)
    assert [row["time_ratio"] for row in found["budgets"]] == [1.5, 2.5]
    first, second = (row["peak_bytes"] for row in found["budgets"])
    assert second < first < found["full_bytes"]


def stored_as(monkeypatch, **results):
    known = {name: json.loads(json.dumps(result)) for name, result in results.items()}
    for module in (figures, frameworks):
        monkeypatch.setattr(module, "load", known.get)


def test_the_load_is_a_row_for_each_state_of_the_machine(monkeypatch):
    row = {"cell": "LSTM", "dtype": "float32", "T": 1000, "B": 1, "I": 64, "H": 64}
    points = [
        {**row, "busy": busy, "us_per_step": {"fastbptt": [2, 3], "torch": [4, 9]}, "ratio": [2, 3]}
        for busy in (0, 2)
    ]
    result = {"machine": MACHINE, "busy": 2, "tries": 2, "rounds": 7, "timed": 3, "points": points}
    stored_as(monkeypatch, load=result)
    text = figures.block("load")
    assert "| LSTM | 1,000 | 1 | 64 | 64 | nothing | 2, 3 | 4, 9 | 2.00, 3.00 |" in text
    assert "| 2 busy processes |" in text


def test_what_two_processes_take_stands_beside_one(monkeypatch):
    ms = {"mpi": {"1": 10, "2": 6}, "torch": {"1": 12, "2": 8}}
    point = {"cell": "LSTM", "T": 1000, "sequences": 64, "I": 8, "H": 9, "alone_ms": 9, "ms": ms}
    talk = [{"H": 16, "bytes": 4_000_000, "ms": {"mpi": 0.5, "torch": 1.25}}]
    result = {"machine": MACHINE, "rounds": 3, "block": 16, "points": [point], "talk": talk}
    stored_as(monkeypatch, distributed=result)
    text = figures.block("distributed")
    assert "| LSTM | 1,000 | 64 | 8 | 9 | 9 | 10 | 6 | 12 | 8 | 1.50 | 1.12 |" in text
    assert "| 4 MB | 0.5 | 1.25 |" in text


def test_the_roofline_names_what_holds_each_size_back(monkeypatch):
    speeds = {"float32": 100, "float64": 50}
    result = {
        "machine": MACHINE, "tile": speeds, "tile_together": 200,
        "blas": {dtype: {"as shipped": 9} for dtype in speeds},
        "reads": {
            str(1 << 14): {"level": "L1", "alone": 150, "together": 140},
            str(1 << 20): {"level": "L2", "alone": 90, "together": 80},
        },
        "points": [{
            "cell": "RNN", "dtype": "float32", "T": 10, "B": 1, "I": 8, "H": 8, "us": 4.0,
            "floors_us": {"arithmetic": 1.0, "weights": 2.0, "chain": 0.5}, "floor_us": 2.0,
            "over_floor": 2.0, "held_by": "weights", "none_of_them": 0.5,
            "divided": {"W in": "L2"},
        }],
    }  # fmt: skip
    stored_as(monkeypatch, roofline=result)
    text = figures.block("roofline")
    assert "L1 150, 140; L2 90, 80" in text
    assert "| RNN | 10 | 1 | 8 | 8 | 4 | 1 | 2 | 0.5 | 2.0 | weights (W in L2) | 50% |" in text


@pytest.mark.parametrize("name", ["rnn-tanh", "gru-after", "lstm", "lstm-peephole"])
def test_a_chain_steps_one_vector_of_units_and_no_other(name):
    cell, H = floors.cells.CELLS[name], 64
    lanes = floors.tile.VECTOR_BYTES // 4
    forward, _ = floors._build_chain(name)
    z = np.zeros(cell.blocks * lanes, np.float32)
    states = np.full(cell.states * 2 * H, 0.1, np.float32)
    residuals = np.zeros(max(1, cell.residuals * lanes), np.float32)
    params = np.full(max(1, len(cell.sums) * lanes), 0.2, np.float32)
    W = floors.packed(H, lanes, 1e-3, np.float32)
    forward(z, states, residuals, params, W, H, lanes, 1, 1)
    assert np.allclose(z[cell.split * lanes :][:lanes], H * 0.1 * 1e-3)
    after = states.reshape(cell.states, 2, H)[:, 1]
    assert (after[:, :lanes] != np.float32(0.1)).all()
    assert (after[:, lanes:] == np.float32(0.1)).all()
