#include "reduce.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

namespace cg {
namespace {

constexpr int MAX_DIMS = 12;
constexpr int MAX_LANES = 64;    /* kept elements that lie side by side and are reduced together */
constexpr int MAX_SEGMENTS = 64;
constexpr int64_t BLOCK_BYTES = 16384; /* a block is read twice, the second time from the first-level cache */
constexpr int64_t BLOCK_LEAST = 2048;

/* Reduced elements (of one lane or of all) at equal distances. */
template <class T> struct Segment {
    const T *p;
    int64_t n;
};

struct Axis {
    int64_t n, x, y; /* size, input stride, output stride (kept only) */
};

// ---------------------------------------------------------------- how a reduction walks over memory

/* kept dimensions x lanes x reduced dimensions. Lanes: the kept dimension of stride 1, if the reduced ones are not contiguous. */
template <class T> struct Walk {
    int kept_count = 0, reduced_count = 0;
    Axis kept[MAX_DIMS], reduced[MAX_DIMS]; /* reduced: without the innermost, which is `run` */
    Axis lane{1, 1, 0}, run{1, 0, 0};
    int64_t outer = 1, total = 1, size = 0; /* kept elements without lanes, reduced elements, all elements */
    int64_t lanes = 1, lane_tiles = 1;      /* lanes of one task */
    int64_t splits = 1, block = 1;          /* parts of the reduced elements; elements of a block */
    int64_t x_offset = 0, y_offset = 0;

    int64_t tasks() const { return outer * lane_tiles * splits; }

    void plan(const char *who, const Dims &dims, const Dims &strides, const Dims &out_strides) {
        const size_t rank = dims.size();
        if (strides.size() != rank || out_strides.size() != rank)
            bad(std::string(who) + ": expected as many strides as dims (" + std::to_string(rank) + "), got " +
                std::to_string(strides.size()) + " and " + std::to_string(out_strides.size()));
        check_sizes(who, dims);
        size = product(dims);
        std::vector<Axis> k, r;
        for (size_t i = 0; i < rank; i++) {
            Axis a{dims[i], strides[i], out_strides[i]};
            if (a.n == 1) continue;
            if (a.x < 0 && a.n > 0) {
                x_offset += (a.n - 1) * a.x, y_offset += (a.n - 1) * a.y;
                a.x = -a.x, a.y = -a.y;
            }
            (a.y ? k : r).push_back(a);
        }
        join(k), join(r);
        if (!r.empty()) {
            run = r.back();
            r.pop_back();
        }
        for (const Axis &a : r) total *= a.n;
        total *= run.n;
        if (run.x != 1 || run.n == 1)
            for (size_t i = 0; i < k.size(); i++)
                if (k[i].x == 1) {
                    lane = k[i];
                    k.erase(k.begin() + i);
                    break;
                }
        for (const Axis &a : k) outer *= a.n;
        if (k.size() > MAX_DIMS || r.size() > MAX_DIMS)
            bad(std::string(who) + ": expected at most 12 dimensions that do not join");
        kept_count = int(k.size()), reduced_count = int(r.size());
        std::copy(k.begin(), k.end(), kept), std::copy(r.begin(), r.end(), reduced);

        constexpr int64_t W = 64 / sizeof(T);
        lanes = lane.n >= W ? std::min<int64_t>(MAX_LANES, lane.n / W * W) : std::min<int64_t>(lane.n, MAX_LANES);
        lanes = std::max<int64_t>(1, lanes);
        lane_tiles = ceil_div(lane.n, lanes);
        block = std::max<int64_t>(16, BLOCK_BYTES / (int64_t)sizeof(T) / lanes);
        if (lanes == 1) block = std::max(block, BLOCK_LEAST);
        /* Few results of many elements each: cut the elements, by the sizes alone. */
        const int64_t want = ceil_div(32, std::max<int64_t>(1, outer * lane_tiles));
        splits = std::max<int64_t>(1, std::min(want, total * lanes / SMALL));
    }

    static void join(std::vector<Axis> &a) {
        std::stable_sort(a.begin(), a.end(),
                         [](const Axis &p, const Axis &q) { return (p.x ? p.x : INT64_MAX) > (q.x ? q.x : INT64_MAX); });
        for (size_t i = 0; i + 1 < a.size();) {
            if (a[i].x == a[i + 1].x * a[i + 1].n && a[i].y == a[i + 1].y * a[i + 1].n) {
                a[i + 1].n *= a[i].n;
                a.erase(a.begin() + i);
                if (i) i--;
            } else {
                i++;
            }
        }
    }

    void locate(int64_t o, int64_t *x, int64_t *y) const {
        *x = x_offset, *y = y_offset;
        for (int i = kept_count - 1; i >= 0; i--) {
            const int64_t at = o % kept[i].n;
            o /= kept[i].n;
            *x += at * kept[i].x, *y += at * kept[i].y;
        }
    }

    /* f(segments, count, elements) for blocks of the reduced elements [begin, end). */
    template <class F> void blocks(const T *x, int64_t begin, int64_t end, F &&f) const {
        if (begin >= end) return;
        int64_t at[MAX_DIMS], rest = begin / run.n, inner = begin % run.n;
        for (int i = reduced_count - 1; i >= 0; i--) {
            at[i] = rest % reduced[i].n;
            rest /= reduced[i].n;
            x += at[i] * reduced[i].x;
        }
        Segment<T> segments[MAX_SEGMENTS];
        for (int64_t done = begin; done < end;) {
            int count = 0;
            int64_t elements = 0;
            while (done < end && elements < block && count < MAX_SEGMENTS) {
                const int64_t n = std::min({run.n - inner, block - elements, end - done});
                segments[count++] = Segment<T>{x + inner * run.x, n};
                elements += n, done += n, inner += n;
                if (inner < run.n) continue;
                inner = 0;
                for (int i = reduced_count - 1; i >= 0; i--) {
                    x += reduced[i].x;
                    if (++at[i] < reduced[i].n) break;
                    x -= reduced[i].n * reduced[i].x;
                    at[i] = 0;
                }
            }
            f(segments, count, elements);
        }
    }
};

// ---------------------------------------------------------------- moments

/* A macro, since functions that return vectors of a set that the build does not enable have no agreed interface. */
#define LOAD(p)                                                                                                                  \
    ({                                                                                                                           \
        V v_;                                                                                                                    \
        __builtin_memcpy(&v_, (p), sizeof(V));                                                                                   \
        v_;                                                                                                                      \
    })

/* Contiguous elements: their mean and the sum of squares about it. */
template <class T, int VB>
static CG_INLINE void contiguous(const Segment<T> *segments, int count, int64_t elements, double *mean, double *m2) {
    typedef T V __attribute__((vector_size(VB)));
    constexpr int W = VB / sizeof(T);
    V s0{}, s1{}, s2{}, s3{};
    T tail = 0, lanes[2][W];
    for (int i = 0; i < count; i++) {
        const T *p = segments[i].p, *end = p + segments[i].n;
        for (; p + 4 * W <= end; p += 4 * W) s0 += LOAD(p), s1 += LOAD(p + W), s2 += LOAD(p + 2 * W), s3 += LOAD(p + 3 * W);
        for (; p + W <= end; p += W) s0 += LOAD(p);
        for (; p < end; p++) tail += *p;
    }
    s0 = (s0 + s1) + (s2 + s3);
    __builtin_memcpy(lanes[0], &s0, VB);
    double total = tail;
    for (int w = 0; w < W; w++) total += lanes[0][w];
    const T center = T(total / double(elements));
    const V c = V{} + center;
    V q0{}, q1{}, q2{}, q3{};
    s0 = s1 = V{};
    T q = 0, d = 0;
    for (int i = 0; i < count; i++) {
        const T *p = segments[i].p, *end = p + segments[i].n;
        for (; p + 4 * W <= end; p += 4 * W) {
            const V a = LOAD(p) - c, b = LOAD(p + W) - c, e = LOAD(p + 2 * W) - c, f = LOAD(p + 3 * W) - c;
            s0 += a + b, s1 += e + f;
            q0 += a * a, q1 += b * b, q2 += e * e, q3 += f * f;
        }
        for (; p + W <= end; p += W) {
            const V a = LOAD(p) - c;
            s0 += a, q0 += a * a;
        }
        for (; p < end; p++) d += *p - center, q += (*p - center) * (*p - center);
    }
    s0 += s1, q0 = (q0 + q1) + (q2 + q3);
    __builtin_memcpy(lanes[0], &s0, VB);
    __builtin_memcpy(lanes[1], &q0, VB);
    double ds = d, dq = q;
    for (int w = 0; w < W; w++) ds += lanes[0][w], dq += lanes[1][w];
    *mean = double(center) + ds / double(elements); /* the rounding of the center is taken back */
    *m2 = std::max(0.0, dq - ds * ds / double(elements));
}

/* NV vectors of lanes, `lane` elements into the rows; segments step over rows of `step` elements. */
template <class T, int NV, int VB>
static CG_INLINE void vectors(const Segment<T> *segments, int count, int64_t step, int64_t lane, int64_t elements, double *mean,
                              double *m2) {
    typedef T V __attribute__((vector_size(VB)));
    constexpr int W = VB / sizeof(T), U = NV == 1 ? 4 : NV == 2 ? 2 : 1; /* rows at a time, to hide the latency of the sums */
    V s[U][NV], q[U][NV], c[NV];
#pragma GCC unroll 4
    for (int u = 0; u < U; u++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) s[u][v] = V{};
    for (int i = 0; i < count; i++) {
        const T *p = segments[i].p + lane;
        int64_t r = 0;
        for (; r + U <= segments[i].n; r += U)
#pragma GCC unroll 4
            for (int u = 0; u < U; u++, p += step)
#pragma GCC unroll 4
                for (int v = 0; v < NV; v++) s[u][v] += LOAD(p + v * W);
        for (; r < segments[i].n; r++, p += step)
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++) s[0][v] += LOAD(p + v * W);
    }
    const T inverse = T(1) / T(elements);
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
#pragma GCC unroll 4
        for (int u = 1; u < U; u++) s[0][v] += s[u][v];
        c[v] = s[0][v] * inverse;
#pragma GCC unroll 4
        for (int u = 0; u < U; u++) s[u][v] = q[u][v] = V{};
    }
    for (int i = 0; i < count; i++) {
        const T *p = segments[i].p + lane;
        int64_t r = 0;
        for (; r + U <= segments[i].n; r += U)
#pragma GCC unroll 4
            for (int u = 0; u < U; u++, p += step)
#pragma GCC unroll 4
                for (int v = 0; v < NV; v++) {
                    const V a = LOAD(p + v * W) - c[v];
                    s[u][v] += a, q[u][v] += a * a;
                }
        for (; r < segments[i].n; r++, p += step)
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++) {
                const V a = LOAD(p + v * W) - c[v];
                s[0][v] += a, q[0][v] += a * a;
            }
    }
    T lanes[3][NV * W];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
