/* bfloat16 for kernels that cudacpu.h compiles: storage, and conversions that round to nearest even. */
#pragma once
#include <stdint.h>
#include <string.h>

struct __nv_bfloat16_raw {
    unsigned short x;
};
struct __nv_bfloat16 {
    unsigned short x;
    __nv_bfloat16() = default;
    __nv_bfloat16(const __nv_bfloat16_raw &raw) : x(raw.x) {}
    operator __nv_bfloat16_raw() const { return {x}; }
};
typedef __nv_bfloat16 nv_bfloat16;
struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

inline float __bfloat162float(__nv_bfloat16 b) {
    const uint32_t bits = uint32_t(b.x) << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
inline __nv_bfloat16 __float2bfloat16_rn(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    __nv_bfloat16 b;
    if ((bits & 0x7fffffff) > 0x7f800000) b.x = 0x7fff; /* the device's NaN */
    else b.x = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return b;
}
inline __nv_bfloat16 __float2bfloat16(float f) { return __float2bfloat16_rn(f); }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return __nv_bfloat16_raw{bits}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 b) { return b.x; }
