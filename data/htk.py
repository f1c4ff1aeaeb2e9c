"""HTK files: features (a header of 12 bytes, then frames of big-endian numbers), archives of them with a script, label files.

A feature file: int32 frames, int32 period in 100 ns, int16 bytes a frame, int16 kind, all big-endian; then the frames. Kinds 0 (waveform)
and 5, 10 and those with the bit 0o2000 (compressed) hold 16-bit numbers, the others float32; bit 0o10000: a checksum of two bytes
follows the frames. An archive is a feature file with the frames of many utterances, one after the other; a line of a script is
`path`, `key=path` or `key=path[first,last]`, both frames included; the key may have an extension, which does not count.
Source: Young et al., The HTK Book (for HTK 3.4), sections 4.2, 5.10 and 6.3.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cogkit.data.format import write_aside
from cogkit.errors import DataError

__all__ = ["read_features", "write_archive", "write_features", "write_mlf"]

HEADER = struct.Struct(">iihh")
EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,7}\Z")
USER = 9  # a kind that says nothing of how the numbers were made
MAX_DIM = 32767 // 4  # the bytes of a frame are an int16
UNIT = 1e-7  # seconds of HTK's unit of time


def units(period: float) -> int:
    """A period in seconds as HTK counts it: whole 100 ns; ValueError."""
    whole = round(period / UNIT)
    if not 0 < whole < 2**31:
        raise ValueError(f"HTK: expected a period in (0, 214] seconds, got {period!r}")
    return whole


def key_of(name: str) -> str:
    """The key in a name of a script or label file: no leading `*/`, no extension."""
    return EXTENSION.sub("", name.strip().removeprefix("*/"))


def _frames(key: str, frames: Any) -> np.ndarray:
    array = np.asarray(frames)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(f"HTK '{key}': expected frames (n, d) of numbers, got {array.dtype} of shape {array.shape}")
    if not 0 < array.shape[1] <= MAX_DIM:
        raise ValueError(f"HTK '{key}': expected 1 to {MAX_DIM} numbers a frame, got {array.shape[1]}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, ">f4")
    if not np.isfinite(array).all():
        raise DataError(f"HTK '{key}': expected finite float32 numbers, got {array[~np.isfinite(array)][0]}")
    return array


def write_features(path: str | os.PathLike[str], frames: Any, period: float = 0.01, kind: int = USER) -> None:
    """One feature file of frames (n, d), `period` seconds apart. Raises ValueError, DataError (not finite)."""
    array = _frames(os.fspath(path), frames)
    with write_aside(path) as aside, open(aside, "xb") as f:
        f.write(HEADER.pack(len(array), units(period), 4 * array.shape[1], kind))
        f.write(array)


def write_archive(
    path: str | os.PathLike[str],
    items: Iterable[tuple[str, Any]],
    scp: str | os.PathLike[str],
    period: float = 0.01,
    kind: int = USER,
) -> None:
    """Features of many utterances, (key, frames (n, d)), in one file, and the script `key=path[first,last]` beside them.

    The script names the archive as `.../name` (in the script's own folder, as CNTK has it), or by its absolute path if it is elsewhere.
    Raises ValueError, DataError (an empty utterance, a key twice, a number that is not finite).
    """
    path, scp = Path(path), Path(scp)
    beside = path.resolve().parent == scp.resolve().parent
    name = f".../{path.name}" if beside else str(path.resolve())
    total, dim, seen = 0, 0, set()
    with (
        write_aside(scp) as script,
        write_aside(path) as aside,
        open(aside, "xb") as f,
        open(script, "x", encoding="utf-8") as lines,
    ):
        f.write(bytes(HEADER.size))
        for key, frames in items:
            array = _frames(key, frames)
            if not key or any(c in key for c in "=\n\r"):
                raise ValueError(f"HTK '{key}': expected a key without '=' and line ends")
            if key in seen or not len(array):
                raise DataError(f"HTK '{key}': expected each key once and frames for it, got {len(array)} frames")
            if dim not in (0, array.shape[1]):
                raise DataError(f"HTK '{key}': expected frames of {dim} numbers as before it, got {array.shape[1]}")
            seen.add(key)
            dim = array.shape[1]
            f.write(array)
            logical = key if key_of(key) == key else f"{key}.fea"  # what looks like an extension would not count
            lines.write(f"{logical}={name}[{total},{total + len(array) - 1}]\n")
            total += len(array)
        if not 0 < total < 2**31:
            raise DataError(f"HTK archive {path}: expected 1 to {2**31 - 1} frames, got {total}")
        f.seek(0)
        f.write(HEADER.pack(total, units(period), 4 * dim, kind))


def write_mlf(
    path: str | os.PathLike[str], items: Iterable[tuple[str, Iterable[tuple[int, int, str]]]], period: float = 0.01
) -> None:
    """Labels of many utterances, (key, [(first frame, frame after the last, name), ...]), as a master label file.

    Raises ValueError for segments that are empty, out of order or named by no single word.
    """
    unit = units(period)
    with write_aside(path) as aside, open(aside, "x", encoding="utf-8") as f:
        f.write("#!MLF!#\n")
        for key, segments in items:
            if not key or any(c in key for c in '"\n\r'):
                raise ValueError(f"MLF '{key}': expected a key without quotes and line ends")
            f.write(f'"*/{key}.lab"\n')
            at = 0
            for first, after, name in segments:
                if not at <= first < after or not name or len(name.split()) != 1:
                    raise ValueError(
                        f"MLF '{key}': expected segments in order, each named by a word, got {(first, after, name)!r}"
                    )
                f.write(f"{first * unit} {after * unit} {name}\n")
                at = after
            f.write(".\n")


def read_features(path: str | os.PathLike[str], first: int | None = None, last: int | None = None) -> np.ndarray:
    """Frames first..last (both included; by default all) of a feature file, float32 (n, d). Raises DataError."""
    path = os.fspath(path)
    try:
        with open(path, "rb") as f:
            head = f.read(HEADER.size)
            size = os.fstat(f.fileno()).st_size
            if len(head) < HEADER.size:
                raise DataError(f"HTK {path} byte 0: expected a header of {HEADER.size} bytes, got {len(head)}")
            count, _, width, kind = HEADER.unpack(head)
            check_header(path, count, width, kind, size)
            first, last = first or 0, count - 1 if last is None else last
            if not 0 <= first <= last + 1 <= count:
                raise DataError(f"HTK {path}: expected frames in [0, {count - 1}], got [{first},{last}]")
            f.seek(HEADER.size + first * width)
            frames = np.fromfile(f, ">f4", (last + 1 - first) * width // 4).reshape(-1, width // 4)
    except OSError as e:
        raise DataError(f"HTK {path}: expected a file to read, got {e.strerror}") from None
    return frames.astype(np.float32)


def check_header(path: str, count: int, width: int, kind: int, size: int, may_be_cut: bool = False) -> None:
    """DataError if a header does not fit its file, or speaks of what is not read here: 16-bit numbers."""
    if kind & 0o2000 or kind & 0o77 in (0, 5, 10):
        raise DataError(
            f"HTK {path} byte 10: expected a kind of float32 numbers, got kind {kind} of 16-bit ones; convert it with HCopy"
        )
    if count < 0 or width <= 0 or width % 4:
        raise DataError(f"HTK {path} byte 0: expected frames of 4, 8, ... bytes, got {count} frames of {width} bytes")
    needed = HEADER.size + count * width + (2 if kind & 0o10000 else 0)
    if size > needed or (size < needed and not may_be_cut):
        what = "the file is cut" if size < needed else "more follows"
        raise DataError(
            f"HTK {path} byte {min(size, needed)}: expected {needed} bytes ({count} frames of {width}), got {size}; {what}"
        )
