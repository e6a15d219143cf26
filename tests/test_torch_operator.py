"""The operator beneath fastbptt.torch: PyTorch's own checks, compiled and exported models."""

import gc
import pickle
import shutil

import numpy as np
import pytest
from checks import run_python

import fastbptt as fb

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
import fastbptt.torch as ft  # noqa: E402
from fastbptt.torch import operators  # noqa: E402

T, B, I, H = 5, 3, 2, 4
MODES = ["RNN_TANH", "RNN_RELU", "GRU", "LSTM"]
# Dynamo and the exporter use names that PyTorch itself is giving up.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def module_of(mode, **options):
    torch.manual_seed(2)
    name, _, nonlinearity = mode.partition("_")
    if nonlinearity:
        options["nonlinearity"] = nonlinearity.lower()
    return getattr(ft, name)(I, H, **{"dtype": torch.float64, **options})


def arguments_of(mode, ends=False):
    module = module_of(mode, num_layers=2, bidirectional=True)
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    count = 1 + (mode == "LSTM")
    hx = [torch.randn(4, B, H, dtype=torch.float64, requires_grad=True) for _ in range(count)]
    more = (None, None, None)
    if ends:
        resets = torch.zeros(T, B, dtype=torch.bool)
        resets[2] = True
        more, hx = (torch.tensor([5, 2, 4]), resets, torch.tensor(7)), []
    text = f"{mode};2;2;{0.5 if ends else 0.0};full"
    return x, hx, list(module.parameters()), *more, text, True


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_opcheck(mode, ends):
    given = arguments_of(mode, ends)
    found = torch.library.opcheck(operators.forward, given)
    assert len(found) == 4 and set(found.values()) == {"SUCCESS"}
    h, h_n, c_n, token = (part.detach() for part in operators.forward(*given))
    states = [h_n, c_n] if mode == "LSTM" else [h_n]
    back = (token, h, states, *(a.detach() for a in given[:1]), [a.detach() for a in given[1]],
            [a.detach() for a in given[2]], *given[3:7], True)  # fmt: skip
    found = torch.library.opcheck(operators.backward, back)
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("mode", MODES)
def test_gradcheck(mode):
    x, hx, weights, *_ = arguments_of(mode)

    def call(x, *rest):
        states = tuple(rest[: len(hx)]) if len(hx) == 2 else rest[0]
        h, final = ft.recurrent(mode, x, states, rest[len(hx) :], num_layers=2, bidirectional=True)
        return (h, *final) if len(hx) == 2 else (h, final)

    assert torch.autograd.gradcheck(call, (x, *hx, *weights), fast_mode=True)


