"""The devices that there are, by name, and how many CPU threads a call uses."""

from __future__ import annotations

import os
import re
from functools import lru_cache

import numpy as np

from .. import arguments
from ..arrays import Array
from .base import Backend

_PATTERN = re.compile(r"cpu|cuda(:[0-9]{1,6})?")


class DeviceError(RuntimeError):
    """A device was asked for that this machine does not have."""


def named(device: str | None) -> tuple[str | None, str]:
    """The device asked for by the argument or by FASTBPTT_DEVICE, or None, and by which of them.

    Raises TypeError, or ValueError for a name that is none.
    """
    source = "device"
    if device is None:
        device, source = os.environ.get("FASTBPTT_DEVICE") or None, "FASTBPTT_DEVICE"
    if device is None:
        return None, source
    if not isinstance(device, str):
        raise TypeError(f"{source} must be a string or None, not {arguments.describe(device)}")
    if not _PATTERN.fullmatch(device):
        raise ValueError(
            f'{source} must be "cpu", "cuda" or "cuda:N", not {arguments.shown(device)}'
        )
    return device, source


def device(name: str, source: str = "device") -> Backend:
    """The device of that name. Raises DeviceError if it is not there; `source` asked for it."""
    return _cpu() if name == "cpu" else gpu(name, source)


@lru_cache(maxsize=1)
def _cpu() -> Backend:
    from .cpu import CPU  # here, since it loads the kernels

    return CPU()


def of_array(array: Array, stream: int | None = None) -> Backend:
    """The device on which an array lies; `stream` is that of its package there."""
    if isinstance(array, np.ndarray):
        return _cpu()
    from .cuda import CUDA

    return CUDA(array.device.id, stream)


def gpu(name: str, source: str = "device", stream: int | None = None) -> Backend:
    """The GPU of that name, with a stream of its own. Raises DeviceError if it is not there."""
    missing = missing_gpu()
    if missing is not None:
        raise DeviceError(f"{source} is {name!r}, but {missing}")
    ordinal = int(name.partition(":")[2] or 0)
    count = _gpus()
    if ordinal >= count:
        there = "only cuda:0 is there" if count == 1 else f"cuda:0 to cuda:{count - 1} are there"
        raise DeviceError(f"{source} is {name!r}, but {there}")
    from .cuda import CUDA

    return CUDA(ordinal, stream)


@lru_cache(maxsize=1)
def missing_gpu() -> str | None:
    """What there is not that a GPU needs, or None."""
    try:
        from ..kernels.cuda import runtime
    except ImportError as error:
        return str(error)
    return runtime.missing()


def _gpus() -> int:
    from ..kernels.cuda import runtime

    return 1 if runtime.SIMULATED else runtime.arrays().cuda.runtime.getDeviceCount()


def set_num_threads(n: int) -> None:
    """Set how many CPU threads a call uses. Any number gives the same bits.

    Parameters
    ----------
    n : threads, the calling one included, from 1 to 4096. If the system refuses so many, a call
        uses those that it gets

    The default is the environment variable FASTBPTT_NUM_THREADS, else the number of CPUs that the
    process may use: its affinity, limited by the quota of a container.

    Raises
    ------
    ValueError, TypeError : `n` is out of range, or no integer
    """
    from ..kernels.cpu import team

    n = arguments.integer("n", n, 1, team.MOST_THREADS)
    team.set_num_threads(n)
