"""Predicted seconds: rates from short runs, the knee, and what a frontier with times prints.

No test measures time: the runs are given a clock, or a table of what each step takes.
"""

import dataclasses
import pickle

import numpy as np
import pytest
from helpers import fb

from fastbptt.calls import timing
from fastbptt.commands.cli import main
from fastbptt.memory import optimal, policies, schedules, speeds
from fastbptt.memory.plan import Costs, Frontier, duration
from fastbptt.memory.speeds import Sample, Speed, Speeds

S, C, FIXED = 4, 12, 1000


@pytest.fixture
def short(monkeypatch):
    """What is run, is run for a moment only: its times are of no interest."""
    monkeypatch.setattr(speeds, "SECONDS", 0.02)


def plan_of(T, memory, B=1):
    return policies.as_policy(memory).plan(Costs(T, B, S, C, FIXED))


def frontier(T, B=1):
    return policies.frontier(T, S, C, lambda m: plan_of(T, m, B), lambda least: FIXED + least)


class Machine:
    """Runs that take no time but advance a clock: a call, a leaf, and each kind of step."""

    def __init__(self, call=1e-4, leaf=2e-6, cached=3e-6, advanced=1e-6):
        self.call, self.leaf, self.cached, self.advanced = call, leaf, cached, advanced
        self.now, self.runs = 0.0, []

    def seconds(self, plan):
        again = plan.forward_steps - plan.steps
        leaves = plan.memory.leaves(plan)
        return self.call + leaves * self.leaf + plan.steps * self.cached + again * self.advanced

    def timed(self, number, steps, sample):
        plan = sample.plan(Costs(steps, 1, S, C, FIXED))
        taken = self.seconds(plan)
        self.now += taken
        self.runs.append((number, steps, sample))
        return taken, plan

    def measure(self, plans, most=10**9):
        return speeds.measure(plans, most, self.timed, lambda: self.now)


@pytest.mark.parametrize("T", [10**3, 10**4, 10**5, 10**6])
@pytest.mark.parametrize("leaf", [0, 2e-6, 5e-5])
def test_predictions_are_those_of_the_machine_that_was_measured(T, leaf):
    plans, machine = frontier(T), Machine(leaf=leaf)
    found = machine.measure(plans)
    for plan in plans:
        assert found.seconds(plan) == pytest.approx(machine.seconds(plan), rel=0.1)
    for share in (0.02, 0.3):  # budgets between the rows
        plan = plan_of(T, FIXED + int(share * T * C))
        assert found.seconds(plan) == pytest.approx(machine.seconds(plan), rel=0.15)


@pytest.mark.parametrize("step", [1e-7, 1e-6, 1e-4, 1e-3])
@pytest.mark.parametrize("T", [3, 1000, 10**6, 10**12])
def test_the_runs_take_a_second_at_most(T, step):
    machine = Machine(call=1e-4, cached=3 * step, advanced=step)
    machine.measure(frontier(T))
    assert machine.now <= 1.25 * speeds.SECONDS
    assert len(machine.runs) <= 70
    assert max(steps for _, steps, _ in machine.runs) <= max(4, 1.5 * T)  # leaves are not cut


def test_a_slow_network_is_run_a_few_steps_only():
    machine = Machine(cached=3.0, advanced=1.0)
    machine.measure(frontier(10**6))
    assert len(machine.runs) == 2 + 2 * 3  # each once
    assert max(steps for _, steps, _ in machine.runs) == 4


def test_no_run_is_longer_than_the_memory_allows():
    machine = Machine()
    machine.measure(frontier(10**6), most=100)
    assert max(steps for _, steps, _ in machine.runs) <= 150  # leaves are not cut


