/* Matrix products: tiles through shared memory, long sums in parts, sums by a warp each, sums by a thread each. */
#include "tiles.cuh"

/* c[z, i, j] = sum over r, l of a[z, r, i, l] b[z, r, l, j], then bias, added, relu. Strides in elements. */
struct Product {
    int64_t m, n, k, batch, turns; /* turns: how many r there are */
    int64_t a_i, a_l, a_batch, a_turn;
    int64_t b_l, b_j, b_batch, b_turn;
    int64_t c_i, c_j, c_batch;
    int64_t bias_i, bias_j;
    int64_t parts, slices; /* parts of the sum, and slices of each; of more than one, c holds each */
    int64_t relu;
    int64_t rounding; /* of a and b as they are loaded */
};

/* Element (i, j) of matrix z after its sum. */
template <class T>
__device__ inline void finish(const Product &p, int64_t z, int64_t i, int64_t j, T sum, T *c, const T *bias, const T *added) {
    const int64_t at = z * p.c_batch + i * p.c_i + j * p.c_j;
    c[at] = finished(sum, bias ? bias + i * p.bias_i + j * p.bias_j : nullptr, added ? added + at : nullptr, p.relu);
}

/* A block makes one tile of one part of one matrix of the batch. */
template <class G, class T>
__device__ inline void tile(typename G::Shared &shared, const T *a, const T *b, T *c, const T *bias, const T *added, const Product &p) {
    const int64_t down = (p.m + G::BM - 1) / G::BM, across = (p.n + G::BN - 1) / G::BN;
    const int64_t which = blockIdx.x % (down * across), zp = blockIdx.x / (down * across), z = zp / p.parts;
    const bool wide = across > down; /* blocks that run together share the larger operand */
    const int64_t i0 = (wide ? which % down : which / across) * G::BM, j0 = (wide ? which / down : which % across) * G::BN;
    const int64_t first = zp % p.parts * p.slices, all = p.turns * ((p.k + G::BK - 1) / G::BK);
    T acc[G::TM][G::TN] = {};
    if (first < all) {
        Strided<T, G::BM, G::LA, G::BK, G::THREADS> x(a + z * p.a_batch + i0 * p.a_i, p.a_i, p.a_l, p.m - i0, p.k, p.a_turn, first);
        Strided<T, G::BN, G::LB, G::BK, G::THREADS> y(b + z * p.b_batch + j0 * p.b_j, p.b_j, p.b_l, p.n - j0, p.k, p.b_turn, first);
        G::multiply(acc, shared, x, y, min(p.slices, all - first), (int)p.rounding);
    }
#pragma unroll
    for (int r = 0; r < G::TM; r++)
#pragma unroll
        for (int q = 0; q < G::TN; q++) {
            const int64_t i = i0 + G::row(r), j = j0 + G::column(q);
            if (i < p.m && j < p.n) finish(p, zp, i, j, acc[r][q], c, bias, added);
        }
}

#define TILED(T, type, BM, BN, BK, TM, TN, BLOCKS)                                                                              \
    CG_TILED(product_##BM##x##BN##_##type, BM / TM *(BN / TN), BLOCKS, const T *__restrict__ a, const T *__restrict__ b,        \
             T *c, const T *bias, const T *added, Product p) {                                                    \
        using G = Tile<T, BM, BN, BK, TM, TN>;                                                                                  \
        __shared__ typename G::Shared shared;                                                                                   \
        tile<G>(shared, a, b, c, bias, added, p);                                                                               \
    }
TILED(float, f4, 128, 128, 8, 8, 8, 2)
TILED(float, f4, 64, 64, 16, 4, 4, 2)
TILED(float, f4, 32, 32, 16, 2, 2, 2)
TILED(float, f4, 8, 128, 16, 8, 1, 4)
TILED(double, f8, 64, 64, 8, 4, 4, 2)
TILED(double, f8, 32, 32, 16, 2, 2, 2)
TILED(double, f8, 8, 128, 16, 8, 1, 3)

/* y[z, e] = sum of `parts` in order of x[z, part, e], e < n, then bias of column e / plane % width, added, relu; z < batch */
#define PARTS(T, type)                                                                                                          \
    CG_KERNEL(sum_parts_##type, const T *x, T *y, const T *bias, const T *added, int64_t n, int64_t batch,         \
              int64_t parts, int64_t plane, int64_t width, int64_t relu) {                                                      \
        CG_EACH(i, n * batch) {                                                                                                 \
            const int64_t z = i / n, e = i - z * n;                                                                             \
            const T *from = x + z * parts * n + e;                                                                              \
            T sum = 0;                                                                                                          \
            for (int64_t part = 0; part < parts; part++) sum += from[part * n];                                                 \
            y[i] = finished(sum, bias ? bias + e / plane % width : nullptr, added ? added + i : nullptr, relu);                 \
        }                                                                                                                       \
    }
