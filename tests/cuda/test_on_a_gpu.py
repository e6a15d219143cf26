"""What only a real GPU can show: arrays that stay there, streams, the barrier, sizes, bits."""

import numpy as np
import pytest
from helpers import all_results, assert_close, make_problem

import fastbptt as fb

pytestmark = pytest.mark.usefixtures("gpu")


@pytest.fixture
def cupy(gpu):
    return pytest.importorskip("cupy", reason="arrays on a GPU are CuPy's")


def test_arrays_on_the_gpu_stay_there(cupy):
    p = make_problem("lstm", (50, 3, 4, 16, 2))
    there = p.network.to("cuda")
    x, y, lengths = (cupy.asarray(a) for a in (p.x, p.y, p.lengths))
    state = tuple(cupy.asarray(s) for s in p.state)
    r = fb.bptt(there, x, y, lengths=lengths, state=state, input_grad=True)
    assert all(isinstance(a, cupy.ndarray) for a in (r.grad_x, *r.state, *r.grad.arrays()))
    expected = fb.bptt(p.network, p.x, p.y, lengths=p.lengths, state=p.state, input_grad=True)
    for one, other in zip(all_results_home(r), all_results(expected), strict=True):
        assert np.array_equal(one, other)
    h, _, cache = fb.forward(there.layer, x)
    g = fb.backward(cache, cupy.asarray(p.dh), deltas=True)
    assert isinstance(h, cupy.ndarray) and isinstance(g.deltas, cupy.ndarray)


def all_results_home(r):
    from dataclasses import replace

    state = tuple(s.get() for s in r.state), tuple(s.get() for s in r.grad_state)
    home = replace(r, grad=r.grad.to("cpu"), grad_x=r.grad_x.get(), state=state[0],
                   grad_state=state[1])  # fmt: skip
    return all_results(home)


def test_arrays_of_two_devices_are_a_type_error(cupy):
    p = make_problem()
    with pytest.raises(TypeError, match="x"):
        fb.run(p.layer, cupy.asarray(p.x))
    with pytest.raises(TypeError, match="y"):
        fb.bptt(p.network.to("cuda"), cupy.asarray(p.x), p.y)
    with pytest.raises(TypeError, match="device"):
        fb.run(p.layer.to("cuda"), cupy.asarray(p.x), device="cpu")


def test_pytorchs_tensors_come_in_on_their_own_stream(cupy):
    torch = pytest.importorskip("torch", reason="PyTorch's tensors need PyTorch")
    if not torch.cuda.is_available():
        pytest.skip("needs a PyTorch that sees the GPU")
    p = make_problem("gru", (200, 4, 8, 32, 2))
    expected = fb.run(p.layer, p.x)[0]
    layer = fb.GRU(*(torch.from_numpy(a).cuda() for a in p.layer.arrays()))
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(stream):
            x = torch.zeros(p.x.shape, device="cuda")
            torch.cuda._sleep(10**8)  # x is written long after this returns
            x.copy_(torch.from_numpy(p.x).cuda())
            h, _ = fb.run(layer, x)
            assert np.array_equal(cupy.asnumpy(h), expected)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_pytorchs_modules_run_on_their_stream(cupy, name):
    torch = pytest.importorskip("torch", reason="PyTorch's tensors need PyTorch")
    import fastbptt.torch as ours

    if not torch.cuda.is_available():
        pytest.skip("needs a PyTorch that sees the GPU")
    make, results = getattr(ours, name), []
    torch.manual_seed(0)
    model, x = make(8, 16, 2, bidirectional=True), torch.randn(70_000, 2, 8)
    for device in ("cpu", "cuda"):
        own = make(8, 16, 2, bidirectional=True).to(device)
        own.load_state_dict(model.state_dict())
        stream = torch.cuda.Stream() if device == "cuda" else torch.cuda.default_stream()
        with torch.cuda.stream(stream):
            late = torch.zeros(x.shape, device=device)
            torch.cuda._sleep(10**8)  # it is written long after this returns
            late.copy_(x).requires_grad_()
            out, _ = own(late, memory="auto")
            out.square().mean().backward()
            results.append([a.cpu() for a in (out.detach(), late.grad)])
            results[-1] += [p.grad.cpu() for p in own.parameters()]
    for a, b in zip(*results, strict=True):
        assert_close(b.numpy(), a.numpy(), 1e-4)


