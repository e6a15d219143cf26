"""Kernels as machine code, stored on disk. None of this needs a GPU.

A kernel's file is named by all that its code depends on: every kernel source, the compiler, the
cell, dtype and layout, the types of the arguments, and the card's capability.
"""

import hashlib
import re
from contextlib import contextmanager, suppress
from importlib import metadata

import numpy as np
from numba import cuda, types

from .. import disk
from ..cells.registry import CELLS, title
from ..jit import announced
from ..source import SOURCE_KEY, source_key


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
    """The PTX of a kernel, a plain function, for blocks of so many threads: for inspection."""
    return cuda.compile_ptx(kernel, kinds, cc=capability, launch_bounds=(threads, 1))[0]


@contextmanager
def _linked(kernel, kinds, threads, capability, *options):
    """nvJitLink, and its handle of a kernel linked from LTO-IR."""
    from cuda.bindings import nvjitlink

    code, _ = cuda.compile(
        kernel, kinds, cc=capability, launch_bounds=(threads, 1), output="ltoir", abi="numba",
        device=False,
    )  # fmt: skip
    options = ["-arch=sm_{}{}".format(*capability), "-lto", *options]
    handle = nvjitlink.create(len(options), options)
    try:
        nvjitlink.add_data(handle, nvjitlink.InputType.LTOIR, code, len(code), kernel.__name__)
        nvjitlink.complete(handle)
        yield nvjitlink, handle
    finally:
        nvjitlink.destroy(handle)


def machine_code(kernel, kinds, threads, capability):
    """Machine code of a kernel, and the assembler's report on it.

    It is linked from LTO-IR. From PTX the linker would make code that spills registers where there
    are shuffles. A driver older than the compiler can load it, too.
    """
    with _linked(kernel, kinds, threads, capability, "-Xptxas=--verbose") as (link, handle):
        cubin = bytearray(link.get_linked_cubin_size(handle))
        link.get_linked_cubin(handle, cubin)
        said = bytearray(link.get_info_log_size(handle))
        link.get_info_log(handle, said)
    return bytes(cubin), said.decode()


def shipped_ptx(kernel, kinds, threads, capability):
    """The PTX of which the linker makes a kernel's machine code."""
    with _linked(kernel, kinds, threads, capability, "-ptx") as (link, handle):
        text = bytearray(link.get_linked_ptx_size(handle))
        link.get_linked_ptx(handle, text)
    return bytes(text).rstrip(b"\0").decode()


def entry_of(cubin):
    """The name of the kernel in machine code that has one."""
    return re.search(rb"\.text\.(\w+)\0", cubin)[1].decode()


def _versions():
    """The versions of the packages that make machine code, as far as they are installed."""
    nvidias = ("nvvm", "nvjitlink", "nvjitlink-cu12", "cuda-nvcc-cu12")
    names = ("numba-cuda", "llvmlite", *(f"nvidia-{name}" for name in nvidias))
    found = []
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found.append((name, metadata.version(name)))
    return found


def compiled(kernel, kinds, threads, capability):
    """A kernel's machine code, from disk or made now."""
    parts = SOURCE_KEY, _versions(), kernel.__name__, kernel.key, kinds, threads, capability
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    file = f"fastbptt-{kernel.__name__}-{digest}.cubin"
    code = disk.read(file, disk.folders())
    if code is None:
        with announced(f"the CUDA kernel {kernel.__name__} of {_title(kernel)}"):
            code = machine_code(kernel, kinds, threads, capability)[0]
        if source_key() == SOURCE_KEY:  # else they were edited while they were read
            disk.write(file, code, disk.folders())
    return code


def _title(kernel):
    """A kernel's key in words: cell, loss or readout, and dtype."""
    words = [part for part in kernel.key if isinstance(part, str)]
    return ", ".join(title(word) if word in CELLS else word for word in words)
