/* Learners with momentum, by rows: what a rule does to a row while its gradient is 0 is made up for when the row is wanted. */
#ifndef COGKIT_LAGGING_H
#define COGKIT_LAGGING_H

#include "sparse.h"

namespace cg {

/* A kernel some of whose rows are behind. */
struct LaggingKernel : Kernel {
    /* Brings rows up to date: those given, each once or more; all of them. */
    virtual void settle(void **buf, const int32_t *row, int64_t count) = 0;
    virtual void settle_all(void **buf) = 0;
};

/* rule: 'momentum', 'nesterov', 'adam', 'adamax', 'fsadagrad' or 'adadelta', whose two states decay by `decay`. */
LaggingKernel *make_lagging_rows(const std::string &rule, bool norm, double epsilon, double decay, int64_t width, int64_t n,
                                 const std::string &dtype);

} // namespace cg
#endif
