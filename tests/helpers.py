"""Small random networks and data, the same in the oracle's dicts, and the tolerances."""

import os
from dataclasses import fields
from itertools import product
from types import SimpleNamespace

import numpy as np
import oracle

import fastbptt as fb
from fastbptt.memory import policies
from fastbptt.memory.plan import Costs

# The norm of the difference over the norm, for contractive networks (one place for all tests).
STATES = {"float32": 2e-6, "float64": 1e-10}
GRADIENTS = {"float32": 2e-5, "float64": 1e-10}
LOSSES = {"float32": 1e-5, "float64": 1e-10}
DIFFERENCES = 1e-7  # central differences in float64, step 1e-5 to 1e-6

DTYPES = ["float32", "float64"]
ACTIVATIONS = ["tanh", "sigmoid", "relu", "identity"]
CELLS = [*(f"rnn-{g}" for g in ACTIVATIONS), "lstm", "lstm-peephole", "gru", "gru-before"]
# A slash is one layer on top of another, a bar both directions of time; `make_layer` reads it.
STACKS = ["lstm/gru", "gru-before/rnn-tanh/lstm-peephole"]
BOTH_WAYS = ["gru|lstm", "rnn-tanh|gru-before/lstm", "lstm/lstm-peephole|gru/rnn-tanh|rnn-relu"]
COMPOSITES = [*STACKS, *BOTH_WAYS]
FEW_KINDS = ["rnn-tanh", "lstm", STACKS[0], BOTH_WAYS[0], BOTH_WAYS[-1]]
# (T, B, I, H, O): ordinary, one of everything, odd sizes, wider than one vector, no time at all.
SIZES = [(7, 3, 4, 6, 2), (1, 1, 1, 1, 1), (1, 4, 3, 17, 5), (23, 1, 3, 17, 5), (9, 5, 3, 1, 2),
         (6, 9, 33, 70, 18), (0, 2, 3, 5, 2)]  # fmt: skip
# Every size in both dtypes; tokens, or segments, in one of the two: enough for composite layers.
PAIRED_SIZES = [(s, d, (i + j) % 2 == 1) for i, s in enumerate(SIZES) for j, d in enumerate(DTYPES)]
# (cell, sizes, dtype, tokens) for layers of every kind.
CASES = [
    *product(CELLS, SIZES, DTYPES, [False, True]),
    *((cell, *case) for cell, case in product(COMPOSITES, PAIRED_SIZES)),
]
# The readout that each loss needs, or any.
LOSS_READOUTS = [
    *(("squared_error", h) for h in ("identity", "sigmoid", "tanh", "softmax")),
    ("cross_entropy", "softmax"),
    ("binary_cross_entropy", "sigmoid"),
]


def put_threads_back():
    """Use all CPUs of this process again, the default where no quota is set."""
    affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    fb.set_num_threads(len(affinity(0)))


def rounded(rng, shape, dtype, scale=1.0):
    return (scale * rng.standard_normal(shape)).astype(dtype)


def make_layer(cell, I, H, dtype, rng, dropout=0.0):
    """A layer by its name; those of a stack below the top are wider than H, all differently."""
    if "/" in cell:
        names, layers = cell.split("/"), []
        for below, name in enumerate(names, 1 - len(names)):
            layers.append(make_layer(name, I, H - 2 * below, dtype, rng))
            I = layers[-1].outputs
        return fb.Stack(layers, dropout)
    if "|" in cell:
        return fb.Bidirectional(*(make_layer(n, I, H, dtype, rng) for n in cell.split("|")))
    if cell.startswith("lstm"):
        return fb.LSTM.init(I, H, rng=rng, dtype=dtype, peepholes=cell == "lstm-peephole")
    if cell.startswith("gru"):
        reset = "before" if cell == "gru-before" else "after"
        return fb.GRU.init(I, H, rng=rng, dtype=dtype, reset=reset)
    return fb.RNN.init(I, H, rng=rng, dtype=dtype, activation=cell.removeprefix("rnn-"))


class Problem(SimpleNamespace):
    def __repr__(self):
        return f"make_problem{self.made_by}"


