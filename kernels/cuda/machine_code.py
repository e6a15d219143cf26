"""Kernels as machine code, kept on disk. None of this needs a GPU.

The file of a kernel is named by all that its code depends on: every kernel source, the compiler,
the cell, dtype and layout, the types of the arguments, and the card's capability.
"""

import hashlib
import os
import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np
from numba import cuda, types
from numba.core import config

from .. import SOURCE_KEY
from ..jit import announced

ENTRY = "fastbptt_kernel"  # its name in the file


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
    """The PTX of a kernel, a plain function, for blocks of so many threads."""
    ptx, _ = cuda.compile_ptx(kernel, kinds, cc=capability, launch_bounds=(threads, 1))
    name = ptx.partition(".entry ")[2].partition("(")[0].strip()  # has a number of this process
    return ptx.replace(name, ENTRY)


def assemble(ptx, capability):
    """Machine code of PTX, which a driver older than the compiler can load, too."""
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
    version = metadata.version("numba-cuda")
    parts = SOURCE_KEY, version, kernel.__name__, kernel.key, kinds, threads, capability
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
                    code = code or assemble(
                        compile_ptx(kernel, kinds, threads, capability), capability
                    )
                opened.write(code)
            os.replace(partial, file)  # whole, whoever else writes it
            return file
        except OSError:
            continue
        finally:
            with suppress(OSError):
                os.unlink(partial)
    raise OSError("compiled kernels can be kept nowhere, not even in a temporary folder")
