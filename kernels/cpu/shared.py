"""Functions that are compiled once for each dtype, and called by their address from every kernel.

Numba compiles whatever a function calls into that function again. The products are most of the
code, and a dozen kernels call them. So they are compiled on their own, and the kernels refer to
them by a symbol. A kernel from the disk cache needs the symbols too, so call `ready` first.
"""

from functools import cache

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils

from ..jit import callback, distinct
from ..source import SOURCE_KEY

_FUNCTIONS = {}


def _signature(arguments, dtype):
    kinds = {"float": types.CPointer(dtype), "int": types.CPointer(types.int64),
             "double": types.CPointer(types.float64), "n": types.intp,
             "x": types.float64}  # fmt: skip
    return types.void(*(kinds[name] for name in arguments.split()))


def shared(arguments):
    """Share a function; `arguments` names the kinds of its arguments, the first being "float".

    float, double, int: pointers to the dtype's numbers, to float64, to int64; n: an integer;
    x: a float64.
    """

    def decorate(function):
        _FUNCTIONS[function.__name__] = distinct(function), arguments
        return function

    return decorate


def _symbol(name, dtype):
    return f"fastbptt.{name}.{dtype}.{SOURCE_KEY}"


def call(name, first, args):
    """The typing and code of an intrinsic that calls the function of that name.

    first : the Numba type of its first array, which has the dtype
    args : the Numba types of its arguments
    """
    signature = _signature(_FUNCTIONS[name][1], first.dtype)
    for given, due in zip(args, signature.args, strict=True):
        if types.unliteral(given) != due and isinstance(due, types.CPointer):
            raise TypeError(f"{name} takes a {due}, not a {given}")

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
        symbol = _symbol(name, first.dtype)
        builder.call(cgutils.get_or_insert_function(builder.module, kind, symbol), args)
        return context.get_dummy_value()

    return signature, codegen


@cache
def ready(dtype):
    """Compile the shared functions for that NumPy dtype, or load them from disk."""
    dtype = numba.from_dtype(dtype)
    functions = []
    for name, (function, arguments) in _FUNCTIONS.items():
        functions.append(callback(function, _signature(arguments, dtype)))
        llvm.add_symbol(_symbol(name, dtype), functions[-1].address)
    return functions  # or the code would be freed
