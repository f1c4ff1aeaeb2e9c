/* Sparse values: products of CSR rows, gradients that list their rows, what makes them dense, updates of listed rows.
 *
 * A list of rows is made of entries (row, source, factor): sorted by row, stably (indexing.cu), so that the entries of one row are added in
 * the order in which they came, and never by atomics of floats. How many entries there are only the device knows; memory and grids are for
 * the most that there may be, and keys from there on are `width`, which is no row.
 */
#include <math.h>

#include "blocks.cuh"

/* As core/csr.py and core/engine/sparse.py say: heads of 64 bytes; where rows begin and end follows that of CSR rows. */
struct Csr {
    int64_t rows;
    const int32_t *column;
    const void *value;
    int64_t unused[5];
};
struct RowList {
    int64_t count;
    const int64_t *row;
    const void *value;
    int64_t unused[5];
};
__device__ inline const int64_t *begin_of(const Csr *a) { return (const int64_t *)(a + 1); }
__device__ inline const int64_t *end_of(const Csr *a) { return begin_of(a) + a->rows; }

constexpr int THREADS = 256;    /* of a block here, where nothing else is said */
constexpr int WARPS = THREADS / 32;
constexpr int TILE = 2048;      /* keys of a block that counts rows of a list */
constexpr int ROWS_TILE = 1024; /* CSR rows of a block that lays out entries */
constexpr int64_t LONG = 32;    /* entries of a row from which a block adds them up */

/* The row that a float names, `rows` where it names none (NaN, negative, too large). */
template <class T> __device__ inline int64_t row_of(T index, int64_t rows) {
    return index >= 0 && index < T(rows) ? int64_t(index) : rows;
}

/* products -------------------------------------------------------------------------------------------------------------------- */

/* y[r] = sum over the entries (c, v) of row r of v b[c], or of v b[:, c] where b lies turned; a line of threads a row */
#define CSR_TIMES(T, t)                                                                                                         \
    CG_KERNEL(csr_times_##t, const Csr *a, const T *__restrict__ b, T *__restrict__ y, int64_t width, int64_t n, int64_t turned) { \
        const int64_t *begin = begin_of(a), *end = end_of(a);                                                                   \
        const int32_t *column = a->column;                                                                                      \
        const T *value = (const T *)a->value;                                                                                   \
        const int64_t down = turned ? 1 : n, along = turned ? width : 1;                                                        \
        for (int64_t r = blockIdx.x * (int64_t)blockDim.y + threadIdx.y; r < a->rows; r += gridDim.x * (int64_t)blockDim.y)     \
            for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {                                                             \
                T sum = 0;                                                                                                      \
                for (int64_t e = begin[r]; e < end[r]; e++) sum += value[e] * b[column[e] * down + j * along];                  \
                y[r * n + j] = sum;                                                                                             \
            }                                                                                                                   \
    }
CG_FLOATS(CSR_TIMES)

/* The same for few columns: a warp a row, its lanes share the entries. */
#define CSR_TIMES_NARROW(T, t)                                                                                                  \
    CG_KERNEL(csr_times_narrow_##t, const Csr *a, const T *__restrict__ b, T *__restrict__ y, int64_t width, int64_t n,         \
              int64_t turned) {                                                                                                 \
        const int64_t *begin = begin_of(a), *end = end_of(a);                                                                   \
        const int32_t *column = a->column;                                                                                      \
        const T *value = (const T *)a->value;                                                                                   \
        const int64_t down = turned ? 1 : n, along = turned ? width : 1;                                                        \
        const int lane = threadIdx.x % 32;                                                                                      \
        for (int64_t r = thread_number() / 32; r < a->rows; r += thread_count() / 32)                                           \
            for (int64_t j = 0; j < n; j++) {                                                                                   \
                T sum = 0;                                                                                                      \
                for (int64_t e = begin[r] + lane; e < end[r]; e += 32) sum += value[e] * b[column[e] * down + j * along];       \
                for (int d = 16; d; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);                                        \
                if (lane == 0) y[r * n + j] = sum;                                                                              \
            }                                                                                                                   \
    }
CG_FLOATS(CSR_TIMES_NARROW)

/* entries --------------------------------------------------------------------------------------------------------------------- */

