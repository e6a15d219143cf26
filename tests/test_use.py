"""In one process: threads, callbacks, errors thrown inside, saving, updating, never aliasing."""

import dataclasses
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from checks import policy, rejected
from helpers import CELLS, DTYPES, all_results, assert_same_bits, flatten, make_problem

import fastbptt as fb

POLICIES = ["full", 0.1, fb.Checkpointed(segment=100), fb.Truncated(30, 70)]


class Stop(Exception):
    pass


def test_eight_threads_at_once_get_the_bits_they_get_alone():
    def problem(n):
        cell = CELLS[n % len(CELLS)]
        return make_problem(cell, (300 + 7 * n, 1 + 5 * n, 4, 16 + 9 * n, 3), DTYPES[n % 2], seed=n)

    def work(p, n):
        h, state, cache = fb.forward(p.layer, p.x)
        g = fb.backward(cache, p.dh)
        memory = policy(POLICIES[n % 4], p.network, p.T, p.B)
        r = fb.bptt(p.network, p.x, p.y, memory=memory, input_grad=True)
        return [h, *flatten((state, g.layer, g.x)), *all_results(r)]

    def together(p, n):
        barrier.wait()
        return [work(p, n) for _ in range(4)]

    problems, barrier = [problem(n) for n in range(8)], Barrier(8)
    alone = [work(p, n) for n, p in enumerate(problems)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(together, problems, range(8)))
    for due, answers in zip(alone, found, strict=True):
        for answer in answers:
            assert all(np.array_equal(a, b) for a, b in zip(answer, due, strict=True))


@pytest.mark.parametrize("memory", POLICIES, ids=str)
@pytest.mark.parametrize("T", [0, 1, 2500])
def test_progress_grows_to_the_steps_of_the_plan(memory, T):
    p, seen = make_problem("lstm", (T, 3, 4, 16, 2), "float32"), []
    memory = policy(memory, p.network, T, 3)
    r = fb.bptt(p.network, p.x, p.y, memory=memory, progress=lambda *news: seen.append(news))
    total = r.plan.forward_steps + r.plan.backward_steps
    done = [d for d, _ in seen]
    assert done == sorted(done) and all(t == total for _, t in seen)
    assert all(isinstance(n, int) for news in seen for n in news)
    if T:
        assert done[0] >= 0 and done[-1] == total and len(set(done)) == len(done)
    assert_same_bits(r, fb.bptt(p.network, p.x, p.y, memory=memory))


def test_progress_true_shows_a_bar_and_changes_nothing(capfd):
    pytest.importorskip("tqdm", reason="tqdm draws the bar")
    p = make_problem("lstm", (2500, 3, 4, 16, 2), "float32")
    r = fb.bptt(p.network, p.x, p.y, progress=True)
    shown = capfd.readouterr()
    assert "100" in shown.err and not shown.out
    assert_same_bits(r, fb.bptt(p.network, p.x, p.y, progress=None))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("memory", POLICIES, ids=str)
@pytest.mark.parametrize("inside", ["loss", "progress"])
def test_what_a_callback_raises_comes_out_and_leaves_the_package_usable(inside, memory, error):
    p = make_problem("lstm", (2500, 3, 4, 16, 2), "float32")
    memory = policy(memory, p.network, p.T, p.B)
    before = fb.bptt(p.network, p.x, p.y, memory=memory)

    def fail():
        raise error("from inside")

    def loss(h, y, start):
        return 0.0, fail()

    given = {"progress": lambda done, total: fail()} if inside == "progress" else {"loss": loss}
    with pytest.raises(error, match="from inside"):
        fb.bptt(p.network, p.x, p.y, memory=memory, **given)
    assert_same_bits(fb.bptt(p.network, p.x, p.y, memory=memory), before)


