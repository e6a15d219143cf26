"""Memory policies and plans: which budgets are accepted, and the plans that follow."""

import dataclasses
import pickle

import numpy as np
import pytest
from helpers import make_plan
from hypothesis import given
from hypothesis import strategies as st

from fastbptt.memory import policies
from fastbptt.memory.policies import Checkpointed, Full, MemoryLimitError, Truncated


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MB", 64 * 10**6),
        ("64 MB", 64 * 10**6),
        ("64mb", 64 * 10**6),
        ("1.5GiB", 3 * 2**29),
        ("512kB", 512_000),
        ("512 KiB", 512 * 1024),
        ("100 B", 100),
        (".5kB", 500),
        ("0.1MB", 100_000),
        ("2TB", 2 * 10**12),
        ("1TiB", 2**40),
        (12345, 12345),
        (np.int32(12345), 12345),
    ],
)
def test_budgets_are_bytes_or_text_with_a_unit(text, size):
    assert Checkpointed(text) == policies.as_policy(text) == Checkpointed(size)
    assert type(Checkpointed(text).budget) is int


@pytest.mark.parametrize(
    "text", ["", "64", "MB", "64 furlongs", "-1MB", "1e3MB", "1,5GB", "Full", "٣MB", "1..5GB"]
)
def test_text_that_is_no_budget_is_a_value_error_naming_memory(text):
    for reject in (policies.as_policy, Checkpointed):
        with pytest.raises(ValueError, match=r"^memory"):
            reject(text)


@pytest.mark.parametrize("value", [True, np.True_, None, 1.5, b"1MB", [1], float("nan"), Full])
def test_what_is_no_policy_is_a_type_error_naming_memory(value):
    with pytest.raises(TypeError, match=r"^memory"):
        policies.as_policy(value)


@pytest.mark.parametrize("reject", [policies.as_policy, Checkpointed])
def test_a_negative_budget_is_a_value_error_naming_memory(reject):
    with pytest.raises(ValueError, match=r"^memory.* at least 0, not -1$"):
        reject(-1)


@pytest.mark.parametrize(
    "policy", [Full(), Checkpointed(5), Checkpointed(segment=3), Truncated(1, 2)]
)
def test_policies_stand_for_themselves_and_are_values(policy):
    assert policies.as_policy(policy) is policy
    assert pickle.loads(pickle.dumps(policy)) == dataclasses.replace(policy) == policy
    assert hash(dataclasses.replace(policy)) == hash(policy)
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.budget = 3


def test_full_is_the_word_for_full():
    assert policies.as_policy("full") == Full()


def test_checkpointed_takes_one_of_budget_and_segment():
    with pytest.raises(ValueError, match="neither"):
        Checkpointed()
    with pytest.raises(ValueError, match="both"):
        Checkpointed(100, segment=3)
    with pytest.raises(ValueError, match="segment must be at least 1, not 0"):
        Checkpointed(segment=0)
    with pytest.raises(TypeError, match="segment must be an integer"):
        Checkpointed(segment=2.0)


@pytest.mark.parametrize(("k1", "k2"), [(0, 3), (3, 2), (-1, 1), (1, 0)])
def test_a_window_is_at_least_its_stride_and_that_at_least_one(k1, k2):
    with pytest.raises(ValueError, match=r"^k[12]"):
        Truncated(k1, k2)


@pytest.mark.parametrize(("k1", "k2"), [(True, 3), (1.0, 3), (1, None), ("1", 3)])
def test_strides_and_windows_are_integers(k1, k2):
    with pytest.raises(TypeError, match=r"^k[12] must be an integer"):
        Truncated(k1, k2)


def test_numpy_integers_are_integers():
    assert Truncated(np.int64(2), np.uint8(3)) == Truncated(2, 3)
    assert Checkpointed(segment=np.int16(4)) == Checkpointed(segment=4)


