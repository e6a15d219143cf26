"""RTRL and SnAp-1 as they are used: plans, memory, copies and files, pushes that fail, errors."""

import copy
import io
import pickle
import tracemalloc

import numpy as np
import pytest
from checks import OBJECTS, rejected
from helpers import make_problem

import fastbptt as fb

pytestmark = pytest.mark.usefixtures("poisoned_empty")
POLICIES = [fb.RTRL(4), fb.SnAp1()]
CELLS = ["rnn-tanh", "gru-before/rnn-tanh/lstm-peephole"]


def problem(cell="rnn-tanh", T=24, **options):
    return make_problem(cell, (T, 2, 3, 5, 2), **options)


def worked(learner, q, stop, changes=True):
    """The learner after some pushes, with other networks between them."""
    for t in range(0, stop, 3):
        learner.push(q.x[t : t + 3], q.y[t : t + 3], resets=q.rng.random((3, 2)) < 0.1)
        if changes:
            numbers = learner.network.flat()
            learner.network = learner.network.with_flat(numbers * q.rng.uniform(0.9, 1.1))
    return learner


def rest(learner, q, start):
    """The bits of all that the learner says from there on."""
    found = []
    for a, b in ((start, start + 1), (start + 1, start + 6), (start + 6, q.T)):
        u = learner.push(q.x[a:b], q.y[a:b])
        found += [u.loss, u.grad.flat().tobytes(), u.outputs.tobytes()]
    return found


def stored(learner):
    file = io.BytesIO()
    learner.save(file)
    file.seek(0)
    return fb.load(file)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cell", CELLS)
def test_copies_pickles_and_files_go_on_with_the_same_bits(policy, cell):
    q = problem(cell)
    learner = worked(fb.Online(q.network, 2, gradient=policy), q, 9)  # a block ends at 8
    ways = copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one)), stored
    others = [way(learner) for way in ways]
    due = rest(learner, q, 9)
    for other in others:
        assert other.time == 9 and rest(other, q, 9) == due
        other.reset()
        assert other.time == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_a_push_that_fails_changes_nothing(policy):
    """At whichever loss it fails: within a block, after one end of a block or after several."""
    q = problem()

    class Bomb:
        left = -1

        def __call__(self, h, y, start):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return float(((h - 1) ** 2).sum()), 2 * (h - 1)

    for size in (1, 3, 13, 15):
        for at in (1, 2, 3, 4):
            bomb = Bomb()
            learner = fb.Online(q.network, 2, gradient=policy, loss=bomb)
            for t in range(0, 6, 3):
                learner.push(q.x[t : t + 3], range(3))
            other = copy.deepcopy(learner)
            held, bomb.left = learner.nbytes, at
            try:
                learner.push(q.x[6 : 6 + size], range(size))
            except KeyboardInterrupt:
                assert learner.time == 6 and learner.nbytes == held
                bomb.left = -1
                for a, b in ((6, 7), (7, 20), (20, 24)):
                    one, two = (each.push(q.x[a:b], range(b - a)) for each in (learner, other))
                    assert one.grad.flat().tobytes() == two.grad.flat().tobytes()


@pytest.mark.parametrize("policy", [fb.RTRL(), fb.RTRL(7), fb.SnAp1()])
@pytest.mark.parametrize("cell, dtype", [("rnn-tanh", "float32"), (CELLS[1], "float64")])
def test_bytes_stay_within_the_plan(policy, cell, dtype):
    q = make_problem(cell, (150, 2, 3, 20 if dtype == "float32" else 5, 2), dtype)
    fb.bptt(q.network, q.x, q.y, memory=policy)
    tracemalloc.start()
    fb.bptt(q.network, q.x, q.y, memory=policy)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= fb.plan(q.network, 150, 2, memory=policy).peak_bytes + OBJECTS
    bound, learner = (
        fb.plan(q.network, None, 2, memory=policy),
        fb.Online(q.network, 2, gradient=policy),
    )
    held = []
    for t in range(0, 150, 3):
        learner.push(q.x[t : t + 3], q.y[t : t + 3])
        held.append(learner.nbytes)
    assert len(set(held)) == 1 and held[0] <= bound.cache_bytes
    for t in range(150):
        learner.network = learner.network.with_flat(learner.network.flat() * 0.999)
        learner.push(q.x[t : t + 1], q.y[t : t + 1])
        assert learner.nbytes <= bound.peak_bytes
    assert bound.steps is bound.actions is None and bound.time_factor > 1
    assert bound.exact == policy.exact and "without bound" in str(bound)


@pytest.mark.parametrize("policy", POLICIES)
def test_memory_does_not_grow_with_time(policy):
    q = problem(T=40)
    learner = fb.Online(q.network, 2, gradient=policy)
    worked(learner, q, 39)
    tracemalloc.start()
    worked(learner, q, 39)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(10):
        worked(learner, q, 39)
    assert tracemalloc.get_traced_memory()[0] - before < 20_000
    tracemalloc.stop()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_nan_stays_in_its_own_sequence_until_a_reset(policy, cell):
    q, found = problem(cell), []
    for spoilt in (False, True):
        x = q.x.copy()
        x[2, 1] = np.nan if spoilt else 0.5
        learner = fb.Online(q.network, 2, gradient=policy)
        weights, resets = np.ones((24, 2)), np.zeros((24, 2), bool)
        weights[:9, 1], resets[9, 1] = 0, True
        for a, b in ((0, 9), (9, 10), (10, 24)):
            u = learner.push(x[a:b], q.y[a:b], weights=weights[a:b], resets=resets[a:b])
        found.append((u.loss, u.grad.flat().tobytes()))
    assert found[0] == found[1]


