"""Tests of the CUDA kernels, on a GPU or in Numba's simulator: NUMBA_ENABLE_CUDASIM=1.

Sizes are small and odd: in the simulator every thread of a kernel is a thread of Python.
"""

import os

import pytest

from fastbptt.backends import devices


@pytest.fixture(scope="session", autouse=True)
def card():
    """The GPU or the simulator; these tests are skipped where there is neither."""
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
    """The GPU; skipped in the simulator."""
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") != "0":
        pytest.skip("needs a GPU: what it claims is not to be seen in the simulator")
    return card
