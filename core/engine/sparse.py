"""Sparse values outside of the engine's C code: what is fed as CSR rows, and gradients that list their rows.

How a list of rows lies in memory: a head alone, of eight 64-bit words (rows, address of their numbers (int64), address of the values, ...).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cogkit.csr import HEAD, CsrRows, csr_matrix_of
from cogkit.errors import sentence
from cogkit.variables import Variable

__all__ = ["RowSparse", "csr_matrix_at", "fed_rows"]


def _at(address: int, count: int, dtype: Any) -> np.ndarray:
    """The array that lies at an address; it is not kept alive."""
    t = np.dtype(dtype)
    if count == 0:
        return np.zeros(0, t)
    return np.frombuffer((ctypes.c_char * (count * t.itemsize)).from_address(address), t)


def fed_rows(v: Variable, matrix: Any, order: np.ndarray | None = None) -> CsrRows:
    """The rows of a matrix for a variable. Raises `ValueError` where columns are not those of its last axis."""
    width, have = v._shape[-1], matrix.shape[1]
    if width >= 0 and have != width:
        raise ValueError(sentence("Input", v.name, v.where, f"rows of {width} columns", f"{have}"))
    indices = matrix.indices
    if len(indices) and not (indices.min() >= 0 and indices.max() < have):
        raise ValueError(sentence("Input", v.name, v.where, f"columns in [0, {have})", f"{indices.min()} to {indices.max()}"))
    ends = matrix.indptr
    if (ends[1:] < ends[:-1]).any() or ends[-1] > len(indices):
        raise ValueError(sentence("Input", v.name, v.where, "rows that end after they begin", "others in indptr"))
    return CsrRows(matrix, v._dtype, order)


def csr_matrix_at(block: np.ndarray, columns: int, dtype: np.dtype) -> Any:
    """The SciPy CSR matrix, a copy, of rows that lie in memory of a plan."""
    words = block.view(np.int64)
    rows = int(words[0])
    begin, end = words[8 : 8 + rows], words[8 + rows : 8 + 2 * rows]
    last = int(end.max(initial=0))
    return csr_matrix_of(begin, end, _at(int(words[1]), last, np.int32), _at(int(words[2]), last, dtype), columns)


class RowSparse:
    """A gradient of a parameter that lists the rows of its first axis that may not be 0.

    rows: their numbers, rising, int64; values: (len(rows), *shape[1:]). One that a plan gives (`of_plan`) reads the plan's memory, which the next
    run overwrites; `copy` keeps it.
    """

    is_sparse = True

    def __init__(self, rows: Any, values: Any, shape: Sequence[int]):
        self.shape = tuple(shape)
        self._kept = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(values)
        self.dtype = self._kept[1].dtype
        self.head = np.zeros(HEAD // 8, np.int64)
        self.head[:3] = len(self._kept[0]), self._kept[0].ctypes.data, self._kept[1].ctypes.data

    @classmethod
    def of_plan(cls, head: np.ndarray, shape: Sequence[int], dtype: np.dtype, owner: Any) -> RowSparse:
        """The list whose head lies in a plan's memory; owner: what keeps that memory."""
        made = cls.__new__(cls)
        made.shape, made.dtype, made.head, made._kept = tuple(shape), np.dtype(dtype), head[:HEAD].view(np.int64), owner
        return made

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Elements, those that are 0 included."""
        return math.prod(self.shape)

    def bring(self) -> None:
        """Brings what lies on a device to the host."""

    @property
    def rows(self) -> np.ndarray:
        """Numbers of the listed rows, rising."""
        self.bring()
        return _at(int(self.head[1]), int(self.head[0]), np.int64)

    @property
    def values(self) -> np.ndarray:
        """(rows, *shape[1:])."""
        self.bring()
        shape = (int(self.head[0]), *self.shape[1:])
        return _at(int(self.head[2]), math.prod(shape), self.dtype).reshape(shape)

    @property
    def __array_interface__(self) -> dict:
        """Where the head lies, as for an array."""
        return self.head.__array_interface__

    @property
    def ctypes(self) -> Any:
        """Where the head lies, as for an array."""
        return self.head.ctypes

    def copy(self) -> RowSparse:
        """The same in memory of its own."""
        return RowSparse(self.rows.copy(), self.values.copy(), self.shape)

    def point_to(self, g: Any) -> None:
        """Becomes the list of another gradient, whose memory it reads from here on: a list, or an array of which all rows are listed."""
        if not isinstance(g, RowSparse):
            array = np.ascontiguousarray(g.asarray() if hasattr(g, "asarray") else g, self.dtype)
            g = RowSparse(np.arange(self.shape[0]), array.reshape(self.shape), self.shape)
        g.bring()
        self.head[:3], self._source = g.head[:3], g

    def reshape(self, shape: Sequence[int]) -> RowSparse:
        """The same list with other axes after the first one."""
        self.bring()
        return RowSparse.of_plan(self.head.view(np.uint8), shape, self.dtype, self)

    def toarray(self) -> np.ndarray:
        """The whole gradient as an array."""
        out = np.zeros(self.shape, self.dtype)
        out[self.rows] = self.values
        return out

    asarray = toarray

    def tocsr(self) -> Any:
        """A SciPy CSR matrix, a copy, whose columns are the last axis and whose rows are all axes before it."""
        import scipy.sparse

        columns, each = self.shape[-1], math.prod(self.shape[1:-1]) if len(self.shape) > 1 else 1
        counts = np.zeros((self.shape[0], each), np.int64)
        counts[self.rows] = columns
        indptr = np.concatenate([[0], np.cumsum(counts)])
        values = self.values.reshape(-1, columns)
        indices = np.tile(np.arange(columns), len(values))
        return scipy.sparse.csr_matrix((values.ravel().copy(), indices, indptr), (counts.size, columns))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.toarray().astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        self.bring()
        return f"RowSparse({int(self.head[0])} of {self.shape[0]} rows, {self.shape}, {self.dtype.name})"
