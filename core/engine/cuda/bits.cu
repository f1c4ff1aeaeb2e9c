/* Products of matrices of signs: 32 signs a word, a product of two rows by counting the bits in which they differ.
 * Source: M. Rastegari et al., "XNOR-Net: ImageNet classification using binary convolutional neural networks" (ECCV 2016). */
#include <math.h>

#include "common.cuh"

constexpr int TILE = 64, DEPTH = 16; /* outputs of a block each way, words of a step; a thread has 4 x 4 of the outputs */

/* words[r, w]: bit j is whether x[r, 32 w + j] >= 0, 0 beyond k; scale[r] = mean of |x[r]|; a warp a row */
#define BITS_PACK(T, t)                                                                                                         \
    CG_KERNEL(bits_pack_##t, const T *__restrict__ x, uint32_t *__restrict__ words, T *__restrict__ scale, int64_t rows,        \
              int64_t k) {                                                                                                      \
        const int lane = threadIdx.x % 32;                                                                                      \
        const int64_t W = (k + 31) / 32;                                                                                        \
        for (int64_t r = thread_number() / 32; r < rows; r += thread_count() / 32) {                                            \
            T sum = 0;                                                                                                          \
            for (int64_t w = 0; w < W; w++) {                                                                                   \
                const int64_t i = 32 * w + lane;                                                                                \
                const T v = i < k ? x[r * k + i] : T(-1);                                                                       \
                const unsigned word = __ballot_sync(0xffffffffu, v >= 0);                                                       \
                if (lane == 0) words[r * W + w] = word;                                                                         \
                sum += i < k ? (T)fabs(v) : T(0);                                                                               \
            }                                                                                                                   \
            for (int h = 16; h; h /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, h);                                            \
            if (lane == 0 && scale) scale[r] = k ? sum / (T)k : T(0);                                                           \
        }                                                                                                                       \
    }
CG_FLOATS(BITS_PACK)

/* y[i, j] = p[i] q[j] (k - 2 (bits in which rows i of a and j of b differ)): the product a b' of signs, scaled; p, q: null for ones */
#define BITS_TIMES(T, t)                                                                                                        \
    CG_KERNEL(bits_times_##t, const uint32_t *__restrict__ a, const T *p, const uint32_t *__restrict__ b, const T *q, T *y,     \
              int64_t m, int64_t n, int64_t k) {                                                                                \
        __shared__ uint32_t left[TILE][DEPTH + 1], right[TILE][DEPTH + 1];                                                      \
        const int64_t W = (k + 31) / 32, i0 = blockIdx.y * (int64_t)TILE, j0 = blockIdx.x * (int64_t)TILE;                      \
        const int thread = threadIdx.x, x = thread % 16, z = thread / 16;                                                       \
        int differ[4][4] = {};                                                                                                  \
        for (int64_t w0 = 0; w0 < W; w0 += DEPTH) {                                                                             \
            for (int e = thread; e < TILE * DEPTH; e += 256) {                                                                  \
                const int row = e / DEPTH, c = e % DEPTH;                                                                       \
                const bool inside = w0 + c < W;                                                                                 \
                left[row][c] = inside && i0 + row < m ? a[(i0 + row) * W + w0 + c] : 0;                                         \
                right[row][c] = inside && j0 + row < n ? b[(j0 + row) * W + w0 + c] : 0;                                        \
            }                                                                                                                   \
            __syncthreads();                                                                                                    \
            for (int c = 0; c < DEPTH; c++) {                                                                                   \
                uint32_t u[4], v[4];                                                                                            \
                for (int s = 0; s < 4; s++) u[s] = left[z + 16 * s][c], v[s] = right[x + 16 * s][c];                            \
                for (int s = 0; s < 4; s++)                                                                                     \
                    for (int o = 0; o < 4; o++) differ[s][o] += __popc(u[s] ^ v[o]);                                            \
            }                                                                                                                   \
            __syncthreads();                                                                                                    \
        }                                                                                                                       \
        for (int s = 0; s < 4; s++)                                                                                             \
            for (int o = 0; o < 4; o++) {                                                                                       \
                const int64_t i = i0 + z + 16 * s, j = j0 + x + 16 * o;                                                         \
                if (i < m && j < n) y[i * n + j] = (T)(k - 2 * (int64_t)differ[s][o]) * (p ? p[i] : T(1)) * (q ? q[j] : T(1));  \
            }                                                                                                                   \
    }
CG_FLOATS(BITS_TIMES)
