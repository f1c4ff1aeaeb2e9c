# sources: quantizer.cpp
"""Gradients in few bits, in C++: `pack` and `unpack` of `cogkit.parallel.quantize` for float32."""

from libc.stdint cimport int64_t
from libcpp cimport bool as cbool

__all__ = ["pack", "unpack"]


cdef extern from "quantizer.h" namespace "cg" nogil:
    cdef cppclass Columns "cg::Columns":
        int64_t count
        const int64_t *begin
        const int64_t *size
        const int64_t *word
    void c_pack "cg::pack"(const Columns &columns, int bits, cbool zero, const float *values, float *residual, void *message)
    void c_unpack "cg::unpack"(const Columns &columns, int bits, const void *message, float *values, cbool add)


cdef Columns columns_of(const int64_t[:, ::1] table):
    """From rows of first values, sizes and first words."""
    cdef Columns made
    made.count = table.shape[1]
    made.begin = &table[0, 0]
    made.size = &table[1, 0]
    made.word = &table[2, 0]
    return made


def pack(const int64_t[:, ::1] table, int bits, bint zero, const float[::1] values, float[::1] residual,
         unsigned char[::1] message):
    """See `cogkit.parallel.quantize.pack`."""
    if table.shape[1] == 0:
        return
    cdef Columns columns = columns_of(table)
    with nogil:
        c_pack(columns, bits, zero, &values[0], &residual[0], &message[0])


def unpack(const int64_t[:, ::1] table, int bits, const unsigned char[::1] message, float[::1] values, bint add):
    """See `cogkit.parallel.quantize.unpack`."""
    if table.shape[1] == 0:
        return
    cdef Columns columns = columns_of(table)
    with nogil:
        c_unpack(columns, bits, &message[0], &values[0], add)
