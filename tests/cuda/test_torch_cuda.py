"""fastbptt.torch on tensors of a GPU: no copies, PyTorch's current stream, the CPU's results.

In the simulator a CPU's tensors of floats say that they are on a GPU, and CuPy is `mirror`.
"""

from types import SimpleNamespace

import mirror
import numpy as np
import pytest
from fastbptt.kernels.cuda import runtime

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
import fastbptt.torch as ft  # noqa: E402
from fastbptt.torch import operators  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("strict"),
    pytest.mark.skipif(not runtime.SIMULATED, reason="test_on_a_gpu.py has these on a GPU"),
]
T, B, I, H, STREAM = 4, 2, 3, 2, 9


@pytest.fixture
def launched(monkeypatch):
    """Floats are on a GPU from now on; returns the streams that kernels are launched on."""
    there, here, streams = torch.device("cuda", 0), torch.device("cpu"), []
    for name, values in (("is_cuda", (False, True)), ("is_cpu", (True, False)),
                         ("device", (here, there))):  # fmt: skip
        own = property(lambda tensor, values=values: values[tensor.is_floating_point()])
        monkeypatch.setattr(torch.Tensor, name, own)
    move = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda tensor, *to: tensor if to == (there,) else move(tensor, *to)
    )
    own = SimpleNamespace(cuda_stream=STREAM)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: own)
    launch = runtime.simulate

    def watched(*given):
        streams.append(mirror.current[-1].address)
        launch(*given)

    monkeypatch.setattr(runtime, "simulate", watched)
    return streams


def results(module, x, hx, **call):
    """The output, the state, and all gradients."""
    given = [x, *(hx if isinstance(hx, tuple) else [] if hx is None else [hx])]
    for leaf in (*given, *module.parameters()):
        leaf.grad = None
    torch.manual_seed(1)
    out, state = module(x, hx, **call)
    out = getattr(out, "data", out)
    state = state if isinstance(state, tuple) else (state,)
    sum(part.square().sum() for part in (out, *state)).backward()
    return [*(a.detach() for a in (out, *state)), *(a.grad for a in (*given, *module.parameters()))]


def leaf(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


CASES = {
    "rnn": (ft.RNN, {}, {}),
    "gru": (ft.GRU, {"num_layers": 2, "dropout": 0.5, "bias": False}, {"memory": "2MB"}),
    "lstm": (ft.LSTM, {"bidirectional": True}, {"lengths": torch.tensor([2, 4])}),
}


@pytest.mark.parametrize("name", CASES)
def test_results_are_the_cpus_on_pytorchs_stream(name, request):
    make, options, call = CASES[name]
    torch.manual_seed(0)
    module = make(I, H, dtype=torch.float64, **options)
    planes = (1 + module.bidirectional) * module.num_layers
    x, hx = leaf(T, B, I), leaf(planes, B, H)
    hx = (hx, leaf(planes, B, H)) if make is ft.LSTM else hx
    due = results(module, x, hx, **call)
    launched = request.getfixturevalue("launched")
    for a, b in zip(results(module, x, hx, **call), due, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert set(launched) == {STREAM} and mirror.current == [mirror.Stream.null]
    assert mirror.Stream.null.after[-1] == STREAM  # what CuPy does next comes after it
    with torch.no_grad():
        out = module.eval()(x, hx, **call)[0]
    assert out.shape == due[0].shape


def test_nothing_is_copied_either_way(launched, monkeypatch):
    module, seen = ft.GRU(I, H), []
    forward, backward = operators.layerwise.forward, operators.layerwise.backward

    def watched(layer, x, *given, **more):
        found = forward(layer, x, *given, **more)
        seen.extend([x, layer.U, layer.W, layer.bn, found[0]])
        return found

    def watched_back(cache, dh, *given, **more):
        g = backward(cache, dh, *given, **more)
        seen.extend([dh, g.x, g.layer.U, g.layer.W])
        return g

    monkeypatch.setattr(operators.layerwise, "forward", watched)
    monkeypatch.setattr(operators.layerwise, "backward", watched_back)
    x, dh = torch.randn(2 * T, B, 2 * I)[::2, :, ::2].requires_grad_(), torch.randn(T, B, H)
    monkeypatch.setattr("fastbptt.torch.views._SMALL", 0)
    out = module(x)[0]
    weights = [module.weight_ih_l0, module.weight_hh_l0]
    found = torch.autograd.grad(out, [x, *weights], dh)
    tensors = [x, *weights, module.bias_hh_l0[2 * H :], out, dh, *found]
    for array, tensor in zip(seen, tensors, strict=True):
        assert isinstance(array, mirror.DeviceArray)
        assert np.shares_memory(array.inside, tensor.detach().numpy())


def test_a_packed_sequence_and_a_moved_token(request):
    module, x = ft.LSTM(I, H, dtype=torch.float64), leaf(T, B, I)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [2, 4], enforce_sorted=False)
    request.getfixturevalue("launched")
    due = results(module, x, None, lengths=[2, 4])
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda saved: saved):
        found = results(module, x, None, lengths=[2, 4])
    assert all(torch.equal(a, b) for a, b in zip(found, due, strict=True))
    ours, _ = torch.nn.utils.rnn.pad_packed_sequence(module(packed)[0])
    assert torch.equal(ours, due[0])


def test_auto_asks_the_gpu_in_a_graph(launched):
    from fastbptt.kernels.cuda import gpus

    from fastbptt.torch import spec

    assert spec.half_of_free_memory("cuda:0") == str(gpus.free_bytes(0) // 2)
