"""From what a user feeds to contiguous arrays with rows first, and from rows back to sequences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cogkit.csr import CsrRows, csr_of
from cogkit.engine.arrays import ArrayMixin, NDArrayView
from cogkit.engine.spaces import Space
from cogkit.engine.sparse import fed_rows
from cogkit.engine.values import Value, fits, sequences
from cogkit.errors import sentence
from cogkit.lowering.sparse import is_fed_sparse
from cogkit.op import Type, row_space
from cogkit.ops.rows import BATCH, has_steps
from cogkit.variables import Variable, aligned_empty

__all__ = ["as_rows", "as_sequences", "bind_feeds"]


def as_sequences(array: np.ndarray, space: Space) -> list[np.ndarray]:
    """The rows of a sequence space as one array a sequence, in the caller's order."""
    flat = array[space.row]
    if hasattr(flat, "tocsr"):
        ends = np.cumsum(space.lengths)
        return [flat[end - n : end] for end, n in zip(ends, space.lengths, strict=True)]
    return np.split(flat, np.cumsum(space.lengths)[:-1]) if len(space.lengths) else []


def steps_of(v: Variable, data: Any) -> Value:
    """What is fed to a variable over sequences, as one value. Raises `ValueError` or `TypeError` for what is none."""
    begins = None
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], (list, tuple, np.ndarray)) and _flags(data[1]):
        data, begins = data
        if isinstance(data, Value):
            raise ValueError(
                sentence(
                    "Input", v.name, v.where, "flags of new sequences beside arrays", "some beside a Value", "it has its own"
                )
            )
    if data is None:
        raise ValueError(sentence("Input", v.name, v.where, "data for this input", "None", "feed it: {variable: [array, ...]}"))
    if not isinstance(data, ArrayMixin) and getattr(data, "lengths", None) is not None:  # a minibatch of a source
        own = getattr(data, "begins", None)
        return Value.of_steps(data.value, data.lengths, own if begins is None else begins, getattr(data, "slots", None))
    if not isinstance(data, (ArrayMixin, np.ndarray)) and hasattr(data, "as_sequences"):
        data = data.as_sequences(v)
    if isinstance(data, Value):
        if data.lengths is not None:
            return data
        data = data.data
    if isinstance(data, NDArrayView):
        return _of_view(v, data, begins)
    if hasattr(data, "asarray"):
        data = data.asarray()
    if isinstance(data, np.ndarray):
        return _of_view(v, NDArrayView._over(data, data.shape), begins)
    return sequences(v, [data] if hasattr(data, "tocsr") else data, begins)


def _of_view(v: Variable, data: NDArrayView, begins: Any) -> Value:
    """Of one array: sequences of equal length, one sequence, or, where there are flags for each of its entries, sequences of one step."""
    shape, rank = data.shape, len(v._shape)
    if len(shape) == rank + 2 and shape[0] > 0:
        return Value.of_steps(data.as_shape((shape[0] * shape[1], *shape[2:])), np.full(shape[0], shape[1]), begins)
    if begins is not None and len(shape) == rank + 1 and len(begins) == shape[0] != 1:
        return Value.of_steps(data, np.ones(shape[0], np.int64), begins)
    if len(shape) > rank + 2 or not data.is_sparse and data._array.dtype.kind not in "fiub":
        return sequences(v, list(data._whole()), begins)
    return sequences(v, [data], begins)


def _flags(x: Any) -> bool:
    return len(x) > 0 and all(isinstance(f, (bool, np.bool_)) for f in x)


def pack(v: Variable, value: Value, space: Space) -> np.ndarray:
    """The rows of a value in the order of its row space; not a copy where it lies in that order."""
    sample = value._sample()
    if not fits(sample, v._shape):
        raise ValueError(sentence("Input", v.name, v.where, f"steps of shape {v._shape}", f"{tuple(sample)}"))
    if value._rows is not None and value._rows.dtype == v._dtype:
        value._check()
        return value._rows
    view = value._steps()
    x = view._stored().toarray().reshape(view.shape) if view.is_sparse else view._whole()
    if x.dtype != v._dtype:
        x = x.astype(v._dtype)
    out = aligned_empty((int(space), *x.shape[1:]), v._dtype)
    return np.take(x, space.flat, axis=0, out=out, mode="clip")


def pack_csr(v: Variable, value: Value, space: Space) -> tuple[CsrRows, tuple[int, ...]]:
    """The steps of a value as CSR rows in the order of its row space, entries not copied, and the shape of one step."""
    view, sample = value._steps(), value._sample()
    if not fits(sample, v._shape):
        raise ValueError(sentence("Input", v.name, v.where, f"steps of shape {v._shape}", f"{tuple(sample)}"))
    each, order = math.prod(sample[:-1]), space.flat
    if each != 1:
        order = (order[:, None] * each + np.arange(each)).reshape(-1)
    return fed_rows(v, _csr(view._stored(), sample[-1]), order), sample


def _csr(stored: Any, columns: int) -> Any:
    """A CSR matrix of what a view holds."""
    return stored.tocsr() if hasattr(stored, "tocsr") else csr_of(np.asarray(stored).reshape(-1, columns))


