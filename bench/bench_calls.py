"""Whole calls, with pytest-benchmark: make bench."""

import numpy as np
import pytest
from fastbptt.kernels.cpu import team

import fastbptt as fb
from fastbptt.commands.bench import peers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(1, 1, 8, 8), (1000, 1, 64, 64), (500, 32, 64, 64)], ids=str)
@pytest.mark.parametrize("cell", peers.CELLS)
def bench_forward_and_backward(benchmark, cell, sizes, dtype):
    run = peers.fastbptt(*peers.problem(cell, *sizes, dtype), team.available_cpus()).run
    run()
    benchmark(run)


@pytest.mark.parametrize("memory", ["full", "1MB", fb.Truncated(100, 200)], ids=str)
def bench_bptt(benchmark, memory):
    network = fb.Network(fb.LSTM.init(16, 64, rng=0), fb.Readout.init(64, 8, rng=1))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5000, 1, 16), np.float32)
    y = rng.standard_normal((5000, 1, 8), np.float32)
    fb.bptt(network, x, y, memory=memory)
    benchmark(fb.bptt, network, x, y, memory=memory)
