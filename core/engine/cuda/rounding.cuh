/* Operands of products, rounded to the nearest number of a shorter type, ties to even. rounding.py names the ways. */
#ifndef COGKIT_ROUNDING_CUH
#define COGKIT_ROUNDING_CUH
#include "numbers.cuh"

enum Rounding { AS_IT_IS, TO_HALF, TO_TF32 = 13, TO_BFLOAT16 = 16 }; /* the last two: how many bits a float drops */

/* NaN stays what it is. */
__device__ inline float rounded(float x, int how) {
    if (how == AS_IT_IS) return x;
    if (how == TO_HALF) return half_(x);
    const uint32_t i = __float_as_uint(x), last = (uint32_t)1 << how;
    if ((i & 0x7fffffffu) > 0x7f800000u) return x;
    return __uint_as_float((i + (last / 2 - 1) + (i >> how & 1u)) & ~(last - 1));
}
__device__ inline double rounded(double x, int) { return x; }

/* The bits of a number that half precision, or bfloat16, has. */
__device__ inline uint16_t bits_of(float x, int how) {
    const uint32_t i = __float_as_uint(x), a = i & 0x7fffffffu, sign = i >> 16 & 0x8000u;
    if (how == TO_BFLOAT16) return (uint16_t)(a > 0x7f800000u ? i >> 16 | 0x40u : i >> 16);
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a == 0x7f800000u) return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) return (uint16_t)(sign | (uint32_t)(__uint_as_float(a) * 16777216.0f));
    return (uint16_t)(sign | (a - 0x38000000u) >> 13);
}

/* Whether a number is there that the shorter type does not have: it became infinite. */
__device__ inline bool overflows(float x, float r) { return (__float_as_uint(r) & 0x7fffffffu) == 0x7f800000u && x != r; }
#endif
