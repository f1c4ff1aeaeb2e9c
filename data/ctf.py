"""CNTK's text format (CTF): a line is one sample of each stream that it names, a sequence is the lines of one id.

    19 |features 0.1 0.2 |labels 3:1 |# a remark
    19 |features 0.3 0.4
    20 |features 0.5 0.6 |labels 0:1

A remark goes on to the next bar. A line without an id goes on with the sequence before it; if the first line has none, every line is a
sequence of one sample. A sparse sample is index:value, a dense one all its numbers. Streams of a sequence may have different lengths.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import weakref
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse as sp

from cogkit.data import ctf_native
from cogkit.data.deserializers import Take
from cogkit.data.format import write_aside
from cogkit.data.recipe import cache_folder
from cogkit.data.sequences import Fault, Lines, Rows, SequenceDeserializer, available_threads, first_rows
from cogkit.data.streams import StreamConfiguration, StreamDef, StreamInformation
from cogkit.errors import DataError

__all__ = ["CTFDeserializer", "sequence_to_cntk_text_format", "write_ctf"]

MAGIC = b"cogkit\x00I"
VERSION = 1
MAX_HEADER = 1 << 20
ALIGN = 64
IN_MEMORY = 1 << 27  # bytes: the text of a file that is no larger is kept, so that a random order costs no system calls


def write_ctf(path: str | os.PathLike[str], sequences: Iterable[Mapping[str, Any]], sparse: Iterable[str] = ()) -> None:
    """Writes sequences, each a dict stream -> array (length, dim) or CSR (length, dim), as text; sequence i has the id i.

    Streams may have different lengths. Dense arrays of streams named in `sparse` are written as index:value. Numbers are
    written as short as they can be read back to the same float32 or float64. Raises ValueError, DataError (not finite).
    """
    sparse = set(sparse)
    with write_aside(path) as aside, open(aside, "x", encoding="utf-8") as f:
        for i, sequence in enumerate(sequences):
            columns = [_lines(i, name, rows, name in sparse) for name, rows in sequence.items()]
            length = max((len(c) for c in columns), default=0)
            if not length:
                raise ValueError(f"CTF {path}: expected one sample or more in sequence {i}, got none")
            for t in range(length):
                f.write(f"{i} {' '.join(c[t] for c in columns if t < len(c))}\n")


def _lines(i: int, name: str, rows: Any, sparse: bool) -> list[str]:
    """`|name values` for each sample."""
    if not name or any(c.isspace() or c in "|#" for c in name):
        raise ValueError(f"CTF: expected stream names without spaces, '|' and '#', got {name!r}")
    if hasattr(rows, "tocsr"):
        rows = rows.tocsr()
        values, at = rows.data, rows.indptr
    else:
        rows = np.asarray(rows)
        if rows.ndim == 0 or rows.dtype.kind not in "fiu":
            raise ValueError(f"CTF sequence {i}, stream '{name}': expected numbers (length, dim), got {rows.dtype}{rows.shape}")
        values = rows = rows.reshape(len(rows), -1)
        at = None
    if not np.isfinite(values).all():
        raise DataError(f"CTF sequence {i}, stream '{name}': expected finite numbers, got {values[~np.isfinite(values)][0]}")
    if values.dtype == np.float32 and at is None:
        text = ctf_native.format_rows(np.ascontiguousarray(values), f"|{name}".encode(), sparse)
        return text.decode().split("\n")[:-1]
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    # str() of a NumPy float is the shortest text that reads back to it; `.0` says nothing here.
    texts = [t.removesuffix(".0") for t in values.ravel().astype(str).tolist()]
    if at is not None:
        return [
            f"|{name} " + " ".join(f"{k}:{v}" for k, v in zip(rows.indices[a:b].tolist(), texts[a:b], strict=True))
            for a, b in zip(at[:-1].tolist(), at[1:].tolist(), strict=True)
        ]
    dim = rows.shape[1]
    parts = [texts[t * dim : (t + 1) * dim] for t in range(len(rows))]
    if sparse:
        return [f"|{name} " + " ".join(f"{k}:{v}" for k, v in enumerate(p) if v not in ("0", "-0")) for p in parts]
    return [f"|{name} " + " ".join(p) for p in parts]


def sequence_to_cntk_text_format(seq_idx: int, alias_tensor_map: Mapping[str, Any]) -> str:
    """One sequence as text: `alias_tensor_map` has alias -> array (length, ...) or CSR (length, dim), or a list of arrays.

    CNTK's function: streams in the order of their names, lines without a last line end. Raises ValueError.
    """
    columns = []
    for alias in sorted(alias_tensor_map):
        rows = alias_tensor_map[alias]
        if not hasattr(rows, "tocsr"):
            try:
                rows = np.asarray(rows)
            except ValueError:
                rows = np.empty(0, object)
            if rows.dtype.kind not in "biuf":
                raise ValueError(
                    f"sequence_to_cntk_text_format: expected an array of numbers or CSR for '{alias}', got {alias_tensor_map[alias]!r}"
                )
            rows = rows.astype(np.float32) if rows.dtype.kind == "b" else rows
        if rows.shape[0]:
            columns.append(_lines(seq_idx, alias, rows, False))
    length = max((len(c) for c in columns), default=0)
    return "\n".join(f"{seq_idx}\t" + " ".join(c[t] for c in columns if t < len(c)) for t in range(length))


class Index:
    """Where the sequences of a file are: `offsets` (count + 1,), `ids` (count,) or None, `lengths`: name -> (count,) or None for ones."""

    def __init__(self, offsets: np.ndarray, ids: np.ndarray | None, lengths: dict[str, np.ndarray | None]):
        self.offsets, self.ids, self.lengths = offsets, ids, lengths
        self.count = len(offsets) - 1

    def save(self, path: Path, stamp: list[int]) -> None:
        """Writes it aside, then renames; `stamp` says which file it is of."""
        arrays = {"offsets": self.offsets} | ({} if self.ids is None else {"ids": self.ids})
        arrays |= {f"stream {name}": a for name, a in self.lengths.items() if a is not None}
        entries: list[tuple[str, str, int, int]] = []
        at = 0
        for name, a in arrays.items():
            entries.append((name, a.dtype.str, len(a), at))
            at += -(-a.nbytes // ALIGN) * ALIGN
        head = {"format": VERSION, "stamp": stamp, "ones": [n for n, a in self.lengths.items() if a is None], "arrays": entries}
        text = json.dumps(head, separators=(",", ":")).encode()
        start = -(-(16 + len(text)) // ALIGN) * ALIGN
        with write_aside(path) as aside, open(aside, "xb") as f:
            f.write(MAGIC + len(text).to_bytes(8, "little") + text)
            for (_, _, _, offset), a in zip(entries, arrays.values(), strict=True):
                f.seek(start + offset)
                f.write(np.ascontiguousarray(a))
            f.truncate(start + at)

    @staticmethod
    def load(path: Path, stamp: list[int]) -> Index | None:
        """The index in a file, memory-mapped; None if there is none, it is of another file, or it is not whole."""
        try:
            with open(path, "rb") as f:
                head = f.read(16)
                size = int.from_bytes(head[8:], "little")
                if head[:8] != MAGIC or size > MAX_HEADER:
                    return None
                fields = json.loads(f.read(size))
            if fields["format"] != VERSION or fields["stamp"] != stamp:
                return None
            whole = np.memmap(path, np.uint8, "r")
            start = -(-(16 + size) // ALIGN) * ALIGN
            arrays = {}
            for name, kind, n, at in fields["arrays"]:
                if kind not in ("<i8", "<u8", "<i4") or min(n, at) < 0 or start + at + n * int(kind[2]) > len(whole):
                    return None
                arrays[name] = whole[start + at : start + at + n * int(kind[2])].view(kind)
            offsets, ids = arrays.pop("offsets"), arrays.pop("ids", None)
            lengths = {name: None for name in fields["ones"]} | {n.removeprefix("stream "): a for n, a in arrays.items()}
            if any(a is not None and len(a) != len(offsets) - 1 for a in [ids, *lengths.values()]):
                return None
            return Index(offsets, ids, lengths)
        except (OSError, ValueError, KeyError, TypeError):
            return None


class CTFDeserializer(SequenceDeserializer):
    """Reads a text file of sequences; `streams`: StreamDefs with field (the name in the file), shape, is_sparse, or StreamConfigurations.

    Dense streams come as float32 (samples, *shape), sparse ones as CSR (samples, dim). The file is looked through once, for an index
    of its sequences; `cache_index` keeps that: True beside the file (else in the cache folder), or a folder. It is made again when
    the file's size or time changes. Raises ValueError, TypeError, DataError.

    Example:
        CTFDeserializer('train.ctf', StreamDefs(
            words=StreamDef(field='S0', shape=943, is_sparse=True),
            slots=StreamDef(field='S2', shape=129, is_sparse=True)))
    """

    concurrent = True

    def __init__(
        self,
        filename: str | os.PathLike[str],
        streams: Mapping[str, StreamDef] | Sequence[StreamConfiguration],
        cache_index: bool | str | os.PathLike[str] = False,
    ):
        self.filename = os.fspath(filename)
        self._specs = _specs(streams)
        self._fd = _open(self.filename)
        weakref.finalize(self, os.close, self._fd)
        self._lines = Lines(self._fd)
        state = os.fstat(self._fd)
        self._size = state.st_size
        self._text = ctf_native.text_of(self._fd, self._size) if self._size <= IN_MEMORY else None
        self._index = self._find_index([self._size, state.st_mtime_ns], cache_index)
        self.count = self._index.count
        ends = os.pread(self._fd, 1 << 16, 0) + os.pread(self._fd, 1 << 16, max(0, self._size - (1 << 16)))
        self.identity = f"ctf:{self._size}:{self.count}:{zlib.crc32(ends)}"
        self.streams = {}
        for i, (name, spec) in enumerate(self._specs.items()):
            field = spec.field or name
            if field not in self._index.lengths and self.count:
                known = ", ".join(sorted(self._index.lengths)[:20])
                raise DataError(
                    f"CTFDeserializer '{self.filename}': expected stream '{field}' in the file, got {known or 'none'}"
                )
            shape = (int(spec.shape),) if np.isscalar(spec.shape) else tuple(int(d) for d in spec.shape)  # type: ignore
            kind = "sparse" if spec.is_sparse else "dense"
            self.streams[name] = StreamInformation(name, i, kind, np.float32, shape, spec.defines_mb_size)

    def _find_index(self, stamp: list[int], cache: bool | str | os.PathLike[str]) -> Index:
        path = None
        if cache:
            whole = os.path.abspath(self.filename)
            elsewhere = f"{os.path.basename(whole)}.{hashlib.sha256(whole.encode()).hexdigest()[:16]}.index"
            if cache is not True:
                path = Path(cache) / elsewhere
            elif os.access(os.path.dirname(whole), os.W_OK):
                path = Path(whole + ".index")
            else:
                path = cache_folder() / "index" / elsewhere
            found = Index.load(path, stamp)
            if found is not None:
                return found
        offsets, ids, columns, faults = ctf_native.scan(self._fd, self._size, available_threads(), text=self._text)
        if faults:
            raise DataError(str(self._fault(faults[0])))
        lengths: dict[str, np.ndarray | None] = {}
        for name, samples in columns:
            try:
                lengths[name.decode()] = None if (samples == 1).all() else samples
            except UnicodeDecodeError:
                continue  # no one can ask for it; the parser says where it is
        index = Index(offsets, ids, lengths)
        if path is not None:
            index.save(path, stamp)
            index = Index.load(path, stamp) or index  # from the file, it takes no memory of its own
        return index

    def keys(self) -> np.ndarray | None:
        return self._index.ids

    def stream_lengths(self, name: str) -> np.ndarray | None:
        return self._index.lengths.get(self._specs[name].field or name)

    def place_of(self, number: int) -> tuple[str, int, int, str]:
        offset = int(self._index.offsets[number])
        return self.filename, offset, self._lines.at(offset), self._key(number)

    def _key(self, number: int) -> str:
        return str(number if self._index.ids is None else self._index.ids[number])

    def read_sequences(self, numbers: np.ndarray, take: Take, threads: int, raw: bool) -> tuple[Rows, list[tuple[int, Fault]]]:
        begin, end = self._index.offsets[numbers].astype(np.int64), self._index.offsets[numbers + 1].astype(np.int64)
        if len(numbers) and not (begin.min() >= 0 and (begin <= end).all() and end.max() <= self._size):
            raise DataError(
                f"CTFDeserializer '{self.filename}': expected an index of this file, got offsets outside it; delete the index"
            )
        names, dims, rows, firsts, lengths = [], [], [], [], []
        for name, info in self.streams.items():
            of_all = self.stream_lengths(name)
            lengths.append(np.ones(len(numbers), np.int64) if of_all is None else of_all[numbers].astype(np.int64))
            if len(numbers) and lengths[-1].min() < 0:
                raise DataError(
                    f"CTFDeserializer '{self.filename}': expected an index of this file, got negative lengths; delete the index"
                )
            firsts.append(first_rows(lengths[-1]))
            names.append((self._specs[name].field or name).encode())
            dims.append(math.prod(info.shape))
            rows.append(None if info.storage_format == "sparse" else take((int(firsts[-1][-1]), dims[-1]), np.float32))
        sparse, found, rising = ctf_native.read(
            self._fd, begin, end, names, dims, rows, firsts, threads, self.every_fault, self._text
        )
        out: Rows = {}
        for (name, info), dense, triple, length in zip(self.streams.items(), rows, sparse, lengths, strict=True):
            if dense is not None:
                out[name] = (dense.reshape(-1, *info.shape), length)
                continue
            sizes, indices, values = triple
            kind = np.int32 if len(indices) < 2**31 else np.int64
            pointers = np.zeros(len(sizes) + 1, kind)
            np.cumsum(sizes, out=pointers[1:])
            matrix = sp.csr_matrix((values, indices, pointers), shape=(len(sizes), math.prod(info.shape)))
            if not rising:
                matrix.sum_duplicates()
            out[name] = (matrix, length)
        return out, [(f[0], self._fault(f, int(numbers[f[0]]))) for f in found]

    def _fault(self, fault: tuple[int, ...], number: int | None = None) -> Fault:
        _, offset, code, stream, got = fault
        text = os.pread(self._fd, 40, offset)
        word = text.replace(b"\n", b" ").replace(b"|", b" ").split(b" ")[0].decode(errors="replace")
        name = list(self._specs)[stream] if stream >= 0 else ""
        field = f"stream '{self._specs[name].field or name}'" if name else ""
        dim = int(np.prod(self.streams[name].shape)) if name else 0
        reasons = {
            "read": f"expected text, got {os.strerror(got) if got else 'the end of the file: it was cut after its index was made'}",
            "text": f"expected '|' and the name of a stream, got {text[:12].decode(errors='replace')!r}",
            "number": f"{field}: expected a number, got {word!r}",
            "not finite": f"{field}: expected a finite float32, got {word!r}",
            "few": f"{field}: expected {dim} numbers in a sample, got {got}",
            "many": f"{field}: expected {dim} numbers in a sample, got {got}",
            "index": f"{field}: expected an index in [0, {dim}), got {word!r}",
            "pair": f"{field}: expected index:value, got {word!r}",
            "twice": f"{field}: expected one sample in a line, got two",
            "empty": f"{field}: expected a sample or more in the sequence, got none",
            "utf8": f"expected UTF-8, got the byte 0x{got:02x}",
            "changed": f"{field}: expected as many samples as when the file was indexed, got {got or 'more'}; open the file again",
            "streams": "expected lines of text with '|' and names of streams, got more than 1000 names",
        }
        reason = next(reasons[k] for k, v in ctf_native.CODES.items() if v == code)
        return Fault(self.filename, offset, self._lines.at(offset), "" if number is None else self._key(number), reason)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as e:
        raise DataError(f"CTFDeserializer: expected a text file, got {e.strerror}: {path!r}") from None


def _specs(streams: Mapping[str, StreamDef] | Sequence[StreamConfiguration]) -> dict[str, StreamDef]:
    """Stream definitions by name, checked."""
    if not isinstance(streams, Mapping):
        streams = {
            c.name: StreamDef(
                field=c.stream_alias or c.name, shape=c.dim, is_sparse=c.is_sparse, defines_mb_size=c.defines_mb_size
            )
            for c in streams
        }
    if not streams:
        raise ValueError("CTFDeserializer: expected one stream or more, got none")
    for name, spec in streams.items():
        if spec.shape is None or np.prod(spec.shape) < 1:
            raise ValueError(f"CTFDeserializer: stream '{name}': expected the shape of a sample, got {spec.shape!r}")
        if spec.is_sparse and np.prod(spec.shape) > 2**31 - 1:
            raise ValueError(f"CTFDeserializer: stream '{name}': expected a dimension below 2**31, got {spec.shape!r}")
        for key, plain in (("transforms", None), ("context", None), ("scp", None), ("mlf", None), ("broadcast", None)):
            if getattr(spec, key) not in (plain, ()) and getattr(spec, key):
                raise ValueError(f"CTFDeserializer: stream '{name}': {key} is not for text, got {getattr(spec, key)!r}")
    fields = [spec.field or name for name, spec in streams.items()]
    if len(set(fields)) < len(fields):
        raise ValueError(f"CTFDeserializer: expected each field of the file in one stream, got {', '.join(fields)}")
    return dict(streams.items())
