#include "quantizer.h"

#include <algorithm>
#include <cmath>

#include "support.h"

#pragma GCC diagnostic ignored "-Wpsabi" /* vectors as arguments: all is inlined */

namespace cg {
namespace {

/* Keeps a product from becoming part of a fused multiply-add: all machines round it. */
#if defined(__x86_64__)
#define CG_ROUND(product) __asm__("" : "+v"(product))
#elif defined(__aarch64__)
#define CG_ROUND(product) __asm__("" : "+w"(product))
#else
#define CG_ROUND(product)
#endif
template <class T> CG_INLINE T rounded(const T &product) {
    T x = product;
    if constexpr (sizeof(T) == 4) {
        float y;
        __builtin_memcpy(&y, &x, 4);
        CG_ROUND(y);
        __builtin_memcpy(&x, &y, 4);
    } else {
        CG_ROUND(x);
    }
    return x;
}

constexpr int LANES = 32; /* sums have so many parts on every machine: value i goes into part i % LANES, so that bits do not differ */

inline int64_t words_of(int64_t n) { return (n + 31) / 32; }

template <int VB> struct Vec {
    static constexpr int W = VB / 4;
    typedef float F __attribute__((vector_size(VB)));
    typedef int32_t I __attribute__((vector_size(VB)));
    static CG_INLINE F load(const float *p) {
        F v;
        __builtin_memcpy(&v, p, VB);
        return v;
    }
    static CG_INLINE void store(float *p, const F &v) { __builtin_memcpy(p, &v, VB); }
    static CG_INLINE F all(float x) { return x - F{}; }
};

inline float fold(float *s) {
    for (int h = LANES / 2; h; h /= 2)
        for (int i = 0; i < h; i++) s[i] += s[i + h];
    return s[0];
}

/* What the first pass finds out about a column: of SIDES the values below 0 and the others, else one sum. */
enum Pass { TOTAL, SIDES, SQUARES };
struct Found {
    float sum, above;
    int64_t below;
};

/* residual += values; sums of them, of the two sides with the number below 0, or of squares, each rounded before it is added */
template <int VB, Pass PASS> CG_INLINE Found add_up(int64_t n, const float *CG_RESTRICT x, float *CG_RESTRICT r) {
    typedef Vec<VB> V;
    constexpr int N = LANES / V::W;
    typename V::F s[N] = {}, t[N] = {};
    typename V::I c[N] = {};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma GCC unroll 8
        for (int k = 0; k < N; k++) {
            const auto v = V::load(x + i + k * V::W) + V::load(r + i + k * V::W);
            V::store(r + i + k * V::W, v);
            if (PASS == TOTAL) {
                s[k] += v;
            } else if (PASS == SQUARES) {
                s[k] += rounded(v * v);
            } else {
                const typename V::I mask = v < V::all(0);
                s[k] += (typename V::F)((typename V::I)v & mask);
                t[k] += (typename V::F)((typename V::I)v & ~mask);
                c[k] -= mask;
            }
        }
    float lower[LANES], upper[LANES];
    int32_t counts[LANES];
    __builtin_memcpy(lower, s, sizeof lower);
    __builtin_memcpy(upper, t, sizeof upper);
    __builtin_memcpy(counts, c, sizeof counts);
    for (int k = 0; i < n; i++, k++) {
        const float v = r[i] += x[i];
        if (PASS == SQUARES) {
            lower[k] += rounded(v * v);
        } else {
            (PASS == TOTAL || v < 0 ? lower : upper)[k] += v;
            counts[k] += v < 0;
        }
    }
    Found found{fold(lower), 0, 0};
    if (PASS == SIDES) {
        found.above = fold(upper);
        for (int k = 0; k < LANES; k++) found.below += counts[k];
    }
    return found;
}

/* sum |v - mean| */
template <int VB> CG_INLINE float deviation(int64_t n, const float *v, float mean) {
    typedef Vec<VB> V;
    constexpr int N = LANES / V::W;
    typename V::F s[N] = {};
    const auto m = V::all(mean);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma GCC unroll 8
        for (int k = 0; k < N; k++) {
            const auto d = V::load(v + i + k * V::W) - m;
            s[k] += (typename V::F)((typename V::I)d & 0x7fffffff);
        }
    float lanes[LANES];
    __builtin_memcpy(lanes, s, sizeof lanes);
    for (int k = 0; i < n; i++, k++) lanes[k] += std::fabs(v[i] - mean);
    return fold(lanes);
}

/* In each byte of each lane, bit p of a[i] changes places with bit i of a[p]. */
template <class I> CG_INLINE void turn_bits(I *a) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        const I t = (a[k] >> 4 ^ a[k + 4]) & 0x0f0f0f0f;
        a[k + 4] ^= t;
        a[k] ^= t << 4;
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        I &low = a[k / 2 * 4 + k % 2], &high = a[k / 2 * 4 + k % 2 + 2];
        const I t = (low >> 2 ^ high) & 0x33333333;
        high ^= t;
        low ^= t << 2;
    }
#pragma GCC unroll 4
    for (int k = 0; k < 8; k += 2) {
        const I t = (a[k] >> 1 ^ a[k + 1]) & 0x55555555;
        a[k + 1] ^= t;
        a[k] ^= t << 1;
    }
}

