"""Resets: the pieces between them are sequences of their own, laid end to end."""

import numpy as np
import oracle
import oracle_resets
import pytest
from checks import check_peak, policy, rejected
from fastbptt.kernels.cpu import split
from helpers import (
    BOTH_WAYS,
    CELLS,
    DTYPES,
    GRADIENTS,
    STACKS,
    STATES,
    assert_bptt_close,
    assert_close,
    assert_gradient_close,
    assert_same_bits,
    drop_batch,
    flatten,
    like_state,
    make_problem,
    plain,
    rounded,
    wide,
)
from test_own import OWN_LSTM

import fastbptt as fb

SIZES = (23, 5, 4, 6, 2)
KINDS = [*CELLS, *STACKS, *BOTH_WAYS]


def problem(cell="rnn-tanh", sizes=SIZES, dtype="float64", density=0.15, **options):
    """A problem with `resets` (T, B), some of them at both ends and in a row, and `own`."""
    p = make_problem(cell, sizes, dtype, **options)
    p.resets = p.rng.random((p.T, p.B)) < density
    p.resets[0, ::2] = p.resets[-1, :2] = p.resets[2:5, -1] = True
    own = like_state(p.layer, lambda width: rounded(p.rng, (width,), dtype, 0.5))
    p.own = fb.Network(p.layer, p.readout, own)
    return p


def expected(p, network, **given):
    own = network.state
    own = None if own is None else oracle.mapped(lambda part: part[None], wide(own))
    given = {name: wide(value) for name, value in given.items()}
    x, y = wide(p.x), wide(p.y)
    return oracle_resets.bptt(plain(p.layer), plain(p.readout), x, y, p.loss, p.resets, own=own,
                              **given)  # fmt: skip


def check(p, network, memory="full", truncation=None, input_grad=True, **given):
    r = fb.bptt(network, p.x, p.y, p.loss, resets=p.resets, memory=memory, input_grad=input_grad,
                **given)  # fmt: skip
    e = expected(p, network, truncation=truncation, **given)
    assert_bptt_close(r, e, p)
    if network.state is None:
        assert r.grad.state is None
    else:
        whole = np.concatenate([np.ravel(part) for part in oracle.flat(e["layer"])])
        floor, down = 0.01 * np.linalg.norm(whole), oracle.mapped(lambda part: part[0], e["own"])
        assert_close(r.grad.state, down, GRADIENTS[p.dtype], "gradient of the own state", floor)
    return r


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("cell", KINDS)
def test_pieces_are_sequences_of_their_own(cell, own, dtype):
    p = problem(cell, dtype=dtype)
    network = p.own if own else p.network
    check(p, network)
    check(p, network, state=p.state, memory=fb.Checkpointed(segment=4))
    check(p, network, lengths=p.lengths, weights=p.rng.integers(0, 3, (p.T, p.B)).astype(float),
          reduction="mean")  # fmt: skip
    if "|" not in cell:
        check(p, network, fb.Truncated(3, 7), (3, 7), state=p.state, lengths=p.lengths)


@pytest.mark.parametrize("cell", ["gru", *STACKS, *BOTH_WAYS])
def test_pieces_of_tokens_and_classes(cell):
    options = {"tokens": True, "loss": "cross_entropy", "readout": "softmax"}
    p = problem(cell, dtype="float32", **options)
    check(p, p.own, lengths=p.lengths, input_grad=False)
    ids = p.x.astype(np.int32)
    p.x = np.zeros(ids.nbytes + 1, np.uint8)[1:].view(np.int32).reshape(ids.shape)
    p.x[...] = ids  # not aligned: Python reads it, not compiled code
    check(p, p.own, lengths=p.lengths, input_grad=False)


@pytest.mark.parametrize("cell", KINDS)
def test_forward_and_backward_with_deltas_equal_calls_piece_by_piece(cell):
    p = problem(cell)
    h, state, cache = fb.forward(p.layer, p.x, p.state, lengths=p.lengths, resets=p.resets)
    g = fb.backward(cache, p.dh, deltas=True)
    eh, final, found = oracle_resets.forward(
        plain(p.layer), p.x, p.resets, p.state, lengths=p.lengths
    )
    grad, dx, dstate, _ = oracle_resets.backward(plain(p.layer), found, p.dh, p.I, p.B)
    assert_close(h, eh, STATES["float64"], "h")
    assert_close(state, final, STATES["float64"], "final state")
    assert_gradient_close(g.layer, grad, p.layer, 1e-10)
    assert_close(g.x, dx, 1e-10, "gradient of x")
    assert_close(g.state, dstate, 1e-10, "gradient of the state")
    again, last = fb.run(p.layer, p.x, p.state, lengths=p.lengths, resets=p.resets)
    assert np.array_equal(again, h) and all(map(np.array_equal, flatten(last), flatten(state)))
    ends = fb.run(p.layer, p.x, p.state, lengths=p.lengths, resets=p.resets, keep="last")[0]
    for b, start, stop, cut in oracle_resets.pieces_of(p.resets, p.lengths):
        begin = None if cut else oracle_resets.of_row(p.state, b)
        piece, _ = fb.run(p.layer, p.x[start:stop, b : b + 1], begin)
        assert np.array_equal(h[start:stop, b], piece[:, 0])  # to the bit
    rows = np.flatnonzero(p.lengths)
    assert np.array_equal(ends[rows], h[p.lengths[rows] - 1, rows])
    for deltas, layer in zip(flatten(g.deltas), recurrent(g.layer), strict=True):
        assert_close(deltas.sum((0, 1)), np.asarray(layer.b), 1e-10, "deltas")


