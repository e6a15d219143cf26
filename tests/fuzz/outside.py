"""PyTorch as a second oracle, where it is installed and has a module for the layer."""

import functools
from importlib import util

import helpers
import numpy as np

import fastbptt as fb


@functools.cache
def is_there():
    return util.find_spec("torch") is not None


def module_of(layer):
    """The layer as a module of PyTorch, or None."""
    if not is_there():
        return None
    try:
        return fb.to_torch(layer)
    except (ValueError, TypeError):  # PyTorch has none: it says why
        return None


def check(case):
    """Outputs and gradients are those of torch.nn; there and back is exact."""
    module = module_of(case.layer)
    if module is None or case.T * case.B == 0:
        return
    import torch

    again = fb.from_torch(module)
    stacked = getattr(case.layer, "layers", ())
    due = stacked[0] if len(stacked) == 1 else case.layer  # a stack of one comes back as that layer
    assert type(again) is type(due) and repr(again) == repr(due)
    for one, other in zip(again.arrays(), case.layer.arrays(), strict=True):
        assert np.array_equal(one, other), "from_torch of to_torch"

    x, dh = case.clean.x, case.clean.dh
    if case.tokens:
        x = np.eye(case.I, dtype=case.dtype)[x]
    module.eval()
    given = torch.from_numpy(np.array(x)).requires_grad_()
    h, _ = module(given)
    h.backward(torch.from_numpy(np.array(dh)))
    without = getattr(case.layer, "layers", None)
    layer = case.layer if without is None else fb.Stack(without)  # no dropout
    ours, _, cache = fb.forward(layer, np.array(x))
    g = fb.backward(cache, np.array(dh))
    small = 0.01 * (case.B * layer.outputs) ** 0.5
    close(ours, h.detach().numpy(), helpers.STATES[case.dtype], "h of torch", small)
    floor = 0.01 * np.sqrt(sum(float(np.square(a).sum()) for a in [*g.layer.arrays(), g.x]))
    close(g.x, given.grad.numpy(), helpers.GRADIENTS[case.dtype], "gradient of x of torch", floor)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(parameter.grad)
            if "bias_hh" in name:  # from_torch adds the two biases: one gradient is that of b
                summed = 2 if isinstance(module, torch.nn.GRU) else len(parameter)
                parameter[: summed * module.hidden_size] = 0
    theirs = fb.from_torch(module)
    for one, other in zip(g.layer.arrays(), theirs.arrays(), strict=True):
        close(one, other, helpers.GRADIENTS[case.dtype], "gradient of torch", floor)


def close(actual, expected, tolerance, what, floor):
    helpers.assert_close(actual, np.asarray(expected, float), 2 * tolerance, what, floor)
