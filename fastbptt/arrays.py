"""Arrays: NumPy's, CuPy's on a GPU, and those that people bring, which become one of these.

`taken` is the one place that knows what else is taken as an array, and what is not: see
docs/arrays.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import numpy as np

from .lazy import Lazy, Source

Array: TypeAlias = np.ndarray
"""A NumPy array, or on a GPU a CuPy array. Docstrings give its axes and its dtype."""

ArrayLike: TypeAlias = Any
"""An array of any package: what speaks DLPack, or what `numpy.asarray` makes numbers of."""

AlongTime: TypeAlias = Any
"""An array along time, or a Lazy where the call's argument is not in memory."""

DType: TypeAlias = "np.dtype[Any]"
"""float32 or float64, as a `numpy.dtype`."""

DTypeLike: TypeAlias = "str | type | np.dtype[Any]"
"""float32 or float64, in any form that `numpy.dtype` takes."""

Shape: TypeAlias = "tuple[int | str, ...]"
"""Sizes of axes; a letter stands for an axis of any size."""


def on_gpu(value: Any) -> bool:
    """Whether `value` is an array on a GPU, of any package."""
    if isinstance(value, np.ndarray):
        return False
    return hasattr(value, "__cuda_array_interface__") or _dlpack_device(value) in _CUDA


_CPU, _CUDA = (1, 3, 11), (2, 13)
"""DLPack devices: those whose memory NumPy reads, the CPU's and what CUDA or ROCm pinned there; and
those whose memory CuPy reads."""


def _dlpack_device(value: Any) -> int | None:
    """The kind of device that a value says by DLPack that it is on, or None."""
    if not hasattr(type(value), "__dlpack_device__"):
        return None
    try:
        return int(value.__dlpack_device__()[0])
    except Exception:  # what is traced, or has no memory, raises its package's own
        return None


def on_host(array: Any) -> bool:
    """Whether an array that `taken` has returned is NumPy's, or will be when it is read."""
    return isinstance(array, (np.ndarray, Lazy))


def in_memory(array: AlongTime) -> Array:
    """The array itself, or all that a Lazy stands for."""
    return array.read() if isinstance(array, Lazy) else array


def module_of(array: Any) -> Any:
    """The module that has the functions for an array: CuPy on a GPU, NumPy for all others."""
    if on_host(array) or not on_gpu(array):
        return np
    from .kernels.cuda import runtime

    return runtime.arrays()


def on_its_gpu(array: Any) -> AbstractContextManager[Any]:
    """Within it CuPy works on the GPU of a CuPy array: on its current one it makes new arrays."""
    return array.device if on_gpu(array) else nullcontext()


def wrapped(value: Any) -> Array:
    """A GPU array of any package as a CuPy array over the same memory, on the same GPU."""
    from .kernels.cuda import runtime

    xp = runtime.arrays()
    if isinstance(value, xp.ndarray):
        return value
    if not hasattr(value, "__cuda_array_interface__"):
        return xp.from_dlpack(value)  # which has its package wait for CuPy's current stream
    address = value.__cuda_array_interface__["data"][0]
    if not address or xp is np:
        return xp.asarray(value)
    # CuPy would copy an array of another GPU to the current one.
    with xp.cuda.Device(xp.cuda.runtime.pointerGetAttributes(address).device):
        return xp.asarray(value)


def stream_of(value: Any) -> int | None:
    """Address of the CUDA stream that the array's package uses now; None for CuPy's current one."""
    if on_host(value):
        return None
    if type(value).__module__.partition(".")[0] == "torch":
        import torch

        if not value.is_cuda:
            return None
        return int(torch.cuda.current_stream(value.device).cuda_stream)
    if type(value).__module__.partition(".")[0] == "cupy" or not on_gpu(value):
        return None
    stream = getattr(value, "__cuda_array_interface__", {}).get("stream")
    return None if stream is None else int(stream)


def home(array: Any) -> Array:
    """The array as a NumPy array, without a copy if it is one already."""
    if isinstance(array, np.ndarray):
        return array
    return array.get() if on_gpu(array) else np.asarray(array)  # JAX's, in a model trained there


class Unreadable(TypeError):
    """A value is no array that can be read; the text says why or what to do, or is empty."""


def taken(name: str, value: Any, lazy: bool) -> AlongTime:
    """`value` as a plain NumPy array, or on a GPU as a CuPy array, without a copy where it can be.

    What is not in memory, such as a data set of h5py, is a Lazy if `lazy`, else it is read. A
    memory map stays on disk. Raises Unreadable for anything that is no plain array of real numbers.
    """
    if isinstance(value, Lazy):
        return value if lazy else value.read()
    try:
        if isinstance(value, np.ndarray):
            found: Any = _viewed(value)
        elif isinstance(value, (list, tuple)):
            found = _of_numbers(value)
        else:
            found = _exported(name, value, lazy)
    except Unreadable:
        raise
    except Exception as error:  # another package's own
        text = " ".join(str(error).split())
        raise Unreadable(f"reading it failed ({text[:200]})") from None
    _check_dtype(found.dtype)
    return found


def _check_dtype(dtype: DType) -> None:
    """Raise Unreadable unless it is bool, an integer, float32 or float64, of native byte order."""
    if not dtype.isnative:
        raise Unreadable(
            "its bytes are in another order than this machine's; convert it: "
            f".astype({dtype.newbyteorder('=').name!r})"
        )
    if dtype.kind in "biu" or dtype.char in "fd":
        return
    advice = {
        "f": "convert it to float32 or float64",
        "c": "give real and imaginary parts as two features",
        "O": "its numbers are Python objects; convert it to float32 or float64",
        "m": "make numbers of its times",
        "M": "make numbers of its times",
    }
    known = advice.get(dtype.kind, "convert it to float32 or float64")
    if dtype.names is not None:
        known = "numpy.lib.recfunctions.structured_to_unstructured makes one array of its fields"
    raise Unreadable(f"its dtype is {dtype}; {known}")