def test_a_callback_may_call_the_package(set_threads):
    set_threads(2)
    p, q = (
        make_problem("lstm", (900, 4, 4, 32, 2), "float32"),
        make_problem("rnn-relu", (90, 9, 4, 40, 2)),
    )
    due, inner = fb.bptt(q.network, q.x, q.y), []

    def loss(h, y, start):
        inner.append(fb.bptt(q.network, q.x, q.y))
        return float(h.sum(dtype=float)), np.ones_like(h)

    r = fb.bptt(
        p.network, p.x, None, loss, progress=lambda *_: inner.append(fb.bptt(q.network, q.x, q.y))
    )
    assert len(inner) >= 2
    for one in inner:
        assert_same_bits(one, due)
    plain = fb.bptt(
        p.network, p.x, None, lambda h, y, start: (float(h.sum(dtype=float)), np.ones_like(h))
    )
    assert_same_bits(r, plain)


@pytest.mark.parametrize(
    "n, error",
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("two", TypeError), (None, TypeError),
     (True, TypeError), (np.float64(2), TypeError)],
)  # fmt: skip
def test_the_number_of_threads_is_a_positive_integer(n, error):
    shown = [re.sub("'", "", str(n))] if not isinstance(n, np.floating) else []
    with pytest.raises(error, match=r"\bn\b") as caught:
        fb.set_num_threads(n)
    assert all(word in str(caught.value) for word in shown)


@pytest.mark.parametrize("n", [1, 2, 8, np.int64(3)])
def test_any_number_of_threads_works(n, set_threads):
    p = make_problem("lstm", (400, 20, 4, 40, 2), "float32")
    due = fb.bptt(p.network, p.x, p.y)
    set_threads(n)
    assert_same_bits(fb.bptt(p.network, p.x, p.y), due)


@pytest.mark.parametrize(
    "loss, readout",
    [("squared_error", "tanh"), ("cross_entropy", "softmax"), ("binary_cross_entropy", "sigmoid")],
)
@pytest.mark.parametrize("scale", [1, 1e4])
def test_results_do_not_depend_on_the_callers_errstate(loss, readout, scale):
    p = make_problem("lstm", (200, 5, 4, 16, 3), "float32", loss, readout)
    x, head = p.x * np.float32(scale), p.readout
    head = dataclasses.replace(head, V=head.V * np.float32(scale))
    network = fb.Network(p.layer, head)
    results = []
    for how in ("raise", "ignore"):
        with np.errstate(all=how):
            results.append(
                fb.bptt(network, x, p.y, loss, memory=fb.Checkpointed(segment=40), input_grad=True)
            )
    assert np.isfinite(results[0].loss)
    assert_same_bits(*results)


def models():
    for dtype in DTYPES:
        for cell in CELLS:
            p = make_problem(cell, dtype=dtype, readout="softmax")
            yield f"{cell}-{dtype}", p.layer
        yield f"readout-{dtype}", p.readout
        yield f"network-{dtype}", p.network
        yield f"bare-{dtype}", fb.Network(p.layer, None)


MODELS = dict(models())


@pytest.mark.parametrize("name", ["model.npz", "model", "a.b"])
@pytest.mark.parametrize("model", MODELS)
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path, model, name):
    model = MODELS[model]
    for path in (tmp_path / name, os.fspath(tmp_path / f"text_{name}")):
        model.save(path)
        check_equal(fb.load(path), model)
    for path in Path(tmp_path).iterdir():
        with np.load(path, allow_pickle=False) as entries:
            assert all(entries[entry].dtype != object for entry in entries)


def check_equal(one, other):
    assert type(one) is type(other)
    if not dataclasses.is_dataclass(other):
        assert type(one) is type(other) and np.array_equal(one, other)
        assert not isinstance(other, np.ndarray) or one.dtype == other.dtype
        return
    for field in dataclasses.fields(other):
        check_equal(getattr(one, field.name), getattr(other, field.name))


