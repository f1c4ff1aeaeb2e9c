"""Values on their way in and out: from what a user feeds to contiguous arrays with rows first, and rows back to sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from cogkit.engine.spaces import Space
from cogkit.errors import here, sentence
from cogkit.op import Type, row_space
from cogkit.ops.sequence import BATCH, has_steps
from cogkit.variables import Variable, aligned_empty

__all__ = ["Value", "as_rows", "as_sequences", "bind_feeds"]


class Value:
    """The sequences of a minibatch, written one after the other: what a variable over sequences is fed with, without copies.

    value: all steps, an array (steps, *shape) or a SciPy CSR matrix (steps, size); lengths: of the sequences, int64 (n,), None for
    values without a sequence axis, one a row. begins: for
    each sequence whether it is a new one; one that is not goes on where the sequence of the same place in the minibatch before
    ended (None: all are new). slots: where sequences that go on are not in the places of those before, the number of the line that each
    is a piece of. Raises `ValueError` where they do not fit.
    """

    __slots__ = ("begins", "lengths", "slots", "value")

    def __init__(self, value: Any, lengths: Any = None, begins: Any = None, slots: Any = None):
        self.value = value
        self.lengths = lengths
        self.begins = None if begins is None else np.asarray(begins, bool)
        self.slots = None if slots is None else np.asarray(slots, np.int64)
        if lengths is None:
            return
        self.lengths = np.asarray(lengths, np.int64)
        if self.lengths.ndim != 1 or self.lengths.sum() != value.shape[0] or (self.lengths < 0).any():
            raise ValueError(
                here(f"Value: expected lengths that sum to the {value.shape[0]} steps, got {self.lengths.tolist()[:20]}")
            )
        if self.begins is not None and self.begins.shape != self.lengths.shape:
            raise ValueError(here(f"Value: expected one flag a sequence, got {self.begins.size} for {self.lengths.size}"))

    @classmethod
    def create(cls, var: Variable, data: Any, seq_starts: Any = None, device: Any = None, read_only: bool = False) -> Value:
        """The value of a list of sequences for a variable; seq_starts: for each whether it is a new one."""
        made = _steps_of(var, data)
        return made if seq_starts is None else cls(made.value, made.lengths, seq_starts)

    @classmethod
    def one_hot(cls, batch: Any, num_classes: int, dtype: Any = np.float32, device: Any = None) -> Value:
        """Sequences of one-hot rows, of lists of class numbers; raises `ValueError` for a number that is no class."""
        import scipy.sparse

        lengths = [len(s) for s in batch]
        index = np.asarray([i for s in batch for i in s], np.int64)
        if ((index < 0) | (index >= num_classes)).any():
            raise ValueError(
                here(
                    f"Value.one_hot: expected classes in [0, {num_classes}), got {index[(index < 0) | (index >= num_classes)][0]}"
                )
            )
        n = len(index)
        return cls(scipy.sparse.csr_matrix((np.ones(n, dtype), index, np.arange(n + 1)), (n, num_classes)), lengths)

    @property
    def shape(self) -> tuple[int, ...]:
        """(sequences, steps of the longest, *shape), or that of the value where it has no sequences."""
        if self.lengths is None:
            return tuple(self.value.shape)
        return (len(self.lengths), int(self.lengths.max(initial=0)), *self.value.shape[1:])

    @property
    def is_sparse(self) -> bool:
        """Whether `value` is a CSR matrix."""
        return hasattr(self.value, "toarray")

    @property
    def mask(self) -> np.ndarray | None:
        """(sequences, steps of the longest): 2 at a new sequence's first step, 1 at other steps, 0 beyond the end, as CNTK's.

        None where there are no sequences.
        """
        if self.lengths is None:
            return None
        mask = (np.arange(self.shape[1]) < self.lengths[:, None]).astype(np.uint8)
        if mask.shape[1]:
            mask[:, 0] += (self.lengths > 0) & (True if self.begins is None else self.begins)
        return mask

    def as_sequences(self, variable: Any = None) -> list[Any]:
        """One array (steps, *shape), or CSR matrix, a sequence; without sequences one of a single step a row."""
        if self.lengths is None:
            return [self.value[i : i + 1] for i in range(self.value.shape[0])]
        ends = np.cumsum(self.lengths)
        return [self.value[end - n : end] for end, n in zip(ends, self.lengths, strict=True)]

    def asarray(self, dtype: Any = None) -> Any:
        """One padded array (sequences, longest, *shape), 0 beyond the end; without sequences the value."""
        if self.lengths is None:
            return self.value.toarray() if self.is_sparse else np.asarray(self.value, dtype)
        out = np.zeros(self.shape, dtype or self.value.dtype)
        for row, s in zip(out, self.as_sequences(), strict=True):
            row[: s.shape[0]] = s.toarray() if self.is_sparse else s
        return out

    def __len__(self) -> int:
        return self.value.shape[0] if self.lengths is None else len(self.lengths)


def as_sequences(array: np.ndarray, space: Space) -> list[np.ndarray]:
    """The rows of a sequence space as one array a sequence, in the caller's order."""
    flat = array[space.row]
    return np.split(flat, np.cumsum(space.lengths)[:-1]) if len(space.lengths) else []


