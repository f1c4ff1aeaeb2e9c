"""Values on their way in: from what a user feeds to contiguous arrays with rows first."""

from __future__ import annotations

from typing import Any

import numpy as np

from cogkit.errors import sentence
from cogkit.op import Type, row_space
from cogkit.variables import Variable

__all__ = ["as_rows", "bind_feeds"]


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
    """Arrays, concrete types and row counts of fed variables. Raises `ValueError` where row spaces disagree."""
    arrays: dict[Variable, np.ndarray] = {}
    types: dict[Variable, Type] = {}
    sizes: dict = {}
    first: dict = {}
    for v, data in feeds.items():
        a = as_rows(v, data)
        arrays[v] = a
        axes = v._axes
        if axes:
            rows = a.shape[0]
            if sizes.setdefault(axes, rows) != rows:
                w = first[axes]
                raise ValueError(
                    sentence(
                        "Input",
                        v.name,
                        v.where,
                        f"{sizes[axes]} samples in {row_space(axes)}, as fed to '{w.name or w.uid}'",
                        f"{rows}",
                    )
                )
            first.setdefault(axes, v)
            types[v] = Type(a.shape[1:], v._dtype, axes)
        else:
            types[v] = Type(a.shape, v._dtype, axes)
    return arrays, types, sizes
