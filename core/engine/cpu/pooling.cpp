#include <algorithm>
#include <limits>
#include <memory>
#include <type_traits>

#include "geometry.h"
#include "native.h"

namespace cg {
namespace {

struct PoolGeometry : Geometry {
    bool include = false; /* padding counts in an average */
    bool exact = false;   /* the windows tile the input: each place belongs to one */
    Dims lo, hi;          /* for each column of the window, the outputs that read inside the input with it */

    /* What lies inside the input of the window of output index o, along axis d. */
    void inside(int d, int64_t o, int64_t *begin, int64_t *end) const {
        const int64_t first = o * stride[d] - pad[d];
        *begin = std::max<int64_t>(first, 0), *end = std::max(*begin, std::min(first + window[d], in[d]));
    }
};

enum PoolOp { MAX_FORWARD, MAX_BACKWARD, MAX_PICK, AVG_FORWARD, AVG_BACKWARD };

/* L channels side by side. V: the register for (some of) them, I: integers of its width. */
template <class T, int L, int VB> struct Lanes {
    static constexpr int W = L < VB / int(sizeof(T)) ? L : VB / int(sizeof(T)), N = L / W;
    typedef T V __attribute__((vector_size(sizeof(T) * W)));
    typedef decltype(V() == V()) I;
    typedef typename std::conditional<sizeof(T) == 4, int32_t, int64_t>::type Index;
};

template <class T, int L, int VB>
static CG_INLINE void pool_cells(PoolOp op, const PoolGeometry &g, const T *a, const T *x, T *y) {
    typedef typename Lanes<T, L, VB>::V V;
    typedef typename Lanes<T, L, VB>::I I;
    typedef typename Lanes<T, L, VB>::Index Index;
    constexpr int W = Lanes<T, L, VB>::W, N = Lanes<T, L, VB>::N;
    constexpr int64_t AHEAD =
        2048 / sizeof(T); /* two rows at a time, a page each: the machine's own prefetching starts anew too often */
    if ((op == MAX_BACKWARD && !g.exact) || op == AVG_BACKWARD) memset(y, 0, g.X * L * sizeof(T));
    int64_t d = 0, h = 0, q = 0;
    for (int64_t cell = 0; cell < g.P; cell++) {
        int64_t z0, z1, y0, y1, x0, x1;
        g.inside(0, d, &z0, &z1), g.inside(1, h, &y0, &y1), g.inside(2, q, &x0, &x1);
        if (++q == g.out[2]) {
            q = 0;
            if (++h == g.out[1]) h = 0, d++;
        }
        const int64_t place = cell * L;
        const int64_t size = g.include ? g.V : std::max<int64_t>(1, (z1 - z0) * (y1 - y0) * (x1 - x0));
        const bool empty = z0 == z1 || y0 == y1 || x0 == x1;
        for (int n = 0; n < N; n++) {
            const int64_t lane = n * W, out = place + lane;
            V v, top = V{}, share = V{};
            I at = I{};
#define WINDOW(body)                                                                                                             \
    {                                                                                                                            \
        Index k = 0;                                                                                                             \
        for (int64_t z = z0; z < z1; z++)                                                                                        \
            for (int64_t r = y0; r < y1; r++) {                                                                                  \
                int64_t p = ((z * g.in[1] + r) * g.in[2] + x0) * L + lane;                                                       \
                for (int64_t i = x0; i < x1; i++, k++, p += L) body                                                              \
            }                                                                                                                    \
        (void)k;                                                                                                                 \
    }
            if (op == AVG_FORWARD) {
                WINDOW({
                    __builtin_memcpy(&v, x + p, sizeof(V));
                    top += v;
                })
                top /= T(size);
                __builtin_memcpy(y + out, &top, sizeof(V));
                continue;
            }
            if (op == AVG_BACKWARD) {
                __builtin_memcpy(&share, a + out, sizeof(V));
                share /= T(size);
                WINDOW({
                    __builtin_memcpy(&v, y + p, sizeof(V));
                    v += share;
                    __builtin_memcpy(y + p, &v, sizeof(V));
                })
                continue;
            }
            /* The first maximum, rows first; NaN is above everything. Its place is found apart: the compiler would join two
             * selections into one by combining masks, and take those apart into scalars. */
            const I most = I{} + std::numeric_limits<Index>::max();
            V nan = V{};
            I nan_at = most;
            top -= std::numeric_limits<T>::infinity(), at -= 1;
            WINDOW({
                __builtin_memcpy(&v, x + p, sizeof(V));
                __builtin_prefetch(x + p + AHEAD, 0);
                if (op != MAX_FORWARD) {
                    const I here = I{} + k;
                    at = v > top ? here : at;
                    const I bad = v != v ? here : most;
                    nan_at = bad < nan_at ? bad : nan_at;
                }
                top = v > top ? v : top;
                nan = v != v ? v : nan;
            })
            if (op == MAX_FORWARD) {
                top = nan != nan ? nan : top;
                __builtin_memcpy(y + out, &top, sizeof(V));
                continue;
            }
            if (!empty) {
                const I zero = I{};
                at = at < zero ? zero : at; /* all are -inf */
            }
            at = nan_at < most ? nan_at : at;
            if (op == MAX_PICK) {
                WINDOW({
                    __builtin_memcpy(&v, a + p, sizeof(V));
                    const I here = I{} + k;
                    share = at == here ? v : share;
                })
                __builtin_memcpy(y + out, &share, sizeof(V));
                continue;
            }
            __builtin_memcpy(&share, a + out, sizeof(V));
            WINDOW({
                const I here = I{} + k;
                v = at == here ? share : V{};
                __builtin_prefetch(y + p + AHEAD, 1);
                if (!g.exact) {
                    V old;
                    __builtin_memcpy(&old, y + p, sizeof(V));
                    v += old;
                }
                __builtin_memcpy(y + p, &v, sizeof(V));
            })
#undef WINDOW
        }
    }
}

/* y = the larger; NaN is above everything. */
template <class T> static CG_INLINE void max_into(T *CG_RESTRICT y, const T *CG_RESTRICT x, int64_t s, int64_t n) {
    if (s == 1)
        for (int64_t q = 0; q < n; q++) y[q] = (x[q] > y[q]) | (x[q] != x[q]) ? x[q] : y[q];
    else if (s == 2)
        for (int64_t q = 0; q < n; q++) y[q] = (x[2 * q] > y[q]) | (x[2 * q] != x[2 * q]) ? x[2 * q] : y[q];
    else
        for (int64_t q = 0; q < n; q++) y[q] = (x[q * s] > y[q]) | (x[q * s] != x[q * s]) ? x[q * s] : y[q];
}

/* Values of a plain plane, an output row at a time. */
template <class T> static CG_INLINE void pool_rows(PoolOp op, const PoolGeometry &g, const T *x, T *y) {
    const T start = op == MAX_FORWARD ? -std::numeric_limits<T>::infinity() : T(0);
    for (int64_t d = 0; d < g.out[0]; d++)
        for (int64_t h = 0; h < g.out[1]; h++) {
            T *row = y + (d * g.out[1] + h) * g.out[2];
            for (int64_t q = 0; q < g.out[2]; q++) row[q] = start;
            int64_t z0, z1, y0, y1, x0, x1, lo, hi;
            g.inside(0, d, &z0, &z1), g.inside(1, h, &y0, &y1);
            for (int64_t z = z0; z < z1; z++)
                for (int64_t r = y0; r < y1; r++)
                    for (int64_t k = 0; k < g.window[2]; k++) {
                        lo = g.lo[k], hi = g.hi[k];
                        const T *CG_RESTRICT from = x + (z * g.in[1] + r) * g.in[2] + lo * g.stride[2] + k - g.pad[2];
                        T *CG_RESTRICT to = row + lo;
                        if (op == MAX_FORWARD) max_into<T>(to, from, g.stride[2], hi - lo);
                        else
                            for (int64_t q = 0; q < hi - lo; q++) to[q] += from[q * g.stride[2]];
                    }
            if (op == AVG_FORWARD)
                for (int64_t q = 0; q < g.out[2]; q++) {
                    g.inside(2, q, &x0, &x1);
                    row[q] /= T(g.include ? g.V : std::max<int64_t>(1, (z1 - z0) * (y1 - y0) * (x1 - x0)));
                }
        }
}

/* best, at: the larger and its place; the first NaN stays. Steps of 1 and 2 are known to the compiler. */
template <class T, class I, int S>
static CG_INLINE void track(T *CG_RESTRICT best, I *CG_RESTRICT at, const T *CG_RESTRICT x, int64_t s, int64_t n, I k) {
    const int64_t step = S ? S : s;
    for (int64_t q = 0; q < n; q++) {
        const T v = x[q * step], b = best[q];
        const bool better = (v > b) | ((v != v) & (b == b)) | (at[q] < 0);
        best[q] = better ? v : b;
        at[q] = better ? k : at[q];
    }
}
template <class T, class I, int S>
static CG_INLINE void give(T *CG_RESTRICT dx, const I *CG_RESTRICT at, const T *CG_RESTRICT dy, int64_t s, int64_t n, I k) {
    const int64_t step = S ? S : s;
    for (int64_t q = 0; q < n; q++) dx[q * step] += at[q] == k ? dy[q] : T(0);
}
template <class T, class I>
static CG_INLINE void pick_at(T *CG_RESTRICT y, const I *CG_RESTRICT at, const T *CG_RESTRICT v, int64_t s, int64_t n, I k) {
    for (int64_t q = 0; q < n; q++) y[q] = at[q] == k ? v[q * s] : y[q];
}

/* Gradients of a plain plane, 64 columns of an output row at a time. */
template <class T> static CG_INLINE void pool_rows_back(PoolOp op, const PoolGeometry &g, const T *a, const T *x, T *y) {
    typedef typename std::conditional<sizeof(T) == 4, int32_t, int64_t>::type I;
    constexpr int64_t COLUMNS = 64;
    const int64_t s = g.stride[2];
    T best[COLUMNS];
    I at[COLUMNS];
    if (op != MAX_PICK) memset(y, 0, g.X * sizeof(T));
    for (int64_t d = 0; d < g.out[0]; d++)
        for (int64_t h = 0; h < g.out[1]; h++) {
            int64_t z0, z1, y0, y1, x0, x1;
            g.inside(0, d, &z0, &z1), g.inside(1, h, &y0, &y1);
            for (int64_t q0 = 0; q0 < g.out[2]; q0 += COLUMNS) {
                const int64_t m = std::min(COLUMNS, g.out[2] - q0), place = (d * g.out[1] + h) * g.out[2] + q0;
                for (int pass = op == AVG_BACKWARD; pass < 2; pass++) {
                    if (op == AVG_BACKWARD) {
                        for (int64_t q = 0; q < m; q++) {
                            g.inside(2, q0 + q, &x0, &x1);
                            best[q] = a[place + q] / T(g.include ? g.V : std::max<int64_t>(1, (z1 - z0) * (y1 - y0) * (x1 - x0)));
                            at[q] = 0;
                        }
                    } else if (pass == 0) {
                        for (int64_t q = 0; q < m; q++) best[q] = 0, at[q] = -1;
                    } else if (op == MAX_PICK) {
                        for (int64_t q = 0; q < m; q++) y[place + q] = 0;
                    }
                    I k = 0;
                    for (int64_t z = z0; z < z1; z++)
                        for (int64_t r = y0; r < y1; r++)
                            for (int64_t w = 0; w < g.window[2]; w++, k++) {
                                const int64_t lo = std::max(g.lo[w], q0), hi = std::min(g.hi[w], q0 + m);
                                if (lo >= hi) continue;
                                const int64_t p = (z * g.in[1] + r) * g.in[2] + lo * s + w - g.pad[2], c = lo - q0, n = hi - lo;
                                if (pass == 0) {
                                    if (s == 1) track<T, I, 1>(best + c, at + c, x + p, s, n, k);
                                    else if (s == 2) track<T, I, 2>(best + c, at + c, x + p, s, n, k);
                                    else track<T, I, 0>(best + c, at + c, x + p, s, n, k);
                                } else if (op == MAX_PICK) {
                                    pick_at<T, I>(y + place + c, at + c, a + p, s, n, k);
                                } else if (op == AVG_BACKWARD) {
                                    for (int64_t q = 0; q < n; q++) y[p + q * s] += best[c + q];
                                } else {
                                    if (s == 1) give<T, I, 1>(y + p, at + c, a + place + c, s, n, k);
                                    else if (s == 2) give<T, I, 2>(y + p, at + c, a + place + c, s, n, k);
                                    else give<T, I, 0>(y + p, at + c, a + place + c, s, n, k);
                                }
                            }
                }
            }
        }
}

template <class T, int VB>
static CG_INLINE void pool_planes(PoolOp op, const PoolGeometry &g, int lanes, int64_t n, const T *a, const T *x, T *y) {
    const bool forward = op == MAX_FORWARD || op == AVG_FORWARD;
    const int64_t xs = g.X * lanes, ys = g.P * lanes;
    for (int64_t i = 0; i < n; i++) {
        if (lanes == 1) {
            if (forward) pool_rows<T>(op, g, x, y);
            else pool_rows_back<T>(op, g, a, x, y);
        } else {
            switch (op) {
            case MAX_FORWARD: pool_cells<T, 16, VB>(MAX_FORWARD, g, nullptr, x, y); break;
            case MAX_BACKWARD: pool_cells<T, 16, VB>(MAX_BACKWARD, g, a, x, y); break;
            case MAX_PICK: pool_cells<T, 16, VB>(MAX_PICK, g, a, x, y); break;
            case AVG_FORWARD: pool_cells<T, 16, VB>(AVG_FORWARD, g, nullptr, x, y); break;
            case AVG_BACKWARD: pool_cells<T, 16, VB>(AVG_BACKWARD, g, a, nullptr, y); break;
            }
        }
        if (a) a += op == MAX_PICK ? xs : ys;
        if (x) x += xs;
        y += forward || op == MAX_PICK ? ys : xs;
    }
}
#define POOL4(VB) pool_planes<float, VB>
#define POOL8(VB) pool_planes<double, VB>
CG_VERSIONS(pool4, POOL4, (PoolOp op, const PoolGeometry &g, int lanes, int64_t n, const float *a, const float *x, float *y),
            (op, g, lanes, n, a, x, y))
CG_VERSIONS(pool8, POOL8, (PoolOp op, const PoolGeometry &g, int lanes, int64_t n, const double *a, const double *x, double *y),
            (op, g, lanes, n, a, x, y))
inline void pool(PoolOp op, const PoolGeometry &g, int lanes, int64_t n, const float *a, const float *x, float *y) {
    pool4(op, g, lanes, n, a, x, y);
}
inline void pool(PoolOp op, const PoolGeometry &g, int lanes, int64_t n, const double *a, const double *x, double *y) {
    pool8(op, g, lanes, n, a, x, y);
}

template <class T> struct PoolKernel : Kernel {
    PoolGeometry g;
    PoolOp op = MAX_FORWARD;
    int lanes = 1;

    static void call(const cg_call *c, const cg_context *) {
        const auto *self = static_cast<const PoolKernel *>(c->state);
        const PoolGeometry &g = self->g;
        const bool forward = self->op == MAX_FORWARD || self->op == AVG_FORWARD;
        const T *a = forward ? nullptr : (const T *)c->buf[0];
        const T *x = forward ? (const T *)c->buf[0] : self->op == AVG_BACKWARD ? nullptr : (const T *)c->buf[1];
        T *y = (T *)c->buf[self->nbuf - 1];
        const int64_t xs = g.X * self->lanes, ys = g.P * self->lanes, planes = g.N * g.C / self->lanes;
        parallel_range(planes, g.N * g.C * std::max(g.X, g.P * g.V), [&](int64_t b, int64_t e) {
            pool(self->op, g, self->lanes, e - b, a ? a + b * (self->op == MAX_PICK ? xs : ys) : nullptr,
                 x ? x + b * xs : nullptr, y + b * (forward || self->op == MAX_PICK ? ys : xs));
        });
    }
};

template <class T> Kernel *pooling(const std::string &kind, const std::string &mode, const PoolArgs &args) {
    auto k = std::make_unique<PoolKernel<T>>();
    PoolGeometry &g = k->g;
    const Dims ones(args.window.size(), 1);
    spatial("Pooling", g, args.x, args.y, args.window, 0, args.strides, ones, args.pad_lo, args.pad_hi);
    if (g.C != g.O) bad("Pooling: expected as many channels in y as in x, got " + show(args.y) + " and " + show(args.x));
    const bool is_max = mode == "max";
    if (!is_max && mode != "avg_exclude_pad" && mode != "avg_include_pad")
        bad("Pooling: expected mode 'max', 'avg_exclude_pad' or 'avg_include_pad', got '" + mode + "'");
    if (kind == "forward") k->op = is_max ? MAX_FORWARD : AVG_FORWARD;
    else if (kind == "backward") k->op = is_max ? MAX_BACKWARD : AVG_BACKWARD;
    else if (kind == "pick" && is_max) k->op = MAX_PICK;
    else bad("Pooling: expected kind 'forward', 'backward' or (of 'max') 'pick', got '" + kind + "'");
    if (args.layout == "c16") k->lanes = 16;
    else if (args.layout != "plain") bad("Pooling: expected layout 'plain' or 'c16', got '" + args.layout + "'");
    if (g.C % k->lanes) bad("Pooling: expected a multiple of 16 channels in layout 'c16', got " + std::to_string(g.C));
    g.include = mode == "avg_include_pad";
    g.exact = true;
    for (int d = 0; d < 3; d++)
        g.exact = g.exact && g.stride[d] == g.window[d] && g.pad[d] == 0 && g.in[d] == g.out[d] * g.window[d];
    g.lo.resize(g.window[2]), g.hi.resize(g.window[2]);
    for (int64_t w = 0; w < g.window[2]; w++) g.valid(2, w, &g.lo[w], &g.hi[w]);
    k->run = PoolKernel<T>::call;
    k->nbuf = k->op == MAX_BACKWARD || k->op == MAX_PICK ? 3 : 2;
    return k.release();
}

} // namespace

Kernel *make_pooling(const std::string &kind, const std::string &mode, const std::string &dtype, const PoolArgs &args) {
    return is_double("Pooling", dtype) ? pooling<double>(kind, mode, args) : pooling<float>(kind, mode, args);
}

} // namespace cg
