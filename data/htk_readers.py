"""Deserialisers of HTK features and label files; their sequences are utterances, joined by key (htk.py says what the files are).

A key is the name in the script or label file without the leading `*/` and without its extension (a dot, then a letter and up to 7 more
letters or digits), so that `an4/cen5.mfc=train.ark[0,92]` and `"*/an4/cen5.lab"` are the same utterance.
"""

from __future__ import annotations

import os
import re
import weakref
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse as sp

from cogkit.data import htk_native
from cogkit.data.deserializers import Deserializer, Take
from cogkit.data.htk import HEADER, check_header, key_of, units
from cogkit.data.sequences import Fault, Lines, Rows, SequenceDeserializer, first_rows
from cogkit.data.streams import StreamDef, StreamInformation
from cogkit.errors import DataError

__all__ = ["HTKFeatureDeserializer", "HTKMLFDeserializer"]

LINE = re.compile(r"(?:(?P<key>[^=]+)=)?(?P<path>[^=\[\]]+?)(?:\[(?P<first>\d+),(?P<last>\d+)\])?\Z")


class HTKFeatureDeserializer(Deserializer):
    """Reads features that a script names; `streams`: StreamDefs(name=StreamDef(shape=, context=(left, right), scp=)).

    `shape`: numbers in a frame of the files; the stream has shape * (left + 1 + right), the frame with its neighbours, the first and
    last frame repeated at the ends. Without `context`, a shape of 3, 5, ... times a frame takes as many neighbours on both sides.
    Paths in a script are those of the working directory, or of the script's folder if they begin with `.../` or are not there.
    `broadcast`: one frame an utterance, repeated along the other streams. Utterances longer than max_sequence_length are faults.
    Raises ValueError, DataError.
    """

    def __init__(self, streams: Mapping[str, StreamDef]):
        if not streams:
            raise ValueError("HTKFeatureDeserializer: expected one stream or more, got none")
        self.parts: Sequence[FeatureStream] = [FeatureStream(name, spec) for name, spec in streams.items()]
        self.streams = {k: v for p in self.parts for k, v in p.streams.items()}
        self.count, self.identity = self.parts[0].count, "+".join(p.identity for p in self.parts)


class HTKMLFDeserializer(Deserializer):
    """Reads frame labels from master label files; `streams`: StreamDefs(name=StreamDef(shape=, mlf=)), mlf a file or several.

    `label_mapping_file` has one name a line, in the order of their numbers; with '' they are `names`, or numbers where there are
    none. A frame is a one-hot CSR row of `shape` classes; with `phoneBoundaries` its number is 2 where a segment begins. Times are
    in 100 ns, a frame takes `period` seconds.
    Raises ValueError, DataError.
    """

    def __init__(
        self,
        label_mapping_file: str | os.PathLike[str],
        streams: Mapping[str, StreamDef],
        phoneBoundaries: bool = False,  # noqa: N803 CNTK's name
        period: float = 0.01,
        names: Sequence[str | bytes] = (),
    ):
        if not streams:
            raise ValueError("HTKMLFDeserializer: expected one stream or more, got none")
        given = [n if isinstance(n, bytes) else n.encode() for n in names]
        names = _read_names(label_mapping_file) if label_mapping_file else given
        self.parts: Sequence[LabelStream] = [
            LabelStream(name, spec, names, bool(phoneBoundaries), units(period)) for name, spec in streams.items()
        ]
        self.streams = {k: v for p in self.parts for k, v in p.streams.items()}
        self.count, self.identity = self.parts[0].count, "+".join(p.identity for p in self.parts)


def _dimension(label: str, spec: StreamDef, wanted: Sequence[str]) -> int:
    """The stream's shape as one number; checks what else was said."""
    if spec.shape is None or np.prod(spec.shape) < 1:
        raise ValueError(f"{label}: expected the shape of a sample, got {spec.shape!r}")
    for key in ("context", "scp", "mlf", "broadcast", "transforms"):
        if key not in wanted and getattr(spec, key):
            raise ValueError(f"{label}: {key} is not for this stream, got {getattr(spec, key)!r}")
    return int(np.prod(spec.shape))


