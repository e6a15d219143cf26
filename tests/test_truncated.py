"""Truncated BPTT, against the windows of the specification and per-window autograd."""

import numpy as np
import pytest
from helpers import (
    GRADIENTS,
    all_results,
    assert_bptt_close,
    assert_close,
    assert_same_bits,
    make_problem,
    oracle_bptt,
)

import fastbptt as fb

pytestmark = pytest.mark.usefixtures("poisoned_empty")
LENGTHS = [0, 1, 2, 3, 5, 8, 9]
SCHEDULES = [(T, k1, k2) for T in LENGTHS for k1 in range(1, 6) for k2 in range(k1, 11)]


def small(cell, T, seed=0):
    return make_problem(cell, (T, 2, 2, 3, 2), seed=seed)


def truncated(q, k1, k2, **options):
    options.setdefault("state", q.state)
    memory = fb.Truncated(k1, k2)
    return fb.bptt(q.network, q.x, q.y, q.loss, memory=memory, input_grad=True, **options)


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_the_result_is_the_sum_over_the_windows_of_the_contract(cell):
    for T, k1, k2 in SCHEDULES:
        q = small(cell, T)
        due = oracle_bptt(q, state=q.state, truncation=(k1, k2))
        assert_bptt_close(truncated(q, k1, k2), due, q)


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_windows_are_the_same_for_every_length_and_weight(cell):
    for T, k1, k2 in [(9, 2, 5), (9, 3, 3), (8, 1, 4), (9, 4, 9), (9, 4, 20)]:
        q = small(cell, T)
        for lengths in ([9, 4], [0, 6], [3, 1]):
            options = {
                "lengths": np.minimum(lengths, T),
                "weights": q.rng.random((T, 2)) * (q.rng.random((T, 2)) < 0.7),
                "reduction": "mean",
            }
            due = oracle_bptt(q, state=q.state, truncation=(k1, k2), **options)
            assert_bptt_close(truncated(q, k1, k2, **options), due, q)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_the_result_is_autograd_with_the_state_detached_before_every_window(cell):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for T, k1, k2 in SCHEDULES:
        if T not in (0, 5, 8):
            continue
        q = small("rnn-tanh" if cell == "rnn" else cell, T)
        loss, arrays = detached_windows(torch, q, cell, k1, k2)
        r = truncated(q, k1, k2)
        assert_close(r.loss, loss, GRADIENTS["float64"])
        states = r.grad_state if cell == "lstm" else (r.grad_state,)
        got = [*r.grad.arrays(), r.grad_x, *states]
        for a, b in zip(got, arrays, strict=True):
            assert_close(a, b, GRADIENTS["float64"], f"T={T} k1={k1} k2={k2}")


def detached_windows(torch, q, cell, k1, k2):
    """Loss, and gradients of all arrays, x and the initial state, window after window."""
    leaf = lambda a: torch.from_numpy(a.copy()).requires_grad_()  # noqa: E731
    U, W, b, V, c = (leaf(a) for a in q.network.arrays())
    x, y = leaf(q.x), torch.from_numpy(q.y)
    initial = [leaf(a) for a in (q.state if cell == "lstm" else (q.state,))]

    def step(x, state):
        a = x @ U.T + state[0] @ W.T + b
        if cell == "rnn":
            return [torch.tanh(a)]
        i, f, g, o = a.chunk(4, 1)
        memory = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return [torch.sigmoid(o) * torch.tanh(memory), memory]

    states = [initial]
    with torch.no_grad():
        for t in range(q.T):
            states.append(step(x[t], states[-1]))
    total = 0.0
    for start in range(0, q.T, k1):
        stop = min(start + k1, q.T)
        s = 0 if k2 >= q.T else max(0, start - (k2 - k1))
        now = initial if s == 0 else states[s]
        loss = 0.0
        for t in range(s, stop):
            now = step(x[t], now)
            if t >= start:
                loss = loss + ((now[0] @ V.T + c - y[t]) ** 2).sum()
        loss.backward()
        total += loss.item()
    leaves = [U, W, b, V, c, x, *initial]
    return total, [np.zeros(a.shape) if a.grad is None else a.grad.numpy() for a in leaves]


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
@pytest.mark.parametrize("k", [1, 3, 4, 12, 50])
def test_equal_k1_and_k2_are_chunk_and_detach(cell, k):
    q = small(cell, 12)
    state, total, gradient, dx, dstate = q.state, 0.0, None, [], None
    for t in range(0, 12, k):
        part = slice(t, t + k)
        r = fb.bptt(q.network, q.x[part], q.y[part], state=state, input_grad=True)
        state, total = r.state, total + r.loss
        dx.append(r.grad_x)
        dstate = r.grad_state if dstate is None else dstate
        arrays = r.grad.arrays()
        gradient = arrays if gradient is None else list(map(np.add, gradient, arrays))
    r = truncated(q, k, k)
    tolerance = GRADIENTS["float64"]
    assert_close(r.loss, total, tolerance)
    for a, b in zip(r.grad.arrays(), gradient, strict=True):
        assert_close(a, b, tolerance)
    assert_close(r.grad_x, np.concatenate(dx), tolerance)
    assert_close(r.grad_state, dstate, tolerance)
    assert_close(r.state, state, tolerance)


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
@pytest.mark.parametrize("k1, k2", [(1, 12), (5, 12), (12, 12), (3, 400), (400, 400)])
def test_truncated_with_full_window_is_full_bptt(cell, k1, k2):
    q = small(cell, 12)
    full = fb.bptt(q.network, q.x, q.y, state=q.state, input_grad=True)
    r = truncated(q, k1, k2)
    for a, b in zip(all_results(r), all_results(full), strict=True):
        assert_close(a, b, GRADIENTS["float64"])


