"""What a minibatch holds: samples, whole sequences, frames of all sequences, or pieces of sequences. Each class has one of the orders
that source.py promises, as a function of the position alone: `make(key)`, key = (position, size, partitions, partition), gives
((data by stream, position after, faults), key that comes next or None). A packing knows no source: it runs on the prefetching thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import sparse as sp

from cogkit.data.native import permutation, philox
from cogkit.data.prefetch import Ring
from cogkit.data.sequences import Fault, Joined, Rows, first_rows, keep_sequences
from cogkit.data.streams import MinibatchData
from cogkit.errors import DataError

__all__ = ["Frames", "Pieces", "Samples", "Sequences"]

POSITION = "minibatchSourcePosition"  # CNTK's key: samples so far
FRAME_WINDOW = 1 << 17  # frames that frame mode shuffles among each other
FRAMES, CHUNKS = 0x6672616D6573, 0x6368756E6B73  # purposes of random numbers

Made = tuple[dict[str, MinibatchData], Any, list[Fault]]


def order(seed: int, sweep: int, count: int, start: int = 0, stop: int | None = None, randomize: bool = True) -> np.ndarray:
    """Samples at places start..stop of a sweep over `count` samples, int64; needs no memory of the rest."""
    stop = count if stop is None else stop
    return permutation(seed, sweep, count, start, stop) if randomize else np.arange(start, stop, dtype=np.int64)


class Order:
    """Sequences by place of a sweep. With `chunks`, the first sequence of each and the end, chunks are permuted, and sequences only
    within `window` chunks that follow each other; all of it by (seed, sweep)."""

    def __init__(self, count: int, seed: int, randomize: bool, chunks: np.ndarray | None = None, window: int = 1):
        self.count, self.seed, self.randomize, self.window = count, seed, randomize, max(1, window)
        self.chunks = chunks if randomize else None
        self._sweeps: dict[int, np.ndarray] = {}

    def __call__(self, sweep: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        stop = self.count if stop is None else stop
        if self.chunks is None:
            return order(self.seed, sweep, self.count, start, stop, self.randomize)
        if sweep not in self._sweeps:
            while len(self._sweeps) > 1:
                self._sweeps.pop(next(iter(self._sweeps)))
            self._sweeps[sweep] = self._by_chunks(sweep)
        return self._sweeps[sweep][start:stop]

    def _by_chunks(self, sweep: int) -> np.ndarray:
        first = self.chunks
        assert first is not None
        shuffled = order(self.seed, sweep, len(first) - 1)
        parts = []
        for at in range(0, len(shuffled), self.window):
            numbers = np.concatenate([np.arange(first[c], first[c + 1]) for c in shuffled[at : at + self.window]])
            key = int(philox((self.seed, CHUNKS), (1, sweep, at, 0))[0])
            parts.append(numbers[permutation(key, sweep, len(numbers), 0, len(numbers))])
        return np.concatenate(parts)


def minibatch_places(
    position: int,
    stop: int,
    count: int,
    seed: int,
    randomize: bool,
    partitions: int = 1,
    partition: int = 0,
    by: Order | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(sample, sweep), both int64 (n,), of one rank's places in position..stop of the timeline."""
    by = by or Order(count, seed, randomize)
    samples, sweeps = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    at = position
    while at < stop:
        sweep, first = divmod(at, count)
        last = min(count, first + stop - at)
        mine = slice((partition - at) % partitions, None, partitions)
        samples.append(by(sweep, first, last)[mine])
        sweeps.append(np.full(len(samples[-1]), sweep, np.int64))
        at += last - first
    return np.concatenate(samples), np.concatenate(sweeps)


