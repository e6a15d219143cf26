"""Arrays of NumPy or, on a GPU, of CuPy: which of the two, and others' arrays as CuPy's."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
"""A NumPy array. Which axes it has, and of which dtype, its docstring says."""

DType: TypeAlias = "np.dtype[Any]"
"""float32 or float64, as NumPy's own object."""

DTypeLike: TypeAlias = "str | type | np.dtype[Any]"
"""float32 or float64, in any form that `numpy.dtype` takes."""

Shape: TypeAlias = "tuple[int | str, ...]"
"""Sizes; a letter stands for an axis of any size."""


def on_gpu(value: Any) -> bool:
    """Whether it is an array on a GPU, of whatever package."""
    return hasattr(value, "__cuda_array_interface__")


def module_of(array: Any) -> Any:
    """NumPy for its arrays, CuPy for others."""
    if isinstance(array, np.ndarray):
        return np
    from .kernels.cuda import runtime

    return runtime.arrays()


def wrapped(value: Any) -> Array:
    """An array on a GPU as CuPy's, over the same memory, on whichever GPU it is."""
    from .kernels.cuda import runtime

    xp = runtime.arrays()
    if isinstance(value, xp.ndarray):
        return value
    address = value.__cuda_array_interface__["data"][0]
    if not address or xp is np:
        return xp.asarray(value)
    # CuPy would copy what is not on the current device to it.
    with xp.cuda.Device(xp.cuda.runtime.pointerGetAttributes(address).device):
        return xp.asarray(value)


def stream_of(value: Any) -> int | None:
    """The address of the stream on which an array's package works now; None for CuPy's own."""
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
    """The array as NumPy's, not copied if it is one."""
    return array if isinstance(array, np.ndarray) else array.get()
