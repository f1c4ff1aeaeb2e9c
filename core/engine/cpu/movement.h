/* Kernels that move data: strided copies, fills, gathers, scatters, one-hot, entries by index. */
#ifndef COGKIT_MOVEMENT_H
#define COGKIT_MOVEMENT_H

#include "support.h"

namespace cg {

/* out[out_offset + i . out_strides] = in[in_offset + i . in_strides]; one of a list of such pieces. */
struct Piece {
    int input = 0, output = 0;
    Dims dims, in_strides, out_strides;
    int64_t in_offset = 0, out_offset = 0;
};

Kernel *make_copy(const std::vector<Piece> &pieces, int inputs, int outputs, int64_t itemsize);
Kernel *make_fill(int64_t size, const std::string &dtype, double value);
Kernel *make_gather(int64_t rows, int64_t row_size, int64_t table_rows, const std::string &dtype);
Kernel *make_scatter_add(int64_t rows, int64_t row_size, int64_t table_rows, const std::string &dtype, bool accumulate);
Kernel *make_one_hot(int64_t n, int64_t classes, int64_t inner, const std::string &dtype);
Kernel *make_along(bool put, int64_t outer, int64_t n, int64_t inner, int64_t k, const std::string &dtype);

} // namespace cg
#endif
