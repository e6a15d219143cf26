"""Initial weights: the options of .init, and that none of them changes what is drawn without it."""

import numpy as np
import pytest

import fastbptt as fb

KINDS = [(fb.RNN, 1, {}), (fb.GRU, 3, {"bn": 1}), (fb.LSTM, 4, {})]
H = 7


def blocks(layer):
    return layer.W.astype(float).reshape(-1, H, H)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind, gates, more", KINDS)
def test_a_seed_draws_u_then_w_then_b_uniformly(kind, gates, more, dtype):
    rng, bound = np.random.default_rng(3), H**-0.5
    shapes = [(gates * H, 5), (gates * H, H), (gates * H,), *((k * H,) for k in more.values())]
    due = [rng.uniform(-bound, bound, shape).astype(dtype) for shape in shapes]
    for layer in (kind.init(5, H, rng=3, dtype=dtype),
                  kind.init(5, H, rng=3, dtype=dtype, recurrent="uniform")):  # fmt: skip
        assert all(map(np.array_equal, layer.arrays(), due))


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float64", 1e-14)])
@pytest.mark.parametrize("kind, gates, more", KINDS)
def test_recurrent_weights_are_orthogonal_or_the_identity_for_each_gate(
    kind, gates, more, dtype, tolerance
):
    plain = kind.init(5, H, rng=3, dtype=dtype)
    orthogonal = kind.init(5, H, rng=3, dtype=dtype, recurrent="orthogonal")
    identity = kind.init(5, H, rng=3, dtype=dtype, recurrent="identity")
    found = blocks(orthogonal)
    assert found.shape[0] == gates and len({block.tobytes() for block in found}) == gates
    for block in found:
        assert np.abs(block @ block.T - np.eye(H)).max() < tolerance
    assert all(np.array_equal(block, np.eye(H)) for block in blocks(identity))
    for layer in (orthogonal, identity):  # the rest is as it is without the option
        assert layer.dtype == dtype and np.array_equal(layer.U, plain.U)
        assert all(map(np.array_equal, layer.arrays()[2:], plain.arrays()[2:]))
    again = kind.init(5, H, rng=3, dtype=dtype, recurrent="orthogonal")
    assert np.array_equal(again.W, orthogonal.W)


def test_orthogonal_weights_are_spread_evenly():
    """Without the signs of R, the diagonal of QR's Q would lean to one side."""
    rng = np.random.default_rng(0)
    traces = [np.trace(fb.RNN.init(1, 4, rng=rng, recurrent="orthogonal").W) for _ in range(400)]
    assert abs(np.mean(traces)) < 0.2 and abs(np.var(traces) - 1) < 0.3


@pytest.mark.parametrize("value", [1.0, 0, -2.5, np.float32(3)])
def test_the_forget_bias_is_that_of_the_forget_gate_alone(value):
    plain = fb.LSTM.init(5, H, rng=3, peepholes=True)
    layer = fb.LSTM.init(5, H, rng=3, peepholes=True, forget_bias=value)
    assert (layer.b[H : 2 * H] == value).all()
    layer.b[H : 2 * H] = plain.b[H : 2 * H]
    assert all(map(np.array_equal, layer.arrays(), plain.arrays()))


@pytest.mark.parametrize("tmin, tmax", [(2, 100), (1, 5), (50, 50.5), (3, 3)])
def test_chrono_biases_keep_a_state_for_tmin_to_tmax_steps(tmin, tmax):
    units = 4000
    lstm = fb.LSTM.init(1, units, rng=0, dtype="float64", chrono=(tmin, tmax))
    gru = fb.GRU.init(1, units, rng=0, dtype="float64", chrono=[tmin, tmax])
    i, f, g, o = lstm.b.reshape(4, units)
    r, z, n = gru.b.reshape(3, units)
    assert np.array_equal(i, -f)
    for keep in (f, z):
        times = np.exp(keep) + 1  # a gate of 1 - 1/t
        assert times.min() >= tmin - 1e-9 and times.max() <= tmax + 1e-9
        quarters = np.quantile(times, [0.25, 0.5, 0.75])
        due = tmin + (tmax - tmin) * np.array([0.25, 0.5, 0.75])
        assert np.abs(quarters - due).max() <= 0.03 * (tmax - tmin) + 1e-9
    for other in (g, o, r, n):
        assert np.abs(other).max() <= units**-0.5
    plain = fb.LSTM.init(1, units, rng=0, dtype="float64")
    assert np.array_equal(plain.W, lstm.W) and np.array_equal(
        plain.b[2 * units :], lstm.b[2 * units :]
    )


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"forget_bias": 1.0, "chrono": (2, 9)}, ValueError, "forget_bias must be None with"),
        ({"forget_bias": "1"}, TypeError, "forget_bias must be a number"),
        ({"forget_bias": True}, TypeError, "forget_bias must be a number"),
        ({"forget_bias": float("nan")}, ValueError, "forget_bias must be a finite number"),
        ({"chrono": 100}, TypeError, r"chrono must be a pair \(tmin, tmax\), not int 100"),
        ({"chrono": (2, 3, 4)}, TypeError, "chrono must be a pair"),
        ({"chrono": (9, 2)}, ValueError, "chrono must be .* not \\(9, 2\\)"),
        ({"chrono": (0.5, 2)}, ValueError, "with 1 <= tmin <= tmax"),
        ({"chrono": (1, 1)}, ValueError, "1 < tmax"),
        ({"chrono": (1, float("inf"))}, ValueError, r"chrono\[1\] must be a finite number"),
        ({"chrono": (None, 2)}, TypeError, r"chrono\[0\] must be a number"),
        ({"recurrent": "orthonormal"}, ValueError, "recurrent must be one of 'uniform', 'orthogo"),
        ({"recurrent": None}, TypeError, "recurrent must be one of"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_an_error(options, error, words):
    with pytest.raises(error, match=words):
        fb.LSTM.init(2, 3, **options)
    if "forget_bias" not in options:
        with pytest.raises(error, match=words):
            fb.GRU.init(2, 3, **options)
    if "recurrent" in options:
        with pytest.raises(error, match=words):
            fb.RNN.init(2, 3, **options)


def test_a_network_trains_with_every_option():
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((20, 2, 3)).astype("f4") for _ in range(2))
    for layer in (
        fb.LSTM.init(3, 5, rng=0, recurrent="orthogonal", forget_bias=1.0),
        fb.LSTM.init(3, 5, rng=0, chrono=(2, 20)),
    ):
        r = fb.bptt(fb.Network(layer, fb.Readout.init(5, 3, rng=1)), x, y)
        assert all(np.isfinite(a).all() and a.any() for a in r.grad.arrays())