class Samples:
    """Every sequence is one sample, or is counted as one. The position is a place of the timeline."""

    start: Any = 0

    def __init__(self, joined: Joined, order: Order, streams: int, max_samples: int | None, max_sweeps: int | None, threads: int):
        self.joined, self.count, self.sizes = joined, joined.count, joined.sizes
        self.order, self.seed, self.randomize, self.threads = order, order.seed, order.randomize, threads
        self.max_samples, self.max_sweeps = max_samples, max_sweeps
        self.ring = Ring(8 * streams)
        self.per_sweep = self.count if self.sizes is None else int(np.sum(self.sizes, dtype=np.int64))
        self.limit = max_samples if max_sweeps is None else self.per_sweep * max_sweeps

    def samples_at(self, position: Any) -> int:
        """Samples before a position."""
        return position

    def ended(self, position: Any) -> bool:
        """Whether there is nothing from here on."""
        return self.limit is not None and self.samples_at(position) >= self.limit

    def state(self, position: Any) -> dict[str, Any]:
        """What a checkpoint holds besides what must be the same when it is restored."""
        return {POSITION: position}

    def restore(self, state: Mapping[str, Any]) -> Any:
        """The position of a state; DataError if it is none of this packing."""
        return whole(state, POSITION)

    def same(self) -> dict[str, Any]:
        """What must be the same when a position is restored."""
        return {"sweepSize": self.per_sweep}

    def make(self, key: tuple[Any, int, int, int]) -> tuple[Made | Callable[[], Made], Any]:
        """A minibatch, or a function that reads it, and the key that comes next."""
        position, size, partitions, partition = key
        places, sweeps, after, ends = self.plan(position, size)
        mine = np.arange(len(places))[self.mine(position, partitions, partition)]

        def read() -> Made:
            try:
                data, faults = self.read(places[mine], sweeps[mine], ends)
            except Exception as e:
                first, last = (p if isinstance(p, int) else p[0] for p in (position, after))
                some = ", ".join(map(str, places[mine][:5])) + (", ..." if len(mine) > 5 else "")
                e.add_note(
                    f"while reading places {first} to {last} of the timeline (sweep {first // self.count}, samples {some})"
                )
                raise
            return data, after, faults

        return read, (None if self.ended(after) else (after, size, partitions, partition))

    def mine(self, position: Any, partitions: int, partition: int) -> slice:
        """Which of the places from a position on are one rank's."""
        return slice((partition - position) % partitions, None, partitions)

    def plan(self, position: Any, size: int) -> tuple[np.ndarray, np.ndarray, Any, bool]:
        """(sequences, sweeps, position after, whether a sweep ends) of all ranks' minibatch."""
        stop = position + size if self.limit is None else min(position + size, self.limit)
        sample, sweep = minibatch_places(position, stop, self.count, self.seed, self.randomize, by=self.order)
        return sample, sweep, stop, stop // self.count > position // self.count

    def read(self, places: np.ndarray, sweeps: np.ndarray, ends: bool) -> tuple[dict[str, MinibatchData], list[Fault]]:
        """Data of whole sequences, without those that cannot be read."""
        rows, found = self.joined.read(places, sweeps, self.seed, self.ring.take, self.threads)
        if found:
            keep = np.ones(len(places), bool)
            keep[[i for i, _ in found]] = False
            rows, places = keep_sequences(rows, keep), places[keep]
        data = {}
        for name, (value, lengths) in rows.items():
            data[name] = MinibatchData(value, len(places), value.shape[0], ends, lengths=lengths, sequences=places)
        return data, [f for _, f in found]


