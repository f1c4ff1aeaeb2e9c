/* Kernels over the rows of sequences: numbers a row, reductions over steps. Rows of step t are offset[t] : offset[t + 1]. */
#include "blocks.cuh"

/* y[r, :] = value[r]; rows of `width` elements */
#define ROW_VALUES(T, type)                                                                                                     \
    CG_KERNEL(row_values_##type, const T *__restrict__ value, T *__restrict__ y, int64_t n, int64_t width) {                    \
        CG_EACH(i, n) y[i] = value[quotient(i, width)];                                                                         \
    }
CG_FLOATS(ROW_VALUES)

struct Sum {
    template <class T> __device__ T operator()(T a, T b) const { return a + b; }
};
struct Max { /* NaN wins */
    template <class T> __device__ T operator()(T a, T b) const { return a > b || a != a ? a : b; }
};
struct Min {
    template <class T> __device__ T operator()(T a, T b) const { return a < b || a != a ? a : b; }
};

/* y[order[k]] = fold over t, in order, of x[offset[t] + k]; 0 for a sequence without steps. Rows of `width` elements. */
template <class T, class F>
__device__ inline void fold_steps(const T *__restrict__ x, T *__restrict__ y, const int64_t *offset, const int64_t *order,
                                  int64_t steps, int64_t sequences, int64_t width, F f) {
    CG_EACH(i, sequences *width) {
        const int64_t k = quotient(i, width);
        T v = 0;
        if (steps && k < offset[1]) {
            v = x[i];
            for (int64_t t = 1; t < steps && k < offset[t + 1] - offset[t]; t++) v = f(v, x[offset[t] * width + i]);
        }
        y[order[k] * width + (i - k * width)] = v;
    }
}

#define FOLD(T, type, name, F)                                                                                                  \
    CG_KERNEL(fold_##name##_##type, const T *__restrict__ x, T *__restrict__ y, const int64_t *__restrict__ offset,             \
              const int64_t *__restrict__ order, int64_t steps, int64_t sequences, int64_t width) {                             \
        fold_steps(x, y, offset, order, steps, sequences, width, F());                                                          \
    }
#define FOLDS(T, type) FOLD(T, type, sum, Sum) FOLD(T, type, max, Max) FOLD(T, type, min, Min)
CG_FLOATS(FOLDS)

/* y[i] = x[i], i < there, 0 behind it */
CG_KERNEL(carry, const uint32_t *__restrict__ x, uint32_t *__restrict__ y, int64_t there, int64_t n) {
    CG_EACH(i, n) y[i] = i < there ? x[i] : 0;
}
