/* Kernels that find by index: gathers, sums by index, one-hot rows, and a stable sort.
 * Indices are floats as in CNTK: truncated towards zero; one that names no row gives zeros, or is left out of sums. */
#include "blocks.cuh"

/* The row that an index names, -1: none (NaN, negative, too large). */
template <class I> __device__ inline int64_t row_of(I index, int64_t rows) {
    return index >= 0 && index < (I)rows ? (int64_t)index : -1;
}

/* y[r] = x[index[r]] for rows of `width` words, x having `rows` of them */
#define GATHER(I, type, W, bytes)                                                                                               \
    CG_KERNEL(gather_##type##_##bytes, const W *__restrict__ x, const I *__restrict__ index, W *__restrict__ y, int64_t n,      \
              int64_t width, int64_t rows, int32_t shift, uint64_t *wrong) {                                                    \
        CG_ROWS(r, n, shift) {                                                                                                  \
            const int64_t from = row_of(index[r], rows);                                                                        \
            if (from < 0) note(wrong, r, index[r]);                                                                             \
            CG_COLUMNS(c, width, shift) y[r * width + c] = from < 0 ? W{} : x[from * width + c];                                \
        }                                                                                                                       \
    }
#define GATHERS(I, type) GATHER(I, type, uint64_t, 8) GATHER(I, type, Quad, 16)
GATHERS(float, f4)
GATHERS(double, f8)
GATHERS(int32_t, i4)
GATHER(float, f4, uint32_t, 4)
GATHER(int32_t, i4, uint32_t, 4)
GATHER(int32_t, i4, uint16_t, 2)

/* y[i, class x[i, j], j] = 1 onto zeros; x (n / inner, inner), y (n / inner, classes, inner) */
#define ONE_HOT(T, type)                                                                                                        \
    CG_KERNEL(one_hot_##type, const T *__restrict__ x, T *__restrict__ y, int64_t n, int64_t classes, int64_t inner) {          \
        CG_EACH(i, n) {                                                                                                         \
            const int64_t c = row_of(x[i], classes), o = quotient(i, inner);                                                    \
            if (c >= 0) y[(o * classes + c) * inner + (i - o * inner)] = 1;                                                     \
        }                                                                                                                       \
    }
CG_FLOATS(ONE_HOT)

/* y[o, j, i] = x[o, index[o, j, i], i]; x (outer, size, inner), y and index (outer, k, inner), n elements */
#define TAKE_ALONG(T, type)                                                                                                     \
    CG_KERNEL(take_along_##type, const T *__restrict__ x, const T *__restrict__ index, T *__restrict__ y, int64_t n,            \
              int64_t size, int64_t inner, int64_t k) {                                                                         \
        CG_EACH(at, n) {                                                                                                        \
            const int64_t row = quotient(at, inner), o = quotient(row, k), r = row_of(index[at], size);                         \
            y[at] = r < 0 ? T(0) : x[(o * size + r) * inner + (at - row * inner)];                                              \
        }                                                                                                                       \
    }
CG_FLOATS(TAKE_ALONG)

/* y[o, index[o, j, i], i] += x[o, j, i] in the order of j, onto zeros; x and index (outer, k, inner), y (outer, size, inner) */
#define PUT_ALONG(T, type)                                                                                                      \
    CG_KERNEL(put_along_##type, const T *__restrict__ x, const T *__restrict__ index, T *__restrict__ y, int64_t outer,         \
              int64_t size, int64_t inner, int64_t k) {                                                                         \
        CG_EACH(column, outer *inner) {                                                                                         \
            const int64_t o = quotient(column, inner), i = column - o * inner;                                                  \
            for (int64_t j = 0; j < k; j++) {                                                                                   \
                const int64_t at = (o * k + j) * inner + i, r = row_of(index[at], size);                                        \
                if (r >= 0) y[(o * size + r) * inner + i] += x[at];                                                             \
            }                                                                                                                   \
        }                                                                                                                       \
    }
CG_FLOATS(PUT_ALONG)

/* ---- sums by index: the places of each key, in order ------------------------------------------------------------------ */

/* key[i] = the row that index[i] names, `rows` where it names none; place[i] = i */
#define INDEX_KEYS(T, type)                                                                                                     \
    CG_KERNEL(index_keys_##type, const T *__restrict__ index, uint32_t *key, int32_t *place, int64_t n, int64_t rows,           \
              uint64_t *wrong) {                                                                                                \
        CG_EACH(i, n) {                                                                                                         \
            const int64_t r = row_of(index[i], rows);                                                                           \
            if (r < 0) note(wrong, i, index[i]);                                                                                \
            key[i] = (uint32_t)(r < 0 ? rows : r), place[i] = (int32_t)i;                                                       \
        }                                                                                                                       \
    }
