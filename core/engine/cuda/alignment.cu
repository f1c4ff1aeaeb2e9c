/* Kernels over all alignments of two sequences, a block a pair: connectionist temporal classification, edit distance. */
#include <math.h>

#include "blocks.cuh"

/* Where two sequences lie (row of step t: offset[t] + place), their number, bytes to their part of scratch, frames of a block. */
struct Pair {
    int64_t first_length, first_place, second_length, second_place, item, scratch, block;
};

/* The logarithm of probability 0: finite, so that sums and differences of it are numbers. */
constexpr double LOW = -1e300;
constexpr int64_t NEVER = INT64_MAX;

/* symbol[r] = the first largest class of row r, a warp a row; `two`: -1 where it is not 2 */
#define SYMBOLS(T, type)                                                                                                        \
    CG_KERNEL(symbols_##type, const T *__restrict__ x, int32_t *__restrict__ symbol, int64_t rows, int64_t classes,             \
              int64_t two) {                                                                                                    \
        CG_ROWS(r, rows, 5) {                                                                                                   \
            const int64_t at = largest(x + r * classes, classes);                                                               \
            if ((threadIdx.x & 31) == 0) symbol[r] = two && x[r * classes + at] != T(2) ? -1 : (int32_t)at;                     \
        }                                                                                                                       \
    }
CG_FLOATS(SYMBOLS)

/* y = softmax of each row of x, log_sum[r] = log sum e^x, a warp a row; NaN where that is no number */
#define SOFTMAX(T, type)                                                                                                        \
    CG_KERNEL(softmax_##type, const T *__restrict__ x, T *__restrict__ y, double *__restrict__ log_sum, int64_t rows,           \
              int64_t classes) {                                                                                                \
        const int lane = threadIdx.x & 31;                                                                                      \
        CG_ROWS(r, rows, 5) {                                                                                                   \
            const T *row = x + r * classes;                                                                                     \
            T top = row[0];                                                                                                     \
            for (int64_t i = lane; i < classes; i += 32) top = row[i] > top ? row[i] : top;                                     \
            top = __shfl_sync(0xffffffffu, warp_fold(top, [](T a, T b) { return b > a ? b : a; }), 0);                          \
            double sum = 0;                                                                                                     \
            for (int64_t i = lane; i < classes; i += 32) sum += exp((double)row[i] - (double)top);                              \
            sum = __shfl_sync(0xffffffffu, warp_fold(sum, [](double a, double b) { return a + b; }), 0);                        \
            for (int64_t i = lane; i < classes; i += 32) y[r * classes + i] = (T)(exp((double)row[i] - (double)top) / sum);     \
            if (lane == 0) log_sum[r] = (double)top + log(sum);                                                                 \
        }                                                                                                                       \
    }
CG_FLOATS(SOFTMAX)

/* log(e^a + e^b + e^c) */
__device__ inline double log_add(double a, double b, double c) {
    double top = a > b ? a : b;
    top = top > c ? top : c;
    top = top > LOW ? top : LOW;
    return top + log(exp(a - top) + exp(b - top) + exp(c - top));
}

template <class P> __device__ inline P *cut(char *&at, int64_t n) {
    P *p = (P *)at;
    at += (n * (int64_t)sizeof(P) + 63) / 64 * 64;
    return p;
}

/* f(place, value, t) for each t in [0, n) whose value = keep(t) is not negative, in order; gives how many. For a whole block. */
template <class K, class F> __device__ inline int64_t compact(int64_t n, int32_t *shared, K keep, F f) {
    int64_t count = 0;
    for (int64_t first = 0; first < n; first += blockDim.x) {
        const int64_t t = first + threadIdx.x;
        const int32_t value = t < n ? keep(t) : -1;
        int32_t total;
        const int32_t before = block_scan<int32_t>(value >= 0, shared, total);
        if (value >= 0) f(count + before, value, t);
        count += total;
    }
    __syncthreads();
    return count;
}

/* ---- connectionist temporal classification ------------------------------------------------------------------------------ */

struct Ctc {
    int64_t classes, blank, delay;
    const int64_t *label_offset, *frame_offset;
};

/* One labelling along one sequence of frames: states blank, label, blank, ..., label, blank. Rows of alpha are kept for the
 * frames of one block and for the last frame of each before it, from which the others are computed again on the way back. */
