/* Kernels that move bytes: strided copies, fills, conversions. */
#include <math.h>

#include "blocks.cuh"

/* y[offset in y] = x[offset in x] for each element of a space; of 2, 4, 8 or 16 bytes */
#define COPY(T, bytes)                                                                                                          \
    CG_KERNEL(copy_##bytes, const T *__restrict__ x, T *__restrict__ y, Space s) {                                              \
        CG_EACH(i, s.n) {                                                                                                       \
            int64_t a = s.x0, b = s.y0, rest = i;                                                                               \
            for (int d = (int)s.rank - 1; d >= 0; d--) {                                                                        \
                const int64_t q = d ? quotient(rest, s.dims[d]) : 0, r = rest - q * s.dims[d];                                  \
                a += r * s.x[d], b += r * s.y[d], rest = q;                                                                     \
            }                                                                                                                   \
            y[b] = x[a];                                                                                                        \
        }                                                                                                                       \
    }
CG_WORDS(COPY)
COPY(Quad, 16)

/* Matrices that lie turned in y: what follows itself in x does not in y. */
struct Turn {
    int64_t inner, outer, batch; /* sizes: what follows itself in x, what does in y, how many */
    int64_t x, y, x_batch, y_batch, x0, y0;
};

/* y[y0 + b y_batch + i y + o] = x[x0 + b x_batch + o x + i]; a block a tile of 32 x 32 */
#define TURN(T, bytes)                                                                                                          \
    CG_KERNEL(turn_##bytes, const T *__restrict__ x, T *__restrict__ y, Turn k) {                                               \
        __shared__ T tile[32][33];                                                                                              \
        const int64_t wide = (k.inner + 31) / 32, high = (k.outer + 31) / 32;                                                   \
        for (int64_t at = blockIdx.x; at < wide * high * k.batch; at += gridDim.x) {                                            \
            const int64_t row = quotient(at, wide), b = quotient(row, high);                                                    \
            const int64_t i = (at - row * wide) * 32, o = (row - b * high) * 32;                                                \
            const T *from = x + k.x0 + b * k.x_batch;                                                                           \
            T *to = y + k.y0 + b * k.y_batch;                                                                                   \
            for (int r = threadIdx.y; r < 32; r += 8)                                                                           \
                if (o + r < k.outer && i + threadIdx.x < k.inner)                                                               \
                    tile[r][threadIdx.x] = from[(o + r) * k.x + i + threadIdx.x];                                               \
            __syncthreads();                                                                                                    \
            for (int r = threadIdx.y; r < 32; r += 8)                                                                           \
                if (i + r < k.inner && o + threadIdx.x < k.outer) to[(i + r) * k.y + o + threadIdx.x] = tile[threadIdx.x][r];   \
            __syncthreads();                                                                                                    \
        }                                                                                                                       \
    }
CG_WORDS(TURN)

/* y[i] = value */
#define FILL(T, type)                                                                                                           \
    CG_KERNEL(fill_##type, T *y, int64_t n, double value) {                                                                     \
        CG_EACH(i, n) y[i] = (T)value;                                                                                          \
    }
CG_FLOATS(FILL)

/* ---- conversions ------------------------------------------------------------------------------------------------------ */

/* Half precision, as bits. */
struct Half {
    uint16_t bits;
};

__device__ inline Half half_of(float x) {
    const uint32_t i = __float_as_uint(x), sign = i >> 16 & 0x8000u, a = i & 0x7fffffffu;
    uint32_t r = (a + 0xfffu + (a >> 13 & 1u)) >> 13; /* to nearest, ties to even; may carry into the exponent */
    r -= 112u << 10;
    if (a > 0x7f800000u) r = 0x7e00u;
    else if (a >= 0x477ff000u) r = 0x7c00u; /* from 65520 on */
    else if (a < 0x38800000u) /* below the smallest normal number: multiples of 2^-24 */
        r = __float_as_uint(__uint_as_float(a) + 0.5f) - 0x3f000000u;
    return {(uint16_t)(sign | r)};
}
/* through float rounded to odd, so that the second rounding is the only one that counts */
__device__ inline Half half_of(double x) {
    float f = (float)x;
    uint32_t i = __float_as_uint(f);
    if ((double)f != x && x == x && !(i & 1u)) i += fabs((double)f) < fabs(x) ? 1u : ~0u;
    return half_of(__uint_as_float(i));
}
__device__ inline float float_of(Half h) {
    const uint32_t a = h.bits & 0x7fffu, sign = (uint32_t)(h.bits & 0x8000u) << 16;
    uint32_t i = a << 13;
    if (a >= 0x7c00u) i += 224u << 23;
    else if (a >= 0x400u) i += 112u << 23;
    else i = __float_as_uint((float)a * 5.9604644775390625e-08f); /* 2^-24 */
    return __uint_as_float(i | sign);
}

/* Whole numbers lose what is left of a fraction and end at their largest and smallest; NaN is 0. */
template <class From> __device__ inline auto number(From x) { return x; }
template <> __device__ inline auto number(Half x) { return float_of(x); }
template <> __device__ inline auto number(int8_t x) { return (float)x; }
template <> __device__ inline auto number(int16_t x) { return (float)x; }
template <class T> __device__ inline int whole(T x, int least, int most) {
    return x != x ? 0 : x < T(least) ? least : x > T(most) ? most : (int)x;
}
template <class T> __device__ inline void convert(T x, Half &y) { y = half_of(x); }
template <class T> __device__ inline void convert(T x, float &y) { y = (float)x; }
template <class T> __device__ inline void convert(T x, double &y) { y = (double)x; }
template <class T> __device__ inline void convert(T x, int8_t &y) { y = (int8_t)whole(x, -128, 127); }
template <class T> __device__ inline void convert(T x, int16_t &y) { y = (int16_t)whole(x, -32768, 32767); }

/* y[i] = x[i] in another type */
#define CAST(from, From, to, To)                                                                                                \
    CG_KERNEL(cast_##from##_##to, const From *__restrict__ x, To *__restrict__ y, int64_t n) {                                  \
        CG_EACH(i, n) convert(number(x[i]), y[i]);                                                                              \
    }
#define CASTS(from, From)                                                                                                       \
    CAST(from, From, f2, Half)                                                                                                  \
    CAST(from, From, f4, float)                                                                                                 \
    CAST(from, From, f8, double)                                                                                                \
    CAST(from, From, i1, int8_t)                                                                                                \
    CAST(from, From, i2, int16_t)
CASTS(f2, Half)
CASTS(f4, float)
CASTS(f8, double)
CASTS(i1, int8_t)
CASTS(i2, int16_t)