CG_FLOATS(PARTS)

/* The terms of a sum from `first` on, `stride` apart. */
template <class T>
__device__ inline T dot(const Product &p, const T *a, const T *b, int64_t z, int64_t i, int64_t j, int64_t first, int64_t stride) {
    T sum = 0;
    const int rounding = (int)p.rounding;
    for (int64_t r = 0; r < p.turns; r++) {
        const T *x = a + z * p.a_batch + r * p.a_turn + i * p.a_i, *y = b + z * p.b_batch + r * p.b_turn + j * p.b_j;
        for (int64_t l = first; l < p.k; l += stride) sum += rounded(x[l * p.a_l], rounding) * rounded(y[l * p.b_l], rounding);
    }
    return sum;
}

/* A thread makes one element: for short sums. */
#define DIRECT(T, type)                                                                                                         \
    CG_KERNEL(product_direct_##type, const T *__restrict__ a, const T *__restrict__ b, T *c, const T *bias,        \
              const T *added, Product p) {                                                                                      \
        CG_EACH(e, p.batch * p.m * p.n) {                                                                                       \
            const int64_t z = e / (p.m * p.n), i = e / p.n - z * p.m, j = e % p.n;                                              \
            finish(p, z, i, j, dot(p, a, b, z, i, j, 0, 1), c, bias, added);                                                    \
        }                                                                                                                       \
    }
CG_FLOATS(DIRECT)

/* A warp makes one element: for few and long sums. Lane t sums every 32nd term from t on; then lanes 16 apart, 8 apart ... are added. */
#define DOTS(T, type)                                                                                                           \
    CG_KERNEL(product_dots_##type, const T *__restrict__ a, const T *__restrict__ b, T *c, const T *bias,          \
              const T *added, Product p) {                                                                                      \
        const int lane = threadIdx.x % 32;                                                                                      \
        for (int64_t e = thread_number() / 32; e < p.batch * p.m * p.n; e += thread_count() / 32) {                             \
            const int64_t z = e / (p.m * p.n), i = e / p.n - z * p.m, j = e % p.n;                                              \
            T sum = dot(p, a, b, z, i, j, lane, 32);                                                                            \
            for (int d = 16; d; d /= 2) sum += __shfl_down_sync(0xffffffffu, sum, d);                                           \
            if (lane == 0) finish(p, z, i, j, sum, c, bias, added);                                                             \
        }                                                                                                                       \
    }
CG_FLOATS(DOTS)

/* Operands for libraries: y = x rounded, in two bytes or as floats; *noted: whether a number became infinite (where that is asked). */
template <int HOW> __device__ inline float noting(float x, int32_t *noted) {
    const float r = rounded(x, HOW);
    if (noted && overflows(x, r)) *noted = 1;
    return r;
}
#define ROUNDED(HOW, type)                                                                                                      \
    CG_KERNEL(rounded_##type, const float *x, float *y, int32_t *noted, int64_t n) {                                            \
        CG_EACH(i, n) y[i] = noting<HOW>(x[i], noted);                                                                          \
    }                                                                                                                           \
    CG_KERNEL(narrowed_##type, const float *x, uint16_t *y, int32_t *noted, int64_t n) {                                        \
        const bool fours = (uintptr_t)x % 16 == 0 && (uintptr_t)y % 8 == 0;                                                     \
        const int64_t whole = fours ? n / 4 : 0;                                                                                \
        CG_EACH(i, whole) {                                                                                                     \
            const Pack<float, 4> from = reinterpret_cast<const Pack<float, 4> *>(x)[i];                                         \
            Pack<uint16_t, 4> to;                                                                                               \
            for (int q = 0; q < 4; q++) to.v[q] = bits_of(noting<HOW>(from.v[q], noted), HOW);                                  \
            reinterpret_cast<Pack<uint16_t, 4> *>(y)[i] = to;                                                                   \
        }                                                                                                                       \
        CG_EACH(i, n - 4 * whole) y[4 * whole + i] = bits_of(noting<HOW>(x[4 * whole + i], noted), HOW);                        \
    }
ROUNDED(TO_HALF, f2)
ROUNDED(TO_BFLOAT16, b2)

/* *noted = 1 where a number becomes infinite in half precision; for products that round as they load. */
CG_KERNEL(note_overflow, const float *x, int32_t *noted, int64_t n) {
    CG_EACH(i, n) noting<TO_HALF>(x[i], noted);
}
