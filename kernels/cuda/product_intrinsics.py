"""Vector loads, the multiply-adds of a product, and the shuffles that combine their sums."""

from contextlib import nullcontext

from llvmlite import ir
from numba.cuda import cgutils, types

from .nvvm import VECTOR_BYTES, address, constant, data_of, intrinsic, load_vector


@intrinsic
def fetch(typingctx, local, memory, start, stride, count):
    """Load `count` vectors of 16 bytes, `stride` elements apart, into registers.

    `count` is a literal.
    """
    length = count.literal_value

    def codegen(context, builder, signature, args):
        into = data_of(context, builder, local, args[0])
        data = data_of(context, builder, memory, args[1])
        index, place = args[2], 0
        for _ in range(length):
            for value in load_vector(builder, data, index, memory.dtype):
                builder.store(value, address(builder, into, constant(place)))
                place += 1
            index = builder.add(index, args[3])
        return context.get_dummy_value()

    return types.void(local, memory, types.int64, types.int64, count), codegen


def _load_coherent(builder, data, index, dtype):
    """`load_vector` past this multiprocessor's own cache, which is not coherent."""
    pointer = address(builder, data, index)
    count, letter = VECTOR_BYTES // (dtype.bitwidth // 8), "l"
    form = f"b{dtype.bitwidth}"
    if isinstance(dtype, types.Float):
        letter, form = {32: "f", 64: "d"}[dtype.bitwidth], f"f{dtype.bitwidth}"
    kind = ir.LiteralStructType([pointer.type.pointee] * count)
    into = ", ".join(f"${k}" for k in range(count))
    text = f"ld.relaxed.gpu.global.v{count}.{form} {{{into}}}, [${count}];"
    asm = ir.InlineAsm(
        ir.FunctionType(kind, [pointer.type]), text, f"={letter}," * count + "l,~{memory}", True
    )
    found = builder.call(asm, [pointer])
    return [builder.extract_value(found, k) for k in range(count)]


def _store_vector(builder, data, index, values):
    """Store 16 bytes to an aligned element."""
    pointer = address(builder, data, index)
    whole = ir.Constant(ir.VectorType(values[0].type, len(values)), ir.Undefined)
    for k, value in enumerate(values):
        whole = builder.insert_element(whole, value, ir.Constant(ir.IntType(32), k))
    builder.store(whole, builder.bitcast(pointer, whole.type.as_pointer()), align=VECTOR_BYTES)


@intrinsic
def copy_rows(typingctx, shared, place, memory, start, thread, threads, total, at_once):
    """Copy `total` vectors of 16 bytes from `start` on, which other blocks have written.

    All `threads` take part. A thread has `at_once` of its loads on their way at a time. These
    three are literals.
    """
    count, step, some = total.literal_value, threads.literal_value, at_once.literal_value
    width = VECTOR_BYTES // (memory.dtype.bitwidth // 8)

    def codegen(context, builder, signature, args):
        into = data_of(context, builder, shared, args[0])
        data = data_of(context, builder, memory, args[2])
        rounds = list(range(0, count, step))
        for k in range(0, len(rounds), some):
            found = []
            for first in rounds[k : k + some]:
                vector = builder.add(args[4], constant(first))
                inside = builder.icmp_signed("<", vector, constant(count))
                if first + step > count:  # the others load one that is there
                    vector = builder.select(inside, vector, constant(0))
                place = builder.mul(vector, constant(width))
                values = _load_coherent(builder, data, builder.add(args[3], place), memory.dtype)
                found.append((builder.add(args[1], place), inside, first + step > count, values))
            for place, inside, guarded, values in found:
                with builder.if_then(inside) if guarded else nullcontext():
                    _store_vector(builder, into, place, values)
        return context.get_dummy_value()

    i = types.int64
    return types.void(shared, i, memory, i, i, threads, total, at_once), codegen


@intrinsic
def copy_words(typingctx, shared, place, memory, start, thread, threads, total, at_once, time):
    """`copy_rows` of words: each is read until it says the time, or a later one."""
    count, step, some = total.literal_value, threads.literal_value, at_once.literal_value // 2
    each = VECTOR_BYTES // (shared.dtype.bitwidth // 8)

    def codegen(context, builder, signature, args):
        into = data_of(context, builder, shared, args[0])
        data = data_of(context, builder, memory, args[2])
        rounds = list(range(0, count, step))
        for k in range(0, len(rounds), some):
            spin = builder.append_basic_block("spin")
            builder.branch(spin)
            builder.position_at_end(spin)
            found, late = [], ir.Constant(ir.IntType(1), 0)
            for first in rounds[k : k + some]:
                vector = builder.add(args[4], constant(first))
                inside = builder.icmp_signed("<", vector, constant(count))
                if first + step > count:  # the others wait for one that comes
                    vector = builder.select(inside, vector, constant(0))
                place, values = builder.mul(vector, constant(each)), []
                for c in range(0, each, 2):
                    at = builder.add(builder.add(args[3], place), constant(c))
                    for word in _load_coherent(builder, data, at, memory.dtype):
                        tag = builder.ashr(word, constant(32))
                        late = builder.or_(late, builder.icmp_signed("<", tag, args[8]))
                        low = builder.trunc(word, ir.IntType(32))
                        values.append(builder.bitcast(low, into.type.pointee))
                found.append((builder.add(args[1], place), inside, first + step > count, values))
            after = builder.append_basic_block("arrived")
            builder.cbranch(late, spin, after)
            builder.position_at_end(after)
            for place, inside, guarded, values in found:
                with builder.if_then(inside) if guarded else nullcontext():
                    _store_vector(builder, into, place, values)
        return context.get_dummy_value()

    i = types.int64
    return types.void(shared, i, memory, i, i, threads, total, at_once, i), codegen


