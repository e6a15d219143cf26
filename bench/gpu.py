"""The CUDA kernels, checked and timed on this machine's GPU: python -m bench.gpu.

First the checks, for half of the minutes at most: the tests that only a GPU can show, the others
of `tests/cuda`, and those of the whole package that run on any device, with NumPy arrays sent to
the GPU. If one fails, nothing is timed and the exit status is 1.

Then the times: forward, and forward and backward, on arrays in GPU memory, beside PyTorch's cuDNN
(with TF32 off and on) and FlashRNN where these are installed. Figures are medians of runs that take
turns, in microseconds a time step. The most valuable points come first, the result is written after
each, and what did not fit in the minutes or in memory is listed in it.
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from importlib import util
from pathlib import Path

import numpy as np
from fastbptt.kernels.cells import registry
from fastbptt.kernels.cuda import gpus, layout, machine_code, runtime, sweeps

import fastbptt as fb
from bench import ptxas, stored
from bench.gpu_points import CELLS, Budget, points
from fastbptt.backends import devices
from fastbptt.commands import info
from fastbptt.commands.bench import peers

_ANY_DEVICE = ("forward", "gradients", "losses", "stack", "dropout", "own", "truncated", "errors")
ON_A_GPU = ("tests/cuda/test_on_a_gpu.py",)
SUITE = ("tests/cuda", *(f"tests/test_{name}.py" for name in _ANY_DEVICE))
CUDNN = 65_535  # the most steps that it takes
SHARE = 0.7  # of the free memory that a run may use


def check(processes, seconds):
    """Run the tests on the GPU; returns "passed", "failed" or "no time left"."""
    environment = {**os.environ, "FASTBPTT_DEVICE": "cuda"}
    end = time.monotonic() + seconds
    for tests in (ON_A_GPU, SUITE):
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", str(processes), *tests]
        try:
            left = max(1.0, end - time.monotonic())
            done = subprocess.run(command, cwd=stored.ROOT, env=environment, timeout=left)
        except subprocess.TimeoutExpired:
            return "no time left"
        if done.returncode:
            return "failed"
    return "passed"


def _compile(cell, dtype, H, B, gpu, words):
    """Compile both sweeps of a point, in a process of their own."""
    layout.WORDS = words
    kind = getattr(np, dtype)
    for reverse in (False, True):
        shape, _ = layout.choose(gpu, cell, H, B, np.dtype(kind).itemsize, reverse)
        make = sweeps.reverse_kernel if reverse else sweeps.forward_kernel
        kernel = make(cell, kind, shape)
        kinds = ptxas.kinds(kernel, kind)
        machine_code.compiled(kernel, kinds, shape.threads, gpu.capability)


def compiling(pool, chosen):
    """Begin to compile the sweeps of all points in their order; gives what waits for a point's."""
    gpu, begun = gpus.card(gpus.current()), {}
    for name, _, B, H, dtype in chosen:
        job = CELLS[name], dtype, H, B, gpu, layout.WORDS
        if job not in begun:
            begun[job] = pool.apply_async(_compile, job)
    return lambda point: begun[CELLS[point[0]], point[4], point[3], point[2], gpu, layout.WORDS]


def ours(name, T, B, H, dtype):
    """Return our runs: `forward`, and `both` forward and backward."""
    layer, x, dh = peers.problem(name, 1, B, H, H, dtype)
    xp = runtime.arrays()
    layer = layer.to("cuda")
    x, dh = (xp.random.standard_normal((T, B, H), dtype=dtype) for _ in (x, dh))

    def both():
        fb.backward(fb.forward(layer, x)[2], dh)

    return {"forward": lambda: fb.run(layer, x), "both": both}


