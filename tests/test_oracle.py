"""The oracle itself, against finite differences and against its own definition of truncation."""

import numpy as np
import oracle
import pytest

T, B, I, H, O = 5, 3, 2, 3, 4
LENGTHS = np.array([5, 0, 3])
CELLS = ["tanh", "sigmoid", "relu", "identity", "lstm", "lstm-peephole", "gru", "gru-before"]
LAYERS = [*CELLS, "stack", "bidirectional", "stack with both"]
OWN = {"lstm-peephole": {"p": 3}, "gru": {"bn": 1}, "gru-before": {"bn": 1}}  # arrays (k*H,)
LOSSES_AND_READOUTS = [
    *(("squared_error", h) for h in ("identity", "sigmoid", "tanh", "softmax")),
    ("cross_entropy", "softmax"),
    ("binary_cross_entropy", "sigmoid"),
]


def draw_layer(kind, rng, inputs=I):
    if kind == "bidirectional":
        parts = draw_layer("gru", rng, inputs), draw_layer("lstm", rng, inputs)
        return {"cell": kind, "forward": parts[0], "backward": parts[1]}
    if kind.startswith("stack"):
        kinds = ["lstm", "tanh"] if kind == "stack" else ["gru", "bidirectional", "lstm"]
        widths = [inputs, *(2 * H if part == "bidirectional" else H for part in kinds)]
        layers = [draw_layer(part, rng, n) for part, n in zip(kinds, widths, strict=False)]
        masks = tuple(2.0 * rng.integers(0, 2, (T, B, n)) for n in widths[1:-1])
        return {"cell": "stack", "layers": layers, "masks": masks}
    gates = {"l": 4, "g": 3}.get(kind[0], 1)
    shapes = {"U": (gates * H, inputs), "W": (gates * H, H), "b": (gates * H,)}
    shapes |= {name: (k * H,) for name, k in OWN.get(kind, {}).items()}
    arrays = {name: 0.6 * rng.standard_normal(shape) for name, shape in shapes.items()}
    cell = {"cell": kind} if gates > 1 else {"cell": "rnn", "activation": kind}
    return {**cell, **arrays}


def draw(kind, loss="squared_error", head="identity", seed=1):
    """Positional arguments of oracle.bptt, with a state and weights of the positions."""
    rng = np.random.default_rng(seed)
    layer = draw_layer(kind, rng)
    width = 2 * H if kind == "bidirectional" else H
    readout = {"V": rng.standard_normal((O, width)), "c": rng.standard_normal(O)}
    readout["activation"] = head
    x = rng.standard_normal((T, B, I))
    y = rng.integers(0, O, (T, B)) if loss == "cross_entropy" else rng.random((T, B, O))
    state = draw_state(layer, rng)
    weights = rng.random((T, B)) * (rng.random((T, B)) < 0.8)
    return layer, readout, x, y, state, weights


def draw_state(layer, rng):
    zeros = oracle.zero_state(layer, B)
    return oracle.mapped(lambda a: 0.5 * rng.standard_normal(a.shape), zeros)


def pairs_of(*trees):
    """(gradient, array) for every array of a gradient and what it is the gradient of."""
    pairs = []
    oracle.mapped(lambda *pair: pairs.append(pair), *trees)
    return pairs


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
    gradients = r["layer"], r["readout"], r["x"], r["grad_state"]
    for gradient, array in pairs_of(gradients, (layer, readout, x, state)):
        expected = differences(lambda: run()["loss"], array)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_of_every_cell_are_the_finite_differences(kind):
    check_every_gradient(kind, "squared_error", "identity", lengths=LENGTHS)


@pytest.mark.parametrize("loss, head", LOSSES_AND_READOUTS)
def test_gradients_of_every_loss_and_readout_are_the_finite_differences(loss, head):
    check_every_gradient("tanh", loss, head, reduction="mean")


@pytest.mark.parametrize("kind", ["tanh", "lstm", "stack", "stack with both"])
def test_backward_from_any_gradient_is_the_finite_difference(kind):
    rng = np.random.default_rng(2)
    layer, _, x, _, state, _ = draw(kind)
    dh = rng.standard_normal((T, B, H))
    dstate = draw_state(layer, rng)

    def f():
        h, final, _ = oracle.forward(layer, x, state, LENGTHS)
        return (h * dh).sum() + sum((a * d).sum() for a, d in pairs_of(final, dstate))

    g = oracle.backward(layer, oracle.forward(layer, x, state, LENGTHS)[2], dh, dstate)
    for gradient, array in pairs_of((g["layer"], g["x"], g["state"]), (layer, x, state)):
        np.testing.assert_allclose(gradient, differences(f, array), rtol=1e-6, atol=1e-7)
    for deltas, b in zip(oracle.flat(g["deltas"]), biases(g["layer"]), strict=True):
        np.testing.assert_allclose(deltas.sum(axis=(0, 1)), b)


def biases(gradient):
    if "b" in gradient:
        return [gradient["b"]]
    parts = gradient["layers"] if "layers" in gradient else gradient.values()
    return [b for part in parts for b in biases(part)]


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
@pytest.mark.parametrize("kind", ["tanh", "lstm", "stack"])
def test_truncation_is_the_sum_over_windows_run_on_their_own(kind, k1, k2):
    layer, readout, x, y, state, _ = draw(kind)
    layer.pop("masks", None)  # they are those of the whole
    whole = oracle.bptt(layer, readout, x, y, state=state, truncation=(k1, k2))
    parts = []
    for s, a, b in oracle.windows(T, k1, k2):
        constant = oracle.forward(layer, x[:s], state)[1]
        weights = (np.arange(s, b) >= a).astype(float)
        parts.append(oracle.bptt(layer, readout, x[s:b], y[s:b], state=constant, weights=weights))
    np.testing.assert_allclose(whole["loss"], sum(p["loss"] for p in parts))
    for due, *found in pairs_of(whole["layer"], *(p["layer"] for p in parts)):
        np.testing.assert_allclose(due, sum(found), atol=1e-12)


def test_windows_follow_the_contract():
    assert oracle.windows(7, 2, 3) == [(0, 0, 2), (1, 2, 4), (3, 4, 6), (5, 6, 7)]
    assert oracle.windows(4, 2, 2) == [(0, 0, 2), (2, 2, 4)]
    assert oracle.windows(4, 2, 4) == [(0, 0, 2), (0, 2, 4)]
    assert oracle.windows(0, 2, 4) == []
