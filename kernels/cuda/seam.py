"""The one place that knows which package compiles CUDA kernels, and which one holds arrays.

Kernels are compiled by `numba.cuda`, as numba-cuda installs it, to PTX and by nvJitLink to machine
code, which is kept on disk. CuPy holds the arrays, launches the kernels, and multiplies by cuBLAS.
With NUMBA_ENABLE_CUDASIM=1 kernels run in Numba's simulator instead, on NumPy arrays.

Bits: cuBLAS repeats its own only if what it works in is of a fixed size, which
CUBLAS_WORKSPACE_CONFIG says. TF32 is off unless CuPy is told to use it, by CUPY_TF32=1.
"""

import hashlib
import os
import tempfile
from contextlib import suppress
from functools import lru_cache
from importlib import metadata, util
from math import prod
from pathlib import Path

import numpy as np
from numba import types
from numba.core import config

from .. import SOURCE_KEY
from ..jit import announced, distinct

SIMULATED = bool(config.ENABLE_CUDASIM)
NEEDS = "pip install 'fastbptt[cuda13]' (or [cuda12])"

if util.find_spec("numba_cuda") is None:
    raise ImportError(f"CUDA kernels need numba-cuda, which is not installed: {NEEDS}")

from numba import cuda  # noqa: E402 - Numba's own numba.cuda would do other things

if SIMULATED:
    from . import simulated as primitives
    from .simulator import simulate
else:
    from . import intrinsics as primitives

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:2")


def device(function):
    """Decorate a function that kernels call: its code becomes a part of theirs."""
    return function if SIMULATED else cuda.jit(device=True, inline="always")(distinct(function))


@lru_cache(maxsize=1)
def arrays():
    """The module of arrays on the GPU: CuPy, or for the simulator NumPy."""
    if SIMULATED:
        return np
    try:
        import cupy
    except ImportError:
        raise ImportError(f"arrays on a GPU need CuPy, which is not installed: {NEEDS}") from None
    return cupy


def missing():
    """Say what there is not that a GPU needs, or return None."""
    if SIMULATED:
        return None
    try:
        cupy = arrays()
        if cupy.cuda.runtime.getDeviceCount():
            return None
    except ImportError as error:
        return str(error)
    except Exception as error:  # CuPy's own, of the driver
        return f"no GPU can be used: {error}"
    return "no GPU is there"


def signature(args):
    """Numba's types of a kernel's arguments: flat arrays, integers and floats of 64 bits."""
    return tuple(
        types.Array(getattr(types, a.dtype.name), 1, "C")
        if hasattr(a, "dtype") and getattr(a, "ndim", 0)
        else types.float64
        if isinstance(a, float)
        else types.uint64
        if isinstance(a, np.uint64)
        else types.int64
        for a in args
    )


def compile_ptx(kernel, kinds, threads, capability):
    """The PTX of a kernel, a plain function, for blocks of so many threads. Needs no GPU."""
    return cuda.compile_ptx(kernel, kinds, cc=capability, launch_bounds=(threads, 1))[0]


def assemble(ptx, capability):
    """Machine code of PTX. Needs no GPU."""
    from cuda.bindings import nvjitlink

    handle = nvjitlink.create(1, ["-arch=sm_{}{}".format(*capability)])
    try:
        code = ptx.encode()
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, code, len(code), "kernel")
        nvjitlink.complete(handle)
        cubin = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, cubin)
    finally:
        nvjitlink.destroy(handle)
    return bytes(cubin)


def entry_of(ptx):
    """The name of the kernel in PTX."""
    return ptx.partition(".entry ")[2].partition("(")[0].strip()


def _folders():
    """Where compiled kernels may be kept, the best place first."""
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR)
    yield Path(__file__).parent / "__pycache__"
    with suppress(RuntimeError):  # no home directory
        yield Path.home() / ".cache" / "fastbptt"
    yield Path(tempfile.mkdtemp(prefix="fastbptt-"))


def compiled(kernel, kinds, threads, capability):
    """(file of machine code, name of the kernel in it), from the disk if it is there."""
    version = metadata.version("numba-cuda")
    parts = SOURCE_KEY, version, kernel.__name__, kernel.key, kinds, threads, capability
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    name = f"fastbptt-{kernel.__name__}-{digest}"
    for folder in _folders():
        file, entry = folder / f"{name}.cubin", folder / f"{name}.name"
        with suppress(OSError):
            return file, (entry.read_text(encoding="ascii") if file.stat().st_size else "")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = tempfile.NamedTemporaryFile(dir=folder, delete=False)
        except OSError:  # not writable
            continue
        with announced():
            ptx = compile_ptx(kernel, kinds, threads, capability)
            code = assemble(ptx, capability)
        with probe:
            probe.write(code)
        os.replace(probe.name, file)
        partial = Path(f"{probe.name}.name")
        partial.write_text(entry_of(ptx), encoding="ascii")
        os.replace(partial, entry)
        return file, entry_of(ptx)
    raise OSError("no folder can be written to, not even a temporary one")


@lru_cache(maxsize=1024)
def _loaded(kernel, kinds, threads, shared_bytes, together, ordinal):
    cupy = arrays()
    capability = cupy.cuda.Device(ordinal).compute_capability
    capability = int(capability[:-1]), int(capability[-1])
    file, entry = compiled(kernel, kinds, threads, capability)
    module = cupy.RawModule(path=str(file), enable_cooperative_groups=together)
    loaded = module.get_function(entry)
    if shared_bytes > 48 * 1024:  # more than that has to be asked for
        loaded.max_dynamic_shared_size_bytes = shared_bytes
    return loaded


def _words(arg):
    """An argument as compiled kernels take it: Numba passes an array as seven words."""
    if hasattr(arg, "dtype") and getattr(arg, "ndim", 0):
        size = prod(arg.shape)
        return (0, 0, size, arg.dtype.itemsize, arg.data.ptr, size, arg.dtype.itemsize)
    return (arg,)


def launch(kernel, grid, threads, args, shared_bytes=0, together=False):
    """Run a kernel on the current stream of the current device, on C-contiguous arrays.

    `together`: all its blocks have to be resident, since they wait for each other.
    """
    if SIMULATED:
        flat = [arg.reshape(-1) if isinstance(arg, np.ndarray) else arg for arg in args]
        simulate(kernel, grid, threads, shared_bytes, flat, together)
        return
    ordinal = arrays().cuda.runtime.getDevice()
    run = _loaded(kernel, signature(args), threads, shared_bytes, together, ordinal)
    words = [word for arg in args for word in _words(arg)]
    run(
        (*grid, 1),
        (threads, 1, 1),
        tuple(np.int64(word) if isinstance(word, int) else word for word in words),
        shared_mem=shared_bytes,
    )


def matmul(a, b, out=None):
    """a @ b, by cuBLAS."""
    if SIMULATED:
        with np.errstate(all="ignore"):
            return np.matmul(a, b, out=out)
    return arrays().matmul(a, b, out=out)
