/* The skeleton of kernels over a space of elements: which thread handles which, and how what threads have gathered becomes one result. A
 * kernel gives a Body: what is done with a group of elements. space.py plans the words that are read here.
 *
 * A group is V neighbours along the last dim. The space is kept dims (K groups of results) times reduced dims (R groups, 1 where nothing is
 * reduced); `Word` says what a kernel is told of a segment.
 */
#ifndef COGKIT_SPACE_CUH
#define COGKIT_SPACE_CUH
#include "common.cuh"

#ifndef DYN_SHARED
#define DYN_SHARED(T, name)                                                                                                     \
    extern __shared__ __align__(16) unsigned char cg_dynamic_shared[];                                                          \
    T *name = reinterpret_cast<T *>(cg_dynamic_shared)
#endif
#ifdef __CUDACC__
#define CG_UNROLL _Pragma("unroll")
#define CG_ROLL _Pragma("unroll 1")
#else
#define CG_UNROLL
#define CG_ROLL
#define __grid_constant__
#endif
#define CG_LANES CG_UNROLL for (int e = 0; e < V; e++)

enum Word {
    W_KEPT,     /* K */
    W_REDUCED,  /* R */
    W_SIZE,     /* elements along a single dim: the last group may have fewer than V; else a large number */
    W_EACH,     /* groups of a thread */
    W_ACROSS,   /* 1: the last dim is reduced, so that a group is of one result; 0: a group is of V results */
    W_THREADS,  /* threads that share a result, a power of two */
    W_RESULTS,  /* groups of results of a block, a power of two */
    W_PART,     /* reduced groups of a block */
    W_PARTS,    /* blocks that share a result */
    W_BLOCKS,   /* blocks of all results, each of one part */
    W_FLOW,     /* random numbers of a step, where those of one step follow those of the one before; else 0 */
    W_KEPT_DIMS, W_DIMS,
    W_FIRST     /* for each dim its size and how to divide by it, then for each operand its strides, in elements between groups */
};
constexpr int MOST_THREADS = 128, MOST_DIMS = MAX_DIMS;

/* Parameters of a launch: addresses of the operands of all segments, then, where there is room, the words of the only segment. */
template <int N> struct Parameters {
    uint64_t w[N];
};

/* What a body needs to find its elements. */
struct Frame {
    const int64_t *g;         /* words of the segment */
    const uint64_t *address;  /* of its operands */
    const Context *context;
};

__device__ inline uint32_t divided(uint32_t i, int64_t magic) {
    return (uint32_t)(((uint64_t)__umulhi(i, (uint32_t)magic) + i) >> (int)(magic >> 32));
}

/* The coordinates of element i of dims first .. last - 1. ALL: of how many at most; the loop is unrolled. */
template <int ALL> __device__ inline void coordinates(const int64_t *g, int first, int last, uint32_t i, uint32_t *c) {
    CG_UNROLL for (int d = ALL - 1; d >= 0; d--) {
        if (d < first || d >= last) continue;
        if (d == first) {
            c[d] = i;
        } else {
            const uint32_t size = (uint32_t)g[W_FIRST + 2 * d], q = divided(i, g[W_FIRST + 2 * d + 1]);
            c[d] = i - q * size, i = q;
        }
    }
}

/* Offset of an operand. */
template <int ALL> __device__ inline int64_t offset(const int64_t *strides, int dims, const uint32_t *c) {
    int64_t at = 0;
    CG_UNROLL for (int d = 0; d < ALL; d++) {
        if (d >= dims) break;
        at += c[d] * strides[d];
    }
    return at;
}

template <class T, int V> struct alignas(V * sizeof(T)) Lanes {
    T v[V];
};