template <class T> struct Labelling {
    const Ctc &k;
    const Pair &pair;
    const T *x;
    const double *log_sum;
    int64_t frames, states = 1, stride, block;
    double *pool, *start, *later, *now, *posterior, *skip;
    int64_t *limit, *begin; /* last frame at which a state may be; frame at which its label began when it was written down */
    int32_t *symbol, *next; /* next: the next label n of the same class, -1: none; -3 - n for all but the first of a class */

    __device__ Labelling(const Ctc &k_, const Pair &p, const T *x_, const double *log_sum_, char *at)
        : k(k_), pair(p), x(x_), log_sum(log_sum_), frames(p.second_length), block(p.block) {
        const int64_t most = 2 * (p.first_length < frames ? p.first_length : frames) + 1, row = most + 4;
        pool = cut<double>(at, (block + quotient(frames + block - 1, block)) * row);
        start = cut<double>(at, row) + 2, later = cut<double>(at, row) + 2, now = cut<double>(at, row) + 2;
        posterior = cut<double>(at, row) + 2, skip = cut<double>(at, row) + 2;
        limit = cut<int64_t>(at, most), begin = cut<int64_t>(at, most);
        symbol = cut<int32_t>(at, most), next = cut<int32_t>(at, most);
    }

    __device__ int64_t row(int64_t t) const { return k.frame_offset[t] + pair.second_place; }
    __device__ int64_t lo(int64_t t) const {
        const int64_t s = states - 2 * (frames - t);
        return s > 0 ? s : 0;
    }
    __device__ int64_t hi(int64_t t) const { return states < 2 * t + 2 ? states : 2 * t + 2; }
    __device__ double *kept(int64_t b) const { return pool + (block + b) * stride + 2; }
    __device__ double *alpha(int64_t t) const { return pool + (t % block) * stride + 2; }

    /* False where there are more labels than frames. */
    __device__ bool read(const int32_t *labels, int32_t *shared) {
        const int64_t count = compact(
            pair.first_length, shared, [&](int64_t t) { return labels[k.label_offset[t] + pair.first_place]; },
            [&](int64_t i, int32_t c, int64_t t) {
                if (i < frames) symbol[2 * i + 1] = c, begin[2 * i + 1] = t;
            });
        if (count > frames) return false;
        states = 2 * count + 1, stride = states + 4;
        for (int64_t s = threadIdx.x; s < states; s += blockDim.x) {
            const int64_t after = s + (s % 2 ? 2 : 3); /* the label that bounds this state: it ends soon after that one began */
            limit[s] = k.delay >= 0 && after < states ? begin[after] + k.delay - (s % 2 ? 0 : 1) : NEVER;
            if (s % 2 == 0) symbol[s] = (int32_t)k.blank;
        }
        for (int64_t s = (int64_t)threadIdx.x - 2; s < states + 2; s += blockDim.x)
            start[s] = s == 0 ? 0.0 : LOW, later[s] = s == states - 1 ? 0.0 : LOW;
        __syncthreads();
        for (int64_t s = threadIdx.x; s < states + 2; s += blockDim.x) {
            const bool label = s % 2 && s < states;
            skip[s] = label && s > 1 && symbol[s] != symbol[s - 2] && symbol[s] != k.blank ? 0.0 : LOW;
            if (!label) continue;
            int64_t r = s + 2;
            while (r < states && symbol[r] != symbol[s]) r += 2;
            next[s] = r < states ? (int32_t)r : -1;
            for (r = s - 2; r > 0 && symbol[r] != symbol[s];) r -= 2;
            if (r > 0) next[s] = -3 - next[s];
        }
        __syncthreads();
        return true;
    }

    __device__ double emitted(const T *at, double sum, int64_t t, int64_t s) const {
        const double e = (double)at[symbol[s]] - sum;
        return t <= limit[s] && e > LOW ? e : LOW;
    }

    __device__ void forward(int64_t b) {
        const int64_t end = frames < (b + 1) * block ? frames : (b + 1) * block;
        for (int64_t t = b * block; t < end; t++) {
            const double *before = t == 0 ? start : t % block ? alpha(t - 1) : kept(b - 1);
            double *a = alpha(t);
            const int64_t from = lo(t), to = hi(t), r = row(t);
            for (int64_t s = from + threadIdx.x; s < to; s += blockDim.x) {
                const double e = emitted(x + r * k.classes, log_sum[r], t, s);
                a[s] = log_add(before[s], before[s - 1], before[s - 2] + skip[s]) + e;
            }
            if (threadIdx.x < 2) {
                a[to + threadIdx.x] = LOW;
                if (from == 0) a[-1 - (int)threadIdx.x] = LOW;
            }
            __syncthreads();
        }
    }

    /* log of the probability of the labelling; alpha of the last block is there. */
    __device__ double score() {
        if (frames == 0) return 0.0;
        const int64_t last = quotient(frames - 1, block);
        for (int64_t b = 0; b <= last; b++) {
            forward(b);
            if (b == last) break;
            const double *from = alpha((b + 1) * block - 1) - 2;
            double *to = kept(b) - 2;
            for (int64_t s = threadIdx.x; s < stride; s += blockDim.x) to[s] = from[s];
            __syncthreads();
        }
        const double *a = alpha(frames - 1);
        return log_add(a[states - 1], a[states - 2], LOW);
    }

    /* The summed posterior of a class from its first label on. */
    __device__ double of_class(int64_t s, int64_t from, int64_t to) const {
        double sum = 0;
        for (int64_t r = s; r >= 0;) {
            if (r >= from && r < to) sum += posterior[r];
            r = next[r] >= -1 ? next[r] : -3 - next[r];
        }
        return sum;
    }

    /* slope -= the posterior probability of each class at each frame. */
    __device__ void subtract_posterior(double total, T *slope) {
        const int64_t last = quotient(frames - 1, block);
        for (int64_t b = last; b >= 0; b--) {
            if (b < last) forward(b);
            const int64_t end = frames < (b + 1) * block ? frames : (b + 1) * block;
            for (int64_t t = end - 1; t >= b * block; t--) {
                const int64_t from = lo(t), to = hi(t), r = row(t);
                const double *a = alpha(t);
                T *d = slope + r * k.classes;
                for (int64_t s = from + threadIdx.x; s < to; s += blockDim.x) {
                    now[s] = log_add(later[s], later[s + 1], later[s + 2] + skip[s + 2]);
                    const double log_p = a[s] + now[s] - total;
                    posterior[s] = exp(log_p < 0 ? log_p : 0);
                    now[s] += emitted(x + r * k.classes, log_sum[r], t, s);
                }
                if (threadIdx.x < 2) now[from - 1 - (int)threadIdx.x] = now[to + threadIdx.x] = LOW;
                __syncthreads();
                for (int64_t s = 2 * (int64_t)threadIdx.x + 1; s < to; s += 2 * blockDim.x)
                    if (next[s] >= -1 && symbol[s] != k.blank) d[symbol[s]] -= (T)of_class(s, from, to);
                if (threadIdx.x < 32) {
                    double blanks = 0;
                    for (int64_t s = from + from % 2 + 2 * threadIdx.x; s < to; s += 64) blanks += posterior[s];
                    blanks = warp_fold(blanks, [](double a, double b) { return a + b; });
                    if (threadIdx.x == 0) {
                        for (int64_t s = 1; s < to; s += 2) /* labels of the blank's class */
                            if (next[s] >= -1 && symbol[s] == k.blank) blanks += of_class(s, from, to);
                        d[k.blank] -= (T)blanks;
                    }
                }
                __syncthreads();
                double *const kept_now = now;
                now = later, later = kept_now;
            }
        }
    }

    __device__ void fill(T *slope, T value) const {
        for (int64_t t = 0; t < frames; t++)
            for (int64_t c = threadIdx.x; c < k.classes; c += blockDim.x) slope[row(t) * k.classes + c] = value;
    }
};

