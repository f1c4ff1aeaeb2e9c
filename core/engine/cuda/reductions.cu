/* Reductions that are no plain sum or extreme: mean and variance, log of a sum of exponentials, places of extremes, the k largest. */
#include "numbers.cuh"
#include "space.cuh"

/* What they share: one operand that is read, then those that are written. */
template <class T, int VECTOR> struct Reader {
    static constexpr int V = VECTOR, DIMS = -1, KEPT_DIMS = 0, MOST = MOST_DIMS, FOLDS = 1;
    Frame f;

    __device__ int64_t place(int operand, const uint32_t *c, int dims) const {
        const int all = (int)f.g[W_DIMS];
        return offset<MOST>(f.g + W_FIRST + 2 * all + operand * all, dims, c);
    }
    __device__ Lanes<T, V> read(const uint32_t *c, int count) const {
        return load<T, V>((const T *)f.address[0] + place(0, c, (int)f.g[W_DIMS]), count);
    }
    __device__ void write(int operand, const uint32_t *c, int e, T v) const {
        ((T *)f.address[operand])[place(operand, c, (int)f.g[W_KEPT_DIMS]) + e] = v;
    }
};

/* Mean and biased variance; 0 of nothing. Welford's running moments in each thread, united in doubles by T. F. Chan, G. H. Golub, R. J. LeVeque,
 * "Updating formulae and a pairwise algorithm for computing sample variances" (1979). */
struct Moments {
    double n, mean, squares;
};
template <class T, int VECTOR> struct MomentsBody : Reader<T, VECTOR> {
    typedef Moments State, Partial;
    using Reader<T, VECTOR>::V;
    T mean[V], squares[V];
    int n, fewer; /* lanes from `fewer` on have one element less */

    __device__ void begin() {
        CG_LANES mean[e] = squares[e] = T(0);
        n = 0, fewer = V;
    }
    __device__ void run(const uint32_t *c, int count) {
        const Lanes<T, V> x = this->read(c, count);
        const T share = T(1) / T(++n);
        fewer = count;
        CG_LANES {
            if (e >= count) continue;
            const T d = x.v[e] - mean[e];
            mean[e] += d * share, squares[e] += d * (x.v[e] - mean[e]);
        }
    }
    __device__ State state(int, int e) const { return {double(e < fewer ? n : n - 1), double(mean[e]), double(squares[e])}; }
    __device__ State join(int, State x, State y) const {
        if (y.n == 0) return x;
        if (x.n == 0) return y;
        const double n = x.n + y.n, d = y.mean - x.mean;
        return {n, x.mean + d * (y.n / n), x.squares + y.squares + d * d * (x.n * y.n / n)};
    }
    __device__ Partial nothing(int) const { return {0, 0, 0}; }
    __device__ void keep(int, const uint32_t *c, int e, State v) const {
        this->write(1, c, e, (T)v.mean);
        this->write(2, c, e, v.n ? T(v.squares / v.n) : T(0));
    }
};

/* log of the sum of e^x, relative to the largest so far. */
template <class T> struct Scaled {
    T top, sum;
};
template <class T, int VECTOR> struct LogSumExpBody : Reader<T, VECTOR> {
    typedef Scaled<T> State, Partial;
    using Reader<T, VECTOR>::V;
    T top[V], sum[V];

    __device__ void begin() { CG_LANES top[e] = -infinity<T>(), sum[e] = T(0); }
    __device__ void run(const uint32_t *c, int count) {
        const Lanes<T, V> x = this->read(c, count);
        CG_LANES {
            if (e >= count) continue;
            if (x.v[e] > top[e])
                sum[e] = sum[e] * exp_(top[e] - x.v[e]) + T(1), top[e] = x.v[e];
            else
                sum[e] += x.v[e] == top[e] ? T(1) : exp_(x.v[e] - top[e]); /* two infinities differ by no number */
        }
    }
    __device__ State state(int, int e) const { return {top[e], sum[e]}; }
    __device__ State join(int, State x, State y) const {
        if (y.top > x.top) {
            const State z = x;
            x = y, y = z;
        }
        return {x.top, x.sum + (x.top == y.top ? y.sum : y.sum * exp_(y.top - x.top))};
    }
    __device__ Partial nothing(int) const { return {-infinity<T>(), T(0)}; }
    __device__ void keep(int, const uint32_t *c, int e, State v) const { this->write(1, c, e, v.top + log_(v.sum)); }
};