def _viewed(value: np.ndarray) -> Array:
    """An array of a sub-class as a plain one, if the sub-class means the same by its numbers."""
    if isinstance(value, np.ma.MaskedArray):
        raise Unreadable("fill it, .filled(0), and give weights of 0 where it is masked")
    own, plain = type(value), np.ndarray
    same = own.__getitem__ is plain.__getitem__ and own.__array_ufunc__ is plain.__array_ufunc__
    if not (same or isinstance(value, np.memmap)):
        raise Unreadable(
            f"a {own.__name__} has rules of its own for what its numbers mean; "
            "give numpy.asarray of it"
        )
    return value.view(np.ndarray)


def _leaves(value: Any) -> Iterator[type]:
    for item in value:
        if isinstance(item, (list, tuple)):
            yield from _leaves(item)
        else:
            yield type(item)


def _of_numbers(value: Any) -> Array:
    """Nested lists of numbers of one dtype, or of Python's ints and floats, as an array."""
    types = set(_leaves(value))
    numbers = (bool, int, float, np.bool_, np.integer, np.floating)
    others = [own.__name__ for own in types if not issubclass(own, numbers)]
    if others:
        raise Unreadable(f"only lists of numbers are taken, and it holds {', '.join(others)}")
    if not types <= {int, float} and len({np.dtype(own) for own in types}) > 1:
        names = ", ".join(sorted(own.__name__ for own in types))
        raise Unreadable(f"its numbers are of several types, {names}; make an array of it")
    return np.asarray(value)


def _exported(name: str, value: Any, lazy: bool) -> AlongTime:
    """What another package has, by the protocols that it speaks."""
    kind = type(value)  # asked, and not the value: a frame has its columns as attributes
    if getattr(value, "requires_grad", False) is True:
        raise Unreadable(
            "it requires a gradient, which only the modules of fastbptt.torch hand on to PyTorch; "
            "use these, or give .detach()"
        )
    traced = getattr(sys.modules.get("jax.core"), "Tracer", None)
    if traced is not None and isinstance(value, traced):
        raise Unreadable("JAX traces it; use fastbptt.jax.recurrent there")
    if on_gpu(value):
        return wrapped(value)
    if hasattr(kind, "todense"):
        raise Unreadable("it is sparse; give numpy.asarray(.todense()) of it, or tokens")
    if hasattr(kind, "magnitude"):
        raise Unreadable("it has a unit; give its .magnitude")
    if hasattr(kind, "__dlpack__"):
        return _of_dlpack(value)
    if _is_on_disk(value):
        source = Source(name, value)
        whole = Lazy(source, 0, source.shape[0])
        return whole if lazy else source.some(slice(0, source.shape[0]))
    protocols = ("__array_interface__", "__array_struct__", "__array__")
    if not any(hasattr(value, protocol) for protocol in protocols):
        try:
            memoryview(value)
        except TypeError:
            raise Unreadable("") from None
    due = _declared(value)
    if due is not None:
        _check_dtype(due)
    found = np.asarray(value)
    if due is not None and found.dtype != due:
        raise Unreadable(
            f"NumPy makes {found.dtype} of its {due}; fill what is missing, then convert it: "
            f".astype({due.name!r})"
        )
    return found


def _of_dlpack(value: Any) -> Array:
    if int(value.__dlpack_device__()[0]) not in _CPU:
        raise Unreadable("it lies on a device that is not read from; move it to the CPU")
    dtype = str(getattr(value, "dtype", ""))
    if "bfloat16" in dtype:
        raise Unreadable(f"its dtype is {dtype}; convert it to float32 or float64")
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError):  # a dtype NumPy's DLPack has not
        if not hasattr(type(value), "__array__"):
            raise
        return np.asarray(value)


def _is_on_disk(value: Any) -> bool:
    """Whether a value is sliced along time instead of being in memory: h5py, zarr, dask, netCDF4.

    An array of xarray is, too, unless its numbers have been loaded.
    """
    kind = type(value)
    if not getattr(getattr(value, "variable", None), "_in_memory", True):
        return True
    memory = hasattr(value, "__array_interface__") or hasattr(value, "__array_struct__")
    if memory or hasattr(kind, "to_numpy") or not hasattr(kind, "__getitem__"):
        return False
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return isinstance(shape, tuple) and len(shape) > 0 and isinstance(dtype, np.dtype)


def _declared(value: Any) -> DType | None:
    """The one dtype that a frame or series says its numbers have; None for anything else."""
    if not hasattr(type(value), "to_numpy"):
        return None
    dtypes = list(value.dtypes) if hasattr(type(value), "columns") else []
    if not dtypes and (own := getattr(value, "dtype", None)) is not None:
        dtypes = [own]
    names = sorted({str(own) for own in dtypes})
    if len(names) > 1:
        raise Unreadable(f"its columns have several dtypes, {', '.join(names)}; convert it to one")
    if not names:
        return None
    plain = str(getattr(dtypes[0], "numpy_dtype", dtypes[0])).lower()
    try:
        return np.dtype("bool" if plain == "boolean" else plain)
    except TypeError:
        raise Unreadable(f"its dtype is {names[0]}; convert it to float32 or float64") from None
