"""The packages behind CUDA kernels: only this module knows which compiles and which has arrays.

Kernels are compiled by `numba.cuda`, as numba-cuda installs it, and linked by nvJitLink to machine
code, which is stored on disk. CuPy allocates the arrays, launches the kernels, and multiplies by
cuBLAS. With NUMBA_ENABLE_CUDASIM=1 kernels run in Numba's simulator instead, on NumPy arrays.

Bits: cuBLAS repeats its bits only if its workspace has a fixed size, which is set by
CUBLAS_WORKSPACE_CONFIG for the whole process. TF32 is off unless CUPY_TF32=1 turns it on in CuPy.
"""

import os
from functools import lru_cache
from math import prod

import numpy as np
from numba.core import config

from ..jit import distinct
from ..optional import load

SIMULATED = bool(config.ENABLE_CUDASIM)
NEEDS = "pip install 'fastbptt[cuda]', or [cuda12] for CUDA 12"

load("numba_cuda", "CUDA kernels need", NEEDS)  # Numba's built-in numba.cuda works otherwise
cuda = load("numba.cuda", "CUDA kernels need")
if SIMULATED:
    from . import simulated as primitives
    from .simulator import RunningCUDA, simulate

    cuda = RunningCUDA()
else:
    from . import intrinsics as primitives
    from . import machine_code

__all__ = ["SIMULATED", "arrays", "cuda", "device", "launch", "matmul", "missing", "primitives"]

_MOST_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:2")


def device(function):
    """Decorate a function that kernels call: it is inlined."""
    return function if SIMULATED else cuda.jit(device=True, inline="always")(distinct(function))


@lru_cache(maxsize=1)
def arrays():
    """The module of arrays on the GPU: CuPy, or NumPy for the simulator."""
    if SIMULATED:
        return np
    return load("cupy", "arrays on a GPU need", NEEDS)


def missing():
    """Return what a GPU needs and is missing, in words, or None."""
    if SIMULATED:
        return None
    try:
        cupy = arrays()
        if cupy.cuda.runtime.getDeviceCount():
            cupy.cuda.device.get_cublas_handle()  # loads its library
            return None
    except ImportError as error:
        return str(error)
    except Exception as error:  # an error of the driver, by CuPy
        return f"no GPU can be used: {error}"
    return "no GPU is there"


@lru_cache(maxsize=1024)
def _loaded(kernel, kinds, threads, shared_bytes, ordinal):
    cupy = arrays()
    capability = cupy.cuda.Device(ordinal).compute_capability
    capability = int(capability[:-1]), int(capability[-1])
    code = machine_code.compiled(kernel, kinds, threads, capability)
    module = cupy.cuda.function.Module()
    module.load(code)  # from memory, not from a file
    loaded = module.get_function(machine_code.entry_of(code))
    driver = cupy.cuda.driver
    if shared_bytes > 48 * 1024:  # more has to be requested
        driver.funcSetAttribute(loaded.ptr, _MOST_SHARED, shared_bytes)
    if not driver.occupancyMaxActiveBlocksPerMultiprocessor(loaded.ptr, threads, shared_bytes):
        raise RuntimeError(f"a block of {kernel.__name__}, {kernel.key}, does not fit on the card")
    return loaded


def _words(arg):
    """The words of an argument in a compiled kernel: Numba passes an array as seven."""
    if machine_code.is_array(arg):
        size = prod(arg.shape)
        return (0, 0, size, arg.dtype.itemsize, arg.data.ptr, size, arg.dtype.itemsize)
    return (arg,)


def launch(kernel, grid, threads, args, shared_bytes=0, together=False):
    """Run a kernel on the current stream of the current device.

    grid : (blocks along x, along y)
    threads : of a block
    args : C-contiguous arrays and numbers
    shared_bytes : of a block's dynamic shared memory
    together : whether its blocks wait for each other; then there are no more than multiprocessors
    """
    if SIMULATED:
        flat = [arg.reshape(-1) if isinstance(arg, np.ndarray) else arg for arg in args]
        simulate(kernel, grid, threads, shared_bytes, flat, together)
        return
    ordinal = arrays().cuda.runtime.getDevice()
    run = _loaded(kernel, machine_code.signature(args), threads, shared_bytes, ordinal)
    words = [word for arg in args for word in _words(arg)]
    run(
        (*grid, 1),
        (threads, 1, 1),
        tuple(np.int64(word) if isinstance(word, int) else word for word in words),
        shared_mem=shared_bytes,
        enable_cooperative_groups=together,
    )


def matmul(a, b, out=None):
    """a @ b, by cuBLAS."""
    if SIMULATED:
        with np.errstate(all="ignore"):
            return np.matmul(a, b, out=out)
    return arrays().matmul(a, b, out=out)
