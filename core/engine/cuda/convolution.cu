/* Convolutions of images with up to three axes as matrix products whose operands are read where they lie, through index tables.
 *
 * A gather makes y[row, m, position] = sum over taps of w[m, tap] x[row, tap and position]: a convolution forward (m: output channel, tap:
 * input channel and place in the kernel), and backward to its input, where positions fall into classes of other taps, one for each
 * remainder by the strides. The sum over rows for the weights reads through the same tables. */
#include "tiles.cuh"

/* Where an element lies in a sample, and its coordinates, which add up: taps and positions have one each. */
struct alignas(16) Place {
    int32_t offset, at[3];
};

/* Positions and taps that belong together: [from, from + count) of either. */
struct alignas(16) Class {
    int32_t tap, taps, position, positions;
};

struct Tables {
    const Place *taps;
    const int32_t *weights; /* where the tap's weight lies */
    const Place *positions;
    const int32_t *results; /* where the position's result lies in its plane */
    const Class *classes;
};

/* Sizes and strides (in elements) of a gather. m: results of a group; most: positions of the largest class. */
struct Gather {
    int64_t rows, groups, m, classes, most;
    int64_t dims[3];
    int64_t x_row, x_group, w_group, w_m, y_row, y_group, y_m;
    int64_t parts, slices, part; /* parts of the sum, slices of each, elements from one's results to the next one's */
    int64_t relu;
    int64_t rounding; /* of x and w as they are loaded */
};

/* Whether a place with a shift lies in the image. */
__device__ inline bool inside(const int (&dims)[3], const Place &p, const Place &q) {
    return (unsigned)(p.at[0] + q.at[0]) < (unsigned)dims[0] && (unsigned)(p.at[1] + q.at[1]) < (unsigned)dims[1] &&
           (unsigned)(p.at[2] + q.at[2]) < (unsigned)dims[2];
}

/* Weights of a tile: (m, tap), neighbours along the taps. */
template <class G> struct Weights {
    using T = typename G::T;
    const T *w;
    const int32_t *weights;
    int64_t pass;
    int i, left, there, l; /* of the tile: this thread's first row; rows and taps that there are from it on */

    __device__ inline Weights(const T *first, const int32_t *table, int64_t w_m, int64_t rows, int64_t taps) {
        l = threadIdx.x % G::BK, i = threadIdx.x / G::BK;
        w = first + i * w_m, weights = table + l, pass = G::THREADS / G::BK * w_m;
        left = (int)min(rows, (int64_t)G::BM) - i, there = (int)taps - l;
    }
    __device__ inline int place(int q) const { return l * G::LA + i + q * (G::THREADS / G::BK); }
    __device__ inline void fetch(T (&r)[G::NA]) {
        const T *from = there > 0 ? w + *weights : w;
#pragma unroll
        for (int q = 0; q < G::NA; q++) r[q] = there > 0 && q * (G::THREADS / G::BK) < left ? from[q * pass] : T(0);
        there -= G::BK, weights += G::BK;
    }
};

/* Values of a tile: (tap, row and position), neighbours along the positions; a thread stays with one. */
template <class G> struct Values {
    using T = typename G::T;
    static constexpr int STEP = G::THREADS / G::BN;
    const T *x;
    const Place *taps;
    Place mine;
    int dims[3];
    int there, at;

    __device__ inline Values(const T *group, const Gather &g, const Class &c, const Tables &t, int64_t first, int64_t slice) {
        const int j = threadIdx.x % G::BN, l = threadIdx.x / G::BN;
        const int64_t column = first + j, row = column / c.positions;
        const bool valid = row < g.rows;
        mine = t.positions[c.position + (valid ? column - row * c.positions : 0)];
        x = group + row * g.x_row + mine.offset;
        taps = t.taps + c.tap + slice * G::BK + l;
        there = valid ? c.taps - (int)slice * G::BK - l : 0;
        dims[0] = (int)g.dims[0], dims[1] = (int)g.dims[1], dims[2] = (int)g.dims[2];
        at = l * G::LB + j;
    }
    __device__ inline int place(int q) const { return at + q * STEP * G::LB; }
    __device__ inline void fetch(T (&r)[G::NB]) {
#pragma unroll
        for (int q = 0; q < G::NB; q++) {
            r[q] = T(0);
            if (q * STEP >= there) continue;
            const Place tap = taps[q * STEP];
            if (inside(dims, mine, tap)) r[q] = x[tap.offset];
        }
        there -= G::BK, taps += G::BK;
    }
};

