"""What kernels need beyond plain Numba, as NVVM instructions; `simulated` is the same in Python.

A thread's numbers are in tuples, or in local arrays whose every index is a constant once the code
is unrolled, so that they become registers.
"""

from llvmlite import ir
from numba.cuda import cgutils, types

from .nvvm import address, constant, data_of, intrinsic, tuple_of
from .product_intrinsics import (
    clear,
    combine,
    copy_rows,
    copy_words,
    fetch,
    multiply_read,
    multiply_registers,
)

__all__ = [
    "chosen", "clear", "combine", "copy_rows", "copy_words", "fetch", "give", "give_rows",
    "give_words", "multiply_read", "multiply_registers", "numbers", "only", "part", "plus",
    "prefetch", "reciprocal", "release_one", "replaced", "take", "wait_for",
]  # fmt: skip


@intrinsic
def take(typingctx, array, index, stride, count):
    """The tuple `array[index + k * stride] for k < count`; `count` is a literal."""
    length = count.literal_value
    result = tuple_of(array.dtype, length)

    def codegen(context, builder, signature, args):
        data = data_of(context, builder, array, args[0])
        index, values = args[1], []
        for _ in range(length):
            values.append(builder.load(address(builder, data, index)))
            index = builder.add(index, args[2])
        return context.make_tuple(builder, result, values)

    return result(array, types.int64, types.int64, count), codegen


@intrinsic
def give(typingctx, array, index, stride, values):
    """Set `array[index + k * stride] = values[k]`."""

    def codegen(context, builder, signature, args):
        data = data_of(context, builder, array, args[0])
        index = args[1]
        for value in cgutils.unpack_tuple(builder, args[3], len(values)):
            builder.store(value, address(builder, data, index))
            index = builder.add(index, args[2])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, values), codegen


@intrinsic
def give_rows(typingctx, array, start, step, index, stride, values, row, pieces):
    """Set number `index + k * stride` of a row in pieces to values[k].

    The pieces of `row` numbers each lie `step` apart; `row` and `pieces` are literals.
    """
    width, whole = row.literal_value, pieces.literal_value == 1

    def codegen(context, builder, signature, args):
        data, place = data_of(context, builder, array, args[0]), args[3]
        for value in cgutils.unpack_tuple(builder, args[5], len(values)):
            at = place
            if not whole:
                piece = builder.udiv(place, constant(width))
                at = builder.add(builder.mul(piece, args[2]), builder.urem(place, constant(width)))
            builder.store(value, address(builder, data, builder.add(args[1], at)))
            place = builder.add(place, args[4])
        return context.get_dummy_value()

    i = types.int64
    return types.void(array, i, i, i, i, values, row, pieces), codegen


@intrinsic
def prefetch(typingctx, array, index, stride, count):
    """Bring array[index + k * stride], k < count, to the second-level cache; `count` is a literal.

    All of them must be there: the manual does not say what else happens.
    """

    def codegen(context, builder, signature, args):
        data = data_of(context, builder, array, args[0])
        index = args[1]
        for _ in range(count.literal_value):
            pointer = address(builder, data, index)
            kind = ir.FunctionType(ir.VoidType(), [pointer.type])
            asm = ir.InlineAsm(kind, "prefetch.global.L2 [$0];", "l", True)
            builder.call(asm, [pointer])
            index = builder.add(index, args[2])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, count), codegen


@intrinsic
def reciprocal(typingctx, value):
    """1 / value. In float32 to 1 unit in the last place, without a branch; 0 from 2^126 on."""

    def codegen(context, builder, signature, args):
        if value.bitwidth == 64:
            return builder.fdiv(ir.Constant(args[0].type, 1), args[0])
        kind = ir.FunctionType(args[0].type, [args[0].type])
        return builder.call(ir.InlineAsm(kind, "rcp.approx.ftz.f32 $0, $1;", "=f,f"), args)

    return value(value), codegen


@intrinsic
def numbers(typingctx, array, values):
    """`values` in the dtype of `array`, since a caller's own function may return any numbers."""
    result = tuple_of(array.dtype, len(values))

    def codegen(context, builder, signature, args):
        return args[1]

    return result(array, result), codegen


@intrinsic
def part(typingctx, values, start, count):
    """The tuple `values[start : start + count]`, of literals."""
    low, length = start.literal_value, count.literal_value
    result = tuple_of(values.dtype, length)

    def codegen(context, builder, signature, args):
        found = cgutils.unpack_tuple(builder, args[0], len(values))[low : low + length]
        return context.make_tuple(builder, result, found)

    return result(values, start, count), codegen