def recurrent(layer):
    if isinstance(layer, fb.Stack):
        return [part for own in layer.layers for part in recurrent(own)]
    if isinstance(layer, fb.Bidirectional):
        return [layer.forward, layer.backward]
    return [layer]


def test_the_gradient_of_the_final_state_stays_in_the_last_piece():
    p = problem("lstm")
    g = [
        fb.backward(fb.forward(p.layer, p.x, p.state, resets=p.resets)[2], 0 * p.dh, p.dstate).x,
        fb.backward(fb.forward(p.layer, p.x, p.state)[2], 0 * p.dh, p.dstate).x,
    ]
    for b in range(p.B):
        last = int(np.flatnonzero(p.resets[:, b])[-1])
        assert not g[0][:last, b].any() and g[0][last:, b].any() and g[1][:last, b].any()


def test_cells_of_ones_own_have_pieces_too():
    p = problem("lstm")
    cell = OWN_LSTM.init(p.I, p.H, dtype="float64").replace_arrays(p.layer.arrays())
    given = {"resets": p.resets, "lengths": p.lengths, "state": p.state, "input_grad": True}
    for memory in ("full", fb.Checkpointed(segment=5)):
        one = fb.bptt(p.own, p.x, p.y, memory=memory, **given)
        network = fb.Network(cell, p.readout, p.own.state)
        other = fb.bptt(network, p.x, p.y, memory=memory, **given)
        for part in ("grad", "state", "grad_state", "grad_x"):
            ours, theirs = (flatten(getattr(r, part)) for r in (one, other))
            for a, b in zip(ours, theirs, strict=True):
                assert_close(b, a, 1e-10, part)


BIG = {"runs": (70, 17, 20, 65, 9), "few": (70, 3, 20, 100, 5), "wide": (40, 2, 33, 192, 3),
       "one": (300, 1, 9, 33, 3)}  # fmt: skip


@pytest.mark.parametrize("barrier", [0.0, float("inf")], ids=["gangs", "no gangs"])
@pytest.mark.parametrize("sizes", BIG.values(), ids=BIG)
@pytest.mark.parametrize("cell", ["lstm", "gru-before", STACKS[0], "gru|lstm"])
def test_schedules_and_threads_do_not_change_a_bit(cell, sizes, barrier, monkeypatch, set_threads):
    monkeypatch.setattr(split, "barrier_seconds", lambda: barrier)
    p = problem(cell, sizes, "float32", density=0.05)
    given = {"resets": p.resets, "state": p.state, "input_grad": True, "lengths": p.lengths}
    set_threads(1)
    alone = fb.bptt(p.own, p.x, p.y, **given)
    reference = expected(p, p.own, state=p.state, lengths=p.lengths)
    assert_bptt_close(alone, reference, p)
    for threads in (1, 2, 3):
        set_threads(threads)
        for memory in ("full", fb.Checkpointed(segment=7), policy(0.3, p.own, p.T, p.B)):
            try:
                r = fb.bptt(p.own, p.x, p.y, memory=memory, **given)
            except fb.MemoryLimitError:
                continue
            assert_same_bits(r, alone, f"{threads} threads, {memory}")


@pytest.mark.parametrize("cell", ["rnn-tanh", "gru|lstm"])
def test_none_set_changes_nothing_and_past_a_length_they_never_matter(cell):
    p = problem(cell, dtype="float32")
    given = {"state": p.state, "lengths": p.lengths, "input_grad": True}
    no = np.zeros((p.T, p.B), bool)
    plainly = fb.bptt(p.own, p.x, p.y, **given)
    for resets in (no, np.arange(p.T)[:, None] >= p.lengths, no[:, 0]):
        assert_same_bits(fb.bptt(p.own, p.x, p.y, resets=resets, **given), plainly)
    assert fb.bptt(p.own, p.x, p.y, resets=no, **given).plan == plainly.plan


