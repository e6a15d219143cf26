"""Atomic accesses to an int64 array that threads share, and what a thread does while it waits."""

import platform
import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _address(context, builder, array_type, array, index):
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _reader(order):
    @intrinsic
    def read(typingctx, array, index):
        def codegen(context, builder, signature, args):
            return builder.load_atomic(_address(context, builder, array, *args), order, 8)

        return types.int64(array, types.intp), codegen

    return read


def _writer(order):
    @intrinsic
    def write(typingctx, array, index, value):
        def codegen(context, builder, signature, args):
            address = _address(context, builder, array, *args[:2])
            builder.store_atomic(args[2], address, order, 8)
            return context.get_dummy_value()

        return types.void(array, types.intp, types.int64), codegen

    return write


load, store = _reader("seq_cst"), _writer("seq_cst")
# What a thread wrote before a `store_release` is seen by one whose `load_acquire` reads it (C++11).
load_acquire, store_release = _reader("acquire"), _writer("release")


@intrinsic
def exchange(typingctx, array, index, value):
    """Set the number; return the old one."""

    def codegen(context, builder, signature, args):
        address = _address(context, builder, array, *args[:2])
        return builder.atomic_rmw("xchg", address, args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), codegen


@intrinsic
def compare_exchange(typingctx, array, index, old, new):
    """Set the number to `new` if it is `old`; return whether it was."""

    def codegen(context, builder, signature, args):
        address = _address(context, builder, array, *args[:2])
        pair = builder.cmpxchg(address, args[2], args[3], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(array, types.intp, types.int64, types.int64), codegen


@intrinsic
def add(typingctx, array, index, value):
    """Add to the number; return the old one."""

    def codegen(context, builder, signature, args):
        address = _address(context, builder, array, *args[:2])
        return builder.atomic_rmw("add", address, args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), codegen


@intrinsic
def pause(typingctx):
    """Tell the processor that this is a spin loop."""

    def codegen(context, builder, signature, args):
        hint = _HINTS.get(platform.machine().lower())
        if hint:
            name, values = hint
            kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)
        return context.get_dummy_value()

    return types.void(), codegen


_HINTS = {
    **dict.fromkeys(("x86_64", "amd64"), ("llvm.x86.sse2.pause", [])),
    **dict.fromkeys(("aarch64", "arm64"), ("llvm.aarch64.hint", [ir.IntType(32)(1)])),
}


@intrinsic
def cycles(typingctx):
    """The processor's cycle counter, or 0 where programs may not be allowed to read it."""

    def codegen(context, builder, signature, args):
        if platform.machine().lower() not in ("x86_64", "amd64"):
            return ir.IntType(64)(0)
        kind = ir.FunctionType(ir.IntType(64), [])
        name = "llvm.readcyclecounter"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])

    return types.int64(), codegen


give_way = types.ExternalFunction(
    "SwitchToThread" if sys.platform == "win32" else "sched_yield", types.int32()
)
