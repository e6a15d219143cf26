"""Hochreiter and Schmidhuber (1997), forget gate by Gers et al. (2000): gates i, f, g, o."""

from ..maths import cast_like, sigmoid, tanh
from .spec import CELLS, Cell


def forward(a, s, p):
    """c = f*c' + i*g, s = o*tanh(c)."""
    i, f, g, o = sigmoid(a[0]), sigmoid(a[1]), tanh(a[2]), sigmoid(a[3])
    c = f * s[1] + i * g
    return (o * tanh(c), c), (i, f, g, o)


def reverse(ds, s, previous, residuals, p):
    """The deltas of i, f, g, o; s is not seen by its own next step but through W."""
    i, f, g, o = residuals
    one = cast_like(1, i)
    tanh_c = tanh(s[1])
    dc = ds[1] + ds[0] * o * (one - tanh_c * tanh_c)
    delta = (
        dc * g * i * (one - i),
        dc * previous[1] * f * (one - f),
        dc * i * (one - g * g),
        ds[0] * tanh_c * o * (one - o),
    )
    return delta, (cast_like(0, i), dc * f)


def peephole_forward(a, s, p):
    """Gers and Schmidhuber (2000): i and f see c', o sees c, each by a weight a unit."""
    i, f, g = sigmoid(a[0] + p[0] * s[1]), sigmoid(a[1] + p[1] * s[1]), tanh(a[2])
    c = f * s[1] + i * g
    o = sigmoid(a[3] + p[2] * c)
    return (o * tanh(c), c), (i, f, g, o)


def peephole_reverse(ds, s, previous, residuals, p):
    """The deltas, and after them the terms of the gradients of the three peepholes."""
    i, f, g, o = residuals
    one = cast_like(1, i)
    tanh_c = tanh(s[1])
    delta_o = ds[0] * tanh_c * o * (one - o)
    dc = ds[1] + ds[0] * o * (one - tanh_c * tanh_c) + delta_o * p[2]
    delta_i = dc * g * i * (one - i)
    delta_f = dc * previous[1] * f * (one - f)
    delta = (
        delta_i,
        delta_f,
        dc * i * (one - g * g),
        delta_o,
        delta_i * previous[1],
        delta_f * previous[1],
        delta_o * s[1],
    )
    return delta, (cast_like(0, i), dc * f + delta_i * p[0] + delta_f * p[1])


CELLS["lstm"] = Cell(4, 2, 4, forward, reverse)
CELLS["lstm-peephole"] = Cell(4, 2, 4, peephole_forward, peephole_reverse, sums=(4, 5, 6), extra=3)