def test_resets_may_lie_in_memory_as_they_like(tmp_path):
    p = problem("gru", dtype="float32")
    file = tmp_path / "resets"
    p.resets.tofile(file)
    once = fb.bptt(p.own, p.x, p.y, resets=p.resets)
    for other in (np.asfortranarray(p.resets), np.repeat(p.resets, 2, 0)[::2],
                  np.memmap(file, bool, "r", shape=p.resets.shape)):  # fmt: skip
        assert_same_bits(fb.bptt(p.own, p.x, p.y, resets=other), once)
    p.resets[...] = p.resets[:, :1]
    shared = fb.bptt(p.own, p.x, p.y, resets=p.resets[:, 0])
    assert_same_bits(fb.bptt(p.own, p.x, p.y, resets=p.resets), shared)


def test_without_the_batch_axis():
    p = problem("lstm", (23, 1, 4, 6, 2))
    given = {"resets": p.resets, "state": p.state, "input_grad": True}
    r = fb.bptt(p.own, p.x, p.y, **given)
    given |= {"resets": p.resets[:, 0], "state": drop_batch(p.state)}
    one = fb.bptt(p.own, p.x[:, 0], p.y[:, 0], **given)
    for a, b in zip(flatten((one.grad, one.grad_x, one.state, one.grad_state)),
                    flatten((r.grad, r.grad_x, r.state, r.grad_state)), strict=True):  # fmt: skip
        assert np.array_equal(a.ravel(), b.ravel())


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru|lstm"])
def test_a_nan_stays_in_its_piece(cell):
    p = problem(cell, (20, 2, 3, 5, 2), density=0)
    p.resets[...] = False
    p.resets[[6, 13], 0] = True
    clean, spoilt = p.x, p.x.copy()
    spoilt[8, 0] = np.nan
    h, g = [], []
    for x in (clean, spoilt):
        out, _, cache = fb.forward(p.layer, x, resets=p.resets)
        h.append(out)
        g.append(fb.backward(cache, p.dh).x)
    outside = np.ones((20, 2), bool)
    outside[6:13, 0] = False
    for one, other in (h, g):
        assert np.array_equal(one[outside], other[outside]) and np.isnan(other[8, 0]).any()


def test_a_callable_loss_and_predictions_see_the_pieces():
    p = problem("gru", dtype="float64")
    squared = lambda h, y, start: (float(np.sum(h * h)), 2 * h)  # noqa: E731
    r = fb.bptt(p.own, p.x, None, squared, resets=p.resets)
    h = fb.bptt(fb.Network(p.layer, fb.Readout(np.eye(p.H), np.zeros(p.H)), p.own.state), p.x,
                np.zeros((p.T, p.B, p.H)), resets=p.resets)  # fmt: skip
    for a, b in zip(r.grad.layer.arrays(), h.grad.layer.arrays(), strict=True):
        assert_close(a, b, 1e-10)
    assert_close(r.grad.state, h.grad.state, 1e-10)
    o, _ = fb.predict(p.own, p.x, resets=p.resets)
    loss = fb.evaluate(p.own, p.x, p.y, resets=p.resets)
    assert loss == pytest.approx(float(np.sum((o - p.y) ** 2)), rel=1e-12)
    assert loss == fb.bptt(p.own, p.x, p.y, resets=p.resets).loss


def test_dropout_masks_follow_the_time_of_x():
    p = problem(STACKS[0], (20, 1, 4, 6, 2), dropout=0.4)
    p.resets[...] = False
    p.resets[[7, 12]] = True
    whole = fb.bptt(p.own, p.x, p.y, resets=p.resets, seed=3, input_grad=True, t0=5)
    parts = [
        fb.bptt(p.own, p.x[a:b], p.y[a:b], seed=3, t0=5 + a, input_grad=True)
        for a, b in ((0, 7), (7, 12), (12, 20))
    ]
    assert whole.loss == pytest.approx(sum(part.loss for part in parts), rel=1e-12)
    assert_close(whole.grad_x, np.concatenate([part.grad_x for part in parts]), 1e-10)
    sums = [sum(a) for a in zip(*(part.grad.arrays() for part in parts), strict=True)]
    for a, b in zip(whole.grad.arrays(), sums, strict=True):
        assert_close(a, b, 1e-10)


