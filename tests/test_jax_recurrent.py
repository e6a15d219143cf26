"""fastbptt.jax.recurrent: values and gradients are those of a scan, and of forward and backward."""

import numpy as np
import pytest
from helpers import (
    BOTH_WAYS,
    CELLS,
    FEW_KINDS,
    GRADIENTS,
    STACKS,
    STATES,
    assert_close,
    make_problem,
)
from jax_process import assert_same, in_jax

import fastbptt as fb

SIZES = (15, 3, 4, 9, 2)


def scanned(layer, x, state):
    """A cell by hand: h and the final state, as `recurrent` returns them."""
    import jax
    from jax import numpy as jnp

    sigmoid, kind = jax.nn.sigmoid, type(layer).__name__

    def rnn(s, x):
        g = {"sigmoid": sigmoid, "identity": lambda a: a, "relu": jax.nn.relu, "tanh": jnp.tanh}
        s = g[layer.activation](x @ layer.U.T + s @ layer.W.T + layer.b)
        return s, s

    def lstm(state, x):
        s, c = state
        p = jnp.split(layer.p, 3) if layer.p is not None else (0, 0, 0)
        i, f, g, o = jnp.split(x @ layer.U.T + s @ layer.W.T + layer.b, 4, axis=-1)
        c = sigmoid(f + p[1] * c) * c + sigmoid(i + p[0] * c) * jnp.tanh(g)
        s = sigmoid(o + p[2] * c) * jnp.tanh(c)
        return (s, c), s

    def gru(s, x):
        W_n = jnp.split(layer.W, 3)[2]
        x_r, x_z, x_n = jnp.split(x @ layer.U.T + layer.b, 3, axis=-1)
        s_r, s_z, s_n = jnp.split(s @ layer.W.T, 3, axis=-1)
        r, z = sigmoid(x_r + s_r), sigmoid(x_z + s_z)
        inner = r * (s_n + layer.bn) if layer.reset == "after" else (r * s) @ W_n.T + layer.bn
        s = (1 - z) * jnp.tanh(x_n + inner) + z * s
        return s, s

    final, h = jax.lax.scan({"RNN": rnn, "LSTM": lstm, "GRU": gru}[kind], state, x)
    return h, final


def total(run, dh, dstate):
    """A function of layer, x and state whose derivatives by h and the final state are these."""

    def value(layer, x, state):
        import jax

        pairs = jax.tree.map(lambda a, b: (a * b).sum(), run(layer, x, state), (dh, dstate))
        return sum(jax.tree.leaves(pairs))

    return value


@pytest.mark.parametrize("dtype, jitted", [("float32", True), ("float64", False)])
@pytest.mark.parametrize("cell", CELLS)
@in_jax
def test_values_and_gradients_are_those_of_a_scan(cell, dtype, jitted):
    import jax

    from fastbptt.jax import recurrent

    p = make_problem(cell, SIZES, dtype)
    wrapped = jax.jit if jitted else lambda f: f
    for ours, theirs in zip(
        jax.tree.leaves(wrapped(recurrent)(p.layer, p.x, p.state)),
        jax.tree.leaves(scanned(p.layer, p.x, p.state)),
        strict=True,
    ):
        assert ours.dtype == theirs.dtype == dtype
        assert_close(np.asarray(ours), np.asarray(theirs), STATES[dtype])
    found, due = (
        wrapped(jax.grad(total(run, p.dh, p.dstate), (0, 1, 2)))(p.layer, p.x, p.state)
        for run in (recurrent, scanned)
    )
    assert isinstance(found[0], type(p.layer))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(due), strict=True):
        assert ours.dtype == dtype
        assert_close(np.asarray(ours), np.asarray(theirs), GRADIENTS[dtype])


