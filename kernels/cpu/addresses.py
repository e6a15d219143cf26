"""Memory by its address: what compiled code is handed in place of arrays.

An array argument of a kernel takes Python a tenth of a microsecond to hand over, and a pass takes
some thirty. So addresses are written to int64 arrays once a call, and passes make arrays of them
again, which costs a few instructions.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

from ..jit import inner

_WORD = ir.IntType(64)


@intrinsic
def view(typingctx, like, address, shape):
    """The C-contiguous array of that shape at an address, of the dtype of the pointer `like`."""
    kind = types.Array(like.dtype, len(shape), "C")

    def codegen(context, builder, signature, args):
        item = context.get_data_type(like.dtype)
        size = context.get_abi_sizeof(item)
        shapes = cgutils.unpack_tuple(builder, args[2], len(shape))
        strides, step = [], context.get_constant(types.intp, size)
        for length in reversed(shapes):
            strides.insert(0, step)
            step = builder.mul(step, length)
        array = arrayobj.make_array(kind)(context, builder)
        arrayobj.populate_array(
            array,
            data=builder.inttoptr(args[1], item.as_pointer()),
            shape=shapes,
            strides=strides,
            itemsize=context.get_constant(types.intp, size),
            meminfo=None,
        )
        return array._getvalue()

    return kind(like, types.intp, types.UniTuple(types.intp, len(shape))), codegen


def _pointer(dtype, doc):
    def typed(typingctx, address):
        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_data_type(dtype).as_pointer())

        return types.CPointer(dtype)(types.intp), codegen

    typed.__doc__ = doc
    return intrinsic(typed)


words = _pointer(types.int64, "The int64 numbers at an address.")
doubles = _pointer(types.float64, "The float64 numbers at an address.")
singles = _pointer(types.float32, "The float32 numbers at an address.")
uint8s = _pointer(types.uint8, "The uint8 numbers at an address.")
uint16s = _pointer(types.uint16, "The uint16 numbers at an address.")
uint32s = _pointer(types.uint32, "The uint32 numbers at an address.")


@intrinsic
def words_of(typingctx, pointer):
    """The int64 numbers where a pointer of any dtype points to."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], _WORD.as_pointer())

    return types.CPointer(types.int64)(pointer), codegen


@intrinsic
def pointed(typingctx, pointer):
    """The address where a pointer points to."""

    def codegen(context, builder, signature, args):
        return builder.ptrtoint(args[0], _WORD)

    return types.intp(pointer), codegen


@intrinsic
def address(typingctx, array):
    """The address of an array's first number."""

    def codegen(context, builder, signature, args):
        memory = context.make_array(array)(context, builder, args[0]).data
        return builder.ptrtoint(memory, _WORD)

    return types.intp(array), codegen


@intrinsic
def as_double(typingctx, bits):
    """The float64 number that has these 64 bits."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


@intrinsic
def as_unsigned(typingctx, bits):
    """The unsigned number that has these 64 bits."""

    def codegen(context, builder, signature, args):
        return args[0]

    return types.uint64(types.int64), codegen


@intrinsic
def copy_bytes(typingctx, target, source, count):
    """Copy `count` bytes from one address to another; the two ranges may overlap."""

    def codegen(context, builder, signature, args):
        byte = ir.IntType(8).as_pointer()
        to, start = (builder.inttoptr(place, byte) for place in args[:2])
        cgutils.raw_memmove(builder, to, start, args[2], context.get_constant(types.intp, 1))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def zero_bytes(typingctx, target, count):
    """Set `count` bytes at an address to zero."""

    def codegen(context, builder, signature, args):
        to = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        cgutils.memset(builder, to, args[1], 0)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@inner
def place(at, step, row, t, begin):
    """The address of step t in a place (see `slots`), for a span whose first step is `begin`.

    row : bytes of a step; 0 is the address in no place
    """
    if at == 0 or step != 0:
        return at + t * step
    return at + (t - begin) * row


@intrinsic
def call(typingctx, function, words):
    """Call the compiled function at an address, whose arguments are all 64-bit words."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [_WORD] * len(words))
        given = cgutils.unpack_tuple(builder, args[1], len(words))
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), given)
        return context.get_dummy_value()

    return types.void(types.intp, types.UniTuple(types.intp, len(words))), codegen