CG_FLOATS(INDEX_KEYS)

/* y[k] += x[place[p]] in the order of p for each p whose key is k < rows, onto zeros; rows of `width` elements, keys sorted */
#define SUM_ROWS(T, type)                                                                                                       \
    CG_KERNEL(sum_rows_##type, const uint32_t *__restrict__ key, const int32_t *__restrict__ place, const T *__restrict__ x,    \
              T *__restrict__ y, int64_t n, int64_t width, int64_t rows, int32_t shift) {                                       \
        CG_ROWS(first, n, shift) {                                                                                              \
            const uint32_t k = key[first];                                                                                      \
            if (k >= rows || (first && key[first - 1] == k)) continue;                                                          \
            CG_COLUMNS(c, width, shift) {                                                                                       \
                T sum = 0;                                                                                                      \
                int64_t p = first;                                                                                              \
                for (; p + 4 <= n && key[p + 3] == k; p += 4) { /* four loads at a time */                                      \
                    T part[4];                                                                                                  \
                    for (int e = 0; e < 4; e++) part[e] = x[place[p + e] * width + c];                                          \
                    for (int e = 0; e < 4; e++) sum += part[e];                                                                 \
                }                                                                                                               \
                for (; p < n && key[p] == k; p++) sum += x[place[p] * width + c];                                               \
                y[k * width + c] = sum;                                                                                         \
            }                                                                                                                   \
        }                                                                                                                       \
    }
CG_FLOATS(SUM_ROWS)

/* ---- a stable sort of keys with their places: least significant digit first -------------------------------------------- */

/* Keys that sort as numbers do, NaN aside; -0 as 0. */
__device__ inline uint32_t key_of(float x) {
    const float v = x + 0.0f;
    const uint32_t u = __float_as_uint(v);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}
__device__ inline uint64_t key_of(double x) {
    const double v = x + 0.0;
    const uint64_t u = (uint64_t)__double_as_longlong(v), sign = (uint64_t)1 << 63;
    return u & sign ? ~u : u | sign;
}

/* key[i] = that of x[place[i]], the largest first where `down`; `first`: place[i] = i */
#define NUMBER_KEYS(T, type, K)                                                                                                 \
    CG_KERNEL(number_keys_##type, const T *__restrict__ x, K *key, int32_t *place, int64_t n, int32_t down, int32_t first) {    \
        CG_EACH(i, n) {                                                                                                         \
            if (first) place[i] = (int32_t)i;                                                                                   \
            const K k = key_of(x[place[i]]);                                                                                    \
            key[i] = down ? ~k : k;                                                                                             \
        }                                                                                                                       \
    }
NUMBER_KEYS(float, f4, uint32_t)
NUMBER_KEYS(double, f8, uint64_t)

constexpr int DIGIT = 5, DIGITS = 1 << DIGIT, THREADS = 256, EACH = 8, TILE = THREADS * EACH;

struct Ranks {
    uint16_t count[DIGITS * THREADS]; /* by digit, then thread: so that a running sum is the rank in a stable order */
    int32_t sums[THREADS], start[DIGITS];
};

/* The ranks within a tile of this thread's keys by one digit; s.start: the first rank of each digit. */
template <class K> __device__ inline void rank_tile(const K *key, int there, int shift, int *rank, Ranks &s) {
    const int t = threadIdx.x;
    for (int i = t; i < DIGITS * THREADS; i += THREADS) s.count[i] = 0;
    __syncthreads();
    for (int e = 0; e < EACH; e++)
        if (e < there) s.count[(int)(key[e] >> shift & (DIGITS - 1)) * THREADS + t]++;
    __syncthreads();
    int32_t sum = 0, total;
    for (int i = t * DIGITS; i < (t + 1) * DIGITS; i++) {
        const int32_t n = s.count[i];
        s.count[i] = (uint16_t)sum, sum += n;
    }
    const int32_t before = block_scan(sum, s.sums, total);
    for (int i = t * DIGITS; i < (t + 1) * DIGITS; i++) s.count[i] = (uint16_t)(s.count[i] + before);
    __syncthreads();
    if (t < DIGITS) s.start[t] = s.count[t * THREADS];
    __syncthreads();
    for (int e = 0; e < EACH; e++)
        if (e < there) rank[e] = s.count[(int)(key[e] >> shift & (DIGITS - 1)) * THREADS + t]++;
    __syncthreads();
}

