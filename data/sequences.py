"""Deserialisers of sequences, faults in their files, and the join of several deserialisers by key."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse as sp

from cogkit.data.deserializers import Deserializer, Take
from cogkit.errors import DataError

__all__ = ["Fault", "SequenceDeserializer"]

Rows = dict[str, tuple[Any, np.ndarray | None]]  # stream -> (rows of all sequences, lengths; None: one row a sequence, no axis)


@dataclass(frozen=True)
class Fault:
    """What is wrong with a sequence and where: `offset` in bytes, `line` from 1 (0: not text), `key` of the sequence ('': of none)."""

    file: str
    offset: int
    line: int
    key: str
    reason: str

    def __str__(self) -> str:
        line = f" (line {self.line})" if self.line else ""
        key = f", sequence '{self.key}'" if self.key else ""
        return f"{self.file} byte {self.offset}{line}{key}: {self.reason}"


class SequenceDeserializer(Deserializer):
    """The contract of a file of sequences. A source counts its `faults` like those that `read_sequences` finds.

    `framewise`: its streams have as many samples as those of every other framewise deserialiser of the source.
    """

    faults: Sequence[Fault] = ()
    framewise = False
    every_fault = False  # whether a sequence is read on after its first fault
    chunks: np.ndarray | None = None  # first sequence of each chunk, and the end, where it must be read in chunks
    broadcast: frozenset[str] = frozenset()  # streams of one sample a sequence, repeated along the others

    def keys(self) -> np.ndarray | list[str] | None:
        """Of the sequences, numbers (count,) or strings, to join by; None: it is joined by number."""
        return None

    def stream_lengths(self, name: str) -> np.ndarray | None:
        """Samples of a stream in each sequence, (count,); None: one in each."""
        raise NotImplementedError

    def place_of(self, number: int) -> tuple[str, int, int, str]:
        """(file, byte offset, line, key) of a sequence, for messages."""
        raise NotImplementedError

    def read_sequences(self, numbers: np.ndarray, take: Take, threads: int, raw: bool) -> tuple[Rows, list[tuple[int, Fault]]]:
        """Rows of the sequences `numbers` (n,), and (place in numbers, fault) of those that cannot be read.

        Faulty sequences keep their places and lengths, their rows mean nothing. `raw`: what `pick` wants, not yet complete rows.
        """
        raise NotImplementedError

    def read_samples(
        self, numbers: np.ndarray, sweep: np.ndarray, seed: int, take: Take, threads: int, raw: bool
    ) -> tuple[Rows, list[tuple[int, Fault]]]:
        """The same of sequences as they appear in `sweep` (n,), for a deserialiser that draws."""
        return self.read_sequences(numbers, take, threads, raw)

    def pick(self, name: str, rows: Any, begin: np.ndarray, end: np.ndarray, at: np.ndarray, take: Take) -> Any:
        """Complete rows `at` (n,) of raw ones; begin, end (n,): where the sequence of each lies in `rows`."""
        if sp.issparse(rows):
            return rows[at]
        out = take((len(at), *rows.shape[1:]), rows.dtype)
        np.take(rows, at, axis=0, out=out, mode="clip")
        return out


class Lines:
    """Line numbers of a file by byte offset; what was counted once is kept."""

    BLOCK = 1 << 22

    def __init__(self, fd: int):
        self._fd, self._before = fd, [0]

    def at(self, offset: int) -> int:
        """The line (from 1) of a byte."""
        block = offset // self.BLOCK
        while len(self._before) <= block:
            k = len(self._before) - 1
            self._before.append(self._before[k] + os.pread(self._fd, self.BLOCK, k * self.BLOCK).count(b"\n"))
        return self._before[block] + os.pread(self._fd, offset - block * self.BLOCK, block * self.BLOCK).count(b"\n") + 1


def available_threads() -> int:
    """How many threads a reader takes unless told otherwise."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def first_rows(lengths: np.ndarray) -> np.ndarray:
    """Where the rows of each sequence begin, (n + 1,) int64."""
    out = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def keep_sequences(rows: Rows, keep: np.ndarray) -> Rows:
    """The sequences of `keep` (n,) bool, without the others."""
    out: Rows = {}
    for name, (value, lengths) in rows.items():
        mask = keep if lengths is None else np.repeat(keep, lengths)
        out[name] = (value[mask], None if lengths is None else lengths[keep])
    return out


