"""Which device a call runs on, and how many CPU threads it uses."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np

from . import arguments, arrays, crossover
from .backends import CPU, CUDA, Backend
from .typing import Array, Layer

_PATTERN = re.compile(r"cpu|cuda(:\d+)?")
_CPU = CPU()


class DeviceError(RuntimeError):
    """A device was asked for that this machine does not have."""


def named(device: str | None) -> tuple[str | None, str]:
    """The device asked for by the argument or by FASTBPTT_DEVICE, or None, and by which of them."""
    source = "device"
    if device is None:
        device, source = os.environ.get("FASTBPTT_DEVICE") or None, "FASTBPTT_DEVICE"
    if device is None:
        return None, source
    if not isinstance(device, str):
        raise TypeError(f"{source} must be a string or None, not {arguments.describe(device)}")
    if not _PATTERN.fullmatch(device):
        raise ValueError(f'{source} must be "cpu", "cuda" or "cuda:N", not {device!r}')
    return device, source


def of_arrays(device: str | None, layer: Layer, T: int, B: int) -> Backend:
    """The device for NumPy arrays: `device`, else FASTBPTT_DEVICE, else the one that is faster.

    Raises ValueError for a name that is none, DeviceError for a device that is not there.
    """
    name, source = named(device)
    if name is None:
        name = crossover.faster(layer, T, B)
    return _CPU if name == "cpu" else gpu(name, source)


def gpu(name: str, source: str = "device") -> CUDA:
    """The GPU of that name. Raises DeviceError if it is not there."""
    missing = crossover.missing_gpu()
    if missing is not None:
        raise DeviceError(f"{source} is {name!r}, but {missing}")
    ordinal = int(name.partition(":")[2] or 0)
    count = crossover.gpus()
    if ordinal >= count:
        there = "only cuda:0 is there" if count == 1 else f"cuda:0 to cuda:{count - 1} are there"
        raise DeviceError(f"{source} is {name!r}, but {there}")
    return CUDA(ordinal)


def of_call(
    device: str | None, layer: Layer, x: Array, T: int, B: int, stream: int | None = None
) -> Backend:
    """The device of a call on x. Arrays on a GPU stay there; `stream` is that of x.

    Raises TypeError where `device` names another one.
    """
    if isinstance(x, np.ndarray):
        return of_arrays(device, layer, T, B)
    ordinal = x.device.id
    name = None if device is None else named(device)[0]
    if name not in (None, "cuda", f"cuda:{ordinal}"):
        raise TypeError(f"device is {name!r}, but x is on cuda:{ordinal}, where it stays")
    return CUDA(ordinal, stream)


def reason(device: str | None, layer: Layer, T: int, B: int) -> str:
    """Why a call goes to the device it goes to, in a few words."""
    if arrays.on_gpu(layer.arrays()[0]):
        return "where the arrays are"
    name, source = named(device)
    if name is not None:
        return f"asked for by {source}"
    return crossover.reason(layer, T, B)


def of_plan(device: str | None, layer: Layer, T: int, B: int) -> Backend:
    """The device of a call on arrays that lie where those of the layer do."""
    first: Any = layer.arrays()[0]
    return of_call(device, layer, first, T, B)


def set_num_threads(n: int) -> None:
    """Set how many CPU threads one call uses, the calling one included.

    The default is FASTBPTT_NUM_THREADS, else what the process may really use: its affinity, cut
    by a container's quota. Any number gives the same bits.
    """
    n = arguments.integer("n", n, 1)
    from .kernels.cpu import team

    team.set_num_threads(n)
