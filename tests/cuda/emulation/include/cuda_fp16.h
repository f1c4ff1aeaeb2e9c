/* Half precision for kernels that cudacpu.h compiles: storage, and conversions that round to nearest even. */
#pragma once
#include <stdint.h>
#include <string.h>

struct __half_raw {
    unsigned short x;
};
struct __half {
    unsigned short x;
    __half() = default;
    __half(const __half_raw &raw) : x(raw.x) {}
    operator __half_raw() const { return {x}; }
};
typedef __half half;
struct __half2 {
    __half x, y;
};
typedef __half2 half2;

inline float __half2float(__half h) {
    const uint32_t sign = uint32_t(h.x & 0x8000) << 16, exponent = h.x >> 10 & 31, fraction = h.x & 0x3ff;
    float f;
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24 is exact */
        f = float(fraction) * 5.9604644775390625e-8f;
        uint32_t bits;
        memcpy(&bits, &f, 4);
        bits |= sign;
        memcpy(&f, &bits, 4);
        return f;
    }
    const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    memcpy(&f, &bits, 4);
    return f;
}
inline __half __float2half_rn(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    const uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    __half h;
    if (size > 0x7f800000) h.x = 0x7fff; /* the device's NaN */
    else if (size >= 0x47800000) h.x = sign | 0x7c00;
    else if (size < 0x38800000) { /* subnormal: adding 0.5 puts its bits at the end of the fraction */
        float magnitude;
        memcpy(&magnitude, &size, 4);
        magnitude += 0.5f;
        uint32_t sum;
        memcpy(&sum, &magnitude, 4);
        h.x = sign | (sum - 0x3f000000);
    } else h.x = sign | ((size + 0xfff + (size >> 13 & 1) - (112u << 23)) >> 13);
    return h;
}
inline __half __float2half(float f) { return __float2half_rn(f); }
inline __half __ushort_as_half(unsigned short bits) { return __half_raw{bits}; }
inline unsigned short __half_as_ushort(__half h) { return h.x; }
inline bool __hisnan(__half h) { return (h.x & 0x7fff) > 0x7c00; }
