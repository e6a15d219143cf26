"""What kernels need beyond plain Numba, as NVVM instructions; `simulated` is the same in Python.

Numbers of a thread live in local arrays whose every index is a constant once this is unrolled, so
that they become registers. Vectors of 16 bytes are loaded as such.
"""

from llvmlite import ir
from numba.cuda import cgutils, types
from numba.cuda.extending import _intrinsic

intrinsic = _intrinsic(prefer_literal=True, target="cuda")  # the public one hides the constants

VECTOR_BYTES = 16


def _data(context, builder, kind, value):
    return context.make_array(kind)(context, builder, value).data


def _at(builder, data, index):
    return builder.gep(data, [index])


def _constant(n):
    return ir.Constant(ir.IntType(64), n)


def _vector(builder, data, index, dtype):
    """Load 16 bytes from an aligned element; returns their numbers."""
    count = VECTOR_BYTES // (dtype.bitwidth // 8)
    pointer = _at(builder, data, index)
    whole = ir.VectorType(pointer.type.pointee, count)
    value = builder.load(builder.bitcast(pointer, whole.as_pointer()), align=VECTOR_BYTES)
    lanes = (ir.Constant(ir.IntType(32), k) for k in range(count))
    return [builder.extract_element(value, lane) for lane in lanes]


def _tuple(dtype, count):
    return types.UniTuple(dtype, count) if count else types.Tuple(())


@intrinsic
def take(typingctx, array, index, stride, count):
    """The tuple `array[index + k * stride] for k < count`; `count` is a literal."""
    length = count.literal_value
    result = _tuple(array.dtype, length)

    def codegen(context, builder, signature, args):
        data = _data(context, builder, array, args[0])
        index, values = args[1], []
        for _ in range(length):
            values.append(builder.load(_at(builder, data, index)))
            index = builder.add(index, args[2])
        return context.make_tuple(builder, result, values)

    return result(array, types.int64, types.int64, count), codegen


@intrinsic
def give(typingctx, array, index, stride, values):
    """Set `array[index + k * stride] = values[k]`."""

    def codegen(context, builder, signature, args):
        data = _data(context, builder, array, args[0])
        index = args[1]
        for value in cgutils.unpack_tuple(builder, args[3], len(values)):
            builder.store(value, _at(builder, data, index))
            index = builder.add(index, args[2])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, values), codegen


@intrinsic
def numbers(typingctx, array, values):
    """`values` in the type of the elements of `array`: what a caller's own function returns."""
    result = _tuple(array.dtype, len(values))

    def codegen(context, builder, signature, args):
        return args[1]

    return result(array, result), codegen


@intrinsic
def part(typingctx, values, start, count):
    """The tuple `values[start : start + count]`, of literals."""
    low, length = start.literal_value, count.literal_value
    result = _tuple(values.dtype, length)

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
    """`values` if the condition holds, else `others`: no branch."""

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
def fetch(typingctx, held, memory, start, stride, count):
    """`count` vectors of 16 bytes, a literal, from `memory` into registers."""
    length = count.literal_value

    def codegen(context, builder, signature, args):
        into = _data(context, builder, held, args[0])
        data = _data(context, builder, memory, args[1])
        index, place = args[2], 0
        for _ in range(length):
            for value in _vector(builder, data, index, memory.dtype):
                builder.store(value, _at(builder, into, _constant(place)))
                place += 1
            index = builder.add(index, args[3])
        return context.get_dummy_value()

    return types.void(held, memory, types.int64, types.int64, count), codegen


@intrinsic
def clear(typingctx, sums, count):
    """Set the first `count` numbers, a literal, to zero."""

    def codegen(context, builder, signature, args):
        data = _data(context, builder, sums, args[0])
        zero = ir.Constant(data.type.pointee, 0)
        for k in range(count.literal_value):
            builder.store(zero, _at(builder, data, _constant(k)))
        return context.get_dummy_value()

    return types.void(sums, count), codegen


def _multiply(builder, sums, weights, vectors):
    """sums[r, m] += sum_c weights[m][c] * vectors[r][c]"""
    place = 0
    for vector in vectors:
        for weight in weights:
            total = builder.load(_at(builder, sums, _constant(place)))
            for w, v in zip(weight, vector, strict=True):
                total = builder.fma(w, v, total)
            builder.store(total, _at(builder, sums, _constant(place)))
            place += 1


@intrinsic
def multiply_held(typingctx, sums, held, memory, start, row_step, step, rows, wide, count):
    """sums[r, m] += held[i, m] . memory[start + r * row_step + i * step], over vectors i < count.

    `rows`, `wide` (how many m) and `count` are literals.
    """
    R, M, N = rows.literal_value, wide.literal_value, count.literal_value
    width = VECTOR_BYTES // (memory.dtype.bitwidth // 8)

    def codegen(context, builder, signature, args):
        sums_data, held_data, data = (
            _data(context, builder, kind, value)
            for kind, value in zip((sums, held, memory), args[:3], strict=True)
        )
        start, row_step, step = args[3:6]
        for i in range(N):
            vectors, index = [], start
            for _ in range(R):
                vectors.append(_vector(builder, data, index, memory.dtype))
                index = builder.add(index, row_step)
            weights = [
                [
                    builder.load(_at(builder, held_data, _constant(((i * M) + m) * width + c)))
                    for c in range(width)
                ]
                for m in range(M)
            ]
            _multiply(builder, sums_data, weights, vectors)
            start = builder.add(start, step)
        return context.get_dummy_value()

    six = (types.int64,) * 3
    return types.void(sums, held, memory, *six, rows, wide, count), codegen


