"""The wire format of Protocol Buffers, as far as a simulated miner needs it: fields by number, nothing generated.

After the public encoding guide. As proto3 has it, a scalar at its default is not written, so that nobody can tell 0
from absent; a nested message is written even when it is empty.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

Value = bool | int | float | str | bytes | None
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MOST_VARINT_BYTES = 10


def encode(fields: Iterable[tuple[int, Value]]) -> bytes:
    """A message of (field number, value): numbers, texts, and nested messages as bytes; None and defaults are left out.

    Raises ValueError for a negative number, which no field here has.
    """
    return b"".join(_field(number, value) for number, value in fields)


def decode(data: bytes) -> dict[int, list[int | bytes]]:
    """Every field of a message in order of appearance: varints and fixed numbers as unsigned, the rest as bytes.

    Raises ValueError where it ends amid a field or has a wire type that is not in use any more.
    """
    found: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if number == 0:
            raise ValueError("a field has no number 0")
        if kind == VARINT:
            value, at = _read_varint(data, at)
        elif kind == LENGTH:
            length, at = _read_varint(data, at)
            value, at = _take(data, at, length)
        elif kind in (FIXED64, FIXED32):
            raw, at = _take(data, at, 8 if kind == FIXED64 else 4)
            value = int.from_bytes(raw, "little")
        else:
            raise ValueError(f"wire type {kind}")
        found.setdefault(number, []).append(value)
    return found


def number_in(fields: dict[int, list[int | bytes]], number: int) -> int:
    """The last value of a varint field, 0 where it is absent. Raises ValueError where it is no number."""
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {number} is no number")
    return value


def bytes_in(fields: dict[int, list[int | bytes]], number: int) -> bytes:
    """The last value of a text or message field, empty where it is absent. Raises ValueError where it is a number."""
    value = fields.get(number, [b""])[-1]
    if not isinstance(value, bytes):
        raise ValueError(f"field {number} is a number")
    return value


def _field(number: int, value: Value) -> bytes:
    if value is None or value is False or (value == 0 and not isinstance(value, (str, bytes))) or value == "":
        return b""
    if isinstance(value, (bool, int)):
        return _varint(number << 3 | VARINT) + _varint(int(value))
    if isinstance(value, float):
        return _varint(number << 3 | FIXED64) + struct.pack("<d", value)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | LENGTH) + _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    if value < 0:
        raise ValueError("negative")
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(MOST_VARINT_BYTES):
        if at + place >= len(data):
            raise ValueError("the message ends amid a number")
        byte = data[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number without end")


def _take(data: bytes, at: int, length: int) -> tuple[bytes, int]:
    if at + length > len(data):
        raise ValueError("the message ends amid a field")
    return data[at : at + length], at + length
