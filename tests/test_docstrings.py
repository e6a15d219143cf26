"""Every public name says what it is, what it takes, what it returns and what it raises."""

import builtins
import inspect
import re

import pytest

import fastbptt as fb
from fastbptt.calls.cache import Cache, Gradient
from fastbptt.calls.gradient import Result
from fastbptt.calls.reach import Reach
from fastbptt.layers.model import Model
from fastbptt.memory.endless import EndlessPlan
from fastbptt.memory.plan import Frontier, Plan
from fastbptt.online.pieces import Update
from fastbptt.training.base import Optimiser
from fastbptt.training.result import Fit

RETURNED = (Result, Gradient, Cache, Plan, EndlessPlan, Frontier, Reach, Update, Fit)
METHODS = (
    Model.arrays,
    Model.replace_arrays,
    Model.to,
    Model.save,
    Model.flat,
    Model.with_flat,
    fb.RNN.init,
    fb.LSTM.init,
    fb.GRU.init,
    fb.Readout.init,
    fb.Cell.init,
    fb.Cell.__call__,
    Plan.schedule,
    fb.Stepper.step,
    fb.Stepper.process,
    fb.Stepper.reset,
    fb.Stepper.update,
    fb.Stepper.save,
    fb.Online.push,
    fb.Online.finish,
    fb.Online.reset,
    fb.Online.save,
    Optimiser.step,
    Optimiser.save,
    Fit.save,
    Fit.draw,
)
PROPERTIES = (
    Plan.peak_bytes,
    Plan.time_factor,
    Plan.actions,
    Frontier.knee,
    EndlessPlan.peak_bytes,
    fb.Online.network,
    fb.Online.state,
    fb.Online.time,
    fb.Online.nbytes,
    Reach.time_constant,
    Reach.verdict,
    fb.Stepper.state,
    Optimiser.steps,
    Fit.best,
)
PUBLIC = [*(getattr(fb, name) for name in fb.__all__), *RETURNED, *METHODS, fb.distributed.bptt]

NO_PARAMETERS = {
    "Cache": "only `forward` makes it",
    "Frontier": "only `frontier` makes it, and it is a tuple of Plans",
}
NO_RAISES = {
    "Full": "it has no parameters",
    "SnAp1": "it has no parameters",
    "Model.arrays": "it has no parameters",
    "Model.flat": "it has no parameters",
    "Plan.schedule": "it has no parameters",
    "Online.reset": "it has no parameters",
    "MemoryLimitError": "it is raised itself",
    "NotFiniteError": "it is raised itself",
    **{kind.__name__: "calls make it from what they have checked" for kind in RETURNED},
}

SECTION = re.compile(r"^(\w[\w ]*)\n(-{3,})$", re.M)
ITEM = re.compile(r"^(\S[^:\n]*) : \S", re.M)


def named(value):
    """The name of a test case."""
    return value.__name__ if inspect.isclass(value) else value.__qualname__


def sections(text):
    """The sections of a docstring by their titles, and the text before them under ""."""
    first, *rest = re.split(SECTION, inspect.cleandoc(text))
    return {"": first} | dict(zip(rest[::3], rest[2::3], strict=True))


def items(section):
    """The names that the items of a section begin with, in their order."""
    return [name.strip() for names in ITEM.findall(section) for name in names.split(",")]


def parameters(function):
    """The names of what a caller passes; a field after `_: KW_ONLY` is one, `_` is not."""
    found = inspect.signature(function).parameters
    return [name for name in found if name not in ("self", "cls", "_")]


def described(value):
    """The names that the docstring describes: a function's parameters, a class's attributes."""
    found = sections(value.__doc__)
    return items(found.get("Parameters", "") + "\n" + found.get("Attributes", ""))


@pytest.fixture(params=PUBLIC, ids=named)
def public(request):
    """Something public: a function, a class or a method."""
    return request.param


def test_a_public_name_begins_with_a_sentence(public):
    first = sections(public.__doc__)[""].splitlines()[0]
    assert first.strip()
    assert first.rstrip()[-1] in ".:"


def test_every_parameter_is_described_once_and_no_other(public):
    expected = [] if named(public) in NO_PARAMETERS else parameters(public)
    assert sorted(described(public)) == sorted(expected)


def test_what_is_returned_is_described(public):
    says = "Returns" in sections(public.__doc__)
    if inspect.isclass(public):
        assert not says
    else:
        returns = inspect.signature(public).return_annotation
        assert says == (returns not in ("None", None))


def test_what_is_raised_is_described_by_exceptions_that_exist(public):
    found = sections(public.__doc__)
    assert ("Raises" in found) == (named(public) not in NO_RAISES)
    for name in items(found.get("Raises", "")):
        error = getattr(builtins, name, None) or getattr(fb, name)
        assert issubclass(error, Exception)


def test_every_exception_to_these_rules_is_of_a_public_name():
    assert {*NO_PARAMETERS, *NO_RAISES} <= set(map(named, PUBLIC))


@pytest.mark.parametrize("value", PROPERTIES, ids=lambda value: value.fget.__qualname__)
def test_a_property_says_what_it_is(value):
    assert value.__doc__.splitlines()[0].endswith(".")


def test_shapes_are_given_where_arrays_are_passed():
    for layer in (fb.RNN, fb.LSTM, fb.GRU, fb.Readout):
        text = sections(layer.__doc__)["Parameters"]
        arrays = [name for name in parameters(layer) if len(name) == 1 or name == "bn"]
        for name in arrays:
            assert re.search(rf"^{name} : \([\w, ]+\) array, (float32|same dtype)", text, re.M)


def test_a_reference_to_a_public_name_is_to_one_that_exists(public):
    for name in re.findall(r"`(?:fastbptt|fb)\.(\w+)", public.__doc__):
        assert name in fb.__all__ or name == "memory", name


def test_what_is_missing_from_a_docstring_is_found():
    def double(value, times):
        """Return twice the value.

        Parameters
        ----------
        value, factor : numbers
        """

    assert described(double) == ["value", "factor"]
    assert parameters(double) == ["value", "times"]
    assert "Returns" not in sections(double.__doc__)
