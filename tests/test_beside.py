"""The two directions of a Bidirectional go at once; results do not depend on it."""

import numpy as np
import pytest
from fastbptt.kernels.cpu.bound import Bound
from fastbptt.kernels.cpu.workers import _SERIAL
from results import forward_and_backward, same

import fastbptt as fb

LAYERS = {
    "lstm": lambda: fb.Bidirectional(fb.LSTM.init(5, 24, rng=0), fb.LSTM.init(5, 24, rng=1)),
    "gru and rnn": lambda: fb.Bidirectional(fb.GRU.init(5, 16, rng=0), fb.RNN.init(5, 40, rng=1)),
    "stack": lambda: fb.Stack(
        [
            fb.Bidirectional(fb.LSTM.init(5, 16, rng=0), fb.LSTM.init(5, 16, rng=1)),
            fb.RNN.init(32, 8, rng=2),
            fb.Bidirectional(fb.GRU.init(8, 16, rng=3), fb.GRU.init(8, 8, rng=4)),
        ],
        dropout=0.25,
    ),
}


@pytest.fixture
def beside(monkeypatch):
    """Of each return of compiled code from two lanes that it walked at once, their rows."""
    found, walk = [], Bound.walk_beside

    def noted(self, rows, other, other_rows, budget):
        walk(self, rows, other, other_rows, budget)
        if self.get("members"):
            found.append((rows.tolist(), other_rows.tolist(), self.subteams.copy()))

    monkeypatch.setattr(Bound, "walk_beside", noted)
    return found


def calls(layer, T, B, lengths):
    """Results of all functions."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(T, B, 5)).astype("f4")
    dh = rng.normal(size=(T, B, layer.outputs)).astype("f4")
    y = rng.normal(size=(T, B, 2)).astype("f4")
    network = fb.Network(layer, fb.Readout.init(layer.outputs, 2, rng=9))
    seed = 7 if isinstance(layer, fb.Stack) else None
    yield fb.run(layer, x, lengths=lengths)
    h, state, cache = fb.forward(layer, x, lengths=lengths, seed=seed)
    yield h, state, fb.backward(cache, dh, state, keep=True)
    yield (fb.backward(cache, dh, input_grad=False),)
    for memory in ("full", fb.frontier(network, T, B).checkpointed[-1].peak_bytes):
        yield (fb.bptt(network, x, y, lengths=lengths, seed=seed, memory=memory, input_grad=True),)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("T", "B"), [(1, 1), (701, 1), (300, 5)])
@pytest.mark.parametrize("name", LAYERS)
def test_bits_do_not_depend_on_threads(name, T, B, ragged, beside, set_threads):
    lengths = np.arange(B) * (T - 1) // max(1, B - 1) + 1 if ragged else None
    found = []
    for threads in (1, 2, 4):
        set_threads(threads)
        found.append(list(calls(LAYERS[name](), T, B, lengths)))
    assert beside or T == 1  # one step is not worth waking a thread
    for other in found[1:]:
        assert all(same(a, b) for a, b in zip(other, found[0], strict=True))


def test_each_direction_has_a_team_of_its_own(beside, set_threads):
    set_threads(4)  # also on two cores: a thread that comes late finds the work done
    for _ in calls(LAYERS["lstm"](), 701, 1, None):
        pass
    jobs = np.array([subteams[:, 0, _SERIAL] for *_, subteams in beside])
    assert (jobs > 0).all(axis=1).any()


@pytest.mark.parametrize("ragged", [False, True])
def test_same_bits_as_one_after_the_other(ragged, monkeypatch, beside, set_threads):
    set_threads(2)
    lengths = np.array([40, 1, 300]) if ragged else None
    layer = LAYERS["stack"]()
    due = list(calls(layer, 300, 3, lengths))
    assert beside
    monkeypatch.setattr("fastbptt.engine.stages.Stages.beside", lambda *arguments: False)
    beside.clear()
    found = list(calls(layer, 300, 3, lengths))
    assert not beside
    assert all(same(a, b) for a, b in zip(found, due, strict=True))


@pytest.mark.parametrize("T", [2, 3, 700, 701])
def test_both_never_add_to_the_same_step_in_one_row(T, beside, set_threads):
    set_threads(2)
    layer = fb.Bidirectional(fb.RNN.init(300, 200, rng=0), fb.RNN.init(300, 200, rng=1))
    x = np.ones((T, 3, 300), "f4")
    h, _, cache = fb.forward(layer, x)
    beside.clear()
    fb.backward(cache, h)
    assert len(beside) >= 2
    for (along,), (against,), _ in beside:
        (_, a, b, _), (_, c, d, _) = along, against
        assert not set(range(a, b)) & {T - 1 - t for t in range(c, d)}


def test_many_sequences_go_one_direction_after_the_other(beside):
    layer = LAYERS["lstm"]()
    x = np.zeros((10, 8, 5), "f4")
    fb.run(layer, x)
    assert not beside


def test_gradients():
    """Finite differences, in float64."""
    layer = fb.Bidirectional(
        fb.GRU.init(2, 3, rng=0, dtype="float64"), fb.RNN.init(2, 4, rng=1, dtype="float64")
    )
    rng = np.random.default_rng(0)
    x, dh = rng.normal(size=(9, 2, 2)), rng.normal(size=(9, 2, 7))
    _, _, gradient = forward_and_backward(layer, x, dh)
    numeric = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        losses = []
        for step in (1e-6, -1e-6):
            moved = x.copy()
            moved[at] += step
            losses.append((fb.run(layer, moved)[0] * dh).sum())
        numeric[at] = (losses[0] - losses[1]) / 2e-6
    np.testing.assert_allclose(gradient.x, numeric, atol=1e-7)
