# sources: movement.cpp indexing.cpp
"""Kernels that move data: strided copies (transpose, slice, pad, splice, layouts), fills, gathers and their gradients.

Float indices as in CNTK: truncated towards zero; one that names no row gives zeros and is reported by `error()`.
"""
include "kernel.pxi"
include "indexed.pxi"

__all__ = ["Along", "Cast", "Copies", "Copy", "Fill", "Gather", "OneHot", "ScatterAdd"]


cdef extern from "movement.h" namespace "cg":
    cdef cppclass Piece "cg::Piece":
        int input
        int output
        vector[int64_t] dims
        vector[int64_t] in_strides
        vector[int64_t] out_strides
        int64_t in_offset
        int64_t out_offset
    Kernel *make_copy(const vector[Piece] &pieces, int inputs, int outputs, int64_t itemsize) except +
    Kernel *make_fill(int64_t size, string dtype, double value) except +
    Kernel *make_gather(int64_t rows, int64_t row_size, int64_t table_rows, string dtype) except +
    Kernel *make_scatter_add(int64_t rows, int64_t row_size, int64_t table_rows, string dtype, cbool accumulate) except +
    Kernel *make_one_hot(int64_t n, int64_t classes, int64_t inner, string dtype) except +
    Kernel *make_along(cbool put, int64_t outer, int64_t n, int64_t inner, int64_t k, string dtype) except +


cdef Piece piece_of(dims, in_strides, out_strides, in_offset, out_offset, input=0, output=0):
    cdef Piece piece
    piece.dims = dims
    piece.in_strides = in_strides
    piece.out_strides = out_strides
    piece.in_offset = in_offset
    piece.out_offset = out_offset
    piece.input = input
    piece.output = output
    return piece


cdef class Copy(BoundKernel):
    """out[out_offset + i . out_strides] = in[in_offset + i . in_strides] for i in dims; buffers x, y.

    Strides and offsets count elements of `itemsize` bytes (1, 2, 4, 8); input strides may be 0 or negative.
    x and y may not overlap.
    """
    def __init__(self, dims, in_strides, out_strides, itemsize, in_offset=0, out_offset=0):
        cdef vector[Piece] pieces
        pieces.push_back(piece_of(dims, in_strides, out_strides, in_offset, out_offset))
        self.own(make_copy(pieces, 1, 1, itemsize))


cdef class Copies(BoundKernel):
    """Several copies in one call, in order; buffers are the inputs, then the outputs.

    A piece is (input, output, dims, in_strides, out_strides, in_offset, out_offset); `Copies` with one output is a splice.
    """
    def __init__(self, pieces, inputs, outputs, itemsize):
        cdef vector[Piece] all_pieces
        for input, output, dims, in_strides, out_strides, in_offset, out_offset in pieces:
            all_pieces.push_back(piece_of(dims, in_strides, out_strides, in_offset, out_offset, input, output))
        self.own(make_copy(all_pieces, inputs, outputs, itemsize))


cdef class Fill(BoundKernel):
    """y[:] = value; buffer y. dtype 'f4', 'f8', 'i4', 'i8' or 'u1'."""
    def __init__(self, size, dtype, value=0.0):
        self.own(make_fill(size, text(dtype), value))


cdef class Gather(IndexedKernel):
    """y[i] = table[index[i]], table (table_rows, row_size), i < rows; buffers table, index, y."""
    def __init__(self, rows, row_size, table_rows, dtype, wrong=None):
        self.wrong = wrong
        self.own(make_gather(rows, row_size, table_rows, text(dtype)))


cdef class ScatterAdd(IndexedKernel):
    """dtable[index[i]] += dy[i] in the order of i, onto zeros unless `accumulate`; buffers index, dy, dtable."""
    def __init__(self, rows, row_size, table_rows, dtype, accumulate=False, wrong=None):
        self.wrong = wrong
        self.own(make_scatter_add(rows, row_size, table_rows, text(dtype), accumulate))


cdef class OneHot(BoundKernel):
    """y[i, c, j] = (x[i, j] == c), x (n, inner), y (n, classes, inner); buffers x, y."""
    def __init__(self, n, classes, inner, dtype):
        self.own(make_one_hot(n, classes, inner, text(dtype)))


cdef class Along(BoundKernel):
    """y[o, j, i] = x[o, index[o, j, i], i], x (outer, n, inner), y and index (outer, k, inner); buffers x, index, y.

    put: the transpose, x[o, index[o, j, i], i] += y[o, j, i] onto zeros; buffers y, index, x.
    """
    def __init__(self, put, outer, n, inner, k, dtype):
        self.own(make_along(put, outer, n, inner, k, text(dtype)))