@pytest.mark.parametrize("policy", POLICIES)
def test_without_targets_nothing_is_learned_but_the_past_counts(policy):
    q, weights = problem(), np.ones((24, 2))
    weights[:10] = 0
    learners = [fb.Online(q.network, 2, gradient=policy) for _ in range(2)]
    first = learners[0].push(q.x[:10])
    assert first.loss == 0 and not first.grad.flat().any() and first.steps == 10
    learners[1].push(q.x[:10], q.y[:10], weights=weights[:10])
    one, two = (learner.push(q.x[10:], q.y[10:]) for learner in learners)
    assert one.grad.flat().tobytes() == two.grad.flat().tobytes()


def test_snap_holds_no_weights_of_longer_pieces():
    q = problem()
    learner, held = fb.Online(q.network, 2, gradient=fb.SnAp1()), set()
    for n in range(6, 0, -1):
        learner.push(q.x[:n], q.y[:n])
        held.add(learner.nbytes)
        learner.network = learner.network.with_flat(learner.network.flat() * 0.9)
    assert len(held) == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_targets_and_inputs_of_any_strides(policy):
    q = problem()
    x, y = np.asfortranarray(q.x), q.y[:, ::-1, ::-1]
    one, two = (fb.Online(q.network, 2, gradient=policy) for _ in range(2))
    due = one.push(x.copy("C"), y.copy("C"))
    found = two.push(x, y)
    assert found.loss == due.loss and np.array_equal(found.grad.flat(), due.grad.flat())
    whole = fb.bptt(q.network, x, y, memory=policy)
    np.testing.assert_allclose(whole.grad.flat(), due.grad.flat(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("policy", [*POLICIES, fb.Truncated(2, 5)])
def test_plans_without_end_are_of_learners(policy, monkeypatch):
    q = problem()
    alone = fb.plan(q.network, None, None, memory=policy)
    assert alone.peak_bytes == fb.plan(q.network, None, 1, memory=policy).peak_bytes
    assert "not exact" in str(fb.plan(q.network, 9, memory=fb.SnAp1()))
    rejected(lambda: fb.plan(q.network, None, memory=policy, device="cuda"), "device", "CPU")
    monkeypatch.setenv("FASTBPTT_DEVICE", "cuda")  # not for learners
    assert fb.plan(q.network, None, memory=policy).peak_bytes == alone.peak_bytes


@pytest.mark.parametrize("policy", POLICIES)
def test_what_cannot_be_had_is_said(policy):
    q = problem()
    both = make_problem("rnn-tanh|rnn-tanh", (4, 2, 3, 5, 2))
    name = str(policy)
    for call in (lambda **o: fb.bptt(q.network, q.x, q.y, memory=policy, **o),
                 lambda **o: fb.plan(q.network, 24, 2, memory=policy, **o)):  # fmt: skip
        rejected(lambda: call(input_grad=True), "input_grad", "False", errors=(ValueError,))  # noqa: B023
        rejected(lambda: call(device="cuda"), "device", "CPU", errors=(ValueError,))  # noqa: B023
    for call in (lambda: fb.bptt(both.network, both.x, both.y, memory=policy),
                 lambda: fb.plan(both.network, 4, 2, memory=policy)):  # fmt: skip
        rejected(call, "memory", "Bidirectional", errors=(ValueError,))
    rejected(lambda: fb.Online(both.network, 2, gradient=policy), "Bidirectional")
    for call in (lambda: fb.forward(q.layer, q.x, memory=policy),
                 lambda: fb.plan(q.layer, 24, memory=policy)):  # fmt: skip
        rejected(call, "memory", name.split(",")[0], errors=(ValueError,))
    rejected(lambda: fb.RTRL(0), "block", "1", errors=(ValueError,))
    rejected(lambda: fb.RTRL(2.5), "block", "integer", errors=(TypeError,))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cell", CELLS)
def test_what_x_and_y_hold_past_the_lengths_does_not_matter(policy, cell):
    q, found = problem(cell), []
    for value in (0.5, np.nan):
        x, y = q.x.copy(), q.y.copy()
        x[13:, 0] = y[13:, 0] = value
        r = fb.bptt(q.network, x, y, lengths=[13, 24], memory=policy)
        found.append((r.loss, r.grad.flat().tobytes()))
    assert found[0] == found[1]


def test_the_frontier_has_rtrl_where_it_takes_the_least_memory():
    few, many = problem().network, make_problem("rnn-tanh", (1, 1, 3, 128, 2)).network
    rows = fb.frontier(few, 10**9, 1)
    assert rows[-1] == fb.plan(few, 10**9, 1, memory=fb.RTRL()) and "0 (RTRL)" in str(rows)
    assert rows[-1].peak_bytes < min(row.peak_bytes for row in rows[:-1])
    assert rows.checkpointed == rows[:-1]
    assert all(row.memory != fb.RTRL() for row in fb.frontier(many, 1000, 1))