/* sums[block] = entries of a tile of CSR rows */
CG_KERNEL(csr_count, const Csr *a, int64_t *sums) {
    __shared__ int64_t shared[THREADS];
    const int64_t *begin = begin_of(a), *end = end_of(a);
    int64_t sum = 0, total;
    for (int k = threadIdx.x; k < ROWS_TILE; k += THREADS) {
        const int64_t r = blockIdx.x * (int64_t)ROWS_TILE + k;
        if (r < a->rows) sum += end[r] - begin[r];
    }
    block_scan(sum, shared, total);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

/* sums[i] = sum of sums[0 .. i), the whole after them, at most `most`; one block */
CG_KERNEL(scan_sums, int64_t *sums, int64_t n, int64_t *whole, int64_t most) {
    __shared__ int64_t shared[THREADS];
    int64_t done = 0, total;
    for (int64_t first = 0; first < n; first += THREADS) {
        const int64_t i = first + threadIdx.x;
        const int64_t before = block_scan(i < n ? sums[i] : 0, shared, total);
        if (i < n) sums[i] = done + before;
        done += total;
    }
    if (threadIdx.x == 0) *whole = done < most ? done : most;
}

/* entry (column, row, value) by entry, row after row; sums: entries before each tile of rows */
#define CSR_ENTRIES(T, t)                                                                                                       \
    CG_KERNEL(csr_entries_##t, const Csr *a, const int64_t *sums, int64_t most, uint32_t *__restrict__ key,                     \
              uint32_t *__restrict__ source, T *__restrict__ factor) {                                                          \
        __shared__ int64_t shared[THREADS], at[THREADS];                                                                          \
        const int64_t *begin = begin_of(a), *end = end_of(a);                                                                   \
        const T *value = (const T *)a->value;                                                                                   \
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;                                                             \
        int64_t done = sums[blockIdx.x], total;                                                                                 \
        for (int part = 0; part < ROWS_TILE; part += THREADS) {                                                                 \
            const int64_t first = blockIdx.x * (int64_t)ROWS_TILE + part, r = first + threadIdx.x;                              \
            at[threadIdx.x] = done + block_scan(r < a->rows ? end[r] - begin[r] : 0, shared, total);                            \
            done += total;                                                                                                      \
            __syncthreads();                                                                                                    \
            for (int k = warp; k < THREADS && first + k < a->rows; k += WARPS) {                                                \
                const int64_t row = first + k, to = at[k] - begin[row];                                                         \
                for (int64_t e = begin[row] + lane; e < end[row]; e += 32)                                                      \
                    if (to + e < most) {                                                                                        \
                        key[to + e] = (uint32_t)a->column[e];                                                                   \
                        source[to + e] = (uint32_t)row;                                                                         \
                        factor[to + e] = value[e];                                                                              \
                    }                                                                                                           \
            }                                                                                                                   \
            __syncthreads();                                                                                                    \
        }                                                                                                                       \
    }
CG_FLOATS(CSR_ENTRIES)

/* key[i] = width, a row that no list has, for i from `whole` on; place[i] = i */
CG_KERNEL(pad_entries, uint32_t *key, int32_t *place, const int64_t *whole, int64_t most, int64_t width) {
    CG_EACH(i, most) {
        place[i] = (int32_t)i;
        if (i >= *whole) key[i] = (uint32_t)width;
    }
}

/* entry i < n is of the row that index[i] names; of none: of row `width`; place[i] = i */
#define INDEX_ENTRIES(T, t)                                                                                                     \
    CG_KERNEL(index_entries_##t, const T *index, int64_t n, int64_t most, int64_t width, uint32_t *key, int32_t *place,         \
              uint64_t *wrong) {                                                                                                \
        CG_EACH(i, most) {                                                                                                      \
            const int64_t row = i < n ? row_of(index[i], width) : width;                                                        \
            if (i < n && row == width) note(wrong, i, index[i]);                                                                \
            key[i] = (uint32_t)row, place[i] = (int32_t)i;                                                                      \
        }                                                                                                                       \
    }
CG_FLOATS(INDEX_ENTRIES)

/* the rows of a list, then those of another; place[i] = i */
CG_KERNEL(list_entries, const RowList *a, const RowList *b, int64_t most, int64_t width, uint32_t *key, int32_t *place) {
    const int64_t first = a->count, n = first + b->count;
    CG_EACH(i, most) key[i] = (uint32_t)(i >= n ? width : i < first ? a->row[i] : b->row[i - first]), place[i] = (int32_t)i;
}

/* lists ----------------------------------------------------------------------------------------------------------------------- */

__device__ inline bool is_first(const uint32_t *key, int64_t i) { return i == 0 || key[i] != key[i - 1]; }

/* sums[block] = different keys that begin in a tile */
CG_KERNEL(list_count, const uint32_t *__restrict__ key, int64_t n, int64_t *sums) {
    __shared__ int64_t shared[THREADS];
    const int64_t first = blockIdx.x * (int64_t)TILE;
    int64_t have = 0, total;
    for (int k = threadIdx.x; k < TILE; k += THREADS) have += first + k < n && is_first(key, first + k);
    block_scan(have, shared, total);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

/* The head of a list, its rows, and where the entries of each begin, with one more for the end; n sorted keys, those of `width` are left out. */
CG_KERNEL(list_rows, const uint32_t *__restrict__ key, int64_t n, const int64_t *sums, int64_t width, RowList *list, int64_t *row,
          const void *value, int64_t *start) {
    __shared__ int64_t shared[THREADS];
    const int64_t tile = blockIdx.x * (int64_t)TILE;
    if (tile == 0 && threadIdx.x == 0) list->row = row, list->value = value;
    int64_t done = sums[blockIdx.x], total;
    for (int part = 0; part < TILE; part += THREADS) {
        const int64_t i = tile + part + threadIdx.x;
        const bool head = i < n && is_first(key, i);
        const int64_t before = done + block_scan((int64_t)head, shared, total);
        done += total;
        if (head) {
            start[before] = i;
            if (key[i] < width) row[before] = key[i];
        }
        if (i == n - 1) {
            const int64_t last = before + head; /* lists with the last key's */
            const bool valid = key[i] < width;
            list->count = valid ? last : last - 1;
            if (valid) start[last] = n;
        }
    }
}

/* What entry `e` multiplies, and by what. */
template <class T> struct Entries { /* source, factor: of CSR entries; null where entry e is row e of `x`, or beyond `split` of `more` */
    const uint32_t *source;
    const T *factor, *x, *more;
    int64_t split;
    __device__ const T *row(uint32_t e, int64_t n) const {
        if (source) return x + source[e] * n;
        return e < split ? x + e * n : more + (e - split) * n;
    }
    __device__ T by(uint32_t e) const { return factor ? factor[e] : T(1); }
};

/* y[u] = sum over the entries of row u of the list; a line of threads a row */
template <class T>
__device__ inline void add_entries(const RowList *list, const int64_t *start, const int32_t *order, const Entries<T> &x, T *y, int64_t n) {
    for (int64_t u = blockIdx.x * (int64_t)blockDim.y + threadIdx.y; u < list->count; u += gridDim.x * (int64_t)blockDim.y) {
        const int64_t begin = start[u], end = start[u + 1];
        if (end - begin > LONG) continue;
        for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
            T sum = 0;
            for (int64_t i = begin; i < end; i++) {
                const uint32_t e = (uint32_t)order[i];
                sum += x.by(e) * x.row(e, n)[j];
            }
            y[u * n + j] = sum;
        }
    }
}

/* The same of rows of many entries: a block a row, its lines share them and are added in a fixed tree. */
template <class T>
__device__ inline void add_many(const RowList *list, const int64_t *start, const int32_t *order, const Entries<T> &x, T *y, int64_t n,
                                T *shared) {
    const int columns = blockDim.x, lines = blockDim.y, t = threadIdx.y * columns + threadIdx.x;
    for (int64_t u = blockIdx.x; u < list->count; u += gridDim.x) {
        const int64_t begin = start[u], end = start[u + 1];
        if (end - begin <= LONG) continue;
        for (int64_t first = 0; first < n; first += columns) {
            const int64_t j = first + threadIdx.x;
            T sum = 0;
            if (j < n)
                for (int64_t i = begin + threadIdx.y; i < end; i += lines) {
                    const uint32_t e = (uint32_t)order[i];
                    sum += x.by(e) * x.row(e, n)[j];
                }
            shared[t] = sum;
            __syncthreads();
            for (int half = lines / 2; half; half /= 2) {
                if ((int)threadIdx.y < half) shared[t] += shared[t + half * columns];
                __syncthreads();
            }
            if (threadIdx.y == 0 && j < n) y[u * n + j] = shared[t];
            __syncthreads();
        }
    }
}

#define ADD_ENTRIES(T, t)                                                                                                       \
    CG_KERNEL(list_add_##t, const RowList *list, const int64_t *start, const int32_t *order, const uint32_t *source,           \
              const T *factor, const T *x, T *y, int64_t n) {                                                                   \
        add_entries(list, start, order, Entries<T>{source, factor, x, nullptr, INT64_MAX}, y, n);                               \
    }                                                                                                                           \
    CG_KERNEL(list_add_many_##t, const RowList *list, const int64_t *start, const int32_t *order, const uint32_t *source,      \
              const T *factor, const T *x, T *y, int64_t n) {                                                                   \
        __shared__ T shared[THREADS];                                                                                           \
        add_many(list, start, order, Entries<T>{source, factor, x, nullptr, INT64_MAX}, y, n, shared);                          \
    }                                                                                                                           \
    CG_KERNEL(list_add_lists_##t, const RowList *list, const int64_t *start, const int32_t *order, const RowList *a,           \
              const RowList *b, T *y, int64_t n) {                                                                              \
        add_entries(list, start, order, Entries<T>{nullptr, nullptr, (const T *)a->value, (const T *)b->value, a->count}, y, n); \
    }
CG_FLOATS(ADD_ENTRIES)

/* what is dense --------------------------------------------------------------------------------------------------------------- */

/* y[row[u]] = value[u]; y is 0 before */
#define LIST_DENSE(T, t)                                                                                                        \
    CG_KERNEL(list_dense_##t, const RowList *list, T *y, int64_t n) {                                                           \
        const T *value = (const T *)list->value;                                                                                \
        CG_EACH(i, list->count * n) {                                                                                           \
            const int64_t u = i / n;                                                                                            \
            y[list->row[u] * n + (i - u * n)] = value[i];                                                                       \
        }                                                                                                                       \
    }
CG_FLOATS(LIST_DENSE)

/* y[r, c] += v for the entries (c, v) of row r, in their order where they have one column; a warp a row; y is 0 before */
#define CSR_DENSE(T, t)                                                                                                         \
    CG_KERNEL(csr_dense_##t, const Csr *a, T *y, int64_t width) {                                                               \
        const int64_t *begin = begin_of(a), *end = end_of(a);                                                                   \
        const T *value = (const T *)a->value;                                                                                   \
        const int lane = threadIdx.x % 32;                                                                                      \
        for (int64_t r = thread_number() / 32; r < a->rows; r += thread_count() / 32)                                           \
            for (int64_t first = begin[r]; first < end[r]; first += 32) {                                                       \
                const int64_t e = first + lane;                                                                                 \
                const bool there = e < end[r];                                                                                  \
                const int32_t c = there ? a->column[e] : -1 - lane;                                                             \
                const unsigned equal = __match_any_sync(0xffffffffu, c);                                                        \
                if (__all_sync(0xffffffffu, __popc(equal) == 1)) {                                                              \
                    if (there) y[r * width + c] += value[e];                                                                    \
                    __syncwarp();                                                                                               \
                } else                                                                                                          \
                    for (int k = 0; k < 32; k++) {                                                                              \
                        if (lane == k && there) y[r * width + c] += value[e];                                                   \
                        __syncwarp();                                                                                           \
                    }                                                                                                           \
            }                                                                                                                   \
    }
CG_FLOATS(CSR_DENSE)

/* row r is row index[r] of a, empty where that is -1; the entries are shared */
CG_KERNEL(csr_move, const Csr *a, Csr *y, int64_t rows, const int64_t *index) {
    const int64_t *begin = begin_of(a), *end = end_of(a);
    int64_t *first = (int64_t *)(y + 1), *last = first + rows;
    if (thread_number() == 0) y->rows = rows, y->column = a->column, y->value = a->value;
    CG_EACH(r, rows) {
        const int64_t from = index[r];
        first[r] = from < 0 ? 0 : begin[from];
        last[r] = from < 0 ? 0 : end[from];
    }
}

/* row i has a 1 at x[i], nothing where that is no class; the entries follow the bounds of rows */
#define CSR_ONE_HOT(T, t)                                                                                                       \
    CG_KERNEL(csr_one_hot_##t, const T *x, Csr *y, int64_t n, int64_t classes) {                                                \
        int64_t *begin = (int64_t *)(y + 1), *end = begin + n;                                                                  \
        T *value = (T *)(end + n);                                                                                              \
        int32_t *column = (int32_t *)((double *)(end + n) + n);                                                                 \
        if (thread_number() == 0) y->rows = n, y->column = column, y->value = value;                                            \
        CG_EACH(i, n) {                                                                                                         \
            const int64_t at = row_of(x[i], classes);                                                                           \
            begin[i] = i, end[i] = i + (at < classes);                                                                          \
            column[i] = at < classes ? (int32_t)at : 0, value[i] = 1;                                                           \
        }                                                                                                                       \
    }
CG_FLOATS(CSR_ONE_HOT)

/* updates of listed rows ------------------------------------------------------------------------------------------------------ */

/* The sum of the parts that blocks have left, in a fixed tree; one block. */
__device__ inline double sum_of(const double *parts, int64_t count, double *shared) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += THREADS) sum += parts[i];
    return block_fold(sum, shared, [](double a, double b) { return a + b; });
}

