/* The machine itself. pointwise.cpp includes this text once for each instruction set, inside a namespace of its own and under
 * `#pragma GCC target`. Nothing of the standard library may be instantiated here: the linker keeps one copy of a shared inline
 * function, and it might keep the one for the newest processor. */

#define PW_INLINE static inline __attribute__((always_inline))
#define PW_LOOP _Pragma("GCC ivdep") /* a destination is one of the sources, element by element, or disjoint */
#define PW_LOOP4 _Pragma("GCC ivdep") _Pragma("GCC unroll 4") /* for bodies of an instruction or two */

/* ---- numbers -------------------------------------------------------------------------------------------------------- */

PW_INLINE float abs_(float x) { return __builtin_fabsf(x); }
PW_INLINE double abs_(double x) { return __builtin_fabs(x); }
PW_INLINE float sqrt_(float x) { return __builtin_sqrtf(x); }
PW_INLINE double sqrt_(double x) { return __builtin_sqrt(x); }
PW_INLINE float floor_(float x) { return __builtin_floorf(x); }
PW_INLINE double floor_(double x) { return __builtin_floor(x); }
PW_INLINE float ceil_(float x) { return __builtin_ceilf(x); }
PW_INLINE double ceil_(double x) { return __builtin_ceil(x); }
PW_INLINE float rint_(float x) { return __builtin_rintf(x); }
PW_INLINE double rint_(double x) { return __builtin_rint(x); }
PW_INLINE float copysign_(float x, float y) { return __builtin_copysignf(x, y); }
PW_INLINE double copysign_(double x, double y) { return __builtin_copysign(x, y); }
template <class T> PW_INLINE T max_(T x, T y) { return ((x >= y) | (x != x)) ? x : y; } /* NaN wins, as in NumPy */
template <class T> PW_INLINE T min_(T x, T y) { return ((x <= y) | (x != x)) ? x : y; }

/* The nearest number of half precision, ties to even: 11 bits, multiples of 2^-24 below 2^-14, infinity from 65520 on. */
PW_INLINE float half_(float x) {
    const uint32_t i = __builtin_bit_cast(uint32_t, x), a = i & 0x7fffffffu;
    const uint32_t tiny = __builtin_bit_cast(uint32_t, (__builtin_bit_cast(float, a) + 0.5f) - 0.5f);
    uint32_t r = (a + 0xfffu + (a >> 13 & 1u)) & ~0x1fffu;
    r = r > 0x477fe000u ? 0x7f800000u : r;
    r = a < 0x38800000u ? tiny : r;
    r = a > 0x7f800000u ? a : r;
    return __builtin_bit_cast(float, r | (i & 0x80000000u));
}
PW_INLINE double half_(double x) {
    const uint64_t i = __builtin_bit_cast(uint64_t, x), a = i & 0x7fffffffffffffffu;
    const uint64_t tiny = __builtin_bit_cast(uint64_t, (__builtin_bit_cast(double, a) + 0x1p28) - 0x1p28);
    uint64_t r = (a + 0x1ffffffffffu + (a >> 42 & 1u)) & ~0x3ffffffffffu;
    r = r > 0x40effc0000000000u ? 0x7ff0000000000000u : r;
    r = a < 0x3f10000000000000u ? tiny : r;
    r = a > 0x7ff0000000000000u ? a : r;
    return __builtin_bit_cast(double, r | (i & 0x8000000000000000u));
}

/* The polynomials below are minimax fits (Remez exchange, 50 digits) made for this file; errors are relative to the result. */

