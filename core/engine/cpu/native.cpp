#include <algorithm>
#include <memory>

#include "geometry.h"
#include "native.h"

namespace cg {
namespace {

// ---------------------------------------------------------------- the inner tile of a matrix product

/* c[i, j] (+)= sum_k a[k, i] b[k, j] for one tile of MR x NV vectors of VB bytes; a and b are packed in strips, k outermost. */
template <class T, int MR, int NV, int VB>
static CG_INLINE void tile(int64_t K, const T *a, const T *b, T *c, int64_t ldc, bool add) {
    typedef T V __attribute__((vector_size(VB)));
    constexpr int W = VB / sizeof(T);
    V acc[MR][NV];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
        for (int j = 0; j < NV; j++) acc[i][j] = V{};
    for (int64_t k = 0; k < K; k++, a += MR, b += NV * W) {
        V bv[NV];
#pragma GCC unroll 4
        for (int j = 0; j < NV; j++) __builtin_memcpy(&bv[j], b + j * W, VB);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
            for (int j = 0; j < NV; j++) acc[i][j] += a[i] * bv[j];
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
        for (int j = 0; j < NV; j++) {
            T *at = c + i * ldc + j * W;
            V v = acc[i][j];
            if (add) {
                V old;
                __builtin_memcpy(&old, at, VB);
                v += old;
            }
            __builtin_memcpy(at, &v, VB);
        }
}

template <class T> struct Micro {
    int mr, nr;
    void (*run)(int64_t K, const T *a, const T *b, T *c, int64_t ldc, bool add);
};

/* Of two vectors, and of one for products that are no wider. */
#define TILE(name, T, MR, NV, VB)                                                                                                \
    void name(int64_t K, const T *a, const T *b, T *c, int64_t ldc, bool add) { tile<T, MR, NV, VB>(K, a, b, c, ldc, add); }
#if CG_TARGETS
__attribute__((target("arch=x86-64-v4"))) TILE(tile4_v4, float, 12, 2, 64)
__attribute__((target("arch=x86-64-v4"))) TILE(tile8_v4, double, 12, 2, 64)
__attribute__((target("arch=x86-64-v4"))) TILE(thin4_v4, float, 12, 1, 64)
__attribute__((target("arch=x86-64-v4"))) TILE(thin8_v4, double, 12, 1, 64)
__attribute__((target("arch=x86-64-v3"))) TILE(tile4_v3, float, 6, 2, 32)
__attribute__((target("arch=x86-64-v3"))) TILE(tile8_v3, double, 6, 2, 32)
__attribute__((target("arch=x86-64-v3"))) TILE(thin4_v3, float, 12, 1, 32)
__attribute__((target("arch=x86-64-v3"))) TILE(thin8_v3, double, 12, 1, 32)
#endif
#if defined(__aarch64__)
TILE(tile4_base, float, 8, 2, 16)
TILE(tile8_base, double, 8, 2, 16)
constexpr int BASE_MR = 8;
#else
TILE(tile4_base, float, 4, 2, 16)
TILE(tile8_base, double, 4, 2, 16)
constexpr int BASE_MR = 4;
#endif
#undef TILE

Micro<float> pick(float, int64_t n) {
#if CG_TARGETS
    if (level() >= 4) return n <= 16 ? Micro<float>{12, 16, thin4_v4} : Micro<float>{12, 32, tile4_v4};
    if (level() >= 3) return n <= 8 ? Micro<float>{12, 8, thin4_v3} : Micro<float>{6, 16, tile4_v3};
#endif
    return {BASE_MR, 8, tile4_base};
}
Micro<double> pick(double, int64_t n) {
#if CG_TARGETS
    if (level() >= 4) return n <= 8 ? Micro<double>{12, 8, thin8_v4} : Micro<double>{12, 16, tile8_v4};
    if (level() >= 3) return n <= 4 ? Micro<double>{12, 4, thin8_v3} : Micro<double>{6, 8, tile8_v3};
#endif
    return {BASE_MR, 4, tile8_base};
}

constexpr int MAX_TILE = 12 * 32;
constexpr int64_t KC = 256; /* depth of a packed panel: a strip of b stays in the first-level cache */

// ---------------------------------------------------------------- packing

/* Source rows run along the strip: dst[s, k, i] = src[k * ld + s * W + i], zeros beyond n. */
template <class T, int W> static CG_INLINE void pack_along(T *dst, const T *src, int64_t ld, int64_t n, int64_t kc) {
    for (int64_t s = 0; s < n; s += W, dst += kc * W) {
        const int64_t w = std::min<int64_t>(W, n - s);
        if (w == W)
            for (int64_t k = 0; k < kc; k++) __builtin_memcpy(dst + k * W, src + k * ld + s, W * sizeof(T));
        else
            for (int64_t k = 0; k < kc; k++)
                for (int64_t i = 0; i < W; i++) dst[k * W + i] = i < w ? src[k * ld + s + i] : T(0);
    }
}

/* Source rows run along k: dst[s, k, i] = src[(s * W + i) * ld + k], zeros beyond n. */
template <class T, int W> static CG_INLINE void pack_across(T *dst, const T *src, int64_t ld, int64_t n, int64_t kc) {
    for (int64_t s = 0; s < n; s += W, dst += kc * W) {
        const int64_t w = std::min<int64_t>(W, n - s);
        int64_t i = 0;
        for (; i + 4 <= w; i += 4) {
            const T *r0 = src + (s + i) * ld, *r1 = r0 + ld, *r2 = r1 + ld, *r3 = r2 + ld;
            T *d = dst + i;
            for (int64_t k = 0; k < kc; k++, d += W) d[0] = r0[k], d[1] = r1[k], d[2] = r2[k], d[3] = r3[k];
        }
        for (; i < W; i++)
            for (int64_t k = 0; k < kc; k++) dst[k * W + i] = i < w ? src[(s + i) * ld + k] : T(0);
    }
}

#define PACK(name, T)                                                                                                            \
    CG_CLONES void name##_along(T *dst, const T *src, int64_t ld, int64_t n, int64_t kc, int w) {                                \
        if (w == 32) pack_along<T, 32>(dst, src, ld, n, kc);                                                                     \
        else if (w == 16) pack_along<T, 16>(dst, src, ld, n, kc);                                                                \
        else if (w == 12) pack_along<T, 12>(dst, src, ld, n, kc);                                                                \
        else if (w == 8) pack_along<T, 8>(dst, src, ld, n, kc);                                                                  \
        else if (w == 6) pack_along<T, 6>(dst, src, ld, n, kc);                                                                  \
        else pack_along<T, 4>(dst, src, ld, n, kc);                                                                              \
    }                                                                                                                            \
    CG_CLONES void name##_across(T *dst, const T *src, int64_t ld, int64_t n, int64_t kc, int w) {                               \
        if (w == 32) pack_across<T, 32>(dst, src, ld, n, kc);                                                                    \
        else if (w == 16) pack_across<T, 16>(dst, src, ld, n, kc);                                                               \
        else if (w == 12) pack_across<T, 12>(dst, src, ld, n, kc);                                                               \
        else if (w == 8) pack_across<T, 8>(dst, src, ld, n, kc);                                                                 \
        else if (w == 6) pack_across<T, 6>(dst, src, ld, n, kc);                                                                 \
        else pack_across<T, 4>(dst, src, ld, n, kc);                                                                             \
    }                                                                                                                            \
    inline void along(T *dst, const T *src, int64_t ld, int64_t n, int64_t kc, int w) { name##_along(dst, src, ld, n, kc, w); }  \
    inline void across(T *dst, const T *src, int64_t ld, int64_t n, int64_t kc, int w) { name##_across(dst, src, ld, n, kc, w); }
PACK(pack4, float)
PACK(pack8, double)
#undef PACK

#define ADD(name, T)                                                                                                             \
    CG_CLONES void name(T *CG_RESTRICT y, const T *CG_RESTRICT x, int64_t n) {                                                   \
        for (int64_t i = 0; i < n; i++) y[i] += x[i];                                                                            \
    }                                                                                                                            \
    inline void add(T *y, const T *x, int64_t n) { name(y, x, n); }
ADD(add4, float)
ADD(add8, double)
#undef ADD

#define CUT(name, T)                                                                                                             \
    CG_CLONES void name(T *y, int64_t n) {                                                                                       \
        for (int64_t i = 0; i < n; i++) y[i] = y[i] < 0 ? T(0) : y[i];                                                           \
    }                                                                                                                            \
    inline void cut(T *y, int64_t n) { name(y, n); }
CUT(cut4, float)
CUT(cut8, double)
#undef CUT

// ---------------------------------------------------------------- one block of a product

/* How a product of M x N is cut. Every element of c sees the same operations in the same order whatever the cut is, except for
 * `splits`, which follows from the sizes alone; so the number of threads never changes a bit. */
template <class T> struct Grid {
    Micro<T> micro = pick(T(), 1 << 20);
    int64_t M = 0, N = 0, chunks = 0; /* chunks: pieces of the inner dimension, of at most KC */
    int64_t mb = 0, nb = 0, m_blocks = 1, n_blocks = 1, splits = 1;
    int64_t slots = 1;
    int64_t a_size = 0, b_size = 0, block_size = 0; /* elements a slot: packed a, packed b, a block of c where asked for */

    void plan(int64_t m, int64_t n, int64_t chunks_, int64_t batch, bool with_block, bool may_split) {
        M = m, N = n, chunks = chunks_;
        if (!with_block) micro = pick(T(), n); /* a convolution packs b for the wider one */
        const int64_t threads = omp_get_max_threads(), mr = micro.mr, nr = micro.nr;
        int64_t mc = round_up(144, mr), nc = round_up(sizeof(T) == 4 ? 512 : 384, nr);
        const auto cut = [&] {
            m_blocks = std::max<int64_t>(1, ceil_div(M, mc)), n_blocks = std::max<int64_t>(1, ceil_div(N, nc));
            mb = std::min(mc, std::max(mr, round_up(ceil_div(M, m_blocks), mr)));
            nb = std::min(nc, std::max(nr, round_up(ceil_div(N, n_blocks), nr)));
            m_blocks = std::max<int64_t>(1, ceil_div(M, mb)), n_blocks = std::max<int64_t>(1, ceil_div(N, nb));
        };
        cut();
        if (may_split) {
            const int64_t tiles = ceil_div(M, 4 * mr) * ceil_div(N, 4 * nr);
            splits = std::max<int64_t>(1, std::min<int64_t>({chunks / 2, 16 / std::max<int64_t>(1, tiles), 16}));
        }
        while (threads > 1 && batch * m_blocks * n_blocks * splits < 2 * threads && (mc > 2 * mr || nc > 2 * nr)) {
            if (nc > 2 * nr && nc * 2 > mc) nc = round_up(nc / 2, nr);
            else if (mc > 2 * mr) mc = round_up(mc / 2, mr);
            else nc = round_up(nc / 2, nr);
            cut();
        }
        a_size = mb * KC, b_size = nb * KC, block_size = with_block ? round_up(mb * nb, 16) : 0;
    }
    void set_slots(int64_t tasks) { slots = std::max<int64_t>(1, std::min<int64_t>(omp_get_max_threads(), tasks)); }
    int64_t slot_size() const { return round_up(a_size + b_size + block_size, 64); }
    int64_t split_begin(int64_t s) const { return chunks * s / splits; }
};

/* c[0:m, 0:n] (+)= the chunks [begin, end); pack_a(dst, chunk) and pack_b(dst, chunk) return or fill the panel, depth(chunk) its
 * depth. */
template <class T, class A, class B, class D>
void multiply(const Grid<T> &grid, int64_t m, int64_t n, int64_t begin, int64_t end, A &&pack_a, B &&pack_b, D &&depth, T *c,
              int64_t ldc, bool accumulate, T *scratch) {
    const int64_t mr = grid.micro.mr, nr = grid.micro.nr;
    T *pa = scratch, *pb = scratch + grid.a_size;
    alignas(64) T edge[MAX_TILE];
    if (begin >= end && !accumulate)
        for (int64_t i = 0; i < m; i++) std::fill(c + i * ldc, c + i * ldc + n, T(0));
    for (int64_t chunk = begin; chunk < end; chunk++) {
        const int64_t kc = depth(chunk);
        const bool onto = accumulate || chunk > begin;
        pack_a(pa, chunk);
        pack_b(pb, chunk);
        for (int64_t j = 0; j < n; j += nr)
            for (int64_t i = 0; i < m; i += mr) {
                const T *a = pa + i * kc, *b = pb + j * kc;
                if (i + mr <= m && j + nr <= n) {
                    grid.micro.run(kc, a, b, c + i * ldc + j, ldc, onto);
                    continue;
                }
                grid.micro.run(kc, a, b, edge, nr, false);
                const int64_t mm = std::min(mr, m - i), nn = std::min(nr, n - j);
                for (int64_t r = 0; r < mm; r++) {
                    T *y = c + (i + r) * ldc + j;
                    for (int64_t q = 0; q < nn; q++) y[q] = onto ? y[q] + edge[r * nr + q] : edge[r * nr + q];
                }
            }
    }
}

/* f(task, slot) for every task; a slot is used by one thread at a time. */
template <class F> void parallel_slots(int64_t n, double work, int64_t slots, F &&f) {
    const int threads = int(std::min<int64_t>(slots, omp_get_max_threads()));
    if (n <= 1 || threads <= 1 || work < 4 * SMALL) {
        for (int64_t i = 0; i < n; i++) f(i, int64_t(0));
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        const int64_t slot = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < n; i++) f(i, slot);
    }
}

/* c (+)= sum of the parts, in order. */
template <class T> void add_parts(const T *parts, int64_t count, int64_t size, T *c, bool accumulate) {
    const int64_t chunk = 4096;
    parallel_range(ceil_div(size, chunk), size * count, [&](int64_t b, int64_t e) {
        const int64_t first = b * chunk, n = std::min(e * chunk, size) - first;
        int64_t s = 0;
        if (!accumulate) memcpy(c + first, parts + first, n * sizeof(T)), s = 1;
        for (; s < count; s++) add(c + first, parts + s * size + first, n);
    });
}

// ---------------------------------------------------------------- matrix products

template <class T> struct MatMulKernel : Kernel {
    MatMulArgs args;
    Grid<T> grid;
    int64_t k_chunks = 1, parts_size = 0;

    static void call(const cg_call *c, const cg_context *) {
        const auto *self = static_cast<const MatMulKernel *>(c->state);
        const int out = 2 + self->args.bias;
        T *to = (T *)c->buf[out];
        self->compute((const T *)c->buf[0], (const T *)c->buf[1], to, self->scratch ? (T *)c->buf[out + 1] : nullptr);
        if (self->args.bias || self->args.relu) self->finish(self->args.bias ? (const T *)c->buf[2] : nullptr, to);
    }

    /* c = relu(c + bias); NaN stays. */
    void finish(const T *bias, T *c) const {
        const int64_t rows = (args.sum_batch ? 1 : args.batch) * args.m;
        parallel_range(rows, rows * args.n, [&](int64_t begin, int64_t end) {
            for (int64_t r = begin; r < end; r++) {
                T *y = c + r / args.m * args.c_batch * !args.sum_batch + r % args.m * args.ldc;
                if (bias) add(y, bias, args.n);
                if (args.relu) cut(y, args.n);
            }
        });
    }

    void compute(const T *a, const T *b, T *c, T *scratch) const {
        const int64_t per = grid.m_blocks * grid.n_blocks, outer = args.sum_batch ? grid.splits : args.batch;
        const double work = double(args.batch) * double(args.m) * double(args.n) * double(std::max<int64_t>(args.k, 1));
        if (args.m == 0 || args.n == 0) return;
        T *parts = scratch + grid.slots * grid.slot_size();
        parallel_slots(outer * per, work, grid.slots, [&](int64_t task, int64_t slot) {
            const int64_t o = task / per, m0 = task % per / grid.n_blocks * grid.mb, n0 = task % grid.n_blocks * grid.nb;
            const int64_t m = std::min(grid.mb, args.m - m0), n = std::min(grid.nb, args.n - n0);
            const int64_t begin = args.sum_batch ? grid.split_begin(o) : 0,
                          end = args.sum_batch ? grid.split_begin(o + 1) : k_chunks;
            const auto depth = [&](int64_t chunk) { return std::min(KC, args.k - chunk % k_chunks * KC); };
            const auto batch = [&](int64_t chunk) { return args.sum_batch ? chunk / k_chunks : o; };
            const auto pack_a = [&](T *dst, int64_t chunk) {
                const T *x = a + batch(chunk) * args.a_batch;
                const int64_t k0 = chunk % k_chunks * KC;
                if (args.transpose_a) along(dst, x + k0 * args.lda + m0, args.lda, m, depth(chunk), grid.micro.mr);
                else across(dst, x + m0 * args.lda + k0, args.lda, m, depth(chunk), grid.micro.mr);
            };
            const auto pack_b = [&](T *dst, int64_t chunk) {
                const T *x = b + batch(chunk) * args.b_batch;
                const int64_t k0 = chunk % k_chunks * KC;
                if (args.transpose_b) across(dst, x + n0 * args.ldb + k0, args.ldb, n, depth(chunk), grid.micro.nr);
                else along(dst, x + k0 * args.ldb + n0, args.ldb, n, depth(chunk), grid.micro.nr);
            };
            T *slot_scratch = scratch + slot * grid.slot_size();
            if (args.sum_batch && grid.splits > 1)
                multiply(grid, m, n, begin, end, pack_a, pack_b, depth, parts + o * args.m * args.n + m0 * args.n + n0, args.n,
                         false, slot_scratch);
            else
                multiply(grid, m, n, begin, end, pack_a, pack_b, depth,
                         c + (args.sum_batch ? 0 : o * args.c_batch) + m0 * args.ldc + n0, args.ldc, args.accumulate,
                         slot_scratch);
        });
        if (args.sum_batch && grid.splits > 1) {
            if (args.ldc == args.n) return add_parts(parts, grid.splits, args.m * args.n, c, args.accumulate);
            for (int64_t i = 0; i < args.m; i++) {
                T *y = c + i * args.ldc;
                for (int64_t s = 0; s < grid.splits; s++) {
                    const T *x = parts + s * args.m * args.n + i * args.n;
                    if (s == 0 && !args.accumulate) std::copy(x, x + args.n, y);
                    else add(y, x, args.n);
                }
            }
        }
    }
};

template <class T> Kernel *matmul(MatMulArgs args) {
    auto k = std::make_unique<MatMulKernel<T>>();
    if (args.batch == 1) args.sum_batch = true; /* so that a long inner dimension can be shared out */
    k->args = args;
    k->k_chunks = ceil_div(args.k, KC);
    k->grid.plan(args.m, args.n, k->k_chunks * (args.sum_batch ? args.batch : 1), args.sum_batch ? 1 : args.batch, false,
                 args.sum_batch);
    k->grid.set_slots((args.sum_batch ? k->grid.splits : args.batch) * k->grid.m_blocks * k->grid.n_blocks);
    k->run = MatMulKernel<T>::call;
    const int64_t parts = k->grid.splits > 1 ? k->grid.splits * args.m * args.n : 0;
    k->scratch = (k->grid.slots * k->grid.slot_size() + parts) * (int64_t)sizeof(T);
    k->nbuf = 3 + args.bias + (k->scratch > 0);
    return k.release();
}

// ---------------------------------------------------------------- convolutions

/* Calls segment(j, n, x_offset, lo, hi) for runs of output columns [j, j + n) in [begin, end) of the row (c, window position):
 * columns lo <= q < hi of the run read x[x_offset + (q - lo) * stride], the others padding. */
template <class F>
static inline void walk(const Geometry &g, int64_t group, int64_t row, int64_t begin, int64_t end, F &&segment) {
    const int64_t kw = row % g.window[2], kh = row / g.window[2] % g.window[1],
                  kd = row / (g.window[2] * g.window[1]) % g.window[0];
    const int64_t c = group * g.Cg + row / g.V;
    if (g.pointwise) {
        for (int64_t j = begin; j < end;) {
            const int64_t image = j / g.P, p = j % g.P, n = std::min(end - j, g.P - p);
            segment(j - begin, n, (image * g.C + c) * g.X + p, int64_t(0), n);
            j += n;
        }
        return;
    }
    const int64_t W = g.out[2];
    int64_t lo, hi;
    g.valid(2, kw, &lo, &hi);
    int64_t r = begin / W, q = begin % W, h = r % g.out[1], d = r / g.out[1] % g.out[0], image = r / (g.out[1] * g.out[0]);
    for (int64_t j = begin; j < end;) {
        const int64_t n = std::min(end - j, W - q);
        const int64_t y = h * g.stride[1] + kh * g.dilation[1] - g.pad[1], z = d * g.stride[0] + kd * g.dilation[0] - g.pad[0];
        if (y < 0 || y >= g.in[1] || z < 0 || z >= g.in[0]) {
            segment(j - begin, n, int64_t(0), n, n);
        } else {
            const int64_t first = std::min(n, std::max<int64_t>(0, lo - q)), last = std::max(first, std::min(n, hi - q));
            const int64_t x = (q + first) * g.stride[2] + kw * g.dilation[2] - g.pad[2];
            segment(j - begin, n, (((image * g.C + c) * g.in[0] + z) * g.in[1] + y) * g.in[2] + x, first, last);
        }
        j += n;
        q = 0;
        if (++h == g.out[1]) {
            h = 0;
            if (++d == g.out[0]) d = 0, image++;
        }
    }
}

/* One row of the matrix of windows: columns [begin, end) of all images. */
template <class T>
void window_row(const Geometry &g, const T *x, int64_t group, int64_t row, int64_t begin, int64_t end, T *dst) {
    const int64_t s = g.stride[2];
    walk(g, group, row, begin, end, [&](int64_t j, int64_t n, int64_t offset, int64_t lo, int64_t hi) {
        T *y = dst + j;
        const T *from = x + offset;
        for (int64_t q = 0; q < lo; q++) y[q] = 0;
        if (s == 1) memcpy(y + lo, from, (hi - lo) * sizeof(T));
        else
            for (int64_t q = lo; q < hi; q++) y[q] = from[(q - lo) * s];
        for (int64_t q = hi; q < n; q++) y[q] = 0;
    });
}

/* Its transpose: adds a row of gradients back into the images. */
template <class T>
void add_window_row(const Geometry &g, T *dx, int64_t group, int64_t row, int64_t begin, int64_t end, const T *src) {
    const int64_t s = g.stride[2];
    walk(g, group, row, begin, end, [&](int64_t j, int64_t, int64_t offset, int64_t lo, int64_t hi) {
        const T *y = src + j;
        T *to = dx + offset;
        if (s == 1) {
            for (int64_t q = lo; q < hi; q++) to[q - lo] += y[q];
        } else {
            for (int64_t q = lo; q < hi; q++) to[(q - lo) * s] += y[q];
        }
    });
}

/* Columns [begin, end) of all images of one channel of an output-shaped tensor: copy(j, n, offset) for contiguous runs. */
template <class F> static inline void columns(const Geometry &g, int64_t channel, int64_t begin, int64_t end, F &&copy) {
    for (int64_t j = begin; j < end;) {
        const int64_t image = j / g.P, p = j % g.P, n = std::min(end - j, g.P - p);
        copy(j - begin, n, (image * g.O + channel) * g.P + p);
        j += n;
    }
}

template <class T> struct ConvKernel : Kernel {
    Geometry g;
    Grid<T> grid;
    bool bias = false, relu = false;
    /* backward_data: images and channels of one task, its blocks of rows */
    int64_t images = 1, channels = 1, image_groups = 1, channel_groups = 1;

    static void forward(const cg_call *c, const cg_context *) {
        const auto *self = static_cast<const ConvKernel *>(c->state);
        void **buf = c->buf;
        const T *b = self->bias ? (const T *)buf[2] : nullptr;
        self->run_forward((const T *)buf[0], (const T *)buf[1], b, (T *)buf[2 + self->bias], (T *)buf[3 + self->bias]);
    }
    static void backward_data(const cg_call *c, const cg_context *) {
        const auto *self = static_cast<const ConvKernel *>(c->state);
        self->run_backward_data((const T *)c->buf[0], (const T *)c->buf[1], (T *)c->buf[2], (T *)c->buf[3]);
    }
    static void backward_weights(const cg_call *c, const cg_context *) {
        const auto *self = static_cast<const ConvKernel *>(c->state);
        self->run_backward_weights((const T *)c->buf[0], (const T *)c->buf[1], (T *)c->buf[2], (T *)c->buf[3]);
    }

    /* Strips from rows that are made one at a time: row(i, dst) for i < n, each of kc values along k or n values along the strip.
     */
    template <class R> void pack_rows_across(T *dst, int64_t n, int64_t kc, int w, R &&row) const {
        T rows[4][KC];
        for (int64_t s = 0; s < n; s += w, dst += kc * w) {
            const int64_t count = std::min<int64_t>(w, n - s);
            int64_t i = 0;
            for (; i + 4 <= count; i += 4) {
                for (int r = 0; r < 4; r++) row(s + i + r, rows[r]);
                T *d = dst + i;
                for (int64_t k = 0; k < kc; k++, d += w)
                    d[0] = rows[0][k], d[1] = rows[1][k], d[2] = rows[2][k], d[3] = rows[3][k];
            }
            for (; i < w; i++) {
                if (i < count) row(s + i, rows[0]);
                else std::fill(rows[0], rows[0] + kc, T(0));
                for (int64_t k = 0; k < kc; k++) dst[k * w + i] = rows[0][k];
            }
        }
    }
    template <class R> void pack_rows_along(T *dst, int64_t n, int64_t kc, int w, R &&row) const {
        T line[512 + 32];
        for (int64_t k = 0; k < kc; k++) {
            row(k, line);
            for (int64_t i = n; i < round_up(n, w); i++) line[i] = 0;
            for (int64_t s = 0; s < n; s += w) memcpy(dst + s * kc + k * w, line + s, w * sizeof(T));
        }
    }

    double work() const { return double(g.N) * double(g.O) * double(g.P) * double(g.Cg) * double(g.V); }

    void run_forward(const T *x, const T *w, const T *b, T *y, T *scratch) const {
        const int64_t K = g.Cg * g.V, J = g.N * g.P, per = grid.m_blocks * grid.n_blocks;
        if (J == 0 || g.O == 0) return;
        parallel_slots(g.G * per, work(), grid.slots, [&](int64_t task, int64_t slot) {
            const int64_t group = task / per, m0 = task % per / grid.n_blocks * grid.mb, n0 = task % grid.n_blocks * grid.nb;
            const int64_t m = std::min(grid.mb, g.Og - m0), n = std::min(grid.nb, J - n0);
            T *mine = scratch + slot * grid.slot_size(), *block = mine + grid.a_size + grid.b_size;
            const auto depth = [&](int64_t chunk) { return std::min(KC, K - chunk * KC); };
            const auto pack_a = [&](T *dst, int64_t chunk) {
                across(dst, w + (group * g.Og + m0) * K + chunk * KC, K, m, depth(chunk), grid.micro.mr);
            };
            const auto pack_b = [&](T *dst, int64_t chunk) {
                pack_rows_along(dst, n, depth(chunk), grid.micro.nr,
                                [&](int64_t k, T *line) { window_row(g, x, group, chunk * KC + k, n0, n0 + n, line); });
            };
            multiply(grid, m, n, 0, grid.chunks, pack_a, pack_b, depth, block, grid.nb, false, mine);
            for (int64_t i = 0; i < m; i++) {
                const int64_t o = group * g.Og + m0 + i;
                const T *from = block + i * grid.nb;
                const T shift = b ? b[o] : T(0);
                columns(g, o, n0, n0 + n, [&](int64_t j, int64_t count, int64_t offset) {
                    if (b)
                        for (int64_t q = 0; q < count; q++) y[offset + q] = from[j + q] + shift;
                    else memcpy(y + offset, from + j, count * sizeof(T));
                    if (relu) cut(y + offset, count);
                });
            }
        });
    }

    void run_backward_data(const T *dy, const T *w, T *dx, T *scratch) const {
        const int64_t K = g.Og, rows = g.Cg * g.V;
        if (g.N == 0 || g.C == 0) return;
        parallel_slots(g.G * image_groups * channel_groups, work(), grid.slots, [&](int64_t task, int64_t slot) {
            const int64_t cg = task % channel_groups, ig = task / channel_groups % image_groups,
                          group = task / channel_groups / image_groups;
            const int64_t i0 = ig * images, i1 = std::min(g.N, i0 + images), c0 = cg * channels,
                          c1 = std::min(g.Cg, c0 + channels);
            T *mine = scratch + slot * grid.slot_size(), *block = mine + grid.a_size + grid.b_size;
            for (int64_t i = i0; i < i1; i++) {
                T *at = dx + (i * g.C + group * g.Cg + c0) * g.X;
                std::fill(at, at + (c1 - c0) * g.X, T(0));
            }
            const auto depth = [&](int64_t chunk) { return std::min(KC, K - chunk * KC); };
            for (int64_t n0 = i0 * g.P; n0 < i1 * g.P; n0 += grid.nb)
                for (int64_t m0 = c0 * g.V; m0 < c1 * g.V; m0 += grid.mb) {
                    const int64_t m = std::min(grid.mb, c1 * g.V - m0), n = std::min(grid.nb, i1 * g.P - n0);
                    const auto pack_a = [&](T *dst, int64_t chunk) {
                        along(dst, w + (group * g.Og + chunk * KC) * rows + m0, rows, m, depth(chunk), grid.micro.mr);
                    };
                    const auto pack_b = [&](T *dst, int64_t chunk) {
                        pack_rows_along(dst, n, depth(chunk), grid.micro.nr, [&](int64_t k, T *line) {
                            columns(g, group * g.Og + chunk * KC + k, n0, n0 + n, [&](int64_t j, int64_t count, int64_t offset) {
                                memcpy(line + j, dy + offset, count * sizeof(T));
                            });
                        });
                    };
                    multiply(grid, m, n, 0, grid.chunks, pack_a, pack_b, depth, block, grid.nb, false, mine);
                    for (int64_t i = 0; i < m; i++) add_window_row(g, dx, group, m0 + i, n0, n0 + n, block + i * grid.nb);
                }
        });
    }

    void run_backward_weights(const T *x, const T *dy, T *dw, T *scratch) const {
        const int64_t J = g.N * g.P, rows = g.Cg * g.V, per = grid.m_blocks * grid.n_blocks;
        if (g.O == 0 || rows == 0) return;
        T *parts = scratch + grid.slots * grid.slot_size();
        const int64_t size = g.O * rows;
        parallel_slots(g.G * grid.splits * per, work(), grid.slots, [&](int64_t task, int64_t slot) {
            const int64_t group = task / (per * grid.splits), s = task / per % grid.splits;
            const int64_t m0 = task % per / grid.n_blocks * grid.mb, n0 = task % grid.n_blocks * grid.nb;
            const int64_t m = std::min(grid.mb, g.Og - m0), n = std::min(grid.nb, rows - n0);
            const auto depth = [&](int64_t chunk) { return std::min(KC, J - chunk * KC); };
            const auto pack_a = [&](T *dst, int64_t chunk) {
                pack_rows_across(dst, m, depth(chunk), grid.micro.mr, [&](int64_t i, T *line) {
                    columns(g, group * g.Og + m0 + i, chunk * KC, chunk * KC + depth(chunk),
                            [&](int64_t j, int64_t count, int64_t offset) { memcpy(line + j, dy + offset, count * sizeof(T)); });
                });
            };
            const auto pack_b = [&](T *dst, int64_t chunk) {
                pack_rows_across(dst, n, depth(chunk), grid.micro.nr, [&](int64_t i, T *line) {
                    window_row(g, x, group, n0 + i, chunk * KC, chunk * KC + depth(chunk), line);
                });
            };
            T *c = (grid.splits > 1 ? parts + s * size : dw) + (group * g.Og + m0) * rows + n0;
            multiply(grid, m, n, grid.split_begin(s), grid.split_begin(s + 1), pack_a, pack_b, depth, c, rows, false,
                     scratch + slot * grid.slot_size());
        });
        if (grid.splits > 1) add_parts(parts, grid.splits, size, dw, false);
    }
};

template <class T> Kernel *convolution(const std::string &kind, const ConvArgs &args) {
    auto k = std::make_unique<ConvKernel<T>>();
    Geometry &g = k->g;
    spatial("Convolution", g, args.x, args.y, args.w, 2, args.strides, args.dilation, args.pad_lo, args.pad_hi);
    g.G = args.groups;
    if (g.G < 1 || g.C % g.G || g.O % g.G || args.w[0] != g.O || args.w[1] * g.G != g.C)
        bad("Convolution: expected w (out, in / groups, ...) with " + std::to_string(g.O) + " outputs, " + std::to_string(g.C) +
            " inputs and " + std::to_string(g.G) + " groups, got " + show(args.w));
    g.Cg = g.C / g.G, g.Og = g.O / g.G;
    g.pointwise = g.V == 1;
    for (int d = 0; d < 3; d++) g.pointwise = g.pointwise && g.stride[d] == 1 && g.pad[d] == 0 && g.in[d] == g.out[d];
    Grid<T> &grid = k->grid;
    const int64_t J = g.N * g.P, K = g.Cg * g.V;
    int64_t extra = 0;
    if (kind == "forward") {
        k->run = ConvKernel<T>::forward;
        k->bias = args.bias;
        k->relu = args.relu;
        grid.plan(g.Og, J, ceil_div(K, KC), g.G, true, false);
        grid.set_slots(g.G * grid.m_blocks * grid.n_blocks);
    } else if (kind == "backward_weights") {
        k->run = ConvKernel<T>::backward_weights;
        grid.plan(g.Og, K, ceil_div(J, KC), g.G, false, g.G <= 8);
        grid.set_slots(g.G * grid.splits * grid.m_blocks * grid.n_blocks);
        extra = grid.splits > 1 ? grid.splits * g.O * K : 0;
    } else if (kind == "backward_data") {
        k->run = ConvKernel<T>::backward_data;
        /* The owner of some channels of some images adds all their windows, so no two threads meet. */
        const int64_t mr = grid.micro.mr, nr = grid.micro.nr, threads = omp_get_max_threads();
        const int64_t nc = round_up(sizeof(T) == 4 ? 512 : 384, nr);
        const auto groups = [&] {
            k->image_groups = std::max<int64_t>(1, ceil_div(g.N, k->images));
            k->channel_groups = std::max<int64_t>(1, ceil_div(g.Cg, k->channels));
        };
        k->images = std::max<int64_t>(1, std::min(g.N, nc / std::max<int64_t>(1, g.P)));
        k->channels = std::max<int64_t>(1, std::min(g.Cg, 144 / std::max<int64_t>(1, g.V)));
        groups();
        while (g.G * k->image_groups * k->channel_groups < 2 * threads && (k->images > 1 || k->channels > 1)) {
            if (k->images > 1) k->images = ceil_div(k->images, 2);
            else k->channels = ceil_div(k->channels, 2);
            groups();
        }
        grid.M = K, grid.N = J, grid.chunks = ceil_div(g.Og, KC);
        grid.mb = std::max(mr, round_up(std::min<int64_t>(k->channels * g.V, 288), mr));
        grid.nb = std::max(nr, std::min(nc, round_up(k->images * g.P, nr)));
        grid.a_size = grid.mb * KC, grid.b_size = grid.nb * KC, grid.block_size = round_up(grid.mb * grid.nb, 16);
        grid.set_slots(g.G * k->image_groups * k->channel_groups);
    } else {
        bad("Convolution: expected kind 'forward', 'backward_data' or 'backward_weights', got '" + kind + "'");
    }
    k->scratch = (grid.slots * grid.slot_size() + extra) * (int64_t)sizeof(T);
    k->nbuf = 4 + k->bias;
    return k.release();
}

} // namespace

Kernel *make_matmul(const std::string &dtype, const MatMulArgs &given) {
    MatMulArgs args = given;
    check_sizes("MatMul", {args.batch, args.m, args.n, args.k});
    const auto leading = [](int64_t &ld, int64_t row) {
        if (ld == 0) ld = row;
        if (ld < row) bad("MatMul: expected rows of at least " + std::to_string(row) + " elements, got " + std::to_string(ld));
    };
    leading(args.lda, args.transpose_a ? args.m : args.k);
    leading(args.ldb, args.transpose_b ? args.k : args.n);
    leading(args.ldc, args.n);
    return is_double("MatMul", dtype) ? matmul<double>(args) : matmul<float>(args);
}

Kernel *make_convolution(const std::string &kind, const std::string &dtype, const ConvArgs &args) {
    return is_double("Convolution", dtype) ? convolution<double>(kind, args) : convolution<float>(kind, args);
}

} // namespace cg
