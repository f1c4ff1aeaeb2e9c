"""Rows of CSR as the engines read them.

In memory: a head of eight 64-bit words (rows, address of the columns (int32), address of the values, ...), then where each row's entries
begin and where they end, int64 each; so a choice of rows shares the entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["HEAD", "CsrRows", "csr_matrix_of", "csr_of"]

HEAD = 64  # bytes of the head


class CsrRows:
    """CSR rows that a plan reads where they are: what a sparse input is fed with, or a sparse constant holds.

    matrix: SciPy CSR (rows, columns), its entries not copied where their types fit. order: which of its rows come, in which order (all).
    """

    __slots__ = ("block", "columns", "indices", "rows", "values")

    def __init__(self, matrix: Any, dtype: np.dtype, order: np.ndarray | None = None):
        self.rows = matrix.shape[0] if order is None else len(order)
        self.columns = matrix.shape[1]
        self.indices = np.ascontiguousarray(matrix.indices, np.int32)
        self.values = np.ascontiguousarray(matrix.data, dtype)
        self.block = np.zeros(HEAD // 8 + 2 * self.rows, np.int64)
        self.block[:3] = self.rows, self.indices.ctypes.data, self.values.ctypes.data
        begin, end = self.block[8 : 8 + self.rows], self.block[8 + self.rows :]
        first, last = matrix.indptr[:-1], matrix.indptr[1:]
        begin[:], end[:] = (first, last) if order is None else (first[order], last[order])

    @property
    def __array_interface__(self) -> dict:
        """Where the rows lie, as for an array."""
        return self.block.__array_interface__

    @property
    def ctypes(self) -> Any:
        """Where the rows lie, as for an array."""
        return self.block.ctypes

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.columns

    def copy(self) -> CsrRows:
        """Itself: nothing is written to it."""
        return self

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.values.dtype

    def tocsr(self) -> Any:
        """`matrix`, by SciPy's name."""
        return self.matrix()

    def matrix(self) -> Any:
        """A SciPy CSR matrix of a copy."""
        begin, end = self.block[8 : 8 + self.rows], self.block[8 + self.rows :]
        return csr_matrix_of(begin, end, self.indices, self.values, self.columns)


def csr_of(array: np.ndarray) -> Any:
    """The SciPy CSR matrix of an array, whose columns are the last axis."""
    import scipy.sparse

    return scipy.sparse.csr_matrix(array.reshape(-1, array.shape[-1]))


def csr_matrix_of(begin: np.ndarray, end: np.ndarray, indices: np.ndarray, values: np.ndarray, columns: int) -> Any:
    """The SciPy CSR matrix, a copy, of rows whose entries begin and end at given places."""
    import scipy.sparse

    counts = end - begin
    indptr = np.concatenate([[0], np.cumsum(counts)])
    at = np.arange(indptr[-1]) + np.repeat(begin - indptr[:-1], counts)
    return scipy.sparse.csr_matrix((values[at], indices[at], indptr), (len(begin), columns))