@intrinsic
def clear(typingctx, sums, count):
    """Set the first `count` numbers, a literal, to zero."""

    def codegen(context, builder, signature, args):
        data = data_of(context, builder, sums, args[0])
        zero = ir.Constant(data.type.pointee, 0)
        for k in range(count.literal_value):
            builder.store(zero, address(builder, data, constant(k)))
        return context.get_dummy_value()

    return types.void(sums, count), codegen


def _multiply(builder, sums, weights, vectors):
    """sums[r, m] += sum_c weights[m][c] * vectors[r][c]"""
    place = 0
    for vector in vectors:
        for weight in weights:
            total = builder.load(address(builder, sums, constant(place)))
            for w, v in zip(weight, vector, strict=True):
                total = builder.fma(w, v, total)
            builder.store(total, address(builder, sums, constant(place)))
            place += 1


@intrinsic
def multiply_registers(typingctx, sums, local, memory, start, row_step, step, rows, wide, count):
    """sums[r, m] += local[i, m] . memory[start + r * row_step + i * step], over vectors i < count.

    `rows`, `wide` (how many m) and `count` are literals.
    """
    R, M, N = rows.literal_value, wide.literal_value, count.literal_value
    width = VECTOR_BYTES // (memory.dtype.bitwidth // 8)

    def codegen(context, builder, signature, args):
        sums_data, local_data, data = (
            data_of(context, builder, kind, value)
            for kind, value in zip((sums, local, memory), args[:3], strict=True)
        )
        start, row_step, step = args[3:6]
        for i in range(N):
            vectors, index = [], start
            for _ in range(R):
                vectors.append(load_vector(builder, data, index, memory.dtype))
                index = builder.add(index, row_step)
            weights = [
                [
                    builder.load(address(builder, local_data, constant(((i * M) + m) * width + c)))
                    for c in range(width)
                ]
                for m in range(M)
            ]
            _multiply(builder, sums_data, weights, vectors)
            start = builder.add(start, step)
        return context.get_dummy_value()

    six = (types.int64,) * 3
    return types.void(sums, local, memory, *six, rows, wide, count), codegen


@intrinsic
def multiply_read(
    typingctx, sums, weights, w_start, w_step, memory, start, row_step, step, rows, wide, count
):
    """The same with weights in shared or global memory, all of which are loaded first.

    Weight m of vector i lies `i * wide + m` times `w_step` from the first.
    """
    R, M, N = rows.literal_value, wide.literal_value, count.literal_value

    def codegen(context, builder, signature, args):
        sums_data = data_of(context, builder, sums, args[0])
        weights_data = data_of(context, builder, weights, args[1])
        data = data_of(context, builder, memory, args[4])
        found, index = [], args[2]
        for _ in range(N * M):
            found.append(load_vector(builder, weights_data, index, memory.dtype))
            index = builder.add(index, args[3])
        for i in range(N):
            vectors, index = [], builder.add(args[5], builder.mul(args[7], constant(i)))
            for _ in range(R):
                vectors.append(load_vector(builder, data, index, memory.dtype))
                index = builder.add(index, args[6])
            _multiply(builder, sums_data, found[i * M : (i + 1) * M], vectors)
        return context.get_dummy_value()

    i = types.int64
    return types.void(sums, weights, i, i, memory, i, i, i, rows, wide, count), codegen


@intrinsic
def combine(typingctx, sums, lane, active, totals, start, row_step, rows, wide, lanes):
    """Add up the sums of neighbouring lanes, and write totals[start + r * row_step + m].

    While a lane has an even count of sums it sends half of them to its partner, so that in the end
    each has few. `rows`, `wide` and `lanes`, a power of two, are literals. Only `active` threads
    write.
    """
    R, M, Q = rows.literal_value, wide.literal_value, lanes.literal_value

    def codegen(context, builder, signature, args):
        sums_data = data_of(context, builder, sums, args[0])
        totals_data = data_of(context, builder, totals, args[3])
        lane, active, start, row_step = args[1], args[2], args[4], args[5]
        values = [builder.load(address(builder, sums_data, constant(k))) for k in range(R * M)]
        base = constant(0)

        def partner(value, mask):
            return _shuffle(context, builder, sums.dtype, value, mask)

        mask = Q // 2
        while mask:
            bit = builder.icmp_signed("!=", builder.and_(lane, constant(mask)), constant(0))
            if len(values) % 2 == 0:
                half = len(values) // 2
                halved = []
                for low, high in zip(values[:half], values[half:], strict=True):
                    sent = builder.select(bit, low, high)
                    halved.append(builder.fadd(builder.select(bit, high, low), partner(sent, mask)))
                values = halved
                base = builder.add(base, builder.select(bit, constant(half), constant(0)))
            else:
                values = [builder.fadd(value, partner(value, mask)) for value in values]
            mask //= 2
        with builder.if_then(active):
            for k, value in enumerate(values):
                place = builder.add(base, constant(k))
                r, m = builder.sdiv(place, constant(M)), builder.srem(place, constant(M))
                index = builder.add(builder.add(start, builder.mul(r, row_step)), m)
                builder.store(value, address(builder, totals_data, index))
        return context.get_dummy_value()

    i = types.int64
    return types.void(sums, i, types.boolean, totals, i, i, rows, wide, lanes), codegen


def _shuffle(context, builder, dtype, value, mask):
    """The value of the lane whose number differs in the bits of `mask`."""
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
