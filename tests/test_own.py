"""A caller's own cells and activations: the whole engine from scalar Python functions."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from checks import rejected, run_python
from fastbptt.kernels.cpu import forward_pass, reverse_pass, workers
from helpers import DTYPES, GRADIENTS, STATES, assert_close, assert_same_bits, flatten

import fastbptt as fb

LEAK = 0.3


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def lstm_forward(a, s):
    i, f, g, o = sigmoid(a[0]), sigmoid(a[1]), math.tanh(a[2]), sigmoid(a[3])
    c = f * s[1] + i * g
    return (o * math.tanh(c), c), (i, f, g, o)


def lstm_reverse(ds, s, previous, kept):
    i, f, g, o = kept
    tanh_c = math.tanh(s[1])
    dc = ds[1] + ds[0] * o * (1 - tanh_c**2)
    deltas = (
        dc * g * i * (1 - i),
        dc * previous[1] * f * (1 - f),
        dc * i * (1 - g * g),
        ds[0] * tanh_c * o * (1 - o),
    )
    return deltas, (0, dc * f)


def leaky_forward(a, s):
    """Euler's step of a continuous-time network, with a constant from outside."""
    n = np.tanh(a[0])
    return ((1 - LEAK) * s[0] + LEAK * n,), (n,)


def leaky_reverse(ds, s, previous, kept):
    (n,) = kept
    return (ds[0] * LEAK * (1 - n * n),), (ds[0] * (1 - LEAK),)


def timed_forward(a, s, p):
    """The same with a trained leak for each unit."""
    leak, n = sigmoid(p[0]), math.tanh(a[0])
    return (s[0] + leak * (n - s[0]),), (leak, n)


def timed_reverse(ds, s, previous, kept, p):
    leak, n = kept
    dleak = ds[0] * (n - previous[0])
    return (ds[0] * leak * (1 - n * n),), (ds[0] * (1 - leak),), (dleak * leak * (1 - leak),)


OWN_LSTM = fb.Cell("plain_lstm", 4, lstm_forward, lstm_reverse, states=2)
LEAKY = fb.Cell("leaky", 1, leaky_forward, leaky_reverse)
TIMED = fb.Cell("timed", 1, timed_forward, timed_reverse, parameters=1)
ALONE = fb.Cell("lstm_alone", 4, lambda a, s: lstm_forward(a, s)[0], states=2)
SOFTSIGN = fb.Activation("softsign", lambda a: a / (1 + abs(a)), lambda s: (1 - abs(s)) ** 2)
GELU = fb.Activation("gelu", lambda a: a * (1 + math.erf(a / math.sqrt(2))) / 2)
TANH = fb.Activation("own_tanh", lambda a: math.tanh(a), lambda s: 1 - s * s)

MAKE = {
    "lstm": lambda I, H, dtype: OWN_LSTM.init(I, H, rng=0, dtype=dtype),
    "leaky": lambda I, H, dtype: LEAKY.init(I, H, rng=0, dtype=dtype),
    "timed": lambda I, H, dtype: TIMED.init(I, H, rng=0, dtype=dtype),
    "softsign": lambda I, H, dtype: fb.RNN.init(I, H, rng=0, dtype=dtype, activation=SOFTSIGN),
    "gelu": lambda I, H, dtype: fb.RNN.init(I, H, rng=0, dtype=dtype, activation=GELU),
}