/* x = n ln 2 + r, |r| <= ln(2)/2; adding 1.5 * 2^mantissa rounds to an integer and leaves it in the low bits too. */
PW_INLINE float reduce_exp(float x, int32_t &n) {
    const float big = 12582912.0f, t = x * 1.44269504f + big, k = t - big;
    n = (int32_t)(__builtin_bit_cast(uint32_t, t) - __builtin_bit_cast(uint32_t, big));
    return (x - k * 0.693145751953125f) - k * 1.42860682031e-6f;
}
PW_INLINE double reduce_exp(double x, int64_t &n) {
    const double big = 6755399441055744.0, t = x * 1.44269504088896340736 + big, k = t - big;
    n = (int64_t)(__builtin_bit_cast(uint64_t, t) - __builtin_bit_cast(uint64_t, big));
    return (x - k * 0.6931471805592082091607153) - k * 7.3710025651677989018e-13;
}
/* exp(r) - 1 on the reduced range: 4e-10, 3e-19 */
PW_INLINE float expm1_poly(float r) {
    float q = 0.0001991104366f;
    q = q * r + 0.001393419323f;
    q = q * r + 0.008333280119f;
    q = q * r + 0.04166647464f;
    q = q * r + 0.1666666678f;
    return r + (r * r) * (0.5f + r * q);
}
PW_INLINE double expm1_poly(double r) {
    double q = 2.09246308794968986e-9;
    q = q * r + 2.51100957802874247e-8;
    q = q * r + 2.75572428373550821e-7;
    q = q * r + 2.75572414305131489e-6;
    q = q * r + 0.0000248015873591635435;
    q = q * r + 0.000198412698885910294;
    q = q * r + 0.0013888888888868748;
    q = q * r + 0.00833333333332079516;
    q = q * r + 0.0416666666666666921;
    q = q * r + 0.166666666666666774;
    return r + (r * r) * (0.5 + r * q);
}
/* 2^n in two factors, so that results below the smallest normal number are rounded once and overflow is infinity. */
PW_INLINE float power_of_two(int32_t n) { return __builtin_bit_cast(float, ((uint32_t)n + 127u) << 23); }
PW_INLINE double power_of_two(int64_t n) { return __builtin_bit_cast(double, ((uint64_t)n + 1023u) << 52); }
PW_INLINE float scale_(float p, int32_t n) {
    const int32_t h = n >> 1;
    return p * power_of_two(h) * power_of_two((int32_t)((uint32_t)n - (uint32_t)h));
}
PW_INLINE double scale_(double p, int64_t n) {
    /* a shift of unsigned numbers: AVX2 has no other */
    const int64_t h = (int64_t)((((uint64_t)n + 4096u) >> 1) - 2048u);
    return p * power_of_two(h) * power_of_two((int64_t)((uint64_t)n - (uint64_t)h));
}
PW_INLINE float exp_(float x) {
    float z = x < -104.0f ? -104.0f : x;
    z = z > 89.0f ? 89.0f : z;
    int32_t n;
    const float r = reduce_exp(z, n);
    return scale_(1.0f + expm1_poly(r), n);
}
PW_INLINE double exp_(double x) {
    double z = x < -746.0 ? -746.0 : x;
    z = z > 710.0 ? 710.0 : z;
    int64_t n;
    const double r = reduce_exp(z, n);
    return scale_(1.0 + expm1_poly(r), n);
}
/* log of a positive normal finite number plus e0 ln 2 */
PW_INLINE float log_core(float x, float e0) {
    const int32_t i = __builtin_bit_cast(int32_t, x), e = (i - 0x3f3504f3) >> 23;
    const float f = __builtin_bit_cast(float, i - (int32_t)((uint32_t)e << 23)) - 1.0f, k = (float)e + e0, f2 = f * f;
    float p = -0.07865467611f; /* 6e-9 */
    p = p * f + 0.128792096f;
    p = p * f - 0.1312529283f;
    p = p * f + 0.1418141865f;
    p = p * f - 0.1662496996f;
    p = p * f + 0.2000228259f;
    p = p * f - 0.2500079656f;
    p = p * f + 0.3333331678f;
    const float tail = (p * f * f2 + k * 1.42860682031e-6f) - 0.5f * f2;
    return k * 0.693145751953125f + (f + tail);
}
PW_INLINE double log_core(double x, double e0) {
    const uint64_t i = __builtin_bit_cast(uint64_t, x), biased = (i + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu)) >> 52;
    const double magic = 6755399441055744.0;
    const double k = (__builtin_bit_cast(double, __builtin_bit_cast(uint64_t, magic) + biased) - magic) - 1023.0 + e0;
    const double f = __builtin_bit_cast(double, i - ((biased - 1023u) << 52)) - 1.0;
    const double s = f / (2.0 + f), z = s * s, h = 0.5 * f * f;
    double r = 0.147579733229689129; /* 3e-18 */
    r = r * z + 0.153180972392607578;
    r = r * z + 0.181833941508191413;
    r = r * z + 0.222222021396516367;
    r = r * z + 0.285714287038658099;
    r = r * z + 0.399999999996118858;
    r = r * z + 0.666666666666669893;
    return k * 0.6931471805592082091607153 + (f - (h - (s * (h + z * r) + k * 7.3710025651677989018e-13)));
}
PW_INLINE float log_(float x) {
    const bool tiny = x < 0x1p-126f;
    const float r = log_core(tiny ? x * 0x1p23f : x, tiny ? -23.0f : 0.0f);
    return (x > 0) & (x < __builtin_inff()) ? r : x == 0 ? -__builtin_inff() : x < 0 ? __builtin_nanf("") : x;
}
PW_INLINE double log_(double x) {
    const bool tiny = x < 0x1p-1022;
    const double r = log_core(tiny ? x * 0x1p52 : x, tiny ? -52.0 : 0.0);
    return (x > 0) & (x < __builtin_inf()) ? r : x == 0 ? -__builtin_inf() : x < 0 ? __builtin_nan("") : x;
}
/* log(1 + u) for 0 <= u <= 1: what 1 + u lost comes back as a first-order term. */
template <class T> PW_INLINE T log1p_unit(T u) {
    const T w = T(1) + u;
    return log_core(w, T(0)) + (u - (w - T(1))) / w;
}
/* e = exp(2|x|) - 1, tanh = e / (e + 2): no cancellation near 0 */
PW_INLINE float tanh_(float x) {
    float z = 2.0f * abs_(x);
    z = z > 20.0f ? 20.0f : z;
    int32_t n;
    const float q = expm1_poly(reduce_exp(z, n)), s = power_of_two(n), e = s * q + (s - 1.0f);
    return copysign_(e / (e + 2.0f), x);
}
PW_INLINE double tanh_(double x) {
    double z = 2.0 * abs_(x);
    z = z > 44.0 ? 44.0 : z;
    int64_t n;
    const double q = expm1_poly(reduce_exp(z, n)), s = power_of_two(n), e = s * q + (s - 1.0);
    return copysign_(e / (e + 2.0), x);
}
template <class T> PW_INLINE T sigmoid_(T x) {
    const T e = exp_(-abs_(x));
    return (x < 0 ? e : T(1)) / (T(1) + e);
}
template <class T> PW_INLINE T softplus_(T x) { return (x > 0 ? x : T(0)) + log1p_unit(exp_(-abs_(x))); }
template <class T> PW_INLINE T logaddexp_(T x, T y) {
    const T d = x == y ? T(0) : x - y; /* equal infinities */
    return (x > y ? x : y) + log1p_unit(exp_(-abs_(d)));
}
/* Quadrant and remainder in double precision, then float polynomials: good for |x| < 1e5; larger ones go to libm. */
PW_INLINE float sin_quadrant(double x, int32_t shift) {
    const double big = 6755399441055744.0, t = x * 0.63661977236758134308 + big, k = t - big;
    const int32_t q = (int32_t)__builtin_bit_cast(int64_t, t) + shift;
    const float r = (float)((x - k * 1.57079632673412561416626) - k * 6.0771005065061926015e-11), z = r * r;
    float s = 2.71832728546270133e-6f, c = -2.72376121240863847e-7f;
    s = s * z - 0.000198393456168864494f;
    c = c * z + 0.0000247999052341081949f;
    s = s * z + 0.00833332946324415804f;
    c = c * z - 0.00138888854851848613f;
    s = s * z - 0.166666666429617921f;
    c = c * z + 0.0416666666473472496f;
    s = r + r * z * s;
    c = 1.0f - (0.5f * z - z * z * c);
    const float v = (q & 1) ? c : s;
    return (q & 2) ? -v : v;
}
PW_INLINE double cos_turn(double turns, double) { return cos(6.283185307179586476925 * turns); }
PW_INLINE float cos_turn(float turns, float) { return sin_quadrant(6.283185307179586476925 * (double)turns, 1); }

