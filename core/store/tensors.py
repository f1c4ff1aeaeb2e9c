"""Named arrays and a few texts in one safetensors file: 8 bytes header length, JSON header, the arrays' bytes.

Reading is bounded: the header's length, every shape, every offset are checked against the file's size before anything is
allocated, and all that is wrong with a file is one `ModelFileError`.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from cogkit.errors import ModelFileError
from cogkit.store.files import write_file_aside

__all__ = ["read_json", "read_tensors", "write_tensors"]

MAX_HEADER = 32 << 20  # bytes; a graph of 100,000 nodes takes about 20 MB
MAX_RANK = 32
TYPES = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
NAMES = {dtype: name for name, dtype in TYPES.items()}


def write_tensors(path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes arrays of the element types above and texts, aside and renamed.

    Raises TypeError for another element type, ModelFileError for a header above 32 MiB, OSError from the disk.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    # widest type first, so that every array is aligned to its element
    ordered = sorted(((name, np.ascontiguousarray(a).reshape(np.shape(a))) for name, a in tensors.items()), key=_width)
    offset = 0
    for name, array in ordered:
        if array.dtype not in NAMES:
            raise TypeError(f"tensor '{name}': expected {', '.join(t.name for t in NAMES)}, got {array.dtype}")
        end = offset + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ModelFileError(f"{path}: expected a graph of at most {MAX_HEADER >> 20} MiB, got {len(text) >> 20} MiB")
    with write_file_aside(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, array in ordered:
            file.write(memoryview(array.reshape(-1)).cast("B") if array.size else b"")


def _width(item: tuple[str, np.ndarray]) -> int:
    return -item[1].dtype.itemsize


def read_json(text: str | bytes, place: str) -> Any:
    """JSON without repeated keys, NaN or bottomless nesting; ModelFileError for anything else."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ModelFileError(f"{place}: expected every key once, got a repeated one; the file is damaged")
        return made

    def refuse(word: str) -> Any:
        raise ModelFileError(f"{place}: expected numbers, got {word}; the file is damaged")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except ModelFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{place}: expected JSON, got something else ({type(error).__name__}); the file is damaged"
        ) from None


def _check(header: Any, available: int, place: str) -> None:
    """Raises ModelFileError unless the header's arrays fill the rest of the file exactly."""
    if not isinstance(header, dict):
        raise ModelFileError(f"{place}: expected a header of named tensors, got a {type(header).__name__}; the file is damaged")
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            if not isinstance(entry, dict) or not all(isinstance(v, str) for v in entry.values()):
                raise ModelFileError(f"{place}: expected texts as metadata; the file is damaged")
            continue
        fault = _fault(entry)
        if fault:
            raise ModelFileError(f"{place}: tensor '{name[:80]}' {fault}; the file is damaged")
        spans.append((*entry["data_offsets"], name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise ModelFileError(f"{place}: tensor '{name[:80]}' begins at {begin}, not at {position}; the file is damaged")
        position = end
    if position != available:
        raise ModelFileError(
            f"{place}: expected {position} bytes of tensors, got {available}; the file is cut or has been added to"
        )


def _fault(entry: Any) -> str:
    """What is wrong with one tensor's entry, '' when nothing is."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "has no dtype, shape and data_offsets"
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in TYPES:
        return f"has element type {str(entry['dtype'])[:20]!r}, not one of {', '.join(TYPES)}"
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        return "has a shape that is none"
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int and 0 <= n < 2**63 for n in offsets):
        return "has offsets that are none"
    size = TYPES[entry["dtype"]].itemsize
    for n in shape:  # Python's integers do not overflow; rank and sizes are bounded above
        size *= n
    if offsets[1] - offsets[0] != size:
        return f"has {offsets[1] - offsets[0]} bytes, where its shape {tuple(shape)} takes {size}"
    return ""


def read_tensors(source: str | os.PathLike | bytes) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """(texts, arrays) of a file, or of the bytes of one.

    Raises ModelFileError when it is cut, forged or no safetensors file, FileNotFoundError when there is none.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        place, size = "model in memory", len(source)
        start = bytes(source[:8])
    else:
        source = pathlib.Path(source)
        place = str(source)
        if source.is_dir():
            raise ModelFileError(f"{place}: expected a model file, got a folder")
        try:
            size = source.stat().st_size
        except FileNotFoundError:
            none = FileNotFoundError(f"{place}: expected a model file, got none; write one with Function.save")
            none.missing = source.name  # type: ignore[attr-defined]
            raise none from None
        with open(source, "rb") as file:
            start = file.read(8)
    if size < 10 or len(start) < 8:
        raise ModelFileError(f"{place}: expected a model file, got {size} bytes; the file is cut or is no model")
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER or length > size - 8:
        raise ModelFileError(
            f"{place}: expected a header within the file's {size} bytes, got one of {length}; the file is cut or is no model"
        )
    if isinstance(source, pathlib.Path):
        with open(source, "rb") as file:
            file.seek(8)
            text = file.read(length)
    else:
        text = bytes(source[8 : 8 + length])
    if len(text) != length:
        raise ModelFileError(f"{place}: expected a header of {length} bytes, got {len(text)}; the file is cut")
    header = read_json(text, place)
    _check(header, size - 8 - length, place)
    metadata = header.pop("__metadata__", {})
    try:
        if isinstance(source, pathlib.Path):
            arrays = safetensors.numpy.load_file(source)
        else:
            arrays = safetensors.numpy.load(bytes(source))
        return metadata, {name: arrays[name] for name in header}
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ModelFileError(f"{place}: {error}; the file is damaged") from None
