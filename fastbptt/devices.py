"""Which device a call runs on, and how many CPU threads it uses."""

from __future__ import annotations

import os
import re

from . import arguments

_PATTERN = re.compile(r"cpu|cuda(:\d+)?")


class DeviceError(RuntimeError):
    """A device was asked for that this machine or this version does not have."""


def require(device: str | None) -> str:
    """Return the device to run on: `device`, else FASTBPTT_DEVICE, else the CPU.

    Raises ValueError for a name that is none, DeviceError for a device that is not there.
    """
    source = "device"
    if device is None:
        device, source = os.environ.get("FASTBPTT_DEVICE") or "cpu", "FASTBPTT_DEVICE"
    if not isinstance(device, str):
        raise TypeError(f"{source} must be a string or None, not {arguments.describe(device)}")
    if not _PATTERN.fullmatch(device):
        raise ValueError(f'{source} must be "cpu", "cuda" or "cuda:N", not {device!r}')
    if device != "cpu":
        raise DeviceError(
            f"{source} is {device!r}, but this version of fastbptt has no CUDA kernels: use 'cpu'"
        )
    return device


def set_num_threads(n: int) -> None:
    """Set how many CPU threads one call uses, the calling one included.

    The default is FASTBPTT_NUM_THREADS, else what the process may really use: its affinity, cut
    by a container's quota. Any number gives the same bits.
    """
    n = arguments.integer("n", n, 1)
    from .kernels.cpu import team

    team.set_num_threads(n)
