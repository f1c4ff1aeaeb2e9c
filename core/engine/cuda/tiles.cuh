/* The core of matrix products and convolutions: a block of threads makes one tile of the result, its operands go through shared
 * memory slice by slice, each thread keeps a part of the tile in registers. Sums run over the inner dimension in order. */
#ifndef COGKIT_TILES_CUH
#define COGKIT_TILES_CUH
#include "rounding.cuh"

/* N elements that are loaded together. */
template <class T, int N> struct alignas(N * sizeof(T)) Pack {
    T v[N];
};

/* CG_TILED(name, threads of a block, blocks of a multiprocessor, parameters ...) { body } */
#if defined(__CUDACC__)
#define CG_TILED(name, threads, blocks, ...) extern "C" __global__ void __launch_bounds__(threads, blocks) name(__VA_ARGS__)
#else
#define CG_TILED(name, threads, blocks, ...) CG_KERNEL(name, __VA_ARGS__)
#endif

constexpr int least(int a, int b) { return a < b ? a : b; }

/* A tile of BM x BN, slices of BK; a thread has TM x TN of it, in groups of neighbours that lie a stride apart. */
template <class T_, int BM_, int BN_, int BK_, int TM_, int TN_> struct Tile {
    using T = T_;
    static constexpr int BM = BM_, BN = BN_, BK = BK_, TM = TM_, TN = TN_;
    static constexpr int THREADS = BM / TM * (BN / TN);
    static constexpr int PM = least(TM, 16 / (int)sizeof(T)), PN = least(TN, 16 / (int)sizeof(T)); /* loaded together */
    static constexpr int PAD = 16 / (int)sizeof(T);
    static constexpr int LA = BM + PAD, LB = BN + PAD;       /* from one row of a slice in shared memory to the next */
    static constexpr int NA = BM * BK / THREADS, NB = BN * BK / THREADS; /* elements of a slice that a thread fetches */
    static_assert(NA * THREADS == BM * BK && NB * THREADS == BN * BK, "threads share a slice evenly");
    static_assert(TM % PM == 0 && TN % PN == 0 && THREADS % BK == 0, "");
    static_assert(THREADS % least(BM, THREADS) == 0 && THREADS % least(BN, THREADS) == 0, "");

    struct Shared {
        alignas(16) T a[2][BK * LA], b[2][BK * LB];
    };

    /* Row and column in the tile of a thread's element. */
    static __device__ inline int row(int i) { return i / PM * (BM / TM * PM) + (int)threadIdx.x / (BN / TN) * PM + i % PM; }
    static __device__ inline int column(int j) { return j / PN * (BN / TN * PN) + (int)threadIdx.x % (BN / TN) * PN + j % PN; }

    /* acc += a b over `slices` slices. A loader's fetch(r) gives this thread's elements of the next slice; rounded, they go to
     * place(q) of the slice in shared memory. */
    template <class A, class B>
    static __device__ inline void multiply(T (&acc)[TM][TN], Shared &s, A &a, B &b, int64_t slices, int rounding) {
        T ra[NA], rb[NB];
        if (slices <= 0) return;
        a.fetch(ra), b.fetch(rb);
        for (int64_t slice = 0;; slice++) {
            T *sa = s.a[slice & 1], *sb = s.b[slice & 1];
            if (rounding) {
#pragma unroll
                for (int q = 0; q < NA; q++) ra[q] = rounded(ra[q], rounding);
#pragma unroll
                for (int q = 0; q < NB; q++) rb[q] = rounded(rb[q], rounding);
            }
#pragma unroll
            for (int q = 0; q < NA; q++) sa[a.place(q)] = ra[q];
#pragma unroll
            for (int q = 0; q < NB; q++) sb[b.place(q)] = rb[q];
            __syncthreads();
            const bool more = slice + 1 < slices;
            if (more) a.fetch(ra), b.fetch(rb);
#pragma unroll
            for (int l = 0; l < BK; l++) {
                T fa[TM], fb[TN];
#pragma unroll
                for (int i = 0; i < TM; i += PM) {
                    const Pack<T, PM> p = *reinterpret_cast<const Pack<T, PM> *>(sa + l * LA + row(i));
#pragma unroll
                    for (int q = 0; q < PM; q++) fa[i + q] = p.v[q];
                }
#pragma unroll
                for (int j = 0; j < TN; j += PN) {
                    const Pack<T, PN> p = *reinterpret_cast<const Pack<T, PN> *>(sb + l * LB + column(j));
#pragma unroll
                    for (int q = 0; q < PN; q++) fb[j + q] = p.v[q];
                }
#pragma unroll
                for (int i = 0; i < TM; i++)
#pragma unroll
                    for (int j = 0; j < TN; j++) acc[i][j] += fa[i] * fb[j];
            }
            if (!more) return;
        }
    }
};

/* Fetches slices of an operand that lies with strides: `outer` along the tile, `inner` along the sum. Threads that are neighbours fetch
 * along whichever stride is 1. The sum may run over several matrices, each of `inner_size` slices' terms, `apart` elements apart. */
template <class T, int WIDTH, int LINE, int BK, int THREADS> struct Strided {
    static constexpr int N = WIDTH * BK / THREADS, AT_ONCE = least(WIDTH, THREADS);
    const T *p;
    int64_t pass, step, turn; /* elements from one fetched to the next, from slice to slice, from a matrix' last slice to the next matrix */
    int64_t size, rest;       /* of the inner dimension: in all, from this slice on */
    int64_t limit;            /* along the tile, from this thread's first element on */
    int l, outer, inner, at;  /* inner place of the first element; from one to the next; place in shared memory */

    /* first: the tile's first element of the first matrix; slice: which one comes first, counted over all matrices. */
    __device__ inline Strided(const T *first, int64_t outer_stride, int64_t inner_stride, int64_t outer_size, int64_t inner_size,
                              int64_t apart, int64_t slice) {
        const int t = threadIdx.x;
        const bool along = inner_stride == 1;
        const int i = along ? t / BK : t % AT_ONCE;
        l = along ? t % BK : t / AT_ONCE;
        outer = along ? THREADS / BK : AT_ONCE < WIDTH ? AT_ONCE : 0, inner = along ? 0 : THREADS / AT_ONCE;
        const int64_t per = (inner_size + BK - 1) / BK; /* slices of one matrix */
        size = inner_size, rest = inner_size - slice % per * BK, limit = outer_size - i;
        pass = outer * outer_stride + inner * inner_stride, step = BK * inner_stride, turn = apart - (per - 1) * step;
        p = first + i * outer_stride + l * inner_stride + slice / per * apart + slice % per * step;
        at = l * LINE + i;
    }
    __device__ inline int place(int q) const { return at + q * (inner * LINE + outer); }
    __device__ inline void fetch(T (&r)[N]) {
        const int there = (int)min(rest, (int64_t)BK) - l;
#pragma unroll
        for (int q = 0; q < N; q++) r[q] = q * outer < limit && q * inner < there ? p[q * pass] : T(0);
        const bool last = rest <= BK;
        rest = last ? size : rest - BK, p += last ? turn : step;
    }
};

/* What comes after a sum: bias, another value, relu that lets NaN be. */
template <class T> __device__ inline T finished(T v, const T *bias, const T *added, bool relu) {
    if (bias) v += *bias;
    if (added) v += *added;
    return relu && v < T(0) ? T(0) : v;
}
#endif
