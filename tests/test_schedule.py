"""Schedules are right, stay within their bytes and run as few steps as possible."""

import itertools
from functools import cache
from math import comb

import pytest
from helpers import make_plan
from hypothesis import given
from hypothesis import strategies as st

from fastbptt.memory import optimal, policies, schedules

RATIOS = [(1, 1), (1, 2), (1, 3), (1, 5), (2, 5), (2, 7), (2, 3), (4, 5), (2, 1), (3, 2), (7, 1)]
MULTIPLES = [(S, C) for S, C in RATIOS if C % S == 0]


def simulate(actions, T, S, C):
    """Carry out an exact schedule in one arena, checking every action.

    Returns forward steps, the most times a step is run again, and the most bytes in use.
    """
    at, stack, leaf, to_reverse = 0, [], None, T
    runs, peak = [0] * T, 0
    for action, *times in actions:
        a, b = times[0], times[-1]
        if action in ("advance", "cache"):
            assert at == a < b <= to_reverse, "runs on from the current state"
            for t in range(a, b):
                runs[t] += 1
            at = b
        if action == "advance":
            assert leaf is None
        elif action == "store":
            assert at == a > max(stack, default=0)
            stack.append(a)
        elif action == "restore":
            assert a != at, "nothing is restored that is there already"
            assert a == (stack[-1] if stack else 0)
            at = a
        elif action == "discard":
            assert stack.pop() == a == to_reverse
        elif action == "cache":
            assert leaf is None
            assert a == (stack[-1] if stack else 0), "the state before a leaf is kept"
            leaf = (a, b)
        else:
            assert action == "reverse"
            assert leaf == (a, b)
            assert b == to_reverse, "every step is reversed once, last first"
            leaf, to_reverse = None, a
        cached = 0 if leaf is None else leaf[1] - leaf[0]
        peak = max(peak, len(stack) * S + cached * C)
    assert to_reverse == 0
    assert not stack
    return sum(runs), max(runs, default=1) - 1, peak


@cache
def least_runs(T, m, S, C):
    """F(1, m) ... F(T, m) of the specification, infinity where no schedule exists."""
    fits = m // C
    F = list(range(min(fits, T) + 1))
    if len(F) <= T:
        right = least_runs(T, m - S, S, C) if m - S >= C else [0] + [float("inf")] * T
        for n in range(len(F), T + 1):
            F.append(min([j + F[j] + right[n - j] for j in range(1, n)], default=float("inf")))
    return F


def capacity_by_recursion(m, S, C, r):
    if m < C:
        return 0
    if r == 0:
        return m // C
    return capacity_by_recursion(m, S, C, r - 1) + capacity_by_recursion(m - S, S, C, r)


