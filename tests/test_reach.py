"""gradient_reach against closed forms and the oracle, with lengths, weights and tokens."""

import numpy as np
import oracle
import pytest
from checks import rejected
from helpers import CELLS, GRADIENTS, flatten, make_layer, make_problem, plain, wide

import fastbptt as fb

ALL = 10**6  # samples: every loss that there is
TOLERANCE = GRADIENTS


def scalar(w, T=300, dtype="float64"):
    """A linear network of one unit, s = x + w s', o = 0.5 s, and data for it."""
    one = lambda value: np.full((1, 1), value, dtype)  # noqa: E731
    layer = fb.RNN(one(1), one(w), np.zeros(1, dtype), "identity")
    network = fb.Network(layer, fb.Readout(one(0.5), np.zeros(1, dtype)))
    x, y = np.random.default_rng(0).standard_normal((2, T, 1)).astype(dtype)
    return network, x, y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("share", [0.3, 0.01, 1e-4])
@pytest.mark.parametrize("w", [0.9, -0.5, 0.99, 0.05])
def test_a_linear_unit_decays_by_its_weight_and_k2_is_the_logarithm_of_the_share(w, share, dtype):
    network, x, y = scalar(w, dtype=dtype)
    reach = fb.gradient_reach(network, x, y, share=share, max_lag=100, samples=ALL)
    o = fb.predict(network, x)[0].astype(float)
    dE = np.abs(2 * (o - y) * 0.5)[100:]
    assert reach.losses == len(dE) == 200
    assert reach.lags[0] == 0 and reach.lags[-1] == 100 and np.all(np.diff(reach.lags) > 0)
    expected = dE.mean() * abs(float(network.layer.W[0, 0])) ** reach.lags.astype(float)
    np.testing.assert_allclose(reach.norms, expected, rtol=100 * TOLERANCE[dtype])
    assert reach.decay == pytest.approx(abs(w), rel=TOLERANCE[dtype])
    assert reach.time_constant == pytest.approx(-1 / np.log(abs(w)), rel=1e-3)
    assert reach.share == share
    k2 = int(np.floor(np.log(share) / np.log(abs(w)))) + 1  # the first with |w|^k2 < share
    assert reach.k2 == (k2 if k2 <= 100 else None)
    np.testing.assert_allclose(reach.beyond, abs(w) ** reach.lags.astype(float), rtol=1e-3)


@pytest.mark.parametrize("w", [1.0, 1.05])
def test_a_gradient_that_does_not_shrink_has_no_k2(w):
    network, x, y = scalar(w)
    reach = fb.gradient_reach(network, x, y, max_lag=50)
    assert reach.k2 is None and reach.decay == pytest.approx(w, rel=1e-9)
    assert reach.time_constant == np.inf or w == 1.0
    assert "no k2" in str(reach)


@pytest.mark.parametrize("w, dtype", [(1e-3, "float32"), (40.0, "float32"), (1e-30, "float64")])
def test_norms_beyond_the_range_of_the_dtype_are_followed_all_the_same(w, dtype):
    network, x, y = scalar(1e-3 if w == 40 else w, T=60, dtype=dtype)
    o = fb.predict(network, x)[0].astype(float)
    if w == 40:  # its states would overflow: from a state of zero and x of zero they do not
        network, x = scalar(w, T=60, dtype=dtype)[0], np.zeros_like(x)
        o = np.zeros(x.shape)
    reach = fb.gradient_reach(network, x, y, max_lag=30, samples=ALL)
    mean = np.abs(2 * (o - y) * 0.5)[30:].mean()
    with np.errstate(under="ignore"):
        expected = mean * float(network.layer.W[0, 0]) ** reach.lags.astype(float)
    np.testing.assert_allclose(reach.norms, expected, rtol=1e-3)


def test_a_network_without_memory_needs_one_step():
    network, x, y = scalar(0.0)
    reach = fb.gradient_reach(network, x, y)
    assert reach.k2 == 1 and reach.decay == 0 and reach.time_constant == 0
    assert not reach.norms[1:].any() and reach.norms[0] > 0


