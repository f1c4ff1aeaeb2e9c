// Counter-based random numbers, the keyed order of a sweep, and the loops over images that the Python side of data/ calls.
// Every number is a function of (seed, purpose, sweep, sample), so it does not depend on threads, ranks or prefetching.
#pragma once
#include <cstdint>

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define CG_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CG_CLONES
#endif

// Philox4x64-10 (Salmon et al., 2011): 4 words of 64 bits for one counter; the same numbers as numpy.random.Philox, which
// counts up before its first block: NumPy's counter c is c + 1 here.
static inline void cg_philox(uint64_t k0, uint64_t k1, uint64_t c0, uint64_t c1, uint64_t c2, uint64_t c3, uint64_t *out) {
    for (int round = 0; round < 10; ++round) {
        const unsigned __int128 p0 = (unsigned __int128)0xD2E7470EE14C6C93ULL * c0;
        const unsigned __int128 p1 = (unsigned __int128)0xCA5A826395121157ULL * c2;
        const uint64_t n0 = (uint64_t)(p1 >> 64) ^ c1 ^ k0, n2 = (uint64_t)(p0 >> 64) ^ c3 ^ k1;
        c1 = (uint64_t)p1;
        c3 = (uint64_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B97F4A7C15ULL;
        k1 += 0xBB67AE8584CAA73BULL;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

// A whole number in [0, n) from 64 random bits.
static inline int64_t cg_below(uint64_t bits, int64_t n) { return (int64_t)(((unsigned __int128)bits * (uint64_t)n) >> 64); }

// Places start..stop of the order of one sweep over `count` samples.
void cg_permutation(uint64_t seed, uint64_t sweep, int64_t count, int64_t start, int64_t stop, int64_t *out);

// What one call of cg_image_batch does to every image: crop a window (of the image with `pad` pixels around it), flip, and
// take (x - mean) * scale; outside the image the result is fill[channel].
typedef struct cg_image_plan {
    int64_t channels, height, width, out_height, out_width, pad;
    int random_crop, random_flip, mean_is_image;
    uint64_t seed, purpose;
    const float *mean, *scale, *fill;
} cg_image_plan;
void cg_image_batch_u8(const cg_image_plan *plan, const uint8_t *images, const int64_t *sample, const int64_t *sweep, int64_t n, float *out);
void cg_image_batch_f4(const cg_image_plan *plan, const float *images, const int64_t *sample, const int64_t *sweep, int64_t n, float *out);

// Resizes the window (top, left, height, width, in pixels) of an image to H x W: between pixel centres, or the nearest pixel; outside
// the image its border, or `pad` where `padded`. Element (c, y, z) of the image lies at x[c sc + y sy + z sz]; out (C, H, W), mirrored
// where `flip`.
typedef struct cg_resize {
    int64_t channels, height, width, sc, sy, sz, out_height, out_width;
    double window[4];
    int nearest, padded, flip;
    float pad;
} cg_resize;
void cg_resize_u8(const cg_resize *plan, const uint8_t *x, float *out);
void cg_resize_f4(const cg_resize *plan, const float *x, float *out);

// Fashion-C32: images first..last of one split; `photos` are RGB bytes, rows first. See fashion_c32.py for what is drawn.
typedef struct cg_photo {
    const uint8_t *pixels;
    int64_t height, width;
} cg_photo;
void cg_c32(uint64_t seed, int split, int64_t first, int64_t last, const uint8_t *items, const cg_photo *photos, int64_t photo_count,
            uint8_t *out);
