"""The CPU or the GPU for NumPy arrays: whichever this machine was measured to be faster on.

A call of T steps is taken to last `call + T * (step + add * A)` seconds, A being the multiply-adds
of a step of all sequences. The three numbers are measured once for each device, by three calls of
an LSTM, and kept on disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from importlib import util
from time import perf_counter
from typing import NamedTuple

import numpy as np

from ..arrays import Array
from ..backends import devices
from ..backends.base import Backend
from ..engine import programs
from ..engine.footprint import footprint
from ..engine.problem import Arrays, Lengths, problem_of
from ..engine.stages import Stages
from ..kernels import disk
from ..kernels.source import SOURCE_KEY
from ..layers.composite import Layer, recurrent_layers
from ..layers.recurrent import LSTM

_STEPS = 2000, 100  # of the narrow and the wide sequence
_NARROW, _WIDE = (32, 1), (256, 64)  # hidden units, sequences


class Rates(NamedTuple):
    """Seconds of a call, of a step, and of a multiply-add."""

    call: float
    step: float
    add: float

    def seconds(self, T: int, adds: int) -> float:
        """The time that forward and backward over T steps should take."""
        return self.call + T * (self.step + self.add * adds)


def faster(layer: Layer, T: int, B: int) -> str:
    """The name of the device on which a call should take less time."""
    if _why_not_gpu() is not None:
        return "cpu"
    adds = B * step_adds(layer)
    cpu, gpu = rates("cpu"), rates("cuda:0")
    return "cuda" if gpu.seconds(T, adds) < cpu.seconds(T, adds) else "cpu"


def reason(layer: Layer, T: int, B: int) -> str:
    """Why `faster` says what it says."""
    why_not = _why_not_gpu()
    if why_not is not None:
        return why_not
    adds = B * step_adds(layer)
    seconds = (f"{rates(name).seconds(T, adds):.3g} s on {name}" for name in ("cpu", "cuda:0"))
    return f"measured here, forward and back should take {' and '.join(seconds)}"


@lru_cache(maxsize=1)
def _why_not_gpu() -> str | None:
    # Looking for packages is cheap; importing them is not.
    for package in ("cupy", "numba_cuda"):
        if util.find_spec(package) is None:
            return f"a GPU would need the package {package}, which is not installed"
    missing = devices.missing_gpu()
    if missing is not None:
        return missing
    from ..kernels.cuda import runtime

    if runtime.SIMULATED:
        return "the simulator of CUDA serves only if asked for"
    try:
        rates("cuda:0")
    except Exception as error:  # another process may have all of its memory
        return f"the GPU could not be measured: {error}"
    return None


def step_adds(layer: Layer) -> int:
    """Multiply-adds of a step of one sequence, forward and back."""
    return 3 * sum(part.U.size + part.W.size for part in recurrent_layers(layer))


@lru_cache(maxsize=8)
def rates(device: str) -> Rates:
    """The rates of a device on this machine, from the disk or measured now."""
    identity = hashlib.sha256(f"{_identity(device)} {SOURCE_KEY}".encode()).hexdigest()[:32]
    name, places = f"crossover-{identity}.json", disk.user_folder()
    known = disk.read(name, places)
    if known is not None:
        return Rates(*json.loads(known))
    found = measure(device)
    disk.write(name, json.dumps(found).encode(), places)
    return found


def _identity(device: str) -> str:
    if device == "cpu":
        from ..kernels.cpu import team

        return f"cpu, {team.get_num_threads()} threads"
    from ..kernels.cuda import gpus

    return f"{device}, {gpus.name(int(device.partition(':')[2]))}"


def measure(device: str, clock: Callable[[], float] = perf_counter) -> Rates:
    """Measure a device by calls of three sizes, each of them run once before it is timed."""
    backend = devices.device(device)

    def seconds(hidden: int, batch: int, T: int) -> tuple[float, int]:
        layer = LSTM.init(hidden, hidden, rng=0)
        x = np.random.default_rng(0).standard_normal((T, batch, hidden)).astype(layer.dtype)
        taken = []
        with backend:
            for _ in range(3):
                start = clock()
                _forward_and_back(backend, layer, x)
                taken.append(clock() - start)
        return min(taken[1:]), batch * step_adds(layer)

    call, few = seconds(*_NARROW, 1)
    narrow, _ = seconds(*_NARROW, _STEPS[0])
    wide, many = seconds(*_WIDE, _STEPS[1])
    # Two equations: each step's time is step + add * its multiply-adds.
    short = max(0.0, narrow - call) / _STEPS[0]
    long = max(0.0, wide - call) / _STEPS[1]
    add = max(0.0, (long - short) / (many - few))
    return Rates(call, max(0.0, short - add * few), add)


def _forward_and_back(device: Backend, layer: LSTM, x: Array) -> None:
    """A gradient of the layer by the engine's own means."""
    T, B, _ = x.shape
    xp, H = device.xp, layer.hidden
    initial = [xp.zeros((layer.states, B, H), layer.dtype)]
    problem = problem_of(layer, device, Arrays(x, Lengths(None, T, B), initial))
    own = footprint(layer, None, T, B, device)
    stages = Stages(problem, own.blocks(zero_copy=problem.zero_copy))
    memory = stages.workspace.empty((T * own.step + own.state) // x.itemsize, layer.dtype)
    caches = stages.caches(memory)
    programs.forward(stages, None, caches)
    tape = stages.tape(caches)
    back = Stages(problem, stages.blocks, tape=tape)
    programs.backward(back, tape, xp.zeros((T, B, H), layer.dtype), None, None, ())
    device.home(back.gradients()[0].b)  # waits for all of it
    back.release()
    stages.release()
