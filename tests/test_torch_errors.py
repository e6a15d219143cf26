"""What fastbptt.torch refuses, before any work, with a message that names the way out."""

import pytest

import fastbptt as fb

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

import fastbptt.torch as ft  # noqa: E402

T, B, I, H = 4, 2, 3, 5
lstm, gru = ft.LSTM(I, H), ft.GRU(I, H)
x, plane = torch.zeros(T, B, I), torch.zeros(1, B, H)
weights = list(gru.parameters())
packed = torch.nn.utils.rnn.pack_padded_sequence(x, [4, 2])


def autocast_double():
    with torch.autocast("cpu", torch.bfloat16):
        gru(x.double())


def on_a_gpu(make=ft.GRU):
    """A module whose parameters have shapes, and say that they are on a GPU."""
    module = make(I, H, device="meta")
    with FakeTensorMode():
        for name, own in list(module.named_parameters()):
            setattr(module, name, torch.nn.Parameter(torch.empty(own.shape, device="cuda")))
    return module


CASES = {
    "gpu": (TypeError, "one device", "cuda:0 and cpu", lambda: on_a_gpu()(x)),
    "proj_size": (ValueError, "proj_size", "Linear", lambda: ft.LSTM(I, H, proj_size=2)),
    "dropout": (ValueError, "dropout", "below 1", lambda: ft.GRU(I, H, 2, dropout=1.0)),
    "nonlinearity": (ValueError, "nonlinearity", "'relu'", lambda: ft.RNN(I, H, nonlinearity="x")),
    "nonlinearity 4th": (ValueError, "nonlinearity", "'x'", lambda: ft.RNN(I, H, 1, "x")),
    "memory": (ValueError, "memory", "64MB", lambda: ft.GRU(I, H, memory="much")),
    "memory type": (TypeError, "memory", "Truncated", lambda: ft.GRU(I, H, memory=0.5)),
    "memory of a call": (ValueError, "memory", "64MB", lambda: gru(x, memory="much")),
    "memory set": (TypeError, "memory", "list", lambda: setattr(gru, "memory", [])),
    "budget": (fb.MemoryLimitError, "memory", "least", lambda: gru(x, memory=10)),
    "no tensor": (TypeError, "input", "ndarray", lambda: gru(x.numpy())),
    "list": (TypeError, "input", "list", lambda: ft.GRU(I, H, batch_first=True)([[0.0]])),
    "axes": (ValueError, "input", "(4, 2, 3, 1)", lambda: gru(x[..., None])),
    "features": (ValueError, "input", "3 features", lambda: gru(x[..., :2])),
    "float64": (TypeError, "input", ".to", lambda: gru(x.double())),
    "half input": (TypeError, "input", "float16", lambda: gru(x.half())),
    "autocast float64": (TypeError, "input", "float64", autocast_double),
    "integers": (TypeError, "input", "int64", lambda: gru(x.long())),
    "half weights": (TypeError, "weights", "autocast", lambda: ft.GRU(I, H).half()(x.half())),
    "bfloat16": (TypeError, "weights", ".float()", lambda: ft.GRU(I, H).bfloat16()(x)),
    "complex": (TypeError, "input", "complex64", lambda: gru(x.cfloat())),
    "device": (TypeError, "one device", "meta", lambda: gru(x.to("meta"))),
    "hx device": (TypeError, "one device", ".to", lambda: gru(x, plane.to("meta"))),
    "hx shape": (ValueError, "hx", "(1, 2, 5)", lambda: gru(x, plane[:, :1])),
    "hx rows": (ValueError, "hx", "(1, 2, 5)", lambda: gru(x, plane.expand(2, B, H))),
    "hx dtype": (TypeError, "hx", "float64", lambda: gru(x, plane.double())),
    "hx pair": (TypeError, "hx", "pair", lambda: lstm(x, plane)),
    "hx three": (TypeError, "hx", "pair", lambda: lstm(x, (plane, plane, plane))),
    "hx no tensors": (TypeError, "hx", "pair", lambda: lstm(x, (0, 0))),
    "hx of a gru": (TypeError, "hx", "tuple", lambda: gru(x, (plane, plane))),
    "c shape": (ValueError, "hx[1]", "(1, 2, 5)", lambda: lstm(x, (plane, plane[..., :3]))),
    "lengths": (ValueError, "lengths", "(2,)", lambda: gru(x, lengths=[1, 2, 3])),
    "lengths dtype": (TypeError, "lengths", "float", lambda: gru(x, lengths=[1.0, 2.0])),
    "lengths range": (ValueError, "lengths", "4", lambda: gru(x, lengths=[1, 5])),
    "resets": (ValueError, "resets", "(4, 2)", lambda: gru(x, resets=torch.ones(B, T) > 0)),
    "resets dtype": (TypeError, "resets", "int64", lambda: gru(x, resets=torch.ones(T, B).long())),
    "packed": (ValueError, "lengths", "PackedSequence", lambda: gru(packed, lengths=[4, 2])),
    "kind": (ValueError, "layer_kind", "LSTM", lambda: ft.recurrent("lst", x, None, weights)),
    "weights": (ValueError, "weights", "4", lambda: ft.recurrent("gru", x, None, weights[:3])),
    "layers": (ValueError, "weights", "2 layers",
               lambda: ft.recurrent("gru", x, None, weights, num_layers=2, bidirectional=True)),
    "no layers": (ValueError, "num_layers", "0",
                  lambda: ft.recurrent("gru", x, None, weights, num_layers=0)),
    "gates": (ValueError, "W", "20", lambda: ft.recurrent("lstm", x, None, weights)),
    "probability": (ValueError, "dropout", "1.5",
                    lambda: ft.recurrent("gru", x, None, weights, dropout=1.5)),
    "mixed weights": (TypeError, "weights", "float64",
                      lambda: ft.recurrent("gru", x, None, [*weights[:3], weights[3].double()])),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_error_names_the_argument_and_the_way_out(name):
    error, argument, hint, call = CASES[name]
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert argument in text and hint in text, text
    assert gru.memory == "full"


def test_a_gpu_without_what_it_needs_is_an_error_and_accelerate_leaves_it(monkeypatch):
    monkeypatch.setattr("fastbptt.backends.devices.missing_gpu", lambda: "CUDA kernels need it")
    module = on_a_gpu(torch.nn.GRU)
    with pytest.warns(UserWarning, match="on cuda: CUDA kernels need it"):
        assert type(ft.accelerate(module)) is torch.nn.GRU
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr("fastbptt.torch.views.stream_of", lambda tensor: 0)
    with pytest.raises(RuntimeError, match="the device of the tensors is 'cpu', but CUDA kernels"):
        gru(x)
