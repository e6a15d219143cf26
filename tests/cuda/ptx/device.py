"""A device in place of CuPy's, whose arrays are NumPy's and whose launches run PTX on the CPU."""

import hashlib
from collections import Counter
from importlib import metadata, util
from types import ModuleType, SimpleNamespace

import mirror
import numpy as np
from fastbptt.kernels.cuda import gpus, machine_code, runtime
from fastbptt.kernels.source import SOURCE_KEY
from numba import types

from . import emulator

PROCESSORS = 4  # few, so that a grid sweep is small
CAPABILITY = (9, 0)
_FACTS = {
    "MultiProcessorCount": PROCESSORS, "MaxSharedMemoryPerBlockOptin": 232448,
    "MaxRegistersPerMultiprocessor": 65536, "ClockRate": 1_755_000,
}  # fmt: skip


def missing():
    """What this needs and is not there, in words, or None."""
    if emulator.COMPILER is None:
        return "running PTX needs g++"
    try:
        for name in ("cuda.bindings", "numba_cuda"):
            if util.find_spec(name) is None:
                return f"running PTX needs {name}: pip install 'fastbptt[bench]'"
        metadata.version("nvidia-nvjitlink")
    except (ModuleNotFoundError, metadata.PackageNotFoundError) as error:
        return f"running PTX needs numba-cuda[cu13], the extra `bench`: {error}"
    return None


class Launches:
    """What all launches did, and what is changed of them: the settings of a run."""

    def __init__(self):
        self.seed = 1
        self.edit = None  # a function of (kernel's name, PTX) that returns other PTX
        self.counts = Counter()
        self.kernels = {}  # PTX -> (its Kernel, the types of its arguments)
        self.shipped = {}  # a kernel's name -> the PTX of the last one

    def compiled(self, kernel, kinds, threads, capability):
        """What takes the place of machine code: the PTX, kept in the emulator's folder."""
        versions = machine_code._versions()
        parts = SOURCE_KEY, versions, kernel.__name__, kernel.key, kinds, threads, capability
        name = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
        file = emulator.folder() / f"{name}.ptx"
        if not file.exists():
            file.write_text(machine_code.shipped_ptx(kernel, kinds, threads, capability))
        ptx = file.read_text()
        self.shipped[kernel.__name__] = ptx
        if self.edit is not None:
            ptx = self.edit(kernel.__name__, ptx)
        if ptx not in self.kernels:
            self.kernels[ptx] = emulator.Kernel(ptx), kinds
        return ptx.encode()

    def forget(self):
        """Compile all kernels anew, as after a change of `edit`."""
        runtime._loaded.cache_clear()


launches = Launches()


class _Module:
    def load(self, code):
        self.kernel, self.kinds = launches.kernels[code.decode()]

    def get_function(self, name):
        assert name == self.kernel.program.entry
        return _Function(self.kernel, self.kinds)


class _Function:
    ptr = 1

    def __init__(self, kernel, kinds):
        self.kernel, self.kinds = kernel, kinds
        self.shared = 48 * 1024  # bytes that a block may have

    def __call__(self, grid, block, words, shared_mem=0, enable_cooperative_groups=False):
        assert grid[2] == block[1] == block[2] == 1
        assert 1 <= grid[0] < 2**31 and 1 <= grid[1] < 2**16, grid
        assert not enable_cooperative_groups or grid[0] * grid[1] <= PROCESSORS, grid
        ranges, k = [], 0
        for kind in self.kinds:
            if isinstance(kind, types.Array):
                size, item, low = map(int, words[k + 2 : k + 5])
                ranges.append((low, low + size * item))
            k += 7 if isinstance(kind, types.Array) else 1
        words = [np.float64(word) if isinstance(word, float) else word for word in words]
        launches.seed += 1
        launches.counts["launches"] += 1
        launches.counts["launches of a grid"] += enable_cooperative_groups
        launches.counts += self.kernel.launch(
            grid[:2], block[0], words, ranges, shared_mem, enable_cooperative_groups, launches.seed
        )


def _poisoned(name):
    own = getattr(np, name)

    def function(*args, **kwargs):
        array = own(*map(mirror._inside, args), **kwargs)
        array.reshape(-1).view(np.uint8).fill(255)  # NaN, or -1
        return mirror.DeviceArray(array)

    return function


class _Device:
    def __init__(self, ordinal=0):
        self.id, self.attributes = ordinal, _FACTS
        self.compute_capability = "{}{}".format(*CAPABILITY)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def _set_attribute(pointer, which, shared):
    assert shared <= _FACTS["MaxSharedMemoryPerBlockOptin"]


def _arrays():
    """What stands for the module CuPy."""
    cupy = ModuleType("cupy")
    vars(cupy).update({k: v for k, v in vars(mirror).items() if not k.startswith("__")})
    cupy.empty, cupy.empty_like = _poisoned("empty"), _poisoned("empty_like")
    cupy.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 0)
    cupy.cuda = SimpleNamespace(**vars(mirror.cuda))
    cupy.cuda.Device = _Device
    cupy.cuda.function = SimpleNamespace(Module=_Module)
    cupy.cuda.device = SimpleNamespace(get_cublas_handle=lambda: 1)
    cupy.cuda.driver = SimpleNamespace(
        occupancyMaxActiveBlocksPerMultiprocessor=lambda *given: 1, funcSetAttribute=_set_attribute
    )
    cupy.cuda.runtime = SimpleNamespace(
        **vars(mirror.cuda.runtime), getDevice=lambda: 0, getDeviceCount=lambda: 1,
        memGetInfo=lambda: (1 << 33, 1 << 33),
        getDeviceProperties=lambda ordinal: {"name": b"PTX on the CPU"},
    )  # fmt: skip
    return cupy


def install():
    """Take CuPy's place, for the rest of the process. Returns the device's Card."""
    assert not runtime.SIMULATED, "NUMBA_ENABLE_CUDASIM must not be set"
    cupy = _arrays()
    runtime.arrays = lambda: cupy
    machine_code.compiled = launches.compiled
    machine_code.entry_of = lambda code: launches.kernels[code.decode()][0].program.entry
    return gpus.card(0)
