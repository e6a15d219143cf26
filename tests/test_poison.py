"""The fixture `poisoned_empty` itself: whatever is handed out unwritten is NaN."""

import numpy as np
import pytest
from fastbptt.kernels.cpu import recurrence
from fastbptt.kernels.cpu.memory import Workspace
from helpers import DTYPES


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 100, 3_000, 100_000])
def test_a_workspace_is_poisoned_also_where_its_memory_was_used_before(size, dtype, poisoned_empty):
    for _ in range(2):
        workspace = Workspace()
        array = workspace.empty((size, 3), np.dtype(dtype))
        assert array.shape == (size, 3) and np.isnan(array).all()
        array[...] = 1
        workspace.release()


def test_arrays_of_the_kernels_host_code_are_poisoned(poisoned_empty):
    assert np.isnan(recurrence.np.empty(5)).all()
    assert (recurrence.np.empty(5, np.int64) == -1).all()


def test_nothing_is_poisoned_without_the_fixture():
    assert recurrence.np is np and "lambda" not in Workspace.empty.__qualname__
