"""A short text for what a function computes: for its code and all that it encloses, by value.

Compiled code holds the values that it encloses as they were. So code may stand for a function only
if all of them are the same: numbers by type and value, arrays by their bytes, and other functions,
compiled or not, by all that they enclose in turn. What kernels read of their modules is in the
kernels' sources.
"""

import builtins
import hashlib
import math
import operator
import sys
import types
from contextlib import suppress

import numba
import numpy as np

_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, type(...))
_LIBRARIES = {"builtins", "math", "numba", "numpy", "operator"}
_MODULES = builtins, math, operator, np


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
            kind, text, parts = _describe(value)
        self._open.append(id(value))
        found = hashlib.sha256(f"{kind} {len(text)} ".encode())
        found.update(text.encode())
        digests = [self.digest(part) for part in parts]
        for digest in sorted(digests) if kind == "frozenset" else digests:
            found.update(digest)
        self._open.pop()
        if kind != "above":
            self._known[id(value)] = value, found.digest()
        return found.digest()


def _describe(value):
    """Return what kind of value it is, what it says of itself, and what it is made of."""
    kind = type(value)
    if kind in _PLAIN:
        return kind.__name__, repr(value), ()
    library = _library_name(value)
    if library is not None:
        return "library", library, ()
    if kind in (tuple, frozenset):
        return kind.__name__, str(len(value)), value
    if kind is types.FunctionType:
        return "function", *_function(value)
    if kind is types.CodeType:
        return "code", "", _code(value)
    if isinstance(value, (np.generic, np.ndarray)) and not value.dtype.hasobject:
        return "numbers", repr((value.dtype, value.shape, kind.__name__)), (value.tobytes(),)
    if isinstance(value, np.dtype) and not value.hasobject:
        return "dtype", repr(value), ()
    if isinstance(value, numba.types.Type) and getattr(numba.types, str(value), 0) is value:
        return "type", str(value), ()
    if hasattr(value, "py_func"):
        return "compiled", "", (value.py_func,)
    if isinstance(value, numba.extending._Intrinsic):
        return "intrinsic", "", (value._defn,)
    raise TypeError(f"compiled code cannot be kept that encloses a {kind.__qualname__}")


def _function(function):
    if hasattr(function, "distinct"):
        return function.__qualname__, ()
    parts = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not filled yet
            parts.append(cell.cell_contents)
    defaults = tuple((function.__kwdefaults__ or {}).items())
    return "", (*parts, function.__code__, function.__defaults__, defaults)


def _code(code):
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    table = getattr(code, "co_exceptiontable", b"")
    return code.co_code, code.co_consts, counts, names, table
