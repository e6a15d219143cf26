"""Online as it is used: copies and files, pushes that fail, memory, NaN, and bad arguments."""

import copy
import io
import pickle
import signal
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from fastbptt.kernels.cpu.bound import Bound
from helpers import make_problem

import fastbptt as fb

OLD = ["replay", "stale", "stored"]


def problem(T=60, B=2, cell="rnn-tanh", dtype="float64", **more):
    return make_problem(cell, (T, B, 3, 5, 2), dtype, **more)


def with_numbers(network, rng):
    return network.with_flat(network.flat() + 0.1 * rng.standard_normal(network.flat().size))


def worked(learner, q, stop, rng):
    """The learner after some pushes with changes of the network between them."""
    for a in range(0, stop, 3):
        learner.push(q.x[a : a + 3], q.y[a : a + 3], resets=rng.random((3, q.B)) < 0.1)
        learner.network = with_numbers(learner.network, rng)
    return learner


def rest(learner, q, start):
    """What the learner says from there on."""
    cuts = [start, start + 1, start + 9, q.T]
    pieces = [learner.push(q.x[a:b], q.y[a:b]) for a, b in pairwise(cuts)]
    return [*pieces, learner.finish()]


def assert_same(found, wanted):
    for one, two in zip(found, wanted, strict=True):
        assert (one.loss, one.steps) == (two.loss, two.steps)
        assert (one.grad is None) == (two.grad is None)
        assert one.grad is None or np.array_equal(one.grad.flat(), two.grad.flat())
        assert one.outputs is None or np.array_equal(one.outputs, two.outputs)


def stored(learner):
    file = io.BytesIO()
    learner.save(file)
    file.seek(0)
    return fb.load(file)


@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("tokens", [False, True])
def test_copies_pickles_and_files_go_on_with_the_same_bits(old, tokens):
    q = problem(tokens=tokens, loss="cross_entropy", readout="softmax")
    gradient = fb.Truncated(4, 10, weights=old)
    learner = fb.Online(q.network, 2, gradient=gradient, loss=q.loss, state=q.state)
    others = [pickle.loads(pickle.dumps(learner)), stored(learner)]  # before the first push
    for other in [*others, learner]:
        worked(other, q, 21, np.random.default_rng(0))
    others += [pickle.loads(pickle.dumps(learner)), stored(learner)]
    others += [copy.copy(learner), copy.deepcopy(learner)]
    due = rest(learner, q, 21)
    for other in others:
        assert other.nbytes == learner.nbytes or old == "stored"
        assert_same(rest(other, q, 21), due)
        assert other.time == learner.time and np.array_equal(other.state, learner.state)


@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("steps", [1, 5, 7])
def test_copies_before_the_first_window_and_after_finish_go_on(old, steps):
    q = problem(T=30)
    learner = fb.Online(q.network, 2, gradient=fb.Truncated(8, 10, weights=old))
    learner.push(q.x[:steps], q.y[:steps])
    others = [copy.copy(learner), pickle.loads(pickle.dumps(learner)), stored(learner)]
    last = learner.finish()
    assert_same([other.finish() for other in others], [last] * 3)
    others.append(pickle.loads(pickle.dumps(learner)))  # due from here on
    due = rest(learner, q, steps)
    for other in others:
        assert_same(rest(other, q, steps), due)


def test_a_learner_with_a_loss_of_ones_own_pickles_and_is_not_saved(tmp_path):
    q = problem(T=20)
    network = fb.Network(q.layer, None)
    y = q.rng.standard_normal((20, 2, 5))
    learner = fb.Online(network, 2, gradient=fb.Truncated(4, 10), loss=distance)
    learner.push(q.x[:6], y[:6])
    other = pickle.loads(pickle.dumps(learner))
    assert_same([other.push(q.x[6:], y[6:])], [learner.push(q.x[6:], y[6:])])
    with pytest.raises(TypeError, match="loss must be a name for a learner to be saved"):
        learner.save(tmp_path / "learner.npz")
    assert not list(tmp_path.iterdir())


def distance(h, y, start):
    return float(((h - y) ** 2).sum()), 2 * (h - y)


