/* The interpreter of pointwise programs: for machines without a compiler. Values of a thread are in shared memory, [slot][thread], a group each. */
#include "pointwise.cuh"

enum Code {
#define X(name, ...) CODE_##name,
    CG_UNARY(X) CG_UNARY_LONG(X) CG_BINARY(X) CG_BINARY_LONG(X) CG_TERNARY(X)
#undef X
        CODE_rand,
    CODE_randn,
    CODE_const,
    CODE_load,
    CODE_store,
    CODE_fold
};

/* An instruction: opcode 8 bits, destination 14, operands 14 each; random numbers have their purpose in the upper 32 bits. Of a load or a store `a`
 * is the operand of the segment and `b` whether it goes along the last dim. The first words of a program say of each reduction: kind,
 * operand. Slots 0 .. reductions - 1 gather. */
template <class T, int VECTOR> struct Interpreter {
    static constexpr int V = VECTOR, DIMS = -1, KEPT_DIMS = 0, MOST = MOST_DIMS, FOLDS = -1;
    typedef T State;
    typedef double Partial;
    typedef Lanes<T, V> Group;

    Frame f;
    const uint64_t *code;
    const double *constants;
    int length, reductions, operands;
    Group *slots; /* of this thread, blockDim.x apart */

    __device__ Group &slot(int i) const { return slots[i * (int)blockDim.x]; }
    __device__ int64_t place(int operand, const uint32_t *c, int dims) const {
        const int all = (int)f.g[W_DIMS];
        return offset<MOST>(f.g + W_FIRST + 2 * all + operand * all, dims, c);
    }
    __device__ void begin() {
        for (int i = 0; i < reductions; i++) CG_LANES slot(i).v[e] = neutral<T>((int)(code[i] & 255));
    }
    __device__ int folds() const { return reductions; }
    __device__ State state(int i, int e) const { return slot(i).v[e]; }
    template <class S> __device__ S join(int i, S x, S y) const { return joined((int)(code[i] & 255), x, y); }
    __device__ Partial nothing(int i) const { return neutral<double>((int)(code[i] & 255)); }
    __device__ void keep(int i, const uint32_t *c, int e, State v) const {
        const int operand = (int)(code[i] >> 8);
        ((T *)f.address[operand])[place(operand, c, (int)f.g[W_KEPT_DIMS]) + e] = v;
    }
    __device__ void run(const uint32_t *c, int count) {
        const int dims = (int)f.g[W_DIMS];
        CG_ROLL for (int n = reductions; n < length; n++) {
            const uint64_t i = code[n];
            const int d = (int)(i >> 8) & 0x3fff, ia = (int)(i >> 22) & 0x3fff, ib = (int)(i >> 36) & 0x3fff, ic = (int)(i >> 50);
            switch ((int)(i & 255)) {
#define X(name, ...)                                                                                                            \
    case CODE_##name: {                                                                                                         \
        const Group a = slot(ia);                                                                                               \
        Group r;                                                                                                                \
        CG_LANES r.v[e] = op_##name(a.v[e]);                                                                                    \
        slot(d) = r;                                                                                                            \
        break;                                                                                                                  \
    }
                CG_UNARY(X)
#undef X
#define X(name, ...)                                                                                                            \
    case CODE_##name: {                                                                                                         \
        CG_ROLL for (int e = 0; e < V; e++) slot(d).v[e] = op_##name(slot(ia).v[e]);                                            \
        break;                                                                                                                  \
    }
                CG_UNARY_LONG(X)
#undef X
#define X(name, ...)                                                                                                            \
    case CODE_##name: {                                                                                                         \
        const Group a = slot(ia), b = slot(ib);                                                                                 \
        Group r;                                                                                                                \
        CG_LANES r.v[e] = op_##name(a.v[e], b.v[e]);                                                                            \
        slot(d) = r;                                                                                                            \
        break;                                                                                                                  \
    }
                CG_BINARY(X)
#undef X
#define X(name, ...)                                                                                                            \
    case CODE_##name: {                                                                                                         \
        CG_ROLL for (int e = 0; e < V; e++) slot(d).v[e] = op_##name(slot(ia).v[e], slot(ib).v[e]);                             \
        break;                                                                                                                  \
    }
                CG_BINARY_LONG(X)
