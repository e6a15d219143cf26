"""What kernels need beyond plain Numba, as NVVM instructions; `simulated` is the same in Python.

A thread's numbers are in tuples, or in local arrays whose every index is a constant once the code
is unrolled, so that they become registers.
"""

from llvmlite import ir
from numba.cuda import cgutils, types

from .nvvm import address, data_of, intrinsic, tuple_of
from .product_intrinsics import clear, combine, fetch, multiply_read, multiply_registers

__all__ = [
    "chosen", "clear", "coherent", "combine", "fetch", "give", "multiply_read",
    "multiply_registers", "numbers", "only", "part", "plus", "replaced", "take", "wait_for",
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


def _read(builder, pointer, bits, form):
    letter = {"b32": "r", "b64": "l"}[f"b{bits}"]
    integer = ir.IntType(bits)
    kind = ir.FunctionType(integer, [integer.as_pointer()])
    asm = ir.InlineAsm(kind, f"ld.{form}.b{bits} $0, [$1];", f"={letter},l,~{{memory}}", True)
    return builder.call(asm, [builder.bitcast(pointer, integer.as_pointer())])


@intrinsic
def coherent(typingctx, array, index):
    """array[index], past this multiprocessor's own cache, which is not coherent."""
    bits = array.dtype.bitwidth

    def codegen(context, builder, signature, args):
        data = data_of(context, builder, array, args[0])
        value = _read(builder, address(builder, data, args[1]), bits, "global.cg")
        return builder.bitcast(value, data.type.pointee)

    return array.dtype(array, types.int64), codegen


@intrinsic
def wait_for(typingctx, counts, index, least):
    """Spin until counts[index], an int32, is `least` or more; the read acquires."""

    def codegen(context, builder, signature, args):
        pointer = address(builder, data_of(context, builder, counts, args[0]), args[1])
        least = builder.trunc(args[2], ir.IntType(32))
        spin = builder.append_basic_block("spin")
        after = builder.append_basic_block("arrived")
        builder.branch(spin)
        builder.position_at_end(spin)
        seen = _read(builder, pointer, 32, "acquire.gpu.global")
        missing = builder.icmp_signed("<", seen, least)
        builder.cbranch(missing, spin, after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(counts, types.int64, types.int64), codegen