def _steps_of(v: Variable, data: Any) -> Value:
    """What is fed to a variable over sequences, as one value."""
    begins = None
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], (list, tuple, np.ndarray)) and _flags(data[1]):
        data, begins = data
    if getattr(data, "lengths", None) is None:
        inner = getattr(data, "data", None)
        if getattr(inner, "lengths", None) is not None:
            data = inner
        elif hasattr(data, "as_sequences"):
            data = data.as_sequences(v)
    lengths = getattr(data, "lengths", None)
    if lengths is not None:
        slots = getattr(data, "slots", None)
        return Value(data.value, lengths, getattr(data, "begins", None) if begins is None else begins, slots)
    shape, rank = v._shape, len(v._shape)
    wish = f"sequences of shape (steps, {', '.join('any' if n < 0 else str(n) for n in shape)})".replace(", )", ",)")
    if data is None:
        raise ValueError(sentence("Input", v.name, v.where, "data for this input", "None", "feed it: {variable: [array, ...]}"))
    if hasattr(data, "asarray"):
        data = data.asarray()
    if hasattr(data, "toarray") or isinstance(data, np.ndarray) and data.ndim <= rank + 1:
        data = [data]
    items = []
    try:
        for s in data:
            if not hasattr(s, "toarray"):
                s = np.asarray(s) if isinstance(s, np.ndarray) else np.asarray(s, v._dtype)
                if s.ndim == rank:
                    one_each = not _fits(s.shape, shape) and _fits((*s.shape[1:], 1), shape)
                    s = s[..., None] if one_each else s[None]  # numbers in a row: steps of shape (1,), as CNTK takes them
                elif s.ndim == rank + 2 and s.shape[0] == 1:
                    s = s[0]
            items.append(s)
    except (TypeError, ValueError):
        raise ValueError(
            sentence("Input", v.name, v.where, wish, f"{type(data).__name__} that holds no arrays of numbers")
        ) from None
    if not items:
        raise ValueError(sentence("Input", v.name, v.where, "at least one sequence", "none"))
    for i, s in enumerate(items):
        if s.dtype.kind not in "fiub":
            raise TypeError(sentence("Input", v.name, v.where, "numbers", f"an array of {s.dtype} as sequence {i}"))
        if not _fits(s.shape[1:], shape) or s.ndim != rank + 1 or s.shape[1:] != items[0].shape[1:]:
            raise ValueError(sentence("Input", v.name, v.where, wish, f"{s.shape} as sequence {i}"))
    lengths = np.asarray([s.shape[0] for s in items], np.int64)
    if all(hasattr(s, "toarray") for s in items):
        import scipy.sparse

        return Value(items[0] if len(items) == 1 else scipy.sparse.vstack(items, format="csr"), lengths, begins)
    dense = [s.toarray() if hasattr(s, "toarray") else s for s in items]
    return Value(dense[0] if len(dense) == 1 else np.concatenate(dense), lengths, begins)


def _flags(x: Any) -> bool:
    return len(x) > 0 and all(isinstance(f, (bool, np.bool_)) for f in x)


def pack(v: Variable, value: Value, space: Space) -> np.ndarray:
    """The rows of a value in the order of its row space."""
    x = value.value
    if not _fits(x.shape[1:], v._shape):
        raise ValueError(sentence("Input", v.name, v.where, f"steps of shape {v._shape}", f"{tuple(x.shape[1:])}"))
    if hasattr(x, "toarray"):
        x = x.toarray()
    if x.dtype != v._dtype:
        x = x.astype(v._dtype)
    out = aligned_empty((int(space), *x.shape[1:]), v._dtype)
    return np.take(x, space.flat, axis=0, out=out, mode="clip")


