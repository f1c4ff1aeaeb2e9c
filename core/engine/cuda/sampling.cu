/* Weighted samples of classes, how often they hold a class, and losses over the order of the rows of a minibatch. */
#include <math.h>

#include "blocks.cuh"

/* Number k of the stream of this seed and purpose: 53 bits inside (0, 1), as stream_fine of core/engine/philox.py. */
__device__ inline double fine(uint64_t seed, uint64_t k, uint32_t purpose) {
    const Words w = philox((uint32_t)k, (uint32_t)(k >> 32), 0, purpose, seed);
    return ((double)(((uint64_t)(w.w[0] >> 5) << 26) + (w.w[1] >> 6)) + 0.5) * 1.1102230246251565e-16; /* 2^-53 */
}

struct Plus {
    template <class T> __device__ T operator()(T a, T b) const { return a + b; }
};
struct Larger {
    template <class T> __device__ T operator()(T a, T b) const { return b > a ? b : a; }
};

constexpr int THREADS = 512; /* of kernels that are one block */

/* How many weights are above 0; -1 where one is negative or not finite. For a whole block. */
template <class T> __device__ inline int64_t able(const T *w, int64_t n, int64_t *shared) {
    int64_t count = 0;
    bool usable = true;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        usable = usable && w[i] >= 0 && isfinite((double)w[i]), count += w[i] > 0;
    usable = __syncthreads_and(usable);
    count = block_fold(count, shared, Plus());
    return usable ? count : -1;
}

/* ---- samples ------------------------------------------------------------------------------------------------------------- */

/* sum[i] = w[0] + ... + w[i]: a class of weight 0 adds nothing; *last: the last class that can be drawn, -1 for none; one block */
#define WEIGHT_SUMS(T, type)                                                                                                    \
    CG_KERNEL(weight_sums_##type, const T *__restrict__ w, double *sum, int64_t *last, int64_t n) {                             \
        __shared__ double base[THREADS];                                                                                        \
        __shared__ int64_t shared[THREADS];                                                                                     \
        const int64_t usable = able(w, n, shared), each = (n + THREADS - 1) / THREADS, begin = threadIdx.x * each,              \
                      end = begin + each < n ? begin + each : n;                                                                \
        double total = 0;                                                                                                       \
        int64_t mine = -1;                                                                                                      \
        for (int64_t i = begin; i < end; i++) {                                                                                 \
            total += w[i];                                                                                                      \
            if (w[i] > 0) mine = i;                                                                                             \
        }                                                                                                                       \
        base[threadIdx.x] = total;                                                                                              \
        mine = block_fold(mine, shared, Larger());                                                                              \
        if (threadIdx.x == 0) {                                                                                                 \
            total = 0;                                                                                                          \
            for (int t = 0; t < THREADS; t++) {                                                                                 \
                const double part = base[t];                                                                                    \
                base[t] = total, total += part;                                                                                 \
            }                                                                                                                   \
            *last = usable < 1 ? -1 : mine;                                                                                     \
        }                                                                                                                       \
        __syncthreads();                                                                                                        \
        total = 0;                                                                                                              \
        for (int64_t i = begin; i < end; i++) {                                                                                 \
            total += w[i];                                                                                                      \
            sum[i] = base[threadIdx.x] + total;                                                                                 \
        }                                                                                                                       \
    }
CG_FLOATS(WEIGHT_SUMS)

/* y[i] = the class below whose running sum a number falls: the first sum that exceeds it */
#define DRAW(T, type)                                                                                                           \
    CG_KERNEL(draw_##type, const double *__restrict__ sum, const int64_t *last, T *__restrict__ y, int64_t n, int64_t count,    \
              int64_t purpose, const Context *context) {                                                                        \
        CG_EACH(i, count) {                                                                                                     \
            if (*last < 0) {                                                                                                    \
                y[i] = (T)NAN;                                                                                                  \
                continue;                                                                                                       \
            }                                                                                                                   \
            const double at = sum[n - 1] * fine(context->seed, (uint64_t)context->step * count + i, (uint32_t)purpose);         \
            int64_t low = 0, high = n;                                                                                          \
            while (low < high) {                                                                                                \
                const int64_t middle = (low + high) / 2;                                                                        \
                if (sum[middle] > at) high = middle;                                                                            \
                else low = middle + 1;                                                                                          \
            }                                                                                                                   \
            y[i] = (T)(low < *last ? low : *last);                                                                              \
        }                                                                                                                       \
    }
CG_FLOATS(DRAW)

/* The time at which each class arrives, as a key that sorts: a race of exponential clocks; its order is that of draws one by one */
#define RACE(T, type)                                                                                                           \
    CG_KERNEL(race_##type, const T *__restrict__ w, uint64_t *__restrict__ key, int32_t *__restrict__ place, int64_t n,         \
              int64_t purpose, const Context *context) {                                                                        \
        CG_EACH(i, n) {                                                                                                         \
            const double u = fine(context->seed, (uint64_t)context->step * n + i, (uint32_t)purpose);                           \
            const double time = w[i] > 0 ? -log(u) / (double)w[i] : (double)INFINITY;                                           \
            key[i] = (uint64_t)__double_as_longlong(time), place[i] = (int32_t)i;                                               \
        }                                                                                                                       \
    }
