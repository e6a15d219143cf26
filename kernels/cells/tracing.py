"""A caller's function, called once with symbols: see `symbols`.

NumPy's functions know a symbol when they get one. Those of `math` take nothing but plain numbers,
so what is called is a copy of the function that finds our stand-ins where it reads `math`, or a
function of it, by the name of a global or an enclosed variable. So does every Python function that
it reads by a name, and so on.
"""

import functools
import math
import types
from contextlib import suppress

from .symbols import Symbol, apply

_NUMPY_NAMES = {
    "acos": "arccos", "asin": "arcsin", "atan": "arctan", "atan2": "arctan2",
    "acosh": "arccosh", "asinh": "arcsinh", "atanh": "arctanh", "pow": "power",
}  # fmt: skip
_LEFT = {"builtins", "fastbptt", "numba", "numpy"}  # whose functions are not copied
_CACHED = type(functools.lru_cache(abs))
_OURS = {"fastbptt", "numpy"}  # whose lines are not the caller's


def _stand_in(name, function):
    """A function of `math` that takes symbols, too."""
    op = _NUMPY_NAMES.get(name, name)

    def record(*args):
        if not any(isinstance(x, Symbol) for x in args):
            return function(*args)
        if name == "log" and len(args) == 2:
            return record(args[0]) / record(args[1])
        return apply(op, *args)

    return record


_MATH = types.SimpleNamespace(
    **{
        name: _stand_in(name, value) if callable(value) else value
        for name, value in vars(math).items()
        if not name.startswith("_")
    }
)
_STAND_INS = {
    id(value): getattr(_MATH, name)
    for name, value in vars(math).items()
    if callable(value) and not name.startswith("_")  # `__loader__` is, where math is built in
}


def _names_of(code):
    """The names that code reads, the functions in it included; some are those of attributes."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names_of(constant)
    return found


class _Module:
    """A module whose attributes are what stands for those of the module."""

    def __init__(self, copies, module):
        self.__dict__.update(_copies=copies, _module=module)

    def __getattr__(self, name):
        return self._copies.of(getattr(self._module, name))


class _Copies:
    """What stands for the values that a traced function reads by a name."""

    def __init__(self):
        self._functions = {}  # id -> (function, its copy)
        self._globals = {}  # id -> (dictionary, its copy)
        self._cells = {}  # id -> (cell of an enclosed variable, its copy)

    def of(self, value):
        """Return what stands for a value: most stand for themselves."""
        if value is math:
            return _MATH
        if isinstance(value, types.ModuleType):
            return value if _package(value.__name__) in _LEFT else _Module(self, value)
        return _STAND_INS.get(id(value)) or self.callable(value)

    def callable(self, value):
        """Return the copy of a Python function, in whatever it is wrapped; else the value."""
        kind = type(value)
        if kind is functools.partial:
            return functools.partial(self.callable(value.func), *value.args, **value.keywords)
        if kind is types.MethodType:
            return types.MethodType(self.callable(value.__func__), value.__self__)
        if kind is not types.FunctionType:
            value = _function_in(value)
        if type(value) is not types.FunctionType or _package(value.__module__) in _LEFT:
            return value
        if id(value) not in self._functions:
            self._copy(value)
        return self._functions[id(value)][1]

    def _copy(self, function):
        code, known = function.__code__, function.__globals__
        found = self._globals.setdefault(id(known), (known, dict(known)))[1]
        cells = function.__closure__ and tuple(map(self._cell, function.__closure__))
        copy = types.FunctionType(code, found, function.__name__, function.__defaults__, cells)
        copy.__kwdefaults__ = function.__kwdefaults__
        copy.__dict__.update(function.__dict__)
        self._functions[id(function)] = function, copy  # before what it reads, which may be itself
        for name in _names_of(code) & known.keys():
            found[name] = self.of(known[name])
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # not filled yet
                self._cell(cell).cell_contents = self.of(cell.cell_contents)

    def _cell(self, cell):
        """The copy of a cell of the interpreter's, one for all functions that share it."""
        return self._cells.setdefault(id(cell), (cell, types.CellType()))[1]


def _function_in(value):
    """The function that Numba compiled, or functools caches; else the value."""
    if type(value) is _CACHED:
        return value.__wrapped__
    with suppress(Exception):  # whatever the attributes of an unknown object may raise
        if isinstance(value.py_func, types.FunctionType):
            return value.py_func
    return value


def _package(name):
    return name.partition(".")[0] if isinstance(name, str) else ""


def _place(function, traceback):
    """File and line of the caller's source where an error comes from."""
    code = getattr(function, "__code__", None)
    found = (code.co_filename, code.co_firstlineno) if code else ("an unknown file", 0)
    while traceback is not None:
        frame = traceback.tb_frame
        if _package(frame.f_globals.get("__name__")) not in _OURS:
            found = frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next
    return "{}, line {}".format(*found)


def trace(name, function, *args):
    """Return what the function returns for symbols.

    Raises TypeError or ValueError, with the line of the caller's source, where it cannot be traced.
    """
    try:
        return _Copies().of(function)(*args)
    except Exception as error:
        place = _place(function, error.__traceback__)
        if isinstance(error, TypeError):
            raise TypeError(f"{name}: {place}: {error}") from error
        raise ValueError(f"{name}: {place}: {type(error).__name__}: {error}") from error