def repeat_rows(value: Any, lengths: np.ndarray) -> Any:
    """One row a sequence, as often as the sequence is long."""
    return value[np.repeat(np.arange(len(lengths)), lengths)]


class Joined:
    """Deserialisers joined by key, or by number where one of two has no keys. Sequences are counted as the first one has them.

    `sizes` (count,): samples of each sequence, by the stream that defines the minibatch size, else of the longest; None: all 1.
    `even`: all streams (but broadcast ones) have that many samples; their lack of it is a fault where `must_be_even`.
    """

    def __init__(self, parts: Sequence[Deserializer], must_be_even: bool = False):
        self.parts = list(parts)
        self.faults: list[Fault] = [f for d in parts if isinstance(d, SequenceDeserializer) for f in d.faults]
        first = parts[0]
        chosen = np.arange(first.count)
        self.numbers: list[np.ndarray | None] = [None]
        looked_at: set[int] = set()
        self._again: list[int] = []  # sequences of the first whose key was there before
        for d in parts[1:]:
            self.numbers.append(self._match(first, d, looked_at))
        if self._again:
            chosen = np.delete(chosen, self._again)
        for number in self.numbers[1:]:
            if number is not None:
                chosen = chosen[number[chosen] >= 0]
        chosen = self._framewise(chosen)
        self.sizes, uneven = self._sizes(chosen)
        if must_be_even and uneven.any():
            self._report_uneven(chosen[uneven])
            chosen = chosen[~uneven]
            self.sizes = None if self.sizes is None else self.sizes[~uneven]
        if len(chosen) < first.count:
            self.numbers = [chosen if n is None else n[chosen] for n in self.numbers]
        self.count = len(chosen)
        self.broadcast = {name for d in parts if isinstance(d, SequenceDeserializer) for name in d.broadcast}

    def _match(self, first: Deserializer, other: Deserializer, looked_at: set[int]) -> np.ndarray | None:
        mine = first.keys() if isinstance(first, SequenceDeserializer) else None
        others = other.keys() if isinstance(other, SequenceDeserializer) else None
        if mine is None or others is None:
            if first.count != other.count:
                raise DataError(
                    f"MinibatchSource: expected deserializers of one length, got {first.count}, {other.count} sequences; "
                    "what has no keys is joined by number"
                )
            return None
        for d, keys in ((first, mine), (other, others)):
            if id(d) not in looked_at:
                looked_at.add(id(d))
                again = self._unique(d, keys)  # type: ignore[arg-type]
                self._again = again if d is first else self._again
        if not len(others):
            out = np.full(len(mine), -1, np.int64)
        elif isinstance(mine, np.ndarray) and isinstance(others, np.ndarray):
            if np.array_equal(mine, others):
                return None
            by_key = np.argsort(others, kind="stable")
            out = by_key[np.searchsorted(others, mine, sorter=by_key).clip(max=len(others) - 1)]
            out[others[out] != mine] = -1
        else:
            table = {str(k): i for i, k in reversed(list(enumerate(others)))}
            out = np.fromiter((table.get(str(k), -1) for k in mine), np.int64, len(mine))
        told = {f.key for f in other.faults}  # why it is not there
        for i in np.flatnonzero(out < 0).tolist():
            if str(mine[i]) in told:
                continue
            where = other.place_of(0)[0] if len(others) else other.identity
            place: tuple[str, int, int, str] = first.place_of(i)
            self.faults.append(Fault(*place, f"expected this key in {where} too, got none"))
        return out

    def _unique(self, d: SequenceDeserializer, keys: np.ndarray | list[str]) -> list[int]:
        if isinstance(keys, np.ndarray):
            by_key = np.argsort(keys, kind="stable")
            again = np.sort(by_key[1:][keys[by_key][1:] == keys[by_key][:-1]]).tolist()
        else:
            seen: set[str] = set()
            again = [i for i, k in enumerate(keys) if k in seen or seen.add(k)]  # type: ignore[func-returns-value]
        for i in again:
            self.faults.append(Fault(*d.place_of(int(i)), "expected each key once in files that are joined by it, got it again"))
        return again

    def _framewise(self, chosen: np.ndarray) -> np.ndarray:
        """Leaves out, as faults, sequences of which two framewise files have different numbers of frames."""
        held = [
            (d, n) for d, n in zip(self.parts, self.numbers, strict=True) if isinstance(d, SequenceDeserializer) and d.framewise
        ]
        for d, number in held[1:]:
            mine, theirs = self._frames(*held[0], chosen), self._frames(d, number, chosen)
            for i in np.flatnonzero(mine != theirs).tolist():
                j = int(chosen[i] if number is None else number[chosen[i]])
                k = int(chosen[i] if held[0][1] is None else held[0][1][chosen[i]])
                where = held[0][0].place_of(k)[0]
                self.faults.append(Fault(*d.place_of(j), f"expected {mine[i]} frames as in {where}, got {theirs[i]}"))
            chosen = chosen[mine == theirs]
        return chosen

    @staticmethod
    def _frames(d: SequenceDeserializer, number: np.ndarray | None, chosen: np.ndarray) -> np.ndarray:
        name = next(n for n in d.streams if n not in d.broadcast)
        lengths = d.stream_lengths(name)
        at = chosen if number is None else number[chosen]
        return np.ones(len(at), np.int64) if lengths is None else lengths[at]

    def _each_length(self, chosen: np.ndarray) -> list[tuple[Any, np.ndarray | None]]:
        out: list[tuple[Any, np.ndarray | None]] = []
        for d, number in zip(self.parts, self.numbers, strict=True):
            for info in d.streams.values():
                if not isinstance(d, SequenceDeserializer):
                    out.append((info, None))
                elif info.name not in d.broadcast:
                    lengths = d.stream_lengths(info.name)
                    out.append((info, None if lengths is None else lengths[chosen if number is None else number[chosen]]))
        return out

    def _sizes(self, chosen: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        each = self._each_length(chosen)
        uneven = np.zeros(len(chosen), bool)
        defining = [length for info, length in each if info.defines_mb_size]
        if len(defining) > 1:
            raise ValueError("MinibatchSource: expected one stream at most with defines_mb_size, got two")
        sizes = None
        for _, lengths in each:
            if lengths is not None:
                sizes = lengths if sizes is None else np.maximum(sizes, lengths)
        if sizes is not None:
            for _, lengths in each:
                uneven |= sizes != (1 if lengths is None else lengths)
        sizes = defining[0] if defining else sizes
        return (None if sizes is None or (sizes == 1).all() else sizes), uneven

    def _report_uneven(self, numbers: np.ndarray) -> None:
        each = self._each_length(numbers)
        first = self.parts[0]
        for i, number in enumerate(numbers.tolist()):
            parts = ", ".join(f"{info.name} of {1 if lengths is None else lengths[i]}" for info, lengths in each)
            place = first.place_of(number) if isinstance(first, SequenceDeserializer) else ("", 0, 0, str(number))
            self.faults.append(Fault(*place, f"expected streams of one length (frame_mode, truncation_length), got {parts}"))

    def read(
        self, places: np.ndarray, sweep: np.ndarray, seed: int, take: Take, threads: int, raw: bool = False
    ) -> tuple[Rows, list[tuple[int, Fault]]]:
        """Rows of all streams for the sequences `places` (n,), and (place in `places`, fault)."""
        rows: Rows = {}
        faults: list[tuple[int, Fault]] = []
        for d, number in zip(self.parts, self.numbers, strict=True):
            at = places if number is None else number[places]
            if isinstance(d, SequenceDeserializer):
                new, bad = d.read_samples(at, sweep, seed, take, threads, raw)
                rows |= new
                faults += bad
            else:
                rows |= {name: (value, None) for name, value in d.read(at, sweep, seed, take).items()}
        others = [lengths for name, (_, lengths) in rows.items() if name not in self.broadcast and lengths is not None]
        if self.broadcast and others:
            longest = np.maximum.reduce(others)
            for name in self.broadcast:
                rows[name] = (repeat_rows(rows[name][0], longest), longest)
        return rows, faults

    def pick(self, rows: Rows, begin: np.ndarray, end: np.ndarray, at: np.ndarray, take: Take) -> dict[str, Any]:
        """Complete rows `at` (n,) of what `read` gave with raw=True; begin, end (n,): where the sequence of each lies."""
        out = {}
        for d in self.parts:
            for name in d.streams:
                if isinstance(d, SequenceDeserializer) and name not in self.broadcast:
                    out[name] = d.pick(name, rows[name][0], begin, end, at, take)
                else:
                    out[name] = rows[name][0][at]
        return out

    def key_of(self, place: int) -> str:
        """The key of a sequence, as its first file names it."""
        first, chosen = self.parts[0], self.numbers[0]
        number = place if chosen is None else int(chosen[place])
        return first.place_of(number)[3] if isinstance(first, SequenceDeserializer) else str(number)