/* A number and its place; -1: none. */
template <class T> struct Placed {
    T v;
    int64_t i;
};
/* Whether x comes before y: NaN before numbers, then the larger (or smaller) ones, then the first ones. */
template <class T> __device__ inline bool before(const Placed<T> &x, const Placed<T> &y, bool largest) {
    const bool p = x.v != x.v, q = y.v != y.v;
    if (p | q) return p && (!q || x.i < y.i);
    return (largest ? x.v > y.v : x.v < y.v) || (x.v == y.v && x.i < y.i);
}
template <class T, int VECTOR, bool LARGEST> struct ArgBody : Reader<T, VECTOR> {
    typedef Placed<T> State, Partial;
    using Reader<T, VECTOR>::V;
    State best[V];

    __device__ void begin() { CG_LANES best[e] = nothing(0); }
    __device__ void run(const uint32_t *c, int count) {
        const Lanes<T, V> x = this->read(c, count);
        const int kept = (int)this->f.g[W_KEPT_DIMS];
        const bool across = this->f.g[W_ACROSS] != 0;
        int64_t i = 0; /* the reduced dim is one */
        CG_UNROLL for (int d = 0; d < this->MOST; d++) {
            if (d == kept && d < (int)this->f.g[W_DIMS]) i = (int64_t)c[d] * (across ? V : 1);
        }
        CG_LANES if (e < count) best[e] = join(0, best[e], State{x.v[e], across ? i + e : i});
    }
    __device__ State state(int, int e) const { return best[e]; }
    __device__ State join(int, State x, State y) const { return y.i >= 0 && (x.i < 0 || before(y, x, LARGEST)) ? y : x; }
    __device__ Partial nothing(int) const { return {T(0), -1}; }
    __device__ void keep(int, const uint32_t *c, int e, State v) const { this->write(1, c, e, (T)v.i); }
};
template <class T, int V> using ArgmaxBody = ArgBody<T, V, true>;
template <class T, int V> using ArgminBody = ArgBody<T, V, false>;

/* operands: of the kernel; results: elements of a block that joins parts */
#define REDUCTION(name, Body, T, type, V, operands)                                                                             \
    CG_KERNEL(name##_##type##_##V, Body<T, V>::Partial *partials, const __grid_constant__ Parameters<80> p) {                   \
        Body<T, V> body;                                                                                                        \
        body.f = Frame{(const int64_t *)p.w + operands, p.w, 0};                                                                \
        reduced(body, body.f, partials);                                                                                        \
    }                                                                                                                           \
    CG_KERNEL(name##_combine_##type##_##V, const Body<T, V>::Partial *partials, int64_t results,                                \
              const __grid_constant__ Parameters<80> p) {                                                                       \
        Body<T, V> body;                                                                                                        \
        body.f = Frame{(const int64_t *)p.w + operands, p.w, 0};                                                                \
        combined(body, body.f, partials, (int)results);                                                                         \
    }
#define REDUCTIONS(T, type, V)                                                                                                  \
    REDUCTION(moments, MomentsBody, T, type, V, 3) REDUCTION(logsumexp, LogSumExpBody, T, type, V, 2)                           \
    REDUCTION(argmax, ArgmaxBody, T, type, V, 2) REDUCTION(argmin, ArgminBody, T, type, V, 2)
REDUCTIONS(float, f4, 4) REDUCTIONS(float, f4, 1) REDUCTIONS(double, f8, 2) REDUCTIONS(double, f8, 1)

/* The k first of n numbers `inner` apart, and their places: a block for each outer and inner one. One after the other, each the first of those
 * behind the last one. */
template <class T> struct First {
    __device__ Placed<T> join(int, Placed<T> x, Placed<T> y) const { return y.i >= 0 && (x.i < 0 || before(y, x, true)) ? y : x; }
};
#define TOP_K(T, type)                                                                                                          \
    CG_KERNEL(top_k_##type, const T *x, T *y, T *index, int64_t n, int64_t inner, int64_t k) {                                  \
        __shared__ Placed<T> found;                                                                                             \
        const First<T> body;                                                                                                    \
        const int64_t outer = blockIdx.x / inner, in = blockIdx.x % inner;                                                      \
        x += outer * n * inner + in, y += outer * k * inner + in, index += outer * k * inner + in;                              \
        Placed<T> last = {T(0), -1};                                                                                            \
        for (int64_t j = 0; j < k; j++) {                                                                                       \
            Placed<T> best = {T(0), -1};                                                                                        \
            for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {                                                             \
                const Placed<T> here = {x[i * inner], i};                                                                       \
                if (j == 0 || before(last, here, true)) best = body.join(0, best, here);                                        \
            }                                                                                                                   \
            best = folded(body, 0, best, (int)blockDim.x, 1);                                                                   \
            if (threadIdx.x == 0) {                                                                                             \
                found = best;                                                                                                   \
                y[j * inner] = best.v, index[j * inner] = (T)best.i;                                                            \
            }                                                                                                                   \
            __syncthreads();                                                                                                    \
            last = found;                                                                                                       \
        }                                                                                                                       \
    }                                                                                                                           \
    /* for many: the rank of each is the number of those before it */                                                           \
    CG_KERNEL(rank_##type, const T *x, T *y, T *index, int64_t n, int64_t inner, int64_t k, int64_t rows) {                     \
        CG_EACH(at, rows * n * inner) {                                                                                         \
            const int64_t in = at % inner, i = at / inner % n, outer = at / inner / n;                                          \
            const T *row = x + outer * n * inner + in;                                                                          \
            const Placed<T> mine = {row[i * inner], i};                                                                         \
            int64_t rank = 0;                                                                                                   \
            for (int64_t o = 0; o < n; o++) rank += before(Placed<T>{row[o * inner], o}, mine, true);                           \
            if (rank < k) y[(outer * k + rank) * inner + in] = mine.v, index[(outer * k + rank) * inner + in] = (T)i;           \
        }                                                                                                                       \
    }
CG_FLOATS(TOP_K)