/* V neighbours, of which `count` are there; one transaction where they lie so. FAST: it is known that they do. */
template <class T, int V> __device__ inline bool fits(const T *p) { return V == 1 || (uintptr_t)p % (V * sizeof(T)) == 0; }
template <class T, int V, bool FAST = false> __device__ inline Lanes<T, V> load(const T *p, int count) {
    if constexpr (FAST) {
        return *(const Lanes<T, V> *)p;
    } else {
        if (V > 1 && count == V && fits<T, V>(p)) return *(const Lanes<T, V> *)p;
        Lanes<T, V> r;
        CG_LANES r.v[e] = e < count ? p[e] : T(0);
        return r;
    }
}
template <class T, int V, bool FAST = false> __device__ inline void store(T *p, const Lanes<T, V> &r, int count) {
    if constexpr (FAST) {
        *(Lanes<T, V> *)p = r;
    } else {
        if (V > 1 && count == V && fits<T, V>(p)) {
            *(Lanes<T, V> *)p = r;
            return;
        }
        CG_LANES if (e < count) p[e] = r.v[e];
    }
}

/* Random numbers of a group. index: number of its first element in its row, or, in a flow, in the step; steps: from one to the next. */
template <class T, int V>
__device__ inline Lanes<T, V> random(const Context &context, uint32_t purpose, bool normal, int64_t flow, uint64_t index, int index_step,
                                     int64_t row, int row_step) {
    Lanes<T, V> r;
    Words w = {};
    uint32_t at = 0, line_at = 0;
    CG_LANES {
        const uint64_t k = flow ? (uint64_t)context.step * (uint64_t)flow + index + (uint64_t)(e * index_step) : index + (uint64_t)(e * index_step);
        const uint32_t low = (uint32_t)k, place = normal ? low : low >> 2;
        const uint32_t line = flow ? (uint32_t)(k >> 32) : (uint32_t)(row + e * row_step + context.sample);
        if (e == 0 || place != at || line != line_at)
            w = philox(place, line, flow ? 0u : (uint32_t)context.step, purpose, flow ? context.seed : row_key(context));
        at = place, line_at = line;
        const uint32_t even = low & 2 ? w.w[2] : w.w[0], odd = low & 2 ? w.w[3] : w.w[1];
        r.v[e] = normal ? gauss<T>(w.w[0], w.w[1]) : unit<T>(low & 1 ? odd : even);
    }
    return r;
}

/* Every group of the segment that `block` is of: body.run(coordinates, elements). */
template <class Body> __device__ void each_group(Body &body, const Frame &f, int64_t block) {
    const int64_t kept = f.g[W_KEPT], size = f.g[W_SIZE];
    const int each = (int)f.g[W_EACH], dims = Body::DIMS < 0 ? (int)f.g[W_DIMS] : Body::DIMS;
    int64_t i = block * each * blockDim.x + threadIdx.x;
    for (int u = 0; u < each && i < kept; u++, i += blockDim.x) {
        uint32_t c[Body::MOST];
        coordinates<Body::MOST>(f.g, 0, dims, (uint32_t)i, c);
        const int64_t left = size - i * Body::V;
        body.run(c, left < Body::V ? (int)left : Body::V);
    }
}

template <class S> constexpr bool shuffles = false; /* whether a warp can hand it over */
template <> constexpr bool shuffles<float> = true;
template <> constexpr bool shuffles<double> = true;

/* Joins what the threads of a result hold, in a tree; the first of them gets it. They are `apart` threads apart. */
template <class Body, class S> __device__ inline S folded(const Body &body, int which, S v, int threads, int apart) {
    if (threads == 1) return v;
    if constexpr (shuffles<S>) {
        if (apart == 1 && threads <= 32) {
            for (int h = threads / 2; h > 0; h /= 2) v = body.join(which, v, __shfl_down_sync(0xffffffffu, v, h, threads));
            return v;
        }
    }
    __shared__ S tree[MOST_THREADS];
    const int t = threadIdx.x, r = apart == 1 ? t % threads : t / apart;
    tree[t] = v;
    __syncthreads();
    for (int h = threads / 2; h > 0; h /= 2) {
        if (r < h) tree[t] = body.join(which, tree[t], tree[t + h * apart]);
        __syncthreads();
    }
    v = tree[t];
    __syncthreads();
    return v;
}

