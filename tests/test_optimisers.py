"""Adam, SGD and clip_norm: torch.optim's numbers, in place, and going on with the same bits."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from helpers import make_layer, misaligned, name_of

import fastbptt as fb
from fastbptt.training import rows

KINDS = [
    (fb.Adam, {}),
    (fb.Adam, {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    (fb.Adam, {"weight_decay": 0.1, "decoupled": True}),
    (fb.SGD, {}),
    (fb.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    (fb.SGD, {"momentum": 0.9, "nesterov": True}),
]
CELL = fb.Cell("Leaky", 1, lambda a, s, p: (p[0] * s[0] + np.tanh(a[0]),), parameters=1)


def make(cell="rnn-tanh", dtype="float64", state=False):
    rng = np.random.default_rng(0)
    layer = CELL.init(3, 5, rng=rng, dtype=dtype) if cell is CELL else make_layer(
        cell, 3, 5, dtype, rng
    )  # fmt: skip
    own = np.zeros(5, dtype) if state else None
    return fb.Network(layer, fb.Readout.init(layer.outputs, 2, rng=rng, dtype=dtype), own)


def gradients(network, count, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield network.with_flat(rng.standard_normal(network.flat().size).astype(network.dtype))


def trained(network, optimizer, steps=5, seed=1):
    network = network.with_flat(network.flat())
    for grad in gradients(network, steps, seed):
        optimizer.step(network, grad)
    return network


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("kind, options", KINDS)
def test_steps_are_those_of_torch_optim(kind, options, clip):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    network = make(state=True)
    weights = [torch.tensor(array, requires_grad=True) for array in network.arrays()]
    own = {name: value for name, value in options.items() if name != "decoupled"}
    name = "AdamW" if options.get("decoupled") else kind.__name__
    theirs, ours = getattr(torch.optim, name)(weights, lr=0.05, **own), kind(
        lr=0.05, clip=clip, **options
    )  # fmt: skip
    for grad in gradients(network, 40):
        for weight, array in zip(weights, grad.arrays(), strict=True):
            weight.grad = torch.tensor(array)
        if clip:
            torch.nn.utils.clip_grad_norm_(weights, clip)
        theirs.step()
        ours.step(network, grad)
    for weight, array in zip(weights, network.arrays(), strict=True):
        assert np.abs(weight.detach().numpy() - array).max() < 1e-12


def test_adam_without_a_first_mean_forgets_larger_gradients():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    network = make()
    weights = [torch.tensor(array, requires_grad=True) for array in network.arrays()]
    theirs, ours = torch.optim.Adam(weights, 0.5, (0.0, 0.0)), fb.Adam(0.5, (0.0, 0.0))
    for step, grad in enumerate(gradients(network, 6)):
        grad = grad.with_flat(grad.flat() * (1e4 if step % 2 else 1e-5))
        for weight, array in zip(weights, grad.arrays(), strict=True):
            weight.grad = torch.tensor(array)
        theirs.step()
        ours.step(network, grad)
    for weight, array in zip(weights, network.arrays(), strict=True):
        assert np.abs(weight.detach().numpy() - array).max() < 1e-12


@pytest.mark.parametrize("kind, options", KINDS)
def test_float32_is_float64_to_rounding_and_on_a_gpu_it_is_the_same(kind, options, monkeypatch):
    wide = trained(make(), kind(0.05, **options)).flat()
    narrow = trained(make(dtype="float32"), kind(0.05, **options)).flat()
    assert np.abs(narrow - wide).max() < 1e-5
    monkeypatch.setattr(rows, "Rows", rows.OnGPU)
    plain = trained(make(), kind(0.05, **options)).flat()
    assert np.abs(plain - wide).max() < 1e-14


@pytest.mark.parametrize("cell", ["lstm/gru", "gru|lstm", "lstm-peephole", CELL], ids=name_of)
def test_every_array_of_every_layer_is_updated_as_if_alone(cell):
    network = make(cell, state=cell is CELL)
    (grad,) = gradients(network, 1)
    due = network.flat() - 0.1 * grad.flat()
    fb.SGD(0.1).step(network, grad)
    assert np.array_equal(network.flat(), due)
    before = network.layer.arrays()[0].copy()
    fb.Adam(0.1).step(network.layer, grad.layer)  # layers alone
    assert np.abs(network.layer.arrays()[0] - before).max() == pytest.approx(0.1)


def test_a_state_without_a_gradient_stays_and_all_else_goes_on():
    network = make(state=True)
    (grad,) = gradients(network, 1)
    adam, own = fb.Adam(), network.state.copy()
    adam.step(network, fb.Network(grad.layer, grad.readout))
    assert np.array_equal(network.state, own)
    adam.step(network, grad)
    assert not np.array_equal(network.state, own)


def test_weights_of_any_layout_are_changed_in_place():
    plain = make()
    due = trained(plain, fb.Adam(0.1)).flat()
    arrays = [np.asfortranarray(plain.layer.U), plain.layer.W[::-1].copy()[::-1]]
    arrays += [misaligned(plain.layer.b), *(a.copy() for a in plain.readout.arrays())]
    other, adam = plain.replace_arrays(arrays), fb.Adam(0.1)
    for grad in gradients(plain, 5):
        adam.step(other, grad.replace_arrays([np.asfortranarray(a) for a in grad.arrays()]))
    assert np.array_equal(np.concatenate([a.ravel() for a in arrays]), due)


def test_the_rate_may_be_a_function_of_the_steps_done():
    seen = []
    adam = fb.Adam(lambda step: seen.append(step) or 0.1 / (1 + step))
    network = trained(make(), adam, 3)
    assert seen == [0, 1, 2] and adam.steps == 3
    by_hand, other = fb.Adam(), make()
    for step, grad in enumerate(gradients(other, 3)):
        by_hand.lr = 0.1 / (1 + step)
        by_hand.step(other, grad)
    assert np.array_equal(network.flat(), other.flat())


@pytest.mark.parametrize("kind, options", [KINDS[1], KINDS[4]])
def test_saved_pickled_and_copied_ones_go_on_with_the_same_bits(kind, options, tmp_path):
    first = kind(0.1, clip=2.0, **options)
    network = trained(make(), first)
    first.save(tmp_path / "optimiser.npz")
    others = [fb.load(tmp_path / "optimiser.npz"), pickle.loads(pickle.dumps(first))]
    due = trained(network, copy.deepcopy(first), 3, seed=2).flat()
    for other in (*others, first):
        assert repr(other) == repr(first)
        assert np.array_equal(trained(network, other, 3, seed=2).flat(), due)


def test_a_rate_that_was_a_function_must_be_set_again_after_loading(tmp_path):
    adam = fb.Adam(lambda step: 0.1)
    trained(make(), adam)
    adam.save(tmp_path / "adam.npz")
    other = fb.load(tmp_path / "adam.npz")
    with pytest.raises(ValueError, match="lr must be set again"):
        trained(make(), other)
    other.lr = adam.lr
    assert np.array_equal(trained(make(), other).flat(), trained(make(), adam).flat())


def test_after_the_first_step_no_arrays_are_allocated():
    network = fb.Network(fb.LSTM.init(20, 50, rng=0), None)
    grad, adam = network.with_flat(network.flat()), fb.Adam(clip=1.0)
    adam.step(network, grad)
    tracemalloc.start()
    for _ in range(3):
        adam.step(network, grad)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < network.layer.b.nbytes * 10 < sum(a.nbytes for a in network.arrays()) / 5


def test_clip_norm_scales_what_is_longer_alone_and_returns_a_new_network():
    (grad,) = gradients(make(), 1)
    norm = np.linalg.norm(grad.flat())
    for part, most in ((grad, 0.5 * norm), (grad.layer, 1e-3)):
        clipped = fb.clip_norm(part, most)
        assert type(clipped) is type(part)
        assert np.linalg.norm(clipped.flat()) == pytest.approx(most, rel=1e-6)
    assert np.array_equal(fb.clip_norm(grad, 2 * norm).flat(), grad.flat())
    assert not np.shares_memory(fb.clip_norm(grad, 2 * norm).layer.U, grad.layer.U)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lr": -1.0}, "lr must be"),
        ({"lr": np.nan}, "lr must be"),
        ({"lr": "fast"}, "lr must be a number"),
        ({"lr": lambda step: None}, "the value of lr must be"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\] must lie"),
        ({"betas": 0.9}, "betas must be a pair"),
        ({"eps": -1}, "eps must be"),
        ({"weight_decay": np.inf}, "weight_decay must be"),
        ({"decoupled": 1}, "decoupled must be True or False"),
        ({"clip": 0}, "clip must be more than 0"),
        ({"momentum": -0.1}, "momentum must be"),
        ({"nesterov": True}, "nesterov must be False"),
    ],
)
def test_wrong_settings_are_errors_that_name_them(options, message):
    kind = fb.SGD if {"momentum", "nesterov"} & set(options) else fb.Adam
    network = make()
    before = network.flat()
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        kind(**options).step(network, next(gradients(network, 1)))
    assert np.array_equal(network.flat(), before)


def test_what_does_not_fit_is_an_error_before_anything_changes():
    network, adam = make(), fb.Adam()
    (grad,) = gradients(network, 1)
    adam.step(network, grad)
    before = network.flat()
    for own, other, message in [
        (network, grad.layer, "grad must be a Network like network"),
        (network.flat(), grad, "network must be a Network, a layer"),
        (network, make(dtype="float32"), r"grad.arrays\(\)\[0\] must be float64"),
        (network, fb.Network(grad.layer, None), "grad must have arrays of the shapes"),
        (make(dtype="float32"), make(dtype="float32"), "as at the first step"),
        (make("lstm"), make("lstm"), "as at the first step"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            adam.step(own, other)
    network.readout.c.flags.writeable = False
    with pytest.raises(ValueError, match="must be writable"):
        adam.step(network, grad)
    assert np.array_equal(network.flat(), before) and adam.steps == 1
    with pytest.raises(ValueError, match="norm must be more than 0"):
        fb.clip_norm(grad, 0)
    with pytest.raises(TypeError, match="grad must be"):
        fb.clip_norm(grad.flat(), 1.0)
