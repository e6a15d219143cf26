"""exp, tanh and sigmoid for float32 and float64, as straight-line code that LLVM vectorises.

All three rest on one reduction, e^x = 2^n (1 + p): n the integer nearest to x/ln 2, r = x - n ln 2,
and p = e^r - 1 by its Taylor series in fused multiply-adds. Relative errors are a few units in the
last place. Clamps are comparisons that are false for NaN, so NaN passes through.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from .jit import INLINED, distinct, scalar


@intrinsic
def fma(typingctx, a, b, c):
    """a*b + c, rounded once."""
    if not (isinstance(a, types.Float) and a == b == c):
        raise TypeError(f"fma takes three floats of one type, not {a}, {b}, {c}")

    def codegen(context, builder, signature, args):
        return builder.fma(*args)

    return a(a, a, a), codegen


@intrinsic
def cast_like(typingctx, value, x):
    """`value` in the dtype of `x`: in Numba 0.5 is a float64, and would widen float32."""
    if not isinstance(x, types.Float):
        raise TypeError(f"cast_like takes a float as its second argument, not {x}")
    value = types.unliteral(value)

    def codegen(context, builder, signature, args):
        return context.cast(builder, args[0], value, x)

    return x(value, x), codegen


@intrinsic
def _power_of_two(typingctx, shifted):
    """2^n, where n sits in the low bits of the mantissa of `shifted`."""
    bits, mantissa, one = (32, 23, 127 << 23) if shifted == types.float32 else (64, 52, 1023 << 52)

    def codegen(context, builder, signature, args):
        integer = ir.IntType(bits)
        n = builder.shl(builder.bitcast(args[0], integer), integer(mantissa))
        return builder.bitcast(builder.add(n, integer(one)), args[0].type)

    return shifted(shifted), codegen


def exp(x):
    """e^x; below the smallest normal number 0, above the largest infinity."""
    raise NotImplementedError("compiled code only")


def tanh(x):
    """Hyperbolic tangent, within [-1, 1]."""
    raise NotImplementedError("compiled code only")


def sigmoid(x):
    """1 / (1 + e^-x), within [0, 1]."""
    raise NotImplementedError("compiled code only")


def _functions(dtype, terms, mantissa, high, low, lowest, highest, flat):
    """The three functions for one dtype.

    terms : of the Taylor series
    mantissa : bits of the mantissa
    high, low : their sum is ln 2, and `high` is short enough for n * high to be exact
    lowest, highest : e^x is a normal number between them
    flat : tanh rounds to 1 from here on
    """
    zero, one, two, infinity = dtype(0), dtype(1), dtype(2), dtype(np.inf)
    lowest, highest, flat = dtype(lowest), dtype(highest), dtype(flat)
    log2e, high, low = dtype(1 / LN2), dtype(high), dtype(low)
    shift = dtype(1.5 * 2.0**mantissa)  # adding it rounds to an integer, in the low bits
    taylor, factorial = [], 1
    for k in range(1, terms + 1):
        factorial *= k
        taylor.append(dtype(1 / factorial))
    last, taylor = taylor[-1], tuple(reversed(taylor[:-1]))

    @scalar
    def reduce(x):
        shifted = fma(x, log2e, shift)
        n = shifted - shift
        r = fma(n, -low, fma(n, -high, x))
        series = last
        for coefficient in taylor:
            series = fma(series, r, coefficient)
        return _power_of_two(shifted), series * r

    @scalar
    def exp(x):
        scale, p = reduce(x)
        y = fma(scale, p, scale)
        y = zero if x < lowest else y
        return infinity if x > highest else y

    @scalar
    def tanh(x):
        size = abs(x)
        size = flat if size > flat else size
        scale, p = reduce(size + size)
        expm1 = fma(scale, p, scale - one)
        y = expm1 / (expm1 + two)
        return -y if x < zero else y

    @scalar
    def sigmoid(x):
        return one / (one + exp(-x))

    return exp, tanh, sigmoid


LN2 = 0.6931471805599453
_FLOAT32 = _functions(np.float32, 7, 23, 45426 / 2**16, 1.428606820309417e-06, -87.33, 88.37, 10.0)
_FLOAT64 = _functions(
    np.float64, 14, 52, 762123384785 / 2**40, 7.371002565167799e-13, -708.39, 709.43, 20.0
)


def _register(function, position):
    @overload(function, jit_options=INLINED)
    def choose(x):
        if x == types.float32:
            return _wrap(_FLOAT32[position])
        if x == types.float64:
            return _wrap(_FLOAT64[position])


def _wrap(compiled):
    return distinct(lambda x: compiled(x))


for _position, _function in enumerate((exp, tanh, sigmoid)):
    _register(_function, _position)