@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("steps", [1, 4, 30])
def test_a_push_that_fails_leaves_the_learner_as_it_was(old, steps, monkeypatch):
    """It fails wherever something is run, after each call of compiled code in turn."""
    from fastbptt.kernels.cpu.bound import Bound

    q = problem()
    learner = fb.Online(q.network, 2, gradient=fb.Truncated(4, 10, weights=old))
    worked(learner, q, 21, np.random.default_rng(0))
    before, size = copy.copy(learner), learner.nbytes
    due, walk, failed = rest(copy.copy(learner), q, 21), Bound.walk, 0
    for last in range(40):
        left = [last]

        def failing(self, *given, left=left):
            status = walk(self, *given)
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return status

        monkeypatch.setattr(Bound, "walk", failing)
        other = with_numbers(learner.network, q.rng)
        learner.network, old_network = other, learner.network
        try:
            learner.push(q.x[-steps:], q.y[-steps:], resets=np.ones((steps, 2), bool))
        except KeyboardInterrupt:
            failed += 1
        else:
            break
        finally:
            monkeypatch.setattr(Bound, "walk", walk)
            learner.network = old_network
        assert learner.time == 21 and learner.nbytes == size
        assert np.array_equal(learner.state, before.state)
        assert_same(rest(copy.copy(learner), q, 21), due)
    assert failed >= 1


def test_a_loss_that_raises_leaves_the_learner_as_it_was():
    q = problem(T=20)
    y = q.rng.standard_normal((20, 2, 5))
    calls = []

    def loss(h, y, start):
        calls.append(start)
        if start == 12 and len(calls) < 9:
            raise RuntimeError("no")
        return distance(h, y, start)

    learner = fb.Online(fb.Network(q.layer, None), 2, gradient=fb.Truncated(4, 6), loss=loss)
    plain = fb.Online(fb.Network(q.layer, None), 2, gradient=fb.Truncated(4, 6), loss=distance)
    assert_same([learner.push(q.x[:6], y[:6])], [plain.push(q.x[:6], y[:6])])
    while learner.time < 20:
        try:
            update = learner.push(q.x[6:], y[6:])
        except RuntimeError:
            assert learner.time == 6
    assert_same([update], [plain.push(q.x[6:], y[6:])])
    learner.push(q.x[:4], q.rng.standard_normal((4, 2, 5)))
    assert learner.push(q.x[:0], y[:0]).steps == 0

    def wrong(h, y, start):
        return 1.0, h[:1]

    learner = fb.Online(fb.Network(q.layer, None), 2, gradient=fb.Truncated(4, 6), loss=wrong)
    with pytest.raises(ValueError, match=r"dh returned by loss must have shape \(., 2, 5\)"):
        learner.push(q.x[:4], y[:4])


@pytest.mark.parametrize("old", OLD)
def test_a_push_of_tokens_that_fails_leaves_the_weights_as_they_are(old):
    q = problem(T=24, tokens=True)
    y, fails = q.rng.standard_normal((24, 2, 5)), []

    def loss(h, y, start):
        if fails:
            raise RuntimeError("no")
        return distance(h, y, start)

    network = fb.Network(q.layer, None)
    one, two = (
        fb.Online(network, 2, gradient=fb.Truncated(4, 6, weights=old), loss=loss) for _ in range(2)
    )
    for learner in (one, two):
        learner.push(q.x[:6], y[:6])
        learner.network = network.with_flat(1.1 * network.flat())
        learner.push(q.x[6:12], y[6:12])
    fails.append(True)
    with pytest.raises(RuntimeError, match="no"):
        one.push(q.x[12:], y[12:])
    fails.clear()
    assert_same([one.push(q.x[12:], y[12:])], [two.push(q.x[12:], y[12:])])


def test_a_first_push_that_fails_leaves_no_gradient_by_the_networks_state():
    q = problem(T=12)
    network = fb.Network(q.layer, None, state=q.rng.standard_normal(5))
    y, fails = q.rng.standard_normal((12, 2, 5)), [True]

    def loss(h, y, start):
        if start >= 4 and fails:
            fails.clear()
            raise RuntimeError("no")
        return distance(h, y, start)

    learner = fb.Online(network, 2, gradient=fb.Truncated(4, 6), loss=loss)
    with pytest.raises(RuntimeError, match="no"):
        learner.push(q.x, y)
    due = fb.bptt(network, q.x, y, distance, memory=fb.Truncated(4, 6))
    found = learner.push(q.x, y)
    np.testing.assert_allclose(found.grad.flat(), due.grad.flat(), rtol=1e-10, atol=1e-12)


def test_ctrl_c_in_a_long_push_is_heard_and_leaves_the_learner_as_it_was(monkeypatch):
    q = problem(T=40)
    learner = fb.Online(q.network, 2, gradient=fb.Truncated(5, 12))
    learner.push(q.x, q.y)
    due = rest(copy.copy(learner), q, 0)
    walk, stretches = Bound.walk, []

    def interrupted(self, rows, budget):
        status = walk(self, rows, budget)
        stretches.append(status)
        if len(stretches) == 2:
            signal.raise_signal(signal.SIGINT)
        return status

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Bound, "walk", interrupted)
        learner.push(np.tile(q.x, (500, 1, 1)), np.tile(q.y, (500, 1, 1)))
    assert learner.time == 40
    assert_same(rest(learner, q, 0), due)


