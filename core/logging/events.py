"""The records of TensorBoard's event files, and the few messages in them.

A file is a row of records: length (8 bytes), masked CRC-32C of the length, an `Event` message, masked CRC-32C of the message. The
messages need few of protocol buffers' forms, which are written here by hand: a field is its number and wire type, then its value.
Source: TensorFlow's `event.proto`, `summary.proto`; RFC 3720, appendix B.4 (CRC-32C).
"""

from __future__ import annotations

import functools
import io
import struct
import time

import numpy as np
from PIL import Image

__all__ = ["chars", "double", "event", "image", "integer", "record", "scalar"]


def _varint(n: int) -> bytes:
    out = bytearray()
    n &= (1 << 64) - 1
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def integer(field: int, n: int) -> bytes:
    return _varint(field << 3) + _varint(n)


def chars(field: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def double(field: int, x: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", x)


def single(field: int, x: float) -> bytes:
    with np.errstate(over="ignore"):  # a loss beyond float32 is an infinity
        return _varint(field << 3 | 5) + np.float32(x).tobytes()


def event(step: int, *parts: bytes) -> bytes:
    return b"".join([double(1, time.time()), integer(2, step), *parts])


def scalar(name: str, value: float) -> bytes:
    return chars(5, chars(1, chars(1, name) + single(2, value)))


def image(name: str, pixels: np.ndarray) -> bytes:
    """pixels: (height, width, channels) uint8 of 1, 3 or 4 channels."""
    height, width, channels = pixels.shape
    png = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(png, "PNG")
    message = integer(1, height) + integer(2, width) + integer(3, channels) + chars(4, png.getvalue())
    return chars(5, chars(1, chars(1, name) + chars(4, message)))


# records -------------------------------------------------------------------------------------------------------------


@functools.cache
def _table() -> list[int]:
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ 0x82F63B78 * (n & 1)
        table.append(n)
    return table


def _checksum(data: bytes) -> bytes:
    """CRC-32C, turned by 15 bits and moved by a constant, as event files have it."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    return length + _checksum(length) + event + _checksum(event)