#pragma GCC unroll 4
        for (int u = 1; u < U; u++) s[0][v] += s[u][v], q[0][v] += q[u][v];
        __builtin_memcpy(lanes[0] + v * W, &c[v], VB);
        __builtin_memcpy(lanes[1] + v * W, &s[0][v], VB);
        __builtin_memcpy(lanes[2] + v * W, &q[0][v], VB);
    }
    const double share = 1.0 / double(elements);
    for (int l = 0; l < NV * W; l++) {
        const double d = lanes[1][l], e = double(lanes[2][l]) - d * d * share;
        mean[lane + l] = double(lanes[0][l]) + d * share;
        m2[lane + l] = e > 0 || e != e ? e : 0.0;
    }
}

/* Any number of lanes, in doubles. */
template <class T>
static CG_INLINE void scalars(const Segment<T> *segments, int count, int64_t step, int64_t lane, int64_t lanes, int64_t elements,
                              double *mean, double *m2) {
    double s[MAX_LANES];
    for (int64_t l = 0; l < lanes; l++) s[l] = 0;
    for (int i = 0; i < count; i++) {
        const T *p = segments[i].p + lane;
        for (int64_t r = 0; r < segments[i].n; r++, p += step)
            for (int64_t l = 0; l < lanes; l++) s[l] += p[l];
    }
    mean += lane, m2 += lane;
    for (int64_t l = 0; l < lanes; l++) mean[l] = s[l] / double(elements), s[l] = 0;
    for (int i = 0; i < count; i++) {
        const T *p = segments[i].p + lane;
        for (int64_t r = 0; r < segments[i].n; r++, p += step)
            for (int64_t l = 0; l < lanes; l++) {
                const double d = p[l] - mean[l];
                s[l] += d * d;
            }
    }
    for (int64_t l = 0; l < lanes; l++) m2[l] = s[l];
}

