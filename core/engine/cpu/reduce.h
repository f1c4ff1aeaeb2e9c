/* Reductions that are not a plain sum or maximum: moments, log-sum-exp, extremal indices, the k largest. */
#ifndef COGKIT_REDUCE_H
#define COGKIT_REDUCE_H

#include "support.h"

namespace cg {

/* x strides for every dimension, output strides with 0 where a dimension is reduced. */
Kernel *make_moments(const Dims &dims, const Dims &strides, const Dims &out_strides, const std::string &dtype);
Kernel *make_log_sum_exp(const Dims &dims, const Dims &strides, const Dims &out_strides, const std::string &dtype);
Kernel *make_arg_reduce(const std::string &kind, int64_t outer, int64_t n, int64_t inner, const std::string &dtype);
Kernel *make_top_k(int64_t outer, int64_t n, int64_t inner, int64_t k, const std::string &dtype);

} // namespace cg
#endif
