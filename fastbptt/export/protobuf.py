"""Protocol buffers: the few rules of their encoding that a file of ONNX needs."""

from __future__ import annotations

import struct
from collections.abc import Iterable

Value = int | float | str | bytes

MOST_BYTES = (1 << 31) - 1
"""The most bytes that readers take for one message."""


def message(*fields: tuple[int, Value | Iterable[Value]]) -> bytes:
    """The bytes of a message: pairs of a field's number and its value, or its repeated values.

    An int is written as a varint, a float in 4 bytes; text, bytes and messages with their length.
    """
    parts: list[bytes] = []
    for number, value in fields:
        single = isinstance(value, (int, float, str, bytes))
        for one in (value,) if single else value:  # type: ignore[union-attr]
            parts += _field(number, one)  # type: ignore[arg-type]
    return b"".join(parts)


def _field(number: int, value: Value) -> tuple[bytes, ...]:
    if isinstance(value, int):
        return _varint(number << 3), _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | 5), struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2), _varint(len(data)), data


def _varint(value: int) -> bytes:
    """A number that is not negative, 7 bits a byte, the lowest first."""
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    return bytes(data)