def _read_text(path: str | os.PathLike[str], what: str) -> str:
    try:
        data = Path(path).read_bytes()
    except OSError as e:
        raise DataError(f"{what}: expected a file, got {e.strerror}: {os.fspath(path)!r}") from None
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise DataError(f"{path} byte {e.start} (line {line}): expected UTF-8, got the byte 0x{data[e.start]:02x}") from None


class FeatureStream(SequenceDeserializer):
    """One script of features."""

    framewise = True

    def __init__(self, name: str, spec: StreamDef):
        label = f"HTKFeatureDeserializer '{name}'"
        shape = _dimension(label, spec, ("scp", "context", "broadcast"))
        if not spec.scp:
            raise ValueError(f"{label}: expected scp=, the script of features, got none")
        self.name, self._scp, self._longest = name, os.fspath(spec.scp), spec.max_sequence_length
        text = _read_text(self._scp, label)
        self.identity = f"htk:{zlib.crc32(text.encode())}"
        if spec.broadcast:
            self.framewise, self.broadcast = False, frozenset([name])
        self.faults: list[Fault] = []
        self._keys: list[str] = []
        self._paths: list[str] = []
        self._heads: list[Head] = []
        self._table(text)
        widths = {h.width for h in self._heads if not h.wrong}
        self._dim = self._find_dim(label, shape, spec.context, widths)
        self._drop_other_widths()
        wide = self._dim * (self._left + 1 + self._right)
        self.streams = {name: StreamInformation(name, 0, "dense", np.float32, (wide,), spec.defines_mb_size)}
        self.count = len(self._keys)

    def _table(self, text: str) -> None:
        """Lines of the script -> keys, files, first bytes, frames; faulty lines go to `faults`."""
        folder = os.path.dirname(os.path.abspath(self._scp))
        by_path: dict[str, int] = {}
        seen: dict[str, int] = {}
        rows: list[tuple[int, int, int]] = []  # (file, byte offset, frames)
        self._where: list[tuple[int, int]] = []  # (byte offset, line) in the script
        at = 0
        for number, line in enumerate(text.split("\n"), 1):
            offset, at = at, at + len(line.encode()) + 1
            line = line.strip()
            if not line:
                continue
            m = LINE.match(line)
            if not m:
                self.faults.append(Fault(self._scp, offset, number, "", f"expected key=path[first,last], got {line[:80]!r}"))
                continue
            key, given = key_of(m["key"] or m["path"]), m["path"]
            if given not in by_path:
                by_path[given] = len(self._paths)
                self._paths.append(_find_path(given, folder))
                self._heads.append(_read_head(self._paths[-1]))
            file = by_path[given]
            head = self._heads[file]
            first = int(m["first"] or 0)
            frames = int(m["last"]) - first + 1 if m["last"] else head.frames
            if not head.wrong and frames > 0 and head.there < first + frames <= head.frames:
                wish = f"expected frames [{first},{first + frames - 1}] up to byte {HEADER.size + (first + frames) * head.width}"
                self.faults.append(Fault(self._paths[file], head.size, 0, key, f"{wish}, got the end of the file; it is cut"))
                continue
            reason = ""
            if head.wrong:
                reason = head.wrong
            elif key in seen:
                reason = f"expected each key once, got it in line {seen[key]} too"
            elif frames < 1:
                reason = f"expected a frame or more, got {frames}"
            elif first + frames > head.frames:
                reason = (
                    f"expected frames in [0, {head.frames - 1}] as {self._paths[file]} has, got [{first},{first + frames - 1}]"
                )
            elif frames > self._longest:
                reason = f"expected at most {self._longest} frames (max_sequence_length), got {frames}"
            elif self.broadcast and frames != 1:
                reason = f"expected one frame (broadcast), got {frames}"
            if reason:
                self.faults.append(Fault(self._scp, offset, number, key, reason))
                continue
            seen[key] = number
            self._keys.append(key)
            rows.append((file, HEADER.size + first * head.width, frames))
            self._where.append((offset, number))
        table = np.array(rows, np.int64).reshape(-1, 3)
        self._file, self._offset, self._frames = (np.ascontiguousarray(table[:, k]) for k in range(3))

    def _find_dim(self, label: str, shape: int, context: tuple[int, int] | None, widths: set[int]) -> int:
        """Numbers in a frame of the files; sets the neighbours."""
        self._left, self._right = (0, 0) if context is None else (int(context[0]), int(context[1]))
        if min(self._left, self._right) < 0:
            raise ValueError(f"{label}: expected context of 0 frames or more on each side, got {context!r}")
        if context is None and len(widths) == 1:
            times, rest = divmod(shape, next(iter(widths)) // 4)
            if not rest and times % 2:
                self._left = self._right = times // 2
                return shape // times
        return shape

    def _drop_other_widths(self) -> None:
        """Utterances of files with other frames become faults."""
        widths = np.array([0 if h.wrong else h.width for h in self._heads], np.int64)
        keep = widths[self._file] == 4 * self._dim
        for i in np.flatnonzero(~keep).tolist():
            got = int(widths[self._file[i]])
            reason = f"expected frames of {self._dim} numbers (the shape) in {self._paths[self._file[i]]}, got {got // 4}"
            self.faults.append(Fault(self._scp, *self._where[i], self._keys[i], reason))
        if not keep.all():
            self._keys = [k for k, good in zip(self._keys, keep, strict=True) if good]
            self._where = [w for w, good in zip(self._where, keep, strict=True) if good]
            self._file, self._offset, self._frames = self._file[keep], self._offset[keep], self._frames[keep]

    def keys(self) -> list[str]:
        return self._keys

    def stream_lengths(self, name: str) -> np.ndarray:
        return self._frames

    def place_of(self, number: int) -> tuple[str, int, int, str]:
        return (self._scp, *self._where[number], self._keys[number])

    def read_sequences(self, numbers: np.ndarray, take: Take, threads: int, raw: bool) -> tuple[Rows, list[tuple[int, Fault]]]:
        file, offset, frames = self._file[numbers], self._offset[numbers], self._frames[numbers]
        left, right = (0, 0) if raw else (self._left, self._right)
        used, file = np.unique(file, return_inverse=True)
        out = take((int(frames.sum()), self._dim * (left + 1 + right)), np.float32)
        paths = [os.fsencode(self._paths[k]) for k in used.tolist()]
        found = htk_native.read_frames(paths, file.astype(np.int64), offset, frames, self._dim, left, right, out, threads)
        faults = []
        for i, at, code, got in found:
            path, key = os.fsdecode(paths[file[i]]), self._keys[numbers[i]]
            if code == htk_native.CODES["read"]:
                reason = f"expected {frames[i]} frames of {4 * self._dim} bytes, got {os.strerror(got) if got else 'the end of the file'}"
            else:
                reason = f"expected finite numbers, got one that is not in frame {got}"
            faults.append((i, Fault(path, at, 0, key, reason)))
        return {self.name: (out, frames)}, faults

    def pick(self, name: str, rows: Any, begin: np.ndarray, end: np.ndarray, at: np.ndarray, take: Take) -> np.ndarray:
        out = take((len(at), self._dim * (self._left + 1 + self._right)), np.float32)
        begin, end, at = map(np.ascontiguousarray, (begin, end, at))  # one of several ranks has each n-th
        htk_native.splice(rows, begin, end, at, self._left, self._right, out)
        return out


def _find_path(given: str, folder: str) -> str:
    """Where a file of a script is."""
    if given.startswith((".../", "...\\")):
        return os.path.join(folder, given[4:])
    beside = os.path.join(folder, given)
    return beside if not os.path.exists(given) and os.path.exists(beside) else given


class Head(NamedTuple):
    """What a feature file says and is: `there` of `frames` frames of `width` bytes, in `size` bytes; `wrong`: why it cannot be read."""

    frames: int = 0
    there: int = 0
    width: int = 0
    size: int = 0
    wrong: str = ""


def _read_head(path: str) -> Head:
    try:
        with open(path, "rb") as f:
            head, size = f.read(HEADER.size), os.fstat(f.fileno()).st_size
    except OSError as e:
        return Head(wrong=f"expected a feature file, got {e.strerror}: {path}")
    if len(head) < HEADER.size:
        return Head(size=size, wrong=f"expected a header of {HEADER.size} bytes in {path}, got {len(head)}; the file is cut")
    count, _, width, kind = HEADER.unpack(head)
    there = min(count, (size - HEADER.size) // width) if width > 0 else 0
    try:
        check_header(path, count, width, kind, size, may_be_cut=True)
    except DataError as e:
        return Head(count, there, width, size, str(e))
    return Head(count, there, width, size)


def _read_names(path: str | os.PathLike[str]) -> list[bytes]:
    """Label names, one a line; a name may be followed by other words."""
    names = [line.split()[0].encode() for line in _read_text(path, "HTKMLFDeserializer").splitlines() if line.strip()]
    if not names:
        raise DataError(f"HTKMLFDeserializer: expected a name or more in {os.fspath(path)}, got none")
    if len(set(names)) < len(names):
        twice = next(n for i, n in enumerate(names) if n in names[:i])
        raise DataError(f"HTKMLFDeserializer: expected each name once in {os.fspath(path)}, got {twice.decode()!r} again")
    return names


class LabelStream(SequenceDeserializer):
    """One or more label files."""

    framewise = True

    def __init__(self, name: str, spec: StreamDef, names: list[bytes], boundaries: bool, unit: int):
        label = f"HTKMLFDeserializer '{name}'"
        self._classes = _dimension(label, spec, ("mlf",))
        if not spec.mlf:
            raise ValueError(f"{label}: expected mlf=, the label file, got none")
        if len(names) > self._classes:
            raise ValueError(f"{label}: expected a shape of {len(names)} classes or more, as many as names, got {self._classes}")
        self.name, self._names, self._boundaries, self._unit = name, htk_native.Names(names), boundaries, unit
        self.faults: list[Fault] = []
        self._files = [os.fspath(spec.mlf)] if isinstance(spec.mlf, (str, os.PathLike)) else [os.fspath(p) for p in spec.mlf]
        self._fds: list[int] = []
        self._lines: list[Lines] = []
        self._keys: list[str] = []
        tables = []
        self.identity = "mlf"
        for file, path in enumerate(self._files):
            tables.append(self._scan(label, file, path, spec.max_sequence_length))
        self._file, self._begin, self._end, self._frames = (np.concatenate(c) for c in zip(*tables, strict=True))
        self.streams = {name: StreamInformation(name, 0, "sparse", np.float32, (self._classes,), spec.defines_mb_size)}
        self.count = len(self._keys)

    def _scan(self, label: str, file: int, path: str, longest: int) -> tuple[np.ndarray, ...]:
        """(file, begin, end, frames) of the utterances of a file; faulty ones go to `faults`."""
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError as e:
            raise DataError(f"{label}: expected a label file, got {e.strerror}: {path!r}") from None
        weakref.finalize(self, os.close, fd)
        self._fds.append(fd)
        self._lines.append(Lines(fd))
        size = os.fstat(fd).st_size
        keys, at, begin, end, last, found = htk_native.scan_labels(fd, size)
        self.identity += f":{size}:{zlib.crc32(keys)}"
        frames = (last + self._unit // 2) // self._unit
        keep = np.ones(len(begin), bool)
        texts: list[str] = []
        for i, (a, b) in enumerate(zip(at[:-1].tolist(), at[1:].tolist(), strict=True)):
            try:
                texts.append(key_of(keys[a:b].decode()))
            except UnicodeDecodeError as e:
                texts.append(keys[a:b].decode(errors="replace"))
                offset = int(begin[i]) - 2 - (b - a) + e.start
                self.faults.append(
                    Fault(
                        path,
                        offset,
                        self._lines[file].at(offset),
                        texts[-1],
                        f"expected UTF-8, got the byte 0x{keys[a + e.start]:02x}",
                    )
                )
                keep[i] = False
        reasons = {
            "read": "expected text, got what cannot be read",
            "head": "expected a label file that begins with #!MLF!#, got another line",
            "key": "expected a line with the key in quotes, got another one",
            "end": "expected a line with a dot after the labels of an utterance, got none; the file is cut",
            "line": "expected start, end and name, got another line",
        }
        for i, offset, code, _ in found:
            key = texts[i] if i < len(texts) and code != htk_native.CODES["key"] else ""
            reason = next(r for k, r in reasons.items() if htk_native.CODES[k] == code)
            self.faults.append(Fault(path, offset, self._lines[file].at(offset), key, reason))
            if key:
                keep[i] = False
        for i in np.flatnonzero(keep & ((frames < 1) | (frames > longest))).tolist():
            offset = int(begin[i])
            reason = f"expected 1 to {longest} frames (max_sequence_length), got {frames[i]}"
            self.faults.append(Fault(path, offset, self._lines[file].at(offset), texts[i], reason))
            keep[i] = False
        self._keys += [k for k, good in zip(texts, keep, strict=True) if good]
        return np.full(int(keep.sum()), file), begin[keep], end[keep], frames[keep]

    def keys(self) -> list[str]:
        return self._keys

    def stream_lengths(self, name: str) -> np.ndarray:
        return self._frames

    def place_of(self, number: int) -> tuple[str, int, int, str]:
        file, offset = int(self._file[number]), int(self._begin[number])
        return self._files[file], offset, self._lines[file].at(offset), self._keys[number]

    def read_sequences(self, numbers: np.ndarray, take: Take, threads: int, raw: bool) -> tuple[Rows, list[tuple[int, Fault]]]:
        frames = self._frames[numbers]
        first = first_rows(frames)
        label, starts = np.empty(int(first[-1]), np.int32), np.empty(int(first[-1]), np.uint8)
        faults = []
        for file in np.unique(self._file[numbers]).tolist():
            mine = np.flatnonzero(self._file[numbers] == file)
            begin, end = self._begin[numbers[mine]], self._end[numbers[mine]]
            labels, begins, found = htk_native.read_labels(
                self._fds[file], begin, end, frames[mine], self._unit, self._classes, self._names, threads, self.every_fault
            )
            if len(mine) == len(numbers):
                label, starts = labels, begins
            else:
                rows = np.repeat(first[mine] - first_rows(frames[mine])[:-1], frames[mine]) + np.arange(len(labels))
                label[rows], starts[rows] = labels, begins
            faults += [(int(mine[i]), self._fault(file, int(numbers[mine[i]]), at, code, got)) for i, at, code, got in found]
        values = np.ones(len(label), np.float32)
        if self._boundaries:
            values += starts
        pointers = np.arange(len(label) + 1, dtype=np.int32)
        return {self.name: (sp.csr_matrix((values, label, pointers), shape=(len(label), self._classes)), frames)}, faults

    def _fault(self, file: int, number: int, offset: int, code: int, got: int) -> Fault:
        word = os.pread(self._fds[file], 80, offset).split(b"\n")[0]
        name = word.split()[0].decode(errors="replace") if word.split() else ""
        known = f"one of {len(self._names)} names" if len(self._names) else f"a number in [0, {self._classes})"
        reasons = {
            "read": f"expected labels, got {os.strerror(got) if got else 'the end of the file'}",
            "line": f"expected start, end and name, got {word.decode(errors='replace')!r}",
            "gap": f"expected segments one after the other, got one at frame {got}",
            "label": f"expected {known}, got {name!r}",
            "utf8": f"expected UTF-8, got the byte 0x{got:02x}",
            "changed": f"expected {self._frames[number]} frames, as the last segment says, got {got}",
        }
        reason = next(r for k, r in reasons.items() if htk_native.CODES[k] == code)
        return Fault(self._files[file], offset, self._lines[file].at(offset), self._keys[number], reason)
