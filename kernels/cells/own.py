"""A caller's own scalar functions as the maths of a cell.

They are plain Python: `1 - s * s`, `math.tanh(a)`. To Numba a bare 1 beside a float32 makes a
float64, which would halve the speed and change the numbers. So a function is compiled from a copy
whose constants have the dtype of its arguments, and whose tanh and exp are our own.
"""

import builtins
import dis
import math
import sys
import types
from functools import cache
from itertools import pairwise

import numpy as np

from .. import maths
from ..fingerprint import fingerprint, names_of
from ..jit import scalar
from .anatomy import CELLS, Cell

_OURS = {"exp": maths.exp, "tanh": maths.tanh}


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Copy(types.ModuleType):
    """A module as the functions of a cell see it."""


@cache
def _mathematics(module):
    """`math` or `numpy` with our own exponential functions, which vectorise."""
    ours = Copy(module.__name__)
    ours.__dict__.update(vars(module))
    ours.__dict__.update(_OURS)
    return ours


def _module(module, translate):
    """What code can read of a module by the names it uses, as it is now."""
    if module is math or module is np:
        return _mathematics(module)
    if module.__name__.partition(".")[0] in sys.stdlib_module_names | {"numpy", "numba"}:
        return module
    if module not in translate.modules:
        translate.modules[module] = copy = Copy(module.__name__)
        for name in translate.names:
            if hasattr(module, name):
                setattr(copy, name, translate(getattr(module, name)))
    return translate.modules[module]


class _Translate:
    """Puts something in the place of what code that uses these names reads."""

    def __init__(self, names, dtype):
        self.names, self.dtype = names, dtype
        self.modules = {}  # module -> its copy: modules may hold each other

    def __call__(self, value):
        if _is_number(value):
            return self.dtype(value)
        if isinstance(value, types.ModuleType):
            return _module(value, self)
        for name, ours in _OURS.items():
            if value is getattr(math, name) or value is getattr(np, name):
                return ours
        function = getattr(value, "py_func", value)  # Numba's may have frozen what they read
        if isinstance(function, types.FunctionType) and not hasattr(function, "distinct"):
            return scalar(of_dtype(function, self.dtype))
        return _frozen(value)


def _frozen(value):
    """Arrays as they are now, by themselves or in tuples."""
    if type(value) is tuple:
        return tuple(map(_frozen, value))
    if isinstance(value, np.ndarray):
        return value.copy()
    return value


def _constants(code, dtype):
    """The code with its numbers in that dtype, but for indices, powers and counts of a loop."""
    constants = list(code.co_consts)
    bytes_ = bytearray(code.co_code)
    steps = list(dis.get_instructions(code))
    loops = "range" in code.co_names
    for step, after in pairwise(steps):
        if step.opname != "LOAD_CONST" or not _is_number(step.argval):
            continue
        if isinstance(step.argval, int):
            power = after.opname == "BINARY_POWER" or after.argrepr in ("**", "**=")
            call = loops and after.opname in ("CALL_FUNCTION", "PRECALL", "CALL")
            if after.opname == "BINARY_SUBSCR" or power or call:
                continue
        constants.append(dtype(step.argval))
        place = len(constants) - 1
        if place > 255:
            raise ValueError(f"{code.co_name} has too many constants for a cell's function")
        bytes_[step.offset + 1] = place
    return code.replace(co_code=bytes(bytes_), co_consts=tuple(constants))


def of_dtype(function, dtype):
    """The function with all its constants in that NumPy dtype, and what it reads as it is now."""
    known = {**vars(builtins), **function.__globals__}
    names = names_of(function.__code__)
    translate = _Translate(names, dtype)
    found = {name: translate(known[name]) for name in names if name in known}
    found["__name__"] = __name__
    closed = [cell.cell_contents for cell in function.__closure__ or ()]
    cells = tuple(types.CellType(translate(value)) for value in closed)
    code = _constants(function.__code__, dtype)
    made = types.FunctionType(code, found, function.__name__, function.__defaults__, cells)
    # What it reads is not our own, so it counts for the symbol: see `jit`.
    made.__qualname__ += f".{fingerprint(function, reads=True)}.{dtype.__name__}"
    made.distinct = True
    return made


class _Made:
    """A function of a cell for each dtype, made before anything that it reads can change."""

    def __init__(self, make):
        self.of_dtype = {dtype: make(dtype) for dtype in (np.float32, np.float64)}.__getitem__


def define(name, gates, states, kept, parameters, forward, reverse):
    """Enter a cell of the caller's own functions; returns the name by which kernels know it."""
    counts = f"{gates}-{states}-{kept}-{parameters}"
    name = f"own-{name}-{counts}-{fingerprint(forward, reverse, reads=True)}"

    def make_forward(dtype):
        own = scalar(of_dtype(forward, dtype))
        if parameters:
            return lambda a, s, p: own(a, s, p)
        return lambda a, s, p: own(a, s)

    def make_reverse(dtype):
        own = scalar(of_dtype(reverse, dtype))

        def with_parameters(ds, s, previous, kept, p):
            delta, ds, dp = own(ds, s, previous, kept, p)
            return delta + dp, ds

        if parameters:
            return with_parameters
        return lambda ds, s, previous, kept, p: own(ds, s, previous, kept)

    CELLS[name] = Cell(
        gates, states, kept, _Made(make_forward), _Made(make_reverse),
        sums=tuple(range(gates, gates + parameters)), extra=parameters,
    )  # fmt: skip
    return name


def define_activation(name, function, slope):
    """Enter an Elman cell of the caller's own activation; returns the name it has in kernels."""
    name = f"rnn-own-{name}-{fingerprint(function, slope, reads=True)}"

    def make_forward(dtype):
        own = scalar(of_dtype(function, dtype))
        return lambda a, s, p: ((own(a[0]),), ())

    def make_reverse(dtype):
        own, zero = scalar(of_dtype(slope, dtype)), dtype(0)
        return lambda ds, s, previous, kept, p: ((ds[0] * own(s[0]),), (zero,))

    CELLS[name] = Cell(1, 1, 0, _Made(make_forward), _Made(make_reverse))
    return name
