"""Data sets that are not in memory are read a stretch at a time, with the bits of NumPy arrays."""

import tracemalloc

import numpy as np
import pytest
from arrays_brought import Slices, module
from checks import OBJECTS, bptt, check_peak, policy, rejected
from helpers import assert_same_bits, make_problem, spoil_beyond
from test_walk import numbers

import fastbptt as fb
from fastbptt.lazy import HELD, PIECE, Lazy, Source

T, B, I, O = 8000, 4, 64, 16


class Chunked(Slices):
    """Slices with chunks of so many steps along time."""

    def __init__(self, array, steps):
        super().__init__(array)
        self.chunks = (steps, *array.shape[1:])


def of_h5py(folder, name, array, **how):
    return module("h5py").File(folder / f"{name}.h5", "w").create_dataset(name, data=array, **how)


def of_zarr(folder, name, array):
    chunks = (500, *array.shape[1:])
    return module("zarr").create_array(folder / f"{name}.zarr", data=array, chunks=chunks)


FILES = {
    "h5py": of_h5py,
    "h5py in chunks": lambda *given: of_h5py(*given, chunks=True, compression="gzip"),
    "zarr": of_zarr,
}


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("kind", FILES)
def test_files_larger_than_the_budget(kind, tokens, tmp_path):
    """Beyond the plan there is a stretch of each file, and what the library reads for it."""
    beyond = 3 * 2 * (PIECE if kind == "h5py" else HELD)
    p = make_problem("rnn-tanh", (1, B, I, 16, O), "float32")
    x = p.rng.integers(0, I, (T, B)) if tokens else np.zeros((T, B, I), np.float32)
    if not tokens:
        x[:, :, 0] = np.sin(np.arange(T))[:, None]
    y = p.rng.standard_normal((T, B, O)).astype(np.float32)
    weights = p.rng.integers(0, 3, (T, B))
    on_disk = [FILES[kind](tmp_path, *own) for own in (("x", x), ("y", y), ("w", weights))]
    budget = policy(0.02, p.network, T, B)
    due = fb.bptt(p.network, x, y, memory=budget, weights=weights)
    del x, y, weights

    def check(call, *given, allowed, **options):
        tracemalloc.start()
        try:
            found = call(*given, **options)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak <= allowed + OBJECTS + beyond, f"{peak} bytes, {allowed} are allowed"
        return found

    if not tokens:  # what is allowed in all is less than what is in the files
        assert due.plan.peak_bytes + beyond < on_disk[0].nbytes
    x, y, w = on_disk
    for name in ("plain", "measured"):  # the libraries' own beginnings are not measured
        own = {"allowed": 10**9 if name == "plain" else due.plan.peak_bytes}
        r = check(fb.bptt, p.network, x, y, memory=budget, weights=w, **own)
        assert_same_bits(r, due)
        own["allowed"] = 10**9 if name == "plain" else 2_000_000
        assert check(fb.evaluate, p.network, x, y, weights=w, **own) == due.loss
        last, _ = check(fb.run, p.layer, x, keep="last", **own)
        assert np.array_equal(last, due.state)


LAYERS = ["lstm", "gru|lstm", "rnn-tanh/gru"]


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("cell", LAYERS)
def test_bits_in_every_direction_and_order(cell, tokens, ragged):
    steps, batch, outputs = 300, 3, 4
    loss, readout = ("cross_entropy", "softmax") if tokens else ("squared_error", "identity")
    p = make_problem(cell, (steps, batch, 5, 6, outputs), "float32", loss, readout, tokens)
    given = {"lengths": np.array([steps, 40, 0])} if ragged else {}
    if ragged:
        p.x, p.y = (spoil_beyond(a, given["lengths"]) for a in (p.x, p.y))
        p.dh[40:, 1], p.dh[:, 2] = np.nan, np.nan
    weights = p.rng.integers(0, 2, (steps, batch)).astype(np.float32)

    def results(wrap):
        x, y, dh, w = (wrap(a) for a in (p.x, p.y, p.dh, weights))
        h, state, cache = fb.forward(p.layer, x, **given)
        g = fb.backward(cache, dh, deltas=True)
        found = [h, state, g.layer, g.x, g.state, g.deltas]
        for memory in ("full", fb.Checkpointed(segment=70)):
            r = fb.bptt(p.network, x, y, loss, memory=memory, weights=w, reduction="mean", **given)
            found += [r.loss, r.grad, r.state]
        found += fb.predict(p.network, x, **given)
        return numbers([*found, fb.evaluate(p.network, x, y, loss, weights=w, **given)])

    due = results(np.array)
    for wrap in (Slices, lambda a: Chunked(a, 64)):
        for a, b in zip(results(wrap), due, strict=True):
            assert a.dtype == b.dtype and np.array_equal(a, b)


