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
    /* What is behind, so that it can be taken up again with the same bits: the update at which each row was (width), and numbers of the
     * updates since all rows were up to date: 15 an update, and 6 more. */
    virtual void keep(std::vector<int32_t> &last, std::vector<double> &numbers) const = 0;
    virtual void take(const std::vector<int32_t> &last, const std::vector<double> &numbers) = 0;
};

/* rule: 'momentum', 'nesterov', 'adam', 'adamax', 'fsadagrad' or 'adadelta', whose two states decay by `decay`. */
LaggingKernel *make_lagging_rows(const std::string &rule, bool norm, double epsilon, double decay, int64_t width, int64_t n,
                                 const std::string &dtype);

} // namespace cg
#endif