template <class T, int VB>
static CG_INLINE void moments_block(const Segment<T> *segments, int count, int64_t step, int64_t lanes, int64_t elements,
                                    double *mean, double *m2) {
    constexpr int W = VB / sizeof(T);
    if (lanes == 1 && step == 1) return contiguous<T, VB>(segments, count, elements, mean, m2);
    int64_t l = 0;
    for (; l + 4 * W <= lanes; l += 4 * W) vectors<T, 4, VB>(segments, count, step, l, elements, mean, m2);
    for (; l + 2 * W <= lanes; l += 2 * W) vectors<T, 2, VB>(segments, count, step, l, elements, mean, m2);
    for (; l + W <= lanes; l += W) vectors<T, 1, VB>(segments, count, step, l, elements, mean, m2);
    if (l < lanes) scalars<T>(segments, count, step, l, lanes - l, elements, mean, m2);
}
#define MOMENTS4(VB) moments_block<float, VB>
#define MOMENTS8(VB) moments_block<double, VB>
CG_VERSIONS(moments4, MOMENTS4,
            (const Segment<float> *s, int count, int64_t step, int64_t lanes, int64_t n, double *mean, double *m2),
            (s, count, step, lanes, n, mean, m2))
CG_VERSIONS(moments8, MOMENTS8,
            (const Segment<double> *s, int count, int64_t step, int64_t lanes, int64_t n, double *mean, double *m2),
            (s, count, step, lanes, n, mean, m2))
