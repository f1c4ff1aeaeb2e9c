/* CUDA kernels of C.native_user_function, given as text: C.register_native_user_function(..., cuda=text or path).
 *
 *     #include "cogkit_user.cuh"
 *     CG_KERNEL(forward, cogkit_call c) {
 *         const float *x = c.x[0].as<float>();
 *         float *y = c.y[0].as<float>();
 *         CG_EACH(i, c.y[0].count()) y[i] = x[i] > 0 ? x[i] : 0;
 *     }
 *     CG_KERNEL(backward, cogkit_call c) { ... }
 *
 * forward fills y from x. backward, which may be missing where no gradient is wanted, fills dx from x, y and dy; dx[i].data is null where no
 * gradient is wanted, dy[j].data where none arrives. Each is launched once, with blocks of 256 threads, about as many as the largest array
 * written has elements: CG_EACH(i, n) shares n numbers out among all threads. What several threads add up they must add in a fixed order, so
 * that bits do not depend on it. Arrays do not overlap.
 */
#ifndef COGKIT_USER_CUH
#define COGKIT_USER_CUH
#include <math.h>

#include "common.cuh"

constexpr int COGKIT_ARRAYS = 8, COGKIT_RANK = 8, COGKIT_SETTINGS = 16;

struct cogkit_array {
    void *data;                 /* contiguous, rows first */
    int64_t rows;               /* samples or steps; 1 where the value is the same for all samples */
    int64_t size;               /* elements of a row */
    int64_t rank, type;         /* axes of a row; bytes of an element: 4 is float, 8 is double */
    int64_t shape[COGKIT_RANK]; /* of a row */
    template <class T> __device__ T *as() const { return static_cast<T *>(data); }
    __device__ int64_t count() const { return rows * size; }
};

struct cogkit_call {
    cogkit_array x[COGKIT_ARRAYS], y[COGKIT_ARRAYS], dy[COGKIT_ARRAYS], dx[COGKIT_ARRAYS];
    double settings[COGKIT_SETTINGS]; /* the numbers among the attributes of the function, in order */
};
#endif