PW_INLINE double rint_half(double y) { /* whole numbers of any size, without SSE4.1 */
    const double big = 6755399441055744.0, a = __builtin_fabs(y);
    return a < 2251799813685248.0 ? (a + big) - big : a;
}
/* Through double precision, so the only rounding that matters is the last. */
PW_INLINE float pow_(float xf, float yf) {
    const double x = xf, y = yf, a = __builtin_fabs(x);
    const double r = a == 1.0 ? 1.0 : exp_(y * log_(a));
    const bool whole = rint_half(y) == __builtin_fabs(y), odd = whole & (rint_half(0.5 * y) != __builtin_fabs(0.5 * y));
    const bool negative = __builtin_bit_cast(int32_t, xf) < 0;
    double v = negative & odd ? -r : r;
    v = (x < 0) & (x > -__builtin_inf()) & !whole ? __builtin_nan("") : v;
    return (float)((yf == 0.0f) | (xf == 1.0f) ? 1.0 : v);
}
PW_INLINE double pow_(double x, double y) { return pow(x, y); }

/* ---- one function an opcode ----------------------------------------------------------------------------------------- */

template <class T> struct Ops {
    typedef void (*Function)(T *d, const T *a, const T *b, const T *c, int64_t n);
#define X(name, formula)                                                                                                        \
    static void op_##name(T *d, const T *a, const T *, const T *, int64_t n) {                                                  \
        PW_LOOP4 for (int64_t i = 0; i < n; ++i) {                                                                               \
            const T x = a[i];                                                                                                   \
            d[i] = formula;                                                                                                     \
        }                                                                                                                       \
    }
    CG_PW_UNARY(X)
#undef X
#define X(name)                                                                                                                 \
    static void op_##name(T *d, const T *a, const T *, const T *, int64_t n) {                                                  \
        for (int64_t i = 0; i < n; ++i) d[i] = sizeof(T) == 4 ? (T)::name##f((float)a[i]) : (T)::name((double)a[i]);            \
    }
    CG_PW_UNARY_LIBM(X)
#undef X
#define X(name, formula)                                                                                                        \
    static void op_##name(T *d, const T *a, const T *b, const T *, int64_t n) {                                                 \
        PW_LOOP4 for (int64_t i = 0; i < n; ++i) {                                                                               \
            const T x = a[i], y = b[i];                                                                                         \
            d[i] = formula;                                                                                                     \
        }                                                                                                                       \
    }
    CG_PW_BINARY(X)
#undef X
#define X(name, formula)                                                                                                        \
    static void op_##name(T *d, const T *a, const T *b, const T *c, int64_t n) {                                                \
        PW_LOOP4 for (int64_t i = 0; i < n; ++i) {                                                                               \
            const T x = a[i], y = b[i], z = c[i];                                                                               \
            d[i] = formula;                                                                                                     \
        }                                                                                                                       \
    }
    CG_PW_TERNARY(X)
#undef X
    template <int shift> static void sine(T *d, const T *a, const T *, const T *, int64_t n) {
        int far = 0;
        for (int64_t i = 0; i < n; ++i) far |= !(abs_(a[i]) < T(1e5));
        if (sizeof(T) == 8 || far) return shift ? op_cos(d, a, 0, 0, n) : op_sin(d, a, 0, 0, n);
        PW_LOOP for (int64_t i = 0; i < n; ++i) d[i] = (T)sin_quadrant((double)a[i], shift);
    }
    static const Function table[OP_rand];
};
template <class T>
const typename Ops<T>::Function Ops<T>::table[OP_rand] = {
#define X(name, ...) Ops<T>::op_##name,
    CG_PW_UNARY(X)
#undef X
#define X(name)                                                                                                                 \
    OP_##name == OP_sin   ? Ops<T>::template sine<0>                                                                            \
    : OP_##name == OP_cos ? Ops<T>::template sine<1>                                                                            \
                          : Ops<T>::op_##name,
        CG_PW_UNARY_LIBM(X)
#undef X
#define X(name, ...) Ops<T>::op_##name,
            CG_PW_BINARY(X) CG_PW_TERNARY(X)
#undef X
};

PW_INLINE void put_uniform(float *d, uint32_t u) { *d = cg_uniform_f(u); }
PW_INLINE void put_uniform(double *d, uint32_t u) { *d = cg_uniform_d(u); }

/* Sixteen counters at once, their words 0 first, then 1, 2, 3. */
PW_INLINE void philox16(const uint32_t *place, const uint32_t *line, uint32_t step, uint32_t purpose, uint32_t k0, uint32_t k1,
                        uint32_t *words) {
#ifdef PW_WIDE /* in 64-bit lanes whose upper halves hold anything: the multiplication reads the lower ones */
    for (int h = 0; h < 2; ++h) {
        __m512i c0 = _mm512_cvtepu32_epi64(_mm256_loadu_si256((const __m256i *)(place + 8 * h)));
        __m512i c1 = _mm512_cvtepu32_epi64(_mm256_loadu_si256((const __m256i *)(line + 8 * h)));
        __m512i c2 = _mm512_set1_epi64(step), c3 = _mm512_set1_epi64(purpose);
        const __m512i m0 = _mm512_set1_epi64(0xD2511F53u), m1 = _mm512_set1_epi64(0xCD9E8D57u);
        for (uint32_t r = 0; r < 10; ++r) {
            const __m512i p = _mm512_mul_epu32(c0, m0), q = _mm512_mul_epu32(c2, m1);
            c0 = _mm512_srli_epi64(q, 32) ^ c1 ^ _mm512_set1_epi64(k0 + r * 0x9E3779B9u);
            c2 = _mm512_srli_epi64(p, 32) ^ c3 ^ _mm512_set1_epi64(k1 + r * 0xBB67AE85u);
            c1 = q;
            c3 = p;
        }
        _mm256_storeu_si256((__m256i *)(words + 8 * h), _mm512_cvtepi64_epi32(c0));
        _mm256_storeu_si256((__m256i *)(words + 16 + 8 * h), _mm512_cvtepi64_epi32(c1));
        _mm256_storeu_si256((__m256i *)(words + 32 + 8 * h), _mm512_cvtepi64_epi32(c2));
        _mm256_storeu_si256((__m256i *)(words + 48 + 8 * h), _mm512_cvtepi64_epi32(c3));
    }
#else
    PW_LOOP for (int k = 0; k < 16; ++k)
        cg_philox(place[k], line[k], step, purpose, k0, k1, words + k, words + 16 + k, words + 32 + k, words + 48 + k);
#endif
}

