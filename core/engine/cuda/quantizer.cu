/* Gradients in 1 to 8 bits, column by column, with the error kept: what cogkit.parallel.quantize says, and its messages byte for byte.
 *
 * A warp a column: sums have 32 parts, value i in part i % 32, folded in halves, so that bits are those of the CPU. Word w of a column of W
 * words holds in bit j what is said of value j W + w; planes of k bits lie one after the other.
 */
#include <math.h>

#include "common.cuh"

/* Products and sums that are never one fused multiply-add. */
__device__ inline float times(float a, float b) { return __fmul_rn(a, b); }
__device__ inline double times(double a, double b) { return __dmul_rn(a, b); }
__device__ inline float plus(float a, float b) { return __fadd_rn(a, b); }
__device__ inline double plus(double a, double b) { return __dadd_rn(a, b); }

/* The sum over the lanes of a warp, for all of them. */
template <class T> __device__ inline T fold(T part) {
    for (int h = 16; h; h /= 2) part = plus(part, __shfl_down_sync(0xffffffffu, part, h));
    return __shfl_sync(0xffffffffu, part, 0);
}

/* Rounded up to 15 bits, so that a step of it times a small number is exact; double has bits enough. */
__device__ inline float shortened(float range) {
    unsigned u = __float_as_uint(range);
    if ((u & 0x7f800000u) != 0x7f800000u) u = (u + 0x1ff) & ~0x1ffu;
    return __uint_as_float(u);
}
__device__ inline double shortened(double range) { return range; }

/* First value, size and first word of each of `count` columns. */
struct Columns {
    const int64_t *table;
    int64_t count;
    __device__ int64_t begin(int64_t c) const { return table[c]; }
    __device__ int64_t size(int64_t c) const { return table[count + c]; }
    __device__ int64_t word(int64_t c) const { return table[2 * count + c]; }
};

/* What bits stand for: of one bit the two levels; else value (q + 0.5 - half) step, q in [0, 2 half). */
template <class T> struct Meaning {
    T low, high, threshold, step, inverse, half;
};

template <class T, bool ONE> __device__ inline T meant(const Meaning<T> &m, unsigned q) {
    return ONE ? (q ? m.high : m.low) : times(plus((T)q, T(0.5) - m.half), m.step);
}

/* v = residual + values, kept in the residual; the levels of the column */
template <class T, bool ONE> __device__ inline Meaning<T> levels(int64_t n, const T *x, T *v, int bits, bool zero) {
    const int lane = threadIdx.x % 32;
    Meaning<T> m{};
    T sum = 0;
    for (int64_t i = lane; i < n; i += 32) {
        v[i] = plus(v[i], x[i]);
        sum = plus(sum, v[i]);
    }
    sum = fold(sum);
    T part = 0;
    if (!ONE) {
        m.half = (T)(1 << (bits - 1));
        for (int64_t i = lane; i < n; i += 32) part = plus(part, times(v[i], v[i]));
        const T range = shortened(4 * sqrt(fold(part) / (T)n));
        m.low = -range, m.high = range, m.step = range / m.half;
        m.inverse = m.step > 0 ? 1 / m.step : T(0);
    } else if (zero) {
        T below = 0, above = 0;
        int64_t count = 0;
        for (int64_t i = lane; i < n; i += 32) {
            const bool less = v[i] < 0;
            below = plus(below, less ? v[i] : T(0)), above = plus(above, less ? T(0) : v[i]);
            count += less;
        }
        below = fold(below), above = fold(above);
        for (int h = 16; h; h /= 2) count += __shfl_xor_sync(0xffffffffu, count, h);
        m.low = below / (T)(count > 1 ? count : 1), m.high = above / (T)(n - count > 1 ? n - count : 1);
    } else {
        m.threshold = sum / (T)n;
        for (int64_t i = lane; i < n; i += 32) part = plus(part, fabs(v[i] - m.threshold));
        const T d = fold(part) / (T)n;
        m.low = m.threshold - d, m.high = m.threshold + d;
    }
    return m;
}

