"""The cells' functions, of the same source as on the CPU, as functions that CUDA kernels call."""

import math
import types
from functools import cache, lru_cache

import numpy as np

from .. import maths
from ..cells import emit
from ..cells.registry import CELLS
from .runtime import SIMULATED, device, primitives

reciprocal = primitives.reciprocal


@cache
def _mathematics(dtype):
    """{function of `maths`: the same function on the GPU}, for one dtype.

    CUDA's tanh and exp are within 2 units in the last place.
    """
    zero, one, infinity = dtype(0), dtype(1), dtype(np.inf)
    largest = dtype(np.log(np.finfo(dtype).max))
    least = dtype(np.log(np.finfo(dtype).tiny))

    @device
    def exp(x):
        if x > largest:
            return infinity
        if x < least:
            return zero
        return dtype(math.exp(x))

    @device
    def tanh(x):
        return dtype(math.tanh(x))

    @device
    def sigmoid(x):
        return reciprocal(one + dtype(math.exp(-x)))  # 1 / infinity is 0

    @device
    def cast_like(value, x):
        return dtype(value)

    found = {maths.exp: exp, maths.tanh: tanh, maths.sigmoid: sigmoid, maths.cast_like: cast_like}
    if SIMULATED:  # Python's raise errors where a GPU returns NaN or infinity
        found |= {known: getattr(np, name, known) for name, known in emit.MATH.items()}
    return found


def maths_of(dtype):
    """(exp, tanh, sigmoid) on the GPU."""
    found = _mathematics(dtype)
    return found[maths.exp], found[maths.tanh], found[maths.sigmoid]


def on_device(compiled, dtype):
    """The GPU's version of a function that is compiled for the CPU."""
    return _device_function(compiled.py_func, dtype)


def _translated(value, dtype):
    """What replaces a global or enclosed variable on the GPU."""
    if hasattr(value, "py_func"):  # compiled for the CPU
        return _device_function(value.py_func, dtype)
    try:
        return _mathematics(dtype).get(value, value)
    except TypeError:
        return value


@lru_cache(maxsize=512)
def _device_function(function, dtype):
    known = function.__globals__
    names = function.__code__.co_names
    found = {
        name: _translated(known[name], dtype)
        for name in names
        # One that is called like itself, as floor by way of math.floor, is named by an attribute.
        if name in known and getattr(known[name], "py_func", None) is not function
    }
    found["__name__"] = __name__
    found["__builtins__"] = known.get("__builtins__", __builtins__)
    closed = tuple(
        types.CellType(_translated(cell.cell_contents, dtype))
        for cell in function.__closure__ or ()
    )
    copy = types.FunctionType(
        function.__code__, found, function.__name__, function.__defaults__, closed
    )
    return device(copy)


@lru_cache(maxsize=256)
def functions(cell, dtype):
    """The functions (forward, reverse, gate, ungate) of the cell of that name, or None for each."""
    found = CELLS[cell]

    def of(function):
        return None if function is None else _device_function(function, dtype)

    return tuple(of(f) for f in (found.forward, found.reverse, found.gate, found.ungate))
