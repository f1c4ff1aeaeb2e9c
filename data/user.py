"""Deserialisers that users write."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse as sp

from cogkit.data.deserializers import Take
from cogkit.data.sequences import Fault, Rows, SequenceDeserializer, first_rows
from cogkit.data.streams import StreamInformation
from cogkit.errors import DataError
from cogkit.variables import Record

__all__ = ["UserDeserializer"]


class UserDeserializer(SequenceDeserializer):
    """Base of deserialisers written by users: give `stream_infos`, `num_chunks` and `get_chunk`.

    Every chunk is asked for once to count its sequences, and again when it is their turn; the `keep` chunks that were used last
    are held (a source sets that to its window). A chunk must be the same each time. Raises DataError for one that is not well formed.
    """

    keep = 2

    def stream_infos(self) -> list[StreamInformation]:
        """All streams."""
        raise NotImplementedError

    def num_chunks(self) -> int:
        """How many chunks there are."""
        raise NotImplementedError

    def get_chunk(self, chunk_id: int) -> dict[str, Any]:
        """Stream name -> an array or CSR, a row a sample; or a list of arrays or CSR, one a sequence."""
        raise NotImplementedError

    @cached_property
    def streams(self) -> Record:  # type: ignore[override]
        infos = {i.name: i for i in self.stream_infos()}
        if not infos:
            raise ValueError(f"{type(self).__name__}: expected one stream or more, got none")
        return Record(**infos)

    @cached_property
    def _held(self) -> dict[int, dict[str, Any]]:
        return {}

    @cached_property
    def _lengths(self) -> dict[str, np.ndarray]:
        if not self.num_chunks():
            raise ValueError(f"{type(self).__name__}: expected one chunk or more, got none")
        parts: dict[str, list[np.ndarray]] = {name: [] for name in self.streams}
        counts = []
        for c in range(self.num_chunks()):
            chunk = self._chunk(c)
            each = {name: self._count(c, chunk, info) for name, info in self.streams.items()}
            if len({len(n) for n in each.values()}) > 1:
                raise DataError(
                    f"{type(self).__name__}, chunk {c}: expected streams with as many sequences, got "
                    + ", ".join(f"{name} of {len(n)}" for name, n in each.items())
                )
            for name, n in each.items():
                parts[name].append(n)
            counts.append(len(n))
        self.chunks = first_rows(np.array(counts))
        return {name: np.concatenate(p) for name, p in parts.items()}

    def _count(self, c: int, chunk: dict[str, Any], info: StreamInformation) -> np.ndarray:
        """Samples of each sequence of a stream of a chunk."""
        if info.name not in chunk:
            raise DataError(f"{type(self).__name__}, chunk {c}: expected stream '{info.name}', got {', '.join(chunk)}")
        value = chunk[info.name]
        if not isinstance(value, list):
            return np.ones(value.shape[0], np.int64)
        return np.array([len(_rows(self, c, v, info)) if isinstance(v, np.ndarray) else v.shape[0] for v in value], np.int64)

    def _chunk(self, c: int) -> dict[str, Any]:
        held = self._held
        if c not in held:
            while len(held) >= max(1, self.keep):
                held.pop(next(iter(held)))
            held[c] = self.get_chunk(c)
        else:
            held[c] = held.pop(c)  # the one used last
        return held[c]

    @cached_property
    def count(self) -> int:  # type: ignore[override]
        return len(next(iter(self._lengths.values())))

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        return f"{type(self).__name__}:{self.num_chunks()}:{self.count}"

    def stream_lengths(self, name: str) -> np.ndarray:
        return self._lengths[name]

    def place_of(self, number: int) -> tuple[str, int, int, str]:
        return type(self).__name__, 0, 0, str(number)

    def read_sequences(self, numbers: np.ndarray, take: Take, threads: int, raw: bool) -> tuple[Rows, list[tuple[int, Fault]]]:
        lengths = {name: n[numbers] for name, n in self._lengths.items()}
        first = self.chunks
        assert first is not None
        of = np.searchsorted(first, numbers, side="right") - 1
        pieces: dict[str, list[Any]] = {name: [None] * len(numbers) for name in self.streams}
        for c in np.unique(of).tolist():
            chunk = self._chunk(c)
            for i in np.flatnonzero(of == c).tolist():
                k = int(numbers[i] - first[c])
                for name, info in self.streams.items():
                    value = chunk[name]
                    pieces[name][i] = _rows(self, c, value[k] if isinstance(value, list) else value[k : k + 1], info)
        out: Rows = {}
        for name, info in self.streams.items():
            if info.storage_format == "sparse":
                empty = sp.csr_matrix((0, int(np.prod(info.shape))), dtype=info.dtype)
                out[name] = sp.vstack([empty, *pieces[name]], format="csr", dtype=info.dtype), lengths[name]
            else:
                rows = take((int(lengths[name].sum()), *info.shape), info.dtype)
                if pieces[name]:
                    np.concatenate(pieces[name], out=rows, casting="same_kind")
                out[name] = rows, lengths[name]
        return out, []


def _rows(d: UserDeserializer, c: int, value: Any, info: StreamInformation) -> Any:
    """One sequence: (samples, *shape), or CSR (samples, dim)."""
    if info.storage_format == "sparse":
        dim = int(np.prod(info.shape))
        if not sp.issparse(value) or value.shape[1] != dim:
            raise DataError(
                f"{type(d).__name__}, chunk {c}, stream '{info.name}': expected CSR (., {dim}), got {type(value).__name__}"
            )
        return value
    value = np.asarray(value)
    if value.shape == info.shape:
        return value[None]
    if value.shape[1:] != info.shape:
        raise DataError(
            f"{type(d).__name__}, chunk {c}, stream '{info.name}': expected samples of shape {info.shape}, got {value.shape}"
        )
    return value