/* scale g, kept within limit */
template <class T> __device__ inline T clipped(T g, T scale, T limit) {
    const T x = g * scale;
    return x > limit ? limit : x < -limit ? -limit : x;
}

/* parts[block] = sum of squares of the listed values, shared out in turn */
#define LIST_SQUARES(T, t)                                                                                                      \
    CG_KERNEL(list_squares_##t, const RowList *g, int64_t n, double *parts) {                                                   \
        __shared__ double shared[THREADS];                                                                                      \
        const T *value = (const T *)g->value;                                                                                   \
        double sum = 0;                                                                                                         \
        CG_EACH(i, g->count * n) sum += (double)value[i] * value[i];                                                            \
        sum = block_fold(sum, shared, [](double a, double b) { return a + b; });                                                \
        if (threadIdx.x == 0) parts[blockIdx.x] = sum;                                                                          \
    }                                                                                                                           \
    /* bounds = {scale, infinity}, the scale such that the norm of the whole gradient keeps within limit */                     \
    CG_KERNEL(norm_bounds_##t, const double *parts, int64_t count, const T *scale, const T *limit, T *bounds) {                 \
        __shared__ double shared[THREADS];                                                                                      \
        const double size = sqrt(sum_of(parts, count, shared)) * *scale;                                                        \
        if (threadIdx.x) return;                                                                                                \
        bounds[0] = size > *limit ? (T)(*scale * (*limit / size)) : *scale;                                                     \
        bounds[1] = (T)INFINITY;                                                                                                \
    }