def test_no_truncation_changes_the_loss_the_readout_or_the_states():
    q = small("lstm", 20)
    full = fb.bptt(q.network, q.x, q.y, state=q.state)
    for k1, k2 in [(1, 1), (1, 7), (4, 4), (4, 9), (19, 19)]:
        r = truncated(q, k1, k2)
        assert_close(r.loss, full.loss, GRADIENTS["float64"])
        assert_close(r.state, full.state, GRADIENTS["float64"])
        for a, b in zip(r.grad.readout.arrays(), full.grad.readout.arrays(), strict=True):
            assert_close(a, b, GRADIENTS["float64"])


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_only_windows_that_start_at_zero_reach_the_initial_state(cell):
    q = small(cell, 12)
    r = truncated(q, 3, 5)  # windows start at 0, 1, 4 and 7
    head = fb.bptt(q.network, q.x[:3], q.y[:3], state=q.state)
    assert_close(r.grad_state, head.grad_state, GRADIENTS["float64"])


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
@pytest.mark.parametrize("k1, k2", [(1, 2), (1, 6), (2, 3), (3, 7), (5, 6)])
def test_overlaps_are_not_counted_again(cell, k1, k2):
    """The recipe that adds all k2 losses of every window counts the overlaps more than once."""
    q = small(cell, 12)
    right = oracle_bptt(q, state=q.state, truncation=(k1, k2))
    wrong = oracle_bptt(q, state=q.state, truncation=(k1, k2), recount=True)
    r = truncated(q, k1, k2)
    assert_bptt_close(r, right, q)
    assert_close(r.grad_x, right["x"], GRADIENTS["float64"])
    for name in "UWb":
        ours = getattr(r.grad.layer, name)
        assert np.linalg.norm(ours - wrong["layer"][name]) > 0.01 * np.linalg.norm(ours)


def test_a_callable_loss_is_called_once_for_every_position():
    for T, k1, k2 in SCHEDULES:
        q, seen = small("rnn-tanh", T), []

        def loss(h, y, start, seen=seen):
            seen += range(start, start + len(h))
            return float((h**2).sum()), 2 * h

        fb.bptt(q.network, q.x, None, loss, memory=fb.Truncated(k1, k2))
        assert sorted(seen) == list(range(T)), (T, k1, k2)


def test_a_longer_sequence_than_any_span_is_right_too():
    q = make_problem("lstm", (700, 1, 2, 3, 2))
    for k1, k2 in [(1, 3), (100, 250), (256, 256), (7, 650)]:
        r = truncated(q, k1, k2)
        assert_bptt_close(r, oracle_bptt(q, state=q.state, truncation=(k1, k2)), q)
        assert_same_bits(r, truncated(q, k1, k2))
