"""NumPy arrays, and on a GPU CuPy arrays: which of the two an array is, and how to convert it."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
"""A NumPy array, or on a GPU a CuPy array. Docstrings give its axes and its dtype."""

DType: TypeAlias = "np.dtype[Any]"
"""float32 or float64, as a `numpy.dtype`."""

DTypeLike: TypeAlias = "str | type | np.dtype[Any]"
"""float32 or float64, in any form that `numpy.dtype` takes."""

Shape: TypeAlias = "tuple[int | str, ...]"
"""Sizes of axes; a letter stands for an axis of any size."""


def on_gpu(value: Any) -> bool:
    """Whether `value` is an array on a GPU, of any package."""
    return hasattr(value, "__cuda_array_interface__")


def module_of(array: Any) -> Any:
    """The module that an array belongs to: NumPy or CuPy."""
    if isinstance(array, np.ndarray):
        return np
    from .kernels.cuda import runtime

    return runtime.arrays()


def wrapped(value: Any) -> Array:
    """A GPU array of any package as a CuPy array over the same memory, on the same GPU."""
    from .kernels.cuda import runtime

    xp = runtime.arrays()
    if isinstance(value, xp.ndarray):
        return value
    address = value.__cuda_array_interface__["data"][0]
    if not address or xp is np:
        return xp.asarray(value)
    # CuPy would copy an array of another GPU to the current one.
    with xp.cuda.Device(xp.cuda.runtime.pointerGetAttributes(address).device):
        return xp.asarray(value)


def stream_of(value: Any) -> int | None:
    """Address of the CUDA stream that the array's package uses now; None for CuPy's current one."""
    if isinstance(value, np.ndarray):
        return None
    if type(value).__module__.partition(".")[0] == "torch":
        import torch

        if not value.is_cuda:
            return None
        return int(torch.cuda.current_stream(value.device).cuda_stream)
    if type(value).__module__.partition(".")[0] == "cupy" or not on_gpu(value):
        return None
    stream = value.__cuda_array_interface__.get("stream")
    return None if stream is None else int(stream)


def home(array: Any) -> Array:
    """The array as a NumPy array, without a copy if it is one already."""
    return array if isinstance(array, np.ndarray) else array.get()
