"""The micro-kernel: a small block of a product, held in vector registers over its whole sum.

    out[r, v] += sum_k a[r, k] * w[k, v]

for R rows and V vectors of columns, k ascending, one fused multiply-add a term. R, V and the lanes
of a vector are compile-time constants; everything else about products is ordinary Python above it.
"""

import os

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..access import element, require_contiguous


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
PANEL_VECTORS = 4 if VECTOR_BYTES == 64 else 2  # with 6 rows, as many sums as registers hold


@intrinsic(prefer_literal=True)
def tile(
    typingctx, out, out_start, out_step, a, a_start, a_step, a_next, w, w_start, w_panel,
    first, last, valid, R, V, MASKED,
):  # fmt: skip
    """Add the block's sum over first <= k < last.

    Row r of `out` is at out_start + r * out_step, a[r, k] at a_start + r * a_step + k * a_next. `w`
    comes in panels of PANEL_VECTORS columns, `w_panel` numbers apart, the first at `w_start`. With
    MASKED the last vector of `out` has only `valid` lanes.
    """
    for array in (out, a, w):
        require_contiguous(array)
    dtype = out.dtype
    lanes = VECTOR_BYTES // (dtype.bitwidth // 8)
    height, width, masked = R.literal_value, V.literal_value, MASKED.literal_value
    pitch = PANEL_VECTORS * lanes

    def codegen(context, builder, signature, args):
        (out_, out_start_, out_step_, a_, a_start_, a_step_, a_next_, w_, w_start_, w_panel_,
         first_, last_, valid_, *_) = args  # fmt: skip
        block = _Block(builder, dtype.bitwidth, lanes, valid_ if masked else None)
        size = first_.type

        outs = []
        for r in range(height):
            start = builder.add(out_start_, builder.mul(out_step_, size(r)))
            for v in range(width):
                index = builder.add(start, size(v * lanes))
                outs.append(element(context, builder, out, out_, index))
        ends = [masked and v == width - 1 for _ in range(height) for v in range(width)]
        begin = [block.load(p, end) for p, end in zip(outs, ends, strict=True)]

        before = builder.block
        loop = builder.append_basic_block("sum")
        after = builder.append_basic_block("summed")
        builder.cbranch(builder.icmp_signed("<", first_, last_), loop, after)
        builder.position_at_end(loop)
        k = builder.phi(size)
        k.add_incoming(first_, before)
        sums = [builder.phi(block.vector) for _ in begin]
        w_row = builder.add(w_start_, builder.mul(k, size(pitch)))
        vectors = []
        for v in range(width):
            panel, column = divmod(v, PANEL_VECTORS)
            index = builder.add(w_row, builder.mul(w_panel_, size(panel)))
            index = builder.add(index, size(column * lanes))
            vectors.append(block.load(element(context, builder, w, w_, index), False))
        a_row = builder.add(a_start_, builder.mul(k, a_next_))
        ends_ = []
        for r in range(height):
            index = builder.add(a_row, builder.mul(a_step_, size(r)))
            value = block.splat(builder.load(element(context, builder, a, a_, index)))
            for v in range(width):
                ends_.append(block.fma(value, vectors[v], sums[r * width + v]))
        following = builder.add(k, size(1))
        k.add_incoming(following, loop)
        for phi, start, end in zip(sums, begin, ends_, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(end, loop)
        builder.cbranch(builder.icmp_signed("<", following, last_), loop, after)

        builder.position_at_end(after)
        stores = []
        for pointer, start, end, is_end in zip(outs, begin, ends_, ends, strict=True):
            result = builder.phi(block.vector)
            result.add_incoming(start, before)
            result.add_incoming(end, loop)
            stores.append((result, pointer, is_end))
        for store in stores:
            block.store(*store)
        return context.get_dummy_value()

    intp = types.intp
    signature = types.void(
        out, intp, intp, a, intp, intp, intp, w, intp, intp,
        intp, intp, intp, R, V, MASKED,
    )  # fmt: skip
    return signature, codegen


class _Block:
    """Vector loads and stores of one tile, the last vector of a row masked where asked."""

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

    def _alignment(self):
        return ir.IntType(32)(self.align)

    def _call(self, what, result, args):
        address = ".p0" if what.startswith("masked") else ""
        function_type = ir.FunctionType(result, [arg.type for arg in args])
        function = cgutils.get_or_insert_function(
            self.builder.module, function_type, f"llvm.{what}.{self.suffix}{address}"
        )
        return self.builder.call(function, args)