# (cuts, batched, tokens, memory): every one of each, and most pairs.
OPTIONS = [
    ((), True, True, "full"), (("lengths",), True, False, "full"),
    (("resets",), False, True, "budget"),
    (("lengths", "resets"), True, False, "budget"), (("lengths",), False, False, "auto"),
    (("resets",), True, False, fb.Truncated(3, 5)), ((), False, False, fb.Checkpointed(segment=4)),
    (("lengths", "resets"), False, True, fb.Truncated(3, 5)),
]  # fmt: skip


@pytest.mark.parametrize("cuts, batched, tokens, memory", OPTIONS)
@pytest.mark.parametrize("cell", FEW_KINDS)
@in_jax
def test_every_option_gives_the_bits_of_forward_and_backward(cell, cuts, batched, tokens, memory):
    import jax

    from fastbptt.jax import recurrent

    p = make_problem(cell, SIZES, "float32", tokens=tokens)
    options = {}
    if "lengths" in cuts:
        options["lengths"] = p.lengths
    if "resets" in cuts:
        options["resets"] = p.rng.random(p.x.shape[:2]) < 0.2
    x, state, dh, dstate = p.x, p.state, p.dh, p.dstate
    if not batched:
        x, dh = x[:, 1], dh[:, 1]
        state, dstate = (jax.tree.map(lambda a: a[1], s) for s in (state, dstate))
        options = {k: int(v[1]) if k == "lengths" else v[:, 1] for k, v in options.items()}
    if memory == "budget":
        with pytest.raises(fb.MemoryLimitError) as error:
            fb.plan(p.layer, 15, len(p.lengths), memory=1, resets=options["resets"])
        memory = error.value.least_bytes
    if "|" in cell and isinstance(memory, fb.Truncated):  # there is none
        memory = "full"
    inputs = () if tokens else (1,)

    @jax.jit
    def both(layer, x, state, options):
        def run(*args):
            return recurrent(*args, **options, memory=memory)

        gradient = jax.grad(total(run, dh, dstate), (0, *inputs, 2))
        return run(layer, x, state), gradient(layer, x, state)

    h, final, cache = fb.forward(p.layer, x, state, memory=memory, **options)
    g = fb.backward(cache, dh, dstate, input_grad=not tokens)
    due = (h, final), (g.layer, *([] if tokens else [g.x]), g.state)
    assert_same(both(p.layer, x, state, options), due)


@pytest.mark.parametrize("cell", ["gru", *STACKS, *BOTH_WAYS[1:]])
@in_jax
def test_what_is_not_asked_for_makes_no_difference(cell):
    """The gradient by x left out, the state not given, h or the final state without effect."""
    import jax

    from fastbptt.jax import recurrent

    p = make_problem(cell, SIZES, "float64")
    zeros = jax.tree.map(np.zeros_like, p.dstate)
    h, _, cache = fb.forward(p.layer, p.x)
    of_h, of_both = (
        fb.backward(cache, p.dh, dstate, keep=True) for dstate in (None, p.dstate)
    )  # fmt: skip
    of_state = fb.backward(cache, np.zeros_like(h), p.dstate)
    for dh, dstate, due in (
        (p.dh, None, of_h), (p.dh, p.dstate, of_both), (None, p.dstate, of_state)
    ):  # fmt: skip

        def value(layer, x, dh=dh, dstate=dstate):
            h, final = recurrent(layer, x)
            by_h = 0.0 if dh is None else (h * dh).sum()
            final = zeros if dstate is None else jax.tree.map(lambda a, b: a * b, final, dstate)
            return by_h + sum(part.sum() for part in jax.tree.leaves(final))

        layer, x = jax.grad(value, (0, 1))(p.layer, p.x)
        alone = jax.grad(value)(p.layer, p.x)
        assert_same((layer, x, alone), (due.layer, due.x, due.layer))
        assert_same(jax.grad(value, 1)(p.layer, p.x), due.x)


