"""Flat, unchecked access to C-contiguous arrays, one number or a tuple of numbers at a time.

`array[i]` in Numba costs a test for a negative index, and LLVM cannot tell that two arrays do not
overlap. A cell reads and writes many streams at once (an LSTM's step: 6 in, 6 out). To vectorise
such a loop LLVM would compare every pair for overlap; it gives up beyond eight comparisons. The
arrays of a sweep never overlap, so `load` and `store` carry alias scopes that say so.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

MOST_STACK = 8192  # bytes of one array on the stack: a kernel's frames may take 16 KiB in all
_STREAMS = 16  # distinguishable store streams in one loop


def _scopes(module):
    domain = module.add_metadata(["fastbptt"])
    loads = module.add_metadata(["fastbptt loads", domain])
    stores = [module.add_metadata([f"fastbptt store {n}", domain]) for n in range(_STREAMS)]
    return loads, stores


def element(context, builder, array_type, array, index):
    """The address of a flat element."""
    if isinstance(array_type, types.Array):
        array = context.make_array(array_type)(context, builder, array).data
    return builder.gep(array, [index])


def require_contiguous(array):
    """Raise at compile time unless `array` is a C-contiguous array or one from `data`."""
    if not (isinstance(array, types.CPointer) or getattr(array, "layout", None) == "C"):
        raise TypeError(f"a C-contiguous array is needed, not {array}")


@intrinsic
def data(typingctx, array):
    """The array without its shape: functions of it are compiled once, not once for each `ndim`."""
    require_contiguous(array)

    def codegen(context, builder, signature, args):
        if isinstance(array, types.CPointer):
            return args[0]
        return context.make_array(array)(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def offset(typingctx, array, start):
    """The array from its flat element `start` on, without its shape: see `data`."""
    require_contiguous(array)

    def codegen(context, builder, signature, args):
        return element(context, builder, array, *args)

    return types.CPointer(array.dtype)(array, types.intp), codegen


@intrinsic(prefer_literal=True)
def stack_array(typingctx, array, size):
    """An array on the stack of `size` bytes (a literal), of the dtype of `array`.

    A thread's stack may be as small as 64 KiB: see MOST_STACK.
    """
    dtype, count = array.dtype, size.literal_value // (array.dtype.bitwidth // 8)
    if size.literal_value > MOST_STACK:
        raise ValueError(f"an array on the stack has at most {MOST_STACK} bytes, not {size}")

    def codegen(context, builder, signature, args):
        kind = ir.ArrayType(context.get_data_type(dtype), count)
        place = cgutils.alloca_once(builder, kind)
        place.align = 64
        return builder.bitcast(place, context.get_data_type(dtype).as_pointer())

    return types.CPointer(dtype)(array, size), codegen


@intrinsic
def borrow(typingctx, size):
    """The address of `size` bytes from C's allocator, for `give_back`; 0 if it has none."""

    def codegen(context, builder, signature, args):
        memory = context.nrt.allocate_unchecked(builder, args[0])
        return builder.ptrtoint(memory, args[0].type)

    return types.intp(types.intp), codegen


@intrinsic
def give_back(typingctx, address):
    """Free the memory that `borrow` returned."""

    def codegen(context, builder, signature, args):
        context.nrt.free(builder, builder.inttoptr(args[0], cgutils.voidptr_t))
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic
def at(typingctx, array, address):
    """The memory at an address, for numbers of the dtype of `array`."""
    dtype = array.dtype

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[1], context.get_data_type(dtype).as_pointer())

    return types.CPointer(dtype)(array, types.intp), codegen


@intrinsic
def itemsize(typingctx, array):
    """The bytes of an element."""
    size = array.dtype.bitwidth // 8

    def codegen(context, builder, signature, args):
        return context.get_constant(types.intp, size)

    return types.intp(array), codegen


@intrinsic
def compiler_fence(typingctx):
    """Keep the compiler from moving memory accesses across this point.

    It stands after every loop of `load` and `store`, since their alias scopes are true within that
    loop only: the next step does read what this one stored.
    """

    def codegen(context, builder, signature, args):
        builder.fence("seq_cst", "singlethread")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def get(typingctx, array, index):
    """array.flat[index]"""
    require_contiguous(array)

    def codegen(context, builder, signature, args):
        return builder.load(element(context, builder, array, *args))

    return array.dtype(array, types.intp), codegen


@intrinsic
def put(typingctx, array, index, value):
    """array.flat[index] = value"""
    require_contiguous(array)

    def codegen(context, builder, signature, args):
        builder.store(args[2], element(context, builder, array, *args[:2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), codegen


@intrinsic(prefer_literal=True)
def load(typingctx, array, index, stride, count):
    """The tuple `array.flat[index + k * stride] for k < count`; `count` is a literal."""
    require_contiguous(array)
    length = count.literal_value
    result = types.UniTuple(array.dtype, length) if length else types.Tuple(())

    def codegen(context, builder, signature, args):
        data, start, step, _ = args
        loads, stores = _scopes(builder.module)
        values = []
        for _ in range(length):
            value = builder.load(element(context, builder, array, data, start))
            value.set_metadata("alias.scope", builder.module.add_metadata([loads]))
            value.set_metadata("noalias", builder.module.add_metadata(stores))
            values.append(value)
            start = builder.add(start, step)
        return context.make_tuple(builder, result, values)

    return result(array, types.intp, types.intp, count), codegen


@intrinsic(prefer_literal=True)
def store(typingctx, array, index, stride, values, stream):
    """Set `array.flat[index + k * stride] = values[k]`.

    `stream`, a literal, is the number of the first store stream: no two stores of a loop share one.
    """
    require_contiguous(array)
    first = stream.literal_value

    def codegen(context, builder, signature, args):
        data, start, step, tuple_, _ = args
        loads, stores = _scopes(builder.module)
        for k, value in enumerate(cgutils.unpack_tuple(builder, tuple_, len(values))):
            own = stores[first + k]
            others = [loads] + [scope for scope in stores if scope is not own]
            instruction = builder.store(value, element(context, builder, array, data, start))
            instruction.set_metadata("alias.scope", builder.module.add_metadata([own]))
            instruction.set_metadata("noalias", builder.module.add_metadata(others))
            start = builder.add(start, step)
        return context.get_dummy_value()

    target = types.UniTuple(array.dtype, len(values)) if len(values) else types.Tuple(())
    return types.void(array, types.intp, types.intp, target, stream), codegen