@intrinsic
def multiply_read(
    typingctx, sums, weights, w_start, w_step, memory, start, row_step, rows, wide
):  # fmt: skip
    """The same for one vector whose weights m lie `w_step` apart in shared or global memory."""
    R, M = rows.literal_value, wide.literal_value

    def codegen(context, builder, signature, args):
        sums_data = _data(context, builder, sums, args[0])
        weights_data = _data(context, builder, weights, args[1])
        data = _data(context, builder, memory, args[4])
        found, index = [], args[2]
        for _ in range(M):
            found.append(_vector(builder, weights_data, index, memory.dtype))
            index = builder.add(index, args[3])
        vectors, index = [], args[5]
        for _ in range(R):
            vectors.append(_vector(builder, data, index, memory.dtype))
            index = builder.add(index, args[6])
        _multiply(builder, sums_data, found, vectors)
        return context.get_dummy_value()

    i = types.int64
    return types.void(sums, weights, i, i, memory, i, i, rows, wide), codegen


@intrinsic
def combine(typingctx, sums, lane, active, totals, start, row_step, rows, wide, lanes):
    """Add up the sums of neighbouring lanes, and write totals[start + r * row_step + m].

    While a lane holds an even count of sums it gives half of them to its partner, so that in the
    end each has few. `rows`, `wide` and `lanes`, a power of two, are literals.
    """
    R, M, Q = rows.literal_value, wide.literal_value, lanes.literal_value

    def codegen(context, builder, signature, args):
        sums_data = _data(context, builder, sums, args[0])
        totals_data = _data(context, builder, totals, args[3])
        lane, active, start, row_step = args[1], args[2], args[4], args[5]
        values = [builder.load(_at(builder, sums_data, _constant(k))) for k in range(R * M)]
        base = _constant(0)

        def partner(value, mask):
            return _shuffle(context, builder, sums.dtype, value, mask)

        mask = Q // 2
        while mask:
            bit = builder.icmp_signed("!=", builder.and_(lane, _constant(mask)), _constant(0))
            if len(values) % 2 == 0:
                half = len(values) // 2
                residuals = []
                for low, high in zip(values[:half], values[half:], strict=True):
                    sent = builder.select(bit, low, high)
                    residuals.append(
                        builder.fadd(builder.select(bit, high, low), partner(sent, mask))
                    )
                values = residuals
                base = builder.add(base, builder.select(bit, _constant(half), _constant(0)))
            else:
                values = [builder.fadd(value, partner(value, mask)) for value in values]
            mask //= 2
        with builder.if_then(active):
            for k, value in enumerate(values):
                place = builder.add(base, _constant(k))
                r, m = builder.sdiv(place, _constant(M)), builder.srem(place, _constant(M))
                index = builder.add(builder.add(start, builder.mul(r, row_step)), m)
                builder.store(value, _at(builder, totals_data, index))
        return context.get_dummy_value()

    i = types.int64
    return types.void(sums, i, types.boolean, totals, i, i, rows, wide, lanes), codegen


def _shuffle(context, builder, dtype, value, mask):
    """The value that the lane whose number differs in `mask` has."""
    i32 = ir.IntType(32)
    result = ir.LiteralStructType((i32, ir.IntType(1)))
    kind = ir.FunctionType(result, (i32, i32, i32, i32, i32))
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.nvvm.shfl.sync.i32")

    def move(word):
        args = (-1, 3, word, mask, 0x1F)  # all lanes; the mode "butterfly"
        args = [ir.Constant(i32, a) if isinstance(a, int) else a for a in args]
        return builder.extract_value(builder.call(function, args), 0)

    if dtype.bitwidth == 32:
        return builder.bitcast(move(builder.bitcast(value, i32)), value.type)
    i64 = ir.IntType(64)
    whole = builder.bitcast(value, i64)
    low = move(builder.trunc(whole, i32))
    high = move(builder.trunc(builder.lshr(whole, i64(32)), i32))
    whole = builder.or_(builder.zext(low, i64), builder.shl(builder.zext(high, i64), i64(32)))
    return builder.bitcast(whole, value.type)


def _read(builder, pointer, bits, form):
    letter = {"b32": "r", "b64": "l"}[f"b{bits}"]
    integer = ir.IntType(bits)
    kind = ir.FunctionType(integer, [integer.as_pointer()])
    asm = ir.InlineAsm(kind, f"ld.{form}.b{bits} $0, [$1];", f"={letter},l,~{{memory}}", True)
    return builder.call(asm, [builder.bitcast(pointer, integer.as_pointer())])


@intrinsic
def coherent(typingctx, array, index):
    """array[index] as other multiprocessors see it: past this one's own cache."""
    bits = array.dtype.bitwidth

    def codegen(context, builder, signature, args):
        data = _data(context, builder, array, args[0])
        value = _read(builder, _at(builder, data, args[1]), bits, "global.cg")
        return builder.bitcast(value, data.type.pointee)

    return array.dtype(array, types.int64), codegen


@intrinsic
def wait_for(typingctx, counts, index, least):
    """Spin until counts[index], integers of 32 bits, has come to `least`."""

    def codegen(context, builder, signature, args):
        pointer = _at(builder, _data(context, builder, counts, args[0]), args[1])
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
