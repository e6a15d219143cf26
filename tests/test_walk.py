"""Compiled code carries out schedules: wherever it returns to Python, the bits are the same."""

import numpy as np
import pytest
from fastbptt.kernels.cpu.bound import Bound
from fastbptt.kernels.cpu.slots import ACTIONS

import fastbptt as fb
from fastbptt.engine import row_blocks
from fastbptt.memory import schedules
from fastbptt.memory.optimal import best, least_feasible

rng = np.random.default_rng(5)
T, B, I, H, O = 150, 3, 4, 6, 2

LAYERS = {
    "rnn": fb.RNN.init(I, H, rng=0),
    "lstm": fb.LSTM.init(I, H, rng=0),
    "gru": fb.GRU.init(I, H, rng=0),
    "stack": fb.Stack([fb.LSTM.init(I, H, rng=0), fb.GRU.init(H, 5, rng=1)], dropout=0.3),
    "both ways": fb.Bidirectional(fb.GRU.init(I, H, rng=0), fb.GRU.init(I, H, rng=1)),
}
X = rng.normal(size=(T, B, I)).astype(np.float32)
Y = rng.normal(size=(T, B, O)).astype(np.float32)
CLASSES = rng.integers(0, O, (T, B))
WEIGHTS = rng.random((T, B))
LENGTHS = np.array([T, 40, 0])


def numbers(value):
    """All arrays of a result, flat."""
    if value is None:
        return []
    if isinstance(value, (tuple, list)):
        return [number for part in value for number in numbers(part)]
    if hasattr(value, "arrays"):
        return [np.asarray(part) for part in value.arrays()]
    return [np.asarray(value)]


def results(layer):
    """Everything that a lane may be asked for, on one layer."""
    readout = fb.Readout.init(layer.outputs, O, rng=3)
    softmax = fb.Readout.init(layer.outputs, O, rng=3, activation="softmax")
    seed = {"seed": 1} if isinstance(layer, fb.Stack) else {}
    found = []
    state = fb.run(layer, X[::-1])[1]
    for lengths in (None, LENGTHS):
        h, state, cache = fb.forward(layer, X, state, lengths=lengths, **seed)
        g = fb.backward(cache, h, deltas=True)
        found.append((h, state, g.layer, g.x, g.state, g.deltas))
        net = fb.Network(layer, readout)
        budget = fb.frontier(net, T, B).checkpointed[-1].peak_bytes
        policies = [fb.Full(), fb.Checkpointed(budget), fb.Truncated(8, 20)]
        for memory in policies[: 2 if isinstance(layer, fb.Bidirectional) else 3]:
            for loss, y, weights, own in (
                ("squared_error", Y, None, net),
                ("cross_entropy", CLASSES, WEIGHTS, fb.Network(layer, softmax)),
                (lambda h, y, start: (float(h.sum()), np.ones_like(h)), None, None, net),
            ):
                r = fb.bptt(
                    own, X, y, loss, weights=weights, lengths=lengths, memory=memory,
                    input_grad=True, **seed,
                )  # fmt: skip
                found.append((r.loss, r.grad, r.state, r.grad_state, r.grad_x))
        found.append(fb.predict(net, X, lengths=lengths))
    return numbers(found)


@pytest.mark.parametrize("name", LAYERS)
def test_bits_do_not_depend_on_where_the_walk_returns(name, monkeypatch):
    """The clock is made to cut after every chunk, and the schedule comes in blocks of one row."""
    expected = results(LAYERS[name])
    walk, beside, returns = Bound.walk, Bound.walk_beside, []

    def one_chunk(self, rows, budget):
        chunk = self.get("chunk")
        self.set(call_steps=chunk, back_steps=chunk)
        returns.append(walk(self, rows, 1))
        return returns[-1]

    def one_chunk_each(self, rows, other, other_rows, budget):
        for bound in (self, other):
            chunk = bound.get("chunk")
            bound.set(call_steps=chunk, back_steps=chunk)
        returns.append(beside(self, rows, other, other_rows, 1))

    monkeypatch.setattr(Bound, "walk", one_chunk)
    monkeypatch.setattr(Bound, "walk_beside", one_chunk_each)
    monkeypatch.setattr(row_blocks, "BLOCK", 1)
    for array, due in zip(results(LAYERS[name]), expected, strict=True):
        np.testing.assert_array_equal(array, due)
    assert len(returns) > 100


def test_rows_have_the_numbers_of_their_kinds():
    from fastbptt.kernels.cpu import slots

    for name, number in ACTIONS.items():
        assert getattr(slots, name.upper()) == number
    made = {
        action[0] for action in (*schedules.optimal(50, 5, 1, 1), *schedules.truncated(9, 2, 5))
    }
    assert made == set(ACTIONS)


@pytest.mark.parametrize("seed", range(40))
def test_compiled_code_makes_the_rows_of_a_tree(seed):
    """The same actions as Python makes, from the tree's tables."""
    draw = np.random.default_rng(seed)
    steps, S = int(draw.choice([1, 2, 9, 60, 400, 3000])), int(draw.integers(1, 9))
    C = S * int(draw.integers(1, 4))
    least = least_feasible(steps, S, C)
    m = int(draw.integers(least, max(least + 1, min(steps * C, 150 * C))))
    due, made = list(schedules.optimal(steps, m, S, C)), []
    names = {number: name for name, number in ACTIONS.items()}
    for block in row_blocks.row_blocks(schedules.optimal(steps, m, S, C)):
        for kind, a, b, _ in block.tolist():
            name = names[kind]
            made.append((name, a, b) if name in ("advance", "cache", "reverse") else (name, a))
    assert made == due


def test_most_trees_have_tables():
    made = [best(3000, m, 2, 6).tables() for m in (100, 200, 400, 1000, 5000)]
    assert all(tables is not None for tables in made)