def make_problem(cell="rnn-tanh", sizes=(7, 3, 4, 6, 2), dtype="float64", loss="squared_error",
                 readout="identity", tokens=False, seed=0, dropout=0.0):  # fmt: skip
    """A network with x, y, initial state, dh and dstate that fit it, as one namespace."""
    made_by = (cell, sizes, dtype, loss, readout, tokens, seed, dropout)
    T, B, I, H, O = sizes
    rng = np.random.default_rng(seed)
    layer = make_layer(cell, I, H, dtype, rng, dropout)
    head = fb.Readout.init(layer.outputs, O, rng=rng, dtype=dtype, activation=readout)
    state = like_state(layer, lambda width: rounded(rng, (B, width), dtype, 0.5))
    if loss == "cross_entropy":
        y = rng.integers(0, O, (T, B))
    elif loss == "binary_cross_entropy":
        y = rng.random((T, B, O)).astype(dtype)
    else:
        y = rounded(rng, (T, B, O), dtype)
    return Problem(
        made_by=made_by,
        T=T, B=B, I=I, H=H, O=O, dtype=dtype, loss=loss, rng=rng,
        layer=layer, readout=head, network=fb.Network(layer, head),
        x=rng.integers(0, I, (T, B)) if tokens else rounded(rng, (T, B, I), dtype),
        y=y,
        state=state,
        dh=rounded(rng, (T, B, layer.outputs), dtype),
        dstate=like_state(layer, lambda width: rounded(rng, (B, width), dtype)),
        lengths=ragged(T, B, rng),
    )  # fmt: skip


def name_of(cell):
    """The name of a cell by name, or of a caller's own."""
    return cell if isinstance(cell, str) else cell.name


def like_state(layer, draw):
    """A state of the layer, `draw(H)` giving each array of it."""
    parts = parts_of(layer)
    if parts is not None:
        return tuple(like_state(part, draw) for part in parts)
    H = layer.W.shape[1]
    return (draw(H), draw(H)) if isinstance(layer, fb.LSTM) else draw(H)


def parts_of(layer):
    """The layers that a layer is made of, in the order of its state, or None."""
    if isinstance(layer, fb.Bidirectional):
        return layer.forward, layer.backward
    return layer.layers if isinstance(layer, fb.Stack) else None


def ragged(T, B, rng):
    """Lengths with 0 and T among them where B allows."""
    lengths = rng.integers(0, T + 1, B)
    lengths[: min(B, 2)] = [T, 0][: min(B, 2)]
    return lengths


def plain(part, masks=None):
    """A layer or readout as the oracle's dict, in float64; `masks` are a stack's dropout."""
    if isinstance(part, fb.Stack):
        given = {} if masks is None else {"masks": tuple(masks)}
        return {"cell": "stack", "layers": [plain(layer) for layer in part.layers], **given}
    if isinstance(part, fb.Bidirectional):
        both = {"forward": plain(part.forward), "backward": plain(part.backward)}
        return {"cell": "bidirectional", **both}
    p = {name: np.asarray(getattr(part, name), float) for name in array_names(part)}
    if isinstance(part, fb.LSTM):
        return {"cell": "lstm" if part.p is None else "lstm-peephole", **p}
    if isinstance(part, fb.GRU):
        return {"cell": "gru" if part.reset == "after" else "gru-before", **p}
    if isinstance(part, fb.RNN):
        return {"cell": "rnn", "activation": part.activation, **p}
    return {"activation": part.activation, **p}


def array_names(part):
    names = [field.name for field in fields(part)]
    return [name for name in names if isinstance(getattr(part, name), np.ndarray)]