@pytest.mark.parametrize("model", MODELS)
def test_arrays_come_in_field_order_and_are_the_models_own(model):
    model = MODELS[model]
    parts = [model.layer, model.readout] if isinstance(model, fb.Network) else [model]
    fields = [getattr(part, f.name) for part in parts if part for f in dataclasses.fields(part)]
    arrays = model.arrays()
    assert isinstance(arrays, list)
    due = [value for value in fields if isinstance(value, np.ndarray)]
    assert len(arrays) == len(due) and all(a is b for a, b in zip(arrays, due, strict=True))
    check_equal(model.to("cpu"), model)

    new = [a + 1 for a in arrays]
    other = model.replace_arrays(new)
    assert type(other) is type(model) and all(
        a is b for a, b in zip(other.arrays(), new, strict=True)
    )
    assert all(a is b for a, b in zip(model.arrays(), due, strict=True))
    check_equal(other.replace_arrays(due), model)


def test_models_are_frozen_and_compare_by_identity():
    p = make_problem()
    for part, name in ((p.layer, "W"), (p.readout, "V"), (p.network, "layer")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, name, getattr(part, name))
        assert part == part and part != dataclasses.replace(part) and hash(part)


@pytest.mark.parametrize("cell", CELLS)
def test_weights_updated_in_place_are_seen_by_the_next_call(cell):
    p, q = (make_problem(cell, (40, 3, 4, 17, 3), "float32", seed=n) for n in range(2))
    fb.bptt(p.network, p.x, p.y)
    for old, new in zip(p.network.arrays(), q.network.arrays(), strict=True):
        old[...] = new
    for memory in POLICIES:
        memory = policy(memory, p.network, p.T, p.B)
        one, other = (
            fb.bptt(n, p.x, p.y, memory=memory, input_grad=True) for n in (p.network, q.network)
        )
        assert_same_bits(one, other)
    assert np.array_equal(fb.run(p.layer, p.x)[0], fb.run(q.layer, p.x)[0])
    assert np.array_equal(fb.predict(p.network, p.x)[0], fb.predict(q.network, p.x)[0])


@pytest.mark.parametrize("cell", ["rnn-tanh", "rnn-identity", "lstm"])
@pytest.mark.parametrize("T, length", [(0, 0), (1, 1), (50, 50), (50, 0)])
def test_results_alias_neither_inputs_nor_later_results(cell, T, length):
    p = make_problem(cell, (T, 1, 4, 17, 3), "float32")
    lengths = np.array([length])

    def results(x):
        h, state, cache = fb.forward(p.layer, x, p.state, lengths=lengths)
        g = fb.backward(cache, p.dh, p.dstate, deltas=True, keep=True)
        again = fb.backward(cache, p.dh, p.dstate, deltas=True)
        ran = fb.run(p.layer, x, p.state, lengths=lengths)
        last = fb.run(p.layer, x, p.state, keep="last", lengths=lengths)
        o = fb.predict(p.network, x, p.state, lengths=lengths)
        r = fb.bptt(p.network, x, p.y, state=p.state, lengths=lengths, input_grad=True)
        parts = (h, state, *((k.layer, k.x, k.state, k.deltas) for k in (g, again)), ran, last, o)
        return [*flatten(parts), *all_results(r)[1:]]

    first = results(p.x)
    kept = [a.copy() for a in first]
    inputs = [*p.network.arrays(), p.x, p.y, p.dh, lengths, *flatten((p.state, p.dstate))]
    held = [a.copy() for a in inputs]
    second = results(-p.x)
    assert all(np.array_equal(a, b) for a, b in zip(first, kept, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(inputs, held, strict=True))
    everything = [*first, *second, *inputs]
    for i, one in enumerate(everything):
        assert not any(np.shares_memory(one, other) for other in everything[i + 1 :]), i


@pytest.mark.parametrize("dtype", [None, *DTYPES])
def test_explain_names_device_and_kernel(dtype):
    for model in (make_problem("lstm").layer, make_problem("rnn-tanh").layer):
        text = fb.explain(model, 1000, 4, dtype=dtype)
        assert isinstance(text, str) and re.search("cpu", text, re.IGNORECASE)
        assert all(word in text for word in ("kernel", "tile")) and (dtype or "float64") in text
    rejected(lambda: fb.explain(model, 10, device="abacus"), "device", "'abacus'")
