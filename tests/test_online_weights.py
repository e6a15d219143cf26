"""Online with networks that change between pushes, against autograd of every window in PyTorch.

Each window is run in PyTorch from its first state, held constant, with the weights that the policy
says. For "stale" a pre-activation has the value that it had when its step was first run, and the
derivative that today's weights give it.
"""

import numpy as np
import pytest
from helpers import make_layer

import fastbptt as fb

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
CELLS = ["rnn-tanh", "lstm", "gru"]
OLD = ["replay", "stale", "stored"]


class Net:
    """The weights of a network as leaves of autograd."""

    def __init__(self, network):
        self.arrays = [torch.tensor(a, requires_grad=True) for a in network.arrays()]
        self.layer, *_ = self.arrays, None
        self.cell = type(network.layer).__name__
        self.V, self.c = self.arrays[-2:] if network.state is None else self.arrays[-3:-1]

    def parts(self, x, h):
        """The pre-activations of a step, those that are added up before any product."""
        U, W, b = self.arrays[:3]
        a, w = x @ U.T + b, h @ W.T
        if self.cell != "GRU":
            return (a + w,)
        H, bn = h.shape[1], self.arrays[3]
        both = 2 * H
        return a[:, :both] + w[:, :both], a[:, both:], w[:, both:] + bn

    def after(self, parts, state):
        if self.cell == "RNN":
            return (torch.tanh(parts[0]),)
        if self.cell == "LSTM":
            i, f, g, o = parts[0].chunk(4, 1)
            c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(c), c
        r, z = torch.sigmoid(parts[0]).chunk(2, 1)
        n = torch.tanh(parts[1] + r * parts[2])
        return ((1 - z) * n + z * state[0],)


def window(nets, x, y, state, first, forced):
    """The sum of the losses from step `first` on; `forced` are pre-activations or None."""
    total = 0.0
    for t, net in enumerate(nets):
        parts = net.parts(x[t], state[0])
        if forced is not None:
            parts = [kept + p - p.detach() for kept, p in zip(forced[t], parts, strict=True)]
        state = net.after(parts, state)
        if t >= first:
            total = total + ((state[0] @ net.V.T + net.c - y[t]) ** 2).sum()
    return total


class Reference:
    """What Online should say, from the definition: everything is kept."""

    def __init__(self, network, B, k1, k2, old):
        self.k1, self.k2, self.old, self.due = k1, k2, old, 0
        H = network.layer.W.shape[1]
        states = 2 if isinstance(network.layer, fb.LSTM) else 1
        self.states = [tuple(torch.zeros(B, H, dtype=torch.float64) for _ in range(states))]
        self.x, self.y, self.nets, self.parts = [], [], [], []

    def push(self, net, x, y):
        found = []
        for x_t, y_t in zip(torch.tensor(x), torch.tensor(y), strict=True):
            with torch.no_grad():
                self.parts.append(net.parts(x_t, self.states[-1][0]))
                self.states.append(net.after(self.parts[-1], self.states[-1]))
            self.x.append(x_t), self.y.append(y_t), self.nets.append(net)
            if len(self.x) == self.due + self.k1:
                found.append(self.back(max(0, self.due - (self.k2 - self.k1)), net))
        return found

    def finish(self, net):
        if self.due == len(self.x):
            return []
        short = len(self.x) <= self.k2
        return [self.back(0 if short else max(0, self.due - (self.k2 - self.k1)), net)]

    def back(self, s, today):
        nets = self.nets[s:] if self.old == "stored" else [today] * (len(self.x) - s)
        forced = self.parts[s:] if self.old == "stale" else None
        used = list({id(n): n for n in nets}.values())
        loss = window(nets, self.x[s:], self.y[s:], self.states[s], self.due - s, forced)
        wanted = [a for n in used for a in n.arrays]
        grads = torch.autograd.grad(loss, wanted, allow_unused=True)
        each = [
            np.concatenate([
                np.zeros(a.numel()) if g is None else g.numpy().ravel()
                for a, g in zip(wanted, grads, strict=True)
            ][k * len(today.arrays) : (k + 1) * len(today.arrays)])
            for k in range(len(used))
        ]  # fmt: skip
        self.due = len(self.x)
        return loss.item(), sum(each)


def changed(network, rng):
    return network.with_flat(network.flat() + 0.2 * rng.standard_normal(network.flat().size))


def check(update, due):
    assert (update.grad is None) == (not due)
    if due:
        loss, grad = (sum(parts) for parts in zip(*due, strict=True))
        np.testing.assert_allclose(update.loss, loss, rtol=1e-10)
        error = np.abs(update.grad.flat() - grad).max()
        assert error <= 1e-10 * max(1.0, np.abs(grad).max())


@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("cell", CELLS)
def test_updates_are_those_of_the_weights_that_the_policy_says(cell, old):
    rng = np.random.default_rng(CELLS.index(cell))
    for _ in range(25):
        B, T, k1 = rng.integers(1, 3), rng.integers(1, 25), rng.integers(1, 5)
        k2 = k1 + rng.integers(0, 7)
        network = fb.Network(
            make_layer(cell, 3, 5, "float64", rng), fb.Readout.init(5, 2, rng=rng, dtype="float64")
        )
        learner = fb.Online(network, B, gradient=fb.Truncated(k1, k2, weights=old))
        due = Reference(network, B, k1, k2, old)
        net, at = Net(network), 0
        while at < T:
            n = min(T - at, rng.integers(0, 4) * rng.integers(1, 4))
            x, y = rng.standard_normal((n, B, 3)), rng.standard_normal((n, B, 2))
            check(learner.push(x, y), due.push(net, x, y))
            at += n
            if rng.random() < 0.6:
                network = changed(network, rng)
                net = Net(network)
                if rng.random() < 0.5:  # in place
                    for own, new in zip(learner.network.arrays(), network.arrays(), strict=True):
                        own[...] = new
                else:
                    learner.network = network.with_flat(network.flat())
        check(learner.finish(), due.finish(net))
