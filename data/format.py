"""The one prepared format: a file of memory-mappable arrays with a JSON header, `NAME.cgd`.

Layout, version 1 (whole numbers little-endian):

    0    8  magic  b'cogkit\\x00D'
    8    8  H, the bytes of the header (1 MiB at most)
    16   H  the header: one JSON object, UTF-8
            zeros up to the next multiple of 4096; here the payload begins
            the streams, each at a multiple of 64 from there, zeros between them

    {"format": 1, "name": "fashion_c32", "licence": "...", "payload": bytes of the payload, "sha256": of the payload,
     "generator": {"name": ..., "version": ..., ...},        what made the numbers, and all it was told
     "sources": [{"name": ..., "sha256": ...}, ...],         the files they were made from
     "splits": {"train": {"count": N, "streams": [
         {"name": "features", "dtype": "<u1", "shape": [3, 32, 32], "offset": 0},      shape of one sample
         {"name": "labels", "dtype": "<u1", "shape": [], "offset": 512, "classes": ["T-shirt", ...]}]}, ...}}

A file is written aside and renamed, so a path holds a whole file or none. The header has no time, machine or user in it: the
same recipe gives the same bytes. `Dataset.hash` is the payload's SHA-256; `Dataset.verify()` reads all and compares.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cogkit.errors import DataError

__all__ = ["Dataset", "Split", "Stream", "create_dataset", "open_dataset", "write_aside"]

MAGIC = b"cogkit\x00D"
VERSION = 1
MAX_HEADER = 1 << 20
PAGE, ALIGN = 4096, 64
MAX_COUNT = 1 << 40
DTYPES = {
    "<u1": np.uint8,
    "<i1": np.int8,
    "<u2": np.uint16,
    "<i2": np.int16,
    "<i4": np.int32,
    "<i8": np.int64,
    "<f4": np.float32,
    "<f8": np.float64,
}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")


@dataclass(frozen=True)
class Stream:
    """One array of a split: `shape` is that of one sample; `classes` names what whole-number labels mean."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()


class Split(Mapping[str, np.ndarray]):
    """Arrays of one split by stream name (also as attributes), each (count, *shape), read-only and memory-mapped."""

    def __init__(self, name: str, count: int, streams: Sequence[Stream], arrays: dict[str, np.ndarray], dataset: Dataset):
        self.name, self.count, self.dataset = name, count, dataset
        self.streams = {s.name: s for s in streams}
        self._arrays = arrays

    def __getitem__(self, stream: str) -> np.ndarray:
        try:
            return self._arrays[stream]
        except KeyError:
            raise KeyError(
                f"split '{self.name}' of {self.dataset.path} has no stream '{stream}', it has {', '.join(self._arrays)}"
            ) from None

    def __getattr__(self, stream: str) -> np.ndarray:
        arrays = self.__dict__.get("_arrays", {})
        if stream not in arrays:
            raise AttributeError(f"no stream '{stream}' in this split, it has {', '.join(arrays)}")
        return arrays[stream]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"Split({self.name}: {self.count} x {', '.join(f'{s.name}{list(s.shape)}' for s in self.streams.values())})"