/* A result of a gather after its sum, or a part of it. */
template <class T>
__device__ inline void finish(const Gather &g, int64_t group, int64_t i, int64_t at, T sum, T *y, const T *bias) {
    y[at + group * g.y_group + i * g.y_m] = finished(sum, bias ? bias + group * g.m + i : nullptr, (const T *)nullptr, g.relu);
}

/* A block makes one tile, (m, row and position), of one part of one class of one group. */
template <class G, class T>
__device__ inline void gather(typename G::Shared &shared, const T *x, const T *w, T *y, const T *bias, const Tables &t, const Gather &g) {
    const int64_t down = (g.m + G::BM - 1) / G::BM, across = (g.rows * g.most + G::BN - 1) / G::BN;
    int64_t which = blockIdx.x;
    const int64_t i0 = which % down * G::BM, j0 = which / down % across * G::BN;
    which /= down * across;
    const Class c = t.classes[which % g.classes];
    which /= g.classes;
    const int64_t group = which % g.groups, part = which / g.groups, first = part * g.slices;
    if (j0 >= g.rows * c.positions) return;
    const int64_t slices = min(g.slices, ((int64_t)c.taps + G::BK - 1) / G::BK - first);
    T acc[G::TM][G::TN] = {};
    if (slices > 0) {
        Weights<G> a(w + group * g.w_group + i0 * g.w_m, t.weights + c.tap + first * G::BK, g.w_m, g.m - i0, c.taps - first * G::BK);
        Values<G> b(x + group * g.x_group, g, c, t, j0, first);
        /* the largest tile has no registers to spare: it is not for operands that are rounded */
        G::multiply(acc, shared, a, b, slices, G::BM * G::BN < 128 * 128 ? (int)g.rounding : 0);
    }
#pragma unroll
    for (int q = 0; q < G::TN; q++) {
        const int64_t j = j0 + G::column(q), row = j / c.positions;
        if (row >= g.rows) continue;
        const int64_t at = part * g.part + row * g.y_row + t.results[c.position + j - row * c.positions];
#pragma unroll
        for (int r = 0; r < G::TM; r++)
            if (i0 + G::row(r) < g.m) finish(g, group, i0 + G::row(r), at, acc[r][q], y, bias);
    }
}

#define TABLES const Place *taps, const int32_t *weights, const Place *positions, const int32_t *results, const Class *classes

#define GATHER(T, type, BM, BN, BK, TM, TN, BLOCKS)                                                                             \
    CG_TILED(gather_##BM##x##BN##_##type, BM / TM *(BN / TN), BLOCKS, const T *__restrict__ x, const T *__restrict__ w, T *y,   \
             const T *bias, TABLES, Gather g) {                                                                                 \
        using G = Tile<T, BM, BN, BK, TM, TN>;                                                                                  \
        __shared__ typename G::Shared shared;                                                                                   \
        gather<G>(shared, x, w, y, bias, Tables{taps, weights, positions, results, classes}, g);                                         \
    }
GATHER(float, f4, 128, 128, 8, 8, 8, 2)
GATHER(float, f4, 64, 64, 16, 4, 4, 2)
GATHER(float, f4, 32, 128, 8, 4, 4, 2)
GATHER(float, f4, 8, 128, 16, 8, 1, 4)
GATHER(double, f8, 64, 64, 8, 4, 4, 2)
GATHER(double, f8, 32, 64, 16, 4, 2, 2)
GATHER(double, f8, 8, 128, 16, 8, 1, 3)

