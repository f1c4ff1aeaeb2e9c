/* Kernels that move bytes: strided copies, fills, conversions. */
#include <math.h>

#include "common.cuh"

/* y[offset in y] = x[offset in x] for each element of a space; of 1, 2, 4 or 8 bytes */
#define COPY(T, bytes)                                                                                                          \
    CG_KERNEL(copy_##bytes, const T *__restrict__ x, T *__restrict__ y, Space s) {                                              \
        CG_EACH(i, s.n) {                                                                                                       \
            int64_t a, b;                                                                                                       \
            offsets(s, i, a, b);                                                                                                \
            y[b] = x[a];                                                                                                        \
        }                                                                                                                       \
    }
CG_WORDS(COPY)

/* y[i] = value */
#define FILL(T, type)                                                                                                           \
    CG_KERNEL(fill_##type, T *y, int64_t n, double value) {                                                                     \
        CG_EACH(i, n) y[i] = (T)value;                                                                                          \
    }
CG_FLOATS(FILL)
