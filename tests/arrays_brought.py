"""Arrays as people bring them: makers of every kind, and every argument that takes one."""

import itertools

import numpy as np
import pytest
from checks import small_problem

import fastbptt as fb

# How many arrays have files in a folder.
_numbers = itertools.count()


def module(name):
    """A package of the test extra, or of `bench`; the test is skipped where it is not installed."""
    return pytest.importorskip(name, reason=f"{name} is not installed")


class Exporter:
    """What speaks DLPack and nothing else."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **asked):
        return self._array.__dlpack__(**asked)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class Slices:
    """What has a shape, a dtype and slices; it counts the bytes of the largest."""

    def __init__(self, array):
        self._array, self.most = array, 0
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key):
        part = self._array[key].copy()
        self.most = max(self.most, part.nbytes)
        return part


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def _frame(array, folder):
    pandas = module("pandas")
    return (pandas.Series if array.ndim == 1 else pandas.DataFrame)(array)


def _polars(array, folder):
    polars = module("polars")
    return (polars.Series if array.ndim == 1 else polars.DataFrame)(array)


def _memmap(array, folder):
    path = folder / f"{next(_numbers)}.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def _h5py(array, folder, **how):
    path = folder / f"{next(_numbers)}.h5"
    return module("h5py").File(path, "w").create_dataset("array", data=array, **how)


def _zarr(array, folder):
    zarr = module("zarr")
    chunks = (7, *array.shape[1:])
    return zarr.create_array(folder / f"{next(_numbers)}.zarr", data=array, chunks=chunks)


def _xarray_on_disk(array, folder):
    """As `open_dataset` gives: sliced without being loaded."""
    xarray = module("xarray")
    from xarray.core import indexing

    names = [f"axis{n}" for n in range(array.ndim)]

    class Backed(xarray.backends.BackendArray):
        shape, dtype = array.shape, array.dtype

        def __getitem__(self, key):
            basic = indexing.IndexingSupport.BASIC
            return indexing.explicit_indexing_adapter(key, self.shape, basic, array.__getitem__)

    return xarray.DataArray(xarray.Variable(names, indexing.LazilyIndexedArray(Backed())))


# Each as `make(array, folder)`.
KINDS = {
    "dlpack": lambda a, _: Exporter(a),
    "read-only dlpack": lambda a, _: Exporter(read_only(a)),
    "torch": lambda a, _: module("torch").from_numpy(a.copy()),
    "torch, batch first": lambda a, _: module("torch").from_numpy(np.asfortranarray(a)),
    "jax": lambda a, _: module("jax.numpy").asarray(a),
    "pandas": _frame,
    "polars": _polars,
    "xarray": lambda a, _: module("xarray").DataArray(a),
    "xarray on disk": _xarray_on_disk,
    "memory map": _memmap,
    "h5py": _h5py,
    "h5py in chunks": lambda a, f: _h5py(
        a, f, chunks=(min(4, len(a)), *a.shape[1:]), compression="gzip"
    ),
    "zarr": _zarr,
    "slices": lambda a, _: Slices(a),
    "memoryview": lambda a, _: memoryview(np.ascontiguousarray(a)),
}
FRAMES = {"pandas", "polars"}  # of at most two axes


def _back(p, make, **given):
    cache = fb.forward(p.layer, p.x)[2]
    given = {"dh": p.dh, "dstate": None} | {name: make(value) for name, value in given.items()}
    g = fb.backward(cache, **given)
    return g.layer, g.x, g.state


def _bptt(p, network=None, **given):
    given = {"x": p.x, "y": p.y, "input_grad": True} | given
    r = fb.bptt(network or p.network, **given)
    return r.loss, r.grad, r.state, r.grad_state, r.grad_x


def _reach(p, **given):
    return fb.gradient_reach(p.network, **({"x": p.x, "y": p.y} | given))


def _loss(make):
    return lambda h, y, start: (0.0, make(np.ones(h.shape, h.dtype)))


def problem(batch=True):
    """`small_problem` with loss weights, also without the batch axis."""
    p = small_problem()
    p.weights = np.linspace(0, 1, p.T * p.B, dtype=np.float32).reshape(p.T, p.B)
    if not batch:
        for name in ("x", "y", "tokens", "ids", "dh", "weights"):
            setattr(p, name, np.ascontiguousarray(getattr(p, name)[:, 0]))
        p.state, p.lengths = p.state[0], int(p.lengths[0])
    return p


# By the name of the argument in messages: calls of `small_problem`, `m` making arrays of a kind.
PLACES = {
    "x of forward": ("x", lambda p, m: fb.forward(p.layer, m(p.x))[:2]),
    "x of run": ("x", lambda p, m: fb.run(p.layer, m(p.x))),
    "x of the last": ("x", lambda p, m: fb.run(p.layer, m(p.x), keep="last")),
    "x of predict": ("x", lambda p, m: fb.predict(p.network, m(p.x))),
    "x of evaluate": ("x", lambda p, m: fb.evaluate(p.network, m(p.x), p.y)),
    "x of bptt": ("x", lambda p, m: _bptt(p, x=m(p.x))),
    "x of reach": ("x", lambda p, m: _reach(p, x=m(p.x)).norms),
    "tokens": ("x", lambda p, m: fb.run(p.layer, m(p.tokens))),
    "y of evaluate": ("y", lambda p, m: fb.evaluate(p.network, p.x, m(p.y))),
    "y of bptt": ("y", lambda p, m: _bptt(p, y=m(p.y))),
    "y of windows": ("y", lambda p, m: _bptt(p, y=m(p.y), memory=fb.Truncated(2, 3))),
    "y of reach": ("y", lambda p, m: _reach(p, y=m(p.y)).norms),
    "classes": ("y", lambda p, m: _bptt(p, p.softmax, y=m(p.ids), loss="cross_entropy")),
    "state": ("state", lambda p, m: fb.run(p.layer, p.x, m(p.state))),
    "state of forward": ("state", lambda p, m: fb.forward(p.layer, p.x, m(p.state))[:2]),
    "state of bptt": ("state", lambda p, m: _bptt(p, state=m(p.state))),
    "state of reach": ("state", lambda p, m: _reach(p, state=m(p.state)).norms),
    "a pair's second": ("state[1]", lambda p, m: fb.run(p.lstm, p.x, (p.state, m(p.state)))),
    "lengths": ("lengths", lambda p, m: fb.run(p.layer, p.x, lengths=m(p.lengths))),
    "lengths of bptt": ("lengths", lambda p, m: _bptt(p, lengths=m(p.lengths))),
    "weights": ("weights", lambda p, m: _bptt(p, weights=m(p.weights))),
    "weights of evaluate": (
        "weights",
        lambda p, m: fb.evaluate(p.network, p.x, p.y, weights=m(p.weights)),
    ),
    "weights of reach": ("weights", lambda p, m: _reach(p, weights=m(p.weights)).norms),
    "dh": ("dh", lambda p, m: _back(p, m, dh=p.dh)),
    "dstate": ("dstate", lambda p, m: _back(p, m, dstate=p.state)),
    "dh of a loss": ("dh", lambda p, m: _bptt(p, y=None, loss=_loss(m))),
    "a weight": ("RNN.W", lambda p, m: fb.RNN(p.layer.U, m(p.layer.W), p.layer.b)),
    "a readout's weight": ("Readout.V", lambda p, m: fb.Readout(m(p.readout.V), p.readout.c)),
    "arrays": ("arrays", lambda p, m: p.layer.replace_arrays([m(a) for a in p.layer.arrays()])),
}
