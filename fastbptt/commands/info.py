"""`fastbptt info`: the machine and the installed versions, to be reported with any figure."""

from __future__ import annotations

import argparse
import os
import platform
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from ..backends import free_memory
from ..display import tables
from ..kernels import optional

PACKAGES = (
    "numpy", "numba", "llvmlite", "numba-cuda", "cupy", "matplotlib", "tqdm", "torch", "jax",
)  # fmt: skip
_NAMES = {"cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy")}  # the names it is distributed under


def add_command(commands: Any) -> None:
    """Add `info` to the command line."""
    text = "CPU, vector width, caches, threads, GPU and versions"
    parser = commands.add_parser("info", help=text, description=text + ".")
    parser.set_defaults(run=run, needs_device=False)


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    rows = []
    for name, value in facts().items():
        if name in PACKAGES:
            found, why = optional.attempt(name.replace("-", "_"))
            if found is None:
                value = why
            elif value == optional.MISSING:  # imported, but without metadata
                value = getattr(found, "__version__", "unknown version")
        rows.append((name, value))
    print(tables.aligned(rows, left=(0, 1)))
    return 0


def facts() -> dict[str, str]:
    """Return {name: text} of the machine and the installation."""
    from ..kernels.cpu import team
    from ..kernels.cpu.tile import VECTOR_BYTES

    available = (available_bytes() or 0) / 1e9
    return {
        "fastbptt": version("fastbptt") or "not installed",
        "Python": f"{platform.python_version()} ({platform.system()} {platform.machine()})",
        "CPU": cpu_name(),
        "vectors": f"{VECTOR_BYTES * 8} bits",
        "caches": caches() or "unknown",
        "memory": f"{available:.1f} GB available" if available else "unknown",
        "threads": f"{team.get_num_threads()} in a call; {team.available_cpus()} usable CPUs",
        "GPU": _gpu(),
        **{name: version(name) or optional.MISSING for name in PACKAGES},
    }


def _gpu() -> str:
    """The name and size of the GPU, or the reason why there is none."""
    try:
        from ..backends import devices

        missing = devices.missing_gpu()
    except RuntimeError as error:  # Numba's compiler is switched off
        missing = str(error)
    if missing is not None:
        return f"none: {missing}"
    from ..kernels.cuda import gpus

    gpu = gpus.card(0)
    major, minor = gpu.capability
    return f"{gpus.name(0)} (capability {major}.{minor}, {gpu.processors} multiprocessors)"


def describe(threads: int) -> dict[str, Any]:
    """Return what a stored result says of its measurement: date, machine, versions, load.

    To be called before the measurement: the load is that of the minute before.
    """
    from ..kernels.cpu import team

    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpus": team.available_cpus(),
        **facts(),
        "threads": threads,
        "load before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def version(package: str) -> str | None:
    """Return the installed version of a package, or None; the package is not imported."""
    for name in _NAMES.get(package, (package,)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def cpu_name() -> str:
    """Return the name of the processor, or its architecture where the system names none."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def available_bytes() -> int | None:
    """Return the bytes that this process may still allocate, or None where that is unknown."""
    return free_memory.known_bytes()


def caches(folder: str = "/sys/devices/system/cpu/cpu0/cache") -> str:
    """Return the data caches of the first CPU, or "" where the system does not name them."""
    found = []
    for index in sorted(Path(folder).glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text(encoding="ascii").strip()
                for name in ("level", "type", "size")
            )
        except OSError:
            continue
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found)
