"""Cells and activations go to other processes as records of what they compute."""

import copy
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from checks import run_python
from test_tracing import RELU

import fastbptt as fb
from fastbptt.layers import definitions, model


def forget(a, s):
    n = math.tanh(a[0])
    return (0.5 * s[0] + n,), (n,)


def forget_back(ds, s, previous, kept):
    return (ds[0] * (1 - kept[0] ** 2),), (0.5 * ds[0],)


FORGET = fb.Cell("forget", 1, forget, forget_back)


def driven(rate):
    return fb.Cell(
        "driven", 1, lambda a, s, p, d: (s[0] * math.exp(-rate * d[0]) + a[0],), drives=1
    )


MADE = {
    "a cell": (lambda: FORGET, ((0.1,), (0.2,))),
    "an activation": (lambda: RELU, (0.3,)),
    "of a lambda": (lambda: driven(2.0), ((0.1,), (0.2,), (), (0.3,))),
    "without a slope": (lambda: fb.Activation("cubic", lambda a: a**3), (0.3,)),
}


@pytest.mark.parametrize("what", MADE)
def test_a_definition_is_pickled_as_its_record(what, monkeypatch):
    make, given = MADE[what]
    made = make()
    assert pickle.loads(pickle.dumps(made)) is copy.copy(made) is copy.deepcopy(made) is made
    monkeypatch.setattr(model, "DEFINITIONS", {})  # as in a process that never made it
    monkeypatch.setattr(definitions, "DEFINITIONS", model.DEFINITIONS)
    again = pickle.loads(pickle.dumps(made))
    assert again is not made and again.cell == made.cell and again.traces == made.traces
    names = ("function", "slope") if made.activates else ("forward", "reverse")
    for name in names:
        assert (getattr(again, name) is None) == (getattr(made, name) is None)
    found, due = (getattr(each, names[0])(*given) for each in (again, made))
    assert np.allclose(np.array(found, dtype=float).ravel(), np.array(due, dtype=float).ravel())
    if what == "a cell":
        back = [each.reverse((1.0,), (0.3,), (0.2,), (0.1,)) for each in (again, made)]
        assert back[0] == back[1]
    assert pickle.loads(pickle.dumps(made)) is again


UNPICKLED = """
import multiprocessing, sys
import numpy as np
sys.path.insert(0, {folder!r})
import fastbptt as fb

def total(layer):
    return float(fb.run(layer, np.ones((5, 1, 3), "float32"))[0].sum())

if __name__ == "__main__":
    from test_pickles import driven
    layer = driven(0.5).init(3, 4, rng=0)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(total, (layer,)) == total(layer))
"""


def test_a_layer_goes_to_a_process_that_never_made_its_cell(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNPICKLED.format(folder=str(Path(__file__).parent)), encoding="utf-8")
    code = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
    assert run_python(code) == "True\n"