def norms_by_the_oracle(p, max_lag, positions, loss="squared_error", **given):
    """dL_t/d(state after t - lag) of each loss, by the oracle's backward over that many steps."""
    layer, readout, x = plain(p.layer), plain(p.readout), wide(p.x)
    h, _, steps = oracle.forward(layer, x, wide(p.state), given.get("lengths"))
    weights = given.get("weights", np.ones((p.T, p.B)))
    norms = np.empty((max_lag + 1, len(positions)))
    for index, (t, b) in enumerate(positions):
        a, o = oracle.readout_forward(readout, h[t, b][None])
        da = oracle.loss_and_derivative(loss, readout, a, o, wide(p.y)[t, b][None])[1]
        dh = np.zeros_like(h)
        dh[t, b] = weights[t, b] * (da @ readout["V"])[0]
        norms[0, index] = np.linalg.norm(dh[t, b])
        for lag in range(1, max_lag + 1):
            g = oracle.backward(layer, steps, dh, start=t - lag + 1, stop=t + 1)
            parts = oracle.as_arrays(g["state"])
            norms[lag, index] = np.linalg.norm(np.concatenate([part[b] for part in parts]))
    return norms


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_norms_are_the_oracles(cell, dtype):
    p = make_problem(cell, (20, 3, 4, 6, 2), dtype)
    reach = fb.gradient_reach(p.network, p.x, p.y, state=p.state, max_lag=8, samples=ALL)
    positions = [(t, b) for t in range(8, 20) for b in range(3)]
    expected = norms_by_the_oracle(p, 8, positions)
    assert reach.losses == len(positions) and reach.lags.tolist() == list(range(9))
    tolerance = 10 * TOLERANCE[dtype]
    np.testing.assert_allclose(reach.norms, expected.mean(axis=1), rtol=tolerance)
    low, high = np.quantile(expected, (0.1, 0.9), axis=1)
    np.testing.assert_allclose(reach.low, low, rtol=tolerance)
    np.testing.assert_allclose(reach.high, high, rtol=tolerance)


@pytest.mark.parametrize(
    "loss, readout", [("cross_entropy", "softmax"), ("binary_cross_entropy", "sigmoid")]
)
@pytest.mark.parametrize("tokens", [False, True])
def test_norms_are_the_oracles_for_other_losses_lengths_weights_and_tokens(loss, readout, tokens):
    p = make_problem("lstm", (16, 4, 5, 6, 3), "float64", loss, readout, tokens=tokens)
    lengths = np.array([16, 0, 9, 13])
    weights = p.rng.integers(0, 2, (16, 4)) * p.rng.random((16, 4))
    positions = [(t, b) for b in range(4) for t in range(5, lengths[b]) if weights[t, b]]
    given = {"lengths": lengths, "weights": weights}
    expected = norms_by_the_oracle(p, 5, positions, loss, **given)
    for b, end in enumerate(lengths):  # what lies past the end never matters
        p.x[end:, b] = -1 if tokens else np.nan
        p.y[end:, b] = -1 if loss == "cross_entropy" else np.nan
    reach = fb.gradient_reach(
        p.network, p.x, p.y, loss, state=p.state, max_lag=5, samples=ALL, **given
    )
    assert reach.losses == len(positions)
    np.testing.assert_allclose(reach.norms, expected.mean(axis=1), rtol=1e-9)


def by_differences(network, x, y, weights, lag):
    """The norm of dL/d(state `lag` steps before the end), by central differences."""
    start = len(x) - lag
    state = fb.run(network.layer, x[:start])[1]
    slopes = []
    for part in flatten(state):
        for index in np.ndindex(part.shape):
            value, ends = part[index], []
            for step in (1e-6, -1e-6):
                part[index] = value + step
                given = {"weights": weights[start:], "state": state}
                ends.append(fb.evaluate(network, x[start:], y[start:], **given))
            part[index] = value
            slopes.append((ends[0] - ends[1]) / 2e-6)
    return np.linalg.norm(slopes)


def stack(dropout=0.0):
    layers = [make_layer(cell, 4, 4, "float64", 1) for cell in ("lstm", "gru", "rnn-tanh")]
    return fb.Stack(layers, dropout)


@pytest.mark.parametrize("layer", [make_layer("lstm", 4, 4, "float64", 0), stack()], ids=str)
def test_norms_agree_with_finite_differences(layer):
    network = fb.Network(layer, fb.Readout.init(4, 2, rng=0, dtype="float64"))
    rng = np.random.default_rng(0)
    x, y, weights = rng.standard_normal((10, 4)), rng.standard_normal((10, 2)), np.zeros(10)
    weights[9] = 1  # one loss, at the end
    reach = fb.gradient_reach(network, x, y, weights=weights, max_lag=6)
    assert reach.losses == 1
    for lag in range(1, 7):
        expected = by_differences(network, x, y, weights, lag)
        assert reach.norms[lag] == pytest.approx(expected, rel=1e-6)


def test_dropout_is_left_out():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 2, 4)), rng.standard_normal((40, 2, 2))
    head = fb.Readout.init(4, 2, rng=0, dtype="float64")
    dropped, plain = (fb.Network(stack(dropout), head) for dropout in (0.5, 0.0))
    one, other = (fb.gradient_reach(network, x, y) for network in (dropped, plain))
    assert np.array_equal(one.norms, other.norms)


def test_a_callable_loss_gives_what_the_loss_by_name_gives():
    p = make_problem("lstm", (30, 3, 4, 6, 6), "float64")
    V, c = p.readout.V, p.readout.c

    def squared(h, y, start):
        assert len(h) == len(y) == 1 and np.array_equal(y, p.y[start : start + 1])
        error = h @ V.T + c - y
        return float((error**2).sum()), 2 * error @ V

    given = {"max_lag": 10, "samples": 20, "lengths": np.array([30, 12, 20])}
    named = fb.gradient_reach(p.network, p.x, p.y, **given)
    called = fb.gradient_reach(fb.Network(p.layer, None), p.x, p.y, squared, **given)
    np.testing.assert_allclose(called.norms, named.norms, rtol=1e-10)


