"""Minibatch sources.

The order contract. With N samples, place p of the timeline (0, 1, 2, ...) is place p mod N of sweep p div N, and the sample
there is a permutation keyed by (randomization_seed, sweep) alone, or p mod N itself without randomisation. So

- every sweep has every sample once; the order does not depend on minibatch sizes, ranks, threads or prefetching;
- a minibatch is the next `minibatch_size` places for all ranks together; rank i of n takes those places p with p mod n = i.
  All ranks see the same number of minibatches and the same position; a rank may get no rows in a short one;
- minibatches go across the end of a sweep, and `end_of_sweep` says so, on every rank; the last one may be short; then `{}`;
- what transforms draw is a function of (seed, sweep, sample, transform);
- the position is one number (and the seed and data that it holds for), can be taken between any two minibatches and restored
  on another number of ranks.

The same with sequences: places are those of whole sequences, a permutation of them is a sweep, and

- a minibatch is the next sequences that together have no more than `minibatch_size` samples, one at least; what counts are the
  samples of the stream that `defines_mb_size`, else of the longest stream of each sequence;
- a rank has the sequences at places p with p mod n = i; the position is a place and the samples before it;
- `frame_mode`: every frame is a sample. The sequences of a sweep, in their order, are cut into windows of 2**17 frames
  (`randomization_window_in_samples`, if given), whose frames are permuted by (seed, sweep, window); the position is a number of frames;
- `truncation_length` T: minibatch_size // T slots, each with one sequence, give their next T samples each; a slot that ran out
  begins the next sequence of the timeline in the next minibatch. MinibatchData has `slots` and `begins`. Rank i has slots s with
  s mod n = i; the position also has the sequence and offset of each slot;
- sequences of a deserialiser that is read in chunks (UserDeserializer): chunks are permuted, then the sequences of each
  `randomization_window_in_chunks` of them; the order is a function of (seed, sweep) and that window;
- a sequence that cannot be read keeps its place, its samples are left out: neither order nor position depend on faults.

CNTK 2.7 differs: it randomises within windows of chunks and gives ranks whole chunks, so that its order depends on both; its
sweep s with seed k equals its sweep 0 with seed k + s. It fills a slot with the beginning of the next sequence in the same minibatch.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from cogkit.data.deserializers import Deserializer
from cogkit.data.packing import POSITION, Frames, Order, Pieces, Samples, Sequences
from cogkit.data.prefetch import Prefetcher
from cogkit.data.sequences import Fault, Joined, SequenceDeserializer, available_threads
from cogkit.data.streams import (
    DEFAULT_RANDOMIZATION_WINDOW_IN_CHUNKS,
    FULL_DATA_SWEEP,
    INFINITELY_REPEAT,
    MinibatchData,
    StreamInformation,
    by_stream,
)
from cogkit.data.user import UserDeserializer
from cogkit.errors import DataError
from cogkit.variables import Record

__all__ = ["MinibatchSource", "MinibatchSourceFromData", "UserMinibatchSource"]


def _whole(value: Any, low: int, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected a whole number of {low} or more, got {value!r}") from None
    if number < low:
        raise ValueError(f"{name}: expected a whole number of {low} or more, got {number}")
    return number


class _Streams:
    """What every source has: streams by name."""

    _infos: dict[str, StreamInformation]

    def stream_infos(self) -> list[StreamInformation]:
        """All streams."""
        return list(self._infos.values())

    def stream_info(self, name: str) -> StreamInformation:
        """The stream of this name; ValueError if there is none."""
        infos = {i.name: i for i in self.stream_infos()}
        if name not in infos:
            raise ValueError(f"minibatch source: expected one of its streams ({', '.join(infos)}), got {name!r}")
        return infos[name]

    def __getitem__(self, name: str) -> StreamInformation:
        return self.stream_info(name)

    @property
    def streams(self) -> Record:
        """Streams as attributes: source.streams.features."""
        return Record(**{i.name: i for i in self.stream_infos()})

    @property
    def current_position(self) -> dict[str, Any]:
        """The state that `restore_from_checkpoint` takes; may be assigned."""
        return self.get_checkpoint_state()  # type: ignore[attr-defined]

    @current_position.setter
    def current_position(self, position: Mapping[str, Any]) -> None:
        self.restore_from_checkpoint(position)  # type: ignore[attr-defined]

    wait_seconds = 0.0


class MinibatchSource(_Streams):
    """Minibatches of one deserialiser or of several joined by the key of their sequences; the order contract is above.

    `max_samples` (FULL_DATA_SWEEP: one sweep) or `max_sweeps` end it. `max_errors`: so many sequences with a fault are left out and
    listed in `errors`; one more is a DataError. `prefetch`: minibatches made ahead on a thread, 0 for none; `wait_seconds` is the time
    that next_minibatch spent waiting for them. `multithreaded_deserializer=False`: files are parsed on one thread.
    `randomization_window_in_chunks` and `_in_samples` are taken as CNTK takes them (both 0: no randomisation), but outside frame_mode
    the window is always the whole data set. Raises ValueError, TypeError, DataError.
    """

    def __init__(
        self,
        deserializers: Deserializer | Sequence[Deserializer],
        max_samples: int = INFINITELY_REPEAT,
        max_sweeps: int = INFINITELY_REPEAT,
        randomization_window_in_chunks: int = DEFAULT_RANDOMIZATION_WINDOW_IN_CHUNKS,
        randomization_window_in_samples: int = 0,
        randomization_seed: int = 0,
        trace_level: Any = None,
        multithreaded_deserializer: bool | None = None,
        frame_mode: bool = False,
        truncation_length: int = 0,
        randomize: bool = True,
        max_errors: int = 0,
        *,
        prefetch: int = 2,
    ):
        parts = [deserializers] if isinstance(deserializers, Deserializer) else list(deserializers)
        if not parts:
            raise ValueError("MinibatchSource: expected one deserializer or more, got none")
        for d in parts:
            if not isinstance(d, Deserializer):
                raise TypeError(f"MinibatchSource: expected deserializers, got {type(d).__name__}")
        parts = [p for d in parts for p in d.parts]
        truncation_length = _whole(truncation_length or 0, 0, "truncation_length")
        if frame_mode and truncation_length:
            raise ValueError("MinibatchSource: expected frame_mode or truncation_length, got both")
        self._infos = {}
        for d in parts:
            for name, info in d.streams.items():
                if name in self._infos:
                    raise ValueError(f"MinibatchSource: expected streams of different names, got '{name}' twice")
                self._infos[name] = StreamInformation(
                    name, len(self._infos), info.storage_format, info.dtype, info.shape, info.defines_mb_size
                )
        max_samples, max_sweeps = _whole(max_samples, 1, "max_samples"), _whole(max_sweeps, 1, "max_sweeps")
        if max_samples != INFINITELY_REPEAT and max_sweeps != INFINITELY_REPEAT:
            raise ValueError("MinibatchSource: expected max_samples or max_sweeps, got both")
        sweeps = 1 if FULL_DATA_SWEEP in (max_samples, max_sweeps) else None if max_sweeps == INFINITELY_REPEAT else max_sweeps
        self._seed = _whole(randomization_seed, 0, "randomization_seed")
        self._randomize = bool(randomize) and bool(randomization_window_in_chunks or randomization_window_in_samples)
        self._identity = "+".join(d.identity for d in parts)
        self.errors: list[Fault] = []
        self._max_errors = _whole(max_errors, 0, "max_errors")
        joined = Joined(parts, must_be_even=bool(frame_mode or truncation_length))
        self._note(joined.faults)
        sequential = any(isinstance(d, SequenceDeserializer) for d in parts)
        kind: Any = Samples if joined.sizes is None else Sequences
        options = {}
        if frame_mode and sequential:
            kind, options = Frames, {"window": randomization_window_in_samples}
        elif truncation_length:
            kind, options = Pieces, {"length": truncation_length}
        if not joined.count:
            raise DataError("MinibatchSource: expected data, got no sequence at all")
        threads = 1 if multithreaded_deserializer is False else available_threads()
        limit = max_samples if sweeps is None and max_samples != INFINITELY_REPEAT else None
        chunks = parts[0].chunks if joined.numbers[0] is None and isinstance(parts[0], SequenceDeserializer) else None
        window = randomization_window_in_chunks or DEFAULT_RANDOMIZATION_WINDOW_IN_CHUNKS
        for d in parts:
            if isinstance(d, UserDeserializer):
                d.keep = window + 1 if self._randomize else 2
        by = Order(joined.count, self._seed, self._randomize, chunks, window)
        workers = min(2, threads) if all(d.concurrent for d in parts) else 1  # two: more would hold more minibatches ahead
        self._packing: Samples = kind(joined, by, len(self._infos), limit, sweeps, max(1, threads // workers), **options)
        if not self._packing.per_sweep:
            raise DataError("MinibatchSource: expected data, got sequences without a sample")
        self._position = self._packing.start
        self._ahead = Prefetcher(self._packing.make, _whole(prefetch, 1, "prefetch"), workers) if prefetch else None

    def _note(self, faults: list[Fault]) -> None:
        """Lists new faults; DataError if there are more than max_errors."""
        new = [f for f in dict.fromkeys(faults) if f not in self.errors]
        if len(self.errors) + len(new) <= self._max_errors:
            self.errors += new
            return
        if not self._max_errors and len(new) == 1:
            raise DataError(str(new[0]))
        listed = "\n  ".join(str(f) for f in [*self.errors, *new][:20])
        raise DataError(
            f"MinibatchSource: expected at most {self._max_errors} faults (max_errors), "
            f"got {len(self.errors) + len(new)}; mend the files or allow more:\n  {listed}"
        )

    def next_minibatch(
        self,
        minibatch_size_in_samples: int,
        input_map: Mapping[Any, Any] | None = None,
        device: Any = None,
        num_data_partitions: int | None = None,
        partition_index: int | None = None,
    ) -> dict[Any, MinibatchData]:
        """The next minibatch by stream, or by the variables of `input_map` (variable -> stream); {} when there is no more.

        With partitions the size is that of all ranks together, and this rank's share comes back. `device` is not looked at.
        """
        size = _whole(minibatch_size_in_samples, 1, "minibatch_size_in_samples")
        partitions = _whole(1 if num_data_partitions is None else num_data_partitions, 1, "num_data_partitions")
        partition = _whole(partition_index or 0, 0, "partition_index")
        if partition >= partitions:
            raise ValueError(f"partition_index: expected less than num_data_partitions = {partitions}, got {partition}")
        if self._packing.ended(self._position):
            return {}
        key = (self._position, size, partitions, partition)
        if self._ahead is None:
            made = self._packing.make(key)[0]
            data, position, faults = made() if callable(made) else made
        else:
            data, position, faults = self._ahead.get(key)
        if faults:
            self._note(faults)
        self._position = position
        return by_stream(self._infos, data, input_map)

    def get_next_minibatch(
        self, size: int, num_data_partitions: int = 1, partition_index: int = 0, device: Any = None
    ) -> dict[StreamInformation, MinibatchData]:
        """The call that every kind of source has, for training loops."""
        return self.next_minibatch(size, None, device, num_data_partitions, partition_index)

    def key_of(self, sequence: int) -> str:
        """The key of a sequence by its number, as in MinibatchData.sequences."""
        return self._packing.joined.key_of(sequence)

    def is_infinite(self) -> bool:
        """Whether it never ends."""
        return self._packing.limit is None

    def get_checkpoint_state(self) -> dict[str, Any]:
        """A small dict of numbers and strings; the same on every rank."""
        return {**self._packing.state(self._position), **self._same()}

    def _same(self) -> dict[str, Any]:
        """What must be the same when a position is restored."""
        return {**self._packing.same(), "randomized": self._randomize, "seed": self._seed, "data": self._identity}

    def restore_from_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Goes to a saved position; DataError if it was saved with other data or another seed."""
        if not isinstance(checkpoint, Mapping) or POSITION not in checkpoint:
            raise DataError(f"MinibatchSource: expected a checkpoint with '{POSITION}', got {checkpoint!r}")
        for key, mine in self._same().items():
            if checkpoint.get(key, mine) != mine:
                raise DataError(f"MinibatchSource: expected a checkpoint made with {key} = {mine!r}, got {checkpoint[key]!r}")
        self._position = self._packing.restore(checkpoint)

    @property
    def wait_seconds(self) -> float:  # type: ignore[override]
        """Seconds that next_minibatch has waited for the thread."""
        return self._ahead.wait_seconds if self._ahead else 0.0

    def close(self) -> None:
        """Ends the thread; also done when the source is collected and when Python exits."""
        if self._ahead:
            self._ahead.close()

    def __enter__(self) -> MinibatchSource:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


