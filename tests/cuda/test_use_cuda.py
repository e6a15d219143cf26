"""Devices, memory, plans and messages on the GPU, as far as the simulator can show them."""

import re
import threading

import numpy as np
import pytest
from helpers import assert_close, make_problem

import fastbptt as fb
from fastbptt import arrays
from fastbptt.backends import cuda, device_memory, devices
from fastbptt.calls import crossover, device_choice


def test_numpy_goes_where_the_argument_says_then_where_the_variable_says(monkeypatch):
    layer = fb.RNN.init(2, 3, rng=0)
    assert device_choice.of_numpy(None, layer, 5, 1).name == "cuda:0"
    assert device_choice.of_numpy("cpu", layer, 5, 1).name == "cpu"
    monkeypatch.setenv("FASTBPTT_DEVICE", "cpu")
    assert device_choice.of_numpy(None, layer, 5, 1).name == "cpu"
    assert device_choice.of_numpy("cuda", layer, 5, 1).name == "cuda:0"


def test_a_gpu_that_is_not_there_is_named():
    p = make_problem()
    with pytest.raises(devices.DeviceError, match=r"'cuda:99'.*cuda:0"):
        fb.run(p.layer, p.x, device="cuda:99")


def test_the_faster_device_by_what_was_measured(monkeypatch):
    layer = fb.LSTM.init(64, 64, rng=0)
    quick_start = crossover.Rates(call=1e-4, step=1e-6, add=1e-10)
    quick_work = crossover.Rates(call=1e-3, step=2e-6, add=1e-13)
    measured = {"cpu": quick_start, "cuda:0": quick_work}
    monkeypatch.setattr(crossover, "_why_not_gpu", lambda: None)
    monkeypatch.setattr(crossover, "rates", measured.get)
    monkeypatch.delenv("FASTBPTT_DEVICE")
    assert device_choice.of_numpy(None, layer, 10, 1).name == "cpu"
    assert device_choice.of_numpy(None, layer, 1000, 32).name == "cuda:0"
    text = fb.explain(layer, 1000, 32)
    assert "measured here" in text and "s on cpu" in text and "s on cuda:0" in text


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_measured_of_a_device_is_kept(device, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(crossover, "_STEPS", (12, 6))
    monkeypatch.setattr(crossover, "_NARROW", (2, 1))
    monkeypatch.setattr(crossover, "_WIDE", (6, 2))
    crossover.rates.cache_clear()
    try:
        found = crossover.rates(device if device == "cpu" else "cuda:0")
        assert found.call > 0 and found.step >= 0 and found.add >= 0
        assert found.seconds(100, 1000) >= found.call
        crossover.rates.cache_clear()
        monkeypatch.setattr(crossover, "measure", None)  # it is on the disk
        assert crossover.rates(device if device == "cpu" else "cuda:0") == found
    finally:
        crossover.rates.cache_clear()


def test_a_call_that_does_not_fit_says_what_would(monkeypatch):
    p = make_problem("lstm", (4000, 2, 3, 5, 2))
    full, least = fb.plan(p.network, p.T, p.B), None
    try:
        fb.plan(p.network, p.T, p.B, memory=1)
    except fb.MemoryLimitError as error:
        least = error.least_bytes
    free = full.peak_bytes - 1
    monkeypatch.setattr(cuda.CUDA, "free_bytes", lambda self: free)
    with pytest.raises(device_memory.DeviceMemoryError) as caught:
        fb.bptt(p.network, p.x, p.y)
    error = caught.value
    assert isinstance(error, MemoryError) and error.needed == full.peak_bytes
    assert least <= error.budget <= free
    assert str(error.budget) in str(error) and str(full.peak_bytes) in str(error)
    assert fb.plan(p.network, p.T, p.B, memory=error.budget).peak_bytes <= free
    free = fb.plan(p.layer, p.T, p.B).peak_bytes - 1
    with pytest.raises(device_memory.DeviceMemoryError, match="it would fit with") as caught:
        fb.forward(p.layer, p.x)
    assert fb.plan(p.layer, p.T, p.B, memory=caught.value.budget).peak_bytes <= free
    free = least - 1
    with pytest.raises(
        device_memory.DeviceMemoryError, match=f"least budget that works is {least}"
    ):
        fb.bptt(p.network, p.x, p.y)


def test_a_failed_allocation_within_a_call_says_so_and_leaves_the_package_usable(monkeypatch):
    p = make_problem("lstm", (6, 2, 3, 5, 2))
    expected = fb.run(p.layer, p.x)[0]
    with monkeypatch.context() as patch:

        def fail(*args, **kwargs):
            raise MemoryError("of the driver")

        patch.setattr(cuda.CUDA, "recurrence", fail)
        with pytest.raises(device_memory.DeviceMemoryError, match="cuda:0"):
            fb.run(p.layer, p.x)
    assert np.array_equal(fb.run(p.layer, p.x)[0], expected)


def test_explain_names_kernel_and_reason():
    text = fb.explain(fb.LSTM.init(3, 5, rng=0), 1000, 2)
    assert re.search(r"device +cuda:0: asked for by FASTBPTT_DEVICE", text)
    for word in ("forward", "reverse", "block sweep", "registers", "shared memory", "us a step"):
        assert word in text
    wide = fb.explain(fb.RNN.init(3, 3000, rng=0), 1000, 2)
    assert "grid sweep" in wide and "L2, read each step" in wide


def test_a_model_moves_there_and_back():
    p = make_problem("lstm/gru")
    there = p.network.to("cuda")
    back = there.to("cpu")
    for a, b in zip(back.arrays(), p.network.arrays(), strict=True):
        assert isinstance(a, np.ndarray) and np.array_equal(a, b)
    with pytest.raises(ValueError, match="device"):
        p.network.to("tpu")


def test_progress_tells_all_steps_on_the_way():
    p = make_problem("rnn-tanh", (60, 1, 2, 3, 2))
    told = []
    r = fb.bptt(p.network, p.x, p.y, progress=lambda *pair: told.append(pair))
    total = r.plan.forward_steps + r.plan.backward_steps
    assert told[-1] == (total, total) and told == sorted(told)


def test_calls_from_many_threads_are_right():
    p = make_problem("gru", (6, 2, 3, 5, 2))
    expected = fb.run(p.layer, p.x)[0]
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(fb.run(p.layer, p.x)[0])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(np.array_equal(one, expected) for one in found)


def test_gradient_reach_runs_there_too():
    p = make_problem("rnn-tanh", (40, 1, 2, 4, 2), "float64")
    given = {"samples": 4, "max_lag": 10}
    one = fb.gradient_reach(p.network, p.x, p.y, **given)
    other = fb.gradient_reach(p.network, p.x, p.y, device="cpu", **given)
    assert_close(one.norms, other.norms, 1e-9)


class OnOtherGpu:
    """An array on another GPU: only its interface."""

    @property
    def __cuda_array_interface__(self):
        return {"shape": (3,), "typestr": "<f4", "data": (0, False), "version": 3, "stream": 7}


def test_the_stream_of_an_array_is_the_one_that_its_interface_names():
    assert arrays.stream_of(OnOtherGpu()) == 7
    assert arrays.stream_of(np.zeros(3)) is None
    assert arrays.on_gpu(OnOtherGpu()) and not arrays.on_gpu(np.zeros(3))
