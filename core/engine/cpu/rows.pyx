# sources: rows.cpp
"""Matrix products over packed rows, for recurrent networks: the number of rows may change at every call, and costs nothing.

`ld*` are elements from one row to the next (0: dense; of c_in: that of c), `*_offset` elements from a buffer's address to the
first one, so that a slice of a wider matrix is read or written where it lies. The same bits for any number of threads.
"""
include "kernel.pxi"

__all__ = ["Pack", "RowProduct", "SumProduct", "WholeProduct", "packed_bytes"]


cdef extern from "rows.h" namespace "cg":
    cdef cppclass RowsKernel "cg::RowsKernel"(Kernel):
        int64_t rows
    cdef cppclass PackArgs "cg::PackArgs":
        int64_t k, n
        cbool transpose
        int64_t ldb, b_offset
    cdef cppclass RowProductArgs "cg::RowProductArgs":
        int64_t rows, k, n
        cbool bias, relu, add
        int64_t lda, ldc, ldi, a_offset, bias_offset, c_offset, i_offset
    cdef cppclass SumProductArgs "cg::SumProductArgs":
        int64_t rows, m, n
        cbool add
        int64_t lda, ldb, ldc, ldi, a_offset, b_offset, c_offset, i_offset
    int64_t c_packed_bytes "cg::packed_bytes"(int64_t k, int64_t n, string dtype) except +
    Kernel *make_pack(string dtype, PackArgs args) except +
    RowsKernel *make_row_product(string dtype, RowProductArgs args) except +
    RowsKernel *make_whole_product(string dtype, RowProductArgs args, cbool transpose) except +
    RowsKernel *make_sum_product(string dtype, SumProductArgs args) except +


def packed_bytes(k: int, n: int, dtype: str) -> int:
    """Bytes of a packed b (k, n); its layout belongs to this machine. Raises ValueError on sizes below 0 and unknown types."""
    return c_packed_bytes(k, n, text(dtype))


cdef class Pack(BoundKernel):
    """b (k, n), or (n, k) where `transpose`, in the order in which RowProduct reads it; buffers b, packed."""
    def __init__(self, k, n, transpose, dtype, ldb=0, b_offset=0):
        cdef PackArgs args
        args.k, args.n, args.transpose, args.ldb, args.b_offset = k, n, transpose, ldb, b_offset
        self.own(make_pack(text(dtype), args))


cdef class _RowsKernel(BoundKernel):
    """A kernel whose number of rows may change between two runs."""
    @property
    def rows(self) -> int:
        """Rows of the next run."""
        return (<RowsKernel *>self.kernel).rows

    @property
    def rows_address(self) -> int:
        """Address of that number (int64), for loops without the GIL; lives as long as this object."""
        return <size_t>&(<RowsKernel *>self.kernel).rows

    def set_rows(self, rows: int) -> None:
        """Rows of the next run; raises ValueError below 0."""
        cdef int64_t n = rows
        if n < 0:
            raise ValueError(f"{type(self).__name__}.set_rows: expected at least 0, got {n}")
        (<RowsKernel *>self.kernel).rows = n


cdef class RowProduct(_RowsKernel):
    """c = [c_in +] a B [+ bias] [where > 0, else 0; NaN stays]; buffers a (rows, k), packed B, [bias (n)], [c_in], c (rows, n).

    c_in may be c itself, with the same distance of rows. A row's bits depend on no other row, nor on how many there are.
    """
    def __init__(self, rows, k, n, dtype, bias=False, relu=False, add=False, lda=0, ldc=0, ldi=0, a_offset=0, bias_offset=0,
                 c_offset=0, i_offset=0):
        cdef RowProductArgs args
        args.rows, args.k, args.n, args.bias, args.relu, args.add = rows, k, n, bias, relu, add
        args.lda, args.ldc, args.ldi = lda, ldc, ldi
        args.a_offset, args.bias_offset, args.c_offset, args.i_offset = a_offset, bias_offset, c_offset, i_offset
        self.own(make_row_product(text(dtype), args))


cdef class WholeProduct(_RowsKernel):
    """The same of a b that is packed at each run; b (k, n) or (n, k) where `transpose`; buffers a, b, [bias (n)], [c_in], c."""
    def __init__(self, rows, k, n, dtype, transpose=False, bias=False, relu=False, add=False):
        cdef RowProductArgs args
        args.rows, args.k, args.n, args.bias, args.relu, args.add = rows, k, n, bias, relu, add
        args.lda = args.ldc = args.ldi = args.a_offset = args.bias_offset = args.c_offset = args.i_offset = 0
        self.own(make_whole_product(text(dtype), args, transpose))


cdef class SumProduct(_RowsKernel):
    """c = [c_in +] sum over rows of a' b; buffers a (rows, m), b (rows, n), [c_in], c (m, n); c_in may be c itself.

    Rows are added up in one order. Without rows: zeros, or c_in.
    """
    def __init__(self, rows, m, n, dtype, add=False, lda=0, ldb=0, ldc=0, ldi=0, a_offset=0, b_offset=0, c_offset=0, i_offset=0):
        cdef SumProductArgs args
        args.rows, args.m, args.n, args.add = rows, m, n, add
        args.lda, args.ldb, args.ldc, args.ldi = lda, ldb, ldc, ldi
        args.a_offset, args.b_offset, args.c_offset, args.i_offset = a_offset, b_offset, c_offset, i_offset
        self.own(make_sum_product(text(dtype), args))