@pytest.mark.parametrize("memory", ["full", 0.1, fb.Truncated(40, 100)], ids=str)
@pytest.mark.parametrize(
    "cell, sizes", [("rnn-tanh", (1500, 4, 8, 32, 3)), ("lstm/gru", (900, 12, 5, 40, 3)),
                    ("gru-before", (3, 2000, 3, 8, 2)), ("gru|lstm", (900, 3, 8, 20, 3))],
)  # fmt: skip
def test_measured_peak_is_within_the_plan(cell, sizes, memory):
    if "|" in cell and isinstance(memory, fb.Truncated):
        return
    p = problem(cell, sizes, "float32")
    fb.bptt(p.own, p.x[:9], p.y[:9], resets=p.resets[:9], memory="full")  # compiles
    least = fb.plan(p.own, p.T, p.B, memory=fb.Checkpointed(segment=1), resets=p.resets).peak_bytes
    if isinstance(memory, float):
        full = fb.plan(p.own, p.T, p.B, resets=p.resets).peak_bytes
        memory = int(least + memory * (full - least)) if full > least else full
    r, _ = check_peak(p.own, p.x, p.y, memory=memory, resets=p.resets, input_grad=True)
    assert r.plan == fb.plan(p.own, p.T, p.B, memory=memory, resets=p.resets)
    dense = np.ones((p.T, p.B), bool)
    check_peak(p.own, p.x, p.y, memory="full", resets=dense)


def test_the_reach_is_measured_within_pieces():
    p = problem("rnn-tanh", (60, 4, 4, 6, 2), density=0)
    p.resets[...] = False
    p.resets[[20, 35], 1] = p.resets[[50], 2] = True
    given = {"resets": p.resets, "max_lag": 14, "samples": 10_000}
    found = fb.gradient_reach(p.own, p.x, p.y, **given)
    assert found.losses == 2 * 46 + (6 + 1 + 11) + 36
    weighted = fb.gradient_reach(p.own, p.x, p.y, weights=np.ones((60, 4)), **given)
    assert weighted.norms == pytest.approx(found.norms, rel=1e-12)
    norms = []
    for b, start, stop, _ in oracle_resets.pieces_of(p.resets, [60] * 4):
        for t in range(start + 14, stop):
            y = np.zeros((stop - start, 2))
            y[t - start] = p.y[t, b]
            w = np.arange(start, stop) == t
            cut = t - 14 + 1
            run = fb.run(p.layer, p.x[start:cut, b], p.own.state, keep="last")[0]
            r = fb.bptt(p.own, p.x[cut : t + 1, b], p.y[cut : t + 1, b], state=run,
                        weights=w[cut - start : t + 1 - start])  # fmt: skip
            norms.append(np.linalg.norm(r.grad_state))
    assert found.norms[-1] == pytest.approx(np.mean(norms), rel=1e-9)
    rejected(lambda: fb.gradient_reach(p.own, p.x, p.y, resets=p.resets | True), "resets")


WRONG = {
    "integers": lambda p: p.resets.astype(int),
    "bytes": lambda p: p.resets.view("u1"),
    "floats": lambda p: p.resets.astype("f4"),
    "a step too many": lambda p: np.zeros((p.T + 1, p.B), bool),
    "batch first": lambda p: p.resets.T,
    "one axis of B": lambda p: p.resets[0],
    "one axis too many": lambda p: p.resets[..., None],
    "a masked array": lambda p: np.ma.masked_array(p.resets),
    "a word": lambda p: "every",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_resets_are_refused_before_any_work(wrong):
    p = problem(dtype="float32")
    resets = WRONG[wrong](p)
    called = []
    loss = lambda h, y, start: called.append(1) or (0.0, h)  # noqa: E731
    rejected(lambda: fb.bptt(p.own, p.x, None, loss, resets=resets), "resets")
    assert not called
    for call in (
        lambda: fb.forward(p.layer, p.x, resets=resets),
        lambda: fb.run(p.layer, p.x, resets=resets),
        lambda: fb.predict(p.network, p.x, resets=resets),
        lambda: fb.evaluate(p.network, p.x, p.y, resets=resets),
        lambda: fb.plan(p.network, p.T, p.B, resets=resets),
        lambda: fb.gradient_reach(p.network, p.x, p.y, resets=resets),
    ):
        rejected(call, "resets")
    rejected(lambda: fb.run(p.layer, p.x[:, 0], resets=p.resets[:, :1]), "resets", f"({p.T},)")


@pytest.mark.parametrize("bring", [list, tuple, np.asarray], ids=["list", "tuple", "array"])
def test_reach_takes_resets_of_every_kind_without_the_batch_axis(bring):
    p = problem("gru", dtype="float64")
    resets = np.arange(len(p.x)) % 9 == 5
    one, other = (
        fb.gradient_reach(p.own, p.x[:, 0], p.y[:, 0], resets=given, max_lag=2)
        for given in (resets, bring(resets.tolist()))
    )
    assert np.array_equal(one.norms, other.norms)
