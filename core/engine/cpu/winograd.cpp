#include "winograd.h"

#include <cstring>

#include <omp.h>

#include "gemm.h"

namespace cg {

namespace {

/* Interpolation at 0, a, -a, b, -b and infinity. With 5/8 and 3/2 the error is a third of that of the usual 1 and 2. */
constexpr float a = 0.625f, b = 1.5f, a2 = a * a, b2 = b * b, a3 = a2 * a, b3 = b2 * b;
constexpr float n0 = 1 / (a2 * b2), na = 1 / (2 * a2 * (a2 - b2)), nb = 1 / (2 * b2 * (b2 - a2));

constexpr int64_t deep = 192; /* channels of a panel of 64 columns that fits the first-level cache */
constexpr int64_t line = 16; /* floats of a cache line; rows and planes are a line longer than a power of two */

/* 6 of the image -> 6 */
CG_AVX512 CG_INLINE void image(const v16 *d, v16 *r) {
    const v16 e = d[4] - b2 * d[2], f = d[3] - b2 * d[1], g = d[4] - a2 * d[2], h = d[3] - a2 * d[1];
    r[0] = (a2 * b2) * d[0] + (d[4] - (a2 + b2) * d[2]);
    r[1] = e + a * f;
    r[2] = e - a * f;
    r[3] = g + b * h;
    r[4] = g - b * h;
    r[5] = (a2 * b2) * d[1] + (d[5] - (a2 + b2) * d[3]);
}

/* 6 products -> 4 of the result */
CG_AVX512 CG_INLINE void result(const v16 *m, v16 *y) {
    const v16 s = m[1] + m[2], d = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
    y[0] = m[0] + s + s2;
    y[1] = a * d + b * d2;
    y[2] = a2 * s + b2 * s2;
    y[3] = a3 * d + b3 * d2 + m[5];
}

/* its adjoint: 4 -> 6 */
CG_AVX512 CG_INLINE void result_adjoint(const v16 *y, v16 *m) {
    const v16 e = y[0] + a2 * y[2], f = y[1] + a2 * y[3], g = y[0] + b2 * y[2], h = y[1] + b2 * y[3];
    m[0] = y[0];
    m[1] = e + a * f;
    m[2] = e - a * f;
    m[3] = g + b * h;
    m[4] = g - b * h;
    m[5] = y[3];
}

/* 3 of the kernel -> 6 */
CG_AVX512 CG_INLINE void kernel(const v16 *g, v16 *u) {
    const v16 ea = na * g[0] + (na * a2) * g[2], fa = (na * a) * g[1], eb = nb * g[0] + (nb * b2) * g[2], fb = (nb * b) * g[1];
    u[0] = n0 * g[0];
    u[1] = ea + fa;
    u[2] = ea - fa;
    u[3] = eb + fb;
    u[4] = eb - fb;
    u[5] = g[2];
}

/* its adjoint: 6 -> 3 */
CG_AVX512 CG_INLINE void kernel_adjoint(const v16 *u, v16 *g) {
    const v16 s = u[1] + u[2], d = u[1] - u[2], s2 = u[3] + u[4], d2 = u[3] - u[4];
    g[0] = n0 * u[0] + na * s + nb * s2;
    g[1] = (na * a) * d + (nb * b) * d2;
    g[2] = (na * a2) * s + (nb * b2) * s2 + u[5];
}

/* One row of tiles of one block of 16 channels: the image goes to v[36 planes][tile][channel]. Tiles overlap by two columns,
 * so the columns of up to 8 tiles are transformed first, each once. */
CG_AVX512 void image_row(const float *x, int64_t h, int64_t w, int64_t top, int64_t left, int64_t cols, float *v,
                         int64_t plane, int64_t ld) {
    v16 t[34][6];
    for (int64_t first = 0; first < cols; first += 8) {
        const int64_t tiles = std::min<int64_t>(8, cols - first);
        for (int64_t j = 0; j < 4 * tiles + 2; ++j) {
            const int64_t at = left + 4 * first + j;
            v16 d[6];
            if (at < 0 || at >= w) {
#pragma GCC unroll 6
                for (int i = 0; i < 6; ++i) t[j][i] = v16{};
                continue;
            }
            const float *p = x + (top * w + at) * 16;
#pragma GCC unroll 4
            for (int i = 6; i < 10; ++i) __builtin_prefetch(p + i * w * 16); /* what the next row of tiles will need */
            if (top >= 0 && top + 6 <= h) {
#pragma GCC unroll 6
                for (int i = 0; i < 6; ++i) d[i] = load(p + i * w * 16);
            } else {
#pragma GCC unroll 6
                for (int i = 0; i < 6; ++i) d[i] = top + i >= 0 && top + i < h ? load(p + i * w * 16) : v16{};
            }
            image(d, t[j]);
        }
        for (int64_t tile = 0; tile < tiles; ++tile) {
            float *to = v + (first + tile) * ld;
#pragma GCC unroll 6
            for (int i = 0; i < 6; ++i) {
                v16 d[6], r[6];
#pragma GCC unroll 6
                for (int j = 0; j < 6; ++j) d[j] = t[4 * tile + j][i];
                image(d, r);
#pragma GCC unroll 6
                for (int j = 0; j < 6; ++j) store(to + (6 * i + j) * plane, r[j]);
            }
        }
    }
}

/* One row of tiles of 16 channels of the gradient of the result, to m[36 planes][tile][channel], its sum added to `sum`. */
CG_AVX512 void gradient_row(const float *dy, int64_t h, int64_t w, int64_t top, int64_t cols, float *m, int64_t plane, int64_t ld,
                            float *sum) {
    v16 total = load(sum);
    for (int64_t tile = 0; tile < cols; ++tile) {
        v16 t[6][4];
        const int64_t left = 4 * tile;
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            v16 d[4], r[6];
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                __builtin_prefetch(dy + ((top + i + 4) * w + left + j) * 16);
                d[i] = top + i < h && left + j < w ? load(dy + ((top + i) * w + left + j) * 16) : v16{};
                total += d[i];
            }
            result_adjoint(d, r);
#pragma GCC unroll 6
            for (int i = 0; i < 6; ++i) t[i][j] = r[i];
        }
        float *to = m + tile * ld;
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) {
            v16 r[6];
            result_adjoint(t[i], r);
#pragma GCC unroll 6
            for (int j = 0; j < 6; ++j) store(to + (6 * i + j) * plane, r[j]);
        }
    }
    store(sum, total);
}

