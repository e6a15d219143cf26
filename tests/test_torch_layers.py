"""fastbptt.torch's modules against torch.nn's: outputs, states and every gradient."""

import numpy as np
import pytest
from helpers import assert_close

import fastbptt as fb

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
import fastbptt.torch as ft  # noqa: E402

T, B, I, H = 9, 4, 3, 5
CELLS = {"rnn-tanh": ("RNN", {}), "rnn-relu": ("RNN", {"nonlinearity": "relu"}), "gru": ("GRU", {}),
         "lstm": ("LSTM", {})}  # fmt: skip
SHAPES = {
    "one": {},
    "both ways": {"bidirectional": True},
    "stack both ways": {"num_layers": 2, "bidirectional": True},
    "without bias": {"num_layers": 2, "bias": False},
    "batch first": {"num_layers": 2, "batch_first": True},
}
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}


def pair_of(cell, dtype="float64", memory="full", **options):
    """A module of torch.nn and ours, with the same weights by `load_state_dict`."""
    name, more = CELLS[cell]
    torch.manual_seed(1)
    options = {**options, **more, "dtype": getattr(torch, dtype)}
    theirs = getattr(torch.nn, name)(I, H, **options)
    ours = getattr(ft, name)(I, H, **options, memory=memory)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    return theirs, ours


def planes(state):
    return state if isinstance(state, tuple) else (state,)


def draw(*shape, dtype="float64"):
    return torch.from_numpy(np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype))


def state_for(module, batch=B):
    rows = module.num_layers * (1 + module.bidirectional)
    shape = (rows, H) if batch is None else (rows, batch, H)
    count = 1 + (module.mode == "LSTM")
    found = [draw(*shape, dtype=str(module.weight_hh_l0.dtype)[6:]) + k for k in range(count)]
    return [part.requires_grad_() for part in found]


def results(module, x, state=None, **call):
    """All outputs and gradients of a loss on the output and the final state."""
    module.zero_grad()
    x = x.clone().requires_grad_()
    given = x
    if "lengths" in call and isinstance(module, (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM)):
        given = torch.nn.utils.rnn.pack_padded_sequence(
            x, call.pop("lengths"), module.batch_first, enforce_sorted=False
        )
    state = None if state is None else [part.detach().clone().requires_grad_() for part in state]
    hx = None if state is None else tuple(state) if len(state) == 2 else state[0]
    out, final = module(given, hx, **call)
    if isinstance(out, torch.nn.utils.rnn.PackedSequence):
        steps = x.shape[1 if module.batch_first else 0]
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(out, module.batch_first, total_length=steps)
    loss = (out * out.detach().cos()).sum()
    for part in planes(final):
        loss = loss + part.square().sum()
    loss.backward()
    found = {"output": out, "x": x.grad}
    found |= {f"final {k}": part for k, part in enumerate(planes(final))}
    found |= {f"hx {k}": part.grad for k, part in enumerate(state or ())}
    found |= {name: p.grad for name, p in module.named_parameters()}
    return {name: value.detach().numpy().copy() for name, value in found.items()}


def assert_equal(theirs, ours, tolerance):
    assert theirs.keys() == ours.keys()
    for name, due in theirs.items():
        assert ours[name].shape == due.shape, name
        assert_close(ours[name], due, tolerance, name)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cell", CELLS)
def test_outputs_and_all_gradients_are_those_of_torch(cell, shape, dtype):
    theirs, ours = pair_of(cell, dtype, **SHAPES[shape])
    x = draw(B, T, I, dtype=dtype) if ours.batch_first else draw(T, B, I, dtype=dtype)
    for state in (None, state_for(ours)):
        assert_equal(results(theirs, x, state), results(ours, x, state), TOLERANCES[dtype])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("shape", ["one", "stack both ways"])
