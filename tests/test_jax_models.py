"""Layers, readouts and networks as pytrees of JAX; errors of fastbptt.jax."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import CELLS, COMPOSITES, assert_close, make_problem
from jax_process import assert_same, in_jax

import fastbptt as fb

SIZES = (7, 3, 4, 6, 2)


class Subclass(fb.LSTM):
    """A layer that JAX has not been told of."""


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_does_not_import_jax():
    code = "import sys, fastbptt as fb; [getattr(fb, n) for n in fb.__all__]"
    assert run_python(f"{code}; print('jax' in sys.modules)") == "False\n"


def test_without_jax_the_error_says_how_to_install_it():
    code = "import sys; sys.modules['jax'] = None\ntry: import fastbptt.jax\n"
    assert "fastbptt[jax]" in run_python(f"{code}except ImportError as error: print(error)")


@pytest.mark.parametrize("cell", [*CELLS, *COMPOSITES])
@in_jax
def test_the_leaves_of_a_model_are_its_arrays(cell):
    import jax

    import fastbptt.jax  # noqa: F401

    p = make_problem(cell, SIZES, "float32")
    state = jax.tree.map(lambda array: array[0], p.state)
    for model in (p.layer, p.readout, p.network, fb.Network(p.layer, None, state)):
        leaves, tree = jax.tree.flatten(model)
        assert all(a is b for a, b in zip(leaves, model.arrays(), strict=True))
        back = jax.tree.unflatten(tree, leaves)
        assert type(back) is type(model)
        assert repr(back) == repr(model)
        assert hash(tree) == hash(jax.tree.structure(model))
        shapes = jax.tree.map(np.shape, model)  # no arrays: unchecked
        assert type(shapes) is type(model)
        assert jax.tree.structure(jax.tree.map(lambda _: 1.0, model)) == tree
        paths = [
            jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(model)
        ]
        assert len(set(paths)) == len(leaves)
    assert jax.tree_util.keystr(
        jax.tree_util.tree_leaves_with_path(fb.Network(p.layer, None))[0][0]
    )
    assert jax.tree_util.tree_leaves_with_path(p.readout)[0][0] == (jax.tree_util.GetAttrKey("V"),)


@in_jax
def test_every_kind_of_model_is_registered():
    from fastbptt.layers import custom, model, pytrees, recurrent, stored

    assert custom.Custom in pytrees.KINDS
    own = {k for k in stored.KINDS.values() if k.__module__.startswith("fastbptt.layers.")}
    assert set(pytrees.KINDS) == own - {model.Model, recurrent.Recurrent}


@in_jax
def test_optax_updates_a_network_and_its_state():
    import jax

    optax = pytest.importorskip("optax", reason="optax is not installed")
    from fastbptt.jax import recurrent

    p = make_problem("lstm/gru", (20, 3, 4, 6, 2), "float64")
    state = jax.tree.map(lambda array: np.zeros(array.shape[1:]), p.state)
    network = fb.Network(p.layer, p.readout, state)

    def loss(network):
        first = jax.tree.map(lambda s: jax.numpy.broadcast_to(s, (3, *s.shape)), network.state)
        h, _ = recurrent(network.layer, p.x, first)
        return ((h @ network.readout.V.T + network.readout.c - p.y) ** 2).sum()

    gradient = jax.grad(loss)(network)
    due = fb.bptt(network, p.x, p.y).grad
    assert isinstance(gradient, fb.Network)
    for ours, theirs in zip(gradient.arrays(), due.arrays(), strict=True):
        assert_close(np.asarray(ours), theirs, 1e-10)

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))
    settings = optimizer.init(network)
    losses = []

    @jax.jit
    def step(network, settings):
        value, gradient = jax.value_and_grad(loss)(network)
        updates, settings = optimizer.update(gradient, settings, network)
        return optax.apply_updates(network, updates), settings, value

    for _ in range(60):
        network, settings, value = step(network, settings)
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]
    assert np.any(network.state[0][0])
    back = jax.tree.map(np.array, network)  # NumPy's again
    assert fb.evaluate(back, p.x, p.y) == pytest.approx(float(loss(network)), rel=1e-10)


@in_jax
def test_a_network_trained_in_jax_is_saved_as_it_is():
    import io

    import jax

    import fastbptt.jax  # noqa: F401

    p, file = make_problem("lstm/gru", SIZES, "float32"), io.BytesIO()
    jax.tree.map(jax.numpy.asarray, p.network).save(file)
    file.seek(0)
    assert_same(fb.load(file), p.network)


@in_jax
def test_the_example_reaches_its_goal():
    pytest.importorskip("optax", reason="optax is not installed")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
    try:
        from jax_training import main
    finally:
        del sys.path[0]
    before, after = main(["--updates=100", "--delay=2"])
    assert after < 0.2 * before


@in_jax
def test_every_parameter_result_and_error_is_described():
    from test_docstrings import described, parameters, sections

    from fastbptt.jax import recurrent

    assert described(recurrent) == parameters(recurrent)
    assert {"Returns", "Raises"} <= sections(recurrent.__doc__).keys()


def wrong(p):
    """(what is changed, error, its words, whether it is known while values are traced)."""
    f, ones = np.float64, np.ones
    return [
        ({"x": p.x[..., :3]}, ValueError, "x must have shape", True),
        ({"x": p.x.astype(f)}, TypeError, "x must be float32", True),
        ({"x": [["a"]]}, TypeError, "x must be an array", False),
        ({"layer": p.layer.W}, TypeError, "layer must be", False),
        ({"layer": p.network}, TypeError, "layer must be", False),
        ({"layer": Subclass(*p.layer.arrays())}, TypeError, "not Subclass: JAX knows", False),
        ({"state": p.state[0]}, TypeError, "state must be a tuple of 2", False),
        ({"state": (p.state[0], ones((3, 6)))}, TypeError, r"state\[1\] must be float32", True),
        ({"state": (p.state[0], p.x)}, ValueError, r"state\[1\] must have shape", True),
        ({"lengths": np.array([1, 2])}, ValueError, "lengths must have shape", True),
        ({"lengths": np.array([1, 2, 8])}, ValueError, r"lengths\[2\] is 8", False),
        ({"lengths": np.array([1.0, 2, 3])}, TypeError, "lengths must be integers", True),
        ({"resets": ones((7, 3), int)}, TypeError, "resets must be booleans", True),
        ({"resets": ones((3, 7), bool)}, ValueError, "resets must have shape", True),
        ({"memory": 10}, fb.MemoryLimitError, "a budget of 10 bytes", False),
        ({"memory": "some"}, ValueError, "memory", False),
        ({"memory": []}, TypeError, "memory", False),
        ({"seed": -1}, ValueError, "seed must be at least 0", False),
        ({"seed": ones(2, int)}, TypeError, "seed must be an integer", True),
        ({"t0": ones(())}, TypeError, "t0 must be an integer", True),
        ({"x": ones((7, 3), int) * 4}, ValueError, "classes 0..3, but at t=0, b=0 it is 4", False),
        ({"x": ones((7, 3), int) << 32}, ValueError, "it is 4294967296", False),
    ]  # fmt: skip


@in_jax
def test_what_is_wrong_is_refused_before_any_work():
    import jax

    from fastbptt.jax import recurrent

    p = make_problem("lstm", SIZES, "float32")
    half = ({"x": jax.numpy.zeros((7, 3, 4), "bfloat16")}, TypeError, "x must be", True)
    for changes, error, words, traced in [*wrong(p), half]:
        given = {"layer": p.layer, "x": p.x, "state": p.state}
        with pytest.raises(error, match=words):
            recurrent(**given | changes)
        if traced:
            with pytest.raises(error, match=words):
                jax.jit(lambda changes, given=given: recurrent(**given | changes)).trace(changes)


@in_jax
def test_values_that_are_traced_are_refused_when_they_are_read():
    import jax

    from fastbptt.jax import recurrent

    p = make_problem("lstm", SIZES, "float32")
    run = jax.jit(lambda x, lengths: recurrent(p.layer, x, lengths=lengths)[0])
    ids = np.full((7, 3), 4)
    for x, lengths, words in ((p.x, [1, 2, 9], "lengths\\[2\\] is 9"), (ids, [7, 7, 7], "it is 4")):
        with pytest.raises(jax.errors.JaxRuntimeError, match=words):
            run(x, np.array(lengths)).block_until_ready()
    assert np.all(np.asarray(run(ids, np.zeros(3, int))) == 0)  # past a length nothing matters
    assert np.all(np.asarray(recurrent(p.layer, ids, lengths=[0, 0, 0])[0]) == 0)


@in_jax
def test_second_derivatives_and_forward_mode_say_that_there_are_none():
    import jax

    from fastbptt.jax import recurrent

    p = make_problem("lstm", SIZES, "float32")

    def value(x):
        return (recurrent(p.layer, x)[0] ** 2).sum()

    second = lambda x: jax.grad(lambda x: (jax.grad(value)(x) ** 2).sum())(x)  # noqa: E731
    for what in (second, jax.jit(second), jax.vmap(second)):
        with pytest.raises(NotImplementedError, match="no second derivative"):
            what(p.x)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(value, (p.x,), (p.x,))


@in_jax
def test_float64_needs_the_switch_of_jax():
    import jax

    from fastbptt.jax import recurrent

    p = make_problem("lstm", SIZES, "float64")
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(TypeError, match="jax_enable_x64"):
            recurrent(p.layer, p.x)
    finally:
        jax.config.update("jax_enable_x64", True)
    h, _ = recurrent(p.layer, p.x)
    assert_same(h, fb.run(p.layer, p.x)[0])


@in_jax
def test_a_model_that_holds_arrays_of_jax_is_planned_and_no_call_takes_it():
    import jax

    import fastbptt.jax  # noqa: F401

    p = make_problem("lstm", SIZES, "float32")
    away = jax.tree.map(jax.numpy.asarray, p.network)
    assert fb.plan(away, 50, 2) == fb.plan(p.network, 50, 2)
    assert fb.explain(away.layer, 50, 2) == fb.explain(p.layer, 50, 2)
    assert np.array_equal(away.flat(), p.network.flat())
    mixed = fb.Network(p.layer, away.readout)
    for call in (
        lambda: fb.run(away.layer, p.x),
        lambda: fb.forward(away.layer, p.x),
        lambda: fb.predict(mixed, p.x),
        lambda: fb.bptt(mixed, p.x, p.y),
        lambda: fb.evaluate(mixed, p.x, p.y),
    ):
        with pytest.raises(TypeError, match=r"arrays\(\)\[\d\] must be .* jax\.tree\.map"):
            call()
