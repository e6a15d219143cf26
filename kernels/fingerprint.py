"""A short text for what a function computes: for its code and all that the code reads, by value.

Compiled code contains the values that it read when it was compiled. So stored code may serve a
function only if all these values are the same: numbers by type and value, arrays by their bytes,
and other functions, compiled or not, by all that they read in turn.
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
import warnings
from contextlib import suppress
from uuid import uuid4

import numba
import numpy as np

_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, type(...))
_LIBRARIES = {"builtins", "cmath", "math", "numba", "numpy", "operator"}
_MODULES = builtins, math, cmath, operator, np
_IGNORED = {"__dict__", "__weakref__", "__doc__", "__module__"}  # of a class
_ONCE = "once-"  # begins the fingerprint of a value that cannot be compared


def fingerprint(*values, reads=False):
    """A text that differs where functions compute something else, or other values differ.

    With `reads`, what functions read from their modules and others counts, too. If that includes a
    value that cannot be compared between processes, the text is unique, and `lasting` is false.
    """
    names = frozenset()
    while True:  # the names in use say what counts of a module, which may use more
        walk = _Walk(names, reads)
        digest = walk.digest(values)
        if not reads or walk.names <= names:
            return _ONCE + uuid4().hex[:16] if walk.unknown else digest.hex()[:16]
        names |= walk.names


def lasting(text):
    """Whether the fingerprints in a text are the same in other processes."""
    return _ONCE not in text


def names_of(code):
    """The names that code uses of globals and of attributes, those of functions in it included."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= names_of(constant)
    if "getattr" in found:
        found |= {text for text in code.co_consts if isinstance(text, str)}
    return found


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
    """One walk over values and all that they are made of.

    `names` are all that the code it found uses; `unknown` says whether it found a value of a kind
    that it does not know.
    """

    def __init__(self, wanted, reads):
        self.wanted, self.reads = sorted(wanted), reads
        self.names, self.unknown = set(), False
        self._known = {}  # id -> (value, digest): a referenced value keeps its id to itself
        self._open = []  # ids of the values that contain the present one

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
        library = None if kind is types.ModuleType else _library_name(value)
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
        self.unknown = True
        return "unknown", kind.__qualname__, ()

    def _function(self, function):
        if hasattr(function, "distinct"):
            return function.__qualname__, ()
        code, parts = function.__code__, []
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # not filled yet
                parts.append(cell.cell_contents)
        parts += [code, function.__defaults__, function.__kwdefaults__]
        if self.reads:
            names = names_of(code)
            self.names |= names
            known = function.__globals__
            parts += [(name, known[name]) for name in sorted(names) if name in known]
        return "", parts

    def _code(self, code):
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        table = getattr(code, "co_exceptiontable", b"")
        return "", (code.co_code, code.co_consts, counts, names, table)

    def _module(self, module):
        library = module.__name__.partition(".")[0] in _LIBRARIES
        found, parts = vars(module), []
        for name in self.wanted:
            if name in found:
                parts.append((name, found[name]))
            elif "__getattr__" in found and not library:
                with suppress(AttributeError), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    parts.append((name, getattr(module, name)))
        return module.__name__, parts

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
    types.ModuleType: _Walk._module,
    np.ndarray: _Walk._array,
    np.memmap: _Walk._array,
}
