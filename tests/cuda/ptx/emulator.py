"""Compiles translated kernels with g++, and launches them on memory of this process."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from functools import lru_cache
from pathlib import Path

from .parse import Unsupported
from .translate import HERE, translate

COMPILER = shutil.which("g++")
FLAGS = (
    "-std=c++17",
    "-fPIC",
    "-ffp-contract=off",
    "-frounding-math",
    "-fno-strict-aliasing",
    "-w",
)
SOURCES = ("values.h", "machine.h", "order.h", "machine.cpp")
COUNTS = ("loads", "stores", "loads of shared memory", "stores to shared memory", "strong loads",
          "strong stores", "atomics", "fences", "shuffles", "barriers",
          "same stores of lanes")  # fmt: skip
ALONE = 1024  # threads of a launch whose blocks run side by side though they need not
_ROOM = 1 << 16


class Fault(Exception):
    """What a launch did wrong."""


class _Range(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


class _Task(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("grid_x", "grid_y", "threads", "shared_bytes",
          "together", "races", "range_count", "room")),
        ("seed", ctypes.c_uint64), ("words", ctypes.POINTER(ctypes.c_uint64)),
        ("ranges", ctypes.POINTER(_Range)), ("said", ctypes.c_char_p),
        ("counts", ctypes.POINTER(ctypes.c_uint64)),
    ]  # fmt: skip


def folder():
    """Where compiled kernels are kept."""
    own = os.environ.get("FASTBPTT_PTX_CACHE")
    path = Path(own) if own else Path(tempfile.gettempdir()) / f"fastbptt-ptx-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _compiled(name, make):
    """The file of that name in the folder; `make(path)` writes it if it is not there."""
    file = folder() / name
    if not file.exists():
        part = file.with_name(f"{os.getpid()}-{file.name}")
        make(part)
        os.replace(part, file)
    return file


def _run(*words, text=None):
    done = subprocess.run([COMPILER, *FLAGS, *map(str, words)], input=text, capture_output=True,
                          text=True)  # fmt: skip
    if done.returncode:
        raise Unsupported(f"g++ says: {done.stderr[:2000]}")


def _digest(*texts):
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]


@lru_cache(maxsize=1)
def _machine():
    """The digest of the machine's sources, and its object file."""
    digest = _digest(*((HERE / name).read_text(encoding="utf-8") for name in SOURCES))
    source = HERE / "machine.cpp"
    return digest, _compiled(f"machine-{digest}.o", lambda p: _run("-O2", "-c", source, "-o", p))


@lru_cache(maxsize=1)
def _header():
    """The folder of the machine's header, compiled once."""
    digest, _ = _machine()
    name = f"header-{digest}"
    (folder() / name).mkdir(exist_ok=True)
    shutil.copy(HERE / "machine.h", folder() / name)
    shutil.copy(HERE / "values.h", folder() / name)
    _compiled(
        f"{name}/machine.h.gch",
        lambda p: _run("-O0", "-x", "c++-header", HERE / "machine.h", "-o", p),
    )
    return folder() / name


class Kernel:
    """A kernel, by its PTX."""

    def __init__(self, ptx):
        text, self.program = translate(ptx)
        digest, machine = _machine()

        def make(path):
            _run("-O0", "-shared", "-x", "c++", "-", "-x", "none", machine, f"-I{_header()}",
                 "-o", path, text=text)  # fmt: skip

        self.library = ctypes.CDLL(str(_compiled(f"{_digest(text, digest)}.so", make)))

    def launch(
        self, grid, threads, words, ranges, shared_bytes=0, together=False, seed=0, races=True
    ):
        """Run the kernel, and return what it did, by COUNTS. Raises Fault.

        words : NumPy scalars, one a parameter
        ranges : (low, high) addresses that may be touched
        """
        kinds = [
            f"{'f' if word.dtype.kind == 'f' else 'u'}{8 * word.dtype.itemsize}" for word in words
        ]
        params = [kind.replace("s", "u").replace("b", "u") for kind in self.program.params]
        if kinds != params:
            raise Fault(f"arguments {kinds} for the parameters {params}")
        if threads > self.program.threads:
            raise Fault(f"{threads} threads of a kernel for {self.program.threads}")
        said = ctypes.create_string_buffer(_ROOM)
        counts = (ctypes.c_uint64 * len(COUNTS))()
        values = (int.from_bytes(word.tobytes(), "little") for word in words)
        together = together or threads * grid[0] * grid[1] <= ALONE
        task = _Task(
            *grid, threads, shared_bytes, together, races, len(ranges), _ROOM, seed,
            (ctypes.c_uint64 * len(words))(*values), (_Range * len(ranges))(*ranges),
            ctypes.cast(said, ctypes.c_char_p), counts,
        )  # fmt: skip
        if self.library.launch_ptx(ctypes.byref(task)):
            raise Fault(said.value.decode())
        return Counter(dict(zip(COUNTS, counts, strict=True)))