class Dataset(Mapping[str, Split]):
    """An open prepared file: splits by name; made by `open_dataset`."""

    def __init__(self, path: Path, header: dict[str, Any], payload: np.ndarray):
        self.path, self.header, self._payload = path, header, payload
        self.name: str = header["name"]
        self.hash: str = header["sha256"]
        self._splits: dict[str, Split] = {}

    def __getitem__(self, split: str) -> Split:
        try:
            return self._splits[split]
        except KeyError:
            raise KeyError(f"{self.path} has no split '{split}', it has {', '.join(self._splits)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._splits)

    def __len__(self) -> int:
        return len(self._splits)

    def __repr__(self) -> str:
        return f"Dataset({self.name}, {self.path}: {', '.join(map(repr, self._splits.values()))})"

    def verify(self) -> None:
        """Reads the whole payload; raises DataError if its SHA-256 is not the header's."""
        found = hashlib.sha256(self._payload).hexdigest()
        if found != self.hash:
            raise DataError(f"{self.path}: expected a payload of SHA-256 {self.hash}, got {found}; prepare it anew")


def _up(n: int, align: int) -> int:
    return (n + align - 1) // align * align


def open_dataset(path: str | os.PathLike[str], verify: bool = False) -> Dataset:
    """Opens a prepared file; every size is checked against the file before it is mapped. Raises DataError.

    With `verify` the whole payload is read and compared with its SHA-256.
    """
    path = Path(path)

    def wrong(fact: str) -> DataError:
        return DataError(f"{path}: expected a prepared data set (format {VERSION}), got {fact}; prepare it anew")

    try:
        with open(path, "rb") as f:
            size = os.fstat(f.fileno()).st_size
            head = f.read(16)
            if len(head) < 16 or head[:8] != MAGIC:
                raise wrong("a file that begins otherwise" if size else "an empty file")
            length = int.from_bytes(head[8:], "little")
            if not 2 <= length <= min(MAX_HEADER, size - 16):
                raise wrong(f"a header of {length} bytes in a file of {size}")
            raw = f.read(length)
            start = _up(16 + length, PAGE)
            mapped = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) if size > start else b""
    except FileNotFoundError:
        raise DataError(
            f"{path}: expected a prepared data set, got no such file; "
            f"make it with python -m cogkit.data prepare NAME --out {path}"
        ) from None
    except IsADirectoryError:
        raise wrong("a folder") from None
    try:
        header = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise wrong(f"a header that is not JSON ({e})") from None
    try:
        payload, splits = _check(header, size - start)
    except _BadHeader as e:
        raise wrong(str(e)) from None
    array = np.frombuffer(mapped, np.uint8, payload, start) if payload else np.empty(0, np.uint8)
    dataset = Dataset(path, header, array)
    for name, (count, streams) in splits.items():
        arrays = {}
        for stream, offset in streams:
            kind = np.dtype(DTYPES[stream.dtype])
            n = count * int(np.prod(stream.shape, dtype=np.int64)) * kind.itemsize
            arrays[stream.name] = array[offset : offset + n].view(kind).reshape(count, *stream.shape)
        dataset._splits[name] = Split(name, count, [s for s, _ in streams], arrays, dataset)
    if verify:
        dataset.verify()
    return dataset


class _BadHeader(Exception):
    pass