/* One row of tiles of 16 channels of the result. */
CG_AVX512 void result_row(const float *m, int64_t plane, int64_t ld, float *y, int64_t h, int64_t w, int64_t top, int64_t cols,
                          const float *bias_at, bool relu, bool sum) {
    const v16 bias = bias_at ? load(bias_at) : v16{};
    for (int64_t tile = 0; tile < cols; ++tile) {
        const float *from = m + tile * ld;
        const int64_t left = 4 * tile, high = std::min<int64_t>(4, h - top), wide = std::min<int64_t>(4, w - left);
        /* stores leave the core one after the other: ask for their lines ahead */
        for (int64_t i = 0; i < high; ++i)
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) __builtin_prefetch(y + ((top + i) * w + left + j) * 16, 1, 3);
        v16 t[4][6];
#pragma GCC unroll 6
        for (int j = 0; j < 6; ++j) {
            v16 d[6], r[4];
#pragma GCC unroll 6
            for (int i = 0; i < 6; ++i) d[i] = load(from + (6 * i + j) * plane);
            result(d, r);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) t[i][j] = r[i];
        }
        for (int64_t i = 0; i < high; ++i) {
            float *p = y + ((top + i) * w + left) * 16;
            v16 r[4];
            result(t[i], r);
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                if (j >= wide) break;
                v16 value = r[j] + bias;
                if (sum) value += load(p + 16 * j);
                if (relu) value = value < 0 ? v16{} : value; /* a NaN stays one */
                store(p + 16 * j, value);
            }
        }
    }
}

/* The kernel for one input channel and 16 output channels; u points at plane 0. `out` and `in` are strides of w in floats;
 * `flip` turns the 3x3 taps round (backward_data). */
CG_AVX512 void kernel_block(const float *w, int64_t out, bool flip, float *u, int64_t plane) {
    float taps[9][16];
    for (int o = 0; o < 16; ++o)
        for (int i = 0; i < 9; ++i) taps[flip ? 8 - i : i][o] = w[o * out + i];
    v16 t[6][3];
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
        const v16 g[3] = {load(taps[j]), load(taps[3 + j]), load(taps[6 + j])};
        v16 r[6];
        kernel(g, r);
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) t[i][j] = r[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
        v16 r[6];
        kernel(t[i], r);
#pragma GCC unroll 6
        for (int j = 0; j < 6; ++j) store(u + (6 * i + j) * plane, r[j]);
    }
}

