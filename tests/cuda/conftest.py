"""Tests of the CUDA kernels, on a GPU or in Numba's simulator: NUMBA_ENABLE_CUDASIM=1.

Sizes are small and odd: in the simulator every thread of a kernel is a thread of Python.
"""

import os

import numpy as np
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


@pytest.fixture
def strict(monkeypatch, card):
    """A device whose arrays are not NumPy's, in the simulator too."""
    import mirror
    from fastbptt.kernels.cuda import rowwise, runtime

    if not runtime.SIMULATED:
        return
    launch = runtime.launch

    def launch_mirrored(kernel, grid, threads, args, *rest):
        for arg in args:
            assert not isinstance(arg, np.ndarray) or not arg.ndim, "an array of the host"
            assert not isinstance(arg, mirror.DeviceArray) or arg.flags.c_contiguous
        inside = [arg.inside if isinstance(arg, mirror.DeviceArray) else arg for arg in args]
        launch(kernel, grid, threads, inside, *rest)

    monkeypatch.setattr(runtime, "arrays", lambda: mirror)
    monkeypatch.setattr(runtime, "launch", launch_mirrored)
    monkeypatch.setattr(rowwise, "launch", launch_mirrored)
    monkeypatch.setattr(runtime, "matmul", mirror.matmul)
