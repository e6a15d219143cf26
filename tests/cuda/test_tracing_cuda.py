"""Traced functions compute on a GPU what they do in NumPy."""

import numpy as np
import pytest
from fastbptt.kernels.cells import emit
from fastbptt.kernels.cuda import runtime
from fastbptt.kernels.cuda.cells import _device_function
from test_tracing import NEAR, NUMBERS, ONE, TWO, due_of, text_of

pytestmark = pytest.mark.skipif(not runtime.SIMULATED, reason="Python calls these in the simulator")


@pytest.mark.parametrize("dtype", NEAR)
def test_functions_on_the_gpu_are_those_of_numpy(dtype):
    text = text_of(lambda a: (*(f(a[0]) for f in ONE), *(f(a[0], a[1]) for f in TWO)))
    call = _device_function(emit.compiled("function", text), dtype)
    for x in map(dtype, NUMBERS):
        for y in map(dtype, NUMBERS):
            with np.errstate(all="ignore"):
                found = call((x, y))[0]
            for f, one, due in zip(ONE + TWO, found, due_of(x, y), strict=True):
                assert one.dtype == dtype
                near = np.isclose(one, due, rtol=NEAR[dtype], atol=NEAR[dtype], equal_nan=True)
                assert near, f"np.{f.__name__} of {x}, {y}: {one}, not {due}"
