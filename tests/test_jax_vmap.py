"""jax.vmap of fastbptt.jax.recurrent: each row is the call of its own."""

import numpy as np
import pytest
from helpers import assert_close, make_problem
from jax_process import in_jax

import fastbptt as fb

ROWS = 3
# What is mapped, besides x; and whether x has a batch axis of its own.
MAPPED = [
    ((), True), ((), False), (("layer",), True), (("state", "lengths"), False),
    (("state", "lengths", "resets"), True), (("resets", "layer"), False), (("state",), True),
]  # fmt: skip


def rows_of(problem, mapped, batched, tokens=False):
    """(arguments, axes, rows): the arguments of one call, those mapped with an axis in front."""
    import jax

    import fastbptt.jax  # noqa: F401

    rng, draw = problem.rng, {}

    def arguments():
        """Those of one row."""
        shape = (problem.T, problem.B) if batched else (problem.T,)
        one = lambda a: a if batched else a[0]  # noqa: E731
        return {
            "layer": jax.tree.map(lambda a: a + 0.1 * rng.standard_normal(a.shape), problem.layer),
            "x": rng.integers(0, problem.I, shape)
            if tokens else rng.standard_normal((*shape, problem.I)),
            "state": jax.tree.map(lambda a: one(a) + rng.standard_normal(one(a).shape),
                                  problem.state),
            "lengths": rng.integers(0, problem.T + 1, shape[1:]),
            "resets": rng.random(shape) < 0.2,
            "dh": rng.standard_normal((*shape, problem.layer.outputs)),
        }  # fmt: skip

    drawn = [arguments() for _ in range(ROWS)]
    axes = {name: 0 if name in (*mapped, "x", "dh") else None for name in drawn[0]}
    for name, axis in axes.items():
        for row in drawn[1:] if axis is None else ():
            row[name] = drawn[0][name]
        stack = lambda *parts: np.stack(parts)  # noqa: E731
        draw[name] = drawn[0][name] if axis is None else jax.tree.map(
            stack, *(row[name] for row in drawn))  # fmt: skip
    return draw, axes, drawn


def value(given):
    from fastbptt.jax import recurrent

    options = {name: given[name] for name in ("lengths", "resets")}
    h, final = recurrent(given["layer"], given["x"], given["state"], **options)
    import jax

    return (h * given["dh"]).sum() + sum(part.sum() for part in jax.tree.leaves(final)), (h, final)


CASES = [
    *(("lstm", *case) for case in MAPPED),
    *(("gru-before/rnn-tanh|gru", *case) for case in MAPPED[1::3]),
]


@pytest.mark.parametrize("cell, mapped, batched", CASES)
@in_jax
def test_rows_are_calls_of_their_own(cell, mapped, batched):
    import jax

    p = make_problem(cell, (7, 2, 3, 5, 1), "float64")
    given, axes, rows = rows_of(p, mapped, batched)

    def gradients(given):
        found, rest = {k: given[k] for k in ("layer", "x", "state")}, given
        return jax.grad(lambda some: value(rest | some), has_aux=True)(found)

    found = jax.jit(jax.vmap(gradients, (axes,)))(given)
    due = [gradients(row) for row in rows]
    for ours, *theirs in zip(*map(jax.tree.leaves, (found, *due)), strict=True):
        assert_close(np.asarray(ours), np.stack(theirs), 1e-12)

    def total(layer):
        return jax.vmap(lambda some: value(given | {"layer": layer} | some)[0], 0)(
            {k: v for k, v in given.items() if axes[k] == 0 and k != "layer"}
        ).sum()  # fmt: skip

    if axes["layer"] is None:  # the sum over rows
        shared = jax.jit(jax.grad(total))(given["layer"])
        for ours, *theirs in zip(
            *map(jax.tree.leaves, (shared, *(row[0]["layer"] for row in due))), strict=True
        ):
            assert_close(np.asarray(ours), sum(theirs), 1e-12)


@in_jax
def test_maps_nest_and_tokens_are_mapped():
    import jax

    from fastbptt.jax import recurrent

    p = make_problem("lstm", (7, 2, 4, 5, 1), "float64")
    ids = p.rng.integers(0, 4, (2, 3, 7))
    scales = np.array([0.5, 1.0])
    for over_layers in (False, True):

        def run(scale, ids, over_layers=over_layers):
            scaled = jax.tree.map(lambda w, by=scale: w * by, p.layer) if over_layers else p.layer
            return jax.vmap(lambda row: recurrent(scaled, row)[0])(ids)

        found = np.asarray(jax.vmap(run)(scales, ids))
        for i, j in np.ndindex(2, 3):
            scale = scales[i] if over_layers else 1.0
            layer = p.layer.replace_arrays([a * scale for a in p.layer.arrays()])
            assert_close(found[i, j], fb.run(layer, ids[i, j])[0], 1e-12)


@in_jax
def test_rows_of_dropout_have_the_masks_of_their_own_calls():
    import jax

    from fastbptt.jax import recurrent

    p = make_problem("lstm/gru", (7, 2, 3, 5, 1), "float64", dropout=0.5)
    xs = np.stack([p.x, p.x])
    for seeds, axis in ((np.array([3, 4]), 0), (np.array(3), None)):
        found = jax.vmap(lambda x, s: recurrent(p.layer, x, seed=s)[0], (0, axis))(xs, seeds)
        for row, seed in zip(np.asarray(found), np.broadcast_to(seeds, 2), strict=True):
            assert_close(row, fb.forward(p.layer, p.x, seed=int(seed))[0], 1e-12)


@in_jax
def test_no_rows_are_no_rows():
    import jax

    from fastbptt.jax import recurrent

    p = make_problem("gru", (7, 2, 3, 5, 1), "float64")
    xs = np.zeros((0, 7, 2, 3))
    assert jax.vmap(lambda x: recurrent(p.layer, x)[0])(xs).shape == (0, 7, 2, 5)
    none = jax.grad(lambda w: jax.vmap(lambda x: recurrent(w, x)[0])(xs).sum())(p.layer)
    assert not any(np.any(array) for array in jax.tree.leaves(none))
