"""tanh and sigmoid through the public calls: accurate everywhere, saturating exactly."""

import numpy as np
import pytest
from helpers import DTYPES

import fastbptt as fb

EXTENDED = np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant
ULPS = 4 if EXTENDED else 5  # without a wider type the reference itself is off by up to one
FLOAT32_ERROR = 3e-7


def activate(values, name, along):
    """g(values) by one step of an RNN with W = 0, the values along the batch or along the units."""
    one = np.ones(1, values.dtype)
    U, x = (one, values) if along == "batch" else (values, one)
    H = len(U)
    layer = fb.RNN(U[:, None], np.zeros((H, H), U.dtype), np.zeros(H, U.dtype), activation=name)
    return fb.run(layer, x[None, :, None])[0].ravel()


def exact(values, name):
    x = values.astype(np.longdouble)
    with np.errstate(over="ignore", under="ignore"):
        if name == "tanh":
            return np.tanh(x)
        e = np.exp(-np.abs(x))
        return np.where(x < 0, e, 1) / (1 + e)


def arguments(dtype, count):
    """Every size of number with both signs, most of them where the functions bend."""
    info = np.finfo(dtype)
    rng = np.random.default_rng(0)
    tail = 90 if dtype == "float32" else 709
    sizes = np.concatenate(
        [
            rng.uniform(0, 1, count),
            rng.uniform(0, 20, count),
            rng.uniform(0, tail + 5, count),
            2.0 ** rng.uniform(info.minexp, info.maxexp, count),
            [
                0,
                0.5,
                1,
                2,
                0.5 * np.log(2),
                np.log(2),
                9,
                9.01,
                10,
                19,
                20,
                22,
                tail,
                info.max,
                info.tiny,
            ],
            [info.smallest_subnormal, info.tiny / 3, info.eps, info.eps / 2, info.max / 2],
        ]
    ).astype(dtype)
    return np.concatenate([sizes, -sizes])


@pytest.mark.parametrize("along, count", [("batch", 60_000), ("units", 150)])
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_float32_activations_are_off_by_at_most_3e_7(name, along, count):
    x = arguments("float32", count)
    error = np.abs(activate(x, name, along) - exact(x, name))
    assert error.max() <= FLOAT32_ERROR, f"at {x[error.argmax()]!r}"


@pytest.mark.parametrize("along, count", [("batch", 60_000), ("units", 150)])
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_float64_activations_are_off_by_at_most_4_ulp(name, along, count):
    x = arguments("float64", count)
    got, due = activate(x, name, along), exact(x, name)
    ulp = np.spacing(np.maximum(np.abs(due), np.finfo("f8").tiny).astype("f8"))
    error = np.abs(got - due) / ulp
    error[(np.abs(due) < np.finfo("f8").tiny) & (got == 0)] = 0  # a subnormal may become 0
    assert error.max() <= ULPS, f"at {x[error.argmax()]!r}: {got[error.argmax()]!r}"


@pytest.mark.parametrize("along, count", [("batch", 10_000), ("units", 150)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_saturate_exactly_and_never_pass_their_limits(dtype, along, count):
    x = arguments(dtype, count)
    tanh, sigmoid = activate(x, "tanh", along), activate(x, "sigmoid", along)
    assert (np.abs(tanh) <= 1).all() and (sigmoid >= 0).all() and (sigmoid <= 1).all()
    flat, one, none = (10, 18, 110) if dtype == "float32" else (20, 40, 750)
    assert (tanh[x >= flat] == 1).all() and (tanh[x <= -flat] == -1).all()
    assert (sigmoid[x >= one] == 1).all() and (sigmoid[x <= -none] == 0).all()
    assert (tanh[x == 0] == 0).all() and (sigmoid[x == 0] == 0.5).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_lstm_of_any_finite_input_stays_within_its_bounds(dtype):
    x = arguments(dtype, 500)[:, None, None]
    layer = fb.LSTM.init(1, 9, rng=0, dtype=dtype)
    h, (_, c), cache = fb.forward(layer, x)
    assert (np.abs(h) <= 1).all() and (np.abs(c) <= len(x)).all()
    g = fb.backward(cache, np.ones_like(h))
    assert all(np.isfinite(a).all() for a in g.layer.arrays()[1:])  # dU holds the huge x itself