CG_FLOATS(RACE)

/* y[i] = place[i], the first `count`; NaN where so many cannot be drawn; one block */
#define ARRIVED(T, type)                                                                                                        \
    CG_KERNEL(arrived_##type, const T *__restrict__ w, const int32_t *__restrict__ place, T *__restrict__ y, int64_t n,         \
              int64_t count) {                                                                                                  \
        __shared__ int64_t shared[THREADS];                                                                                     \
        const bool enough = able(w, n, shared) >= count;                                                                        \
        for (int64_t i = threadIdx.x; i < count; i += THREADS) y[i] = enough ? (T)place[i] : (T)NAN;                            \
    }
CG_FLOATS(ARRIVED)

/* y = 1 - (1 - w / sum w)^t, t such that they sum to `count`: Newton from the left of the root of a concave function; one block */
#define INCLUSION(T, type)                                                                                                      \
    CG_KERNEL(inclusion_##type, const T *__restrict__ w, T *__restrict__ y, double *log_miss, int64_t n, int64_t count) {       \
        __shared__ double sums[THREADS];                                                                                        \
        __shared__ int64_t shared[THREADS];                                                                                     \
        const int64_t usable = able(w, n, shared);                                                                              \
        if (usable <= count) {                                                                                                  \
            for (int64_t i = threadIdx.x; i < n; i += THREADS) y[i] = usable < count ? (T)NAN : (T)(w[i] > 0);                  \
            return;                                                                                                             \
        }                                                                                                                       \
        double total = 0, t = (double)count;                                                                                    \
        for (int64_t i = threadIdx.x; i < n; i += THREADS) total += w[i];                                                       \
        total = block_fold(total, sums, Plus());                                                                                \
        for (int64_t i = threadIdx.x; i < n; i += THREADS) log_miss[i] = log1p(-(double)w[i] / total);                          \
        for (int round = 0; round < 100; round++) {                                                                             \
            double sum = 0, slope = 0;                                                                                          \
            for (int64_t i = threadIdx.x; i < n; i += THREADS) {                                                                \
                const double hit = -expm1(t * log_miss[i]);                                                                     \
                sum += hit, slope -= log_miss[i] * (1 - hit);                                                                   \
            }                                                                                                                   \
            sum = block_fold(sum, sums, Plus());                                                                                \
            slope = block_fold(slope, sums, Plus());                                                                            \
            const double step = ((double)count - sum) / slope;                                                                  \
            t += step;                                                                                                          \
            if (!(step > t * 1e-13)) break;                                                                                     \
        }                                                                                                                       \
        for (int64_t i = threadIdx.x; i < n; i += THREADS) y[i] = (T)-expm1(t * log_miss[i]);                                   \
    }
CG_FLOATS(INCLUSION)

/* ---- the order of rows: by query, then score, the best first; of equal scores the one of less gain first ------------------ */

/* Places [first, last) of the query of each place p in the order; discount[p] = 1 / log(2 + p); *bad = 1 where there is a NaN */
#define SPANS(T, type)                                                                                                          \
    CG_KERNEL(spans_##type, const T *__restrict__ score, const T *__restrict__ gain, const T *__restrict__ query,               \
              const int32_t *__restrict__ order, int32_t *first, int32_t *last, double *discount, int64_t *bad, int64_t n) {    \
        CG_EACH(p, n) {                                                                                                         \
            const T q = query[order[p]], sum = score[p] + gain[p] + query[p];                                                   \
            int64_t low = 0, high = p;                                                                                          \
            while (low < high) {                                                                                                \
                const int64_t middle = (low + high) / 2;                                                                        \
                if (query[order[middle]] < q) low = middle + 1;                                                                 \
                else high = middle;                                                                                             \
            }                                                                                                                   \
            first[p] = (int32_t)low, low = p + 1, high = n;                                                                     \
            while (low < high) {                                                                                                \
                const int64_t middle = (low + high) / 2;                                                                        \
                if (query[order[middle]] > q) high = middle;                                                                    \
                else low = middle + 1;                                                                                          \
            }                                                                                                                   \
            last[p] = (int32_t)low, discount[p] = 1 / log(2.0 + (double)p);                                                     \
            if (sum != sum) *bad = 1;                                                                                           \
        }                                                                                                                       \
    }
CG_FLOATS(SPANS)

/* best[first ...]: the gains of each query, the largest first; a warp a row */
#define BEST(T, type)                                                                                                           \
    CG_KERNEL(best_##type, const T *__restrict__ gain, const int32_t *__restrict__ order, const int32_t *__restrict__ first,    \
              const int32_t *__restrict__ last, double *__restrict__ best, int64_t n) {                                         \
        CG_ROWS(p, n, 5) {                                                                                                      \
            const T g = gain[order[p]];                                                                                         \
            int rank = 0;                                                                                                       \
            for (int q = first[p] + (threadIdx.x & 31); q < last[p]; q += 32)                                                   \
                rank += gain[order[q]] > g || (gain[order[q]] == g && q < p);                                                   \
            rank = warp_fold(rank, Plus());                                                                                     \
            if ((threadIdx.x & 31) == 0) best[first[p] + rank] = g;                                                             \
        }                                                                                                                       \
    }