inline void block_moments(const Segment<float> *s, int count, int64_t step, int64_t lanes, int64_t elements, double *mean,
                          double *m2) {
    moments4(s, count, step, lanes, elements, mean, m2);
}
inline void block_moments(const Segment<double> *s, int count, int64_t step, int64_t lanes, int64_t elements, double *mean,
                          double *m2) {
    moments8(s, count, step, lanes, elements, mean, m2);
}

/* Chan, Golub, LeVeque 1979: moments of a union from the moments of its parts. */
inline void unite(double n, double *mean, double *m2, double nb, const double *mean_b, const double *m2_b, int64_t lanes) {
    const double share = nb / (n + nb), weight = n * share;
    for (int64_t l = 0; l < lanes; l++) {
        const double d = mean_b[l] - mean[l];
        mean[l] += d * share;
        m2[l] += m2_b[l] + d * d * weight;
    }
}

template <class T> struct MomentsKernel : Kernel {
    Walk<T> walk;

    /* mean = sum x / n, var = sum (x - mean)^2 / n; both 0 where n = 0, so that an empty minibatch spoils no running statistic.
     */
    static void call(const cg_call *c, const cg_context *) {
        const auto *self = static_cast<const MomentsKernel *>(c->state);
        const Walk<T> &w = self->walk;
        const T *x = (const T *)c->buf[0];
        T *mean = (T *)c->buf[1], *var = (T *)c->buf[2];
        double *parts = self->scratch ? (double *)c->buf[3] : nullptr;
        const auto finish = [&](int64_t o, int64_t tile, int64_t lanes, const double *m, const double *m2) {
            int64_t xo, yo;
            w.locate(o, &xo, &yo);
            yo += tile * w.lanes * w.lane.y;
            for (int64_t l = 0; l < lanes; l++) {
                mean[yo + l * w.lane.y] = w.total ? T(m[l]) : T(0);
                var[yo + l * w.lane.y] = w.total ? T(m2[l] / double(w.total)) : T(0);
            }
        };
        parallel(w.tasks(), w.size, [&](int64_t task) {
            const int64_t s = task % w.splits, tile = task / w.splits % w.lane_tiles, o = task / w.splits / w.lane_tiles;
            const int64_t lanes = std::min(w.lanes, w.lane.n - tile * w.lanes);
            const int64_t begin = w.total * s / w.splits, end = w.total * (s + 1) / w.splits;
            double m[MAX_LANES], m2[MAX_LANES], mb[MAX_LANES], m2b[MAX_LANES];
            std::fill(m, m + lanes, 0.0), std::fill(m2, m2 + lanes, 0.0);
            int64_t xo, yo;
            w.locate(o, &xo, &yo);
            int64_t n = 0;
            w.blocks(x + xo + tile * w.lanes, begin, end, [&](const Segment<T> *segments, int count, int64_t elements) {
                if (n == 0) {
                    block_moments(segments, count, w.run.x, lanes, elements, m, m2);
                } else {
                    block_moments(segments, count, w.run.x, lanes, elements, mb, m2b);
                    unite(double(n), m, m2, double(elements), mb, m2b, lanes);
                }
                n += elements;
            });
            if (w.splits == 1) return finish(o, tile, lanes, m, m2);
            double *part = parts + task * 2 * MAX_LANES;
            std::copy(m, m + lanes, part), std::copy(m2, m2 + lanes, part + MAX_LANES);
        });
        if (w.splits == 1) return;
        for (int64_t t = 0; t < w.outer * w.lane_tiles; t++) {
            const int64_t tile = t % w.lane_tiles, lanes = std::min(w.lanes, w.lane.n - tile * w.lanes);
            double *first = parts + t * w.splits * 2 * MAX_LANES;
            for (int64_t s = 1; s < w.splits; s++) {
                const int64_t begin = w.total * s / w.splits, end = w.total * (s + 1) / w.splits;
                const double *part = first + s * 2 * MAX_LANES;
                unite(double(begin), first, first + MAX_LANES, double(end - begin), part, part + MAX_LANES, lanes);
            }
            finish(t / w.lane_tiles, tile, lanes, first, first + MAX_LANES);
        }
    }
};