def as_rows(v: Variable, data: Any) -> np.ndarray:
    """The array of one fed variable: (rows, *shape), or of the shape itself where it has no batch axis.

    A single sample is a batch of one. Raises `ValueError` for another shape, `TypeError` for what is no array of numbers.
    """
    dtype = v._dtype
    shape = v._shape
    if (
        type(data) is np.ndarray
        and data.dtype == dtype
        and data.flags.c_contiguous
        and data.ndim == len(shape) + 1
        and data.shape[1:] == shape
        and v._axes
    ):
        return data
    if data is None:
        raise ValueError(sentence("Input", v.name, v.where, "data for this input", "None", "feed it: {variable: array}"))
    if hasattr(data, "asarray"):
        data = data.asarray()
    elif hasattr(data, "data") and not isinstance(data, (np.ndarray, memoryview)) and hasattr(data.data, "asarray"):
        data = data.data.asarray()
    if hasattr(data, "toarray"):
        data = data.toarray()
    try:
        if isinstance(data, (list, tuple)) and data and hasattr(data[0], "toarray"):
            data = [d.toarray() for d in data]
        array = np.ascontiguousarray(data, dtype=None if isinstance(data, np.ndarray) else dtype)
        if isinstance(data, np.ndarray) and data.ndim == 0:
            array = array.reshape(())
    except (ValueError, TypeError):
        first = data
        while isinstance(first, (list, tuple)) and first:
            first = first[0]
        if not isinstance(first, (bool, int, float, np.ndarray, np.generic)):
            raise TypeError(
                sentence("Input", v.name, v.where, f"an array of numbers of shape {_wish(v)}", f"{type(first).__name__}")
            ) from None
        raise ValueError(
            sentence(
                "Input",
                v.name,
                v.where,
                f"an array of shape {_wish(v)}",
                "samples of different shapes",
                "sequences need a sequence axis: C.sequence.input_variable",
            )
        ) from None
    if array.dtype.kind not in "fiub":
        raise TypeError(sentence("Input", v.name, v.where, "numbers", f"an array of {array.dtype}"))
    if array.dtype != dtype:
        array = array.astype(dtype)
    has_rows = bool(v._axes)
    if np.isscalar(data) or (array.ndim == 1 and array.size == 1 and np.ndim(data) == 0):
        array = array.reshape(())
    got = array.shape
    if has_rows and _fits(got[1:], shape) and array.ndim == len(shape) + 1:
        return array
    if _fits(got, shape):
        return array[None] if has_rows else array
    if has_rows and array.ndim == len(shape) + 2 and got[1] == 1 and _fits(got[2:], shape):  # a batch of sequences of length 1
        return array.reshape(got[:1] + got[2:])
    if not has_rows and got[:1] == (1,) and _fits(got[1:], shape):
        return array.reshape(got[1:])
    way = ""
    if has_rows and sorted(got[1:]) == sorted(shape) and len(shape) == 3:
        way = "move channels first with x.transpose(0, 3, 1, 2)"
    raise ValueError(sentence("Input", v.name, v.where, f"data of shape {_wish(v)}", str(got), way))


def _fits(got: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(got) == len(shape) and all(b < 0 or a == b for a, b in zip(got, shape, strict=True))


def _wish(v: Variable) -> str:
    sizes = (["batch"] if v._axes else []) + ["any" if n < 0 else str(n) for n in v._shape]
    return "(" + ", ".join(sizes) + (",)" if len(sizes) == 1 else ")")


def bind_feeds(feeds: dict[Variable, Any]) -> tuple[dict[Variable, np.ndarray], dict[Variable, Type], dict]:
    """Arrays, concrete types and rows of the row spaces of fed variables. Raises `ValueError` where row spaces disagree.

    A row space of the batch has a number of rows; one of sequences is a `Space`, and its arrays lie in its order; ("begins", row space):
    which of its sequences are new, where that was said, and ("slots", row space) which line each is a piece of.
    """
    arrays: dict[Variable, np.ndarray] = {}
    types: dict[Variable, Type] = {}
    sizes: dict = {}
    first: dict = {}
    for v, data in feeds.items():
        axes = v._axes
        if axes and len(axes) > 1 and has_steps(axes):
            value = _steps_of(v, data)
            space = Space.of(value.lengths)
            known = sizes.setdefault(axes, space)
            if known is not space and known.key != space.key:
                raise ValueError(_unlike(v, first[axes], known, space))
            _count(sizes, first, v, BATCH, len(space.lengths))
            first.setdefault(axes, v)
            if value.begins is not None:
                sizes["begins", axes] = value.begins
                sizes["slots", axes] = np.arange(len(value.begins)) if value.slots is None else value.slots
            arrays[v] = a = pack(v, value, space)
            types[v] = Type(a.shape[1:], v._dtype, axes)
            continue
        a = as_rows(v, data)
        arrays[v] = a
        if axes:
            _count(sizes, first, v, axes, a.shape[0])
            types[v] = Type(a.shape[1:], v._dtype, axes)
        else:
            types[v] = Type(a.shape, v._dtype, axes)
    return arrays, types, sizes


def _count(sizes: dict, first: dict, v: Variable, axes: tuple, rows: int) -> None:
    if sizes.setdefault(axes, rows) != rows:
        w = first[axes]
        raise ValueError(
            sentence(
                "Input", v.name, v.where, f"{sizes[axes]} samples in {row_space(axes)}, as fed to '{w.name or w.uid}'", f"{rows}"
            )
        )
    first.setdefault(axes, v)


def _unlike(v: Variable, w: Variable, have: Space, got: Space) -> str:
    place = f"sequences of the lengths fed to '{w.name or w.uid}' in {row_space(v._axes)}"
    if len(have.lengths) != len(got.lengths):
        return sentence("Input", v.name, v.where, f"{len(have.lengths)} {place}", f"{len(got.lengths)}")
    i = int(np.flatnonzero(have.lengths != got.lengths)[0])
    way = "lengths of its own need an axis of its own: C.sequence.input_variable(..., sequence_axis=C.Axis('name'))"
    return sentence("Input", v.name, v.where, place, f"{got.lengths[i]} steps in sequence {i}, not {have.lengths[i]}", way)