@pytest.mark.parametrize("T", [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("B", [0, 1])
def test_the_shortest_sequences_have_seconds(T, B):
    plans = frontier(T, B)
    found = Machine().measure(plans).all(plans)
    assert [plan.seconds > 0 for plan in found] == [T * B > 0] * len(plans)
    assert found.knee in found


def test_more_steps_take_longer_and_so_do_shorter_leaves():
    found = Speeds((Speed(1e5, 3e-6, 1e-6), Speed(100, 4e-6, 1e-6), Speed(10, 8e-6, 2e-6)))
    times = [found.seconds(plan) for plan in frontier(10**5)]
    assert times == sorted(times) and times[0] == pytest.approx(0.3)
    lengths = [found.seconds(plan_of(T, "full")) for T in (10, 100, 1000, 10**6)]
    assert lengths == sorted(lengths)
    rates = [found._at(steps) for steps in (10**7, 10**5, 500, 100, 50, 10, 5, 1)]
    for rate in ("leaf", "advance"):
        values = [getattr(speed, rate) for speed in rates]
        assert values == sorted(values)
    assert rates[3] == found.points[1] and rates[5].leaf == pytest.approx(8e-6)


def test_rates_that_contradict_each_other_are_never_below_zero():
    for one, other in ((1.0, 0.5), (1.0, 1.0), (1.0, 100.0)):
        pair = []
        for recomputes, seconds in ((1, one), (3, other)):
            sample = Sample(10, recomputes)
            plan = sample.plan(Costs(110, 1, S, C, 0))
            pair.append(speeds._Runs(1, 110, sample, seconds, plan))
        speed = speeds._solve(10, pair)
        assert speed.leaf >= 0 and speed.advance >= 0


def test_a_moment_of_other_work_does_not_count():
    plans = frontier(10**5)
    quiet, busy = Machine(), Machine()
    timed = busy.timed

    def disturbed(number, steps, sample):
        taken, plan = timed(number, steps, sample)
        other = taken if 0.5 < busy.now < 0.7 else 0.0  # twice as slow for a while
        busy.now += other
        return taken + other, plan

    found = speeds.measure(plans, 10**9, disturbed, lambda: busy.now)
    for plan in plans:
        expected = quiet.measure(plans).seconds(plan)
        assert found.seconds(plan) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("recomputes", [0, 1, 3])
@pytest.mark.parametrize("leaf", [1, 2, 7])
@pytest.mark.parametrize("leaves", [4, 7, 8, 9, 10, 11, 20, 21, 100, 1000])
def test_a_sample_is_a_schedule_that_keeps_to_its_plan(leaf, leaves, recomputes):
    T = leaf * leaves
    plan = Sample(leaf if recomputes else T, recomputes).plan(Costs(T, 1, S, C, FIXED))
    forward, back, stored, most = 0, [], 0, 0
    for name, *ends in plan.actions:
        stored += (name == "store") - (name == "discard")
        if name in ("advance", "cache"):
            forward += ends[1] - ends[0]
        if name == "cache":
            most = max(most, stored * S + (ends[1] - ends[0]) * C)
            assert not recomputes or ends[1] - ends[0] == leaf
        elif name == "reverse":
            back = [*range(*ends), *back]
    assert forward == plan.forward_steps and back == list(range(T))
    assert most <= plan.cache_bytes
    assert plan.memory.leaves(plan) == (leaves if recomputes else 1)
    assert plan.recomputes == recomputes


@pytest.mark.parametrize("leaves", range(1, 200))
def test_a_sample_has_enough_leaves_for_three_recomputes(leaves):
    given = speeds._least(leaves)
    assert given >= leaves
    assert given <= max(4, 1.5 * leaves)
    assert Sample(1, 3).plan(Costs(given, 1, S, C, FIXED)).actions


@pytest.mark.parametrize("T, m, S, C", [
    (1, 20, 4, 12), (50, 600, 4, 12), (500, 900, 4, 12), (3000, 200, 4, 12), (3000, 90, 4, 12),
    (3000, 40, 4, 12), (200, 50, 3, 7), (999, 60, 1, 1), (2000, 500, 8, 8), (700, 90, 5, 9),
])  # fmt: skip
def test_the_leaves_of_a_tree_are_counted_without_its_actions(T, m, S, C):
    counted = sum(action[0] == "cache" for action in schedules.optimal(T, m, S, C))
    assert optimal.best(T, m, S, C).leaves == counted


@pytest.mark.parametrize(
    "memory", ["full", 1100, 1040, fb.Checkpointed(segment=7), fb.Truncated(3, 9)], ids=str
)
def test_leaves_are_what_is_reversed_at_once(memory):
    plan = plan_of(100, memory)
    reversals = sum(action[0] in ("reverse", "window") for action in plan.actions)
    assert plan.memory.leaves(plan) == reversals


def test_a_schedule_of_many_steps_has_its_leaves_counted_at_once():
    for plan in frontier(10**12)[1:]:
        assert 10**12 / plan.memory.leaves(plan) > 10


@pytest.mark.parametrize("recomputes", [1, 3])
@pytest.mark.parametrize("name", ["lstm of float64", "stack", "bidirectional"])
def test_a_sample_is_carried_out_as_any_schedule(name, recomputes, monkeypatch):
    network, rng = network_of(name), np.random.default_rng(0)
    x, y = (rng.standard_normal((100, 2, n)).astype(network.dtype) for n in (3, 2))
    full = fb.bptt(network, x, y, seed=1)
    monkeypatch.setattr(policies, "as_policy", lambda memory: memory)
    sampled = fb.bptt(network, x, y, seed=1, memory=Sample(5, recomputes))
    assert sampled.plan.recomputes == recomputes + (name == "bidirectional")
    assert sampled.loss == full.loss
    for one, other in zip(sampled.grad.arrays(), full.grad.arrays(), strict=True):
        assert np.array_equal(one, other)


def made(*rows):
    """A frontier of (bytes, seconds)."""
    plans = []
    for number, (size, seconds) in enumerate(rows):
        plan = Costs(1000, 1, 1, 1, 0).plan(fb.Checkpointed(size), size, 1000, recomputes=number)
        plans.append(dataclasses.replace(plan, seconds=seconds))
    return Frontier(plans)


@pytest.mark.parametrize("rows, knee", [
    ([(10**11, 3.0), (10**8, 4.0), (10**7, 5.0), (10**6, 6.0)], 1),  # a recompute is cheap
    ([(10**11, 3.0), (10**10, 3.1), (10**6, 3.2), (9 * 10**5, 6.0)], 2),
    ([(2000, 1.0), (1900, 4.0), (1800, 5.0), (1000, 6.0)], 0),  # little memory, much time
    ([(10**9, 3.0), (10**6, 4.0)], 0),  # nothing between the ends
    ([(1000, 1.0)], 0),
    ([(1000, 2.0), (900, 1.0)], 1),  # less memory, and faster
    ([(1000, 0.0), (10, 0.0)], 1),  # less memory, and as fast
])  # fmt: skip
def test_the_knee_lies_farthest_below_the_line_between_the_ends(rows, knee):
    plans = made(*rows)
    assert plans.knee is plans[knee]


def test_a_frontier_with_seconds_names_one_row_and_its_bytes():
    plans = made((10**11, 3.0), (10**8, 4.0), (10**7, 5.0), (10**6, 6.0))
    lines = str(plans).splitlines()
    assert [line.endswith("knee") for line in lines[:5]] == [False, False, True, False, False]
    assert "predicted time" in lines[0] and "4 s" in lines[2]
    assert "one recompute" in lines[-1] and "100 MB" in lines[-1] and len(lines) == 6
    assert max(map(len, lines)) <= 100


def test_without_seconds_nothing_is_named():
    plans = frontier(10**5)
    assert plans.knee is None and "predicted" not in str(plans) + str(plans[1])
    assert {plan.seconds for plan in plans} == {None}


def test_seconds_do_not_count_in_comparisons_and_are_pickled():
    plan = plan_of(1000, 1100)
    timed = Speeds((Speed(1000, 3.0, 1.0),)).predicted(plan)
    assert plan == timed and hash(plan) == hash(timed)
    again = pickle.loads(pickle.dumps(Frontier([timed])))
    assert type(again) is Frontier and again[0].seconds == timed.seconds > 0
    assert "predicted time" in str(timed)


@pytest.mark.parametrize("seconds, text", [
    (0, "0 us"), (3e-6, "3 us"), (0.00123, "1.23 ms"), (1.5, "1.5 s"), (119, "119 s"),
    (150, "2.5 min"), (7200, "2 h"), (10 * 86400, "10 days"),
])  # fmt: skip
def test_durations_are_written_with_units(seconds, text):
    assert duration(seconds) == text


NETWORKS = {
    "rnn": lambda: fb.RNN.init(3, 8, rng=0),
    "lstm of float64": lambda: fb.LSTM.init(3, 8, rng=0, dtype="float64"),
    "gru": lambda: fb.GRU.init(3, 8, rng=0),
    "stack": lambda: fb.Stack([fb.LSTM.init(3, 8, rng=0), fb.GRU.init(8, 5, rng=0)], dropout=0.3),
    "bidirectional": lambda: fb.Bidirectional(fb.RNN.init(3, 8, rng=0), fb.RNN.init(3, 4, rng=0)),
}


def network_of(name, activation="identity"):
    layer = NETWORKS[name]()
    readout = fb.Readout.init(layer.outputs, 2, rng=1, dtype=layer.dtype, activation=activation)
    return fb.Network(layer, readout)


@pytest.mark.parametrize("T, B", [(1, 1), (2, 3), (300, 1), (5000, 2)])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_plan_of_every_network_gets_seconds(name, T, B, short):
    network = network_of(name)
    plans = fb.frontier(network, T, B, seconds=True)
    assert plans == fb.frontier(network, T, B).checkpointed
    assert all(plan.seconds > 0 for plan in plans)
    assert plans.knee in plans


@pytest.mark.parametrize("activation, loss", [
    ("identity", "squared_error"), ("tanh", "squared_error"),
    ("softmax", "cross_entropy"), ("sigmoid", "binary_cross_entropy"),
])  # fmt: skip
def test_the_loss_that_is_timed_goes_with_the_readout(activation, loss, short):
    network = network_of("gru", activation)
    assert timing.loss_of(network) == loss
    assert fb.frontier(network, 100, seconds=True)[0].seconds > 0


def test_a_network_without_a_readout_has_seconds_too(short):
    network = fb.Network(fb.RNN.init(3, 8, rng=0), None)
    assert fb.frontier(network, 200, 2, seconds=True)[-1].seconds > 0


@pytest.mark.parametrize("T, B", [(0, 1), (5, 0)])
def test_nothing_takes_no_time(T, B):
    assert fb.frontier(network_of("rnn"), T, B, seconds=True)[0].seconds == 0


def test_seconds_must_be_a_flag():
    with pytest.raises(TypeError, match="seconds"):
        fb.frontier(network_of("rnn"), 10, seconds=1)


def test_the_command_prints_seconds_where_asked(capsys, short):
    sizes = ["plan", "-T", "500", "-H", "8", "-I", "3", "-O", "2", "--cell", "rnn"]
    for arguments, shown in ((["--seconds"], "knee"), (["--seconds", "--memory=1MB"], "predicted")):
        assert main([*sizes, *arguments]) == 0
        assert shown in capsys.readouterr().out
    assert main(sizes) == 0
    assert "predicted" not in capsys.readouterr().out


def test_the_command_times_no_network_that_does_not_fit(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plan", "-H", "3000000", "-T", "1000", "--seconds"])
    assert stop.value.code == 2 and "seconds" in capsys.readouterr().err
