"""from_torch and to_torch: the same numbers, the same outputs, and torch's own gradients."""

import sys

import numpy as np
import pytest
from checks import rejected, run_python
from helpers import DTYPES, GRADIENTS, STATES, assert_close, flatten, like_state, make_layer

import fastbptt as fb

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

T, B, I, H = 11, 4, 3, 5
MODULES = {
    "rnn-tanh": lambda **given: torch.nn.RNN(I, H, **given),
    "rnn-relu": lambda **given: torch.nn.RNN(I, H, nonlinearity="relu", **given),
    "gru": lambda **given: torch.nn.GRU(I, H, **given),
    "lstm": lambda **given: torch.nn.LSTM(I, H, **given),
}
SHAPES = {
    "one": {},
    "both ways": {"bidirectional": True},
    "stack": {"num_layers": 3},
    "stack both ways": {"num_layers": 2, "bidirectional": True},
    "without bias": {"num_layers": 2, "bidirectional": True, "bias": False},
    "batch first": {"num_layers": 2, "batch_first": True},
}


def numbers(tensor):
    return tensor.detach().numpy()


def make(cell, shape, dtype):
    torch.manual_seed(1)
    return MODULES[cell](**SHAPES[shape], dtype=getattr(torch, dtype))


def leaf(array):
    return torch.from_numpy(array.copy()).requires_grad_()


def planes_of(layer, state):
    """torch's planes (layers * directions, B, H) of one of our states."""
    lstm = "LSTM" in repr(layer)
    arrays = flatten(state)
    planes = [arrays[k::2] for k in range(2)] if lstm else [arrays]
    return tuple(np.stack(plane) for plane in planes)