/* Which way the 64 elements from here on can share counters: 1: consecutive numbers of one row; 2: four times the same 16
 * (the blocked layout of images); 0: neither, so each element makes the counter of its own. */
PW_INLINE int shared_counters(const uint32_t *index, const uint32_t *row) {
    if (index[63] - index[0] == 63) {
        uint32_t odd = index[0] & 3;
        PW_LOOP for (int k = 0; k < 64; ++k) odd |= (index[k] - index[0] - (uint32_t)k) | (row[k] - row[0]);
        if (!odd) return 1;
    }
    uint32_t blocked = 0;
    PW_LOOP for (int k = 0; k < 16; ++k)
        blocked |= (index[k] & 3) | (index[16 + k] - index[k] - 1u) | (index[32 + k] - index[k] - 2u) |
                   (index[48 + k] - index[k] - 3u) | (row[16 + k] - row[k]) | (row[32 + k] - row[k]) | (row[48 + k] - row[k]);
    return blocked ? 0 : 2;
}

template <class T>
static void random_block(T *d, const uint32_t *index, const uint32_t *row, uint64_t seed, uint32_t step, uint32_t purpose,
                         int normal, int64_t n) {
    const uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    if (normal) {
        for (int64_t i = 0; i < n; i += 64) {
            const int64_t m = n - i < 64 ? n - i : 64;
            uint32_t w0[64], w1[64], w2, w3;
            T u[64], v[64];
            PW_LOOP for (int64_t k = 0; k < m; ++k)
                cg_philox(index[i + k], row[i + k], step, purpose, k0, k1, w0 + k, w1 + k, &w2, &w3);
            PW_LOOP for (int64_t k = 0; k < m; ++k) put_uniform(u + k, w0[k]);
            PW_LOOP for (int64_t k = 0; k < m; ++k) put_uniform(v + k, w1[k]);
            PW_LOOP for (int64_t k = 0; k < m; ++k) u[k] = sqrt_(T(-2) * log_(u[k]));
            PW_LOOP for (int64_t k = 0; k < m; ++k) v[k] = cos_turn(v[k], v[k]);
            PW_LOOP for (int64_t k = 0; k < m; ++k) d[i + k] = u[k] * v[k]; /* Box-Muller */
        }
        return;
    }
    for (int64_t i = 0; i < n;) {
        const int way = i + 64 <= n ? shared_counters(index + i, row + i) : 0;
        if (way) {
            uint32_t place[16], line[16], words[64];
            const int64_t stride = way == 1 ? 4 : 1;
            for (int k = 0; k < 16; ++k) {
                place[k] = index[i + stride * k] >> 2;
                line[k] = row[i + stride * k];
            }
            philox16(place, line, step, purpose, k0, k1, words);
            T *to = d + i;
            if (way == 1)
                for (int k = 0; k < 16; ++k)
                    for (int w = 0; w < 4; ++w) put_uniform(to + 4 * k + w, words[16 * w + k]);
            else
                PW_LOOP for (int k = 0; k < 64; ++k) put_uniform(to + k, words[k]);
            i += 64;
            continue;
        }
        /* up to the next whole counter of a run, or a line of the blocked layout */
        const bool run = i + 1 < n && index[i + 1] == index[i] + 1 && (index[i] & 3);
        const int64_t end = run ? i + 4 - (index[i] & 3) : i + 16, stop = end < n ? end : n;
        PW_LOOP for (int64_t e = i; e < stop; ++e) {
            uint32_t w0, w1, w2, w3;
            cg_philox(index[e] >> 2, row[e], step, purpose, k0, k1, &w0, &w1, &w2, &w3);
            const uint32_t odd = index[e] & 1 ? w1 : w0, high = index[e] & 1 ? w3 : w2;
            put_uniform(d + e, index[e] & 2 ? high : odd);
        }
        i = stop;
    }
}

/* ---- copying in and out of blocks ------------------------------------------------------------------------------------ */

template <class T> struct Move {
    enum { LANES = 64 / sizeof(T) };

    static void line(T *d, const T *a, int64_t n, int64_t stride) {
        if (stride == 1) {
            memcpy(d, a, n * sizeof(T));
        } else if (stride == 0) {
            const T x = *a;
            PW_LOOP for (int64_t i = 0; i < n; ++i) d[i] = x;
        } else {
            for (int64_t i = 0; i < n; ++i) d[i] = a[i * stride];
        }
    }
    static T *unit(T *d, const T *a, const Copy1 *dims, int n) {
        if (n == 0) {
            *d = *a;
            return d + 1;
        }
        if (n == 1) {
            line(d, a, dims->size, dims->stride);
            return d + dims->size;
        }
        for (int64_t i = 0; i < dims->size; ++i) d = unit(d, a + i * dims->stride, dims + 1, n - 1);
        return d;
    }
    /* Blocks have a margin of one vector behind them, so that short runs may be written whole vectors at a time. */
    static void gather(T *d, const T *a, const Layout &l, int64_t count, int64_t inner) {
        if (l.n == 0) return line(d, a, count, l.stride_s);
        if (l.stride_s == 0) {
            if (l.n == 1 && l.dims[0].stride == 0) return line(d, a, count * inner, 0);
            unit(d, a, l.dims, l.n);
            const int64_t n = count * inner;
            for (int64_t have = inner; have < n;) { /* a periodic block: double it */
                const int64_t more = have < n - have ? have : n - have;
                memcpy(d + have, d, more * sizeof(T));
                have += more;
            }
            return;
        }
        if (l.n == 1 && l.dims[0].stride == 0) {
            for (int64_t i = 0; i < count; ++i) {
                const T x = a[i * l.stride_s];
                T *to = d + i * inner;
                for (int64_t j = 0; j < inner; j += LANES) PW_LOOP for (int k = 0; k < LANES; ++k) to[j + k] = x;
            }
            return;
        }
        for (int64_t i = 0; i < count; ++i) unit(d + i * inner, a + i * l.stride_s, l.dims, l.n);
    }
    static const T *back(T *d, const T *a, const Copy1 *dims, int n) {
        if (n == 0) {
            *d = *a;
            return a + 1;
        }
        if (n == 1) {
            if (dims->stride == 1) {
                memcpy(d, a, dims->size * sizeof(T));
            } else {
                for (int64_t i = 0; i < dims->size; ++i) d[i * dims->stride] = a[i];
            }
            return a + dims->size;
        }
        for (int64_t i = 0; i < dims->size; ++i) a = back(d + i * dims->stride, a, dims + 1, n - 1);
        return a;
    }
    static void scatter(T *d, const T *a, const Layout &l, int64_t count) {
        if (l.direct || (l.n == 0 && l.stride_s == 1)) {
            int64_t n = count;
            for (int k = 0; k < l.n; ++k) n *= l.dims[k].size;
            memcpy(d, a, n * sizeof(T));
            return;
        }
        for (int64_t i = 0; i < count; ++i) a = back(d + i * l.stride_s, a, l.dims, l.n);
    }
};

