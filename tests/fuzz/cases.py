"""Draw a random case: a network, its data and the arguments of the calls."""

from types import SimpleNamespace

import helpers
import numpy as np

import fastbptt as fb

from . import palette
from .layouts import relaid

BLOCK = 100  # cases that share cells and dtype, so that a run does not compile all the time
CELLS_A_BLOCK = 3
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


class Case(SimpleNamespace):
    """A case: `x`, `y` and so on as the package gets them, in `clean` as the oracle gets them."""

    def __str__(self):
        sizes = ", ".join(f"{name}={getattr(self, name)}" for name in "TBIO")
        given = {**self.options, **self.scoring, **self.dropping}
        shown = {
            name: f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else value
            for name, value in given.items()
            if value is not None
        }
        if "state" in shown:
            shown["state"] = "given"
        tokens = f"tokens {self.x.dtype}" if self.tokens else str(self.x.dtype)
        axis = ", no batch axis" if self.squeeze else ""
        return (
            f"{self.network!r}, {sizes}{axis}, x {tokens} strides {self.x.strides}, "
            f"loss {self.loss_name}, {shown}, memory {self.memories}, threads {self.threads}"
        )


def draw(seed, number, folder):
    """The case of that seed and number; files of memory maps are made in `folder`."""
    block = np.random.default_rng([seed, 0, number // BLOCK])
    cells = block.choice(palette.CELLS, CELLS_A_BLOCK, replace=False).tolist()
    dtype = str(block.choice(["float32", "float64"]))
    rng = np.random.default_rng([seed, 1, number])
    T, B, squeeze = draw_sizes(rng)
    I, O = int(rng.integers(1, 9)), int(rng.integers(2, 7))
    tokens = bool(rng.random() < 0.3)
    layer = draw_layer(rng, cells, I, dtype)
    loss, activation = draw_loss(rng)
    head = None
    if not callable(loss) or rng.random() < 0.5:
        head = fb.Readout.init(layer.outputs, O, rng=rng, dtype=dtype, activation=activation)
    network = fb.Network(layer, head)
    network = network.replace_arrays([relaid(a, rng, folder) for a in network.arrays()])

    def floats(*shape):
        return rng.standard_normal(shape).astype(dtype)

    clean = SimpleNamespace(
        x=rng.integers(0, I, (T, B)) if tokens else floats(T, B, I),
        y=draw_targets(rng, loss, T, B, O, dtype),
        dh=floats(T, B, layer.outputs),
        state=maybe(rng, 0.6, lambda: palette.state_of(layer, lambda H: 0.5 * floats(B, H))),
        dstate=maybe(rng, 0.6, lambda: palette.state_of(layer, lambda H: floats(B, H))),
        lengths=maybe(rng, 0.5, lambda: draw_lengths(rng, T, B)),
    )
    weights = None if callable(loss) else maybe(rng, 0.4, lambda: draw_weights(rng, T, B, squeeze))
    clean.weights = weights
    counts = np.ones((T, B), bool)
    if clean.lengths is not None:
        counts &= np.arange(T)[:, None] < clean.lengths
    scored = counts.copy()
    if weights is not None:
        scored &= (weights != 0) if weights.ndim == 2 else (weights != 0)[:, None]

    def given(array):
        array = relaid(array, rng, folder)
        return helpers.drop_batch(array) if squeeze else array

    def given_state(state):
        return tuple(map(given_state, state)) if isinstance(state, tuple) else given(state)

    x, y = clean.x, clean.y
    if tokens:
        x = x.astype(rng.choice(INTEGERS))
    if y is not None and y.dtype.kind in "iu":
        y = y.astype(rng.choice(INTEGERS))
    options = {"state": None if clean.state is None else given_state(clean.state)}
    if clean.lengths is not None:
        kind = rng.choice(INTEGERS) if T < 100 else "int64"
        options["lengths"] = int(clean.lengths[0]) if squeeze else clean.lengths.astype(kind)
    scoring = {} if callable(loss) else {"reduction": str(rng.choice(["sum", "mean"]))}
    if weights is not None:
        two = weights.ndim == 2 and squeeze
        scoring["weights"] = relaid(weights[:, 0] if two else weights, rng, folder)
    dropping = {}
    if getattr(layer, "dropout", 0) or rng.random() < 0.2:
        dropping = {"seed": int(rng.integers(1 << 40)), "t0": int(rng.integers(100))}
    return Case(
        seed=seed, number=number, rng=rng, folder=folder, dtype=dtype,
        T=T, B=B, I=I, O=O, squeeze=squeeze, tokens=tokens,
        layer=network.layer, readout=network.readout, network=network, clean=clean,
        x=given(spoilt(x, counts, rng)),
        y=None if y is None else given(y if callable(loss) else spoilt(y, scored, rng)),
        dh=given(spoilt(clean.dh, counts, rng)),
        dstate=None if clean.dstate is None else given_state(clean.dstate),
        loss=loss, loss_name=loss if isinstance(loss, str) else loss.__name__,
        scoring=scoring, dropping=dropping, options=options,
        memories=draw_memories(rng, network, T, B),
        threads=[int(n) for n in rng.permutation([1, 2, 3])],
        resets=rng.random((T, B)) < rng.choice([0.02, 0.1, 0.5]),
        input_grad=not tokens and bool(rng.random() < 0.7),
    )  # fmt: skip


def maybe(rng, share, make):
    return make() if rng.random() < share else None


def draw_sizes(rng):
    """(T, B, whether the batch axis is left out)."""
    kind = rng.random()
    if kind < 0.05:
        T, B = 0, int(rng.integers(0, 4))
    elif kind < 0.09:
        T, B = int(rng.integers(0, 9)), 0
    elif kind < 0.15:
        T, B = 1, int(rng.integers(1, 40))
    elif kind < 0.9:
        T, B = int(rng.integers(1, 50)), int(rng.integers(1, 8))
    elif kind < 0.95:
        T, B = int(rng.integers(400, 1200)), int(rng.integers(1, 3))
    else:  # more than a flush of 4096 rows, or sequences enough for every thread
        T, B = int(rng.integers(60, 90)), int(rng.integers(40, 70))
    return T, B, bool(B == 1 and rng.random() < 0.7)


def draw_layer(rng, cells, inputs, dtype):
    def width():
        return int(rng.choice([1, 2, 5, 8, 13, 17, rng.integers(3, 40), rng.integers(60, 90)]))

    def one(inputs):
        return palette.layer_of(str(rng.choice(cells)), inputs, width(), dtype, rng)

    def stack(inputs, most=3):
        layers = []
        for _ in range(rng.integers(1, most + 1)):
            layers.append(both(inputs) if rng.random() < 0.2 else one(inputs))
            inputs = layers[-1].outputs
        return fb.Stack(layers, float(rng.choice([0, 0, 0.2, 0.5])))

    def both(inputs):
        return fb.Bidirectional(one(inputs), one(inputs))

    kind = rng.random()
    if kind < 0.5:
        return one(inputs)
    return stack(inputs) if kind < 0.85 else both(inputs)


def cubes(h, y, start):
    """A callable loss that needs no targets."""
    return float((h.astype(float) ** 3).sum()), 3 * h**2


def products(h, y, start):
    """A callable loss with targets, of any shape that a sequence along time may have."""
    return float((h.astype(float) * y[..., :1]).sum()), (h * 0 + y[..., :1]).astype(h.dtype)


def draw_loss(rng):
    """The loss, and the activation that its readout has."""
    kind = rng.random()
    if kind < 0.5:
        return "squared_error", str(rng.choice(["identity", "sigmoid", "tanh", "softmax"]))
    if kind < 0.7:
        return "cross_entropy", "softmax"
    if kind < 0.85:
        return "binary_cross_entropy", "sigmoid"
    return (cubes, products)[rng.integers(2)], "identity"


def draw_targets(rng, loss, T, B, O, dtype):
    if loss is cubes:
        return None
    if loss == "cross_entropy":
        return rng.integers(0, O, (T, B))
    if loss == "binary_cross_entropy":
        return rng.random((T, B, O)).astype(dtype)
    return rng.standard_normal((T, B, O)).astype(dtype)


def draw_lengths(rng, T, B):
    lengths = rng.integers(0, T + 1, B)
    lengths[rng.random(B) < 0.2] = T
    lengths[rng.random(B) < 0.1] = 0
    return lengths


def draw_weights(rng, T, B, squeeze):
    """Weights of every kind and dtype, including the ends of their ranges."""
    shape = (T, B) if rng.random() < 0.6 else (T,)
    kind = str(rng.choice(["bool", "float32", "float64", *INTEGERS]))
    zeros = rng.random(shape) < 0.3
    if kind == "bool":
        return ~zeros
    if kind.startswith("float"):
        weights = rng.random(shape) - (0.3 if rng.random() < 0.3 else 0)
    else:
        info = np.iinfo(kind)
        weights = rng.integers(max(info.min, -3), 9, shape).astype(kind)
        weights[rng.random(shape) < 0.02] = info.min
    return np.where(zeros, 0, weights).astype(kind)


def spoilt(array, counts, rng):
    """A copy with NaN, or an id out of range, at the positions that do not count."""
    array = array.copy()
    if array.dtype.kind == "f":
        array[~counts] = rng.choice([np.nan, np.inf, 1e30])
    else:
        info = np.iinfo(array.dtype)
        array[~counts] = (info.min, info.max)[rng.integers(2)]
    return array


def draw_memories(rng, network, T, B):
    """Some policies: budgets between the least and all, segments, windows."""
    full = fb.plan(network, T, B).peak_bytes
    try:
        fb.plan(network, T, B, memory=1)
        least = 1
    except fb.MemoryLimitError as error:
        least = error.least_bytes
    shares = [0.0, float(rng.random() ** 3), 1.0]
    memories = [least + int(share * max(0, full - least)) for share in shares]
    memories.append(fb.Checkpointed(segment=int(rng.integers(1, max(2, T + 2)))))
    memories = [memories[k] for k in rng.permutation(4)[:2]]
    if not any(isinstance(part, fb.Bidirectional) for part in parts_of(network.layer)):
        k1 = int(rng.integers(1, max(2, min(T, 40) + 2)))
        memories.append(fb.Truncated(k1, k1 + int(rng.integers(0, 40))))
    return memories


def parts_of(layer):
    """The layer and all that it is made of."""
    found = [layer]
    for part in helpers.parts_of(layer) or ():
        found += parts_of(part)
    return found
