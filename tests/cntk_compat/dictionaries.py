"""Arrays as values of CNTK's dictionaries, with its files: messages in the protocol buffers' wire format, by the facts of CNTK.proto.

Dictionary value: 1 version, 2 kind, 13 array. Array: 1 element type, 3 shape, then the numbers. A message in these: 1 its elements.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

__all__ = ["DictionaryValue"]

VERSION, ARRAY = 2, 11
# element type -> (its number, the field of its numbers)
TYPES = {np.dtype(np.float32): (1, 4), np.dtype(np.float64): (2, 5), np.dtype(np.int8): (5, 6), np.dtype(np.int16): (6, 7)}


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def _field(number: int, content: int | bytes) -> bytes:
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varints(data: bytes) -> list[int]:
    out, n, shift = [], 0, 0
    for byte in data:
        n |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            out.append(n)
            n = shift = 0
    return out


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0

    def number() -> int:
        nonlocal at
        start = at
        while data[at] > 127:
            at += 1
        at += 1
        return _varints(data[start:at])[0]

    while at < len(data):
        key = number()
        if key & 7 == 0:
            yield key >> 3, number()
        else:
            size = number()
            at += size
            yield key >> 3, data[at - size : at]


class DictionaryValue(np.ndarray):
    """An array that can be written as CNTK writes the value of a dictionary; equal to another if type, shape and numbers are."""

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file."""
        kind, place = TYPES[self.dtype]
        if self.dtype == np.int16:  # small numbers of either sign are short: 0, -1, 1, -2, ...
            numbers = b"".join(_varint(n << 1 if n >= 0 else ~(n << 1)) for n in self.ravel().tolist())
        else:
            numbers = self.tobytes()
        shape = b"".join(map(_varint, reversed(self.shape)))
        array = _field(1, kind) + _field(3, _field(1, shape)) + _field(place, _field(1, numbers))
        with open(path, "wb") as f:
            f.write(_field(1, VERSION) + _field(2, ARRAY) + _field(13, array))

    @classmethod
    def load(cls, path: str | os.PathLike) -> DictionaryValue:
        """Reads one; `ValueError` where it holds no array."""
        with open(path, "rb") as f:
            array = dict(_fields(dict(_fields(f.read())).get(13, b"")))
        for dtype, (kind, place) in TYPES.items():
            if array.get(1) == kind:
                numbers = dict(_fields(array[place])).get(1, b"")
                if dtype == np.int16:
                    flat = np.array([n >> 1 ^ -(n & 1) for n in _varints(numbers)], dtype)
                else:
                    flat = np.frombuffer(numbers, dtype)
                return flat.reshape(_varints(dict(_fields(array[3]))[1])[::-1]).view(cls)
        raise ValueError(f"{path}: expected the value of a dictionary that is an array")

    def __eq__(self, other):
        return self.dtype == getattr(other, "dtype", None) and np.array_equal(np.asarray(self), np.asarray(other))

    def __ne__(self, other):
        return not self == other

    __hash__ = None