@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("cell", ["lstm", "gru/lstm"])
def test_memory_is_constant_and_within_the_plan(old, cell):
    for k1, k2, B, n in [(1, 1, 1, 1), (3, 9, 2, 2), (3, 9, 2, 50), (20, 150, 1, 70)]:
        q = make_problem(cell, (200, B, 3, 5, 2), "float32")
        gradient = fb.Truncated(k1, k2, weights=old)
        plan = fb.plan(q.network, None, B, memory=gradient)
        assert plan.steps is None and plan.actions is None and not plan.exact
        assert plan.time_factor == pytest.approx((1 + 2 * k2 / k1) / 3)
        weights, held = q.rng.random((200, B, 2)), set()
        for _ in range(2):  # all is compiled and pooled the second time
            tracemalloc.start()
            learner = fb.Online(q.network, B, gradient=gradient)
            for a in range(0, 200, n):
                learner.network.layer.arrays()[0][0, 0] += 1e-3
                learner.push(q.x[a : a + n], q.y[a : a + n], weights=weights[a : a + n])
                held.add(learner.nbytes)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak - q.x.nbytes <= plan.peak_bytes and max(held) <= plan.peak_bytes
        assert len(held) == 1 or old == "stored"


def test_many_pieces_take_no_more_memory_than_few():
    q = problem(T=50, B=1)
    learner = fb.Online(q.network, 1, gradient=fb.Truncated(7, 16))

    def pieces(count):
        for t in range(count):
            yield q.x[t % 50], q.y[t % 50]

    def run(count):
        for x, y in pieces(count):
            update = learner.push(x, y)
            if update.grad is not None:
                learner.network.readout.c[...] -= 1e-3 * update.grad.readout.c

    run(100)
    tracemalloc.start()
    run(50)
    base = tracemalloc.get_traced_memory()[0]
    run(5000)
    grown = tracemalloc.get_traced_memory()[0] - base
    tracemalloc.stop()
    assert grown < 10_000


@pytest.mark.parametrize("old", OLD)
def test_a_nan_stays_in_its_sequence(old):
    q = problem(T=20, B=3, cell="lstm")
    x = q.x.copy()
    x[4, 1] = np.nan
    gradient, weights = fb.Truncated(4, 9, weights=old), np.ones((20, 3))
    weights[4:, 1] = 0
    plain, sick = (fb.Online(q.network, 3, gradient=gradient) for _ in range(2))
    for t in range(20):
        one = plain.push(q.x[t], q.y[t], weights=weights[t])
        two = sick.push(x[t], q.y[t], weights=weights[t])
        assert np.array_equal(one.outputs[[0, 2]], two.outputs[[0, 2]])
        assert np.isnan(two.outputs[1]).all() == (t >= 4)
    assert np.isnan(sick.state[0][1]).all()
    keep = [0, 2]
    assert all(
        np.array_equal(a[keep], b[keep]) for a, b in zip(sick.state, plain.state, strict=True)
    )


def test_saved_learners_that_were_tampered_with_are_refused():
    q = problem(tokens=True)
    learner = fb.Online(q.network, 2, gradient=fb.Truncated(4, 6))
    learner.push(q.x[:7], q.y[:7])
    file = io.BytesIO()
    learner.save(file)
    file.seek(0)
    arrays = dict(np.load(file))
    text, good = str(arrays["structure"]), 0
    for old, new in [
        ('\\"k2\\": 6', '\\"k2\\": 1000000000'),
        ('\\"plain\\": [2,', '\\"plain\\": [3,'),
        ('\\"plain\\": [2,', '\\"plain\\": [1000000000000,'),
        ("Truncated", "Full"),
        ('\\"part\\": 0', '\\"part\\": 99'),
        ('{\\"tuple\\": [7, 4,', '{\\"tuple\\": [7, -4,'),
    ]:
        assert old in text, old
        changed = io.BytesIO()
        np.savez(changed, **{**arrays, "structure": np.array(text.replace(old, new))})
        changed.seek(0)
        with pytest.raises(ValueError, match="path must be a file written by save"):
            fb.load(changed)
        good += 1
    for name, values in arrays.items():
        if values.dtype.kind == "f" and values.shape == (16, 2):  # tokens
            changed = io.BytesIO()
            np.savez(changed, **{**arrays, name: values + 5})
            changed.seek(0)
            with pytest.raises(ValueError, match="path must be"):
                fb.load(changed)
            good += 1
            break
    assert good == 7 and "SavedOnline" in text
