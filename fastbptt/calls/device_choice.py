"""Which device a call runs on: where its arrays are, where it is sent, or the faster one."""

from __future__ import annotations

from typing import Any

from .. import arrays
from ..arrays import AlongTime
from ..backends import devices
from ..backends.base import Backend
from ..layers.composite import Layer
from . import crossover


def of_numpy(device: str | None, layer: Layer, T: int, B: int) -> Backend:
    """The device for NumPy arrays: `device`, else FASTBPTT_DEVICE, else the one that is faster.

    Raises ValueError for a name that is none, DeviceError for a device that is not there.
    """
    name, source = devices.named(device)
    if name is None:
        name = crossover.faster(layer, T, B)
    return devices.device(name, source)


def of_call(
    device: str | None, layer: Layer, x: AlongTime, T: int, B: int, stream: int | None = None
) -> Backend:
    """The device of a call on x. Arrays on a GPU stay there; `stream` is that of x.

    Raises TypeError where `device` names another one.
    """
    if arrays.on_host(x):
        return of_numpy(device, layer, T, B)
    ordinal = x.device.id
    name = None if device is None else devices.named(device)[0]
    if name not in (None, "cuda", f"cuda:{ordinal}"):
        raise TypeError(f"device is {name!r}, but x is on cuda:{ordinal}, where it stays")
    return devices.of_array(x, stream)


def of_plan(device: str | None, layer: Layer, T: int, B: int) -> Backend:
    """The device of a call on arrays that lie where those of the layer do.

    A plan reads no numbers, so they may also be JAX's, which no call takes.
    """
    first: Any = layer.arrays()[0]
    if not arrays.on_gpu(first):
        return of_numpy(device, layer, T, B)
    return of_call(device, layer, first, T, B)


def reason(device: str | None, layer: Layer, T: int, B: int) -> str:
    """Why a call goes to the device it goes to, in a few words."""
    if arrays.on_gpu(layer.arrays()[0]):
        return "where the arrays are"
    name, source = devices.named(device)
    if name is not None:
        return f"asked for by {source}"
    return crossover.reason(layer, T, B)