/* What bits stand for: of one bit the two levels; else value (q + 0.5 - half) step, q in [0, 2 half). */
struct Meaning {
    float low, high, threshold;
    float step, inverse, half;
};

/* The words w .. w + lanes of a plane, from `rows` values a word that lie W apart. */
template <int VB>
CG_INLINE void pack_one(const Meaning &m, int64_t W, int64_t rows, float *v, uint32_t *words) {
    typedef Vec<VB> V;
    const auto low = V::all(m.low), high = V::all(m.high), threshold = V::all(m.threshold);
    typename V::I plane{}, bit = typename V::I{} + 1;
    for (int64_t j = 0; j < rows; j++, bit += bit) {
        const auto x = V::load(v + j * W);
        const typename V::I upper = x >= threshold;
        plane |= upper & bit;
        V::store(v + j * W, x - (upper ? high : low));
    }
    __builtin_memcpy(words, &plane, VB);
}

/* The same of several planes. next, error: where the values and errors of the next column are expected, as many of them: they come to the
 * second-level cache meanwhile, line after line, as memory likes it. */
template <int VB>
CG_INLINE void pack_many(int bits, const Meaning &m, int64_t W, int64_t rows, float *v, uint32_t *words, const float *next,
                         const float *error) {
    typedef Vec<VB> V;
    const auto step = V::all(m.step), inverse = V::all(m.inverse), half = V::all(m.half), shift = V::all(0.5f - m.half);
    const auto zero = V::all(0), top = V::all(2 * m.half - 1);
    typename V::I planes[8] = {}; /* at first byte b of planes[i] is value 8 b + i */
    for (int b = 0; 8 * b < rows; b++)
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            const int64_t j = 8 * b + i;
            if (j >= rows) break;
            __builtin_prefetch(next + j * V::W, 0, 2);
            __builtin_prefetch(error + j * V::W, 0, 2);
            const auto x = V::load(v + j * W);
            auto y = rounded(x * inverse) + half;
            y = y > zero ? y : zero; /* what is not a number too */
            y = y < top ? y : top;
            const auto q = __builtin_convertvector(y, typename V::I);
            V::store(v + j * W, x - (__builtin_convertvector(q, typename V::F) + shift) * step);
            planes[i] |= q << 8 * b;
        }
    turn_bits(planes);
    for (int p = 0; p < bits; p++) __builtin_memcpy(words + p * W, &planes[p], VB);
}

template <int VB, bool ADD> CG_INLINE void unpack_one(const Meaning &m, int64_t W, int64_t rows, const uint32_t *words, float *v) {
    typedef Vec<VB> V;
    const auto low = V::all(m.low), high = V::all(m.high);
    typename V::I plane, bit = typename V::I{} + 1;
    __builtin_memcpy(&plane, words, VB);
    for (int64_t j = 0; j < rows; j++, bit += bit) {
        const typename V::F x = (plane & bit) != 0 ? high : low;
        V::store(v + j * W, ADD ? V::load(v + j * W) + x : x);
    }
}

template <int VB, bool ADD>
CG_INLINE void unpack_many(int bits, const Meaning &m, int64_t W, int64_t rows, const uint32_t *words, float *v) {
    typedef Vec<VB> V;
    const auto step = V::all(m.step), shift = V::all(0.5f - m.half);
    typename V::I planes[8] = {};
    for (int p = 0; p < bits; p++) __builtin_memcpy(&planes[p], words + p * W, VB);
    turn_bits(planes);
    for (int b = 0; 8 * b < rows; b++)
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            const int64_t j = 8 * b + i;
            if (j >= rows) break;
            const typename V::I q = planes[i] >> 8 * b & 0xff;
            const typename V::F x = (__builtin_convertvector(q, typename V::F) + shift) * step;
            V::store(v + j * W, ADD ? V::load(v + j * W) + x : x);
        }
}

/* CALL(bytes of a vector) over all words of a column, with w the word and r its values: first those that have one more. */
#define CG_WORDS(VB, CALL)                                                                                                       \
    const int64_t W = words_of(n), rows = W ? n / W : 0, longer = n - rows * W;                                                  \
    for (int part = 0; part < 2; part++) {                                                                                       \
        const int64_t end = part ? W : longer, r = rows + !part;                                                                 \
        int64_t w = part ? longer : 0;                                                                                           \
        for (; w + VB / 4 <= end; w += VB / 4) CALL(VB);                                                                         \
        for (; w + 4 <= end; w += 4) CALL(16);                                                                                   \
        for (; w < end; w++) CALL(4);                                                                                            \
    }

