"""What is no plain array is an error in every argument alike, which names it and what to do."""

import numpy as np
import pytest
from arrays_brought import PLACES, Slices, module, problem
from checks import contents, rejected

import fastbptt as fb


def two_axes(array):
    return np.reshape(array, (len(array), -1))


def frame(array, package, *dtypes):
    columns = {name: two_axes(array)[:, 0].astype(name) for name in dtypes}
    return module(package).DataFrame(columns)


def requires_grad(array):
    return module("torch").from_numpy(array.astype("f4")).requires_grad_()


def swapped(array):
    return array.astype(array.dtype.newbyteorder())


class Unit(np.ndarray):
    """As astropy has it: numbers with a unit."""

    def __array_ufunc__(self, *given, **options):
        raise TypeError("no unit")


class Quantity:
    """As pint has it."""

    magnitude = property(lambda self: self.array)

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __array__(self, dtype=None, copy=None):
        return self.array

    def __getitem__(self, key):
        return Quantity(self.array[key])


class Elsewhere:
    """What speaks DLPack, on another device."""

    def __dlpack__(self, **asked):
        raise BufferError("not here")

    def __dlpack_device__(self):
        return 8, 0


class Broken:
    """What fails when it is read."""

    def __array__(self, dtype=None, copy=None):
        raise OSError("the disk is gone")


# How to make one of an array, and words of the message.
BAD = {
    "masked": (np.ma.masked_array, "masked", "fill"),
    "mixed frame": (lambda a: frame(a, "pandas", "f4", "f8"), "float32", "float64", "columns"),
    "mixed polars": (lambda a: frame(a, "polars", "f4", "i8"), "Float32", "Int64", "columns"),
    "frame of text": (lambda a: frame(a, "pandas", "str"), "convert"),
    "categories": (lambda a: module("pandas").Series(["a"]).astype("category"), "category"),
    "missing integers": (lambda a: module("polars").Series([1, None]), "missing", "int64"),
    "missing, pandas": (lambda a: module("pandas").Series([1, None], dtype="Int64"), "missing"),
    "object": (lambda a: a.astype(object), "object", "convert"),
    "byte order": (swapped, "order", "astype"),
    "byte order on disk": (lambda a: Slices(swapped(a)), "order", "astype"),
    "float16": (lambda a: a.astype("f2"), "float16", "convert"),
    "float16 on disk": (lambda a: Slices(a.astype("f2")), "float16", "convert"),
    "float16 tensor": (lambda a: module("torch").from_numpy(a).half(), "float16", "convert"),
    "bfloat16 tensor": (lambda a: module("torch").from_numpy(a).bfloat16(), "bfloat16", "convert"),
    "bfloat16": (lambda a: a.astype(module("ml_dtypes").bfloat16), "bfloat16", "convert"),
    "complex": (lambda a: a.astype("c8"), "complex64", "features"),
    "text": (lambda a: a.astype(str), "convert"),
    "structured": (lambda a: np.zeros(a.shape, "i4,f4"), "structured_to_unstructured"),
    "times": (lambda a: a.astype("i8").astype("M8[s]"), "datetime64"),
    "spans of time": (lambda a: a.astype("i8").astype("m8[s]"), "timedelta64"),
    "sparse": (lambda a: module("scipy.sparse").csr_array(two_axes(a)), "sparse", "todense"),
    "sparse tensor": (lambda a: module("torch").from_numpy(a).to_sparse(), "Sparse"),
    "matrix": (lambda a: two_axes(a).view(np.matrix), "matrix", "numpy.asarray"),
    "unit": (lambda a: a.view(Unit), "Unit", "numpy.asarray"),
    "pint": (Quantity, "unit", "magnitude"),
    "gradient": (requires_grad, "gradient", "fastbptt.torch", "detach"),
    "elsewhere": (lambda a: Elsewhere(), "device"),
    "meta tensor": (lambda a: module("torch").empty(a.shape, device="meta"), "meta"),
    "broken": (lambda a: Broken(), "the disk is gone"),
    "arrays in a list": (lambda a: [np.array(1.0), np.array(2.0)], "list", "ndarray"),
    "lists of two lengths": (lambda a: [[1.0], [1.0, 2.0]], "list"),
    "several types in a list": (lambda a: [[True], [1.5]], "bool", "float"),
    "text in a list": (lambda a: ["a"], "list", "str"),
    "text itself": (lambda a: "x.npy", "str"),
    "dict": (lambda a: {"a": a}, "dict"),
    "generator": (lambda a: (row for row in a), "generator"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", BAD)
def test_every_argument_rejects_every_kind(kind, place):
    p = problem()
    (name, call), (make, *words) = PLACES[place], BAD[kind]
    before = contents(p)
    rejected(lambda: call(p, make), name, *words, errors=(TypeError,))
    assert contents(p) == before


@pytest.mark.parametrize("place", PLACES)
def test_each_place_reads_what_it_is_given(place):
    """A bad array would not be found where the argument is never looked at."""
    p, seen = problem(), []
    PLACES[place][1](p, lambda array: seen.append(array) or array)
    assert seen


def test_all_other_dtypes_are_refused_and_only_those():
    good = {np.dtype(code) for code in "?bhilqBHILQfd"}
    p = problem()
    for code in np.typecodes["All"]:
        weights = np.zeros((p.T, p.B), code)
        if weights.dtype in good:
            assert fb.evaluate(p.network, p.x, p.y, weights=weights) == 0
        else:
            rejected(
                lambda weights=weights: fb.evaluate(p.network, p.x, p.y, weights=weights),
                "weights",
                errors=(TypeError,),
            )


class Lying(Slices):
    """Its slices are of another dtype, or shape, than it says."""

    def __init__(self, array, change):
        super().__init__(array)
        self.change = change

    def __getitem__(self, key):
        return self.change(super().__getitem__(key))


LIES = {
    "dtype": (lambda part: part.astype("f8"), "float64", "float32"),
    "shape": (lambda part: part[..., :1], "shape"),
    "masked": (
        lambda part: np.ma.masked_array(part, np.arange(part.size).reshape(part.shape) == 1),
        "masked",
        "fill",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_stretches_that_are_not_what_was_said(lie):
    change, *words = LIES[lie]
    p = problem()
    rejected(lambda: fb.run(p.layer, Lying(p.x, change)), "x", *words, errors=(TypeError,))


def test_masked_stretches_without_a_masked_value_are_read():
    p = problem()
    h = fb.run(p.layer, Lying(p.x, np.ma.masked_array))[0]
    assert np.array_equal(h, fb.run(p.layer, p.x)[0])


def test_a_traced_array_of_jax_is_refused_when_it_is_given():
    jax, p = module("jax"), problem()
    rejected(
        lambda: jax.jit(lambda x: fb.run(p.layer, x))(p.x), "x", "fastbptt.jax", errors=(TypeError,)
    )
