"""fastbptt.torch's modules in use: copied, saved, hooked, tied, in two processes."""

import copy
import io
import pickle
import sys
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from checks import OBJECTS, run_python
from fastbptt.kernels.cpu.memory import _held
from test_docstrings import items, parameters, sections

import fastbptt as fb

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from torch.nn.utils import prune  # noqa: E402

import fastbptt.torch as ft  # noqa: E402

T, B, I, H = 6, 4, 3, 4
CLASSES = ["RNN", "GRU", "LSTM"]


def made(name, package=ft, **options):
    torch.manual_seed(6)
    return getattr(package, name)(I, H, **options)


def step(module, x):
    """The output, and the gradient of its squares by every parameter."""
    module.zero_grad()
    out = module(x)[0]
    out.square().sum().backward()
    return [out.detach(), *(p.grad.clone() for p in module.parameters())]


def close(a, b, tolerance=1e-5):
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def saved(module):
    file = io.BytesIO()
    torch.save(module, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


WAYS = {"deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m)), "save": saved}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CLASSES)
def test_a_copy_is_the_same_module_with_its_own_parameters(name, way):
    module, x = made(name, num_layers=2, memory="2MB"), torch.randn(T, B, I)
    step(module, x)
    other = WAYS[way](module)
    assert type(other) is type(module) and other.memory == "2MB" and "2MB" in repr(other)
    assert not {id(p) for p in other.parameters()} & {id(p) for p in module.parameters()}
    close(step(other, x), step(module, x), 0)


@pytest.mark.parametrize("name", CLASSES)
def test_the_constructor_draws_torchs_weights_and_takes_its_arguments_in_order(name):
    more = ["relu"] if name == "RNN" else []
    for args in ((I, H, 2), (I, H, 2, *more, False, True, 0.25, True)):
        ours, theirs = made_of(ft, name, args), made_of(torch.nn, name, args)
        close(ours.parameters(), theirs.parameters(), 0)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert ours.extra_repr() == theirs.extra_repr()
        ours.flatten_parameters()
    assert (ours.batch_first, ours.dropout, ours.bidirectional, ours.bias) == (True, 0.25, True, 0)


def made_of(package, name, args):
    torch.manual_seed(0)
    return getattr(package, name)(*args)


def test_ours_are_no_torch_lstm_and_have_no_second_generator():
    module, x = made("LSTM", num_layers=2), torch.randn(T, B, I)
    assert isinstance(module, torch.nn.RNNBase) and not isinstance(module, torch.nn.LSTM)
    state = torch.get_rng_state()
    step(module, x)
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_follows_torchs_generator_and_rests_in_eval():
    module, x = made("GRU", num_layers=3, dropout=0.5), torch.randn(200, B, I)
    torch.manual_seed(1)
    first = step(module, x)
    second = step(module, x)
    torch.manual_seed(1)
    close(step(module, x), first, 0)
    assert not torch.equal(first[0], second[0])
    plain = made("GRU", num_layers=3)
    close(step(module.eval(), x), step(plain, x), 0)
    masks = fb.Stack(fb.from_torch(plain).layers, 0.5)
    torch.manual_seed(1)
    seed = int(torch.randint(0, 2**63 - 1, ()))
    assert np.array_equal(first[0], fb.forward(masks, x, seed=seed)[0])


def test_hooks_see_inputs_outputs_and_gradients():
    module, seen = made("LSTM"), []
    module.register_forward_pre_hook(lambda m, given: seen.append("before"))
    module.register_forward_hook(lambda m, given, out: seen.append(out[0].shape))
    module.register_full_backward_hook(lambda m, dx, dh: seen.append(dh[0].shape))
    module.weight_hh_l0.register_hook(lambda g: seen.append(g.shape))
    step(module, torch.randn(T, B, I, requires_grad=True))
    assert seen[:2] == ["before", (T, B, H)]
    assert set(seen[2:]) == {torch.Size((T, B, H)), torch.Size((4 * H, H))}


def test_autocast_runs_in_float32():
    module, lift = made("LSTM"), torch.nn.Linear(I, I)
    x, hx = torch.randn(T, B, I), torch.zeros(1, B, H, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        lifted = lift(x)
        out, _ = module(lifted, (hx, hx))
        out.sum().backward()
    assert lifted.dtype == torch.bfloat16 and out.dtype == torch.float32
    assert torch.equal(out, module(lifted.float())[0]) and lift.weight.grad is not None


def test_tied_weights_have_the_sum_of_both_gradients():
    results = []
    for package in (ft, torch.nn):
        module = made("GRU", package, num_layers=2, bidirectional=True)
        module.weight_hh_l0_reverse = module.weight_hh_l0
        module.weight_hh_l1 = module.weight_hh_l0
        results.append(step(module, torch.ones(T, B, I)))
    close(*results)


def norm_before_each_call(module, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.nn.utils.weight_norm(module, name)


def test_old_weight_norm_pruning_and_frozen_weights_are_as_with_torch():
    results = []
    for package in (ft, torch.nn):
        module = made("GRU", package, num_layers=2)
        norm_before_each_call(module, "weight_hh_l0")
        prune.l1_unstructured(module, "weight_ih_l1", 0.5)
        module.bias_hh_l1.requires_grad_(False)
        out = module(torch.ones(T, B, I))[0]
        trained = [p for p in module.parameters() if p.requires_grad]
        results.append(torch.autograd.grad(out.square().sum(), trained))
    close(*results)


def test_a_module_without_memory_has_shapes_and_is_filled_later():
    module = made("LSTM", device="meta")
    assert module(torch.empty(T, B, I, device="meta"))[0].shape == (T, B, H)
    module.to_empty(device="cpu").reset_parameters()
    assert len(step(module, torch.ones(T, B, I))) == 5


def test_dropout_may_be_changed():
    plain, module = made("GRU", num_layers=2), made("GRU", num_layers=2, dropout=0.5)
    x = torch.ones(T, B, I)
    assert not torch.equal(module(x)[0], plain(x)[0])
    module.dropout = 0
    close(step(module, x), step(plain, x), 0)
    theirs = made("GRU", torch.nn, num_layers=2, dropout=0.5)
    assert not torch.equal(ft.accelerate(theirs)(x)[0], plain(x)[0])


NORMED = {
    "weight_norm": torch.nn.utils.parametrizations.weight_norm,
    "orthogonal": torch.nn.utils.parametrizations.orthogonal,
    "spectral_norm": torch.nn.utils.parametrizations.spectral_norm,
}


@pytest.mark.parametrize("norm", NORMED)
def test_a_parametrised_weight_gets_its_gradient(norm):
    module, x = made("RNN"), torch.ones(T, B, I)
    NORMED[norm](module, "weight_hh_l0")
    module.eval()  # spectral_norm's vectors change in training
    plain = made("RNN", torch.nn)
    weights = {name: getattr(module, name) for name, _ in plain.named_parameters()}
    due = torch.func.functional_call(plain, weights, (x,))[0]
    given = tuple(module.parameters())
    due = torch.autograd.grad(due.square().sum(), given)
    close(torch.autograd.grad(module(x)[0].square().sum(), given), due)
    assert all(g.any() for g in due)


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"num_layers": 2}], ids=str)
def test_a_module_keeps_within_its_budget(options):
    module, x = made("LSTM", memory=400_000, **options), torch.randn(3000, 8, I)
    given = x.transpose(0, 1) if module.batch_first else x
    step(module, given)  # so that nothing is compiled below
    peaks = {}
    for memory in (400_000, "full"):
        module.memory = memory
        _held.clear()  # scratch from the pool would not be traced
        tracemalloc.start()  # PyTorch's own memory is not traced, NumPy's is
        out, _ = module(given)
        loss = out.square().sum()
        loss.backward()
        peaks[memory] = tracemalloc.get_traced_memory()[1] - out.numel() * 4
        tracemalloc.stop()
        del out, loss
    assert peaks[400_000] <= 400_000 + OBJECTS < peaks["full"]


@pytest.mark.parametrize("value", [ft.RNN, ft.GRU, ft.LSTM, ft.recurrent, ft.accelerate])
def test_public_names_are_described_as_fastbptts_are(value):
    found = sections(value.__doc__)
    assert {"Parameters", "Raises"} <= found.keys()
    named = [name.strip("*") for name in items(found["Parameters"])]
    assert sorted(named) == sorted(parameters(value))


def test_an_optimizer_learns_as_with_torch():
    losses = []
    for package in (ft, torch.nn):
        module = made("LSTM", package)
        optimizer = torch.optim.Adam(module.parameters(), 0.01)
        x, due = torch.ones(T, B, I), torch.linspace(0, 0.5, T)[:, None, None]
        for _ in range(40):
            optimizer.zero_grad()
            loss = (module(x)[0] - due).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    close(losses[:40], losses[40:])
    assert losses[39] < losses[0] / 2


def test_gradients_flow_through_a_carried_state():
    results = []
    for package in (ft, torch.nn):
        module, state, total = made("LSTM", package, num_layers=2), None, 0
        for piece in torch.ones(3, T, B, I).cumsum(0):
            out, state = module(piece, state)
            total = total + out.square().sum()
        total.backward()
        results.append([p.grad for p in module.parameters()])
    close(*results)


@pytest.mark.parametrize("steps", [3, 300])
def test_results_may_be_changed_in_place(steps):
    module, x, found = made("LSTM", num_layers=2), torch.randn(steps, B, I), []
    for change in (lambda a: a * 2, lambda a: a.mul_(2)):
        module.zero_grad()
        out, (h, c) = module(x)
        total = change(out).sum() + change(h).sum() + change(c).square().sum()
        total.backward()
        found.append([p.grad.clone() for p in module.parameters()])
    close(*found, 0)


@pytest.mark.parametrize("layout", ["transposed", "every other", "expanded"])
def test_any_layout_of_input_weights_and_gradient_is_read(layout):
    module, plain = made("GRU"), made("GRU", torch.nn)
    x = {
        "transposed": torch.randn(I, B, T).permute(2, 1, 0),
        "every other": torch.randn(2 * T, B, 2 * I)[::2, :, ::2],
        "expanded": torch.randn(T, 1, I).expand(T, B, I),
    }[layout]
    for own in (module, plain):
        own.weight_ih_l0 = torch.nn.Parameter(torch.linspace(-1, 1, 12 * I).reshape(I, 12).T)
    results = []
    for own in (module, plain):
        own.zero_grad()
        own(x)[0].sum().backward()  # its gradient is one number, expanded
        results.append([p.grad for p in own.parameters()])
    close(*results)


DDP = """
import torch, torch.distributed as dist, fastbptt.torch as ft
rank, path = RANK, PATH
torch.manual_seed(0)
model, x = ft.LSTM(3, 4, 2, bidirectional=True).double(), torch.randn(5, 4, 3).double()
dist.init_process_group("gloo", init_method="file://" + path, rank=rank, world_size=2)
both = torch.nn.parallel.DistributedDataParallel(model)
both(x[:, 2 * rank : 2 * rank + 2])[0].square().sum().backward()
found = [p.grad.clone() for p in model.parameters()]
model.zero_grad()
(model(x)[0].square().sum() / 2).backward()  # DDP takes the mean over the processes
for a, p in zip(found, model.parameters()):
    torch.testing.assert_close(a, p.grad, rtol=1e-11, atol=1e-11)
dist.destroy_process_group()
print("equal")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="gloo meets by a file")
def test_two_processes_train_as_one(tmp_path):
    code = DDP.replace("PATH", repr(str(tmp_path / "meeting")))
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(run_python, [code.replace("RANK", str(rank)) for rank in (0, 1)])
        assert [out.strip() for out in runs] == ["equal"] * 2