/* Result `i` of a block: joined, and kept or handed on. A thread whose groups of results and of reduced ones are k and r0. */
template <class Body>
__device__ inline void settled(Body &body, const Frame &f, typename Body::Partial *partials, int i, const uint32_t *c, int64_t k, int r0, int64_t part) {
    typedef typename Body::State State;
    constexpr int V = Body::V;
    const int64_t *g = f.g;
    const bool across = g[W_ACROSS] != 0;
    const int lanes = across ? 1 : V;
    CG_LANES { /* unrolled, so that what a body gathers stays in registers */
        if (e >= lanes) continue;
        State v = body.state(i, e);
        if (across) {
            CG_UNROLL for (int o = 1; o < V; o++) v = body.join(i, v, body.state(i, o));
        }
        v = folded(body, i, v, (int)g[W_THREADS], across ? 1 : (int)g[W_RESULTS]);
        if (r0 != 0 || k >= g[W_KEPT]) continue;
        if (g[W_PARTS] == 1)
            body.keep(i, c, e, v);
        else
            partials[(i * g[W_PARTS] + part) * g[W_KEPT] * lanes + k * lanes + e] = v;
    }
}

/* Results, or, where blocks share them, what each block has: partials[result of the body][part][element]. A body has FOLDS results (-1: folds()),
 * each from a State of a lane; `keep` puts a result where it goes. */
template <class Body> __device__ void reduced(Body &body, const Frame &f, typename Body::Partial *partials) {
    constexpr int V = Body::V, MOST = Body::MOST;
    const int64_t *g = f.g;
    const int kept_dims = Body::DIMS < 0 ? (int)g[W_KEPT_DIMS] : Body::KEPT_DIMS, dims = Body::DIMS < 0 ? (int)g[W_DIMS] : Body::DIMS;
    const int threads = (int)g[W_THREADS], results = (int)g[W_RESULTS], t = threadIdx.x;
    const bool across = g[W_ACROSS] != 0;
    const int r0 = across ? t % threads : t / results, k0 = across ? t / threads : t % results;
    const int64_t part = blockIdx.x / g[W_BLOCKS], k = blockIdx.x % g[W_BLOCKS] * results + k0;
    const int64_t first = part * g[W_PART], end = first + g[W_PART] < g[W_REDUCED] ? first + g[W_PART] : g[W_REDUCED];
    uint32_t c[MOST];
    body.begin();
    if (k < g[W_KEPT]) {
        coordinates<MOST>(g, 0, kept_dims, (uint32_t)k, c);
        for (int64_t r = first + r0; r < end; r += threads) {
            coordinates<MOST>(g, kept_dims, dims, (uint32_t)r, c);
            const int64_t left = g[W_SIZE] - (r + k) * V; /* of a single dim, of which either k or r is 0 */
            body.run(c, left < V ? (int)left : V);
        }
    }
    if constexpr (Body::FOLDS >= 0) {
        CG_UNROLL for (int i = 0; i < Body::FOLDS; i++) settled(body, f, partials, i, c, k, r0, part);
    } else {
        for (int i = 0; i < body.folds(); i++) settled(body, f, partials, i, c, k, r0, part);
    }
}

/* Joins the parts of every result in their order: as many blocks as there are results of the body times groups of `results` elements. */
template <class Body> __device__ void combined(Body &body, const Frame &f, const typename Body::Partial *partials, int results) {
    typedef typename Body::Partial Partial;
    const int64_t *g = f.g;
    const int kept_dims = Body::DIMS < 0 ? (int)g[W_KEPT_DIMS] : Body::KEPT_DIMS, threads = (int)blockDim.x / results, t = threadIdx.x;
    const int lanes = g[W_ACROSS] ? 1 : Body::V, k0 = t % results, r0 = t / results;
    const int64_t elements = g[W_KEPT] * lanes, blocks = (elements + results - 1) / results, parts = g[W_PARTS];
    const int i = (int)(blockIdx.x / blocks);
    const int64_t at = blockIdx.x % blocks * results + k0;
    const bool mine = at < elements;
    Partial v = body.nothing(i);
    if (mine)
        for (int64_t p = r0; p < parts; p += threads) v = body.join(i, v, partials[(i * parts + p) * elements + at]);
    v = folded(body, i, v, threads, results);
    if (r0 != 0 || !mine) return;
    uint32_t c[Body::MOST];
    coordinates<Body::MOST>(g, 0, kept_dims, (uint32_t)(at / lanes), c);
    body.keep(i, c, (int)(at % lanes), (typename Body::State)v);
}
#endif