/* A thread makes one result: where a group has few. */
#define GATHER_DIRECT(T, type)                                                                                                  \
    CG_KERNEL(gather_direct_##type, const T *__restrict__ x, const T *__restrict__ w, T *y, const T *bias, TABLES, Gather g) {  \
        const int dims[3] = {(int)g.dims[0], (int)g.dims[1], (int)g.dims[2]};                                                   \
        const int64_t planes = g.classes * g.m * g.groups;                                                                      \
        CG_EACH(e, g.rows * planes * g.most) {                                                                                  \
            const int64_t position = e % g.most, plane = e / g.most % planes, row = e / g.most / planes;                        \
            const int64_t i = plane % g.m, group = plane / g.m % g.groups;                                                      \
            const Class c = classes[plane / g.m / g.groups];                                                                    \
            if (position >= c.positions) continue;                                                                              \
            const Place mine = positions[c.position + position];                                                                \
            const T *from = x + row * g.x_row + group * g.x_group + mine.offset, *by = w + group * g.w_group + i * g.w_m;       \
            T sum = 0;                                                                                                          \
            for (int k = c.tap; k < c.tap + c.taps; k++) {                                                                      \
                const Place tap = taps[k];                                                                                      \
                if (!inside(dims, mine, tap)) continue;                                                                         \
                sum += rounded(by[weights[k]], (int)g.rounding) * rounded(from[tap.offset], (int)g.rounding);                   \
            }                                                                                                                   \
            finish(g, group, i, row * g.y_row + results[c.position + position], sum, y, bias);                                  \
        }                                                                                                                       \
    }
CG_FLOATS(GATHER_DIRECT)

/* dw[group, m, tap] = sum over rows and positions of dy[row, m, position] x[row, tap and position]. Strides in elements. */
struct Scatter {
    int64_t rows, groups, m, taps, positions;
    int64_t dims[3];
    int64_t x_row, x_group, y_row, y_group; /* a plane of dy has `positions` */
    int64_t parts, slices;                  /* parts of the sum, slices of each; each part has all results */
    int64_t rounding;                       /* of x and dy as they are loaded */
};

/* This thread's place in a sum over rows and positions. */
struct Cursor {
    int64_t row;
    int position, positions;
    __device__ inline Cursor(int64_t n, int64_t positions_) {
        row = n / positions_, position = (int)(n - row * positions_), positions = (int)positions_;
    }
    __device__ inline void advance(int n) {
        position += n;
        if (position >= positions) {
            const int q = (int)((unsigned)position / (unsigned)positions);
            row += q, position -= q * positions;
        }
    }
};

/* dy of a tile: (m, row and position), neighbours along the positions. */
template <class G> struct Given {
    using T = typename G::T;
    const T *y;
    Cursor at;
    int64_t rows, y_row;
    int i, left, l;

    __device__ inline Given(const T *first, const Scatter &s, int64_t results, int64_t slice)
        : y(first), at(slice * G::BK + threadIdx.x % G::BK, s.positions), rows(s.rows), y_row(s.y_row) {
        l = threadIdx.x % G::BK, i = threadIdx.x / G::BK;
        y += (int64_t)i * s.positions, left = (int)min(results, (int64_t)G::BM) - i;
    }
    __device__ inline int place(int q) const { return l * G::LA + i + q * (G::THREADS / G::BK); }
    __device__ inline void fetch(T (&r)[G::NA]) {
        const T *from = y + at.row * y_row + at.position;
#pragma unroll
        for (int q = 0; q < G::NA; q++) {
            const int pass = q * (G::THREADS / G::BK);
            r[q] = at.row < rows && pass < left ? from[(int64_t)pass * at.positions] : T(0);
        }
        at.advance(G::BK);
    }
};

/* x of a tile: (row and position, tap), neighbours along the positions. */
template <class G> struct Seen {
    using T = typename G::T;
    const T *x;
    const Place *taps, *positions;
    Cursor at;
    int64_t rows, x_row;
    int dims[3];
    int j, left, l;

    __device__ inline Seen(const T *group, const Scatter &s, const Place *t, const Place *p, int64_t first, int64_t slice)
        : x(group), taps(t + first), positions(p), at(slice * G::BK + threadIdx.x % G::BK, s.positions), rows(s.rows),
          x_row(s.x_row), dims{(int)s.dims[0], (int)s.dims[1], (int)s.dims[2]} {
        l = threadIdx.x % G::BK, j = threadIdx.x / G::BK;
        taps += j, left = (int)min(s.taps - first, (int64_t)G::BN) - j;
    }
    __device__ inline int place(int q) const { return l * G::LB + j + q * (G::THREADS / G::BK); }
    __device__ inline void fetch(T (&r)[G::NB]) {
        const bool there = at.row < rows;
        const Place mine = positions[there ? at.position : 0];
        const T *from = x + at.row * x_row + mine.offset;
#pragma unroll
        for (int q = 0; q < G::NB; q++) {
            const int pass = q * (G::THREADS / G::BK);
            r[q] = T(0);
            if (!there || pass >= left) continue;
            const Place tap = taps[pass];
            if (inside(dims, mine, tap)) r[q] = from[tap.offset];
        }
        at.advance(G::BK);
    }
};

