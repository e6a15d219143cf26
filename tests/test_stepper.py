"""A Stepper has the bits of `predict` and `run`, however its sequence is cut."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
from checks import run_python
from helpers import CELLS, STACKS, assert_equal_bits, make_problem, misaligned

import fastbptt as fb

SIZES = (9, 3, 3, 5, 2)  # T, B, I, H, O
KINDS = [*((cell, "float64") for cell in [*CELLS, *STACKS]), ("lstm", "float32")]
LONG = [("lstm", 5000, 1, 20), ("rnn-tanh/rnn-tanh", 3000, 1, 64), ("rnn-tanh", 300, 9, 70),
        ("rnn-tanh", 5, 9, 500)]  # fmt: skip
LEAKY = fb.Cell("leaky_step", 1, lambda a, s, p: (0.5 * s[0] + math.tanh(a[0]),))
FADING = fb.Cell(
    "fading_step", 1, lambda a, s, p, d: (s[0] * math.exp(-d[0]) + a[0],), drives=1
)  # fmt: skip


def problem(cell="rnn-tanh", dtype="float64", tokens=False, sizes=SIZES):
    return make_problem(cell, sizes, dtype, tokens=tokens, dropout=0.5)  # which is left out


def first(state):
    """The state of the first sequence alone."""
    return tuple(map(first, state)) if isinstance(state, tuple) else state[0]


def one_by_one(stepper, x):
    return np.array([stepper.step(row) for row in x])


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("cell, dtype", KINDS)
def test_steps_and_blocks_have_the_bits_of_predict_and_run(cell, dtype, tokens):
    p = problem(cell, dtype, tokens)
    for model, call in ((p.network, fb.predict), (p.layer, fb.run)):
        expected = call(model, p.x, p.state)
        s = fb.Stepper(model, p.B, state=p.state)
        assert_equal_bits((one_by_one(s, p.x), s.state), expected, "steps")
        s.reset()
        parts = [s.process(p.x[a:b]) for a, b in ((0, 4), (4, 4), (4, 5))]
        parts.append(one_by_one(s, p.x[5:]))
        assert_equal_bits((np.concatenate(parts), s.state), expected, "blocks and steps")
        x, state = p.x[:, 0], first(p.state)
        s = fb.Stepper(model, state=state)
        found = [s.step(x[0])[None], s.process(x[1:])]
        assert_equal_bits((np.concatenate(found), s.state), call(model, x, state), "no batch")


@pytest.mark.parametrize("cell", [LEAKY, FADING], ids=["a cell of one's own", "with drives"])
def test_a_cell_of_ones_own_steps_as_it_runs(cell):
    layer = cell.init(3, 5, rng=0, dtype="float64")
    x = np.random.default_rng(0).standard_normal((6, 2, 3))
    s = fb.Stepper(layer, 2)
    assert_equal_bits((one_by_one(s, x), s.state), fb.run(layer, x))


@pytest.mark.parametrize("cell, T, B, H", LONG)
@pytest.mark.parametrize("threads", [1, 2])
def test_long_blocks_and_wide_layers_have_the_same_bits_too(cell, T, B, H, threads, set_threads):
    set_threads(threads)
    p = problem(cell, sizes=(T, B, 3, H, 2))
    s = fb.Stepper(p.network, B, state=p.state)
    expected = fb.predict(p.network, p.x, p.state)
    assert_equal_bits((s.process(p.x), s.state), expected)
    s.reset()
    first = one_by_one(s, p.x[:2])
    assert_equal_bits((np.concatenate([first, s.process(p.x[2:])]), s.state), expected)
    layer = fb.Stepper(p.layer, B, state=p.state)
    assert_equal_bits((layer.process(p.x), layer.state), fb.run(p.layer, p.x, p.state))


def test_floats_and_tokens_may_follow_each_other():
    p, q = problem("lstm"), problem("lstm", tokens=True)
    s = fb.Stepper(p.network, p.B)
    one, state = fb.predict(p.network, p.x)
    two, end = fb.predict(p.network, q.x, state)
    assert_equal_bits(
        (s.process(p.x), one_by_one(s, q.x.astype("uint8")), s.state), (one, two, end)
    )
    narrow = fb.Stepper(p.network)
    assert_equal_bits(narrow.step(2), fb.predict(p.network, np.array([2]))[0][0])


def test_the_networks_own_state_is_where_it_begins_and_goes_back_to():
    p = problem("lstm")
    own = first(p.state)
    network = fb.Network(p.layer, p.readout, own)
    s = fb.Stepper(network, p.B)
    expected = fb.predict(network, p.x)
    assert_equal_bits((s.process(p.x), s.state), expected)
    s.reset()
    assert_equal_bits((s.process(p.x), s.state), expected)
    s.state = p.state
    assert_equal_bits((s.process(p.x), s.state), fb.predict(network, p.x, p.state))
    s.reset()
    other = fb.Network(p.layer, p.readout, tuple(2 * part for part in own))
    s.update(other)
    s.reset()
    assert_equal_bits((s.process(p.x), s.state), fb.predict(other, p.x))


@pytest.mark.parametrize(
    "cell, tokens", [("lstm", False), ("gru-before", False), ("lstm/gru", True)]
)
def test_weights_changed_in_place_count_after_update(cell, tokens):
    p = problem(cell, tokens=tokens)
    s = fb.Stepper(p.network, p.B)
    one, state = fb.predict(p.network, p.x)
    for array in p.network.arrays():
        array *= 1.25
    assert_equal_bits((s.process(p.x), s.state), (one, state), "before")
    for _ in range(2):
        s.update(p.network)
        two, state = fb.predict(p.network, p.x, state)
        assert_equal_bits((s.process(p.x), s.state), (two, state), "after")
        p.network.arrays()[0][...] += 0.1


@pytest.mark.parametrize("tokens", [False, True])
def test_a_nan_or_infinity_stays_in_its_sequence(tokens):
    p = problem("lstm")
    clean = one_by_one(fb.Stepper(p.network, p.B), p.x)
    p.x[2, 1, 0], p.x[4, 0, 1] = np.nan, np.inf
    s = fb.Stepper(p.network, p.B)
    found = one_by_one(s, p.x)
    assert_equal_bits(found[:, 2], clean[:, 2])
    assert np.isnan(found[2:, 1]).all()
    assert_equal_bits(found, fb.predict(p.network, p.x)[0])


def test_the_callers_floating_point_environment_is_left_as_it_was():
    p = problem("lstm", "float32")
    s, tiny = fb.Stepper(p.network, p.B), np.float32(1e-38)
    s.state = tuple(np.full_like(part, 1e-39) for part in p.state)
    x = np.full_like(p.x, 1e-39)
    expected = fb.predict(p.network, x, s.state)
    assert_equal_bits((one_by_one(s, x), s.state), expected)
    assert tiny / np.float32(4) > 0
    s.process(x)
    assert tiny / np.float32(4) > 0


def copies(s):
    yield pickle.loads(pickle.dumps(s))
    yield copy.copy(s)
    yield copy.deepcopy(s)
    file = io.BytesIO()
    s.save(file)
    file.seek(0)
    yield fb.load(file)


@pytest.mark.parametrize("B, given", [(3, True), (None, False)])
def test_copies_go_on_with_the_same_bits_each_on_its_own(B, given):
    p = problem("lstm/gru")
    x, state = (p.x, p.state) if B else (p.x[:, 0], first(p.state))
    s = fb.Stepper(p.network, B, state=state if given else None)
    whole = s.process(x)
    s.reset()
    s.process(x[:4])
    p.network.arrays()[0][...] = 0  # no update: it does not count, for copies neither
    for other in copies(s):
        assert repr(other) == repr(s)
        assert_equal_bits(other.process(x[4:]), whole[4:])
        other.reset()
        assert_equal_bits(other.process(x), whole)
    assert_equal_bits(s.process(x[4:]), whole[4:])


def test_a_file_is_read_in_a_process_that_has_no_stepper_yet(tmp_path):
    p = problem()
    s = fb.Stepper(p.network, p.B)
    s.process(p.x[:5])
    s.save(tmp_path / "s.npz")
    np.save(tmp_path / "x.npy", p.x[5:])
    code = (
        "import numpy as np, fastbptt as fb\n"
        "np.save('o.npy', fb.load('s.npz').process(np.load('x.npy')))"
    )
    run_python(code, cwd=tmp_path)
    assert_equal_bits(np.load(tmp_path / "o.npy"), s.process(p.x[5:]))


def test_arrays_of_other_kinds_are_read_as_predict_reads_them(tmp_path):
    p = problem("lstm")
    expected, _ = fb.predict(p.network, p.x)
    s = fb.Stepper(p.network, p.B)
    frozen = p.x.copy()
    frozen.flags.writeable = False
    for x in (np.asfortranarray(p.x), misaligned(p.x), frozen, p.x.tolist()):
        s.reset()
        assert_equal_bits(s.process(x), expected)
        s.reset()
        assert_equal_bits(one_by_one(s, x), expected)
    p.x.tofile(tmp_path / "x")
    s.reset()
    assert_equal_bits(
        s.process(np.memmap(tmp_path / "x", p.x.dtype, "r", shape=p.x.shape)), expected
    )


def test_results_go_where_they_are_asked_for():
    p = problem("lstm")
    s, o = fb.Stepper(p.network, p.B), np.empty((p.T, p.B, p.O))
    expected, _ = fb.predict(p.network, p.x)
    for t in range(3):
        out = o[t]
        assert s.step(p.x[t], out) is out
    assert s.process(p.x[3:], o[3:]).base is o
    assert_equal_bits(o, expected)
    same = fb.Stepper(p.layer, p.B)
    wide = fb.Stepper(fb.RNN.init(4, 4, rng=0, dtype="float64"))
    x = np.random.default_rng(0).standard_normal((7, 4))
    h, _ = fb.run(wide._layer, x)
    assert_equal_bits(wide.process(x, x), h)  # in place
    held = same.step(p.x[0])
    kept, again = held.copy(), same.step(p.x[1])
    assert_equal_bits(held, kept)
    assert not np.shares_memory(held, again)