@in_jax
def test_a_cell_of_ones_own_is_differentiated_too():
    import jax
    from jax import numpy as jnp

    from fastbptt.jax import recurrent

    def forward(a, s, p, d, np=np):
        keep = np.exp(-d[0] * np.exp(p[0]))
        return (keep * s[0] + (1 - keep) * np.tanh(a[0]),)

    cell = fb.Cell("leaky_in_jax", 1, forward, parameters=1, drives=1)
    rng = np.random.default_rng(0)
    layer, x = cell.init(3, 5, rng=0, dtype="float64"), rng.random((6, 2, 3))

    def by_hand(layer, x):
        def step(s, x):
            a = x[:, :2] @ layer.U.T + s @ layer.W.T + layer.b
            (s,) = forward((a,), (s,), (layer.p,), (x[:, 2:],), jnp)
            return s, s

        return (jax.lax.scan(step, np.zeros((2, 5)), x)[1] ** 2).sum()

    def value(layer, x):
        return (recurrent(layer, x)[0] ** 2).sum()

    found, due = (jax.jit(jax.grad(f, (0, 1)))(layer, x) for f in (value, by_hand))
    assert found[0].definition is cell
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(due), strict=True):
        assert_close(np.asarray(ours), np.asarray(theirs), 1e-10)


@in_jax
def test_pieces_in_a_scan_have_the_gradient_of_the_whole():
    import jax

    from fastbptt.jax import recurrent

    p = make_problem("lstm", (12, 3, 4, 9, 2), "float64")

    def whole(layer, x, state):
        h, final = recurrent(layer, x, state)
        return (h * p.dh).sum() + final[1].sum()

    def pieces(layer, x, state):
        def piece(state, given):
            h, state = recurrent(layer, given[0], state)
            return state, (h * given[1]).sum()

        cut = (x.reshape(4, 3, 3, 4), p.dh.reshape(4, 3, 3, 9))
        final, values = jax.lax.scan(piece, state, cut)
        return values.sum() + final[1].sum()

    due, found, again = (
        jax.jit(jax.grad(f, (0, 1, 2)))(p.layer, p.x, p.state)
        for f in (whole, pieces, jax.checkpoint(pieces))
    )
    for a, b, c in zip(*map(jax.tree.leaves, (due, found, again)), strict=True):
        assert_close(np.asarray(b), np.asarray(a), 1e-12)
        assert_close(np.asarray(c), np.asarray(a), 1e-12)


@in_jax
def test_seed_and_time_of_dropout_may_be_traced():
    import jax

    from fastbptt.jax import recurrent

    p = make_problem("lstm/gru", SIZES, "float32", dropout=0.4)

    def value(layer, x, seed, t0):
        return (recurrent(layer, x, seed=seed, t0=t0)[0] * p.dh).sum()

    for seed, t0 in ((3, 0), (2**70 + 5, 2**40), (np.uint32(2**32 - 1), 7)):
        h, _, cache = fb.forward(p.layer, p.x, seed=int(seed), t0=t0)
        due = fb.backward(cache, p.dh)
        assert_same(recurrent(p.layer, p.x, seed=seed, t0=t0)[0], h)
        ways = [lambda layer, s=seed, t=t0: value(layer, p.x, s, t)]
        if seed < 2**64:
            ways.append(lambda layer, s=seed, t=t0: jax.jit(value)(layer, p.x, s, t))
        for way in ways:
            assert_same(jax.grad(way)(p.layer), due.layer)


@in_jax
def test_long_calls_and_many_of_them_come_to_an_end():
    """Arrays of many MB, several callbacks in one program: none waits for another."""
    import jax

    from fastbptt.jax import recurrent

    layer = fb.RNN.init(16, 16, rng=0)
    x = np.random.default_rng(0).standard_normal((50_000, 4, 16)).astype("float32")

    @jax.jit
    def value(layer, x):
        return sum((recurrent(layer, x * k)[0] ** 2).sum() for k in range(3))

    layer, x = jax.grad(value, (0, 1))(layer, x)
    assert np.isfinite(x).all()
    assert all(np.isfinite(array).all() for array in layer.arrays())
