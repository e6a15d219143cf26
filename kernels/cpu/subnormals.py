"""Flush-to-zero while kernels run, so that subnormal deltas cost no more than others.

The control word belongs to the thread and its caller, so it is restored when the kernel ends. LLVM
does not know of it and may move arithmetic across the change: a function that sets it must only
call others, and compute nothing itself.
"""

import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_X86_FLUSH = 0x8040  # MXCSR: results and operands
_ARM_FLUSH = 1 << 24  # FPCR: both

_ARCHITECTURE = {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}.get(
    platform.machine().lower()
)
_WORD = ir.IntType(32)
_LONG = ir.IntType(64)


def _function(builder, result, arguments, name):
    kind = ir.FunctionType(result, arguments)
    return cgutils.get_or_insert_function(builder.module, kind, name)


def _read(builder):
    if _ARCHITECTURE == "x86":
        place = cgutils.alloca_once(builder, _WORD)
        pointer = builder.bitcast(place, ir.IntType(8).as_pointer())
        store = _function(builder, ir.VoidType(), [pointer.type], "llvm.x86.sse.stmxcsr")
        builder.call(store, [pointer])
        return builder.zext(builder.load(place), _LONG)
    if _ARCHITECTURE == "arm":
        return builder.call(_function(builder, _LONG, [], "llvm.aarch64.get.fpcr"), [])
    return _LONG(0)


def _write(builder, word):
    if _ARCHITECTURE == "x86":
        place = cgutils.alloca_once(builder, _WORD)
        builder.store(builder.trunc(word, _WORD), place)
        pointer = builder.bitcast(place, ir.IntType(8).as_pointer())
        load = _function(builder, ir.VoidType(), [pointer.type], "llvm.x86.sse.ldmxcsr")
        builder.call(load, [pointer])
    elif _ARCHITECTURE == "arm":
        builder.call(_function(builder, ir.VoidType(), [_LONG], "llvm.aarch64.set.fpcr"), [word])


@intrinsic
def control_word(typingctx):
    """The floating-point control word of this thread; 0 on other processors than x86 and ARM."""

    def codegen(context, builder, signature, args):
        return _read(builder)

    return types.int64(), codegen


@intrinsic
def flush_to_zero(typingctx):
    """Start flushing on this thread; return the control word as it was before."""
    bits = {"x86": _X86_FLUSH, "arm": _ARM_FLUSH}.get(_ARCHITECTURE, 0)

    def codegen(context, builder, signature, args):
        before = _read(builder)
        _write(builder, builder.or_(before, _LONG(bits)))
        return before

    return types.int64(), codegen


@intrinsic
def restore(typingctx, word):
    """Restore the control word."""

    def codegen(context, builder, signature, args):
        _write(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen
