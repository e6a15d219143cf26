"""The micro-kernel: a small block of a product, in vector registers during its whole sum.

    out[r, v] += sum_k a[r, k] * w[k, v]

for R rows and V vectors of columns, k ascending, one fused multiply-add a term. R, V and the lanes
of a vector are compile-time constants; the rest of the products is ordinary Numba (`products`).
"""

import os

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..flat import element, require_contiguous


def vector_bytes():
    """Bytes in a vector register: FASTBPTT_VECTOR_BYTES (16, 32 or 64), else what the CPU has."""
    text = os.environ.get("FASTBPTT_VECTOR_BYTES", "").strip()
    if text:
        if text not in ("16", "32", "64"):
            raise ValueError(f"FASTBPTT_VECTOR_BYTES must be 16, 32 or 64, not {text!r}")
        return int(text)
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx") else 16


VECTOR_BYTES = vector_bytes()
_AHEAD = 4096  # bytes of w to prefetch: it may come from the cache that all cores share
_LINE = 64
PANEL_VECTORS = 4 if VECTOR_BYTES == 64 else 2  # with 6 rows, as many sums as fit in registers


@intrinsic(prefer_literal=True)
def tile(typingctx, out, out_step, a, a_step, a_next, w, w_panel, count, fresh, valid, SHAPE):
    """Add the block's sum over 0 <= k < count. SHAPE is (R, V, C, MASKED, NEAR).

    Row r of `out` is at r * out_step, a[r, k] at r * a_step + k * a_next. `w` comes in panels of
    PANEL_VECTORS columns, `w_panel` numbers apart. With MASKED the last vector of `out` has only
    `valid` lanes. With NEAR a_step is 1: what is read of `a` for one k is then at distances that
    are part of the instructions, and no address is computed but one.

    With `fresh` the sum starts at zero and is then added to `out`. With C > 1 the range is cut into
    C equal parts, each with a sum of its own: the first starts at `out`, the others are added to it
    one after another. C calls for one part each, all but the first fresh, give the same.
    """
    for array in (out, a, w):
        require_contiguous(array)
    dtype = out.dtype
    lanes = VECTOR_BYTES // (dtype.bitwidth // 8)
    shape = tuple(number.literal_value for number in SHAPE)

    def codegen(context, builder, signature, args):
        out_, out_step_, a_, a_step_, a_next_, w_, w_panel_, count_, fresh_, valid_, _ = args
        zero = count_.type(0)
        values = [
            element(context, builder, out, out_, zero), out_step_,
            element(context, builder, a, a_, zero), a_step_, a_next_,
            element(context, builder, w, w_, zero), w_panel_, count_, fresh_, valid_,
        ]  # fmt: skip
        name = f"fastbptt.tile.f{dtype.bitwidth}x{lanes}.{'.'.join(map(str, shape))}"
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        if function.is_declaration:
            function.linkage = "linkonce_odr"
            function.attributes.add("noinline")  # inlined everywhere, it takes minutes to compile
            _emit(function, dtype.bitwidth, lanes, *shape)
        builder.call(function, values)
        return context.get_dummy_value()

    intp = types.intp
    signature = types.void(out, intp, a, intp, intp, w, intp, intp, intp, intp, SHAPE)
    return signature, codegen


def _emit(function, bits, lanes, height, width, chains, masked, near):
    """The body of the tile of that shape."""
    out, out_step, a, a_step, a_next, w, w_panel, count, fresh, valid = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    block = _Block(builder, bits, lanes, valid if masked else None)
    size = count.type
    zero = ir.Constant(block.vector, None)
    if near:
        a_step = size(1)
    fresh = builder.icmp_signed("!=", fresh, size(0))

    outs = [
        builder.gep(out, [builder.add(builder.mul(out_step, size(r)), size(v * lanes))])
        for r in range(height)
        for v in range(width)
    ]
    ends = [masked and v == width - 1 for _ in range(height) for v in range(width)]

    def merge(branches):
        """A phi for each value of the (block, values) that lead here."""
        merged = []
        for values in zip(*(values for _, values in branches), strict=True):
            phi = builder.phi(block.vector)
            for (origin, _), value in zip(branches, values, strict=True):
                phi.add_incoming(value, origin)
            merged.append(phi)
        return merged

    entry, names = builder.block, ("load", "begin", "sum", "summed", "add", "store")
    loading, begin, loop, after, adding, storing = map(builder.append_basic_block, names)
    builder.cbranch(fresh, begin, loading)
    builder.position_at_end(loading)
    loaded = [block.load(p, end) for p, end in zip(outs, ends, strict=True)]
    builder.branch(begin)
    builder.position_at_end(begin)
    starts = merge([(entry, [zero] * len(outs)), (loading, loaded)])
    starts += [zero] * (len(outs) * (chains - 1))
    part = builder.sdiv(count, size(chains)) if chains > 1 else count
    builder.cbranch(builder.icmp_signed(">", part, size(0)), loop, after)

    builder.position_at_end(loop)
    k = builder.phi(size)
    k.add_incoming(size(0), begin)
    sums = [builder.phi(block.vector) for _ in starts]
    stepped = []
    for chain in range(chains):
        at = builder.add(k, builder.mul(part, size(chain))) if chain else k
        w_row = builder.mul(at, size(PANEL_VECTORS * lanes))
        vectors = []
        for v in range(width):
            panel, column = divmod(v, PANEL_VECTORS)
            index = builder.add(w_row, builder.mul(w_panel, size(panel)))
            index = builder.add(index, size(column * lanes))
            pointer = builder.gep(w, [index])
            vectors.append(block.load(pointer, False))
            if height >= 4 and column * lanes * bits // 8 % _LINE == 0:
                block.prefetch(builder.gep(w, [builder.add(index, size(_AHEAD // (bits // 8)))]))
        a_row = builder.mul(at, a_next)
        for r in range(height):
            index = builder.add(a_row, builder.mul(a_step, size(r)))
            value = block.splat(builder.load(builder.gep(a, [index])))
            for v in range(width):
                term = (chain * height + r) * width + v
                stepped.append(block.fma(value, vectors[v], sums[term]))
    following = builder.add(k, size(1))
    k.add_incoming(following, loop)
    for phi, start, end in zip(sums, starts, stepped, strict=True):
        phi.add_incoming(start, begin)
        phi.add_incoming(end, loop)
    builder.cbranch(builder.icmp_signed("<", following, part), loop, after)

    builder.position_at_end(after)
    merged = merge([(begin, starts), (loop, stepped)])
    results = merged[: len(outs)]
    for chain in range(1, chains):
        own = merged[chain * len(outs) : (chain + 1) * len(outs)]
        results = [builder.fadd(s, p) for s, p in zip(results, own, strict=True)]
    builder.cbranch(fresh, adding, storing)
    builder.position_at_end(adding)
    added = [
        builder.fadd(block.load(p, end), s) for p, end, s in zip(outs, ends, results, strict=True)
    ]
    builder.branch(storing)
    builder.position_at_end(storing)
    final = merge([(after, results), (adding, added)])
    for value, pointer, end in zip(final, outs, ends, strict=True):
        block.store(value, pointer, end)
    builder.ret_void()


@intrinsic
def copy_row(typingctx, target, source):
    """Copy as many numbers as a panel has columns."""
    for array in (target, source):
        require_contiguous(array)
    dtype = source.dtype
    lanes = VECTOR_BYTES // (dtype.bitwidth // 8)

    def codegen(context, builder, signature, args):
        block = _Block(builder, dtype.bitwidth, lanes, None)
        zero = context.get_constant(types.intp, 0)
        to, start = (
            element(context, builder, *given, zero)
            for given in zip(signature.args, args, strict=True)
        )
        places = [ir.Constant(zero.type, v * lanes) for v in range(PANEL_VECTORS)]
        vectors = [block.load(builder.gep(start, [place]), False) for place in places]
        for vector, place in zip(vectors, places, strict=True):
            block.store(vector, builder.gep(to, [place]), False)
        return context.get_dummy_value()

    return types.void(target, source), codegen


class _Block:
    """Vector loads and stores of one tile; the last vector of a row may be masked."""

    def __init__(self, builder, bits, lanes, valid):
        self.builder = builder
        self.lanes = lanes
        self.vector = ir.VectorType(ir.FloatType() if bits == 32 else ir.DoubleType(), lanes)
        self.align = bits // 8  # of the element: rows start anywhere
        self.suffix = f"v{lanes}f{bits}"
        if valid is not None:
            counts = ir.VectorType(valid.type, lanes)
            iota = ir.Constant(counts, [ir.Constant(valid.type, n) for n in range(lanes)])
            self.mask = builder.icmp_signed("<", iota, self._spread(valid, counts))

    def _spread(self, value, vector):
        builder = self.builder
        single = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), None)
        return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), zeros)

    def splat(self, value):
        return self._spread(value, self.vector)

    def load(self, pointer, masked):
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        if not masked:
            return self.builder.load(pointer, align=self.align)
        nothing = ir.Constant(self.vector, None)
        return self._call(
            "masked.load", self.vector, [pointer, self._alignment(), self.mask, nothing]
        )

    def store(self, value, pointer, masked):
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        if not masked:
            self.builder.store(value, pointer, align=self.align)
        else:
            args = [value, pointer, self._alignment(), self.mask]
            self._call("masked.store", ir.VoidType(), args)

    def fma(self, a, b, c):
        return self._call("fma", self.vector, [a, b, c])

    def prefetch(self, pointer):
        word = ir.IntType(32)
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        self.builder.call(
            function, [self.builder.bitcast(pointer, byte), word(0), word(3), word(1)]
        )

    def _alignment(self):
        return ir.IntType(32)(self.align)

    def _call(self, what, result, args):
        address = ".p0" if what.startswith("masked") else ""
        function_type = ir.FunctionType(result, [arg.type for arg in args])
        function = cgutils.get_or_insert_function(
            self.builder.module, function_type, f"llvm.{what}.{self.suffix}{address}"
        )
        return self.builder.call(function, args)
