"""PyTorch as an outside oracle: torch.nn.RNN, GRU and LSTM in float64, with autograd."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import (
    DTYPES,
    GRADIENTS,
    LOSSES,
    STATES,
    assert_close,
    flatten,
    make_problem,
    spoil_beyond,
    wide,
)

import fastbptt as fb

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

CELLS = ["rnn-tanh", "rnn-relu", "lstm", "gru"]
SIZES = [(12, 3, 4, 9, 5), (1, 1, 1, 1, 1), (60, 2, 33, 40, 7)]


def module_of(layer):
    """The torch module with the layer's weights; its second bias is zero but where a GRU has bn."""
    sizes = layer.U.shape[1], layer.W.shape[1]
    if isinstance(layer, fb.RNN):
        module = torch.nn.RNN(*sizes, nonlinearity=layer.activation).double()
    else:
        module = getattr(torch.nn, type(layer).__name__)(*sizes).double()
    weights = {"weight_ih_l0": layer.U, "weight_hh_l0": layer.W, "bias_ih_l0": layer.b}
    with torch.no_grad():
        for name, array in weights.items():
            getattr(module, name).copy_(torch.from_numpy(wide(array)))
        module.bias_hh_l0.zero_()
        if isinstance(layer, fb.GRU):
            module.bias_hh_l0[-sizes[1] :] = torch.from_numpy(wide(layer.bn))
    return module


def leaf(array):
    return torch.from_numpy(np.array(array, float)).requires_grad_()


def run(q, lengths=None):
    """Run the torch module on x from the initial state; all leaves and results in one namespace."""
    module, x = module_of(q.layer), leaf(q.x)
    state = tuple(leaf(part[None]) for part in (q.state if is_lstm(q) else (q.state,)))
    given = x
    if lengths is not None:
        given = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    h, final = module(given, state if is_lstm(q) else state[0])
    if lengths is not None:
        h, _ = torch.nn.utils.rnn.pad_packed_sequence(h, total_length=q.T)
    final = final if is_lstm(q) else (final,)
    return SimpleNamespace(module=module, x=x, state=state, h=h, final=final)


def is_lstm(q):
    return isinstance(q.layer, fb.LSTM)


def numbers(tensor):
    return tensor.detach().numpy()


def assert_layer_gradient(g, module, tolerance):
    assert_close(g.U, numbers(module.weight_ih_l0.grad), tolerance, "U")
    assert_close(g.W, numbers(module.weight_hh_l0.grad), tolerance, "W")
    assert_close(g.b, numbers(module.bias_ih_l0.grad), tolerance, "b")
    if isinstance(g, fb.GRU):
        assert_close(g.bn, numbers(module.bias_hh_l0.grad)[-len(g.bn) :], tolerance, "bn")


@pytest.mark.parametrize("ends", ["whole", "packed"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_states_and_gradients_are_those_of_torch(cell, sizes, dtype, ends):
    q = make_problem(cell, sizes, dtype)
    lengths = np.maximum(q.lengths, 1) if ends == "packed" else None  # torch packs no empty one
    t = run(q, lengths)
    x, dh = q.x, q.dh
    if lengths is not None:
        x, dh = spoil_beyond(x, lengths), spoil_beyond(dh, lengths)
    h, state, cache = fb.forward(q.layer, x, q.state, lengths=lengths)
    assert_close(h, numbers(t.h), STATES[dtype], "h")
    for ours, theirs in zip(flatten(state), t.final, strict=True):
        assert_close(ours, numbers(theirs[0]), STATES[dtype], "final state")

    total = (t.h * torch.from_numpy(wide(q.dh))).sum()
    for part, gradient in zip(t.final, flatten(q.dstate), strict=True):
        total = total + (part[0] * torch.from_numpy(wide(gradient))).sum()
    total.backward()
    g = fb.backward(cache, dh, q.dstate)
    assert_layer_gradient(g.layer, t.module, GRADIENTS[dtype])
    assert_close(g.x, numbers(t.x.grad), GRADIENTS[dtype], "x")
    for ours, theirs in zip(flatten(g.state), t.state, strict=True):
        assert_close(ours, numbers(theirs.grad[0]), GRADIENTS[dtype], "initial state")


def torch_loss(name, a, y):
    """The summed loss of pre-activations a and targets y (float64 or class ids)."""
    functional = torch.nn.functional
    if name == "cross_entropy":
        return functional.cross_entropy(a.flatten(0, 1), y.flatten(), reduction="sum")
    if name == "binary_cross_entropy":
        return functional.binary_cross_entropy_with_logits(a, y, reduction="sum")
    return ((a - y) ** 2).sum()


@pytest.mark.parametrize("memory", ["full", fb.Checkpointed(segment=5)], ids=["full", "segments"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss, head", [("squared_error", "identity"), ("cross_entropy", "softmax"),
                                        ("binary_cross_entropy", "sigmoid")])  # fmt: skip
@pytest.mark.parametrize("cell", CELLS)
def test_a_training_step_is_that_of_torch(cell, loss, head, dtype, memory):
    q = make_problem(cell, (12, 3, 4, 9, 5), dtype, loss, head)
    t, V, c = run(q), leaf(q.readout.V), leaf(q.readout.c)
    due = torch_loss(loss, t.h @ V.T + c, torch.from_numpy(wide(q.y)))
    due.backward()
    r = fb.bptt(q.network, q.x, q.y, loss, state=q.state, memory=memory, input_grad=True)
    assert_close(r.loss, due.item(), LOSSES[dtype])
    assert_layer_gradient(r.grad.layer, t.module, GRADIENTS[dtype])
    assert_close(r.grad.readout.V, numbers(V.grad), GRADIENTS[dtype], "V")
    assert_close(r.grad.readout.c, numbers(c.grad), GRADIENTS[dtype], "c")
    assert_close(r.grad_x, numbers(t.x.grad), GRADIENTS[dtype], "x")
    for ours, theirs in zip(flatten(r.grad_state), t.state, strict=True):
        assert_close(ours, numbers(theirs.grad[0]), GRADIENTS[dtype], "initial state")


@pytest.mark.parametrize("cell", CELLS)
def test_tokens_are_torchs_one_hot_vectors(cell):
    q = make_problem(cell, (12, 3, 6, 9, 5), tokens=True)
    ids, q.x = q.x, np.eye(6)[q.x]
    t = run(q)
    (t.h * torch.from_numpy(q.dh)).sum().backward()
    g = fb.backward(fb.forward(q.layer, ids, q.state)[2], q.dh)
    assert_layer_gradient(g.layer, t.module, GRADIENTS["float64"])