def wide(value):
    """Float arrays and tuples of them in float64; all else as it is."""
    if isinstance(value, tuple):
        return tuple(wide(v) for v in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value.astype(float)
    return value


def oracle_bptt(problem, masks=None, **options):
    """The oracle's answer to fb.bptt(problem.network, problem.x, problem.y, problem.loss, ...)."""
    q = problem
    options = {name: wide(value) for name, value in options.items()}
    return oracle.bptt(
        plain(q.layer, masks), plain(q.readout), wide(q.x), wide(q.y), q.loss, **options
    )


def assert_close(actual, expected, tolerance, what="", floor=0.0):
    """Same shape (or the same tuple of shapes), and the norm of the difference over the norm."""
    if isinstance(expected, tuple):
        assert isinstance(actual, tuple) and len(actual) == len(expected), what
        for one, other in zip(actual, expected, strict=True):
            assert_close(one, other, tolerance, what, floor)
        return
    assert np.shape(actual) == np.shape(expected), f"{what}: {np.shape(actual)}"
    error = np.linalg.norm(np.ravel(np.asarray(actual, float) - expected))
    scale = max(floor, np.linalg.norm(np.ravel(expected)))
    assert error <= tolerance * scale, f"{what}: error {error:.3g} beside a norm of {scale:.3g}"


def assert_gradient_close(actual, expected, part, tolerance, floor=0.0):
    """`actual` has the type, shapes and dtype of `part` and agrees with the oracle's dict."""
    assert type(actual) is type(part)
    if isinstance(part, fb.Stack):
        rows = zip(actual.layers, expected["layers"], part.layers, strict=True)
        for row in rows:
            assert_gradient_close(*row, tolerance, floor)
    if isinstance(part, fb.Bidirectional):
        for name in ("forward", "backward"):
            row = getattr(actual, name), expected[name], getattr(part, name)
            assert_gradient_close(*row, tolerance, floor)
    for name in array_names(part):
        assert getattr(actual, name).dtype == getattr(part, name).dtype, name
        assert_close(getattr(actual, name), expected[name], tolerance, f"gradient of {name}", floor)


def assert_bptt_close(r, expected, problem):
    """Everything that fb.bptt returned against the oracle's answer.

    One small array may cancel to almost nothing: no gradient is asked to be closer than the
    tolerance times a hundredth of the whole gradient's norm, no state than that of 0.01 per unit.
    """
    tolerance = GRADIENTS[problem.dtype]
    whole = oracle.flat((expected["layer"], expected["readout"]))
    floor = 0.01 * np.linalg.norm(np.concatenate([np.ravel(a) for a in whole]))
    assert isinstance(r.loss, float)
    assert_close(r.loss, expected["loss"], LOSSES[problem.dtype], "loss")
    assert isinstance(r.grad, fb.Network)
    assert_gradient_close(r.grad.layer, expected["layer"], problem.layer, tolerance, floor)
    assert_gradient_close(r.grad.readout, expected["readout"], problem.readout, tolerance, floor)
    few = 0.01 * (problem.B * problem.H) ** 0.5
    assert_close(r.state, expected["state"], STATES[problem.dtype], "final state", few)
    assert_close(r.grad_state, expected["grad_state"], tolerance, "gradient of the state", floor)
    if r.grad_x is not None:
        assert_close(r.grad_x, expected["x"], tolerance, "gradient of x", floor)


def flatten(value):
    """All arrays of a result, for comparing bits: tuples, models and None included."""
    if value is None:
        return []
    if isinstance(value, tuple):
        return [array for v in value for array in flatten(v)]
    return [value] if isinstance(value, np.ndarray) else value.arrays()


def all_results(r):
    """Loss, gradients and states of fb.bptt as one list of arrays."""
    return [np.array(r.loss), *flatten((r.grad, r.grad_x, r.grad_state, r.state))]


def assert_same_bits(one, other, what=""):
    for a, b in zip(all_results(one), all_results(other), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True), what


def assert_equal_bits(one, other, what=""):
    """Assert that arrays, or nested tuples of them, have the same shapes and bits."""
    for a, b in zip(flatten(one), flatten(other), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), what
        assert a.tobytes() == b.tobytes(), what


def spoil_beyond(array, lengths):
    """A copy that holds NaN, or an id out of range, from every sequence's end on."""
    array = array.copy()
    for b, length in enumerate(lengths):
        array[length:, b] = np.nan if array.dtype.kind == "f" else -1
    return array


def drop_batch(value):
    """`value` of a batch of one, (T, 1, ...), or a state (1, H), without its batch axis."""
    if isinstance(value, tuple):
        return tuple(drop_batch(v) for v in value)
    return value[0] if value.ndim == 2 and value.shape[0] == 1 else value[:, 0]


def in_other_layouts(array, folder):
    """(name, the same values laid out in memory in another way) for every way that matters."""
    every_other = np.repeat(array, 2, axis=0)[::2]
    wider = np.concatenate([array, array], axis=-1)[..., : array.shape[-1]]
    read_only = array.copy()
    read_only.flags.writeable = False
    file = folder / f"array-{len(list(folder.iterdir()))}"
    file.write_bytes(array.tobytes() or b"-")
    yield "strided in time", every_other
    yield "strided in the last axis", np.repeat(array, 2, axis=-1)[..., ::2]
    yield "a slice of wider rows", wider
    yield "reversed", np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]
    yield "Fortran order", np.asfortranarray(array)
    yield "batch first", np.ascontiguousarray(array.swapaxes(0, 1)).swapaxes(0, 1)
    yield "read-only", read_only
    yield "misaligned", misaligned(array)
    yield "memory-mapped", np.memmap(file, array.dtype, "r", shape=array.shape)


def misaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:]
    raw[...] = array.reshape(-1).view(np.uint8)
    return raw.view(array.dtype).reshape(array.shape)


def untouched(*arrays):
    """A function that asserts that none of the arrays has changed since."""
    before = [array.copy() for array in arrays]

    def check():
        for array, old in zip(arrays, before, strict=True):
            assert np.array_equal(array, old, equal_nan=array.dtype.kind == "f")

    return check


def assert_no_alias(results, inputs):
    for result in results:
        for given in inputs:
            assert not np.shares_memory(result, given)


def make_plan(T, B, state_bytes, step_bytes, fixed_bytes, memory):
    """The plan of a `memory` argument for these sizes in bytes."""
    return policies.as_policy(memory).plan(Costs(T, B, state_bytes, step_bytes, fixed_bytes))
