"""Reading .npz files that are not trusted: headers are checked before memory is allocated.

An .npz file is a zip of .npy files, each of which is a header (dtype and shape) and the numbers.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from typing import IO, Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from ..arrays import Array, DType

DAMAGE = (
    ValueError, ArithmeticError, LookupError, TypeError, AttributeError, EOFError, RuntimeError,
    BadZipFile, struct.error, zlib.error,
)  # fmt: skip
"""Exceptions of reading a damaged zip, or of building a model from its contents."""

_TOGETHER = 1 << 23  # the most bytes of one read; zipfile reads the zip's directory in one
_CHUNK = 1 << 20  # bytes of a member that are unpacked at a time
_EXPANSION = 1032  # the most bytes that deflate can make from one
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([<>](?:f4|f8|U\d{1,9}))', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,19}, ?)*(?:\d{1,19})?)\), \} *\n"
)


class Claim(NamedTuple):
    """The header of a member; its numbers begin after `start` bytes."""

    dtype: DType
    fortran: bool
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        """The bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


class Archive:
    """The arrays of a file, by name; `claims` are their headers, checked against the file's size.

    Raises one of DAMAGE where they do not fit, or where the file is no such archive.
    """

    def __init__(self, file: IO[bytes]):
        size = file.seek(0, 2)
        self._zip = ZipFile(_Bounded(file))
        self._members: dict[str, ZipInfo] = {}
        self.claims: dict[str, Claim] = {}
        packed = 0
        for member in self._zip.infolist():
            packed += member.compress_size
            _check_member(member)
            name = member.filename.removesuffix(".npy")
            if name == member.filename or name in self._members:
                raise ValueError(f"{member.filename!r} must be one .npy file of that name")
            self._members[name] = member
        if packed > size:
            raise ValueError(f"its members claim {packed} bytes of the {size} that there are")
        for name, member in self._members.items():
            with self._zip.open(member) as stream:
                self.claims[name] = _claim(name, stream, member.file_size)

    def text(self, name: str, most: int) -> str:
        """The text in the array `name`, of at most `most` characters."""
        if name not in self.claims:
            raise ValueError(f"it holds no {name!r}")
        claim = self.claims[name]
        if claim.dtype.kind != "U" or claim.shape != () or claim.dtype.itemsize > 4 * most:
            raise ValueError(
                f"{name!r} must be a text of at most {most} characters, not {claim.dtype} "
                f"of shape {claim.shape}"
            )
        return str(self.read(name)[()])

    def stand_in(self, name: str) -> Array:
        """An array of the dtype and shape of the array `name`, which takes no memory."""
        claim = self.claims[name]
        if claim.dtype.kind != "f":
            raise ValueError(f"{name!r} must hold numbers, not {claim.dtype}")
        return np.broadcast_to(np.zeros((), claim.dtype), claim.shape)

    def read(self, name: str) -> Array:
        """Read the array `name`."""
        claim = self.claims[name]
        array = np.empty(claim.nbytes, np.uint8)
        with self._zip.open(self._members[name]) as stream:
            stream.read(claim.start)
            for at in range(0, len(array), _CHUNK):
                part = _exactly(stream, min(_CHUNK, len(array) - at))
                array[at : at + len(part)] = np.frombuffer(part, np.uint8)
        return array.view(claim.dtype).reshape(claim.shape, order="F" if claim.fortran else "C")


class _Bounded:
    """A file that refuses to be read in parts of more than `_TOGETHER` bytes."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.tell, self.seekable = file.tell, file.seekable

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0 and offset < 0:
            raise ValueError(f"it refers to byte {offset}")
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> Any:
        data = self._file.read(_TOGETHER + 1 if size < 0 else min(size, _TOGETHER + 1))
        if len(data) > _TOGETHER:
            raise ValueError(f"a part of it that is read at once has more than {_TOGETHER} bytes")
        return data


def _check_member(member: ZipInfo) -> None:
    name, size, packed = member.filename, member.file_size, member.compress_size
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{name!r} must be stored or deflated, not of type {member.compress_type}")
    if member.flag_bits & 1:
        raise ValueError(f"{name!r} is encrypted")
    most = packed if member.compress_type == ZIP_STORED else _EXPANSION * packed
    if size > most:
        raise ValueError(f"{name!r} claims {size} bytes, more than {packed} can hold")


def _claim(name: str, stream: IO[bytes], size: int) -> Claim:
    magic, length = struct.unpack("<8sH", _exactly(stream, 10))
    header = _HEADER.fullmatch(_exactly(stream, length))
    if magic != _MAGIC or header is None:
        raise ValueError(f"{name!r} has no header of a plain array")
    kind, fortran, axes = (part.decode("ascii") for part in header.groups())
    shape = tuple(int(axis) for axis in re.findall(r"\d+", axes))
    claim = Claim(np.dtype(kind), fortran == "True", shape, 10 + length)
    if claim.start + claim.nbytes != size:
        raise ValueError(
            f"{name!r} has {size} bytes, but its header claims {claim.start + claim.nbytes}: "
            f"{kind} of shape {shape}"
        )
    return claim


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError(f"it ends {count - len(data)} bytes early")
    return data