@pytest.mark.parametrize("ends", ["whole", "packed"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cell", MODULES)
def test_outputs_and_gradients_are_those_of_the_module(cell, shape, dtype, ends):
    module, rng = make(cell, shape, dtype), np.random.default_rng(2)
    layer = fb.from_torch(module)
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    state = like_state(layer, lambda width: draw(B, width))
    dstate = like_state(layer, lambda width: draw(B, width))
    x, dh = draw(T, B, I), draw(T, B, layer.outputs)
    lengths = np.array([T, 4, 1, 9]) if ends == "packed" else None

    planes = tuple(map(leaf, planes_of(layer, state)))
    given = x_torch = leaf(x)
    if module.batch_first:
        given = x_torch.transpose(0, 1)
    if lengths is not None:
        given = torch.nn.utils.rnn.pack_padded_sequence(
            given, lengths, batch_first=module.batch_first, enforce_sorted=False
        )
    out, final = module(given, planes if len(planes) > 1 else planes[0])
    if lengths is not None:
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(
            out, batch_first=module.batch_first, total_length=T
        )
    if module.batch_first:
        out = out.transpose(0, 1)
    final = final if isinstance(final, tuple) else (final,)

    h, last, cache = fb.forward(layer, x, state, lengths=lengths)
    assert_close(h, numbers(out), STATES[dtype], "h")
    for ours, theirs in zip(planes_of(layer, last), final, strict=True):
        assert_close(ours, numbers(theirs), STATES[dtype], "final state")

    total = (out * torch.from_numpy(dh)).sum()
    for part, given in zip(final, planes_of(layer, dstate), strict=True):
        total = total + (part * torch.from_numpy(given)).sum()
    total.backward()
    g = fb.backward(cache, dh, dstate)
    assert_close(g.x, numbers(x_torch.grad), GRADIENTS[dtype], "x")
    for ours, theirs in zip(planes_of(layer, g.state), planes, strict=True):
        assert_close(ours, numbers(theirs.grad), GRADIENTS[dtype], "initial state")
    # The gradient is a layer, so it is a module too: of the same parameters.
    found = dict(fb.to_torch(g.layer).named_parameters())
    for name, parameter in module.named_parameters():
        ours = numbers(found[name])
        if name.startswith("bias_hh"):  # b takes both biases, but where a GRU has bn
            both = numbers(found[name.replace("hh", "ih")]).copy()
            if cell == "gru":
                both[2 * H :] = ours[2 * H :]
            ours = both
        assert_close(ours, numbers(parameter.grad), GRADIENTS[dtype], name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cell", MODULES)
def test_weights_are_the_same_numbers_and_the_round_trip_is_exact(cell, shape, dtype):
    module = make(cell, shape, dtype)
    layer = fb.from_torch(module)
    own = {name: numbers(p) for name, p in module.named_parameters()}
    parts = getattr(layer, "layers", [layer])
    for number, part in enumerate(parts):
        pair = [part.forward, part.backward] if isinstance(part, fb.Bidirectional) else [part]
        for one, end in zip(pair, ("", "_reverse"), strict=False):
            end = f"_l{number}{end}"
            assert np.array_equal(one.U, own["weight_ih" + end])
            assert np.array_equal(one.W, own["weight_hh" + end])
            b = own.get("bias_ih" + end, np.zeros_like(one.b)).copy()
            recurrent = own.get("bias_hh" + end, np.zeros_like(one.b)).copy()
            if cell == "gru":
                assert np.array_equal(one.bn, recurrent[2 * H :])
                recurrent[2 * H :] = 0
            assert np.array_equal(one.b, b + recurrent)
    back = fb.to_torch(layer)
    again = fb.from_torch(back)
    assert type(back) is type(module) and repr(again) == repr(layer)
    for one, other in zip(layer.arrays(), again.arrays(), strict=True):
        assert one.dtype == other.dtype == np.dtype(dtype) and np.array_equal(one, other)
    x = torch.zeros(T, B, I, dtype=back.weight_ih_l0.dtype)
    given = x.transpose(0, 1) if module.batch_first else x
    out = module(given)[0]
    out = out.transpose(0, 1) if module.batch_first else out
    assert_close(numbers(back(x)[0]), numbers(out), STATES[dtype])


LAYERS = ["rnn-relu", "lstm", "gru|gru", "lstm|lstm"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", LAYERS)
def test_a_layer_made_here_comes_back_to_the_bit(cell, dtype):
    rng = np.random.default_rng(0)
    layer = make_layer(cell, I, H, dtype, rng)
    more = make_layer(cell, layer.outputs, H, dtype, rng)
    for made in (layer, fb.Stack([layer, more], 0.25)):
        module = fb.to_torch(made)
        again = fb.from_torch(module)
        assert repr(again) == repr(made)
        assert all(map(np.array_equal, again.arrays(), made.arrays()))
        x = rng.standard_normal((T, B, I)).astype(dtype)
        out = module.eval()(torch.from_numpy(x))[0]
        assert_close(fb.run(made, x)[0], numbers(out), STATES[dtype])
    assert module.dropout == 0.25 and again.dropout == 0.25


def test_a_stack_of_one_is_a_module_of_one_layer():
    layer = fb.LSTM.init(I, H, rng=0)
    module = fb.to_torch(fb.Stack([layer], 0.5))
    assert module.num_layers == 1
    assert all(map(np.array_equal, fb.from_torch(module).arrays(), layer.arrays()))


def test_arrays_and_parameters_are_copies_and_torchs_generator_stays_where_it_is():
    module = make("lstm", "stack", "float32")
    before = torch.get_rng_state()
    layer = fb.from_torch(module)
    back = fb.to_torch(layer)
    assert torch.equal(torch.get_rng_state(), before)
    kept = [array.copy() for array in layer.arrays()]
    with torch.no_grad():
        for parameter in (*module.parameters(), *back.parameters()):
            parameter.zero_()
    assert all(map(np.array_equal, layer.arrays(), kept))
    assert all(array.flags.writeable and array.flags.owndata for array in layer.arrays())
    assert all(p.requires_grad and p.is_leaf for p in back.parameters())


def test_the_dropout_of_a_module_is_that_of_the_stack():
    module = torch.nn.GRU(I, H, num_layers=2, dropout=0.3)
    layer = fb.from_torch(module)
    assert layer.dropout == 0.3
    x = np.ones((T, B, I), "f4")
    assert_close(fb.run(layer, x)[0], numbers(module.eval()(torch.from_numpy(x))[0]), 1e-5)
    rejected(lambda: fb.forward(layer, x), "seed", errors=(ValueError,))


rng = np.random.default_rng(0)
lstm, gru = fb.LSTM.init(I, H, rng=rng), fb.GRU.init(I, H, rng=rng)
above, broad = fb.LSTM.init(H, H, rng=rng), fb.LSTM.init(H, H + 1, rng=rng)
WRONG = {
    "projections": (
        lambda: fb.from_torch(torch.nn.LSTM(I, H, proj_size=2)),
        "module",
        "proj_size",
        "2",
    ),
    "a cell": (lambda: fb.from_torch(torch.nn.LSTMCell(I, H)), "module", "LSTMCell"),
    "a linear map": (lambda: fb.from_torch(torch.nn.Linear(I, H)), "module", "Linear"),
    "one of ours": (lambda: fb.from_torch(lstm), "module", "LSTM"),
    "nothing": (lambda: fb.from_torch(None), "module", "None"),
    "half precision": (lambda: fb.from_torch(torch.nn.GRU(I, H).half()), "module", "float16"),
    "brain floats": (lambda: fb.from_torch(torch.nn.GRU(I, H).bfloat16()), "module", "bfloat16"),
    "no numbers": (lambda: fb.from_torch(torch.nn.RNN(I, H, device="meta")), "module", "meta"),
    "peepholes": (
        lambda: fb.to_torch(fb.LSTM.init(I, H, rng=0, peepholes=True)),
        "layer",
        "peepholes",
    ),
    "reset before": (
        lambda: fb.to_torch(fb.GRU.init(I, H, rng=0, reset="before")),
        "layer",
        "reset",
        "'before'",
    ),
    "sigmoid": (
        lambda: fb.to_torch(fb.RNN.init(I, H, rng=0, activation="sigmoid")),
        "layer",
        "'sigmoid'",
    ),
    "identity": (
        lambda: fb.to_torch(fb.RNN.init(I, H, rng=0, activation="identity")),
        "layer",
        "'identity'",
    ),
    "other widths": (
        lambda: fb.to_torch(fb.Stack([lstm, broad])),
        "layer.layers[1]",
        str(H),
        str(H + 1),
    ),
    "other cells": (lambda: fb.to_torch(fb.Stack([gru, above])), "layer.layers[1]", "GRU", "LSTM"),
    "other activations": (
        lambda: fb.to_torch(
            fb.Bidirectional(fb.RNN.init(I, H, rng=0), fb.RNN.init(I, H, rng=0, activation="relu"))
        ),
        "layer",
        "'tanh'",
        "'relu'",
    ),
    "other directions": (
        lambda: fb.to_torch(
            fb.Stack([fb.Bidirectional(lstm, lstm), fb.LSTM.init(2 * H, H, rng=0)])
        ),
        "layer",
        "Bidirectional",
    ),
    "a network": (lambda: fb.to_torch(fb.Network(lstm, None)), "layer", "Network"),
    "a readout": (lambda: fb.to_torch(fb.Readout.init(3, 2, rng=0)), "layer", "Readout"),
    "a module": (lambda: fb.to_torch(torch.nn.Linear(I, H)), "layer", "Linear"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_the_other_side_does_not_have_is_named(wrong):
    call, *words = WRONG[wrong]
    rejected(call, *words)


def test_a_cell_of_ones_own_has_no_module():
    square = fb.Activation("square", lambda a: np.maximum(a, 0) ** 2, lambda s: 2 * s**0.5)
    layer = fb.RNN.init(I, H, rng=0, activation=square)
    rejected(lambda: fb.to_torch(layer), "layer", "tanh", errors=(ValueError,))


def test_without_pytorch_the_package_works_and_these_two_name_it():
    code = """
import sys
sys.modules["torch"] = None  # what an import of a package that is not there comes to
import fastbptt as fb
layer = fb.LSTM.init(2, 3, rng=0)
for call in (fb.from_torch, fb.to_torch):
    try:
        call(layer)
    except ImportError as error:
        print("torch" in str(error), call.__name__ in str(error))
"""
    assert run_python(code).split() == ["True"] * 4


def test_importing_the_package_imports_no_pytorch():
    assert "torch" in sys.modules
    code = "import sys, fastbptt as fb; fb.from_torch, fb.to_torch; print('torch' in sys.modules)"
    assert run_python(code).split() == ["False"]
