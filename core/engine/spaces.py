"""Row spaces at run time: which rows a tensor over sequences has, where each step of each sequence lies, and how rows move between spaces.

Sequences are sorted by length, longest first (equal ones in the caller's order), and stored step by step: the rows of step t are
`offset[t] : offset[t] + alive[t]`, row `offset[t] + k` being step t of the k-th longest sequence. The rows of a batch keep the caller's order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from cogkit.lowering.ir import Node, SpaceDef
from cogkit.op import row_space

__all__ = ["Space", "index_of", "row_info", "row_table", "space_made"]

KEPT = 64  # spaces whose tables are kept


class Space(int):
    """The number of rows of a sequence space, with its layout.

    lengths: (n,) int64, in the caller's order; order[k]: the sequence that is the k-th longest; alive[t]: sequences longer than t;
    offset[t]: first row of step t.
    """

    lengths: np.ndarray
    parent: np.ndarray | None = None  # of a space picked out of another one: the row of the other for each row
    repeats = False  # whether it has a row of that other one more than once

    @classmethod
    def of(cls, lengths: Sequence[int] | np.ndarray) -> Space:
        """The space of sequences of these lengths; equal lengths give one object while it is in use."""
        array = np.ascontiguousarray(lengths, np.int64)
        key = array.tobytes()
        found = _known.get(key)
        if found is None:
            found = cls.made(array)
            while len(_known) >= KEPT:
                _known.popitem(last=False)
            _known[key] = found
        else:
            _known.move_to_end(key)
        return found

    @classmethod
    def made(cls, lengths: np.ndarray, parent: np.ndarray | None = None) -> Space:
        """A space of its own, with the rows of another space that its rows are."""
        made = cls(int(lengths.sum()))
        made.lengths = lengths
        made.parent = parent
        made.order = np.argsort(-lengths, kind="stable")
        longest = int(lengths.max(initial=0))
        # alive[t] = how many lengths exceed t
        counts = np.bincount(lengths, minlength=longest + 1)
        made.alive = len(lengths) - np.cumsum(counts)[:longest].astype(np.int64)
        made.offset = np.concatenate([np.zeros(1, np.int64), np.cumsum(made.alive)])
        made.steps = longest
        return made

    order: np.ndarray
    alive: np.ndarray
    offset: np.ndarray
    steps: int

    @cached_property
    def key(self) -> bytes:
        """What tells spaces of equal layout: the lengths, and for a picked space the rows."""
        return self.lengths.tobytes() + (b"" if self.parent is None else self.parent.tobytes())

    @cached_property
    def rank(self) -> np.ndarray:
        """The place of each sequence in the order."""
        rank = np.empty_like(self.order)
        rank[self.order] = np.arange(len(self.order))
        return rank

    @cached_property
    def step(self) -> np.ndarray:
        """The step of each row, (rows,)."""
        return np.repeat(np.arange(self.steps), self.alive)

    @cached_property
    def place(self) -> np.ndarray:
        """The place k in the order of each row's sequence, (rows,)."""
        return np.arange(int(self)) - self.offset[self.step]

    @cached_property
    def item(self) -> np.ndarray:
        """The caller's number of each row's sequence, (rows,)."""
        return self.order[self.place]

    @cached_property
    def flat(self) -> np.ndarray:
        """Where each row lies among the sequences written one after the other, (rows,)."""
        starts = np.cumsum(self.lengths) - self.lengths
        return starts[self.item] + self.step

    @cached_property
    def row(self) -> np.ndarray:
        """The row of each step of the sequences written one after the other: the inverse of `flat`."""
        row = np.empty(int(self), np.int64)
        row[self.flat] = np.arange(int(self))
        return row

    def at(self, item: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Rows of steps of sequences; -1 where a sequence has no such step."""
        inside = (step >= 0) & (step < self.lengths[item])
        return np.where(inside, self.offset[np.where(inside, step, 0)] + self.rank[item], -1)

    def pick(self, count: np.ndarray) -> Space:
        """The space of so many copies of each row, in order: none or one where `count` is boolean."""
        copies = count[self.row].astype(np.int64)  # by sequence, then step
        items = np.repeat(np.repeat(np.arange(len(self.lengths)), self.lengths), copies)
        made = Space.made(np.bincount(items, minlength=len(self.lengths)).astype(np.int64))
        made = Space.made(made.lengths, np.repeat(self.row, copies)[made.flat])
        made.repeats = bool((copies > 1).any())
        return made

    def counted(self, value: np.ndarray) -> np.ndarray:
        """How often a condition takes each row: as many times as the sum of its values up to there, rounded up, has grown. CNTK's rule."""
        if ((value == 0) | (value == 1)).all():
            return value != 0
        flat = np.cumsum(value[self.row], dtype=np.float64)
        ends = np.cumsum(self.lengths)
        out = np.zeros(len(flat), np.int64)
        for first, end in zip((ends - self.lengths).tolist(), ends.tolist(), strict=True):
            sums = flat[first:end] - (flat[first - 1] if first else 0)
            total = np.maximum.accumulate(np.maximum(np.ceil(sums - 1e-5), 0))  # the margin is for sums of what float32 rounds
            out[first:end] = np.diff(total, prepend=0)
        return out[self.flat]

    def cut(self, begin: int, end: int) -> Space:
        """The space of steps begin to end of each sequence; bounds count as Python's, but an end of 0 is the end of the sequence."""
        lo = np.clip(begin if begin >= 0 else self.lengths + begin, 0, self.lengths)
        hi = np.clip(end if end > 0 else self.lengths + end, 0, self.lengths)
        step = self.step
        return self.pick((step >= lo[self.item]) & (step < hi[self.item]))

    def every(self, stride: int, begin: int | None, end: int | None) -> Space:
        """Each stride-th step of those between bounds, as `cut` takes them, from the first one on; without bounds of all, spread evenly."""
        lengths, step, item = self.lengths, self.step, self.item
        if begin is None or end is None:
            count = -(-lengths // stride)
            lo, hi = (lengths - (count - 1) * stride - 1) // 2, lengths
        else:
            lo, hi = np.minimum(begin, lengths), lengths + end
        return self.pick((step >= lo[item]) & (step < hi[item]) & ((step - lo[item]) % stride == 0))


_known: OrderedDict[bytes, Space] = OrderedDict()


def index_of(move: tuple, source: int, target: int) -> np.ndarray:
    """The row of the source for each row of the target, int64; -1 where the source has none.

    move: ('shift', d), ('broadcast',), ('at', i), ('spread', i), ('pick',), ('unpick',), ('unpack', size), ('pack', size), ('tail', d),
    ('head', d), ('initial', d), ('relabel',), ('roll', d): of all rows as they lie.
    """
    kind = move[0]
    if kind == "shift":
        return target.at(target.item, target.step - move[1])  # type: ignore[attr-defined]
    if kind == "broadcast":
        return target.item  # type: ignore[attr-defined]
    if kind == "at":  # one step of each sequence, counted from the end where negative
        i, s = move[1], source
        return s.at(np.arange(len(s.lengths)), i if i >= 0 else s.lengths + i)  # type: ignore[attr-defined]
    if kind == "spread":  # its transpose
        i, t = move[1], target
        at = i if i >= 0 else t.lengths[t.item] + i  # type: ignore[attr-defined]
        return np.where(t.step == at, t.item, -1)  # type: ignore[attr-defined]
    if kind == "pick":
        return target.parent  # type: ignore[attr-defined]
    if kind == "unpick":
        out = np.full(int(target), -1, np.int64)
        out[source.parent] = np.arange(int(source))  # type: ignore[attr-defined]
        return out
    if kind == "unpack":
        s, n = source, len(source.lengths)  # type: ignore[attr-defined]
        return s.at(np.repeat(np.arange(n), move[1]), np.tile(np.arange(move[1]), n))  # type: ignore[attr-defined]
    if kind == "tail":  # the last steps
        s, n = source, len(source.lengths)  # type: ignore[attr-defined]
        items = np.repeat(np.arange(n), move[1])
        return s.at(items, s.lengths[items] - move[1] + np.tile(np.arange(move[1]), n))
    if kind == "head":  # as many first steps as there were last ones
        return np.where(target.step < move[1], target.item * move[1] + target.step, -1)  # type: ignore[attr-defined]
    if kind == "initial":  # of other sequences: their last steps for the first ones, or their first for the last ones
        s, t, d = source, target, move[1]  # type: ignore[assignment]
        have = s.lengths[t.item]  # type: ignore[attr-defined]
        left = t.lengths[t.item] - t.step  # type: ignore[attr-defined]
        at, missing = (have - d + t.step, t.step < d) if d > 0 else (-d - left, left <= -d)  # type: ignore[attr-defined]
        if (missing & (have < abs(d)) & (have != 1)).any():
            raise ValueError(f"initial_state: expected sequences of 1 or at least {abs(d)} steps, got {int(have[missing].min())}")
        at = np.where(have == 1, 0, at)
        return np.where(missing, s.at(t.item, at), -1)  # type: ignore[attr-defined]
    if kind == "pack":
        return target.item * move[1] + target.step  # type: ignore[attr-defined]
    if kind == "relabel":
        return np.arange(int(target))
    if kind == "roll":
        return (np.arange(int(target)) + move[1]) % max(int(target), 1)
    raise ValueError(f"index_of: no such move {move!r}")


def row_info(what: tuple, space: Space) -> np.ndarray:
    """A number a row: ('step',), ('length',), ('below', d): 1 in the first d steps, ('last', d): 1 in the last d ones."""
    if what[0] == "step":
        return space.step
    left = space.lengths[space.item]
    if what[0] == "length":
        return left
    return space.step < what[1] if what[0] == "below" else left - space.step <= what[1]


def row_table(node: Node, sizes: Mapping[Any, int]) -> np.ndarray:
    """The table of a `move_rows` node. Raises `ValueError` where the two spaces do not fit each other."""
    move = node.attrs["move"]
    source, target = sizes[node.inputs[0].type.axes], sizes[node.attrs["axes"]]
    if node.name == "add_rows":
        source, target = target, source
    if move[0] in ("pick", "unpick"):
        picked = sizes[move]
        source, target = (source, picked) if move[0] == "pick" else (picked, target)
        if move[0] == "unpick" and picked.repeats:  # type: ignore[attr-defined]
            raise ValueError(
                "Sequence::Gather, Sequence::Scatter: expected a condition of 0 and 1 where steps go back to their places"
                " (gradients do), got one that takes a step several times"
            )
    elif move[0] == "relabel" and source.lengths.tobytes() != target.lengths.tobytes():  # type: ignore[attr-defined]
        raise ValueError(_unlike(node.inputs[0].type.axes, node.attrs["axes"], source, target))
    elif move[0] == "pack" and target.lengths.max(initial=0) > move[1]:  # type: ignore[attr-defined]
        longest = int(target.lengths.max())  # type: ignore[attr-defined]
        raise ValueError(
            f"to_sequence_like: expected sequences of at most {move[1]} steps, the size of the first static axis, got {longest}"
        )
    return index_of(move, source, target)


def _unlike(a: Any, b: Any, source: Any, target: Any) -> str:
    return f"sequences: expected equal lengths in {row_space(a)} and {row_space(b)}, got {source.lengths.tolist()} and {target.lengths.tolist()}"


def space_made(made: SpaceDef, value: np.ndarray | None, sizes: dict[Any, Any]) -> Any:
    """A row space that is made while running, of the value that it depends on. Raises `ValueError` for lengths that make no sense."""
    if made.kind[0] == "rows":
        return made.kind[1]
    parent = sizes[made.parent]
    if made.kind[0] == "where":
        return parent.pick(parent.counted(np.asarray(value).reshape(-1)))
    if made.kind[0] == "cut":
        return parent.cut(*made.kind[1:])
    if made.kind[0] == "every":
        return parent.every(*made.kind[1:])
    most = made.kind[1]
    if value is None:
        return Space.of(np.full(parent, most, np.int64))
    lengths = np.asarray(value).reshape(-1)
    if (lengths != np.floor(lengths)).any() or (lengths < 0).any() or (lengths > most).any():
        raise ValueError(f"to_sequence: expected whole sequence_lengths in [0, {most}], got {lengths.tolist()[:20]}")
    return Space.of(lengths.astype(np.int64))
