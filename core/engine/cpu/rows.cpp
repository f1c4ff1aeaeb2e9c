#include "rows.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace cg {
namespace {

constexpr int64_t LINE = 64;
constexpr int64_t SHALLOW = 16; /* rows copied at a time, so that they are read in long runs */

// ---------------------------------------------------------------- the tile

/* Where a tile goes and what happens to it on its way. */
template <class T> struct Out {
    T *c;
    int64_t ldc;
    const T *in; /* added; may be c; null: nothing is */
    int64_t ldi;
    const T *bias; /* null: none */
    bool relu;
    int64_t n; /* columns that c has: the tile may be wider */

    Out at(int64_t i, int64_t j) const {
        return {c + i * ldc + j, ldc, in ? in + i * ldi + j : nullptr, ldi, bias ? bias + j : nullptr, relu, n - j};
    }
};

/* MR rows of a times NP panels of NV vectors, kept in registers; element (i, l) of a lies at a[i row + l step], and panels of b
 * are `panel` elements apart. An element is one sum over l in order, whatever MR and NP are. Rows are addressed in threes, which
 * is what x86 can do with one pointer and one distance. */
template <class T, int VB, int MR, int NP, int NV>
static CG_INLINE void tile(int64_t k, const T *a, int64_t row, int64_t step, const T *b, int64_t panel, const Out<T> &out) {
    typedef T V __attribute__((vector_size(VB)));
    constexpr int W = VB / sizeof(T), N = NP * NV, P = (MR + 2) / 3;
    V sum[MR][N];
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
        for (int j = 0; j < N; j++) sum[i][j] = V{};
    const T *p[P];
#pragma GCC unroll 4
    for (int i = 0; i < P; i++) p[i] = a + 3 * i * row;
    if (k >= 32) /* what the tile will be written to is on its way meanwhile */
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
            for (int j = 0; j < N * W; j += LINE / sizeof(T)) __builtin_prefetch(out.c + i * out.ldc + j, 1);
    for (int64_t l = 0; l < k; l++, b += NV * W) {
        V bl[N];
#pragma GCC unroll 8
        for (int j = 0; j < N; j++) __builtin_memcpy(&bl[j], b + j / NV * panel + j % NV * W, VB);
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            const T ai = p[i / 3][i % 3 * row];
#pragma GCC unroll 8
            for (int j = 0; j < N; j++) sum[i][j] += ai * bl[j];
        }
#pragma GCC unroll 4
        for (int i = 0; i < P; i++) p[i] += step;
    }
    if (out.n < N * W) { /* the last columns, one by one */
        alignas(64) T edge[MR][N * W];
        __builtin_memcpy(edge, sum, sizeof edge);
        for (int i = 0; i < MR; i++)
            for (int64_t j = 0; j < out.n; j++) {
                T v = edge[i][j];
                if (out.in) v = out.in[i * out.ldi + j] + v;
                if (out.bias) v += out.bias[j];
                if (out.relu) v = v <= 0 ? T(0) : v; /* a NaN stays one */
                out.c[i * out.ldc + j] = v;
            }
        return;
    }
    if (!out.in && !out.bias && !out.relu) {
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
            for (int j = 0; j < N; j++) __builtin_memcpy(out.c + i * out.ldc + j * W, &sum[i][j], VB);
        return;
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
        for (int j = 0; j < N; j++) {
            V v = sum[i][j], other;
            if (out.in) {
                __builtin_memcpy(&other, out.in + i * out.ldi + j * W, VB);
                v = other + v;
            }
            if (out.bias) {
                __builtin_memcpy(&other, out.bias + j * W, VB);
                v += other;
            }
            if (out.relu) v = v <= 0 ? V{} : v;
            __builtin_memcpy(out.c + i * out.ldc + j * W, &v, VB);
        }
}

/* R columns of k rows, close together. The next R are asked for: it is their turn soon. */
template <class T, int R> static CG_INLINE void lift(int64_t k, const T *CG_RESTRICT from, int64_t ld, T *CG_RESTRICT to) {
    for (int64_t l = 0; l < k; l++) {
        __builtin_memcpy(to + l * R, from + l * ld, R * sizeof(T));
        __builtin_prefetch(from + l * ld + R, 0, 2);
        if (R * sizeof(T) > LINE) __builtin_prefetch(from + l * ld + R + R / 2, 0, 2);
    }
}

constexpr int MOST = 12; /* rows of the highest tile of all machines */

template <class T> struct Machine {
    using Tile = void (*)(int64_t k, const T *a, int64_t row, int64_t step, const T *b, int64_t panel, const Out<T> &out);
    using Lift = void (*)(int64_t k, const T *from, int64_t ld, T *to);
    int64_t mr, width;           /* rows of the highest tile, elements of a vector */
    Tile one[MOST], two[MOST];   /* [rows - 1]: a panel of one vector, of two */
    Tile more[MOST];             /* several panels of two vectors: low tiles need them to hide the latency of a sum */
    int64_t panels[MOST];        /* how many */
    Lift columns[MOST], full[2]; /* [columns - 1]; of one vector, of two */

    int64_t panel() const { return 2 * width; }
    /* Vectors of the panel that begins with column j of n. */
    int64_t vectors(int64_t j, int64_t n) const { return n - j <= width ? 1 : 2; }
    int64_t packed(int64_t n) const { return n / panel() * panel() + round_up(n % panel(), width); }
};

/* Panels of two vectors at a time for a tile of r rows where there are `registers` of them. */
constexpr int panels_for(int r, int registers) {
    return registers >= 32 ? (r <= 2 ? 4 : r <= 6 ? 2 : 1) : r == 1 ? 4 : r == 2 ? 2 : 1;
}

#define MACHINE(name, attributes, VB, registers)                                                                                 \
    template <class T, int R, int NP, int NV>                                                                                    \
    attributes void name##_tile(int64_t k, const T *a, int64_t row, int64_t step, const T *b, int64_t panel, const Out<T> &o) {  \
        tile<T, VB, R, NP, NV>(k, a, row, step, b, panel, o);                                                                    \
    }                                                                                                                            \
    template <class T, int R> attributes void name##_lift(int64_t k, const T *from, int64_t ld, T *to) {                         \
        lift<T, R>(k, from, ld, to);                                                                                             \
    }                                                                                                                            \
    template <class T, int... R> Machine<T> name(std::integer_sequence<int, R...>) {                                             \
        constexpr int W = VB / sizeof(T);                                                                                        \
        return {sizeof...(R),                                                                                                    \
                W,                                                                                                               \
                {name##_tile<T, R + 1, 1, 1>...},                                                                                \
                {name##_tile<T, R + 1, 1, 2>...},                                                                                \
                {name##_tile<T, R + 1, panels_for(R + 1, registers), 2>...},                                                     \
                {panels_for(R + 1, registers)...},                                                                               \
                {name##_lift<T, R + 1>...},                                                                                      \
                {name##_lift<T, W>, name##_lift<T, 2 * W>}};                                                                     \
    }
#if CG_TARGETS
MACHINE(machine_v4, __attribute__((target("arch=x86-64-v4"))), 64, 32)
MACHINE(machine_v3, __attribute__((target("arch=x86-64-v3"))), 32, 16)
#endif
#if defined(__aarch64__)
MACHINE(machine_base, , 16, 32)
constexpr int BASE_ROWS = 8;
#else
MACHINE(machine_base, , 16, 16)
constexpr int BASE_ROWS = 4;
#endif
#undef MACHINE

template <class T> Machine<T> make_machine() {
#if CG_TARGETS
    if (level() >= 4) return machine_v4<T>(std::make_integer_sequence<int, MOST>());
    if (level() >= 3) return machine_v3<T>(std::make_integer_sequence<int, 6>());
#endif
    return machine_base<T>(std::make_integer_sequence<int, BASE_ROWS>());
}
template <class T> const Machine<T> machine = make_machine<T>();

// ---------------------------------------------------------------- what all of them do

constexpr int64_t DEEP = 512; /* summands of one pass: a panel stays in the second-level cache beside a block of a */
constexpr double ALONE = 3 << 18; /* bytes of multiplicands below which a second thread costs more than it takes over */

/* f(begin, n) for pieces of [0, n) of at most `most`, nearly equal; once with n = 0 where there is nothing. */
template <class F> static inline void pieces(int64_t n, int64_t most, F &&f) {
    const int64_t parts = std::max<int64_t>(1, ceil_div(n, most));
    for (int64_t i = 0, done = 0; i < parts; i++) {
        const int64_t piece = (n - done) / (parts - i);
        f(done, piece);
        done += piece;
    }
}

int threads_for(double work, int64_t tasks, int64_t slots) {
    if (work < ALONE) return 1;
    return (int)std::max<int64_t>(1, std::min<int64_t>({tasks, slots, omp_get_max_threads()}));
}

/* n <= panel() columns of k rows as a panel, zeros beyond n. */
template <class T> void strip(int64_t k, const T *from, int64_t ld, int64_t n, T *to) {
    const auto &mc = machine<T>;
    const int64_t vectors = mc.vectors(0, n), width = vectors * mc.width;
    if (n >= width) return mc.full[vectors - 1](k, from, ld, to);
    for (int64_t l = 0; l < k; l++, from += ld, to += width) {
        std::copy(from, from + n, to);
        std::fill(to + n, to + width, T(0));
    }
}

// ---------------------------------------------------------------- packing

/* A square of elements, rows `ld` apart, to its transpose, rows `width` apart. */
template <class T> static CG_INLINE void square(const T *from, int64_t ld, T *to, int64_t width) {
    typedef T V __attribute__((vector_size(16)));
    constexpr int S = 16 / sizeof(T);
    V v[S];
    for (int i = 0; i < S; i++) __builtin_memcpy(&v[i], from + i * ld, 16);
    if constexpr (S == 4) {
        typedef int32_t I __attribute__((vector_size(16)));
        const V a = __builtin_shuffle(v[0], v[1], I{0, 4, 1, 5}), b = __builtin_shuffle(v[2], v[3], I{0, 4, 1, 5});
        const V c = __builtin_shuffle(v[0], v[1], I{2, 6, 3, 7}), d = __builtin_shuffle(v[2], v[3], I{2, 6, 3, 7});
        v[0] = __builtin_shuffle(a, b, I{0, 1, 4, 5}), v[1] = __builtin_shuffle(a, b, I{2, 3, 6, 7});
        v[2] = __builtin_shuffle(c, d, I{0, 1, 4, 5}), v[3] = __builtin_shuffle(c, d, I{2, 3, 6, 7});
    } else {
        typedef int64_t I __attribute__((vector_size(16)));
        const V a = v[0];
        v[0] = __builtin_shuffle(a, v[1], I{0, 2}), v[1] = __builtin_shuffle(a, v[1], I{1, 3});
    }
    for (int i = 0; i < S; i++) __builtin_memcpy(to + i * width, &v[i], 16);
}

/* Columns that lie as rows, `rows` elements of each, as a part of a panel, zeros beyond. */
template <class T> void turn(int64_t rows, const T *from, int64_t ld, int64_t columns, T *to, int64_t width) {
    constexpr int64_t S = 16 / sizeof(T);
    int64_t j = 0;
    for (; j + S <= columns; j += S) {
        int64_t l = 0;
        for (; l + S <= rows; l += S) square(from + j * ld + l, ld, to + l * width + j, width);
        for (; l < rows; l++)
            for (int64_t i = j; i < j + S; i++) to[l * width + i] = from[i * ld + l];
    }
    for (; j < width; j++)
        for (int64_t l = 0; l < rows; l++) to[l * width + j] = j < columns ? from[j * ld + l] : T(0);
}

template <class T> struct PackKernel : Kernel {
    PackArgs args;

    static void call(const cg_call *c, const cg_context *) {
        static_cast<const PackKernel *>(c->state)->compute((const T *)c->buf[0], (T *)c->buf[1]);
    }

    void compute(const T *b, T *packed) const {
        const int64_t k = args.k, n = args.n, wide = machine<T>.panel();
        b += args.b_offset;
        parallel_range(ceil_div(n, wide), k * n, [&](int64_t first, int64_t last) {
            const auto piece = [&](int64_t p, int64_t l, int64_t few) {
                const int64_t j = p * wide, height = std::min(few, k - l), columns = std::min(wide, n - j);
                const int64_t width = machine<T>.vectors(j, n) * machine<T>.width;
                T *to = packed + j * k + l * width;
                if (args.transpose) turn(height, b + j * args.ldb + l, args.ldb, columns, to, width);
                else strip(height, b + l * args.ldb + j, args.ldb, columns, to);
            };
            if (args.transpose)
                for (int64_t p = first; p < last; p++)
                    for (int64_t l = 0; l < k; l += 32) piece(p, l, 32);
            else
                for (int64_t l = 0; l < k; l += SHALLOW)
                    for (int64_t p = first; p < last; p++) piece(p, l, SHALLOW);
        });
    }

};

// ---------------------------------------------------------------- rows times a matrix

template <class T> struct RowProductKernel : RowsKernel {
    RowProductArgs args;
    int64_t deep = 0, block = 0, slots = 1, slot_size = 0;

    static void call(const cg_call *c, const cg_context *) {
        const auto *self = static_cast<const RowProductKernel *>(c->state);
        const auto &args = self->args;
        void **buf = c->buf;
        const T *a = (const T *)*buf++ + args.a_offset, *b = (const T *)*buf++;
        const T *bias = args.bias ? (const T *)*buf++ + args.bias_offset : nullptr;
        const T *in = args.add ? (const T *)*buf++ + args.i_offset : nullptr;
        T *y = (T *)*buf++ + args.c_offset;
        self->compute(a, b, {y, args.ldc, in, args.ldi, bias, args.relu, args.n}, (T *)*buf);
    }

    void plan() {
        const auto &mc = machine<T>;
        deep = std::min(DEEP, args.k);
        /* Copied rows are a line more than dense ones apart: at powers of two they would fight for the same sets of the cache. */
        const int64_t distance = round_up(deep, LINE / sizeof(T)) + LINE / sizeof(T);
        block = std::max<int64_t>(1, 256 * 1024 / (distance * sizeof(T)) / mc.mr) * mc.mr;
        block = std::min(block, 16 * mc.mr);
        slots = omp_get_max_threads();
        slot_size = block * distance;
        scratch = slots * slot_size * sizeof(T);
    }

    void compute(const T *a, const T *b, const Out<T> &out, T *space) const {
        const int64_t m = rows, panels = ceil_div(args.n, machine<T>.panel());
        if (m <= 0 || panels == 0) return;
        const double work = double(std::max<int64_t>(m, 2)) * double(args.n) * double(args.k) * sizeof(T);
        const int64_t blocks = ceil_div(m, block);
        const int threads = threads_for(work, std::max(panels, m / 4), slots);
        if (threads == 1) return part(a, b, out, space, 0, m, 0, panels);
        /* Few rows: each thread has columns of its own, always the same, which stay in its cache. Many: blocks of rows. */
        const bool by_columns = panels >= threads && blocks < 3 * threads;
        const int64_t tasks = by_columns ? threads : std::max(round_up(blocks, threads), int64_t(threads));
#pragma omp parallel num_threads(threads)
        {
            T *mine = space + omp_get_thread_num() * slot_size;
            if (by_columns) {
                const int64_t t = omp_get_thread_num(), of = omp_get_num_threads();
                part(a, b, out, mine, 0, m, panels * t / of, panels * (t + 1) / of);
            } else {
#pragma omp for schedule(dynamic, 1) nowait
                for (int64_t t = 0; t < tasks; t++) part(a, b, out, mine, m * t / tasks, m * (t + 1) / tasks, 0, panels);
            }
        }
    }

    /* Rows [r0, r1) times panels [p0, p1). */
    void part(const T *a, const T *b, const Out<T> &out, T *space, int64_t r0, int64_t r1, int64_t p0, int64_t p1) const {
        if (r0 >= r1 || p0 >= p1) return;
        const auto &mc = machine<T>;
        const int64_t wide = mc.panel();
        pieces(r1 - r0, block, [&](int64_t r, int64_t m) {
            r += r0;
            pieces(args.k, DEEP, [&](int64_t l, int64_t k) {
                Out<T> to = out;
                if (l > 0) to.in = to.c, to.ldi = to.ldc;
                if (l + k < args.k) to.bias = nullptr, to.relu = false;
                const T *x = a + r * args.lda + l;
                int64_t ld = args.lda;
                if (p1 - p0 >= 4) {
                    ld = round_up(k, LINE / sizeof(T)) + LINE / sizeof(T);
                    for (int64_t i = 0; i < m; i++) memcpy(space + i * ld, x + i * args.lda, k * sizeof(T));
                    x = space;
                }
                for (int64_t p = p0; p < p1;) {
                    const int64_t j = p * wide, vectors = mc.vectors(j, args.n), more = m <= mc.mr ? mc.panels[m - 1] : 1;
                    const T *panel = b + j * args.k + l * vectors * mc.width;
                    if (more > 1 && p + more <= p1 && mc.vectors((p + more - 1) * wide, args.n) == 2) {
                        mc.more[m - 1](k, x, ld, 1, panel, wide * args.k, to.at(r, j));
                        p += more;
                        continue;
                    }
                    const auto *tiles = vectors == 1 ? mc.one : mc.two;
                    pieces(m, mc.mr, [&](int64_t i, int64_t h) {
                        tiles[h - 1](k, x + i * ld, ld, 1, panel, 0, to.at(r + i, j));
                    });
                    p++;
                }
            });
        });
    }
};

// ---------------------------------------------------------------- sums over rows

template <class T> struct SumProductKernel : RowsKernel {
    SumProductArgs args;
    int64_t high = 0, wide = 0, slots = 1, slot_size = 0; /* a block of c */

    static void call(const cg_call *c, const cg_context *) {
        const auto *self = static_cast<const SumProductKernel *>(c->state);
        const auto &args = self->args;
        void **buf = c->buf;
        const T *a = (const T *)*buf++ + args.a_offset, *b = (const T *)*buf++ + args.b_offset;
        const T *in = args.add ? (const T *)*buf++ + args.i_offset : nullptr;
        T *y = (T *)*buf++ + args.c_offset;
        self->compute(a, b, {y, args.ldc, in, args.ldi, nullptr, false, args.n}, (T *)*buf);
    }

    void plan() {
        const auto &mc = machine<T>;
        slots = omp_get_max_threads();
        high = round_up(std::min<int64_t>(args.m, 256), mc.mr), wide = round_up(std::min<int64_t>(args.n, 1024), mc.panel());
        const auto tasks = [&] { return ceil_div(args.m, high) * ceil_div(args.n, wide); };
        while (slots > 1 && args.m && args.n && tasks() < 2 * slots && (wide > mc.panel() || high > mc.mr)) {
            if (wide > mc.panel() && (wide > high || high == mc.mr)) wide = round_up(wide / 2, mc.panel());
            else high = round_up(high / 2, mc.mr);
        }
        slot_size = round_up((high + mc.panel()) * DEEP, LINE);
        scratch = slots * slot_size * sizeof(T);
    }

    void compute(const T *a, const T *b, const Out<T> &out, T *space) const {
        if (args.m == 0 || args.n == 0) return;
        const int64_t across = ceil_div(args.n, wide), tasks = ceil_div(args.m, high) * across;
        const double work = double(args.m) * double(args.n) * double(rows + 16) * sizeof(T);
        const int threads = threads_for(work, tasks, slots);
        if (threads == 1) {
            for (int64_t t = 0; t < tasks; t++) part(a, b, out, space, t / across * high, t % across * wide);
            return;
        }
#pragma omp parallel num_threads(threads)
        {
            T *mine = space + omp_get_thread_num() * slot_size;
#pragma omp for schedule(dynamic, 1) nowait
            for (int64_t t = 0; t < tasks; t++) part(a, b, out, mine, t / across * high, t % across * wide);
        }
    }

    /* The block of c at (i0, j0). */
    void part(const T *a, const T *b, const Out<T> &out, T *space, int64_t i0, int64_t j0) const {
        const auto &mc = machine<T>;
        const int64_t m = std::min(high, args.m - i0), j1 = std::min(j0 + wide, args.n), step = mc.panel();
        T *panels = space, *tiles = space + step * DEEP;
        pieces(std::max<int64_t>(rows, 0), DEEP, [&](int64_t l, int64_t k) {
            Out<T> to = out;
            if (l > 0) to.in = to.c, to.ldi = to.ldc;
            for (int64_t r = 0; r < k; r += SHALLOW)
                pieces(m, mc.mr, [&](int64_t i, int64_t h) {
                    mc.columns[h - 1](std::min(SHALLOW, k - r), a + (l + r) * args.lda + i0 + i, args.lda, tiles + i * k + r * h);
                });
            /* As many panels as there is room for, then along the rows of c: few summands leave long runs to write. */
            const int64_t group = DEEP / std::max<int64_t>(k, 1) * step;
            for (int64_t g = j0; g < j1; g += group) {
                const int64_t end = std::min(g + group, j1);
                for (int64_t j = g; j < end; j += step)
                    strip(k, b + l * args.ldb + j, args.ldb, std::min(step, args.n - j), panels + (j - g) * k);
                pieces(m, mc.mr, [&](int64_t i, int64_t h) {
                    for (int64_t j = g; j < end; j += step) {
                        const auto *kinds = mc.vectors(j, args.n) == 1 ? mc.one : mc.two;
                        kinds[h - 1](k, tiles + i * k, 1, h, panels + (j - g) * k, 0, to.at(i0 + i, j));
                    }
                });
            }
        });
    }
};

template <class K, class A> K *make(const A &args, int buffers) {
    auto k = std::make_unique<K>();
    k->args = args;
    k->rows = args.rows;
    k->run = K::call;
    k->plan();
    k->nbuf = buffers + (k->scratch > 0);
    return k.release();
}

template <class T> Kernel *pack(const PackArgs &args) {
    auto k = std::make_unique<PackKernel<T>>();
    k->args = args;
    k->run = PackKernel<T>::call;
    k->nbuf = 2;
    return k.release();
}

void distance(const char *who, int64_t &ld, int64_t least) {
    if (ld == 0) ld = least;
    if (ld < least)
        bad(std::string(who) + ": expected rows at least " + std::to_string(least) + " elements apart, got " +
            std::to_string(ld));
}

struct WholeProduct : RowsKernel {
    std::unique_ptr<Kernel> pack;
    std::unique_ptr<RowsKernel> product;
    int64_t packed = 0;

    static void call(const cg_call *call, const cg_context *context) {
        const auto &k = *(const WholeProduct *)(const Kernel *)call->state;
        constexpr int most = 6;
        void *buf[most], *scratch = call->buf[k.nbuf - 1], *pair[2] = {call->buf[1], scratch};
        const cg_call pack{nullptr, k.pack.get(), pair}, product{nullptr, k.product.get(), buf};
        for (int i = 0; i < k.nbuf - 1; ++i) buf[i] = call->buf[i];
        buf[1] = scratch;
        buf[k.nbuf - 1] = (char *)scratch + k.packed;
        k.product->rows = k.rows;
        k.pack->run(&pack, context);
        k.product->run(&product, context);
    }
};

} // namespace

RowsKernel *make_whole_product(const std::string &dtype, RowProductArgs args, bool transpose) {
    auto k = std::make_unique<WholeProduct>();
    k->pack.reset(make_pack(dtype, {args.k, args.n, transpose}));
    k->product.reset(make_row_product(dtype, args));
    k->packed = round_up(packed_bytes(args.k, args.n, dtype), 64);
    k->scratch = k->packed + k->product->scratch;
    k->rows = args.rows;
    k->run = WholeProduct::call;
    k->nbuf = 4 + args.bias + args.add;
    return k.release();
}

int64_t packed_bytes(int64_t k, int64_t n, const std::string &dtype) {
    check_sizes("packed_bytes", {k, n});
    return is_double("packed_bytes", dtype) ? k * machine<double>.packed(n) * 8 : k * machine<float>.packed(n) * 4;
}

Kernel *make_pack(const std::string &dtype, PackArgs args) {
    check_sizes("Pack", {args.k, args.n});
    distance("Pack", args.ldb, args.transpose ? args.k : args.n);
    return is_double("Pack", dtype) ? pack<double>(args) : pack<float>(args);
}

RowsKernel *make_row_product(const std::string &dtype, RowProductArgs args) {
    check_sizes("RowProduct", {args.rows, args.k, args.n});
    distance("RowProduct", args.lda, args.k);
    distance("RowProduct", args.ldc, args.n);
    if (args.ldi == 0) args.ldi = args.ldc;
    distance("RowProduct", args.ldi, args.n);
    const int buffers = 3 + args.bias + args.add;
    if (is_double("RowProduct", dtype)) return make<RowProductKernel<double>>(args, buffers);
    return make<RowProductKernel<float>>(args, buffers);
}

RowsKernel *make_sum_product(const std::string &dtype, SumProductArgs args) {
    check_sizes("SumProduct", {args.rows, args.m, args.n});
    distance("SumProduct", args.lda, args.m);
    distance("SumProduct", args.ldb, args.n);
    distance("SumProduct", args.ldc, args.n);
    if (args.ldi == 0) args.ldi = args.ldc;
    distance("SumProduct", args.ldi, args.n);
    const int buffers = 3 + args.add;
    if (is_double("SumProduct", dtype)) return make<SumProductKernel<double>>(args, buffers);
    return make<SumProductKernel<float>>(args, buffers);
}

} // namespace cg
