"""flat() and with_flat(): all numbers of a model in one vector, and back."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers import COMPOSITES, DTYPES, assert_no_alias, make_layer, make_problem, untouched

import fastbptt as fb


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm-peephole", "gru", *COMPOSITES])
def test_a_model_goes_to_a_vector_and_back(cell, dtype):
    network = make_problem(cell, dtype=dtype).network
    for model in (network, network.layer, network.readout, fb.Network(network.layer, None)):
        arrays = model.arrays()
        unchanged = untouched(*arrays)
        vector = model.flat()
        assert vector.dtype == dtype and vector.shape == (sum(a.size for a in arrays),)
        assert np.array_equal(vector, np.concatenate([a.reshape(-1) for a in arrays]))
        again = model.with_flat(2 * vector)
        assert type(again) is type(model) and repr(again) == repr(model)
        assert all(
            np.array_equal(new, 2 * old) for new, old in zip(again.arrays(), arrays, strict=True)
        )
        assert all(new.flags.c_contiguous for new in again.arrays())
        assert_no_alias([vector, *again.arrays()], arrays)
        unchanged()


def test_the_new_model_does_not_follow_the_vector():
    layer = make_layer("lstm", 3, 4, "float64", np.random.default_rng(0))
    vector = layer.flat()
    again = layer.with_flat(vector)
    vector[...] = 7  # as an optimiser does that works in place
    assert np.array_equal(again.flat(), layer.flat())


def test_layouts_do_not_matter():
    layer = make_layer("gru", 3, 4, "float32", np.random.default_rng(0))
    other = layer.replace_arrays([np.asfortranarray(a) for a in layer.arrays()])
    assert np.array_equal(other.flat(), layer.flat())
    every_second = np.repeat(layer.flat(), 2)[::2]
    assert np.array_equal(layer.with_flat(every_second).flat(), layer.flat())


def test_a_cell_of_ones_own_has_a_vector_too():
    own = fb.RNN.init(2, 3, rng=0)
    gradient = fb.bptt(fb.Network(own, None), np.ones((4, 1, 2), "f4"), None,
                       lambda h, y, start: (0.0, np.ones_like(h))).grad  # fmt: skip
    assert gradient.flat().size == own.flat().size


@pytest.mark.parametrize(
    "change, error, words",
    [
        (lambda v: v[1:], ValueError, r"vector must have shape \(32,\), not \(31,\)"),
        (lambda v: v[:, None], ValueError, r"vector must have shape \(32,\), not \(32, 1\)"),
        (lambda v: v.astype("f4"), TypeError, "vector must be float64"),
        (lambda v: v.astype(int), TypeError, "vector must be float64"),
        (lambda v: None, TypeError, "vector must be"),
    ],
)
def test_a_wrong_vector_is_an_error(change, error, words):
    layer = make_layer("rnn-tanh", 4, 3, "float64", np.random.default_rng(0))
    network = fb.Network(layer, fb.Readout.init(3, 2, rng=0, dtype="float64"))
    assert network.flat().size == 12 + 9 + 3 + 6 + 2 == 32
    with pytest.raises(error, match=words):
        network.with_flat(change(network.flat()))


def test_the_optimiser_on_the_page_of_losses_takes_the_vector():
    """That example runs only where SciPy is installed, so it is not among those of test_readme."""
    pytest.importorskip("scipy.optimize", reason="SciPy is not installed")
    page = Path(__file__).parents[1] / "docs" / "losses.md"
    (example,) = re.findall(r"^```py\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    q = make_problem("rnn-tanh", (30, 2, 2, 4, 1))
    names = {"fb": fb, "net": q.network, "x": q.x, "y": q.y}
    exec(example, names)
    before = fb.evaluate(q.network, q.x, q.y, reduction="mean")
    assert fb.evaluate(names["net"], q.x, q.y, reduction="mean") < 0.8 * before
    assert names["found"].fun == pytest.approx(names["loss"](names["net"].flat())[0])
