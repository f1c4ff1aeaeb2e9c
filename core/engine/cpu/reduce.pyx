# sources: reduce.cpp
"""Reductions that are not a plain sum or maximum: moments, log-sum-exp, indices of extrema, the k largest."""
include "kernel.pxi"

__all__ = ["ArgReduce", "LogSumExp", "Moments", "TopK"]


cdef extern from "reduce.h" namespace "cg":
    Kernel *make_moments(vector[int64_t] dims, vector[int64_t] strides, vector[int64_t] out_strides, string dtype) except +
    Kernel *make_log_sum_exp(vector[int64_t] dims, vector[int64_t] strides, vector[int64_t] out_strides, string dtype) except +
    Kernel *make_arg_reduce(string kind, int64_t outer, int64_t n, int64_t inner, string dtype) except +
    Kernel *make_top_k(int64_t outer, int64_t n, int64_t inner, int64_t k, string dtype) except +


cdef class Moments(BoundKernel):
    """Mean and biased variance over the dimensions whose output stride is 0; buffers x, mean, var.

    One pass over memory: exact moments of blocks, united in doubles (Chan, Golub, LeVeque 1979). 0 where nothing is averaged.
    """
    def __init__(self, dims, strides, out_strides, dtype):
        self.own(make_moments(dims, strides, out_strides, text(dtype)))


cdef class LogSumExp(BoundKernel):
    """y = log sum exp x over the dimensions whose output stride is 0; buffers x, y. -inf where nothing is summed."""
    def __init__(self, dims, strides, out_strides, dtype):
        self.own(make_log_sum_exp(dims, strides, out_strides, text(dtype)))


cdef class ArgReduce(BoundKernel):
    """y[o, j] = the first i at which x[o, i, j] is largest ('max') or smallest ('min'), as a float; buffers x, y.

    NaN wins, as in NumPy.
    """
    def __init__(self, kind, outer, n, inner, dtype):
        self.own(make_arg_reduce(text(kind), outer, n, inner, text(dtype)))


cdef class TopK(BoundKernel):
    """The k largest of x (outer, n, inner), largest first, equal ones by index; buffers x, values, indices (outer, k, inner)."""
    def __init__(self, outer, n, inner, k, dtype):
        self.own(make_top_k(outer, n, inner, k, text(dtype)))