/* dw for one input channel and 16 output channels from the sum of `chunks` partial sums. */
CG_AVX512 void kernel_gradient(const float *u, int64_t plane, int64_t chunks, int64_t chunk, float *w, int64_t out, bool sum) {
    v16 t[3][6];
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) {
        v16 d[6], r[3];
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) {
            d[i] = load(u + (6 * i + j) * plane);
            for (int64_t k = 1; k < chunks; ++k) d[i] += load(u + (6 * i + j) * plane + k * chunk);
        }
        kernel_adjoint(d, r);
#pragma GCC unroll 3
        for (int i = 0; i < 3; ++i) t[i][j] = r[i];
    }
    float taps[9][16];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
        v16 r[3];
        kernel_adjoint(t[i], r);
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) store(taps[3 * i + j], r[j]);
    }
    for (int o = 0; o < 16; ++o)
        for (int i = 0; i < 9; ++i) w[o * out + i] = taps[i][o] + (sum ? w[o * out + i] : 0.f);
}

int64_t up(int64_t n, int64_t k) { return (n + k - 1) / k; }

} // namespace

size_t Winograd::plan() {
    rows = up(oh, 4), cols = up(ow, 4);
    const int64_t all = n * rows, per_tile = 36 * (c + o + 2 * line) * 4;
    /* A strip's two sets of planes stay in the second-level cache where channels are few; where they are many, the strip is
     * long enough that the kernel, which comes from the third level, is used often. */
    const int64_t tiles = std::max<int64_t>(640 * 1024 / per_tile, kind == 2 ? 96 : 48);
    strip = std::min(all, std::max<int64_t>(1, tiles / cols));
    if (kind != 2) strip = up(all, up(up(all, strip), threads) * threads); /* equal work for the threads */
    strips = up(all, strip);
    plane_v = strip * cols * (c + line) + line;
    plane_m = strip * cols * (o + line) + line;
    const int64_t kernel_size = 36 * c * o;
    chunks = kind == 2 && kernel_size * 4 <= 640 * 1024 ? std::min<int64_t>(16, strips) : 0;
    at_u = 0;
    at_v = kernel_size * std::max<int64_t>(1, chunks) + (kind == 2 ? std::max<int64_t>(1, chunks) * o : 0);
    at_v = up(at_v, line) * line;
    at_m = at_v + 36 * plane_v;
    per_thread = 36 * (plane_v + plane_m);
    const int64_t copies = kind == 2 && !chunks ? 1 : threads;
    return (size_t)(at_v + per_thread * copies) * 4;
}

void Winograd::forward(const float *x, const float *wts, const float *bias_at, float *y, float *scratch) const {
    const int64_t cb = c / 16, ob = o / 16, all = n * rows;
    const int64_t out = kind == 1 ? 9 : c * 9, in = kind == 1 ? o * 9 : 9;
    float *u = scratch + at_u;
    const int64_t plane_u = c * o, ldv = c + line, ldm = o + line;
#pragma omp parallel num_threads(threads)
    {
        const int me = omp_get_thread_num();
        float *v = scratch + at_v + per_thread * me, *m = v + 36 * plane_v;
#pragma omp for collapse(2) schedule(static)
        for (int64_t q = 0; q < ob; ++q)
            for (int64_t i = 0; i < c; ++i) {
                const int64_t wide = std::min<int64_t>(64, o - q / 4 * 64);
                kernel_block(wts + i * in + q * 16 * out, out, kind == 1, u + q / 4 * 64 * c + i * wide + q % 4 * 16, plane_u);
            }
#pragma omp for schedule(dynamic, 1)
        for (int64_t s = 0; s < strips; ++s) {
            const int64_t begin = s * strip, end = std::min(all, begin + strip), tiles = (end - begin) * cols;
            for (int64_t r = begin; r < end; ++r) {
                const int64_t image = r / rows, top = 4 * (r % rows) - pad_top;
                for (int64_t p = 0; p < cb; ++p)
                    image_row(x + (image * cb + p) * h * w * 16, h, w, top, -pad_left, cols,
                              v + (r - begin) * cols * ldv + p * 16, plane_v, ldv);
            }
            for (int k = 0; k < 36; ++k)
                for (int64_t q = 0; q < o; q += 64) {
                    const int64_t wide = std::min<int64_t>(64, o - q);
                    for (int64_t l = 0; l < c; l += deep)
                        panel(tiles, (int)(wide / 16), std::min(deep, c - l), v + k * plane_v + l, ldv, 1,
                              u + k * plane_u + q * c + l * wide, wide, m + k * plane_m + q, ldm, l > 0);
                }
            for (int64_t r = begin; r < end; ++r) {
                const int64_t image = r / rows, top = 4 * (r % rows);
                for (int64_t q = 0; q < ob; ++q)
                    result_row(m + (r - begin) * cols * ldm + q * 16, plane_m, ldm, y + (image * ob + q) * oh * ow * 16, oh,
                               ow, top, cols, bias ? bias_at + q * 16 : nullptr, relu, sum);
            }
        }
    }
}

