/* What oneDNN does not do here (float64, machines without it): matrix products, convolutions, pooling in plain layouts. */
#ifndef COGKIT_NATIVE_H
#define COGKIT_NATIVE_H

#include "support.h"

namespace cg {

struct MatMulArgs {
    int64_t batch = 1, m = 0, n = 0, k = 0;
    bool transpose_a = false, transpose_b = false;
    int64_t a_batch = 0, b_batch = 0, c_batch = 0; /* elements between two matrices; 0: one for all */
    int64_t lda = 0, ldb = 0, ldc = 0;             /* elements between two stored rows; 0: dense */
    bool accumulate = false, sum_batch = false;
    bool bias = false, relu = false; /* of the result: + bias (n), then 0 where below */
};

struct ConvArgs {
    Dims x, w, y, strides, dilation, pad_lo, pad_hi;
    int64_t groups = 1;
    bool bias = false, relu = false;
};

struct PoolArgs {
    Dims x, y, window, strides, pad_lo, pad_hi;
    std::string layout = "plain"; /* or "c16" */
};

struct RoiArgs {
    int64_t rows = 1, regions = 0, channels = 0, h = 0, w = 0, out_h = 1, out_w = 1;
    double scale = 1;
    bool x_rows = true, roi_rows = true, v_rows = true; /* whether x, the regions, the picked tensor differ from row to row */
};

Kernel *make_matmul(const std::string &dtype, const MatMulArgs &args);
Kernel *make_convolution(const std::string &kind, const std::string &dtype, const ConvArgs &args);
Kernel *make_pooling(const std::string &kind, const std::string &mode, const std::string &dtype, const PoolArgs &args);
Kernel *make_roi_pooling(const std::string &kind, const std::string &mode, const std::string &dtype, const RoiArgs &args);

} // namespace cg
#endif
