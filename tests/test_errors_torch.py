"""Tensors of PyTorch on the CPU are no NumPy arrays: the same TypeError for every argument."""

import numpy as np
import pytest
from checks import rejected, small_problem

import fastbptt as fb

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

PLACES = {
    "x of forward": ("x", lambda p, t: fb.forward(p.layer, t(p.x))),
    "x of run": ("x", lambda p, t: fb.run(p.layer, t(p.x))),
    "x of predict": ("x", lambda p, t: fb.predict(p.network, t(p.x))),
    "x of evaluate": ("x", lambda p, t: fb.evaluate(p.network, t(p.x), p.y)),
    "x of bptt": ("x", lambda p, t: fb.bptt(p.network, t(p.x), p.y)),
    "tokens": ("x", lambda p, t: fb.run(p.layer, t(p.tokens))),
    "y of evaluate": ("y", lambda p, t: fb.evaluate(p.network, p.x, t(p.y))),
    "y of bptt": ("y", lambda p, t: fb.bptt(p.network, p.x, t(p.y))),
    "state": ("state", lambda p, t: fb.run(p.layer, p.x, t(p.state))),
    "state of bptt": ("state", lambda p, t: fb.bptt(p.network, p.x, p.y, state=t(p.state))),
    "lengths": ("lengths", lambda p, t: fb.run(p.layer, p.x, lengths=t(p.lengths))),
    "weights": (
        "weights",
        lambda p, t: fb.bptt(p.network, p.x, p.y, weights=t(np.ones(p.T, "float32"))),
    ),
    "dh": ("dh", lambda p, t: fb.backward(fb.forward(p.layer, p.x)[2], t(p.dh))),
    "dstate": ("dstate", lambda p, t: fb.backward(fb.forward(p.layer, p.x)[2], p.dh, t(p.state))),
    "dh of a loss": (
        "dh",
        lambda p, t: fb.bptt(p.network, p.x, None, lambda h, y, start: (0.0, t(np.ones_like(h)))),
    ),
    "a weight": ("RNN.W", lambda p, t: fb.RNN(p.layer.U, t(p.layer.W), p.layer.b)),
    "a readout's weight": ("Readout.V", lambda p, t: fb.Readout(t(p.readout.V), p.readout.c)),
    "arrays": (
        "arrays",
        lambda p, t: p.layer.replace_arrays([t(a) for a in p.layer.arrays()]),
    ),
    "x of reach": ("x", lambda p, t: fb.gradient_reach(p.network, t(p.x), p.y)),
}


@pytest.mark.parametrize("gradient", [False, True], ids=["plain", "requires_grad"])
@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_on_the_cpu_is_no_numpy_array(place, gradient):
    name, call = PLACES[place]

    def tensor(array):
        tensor = torch.from_numpy(array.copy())
        return tensor.requires_grad_() if gradient and tensor.is_floating_point() else tensor

    rejected(lambda: call(small_problem(), tensor), name, "Tensor", errors=(TypeError,))