CG_FLOATS(BEST)

/* Of each query, at its first place: ideal = the discounted sum of its gains, the largest first; loss = 1 - NDCG; a warp a query */
#define QUERIES(T, type)                                                                                                        \
    CG_KERNEL(queries_##type, const T *__restrict__ gain, const int32_t *__restrict__ order, const int32_t *__restrict__ first, \
              const int32_t *__restrict__ last, const double *__restrict__ discount, const double *__restrict__ best,           \
              double *__restrict__ ideal, double *__restrict__ loss, int64_t n) {                                               \
        CG_ROWS(p, n, 5) {                                                                                                      \
            if (first[p] != p) continue;                                                                                        \
            double most = 0, found = 0;                                                                                         \
            for (int q = (int)p + (threadIdx.x & 31); q < last[p]; q += 32)                                                     \
                most += best[q] * discount[q - p], found += gain[order[q]] * discount[q - p];                                   \
            most = warp_fold(most, Plus()), found = warp_fold(found, Plus());                                                   \
            if ((threadIdx.x & 31) == 0) ideal[p] = most, loss[p] = most > 0 ? 1 - found / most : 1;                            \
        }                                                                                                                       \
    }
CG_FLOATS(QUERIES)

/* slope[row] = the summed pull of the other rows of its query; a warp a row */
#define PULLS(T, type)                                                                                                          \
    CG_KERNEL(pulls_##type, const T *__restrict__ score, const T *__restrict__ gain, const int32_t *__restrict__ order,         \
              const int32_t *__restrict__ first, const int32_t *__restrict__ last, const double *__restrict__ discount,         \
              const double *__restrict__ ideal, const int64_t *bad, T *__restrict__ slope, int64_t n) {                         \
        CG_ROWS(p, n, 5) {                                                                                                      \
            const double g = gain[order[p]], s = score[order[p]], most = ideal[first[p]];                                       \
            double lambda = 0;                                                                                                  \
            if (most > 0 && !*bad)                                                                                              \
                for (int q = first[p] + (threadIdx.x & 31); q < last[p]; q += 32) {                                             \
                    const double more = g - gain[order[q]], apart = s - score[order[q]];                                        \
                    const double change = more * (discount[p - first[p]] - discount[q - first[p]]) / most;                      \
                    const double pull = fabs(change) / (1 + exp(more > 0 ? apart : -apart));                                    \
                    lambda += more > 0 ? -pull : pull;                                                                          \
                }                                                                                                               \
            lambda = warp_fold(lambda, Plus());                                                                                 \
            if ((threadIdx.x & 31) == 0) slope[order[p]] = *bad ? (T)NAN : (T)lambda;                                           \
        }                                                                                                                       \
    }
CG_FLOATS(PULLS)

/* Of each query, at its first place: the gain of the best score over the largest gain; a warp a query */
#define FIRSTS(T, type)                                                                                                         \
    CG_KERNEL(firsts_##type, const T *__restrict__ gain, const int32_t *__restrict__ order, const int32_t *__restrict__ first,  \
              const int32_t *__restrict__ last, double *__restrict__ value, int64_t n) {                                        \
        CG_ROWS(p, n, 5) {                                                                                                      \
            if (first[p] != p) continue;                                                                                        \
            double most = 0;                                                                                                    \
            for (int q = (int)p + (threadIdx.x & 31); q < last[p]; q += 32)                                                     \
                most = gain[order[q]] > most ? gain[order[q]] : most;                                                           \
            most = warp_fold(most, Larger());                                                                                   \
            if ((threadIdx.x & 31) == 0) value[p] = most > 0 ? gain[order[p]] / most : 0;                                       \
        }                                                                                                                       \
    }
CG_FLOATS(FIRSTS)

/* *y = 100 n mean of the queries' values, NaN where there was one; one block */
#define MEAN(T, type)                                                                                                           \
    CG_KERNEL(mean_##type, const int32_t *__restrict__ first, const double *__restrict__ value, const int64_t *bad, T *y,       \
              int64_t n) {                                                                                                      \
        __shared__ double sums[THREADS];                                                                                        \
        double sum = 0, queries = 0;                                                                                            \
        for (int64_t p = threadIdx.x; p < n; p += THREADS)                                                                      \
            if (first[p] == p) sum += value[p], queries += 1;                                                                   \
        sum = block_fold(sum, sums, Plus());                                                                                    \
        queries = block_fold(queries, sums, Plus());                                                                            \
        if (threadIdx.x == 0) *y = *bad ? (T)NAN : queries ? (T)(100 * sum / queries * (double)n) : T(0);                       \
    }
CG_FLOATS(MEAN)