def data(layer, T=30, B=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((T, B, layer.inputs)).astype(layer.dtype)
    return rng, x, rng.standard_normal((T, B, layer.outputs)).astype(layer.dtype)


@pytest.mark.parametrize("cell", MAKE)
def test_gradients_are_those_by_central_differences(cell):
    layer = MAKE[cell](5, 17, "float64")
    rng, x, dh = data(layer)
    g = fb.backward(fb.forward(layer, x)[2], dh)
    for index, (array, gradient) in enumerate(
        zip([*layer.arrays(), x], [*g.layer.arrays(), g.x], strict=True)
    ):
        direction, step = rng.standard_normal(array.shape), 1e-6

        def loss(along, index=index, direction=direction):
            arrays = [*layer.arrays(), x]
            arrays[index] = arrays[index] + along * direction
            return float((fb.run(layer.replace_arrays(arrays[:-1]), arrays[-1])[0] * dh).sum())

        slope = (loss(step) - loss(-step)) / (2 * step)
        assert abs((gradient * direction).sum() - slope) <= 1e-6 * max(1, abs(slope)), index


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_own_lstm_is_the_lstm_to_the_bit(dtype):
    layer = fb.LSTM.init(5, 17, rng=0, dtype=dtype)
    own = OWN_LSTM(layer.U, layer.W, layer.b)
    _, x, dh = data(layer)
    results = []
    for each in (layer, own):
        h, state, cache = fb.forward(each, x)
        g = fb.backward(cache, dh, deltas=True)
        results.append([h, *state, *g.layer.arrays(), g.x, *g.state, g.deltas])
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype == dtype and np.array_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_lstm_of_its_forward_function_alone_is_the_lstm(dtype):
    layer = fb.LSTM.init(5, 17, rng=0, dtype=dtype)
    own = ALONE(layer.U, layer.W, layer.b)
    _, x, dh = data(layer, T=100)
    (h, state, cache), (h_own, state_own, cache_own) = fb.forward(layer, x), fb.forward(own, x)
    one_step = np.spacing(np.abs(h[:1]).max())
    assert np.abs(h_own[:1] - h[:1]).max() <= 4 * one_step
    for a, b in zip((h_own, *state_own), (h, *state), strict=True):
        assert_close(a, b, STATES[dtype])
    g, g_own = fb.backward(cache, dh), fb.backward(cache_own, dh)
    for a, b in zip([*g_own.layer.arrays(), g_own.x], [*g.layer.arrays(), g.x], strict=True):
        assert_close(a, b, GRADIENTS[dtype])
    readout = fb.Readout.init(17, 2, dtype=dtype)
    plans = [fb.plan(fb.Network(each, readout), 1000, 3) for each in (layer, own)]
    assert plans[0].peak_bytes == plans[1].peak_bytes


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_own_activation_is_the_built_in_one(dtype):
    layer = fb.RNN.init(5, 17, rng=0, dtype=dtype)
    own = fb.RNN(layer.U, layer.W, layer.b, activation=TANH)
    _, x, dh = data(layer)
    (h, _, cache), (h_own, _, cache_own) = fb.forward(layer, x), fb.forward(own, x)
    assert_close(h_own, h, STATES[dtype])
    g, g_own = fb.backward(cache, dh), fb.backward(cache_own, dh)
    for a, b in zip(g_own.layer.arrays(), g.layer.arrays(), strict=True):
        assert_close(a, b, GRADIENTS[dtype])


@pytest.mark.parametrize("cell", MAKE)
def test_float32_is_close_to_float64(cell):
    narrow = MAKE[cell](5, 17, "float32")
    wide = narrow.replace_arrays([a.astype(float) for a in narrow.arrays()])
    _, x, dh = data(narrow, T=100)
    h, _, cache = fb.forward(narrow, x)
    assert h.dtype == np.float32
    due, _, due_cache = fb.forward(wide, x.astype(float))
    assert_close(h, due, STATES["float32"])
    g, g_due = fb.backward(cache, dh), fb.backward(due_cache, dh.astype(float))
    for a, b in zip(g.layer.arrays(), g_due.layer.arrays(), strict=True):
        assert_close(a, b, GRADIENTS["float32"])


@pytest.mark.parametrize("cell", MAKE)
def test_schedules_and_threads_agree_to_the_bit(cell, set_threads):
    network = fb.Network(MAKE[cell](5, 17, "float32"), fb.Readout.init(17, 3, rng=1))
    rng, x, _ = data(network.layer, T=300, B=5)
    y = rng.standard_normal((300, 5, 3)).astype("float32")
    lengths = np.array([300, 0, 7, 211, 300])
    full = fb.bptt(network, x, y, lengths=lengths)
    for memory, threads in ((fb.Checkpointed(segment=17), 1), ("full", 3)):
        set_threads(threads)
        r = fb.bptt(network, x, y, lengths=lengths, memory=memory)
        assert_same_bits(r, full)


def test_own_cells_go_into_stacks_and_both_directions():
    both = fb.Bidirectional(TIMED.init(5, 6, rng=0), LEAKY.init(5, 4, rng=1))
    stack = fb.Stack([both, OWN_LSTM.init(10, 7, rng=2)])
    _, x, dh = data(stack)
    g = fb.backward(fb.forward(stack, x)[2], dh, deltas=True)
    assert [a.shape for a in g.layer.arrays()] == [a.shape for a in stack.arrays()]
    assert all(np.isfinite(a).all() and a.any() for a in flatten(g.layer))


def test_a_file_names_its_cell_and_needs_it_defined(tmp_path):
    layer = TIMED.init(3, 4, rng=0)
    layer.save(tmp_path / "layer.npz")
    again = fb.load(tmp_path / "layer.npz")
    assert again.definition is TIMED
    assert all(np.array_equal(a, b) for a, b in zip(again.arrays(), layer.arrays(), strict=True))
    code = f"""
import fastbptt as fb
try:
    fb.load({str(tmp_path / "layer.npz")!r})
except ValueError as error:
    print(error)
"""
    assert "timed" in run_python(code)


def test_a_wrong_derivative_is_told_at_once():
    def wrong(ds, s, previous, kept):
        deltas, dprevious = leaky_reverse(ds, s, previous, kept)
        return (deltas[0] * 1.01,), dprevious

    rejected(lambda: fb.Cell("wrong", 1, leaky_forward, wrong), "Cell.reverse", "a[0]")
    rejected(lambda: fb.Activation("wrong", lambda a: a * a * a, lambda s: s), "Activation.slope")


WRONG = {
    "name": lambda: fb.Cell("not a word", 1, leaky_forward, leaky_reverse),
    "gates": lambda: fb.Cell("x", 0, leaky_forward, leaky_reverse),
    "states": lambda: fb.Cell("x", 1, leaky_forward, leaky_reverse, states=0),
    "parameters": lambda: fb.Cell("x", 1, leaky_forward, leaky_reverse, parameters=-1),
    "forward": lambda: fb.Cell("x", 1, lambda a, s: a[0], leaky_reverse),
    "reverse": lambda: fb.Cell("x", 1, leaky_forward, lambda ds, s, previous, kept: ds),
    "too many": lambda: fb.Cell("x", 15, leaky_forward, leaky_reverse),
    "p": lambda: LEAKY(*fb.RNN.init(3, 4).arrays(), p=np.zeros(4, "f4")),
    "p must be": lambda: TIMED(*fb.RNN.init(3, 4).arrays()),
    "definition": lambda: type(LEAKY.init(3, 4))("leaky", *fb.RNN.init(3, 4).arrays()),
    "activation": lambda: fb.RNN.init(3, 4, activation="softsign"),
    "plain Python function": lambda: fb.Activation("x", "tanh", lambda s: 1 - s * s),
    "Activation.slope": lambda: fb.Activation("x", math.tanh, 1.0),
}


@pytest.mark.parametrize("word", WRONG)
def test_wrong_definitions_are_named(word):
    rejected(WRONG[word], word)


SECOND_PROCESS = """
import math, sys
import numpy as np
sys.path.insert(0, {folder!r})
from test_own import LEAKY
import fastbptt as fb
h, _ = fb.run(LEAKY.init(3, 4, rng=0), np.ones((5, 1, 3), "float32"))
print(repr(float(h.sum())))
"""


def test_a_second_process_takes_the_compiled_cell_from_the_disk(tmp_path):
    code = SECOND_PROCESS.format(folder=str(Path(__file__).parent))
    first, second = (run_python(code, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    h, _ = fb.run(LEAKY.init(3, 4, rng=0), np.ones((5, 1, 3), "float32"))
    assert first == second == f"{float(h.sum())!r}\n"


def test_no_two_functions_share_a_name_in_the_cache():
    """Numba numbers functions of one name in a process; two processes may count alike."""
    found = {}
    for cell in ("rnn-tanh", "rnn-relu", "lstm", "gru-after", "gru-before", LEAKY.cell):
        forward_pass.build_forward(cell)
        reverse_pass.build_reverse(cell)
    for kind in (workers.JOBS, workers.PROGRAMS):
        for name, dispatcher in kind.items():
            found.setdefault(dispatcher.py_func.__qualname__, set()).add(name)
    shared = [names for names in found.values() if len(names) > 1]
    assert not shared and len(found) > 20


def test_a_file_whose_cell_computes_something_else_now_is_warned_of(tmp_path):
    first = fb.Cell("changed", 1, lambda a, s: (np.tanh(a[0]),))
    first.init(3, 4, rng=0).save(tmp_path / "layer.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fb.load(tmp_path / "layer.npz")
    fb.Cell("changed", 1, lambda a, s: (0.5 * np.tanh(a[0]),))
    with pytest.warns(UserWarning, match="'changed' computes something else"):
        fb.load(tmp_path / "layer.npz")
