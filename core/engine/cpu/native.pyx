# sources: native.cpp pooling.cpp roi.cpp
"""Matrix products, convolutions and pooling in plain layouts, float32 and float64.

For what oneDNN does not do (float64), and for machines without it.
"""
include "kernel.pxi"

__all__ = ["Convolution", "MatMul", "POOL_C16", "Pooling", "RoiPooling", "get_num_threads", "set_num_threads"]

POOL_C16 = True  # Pooling takes layout="c16"


cdef extern from "native.h" nogil:
    int omp_get_max_threads()
    void omp_set_num_threads(int n)


cdef extern from "native.h" namespace "cg":
    cdef cppclass MatMulArgs "cg::MatMulArgs":
        int64_t batch
        int64_t m
        int64_t n
        int64_t k
        cbool transpose_a
        cbool transpose_b
        int64_t a_batch
        int64_t b_batch
        int64_t c_batch
        int64_t lda
        int64_t ldb
        int64_t ldc
        cbool accumulate
        cbool sum_batch
        cbool bias
        cbool relu
    cdef cppclass ConvArgs "cg::ConvArgs":
        vector[int64_t] x
        vector[int64_t] w
        vector[int64_t] y
        vector[int64_t] strides
        vector[int64_t] dilation
        vector[int64_t] pad_lo
        vector[int64_t] pad_hi
        int64_t groups
        cbool bias
        cbool relu
    cdef cppclass PoolArgs "cg::PoolArgs":
        vector[int64_t] x
        vector[int64_t] y
        vector[int64_t] window
        vector[int64_t] strides
        vector[int64_t] pad_lo
        vector[int64_t] pad_hi
        string layout
    cdef cppclass RoiArgs "cg::RoiArgs":
        int64_t rows
        int64_t regions
        int64_t channels
        int64_t h
        int64_t w
        int64_t out_h
        int64_t out_w
        double scale
        cbool x_rows
        cbool roi_rows
        cbool v_rows
    Kernel *make_matmul(string dtype, const MatMulArgs &args) except +
    Kernel *make_convolution(string kind, string dtype, const ConvArgs &args) except +
    Kernel *make_pooling(string kind, string mode, string dtype, const PoolArgs &args) except +
    Kernel *make_roi_pooling(string kind, string mode, string dtype, const RoiArgs &args) except +


def get_num_threads() -> int:
    """Threads that kernels called from this thread may use."""
    return omp_get_max_threads()


def set_num_threads(n: int) -> None:
    """Threads that kernels called from this thread may use; raises ValueError below 1."""
    if n < 1:
        raise ValueError(f"set_num_threads: expected at least 1, got {n}")
    omp_set_num_threads(n)


cdef class MatMul(BoundKernel):
    """c[b] (+)= a[b] b[b] [+ bias] [where > 0, else 0; NaN stays], a (m, k), b (k, n), c (m, n), stored transposed where asked.

    Buffers a, b, [bias (n)], c.

    Batch strides count elements (0: one matrix for all); `sum_batch` adds the products of all b into one c; lda, ldb, ldc are the
    elements from one stored row to the next (0: dense). The same bits for any number of threads.
    """
    def __init__(self, dtype, batch, m, n, k, transpose_a=False, transpose_b=False, a_batch_stride=0, b_batch_stride=0,
                 c_batch_stride=0, accumulate=False, sum_batch=False, lda=0, ldb=0, ldc=0, bias=False, relu=False):
        cdef MatMulArgs args
        args.batch, args.m, args.n, args.k = batch, m, n, k
        args.transpose_a, args.transpose_b = transpose_a, transpose_b
        args.a_batch, args.b_batch, args.c_batch = a_batch_stride, b_batch_stride, c_batch_stride
        args.lda, args.ldb, args.ldc = lda, ldb, ldc
        args.accumulate, args.sum_batch, args.bias, args.relu = accumulate, sum_batch, bias, relu
        self.own(make_matmul(text(dtype), args))


cdef class Convolution(BoundKernel):
    """y[n, o, p] = sum x[n, c, p * stride + k * dilation - pad_lo] w[o, c, k] + b[o]; with relu 0 where that is below, NaN stays.

    x (N, C, ...), w (O, C / groups, ...), y (N, O, ...).
    Buffers of kind 'forward': x, w, [b], y; 'backward_data': dy, w, dx; 'backward_weights': x, dy, dw.
    Plain layouts, 1 to 3 spatial dimensions.
    """
    def __init__(self, kind, dtype, x_shape, w_shape, y_shape, strides, dilation, pad_lo, pad_hi, groups=1, bias=False,
                 relu=False):
        cdef ConvArgs args
        args.x, args.w, args.y = x_shape, w_shape, y_shape
        args.strides, args.dilation, args.pad_lo, args.pad_hi = strides, dilation, pad_lo, pad_hi
        args.groups, args.bias, args.relu = groups, bias, relu
        self.own(make_convolution(text(kind), text(dtype), args))


cdef class Pooling(BoundKernel):
    """Maxima or averages over windows, 1 to 3 spatial dimensions, x (N, C, ...), in layout 'plain' or 'c16'.

    Buffers of kind 'forward': x, y; 'backward' of 'max': dy, x, dx; 'backward' of an average: dy, dx; 'pick' (of 'max'): v, x, y,
    v shaped like x, at the place of each maximum of x. Of equal maxima the first counts, rows first; NaN is above everything.
    mode 'max', 'avg_exclude_pad', 'avg_include_pad'.
    """
    def __init__(self, kind, mode, dtype, x_shape, y_shape, window, strides, pad_lo, pad_hi, layout="plain"):
        cdef PoolArgs args
        args.x, args.y, args.window, args.strides, args.pad_lo, args.pad_hi = x_shape, y_shape, window, strides, pad_lo, pad_hi
        args.layout = text(layout)
        self.own(make_pooling(text(kind), text(mode), text(dtype), args))


cdef class RoiPooling(BoundKernel):
    """Largest values or means of bins of regions: x (rows, C, H, W), rois (rows, R, 4), y (rows, R, C, out_h, out_w).

    A region is x1, y1, x2, y2, times `scale` and rounded the first and last cells; a bin's cells are those that it touches, 0
    where there are none. Buffers of kind 'forward': x, rois, y; 'backward': dy, x, rois, dx; 'pick' (of 'max'): v, x, rois, y,
    v at the places of the maxima of x. mode 'max' or 'avg'. x_rows, roi_rows, v_rows: False where one is the same for all rows.
    Ties as in `Pooling`.
    """
    def __init__(self, kind, mode, dtype, rows, regions, image, bins, scale, x_rows=True, roi_rows=True, v_rows=True):
        cdef RoiArgs args
        args.rows, args.regions, args.scale = rows, regions, scale
        args.channels, args.h, args.w = image
        args.out_h, args.out_w = bins
        args.x_rows, args.roi_rows, args.v_rows = x_rows, roi_rows, v_rows
        self.own(make_roi_pooling(text(kind), text(mode), text(dtype), args))
