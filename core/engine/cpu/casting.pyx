# sources: casting.cpp
"""Numbers of one element type as another: half, single and double precision, whole numbers of 8 and 16 bits."""
include "kernel.pxi"

__all__ = ["Cast"]


cdef extern from "casting.h" namespace "cg":
    Kernel *make_cast(int64_t size, string from_, string to) except +


cdef class Cast(BoundKernel):
    """y = x as another type, 'f2', 'f4', 'f8', 'i1' or 'i2'; buffers x, y.

    Rounded to nearest, ties to even; to whole numbers towards zero, no further than the largest and smallest, NaN to 0.
    """
    def __init__(self, size, dtype, to):
        self.own(make_cast(size, text(dtype), text(to)))
