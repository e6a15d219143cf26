"""NaN and infinity, subnormals, long sequences, and the caller's floating-point environment."""

import threading

import numba
import numpy as np
import oracle
import pytest
from fastbptt.kernels.cpu.subnormals import control_word
from helpers import (
    CELLS,
    DTYPES,
    GRADIENTS,
    STATES,
    assert_close,
    assert_same_bits,
    flatten,
    make_layer,
    make_problem,
    plain,
    wide,
)

import fastbptt as fb


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("B, b", [(1, 0), (3, 1), (8, 7)])
def test_nan_reaches_what_follows_in_its_own_sequence_and_nothing_else(cell, dtype, B, b):
    p = make_problem(cell, (9, B, 4, 17, 3), dtype)
    t, others = 5, np.arange(B) != b
    x = p.x.copy()
    x[t, b, 2] = np.nan

    h, _, cache = fb.forward(p.layer, x, p.state)
    clean_h, _, clean_cache = fb.forward(p.layer, p.x, p.state)
    assert np.isnan(h[t:, b]).all() and np.array_equal(h[:t], clean_h[:t])
    assert np.array_equal(h[:, others], clean_h[:, others])
    g, clean = fb.backward(cache, p.dh, p.dstate), fb.backward(clean_cache, p.dh, p.dstate)
    assert np.isnan(g.layer.W).any() and np.isnan(g.layer.U).any()
    assert np.array_equal(g.x[:, others], clean.x[:, others])
    for one, other in zip(flatten(g.state), flatten(clean.state), strict=True):
        assert np.array_equal(one[others], other[others])

    for memory in ("full", fb.Checkpointed(segment=2), fb.Truncated(2, 3)):
        r = fb.bptt(p.network, x, p.y, state=p.state, memory=memory, input_grad=True)
        clean = fb.bptt(p.network, p.x, p.y, state=p.state, memory=memory, input_grad=True)
        assert (
            np.isnan(r.loss) and np.isnan(r.grad.layer.W).any() and np.isnan(r.grad.readout.V).any()
        )
        assert np.array_equal(r.grad_x[:, others], clean.grad_x[:, others])
        for one, other in zip(
            flatten((r.grad_state, r.state)), flatten((clean.grad_state, clean.state)), strict=True
        ):
            assert np.array_equal(one[others], other[others])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_behaves_as_in_numpy(cell, dtype, value):
    p = make_problem(cell, (1, 3, 4, 17, 3), dtype)
    x = p.x.copy()
    x[0, 1, 2] = value
    h, _ = fb.run(p.layer, x, p.state)
    with np.errstate(all="ignore"):
        due = oracle.forward(plain(p.layer), x.astype(float), wide(p.state))[0][0]
    finite = np.isfinite(due)
    assert np.array_equal(np.isfinite(h[0]), finite) and np.array_equal(h[0][~finite], due[~finite])
    assert_close(h[0][finite], due[finite], STATES["float32"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_subnormal_inputs_are_fine(cell, dtype):
    p = make_problem(cell, (30, 3, 4, 17, 3), dtype)
    tiny = p.x * np.finfo(dtype).smallest_subnormal * 100
    assert tiny.any()
    r = fb.bptt(p.network, tiny, p.y, input_grad=True)
    zero = fb.bptt(p.network, tiny * 0, p.y, input_grad=True)
    assert_close(r.loss, zero.loss, GRADIENTS[dtype])
    for one, other in zip(
        flatten((r.grad_x, r.state)), flatten((zero.grad_x, zero.state)), strict=True
    ):
        assert_close(one, other, GRADIENTS[dtype])
    vanishing = fb.backward(fb.forward(p.layer, p.x)[2], p.dh * np.finfo(dtype).tiny)
    assert all(np.isfinite(a).all() for a in (*vanishing.layer.arrays(), vanishing.x))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("loss, readout", [("squared_error", "tanh"), ("cross_entropy", "softmax")])
def test_what_lies_past_a_length_never_matters(cell, tokens, loss, readout):
    p = make_problem(cell, (9, 4, 5, 7, 3), "float32", loss, readout, tokens)
    lengths = np.array([9, 0, 4, 8])
    past = np.arange(9)[:, None] >= lengths
    dirty, clean = ([a.copy() for a in (p.x, p.y, p.dh)] for _ in range(2))
    weights = [np.ones((9, 4), "f4") for _ in range(2)]
    for a in dirty:
        a[past] = np.nan if a.dtype.kind == "f" else 10**9
    for a in clean:
        a[past] = 0
    weights[0][past] = np.nan
    for memory in ("full", fb.Checkpointed(segment=2), fb.Truncated(2, 5)):
        one, other = (
            fb.bptt(
                p.network,
                x,
                y,
                loss,
                lengths=lengths,
                weights=w,
                state=p.state,
                memory=memory,
                reduction="mean",
                input_grad=not tokens,
            )
            for (x, y, _), w in zip((dirty, clean), weights, strict=True)
        )
        assert np.isfinite(one.loss)
        assert_same_bits(one, other)
    results = []
    for x, _, dh in (dirty, clean):
        h, state, cache = fb.forward(p.layer, x, p.state, lengths=lengths)
        assert (h[past] == 0).all()
        g = fb.backward(cache, dh, p.dstate, deltas=True)
        assert (g.deltas[past] == 0).all() and (tokens or (g.x[past] == 0).all())
        results.append(flatten((h, state, g.layer, g.x, g.state, g.deltas)))
    assert all(np.array_equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_positions_of_weight_zero_are_left_out_not_multiplied(cell, reduction):
    p = make_problem(cell, (9, 4, 5, 7, 3), "float32")
    weights = p.rng.integers(0, 2, (9, 4)).astype("f4")
    y = np.where(weights[:, :, None] == 0, np.float32(np.nan), p.y)
    y_inf = np.where(weights[:, :, None] == 0, np.float32(np.inf), p.y)
    one, two, other = (
        fb.bptt(p.network, p.x, y, weights=weights, reduction=reduction) for y in (y, y_inf, p.y)
    )
    assert np.isfinite(one.loss)
    assert_same_bits(one, other)
    assert_same_bits(two, other)


@pytest.mark.parametrize("cell", ["rnn-tanh", "rnn-sigmoid", "lstm"])
@pytest.mark.parametrize("B", [1, 4])
def test_float32_follows_float64_over_a_thousand_steps(cell, B):
    results = []
    single = make_problem(cell, (1000, B, 8, 32, 3), "float32")
    for dtype in DTYPES:
        layer, head = (
            part.replace_arrays([a.astype(dtype) for a in part.arrays()])
            for part in (single.layer, single.readout)
        )
        x, y = single.x.astype(dtype), single.y.astype(dtype)
        results.append(
            (fb.run(layer, x)[0], fb.bptt(fb.Network(layer, head), x, y, input_grad=True))
        )
    (h, r), (h64, r64) = results
    assert_close(h, h64, STATES["float32"], "states")
    for one, other in zip(
        flatten((r.grad, r.grad_x)), flatten((r64.grad, r64.grad_x)), strict=True
    ):
        assert_close(one, other, GRADIENTS["float32"], "gradient")


def test_dw_stays_accurate_over_a_million_steps():
    T, I, H = 10**6, 2, 4
    x = np.random.default_rng(0).standard_normal((T, 1, I)).astype("f4")
    y = np.broadcast_to(np.float32(1), (T, 1, 1))
    grads = []
    for dtype in DTYPES:
        layer = make_layer("rnn-tanh", I, H, "float32", np.random.default_rng(1))
        head = fb.Readout.init(H, 1, rng=2)
        network = fb.Network(layer, head)
        network = network.replace_arrays([a.astype(dtype) for a in network.arrays()])
        r = fb.bptt(network, x.astype(dtype), y.astype(dtype), memory="8MB")
        grads.append(r.grad.arrays())
    for one, other in zip(*grads, strict=True):
        assert_close(one, other, 1e-4)


def arithmetic(_=None):
    """What changes when subnormals are flushed, or rounding differs, on the calling thread."""
    single, double = np.array([1e-40], "f4"), np.array([1e-310])
    plain = float("1e-310") * float("0.1")
    assert plain > 0, "subnormals are flushed"
    third = np.array([1.0, -1.0]) / np.array([3.0, 3.0])
    return [
        plain,
        *(single * np.float32(0.5)).tolist(),
        *(double * 0.1).tolist(),
        *third.tolist(),
        np.geterr(),
    ]


def failing(h, y, start):
    if start:
        raise ArithmeticError
    return 0.0, np.zeros_like(h)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_floating_point_environment_is_left_as_it_was(threads, set_threads):
    set_threads(threads)
    before, inside = arithmetic(), []

    def loss(h, y, start):
        inside.append(arithmetic())
        return 0.0, h * np.float32(1e-38)

    p = make_problem("lstm", (3000, 4, 5, 32, 3), "float32", tokens=True)
    bad = p.x.copy()
    bad[2990, 1] = 99
    fb.bptt(p.network, p.x, p.y, progress=lambda done, total: inside.append(arithmetic()))
    fb.bptt(p.network, p.x, None, loss)
    with pytest.raises(ValueError):
        fb.bptt(p.network, bad, p.y, memory=fb.Checkpointed(segment=300))
    with pytest.raises(ArithmeticError):
        fb.bptt(p.network, p.x, None, failing, memory=fb.Checkpointed(segment=50))
    thread = threading.Thread(target=lambda: inside.append(arithmetic()))
    thread.start()
    thread.join()
    assert len(inside) > 3 and all(found == before for found in [*inside, arithmetic()])


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_subnormal_loss_weight_is_left_out_like_zero(reduction):
    network = fb.Network(fb.LSTM.init(3, 5, rng=0), fb.Readout.init(5, 2, rng=1))
    x, y = np.ones((64, 2, 3), "f4"), np.ones((64, 2, 2), "f4")
    weights = np.where(np.arange(64) % 2, 5e-324, 0.5)
    due = fb.bptt(network, x, y, weights=np.where(weights < 0.1, 0, 0.5), reduction=reduction)
    junk = [np.full((64, 2), np.nan) for _ in range(20)]  # what an unwritten array would show
    del junk
    r = fb.bptt(network, x, y, weights=weights, reduction=reduction)
    assert r.loss == due.loss
    assert all(map(np.array_equal, r.grad.arrays(), due.grad.arrays()))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_control_word_is_put_back_on_success_and_on_error(threads, set_threads):
    word = numba.njit(lambda: control_word() & ~0x3F)  # less the sticky flags
    set_threads(threads)
    before = word()
    network = fb.Network(fb.RNN.init(8, 32, rng=0), None)
    x = np.full((64, 16, 8), 1e-30, "f4")
    fb.bptt(network, x, None, lambda h, y, start: (0.0, h))
    assert word() == before

    def fails(h, y, start):
        assert word() == before, "a callback runs in the caller's environment"
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        fb.bptt(network, x, None, fails)
    assert word() == before
