"""The oracle itself, against finite differences and against its own definition of truncation."""

import numpy as np
import oracle
import pytest

T, B, I, H, O = 5, 3, 2, 3, 4
LENGTHS = np.array([5, 0, 3])
LAYERS = ["tanh", "sigmoid", "relu", "identity", "lstm"]
HEADS = [
    *(("squared_error", h) for h in ("identity", "sigmoid", "tanh", "softmax")),
    ("cross_entropy", "softmax"),
    ("binary_cross_entropy", "sigmoid"),
]


def draw_layer(kind, rng):
    gates = 4 if kind == "lstm" else 1
    shapes = {"U": (gates * H, I), "W": (gates * H, H), "b": (gates * H,)}
    arrays = {name: 0.6 * rng.standard_normal(shape) for name, shape in shapes.items()}
    cell = {"cell": "lstm"} if kind == "lstm" else {"cell": "rnn", "activation": kind}
    return {**cell, **arrays}


def draw(kind, loss="squared_error", head="identity", seed=1):
    """Positional arguments of oracle.bptt, with a state and weights of the positions."""
    rng = np.random.default_rng(seed)
    layer = draw_layer(kind, rng)
    readout = {"V": rng.standard_normal((O, H)), "c": rng.standard_normal(O), "activation": head}
    x = rng.standard_normal((T, B, I))
    y = rng.integers(0, O, (T, B)) if loss == "cross_entropy" else rng.random((T, B, O))
    planes = tuple(0.5 * rng.standard_normal((B, H)) for _ in range(2 if kind == "lstm" else 1))
    weights = rng.random((T, B)) * (rng.random((T, B)) < 0.8)
    return layer, readout, x, y, oracle.as_state(planes), weights


def differences(f, array, step=1e-6):
    """Central differences of f() for every element of `array`, which f reads in place."""
    result = np.empty(array.shape)
    for index in np.ndindex(array.shape):
        old = array[index]
        array[index] = old + step
        above = f()
        array[index] = old - step
        result[index] = (above - f()) / (2 * step)
        array[index] = old
    return result


def check_every_gradient(kind, loss, head, **options):
    layer, readout, x, y, state, weights = draw(kind, loss, head)

    def run():
        return oracle.bptt(layer, readout, x, y, loss, state=state, weights=weights, **options)

    r = run()
    pairs = [(r["layer"][name], layer[name]) for name in ("U", "W", "b")]
    pairs += [(r["readout"][name], readout[name]) for name in ("V", "c")]
    pairs += [(r["x"], x)]
    pairs += zip(oracle.as_planes(r["grad_state"]), oracle.as_planes(state), strict=True)
    for gradient, array in pairs:
        expected = differences(lambda: run()["loss"], array)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_of_every_cell_are_the_finite_differences(kind):
    check_every_gradient(kind, "squared_error", "identity", lengths=LENGTHS)


@pytest.mark.parametrize("loss, head", HEADS)
def test_gradients_of_every_loss_and_readout_are_the_finite_differences(loss, head):
    check_every_gradient("tanh", loss, head, reduction="mean")


@pytest.mark.parametrize("kind", ["tanh", "lstm"])
def test_backward_from_any_gradient_is_the_finite_difference(kind):
    rng = np.random.default_rng(2)
    layer, _, x, _, state, _ = draw(kind)
    dh = rng.standard_normal((T, B, H))
    dstate = oracle.as_state(tuple(rng.standard_normal((B, H)) for _ in oracle.as_planes(state)))

    def f():
        h, final, _ = oracle.forward(layer, x, state, LENGTHS)
        ends = zip(oracle.as_planes(final), oracle.as_planes(dstate), strict=True)
        return (h * dh).sum() + sum((a * d).sum() for a, d in ends)

    g = oracle.backward(layer, oracle.forward(layer, x, state, LENGTHS)[2], dh, dstate)
    check = [(g["layer"][name], layer[name]) for name in ("U", "W", "b")] + [(g["x"], x)]
    check += zip(oracle.as_planes(g["state"]), oracle.as_planes(state), strict=True)
    for gradient, array in check:
        np.testing.assert_allclose(gradient, differences(f, array), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(g["deltas"].sum(axis=(0, 1)), g["layer"]["b"])


def test_tokens_are_one_hot_vectors_and_bad_ones_beyond_the_length_do_not_matter():
    layer, readout, _, y, state, _ = draw("lstm")
    tokens = np.random.default_rng(3).integers(0, I, (T, B))
    tokens[LENGTHS[2] :, 2] = 99
    tokens[:, 1] = -1
    one_hot = (tokens[..., None] == np.arange(I)).astype(float)
    a = oracle.bptt(layer, readout, tokens, y, state=state, lengths=LENGTHS)
    b = oracle.bptt(layer, readout, one_hot, y, state=state, lengths=LENGTHS)
    assert a["loss"] == b["loss"]
    assert np.array_equal(a["layer"]["U"], b["layer"]["U"])


@pytest.mark.parametrize("k1, k2", [(1, 1), (1, 3), (2, 2), (2, 3), (2, 4), (3, 4), (4, 4)])
@pytest.mark.parametrize("kind", ["tanh", "lstm"])
def test_truncation_is_the_sum_over_windows_run_on_their_own(kind, k1, k2):
    layer, readout, x, y, state, _ = draw(kind)
    whole = oracle.bptt(layer, readout, x, y, state=state, truncation=(k1, k2))
    parts = []
    for s, a, b in oracle.windows(T, k1, k2):
        constant = oracle.forward(layer, x[:s], state)[1]
        weights = (np.arange(s, b) >= a).astype(float)
        parts.append(oracle.bptt(layer, readout, x[s:b], y[s:b], state=constant, weights=weights))
    np.testing.assert_allclose(whole["loss"], sum(p["loss"] for p in parts))
    for name in ("U", "W", "b"):
        np.testing.assert_allclose(whole["layer"][name], sum(p["layer"][name] for p in parts))


def test_windows_follow_the_contract():
    assert oracle.windows(7, 2, 3) == [(0, 0, 2), (1, 2, 4), (3, 4, 6), (5, 6, 7)]
    assert oracle.windows(4, 2, 2) == [(0, 0, 2), (2, 2, 4)]
    assert oracle.windows(4, 2, 4) == [(0, 0, 2), (0, 2, 4)]
    assert oracle.windows(0, 2, 4) == []
