#include "casting.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

namespace cg {
namespace {

/* Half precision. Where the compiler has the type it knows the processor's instructions too; else the bits are put together by hand. */
#ifdef __FLT16_MAX__
typedef _Float16 half;
#else
struct half {
    uint16_t bits;
    half() = default;
    explicit half(float x) {
        uint32_t i;
        memcpy(&i, &x, 4);
        const uint32_t sign = i >> 16 & 0x8000u, a = i & 0x7fffffffu;
        uint32_t r = (a + 0xfffu + (a >> 13 & 1u)) >> 13; /* to nearest, ties to even; may carry into the exponent */
        r -= 112u << 10;
        if (a > 0x7f800000u) r = 0x7e00u;
        else if (a >= 0x477ff000u) r = 0x7c00u; /* from 65520 on */
        else if (a < 0x38800000u) {             /* below the smallest normal number: multiples of 2^-24 */
            float t;
            memcpy(&t, &a, 4);
            t += 0.5f;
            memcpy(&r, &t, 4);
            r -= 0x3f000000u;
        }
        bits = (uint16_t)(sign | r);
    }
    /* through float32 rounded to odd, so that the second rounding is the only one that counts */
    explicit half(double x) {
        float f = (float)x;
        uint32_t i;
        memcpy(&i, &f, 4);
        if ((double)f != x && x == x && !(i & 1u)) i += std::abs((double)f) < std::abs(x) ? 1u : ~0u;
        memcpy(&f, &i, 4);
        *this = half(f);
    }
    explicit operator float() const {
        const uint32_t a = bits & 0x7fffu;
        uint32_t i = a << 13;
        float x;
        if (a >= 0x7c00u) i += 224u << 23;
        else i += 112u << 23;
        if (a < 0x400u) {
            x = (float)a * 0x1p-24f;
            memcpy(&i, &x, 4);
        }
        i |= (uint32_t)(bits & 0x8000u) << 16;
        memcpy(&x, &i, 4);
        return x;
    }
    explicit operator double() const { return (double)(float)*this; }
};
#endif

/* Whole numbers take what is left of a fraction away and end at their largest and smallest; NaN is 0. */
template <class From, class To> CG_INLINE To convert(From x) {
    if constexpr (std::is_integral<To>::value && !std::is_integral<From>::value) {
        const float v = (float)x, lo = std::numeric_limits<To>::min(), hi = std::numeric_limits<To>::max();
        return (To)(v != v ? 0.0f : v < lo ? lo : v > hi ? hi : v);
    } else if constexpr (std::is_integral<To>::value) {
        const int v = x;
        return (To)std::min<int>(std::max<int>(v, std::numeric_limits<To>::min()), std::numeric_limits<To>::max());
    } else if constexpr (std::is_integral<From>::value) {
        return (To)(float)x; /* 16 bits fit */
    } else {
        return (To)x;
    }
}

#define CAST(name, From, To)                                                                                                     \
    CG_CLONES void name(const void *in, void *out, int64_t n) {                                                                  \
        const From *CG_RESTRICT x = (const From *)in;                                                                            \
        To *CG_RESTRICT y = (To *)out;                                                                                           \
        for (int64_t i = 0; i < n; i++) y[i] = convert<From, To>(x[i]);                                                          \
    }
#define CASTS_TO(to, To)                                                                                                         \
    CAST(f2_##to, half, To) CAST(f4_##to, float, To) CAST(f8_##to, double, To) CAST(i1_##to, int8_t, To) CAST(i2_##to, int16_t, To)
CASTS_TO(f2, half)
CASTS_TO(f4, float)
CASTS_TO(f8, double)
CASTS_TO(i1, int8_t)
CASTS_TO(i2, int16_t)
#undef CASTS_TO
#undef CAST

typedef void (*Cast)(const void *, void *, int64_t);
constexpr const char *NAMES[] = {"f2", "f4", "f8", "i1", "i2"};
constexpr int64_t SIZES[] = {2, 4, 8, 1, 2};
#define ROW(from) {from##_f2, from##_f4, from##_f8, from##_i1, from##_i2}
const Cast TABLE[5][5] = {ROW(f2), ROW(f4), ROW(f8), ROW(i1), ROW(i2)};
#undef ROW

int type_of(const std::string &name) {
    for (int i = 0; i < 5; i++)
        if (name == NAMES[i]) return i;
    bad("Cast: expected 'f2', 'f4', 'f8', 'i1' or 'i2', got '" + name + "'");
}

struct CastKernel : Kernel {
    int64_t size = 0, from_size = 0, to_size = 0;
    Cast cast = nullptr;

    static void call(const cg_call *c, const cg_context *) {
        const auto *self = static_cast<const CastKernel *>(c->state);
        const int64_t chunk = 4096;
        parallel_range(ceil_div(self->size, chunk), self->size, [&](int64_t b, int64_t e) {
            const int64_t first = b * chunk, n = std::min(e * chunk, self->size) - first;
            self->cast((const char *)c->buf[0] + first * self->from_size, (char *)c->buf[1] + first * self->to_size, n);
        });
    }
};

} // namespace

Kernel *make_cast(int64_t size, const std::string &from, const std::string &to) {
    check_sizes("Cast", {size});
    const int a = type_of(from), b = type_of(to);
    auto *k = new CastKernel;
    k->run = CastKernel::call, k->nbuf = 2;
    k->size = size, k->from_size = SIZES[a], k->to_size = SIZES[b], k->cast = TABLE[a][b];
    return k;
}

} // namespace cg
