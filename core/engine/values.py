"""`Value`: what a variable is fed with and what a run gives, with its sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cogkit.engine.arrays import ArrayMixin, Lease, NDArrayView
from cogkit.engine.spaces import Space
from cogkit.errors import here, sentence
from cogkit.variables import Variable

__all__ = ["Value", "asarray", "asvalue"]


class _Erased:
    """The owner of memory that nobody may read."""

    runs = 0


class Value(ArrayMixin):
    """A minibatch of one variable: an array, or sequences of different lengths.

    batch: an `NDArrayView`, array or CSR matrix, samples along the first axis. seq_starts: a flag for each entry of the first axis, which
    then is a sequence: whether it is a new one; one that is not goes on where the sequence of the same place in the minibatch before ended.
    Raises `TypeError` for other kinds of data (lists become values with `Value.create`), `ValueError` where flags do not fit.
    """

    ONE_HOT_SKIP = 0xFFFFFFFF  # the class number that `one_hot` makes a row of zeros of

    __slots__ = ("_lease", "_read_only", "_rows", "_space", "_view", "begins", "lengths", "slots")

    def __init__(self, batch: Any, seq_starts: Sequence[bool] | None = None, device: Any = None):
        if isinstance(batch, Value):
            raise TypeError(here("Value: expected an NDArrayView or an array, got a Value; it is one already"))
        view = batch if isinstance(batch, NDArrayView) else None
        if view is None:
            if not (isinstance(batch, np.ndarray) or hasattr(batch, "tocsr")):
                raise TypeError(
                    here(
                        f"Value: expected an NDArrayView, an array or a CSR matrix, got {type(batch).__name__};"
                        " Value.create(variable, [...]) takes lists of sequences"
                    )
                )
            view = NDArrayView.from_data(batch, device)
        self._set(view)
        if seq_starts is not None:
            shape = view.shape
            if len(shape) < 2:
                raise ValueError(here(f"Value: expected sequences of steps beside flags, got an array of shape {shape}"))
            steps = view.as_shape((shape[0] * shape[1], *shape[2:]))
            self._set(steps, np.full(shape[0], shape[1], np.int64), seq_starts)

    def _set(self, view: NDArrayView | None, lengths: Any = None, begins: Any = None, slots: Any = None) -> None:
        self._view, self._rows, self._space, self._read_only = view, None, None, False
        self._lease: Lease | None = None if view is None else view._lease
        self.lengths = None if lengths is None else np.asarray(lengths, np.int64)
        self.begins = None if begins is None else np.asarray(begins, bool)
        self.slots = None if slots is None else np.asarray(slots, np.int64)
        if self.begins is not None and (self.lengths is None or self.begins.shape != self.lengths.shape):
            have = 0 if self.lengths is None else self.lengths.size
            raise ValueError(here(f"Value: expected one flag a sequence, got {self.begins.size} for {have}"))

    @classmethod
    def of_steps(cls, steps: Any, lengths: Any, begins: Any = None, slots: Any = None) -> Value:
        """Of sequences written one after the other, without a copy.

        steps: all of them, an array (steps, *shape), a CSR matrix (steps, size) or a view; lengths: of the sequences, (n,). begins: which are
        new ones (None: all). slots: where sequences that go on are not in the places of those before, the number of the line that each
        is a piece of. Raises `ValueError` where they do not fit.
        """
        view = steps if isinstance(steps, NDArrayView) else NDArrayView._over(steps, steps.shape)
        lengths = np.asarray(lengths, np.int64)
        if lengths.ndim != 1 or lengths.sum() != view.shape[0] or (lengths < 0).any():
            raise ValueError(here(f"Value: expected lengths that sum to the {view.shape[0]} steps, got {lengths.tolist()[:20]}"))
        made = cls.__new__(cls)
        made._set(view, lengths, begins, slots)
        return made

    @classmethod
    def of_rows(cls, rows: np.ndarray, space: Space, lease: Lease | None = None) -> Value:
        """Of sequences in the order of their row space, as plans hold them."""
        made = cls.__new__(cls)
        made._set(None, space.lengths)
        made._rows, made._space, made._lease = rows, space, lease
        return made

    @classmethod
    def of_array(cls, array: Any, lease: Lease | None = None) -> Value:
        """Of an array without sequences, without a copy."""
        made = cls.__new__(cls)
        made._set(NDArrayView._over(array, array.shape, lease=lease))
        return made

    @classmethod
    def create(cls, var: Variable, data: Any, seq_starts: Any = None, device: Any = None, read_only: bool = False) -> Value:
        """The value that a variable would be fed with.

        data: an array or view as it is; a list of one array a sequence (steps, *shape), of any lengths, a sample standing for a sequence of
        one step. seq_starts: for each sequence whether it is a new one. Raises `ValueError` for data that does not fit the variable.
        """
        if isinstance(data, cls):
            if seq_starts is not None:
                raise ValueError(here("Value.create: expected flags of new sequences beside arrays, got them beside a Value"))
            made = data.alias()
        elif isinstance(data, (list, tuple)) and var._axes:
            made = sequences(var, data, seq_starts)
        else:
            if isinstance(data, (list, tuple)):
                data = _joined(var, data)
            if not isinstance(data, NDArrayView):
                if not hasattr(data, "tocsr"):
                    data = np.ascontiguousarray(data, var._dtype) if np.ndim(data) else np.asarray(data, var._dtype)
                data = NDArrayView._over(data, data.shape)
            if seq_starts is None:
                made = cls(data)
            else:
                each = data if len(data.shape) > len(var._shape) + 1 else data.as_shape((data.shape[0], 1, *data.shape[1:]))
                made = cls(each, seq_starts)
        made._read_only = read_only
        return made

    @classmethod
    def one_hot(cls, batch: Any, num_classes: Any, dtype: Any = None, device: Any = None) -> Value:
        """Rows of zeros with a 1 each, of class numbers: a list of lists, one a sequence, or one list, one a sample.

        num_classes: size of a row, or the shape of a sample, its last axis being the classes: then so many numbers make a sample. The number
        `Value.ONE_HOT_SKIP` makes a row of zeros. Raises `ValueError` for what is no class, `TypeError` for other types than float32, float64.
        """
        import scipy.sparse

        shape = (num_classes,) if np.isscalar(num_classes) else tuple(num_classes)
        classes, each = shape[-1], math.prod(shape[:-1])
        dtype = np.dtype(np.float32 if dtype is None else dtype)
        if dtype not in (np.float32, np.float64):
            raise TypeError(here(f"Value.one_hot: expected float32 or float64, got {dtype.name}"))
        flat = len(batch) > 0 and np.ndim(batch[0]) == 0
        lists = [np.asarray(s) for s in ([batch] if flat else batch)]
        index = np.concatenate(lists) if lists else np.zeros(0, np.int64)
        if index.size and index.dtype.kind not in "iu":
            raise ValueError(here(f"Value.one_hot: expected whole numbers of classes, got {index.dtype}"))
        index = index.astype(np.int64)
        kept = index != cls.ONE_HOT_SKIP
        wrong = kept & ((index < 0) | (index >= classes))
        if wrong.any():
            raise ValueError(here(f"Value.one_hot: expected classes in [0, {classes}), got {index[wrong][0]}"))
        sizes = np.asarray([len(s) for s in lists], np.int64)
        if each < 1 or (sizes % each).any():
            raise ValueError(
                here(f"Value.one_hot: expected sequences of a multiple of {each} numbers for {shape}, got {sizes.tolist()[:20]}")
            )
        ends = np.concatenate([[0], np.cumsum(kept)])
        rows = scipy.sparse.csr_matrix((np.ones(ends[-1], dtype), index[kept], ends), (len(index), classes))
        view = NDArrayView._over(rows, (len(index) // max(each, 1), *shape))
        return cls(view) if flat else cls.of_steps(view, sizes // each)

    # what it holds -----------------------------------------------------------------------------------------------------------------

    def _held(self) -> Any:
        return self._rows if self._view is None else self._view._array

    def _steps(self) -> NDArrayView:
        """The steps of all sequences, one sequence after the other; all samples where there are none."""
        self._check()
        if self._view is None:
            steps = self._rows[self._space.row]  # type: ignore[index,union-attr]
            if self._lease is not None:
                return NDArrayView._over(steps, steps.shape)  # another run may change the rows
            self._view = NDArrayView._over(steps, steps.shape)
        return self._view

    @property
    def value(self) -> Any:
        """All steps, an array or a CSR matrix, not a copy where that can be."""
        view = self._steps()
        return view._array if view.is_sparse else view._whole()

    def _sample(self) -> tuple[int, ...]:
        return self._rows.shape[1:] if self._view is None else self._view.shape[1:]  # type: ignore[union-attr]

    @property
    def shape(self) -> tuple[int, ...]:
        """(sequences, steps of the longest, *shape), or that of the array where there are no sequences."""
        if self.lengths is None:
            return self._view.shape  # type: ignore[union-attr]
        return (len(self.lengths), int(self.lengths.max(initial=0)), *self._sample())

    @property
    def mask(self) -> np.ndarray | None:
        """(sequences, steps of the longest) int8: 2 at a new sequence's first step, 1 at other steps, 0 beyond the end, as CNTK's.

        None where there are no sequences.
        """
        if self.lengths is None:
            return None
        mask = (np.arange(self.shape[1]) < self.lengths[:, None]).astype(np.int8)
        if mask.shape[1]:
            mask[:, 0] += (self.lengths > 0) & (True if self.begins is None else self.begins)
        return mask

    def masked_count(self) -> int:
        """Steps beyond the ends of sequences in `data`."""
        return 0 if self.lengths is None else self.shape[0] * self.shape[1] - int(self.lengths.sum())

    @property
    def data(self) -> NDArrayView:
        """All in one view: sequences padded with 0 to the longest, else the memory itself."""
        steps = self._steps()
        if self.lengths is None:
            return steps.alias(self._read_only)
        shape, there = self.shape, np.arange(self.shape[1]) < self.lengths[:, None]
        if not steps.is_sparse:
            out = np.zeros(shape, steps.dtype)
            out[there] = steps._whole()
            return NDArrayView._over(out, shape, self._read_only)
        csr = steps._array
        counts = np.zeros((*there.shape, math.prod(shape[2:-1])), np.int64)
        counts[there] = np.diff(csr.indptr).reshape(-1, counts.shape[2])
        ends = np.concatenate([[0], np.cumsum(counts)])
        made = type(csr)((csr.data, csr.indices, ends), (counts.size, csr.shape[1]), copy=False)
        return NDArrayView._over(made, shape, self._read_only)

    def _whole(self) -> Any:
        return self.data._whole()

    def as_sequences(self, variable: Any = None) -> list[Any]:
        """One array (steps, *shape), or CSR matrix, a sequence; without sequences one entry of the first axis each."""
        view = self._steps()
        count = len(self)
        lengths = np.ones(count, np.int64) if self.lengths is None else self.lengths
        ends = np.cumsum(lengths)
        if view.is_sparse:
            k = math.prod(view.shape[1:-1])
            return [view._array[(end - n) * k : end * k] for end, n in zip(ends, lengths, strict=True)]
        whole = view._whole() if view._lease is None else view._whole().copy()
        if self.lengths is None:
            return list(whole)
        return [whole[end - n : end] for end, n in zip(ends, lengths, strict=True)]

    def __len__(self) -> int:
        if self.lengths is None and not self._view.shape:  # type: ignore[union-attr]
            raise TypeError(here("Value: expected an array with axes to count along the first one, got a number"))
        return self.shape[0]

    # copies ------------------------------------------------------------------------------------------------------------------------

    def _like(self, view: NDArrayView | None) -> Value:
        made = type(self).__new__(type(self))
        made._set(view, self.lengths, self.begins, self.slots)
        return made

    def alias(self, read_only: bool = False) -> Value:
        """The same memory."""
        made = self._like(self._view)
        made._rows, made._space, made._lease = self._rows, self._space, self._lease
        made._read_only = read_only or self._read_only
        return made

    def deep_clone(self, read_only: bool = False) -> Value:
        """A copy in memory of its own, which no run changes."""
        made = self._like(self._steps().deep_clone())
        made._read_only = read_only
        return made

    def copy_from(self, source: Value) -> None:
        """Takes the numbers of another value of the same type and sequences. Raises `ValueError` or `TypeError` where they differ."""
        self._writable()
        same = source.shape == self.shape and (
            source.lengths is self.lengths
            or (self.lengths is not None and source.lengths is not None and (source.lengths == self.lengths).all())
        )
        if not same:
            raise ValueError(here(f"copy_from: expected a Value of shape {self.shape} and the same lengths, got {source.shape}"))
        steps = self._steps()
        steps.copy_from(source._steps())
        self._view, self._rows, self._space = steps, None, None

    def erase(self) -> None:
        """Lets go of the memory: it cannot be read any more."""
        self._lease = Lease(_Erased())
        self._lease.number = -1


def sequences(var: Variable, data: Any, begins: Any = None) -> Value:
    """The value of a list of sequences. Raises `ValueError` or `TypeError` for what does not fit the variable, which it names."""
    shape, rank = var._shape, len(var._shape)
    if _are_arrays(data, shape):
        lengths = np.fromiter(map(len, data), np.int64, len(data))
        steps = np.concatenate(data) if len(data) > 1 else data[0]
        return Value.of_steps(NDArrayView._over(steps, steps.shape), lengths, begins)
    wish = f"sequences of shape (steps, {', '.join('any' if n < 0 else str(n) for n in shape)})".replace(", )", ",)")
    try:
        items = [_steps_of_one(var, s) for s in data]
    except (TypeError, ValueError):
        fact = f"{type(data).__name__} that holds no arrays of numbers"
        raise ValueError(sentence("Input", var.name, var.where, wish, fact)) from None
    if not items:
        raise ValueError(sentence("Input", var.name, var.where, "at least one sequence", "none"))
    for i, s in enumerate(items):
        if s._array.dtype.kind not in "fiub":
            raise TypeError(sentence("Input", var.name, var.where, "numbers", f"an array of {s._array.dtype} as sequence {i}"))
        if not fits(s.shape[1:], shape) or len(s.shape) != rank + 1 or s.shape[1:] != items[0].shape[1:]:
            raise ValueError(sentence("Input", var.name, var.where, wish, f"{s.shape} as sequence {i}"))
    lengths = np.asarray([s.shape[0] for s in items], np.int64)
    if len(items) == 1:
        return Value.of_steps(items[0], lengths, begins)
    sample = items[0].shape[1:]
    if all(s.is_sparse for s in items):
        import scipy.sparse

        steps = scipy.sparse.vstack([s._stored() for s in items], format="csr")
    else:
        steps = np.concatenate([s._stored().toarray().reshape(s.shape) if s.is_sparse else s._whole() for s in items])
    return Value.of_steps(NDArrayView._over(steps, (int(lengths.sum()), *sample)), lengths, begins)


def _are_arrays(data: Any, shape: tuple[int, ...]) -> bool:
    """Whether data are nothing but arrays (steps, *shape) of numbers: what a training loop gives most, so it is soon told."""
    if not isinstance(data, (list, tuple)) or not data or type(data[0]) is not np.ndarray or data[0].dtype.kind not in "fiub":
        return False
    sample, dtype = data[0].shape[1:], data[0].dtype
    if data[0].ndim != len(shape) + 1 or not fits(sample, shape):
        return False
    return all(type(s) is np.ndarray and s.shape[1:] == sample and s.dtype == dtype and s.ndim == len(shape) + 1 for s in data)


def _steps_of_one(var: Variable, s: Any) -> NDArrayView:
    """One sequence as a view (steps, *shape)."""
    shape, rank = var._shape, len(var._shape)
    if isinstance(s, Value):
        s = s.data
    if hasattr(s, "tocsr"):
        s = s.tocsr()
        each = math.prod(shape[:-1])  # rows of a step
        more = rank > 1 and each > 0 and s.shape[0] % each == 0
        return NDArrayView._over(s, (s.shape[0] // each, *shape[:-1], s.shape[1]) if more else s.shape)
    if not isinstance(s, NDArrayView):
        array = np.asarray(s) if isinstance(s, np.ndarray) else np.asarray(s, var._dtype)
        s = NDArrayView._over(array, array.shape)
    got = s.shape
    if len(got) == rank:
        # numbers in a row: steps of shape (1,), as CNTK takes them
        one_each = not fits(got, shape) and fits((*got[1:], 1), shape)
        got = (*got, 1) if one_each else (1, *got)
    elif len(got) == rank + 2 and got[0] == 1:
        got = got[1:]
    return s if got == s.shape else s.as_shape(got)


def _joined(var: Variable, data: Any) -> np.ndarray:
    """The array of a list that feeds a variable without dynamic axes. Raises `ValueError` where it is none."""
    wish = f"an array of shape {var._shape}, as it has no batch axis"
    if any(hasattr(s, "tocsr") for s in data):
        raise ValueError(sentence("Input", var.name, var.where, wish, "a list of sparse matrices"))
    try:
        return np.asarray(data, var._dtype)
    except (TypeError, ValueError):
        raise ValueError(sentence("Input", var.name, var.where, wish, "a list of different shapes")) from None


def fits(got: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a shape is one that a variable may have, whose free sizes are negative."""
    return len(got) == len(shape) and all(b < 0 or a == b for a, b in zip(got, shape, strict=True))


def asvalue(variable: Variable, data_array: Any) -> Value:
    """The value that a variable would be fed with; see `Value.create`."""
    return Value.create(variable, data_array)


def asarray(value: Any, dtype: Any = None) -> Any:
    """The NumPy array (or CSR matrix) of a value, view, parameter or data. Raises `ValueError` for what has none."""
    found = value.asarray() if hasattr(value, "asarray") else np.asarray(value)
    if not hasattr(found, "toarray") and found.dtype.kind not in "fiub":
        raise ValueError(here(f"asarray: expected numbers, got {type(value).__name__}"))
    return found if dtype is None else found.astype(dtype)
