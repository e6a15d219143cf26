"""Tests in a process for JAX alone: os.fork warns wherever its threads run."""

import functools
import importlib.util
import multiprocessing
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from importlib.metadata import version

import numpy as np
import pytest


@functools.cache
def _pool():
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin)


def _begin():
    import jax

    warnings.simplefilter("error")
    jax.config.update("jax_enable_x64", True)


def _run(module, name, arguments):
    """Why the test is skipped, and how it failed: not every exception can leave a process."""
    try:
        getattr(import_module(module), name).__wrapped__(**arguments)
    except pytest.skip.Exception as why:
        return str(why), None
    except BaseException:
        return None, traceback.format_exc()
    return None, None


def in_jax(test):
    """The test, run in that process, with float64 enabled; skipped where JAX is not installed."""

    @functools.wraps(test)
    def run(**arguments):
        if importlib.util.find_spec("jax") is None:
            pytest.skip("JAX is not installed")
        if tuple(map(int, version("jax").split(".")[:2])) < (0, 10):
            pytest.skip("this JAX is older than the extra asks for")
        job = _pool().submit(_run, test.__module__, test.__name__, arguments)
        skipped, failed = job.result()
        if skipped is not None:
            pytest.skip(skipped)
        assert failed is None, failed

    return run


def assert_same(found, due):
    """Two trees of arrays, of JAX and of the package, have the same types and the same bits."""
    import jax

    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(due), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
