"""Threads that use one learner, or one optimiser: as if one had made all the calls."""

import copy
import os
import pickle
import threading

import numpy as np
import pytest

import fastbptt as fb
from fastbptt.layers.turns import Turns

GRADIENTS = [fb.Truncated(3, 5), fb.Truncated(3, 5, weights="stored"), fb.RTRL(), fb.SnAp1()]


def problem():
    rng = np.random.default_rng(0)
    layer = fb.LSTM.init(8, 16, rng=0, dtype="float64")
    network = fb.Network(layer, fb.Readout(rng.standard_normal((2, 16)), np.zeros(2)))
    return network, rng.standard_normal((50, 2, 8)), rng.standard_normal((50, 2, 2))


def at_once(work, threads=3):
    """Have so many threads do it; returns what they raised."""
    raised = []

    def one():
        try:
            work()
        except Exception as error:
            raised.append(error)

    own = [threading.Thread(target=one) for _ in range(threads)]
    for thread in own:
        thread.start()
    for thread in own:
        thread.join()
    return raised


@pytest.mark.parametrize("gradient", GRADIENTS, ids=repr)
def test_pushes_of_several_threads_follow_each_other(gradient):
    network, x, y = problem()
    shared, alone = (fb.Online(network, 2, gradient=gradient) for _ in range(2))
    found = []
    assert not at_once(lambda: [found.append(shared.push(x, y).loss) for _ in range(10)])
    assert sorted(found) == sorted(alone.push(x, y).loss for _ in range(30))
    assert shared.time == alone.time
    for own, expected in zip(shared.state, alone.state, strict=True):
        assert own.tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["adam", "clipped", "sgd"])
def test_steps_of_several_threads_follow_each_other(kind):
    network, x, y = problem()
    grad = fb.bptt(network, x, y).grad
    make = {"adam": fb.Adam, "clipped": lambda: fb.Adam(clip=1.0),
            "sgd": lambda: fb.SGD(1e-3, momentum=0.9)}[kind]  # fmt: skip
    (shared, one), (alone, other) = ((make(), copy.deepcopy(network)) for _ in range(2))
    assert not at_once(lambda: [shared.step(one, grad) for _ in range(200)])
    for _ in range(600):
        alone.step(other, grad)
    assert shared.steps == 600
    assert one.flat().tobytes() == other.flat().tobytes()


def first_of_a_child(turns):
    """What becomes of the first turn in a forked process: 0 taken, 1 refused, 2 never come."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if turns.mine().acquire(timeout=20) else 2)
        except RuntimeError as error:
            os._exit(1 if "forked while another thread" in str(error) else 3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_does_not_wait_for_a_thread_that_it_lacks():
    turns, taken, over = Turns(), threading.Event(), threading.Event()

    def hold():
        with turns.mine():
            taken.set()
            over.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(60)
    during = first_of_a_child(turns)
    over.set()
    thread.join()
    assert (during, first_of_a_child(turns)) == (1, 0)


def test_copies_take_turns_of_their_own():
    network, x, y = problem()
    learner, optimiser = fb.Online(network, 2, gradient=fb.SnAp1()), fb.Adam()
    optimiser.step(network, fb.bptt(network, x, y).grad)
    for one in (learner, optimiser):
        for other in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
            assert other._turns is not one._turns


@pytest.mark.parametrize("gradient", GRADIENTS, ids=repr)
def test_what_is_saved_beside_pushes_is_a_learner_between_two(gradient, tmp_path):
    network, x, y = problem()
    learner, alone = (fb.Online(network, 2, gradient=gradient) for _ in range(2))
    states = {0: alone.state}
    for _ in range(60):
        alone.push(x, y)
        states[alone.time] = alone.state

    def use():
        for number in range(20):
            learner.push(x, y)
            path = tmp_path / f"{threading.get_ident()}.{number}.npz"
            learner.save(path)
            for found in (fb.load(path), copy.deepcopy(learner)):
                np.testing.assert_array_equal(found.state, states[found.time])

    assert not at_once(use)