class Sequences(Samples):
    """Whole sequences: as many of the next ones as `size` samples hold, one at least. The position: (place, samples so far)."""

    start = (0, 0)

    def samples_at(self, position: Any) -> int:
        return position[1]

    def ended(self, position: Any) -> bool:
        if self.max_sweeps is not None:
            return position[0] >= self.count * self.max_sweeps
        return super().ended(position)

    def state(self, position: Any) -> dict[str, Any]:
        return {POSITION: position[1], "sequence": position[0]}

    def restore(self, state: Mapping[str, Any]) -> Any:
        samples = whole(state, POSITION)
        if "sequence" in state:
            return whole(state, "sequence"), samples
        sweep, rest = divmod(samples, self.per_sweep)  # CNTK's state has the samples alone
        sizes = self.sizes[self.order(sweep)]
        return sweep * self.count + int(np.searchsorted(np.cumsum(sizes, dtype=np.int64), rest)) + bool(rest), samples

    def same(self) -> dict[str, Any]:
        return super().same() | {"sequences": self.count}

    def mine(self, position: Any, partitions: int, partition: int) -> slice:
        return super().mine(position[0], partitions, partition)

    def plan(self, position: Any, size: int) -> tuple[np.ndarray, np.ndarray, Any, bool]:
        place, samples = position
        room = size if self.max_samples is None else min(size, self.max_samples - samples)
        last = None if self.max_sweeps is None else self.count * self.max_sweeps
        numbers, sweeps = [], []
        at, used, guess = place, 0, 1 + room * self.count // max(1, self.per_sweep)
        while last is None or at < last:
            sweep, first = divmod(at, self.count)
            new = self.order(sweep, first, min(self.count, first + guess))
            total = used + np.cumsum(self.sizes[new], dtype=np.int64)
            fit = int(np.searchsorted(total, room, side="right"))
            if at == place:
                fit = max(fit, 1)
            if fit:
                used = int(total[fit - 1])
                numbers.append(new[:fit])
                sweeps.append(np.full(fit, sweep, np.int64))
                at += fit
            if fit < len(new) or used >= room:
                break
        return np.concatenate(numbers), np.concatenate(sweeps), (at, samples + used), at // self.count > place // self.count