def as_csr(v: Variable, data: Any) -> tuple[CsrRows, tuple[int, ...]]:
    """The CSR rows of a sparse variable without a sequence axis, and their shape: (rows, *shape), or the shape where it has no batch axis.

    A CSR matrix, a view, a `Value`, or a list with one a sample; dense data are converted. Raises `ValueError` where it does not fit.
    """
    shape, has_rows = v._shape, bool(v._axes)
    if isinstance(data, (list, tuple)) and data and any(hasattr(d, "tocsr") for d in data):
        import scipy.sparse

        data = scipy.sparse.vstack([d.tocsr() for d in data], format="csr")
    elif not isinstance(data, ArrayMixin) and not hasattr(data, "tocsr") and hasattr(data, "asarray"):
        data = data.asarray()
    if isinstance(data, ArrayMixin):
        view = data.data if isinstance(data, Value) else data
        got, stored = view.shape, view._stored()
    elif hasattr(data, "tocsr"):
        stored = data.tocsr()
        each = math.prod(shape[:-1])
        count, left = divmod(stored.shape[0], each) if each > 0 else (1, 0)
        lead = shape[:-1] if each > 0 else (stored.shape[0],)
        got = (stored.shape[0], stored.shape[1]) if left else (count, *lead, stored.shape[1])
    else:
        stored = as_rows(v, data)
        got = stored.shape
    if has_rows and len(got) == len(shape) + 2 and got[1] == 1:  # a batch of sequences of length 1
        got = (got[0], *got[2:])
    if has_rows and fits(got, shape):
        got = (1, *got)
    elif not has_rows and got[:1] == (1,) and fits(got[1:], shape):
        got = got[1:]
    if not fits(got[1:] if has_rows else got, shape):
        raise ValueError(sentence("Input", v.name, v.where, f"data of shape {_wish(v)}", str(tuple(got))))
    return fed_rows(v, _csr(stored, got[-1])), got


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
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], (list, tuple, np.ndarray)) and _flags(data[1]):
        fact = "a Value and flags of new sequences" if isinstance(data[0], Value) else "flags of new sequences too"
        raise ValueError(
            sentence("Input", v.name, v.where, "data alone, as it has no sequence axis", fact, "leave the flags out")
        )
    if isinstance(data, ArrayMixin):
        data = data._whole()
    elif hasattr(data, "asarray"):
        data = data.asarray()
    if hasattr(data, "toarray"):
        data = data.toarray()
    try:
        if isinstance(data, (list, tuple)) and data and (hasattr(data[0], "toarray") or isinstance(data[0], ArrayMixin)):
            data = [_dense(d) for d in data]
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
    if isinstance(data, list) and data and shape and type(data[0]) is np.ndarray and data[0].ndim == 0:
        raise ValueError(sentence("Input", v.name, v.where, f"samples of shape {shape}", "arrays without axes"))
    if np.isscalar(data) or (array.ndim == 1 and array.size == 1 and np.ndim(data) == 0):
        array = array.reshape(())
    got = array.shape
    if has_rows and fits(got[1:], shape) and array.ndim == len(shape) + 1:
        return array
    if fits(got, shape):
        return array[None] if has_rows else array
    if has_rows and array.ndim == len(shape) + 2 and got[1] == 1 and fits(got[2:], shape):  # a batch of sequences of length 1
        return array.reshape(got[:1] + got[2:])
    if not has_rows and got[:1] == (1,) and fits(got[1:], shape):
        return array.reshape(got[1:])
    way = ""
    if has_rows and sorted(got[1:]) == sorted(shape) and len(shape) == 3:
        way = "move channels first with x.transpose(0, 3, 1, 2)"
    raise ValueError(sentence("Input", v.name, v.where, f"data of shape {_wish(v)}", str(got), way))


def _dense(x: Any) -> Any:
    """A sample without sparseness or class of ours."""
    x = x._whole() if isinstance(x, ArrayMixin) else x
    return x.toarray() if hasattr(x, "toarray") else x


def _wish(v: Variable) -> str:
    sizes = (["batch"] if v._axes else []) + ["any" if n < 0 else str(n) for n in v._shape]
    return "(" + ", ".join(sizes) + (",)" if len(sizes) == 1 else ")")


def bind_feeds(feeds: dict[Variable, Any]) -> tuple[dict[Variable, Any], dict[Variable, Type], dict]:
    """Arrays, concrete types and rows of the row spaces of fed variables. Raises `ValueError` where row spaces disagree.

    A row space of the batch has a number of rows; one of sequences is a `Space`, and its arrays lie in its order; ("begins", row space):
    which of its sequences are new, where that was said, and ("slots", row space) which line each is a piece of.
    """
    arrays: dict[Variable, Any] = {}
    types: dict[Variable, Type] = {}
    sizes: dict = {}
    first: dict = {}
    for v, data in feeds.items():
        axes = v._axes
        if axes and len(axes) > 1 and has_steps(axes):
            value = steps_of(v, data)
            space = Space.of(value.lengths)
            known = sizes.setdefault(axes, space)
            if known is not space and known.key != space.key:
                raise ValueError(_unlike(v, first[axes], known, space))
            _count(sizes, first, v, BATCH, len(space.lengths))
            first.setdefault(axes, v)
            if value.begins is not None:
                sizes["begins", axes] = value.begins
                sizes["slots", axes] = np.arange(len(value.begins)) if value.slots is None else value.slots
            if is_fed_sparse(v):
                arrays[v], sample = pack_csr(v, value, space)
            else:
                arrays[v] = a = pack(v, value, space)
                sample = a.shape[1:]
            types[v] = Type(sample, v._dtype, axes)
            continue
        if is_fed_sparse(v):
            arrays[v], shape = as_csr(v, data)
        else:
            arrays[v] = a = as_rows(v, data)
            shape = a.shape
        if axes:
            _count(sizes, first, v, axes, shape[0])
            types[v] = Type(shape[1:], v._dtype, axes)
        else:
            types[v] = Type(shape, v._dtype, axes)
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