static uint32_t *count_up(uint32_t *d, uint32_t base, const Copy1 *dims, int n) {
    if (n == 0) {
        *d = base;
        return d + 1;
    }
    const uint32_t step = (uint32_t)dims->stride;
    if (n == 1) {
        PW_LOOP for (int64_t i = 0; i < dims->size; ++i) d[i] = base + (uint32_t)i * step;
        return d + dims->size;
    }
    for (int64_t i = 0; i < dims->size; ++i) d = count_up(d, base + (uint32_t)i * step, dims + 1, n - 1);
    return d;
}

/* ---- folding a block of accumulators --------------------------------------------------------------------------------- */

template <class T, int KIND> struct Fold {
    typedef T Vector __attribute__((vector_size(64), aligned(sizeof(T)), may_alias));
    enum { LANES = 64 / sizeof(T) };

    template <class U> PW_INLINE U join(U x, U y) {
        if (KIND == K_SUM) return x + y;
        if (KIND == K_PROD) return x * y;
        if (KIND == K_MAX) return ((x >= y) | (x != x)) ? x : y;
        return ((x <= y) | (x != x)) ? x : y;
    }
    PW_INLINE void join_to(Vector &x, const T *v) {
        const Vector y = *(const Vector *)v;
        if (KIND == K_SUM)
            x = x + y;
        else if (KIND == K_PROD)
            x = x * y;
        else if (KIND == K_MAX)
            x = ((x >= y) | (x != x)) ? x : y;
        else
            x = ((x <= y) | (x != x)) ? x : y;
    }
    static T line(const T *v, int64_t n) {
        if (n < LANES) {
            T a = v[0];
            if (KIND == K_SUM || KIND == K_PROD) {
                for (int64_t i = 1; i < n; ++i) a = join(a, v[i]);
                return a;
            }
            int nan = a != a; /* apart, so that the comparison is one instruction */
            for (int64_t i = 1; i < n; ++i) {
                const T x = v[i];
                nan |= x != x;
                a = KIND == K_MAX ? (x > a ? x : a) : (x < a ? x : a);
            }
            return nan ? (T)__builtin_nan("") : a;
        }
        T lanes[LANES];
        Vector a = *(const Vector *)v;
        int64_t i = LANES;
        if (n >= 8 * LANES) {
            Vector b = *(const Vector *)(v + LANES), c = *(const Vector *)(v + 2 * LANES), d = *(const Vector *)(v + 3 * LANES);
            for (i = 4 * LANES; i + 4 * LANES <= n; i += 4 * LANES) {
                join_to(a, v + i);
                join_to(b, v + i + LANES);
                join_to(c, v + i + 2 * LANES);
                join_to(d, v + i + 3 * LANES);
            }
            T t[LANES];
            __builtin_memcpy(t, &b, 64);
            join_to(a, t);
            __builtin_memcpy(t, &d, 64);
            join_to(c, t);
            __builtin_memcpy(t, &c, 64);
            join_to(a, t);
        }
        for (; i + LANES <= n; i += LANES) join_to(a, v + i);
        __builtin_memcpy(lanes, &a, 64);
        for (int k = 0; i < n; ++i, ++k) lanes[k] = join(lanes[k], v[i]);
        for (int h = LANES / 2; h > 0; h /= 2)
            for (int k = 0; k < h; ++k) lanes[k] = join(lanes[k], lanes[k + h]);
        return lanes[0];
    }
    static T *fold(T *out, const T *v, const int64_t *size, int64_t first, const int *kept, int n, T *tmp) {
        if (n == 0) {
            *out = *v;
            return out + 1;
        }
        int64_t sub = 1;
        for (int k = 1; k < n; ++k) sub *= size[k];
        if (*kept) {
            if (n == 1) {
                memcpy(out, v, first * sizeof(T));
                return out + first;
            }
            if (n == 2) {
                for (int64_t i = 0; i < first; ++i) out[i] = line(v + i * sub, sub);
                return out + first;
            }
            for (int64_t i = 0; i < first; ++i) out = fold(out, v + i * sub, size + 1, size[1], kept + 1, n - 1, tmp);
            return out;
        }
        if (n == 1) {
            *out = line(v, first);
            return out + 1;
        }
        int64_t rows = first;
        if (rows > 1) { /* halve, so the error grows with the logarithm */
            const int64_t h = (rows + 1) / 2, m = (rows - h) * sub, all = h * sub;
            const T *w = v + all;
            PW_LOOP for (int64_t j = 0; j < m; ++j) tmp[j] = join(v[j], w[j]);
            if (m < all) memcpy(tmp + m, v + m, (all - m) * sizeof(T));
            for (rows = h; rows > 1;) {
                const int64_t k = (rows + 1) / 2, p = (rows - k) * sub;
                const T *u = tmp + k * sub;
                PW_LOOP for (int64_t j = 0; j < p; ++j) tmp[j] = join(tmp[j], u[j]);
                rows = k;
            }
            v = tmp;
            tmp += sub;
        }
        return fold(out, v, size + 1, size[1], kept + 1, n - 1, tmp);
    }
};

