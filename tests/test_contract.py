"""What every call does with its arguments, whatever kind of layer it is given."""

import numpy as np
import oracle
import pytest
from helpers import (
    BOTH_WAYS,
    DTYPES,
    FEW_KINDS,
    GRADIENTS,
    STACKS,
    STATES,
    all_results,
    assert_bptt_close,
    assert_close,
    assert_gradient_close,
    assert_no_alias,
    drop_batch,
    flatten,
    in_other_layouts,
    make_problem,
    oracle_bptt,
    plain,
    untouched,
)

import fastbptt as fb

pytestmark = pytest.mark.usefixtures("poisoned_empty")


def gradients(g):
    return flatten((g.layer, g.x, g.state, g.deltas))


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize("cell", ["rnn-relu", "rnn-sigmoid", *FEW_KINDS])
def test_leaving_out_the_batch_axis_leaves_it_out_of_everything(cell, tokens):
    q = make_problem(cell, (11, 1, 4, 6, 3), tokens=tokens)
    x, y, state, dh, dstate = (drop_batch(a) for a in (q.x, q.y, q.state, q.dh, q.dstate))

    def calls(x, y, state, dh, dstate, lengths):
        """Two tuples: what has a batch axis where x has one, and the gradients of the models."""
        h, last, cache = fb.forward(q.layer, x, state, lengths=lengths)
        g = fb.backward(cache, dh, dstate, deltas=True)
        r = fb.bptt(q.network, x, y, state=state, lengths=lengths, input_grad=not tokens)
        run = fb.run(q.layer, x, state, lengths=lengths)
        ends = fb.run(q.layer, x, state, lengths=lengths, keep="last")
        o = fb.predict(q.network, x, state, lengths=lengths)
        inputs = () if tokens else (g.x, r.grad_x)
        results = h, last, g.state, g.deltas, r.state, r.grad_state, run, ends, o, inputs
        assert not tokens or (g.x is None and r.grad_x is None)
        again = fb.bptt(
            q.network, x, y, state=state, lengths=lengths, memory=fb.Checkpointed(segment=3)
        )
        assert again.loss == r.loss
        return results, [np.array(r.loss), *flatten((g.layer, r.grad))]

    for length in (None, 11, 4, 0):
        lengths = None if length is None else np.array([length])
        due, models_due = calls(q.x, q.y, q.state, q.dh, q.dstate, lengths)
        got, models = calls(x, y, state, dh, dstate, length)
        assert got[0].shape == (11, q.layer.outputs)
        for one, other in zip(flatten(got), flatten(drop_batch(due)), strict=True):
            assert np.array_equal(one, other)
        assert all(map(np.array_equal, models, models_due))


@pytest.mark.parametrize("tokens", [False, True], ids=["floats", "tokens"])
@pytest.mark.parametrize(
    "cell, dtype", [*((cell, "float32") for cell in FEW_KINDS), ("lstm", "float64")]
)
def test_any_memory_layout_gives_the_same_bits(cell, dtype, tokens, tmp_path):
    q = make_problem(cell, (14, 3, 5, 9, 2), dtype, tokens=tokens)

    def everything(x=q.x, y=q.y, dh=q.dh, **given):
        h, state, cache = fb.forward(q.layer, x, q.state, **given)
        g = fb.backward(cache, dh, q.dstate, deltas=True)
        r = fb.bptt(q.network, x, y, input_grad=not tokens, **given)
        others = fb.run(q.layer, x, **given), fb.predict(q.network, x, **given)
        return [*flatten((h, state, others)), *gradients(g), *all_results(r)]

    for given in ({}, {"lengths": q.lengths}):
        expected = everything(**given)
        for name, array in {"x": q.x, "y": q.y, "dh": q.dh}.items():
            for way, other in in_other_layouts(array, tmp_path):
                got = everything(**{name: other}, **given)
                assert len(got) == len(expected)
                assert all(map(np.array_equal, got, expected)), f"{name} {way}"


@pytest.mark.parametrize("T", [5, 0])
@pytest.mark.parametrize("cell", FEW_KINDS)
def test_inputs_are_not_modified_and_results_do_not_alias_them_or_each_other(cell, T):
    q = make_problem(cell, (T, 2, 3, 4, 2))
    given = [q.x, q.y, q.dh, q.lengths, *flatten((q.state, q.dstate)), *q.network.arrays()]
    check, results = untouched(*given), []
    for lengths in (None, q.lengths, np.zeros(2, int)):
        h, state, cache = fb.forward(q.layer, q.x, q.state, lengths=lengths)
        first = gradients(fb.backward(cache, q.dh, q.dstate, deltas=True, keep=True))
        results += [h, *flatten(state)]
        for result in results:
            result[...] = np.nan  # the caller's own; the cache has what it needs
        again = gradients(fb.backward(cache, q.dh, q.dstate, deltas=True))
        assert all(map(np.array_equal, first, again))
        results += [*first, *again]
        r = fb.bptt(q.network, q.x, q.y, state=q.state, lengths=lengths, input_grad=True)
        results += flatten((r.grad, r.grad_x, r.grad_state, r.state))
        results += flatten(fb.run(q.layer, q.x, q.state, lengths=lengths))
        results += flatten(fb.run(q.layer, q.x, q.state, lengths=lengths, keep="last"))
        results += flatten(fb.predict(q.network, q.x, q.state, lengths=lengths))
    assert_no_alias(results, given)
    for number, result in enumerate(results):
        result[...] = number
    assert all((result == number).all() for number, result in enumerate(results))
    check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", *STACKS])
def test_a_sequence_may_be_fed_in_pieces(cell, dtype):
    q = make_problem(cell, (13, 3, 4, 9, 2), dtype)
    whole, final = fb.run(q.layer, q.x, q.state)
    state, parts = q.state, []
    for a, b in [(0, 1), (1, 1), (1, 8), (8, 13)]:
        h, state, _ = fb.forward(q.layer, q.x[a:b], state)
        parts.append(h)
    assert_close(np.concatenate(parts), whole, STATES[dtype])
    assert_close(state, final, STATES[dtype])


@pytest.mark.parametrize("cell", ["rnn-tanh", BOTH_WAYS[-1]])
def test_weights_updated_in_place_are_read_by_the_next_call(cell):
    q = make_problem(cell)
    fb.backward(fb.forward(q.layer, q.x)[2], q.dh)
    fb.bptt(q.network, q.x, q.y)
    for array in q.layer.arrays():
        array *= 0.5
    assert_bptt_close(fb.bptt(q.network, q.x, q.y), oracle_bptt(q), q)
    steps = oracle.forward(plain(q.layer), q.x)[2]
    due = oracle.backward(plain(q.layer), steps, q.dh)
    g = fb.backward(fb.forward(q.layer, q.x)[2], q.dh)
    assert_gradient_close(g.layer, due["layer"], q.layer, GRADIENTS["float64"])