/* Partial sums and their order depend on the shapes alone, so any number of threads gives the same bits. */
void Winograd::backward_weights(const float *x, const float *dy, float *dw, float *db, float *scratch) const {
    const int64_t cb = c / 16, ob = o / 16, all = n * rows, plane_u = c * o, ldv = c + line, ldm = o + line;
    const int64_t sums = std::max<int64_t>(1, chunks);
    float *u = scratch + at_u, *totals = u + 36 * plane_u * sums;
    auto image_part = [&](float *v, int64_t begin, int64_t r, int64_t p) {
        const int64_t image = r / rows, top = 4 * (r % rows) - pad_top;
        image_row(x + (image * cb + p) * h * w * 16, h, w, top, -pad_left, cols, v + (r - begin) * cols * ldv + p * 16,
                  plane_v, ldv);
    };
    auto gradient_part = [&](float *m, int64_t begin, int64_t r, int64_t q, float *total) {
        const int64_t image = r / rows, top = 4 * (r % rows);
        gradient_row(dy + (image * ob + q) * oh * ow * 16, oh, ow, top, cols, m + (r - begin) * cols * ldm + q * 16, plane_m, ldm,
                     total + q * 16);
    };
    auto products = [&](const float *v, const float *m, int64_t tiles, float *sum_u, int k, bool add) {
        for (int64_t q = 0; q < o; q += 64) {
            const int64_t wide = std::min<int64_t>(64, o - q);
            panel(c, (int)(wide / 16), tiles, v + k * plane_v, 1, ldv, m + k * plane_m + q, ldm, sum_u + k * plane_u + q, o, add);
        }
    };
#pragma omp parallel num_threads(threads)
    {
        const int me = omp_get_thread_num();
        if (chunks) {
            float *v = scratch + at_v + per_thread * me, *m = v + 36 * plane_v;
#pragma omp for schedule(dynamic, 1)
            for (int64_t chunk = 0; chunk < chunks; ++chunk) {
                float *sum_u = u + chunk * 36 * plane_u, *total = totals + chunk * o;
                std::memset(total, 0, (size_t)o * 4);
                const int64_t first = chunk * strips / chunks, last = (chunk + 1) * strips / chunks;
                for (int64_t s = first; s < last; ++s) {
                    const int64_t begin = s * strip, end = std::min(all, begin + strip);
                    for (int64_t r = begin; r < end; ++r) {
                        for (int64_t p = 0; p < cb; ++p) image_part(v, begin, r, p);
                        for (int64_t q = 0; q < ob; ++q) gradient_part(m, begin, r, q, total);
                    }
                    for (int k = 0; k < 36; ++k) products(v, m, (end - begin) * cols, sum_u, k, s > first);
                }
            }
        } else {
            float *v = scratch + at_v, *m = scratch + at_m;
#pragma omp for schedule(static)
            for (int64_t q = 0; q < o; ++q) totals[q] = 0;
            for (int64_t s = 0; s < strips; ++s) {
                const int64_t begin = s * strip, end = std::min(all, begin + strip);
                /* a block of channels stays with one thread, so its sum has one order */
#pragma omp for schedule(dynamic, 1)
                for (int64_t p = 0; p < cb + ob; ++p)
                    for (int64_t r = begin; r < end; ++r) {
                        if (p < cb) image_part(v, begin, r, p);
                        else gradient_part(m, begin, r, p - cb, totals);
                    }
#pragma omp for schedule(dynamic, 1)
                for (int k = 0; k < 36; ++k) products(v, m, (end - begin) * cols, u, k, s > 0);
            }
        }
#pragma omp for collapse(2) schedule(static)
        for (int64_t q = 0; q < ob; ++q)
            for (int64_t i = 0; i < c; ++i)
                kernel_gradient(u + i * o + q * 16, plane_u, sums, 36 * plane_u, dw + i * 9 + q * 16 * c * 9, c * 9, sum);
    }
    if (bias)
        for (int64_t q = 0; q < o; ++q) {
            float t = sum ? db[q] : 0.f;
            for (int64_t k = 0; k < sums; ++k) t += totals[k * o + q];
            db[q] = t;
        }
}

} // namespace cg
