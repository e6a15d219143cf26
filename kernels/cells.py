"""The recurrent cells: per unit, one step forward and one step in reverse.

A cell is two scalar functions, written once and compiled for every device:

`forward(a, s)` takes the pre-activations of one unit (a tuple, one a gate) and its states before
the step, `s[0]` being the output; it returns the states after it and what `reverse` needs besides
the states ("kept").

`reverse(ds, s, previous, kept)` takes the loss's derivatives by the states after the step, and the
states after and before it; it returns the deltas (derivatives by the pre-activations) and the
derivatives by the states before the step, *without* the part that goes through W: the sweep adds
that.

Constants are written `like(1, x)`: a bare 1.0 would widen float32.
"""

from collections.abc import Callable
from typing import NamedTuple

from numba.extending import overload

from .jit import INLINED, scalar
from .maths import like, sigmoid, tanh


class Cell(NamedTuple):
    """What a sweep needs to know of a cell: counts of values per unit, and its two functions."""

    gates: int
    states: int
    kept: int
    forward: Callable
    reverse: Callable


def _rnn(activate, slope):
    """Elman (1990): s = g(a). `slope` is g' in terms of s = g(a), so only s is stored."""

    def forward(a, s):
        return (activate(a[0]),), ()

    def reverse(ds, s, previous, kept):
        return (ds[0] * slope(s[0]),), (like(0, s[0]),)

    return Cell(1, 1, 0, forward, reverse)


# NaN fails both comparisons, so it goes through relu as it does in NumPy.
_relu = scalar(lambda a: like(0, a) if a < like(0, a) else a)
_relu_slope = scalar(lambda s: like(0, s) if s <= like(0, s) else like(1, s))
_identity = scalar(lambda a: a)
_identity_slope = scalar(lambda s: like(1, s))
_tanh_slope = scalar(lambda s: like(1, s) - s * s)
_sigmoid_slope = scalar(lambda s: s * (like(1, s) - s))


def _lstm():
    """Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000)."""

    def forward(a, s):
        i, f, g, o = sigmoid(a[0]), sigmoid(a[1]), tanh(a[2]), sigmoid(a[3])
        c = f * s[1] + i * g
        return (o * tanh(c), c), (i, f, g, o)

    def reverse(ds, s, previous, kept):
        i, f, g, o = kept
        one = like(1, i)
        tanh_c = tanh(s[1])
        dc = ds[1] + ds[0] * o * (one - tanh_c * tanh_c)
        delta = (
            dc * g * i * (one - i),
            dc * previous[1] * f * (one - f),
            dc * i * (one - g * g),
            ds[0] * tanh_c * o * (one - o),
        )
        return delta, (like(0, i), dc * f)

    return Cell(4, 2, 4, forward, reverse)


CELLS = {
    "rnn-tanh": _rnn(tanh, _tanh_slope),
    "rnn-sigmoid": _rnn(sigmoid, _sigmoid_slope),
    "rnn-relu": _rnn(_relu, _relu_slope),
    "rnn-identity": _rnn(_identity, _identity_slope),
    "lstm": _lstm(),
}


def forward(cell, a, s):
    """The forward function of the cell of that name, chosen when the caller is compiled."""
    raise NotImplementedError("compiled code only")


def reverse(cell, ds, s, previous, kept):
    """The reverse function of the cell of that name, chosen when the caller is compiled."""
    raise NotImplementedError("compiled code only")


@overload(forward, prefer_literal=True, jit_options=INLINED)
def _forward(cell, a, s):
    function = scalar(CELLS[cell.literal_value].forward)
    return lambda cell, a, s: function(a, s)


@overload(reverse, prefer_literal=True, jit_options=INLINED)
def _reverse(cell, ds, s, previous, kept):
    function = scalar(CELLS[cell.literal_value].reverse)
    return lambda cell, ds, s, previous, kept: function(ds, s, previous, kept)
