"""A stand-in for CuPy, over NumPy, that is as strict as CuPy about where arrays are.

NumPy functions do not take its arrays, nor do its functions and operators take NumPy's: so it shows
every place where an array would have to cross from the device to the host or back, and does not.
"""

import functools
import operator
import weakref
from contextlib import nullcontext
from types import SimpleNamespace
from typing import ClassVar

import numpy as np

__version__ = "0"


class Device:
    """The GPU of an array, which work is done on within it."""

    id = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


DEVICE = Device()


def _inside(value):
    """What an argument is to NumPy; an array of NumPy's own is an error, as in CuPy."""
    if isinstance(value, DeviceArray):
        return value.inside
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, (tuple, list)) and any(isinstance(v, DeviceArray) for v in value):
        return type(value)(_inside(v) for v in value)
    return value


def _outside(value):
    return DeviceArray(value) if isinstance(value, (np.ndarray, np.generic)) else value


class Memory:
    """The bytes of all arrays on the device, and the most that there were."""

    def __init__(self):
        self.now = self.most = 0

    def take(self, array):
        self._add(array.nbytes)
        weakref.finalize(array, self._add, -array.nbytes)

    def _add(self, size):
        self.now += size
        self.most = max(self.most, self.now)


memory = Memory()


class DeviceArray:
    """An array on the device."""

    __array_ufunc__ = None
    device = DEVICE

    def __init__(self, inside):
        self.inside = np.asarray(inside)
        if self.inside.base is None:
            memory.take(self.inside)

    def __dlpack__(self, **given):
        return self.inside.__dlpack__()

    def __dlpack_device__(self):
        return self.inside.__dlpack_device__()

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Use `.get()`.")

    @property
    def __cuda_array_interface__(self):
        return {**self.inside.__array_interface__, "version": 3}

    def __getattr__(self, name):
        if name not in ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "flags", "strides"):
            raise AttributeError(f"CuPy's arrays may have no {name!r}: look it up, and add it here")
        return getattr(self.inside, name)

    @property
    def data(self):
        return SimpleNamespace(ptr=self.inside.ctypes.data)

    @property
    def T(self):
        return DeviceArray(self.inside.T)

    def get(self):
        return self.inside.copy()

    def set(self, values):
        assert type(values) is np.ndarray and values.flags.c_contiguous
        assert values.shape == self.shape and values.dtype == self.dtype
        self.inside[...] = values

    def __getitem__(self, index):
        return DeviceArray(self.inside[_inside(index)])

    def __setitem__(self, index, value):
        self.inside[_inside(index)] = _inside(value)

    def __len__(self):
        return len(self.inside)

    def __bool__(self):
        return bool(self.inside)

    def __float__(self):
        return float(self.inside)

    def __int__(self):
        return int(self.inside)

    def __format__(self, form):
        return format(self.inside[()], form)

    def __iter__(self):
        return (DeviceArray(part) for part in self.inside)


def _method(name):
    def method(self, *args, **kwargs):
        found = getattr(self.inside, name)(*map(_inside, args), **kwargs)
        return _outside(found)

    return method


for _name in ("reshape", "astype", "copy", "transpose", "sum", "min", "max", "any", "all", "ravel"):
    setattr(DeviceArray, _name, _method(_name))


def _operator(name):
    def apply(self, *others):
        return _outside(getattr(operator, name)(self.inside, *map(_inside, others)))

    return apply


for _name in ("add", "sub", "mul", "truediv", "pow", "lt", "le", "gt", "ge", "eq", "ne", "and",
              "or", "xor", "neg", "invert", "abs", "iadd", "imul", "iand", "isub"):  # fmt: skip
    _dunder = f"__{_name}__"
    setattr(DeviceArray, _dunder, _operator(_dunder))
for _name in ("add", "mul", "and"):
    setattr(DeviceArray, f"__r{_name}__", getattr(DeviceArray, f"__{_name}__"))


def _in_place(name):
    def apply(self, other):
        getattr(operator, f"__{name}__")(self.inside, _inside(other))
        return self

    return apply


for _name in ("iadd", "imul", "iand", "isub"):
    setattr(DeviceArray, f"__{_name}__", _in_place(_name))


def _function(name):
    numpys = getattr(np, name)

    @functools.wraps(numpys)
    def function(*args, out=None, **kwargs):
        if out is not None:
            kwargs["out"] = _inside(out)
        with np.errstate(all="ignore"):
            found = numpys(*map(_inside, args), **kwargs)
        return out if out is not None else _outside(found)

    return function


for _name in ("empty", "zeros", "empty_like", "arange", "concatenate", "roll", "matmul", "argsort",
              "searchsorted", "broadcast_to", "ascontiguousarray", "copyto"):  # fmt: skip
    globals()[_name] = _function(_name)


class _Read:
    """An array of another package as NumPy reads it; it holds the other array."""

    def __init__(self, value):
        self.__array_interface__ = {**value.__cuda_array_interface__, "version": 3}
        self.value = value


def asarray(value, dtype=None):
    """Bring an array to the device, or leave it there."""
    if isinstance(value, DeviceArray):
        return value
    if hasattr(value, "__cuda_array_interface__"):
        return DeviceArray(np.asarray(_Read(value)))
    return DeviceArray(np.array(value, dtype))


class _Host:
    """An array of another package on the device, as NumPy reads it by DLPack."""

    def __init__(self, value):
        self.value = value

    def __dlpack__(self, **given):
        return self.value.__dlpack__()

    def __dlpack_device__(self):
        return 1, 0


def from_dlpack(value):
    """An array of another package on the device, over the same memory."""
    assert value.__dlpack_device__()[0] == 2
    return DeviceArray(np.from_dlpack(_Host(value)))


ndarray = DeviceArray


class _Event:
    def __init__(self, stream=None, **kwargs):
        self.stream = stream

    def record(self):
        pass

    synchronize = record


class Stream:
    """A stream, which notes after which others it has been told to go on."""

    made: ClassVar = {}

    def __init__(self, address):
        self.address, self.after = address, []

    @classmethod
    def from_external(cls, stream):
        version, address = stream.__cuda_stream__()
        assert version == 0
        return cls.made.setdefault(address, cls(address))

    def record(self):
        return _Event(self)

    def wait_event(self, event):
        self.after.append(event.stream.address)

    def __enter__(self):
        current.append(self)

    def __exit__(self, *error):
        current.pop()


Stream.null = Stream(0)
current = [Stream.null]
cuda = SimpleNamespace(
    Device=lambda ordinal: nullcontext(),
    Stream=Stream,
    get_current_stream=lambda: current[-1],
    Event=_Event,
    memory=SimpleNamespace(OutOfMemoryError=MemoryError),
    runtime=SimpleNamespace(pointerGetAttributes=lambda address: SimpleNamespace(device=DEVICE.id)),
)