// ---------------------------------------------------------------- log-sum-exp

/* exp(x): 2^n exp(r), |r| <= log(2)/2, exp(r) by its Taylor polynomial; 0 and inf beyond the range; NaN stays. Vectorises. */
static CG_INLINE float exponential(float x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    const float top = x > 88.7f ? 88.7f : x, v = top < -87.3f ? -87.3f : top;
    const float t = v * 1.44269504f + magic, n = t - magic;
    const float r = (v - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720, p = p * r + 1.0f / 120, p = p * r + 1.0f / 24, p = p * r + 1.0f / 6, p = p * r + 0.5f;
    p = p * r + 1.0f, p = p * r + 1.0f;
    int32_t bits;
    memcpy(&bits, &t, 4);
    bits = (bits - 0x4B400000 + 126) << 23; /* half of 2^n, so that n = 128 fits */
    float scale;
    memcpy(&scale, &bits, 4);
    const float y = p * scale * 2.0f;
    return x < -87.3f ? 0.0f : x > 88.7f ? std::numeric_limits<float>::infinity() : y;
}
static CG_INLINE double exponential(double x) {
    const double magic = 6755399441055744.0; /* 1.5 * 2^52 */
    const double top = x > 709.7 ? 709.7 : x, v = top < -708.3 ? -708.3 : top;
    const double t = v * 1.4426950408889634 + magic, n = t - magic;
    const double r = (v - n * 0.693145751953125) - n * 1.42860682030941723212e-6;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0, p = p * r + 1.0 / 39916800.0, p = p * r + 1.0 / 3628800.0, p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0, p = p * r + 1.0 / 5040.0, p = p * r + 1.0 / 720.0, p = p * r + 1.0 / 120.0, p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0, p = p * r + 0.5, p = p * r + 1.0, p = p * r + 1.0;
    int64_t bits;
    memcpy(&bits, &t, 8);
    bits = int64_t(uint64_t(bits - 0x4338000000000000 + 1022) << 52);
    double scale;
    memcpy(&scale, &bits, 8);
    const double y = p * scale * 2.0;
    return x < -708.3 ? 0.0 : x > 709.7 ? std::numeric_limits<double>::infinity() : y;
}

/* top, sum: running maximum and sum of exp(x - top) of each lane, carried on over one block. */
template <class T>
static CG_INLINE void log_sum_exp_block(const Segment<T> *segments, int count, int64_t step, int64_t lanes, T *top, double *sum) {
    constexpr T INF = std::numeric_limits<T>::infinity();
    T m[MAX_LANES], shift[MAX_LANES];
    if (lanes == 1 && step == 1) {
        T best = top[0];
        for (int i = 0; i < count; i++) {
            const T *p = segments[i].p;
            T b = best;
#pragma omp simd reduction(max : b)
            for (int64_t r = 0; r < segments[i].n; r++) b = p[r] > b ? p[r] : b;
            best = b;
        }
        m[0] = best;
    } else {
        for (int64_t l = 0; l < lanes; l++) m[l] = top[l];
        for (int i = 0; i < count; i++) {
            const T *p = segments[i].p;
            for (int64_t r = 0; r < segments[i].n; r++, p += step)
                for (int64_t l = 0; l < lanes; l++) m[l] = p[l] > m[l] ? p[l] : m[l];
        }
    }
    for (int64_t l = 0; l < lanes; l++) {
        /* An infinite maximum is not subtracted: -inf gives 0, +inf inf, and a NaN among them stays one. */
        shift[l] = m[l] == INF || m[l] == -INF ? T(0) : m[l];
        if (m[l] != top[l]) sum[l] = sum[l] * std::exp(double(top[l]) - double(shift[l]));
        top[l] = m[l];
    }
    if (lanes == 1 && step == 1) {
        const T c = shift[0];
        double all = 0;
        for (int i = 0; i < count; i++) {
            const T *p = segments[i].p;
            T s = 0;
#pragma omp simd reduction(+ : s)
            for (int64_t r = 0; r < segments[i].n; r++) s += exponential(p[r] - c);
            all += s;
        }
        sum[0] += all;
    } else {
        T s[MAX_LANES];
        for (int64_t l = 0; l < lanes; l++) s[l] = 0;
        for (int i = 0; i < count; i++) {
            const T *p = segments[i].p;
            for (int64_t r = 0; r < segments[i].n; r++, p += step)
                for (int64_t l = 0; l < lanes; l++) s[l] += exponential(p[l] - shift[l]);
        }
        for (int64_t l = 0; l < lanes; l++) sum[l] += s[l];
    }
}
CG_CLONES void lse4(const Segment<float> *s, int count, int64_t step, int64_t lanes, float *top, double *sum) {
    log_sum_exp_block<float>(s, count, step, lanes, top, sum);
}
CG_CLONES void lse8(const Segment<double> *s, int count, int64_t step, int64_t lanes, double *top, double *sum) {
    log_sum_exp_block<double>(s, count, step, lanes, top, sum);
}
inline void block_lse(const Segment<float> *s, int count, int64_t step, int64_t lanes, float *top, double *sum) {
    lse4(s, count, step, lanes, top, sum);
}
inline void block_lse(const Segment<double> *s, int count, int64_t step, int64_t lanes, double *top, double *sum) {
    lse8(s, count, step, lanes, top, sum);
}

template <class T> struct LogSumExpKernel : Kernel {
    Walk<T> walk;

    /* y = log sum exp x; -inf where there is nothing to sum. */
    static void call(const cg_call *c, const cg_context *) {
        constexpr T INF = std::numeric_limits<T>::infinity();
        const auto *self = static_cast<const LogSumExpKernel *>(c->state);
        const Walk<T> &w = self->walk;
        const T *x = (const T *)c->buf[0];
        T *y = (T *)c->buf[1];
        double *parts = self->scratch ? (double *)c->buf[2] : nullptr;
        const auto finish = [&](int64_t o, int64_t tile, int64_t lanes, const auto *top, const double *sum) {
            int64_t xo, yo;
            w.locate(o, &xo, &yo);
            yo += tile * w.lanes * w.lane.y;
            for (int64_t l = 0; l < lanes; l++) y[yo + l * w.lane.y] = T(double(top[l]) + std::log(sum[l]));
        };
        parallel(w.tasks(), w.size * 8, [&](int64_t task) {
            const int64_t s = task % w.splits, tile = task / w.splits % w.lane_tiles, o = task / w.splits / w.lane_tiles;
            const int64_t lanes = std::min(w.lanes, w.lane.n - tile * w.lanes);
            const int64_t begin = w.total * s / w.splits, end = w.total * (s + 1) / w.splits;
            T top[MAX_LANES];
            double sum[MAX_LANES];
            std::fill(top, top + lanes, -INF), std::fill(sum, sum + lanes, 0.0);
            int64_t xo, yo;
            w.locate(o, &xo, &yo);
            w.blocks(x + xo + tile * w.lanes, begin, end, [&](const Segment<T> *segments, int count, int64_t) {
                block_lse(segments, count, w.run.x, lanes, top, sum);
            });
            if (w.splits == 1) return finish(o, tile, lanes, top, sum);
            double *part = parts + task * 2 * MAX_LANES;
            std::copy(top, top + lanes, part), std::copy(sum, sum + lanes, part + MAX_LANES);
        });
        if (w.splits == 1) return;
        for (int64_t t = 0; t < w.outer * w.lane_tiles; t++) {
            const int64_t tile = t % w.lane_tiles, lanes = std::min(w.lanes, w.lane.n - tile * w.lanes);
            double *first = parts + t * w.splits * 2 * MAX_LANES;
            for (int64_t l = 0; l < lanes; l++) {
                double top = first[l], sum = 0;
                for (int64_t s = 0; s < w.splits; s++) top = std::max(top, first[s * 2 * MAX_LANES + l]);
                for (int64_t s = 0; s < w.splits; s++) {
                    const double *part = first + s * 2 * MAX_LANES;
                    /* equal infinities cancel to NaN, so they are not subtracted */
                    sum += part[l] == top ? part[MAX_LANES + l] : part[MAX_LANES + l] * std::exp(part[l] - top);
                }
                first[l] = top, first[MAX_LANES + l] = sum;
            }
            finish(t / w.lane_tiles, tile, lanes, first, first + MAX_LANES);
        }
    }
};

template <class K, class T>
Kernel *walking(const char *who, int buffers, const Dims &dims, const Dims &strides, const Dims &out_strides) {
    auto k = std::make_unique<K>();
    k->walk.plan(who, dims, strides, out_strides);
    k->scratch = k->walk.splits > 1 ? k->walk.tasks() * 2 * MAX_LANES * (int64_t)sizeof(double) : 0;
    k->run = K::call;
    k->nbuf = buffers + (k->scratch > 0);
    return k.release();
}

// ---------------------------------------------------------------- indices of extrema, the k largest

/* a goes before b: larger, NaN first. */
template <class T> static CG_INLINE bool above(T a, T b) { return a > b || (a != a && b == b); }

template <class T, bool MAX> static CG_INLINE void arg_contiguous(const T *x, int64_t n, T *y) {
    T best = -std::numeric_limits<T>::infinity();
    int nan = 0;
#pragma omp simd reduction(max : best) reduction(| : nan)
    for (int64_t i = 0; i < n; i++) {
        const T v = MAX ? x[i] : -x[i];
        nan |= v != v;
        best = v > best ? v : best;
    }
    int64_t i = 0;
    if (nan)
        while (x[i] == x[i]) i++;
    else {
        const T want = MAX ? best : -best;
        while (x[i] != want) i++;
    }
    *y = T(i);
}

template <class T, bool MAX> static CG_INLINE void arg_lanes(const T *x, int64_t n, int64_t inner, int64_t lanes, T *y) {
    T best[MAX_LANES], at[MAX_LANES];
    for (int64_t l = 0; l < lanes; l++) best[l] = x[l], at[l] = 0;
    for (int64_t i = 1; i < n; i++) {
        const T *p = x + i * inner;
        const T index = T(i);
        for (int64_t l = 0; l < lanes; l++) {
            const bool better = (MAX ? p[l] > best[l] : p[l] < best[l]) | ((p[l] != p[l]) & (best[l] == best[l]));
            best[l] = better ? p[l] : best[l];
            at[l] = better ? index : at[l];
        }
    }
    for (int64_t l = 0; l < lanes; l++) y[l] = at[l];
}

/* Few classes: a loop of the plain kind costs less than starting a vector one. */
template <class T, bool MAX> static CG_INLINE void arg_rows(const T *x, int64_t rows, int64_t n, T *y) {
    for (int64_t r = 0; r < rows; r++, x += n) {
        if (n > 64) {
            arg_contiguous<T, MAX>(x, n, y + r);
            continue;
        }
        T best = x[0];
        int64_t at = 0;
        for (int64_t i = 1; i < n; i++)
            if ((MAX ? x[i] > best : x[i] < best) || (x[i] != x[i] && best == best)) best = x[i], at = i;
        y[r] = T(at);
    }
}

#define ARG(name, T)                                                                                                             \
    CG_CLONES void name##_rows(bool is_max, const T *x, int64_t rows, int64_t n, T *y) {                                         \
        if (is_max) arg_rows<T, true>(x, rows, n, y);                                                                            \
        else arg_rows<T, false>(x, rows, n, y);                                                                                  \
    }                                                                                                                            \
    CG_CLONES void name##_lanes(bool is_max, const T *x, int64_t n, int64_t inner, int64_t lanes, T *y) {                        \
        if (is_max) arg_lanes<T, true>(x, n, inner, lanes, y);                                                                   \
        else arg_lanes<T, false>(x, n, inner, lanes, y);                                                                         \
    }                                                                                                                            \
    inline void rows_of(bool is_max, const T *x, int64_t rows, int64_t n, T *y) { name##_rows(is_max, x, rows, n, y); }          \
    inline void lanes_of(bool is_max, const T *x, int64_t n, int64_t inner, int64_t lanes, T *y) {                               \
        name##_lanes(is_max, x, n, inner, lanes, y);                                                                             \
    }
ARG(arg4, float)
ARG(arg8, double)
#undef ARG

template <class T> struct ArgKernel : Kernel {
    bool is_max = true;
    int64_t outer = 0, n = 0, inner = 1;

    /* y[o, j] = the first i with the extremal x[o, i, j]; the first NaN, if there is one. */
    static void call(const cg_call *c, const cg_context *) {
        const auto *self = static_cast<const ArgKernel *>(c->state);
        const T *x = (const T *)c->buf[0];
        T *y = (T *)c->buf[1];
        const int64_t n = self->n, inner = self->inner;
        if (inner == 1)
            return parallel_range(self->outer, self->outer * n,
                                  [&](int64_t b, int64_t e) { rows_of(self->is_max, x + b * n, e - b, n, y + b); });
        const int64_t tiles = ceil_div(inner, MAX_LANES);
        parallel_range(self->outer * tiles, self->outer * n * inner, [&](int64_t b, int64_t e) {
            for (int64_t t = b; t < e; t++) {
                const int64_t o = t / tiles, j = t % tiles * MAX_LANES;
                lanes_of(self->is_max, x + o * n * inner + j, n, inner, std::min<int64_t>(MAX_LANES, inner - j),
                         y + o * inner + j);
            }
        });
    }
};

template <class T> struct TopKKernel : Kernel {
    int64_t outer = 0, n = 0, inner = 1, k = 1;

    /* values[o, :, j] = the k largest x[o, :, j], largest first, equal ones by index; a heap in the outputs themselves. */
    static void call(const cg_call *c, const cg_context *) {
        const auto *self = static_cast<const TopKKernel *>(c->state);
        const T *x = (const T *)c->buf[0];
        T *values = (T *)c->buf[1], *indices = (T *)c->buf[2];
        const int64_t n = self->n, inner = self->inner, k = self->k;
        if (k == 0) return;
        parallel_range(self->outer * inner, self->outer * n * inner, [&](int64_t b, int64_t e) {
            for (int64_t t = b; t < e; t++) {
                const int64_t o = t / inner, j = t % inner;
                one(x + o * n * inner + j, n, inner, k, values + o * k * inner + j, indices + o * k * inner + j);
            }
        });
    }

    static void one(const T *x, int64_t n, int64_t step, int64_t k, T *values, T *indices) {
        /* Root: the worst of those kept, that is the smallest, and of equal ones the last. */
        const auto before = [](T a, T ia, T b, T ib) { return above(a, b) || (!above(b, a) && ia < ib); };
        const auto sift = [&](int64_t i, int64_t size, T v, T index) {
            for (;;) {
                int64_t child = 2 * i + 1;
                if (child >= size) break;
                if (child + 1 < size &&
                    before(values[child * step], indices[child * step], values[(child + 1) * step], indices[(child + 1) * step]))
                    child++;
                if (!before(v, index, values[child * step], indices[child * step])) break;
                values[i * step] = values[child * step], indices[i * step] = indices[child * step];
                i = child;
            }
            values[i * step] = v, indices[i * step] = index;
        };
        for (int64_t i = 0; i < k; i++) values[i * step] = x[i * step], indices[i * step] = T(i);
        for (int64_t i = k / 2 - 1; i >= 0; i--) sift(i, k, values[i * step], indices[i * step]);
        for (int64_t i = k; i < n; i++)
            if (above(x[i * step], values[0])) sift(0, k, x[i * step], T(i));
        for (int64_t size = k - 1; size > 0; size--) {
            const T v = values[size * step], index = indices[size * step];
            values[size * step] = values[0], indices[size * step] = indices[0];
            sift(0, size, v, index);
        }
    }
};

template <class T> Kernel *arg(bool is_max, int64_t outer, int64_t n, int64_t inner) {
    auto k = std::make_unique<ArgKernel<T>>();
    k->run = ArgKernel<T>::call, k->nbuf = 2;
    k->is_max = is_max, k->outer = outer, k->n = n, k->inner = inner;
    return k.release();
}
template <class T> Kernel *top(int64_t outer, int64_t n, int64_t inner, int64_t count) {
    auto k = std::make_unique<TopKKernel<T>>();
    k->run = TopKKernel<T>::call, k->nbuf = 3;
    k->outer = outer, k->n = n, k->inner = inner, k->k = count;
    return k.release();
}

} // namespace