@intrinsic
def plus(typingctx, values, more, start):
    """`values` with more[k] added to entry `start` + k; `start` is a literal."""
    low = start.literal_value

    def codegen(context, builder, signature, args):
        found = list(cgutils.unpack_tuple(builder, args[0], len(values)))
        for k, value in enumerate(cgutils.unpack_tuple(builder, args[1], len(more))):
            found[low + k] = builder.fadd(found[low + k], value)
        return context.make_tuple(builder, values, found)

    return values(values, more, start), codegen


@intrinsic
def replaced(typingctx, values, first):
    """`values` with its first entries replaced by `first`."""

    def codegen(context, builder, signature, args):
        found = list(cgutils.unpack_tuple(builder, args[0], len(values)))
        found[: len(first)] = cgutils.unpack_tuple(builder, args[1], len(first))
        return context.make_tuple(builder, values, found)

    return values(values, first), codegen


@intrinsic
def chosen(typingctx, condition, values, others):
    """`values` if the condition holds, else `others`, without a branch."""

    def codegen(context, builder, signature, args):
        one, other = (cgutils.unpack_tuple(builder, arg, len(values)) for arg in args[1:])
        found = [builder.select(args[0], a, b) for a, b in zip(one, other, strict=True)]
        return context.make_tuple(builder, values, found)

    return values(types.boolean, values, values), codegen


@intrinsic
def only(typingctx, condition, values):
    """`values` if the condition holds, else zeros."""

    def codegen(context, builder, signature, args):
        found = [
            builder.select(args[0], value, ir.Constant(value.type, 0))
            for value in cgutils.unpack_tuple(builder, args[1], len(values))
        ]
        return context.make_tuple(builder, values, found)

    return values(types.boolean, values), codegen


@intrinsic
def give_words(typingctx, array, start, step, index, stride, values, row, pieces, time):
    """`give_rows` of words: the number of 32 bits, and above it the time, in one store."""
    width = row.literal_value

    def codegen(context, builder, signature, args):
        data, place = data_of(context, builder, array, args[0]), args[3]
        whole = ir.IntType(64)
        tag = builder.shl(args[8], whole(32))
        for value in cgutils.unpack_tuple(builder, args[5], len(values)):
            piece = builder.udiv(place, constant(width))
            at = builder.add(builder.mul(piece, args[2]), builder.urem(place, constant(width)))
            low = builder.zext(builder.bitcast(value, ir.IntType(32)), whole)
            pointer = address(builder, data, builder.add(args[1], at))
            text = "st.relaxed.gpu.global.b64 [$0], $1;"
            _say(builder, text, "l,l,", pointer, builder.or_(tag, low))
            place = builder.add(place, args[4])
        return context.get_dummy_value()

    i = types.int64
    return types.void(array, i, i, i, i, values, row, pieces, i), codegen


def _read(builder, pointer):
    """Read an int32 past this multiprocessor's own cache, each time anew."""
    integer = ir.IntType(32)
    kind = ir.FunctionType(integer, [integer.as_pointer()])
    text = "ld.relaxed.gpu.global.b32 $0, [$1];"
    return builder.call(ir.InlineAsm(kind, text, "=r,l,~{memory}", True), [pointer])


def _say(builder, text, constraints, *args):
    """An instruction without a result, before and after which memory is what it should be."""
    kind = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
    builder.call(ir.InlineAsm(kind, text, f"{constraints}~{{memory}}", True), args)


@intrinsic
def release_one(typingctx, counts, index):
    """Add 1 to counts[index], an int32. Who acquires it sees what this thread has seen."""

    def codegen(context, builder, signature, args):
        pointer = address(builder, data_of(context, builder, counts, args[0]), args[1])
        _say(builder, "red.release.gpu.global.add.u32 [$0], 1;", "l,", pointer)
        return context.get_dummy_value()

    return types.void(counts, types.int64), codegen


@intrinsic
def wait_for(typingctx, counts, index, least):
    """Spin until counts[index], an int32, is `least` or more, and acquire it."""

    def codegen(context, builder, signature, args):
        pointer = address(builder, data_of(context, builder, counts, args[0]), args[1])
        least = builder.trunc(args[2], ir.IntType(32))
        spin = builder.append_basic_block("spin")
        after = builder.append_basic_block("arrived")
        builder.branch(spin)
        builder.position_at_end(spin)
        missing = builder.icmp_signed("<", _read(builder, pointer), least)
        builder.cbranch(missing, spin, after)
        builder.position_at_end(after)
        _say(builder, "fence.acq_rel.gpu;", "")
        return context.get_dummy_value()

    return types.void(counts, types.int64, types.int64), codegen