def cudnn(name, T, B, H, dtype, tf32):
    """Return the runs of PyTorch's cuDNN, with other weights of the same sizes."""
    import torch

    if T > CUDNN:
        raise ValueError(f"cuDNN takes at most {CUDNN} steps")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    kind = getattr(torch, dtype)
    module = getattr(torch.nn, name)(H, H, dtype=kind, device="cuda")
    x = torch.randn(T, B, H, dtype=kind, device="cuda", requires_grad=True)
    dh = torch.randn(T, B, H, dtype=kind, device="cuda")

    def forward():
        torch.backends.cudnn.allow_tf32 = tf32
        with torch.no_grad():
            module(x)

    def both():
        torch.backends.cudnn.allow_tf32 = tf32
        module(x)[0].backward(dh)
        module.zero_grad(set_to_none=True)
        x.grad = None

    return {"forward": forward, "both": both}


def flashrnn(name, T, B, H, dtype):
    """Return the runs of FlashRNN in bfloat16, as it is meant to be used: one head of H units."""
    import torch
    from flashrnn import flashrnn

    if name != "LSTM" or dtype != "float32":
        raise ValueError("is timed for the LSTM alone, beside float32")
    kind = {"dtype": torch.bfloat16, "device": "cuda"}
    x = torch.randn(B, T, H, requires_grad=True, **kind)
    U = torch.randn(4 * H, H, requires_grad=True, **kind)
    R = torch.randn(4, 1, H, H, requires_grad=True, **kind)
    b = torch.zeros(4, 1, H, requires_grad=True, **kind)
    states = torch.zeros(2, B, 1, 1, H, **kind)

    def forward():
        Wx = (x @ U.T).reshape(B, T, 4, 1, H)
        return flashrnn(Wx, R, b, states=states, function="lstm", backend="cuda_fused")[0]

    def both():
        h = forward()
        h.backward(torch.ones_like(h))

    def forward_alone():
        with torch.no_grad():
            forward()

    return {"forward": forward_alone, "both": both}


def _peers():
    found = {"fastbptt": ours}
    if util.find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            found["cuDNN"] = lambda *sizes: cudnn(*sizes, tf32=False)
            found["cuDNN TF32"] = lambda *sizes: cudnn(*sizes, tf32=True)
            if util.find_spec("flashrnn"):
                found["FlashRNN bf16"] = flashrnn
    return found


def _seconds(run):
    """Return the seconds of a run, measured by events on the GPU."""
    cuda = runtime.arrays().cuda
    start, stop = cuda.Event(), cuda.Event()
    start.record()
    run()
    stop.record()
    stop.synchronize()
    return cuda.get_elapsed_time(start, stop) / 1e3


def _fits(name, T, B, H, dtype):
    """Whether the cached steps of forward and backward fit into GPU memory."""
    item = np.dtype(dtype).itemsize
    cell = registry.CELLS[CELLS[name]]
    needed = T * B * H * item * (cell.states + cell.residuals + 6)
    return needed < SHARE * gpus.free_bytes(gpus.current())


def time_point(name, T, B, H, dtype, makers, rounds):
    """Return the median microseconds a step of each peer, and why a peer is missing."""
    micros, missing = {}, {}
    runs = {}
    if not _fits(name, T, B, H, dtype):
        makers, missing = {}, dict.fromkeys(makers, "the cached steps do not fit on the GPU")
    for peer, make in makers.items():
        try:
            runs[peer] = make(name, T, B, H, dtype)
            for run in runs[peer].values():
                run()  # compiles, loads, allocates
        except Exception as error:  # that a peer cannot do it is part of the result
            if peer == "fastbptt":
                raise
            missing[peer] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            runs.pop(peer, None)
    for what in ("forward", "both"):
        taken = {peer: [] for peer in runs}
        for _ in range(1 if T > CUDNN else rounds):
            for peer, both in runs.items():
                taken[peer].append(_seconds(both[what]))
        micros[what] = {peer: 1e6 * statistics.median(s) / T for peer, s in taken.items()}
    runs.clear()
    _free()
    point = {"cell": name, "dtype": dtype, "T": T, "B": B, "H": H, "us_per_step": micros}
    return {**point, "missing": missing} if missing else point