#undef X
#define X(name, ...)                                                                                                            \
    case CODE_##name: {                                                                                                         \
        const Group a = slot(ia), b = slot(ib), z = slot(ic);                                                                   \
        Group r;                                                                                                                \
        CG_LANES r.v[e] = op_##name(a.v[e], b.v[e], z.v[e]);                                                                    \
        slot(d) = r;                                                                                                            \
        break;                                                                                                                  \
    }
                CG_TERNARY(X)
#undef X
            case CODE_rand:
            case CODE_randn: { /* its counters have strides too, behind the operands' */
                const int64_t *s = f.g + W_FIRST + 2 * dims + operands * dims;
                slot(d) = random<T, V>(*f.context, (uint32_t)(i >> 32), (i & 255) == CODE_randn, f.g[W_FLOW], (uint64_t)offset<MOST>(s, dims, c),
                                       (int)s[2 * dims], offset<MOST>(s + dims, dims, c), (int)s[2 * dims + 1]);
                break;
            }
            case CODE_const: {
                const T x = (T)constants[ia];
                Group r;
                CG_LANES r.v[e] = x;
                slot(d) = r;
                break;
            }
            case CODE_load: {
                const T *p = (const T *)f.address[ia] + place(ia, c, dims);
                Group r;
                if (ib) {
                    r = load<T, V>(p, count);
                } else {
                    const T x = *p;
                    CG_LANES r.v[e] = x;
                }
                slot(d) = r;
                break;
            }
            case CODE_store: {
                store<T, V>((T *)f.address[ia] + place(ia, c, dims), slot(d), count);
                break;
            }
            default: { /* fold */
                const int kind = (int)(code[d] & 255);
                const Group a = slot(ia);
                Group r = slot(d);
                CG_LANES if (e < count) r.v[e] = joined(kind, r.v[e], a.v[e]);
                slot(d) = r;
            }
            }
        }
    }
};

template <class T, int V, int N>
__device__ inline Interpreter<T, V> interpreter(const Whole &w, const uint64_t *code, const double *constants, int64_t length, int64_t reductions,
                                                const Parameters<N> &p, int64_t segment_words, void *slots, int64_t &block) {
    Interpreter<T, V> body;
    body.f = frame(w, p, (int)segment_words, block);
    body.code = code, body.constants = constants;
    body.length = (int)length, body.reductions = (int)reductions, body.operands = (int)w.operands;
    body.slots = (Lanes<T, V> *)slots + threadIdx.x;
    return body;
}

#define MACHINE                                                                                                                 \
    Whole w, const uint64_t *code, const double *constants, int64_t length, int64_t reductions, int64_t segment_words
#define INTERPRETER(T, V, slots) interpreter<T, V>(w, code, constants, length, reductions, p, segment_words, slots, block)

/* every element on its own */
#define EACH(T, type, V, N)                                                                                                     \
    CG_KERNEL(each_##type##_##V##_##N, MACHINE, const __grid_constant__ Parameters<N> p) {                                      \
        DYN_SHARED(double, slots);                                                                                              \
        int64_t block;                                                                                                          \
        auto body = INTERPRETER(T, V, slots);                                                                                   \
        each_group(body, body.f, block);                                                                                        \
    }
/* with reductions */
#define REDUCE(T, type, V)                                                                                                      \
    CG_KERNEL(reduce_##type##_##V, MACHINE, double *partials, const __grid_constant__ Parameters<496> p) {                      \
        DYN_SHARED(double, slots);                                                                                              \
        int64_t block;                                                                                                          \
        auto body = INTERPRETER(T, V, slots);                                                                                   \
        reduced(body, body.f, partials);                                                                                        \
    }                                                                                                                           \
    CG_KERNEL(combine_##type##_##V, MACHINE, const double *partials, int64_t results,                                           \
              const __grid_constant__ Parameters<496> p) {                                                                      \
        int64_t block;                                                                                                          \
        auto body = INTERPRETER(T, V, (void *)0);                                                                               \
        combined(body, body.f, partials, (int)results);                                                                         \
    }
EACH(float, f4, 4, 64) EACH(float, f4, 4, 496) EACH(float, f4, 1, 64) EACH(float, f4, 1, 496) REDUCE(float, f4, 4) REDUCE(float, f4, 1)
EACH(double, f8, 2, 64) EACH(double, f8, 2, 496) EACH(double, f8, 1, 64) EACH(double, f8, 1, 496) REDUCE(double, f8, 2) REDUCE(double, f8, 1)