class UserMinibatchSource(_Streams):
    """Base of sources written by users: give `stream_infos`, `next_minibatch` and, to be resumed, the two checkpoint methods."""

    @cached_property
    def _infos(self) -> dict[str, StreamInformation]:  # type: ignore[override]
        return {i.name: i for i in self.stream_infos()}

    def stream_infos(self) -> list[StreamInformation]:
        """All streams."""
        raise NotImplementedError

    def next_minibatch(
        self, num_samples: int, number_of_workers: int = 1, worker_rank: int = 0, device: Any = None
    ) -> dict[Any, Any]:
        """A dict StreamInformation -> MinibatchData; {} when there is no more."""
        raise NotImplementedError

    def get_next_minibatch(
        self, size: int, num_data_partitions: int = 1, partition_index: int = 0, device: Any = None
    ) -> dict[Any, Any]:
        """The call that every kind of source has, for training loops."""
        return self.next_minibatch(size, num_data_partitions, partition_index, device)

    def is_infinite(self) -> bool:
        """Whether it never ends."""
        return False

    def get_checkpoint_state(self) -> dict[str, Any]:
        """What restore_from_checkpoint needs."""
        return {}

    def restore_from_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Goes to a saved position."""
        raise NotImplementedError


class MinibatchSourceFromData(UserMinibatchSource):
    """Arrays (or SciPy CSR matrices) as they are, in order, minibatches never across the end of a sweep; rows are not copied.

    `data_streams`: name -> array, or name -> (array, type). Raises ValueError, TypeError.
    """

    def __init__(self, data_streams: Mapping[str, Any], max_samples: int = INFINITELY_REPEAT):
        if not data_streams:
            raise ValueError("MinibatchSourceFromData: expected one stream or more as name=array, got none")
        self._data: dict[str, Any] = {}
        infos = []
        for i, (name, value) in enumerate(data_streams.items()):
            array = value[0] if isinstance(value, tuple) else value
            sparse = hasattr(array, "indptr") and hasattr(array, "tocsr")
            if not sparse and not isinstance(array, np.ndarray):
                raise TypeError(
                    f"MinibatchSourceFromData: expected a NumPy array or SciPy CSR matrix for '{name}', "
                    f"got {type(array).__name__}"
                )
            self._data[name] = array
            infos.append(StreamInformation(name, i, "sparse" if sparse else "dense", array.dtype.type, tuple(array.shape[1:])))
        lengths = {name: a.shape[0] for name, a in self._data.items()}
        if len(set(lengths.values())) > 1:
            raise TypeError(
                "MinibatchSourceFromData: expected arrays of one length, got "
                + ", ".join(f"{k} of {n}" for k, n in lengths.items())
            )
        self._count = next(iter(lengths.values()))
        if not self._count:
            raise ValueError("MinibatchSourceFromData: expected data, got no row at all")
        max_samples = _whole(max_samples, 1, "max_samples")
        self._limit = self._count if max_samples == FULL_DATA_SWEEP else max_samples
        self._list = infos
        self._cursor = self._total = 0

    def stream_infos(self) -> list[StreamInformation]:
        return self._list

    def is_infinite(self) -> bool:
        return self._limit == INFINITELY_REPEAT

    def next_minibatch(
        self,
        num_samples: int,
        number_of_workers: int = 1,
        worker_rank: int = 0,
        device: Any = None,
        *,
        input_map: Mapping[Any, Any] | None = None,
    ) -> dict[Any, MinibatchData]:
        """The next rows; with workers, every number_of_workers-th of them from worker_rank."""
        size, workers = _whole(num_samples, 1, "num_samples"), _whole(number_of_workers, 1, "number_of_workers")
        rank = _whole(worker_rank, 0, "worker_rank")
        if rank >= workers:
            raise ValueError(f"worker_rank: expected less than number_of_workers = {workers}, got {rank}")
        if self._total >= self._limit:
            return {}
        begin = self._cursor
        end = min(begin + size, self._count, begin + self._limit - self._total)
        self._total += end - begin
        ends = end == self._count or self._total >= self._limit
        self._cursor = 0 if end == self._count else end
        data = {}
        for name, array in self._data.items():
            rows = array[begin + rank : end : workers]
            data[name] = MinibatchData(rows, rows.shape[0], rows.shape[0], ends)
        return by_stream(self._infos, data, input_map)

    def get_checkpoint_state(self) -> dict[str, Any]:
        return {"cursor": self._cursor, "total_num_samples": self._total}

    def restore_from_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Goes to a saved position; DataError for one that these arrays do not have."""
        try:
            cursor, total = operator.index(checkpoint["cursor"]), operator.index(checkpoint["total_num_samples"])
        except (TypeError, KeyError):
            raise DataError(
                f"MinibatchSourceFromData: expected a checkpoint with 'cursor' and 'total_num_samples', got {checkpoint!r}"
            ) from None
        if not 0 <= cursor < self._count or total < 0:
            raise DataError(f"MinibatchSourceFromData: expected a cursor in [0, {self._count}), got {cursor}")
        self._cursor, self._total = cursor, total