__device__ inline int keys_there(int64_t n, int64_t first) { return (int)(n <= first ? 0 : n - first < EACH ? n - first : EACH); }

#define SORT(K, bytes)                                                                                                          \
    /* sorts one tile at most, in place */                                                                                      \
    CG_KERNEL(sort_tile_##bytes, K *key, int32_t *place, int64_t n, int32_t bits) {                                             \
        __shared__ Ranks s;                                                                                                     \
        __shared__ K keys[TILE];                                                                                                \
        __shared__ int32_t places[TILE];                                                                                        \
        const int first = threadIdx.x * EACH, there = keys_there(n, first);                                                     \
        K k[EACH];                                                                                                              \
        int32_t p[EACH];                                                                                                        \
        int rank[EACH];                                                                                                         \
        for (int e = 0; e < EACH; e++)                                                                                          \
            if (e < there) k[e] = key[first + e], p[e] = place[first + e];                                                      \
        for (int shift = 0; shift < bits; shift += DIGIT) {                                                                     \
            rank_tile(k, there, shift, rank, s);                                                                                \
            for (int e = 0; e < EACH; e++)                                                                                      \
                if (e < there) keys[rank[e]] = k[e], places[rank[e]] = p[e];                                                    \
            __syncthreads();                                                                                                    \
            for (int e = 0; e < EACH; e++)                                                                                      \
                if (e < there) k[e] = keys[first + e], p[e] = places[first + e];                                                \
        }                                                                                                                       \
        for (int e = 0; e < EACH; e++)                                                                                          \
            if (e < there) key[first + e] = k[e], place[first + e] = p[e];                                                      \
    }                                                                                                                           \
    /* counts[digit, tile] of the keys of each tile */                                                                          \
    CG_KERNEL(sort_count_##bytes, const K *__restrict__ key, int32_t *__restrict__ counts, int64_t n, int32_t shift,            \
              int32_t tiles) {                                                                                                  \
        __shared__ int32_t count[DIGITS];                                                                                       \
        const int t = threadIdx.x;                                                                                              \
        if (t < DIGITS) count[t] = 0;                                                                                           \
        __syncthreads();                                                                                                        \
        for (int64_t i = (int64_t)blockIdx.x * TILE + t; i < n && i < ((int64_t)blockIdx.x + 1) * TILE; i += THREADS)           \
            atomicAdd(&count[key[i] >> shift & (DIGITS - 1)], 1);                                                               \
        __syncthreads();                                                                                                        \
        if (t < DIGITS) counts[(int64_t)t * tiles + blockIdx.x] = count[t];                                                     \
    }                                                                                                                           \
    /* moves each tile's keys to where the scanned counts say */                                                                \
    CG_KERNEL(sort_place_##bytes, const K *__restrict__ key, const int32_t *__restrict__ place, K *__restrict__ to_key,         \
              int32_t *__restrict__ to_place, const int32_t *__restrict__ counts, int64_t n, int32_t shift, int32_t tiles) {    \
        __shared__ Ranks s;                                                                                                     \
        const int64_t first = (int64_t)blockIdx.x * TILE + threadIdx.x * EACH;                                                  \
        const int there = keys_there(n, first);                                                                                 \
        K k[EACH];                                                                                                              \
        int rank[EACH];                                                                                                         \
        for (int e = 0; e < EACH; e++)                                                                                          \
            if (e < there) k[e] = key[first + e];                                                                               \
        rank_tile(k, there, shift, rank, s);                                                                                    \
        for (int e = 0; e < EACH; e++) {                                                                                       \
            if (e >= there) break;                                                                                              \
            const int digit = (int)(k[e] >> shift & (DIGITS - 1));                                                              \
            const int64_t at = (int64_t)counts[(int64_t)digit * tiles + blockIdx.x] + rank[e] - s.start[digit];                 \
            to_key[at] = k[e], to_place[at] = place[first + e];                                                                 \
        }                                                                                                                       \
    }
SORT(uint32_t, 4)
SORT(uint64_t, 8)

/* counts[i] = the sum of those before it; one block */
CG_KERNEL(sort_scan, int32_t *counts, int64_t n) {
    __shared__ int32_t sums[1024];
    const int64_t each = (n + blockDim.x - 1) / blockDim.x, begin = threadIdx.x * each, end = begin + each < n ? begin + each : n;
    int32_t sum = 0, total;
    for (int64_t i = begin; i < end; i++) sum += counts[i];
    sum = block_scan(sum, sums, total);
    for (int64_t i = begin; i < end; i++) {
        const int32_t c = counts[i];
        counts[i] = sum, sum += c;
    }
}
