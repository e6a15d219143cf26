"""accelerate: which modules of a model change, what stays, and what is left with a warning."""

import copy
import warnings

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
import fastbptt.torch as ft  # noqa: E402


class Tagger(torch.nn.Module):
    """Recurrent modules inside others, one of them twice."""

    def __init__(self):
        super().__init__()
        self.lift = torch.nn.Linear(3, 4)
        self.blocks = torch.nn.ModuleList(
            [torch.nn.GRU(4, 4, batch_first=True), torch.nn.RNN(4, 4, batch_first=True)]
        )
        self.top = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(4, 5, 2, batch_first=True)})
        self.again = self.blocks[0]

    def forward(self, x):
        x = self.lift(x)
        for layer in (*self.blocks, self.again):
            x = layer(x)[0]
        return self.top["lstm"](x)[0]


def gradients(model, x):
    model.zero_grad()
    out = model(x)
    out.square().sum().backward()
    return [out.detach(), *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("memory", ["full", "300kB"])
def test_a_model_computes_the_same_with_the_same_parameters(memory):
    torch.manual_seed(0)
    model, x = Tagger().double(), torch.randn(2, 30, 3, dtype=torch.float64)
    due, parameters = gradients(model, x), list(model.parameters())
    names, ids = list(model.state_dict()), [id(p) for p in parameters]
    assert ft.accelerate(model, memory) is model
    kinds = [type(m) for m in model.modules() if isinstance(m, torch.nn.RNNBase)]
    assert kinds == [ft.GRU, ft.RNN, ft.LSTM]
    assert model.again is model.blocks[0] and model.top["lstm"].memory == memory
    assert [id(p) for p in model.parameters()] == ids and list(model.state_dict()) == names
    for a, b in zip(gradients(model, x), due, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_bare_module_changes_its_class_and_keeps_its_hooks(kind):
    module, seen = getattr(torch.nn, kind)(3, 4), []
    module.register_forward_hook(lambda *given: seen.append(given[0]))
    module.eval()
    assert ft.accelerate(module) is module and type(module) is getattr(ft, kind)
    module(torch.zeros(2, 1, 3))
    assert seen == [module] and not module.training
    assert copy.deepcopy(module).memory == "full"
    assert ft.accelerate(module, memory="1MB") is module  # ours are left: they have a memory
    assert module.memory == "full"


class Own(torch.nn.LSTM):
    pass


def parametrised():
    module = torch.nn.GRU(3, 4)
    return torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")


LEFT = {
    "a subclass": lambda: Own(3, 4),
    "parametrised": parametrised,
    "proj_size": lambda: torch.nn.LSTM(3, 4, proj_size=2),
    "torch.bfloat16": lambda: torch.nn.GRU(3, 4, dtype=torch.bfloat16),
    "torch.float16": lambda: torch.nn.RNN(3, 4, dtype=torch.float16),
    "dropout": lambda: torch.nn.RNN(3, 4, 2, dropout=1.0),
}


def test_what_cannot_be_computed_is_left_with_one_warning():
    parts = [make() for make in LEFT.values()]
    model = torch.nn.ModuleList([*parts, torch.nn.LSTM(3, 4)])
    before = [type(module) for module in parts]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ft.accelerate(model)
    assert len(caught) == 1 and caught[0].filename == __file__
    text = str(caught[0].message)
    for index, why in enumerate(LEFT):
        assert f"{index} ({why}" in text
    assert f"{len(parts)} (" not in text
    assert [type(module) for module in model] == [*before, ft.LSTM]


@pytest.mark.parametrize("memory, error", [("12 apples", ValueError), (1.5, TypeError)])
def test_a_wrong_memory_changes_nothing(memory, error):
    model = Tagger()
    with pytest.raises(error, match="memory"):
        ft.accelerate(model, memory)
    assert type(model.again) is torch.nn.GRU
    with pytest.raises(TypeError, match="model"):
        ft.accelerate([model])
