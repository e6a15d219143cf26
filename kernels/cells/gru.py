"""Cho et al. (2014): gates r, z, n; s = (1-z)*n + z*s'. The reset acts after W or before it."""

from ..maths import cast_like, sigmoid, tanh
from .spec import CELLS, Cell


def after_forward(a, s, p):
    """n = tanh(x-part + r * (W s' + bn)), as in cuDNN and PyTorch: a is x-part, r, z, W s'."""
    r, z, m = sigmoid(a[1]), sigmoid(a[2]), a[3] + p[0]
    n = tanh(a[0] + r * m)
    return (n + z * (s[0] - n),), (r, z, n, m)


def after_reverse(ds, s, previous, residuals, p):
    """The deltas of n's input part, r, z and n's recurrent part, which is also that of bn."""
    r, z, n, m = residuals
    one = cast_like(1, r)
    delta_n = ds[0] * (one - z) * (one - n * n)
    delta_r = delta_n * m * r * (one - r)
    delta_z = ds[0] * (previous[0] - n) * z * (one - z)
    return (delta_n, delta_r, delta_z, delta_n * r), (ds[0] * z,)


def before_gate(a, s, p):
    """What the second product multiplies: r*s'."""
    return sigmoid(a[0]) * s[0]


def before_forward(a, s, p):
    """n = tanh(x-part + W (r*s') + bn), as in the paper: a is r, z, n."""
    r, z, n = sigmoid(a[0]), sigmoid(a[1]), tanh(a[2] + p[0])
    return (n + z * (s[0] - n),), (r, z, n)


def before_reverse(ds, s, previous, residuals, p):
    """The deltas of z and n; that of r waits for the second product."""
    r, z, n = residuals
    one = cast_like(1, r)
    delta_z = ds[0] * (previous[0] - n) * z * (one - z)
    return (cast_like(0, r), delta_z, ds[0] * (one - z) * (one - n * n)), (ds[0] * z,)


def before_ungate(dv, previous, residuals):
    """The delta of r, what dv adds to ds', and r*s'."""
    r, one = residuals[0], cast_like(1, residuals[0])
    return (dv * previous[0] * r * (one - r),), dv * r, r * previous[0]


CELLS["gru-after"] = Cell(3, 1, 4, after_forward, after_reverse, sums=(3,), split=True)
CELLS["gru-before"] = Cell(
    3, 1, 3, before_forward, before_reverse, sums=(2,), gate=before_gate, ungate=before_ungate
)
