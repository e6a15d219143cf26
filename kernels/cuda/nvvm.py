"""What the intrinsics of CUDA kernels are written with: pieces of NVVM IR."""

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import _intrinsic

intrinsic = _intrinsic(prefer_literal=True, target="cuda")  # the public one hides the constants

VECTOR_BYTES = 16  # that a thread loads at once


def data_of(context, builder, kind, value):
    """The pointer to the numbers of an array of that Numba type."""
    return context.make_array(kind)(context, builder, value).data


def address(builder, data, index):
    """The pointer to an element."""
    return builder.gep(data, [index])


def constant(n):
    """An integer of 64 bits."""
    return ir.Constant(ir.IntType(64), n)


def load_vector(builder, data, index, dtype):
    """Load 16 bytes from an aligned element; return their numbers."""
    count = VECTOR_BYTES // (dtype.bitwidth // 8)
    pointer = address(builder, data, index)
    whole = ir.VectorType(pointer.type.pointee, count)
    value = builder.load(builder.bitcast(pointer, whole.as_pointer()), align=VECTOR_BYTES)
    lanes = (ir.Constant(ir.IntType(32), k) for k in range(count))
    return [builder.extract_element(value, lane) for lane in lanes]


def tuple_of(dtype, count):
    """The Numba type of a tuple of `count` numbers."""
    return types.UniTuple(dtype, count) if count else types.Tuple(())