/* A block makes one tile, (m, tap), of one part of one group. */
template <class G, class T>
__device__ inline void scatter(typename G::Shared &shared, const T *x, const T *dy, T *dw, const Place *taps,
                               const Place *positions, const Scatter &s) {
    const int64_t down = (s.m + G::BM - 1) / G::BM, across = (s.taps + G::BN - 1) / G::BN;
    int64_t which = blockIdx.x;
    const int64_t i0 = which % down * G::BM, j0 = which / down % across * G::BN;
    which /= down * across;
    const int64_t group = which % s.groups, part = which / s.groups, first = part * s.slices;
    const int64_t slices = min(s.slices, (s.rows * s.positions + G::BK - 1) / G::BK - first);
    T acc[G::TM][G::TN] = {};
    if (slices > 0) {
        Given<G> a(dy + group * s.y_group + i0 * s.positions, s, s.m - i0, first);
        Seen<G> b(x + group * s.x_group, s, taps, positions, j0, first);
        G::multiply(acc, shared, a, b, slices, (int)s.rounding);
    }
    T *to = dw + (part * s.groups + group) * s.m * s.taps;
#pragma unroll
    for (int r = 0; r < G::TM; r++)
#pragma unroll
        for (int q = 0; q < G::TN; q++) {
            const int64_t i = i0 + G::row(r), j = j0 + G::column(q);
            if (i < s.m && j < s.taps) to[i * s.taps + j] = acc[r][q];
        }
}

#define SCATTER(T, type, BM, BN, BK, TM, TN, BLOCKS)                                                                            \
    CG_TILED(scatter_##BM##x##BN##_##type, BM / TM *(BN / TN), BLOCKS, const T *__restrict__ x, const T *__restrict__ dy,       \
             T *dw, const Place *taps, const Place *positions, Scatter s) {                                                     \
        using G = Tile<T, BM, BN, BK, TM, TN>;                                                                                  \
        __shared__ typename G::Shared shared;                                                                                   \
        scatter<G>(shared, x, dy, dw, taps, positions, s);                                                                      \
    }
SCATTER(float, f4, 128, 128, 8, 8, 8, 2)
SCATTER(float, f4, 64, 64, 16, 4, 4, 2)
SCATTER(float, f4, 32, 128, 8, 4, 4, 2)
SCATTER(float, f4, 8, 128, 16, 8, 1, 4)
SCATTER(double, f8, 64, 64, 8, 4, 4, 2)
SCATTER(double, f8, 32, 64, 16, 4, 2, 2)
SCATTER(double, f8, 8, 128, 16, 8, 1, 3)

/* A block makes one weight's sum: where a group has few results. Thread t sums every 256th term from t on; a tree adds these. */
#define SCATTER_DIRECT(T, type)                                                                                                 \
    CG_KERNEL(scatter_direct_##type, const T *__restrict__ x, const T *__restrict__ dy, T *dw, const Place *taps,               \
              const Place *positions, Scatter s) {                                                                              \
        __shared__ T shared[256];                                                                                               \
        const int dims[3] = {(int)s.dims[0], (int)s.dims[1], (int)s.dims[2]};                                                   \
        const int64_t e = blockIdx.x, k = e % s.taps, i = e / s.taps % s.m, group = e / s.taps / s.m;                           \
        const Place tap = taps[k];                                                                                              \
        T sum = 0;                                                                                                              \
        Cursor at(threadIdx.x, s.positions);                                                                                    \
        for (; at.row < s.rows; at.advance(256)) {                                                                              \
            const Place mine = positions[at.position];                                                                          \
            if (!inside(dims, mine, tap)) continue;                                                                             \
            const T given = dy[at.row * s.y_row + group * s.y_group + i * s.positions + at.position];                           \
            const T seen = x[at.row * s.x_row + group * s.x_group + mine.offset + tap.offset];                                  \
            sum += rounded(given, (int)s.rounding) * rounded(seen, (int)s.rounding);                                            \
        }                                                                                                                       \
        sum = block_fold(sum, shared, [](T a, T b) { return a + b; });                                                          \
        if (threadIdx.x == 0) dw[e] = sum;                                                                                      \
    }
CG_FLOATS(SCATTER_DIRECT)
