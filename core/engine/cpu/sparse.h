/* Kernels of sparse values: products of CSR rows, gradients that list their rows, and what makes them dense. */
#ifndef COGKIT_SPARSE_H
#define COGKIT_SPARSE_H

#include "support.h"

namespace cg {

/* Rows of (column, value) pairs: row r has the entries begin()[r] to end()[r], so that a choice of rows shares the entries.
 * Both tables of row bounds follow the head in memory. */
struct Csr {
    int64_t rows;
    const int32_t *column;
    const void *value;
    int64_t unused[5];
    int64_t *begin() { return (int64_t *)(this + 1); }
    int64_t *end() { return begin() + rows; }
    const int64_t *begin() const { return (const int64_t *)(this + 1); }
    const int64_t *end() const { return begin() + rows; }
};

/* The rows of a matrix that are not 0: their numbers, rising, and their values one after the other. */
struct RowList {
    int64_t count;
    const int64_t *row;
    const void *value;
    int64_t unused[5];
};

Kernel *make_csr_times(int64_t width, int64_t n, bool turned, const std::string &dtype);
Kernel *make_csr_transposed(int64_t width, int64_t n, const std::string &dtype);
Kernel *make_scatter_rows(int64_t rows, int64_t n, int64_t width, const std::string &dtype);
void resize_scatter_rows(Kernel *kernel, int64_t rows);
Kernel *make_rows_add(int64_t n, const std::string &dtype);
Kernel *make_rows_dense(int64_t width, int64_t n, const std::string &dtype);
Kernel *make_csr_dense(int64_t width, const std::string &dtype);
Kernel *make_csr_move(int64_t rows, const int64_t *index);
Kernel *make_csr_one_hot(int64_t n, int64_t classes, const std::string &dtype);
Kernel *make_update_rows(const std::string &rule, bool average, bool norm, int64_t width, int64_t n, const std::string &dtype);

} // namespace cg
#endif