template <class T> PW_INLINE T identity(int kind) {
    return kind == K_SUM ? T(0) : kind == K_PROD ? T(1) : kind == K_MAX ? -(T)__builtin_inf() : (T)__builtin_inf();
}
template <class T> static void fold_block(int kind, T *out, const T *v, const Segment &sg, int64_t count, T *tmp) {
    const int64_t first = sg.fold_size[0] * count;
    if (kind == K_SUM) Fold<T, K_SUM>::fold(out, v, sg.fold_size, first, sg.fold_kept, sg.fold_n, tmp);
    if (kind == K_PROD) Fold<T, K_PROD>::fold(out, v, sg.fold_size, first, sg.fold_kept, sg.fold_n, tmp);
    if (kind == K_MAX) Fold<T, K_MAX>::fold(out, v, sg.fold_size, first, sg.fold_kept, sg.fold_n, tmp);
    if (kind == K_MIN) Fold<T, K_MIN>::fold(out, v, sg.fold_size, first, sg.fold_kept, sg.fold_n, tmp);
}

/* ---- the machine ----------------------------------------------------------------------------------------------------- */

template <class T> struct Machine {
    const State *st;
    const cg_context *ctx;
    char *scratch;
    T *reg[MAX_SLOTS];
    int64_t cached[MAX_OPERANDS], cached_count[MAX_OPERANDS]; /* what the expanded blocks of inputs hold now */
    int64_t counted;                                          /* steps of the block that the counters were made for */

    T *block_of(int slot) const { return (T *)(scratch + slot * st->slot_bytes); }
    T *accumulator(int red, int64_t g) const {
        return (T *)(scratch + st->acc_offset + (red * st->max_group + g) * st->slot_bytes);
    }

    static void advance(const Loop *loops, int n, int64_t *counts, int64_t *off, int width) {
        for (int d = n - 1; d >= 0; --d) {
            const int64_t *steps = loops[d].steps;
            if (++counts[d] < loops[d].size) {
                for (int k = 0; k < width; ++k) off[k] += steps[k];
                return;
            }
            counts[d] = 0;
            for (int k = 0; k < width; ++k) off[k] -= (loops[d].size - 1) * steps[k];
        }
    }
    static void seek(const Loop *loops, int n, int64_t index, int64_t *counts, int64_t *off, int width) {
        for (int d = n - 1; d >= 0; --d) {
            counts[d] = index % loops[d].size;
            index /= loops[d].size;
            for (int k = 0; k < width; ++k) off[k] += counts[d] * loops[d].steps[k];
        }
    }

    void start_segment() {
        counted = 0;
        for (int k = 0; k < st->n_in; ++k) cached[k] = -1;
        for (int k = st->n_in; k < st->n_op; ++k)
            if (st->kinds[k] == K_OUT) reg[st->slots[k]] = block_of(st->slots[k]);
    }

    /* Run the program over one block: `count` steps of the chunked dim from the offsets `off`; `next`: where the next one is. */
    PW_INLINE void run_block(Machine &m, const Segment &sg, const int64_t *off, int64_t count, const int64_t *next) {
        const State *st = m.st;
        const int64_t n = count * sg.inner;
        void *const *buf = st->call.buf + sg.base;
        for (int k = 0; k < st->n_in; ++k) {
            const Layout &l = sg.layouts[k];
            const T *from = (const T *)buf[k] + off[k];
            if (l.direct) {
                m.reg[k] = (T *)from;
            } else if (m.cached[k] != off[k] || m.cached_count[k] < count) {
                m.cached[k] = off[k];
                m.cached_count[k] = count;
                m.reg[k] = m.block_of(k);
                Move<T>::gather(m.reg[k], from, l, count, sg.inner);
            }
        }
        for (int k = st->n_in; k < st->n_op; ++k)
            if (sg.direct[k]) m.reg[st->slots[k]] = (T *)buf[k] + off[k];
        uint32_t *index = 0, *row = 0;
        const uint64_t seed = m.ctx->seed ^ (sg.flow ? 0 : (uint64_t)m.ctx->sample >> 32 << 32); /* the rank is up there */
        if (st->has_rand) {
            index = (uint32_t *)(m.scratch + st->counter_offset);
            row = index + st->width + 16;
            uint32_t *const index0 = row + st->width + 16, *const row0 = index0 + st->width + 16;
            if (m.counted < count) { /* numbers relative to the start of a block */
                const Layout &li = sg.layouts[st->n_op], &lr = sg.layouts[st->n_op + 1];
                uint32_t *p = index0, *q = row0;
                for (int64_t i = 0; i < count; ++i) {
                    p = count_up(p, (uint32_t)(i * li.stride_s), li.dims, li.n);
                    q = count_up(q, (uint32_t)(i * lr.stride_s), lr.dims, lr.n);
                }
                m.counted = count;
            }
            const uint64_t first = (uint64_t)m.ctx->step * sg.flow + off[st->n_op];
            const uint32_t index_at = (uint32_t)first, row_at = (uint32_t)(sg.flow ? 0 : off[st->n_op + 1] + m.ctx->sample);
            PW_LOOP for (int64_t i = 0; i < n; ++i) index[i] = index0[i] + index_at;
            PW_LOOP for (int64_t i = 0; i < n; ++i) row[i] = row0[i] + row_at;
            if (sg.flow) /* the upper half of the number */
                for (int64_t i = 0; i < n; ++i) row[i] = (uint32_t)((first + index0[i]) >> 32);
        }
        /* Between bursts of memory reads lie ops that read none: ask for the next block's lines, a share before each op and the
         * last one before the sums. */
        const char *ahead[MAX_OPERANDS];
        int n_ahead = 0;
        const int64_t bytes = n * sizeof(T), share = st->prefetch && next ? (bytes / 64 / st->shares + 1) * 64 : 0;
        if (share)
            for (int k = 0; k < st->n_op; ++k)
                if ((k < st->n_in ? sg.layouts[k].direct : sg.direct[k]) && next[k] != off[k])
                    ahead[n_ahead++] = (const char *)((const T *)buf[k] + next[k]);
        int64_t from = 0;
        auto ask = [&] {
            const int64_t to = from + share < bytes ? from + share : bytes;
            for (int k = 0; k < n_ahead; ++k)
                for (int64_t b = from; b < to; b += 64) __builtin_prefetch(ahead[k] + b);
            from = to;
        };
        for (const Op *op = st->program, *const end = op + st->n_program; op < end; ++op) {
            if (n_ahead) ask();
            if (op->code < OP_rand)
                Ops<T>::table[op->code](m.reg[op->dst], m.reg[op->a], m.reg[op->b], m.reg[op->c], n);
            else
                random_block(m.reg[op->dst], index, row, seed, sg.flow ? 0 : (uint32_t)m.ctx->step, op->purpose,
                             op->code == OP_randn, n);
        }
        if (n_ahead && st->n_red) ask();
        for (int k = st->n_in; k < st->n_op; ++k)
            if (st->kinds[k] == K_OUT && !sg.direct[k])
                Move<T>::scatter((T *)buf[k] + off[k], m.reg[st->slots[k]], sg.layouts[k], count);
    }

    static int op_of(int kind) { return kind == K_SUM ? OP_add : kind == K_PROD ? OP_mul : kind == K_MAX ? OP_max : OP_min; }

    void finish(const Segment &sg, const int64_t *off, int64_t item, int64_t g, const T *const *values, int64_t count) {
        T *out = (T *)(scratch + st->fold_offset), *tmp = out + st->width + 16;
        for (int k = st->n_in, red = 0; k < st->n_op; ++k) {
            if (st->kinds[k] == K_OUT) continue;
            fold_block(st->kinds[k], out, values[red], sg, count, tmp);
            if (sg.n_parts == 1) {
                Move<T>::scatter((T *)st->call.buf[sg.base + k] + off[k], out, sg.layouts[k], sg.s_kept ? count : 1);
            } else {
                double *to = st->partials + sg.partial + ((item * st->n_red + red) * sg.group + g) * sg.kept_block;
                const int64_t n = sg.s_kept ? sg.kept_block / sg.chunk * count : sg.kept_block;
                for (int64_t j = 0; j < n; ++j) to[j] = out[j];
            }
            ++red;
        }
    }

    static int64_t steps_of(const Segment &sg, int64_t chunk_index) {
        const int64_t left = sg.size_s - chunk_index * sg.chunk;
        return left < sg.chunk ? left : sg.chunk;
    }

    void run_items(const Segment &sg, int64_t first, int64_t last) {
        const int width = st->n_op + st->n_counters;
        int64_t off[MAX_OPERANDS + 2] = {0}, counts[MAX_DIMS + 1];
        start_segment();
        seek(sg.kept, sg.nk, first / sg.n_parts, counts, off, width);
        if (st->n_red == 0) {
            int64_t next[MAX_OPERANDS + 2];
            for (int64_t item = first; item < last; ++item) {
                const int64_t count = steps_of(sg, counts[sg.nk - 1]);
                for (int k = 0; k < width; ++k) next[k] = off[k];
                advance(sg.kept, sg.nk, counts, next, width);
                run_block(*this, sg, off, count, item + 1 < last ? next : 0);
                for (int k = 0; k < width; ++k) off[k] = next[k];
            }
            return;
        }
        int64_t part = first % sg.n_parts;
        for (int64_t item = first; item < last; ++item) {
            reduce_item(sg, item, part, counts, off, width);
            if (++part == sg.n_parts) {
                part = 0;
                advance(sg.kept, sg.nk, counts, off, width);
            }
        }
    }

    void reduce_item(const Segment &sg, int64_t item, int64_t part, const int64_t *counts, const int64_t *off, int width) {
        const bool grouped = sg.group > 1;
        const int64_t g0 = grouped ? counts[sg.nk - 1] * sg.group : 0;
        const int64_t n_g = grouped ? (sg.group_size - g0 < sg.group ? sg.group_size - g0 : sg.group) : 1;
        const int64_t trips = grouped ? sg.trips_outer : sg.trips_within;
        const int64_t t0 = part * sg.part, t1 = t0 + sg.part < trips ? t0 + sg.part : trips;
        const int64_t o0 = grouped ? t0 : 0, o1 = grouped ? t1 : 1, w0 = grouped ? 0 : t0, w1 = grouped ? sg.trips_within : t1;
        const bool single = (o1 - o0) * (w1 - w0) == 1;
        int64_t kept_count = 0;
        if (sg.s_kept && !grouped) kept_count = steps_of(sg, counts[sg.nk - 1]);
        const T *values[MAX_OPERANDS];
        int64_t off_o[MAX_OPERANDS + 2], off_w[MAX_OPERANDS + 2], next[MAX_OPERANDS + 2];
        int64_t count_o[MAX_DIMS + 1], count_w[MAX_DIMS + 1];
        for (int k = 0; k < width; ++k) off_o[k] = off[k];
        if (grouped) seek(sg.outer, sg.no, o0, count_o, off_o, width);
        for (int64_t o = o0; o < o1; ++o) {
            for (int64_t g = 0; g < n_g; ++g) {
                for (int k = 0; k < width; ++k) off_w[k] = off_o[k] + (grouped ? g * sg.group_steps[k] : 0);
                seek(sg.within, sg.ni, w0, count_w, off_w, width);
                for (int64_t w = w0; w < w1; ++w) {
                    int64_t count;
                    if (!sg.s_kept)
                        count = steps_of(sg, count_w[sg.ni - 1]);
                    else
                        count = grouped ? steps_of(sg, g0 + g) : kept_count;
                    const bool more = w + 1 < w1, more_g = g + 1 < n_g, more_o = o + 1 < o1;
                    for (int k = 0; k < width; ++k) next[k] = more ? off_w[k] : off_o[k];
                    if (more) {
                        advance(sg.within, sg.ni, count_w, next, width);
                    } else if (more_g) {
                        for (int k = 0; k < width; ++k) next[k] += (g + 1) * sg.group_steps[k];
                    } else if (more_o) {
                        advance(sg.outer, sg.no, count_o, next, width);
                    }
                    run_block(*this, sg, off_w, count, more || more_g || more_o ? next : 0);
                    if (single) {
                        for (int k = st->n_in, red = 0; k < st->n_op; ++k) {
                            if (st->kinds[k] == K_OUT) continue;
                            T *v = reg[st->slots[k]];
                            const int *f = st->factors[k];
                            if (f[0] >= 0) Ops<T>::table[OP_mul](v, reg[f[0]], reg[f[1]], v, count * sg.inner);
                            values[red++] = v;
                        }
                        finish(sg, off_w, item, g, values, count);
                    } else {
                        const int64_t n = count * sg.inner;
                        const bool opening = o == o0 && w == w0;
                        for (int k = st->n_in, red = 0; k < st->n_op; ++k) {
                            if (st->kinds[k] == K_OUT) continue;
                            T *acc = accumulator(red++, g);
                            const T *v = reg[st->slots[k]];
                            const int *f = st->factors[k];
                            if (opening) {
                                if (f[0] >= 0)
                                    Ops<T>::table[OP_mul](acc, reg[f[0]], reg[f[1]], acc, n);
                                else
                                    memcpy(acc, v, n * sizeof(T));
                                const int64_t all = sg.s_kept ? n : sg.chunk * sg.inner;
                                const T one = identity<T>(st->kinds[k]);
                                for (int64_t i = n; i < all; ++i) acc[i] = one;
                            } else if (f[0] >= 0) {
                                Ops<T>::table[OP_fma](acc, reg[f[0]], reg[f[1]], acc, n);
                            } else {
                                Ops<T>::table[op_of(st->kinds[k])](acc, acc, v, v, n);
                            }
                        }
                    }
                    if (more)
                        for (int k = 0; k < width; ++k) off_w[k] = next[k];
                    else if (!more_g && more_o)
                        for (int k = 0; k < width; ++k) off_o[k] = next[k];
                }
            }
        }
        if (single) return;
        for (int64_t g = 0; g < n_g; ++g) {
            for (int k = 0; k < width; ++k) off_w[k] = off[k] + (grouped ? g * sg.group_steps[k] : 0);
            for (int red = 0; red < st->n_red; ++red) values[red] = accumulator(red, g);
            finish(sg, off_w, item, g, values, !sg.s_kept ? sg.chunk : grouped ? steps_of(sg, g0 + g) : kept_count);
        }
    }

    /* Join the parts of kept items [first, last) in their order, whichever threads made them. */
    void combine(const Segment &sg, int64_t first, int64_t last) {
        int64_t off[MAX_OPERANDS + 2] = {0}, counts[MAX_DIMS + 1];
        seek(sg.kept, sg.nk, first, counts, off, st->n_op);
        T *out = (T *)(scratch + st->fold_offset);
        for (int64_t item = first; item < last; ++item) {
            const bool grouped = sg.group > 1;
            const int64_t g0 = grouped ? counts[sg.nk - 1] * sg.group : 0;
            const int64_t n_g = grouped ? (sg.group_size - g0 < sg.group ? sg.group_size - g0 : sg.group) : 1;
            for (int64_t g = 0; g < n_g; ++g) {
                const int64_t count = sg.s_kept ? steps_of(sg, grouped ? g0 + g : counts[sg.nk - 1]) : 1;
                const int64_t n = sg.s_kept ? sg.kept_block / sg.chunk * count : sg.kept_block;
                for (int k = st->n_in, red = 0; k < st->n_op; ++k) {
                    const int kind = st->kinds[k];
                    if (kind == K_OUT) continue;
                    const int64_t stride = st->n_red * sg.group * sg.kept_block;
                    const double *from = st->partials + sg.partial + item * sg.n_parts * stride;
                    from += (red * sg.group + g) * sg.kept_block;
                    for (int64_t j = 0; j < n; ++j) {
                        double a = from[j];
                        for (int64_t p = 1; p < sg.n_parts; ++p) {
                            const double b = from[j + p * stride];
                            a = kind == K_SUM ? a + b : kind == K_PROD ? a * b : kind == K_MAX ? max_(a, b) : min_(a, b);
                        }
                        out[j] = (T)a;
                    }
                    const int64_t to = off[k] + (grouped ? g * sg.group_steps[k] : 0);
                    Move<T>::scatter((T *)st->call.buf[sg.base + k] + to, out, sg.layouts[k], count);
                    ++red;
                }
            }
            advance(sg.kept, sg.nk, counts, off, st->n_op);
        }
    }

    void fill_empty(const Segment &sg) {
        for (int k = st->n_in; k < st->n_op; ++k) {
            if (st->kinds[k] == K_OUT) continue;
            const Layout &l = sg.layouts[k]; /* count in stride_s: 1, or 0 where nothing is kept */
            T *to = (T *)st->call.buf[sg.base + k];
            int64_t n = l.stride_s;
            for (int d = 0; d < l.n; ++d) n *= l.dims[d].size;
            for (int64_t i = 0; i < n; ++i) {
                int64_t rest = i, at = 0;
                for (int d = l.n - 1; d >= 0; --d) {
                    at += rest % l.dims[d].size * l.dims[d].stride;
                    rest /= l.dims[d].size;
                }
                to[at] = identity<T>(st->kinds[k]);
            }
        }
    }

    static void worker(const State *st, const cg_context *ctx, int thread, int threads) {
        Machine m;
        m.st = st;
        m.ctx = ctx;
        m.scratch = st->scratch_base + thread * st->thread_bytes;
        for (int s = 0; s < st->n_slots; ++s) m.reg[s] = m.block_of(s);
        for (int s = 0; s < st->n_const; ++s) {
            const T x = (T)st->const_values[s];
            T *to = m.reg[st->first_const + s];
            PW_LOOP for (int64_t i = 0; i < st->const_width; ++i) to[i] = x;
        }
        const int64_t w0 = st->total_weight * thread / threads, w1 = st->total_weight * (thread + 1) / threads;
        for (int i = 0; i < st->n_segments; ++i) {
            const Segment &sg = st->segment[i];
            if (sg.empty) {
                if (thread == 0) m.fill_empty(sg);
                continue;
            }
            const int64_t at = sg.first_weight;
            if (at >= w1) continue;
            int64_t first = w0 <= at ? 0 : (w0 - at + sg.weight - 1) / sg.weight, last = (w1 - at + sg.weight - 1) / sg.weight;
            if (last > sg.n_items) last = sg.n_items;
            if (first < last) m.run_items(sg, first, last);
        }
        if (!st->combines) return;
        if (threads > 1) {
#pragma omp barrier
        }
        for (int i = 0; i < st->n_segments; ++i) {
            const Segment &sg = st->segment[i];
            if (sg.empty || sg.n_parts == 1) continue;
            const int64_t n = sg.n_items / sg.n_parts, first = n * thread / threads, last = n * (thread + 1) / threads;
            if (first < last) m.combine(sg, first, last);
        }
    }
};

#undef PW_LOOP
#undef PW_LOOP4
#undef PW_INLINE
