"""Kernels alone, with pytest-benchmark: make bench."""

import numpy as np
import pytest
from fastbptt.kernels import maths
from fastbptt.kernels.jit import OPTIONS
from numba import njit

from . import floors

DTYPES = ("float32", "float64")


@njit(**OPTIONS)
def _tanh(out, values):
    for i in range(values.size):
        out[i] = maths.tanh(values[i])


@njit(**OPTIONS)
def _sigmoid(out, values):
    for i in range(values.size):
        out[i] = maths.sigmoid(values[i])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(1, 64, 64), (1, 64, 256), (1, 1024, 1024), (32, 256, 256), (32, 1024, 1024)]
)
def bench_product(benchmark, shape, dtype):
    rows, inner_size, columns = shape
    a = np.full(rows * inner_size, 0.01, dtype)
    w = floors.packed(inner_size, columns, 0.01, dtype)
    out = np.zeros(rows * columns, dtype)
    floors.repeat_product(out, a, w, rows, inner_size, columns, 1)
    benchmark(floors.repeat_product, out, a, w, rows, inner_size, columns, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", [_tanh, _sigmoid])
def bench_activation_of_4096_numbers(benchmark, function, dtype):
    values = np.linspace(-8, 8, 4096).astype(dtype)
    out = np.empty_like(values)
    function(out, values)
    benchmark(function, out, values)