def test_without_a_batch_axis_and_with_one_of_one_sequence_it_is_the_same():
    p = make_problem("lstm", (40, 1, 3, 5, 2), "float32")
    given = {"max_lag": 12, "samples": 9, "seed": 3}
    one = fb.gradient_reach(p.network, p.x, p.y, state=p.state, lengths=np.array([35]), **given)
    state = tuple(s[0] for s in p.state)
    other = fb.gradient_reach(p.network, p.x[:, 0], p.y[:, 0], state=state, lengths=35, **given)
    assert np.array_equal(one.norms, other.norms) and one.k2 == other.k2


def test_a_draw_is_that_of_its_seed_and_close_to_the_mean_over_all():
    p = make_problem("lstm", (600, 2, 4, 16, 3), "float32")
    draw = lambda **given: fb.gradient_reach(p.network, p.x, p.y, max_lag=40, **given)  # noqa: E731
    one, other, whole = draw(seed=1), draw(seed=2), draw(samples=ALL)
    assert np.array_equal(one.norms, draw(seed=1).norms)
    assert not np.array_equal(one.norms, other.norms)
    assert one.losses == 64 and whole.losses == 2 * 560
    np.testing.assert_allclose(one.norms, whole.norms, rtol=0.3)
    assert abs(one.k2 - whole.k2) <= 2


def test_a_window_of_k2_steps_loses_about_the_share_that_it_says():
    """The weight gradient of Truncated with that window, against the exact one."""
    network, x, y = scalar(0.9, T=3000)
    reach = fb.gradient_reach(network, x, y, share=0.01)
    exact = fb.bptt(network, x, y).grad.layer.W
    errors = []
    for k2 in (reach.k2 // 4, reach.k2):
        r = fb.bptt(network, x, y, memory=fb.Truncated(1, k2))
        errors.append(abs((r.grad.layer.W - exact) / exact).item())
    assert errors[1] < 0.02 < errors[0]


def test_by_default_the_longest_lag_is_half_of_a_short_sequence_and_at_most_1000():
    network, x, y = scalar(0.9, T=2500)
    assert fb.gradient_reach(network, x, y).lags[-1] == 1000
    assert fb.gradient_reach(network, x[:30], y[:30]).lags[-1] == 15
    assert len(fb.gradient_reach(network, x, y).lags) < 150


def test_it_prints_as_a_table_that_says_which_k2_to_take():
    network, x, y = scalar(0.9)
    text = str(fb.gradient_reach(network, x, y, max_lag=100))
    assert "k2 = 44: less than 0.01" in text and "0.9 a step" in text
    assert 8 <= len(text.splitlines()) < 20 and max(map(len, text.splitlines())) <= 100


BOTH_WAYS = fb.Bidirectional(*(make_layer("gru", 1, 2, "float64", seed) for seed in (0, 1)))
HEAD = fb.Readout.init(4, 1, rng=0, dtype="float64")
REJECTED = {
    "a Bidirectional": ({"network": fb.Network(BOTH_WAYS, HEAD)}, "network", "Bidirectional"),
    "a Stack with one": (
        {"network": fb.Network(fb.Stack([BOTH_WAYS, make_layer("gru", 4, 4, "float64", 0)]), HEAD)},
        "network",
        "Bidirectional",
    ),
    "a layer for a network": ({"network": make_layer("lstm", 1, 2, "float64", 0)}, "network"),
    "y of another T": ({"y": np.zeros((7, 1))}, "y"),
    "no such loss": ({"loss": "hinge"}, "loss", "'hinge'"),
    "a loss of another readout": ({"loss": "cross_entropy"}, "softmax"),
    "weights of another T": ({"weights": np.ones(7)}, "weights"),
    "weights of zero": ({"weights": np.zeros(300)}, "weights"),
    "a share of all": ({"share": 1.0}, "share", "1.0"),
    "a share of nothing": ({"share": 0}, "share"),
    "a share in words": ({"share": "1%"}, "share"),
    "no samples": ({"samples": 0}, "samples", "0"),
    "half a sample": ({"samples": 0.5}, "samples", "0.5"),
    "a negative seed": ({"seed": -1}, "seed"),
    "no lag": ({"max_lag": 0}, "max_lag", "0"),
    "a lag as long as x": ({"max_lag": 300}, "max_lag", "300"),
    "sequences too short for the lag": ({"max_lag": 30, "lengths": 20}, "max_lag", "20"),
    "no such device": ({"device": "moon"}, "device", "'moon'"),
    "x of float32": ({"x": np.zeros((300, 1), "f4")}, "x", "float32"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_wrong_arguments_are_named(case):
    changes, *words = REJECTED[case]
    network, x, y = scalar(0.9)
    given = {"network": network, "x": x, "y": y} | changes
    rejected(lambda: fb.gradient_reach(**given), *words)
