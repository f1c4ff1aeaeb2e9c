/* Philox4x32-10, the counter-based generator of J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
 * Key = seed (with the upper half of the row in its own), counter = (place in the row, row, step, purpose). Uniform number i
 * of a row is word i % 4 of place i / 4; normal number i is made of words 0 and 1 of place i. core/engine/philox.py is the NumPy
 * twin. */
#ifndef COGKIT_PHILOX_H
#define COGKIT_PHILOX_H
#include <stdint.h>

#define CG_PHILOX_INLINE static inline __attribute__((always_inline))

CG_PHILOX_INLINE void cg_philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1, uint32_t *w0,
                                uint32_t *w1, uint32_t *w2, uint32_t *w3) {
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
        const uint64_t p = (uint64_t)0xD2511F53u * c0, q = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t d0 = (uint32_t)(q >> 32) ^ c1 ^ k0, d2 = (uint32_t)(p >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)q;
        c3 = (uint32_t)p;
        c0 = d0;
        c2 = d2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    *w0 = c0;
    *w1 = c1;
    *w2 = c2;
    *w3 = c3;
}

/* (u >> 9) + 1/2 has 24 bits, so it is exact in float32 too and never rounds up to 1: strictly inside (0, 1). */
CG_PHILOX_INLINE float cg_uniform_f(uint32_t u) { return ((float)(int32_t)(u >> 9) + 0.5f) * 0x1p-23f; }
CG_PHILOX_INLINE double cg_uniform_d(uint32_t u) { return ((double)(int32_t)(u >> 9) + 0.5) * 0x1p-23; }
#endif
