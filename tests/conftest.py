"""Shared by all tests: reproducible Hypothesis examples, threads put back, poisoned `empty`."""

import importlib
import sys
import types

import hypothesis
import numpy as np
import pytest

hypothesis.settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # a busy machine is no fault
    database=None,
    print_blob=True,
)
hypothesis.settings.load_profile("steady")


def pytest_collection_modifyitems(items):
    """Refuse test names that hold an address: they differ between processes, so xdist fails."""
    named = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if named:
        raise pytest.UsageError(f"test names must be the same in every process: {named}")


class PoisonedNumpy(types.ModuleType):
    """NumPy whose `empty` and `empty_like` return NaN everywhere (integers: -1)."""

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def empty(*args, **kwargs):
        return poison(np.empty(*args, **kwargs))

    @staticmethod
    def empty_like(*args, **kwargs):
        return poison(np.empty_like(*args, **kwargs))


def poison(array):
    if array.size and array.dtype != object and array.flags.forc:
        array.ravel(order="K").view(np.uint8).fill(255)
    return array


# The modules of the kernels that compile nothing: compiled code looks numpy up by identity.
HOST_MODULES = [f"fastbptt.kernels.cpu.{name}" for name in ("memory", "recurrence", "weights")]


@pytest.fixture
def poisoned_empty(monkeypatch):
    """Fill uninitialised arrays with NaN: results, and the kernels' scratch and caches.

    Arrays allocated in compiled code or on a GPU are not affected.
    """
    from fastbptt.kernels.cpu.memory import Workspace

    import fastbptt

    for name in ("forward", "run", "predict", "evaluate", "bptt"):  # loads the modules
        getattr(fastbptt, name)
    for name in HOST_MODULES:
        importlib.import_module(name)
    for name, module in list(sys.modules.items()):
        ours = name.partition(".")[0] == "fastbptt"
        compiled = name.startswith("fastbptt.kernels") and name not in HOST_MODULES
        if ours and not compiled and getattr(module, "np", None) is np:
            monkeypatch.setattr(module, "np", PoisonedNumpy("numpy"))

    empty = Workspace.empty  # hands out memory of earlier calls, too
    monkeypatch.setattr(Workspace, "empty", lambda *given: poison(empty(*given)))


@pytest.fixture
def set_threads():
    """fb.set_num_threads, undone afterwards."""
    import helpers

    yield helpers.fb.set_num_threads
    helpers.put_threads_back()
