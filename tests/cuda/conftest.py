"""Tests of the CUDA kernels, on a GPU or in Numba's simulator: NUMBA_ENABLE_CUDASIM=1.

Sizes are small and odd: in the simulator every thread of a kernel is a thread of Python.
"""

import os

import pytest

from fastbptt.backends import devices


@pytest.fixture(scope="session", autouse=True)
def card():
    """The card, or the simulator in its place; a machine that has neither skips these tests."""
    missing = devices.missing_gpu()
    if missing is not None:
        pytest.skip(f"{missing}; NUMBA_ENABLE_CUDASIM=1 runs these tests without a GPU")
    from fastbptt.kernels.cuda import gpus

    return gpus.card(gpus.current())


@pytest.fixture(autouse=True)
def device(monkeypatch):
    """NumPy arrays go to the GPU."""
    monkeypatch.setenv("FASTBPTT_DEVICE", "cuda")


@pytest.fixture
def gpu(card):
    """The card, if it is a real one."""
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") != "0":
        pytest.skip("needs a GPU: what it claims is not to be seen in the simulator")
    return card