class Frames(Samples):
    """Every frame is a sample, without a sequence axis. The position is a number of frames.

    Sequences in the order of the sweep are cut into windows of about `window` frames, which are read whole and shuffled.
    """

    def __init__(self, *args: Any, window: int = 0):
        super().__init__(*args)
        self.window = window or FRAME_WINDOW
        self._sweeps: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._windows: dict[tuple[int, int], Any] = {}

    def same(self) -> dict[str, Any]:
        return super().same() | {"frameWindow": self.window}

    def plan_sweep(self, sweep: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(sequences in order, their first frames (count + 1,), the windows' first places (windows + 1,)) of a sweep."""
        if sweep not in self._sweeps:
            numbers = self.order(sweep)
            first = np.arange(self.count + 1) if self.sizes is None else first_rows(self.sizes[numbers])
            cuts = np.append(np.unique(np.searchsorted(first[:-1], np.arange(0, self.per_sweep, self.window))), self.count)
            while len(self._sweeps) > 1:
                self._sweeps.pop(next(iter(self._sweeps)))
            self._sweeps[sweep] = numbers, first, np.unique(cuts)
        return self._sweeps[sweep]

    def load(self, sweep: int, w: int) -> tuple[Rows, np.ndarray, np.ndarray, np.ndarray, list[Fault]]:
        """(raw rows, first rows of its sequences, order of its frames, which sequences are sound, faults) of a window."""
        if (sweep, w) not in self._windows:
            numbers, first, cuts = self.plan_sweep(sweep)
            places = numbers[cuts[w] : cuts[w + 1]]
            while len(self._windows) > 1:
                self._windows.pop(next(iter(self._windows)))
            rows, found = self.joined.read(places, np.full(len(places), sweep), self.seed, np.empty, self.threads, raw=True)
            sound = np.ones(len(places), bool)
            sound[[i for i, _ in found]] = False
            starts = first[cuts[w] : cuts[w + 1] + 1] - first[cuts[w]]
            n = int(starts[-1])
            key = int(philox((self.seed, FRAMES), (1, sweep, w, 0))[0])
            shuffled = permutation(key, sweep, n, 0, n) if self.randomize else np.arange(n)
            self._windows[sweep, w] = rows, starts, shuffled, sound, [f for _, f in found]
        return self._windows[sweep, w]

    def make(self, key: tuple[Any, int, int, int]) -> tuple[Made, Any]:
        position, size, partitions, partition = key
        stop = position + size if self.limit is None else min(position + size, self.limit)
        pieces: list[dict[str, Any]] = []
        faults: list[Fault] = []
        at = position
        while at < stop:
            sweep, first = divmod(at, self.per_sweep)
            _, frames, cuts = self.plan_sweep(sweep)
            begins = frames[cuts]  # of the windows, in places of the sweep
            w = int(np.searchsorted(begins, first, side="right")) - 1
            last = min(int(begins[w + 1]), first + stop - at)
            rows, starts, shuffled, sound, found = self.load(sweep, w)
            mine = shuffled[first - begins[w] : last - begins[w]][(partition - at) % partitions :: partitions]
            j = np.searchsorted(starts, mine, side="right") - 1
            if found:
                mine, j = mine[sound[j]], j[sound[j]]
                faults += found
            pieces.append(self.joined.pick(rows, starts[j], starts[j + 1], mine, self.ring.take))
            at += last - first
        ends = stop // self.per_sweep > position // self.per_sweep
        data = {}
        for name in pieces[0]:
            value = pieces[0][name] if len(pieces) == 1 else concatenate([p[name] for p in pieces])
            data[name] = MinibatchData(value, value.shape[0], value.shape[0], ends)
        return (data, stop, faults), (None if self.ended(stop) else (stop, size, partitions, partition))


class Pieces(Samples):
    """Truncated back-propagation: size // length slots, each with one utterance, of which a minibatch has the next `length` samples.

    A slot that has come to the end of its utterance begins the next one of the timeline in the next minibatch. So sequence i of a
    minibatch goes on where slot `slots[i]` stopped, unless `begins[i]`. The position: (place, samples so far, ((place, offset) of
    each slot), those that no slot has room for). Slots are dealt to ranks; they are the same for any number of ranks.
    """

    start = (0, 0, (), ())

    def __init__(self, *args: Any, length: int):
        super().__init__(*args)
        self.length = length
        self.number = lru_cache(4096)(self._number)
        self._held: dict[int, Rows | None] = {}  # place -> rows of the utterances in the slots; None: faulty
        self._empty: dict[str, Any] = {}

    def samples_at(self, position: Any) -> int:
        return position[1]

    def state(self, position: Any) -> dict[str, Any]:
        place, samples, slots, waiting = position
        return {POSITION: samples, "sequence": place, "slots": [list(s) for s in slots], "waiting": [list(s) for s in waiting]}

    def restore(self, state: Mapping[str, Any]) -> Any:
        pairs = []
        for key in ("slots", "waiting"):
            listed = state.get(key)
            if not isinstance(listed, list) or not all(isinstance(s, (list, tuple)) and len(s) == 2 for s in listed):
                raise DataError(f"MinibatchSource: expected a checkpoint with '{key}' as pairs, got {listed!r}")
            pairs.append(tuple((whole({"slot": p}, "slot"), whole({"offset": o}, "offset")) for p, o in listed))
        return whole(state, "sequence"), whole(state, POSITION), *pairs

    def same(self) -> dict[str, Any]:
        return super().same() | {"sequences": self.count, "truncationLength": self.length}

    def ended(self, position: Any) -> bool:
        place, _, slots, waiting = position
        if self.max_sweeps is not None:
            return place >= self.count * self.max_sweeps and not waiting and all(self.rest(*s) == 0 for s in slots)
        return super().ended(position)

    def _number(self, place: int) -> int:
        """The sequence at a place of the timeline."""
        sweep, at = divmod(place, self.count)
        return int(self.order(sweep, at, at + 1)[0])

    def rest(self, place: int, offset: int) -> int:
        """Samples that a slot still has."""
        size = 1 if self.sizes is None else int(self.sizes[self.number(place)])
        return max(0, size - offset)

    def make(self, key: tuple[Any, int, int, int]) -> tuple[Made, Any]:
        position, size, partitions, partition = key
        place, samples, slots, waiting = position
        wanted = max(1, size // self.length)
        waiting = [*waiting, *(s for s in slots[wanted:] if self.rest(*s))]
        filled: list[tuple[int, int, bool]] = []  # (place, offset, whether it begins) of each slot
        last = None if self.max_sweeps is None else self.count * self.max_sweeps
        for i in range(wanted):
            if i < len(slots) and self.rest(*slots[i]):
                filled.append((*slots[i], False))
            elif waiting:
                filled.append((*waiting.pop(0), True))  # its state is gone: it begins, if in the middle
            elif last is None or place < last:
                filled.append((place, 0, True))
                place += 1
            else:
                filled.append((*(slots[i] if i < len(slots) else (0, self.rest(0, 0))), False))
        before = min([position[0], *(p for p, o in (*slots, *position[3]) if self.rest(p, o))])
        pieces, after = [], []
        for slot, (p, offset, begins) in enumerate(filled):
            n = min(self.length, self.rest(p, offset))
            samples += n
            after.append((p, offset + n))
            if n and slot % partitions == partition:
                pieces.append((slot, p, offset, n, begins))
        done = min([place, *(p for p, o in (*after, *waiting) if self.rest(p, o))])
        position = (place, samples, tuple(after), tuple(waiting))
        faults = self.hold({p for _, p, *_ in pieces})
        pieces = [p for p in pieces if self._held[p[1]] is not None]
        data = self.cut(pieces, done // self.count > before // self.count)
        return (data, position, faults), (None if self.ended(position) else (position, size, partitions, partition))

    def hold(self, places: set[int]) -> list[Fault]:
        """Reads the utterances that are not held yet, lets go of the others."""
        for p in [p for p in self._held if p not in places]:
            del self._held[p]
        new = sorted(places - set(self._held))
        numbers = np.array([self.number(p) for p in new], np.int64)
        sweeps = np.array([p // self.count for p in new], np.int64)
        if not new and self._empty:
            return []
        rows, found = self.joined.read(numbers, sweeps, self.seed, np.empty, self.threads)
        self._empty = {name: value[:0] for name, (value, _) in rows.items()}
        bad = {i for i, _ in found}
        for i, p in enumerate(new):
            held: Rows = {}
            for name, (value, lengths) in rows.items():
                first = i if lengths is None else int(lengths[:i].sum())
                held[name] = value[first : first + (1 if lengths is None else int(lengths[i]))], lengths
            self._held[p] = None if i in bad else held
        return [f for _, f in found]

    def cut(self, pieces: list[tuple[int, int, int, int, bool]], ends: bool) -> dict[str, MinibatchData]:
        """Data of pieces (slot, place, offset, samples, begins)."""
        lengths = np.array([n for _, _, _, n, _ in pieces], np.int64)
        data = {}
        for name, empty in self._empty.items():
            cuts = [self._held[p][name][0][offset : offset + n] for _, p, offset, n, _ in pieces]  # type: ignore[index]
            value = concatenate(cuts) if cuts else empty
            data[name] = MinibatchData(
                value,
                len(pieces),
                value.shape[0],
                ends,
                lengths=lengths,
                sequences=np.array([self.number(p[1]) for p in pieces], np.int64),
                slots=np.array([p[0] for p in pieces], np.int64),
                begins=np.array([p[4] for p in pieces], bool),
            )
        return data


def concatenate(parts: list[Any]) -> Any:
    """Rows after rows, arrays or CSR."""
    return sp.vstack(parts, format="csr") if sp.issparse(parts[0]) else np.concatenate(parts)


def whole(state: Mapping[str, Any], key: str) -> int:
    """A count of a checkpoint; DataError."""
    value = state.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise DataError(f"{key}: expected a whole number of 0 or more, got {value!r}; take a checkpoint of this kind of source")
    return int(value)