class Between(torch.nn.Module):
    """Linear, LSTM, Linear."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(3)
        self.up = torch.nn.Linear(I, 3)
        self.lstm = ft.LSTM(3, H, 2, batch_first=True, **options)
        self.down = torch.nn.Linear(H, 2)

    def forward(self, x, **call):
        return self.down(self.lstm(self.up(x), **call)[0])


def gradients(model, forward, *given, **call):
    model.zero_grad()
    torch.manual_seed(4)
    out = forward(*given, **call)
    out.square().sum().backward()
    return [out.detach(), *(p.grad.clone() for p in model.parameters())]


CALLS = {
    "plain": ({}, {}),
    "dropout": ({"dropout": 0.5}, {}),
    "any size": ({"dropout": 0.5}, {}),
    "a budget": ({"memory": "1MB"}, {}),
    "a budget for the call": ({}, {"memory": "1MB"}),
    "a policy": ({}, {"memory": fb.Truncated(2, 3)}),
    "auto": ({"memory": "auto"}, {}),
    "lengths": ({}, {"lengths": torch.tensor([5, 1, 4])}),
    "resets": ({}, {"resets": torch.eye(5, dtype=torch.bool)[:3]}),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_compiled_model_has_no_graph_breaks_and_the_same_gradients(name):
    torch._dynamo.reset()
    options, call = CALLS[name]
    model, x = Between(**options), torch.randn(B, T, I)
    dynamic = True if name == "any size" else None
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    due, found = (gradients(model, f, x, **call) for f in (model, compiled))
    for a, b in zip(due, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not shutil.which("gcc"), reason="inductor needs a C compiler")
def test_inductor_compiles_a_model():
    torch._dynamo.reset()
    model, x = Between(), torch.randn(B, T, I)
    compiled = torch.compile(model, fullgraph=True)
    due, found = gradients(model, model, x), gradients(model, compiled, x)
    for a, b in zip(due, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grad", [False, True])
def test_an_exported_model_takes_any_length_and_batch(grad):
    model = Between()
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("steps")}
    with torch.set_grad_enabled(grad):
        program = torch.export.export(model, (torch.randn(B, T, I),), dynamic_shapes=(sizes,))
    assert "fastbptt.recurrent" in str(program.graph)
    x = torch.randn(2, 17, I)
    assert torch.equal(program.module()(x), model(x))


def test_auto_is_a_budget_in_a_graph():
    model = Between(memory="auto")
    program = torch.export.export(model, (torch.randn(B, T, I),))
    (text,) = (a for n in program.graph.nodes for a in n.args if str(a).startswith("LSTM;"))
    assert 1e6 < operators.decode(text).memory < 1e15
    seen = []

    def backend(graph, inputs):
        seen.extend(a for n in graph.graph.nodes for a in n.args if str(a).startswith("LSTM;"))
        return graph

    torch._dynamo.reset()
    torch.compile(model, fullgraph=True, backend=backend)(torch.randn(B, T, I))
    assert len(seen) == 1 and 1e6 < operators.decode(seen[0]).memory < 1e15
    assert model.lstm.memory == "auto"


def counted(monkeypatch):
    """How often the way forward has been run, with a cache and without."""
    seen = {"forward": 0, "run": 0}
    for name in seen:
        own = getattr(operators.layerwise, name)

        def count(*given, name=name, own=own, **more):
            seen[name] += 1
            return own(*given, **more)

        monkeypatch.setattr(operators.layerwise, name, count)
    return seen


def test_nothing_is_kept_where_there_is_no_way_back(monkeypatch):
    seen, module = counted(monkeypatch), module_of("LSTM", num_layers=2, dropout=0.5)
    x = torch.randn(T, B, I, dtype=torch.float64)
    module.eval()
    with torch.no_grad():
        quiet = module(x)[0]
    module.requires_grad_(False)
    assert torch.equal(module(x)[0], quiet)
    assert seen == {"forward": 0, "run": 2} and not operators._owners
    module.train()
    torch.manual_seed(5)
    noisy = module(x)[0]
    module.requires_grad_(True)
    torch.manual_seed(5)
    assert torch.equal(module(x)[0], noisy) and not torch.equal(noisy, quiet)


def test_a_cache_lives_as_long_as_its_graph():
    module, x = module_of("GRU"), torch.randn(T, B, I, dtype=torch.float64)
    outs = [module(x)[0] for _ in range(2)]
    assert len(operators._owners) == 2
    outs[0].sum().backward()
    assert len(operators._owners) == 1
    del outs
    gc.collect()
    assert not operators._owners


def test_the_graph_may_be_kept_and_used_again(monkeypatch):
    seen, module = counted(monkeypatch), module_of("LSTM")
    out, _ = module(torch.randn(T, B, I, dtype=torch.float64))
    first, again = (torch.autograd.grad(out.sum(), module.parameters(), retain_graph=True)
                    for _ in range(2))  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert seen["forward"] == 1


@pytest.mark.parametrize("mode", MODES)
def test_without_its_cache_the_way_back_runs_forward_again(mode, monkeypatch):
    module = module_of(mode, num_layers=2, dropout=0.5)
    x = torch.randn(T, B, I, dtype=torch.float64)
    due = gradients(module, lambda x: module(x)[0], x)
    seen = counted(monkeypatch)
    copying = torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda saved: saved)
    with copying:  # the token, too
        found = gradients(module, lambda x: module(x)[0], x)
    assert seen["forward"] == 2
    assert all(torch.equal(a, b) for a, b in zip(due, found, strict=True))


def test_checkpointed_modules_have_the_same_gradients():
    module, x = module_of("LSTM"), torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    again = torch.utils.checkpoint.checkpoint
    due = gradients(module, lambda x: module(x)[0], x)
    found = gradients(module, lambda x: again(module, x, use_reentrant=False)[0], x)
    assert all(torch.equal(a, b) for a, b in zip(due, found, strict=True))


def test_a_second_derivative_is_an_error_that_names_the_way_out():
    module, x = module_of("GRU"), torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"second derivatives.*torch\.nn\.RNN.*load_state_dict"):
        g.square().sum().backward()


def test_weights_changed_before_the_way_back_are_torchs_own_error():
    module = module_of("LSTM")
    out, _ = module(torch.randn(T, B, I, dtype=torch.float64))
    with torch.no_grad():
        module.weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_importing_fastbptt_does_not_import_torch():
    code = "import sys, fastbptt as fb; fb.LSTM, fb.forward; assert 'torch' not in sys.modules"
    run_python(code)


def test_results_share_no_memory():
    module, x = module_of("LSTM", bidirectional=True), np.ones((T, B, I))
    out, state = module(torch.from_numpy(x))
    gradient = torch.autograd.grad(out.sum(), module.parameters())
    found = [a.detach().numpy() for a in (out, *state, *gradient, *module.parameters())]
    for k, a in enumerate(found):
        assert not any(np.shares_memory(a, b) for b in (*found[:k], x))


def test_pickled_policies_and_texts_are_read_again():
    for memory in ("full", "auto", "3MB", 5000, fb.Full(), fb.Checkpointed("3MB"),
                   fb.Checkpointed(segment=4), fb.Truncated(2, 3)):  # fmt: skip
        module = pickle.loads(pickle.dumps(module_of("GRU", memory=memory)))
        text = f"GRU;1;1;0.0;{module.memory}"
        assert operators.decode(text).memory == memory