template <class T>
__device__ inline void ctc(const int32_t *labels, const T *x, const double *log_sum, T *loss, T *slope, const Pair *pairs,
                           char *scratch, const Ctc &k, int32_t *shared) {
    const Pair pair = pairs[blockIdx.x];
    Labelling<T> l(k, pair, x, log_sum, scratch + pair.scratch);
    bool number = true;
    for (int64_t t = threadIdx.x; t < l.frames; t += blockDim.x) number = number && isfinite(log_sum[l.row(t)]);
    number = __syncthreads_and(number);
    double total = l.read(labels, shared) ? 0.0 : LOW;
    if (number && total == 0.0) total = l.score();
    T result = (T)-total;
    if (!number) {
        result = (T)NAN;
        l.fill(slope, (T)NAN);
    } else if (total < LOW / 2) {
        result = (T)INFINITY;
        l.fill(slope, T(0));
    } else if (l.frames) {
        l.subtract_posterior(total, slope);
    }
    if (threadIdx.x == 0) loss[pair.item] = result;
}

/* loss = -log of the summed probability of all alignments; slope: softmax of x, from which the posterior is taken */
#define CTC(T, type)                                                                                                            \
    CG_KERNEL(ctc_##type, const int32_t *labels, const T *x, const double *log_sum, T *loss, T *slope, const Pair *pairs,       \
              char *scratch, const int64_t *label_offset, const int64_t *frame_offset, int64_t classes, int64_t blank,          \
              int64_t delay) {                                                                                                  \
        __shared__ int32_t shared[256];                                                                                         \
        const Ctc k = {classes, blank, delay, label_offset, frame_offset};                                                      \
        ctc<T>(labels, x, log_sum, loss, slope, pairs, scratch, k, shared);                                                     \
    }