def test_numbas_arrays_come_in(cupy):
    from numba import cuda

    p = make_problem("rnn-tanh", (20, 2, 3, 5, 2))
    there = fb.RNN(*(cuda.to_device(a) for a in p.layer.arrays()))
    h, _ = fb.run(there, cuda.to_device(p.x))
    assert np.array_equal(cupy.asnumpy(h), fb.run(p.layer, p.x)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru", "gru-before"])
@pytest.mark.parametrize(
    ("T", "B", "H"), [(300, 3, 96), (150, 2, 515), (60, 33, 260), (40, 1, 1500)]
)
def test_block_and_grid_sweeps_agree_with_the_cpu(cell, T, B, H, dtype):
    p = make_problem(cell, (T, B, 5, H, 3), dtype)
    one = fb.bptt(p.network, p.x, p.y, input_grad=True)
    other = fb.bptt(p.network, p.x, p.y, input_grad=True, device="cpu")
    for a, b in zip(all_results(one), all_results(other), strict=True):
        assert_close(a, np.asarray(b), 1e-10 if dtype == "float64" else 5e-5)


@pytest.mark.parametrize(
    ("cell", "H", "B"), [("lstm", 512, 16), ("gru", 1024, 4), ("rnn-tanh", 64, 2)]
)
def test_the_barrier_holds_and_the_same_call_gives_the_same_bits(cell, H, B, cupy):
    p = make_problem(cell, (2000, B, 8, H, 4))
    network, x, y = p.network.to("cuda"), cupy.asarray(p.x), cupy.asarray(p.y)
    first = fb.bptt(network, x, y)
    for _ in range(20):
        again = fb.bptt(network, x, y)
        assert again.loss == first.loss
        for a, b in zip(again.grad.arrays(), first.grad.arrays(), strict=True):
            assert (a == b).all()


def test_a_million_steps(cupy):
    network = fb.Network(fb.LSTM.init(1, 32, rng=0), fb.Readout.init(32, 1, rng=0)).to("cuda")
    x = cupy.random.standard_normal((1_000_000, 1, 1), dtype="float32")
    y = cupy.tanh(x)
    full = fb.bptt(network, x, y, reduction="mean")
    budget = fb.bptt(network, x, y, reduction="mean", memory="64MB")
    assert budget.plan.recomputes and budget.plan.peak_bytes <= 64_000_000
    assert_close(budget.loss, full.loss, 1e-5)
    for a, b in zip(budget.grad.arrays(), full.grad.arrays(), strict=True):
        assert_close(a.get(), b.get(), 1e-3)


def test_more_than_two_thousand_million_numbers(cupy, gpu):
    T, B, H = 70_000, 64, 512  # T * B * H > 2**31
    needed = T * B * H * 4 * 2
    free = cupy.cuda.runtime.memGetInfo()[0]
    if free < 1.5 * needed:
        pytest.skip(f"needs {1.5 * needed / 1e9:.0f} GB of free GPU memory, {free / 1e9:.0f} there")
    layer = fb.RNN.init(1, H, rng=0).to("cuda")
    x = cupy.random.standard_normal((T, B, 1), dtype="float32")
    h, _ = fb.run(layer, x)
    start = T - 50
    state = h[start - 1].copy()
    again, _ = fb.run(layer, x[start:], state)
    assert_close(again.get(), h[start:].get(), 1e-6)


def test_a_call_that_does_not_fit_leaves_nothing_behind(cupy):
    pool = cupy.get_default_memory_pool()
    network = fb.Network(fb.LSTM.init(1, 512, rng=0), fb.Readout.init(512, 1, rng=0)).to("cuda")
    x = cupy.zeros((1_000_000, 8, 1), "float32")
    before = pool.used_bytes()
    with pytest.raises(MemoryError, match="memory="):
        fb.bptt(network, x, x)
    assert pool.used_bytes() == before


@pytest.mark.parametrize("memory", ["full", "30MB", fb.Truncated(100, 300)], ids=str)
def test_a_plan_bounds_what_is_allocated(cupy, memory):
    p = make_problem("lstm", (20_000, 2, 4, 64, 3))
    network, x, y = p.network.to("cuda"), cupy.asarray(p.x), cupy.asarray(p.y)
    fb.bptt(network, x, y, memory=memory)
    seen = []

    class Watch(cupy.cuda.MemoryHook):
        name = "watch"

        def malloc_postprocess(self, **given):
            seen.append(cupy.get_default_memory_pool().used_bytes())

    before = cupy.get_default_memory_pool().used_bytes()
    with Watch():
        r = fb.bptt(network, x, y, memory=memory)
    returned = sum(a.nbytes for a in r.grad.arrays())
    assert max(seen) - before - returned <= r.plan.peak_bytes


def test_launches_are_short_enough_for_ctrl_c(cupy):
    """A launch of the steps that a plan allows takes at most 50 ms."""
    from fastbptt.backends import devices
    from fastbptt.engine.footprint import footprint

    for cell, H, B in (("lstm", 64, 1), ("lstm", 1024, 16), ("rnn-tanh", 2048, 64)):
        p = make_problem(cell, (1, B, 4, H, 1))
        device = devices.gpu("cuda")
        steps = footprint(p.layer, None, 1 << 20, B, device).longest
        x = cupy.zeros((steps, B, 4), "float32")
        layer = p.layer.to("cuda")
        fb.run(layer, x, keep="last")
        start, stop = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        fb.run(layer, x, keep="last")
        stop.record()
        stop.synchronize()
        assert cupy.cuda.get_elapsed_time(start, stop) < 50