CG_FLOATS(LIST_SQUARES)

/* w -= eta g */
#define UPDATE_SGD(T, t)                                                                                                        \
    CG_KERNEL(update_sgd_##t, T *w, const RowList *g, const T *eta, const T *scale, const T *limit, int64_t n) {                \
        const T *value = (const T *)g->value;                                                                                   \
        const T rate = *eta, by = *scale, most = *limit;                                                                        \
        CG_EACH(i, g->count * n) {                                                                                              \
            const int64_t u = i / n;                                                                                            \
            w[g->row[u] * n + (i - u * n)] -= rate * clipped(value[i], by, most);                                               \
        }                                                                                                                       \
    }
CG_FLOATS(UPDATE_SGD)

/* s += g g;  w -= eta / sqrt(s + 1e-16) g; either alone where the other is null */
#define UPDATE_ADAGRAD(T, t)                                                                                                    \
    CG_KERNEL(update_adagrad_##t, T *w, const RowList *g, T *s, T *grown, const T *eta, const T *scale, const T *limit,         \
              int64_t n) {                                                                                                      \
        const T *value = (const T *)g->value;                                                                                   \
        const T by = *scale, most = *limit;                                                                                     \
        CG_EACH(i, g->count * n) {                                                                                              \
            const int64_t u = i / n, at = g->row[u] * n + (i - u * n);                                                          \
            const T x = clipped(value[i], by, most);                                                                            \
            if (grown) grown[at] += x * x;                                                                                      \
            if (w) w[at] -= *eta * (1 / sqrt(s[at] + T(1e-16)) * x);                                                            \
        }                                                                                                                       \
    }                                                                                                                           \
    /* parts[block] = sum of 1 / sqrt(s + 1e-16) */                                                                              \
    CG_KERNEL(multipliers_##t, const T *s, int64_t n, double *parts) {                                                          \
        __shared__ double shared[THREADS];                                                                                      \
        double sum = 0;                                                                                                         \
        CG_EACH(i, n) sum += (double)(1 / sqrt(s[i] + T(1e-16)));                                                               \
        sum = block_fold(sum, shared, [](double a, double b) { return a + b; });                                                \
        if (threadIdx.x == 0) parts[blockIdx.x] = sum;                                                                          \
    }                                                                                                                           \
    /* rate = eta over the mean of all multipliers */                                                                           \
    CG_KERNEL(mean_rate_##t, const double *parts, int64_t count, const T *eta, int64_t n, T *rate) {                            \
        __shared__ double shared[THREADS];                                                                                      \
        const double sum = sum_of(parts, count, shared);                                                                        \
        if (threadIdx.x == 0) *rate = (T)(*eta / (sum / (double)n));                                                            \
    }
