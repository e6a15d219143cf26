"""A short text for what a function computes: for its code and all that it encloses, by value.

Compiled code holds the values that it encloses as they were. So code may stand for a function only
if all of them are the same: numbers by type and value, arrays by their bytes, and other functions,
compiled or not, by all that they enclose in turn. What kernels read of their modules is in the
kernels' sources.
"""

import builtins
import cmath
import enum
import functools
import hashlib
import math
import operator
import sys
import types
from contextlib import suppress

import numba
import numpy as np

_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, type(...))
_LIBRARIES = {"builtins", "cmath", "math", "numba", "numpy", "operator"}
_MODULES = builtins, math, cmath, operator, np
_IGNORED = {"__dict__", "__weakref__", "__doc__", "__module__"}  # of a class


def fingerprint(*values):
    """A text that differs where functions would compute something else; so do other values.

    Raises TypeError for a value that cannot be told from another one.
    """
    return _Walk().digest(values).hex()[:16]


def _library_name(value):
    """The name of what belongs to Python, NumPy or Numba, which are the same in every process."""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(name, str):
        return None
    module = getattr(value, "__module__", None)
    known = [module] if isinstance(module, str) else []
    if known and module.partition(".")[0] not in _LIBRARIES:
        return None
    for found in (*(sys.modules.get(m) for m in known), *_MODULES):
        with suppress(AttributeError):
            if found is not None and operator.attrgetter(name)(found) is value:
                return f"{found.__name__}.{name}"
    return None


class _Walk:
    """One walk over values and all that they are made of."""

    def __init__(self):
        self._known = {}  # id -> (value, digest): while the value is held, its id is its own
        self._open = []  # ids of what a value now in work is part of

    def digest(self, value):
        if id(value) in self._known:
            return self._known[id(value)][1]
        if id(value) in self._open:  # a function that calls itself
            kind, text, parts = "above", str(len(self._open) - self._open.index(id(value))), ()
        else:
            kind, text, parts = self._describe(value)
        self._open.append(id(value))
        found = hashlib.sha256(f"{kind} {len(text)} ".encode())
        found.update(text if isinstance(text, bytes) else text.encode())
        digests = [self.digest(part) for part in parts]
        for digest in sorted(digests) if kind in ("set", "frozenset") else digests:
            found.update(digest)
        self._open.pop()
        if kind != "above":
            self._known[id(value)] = value, found.digest()
        return found.digest()

    def _describe(self, value):
        """Return a value's kind, its own text, and its parts."""
        kind = type(value)
        if kind in _PLAIN:
            return kind.__name__, repr(value), ()
        library = _library_name(value)
        if library is not None:
            return "library", library, ()
        if kind in _KINDS:
            return kind.__name__, *_KINDS[kind](self, value)
        if isinstance(value, enum.Enum):
            return "member", value.name, (type(value), value.value)
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return "named", "", (kind, tuple(value))
        if isinstance(value, (np.generic, np.dtype)) and not getattr(value, "hasobject", False):
            dtype = getattr(value, "dtype", value)
            return "number", repr(dtype), (value.tobytes() if dtype is not value else b"",)
        if isinstance(value, numba.types.Type) and getattr(numba.types, str(value), 0) is value:
            return "type", str(value), ()
        if hasattr(value, "py_func"):
            return "compiled", "", (value.py_func,)
        if isinstance(value, type):
            return "class", *self._class(value)
        if isinstance(value, numba.extending._Intrinsic):
            return "intrinsic", "", (value._defn,)
        raise TypeError(f"compiled code cannot be kept that encloses a {kind.__qualname__}")

    def _function(self, function):
        if hasattr(function, "distinct"):
            return function.__qualname__, ()
        code, parts = function.__code__, []
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # not filled yet
                parts.append(cell.cell_contents)
        return "", [*parts, code, function.__defaults__, function.__kwdefaults__]

    def _code(self, code):
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        table = getattr(code, "co_exceptiontable", b"")
        return "", (code.co_code, code.co_consts, counts, names, table)

    def _class(self, value):
        if issubclass(value, enum.Enum):
            members = [(name, member.value) for name, member in value.__members__.items()]
            return value.__qualname__, (value.__bases__, members)
        if issubclass(value, tuple) and hasattr(value, "_fields"):
            return value.__qualname__, (value._fields, getattr(value, "_field_defaults", None))
        own = [(name, part) for name, part in sorted(vars(value).items()) if name not in _IGNORED]
        return value.__qualname__, (value.__bases__, own)

    def _array(self, array):
        if array.dtype.hasobject:
            return repr(array.shape), array.ravel().tolist()
        return repr((array.dtype, array.shape)), (array.tobytes(),)


_KINDS = {
    tuple: lambda walk, value: (str(len(value)), value),
    list: lambda walk, value: (str(len(value)), value),
    set: lambda walk, value: (str(len(value)), value),
    frozenset: lambda walk, value: (str(len(value)), value),
    dict: lambda walk, value: (str(len(value)), value.items()),
    bytearray: lambda walk, value: (bytes(value), ()),
    functools.partial: lambda walk, value: ("", (value.func, value.args, value.keywords)),
    staticmethod: lambda walk, value: ("", (value.__func__,)),
    classmethod: lambda walk, value: ("", (value.__func__,)),
    property: lambda walk, value: ("", (value.fget, value.fset, value.fdel)),
    types.MethodType: lambda walk, value: ("", (value.__func__, value.__self__)),
    types.FunctionType: _Walk._function,
    types.CodeType: _Walk._code,
    np.ndarray: _Walk._array,
    np.memmap: _Walk._array,
}
