/* Matrix products over packed rows, whose number changes from call to call: nothing is made anew for another number. */
#ifndef COGKIT_ROWS_H
#define COGKIT_ROWS_H

#include "support.h"

namespace cg {

/* `rows` may be written between two runs; it directly follows the base. */
struct RowsKernel : Kernel {
    int64_t rows = 0;
};

/* Distances between two rows in elements, 0: dense (of c_in: that of c); offsets in elements from the buffer's address. */
struct PackArgs {
    int64_t k = 0, n = 0;
    bool transpose = false;
    int64_t ldb = 0, b_offset = 0;
};

struct RowProductArgs {
    int64_t rows = 0, k = 0, n = 0;
    bool bias = false, relu = false, add = false;
    int64_t lda = 0, ldc = 0, ldi = 0;
    int64_t a_offset = 0, bias_offset = 0, c_offset = 0, i_offset = 0;
};

struct SumProductArgs {
    int64_t rows = 0, m = 0, n = 0;
    bool add = false;
    int64_t lda = 0, ldb = 0, ldc = 0, ldi = 0;
    int64_t a_offset = 0, b_offset = 0, c_offset = 0, i_offset = 0;
};

int64_t packed_bytes(int64_t k, int64_t n, const std::string &dtype);
Kernel *make_pack(const std::string &dtype, PackArgs args);
RowsKernel *make_row_product(const std::string &dtype, RowProductArgs args);
/* A row product that packs b at each run; b is (k, n), or (n, k) where `transpose`. */
RowsKernel *make_whole_product(const std::string &dtype, RowProductArgs args, bool transpose);
RowsKernel *make_sum_product(const std::string &dtype, SumProductArgs args);

} // namespace cg
#endif