def _check(header: Any, room: int) -> tuple[int, dict[str, tuple[int, list[tuple[Stream, int]]]]]:
    """The payload's bytes and the splits of a header that may be forged; raises _BadHeader with the fact."""

    def get(where: Any, key: str, kind: type, what: str) -> Any:
        value = where.get(key) if isinstance(where, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _BadHeader(f"{what} without a proper '{key}'")
        return value

    def number(value: Any, low: int, high: int, what: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _BadHeader(f"{what} of {value!r}")
        return value

    if get(header, "format", int, "a header") != VERSION:
        raise _BadHeader(f"format {header['format']}")
    get(header, "name", str, "a header")
    if not re.fullmatch("[0-9a-f]{64}", get(header, "sha256", str, "a header")):
        raise _BadHeader("a header without a proper 'sha256'")
    payload = get(header, "payload", int, "a header")
    if payload < 0 or payload != max(room, 0):
        raise _BadHeader(f"a payload of {max(room, 0)} bytes where the header says {payload}")
    splits: dict[str, tuple[int, list[tuple[Stream, int]]]] = {}
    end = 0
    for name, split in get(header, "splits", dict, "a header").items():
        if not NAME.match(name):
            raise _BadHeader(f"a split named {name[:80]!r}")
        count = number(split.get("count") if isinstance(split, dict) else None, 0, MAX_COUNT, f"split '{name}' with a count")
        streams: list[tuple[Stream, int]] = []
        for entry in get(split, "streams", list, f"split '{name}'"):
            stream = get(entry, "name", str, f"a stream of split '{name}'")
            what = f"stream '{stream[:80]}' of split '{name}'"
            dtype, shape = get(entry, "dtype", str, what), get(entry, "shape", list, what)
            if not NAME.match(stream) or any(stream == s.name for s, _ in streams):
                raise _BadHeader(f"{what}, a name that is no identifier or comes twice")
            if dtype not in DTYPES:
                raise _BadHeader(f"{what} of type {dtype[:80]!r}")
            if len(shape) > 8:
                raise _BadHeader(f"{what} with {len(shape)} axes")
            n = count * np.dtype(DTYPES[dtype]).itemsize
            for d in shape:
                n *= number(d, 1, MAX_COUNT, f"{what} with an axis")
            offset = number(entry.get("offset"), end, payload, f"{what} with an offset")
            if offset % ALIGN or offset + n > payload:
                raise _BadHeader(f"{what} at bytes {offset} to {offset + n} of {payload}")
            end = offset + n
            classes = entry.get("classes", [])
            if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
                raise _BadHeader(f"{what} with classes that are no names")
            streams.append((Stream(stream, dtype, tuple(shape), tuple(classes)), offset))
        splits[name] = (count, streams)
    return payload, splits


@contextlib.contextmanager
def write_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` at the end, removed if the block raises."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        yield aside
        with open(aside, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # the rename itself is on disk only when the folder is
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def create_dataset(
    path: str | os.PathLike[str],
    name: str,
    splits: Mapping[str, tuple[int, Sequence[Stream]]],
    *,
    licence: str,
    generator: Mapping[str, Any] | None = None,
    sources: Sequence[Mapping[str, Any]] = (),
) -> Iterator[dict[str, dict[str, np.ndarray]]]:
    """Arrays to fill, by split and stream; the file appears at `path` when the block ends, and not at all if it raises.

    The disk's room is taken before the first byte is written; DataError if there is not enough.
    """
    path = Path(path)
    header: dict[str, Any] = {
        "format": VERSION,
        "name": name,
        "licence": licence,
        "payload": 0,
        "sha256": "0" * 64,
        "generator": dict(generator or {}),
        "sources": [dict(s) for s in sources],
        "splits": {},
    }
    end = 0
    for split, (count, streams) in splits.items():
        entries = []
        for s in streams:
            entry: dict[str, Any] = {"name": s.name, "dtype": s.dtype, "shape": list(s.shape), "offset": _up(end, ALIGN)}
            if s.classes:
                entry["classes"] = list(s.classes)
            end = entry["offset"] + count * int(np.prod(s.shape, dtype=np.int64)) * np.dtype(DTYPES[s.dtype]).itemsize
            entries.append(entry)
        header["splits"][split] = {"count": count, "streams": entries}
    header["payload"] = end

    def packed() -> bytes:
        text = json.dumps(header, separators=(",", ":")).encode()
        return MAGIC + len(text).to_bytes(8, "little") + text

    start = _up(len(packed()), PAGE)
    try:
        _check(header, end)
        if start > MAX_HEADER:
            raise _BadHeader(f"a header of {start} bytes")
    except _BadHeader as e:
        raise DataError(f"data set '{name}': expected streams that the format can hold, got {e}") from None
    with write_aside(path) as aside:
        try:
            with open(aside, "xb+") as f:
                # A mapped page that the disk has no room for would end the process, so the room is taken now.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(f.fileno(), 0, start + end)
                else:
                    for _ in range(0, start + end, 1 << 20):
                        f.write(bytes(1 << 20))
                    f.truncate(start + end)
                f.seek(0)
                mapped = mmap.mmap(f.fileno(), start + end)
        except OSError as e:
            raise DataError(
                f"data set '{name}': expected {(start + end) / 1e6:.0f} MB of room in {path.parent}, "
                f"got {e.strerror}; free some, or give another place"
            ) from e
        whole = np.frombuffer(mapped, np.uint8)
        payload = whole[start:]
        arrays: dict[str, dict[str, np.ndarray]] = {}
        for split, (count, streams) in splits.items():
            arrays[split] = {}
            for s, entry in zip(streams, header["splits"][split]["streams"], strict=True):
                kind = np.dtype(DTYPES[s.dtype])
                n = count * int(np.prod(s.shape, dtype=np.int64)) * kind.itemsize
                arrays[split][s.name] = payload[entry["offset"] : entry["offset"] + n].view(kind).reshape(count, *s.shape)
        yield arrays
        header["sha256"] = hashlib.sha256(payload).hexdigest()
        text = packed()
        whole[: len(text)] = np.frombuffer(text, np.uint8)
        mapped.flush()
