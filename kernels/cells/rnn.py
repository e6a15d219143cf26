"""Elman (1990): s = g(a)."""

from ..jit import scalar
from ..maths import cast_like, sigmoid, tanh
from .spec import CELLS, Cell


def elman(activate, slope):
    """The cell with activation g; `slope` is g' in terms of s = g(a), so only s is stored."""

    def forward(a, s, p):
        return (activate(a[0]),), ()

    def reverse(ds, s, previous, residuals, p):
        return (ds[0] * slope(s[0]),), (cast_like(0, s[0]),)

    return Cell(1, 1, 0, forward, reverse)


# NaN fails both comparisons, so it passes through relu as it does in NumPy.
_relu = scalar(lambda a: cast_like(0, a) if a < cast_like(0, a) else a)
_relu_slope = scalar(lambda s: cast_like(0, s) if s <= cast_like(0, s) else cast_like(1, s))
_identity = scalar(lambda a: a)
_identity_slope = scalar(lambda s: cast_like(1, s))
_tanh_slope = scalar(lambda s: cast_like(1, s) - s * s)
_sigmoid_slope = scalar(lambda s: s * (cast_like(1, s) - s))

CELLS["rnn-tanh"] = elman(tanh, _tanh_slope)
CELLS["rnn-sigmoid"] = elman(sigmoid, _sigmoid_slope)
CELLS["rnn-relu"] = elman(_relu, _relu_slope)
CELLS["rnn-identity"] = elman(_identity, _identity_slope)