CG_FLOATS(UPDATE_ADAGRAD)

/* where[row[u]] = u; it is -1 elsewhere before */
CG_KERNEL(list_where, const RowList *list, int32_t *where) { CG_EACH(u, list->count) where[list->row[u]] = (int32_t)u; }

enum Rule { MOMENTUM, NESTEROV, ADAM, ADAMAX, FSADAGRAD, ADADELTA };

/* The letters of learners/rules.py; those that a rule has not are null. */
template <class T> struct Numbers {
    const T *m, *u, *v, *rate, *v1, *root, *scale, *limit;
    double epsilon, decay;
};

/* Rules whose state moves rows that are not listed too: all rows are updated, their gradient being 0 where where[row] is -1. */
template <class T, int RULE>
__device__ inline void update_all(T *w, const RowList *list, T *s, T *r, const int32_t *where, const Numbers<T> &k, int64_t width, int64_t n) {
    const T *value = (const T *)list->value;
    const T scale = *k.scale, limit = *k.limit, epsilon = (T)k.epsilon, rate = RULE > NESTEROV ? *k.rate : T(0);
    const T m = RULE != ADADELTA ? *k.m : T(0), push = RULE != ADADELTA ? *k.u : T(0);
    const T v = RULE == ADADELTA ? (T)k.decay : RULE > NESTEROV ? *k.v : T(0);
    const T v1 = RULE == ADADELTA ? (T)(1 - k.decay) : RULE == ADAM || RULE == FSADAGRAD ? *k.v1 : T(0);
    const T root = RULE == FSADAGRAD ? *k.root : T(0);
    CG_EACH(i, width * n) {
        const int64_t row = i / n, u = where[row];
        const T g = u < 0 ? T(0) : clipped(value[u * n + (i - row * n)], scale, limit);
        if (RULE == MOMENTUM) {
            s[i] = m * s[i] + push * g;
            w[i] -= s[i];
        } else if (RULE == NESTEROV) {
            s[i] = m * s[i] + push * g;
            w[i] -= m * s[i] + push * g;
        } else if (RULE == FSADAGRAD) {
            r[i] = v * r[i] + v1 * (g * g);
            const T most = root / sqrt(r[i] > T(1e-37) ? r[i] : T(1e-37));
            s[i] = m * s[i] + push * (g * (most < T(10) ? most : T(10)));
            w[i] -= rate * s[i];
        } else if (RULE == ADADELTA) {
            s[i] = v * s[i] + v1 * (g * g);
            const T d = sqrt((r[i] + epsilon) / (s[i] + epsilon)) * g;
            w[i] -= rate * d;
            r[i] = v * r[i] + v1 * (d * d);
        } else {
            const T size = g < 0 ? -g : g;
            r[i] = RULE == ADAM ? v * r[i] + v1 * (g * g) : v * r[i] < size || size != size ? size : v * r[i];
            s[i] = m * s[i] + push * g;
            if (u >= 0 || s[i] != 0) w[i] -= rate * s[i] / ((RULE == ADAM ? sqrt(r[i]) : r[i]) + epsilon);
        }
    }
}

#define UPDATE_RULE(T, t, name, RULE)                                                                                           \
    CG_KERNEL(update_##name##_##t, T *w, const RowList *g, T *s, T *r, const int32_t *where, const T *m, const T *u,            \
              const T *v, const T *rate, const T *v1, const T *root, const T *scale, const T *limit, double epsilon,            \
              double decay, int64_t width, int64_t n) {                                                                         \
        update_all<T, RULE>(w, g, s, r, where, Numbers<T>{m, u, v, rate, v1, root, scale, limit, epsilon, decay}, width, n);    \
    }
#define UPDATE_RULES(T, t)                                                                                                      \
    UPDATE_RULE(T, t, momentum, MOMENTUM)                                                                                       \
    UPDATE_RULE(T, t, nesterov, NESTEROV)                                                                                       \
    UPDATE_RULE(T, t, adam, ADAM)                                                                                               \
    UPDATE_RULE(T, t, adamax, ADAMAX)                                                                                           \
    UPDATE_RULE(T, t, fsadagrad, FSADAGRAD)                                                                                     \
    UPDATE_RULE(T, t, adadelta, ADADELTA)
CG_FLOATS(UPDATE_RULES)