@given(
    T=st.integers(0, 400),
    S=st.integers(1, 50),
    multiple=st.integers(1, 7),
    fixed=st.integers(0, 1000),
    part=st.floats(0, 1.2),
)
def test_a_budget_is_kept_or_refused_and_what_the_refusal_names_works(T, S, multiple, fixed, part):
    C = multiple * S
    budget = int(part**4 * (fixed + T * C))
    try:
        plan = make_plan(T, 2, S, C, fixed, budget)
    except MemoryLimitError as error:
        assert error.budget == budget < error.least_bytes
        assert str(budget) in str(error)
        assert str(error.least_bytes) in str(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        plan = make_plan(T, 2, S, C, fixed, error.least_bytes)
        assert plan.peak_bytes == error.least_bytes
        with pytest.raises(MemoryLimitError):
            make_plan(T, 2, S, C, fixed, error.least_bytes - 1) if error.least_bytes else None
        return
    assert plan.peak_bytes == plan.fixed_bytes + plan.cache_bytes <= budget
    assert (plan.forward_steps == T) == (fixed + T * C <= budget)
    # What a plan reaches is all it needs.
    again = make_plan(T, 2, S, C, fixed, plan.peak_bytes)
    assert (again.forward_steps, again.peak_bytes) == (plan.forward_steps, plan.peak_bytes)


@given(T=st.integers(1, 2000), S=st.integers(1, 20), multiple=st.integers(1, 4))
def test_more_memory_never_takes_more_steps(T, S, multiple):
    C = multiple * S
    budgets = [S + C + (T * C) * i // 40 for i in range(41)]
    steps = [make_plan(T, 1, S, C, 0, budget).forward_steps for budget in budgets]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == T


@pytest.mark.parametrize("segment", [1, 3, 10, 31, 100, 999])
def test_a_budget_runs_no_more_steps_than_segments_of_the_same_bytes(segment):
    segments = make_plan(1000, 1, 2, 6, 100, Checkpointed(segment=segment))
    assert make_plan(1000, 1, 2, 6, 100, segments.peak_bytes).forward_steps <= (
        segments.forward_steps
    )


@pytest.mark.parametrize("memory_", ["full", 20, Checkpointed(segment=3), Truncated(2, 5)])
def test_no_steps_take_no_actions(memory_):
    plan = make_plan(0, 3, 2, 2, 20, memory_)
    assert (plan.actions, plan.cache_bytes, plan.time_factor, plan.exact) == ((), 0, 1.0, True)
    assert (plan.forward_steps, plan.backward_steps, plan.recomputes) == (0, 0, 0)


@pytest.mark.parametrize("memory_", ["full", 0, Checkpointed(segment=3), Truncated(2, 5)])
def test_no_sequences_take_no_bytes(memory_):
    plan = make_plan(7, 0, 0, 0, 0, memory_)
    assert plan.peak_bytes == 0
    assert plan.actions
    assert len(frontier(7, 0, 0, 0, 0)) == 1


def test_a_segment_of_everything_is_full():
    for segment in (10, 11):
        plan = make_plan(10, 1, 2, 6, 0, Checkpointed(segment=segment))
        assert plan.actions == make_plan(10, 1, 2, 6, 0, "full").actions
        assert (plan.cache_bytes, plan.recomputes) == (60, 0)


def test_a_truncated_plan_holds_a_window_and_a_step_and_runs_no_step_twice():
    plan = make_plan(1000, 1, 2, 6, 50, Truncated(10, 30))
    assert (plan.cache_bytes, plan.forward_steps, plan.exact) == (31 * 6, 1000, False)
    assert plan.backward_steps == sum(
        times[2] - times[0] for action, *times in plan.actions if action == "window"
    )
    longer = make_plan(10**9, 1, 2, 6, 50, Truncated(10, 30))
    assert longer.peak_bytes == plan.peak_bytes
    assert longer.time_factor == pytest.approx((1 + 2 * 3) / 3)
    apart = make_plan(1000, 1, 2, 6, 50, Truncated(30, 30))  # windows share no steps
    assert (apart.cache_bytes, apart.memory.room(1000)) == (30 * 6, 30)


def test_a_window_of_everything_is_exact():
    plan = make_plan(10, 1, 2, 6, 50, Truncated(3, 10))
    assert (plan.exact, plan.time_factor, plan.cache_bytes) == (True, 1.0, 60)


def test_plans_are_values():
    plans = [make_plan(500, 2, 8, 24, 100, "1kB") for _ in range(2)]
    assert plans[0] == plans[1]
    assert plans[0].actions == tuple(plans[1].schedule())
    assert plans[0] != make_plan(500, 2, 8, 24, 100, "1.1kB")
    assert pickle.loads(pickle.dumps(plans[0])) == plans[0]


def test_time_factor_counts_a_step_back_as_two_forward():
    plan = make_plan(100, 1, 1, 1, 0, Checkpointed(segment=10))
    assert plan.time_factor == (190 + 2 * 100) / 300


def test_a_plan_prints_as_a_table_with_units():
    text = str(make_plan(10**6, 32, 2**15, 2**15, 10**6, "64MB"))
    for part in ("64 MB", "1,000,000", "exact", "1.333", "states and cache"):
        assert part in text
    values = {line[20] for line in text.splitlines()}
    assert " " not in values, "values begin in one column"


def frontier(T, B, S, C, fixed):
    return policies.frontier(
        T, S, C, lambda policy: make_plan(T, B, S, C, fixed, policy), lambda least: fixed + least
    )


def test_the_frontier_has_the_least_memory_for_each_number_of_recomputes():
    plans = frontier(10**6, 32, 2**15, 2**15, 1000)
    assert isinstance(plans, tuple)
    assert [plan.recomputes for plan in plans] == [0, 1, 2, 3]
    assert plans[0] == make_plan(10**6, 32, 2**15, 2**15, 1000, "full")
    for plan in plans[1:]:
        assert plan.memory == Checkpointed(plan.peak_bytes), "no byte of the budget is idle"
        fewer = make_plan(10**6, 32, 2**15, 2**15, 1000, plan.peak_bytes - 1)
        assert fewer.recomputes > plan.recomputes
    table = str(plans).splitlines()
    assert len(table) == 5
    assert len({len(line) for line in table}) == 1, "columns are aligned"


@pytest.mark.parametrize(("T", "rows"), [(0, 1), (1, 1), (2, 1), (3, 2), (40, 4)])
def test_the_frontier_of_a_short_sequence_has_no_row_twice(T, rows):
    plans = frontier(T, 1, 1, 1, 0)
    assert len(plans) == len({plan.peak_bytes for plan in plans}) == rows
