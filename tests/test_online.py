"""Online with Truncated: updates add up to bptt's; their bits do not depend on the pieces."""

from itertools import pairwise

import numpy as np
import pytest
from helpers import GRADIENTS, LOSS_READOUTS, make_problem, put_threads_back
from test_own import TIMED

import fastbptt as fb
from fastbptt.layers.composite import recurrent_layers

pytestmark = pytest.mark.usefixtures("poisoned_empty")
CELLS = ["rnn-tanh", "lstm", "gru", "gru-before/rnn-tanh/lstm-peephole"]


def flat_state(state):
    """The arrays of a state."""
    if isinstance(state, tuple):
        return [array for part in state for array in flat_state(part)]
    return [state]


def cuts_of(T, rng):
    """Some ways to cut T steps: one by one, all at once, at random with empty pieces."""
    some = sorted(rng.integers(0, T + 1, 4).tolist())
    return [list(range(T + 1)), [0, T], [0, *some, T]]


def pushed(learner, cuts, x, y, **options):
    """The updates of the pieces between cuts, and that of `finish`."""
    found = []
    for a, b in pairwise(cuts):
        own = {name: value if value is None else value[a:b] for name, value in options.items()}
        found.append(learner.push(x[a:b], None if y is None else y[a:b], **own))
    return [*found, learner.finish()]


def summed(updates):
    """The loss, and the gradient as a vector, of some updates."""
    grads = [update.grad.flat().astype(float) for update in updates if update.grad is not None]
    return sum(update.loss for update in updates), sum(grads)