template <int VB>
CG_INLINE void pack_column(int64_t n, int bits, bool zero, const float *x, float *v, float *levels, uint32_t *words) {
    Meaning m{};
    if (bits > 1) {
        m.half = float(1 << (bits - 1));
        float range = 4 * std::sqrt(add_up<VB, SQUARES>(n, x, v).sum / float(n));
        uint32_t u; /* rounded up to 15 bits, so that (q + 0.5 - half) step is exact */
        __builtin_memcpy(&u, &range, 4);
        if ((u & 0x7f800000u) != 0x7f800000u) u = (u + 0x1ff) & ~0x1ffu;
        __builtin_memcpy(&range, &u, 4);
        m.low = -range;
        m.high = range;
        m.step = range / m.half;
        m.inverse = m.step > 0 ? 1 / m.step : 0;
#define CG_PACK_MANY(B) pack_many<B>(bits, m, W, r, v + w, words + w, x + n + w * r, v + n + w * r)
        CG_WORDS(VB, CG_PACK_MANY)
    } else {
        if (zero) {
            const Found found = add_up<VB, SIDES>(n, x, v);
            m.low = found.sum / float(std::max<int64_t>(found.below, 1));
            m.high = found.above / float(std::max<int64_t>(n - found.below, 1));
        } else {
            m.threshold = add_up<VB, TOTAL>(n, x, v).sum / float(n);
            const float d = deviation<VB>(n, v, m.threshold) / float(n);
            m.low = m.threshold - d;
            m.high = m.threshold + d;
        }
#define CG_PACK_ONE(B) pack_one<B>(m, W, r, v + w, words + w)
        CG_WORDS(VB, CG_PACK_ONE)
    }
    levels[0] = m.low;
    levels[1] = m.high;
}

template <int VB>
CG_INLINE void unpack_column(int64_t n, int bits, bool add, const float *levels, const uint32_t *words, float *v) {
    Meaning m{};
    m.low = levels[0];
    m.high = levels[1];
    m.half = float(1 << (bits - 1));
    m.step = m.high / m.half;
#define CG_ONE_ADD(B) unpack_one<B, true>(m, W, r, words + w, v + w)
#define CG_ONE_SET(B) unpack_one<B, false>(m, W, r, words + w, v + w)
#define CG_MANY_ADD(B) unpack_many<B, true>(bits, m, W, r, words + w, v + w)
#define CG_MANY_SET(B) unpack_many<B, false>(bits, m, W, r, words + w, v + w)
    if (bits == 1 && add) {
        CG_WORDS(VB, CG_ONE_ADD)
    } else if (bits == 1) {
        CG_WORDS(VB, CG_ONE_SET)
    } else if (add) {
        CG_WORDS(VB, CG_MANY_ADD)
    } else {
        CG_WORDS(VB, CG_MANY_SET)
    }
}

struct Work {
    const Columns &columns;
    int bits;
    bool flag; /* zero, add */
    float *levels;
    uint32_t *words;
    const float *x;
    float *v;
};

template <int VB> CG_INLINE void pack_range(const Work &k, int64_t first, int64_t last) {
    for (int64_t c = first; c < last; c++) {
        const int64_t at = k.columns.begin[c];
        pack_column<VB>(k.columns.size[c], k.bits, k.flag, k.x + at, k.v + at, k.levels + 2 * c, k.words + k.columns.word[c]);
    }
}

template <int VB> CG_INLINE void unpack_range(const Work &k, int64_t first, int64_t last) {
    for (int64_t c = first; c < last; c++) {
        const int64_t at = k.columns.begin[c];
        unpack_column<VB>(k.columns.size[c], k.bits, k.flag, k.levels + 2 * c, k.words + k.columns.word[c], k.v + at);
    }
}

#define CG_PACK_RANGE(VB) pack_range<VB>
CG_VERSIONS(pack_some, CG_PACK_RANGE, (const Work &k, int64_t first, int64_t last), (k, first, last))
#define CG_UNPACK_RANGE(VB) unpack_range<VB>
CG_VERSIONS(unpack_some, CG_UNPACK_RANGE, (const Work &k, int64_t first, int64_t last), (k, first, last))

int64_t total(const Columns &columns) {
    int64_t n = 0;
    for (int64_t c = 0; c < columns.count; c++) n += columns.size[c];
    return n;
}

} // namespace

void pack(const Columns &columns, int bits, bool zero, const float *values, float *residual, void *message) {
    float *levels = static_cast<float *>(message);
    const Work k{columns, bits, zero, levels, reinterpret_cast<uint32_t *>(levels + 2 * columns.count), values, residual};
    parallel_range(columns.count, total(columns), [&](int64_t a, int64_t b) { pack_some(k, a, b); });
}

void unpack(const Columns &columns, int bits, const void *message, float *values, bool add) {
    float *levels = static_cast<float *>(const_cast<void *>(message));
    const Work k{columns, bits, add, levels, reinterpret_cast<uint32_t *>(levels + 2 * columns.count), nullptr, values};
    parallel_range(columns.count, total(columns), [&](int64_t a, int64_t b) { unpack_some(k, a, b); });
}

} // namespace cg