@pytest.mark.parametrize("cell", CELLS)
def test_lengths_are_those_of_a_packed_sequence(cell, shape, batch_first):
    theirs, ours = pair_of(cell, **{**SHAPES[shape], "batch_first": batch_first})
    x, lengths, state = draw(T, B, I), torch.tensor([4, 9, 1, 4]), state_for(ours)
    x = x.transpose(0, 1) if batch_first else x
    due = results(theirs, x, state, lengths=lengths)
    assert_equal(due, results(ours, x, state, lengths=lengths), 1e-12)
    assert_equal(due, results(ours, x, state, lengths=lengths.tolist()), 1e-12)


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_packed_sequence_comes_back_as_one(cell, batch_first, sort):
    theirs, ours = pair_of(cell, num_layers=2, bidirectional=True, batch_first=batch_first)
    x = draw(B, T, I) if batch_first else draw(T, B, I)
    ends = [9, 4, 4, 1] if sort else [4, 9, 1, 4]
    given = torch.nn.utils.rnn.pack_padded_sequence(x, ends, batch_first, enforce_sorted=sort)
    state = tuple(state_for(ours)) if cell == "lstm" else state_for(ours)[0]
    (due, due_final), (out, final) = theirs(given, state), ours(given, state)
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        a, b = getattr(due, name), getattr(out, name)
        assert (a is b is None) or torch.equal(a, b), name
    assert_close(out.data.detach().numpy(), due.data.detach().numpy(), 1e-12)
    for a, b in zip(planes(final), planes(due_final), strict=True):
        assert_close(a.detach().numpy(), b.detach().numpy(), 1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_the_batch_axis_may_be_left_out(cell):
    theirs, ours = pair_of(cell, num_layers=2, batch_first=True)
    x, state = draw(T, I), state_for(ours, None)
    assert_equal(results(theirs, x, state), results(ours, x, state), 1e-12)
    short, final = ours(x, lengths=[4])
    whole, due = ours(x[:4])
    assert torch.equal(short[:4], whole) and not short[4:].any()
    assert all(torch.equal(a, b) for a, b in zip(planes(final), planes(due), strict=True))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_pieces_between_resets_are_sequences_of_their_own(cell, batch_first):
    _, ours = pair_of(cell, bidirectional=True, batch_first=batch_first)
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[4] = True
    x = draw(T, B, I)
    turn = (lambda a: a.transpose(0, 1)) if batch_first else (lambda a: a)
    out, _ = ours(turn(x), resets=turn(resets))
    assert torch.equal(out, ours(turn(x), resets=resets[:, 0])[0])
    parts = [turn(ours(turn(piece))[0]) for piece in (x[:4], x[4:])]
    assert_close(turn(out).detach().numpy(), torch.cat(parts).detach().numpy(), 1e-12)


@pytest.mark.parametrize("memory", [200_000, "200kB", fb.Checkpointed(segment=7), "auto"], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_a_budget_gives_the_same_bits_as_all_steps(cell, memory):
    _, ours = pair_of(cell, "float32", num_layers=2)
    x, state = draw(400, B, I, dtype="float32"), state_for(ours)
    due, in_call = results(ours, x, state), results(ours, x, state, memory=memory)
    ours.memory = memory
    for found in (in_call, results(ours, x, state)):
        assert found.keys() == due.keys()
        for name, value in due.items():
            assert np.array_equal(found[name], value), name


def test_truncated_gradients_are_those_of_fastbptt():
    theirs, ours = pair_of("lstm", memory=fb.Truncated(3, 5))
    x = draw(T, B, I)
    out, _ = ours(x)
    dh = draw(*out.shape)
    out.backward(dh)
    cache = fb.forward(fb.from_torch(theirs), x, memory=fb.Truncated(3, 5))[2]
    g = fb.backward(cache, dh).layer
    assert np.array_equal(ours.weight_hh_l0.grad, g.W)
    assert np.array_equal(ours.bias_ih_l0.grad, g.b)


@pytest.mark.parametrize("sizes", [(0, 2), (3, 0)], ids=["no steps", "no sequences"])
@pytest.mark.parametrize("cell", CELLS)
def test_empty_inputs_give_zero_gradients(cell, sizes):
    _, ours = pair_of(cell)
    found = results(ours, torch.zeros(*sizes, I, dtype=torch.float64))
    assert found["output"].shape == (*sizes, H)
    assert not any(found[name].any() for name, _ in ours.named_parameters())


def test_recurrent_is_the_function_beneath():
    _, ours = pair_of("gru", num_layers=2, bidirectional=True)
    x, state = draw(T, B, I), state_for(ours)[0]
    for kind in ("GRU", "gru"):
        h, final = ft.recurrent(
            kind, x, state, list(ours.parameters()), num_layers=2, bidirectional=True, memory="1MB"
        )
        due, due_final = ours(x, state)
        assert torch.equal(h, due) and torch.equal(final, due_final)
    options = {"num_layers": 2, "bidirectional": True, "dropout": 0.5}
    draws = [ft.recurrent("gru", x, None, list(ours.parameters()), **options, seed=seed)[0]
             for seed in (3, 3, 4)]  # fmt: skip
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