template <class T, bool ONE>
__device__ inline void pack_column(int64_t n, int bits, bool zero, const T *x, T *v, T *level, uint32_t *words) {
    const int lane = threadIdx.x % 32;
    const Meaning<T> m = levels<T, ONE>(n, x, v, bits, zero);
    if (lane == 0) level[0] = m.low, level[1] = m.high;
    __syncwarp(); /* from here on lanes read what others have written */
    const int64_t W = (n + 31) / 32;
    for (int64_t w = lane; w < W; w += 32) {
        uint32_t plane[ONE ? 1 : 8] = {};
        for (int64_t i = w, j = 0; i < n; i += W, j++) {
            unsigned q;
            if (ONE) {
                q = v[i] >= m.threshold;
            } else {
                T y = plus(times(v[i], m.inverse), m.half);
                y = y > 0 ? y : T(0); /* what is not a number too */
                const T top = 2 * m.half - 1;
                q = (unsigned)(y < top ? y : top);
            }
            v[i] = v[i] - meant<T, ONE>(m, q);
#pragma unroll
            for (int p = 0; p < (ONE ? 1 : 8); p++) plane[p] |= (q >> p & 1) << j;
        }
#pragma unroll
        for (int p = 0; p < (ONE ? 1 : 8); p++)
            if (p < bits) words[p * W + w] = plane[p];
    }
}

template <class T, bool ONE, bool ADD>
__device__ inline void unpack_column(int64_t n, int bits, const T *level, const uint32_t *words, T *v) {
    const int lane = threadIdx.x % 32;
    Meaning<T> m{};
    m.low = level[0], m.high = level[1], m.half = (T)(1 << (bits - 1)), m.step = m.high / m.half;
    const int64_t W = (n + 31) / 32;
    for (int64_t w = lane; w < W; w += 32) {
        uint32_t plane[ONE ? 1 : 8] = {};
#pragma unroll
        for (int p = 0; p < (ONE ? 1 : 8); p++)
            if (p < bits) plane[p] = words[p * W + w];
        for (int64_t i = w, j = 0; i < n; i += W, j++) {
            unsigned q = 0;
#pragma unroll
            for (int p = 0; p < (ONE ? 1 : 8); p++) q |= (plane[p] >> j & 1) << p;
            const T x = meant<T, ONE>(m, q);
            v[i] = ADD ? plus(v[i], x) : x;
        }
    }
}

#define EACH_COLUMN(c, columns)                                                                                                 \
    for (int64_t c = thread_number() / 32; c < columns.count; c += thread_count() / 32)
/* message: two levels a column, then the words of all columns */
#define QUANTIZER(T, t)                                                                                                         \
    CG_KERNEL(quantizer_pack_##t, const int64_t *table, int64_t count, int64_t bits, int64_t zero, const T *values,             \
              T *residual, T *message) {                                                                                        \
        const Columns columns{table, count};                                                                                    \
        uint32_t *words = (uint32_t *)(message + 2 * count);                                                                    \
        EACH_COLUMN(c, columns) {                                                                                               \
            const int64_t at = columns.begin(c), n = columns.size(c);                                                           \
            uint32_t *to = words + columns.word(c);                                                                             \
            if (bits == 1) pack_column<T, true>(n, 1, zero, values + at, residual + at, message + 2 * c, to);                   \
            else pack_column<T, false>(n, (int)bits, false, values + at, residual + at, message + 2 * c, to);                   \
        }                                                                                                                       \
    }                                                                                                                           \
    CG_KERNEL(quantizer_unpack_##t, const int64_t *table, int64_t count, int64_t bits, int64_t add, const T *message,           \
              T *values) {                                                                                                      \
        const Columns columns{table, count};                                                                                    \
        const uint32_t *words = (const uint32_t *)(message + 2 * count);                                                        \
        EACH_COLUMN(c, columns) {                                                                                               \
            const int64_t n = columns.size(c);                                                                                  \
            const T *level = message + 2 * c;                                                                                   \
            const uint32_t *from = words + columns.word(c);                                                                     \
            T *to = values + columns.begin(c);                                                                                  \
            if (bits == 1) add ? unpack_column<T, true, true>(n, 1, level, from, to) : unpack_column<T, true, false>(n, 1, level, from, to); \
            else add ? unpack_column<T, false, true>(n, (int)bits, level, from, to)                                             \
                     : unpack_column<T, false, false>(n, (int)bits, level, from, to);                                           \
        }                                                                                                                       \
    }
CG_FLOATS(QUANTIZER)
