/* Weighted samples of classes, and losses over the order of the rows of a minibatch. */
#ifndef COGKIT_SAMPLING_H
#define COGKIT_SAMPLING_H

#include "support.h"

namespace cg {

Kernel *make_sample_classes(int64_t classes, int64_t count, bool duplicates, int64_t purpose, const std::string &dtype);
Kernel *make_inclusion_frequency(int64_t classes, int64_t count, const std::string &dtype);
Kernel *make_lambda_rank(int64_t rows, const std::string &dtype);
Kernel *make_ndcg_at_1(int64_t rows, const std::string &dtype);

} // namespace cg
#endif
