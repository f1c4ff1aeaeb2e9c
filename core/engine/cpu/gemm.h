/* The inner tile of a matrix product on AVX-512: MR rows of a times NV vectors of b, kept in registers. */
#ifndef COGKIT_GEMM_H
#define COGKIT_GEMM_H

#include <algorithm>
#include <cstdint>

#define CG_AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")))

namespace cg {
namespace {

typedef float v16 __attribute__((vector_size(64)));
typedef float v16u __attribute__((vector_size(64), aligned(4), may_alias));

#define CG_INLINE inline __attribute__((always_inline))

CG_AVX512 CG_INLINE v16 load(const float *p) { return *(const v16u *)p; }
CG_AVX512 CG_INLINE void store(float *p, v16 v) { *(v16u *)p = v; }

/* c (MR, 16 NV) = or += a (MR, k) b (k, 16 NV); element (i, l) of a lies at a[i row + l step]. Rows are addressed in threes,
 * which is what x86 can do with one pointer and one stride. */
template <int MR, int NV>
CG_AVX512 void tile(int64_t k, const float *a, int64_t row, int64_t step, const float *b, int64_t ldb, float *c, int64_t ldc,
                    bool add) {
    v16 sum[MR][NV];
#pragma GCC unroll 32
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) sum[i][j] = v16{};
    const float *p[(MR + 2) / 3];
#pragma GCC unroll 32
    for (int i = 0; i < (MR + 2) / 3; ++i) p[i] = a + 3 * i * row;
    for (int64_t l = 0; l < k; ++l) {
        v16 bl[NV];
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) bl[j] = load(b + 16 * j);
        b += ldb;
#pragma GCC unroll 32
        for (int i = 0; i < MR; ++i) {
            const float ai = p[i / 3][(i % 3) * row];
#pragma GCC unroll 4
            for (int j = 0; j < NV; ++j) sum[i][j] += ai * bl[j];
        }
#pragma GCC unroll 32
        for (int i = 0; i < (MR + 2) / 3; ++i) p[i] += step;
    }
#pragma GCC unroll 32
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) {
            float *at = c + i * ldc + 16 * j;
            store(at, add ? load(at) + sum[i][j] : sum[i][j]);
        }
}

using Tile = void (*)(int64_t, const float *, int64_t, int64_t, const float *, int64_t, float *, int64_t, bool);

/* Rows that fill 24 accumulators; fewer vectors, more rows. */
constexpr int most_rows[5] = {0, 12, 12, 8, 6};

inline Tile tile_for(int rows, int vectors) {
    static const Tile tiles[4][12] = {
        {tile<1, 1>, tile<2, 1>, tile<3, 1>, tile<4, 1>, tile<5, 1>, tile<6, 1>, tile<7, 1>, tile<8, 1>, tile<9, 1>, tile<10, 1>,
         tile<11, 1>, tile<12, 1>},
        {tile<1, 2>, tile<2, 2>, tile<3, 2>, tile<4, 2>, tile<5, 2>, tile<6, 2>, tile<7, 2>, tile<8, 2>, tile<9, 2>, tile<10, 2>,
         tile<11, 2>, tile<12, 2>},
        {tile<1, 3>, tile<2, 3>, tile<3, 3>, tile<4, 3>, tile<5, 3>, tile<6, 3>, tile<7, 3>, tile<8, 3>},
        {tile<1, 4>, tile<2, 4>, tile<3, 4>, tile<4, 4>, tile<5, 4>, tile<6, 4>}};
    return tiles[vectors - 1][rows - 1];
}

/* c (m, 16 vectors) from a (m, k) and b (k, 16 vectors), vectors <= 4, in tiles of nearly equal height. */
inline void panel(int64_t m, int vectors, int64_t k, const float *a, int64_t row, int64_t step, const float *b, int64_t ldb,
                  float *c, int64_t ldc, bool add) {
    const int64_t parts = (m + most_rows[vectors] - 1) / most_rows[vectors];
    for (int64_t i = 0, done = 0; i < parts; ++i) {
        const int64_t r = (m - done) / (parts - i);
        tile_for((int)r, vectors)(k, a + done * row, row, step, b, ldb, c + done * ldc, ldc, add);
        done += r;
    }
}

} // namespace
} // namespace cg

#endif