def grid(S, C):
    return range(S + C, 11 * max(S, C), max(1, max(S, C) // 3))


@pytest.mark.parametrize(("S", "C"), RATIOS)
def test_forward_steps_are_the_fewest_that_the_recursion_allows(S, C):
    T = 60
    for m in grid(S, C):
        assert [optimal.forward_steps(n, m, S, C) for n in range(T + 1)] == least_runs(T, m, S, C)


@pytest.mark.parametrize(("S", "C"), MULTIPLES)
@pytest.mark.parametrize("m", [12, 17, 23])
def test_forward_steps_are_the_fewest_for_longer_sequences(S, C, m):
    T, m = 400, m * C
    for n in range(1, T + 1, 7):
        assert optimal.forward_steps(n, m, S, C) == least_runs(T, m, S, C)[n]


@pytest.mark.parametrize(("S", "C"), [(S, C) for S, C in RATIOS if C > S and C % S])
def test_without_the_table_other_ratios_are_within_one_run_of_the_fewest(S, C, monkeypatch):
    monkeypatch.setattr(optimal, "_TABLE_WORK", 0)
    plain = optimal.best.__wrapped__
    for m in grid(S, C):
        for n in range(1, 61):
            assert 0 <= plain(n, m, S, C).forward_steps - least_runs(60, m, S, C)[n] <= 1


@pytest.mark.parametrize(("S", "C"), RATIOS)
def test_schedules_stay_within_their_bytes_and_are_what_the_plan_says(S, C):
    for m in grid(S, C):
        for T in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 300):
            tree = optimal.best(T, m, S, C)
            found = simulate(schedules.optimal(T, m, S, C), T, S, C)
            assert found == (tree.forward_steps, tree.recomputes, tree.peak)
            assert tree.peak <= m


@given(
    T=st.integers(0, 3000),
    S=st.integers(1, 40),
    ratio=st.fractions(1, 6, max_denominator=4),
    spare=st.floats(0, 1),
)
def test_any_budget_gives_a_right_schedule_within_it(T, S, ratio, spare):
    C = int(S * ratio)
    least, full = optimal.least_feasible(T, S, C), T * C
    m = least + int((full - least) * spare**6)
    tree = optimal.best(T, m, S, C)
    if tree.forward_steps > 100_000:
        return  # legal, but long to watch
    found = simulate(schedules.optimal(T, m, S, C), T, S, C)
    assert found == (tree.forward_steps, tree.recomputes, tree.peak)
    assert tree.peak <= m


@pytest.mark.parametrize("m", [700, 1100, 3000])
@pytest.mark.parametrize(("S", "C"), [(10, 10), (10, 30), (10, 35)])
def test_a_long_schedule_runs_the_steps_that_were_counted_without_walking_it(m, S, C):
    T = 20_000
    tree = optimal.best(T, m, S, C)
    found = simulate(schedules.optimal(T, m, S, C), T, S, C)
    assert found == (tree.forward_steps, tree.recomputes, tree.peak)


@pytest.mark.parametrize(("S", "C"), MULTIPLES)
def test_recomputes_are_as_few_as_the_capacity_allows(S, C):
    for m in grid(S, C):
        for T in range(1, 100, 3):
            r = optimal.least_recomputes(T, m, S, C)
            assert optimal.best(T, m, S, C).recomputes == r
            assert optimal.capacity(m, S, C, r) >= T
            assert r == 0 or optimal.capacity(m, S, C, r - 1) < T


@pytest.mark.parametrize(("S", "C"), RATIOS)
def test_capacity_is_the_recursion_and_the_binomial_sum(S, C):
    for m, r in itertools.product(range(0, 12 * max(S, C), 3), range(5)):
        expected = capacity_by_recursion(m, S, C, r)
        assert optimal.capacity(m, S, C, r) == expected
        if r:
            rooms = [(m - i * S) // C for i in range(m // S + 1) if m - i * S >= C]
            assert expected == sum(comb(r - 1 + i, i) * c for i, c in enumerate(rooms))


@pytest.mark.parametrize("recomputes", [0, 1, 2, 3, 6])
@pytest.mark.parametrize(("S", "C"), RATIOS)
def test_least_memory_reaches_t_and_one_byte_less_does_not(S, C, recomputes):
    for T in (1, 2, 7, 40, 1000):
        m = optimal.least_memory(T, S, C, recomputes)
        assert optimal.capacity(m, S, C, recomputes) >= T
        assert optimal.capacity(m - 1, S, C, recomputes) < T


@pytest.mark.parametrize("r", [1, 2, 3])
@pytest.mark.parametrize(("S", "C"), RATIOS)
def test_the_capacity_of_many_checkpoints_is_the_binomial_sum(S, C, r):
    for m in (2000 * S + C, 3001 * S + 5 * C + 1, 10_000 * S + C // 2):
        rooms = ((m - i * S) // C for i in range((m - C) // S + 1))
        expected = sum(comb(r - 1 + i, i) * c for i, c in enumerate(rooms))
        assert optimal.capacity(m, S, C, r) == expected


@pytest.mark.parametrize(("S", "C"), RATIOS)
def test_one_recompute_of_many_checkpoints_is_the_spine_added_up(S, C):
    T = 2_000_000
    m = optimal.least_memory(T, S, C, 1) + S // 2
    rooms = [(m - i * S) // C for i in range((m - C) // S + 1)]
    sums = [0, *itertools.accumulate(rooms)]
    k = next(k for k, total in enumerate(sums[1:]) if total >= T)
    first = T - (sums[k + 1] - sums[1])
    used = [i * S + C * (rooms[i] if i else first) for i in range(k + 1)]
    tree = optimal.best(T, m, S, C)
    assert (tree.forward_steps, tree.recomputes) == (2 * T - rooms[k], 1)
    assert (tree.peak, tree.left(T, 0, 1)) == (max(used), first)


@pytest.mark.parametrize("recomputes", [1, 2, 3])
def test_the_schedule_of_a_trillion_steps_is_found_without_walking_it(recomputes):
    m = optimal.least_memory(10**12, 2, 7, recomputes)
    tree = optimal.best(10**12, m, 2, 7)
    assert tree.recomputes == recomputes and tree.peak <= m
    names = [name for name, *_ in itertools.islice(schedules.optimal(10**12, m, 2, 7), 4)]
    assert names == ["advance", "store"] * 2


def test_more_than_a_quadrillion_steps_are_too_many_for_a_schedule():
    for find in (optimal.least_memory, optimal.best):
        with pytest.raises(ValueError, match=r"^T must be at most 10{15} "):
            find(10**15 + 1, 100, 7, 7)


@pytest.mark.parametrize(("S", "C"), RATIOS)
@pytest.mark.parametrize("T", [0, 1, 2, 3, 50])
def test_the_least_feasible_bytes_work_and_one_byte_less_does_not(T, S, C):
    m = optimal.least_feasible(T, S, C)
    assert simulate(schedules.optimal(T, m, S, C), T, S, C)[2] <= m
    if T:
        with pytest.raises(ValueError, match=f"need {m} bytes"):
            optimal.best(T, m - 1, S, C)


@pytest.mark.parametrize(("recomputes", "mebibytes"), [(0, 31250.0), (1, 44.2), (2, 5.7), (3, 2.2)])
def test_a_million_elman_steps_need_the_bytes_of_the_specification(recomputes, mebibytes):
    S = 32 * 256 * 4
    m = optimal.least_memory(10**6, S, S, recomputes)
    assert round(m / 2**20, 1) == mebibytes
    tree = optimal.best(10**6, m, S, S)
    assert (tree.recomputes, tree.peak) == (recomputes, m)


@pytest.mark.parametrize(("T", "m", "S", "C"), [(100, 60, 2, 3), (57, 40, 3, 3), (500, 300, 4, 14)])
def test_one_recompute_has_the_closed_form(T, m, S, C):
    rooms = [(m - i * S) // C for i in range(m // S)]
    k = next(k for k in range(len(rooms)) if sum(rooms[: k + 1]) >= T)
    actions = list(schedules.optimal(T, m, S, C))
    leaves = [b - a for action, a, b in (x for x in actions if x[0] == "cache")][::-1]
    assert optimal.forward_steps(T, m, S, C) == 2 * T - rooms[k]
    assert leaves[1:] == rooms[1 : k + 1], "segments are as long as the checkpoints leave room"
    assert simulate(actions, T, S, C)[:2] == (2 * T - rooms[k], 1)


def test_one_step_leaves_agree_with_mixed_checkpointing():
    mixed = pytest.importorskip(
        "checkpoint_schedules.mixed", reason="checkpoint_schedules is not installed"
    )
    for s in range(1, 9):
        for n in range(s + 1, 90):
            expected = mixed.optimal_steps_mixed(n, s)
            assert optimal.forward_steps(n, (s + 1) * 7, 7, 7) == expected


@pytest.mark.parametrize(
    "actions",
    [
        schedules.full(10**12),
        schedules.segmented(10**12, 1000),
        schedules.truncated(10**12, 3, 7),
        schedules.optimal(10**7, 60_000_000, 512, 1536),
        schedules.optimal(10**7, 300_000, 512, 1536),
        schedules.optimal(10**7, 2048, 512, 1536),  # ten million recomputes: absurd but legal
    ],
    ids=["full", "segmented", "truncated", "one", "two", "least"],
)
def test_schedules_are_made_as_they_are_read(actions):
    assert all(isinstance(action, tuple) for action in itertools.islice(actions, 1000))


def test_many_recomputes_neither_recurse_deeply_nor_miscount():
    T, S, C = 400, 5, 10
    m = optimal.least_feasible(T, S, C)
    found = simulate(schedules.optimal(T, m, S, C), T, S, C)
    assert found == (T * (T + 1) // 2, T - 1, m)
    assert optimal.forward_steps(10**6, m, S, C) == 10**6 * (10**6 + 1) // 2


@pytest.mark.parametrize("T", [0, 1, 2, 7, 12, 13])
@pytest.mark.parametrize("L", [1, 2, 3, 6, 12, 20])
def test_segments_run_twice_except_the_last(T, L):
    plan = make_plan(T, 1, 3, 5, 0, policies.Checkpointed(segment=L))
    found = simulate(schedules.segmented(T, L), T, 3, 5)
    assert found == (plan.forward_steps, plan.recomputes, plan.cache_bytes)
    if T:
        assert plan.forward_steps == 2 * T - (T - (T - 1) // L * L)


@pytest.mark.parametrize("T", [0, 1, 5])
def test_full_caches_and_reverses_every_step(T):
    expected = [("cache", 0, T), ("reverse", 0, T)] if T else []
    assert list(schedules.full(T)) == expected
    assert simulate(expected, T, 1, 1) == (T, 0, T)


@pytest.mark.parametrize("T", [*range(13), 40])
def test_truncation_counts_each_loss_once_in_the_windows_of_the_specification(T):
    for k2 in range(1, 16):
        for k1 in range(1, k2 + 1):
            windows, first, last = [], 0, 0  # cached: [first, last)
            for action, *times in schedules.truncated(T, k1, k2):
                if action == "cache":
                    assert times[0] == last, "nothing is run twice"
                    last = times[1]
                    assert last - first <= k2
                elif action == "keep":
                    assert first < times[0] <= last
                    first = times[0]
                else:
                    assert action == "window"
                    s, a, b = times
                    assert first == s <= a < b == last, "what a window needs is cached"
                    windows.append((s, a, b))
            assert last == T
            if k2 >= T:
                assert windows == ([(0, 0, T)] if T else []), "full BPTT"
            else:
                starts = range(0, T, k1)
                expected = [(max(0, a - (k2 - k1)), a, min(a + k1, T)) for a in starts]
                assert windows == expected
            assert [t for _, a, b in windows for t in range(a, b)] == list(range(T))
            steps = sum(b - s for s, _, b in windows)
            assert schedules.truncated_backward_steps(T, k1, k2) == steps
