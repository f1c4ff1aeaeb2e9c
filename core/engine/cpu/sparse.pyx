# sources: sparse.cpp lagging.cpp
"""Kernels of sparse values: rows of CSR, gradients that list their rows. `engine.sparse` says how both lie in memory.

Results whose size the data decide lie in memory of the kernel that made them, which grows and is kept.
"""
include "kernel.pxi"
include "indexed.pxi"

import numpy as np

from libc.stdint cimport int32_t

__all__ = [
    "CsrDense",
    "CsrMove",
    "CsrOneHot",
    "CsrTimes",
    "CsrTransposed",
    "LaggingRows",
    "RowsAdd",
    "RowsDense",
    "ScatterRows",
    "UpdateRows",
]


cdef extern from "sparse.h" namespace "cg":
    Kernel *make_csr_times(int64_t width, int64_t n, cbool turned, string dtype) except +
    Kernel *make_csr_transposed(int64_t width, int64_t n, string dtype) except +
    Kernel *make_scatter_rows(int64_t rows, int64_t n, int64_t width, string dtype) except +
    void resize_scatter_rows(Kernel *kernel, int64_t rows)
    Kernel *make_rows_add(int64_t n, string dtype) except +
    Kernel *make_rows_dense(int64_t width, int64_t n, string dtype) except +
    Kernel *make_csr_dense(int64_t width, string dtype) except +
    Kernel *make_csr_move(int64_t rows, const int64_t *index) except +
    Kernel *make_csr_one_hot(int64_t n, int64_t classes, string dtype) except +
    Kernel *make_update_rows(string rule, cbool average, cbool norm, int64_t width, int64_t n, string dtype) except +

cdef extern from "lagging.h" namespace "cg":
    cdef cppclass LaggingKernel "cg::LaggingKernel"(Kernel):
        void settle(void **buf, const int32_t *row, int64_t count) nogil
        void settle_all(void **buf) nogil
        void keep(vector[int32_t] &last, vector[double] &numbers)
        void take(const vector[int32_t] &last, const vector[double] &numbers) except +
    LaggingKernel *make_lagging_rows(string rule, cbool norm, double epsilon, double decay, int64_t width, int64_t n,
                                     string dtype) except +


cdef class CsrTimes(BoundKernel):
    """y[r] = sum of v b[c] over the entries (c, v) of row r, b (width, n); turned: b is (n, width); buffers a, b, y."""
    def __init__(self, width, n, dtype, turned=False):
        self.own(make_csr_times(width, n, turned, text(dtype)))


cdef class CsrTransposed(BoundKernel):
    """The rows c of the sum of v dy[r] over entries (r, c, v), dy (rows, n); buffers a, dy, list of rows."""
    def __init__(self, width, n, dtype):
        self.own(make_csr_transposed(width, n, text(dtype)))


cdef class ScatterRows(IndexedKernel):
    """The rows i of the sum of dy[r] over all r with index[r] = i < width, dy (rows, n); buffers index, dy, list of rows."""
    def __init__(self, rows, n, width, dtype, wrong=None):
        self.wrong = wrong
        self.own(make_scatter_rows(rows, n, width, text(dtype)))

    def set_rows(self, rows) -> None:
        """Another number of indices."""
        resize_scatter_rows(self.kernel, rows)


cdef class RowsAdd(BoundKernel):
    """The sum of two lists of rows of n elements; buffers a, b, list of rows."""
    def __init__(self, n, dtype):
        self.own(make_rows_add(n, text(dtype)))


cdef class RowsDense(BoundKernel):
    """y (width, n) has the rows of a list, 0 elsewhere; buffers list, y."""
    def __init__(self, width, n, dtype):
        self.own(make_rows_dense(width, n, text(dtype)))


cdef class CsrDense(BoundKernel):
    """y (rows, width) = the entries of CSR rows, 0 elsewhere; buffers a, y."""
    def __init__(self, width, dtype):
        self.own(make_csr_dense(width, text(dtype)))


cdef class CsrMove(BoundKernel):
    """Row r is row index[r] of a, empty where that is -1; the entries are shared; buffers a, CSR."""
    cdef object index

    def __init__(self, index):
        self.index = np.ascontiguousarray(index, np.int64)
        self.own(make_csr_move(len(self.index), <const int64_t *><size_t>self.index.ctypes.data))


cdef class CsrOneHot(BoundKernel):
    """Row i has a 1 in column x[i], i < n; nothing where that is none of the classes; buffers x, CSR."""
    def __init__(self, n, classes, dtype):
        self.own(make_csr_one_hot(n, classes, text(dtype)))


cdef class UpdateRows(BoundKernel):
    """The update of a rule ('sgd', 'adagrad') at the rows of a gradient g, w (width, n): w changes, and the state s of adagrad.

    average: adagrad divides by the mean multiplier of all rows. norm: `limit` is of the norm of the whole gradient, else of each
    element. The gradient is multiplied by `scale`, then limited. Buffers w, g, s (adagrad), eta, scale, limit.
    """
    def __init__(self, rule, average, norm, width, n, dtype):
        self.own(make_update_rows(text(rule), average, norm, width, n, text(dtype)))


cdef class LaggingRows(BoundKernel):
    """The update of a rule with momentum at the rows of a gradient g, w (width, n).

    rule: 'momentum', 'nesterov', 'adam', 'adamax', 'fsadagrad' or 'adadelta'. What it does to other rows, whose gradient is 0,
    is made up for when they are wanted: `settle` before they are read.
    Buffers w, g, states, the first of m, u, v, rate, v1, root (adadelta: rate), then scale and limit as in `UpdateRows`.
    decay: of adadelta's states. arrays: w and the states.
    """
    cdef readonly object arrays

    def __init__(self, rule, norm, epsilon, decay, width, n, dtype, arrays=None):
        self.arrays = arrays
        self.own(make_lagging_rows(text(rule), norm, epsilon, decay, width, n, text(dtype)))

    def state(self):
        """What is behind, for `take`: copies of `arrays` as they are, last (width,) int32, numbers (15 updates + 6,) float64."""
        cdef vector[int32_t] last
        cdef vector[double] numbers
        (<LaggingKernel *>self.kernel).keep(last, numbers)
        return [a.copy() for a in self.arrays], np.array(last, np.int32), np.array(numbers, np.float64)

    def take(self, arrays, last, numbers) -> None:
        """Goes on at a `state`; raises ValueError for one of other sizes."""
        cdef vector[int32_t] rows = np.asarray(last, np.int32)
        cdef vector[double] known = np.asarray(numbers, np.float64)
        if len(arrays) != len(self.arrays) or any(a.shape != b.shape for a, b in zip(arrays, self.arrays)):
            raise ValueError("LaggingRows: expected arrays of its own sizes")
        (<LaggingKernel *>self.kernel).take(rows, known)
        for own, a in zip(self.arrays, arrays):
            own[...] = a

    def settle(self, rows=None) -> None:
        """Brings rows up to date: those of these numbers (contiguous int32, repeated or not), or all."""
        cdef const int32_t[::1] some
        cdef LaggingKernel *k = <LaggingKernel *>self.kernel
        cdef int64_t count
        if self.call.buf[0] == NULL:
            return
        if rows is None:
            with nogil:
                k.settle_all(self.call.buf)
        elif len(rows):
            some = rows
            count = some.shape[0]
            with nogil:
                k.settle(self.call.buf, &some[0], count)