def test_reach_reads_its_stretches_alone():
    p = make_problem("gru", (5000, 4, 64, 6, 2), "float32")
    own = {"max_lag": 20, "samples": 8}
    due = fb.gradient_reach(p.network, p.x, p.y, **own)
    x, y = Slices(p.x), Slices(p.y)
    assert np.array_equal(fb.gradient_reach(p.network, x, y, **own).norms, due.norms)
    assert 0 < x.most <= HELD < p.x.nbytes and 0 < y.most <= HELD


@pytest.mark.parametrize("chunk", [None, 1, 100, 10**6])
@pytest.mark.parametrize("step", [8, 40_000, 2 * HELD])
def test_stretches_are_whole_chunks_if_these_are_small(chunk, step):
    steps = 300 if step < HELD else 6
    array = np.arange(steps * (step // 8), dtype=float).reshape(steps, -1)
    given = Slices(array) if chunk is None else Chunked(array, chunk)
    source = Source("x", given)
    held = source.steps * step
    assert source.steps == 1 or held <= HELD
    assert source.piece == 1 or source.piece * step <= PIECE
    if chunk == 100 and step < HELD // 100:
        assert source.steps % chunk == 0
    whole = Lazy(source, 0, steps)
    for start, stop in ((0, steps), (4, 4), (steps // 3 - 1, steps // 3 + 1), (steps - 3, steps)):
        assert np.array_equal(whole[start:stop].read(), array[start:stop])
    assert given.most <= max(step, HELD)
    assert [*whole[3:].pieces(0, 3)][-1][1] == 3


def test_a_chunk_is_read_once_on_a_way():
    reads = []

    class Counting(Chunked):
        def __getitem__(self, key):
            reads.append(key)
            return super().__getitem__(key)

    p = make_problem("rnn-tanh", (4000, 2, 3, 32, 2), "float32")
    fb.run(p.layer, Counting(p.x, 1000), keep="last")
    assert [key for key in reads if key.stop] == [slice(a, a + 1000) for a in range(0, 4000, 1000)]


def test_a_bad_id_on_disk_is_named():
    p = make_problem("rnn-tanh", (900, 2, 5, 6, 2), "float32", tokens=True)
    p.x[700, 1] = 77
    both = fb.Bidirectional(p.layer, p.layer)
    for layer in (p.layer, both):
        for lengths in (None, [800, 750]):
            call = lambda own, n=lengths: fb.run(own, Slices(p.x), lengths=n)  # noqa: E731
            rejected(lambda own=layer, call=call: call(own), "x", "77", "t=700", "b=1")


def test_errors_of_a_file_end_the_call_and_leave_the_package_usable():
    class Failing(Slices):
        def __getitem__(self, key):
            if key.stop > 500:
                raise OSError("the disk is gone")
            return super().__getitem__(key)

    p = make_problem("rnn-tanh", (9000, 2, 3, 32, 2), "float32")
    due = bptt(p)
    with pytest.raises(OSError, match="the disk is gone"):
        bptt(p, x=Failing(p.x))
    assert_same_bits(bptt(p), due)
    check_peak(p.network, p.x, p.y)
