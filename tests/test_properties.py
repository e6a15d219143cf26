"""Every exact schedule and every number of threads gives the same bits, and right results.

Hypothesis draws the sizes and the options; the sizes at the end are large enough that the work is
really split over threads and over spans of time.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import (
    CELLS,
    DTYPES,
    LOSS_READOUTS,
    assert_bptt_close,
    assert_same_bits,
    make_problem,
    oracle_bptt,
    put_threads_back,
    spoil_beyond,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import fastbptt as fb


@st.composite
def problems(draw, longest=40, widest=20):
    loss, head = draw(st.sampled_from(LOSS_READOUTS))
    sizes = (
        draw(st.integers(0, longest)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 9)),
        draw(st.integers(1, widest)),
        draw(st.integers(2 if head == "softmax" else 1, 6)),  # of one class: all gradients are 0
    )
    q = make_problem(
        draw(st.sampled_from(CELLS)), sizes, draw(st.sampled_from(DTYPES)), loss, head,
        tokens=draw(st.booleans()), seed=draw(st.integers(0, 99)),
    )  # fmt: skip
    options = {"reduction": draw(st.sampled_from(["sum", "mean"]))}
    if draw(st.booleans()):
        options["state"] = q.state
    if draw(st.booleans()):
        options["lengths"] = q.lengths
    if draw(st.booleans()):
        weights = q.rng.random((q.T, q.B)) * (q.rng.random((q.T, q.B)) < 0.7)
        options["weights"] = weights.astype(q.dtype)[(..., 0) if draw(st.booleans()) else ...]
    return q, options


def bptt(q, options, memory="full"):
    x, y = q.x, q.y
    if options.get("lengths") is not None:
        x, y = spoil_beyond(x, options["lengths"]), spoil_beyond(y, options["lengths"])
    floats = x.dtype.kind == "f"
    return fb.bptt(q.network, x, y, q.loss, memory=memory, input_grad=floats, **options)


def least_budget(q, options):
    """The least budget of this call, as the error for one byte names it."""
    with pytest.raises(fb.MemoryLimitError) as caught:
        bptt(q, options, memory=1)
    assert str(caught.value.least_bytes) in str(caught.value).replace(",", "").replace("_", "")
    return caught.value.least_bytes


def budgets(q, options, shares):
    least, full = least_budget(q, options), bptt(q, options).plan.peak_bytes
    return [least + int(share * max(0, full - least)) for share in shares]


@settings(max_examples=150)
@given(problems())
def test_the_answer_is_the_oracles(drawn):
    q, options = drawn
    assert_bptt_close(bptt(q, options), oracle_bptt(q, **options), q)


@settings(max_examples=80)
@given(problems(), st.data())
def test_the_truncated_answer_is_the_oracles(drawn, data):
    q, options = drawn
    k1 = data.draw(st.integers(1, 12))
    k2 = data.draw(st.integers(k1, k1 + 12))
    r = bptt(q, options, memory=fb.Truncated(k1, k2))
    assert_bptt_close(r, oracle_bptt(q, truncation=(k1, k2), **options), q)


@settings(max_examples=100)
@given(problems(longest=70), st.integers(1, 80), st.floats(0, 1))
def test_every_exact_schedule_gives_the_same_bits(drawn, segment, share):
    q, options = drawn
    full = bptt(q, options)
    assert_same_bits(bptt(q, options, memory=fb.Checkpointed(segment=segment)), full)
    if q.T == 0:
        return
    for budget in budgets(q, options, [0, share, 1]):
        r = bptt(q, options, memory=budget)
        assert_same_bits(r, full, f"budget {budget}")
        assert r.plan.peak_bytes <= budget


@settings(max_examples=60)
@given(problems(longest=100, widest=70), st.integers(1, 50), st.integers(0, 50))
def test_every_number_of_threads_gives_the_same_bits(drawn, k1, more):
    q, options = drawn
    try:
        for memory in ("full", fb.Checkpointed(segment=k1), fb.Truncated(k1, k1 + more)):
            fb.set_num_threads(1)
            alone = bptt(q, options, memory)
            for threads in (2, 3):
                fb.set_num_threads(threads)
                assert_same_bits(bptt(q, options, memory), alone, f"{memory}, {threads} threads")
    finally:
        put_threads_back()


LARGE = [(40, 7, 33, 160, 9), (25, 1, 8, 300, 40), (30, 64, 16, 64, 3), (3000, 2, 3, 8, 2)]


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", LARGE, ids=str)
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_schedules_and_threads_agree_in_bits_at_sizes_that_are_split(
    cell, sizes, dtype, tokens, set_threads
):
    q = make_problem(cell, sizes, dtype, "cross_entropy", "softmax", tokens)
    options = {"state": q.state, "lengths": q.lengths if q.B > 1 else None}
    set_threads(1)
    full = bptt(q, options)
    schedules = [fb.Checkpointed(segment=11), *budgets(q, options, [0.02, 0.3])]
    for threads in (1, 2, 3):
        set_threads(threads)
        for memory in ["full", *schedules]:
            assert_same_bits(bptt(q, options, memory), full, f"{memory}, {threads} threads")


@pytest.mark.parametrize("sizes", LARGE, ids=str)
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_truncation_and_backward_give_the_same_bits_with_any_number_of_threads(
    cell, sizes, set_threads
):
    q = make_problem(cell, sizes, "float32")
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        r = bptt(q, {}, fb.Truncated(5, 12))
        h, state, cache = fb.forward(q.layer, q.x, lengths=q.lengths)
        g = fb.backward(cache, q.dh, q.dstate, deltas=True)
        gradients = (g.layer, g.x, g.state, g.deltas)
        results.append(
            SimpleNamespace(loss=r.loss, grad=(r.grad, *gradients), grad_x=r.grad_x,
                            grad_state=r.grad_state, state=(r.state, h, state))
        )  # fmt: skip
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
def test_forward_backward_and_bptt_tell_the_same_story(cell):
    """A callable loss that hands out dh makes bptt what forward and backward are."""
    q = make_problem(cell, (60, 3, 4, 9, 9))
    h, state, cache = fb.forward(q.layer, q.x, q.state)
    g = fb.backward(cache, 2 * h)
    for memory in ("full", fb.Checkpointed(segment=7)):
        r = fb.bptt(
            q.network, q.x, None, lambda h, y, start: (float((h**2).sum()), 2 * h),
            state=q.state, input_grad=True, memory=memory,
        )  # fmt: skip
        np.testing.assert_allclose(r.loss, (h**2).sum())
        np.testing.assert_allclose(r.grad.layer.W, g.layer.W, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(r.grad_x, g.x, rtol=1e-10, atol=1e-12)
        for a, b in zip(np.ravel(r.state), np.ravel(state), strict=True):
            assert a == b
