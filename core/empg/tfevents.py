"""TensorBoard's event files, for scalars alone, so that no program needs TensorBoard to write them.

A file is a sequence of records (length, checksum, data, checksum), each holding one ``Event`` in protobuf's encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

VERSION = b"brain.Event:2"

_POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def scalars_file(step: int, wall_time: float, scalars: Mapping[str, float]) -> bytes:
    """A whole event file with the values of some tags at one step; `wall_time` in seconds since the epoch."""
    time = _key(1, _FIXED64) + struct.pack("<d", wall_time)
    values = b"".join(
        _message(1, _message(1, tag.encode()) + _key(2, _FIXED32) + struct.pack("<f", value))
        for tag, value in scalars.items()
    )
    event = time + _key(2, _VARINT) + _varint(step) + _message(5, values)
    return _record(time + _message(3, VERSION)) + _record(event)


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _message(field: int, data: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(data)) + data


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(number: int) -> bytes:
    assert number >= 0, "steps and lengths"
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted as the format wants it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(map(_table_entry, range(256)))