Kernel *make_moments(const Dims &dims, const Dims &strides, const Dims &out_strides, const std::string &dtype) {
    return is_double("Moments", dtype) ? walking<MomentsKernel<double>, double>("Moments", 3, dims, strides, out_strides)
                                       : walking<MomentsKernel<float>, float>("Moments", 3, dims, strides, out_strides);
}

Kernel *make_log_sum_exp(const Dims &dims, const Dims &strides, const Dims &out_strides, const std::string &dtype) {
    return is_double("LogSumExp", dtype) ? walking<LogSumExpKernel<double>, double>("LogSumExp", 2, dims, strides, out_strides)
                                         : walking<LogSumExpKernel<float>, float>("LogSumExp", 2, dims, strides, out_strides);
}

Kernel *make_arg_reduce(const std::string &kind, int64_t outer, int64_t n, int64_t inner, const std::string &dtype) {
    if (kind != "max" && kind != "min") bad("ArgReduce: expected kind 'max' or 'min', got '" + kind + "'");
    check_sizes("ArgReduce", {outer, n, inner});
    if (n == 0 && outer * inner > 0) bad("ArgReduce: expected at least one element, got n = 0");
    return is_double("ArgReduce", dtype) ? arg<double>(kind == "max", outer, n, inner)
                                         : arg<float>(kind == "max", outer, n, inner);
}

Kernel *make_top_k(int64_t outer, int64_t n, int64_t inner, int64_t k, const std::string &dtype) {
    check_sizes("TopK", {outer, n, inner, k});
    if (k > n) bad("TopK: expected k <= n = " + std::to_string(n) + ", got " + std::to_string(k));
    return is_double("TopK", dtype) ? top<double>(outer, n, inner, k) : top<float>(outer, n, inner, k);
}

} // namespace cg