CG_FLOATS(CTC)

/* ---- edit distance ------------------------------------------------------------------------------------------------------- */

/* What is left of a sequence: repeats as one, without what is ignored. Gives its length. */
__device__ inline int64_t shorten(const int32_t *symbol, const int64_t *offset, int64_t place, int64_t length, bool squash,
                                  const uint8_t *ignored, int32_t *left, int32_t *shared) {
    return compact(
        length, shared,
        [&](int64_t t) {
            const int32_t c = symbol[offset[t] + place];
            return ignored[c] || (squash && t && c == symbol[offset[t - 1] + place]) ? -1 : c;
        },
        [&](int64_t i, int32_t c, int64_t) { left[i] = c; });
}

/* Edits of the cheapest way from the first to the second sequence, and the length of the second. Of equally cheap ways:
 * substitution, then insertion, then deletion. Cell (i, j), of i symbols of the first and j of the second, lies at j of diagonal
 * i + j; diagonals follow each other. */
#define EDITS(T, type)                                                                                                          \
    CG_KERNEL(edits_##type, const int32_t *first, const int32_t *second, T *edits, T *length, const Pair *pairs, char *scratch, \
              const int64_t *first_offset, const int64_t *second_offset, const uint8_t *ignored, double substitution,           \
              double deletion, double insertion, int64_t squash) {                                                              \
        __shared__ int32_t shared[256];                                                                                         \
        const Pair p = pairs[blockIdx.x];                                                                                       \
        char *at = scratch + p.scratch;                                                                                         \
        int32_t *u = cut<int32_t>(at, p.first_length), *v = cut<int32_t>(at, p.second_length);                                  \
        double *costs = cut<double>(at, 3 * (p.second_length + 1));                                                             \
        int32_t *counts = cut<int32_t>(at, 3 * (p.second_length + 1));                                                          \
        const int64_t m = shorten(first, first_offset, p.first_place, p.first_length, squash, ignored, u, shared);              \
        const int64_t n = shorten(second, second_offset, p.second_place, p.second_length, squash, ignored, v, shared);          \
        const int64_t row = p.second_length + 1;                                                                                \
        for (int64_t d = 0; d <= m + n; d++) {                                                                                  \
            double *cost = costs + d % 3 * row, *side = costs + (d + 2) % 3 * row, *corner = costs + (d + 1) % 3 * row;         \
            int32_t *count = counts + d % 3 * row, *side_count = counts + (d + 2) % 3 * row;                                    \
            const int32_t *corner_count = counts + (d + 1) % 3 * row;                                                           \
            for (int64_t j = (d > m ? d - m : 0) + threadIdx.x; j <= n && j <= d; j += blockDim.x) {                            \
                const int64_t i = d - j;                                                                                        \
                double best = i ? (double)i * deletion : (double)j * insertion;                                                 \
                int32_t so_far = (int32_t)d;                                                                                    \
                if (i && j) {                                                                                                   \
                    best = corner[j - 1], so_far = corner_count[j - 1];                                                         \
                    if (u[i - 1] != v[j - 1]) {                                                                                 \
                        const double inserted = side[j - 1] + insertion, deleted = side[j] + deletion;                          \
                        best += substitution;                                                                                   \
                        if (inserted < best) best = inserted, so_far = side_count[j - 1];                                       \
                        if (deleted < best) best = deleted, so_far = side_count[j];                                             \
                        so_far++;                                                                                               \
                    }                                                                                                           \
                }                                                                                                               \
                cost[j] = best, count[j] = so_far;                                                                              \
            }                                                                                                                   \
            __syncthreads();                                                                                                    \
        }                                                                                                                       \
        if (threadIdx.x == 0) edits[p.item] = (T)counts[(m + n) % 3 * row + n], length[p.item] = (T)n;                          \
    }
CG_FLOATS(EDITS)