def check(updates, due, dtype):
    loss, grad = summed(updates)
    wanted = due.grad.flat().astype(float)
    assert np.linalg.norm(grad - wanted) <= GRADIENTS[dtype] * max(1e-3, np.linalg.norm(wanted))
    np.testing.assert_allclose(loss, due.loss, rtol=1e-5 if dtype == "float32" else 1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_updates_add_up_to_bptt_for_any_cutting(cell, dtype):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        T, B, k1 = rng.integers(1, 40), rng.integers(1, 4), rng.integers(1, 6)
        q = make_problem(cell, (T, B, 3, 5, 2), dtype, seed=seed)
        options = {
            "weights": rng.random((T, B)) * (rng.random((T, B)) < 0.8) if seed % 2 else None,
            "resets": rng.random((T, B)) < 0.15 if seed % 4 > 1 else None,
        }
        memory = fb.Truncated(k1, k1 + rng.integers(0, 6))
        due = fb.bptt(q.network, q.x, q.y, memory=memory, state=q.state, **options)
        o, _ = fb.predict(q.network, q.x, q.state, resets=options["resets"])
        for cuts in cuts_of(T, rng):
            learner = fb.Online(q.network, B, gradient=memory, state=q.state)
            updates = pushed(learner, cuts, q.x, q.y, **options)
            check(updates, due, dtype)
            assert sum(update.steps for update in updates) == learner.time == T
            outputs = np.concatenate([u.outputs for u in updates if u.outputs is not None])
            assert np.array_equal(outputs, o)  # the bits of predict
            pairs = zip(flat_state(learner.state), flat_state(due.state), strict=True)
            assert all(np.array_equal(own, wanted) for own, wanted in pairs)


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
@pytest.mark.parametrize("B", [2, 512])  # flushes of 2048 and of 8 steps
def test_every_window_has_the_same_bits_however_pieces_are_cut(cell, B):
    T, memory = 45, fb.Truncated(4, 11)
    q = make_problem(cell, (T, B, 3, 5, 2), "float32")
    rng = q.rng
    resets = rng.random((T, B)) < 0.1
    one = fb.Online(q.network, B, gradient=memory)
    windows = {}
    for t in range(T):
        update = one.push(q.x[t], q.y[t], resets=resets[t])
        if update.steps:
            windows[t + 1] = update
    for _ in range(4):
        learner, at = fb.Online(q.network, B, gradient=memory), 0
        while at < T:
            n = min(T - at, rng.integers(1, 6))
            update = learner.push(q.x[at : at + n], q.y[at : at + n], resets=resets[at : at + n])
            due = [end for end in windows if at < end <= at + n]
            at += n
            if len(due) == 1:
                wanted = windows[due[0]]
                assert np.array_equal(update.grad.flat(), wanted.grad.flat())
                assert update.loss == wanted.loss and update.steps == 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("T", [1, 7, 20])
def test_a_single_window_has_the_bits_of_bptt(dtype, T):
    for trained in (False, True):
        q = make_problem("lstm", (T, 3, 3, 5, 2), dtype, seed=T)
        network = q.network
        if trained:
            own = tuple(part[0] for part in q.state)
            network = fb.Network(q.layer, q.readout, own)
        resets = q.rng.random((T, 3)) < 0.2
        resets[0, 1] = True
        memory = fb.Truncated(6, 20)
        due = fb.bptt(network, q.x, q.y, memory=fb.Truncated(20, 20), resets=resets)
        if T <= 6:
            learner = fb.Online(network, 3, gradient=memory)
        else:
            learner = fb.Online(network, 3, gradient=fb.Truncated(20, 20))
        (update,) = [u for u in pushed(learner, [0, T // 2, T], q.x, q.y, resets=resets) if u.steps]
        assert update.loss == due.loss
        assert np.array_equal(update.grad.flat(), due.grad.flat())


def test_the_last_window_starts_at_zero_if_all_came_within_k2():
    q = make_problem("rnn-tanh", (5, 2, 3, 5, 2))
    memory = fb.Truncated(3, 5)  # the second window would begin at 1
    due = fb.bptt(q.network, q.x, q.y, memory=memory)
    full = fb.bptt(q.network, q.x, q.y)
    learner = fb.Online(q.network, 2, gradient=memory)
    check(pushed(learner, [0, 5], q.x, q.y), due, "float64")
    assert np.array_equal(due.grad.flat(), full.grad.flat())
    assert learner.finish().steps == 0 and learner.finish().grad is None
    # It goes on: the next losses are those of the next k1 steps.
    again = [learner.push(q.x[t], q.y[t]).steps for t in range(5)]
    assert again == [0, 0, 3, 0, 0] and learner.time == 10


@pytest.mark.parametrize(("loss", "readout"), LOSS_READOUTS)
@pytest.mark.parametrize("tokens", [False, True])
def test_losses_tokens_and_forms_without_axes(loss, readout, tokens):
    T = 13
    q = make_problem("rnn-tanh", (T, 1, 3, 5, 4), "float64", loss, readout, tokens)
    x, y = q.x[:, 0], q.y[:, 0]
    memory = fb.Truncated(3, 5)
    weights = q.rng.random(T) * (q.rng.random(T) < 0.7)
    due = fb.bptt(q.network, x, y, loss, memory=memory, weights=weights)
    for single in (False, True):
        learner = fb.Online(q.network, gradient=memory, loss=loss)
        updates = []
        for t in range(T):
            at = t if single else slice(t, t + 1)
            updates.append(learner.push(x[at], y[at], weights=weights[at]))
        assert updates[0].outputs.shape == ((4,) if single else (1, 4))
        check([*updates, learner.finish()], due, "float64")


@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy"])
def test_weights_of_outputs_may_come_at_any_time_and_y_may_be_missing(loss):
    T, B = 12, 2
    q = make_problem("rnn-tanh", (T, B, 3, 5, 3), loss=loss, readout="sigmoid")
    weights = np.ones((T, B, 3))
    weights[5:9] = q.rng.random((4, B, 3)) * (q.rng.random((4, B, 3)) < 0.5)
    weights[9] = 0
    y = q.y.copy()
    y[weights == 0] = np.nan
    memory = fb.Truncated(4, 6)
    due = fb.bptt(q.network, q.x, y, loss, memory=memory, weights=weights)
    learner = fb.Online(q.network, B, gradient=memory, loss=loss)
    updates = [learner.push(q.x[:5], y[:5]), learner.push(q.x[5:9], y[5:9], weights=weights[5:9])]
    updates += [learner.push(q.x[9]), learner.push(q.x[10:], y[10:]), learner.finish()]
    check(updates, due, "float64")


@pytest.mark.parametrize("B", [None, 1, 2])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_weights_of_outputs_may_be_those_of_a_single_output(B, n):
    q = make_problem("rnn-tanh", (12, 1 if B is None else B, 3, 5, 1))
    x, y, weights = q.x, q.y, q.rng.random((12, 1 if B is None else B, 1))
    if B is None:
        x, y, weights = x[:, 0], y[:, 0], weights[:, 0]
    memory = fb.Truncated(4, 6)
    due = fb.bptt(q.network, x, y, memory=memory, weights=weights)
    learner = fb.Online(q.network, B, gradient=memory)
    pieces = [slice(a, a + n) for a in range(0, 12, n)]
    check([learner.push(x[at], y[at], weights=weights[at]) for at in pieces], due, "float64")


def squares(values, y, start):
    """A loss of the caller's own: squared_error, with the place in time."""
    assert len(y) == len(values)
    return float(((values - y) ** 2).sum()) * (1 + start % 1), 2 * (values - y)


@pytest.mark.parametrize("own", [False, True])
def test_losses_of_the_callers_own_are_asked_once_about_each_step(own):
    T, B = 15, 2
    q = make_problem("rnn-tanh", (T, B, 3, 5, 5))
    asked = []

    def loss(values, y, start):
        asked.extend(range(start, start + len(values)))
        return squares(values, y, start)

    memory = fb.Truncated(4, 9)
    given = fb.OutputLoss(loss) if own else loss
    network = q.network if own else fb.Network(q.layer, None)
    due = fb.bptt(network, q.x, q.y, given, memory=memory)
    for cuts in ([0, T], list(range(T + 1)), [0, 3, 3, 11, T]):
        del asked[:]
        learner = fb.Online(network, B, gradient=memory, loss=given)
        check(pushed(learner, cuts, q.x, q.y), due, "float64")
        assert sorted(asked) == list(range(T))
    learner = fb.Online(network, B, gradient=memory, loss=given)
    assert learner.push(q.x[:4]).loss == 0  # without y there is no loss to ask for


def test_own_states_and_resets_train_the_networks_state():
    T, B = 14, 3
    q = make_problem("gru/lstm", (T, B, 3, 5, 2))
    own = tuple(
        tuple(a[0] for a in part) if isinstance(part, tuple) else part[0] for part in q.state
    )
    network = fb.Network(q.layer, q.readout, own)
    resets = q.rng.random((T, B)) < 0.3
    resets[0, :2] = [True, False]
    memory = fb.Truncated(3, 7)
    for state in (None, q.state):
        due = fb.bptt(network, q.x, q.y, memory=memory, resets=resets, state=state)
        for cuts in ([0, T], list(range(T + 1))):
            learner = fb.Online(network, B, gradient=memory, state=state)
            check(pushed(learner, cuts, q.x, q.y, resets=resets), due, "float64")


def test_a_callers_own_cell_learns_online():
    rng = np.random.default_rng(0)
    layer = TIMED.init(3, 5, rng=rng, dtype="float64")
    network = fb.Network(layer, fb.Readout.init(5, 2, rng=rng, dtype="float64"))
    x, y = rng.standard_normal((11, 2, 3)), rng.standard_normal((11, 2, 2))
    memory = fb.Truncated(2, 5)
    due = fb.bptt(network, x, y, memory=memory)
    learner = fb.Online(network, 2, gradient=memory)
    check(pushed(learner, [0, 1, 6, 11], x, y), due, "float64")


def test_any_number_of_threads_gives_the_same_bits():
    q = make_problem("lstm", (40, 9, 3, 5, 2), "float32")
    found = []
    try:
        for threads in (1, 2):
            fb.set_num_threads(threads)
            learner = fb.Online(q.network, 9, gradient=fb.Truncated(8, 20))
            found.append([u.grad.flat() for u in pushed(learner, [0, 20, 40], q.x, q.y) if u.grad])
    finally:
        put_threads_back()
    assert all(np.array_equal(*pair) for pair in zip(*found, strict=True))


def test_reset_goes_back_to_the_given_state():
    q = make_problem("lstm", (10, 2, 3, 5, 2))
    learner = fb.Online(q.network, 2, gradient=fb.Truncated(3, 5), state=q.state)
    first = pushed(learner, [0, 10], q.x, q.y)
    learner.reset()
    assert learner.time == 0
    assert all(
        np.array_equal(own, given)
        for own, given in zip(flat_state(learner.state), flat_state(q.state), strict=True)
    )
    for one, two in zip(first, pushed(learner, [0, 10], q.x, q.y), strict=True):
        assert one.loss == two.loss
        assert (one.grad is None) or np.array_equal(one.grad.flat(), two.grad.flat())


def test_a_network_of_all_layers_is_pushed_without_dropout():
    q = make_problem("lstm/gru", (9, 2, 3, 5, 2), dropout=0.5)
    memory = fb.Truncated(2, 4)
    plain = fb.Network(fb.Stack(list(recurrent_layers(q.layer))), q.readout)
    due = fb.bptt(plain, q.x, q.y, memory=memory)
    check(pushed(fb.Online(q.network, 2, gradient=memory), [0, 4, 9], q.x, q.y), due, "float64")
