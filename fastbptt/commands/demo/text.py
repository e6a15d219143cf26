"""The demo's text: the source of the standard library as classes, and baseline models of it."""

from __future__ import annotations

import sysconfig
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ...arrays import Array

NEWLINE, OTHER = 95, 96
CLASSES = 97
"""Printable ASCII, the newline, and one class for every other byte."""

_CLASS_OF = np.full(256, OTHER, np.uint8)
_CLASS_OF[32:127] = np.arange(95)
_CLASS_OF[ord("\n")] = NEWLINE

# Tests are large; encodings and pydoc_data are generated tables.
_EXCLUDED = {"test", "tests", "idle_test", "site-packages", "dist-packages"}
_EXCLUDED |= {"encodings", "pydoc_data", "__pycache__"}


def stdlib_files(root: str | Path | None = None) -> list[Path]:
    """Return the standard library's Python files, in a fixed order."""
    root = Path(root or sysconfig.get_path("stdlib"))
    files = (path.relative_to(root) for path in root.rglob("*.py"))
    return [root / path for path in sorted(files) if _EXCLUDED.isdisjoint(path.parts)]


def split(files: list[Path], every: int = 20) -> tuple[list[Path], list[Path]]:
    """Return (training files, held-out files): one file in `every` is held out."""
    held_out = files[every - 1 :: every]
    return [path for number, path in enumerate(files, 1) if number % every], held_out


def read(files: Iterable[Path]) -> Array:
    """Return the classes of all characters of the files, in order."""
    return encode(b"".join(path.read_bytes() for path in files))


def encode(data: bytes) -> Array:
    """Return the class of every byte, uint8 (N,); a Windows line end counts as a newline."""
    return _CLASS_OF[np.frombuffer(data.replace(b"\r\n", b"\n"), np.uint8)]


def decode(ids: Iterable[int]) -> str:
    """Return the text of the classes; `OTHER` becomes a question mark."""
    return "".join("\n" if i == NEWLINE else "?" if i == OTHER else chr(32 + i) for i in ids)


def streams(ids: Array, B: int) -> tuple[Array, Array]:
    """Cut the text into B parallel streams; returns tokens x and next characters y, both (T, B)."""
    T = (len(ids) - 1) // B
    x, y = ids[: T * B], ids[1 : T * B + 1]
    return np.ascontiguousarray(x.reshape(B, T).T), np.ascontiguousarray(y.reshape(B, T).T)


def order0_bits(train: Array, held_out: Array) -> float:
    """Return bits per character of held-out text under the frequencies of single characters."""
    counts = np.bincount(train, minlength=CLASSES) + 1.0
    return -np.log2(counts / counts.sum())[held_out].mean()


def order1_bits(train: Array, held_out: Array) -> float:
    """Return bits per character given the previous character, with add-one smoothing."""
    counts = np.bincount(_pairs(train), minlength=CLASSES**2).reshape(CLASSES, CLASSES) + 1.0
    bits = -np.log2(counts / counts.sum(axis=1, keepdims=True))
    return bits.ravel()[_pairs(held_out)].mean()


def gzip_bits(held_out: Array) -> float:
    """Return bits per character of held-out text compressed as by `gzip -9`."""
    return 8 * len(zlib.compress(held_out.tobytes(), 9)) / len(held_out)


def _pairs(ids: Array) -> Array:
    return ids[:-1].astype(np.int32) * CLASSES + ids[1:]
