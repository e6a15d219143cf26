"""Kernels as machine code, kept on disk. None of this needs a GPU.

The file of a kernel is named by all that its code depends on: every kernel source, the compiler,
the cell, dtype and layout, the types of the arguments, and the card's capability.
"""

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np
from numba import cuda, types
from numba.core import config

from .. import SOURCE_KEY
from ..jit import announced


def is_array(arg):
    """Whether an argument is an array, not a number."""
    return bool(getattr(arg, "ndim", 0))


def signature(args):
    """Numba's types of a kernel's arguments: flat arrays, integers and floats of 64 bits."""

    def one(arg):
        if is_array(arg):
            return types.Array(getattr(types, arg.dtype.name), 1, "C")
        if isinstance(arg, float):
            return types.float64
        return types.uint64 if isinstance(arg, np.uint64) else types.int64

    return tuple(map(one, args))


def compile_ptx(kernel, kinds, threads, capability):
    """The PTX of a kernel, a plain function, for blocks of so many threads: to be looked at."""
    return cuda.compile_ptx(kernel, kinds, cc=capability, launch_bounds=(threads, 1))[0]


def machine_code(kernel, kinds, threads, capability):
    """Machine code of a kernel, and what the assembler says of it.

    It is linked from LLVM's form, not from PTX, of which the linker makes code that spills where
    there are shuffles. A driver older than the compiler can load it, too.
    """
    from cuda.bindings import nvjitlink

    code, _ = cuda.compile(
        kernel, kinds, cc=capability, launch_bounds=(threads, 1), output="ltoir", abi="numba",
        device=False,
    )  # fmt: skip
    options = ["-arch=sm_{}{}".format(*capability), "-lto", "-Xptxas=--verbose"]
    handle = nvjitlink.create(len(options), options)
    try:
        nvjitlink.add_data(handle, nvjitlink.InputType.LTOIR, code, len(code), kernel.__name__)
        nvjitlink.complete(handle)
        cubin = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, cubin)
        said = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, said)
    finally:
        nvjitlink.destroy(handle)
    return bytes(cubin), said.decode()


def entry_of(cubin):
    """The name of the one kernel in machine code."""
    return re.search(rb"\.text\.(\w+)\0", cubin)[1].decode()


def _versions():
    """The versions of all that makes machine code, as far as they are installed."""
    nvidias = ("nvvm", "nvjitlink", "nvjitlink-cu12", "cuda-nvcc-cu12")
    names = ("numba-cuda", "llvmlite", *(f"nvidia-{name}" for name in nvidias))
    found = []
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found.append((name, metadata.version(name)))
    return found


def _folders():
    """Where compiled kernels may be kept, the best place first."""
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR)
    yield Path(__file__).parent / "__pycache__"
    with suppress(RuntimeError):  # no home directory
        yield Path.home() / ".cache" / "fastbptt"
    yield Path(tempfile.mkdtemp(prefix="fastbptt-"))


def compiled(kernel, kinds, threads, capability):
    """The file of a kernel's machine code, made now if it is not there."""
    parts = SOURCE_KEY, _versions(), kernel.__name__, kernel.key, kinds, threads, capability
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    code = None
    for folder in _folders():
        file = folder / f"fastbptt-{kernel.__name__}-{digest}.cubin"
        if file.is_file():
            return file
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, partial = tempfile.mkstemp(dir=folder)
        except OSError:  # not writable
            continue
        try:
            with os.fdopen(descriptor, "wb") as opened:
                with announced():
                    code = code or machine_code(kernel, kinds, threads, capability)[0]
                opened.write(code)
            os.replace(partial, file)  # whole, whoever else writes it
            return file
        except OSError:
            continue
        finally:
            with suppress(OSError):
                os.unlink(partial)
    raise OSError("compiled kernels can be kept nowhere, not even in a temporary folder")