def _free():
    runtime.arrays().get_default_memory_pool().free_all_blocks()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()


def line(point):
    """Return a point of the result as a line of text."""
    micros = point["us_per_step"]
    sizes = f"T{point['T']:<6} B{point['B']:<2} H{point['H']:<4}"
    cells = [f"{point['cell']:4} {point['dtype']} {sizes}"]
    for what in ("forward", "both"):
        found = micros[what]
        ours = found.get("fastbptt")
        text = "  ".join(f"{peer} {value:.2f}" for peer, value in found.items())
        if ours and "cuDNN" in found:
            text += f"  ({found['cuDNN'] / ours:.2f}x)"
        cells.append(f"{what}: {text or '-'}")
    return "  |  ".join(cells)


def machine():
    """Return the machine and the versions, for the result."""
    cuda = runtime.arrays().cuda
    packages = ("numpy", "numba", "numba-cuda", "cupy-cuda13x", "cupy-cuda12x", "torch", "flashrnn")
    versions = {name: info.version(name) for name in packages}
    return {
        **info.describe(1), "GPU": gpus.name(gpus.current()),
        "driver": cuda.runtime.driverGetVersion(), "runtime": cuda.runtime.runtimeGetVersion(),
        "cuDNN": _cudnn_version(), "TF32": "off for ours",
        **{name: version for name, version in versions.items() if version},
    }  # fmt: skip


def _cudnn_version():
    return sys.modules["torch"].backends.cudnn.version() if "torch" in sys.modules else None


def time_all(chosen, budget, ready, makers, rounds, save):
    """Time points while there is time, and save after each; returns those that were left out.

    ready : of a point, what has `get(seconds)` that waits until its sweeps are compiled
    """
    done, late = [], []
    for point in chosen:
        if not budget.allows(point):
            late.append(point)
            continue
        try:
            ready(point).get(max(0.0, budget.left()))
        except multiprocessing.TimeoutError:
            late.append(point)
            continue
        begun = time.monotonic()
        done.append(time_point(*point, makers, rounds))
        if done[-1]["us_per_step"]["forward"]:
            budget.took(point, time.monotonic() - begun)
        print(line(done[-1]), flush=True)
        save(done, late + chosen[len(done) + len(late) :])
    save(done, late)
    return late


def main():
    """Check, compile, time, and store the result; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--only-time", action="store_true", help="skip the checks: for tuning")
    what.add_argument("--check-only", action="store_true", help="time nothing")
    parser.add_argument(
        "--words", action="store_true", help="grid sweeps exchange words and have no barrier"
    )
    parser.add_argument("--out", type=Path, default=stored.RESULTS / "gpu.json")
    args = parser.parse_args()
    budget = Budget(args.minutes)
    layout.WORDS = args.words
    missing = devices.missing_gpu()
    if missing is not None or runtime.SIMULATED:
        parser.exit(2, f"bench.gpu needs a GPU: {missing or 'this is the simulator'}\n")
    share = 1.0 if args.check_only else 0.5
    checked = "no" if args.only_time else check(args.processes, share * budget.left())
    if args.check_only or checked == "failed":
        print(f"checks: {checked}")
        return 0 if checked == "passed" else 1
    chosen = points(args.dtypes)

    def save(done, late):
        result = {
            "machine": machine(), "rounds": args.rounds, "checked": checked, "words": args.words,
            "points": done, "no time left for": late,
        }  # fmt: skip
        stored.save(args.out, result)

    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        ready = compiling(pool, chosen)
        late = time_all(chosen, budget, ready, _peers(), args.rounds, save)
    print(f"{len(chosen) - len(late)} points; no time was left for {len(late)}; {args.out}")
    for point in late:
        print("left out:", *point)
    return 0


if __name__ == "__main__":
    sys.exit(main())
