#include "movement.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace cg {
namespace {

constexpr int MAX_DIMS = 12;
constexpr int64_t PIECE_BYTES = 32768; /* a long row is cut into pieces of this size, so that threads can share it */

// ---------------------------------------------------------------- transposing one small matrix

typedef uint32_t u32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x8 __attribute__((vector_size(32)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint64_t u64x2 __attribute__((vector_size(16)));
typedef uint64_t u64x4 __attribute__((vector_size(32)));
typedef uint64_t u64x8 __attribute__((vector_size(64)));

template <class T, int W> struct Vector;
template <> struct Vector<uint32_t, 4> { typedef u32x4 type; };
template <> struct Vector<uint32_t, 8> { typedef u32x8 type; };
template <> struct Vector<uint32_t, 16> { typedef u32x16 type; };
template <> struct Vector<uint64_t, 2> { typedef u64x2 type; };
template <> struct Vector<uint64_t, 4> { typedef u64x4 type; };
template <> struct Vector<uint64_t, 8> { typedef u64x8 type; };

/* Swap the off-diagonal blocks of size S, for S = W/2 .. 1 (Eklundh). */
template <class T, int W, int S> struct Swap {
    typedef typename Vector<T, W>::type V;
    static CG_INLINE void run(V *r) {
        V lo{}, hi{};
#pragma GCC unroll 16
        for (int k = 0; k < W; k++) {
            lo[k] = (k & S) ? W + k - S : k;
            hi[k] = (k & S) ? W + k : k + S;
        }
#pragma GCC unroll 16
        for (int i = 0; i < W; i++)
            if (!(i & S)) {
                const V a = r[i], b = r[i + S];
                r[i] = __builtin_shuffle(a, b, lo);
                r[i + S] = __builtin_shuffle(a, b, hi);
            }
        Swap<T, W, S / 2>::run(r);
    }
};
template <class T, int W> struct Swap<T, W, 0> {
    static CG_INLINE void run(typename Vector<T, W>::type *) {}
};

/* out[p * os + q] = in[q * is + p] for p, q < W. The lines of the tile AHEAD further along q are asked for: many rows at great
 * distances are more than the machine follows by itself. */
template <class T, int W> static CG_INLINE void tile(const T *in, int64_t is, T *out, int64_t os, int64_t next) {
    typedef typename Vector<T, W>::type V;
    constexpr int64_t AHEAD = 256 / sizeof(T);
    V r[W];
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) {
        __builtin_memcpy(&r[i], in + i * is, sizeof(V));
        __builtin_prefetch(in + i * is + next, 0);
    }
    Swap<T, W, W / 2>::run(r);
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) {
        __builtin_memcpy(out + i * os, &r[i], sizeof(V));
        __builtin_prefetch(out + i * os + AHEAD, 1);
    }
}

template <class T> static CG_INLINE void scalar_block(const T *in, int64_t is, T *out, int64_t os, int64_t P, int64_t Q) {
    if (Q >= P)
        for (int64_t p = 0; p < P; p++)
            for (int64_t q = 0; q < Q; q++) out[p * os + q] = in[q * is + p];
    else
        for (int64_t q = 0; q < Q; q++)
            for (int64_t p = 0; p < P; p++) out[p * os + q] = in[q * is + p];
}

/* Whole tiles; the last tile of a row or column overlaps the one before it (the same values are written twice). */
template <class T, int W> static CG_INLINE void tiled_block(const T *in, int64_t is, T *out, int64_t os, int64_t P, int64_t Q) {
    const int64_t next = Q > 256 / int64_t(sizeof(T)) ? 256 / int64_t(sizeof(T)) * is : 256 / int64_t(sizeof(T));
    for (int64_t q = 0; q < Q; q += W) {
        const int64_t q0 = q + W <= Q ? q : Q - W;
        for (int64_t p = 0; p < P; p += W) {
            const int64_t p0 = p + W <= P ? p : P - W;
            tile<T, W>(in + q0 * is + p0, is, out + p0 * os + q0, os, next);
        }
    }
}

template <class T, int W> static CG_INLINE void block(const T *in, int64_t is, T *out, int64_t os, int64_t P, int64_t Q) {
    const int64_t least = std::min(P, Q);
    if (least >= W) tiled_block<T, W>(in, is, out, os, P, Q);
    else if (W > 8 && least >= 8) tiled_block<T, (W > 8 ? 8 : W)>(in, is, out, os, P, Q);
    else if (W > 4 && least >= 4) tiled_block<T, (W > 4 ? 4 : W)>(in, is, out, os, P, Q);
    else scalar_block<T>(in, is, out, os, P, Q);
}

#if CG_TARGETS
/* The width of the tile follows the registers, so these are three functions and not clones of one. */
__attribute__((target("arch=x86-64-v4"))) void block4_v4(const char *in, int64_t is, char *out, int64_t os, int64_t P,
                                                         int64_t Q) {
    block<uint32_t, 16>((const uint32_t *)in, is, (uint32_t *)out, os, P, Q);
}
__attribute__((target("arch=x86-64-v3"))) void block4_v3(const char *in, int64_t is, char *out, int64_t os, int64_t P,
                                                         int64_t Q) {
    block<uint32_t, 8>((const uint32_t *)in, is, (uint32_t *)out, os, P, Q);
}
__attribute__((target("arch=x86-64-v4"))) void block8_v4(const char *in, int64_t is, char *out, int64_t os, int64_t P,
                                                         int64_t Q) {
    block<uint64_t, 8>((const uint64_t *)in, is, (uint64_t *)out, os, P, Q);
}
__attribute__((target("arch=x86-64-v3"))) void block8_v3(const char *in, int64_t is, char *out, int64_t os, int64_t P,
                                                         int64_t Q) {
    block<uint64_t, 4>((const uint64_t *)in, is, (uint64_t *)out, os, P, Q);
}
#endif
void block4(const char *in, int64_t is, char *out, int64_t os, int64_t P, int64_t Q) {
    block<uint32_t, 4>((const uint32_t *)in, is, (uint32_t *)out, os, P, Q);
}
void block8(const char *in, int64_t is, char *out, int64_t os, int64_t P, int64_t Q) {
    block<uint64_t, 2>((const uint64_t *)in, is, (uint64_t *)out, os, P, Q);
}
void block1(const char *in, int64_t is, char *out, int64_t os, int64_t P, int64_t Q) {
    scalar_block<char>(in, is, out, os, P, Q);
}
void block2(const char *in, int64_t is, char *out, int64_t os, int64_t P, int64_t Q) {
    scalar_block<uint16_t>((const uint16_t *)in, is, (uint16_t *)out, os, P, Q);
}

typedef void (*BlockFn)(const char *, int64_t, char *, int64_t, int64_t, int64_t);

BlockFn block_function(int64_t itemsize) {
    if (itemsize == 1) return block1;
    if (itemsize == 2) return block2;
#if CG_TARGETS
    if (level() >= 4) return itemsize == 4 ? block4_v4 : block8_v4;
    if (level() >= 3) return itemsize == 4 ? block4_v3 : block8_v3;
#endif
    return itemsize == 4 ? block4 : block8;
}

// ---------------------------------------------------------------- rows: out[r * os + i * oi] = in[r * is + i * ii]

/* Between half of N and N bytes, by two overlapping moves. */
template <int N> static CG_INLINE void overlapped(char *out, const char *in, int64_t n) {
    char a[N / 2], b[N / 2];
    __builtin_memcpy(a, in, N / 2);
    __builtin_memcpy(b, in + n - N / 2, N / 2);
    __builtin_memcpy(out, a, N / 2);
    __builtin_memcpy(out + n - N / 2, b, N / 2);
}

template <int N> static CG_INLINE void fixed_rows(const char *in, int64_t is, char *out, int64_t os, int64_t rows) {
    for (int64_t r = 0; r < rows; r++) __builtin_memcpy(out + r * os, in + r * is, N);
}

CG_CLONES void copy_rows(const char *in, int64_t is, char *out, int64_t os, int64_t rows, int64_t bytes) {
    switch (bytes) {
    case 4: return fixed_rows<4>(in, is, out, os, rows);
    case 8: return fixed_rows<8>(in, is, out, os, rows);
    case 16: return fixed_rows<16>(in, is, out, os, rows);
    case 32: return fixed_rows<32>(in, is, out, os, rows);
    case 64: return fixed_rows<64>(in, is, out, os, rows);
    case 128: return fixed_rows<128>(in, is, out, os, rows);
    default: break;
    }
    for (int64_t r = 0; r < rows; r++, in += is, out += os) {
        if (bytes > 256) {
            memcpy(out, in, bytes);
        } else if (bytes < 8) {
            for (int64_t i = 0; i < bytes; i++) out[i] = in[i];
        } else if (bytes <= 16) {
            overlapped<16>(out, in, bytes);
        } else if (bytes <= 32) {
            overlapped<32>(out, in, bytes);
        } else {
            int64_t i = 0;
            for (; i + 32 <= bytes; i += 32) __builtin_memcpy(out + i, in + i, 32);
            if (i < bytes) __builtin_memcpy(out + bytes - 32, in + bytes - 32, 32);
        }
    }
}

template <class T>
static CG_INLINE void strided(const char *in_, int64_t is, int64_t ii, char *out_, int64_t os, int64_t oi, int64_t rows,
                              int64_t n) {
    const T *in = (const T *)in_;
    T *out = (T *)out_;
    is /= (int64_t)sizeof(T), os /= (int64_t)sizeof(T);
    for (int64_t r = 0; r < rows; r++, in += is, out += os) {
        const T *CG_RESTRICT x = in;
        T *CG_RESTRICT y = out;
        if (ii == 0 && oi == 1) {
            const T v = *x;
            for (int64_t i = 0; i < n; i++) y[i] = v;
        } else if (oi == 1 && ii == 2) {
            for (int64_t i = 0; i < n; i++) y[i] = x[2 * i];
        } else if (oi == 1 && ii == -1) {
            for (int64_t i = 0; i < n; i++) y[i] = x[-i];
        } else if (oi == 1) {
            for (int64_t i = 0; i < n; i++) y[i] = x[i * ii];
        } else if (ii == 1) {
            for (int64_t i = 0; i < n; i++) y[i * oi] = x[i];
        } else {
            for (int64_t i = 0; i < n; i++) y[i * oi] = x[i * ii];
        }
    }
}
#define STRIDED(name, T)                                                                                                         \
    CG_CLONES void name(const char *in, int64_t is, int64_t ii, char *out, int64_t os, int64_t oi, int64_t rows, int64_t n) {    \
        strided<T>(in, is, ii, out, os, oi, rows, n);                                                                            \
    }
STRIDED(strided1, uint8_t)
STRIDED(strided2, uint16_t)
STRIDED(strided4, uint32_t)
STRIDED(strided8, uint64_t)
#undef STRIDED

// ---------------------------------------------------------------- the plan of one piece

struct Dim {
    int64_t n, in, out;
};

/* Outer dimensions, walked in order from any start. */
struct Odometer {
    int count = 0;
    Dim dims[MAX_DIMS];

    int64_t total() const {
        int64_t n = 1;
        for (int i = 0; i < count; i++) n *= dims[i].n;
        return n;
    }
    void seek(int64_t index, int64_t *at, int64_t *in, int64_t *out) const {
        *in = *out = 0;
        for (int i = count - 1; i >= 0; i--) {
            at[i] = index % dims[i].n;
            index /= dims[i].n;
            *in += at[i] * dims[i].in;
            *out += at[i] * dims[i].out;
        }
    }
    void next(int64_t *at, int64_t *in, int64_t *out) const {
        for (int i = count - 1; i >= 0; i--) {
            *in += dims[i].in;
            *out += dims[i].out;
            if (++at[i] < dims[i].n) return;
            *in -= dims[i].n * dims[i].in;
            *out -= dims[i].n * dims[i].out;
            at[i] = 0;
        }
    }
};

struct Plan {
    enum { NOTHING, ROWS, STRIDED, TRANSPOSE } kind = NOTHING;
    int input = 0, output = 0;
    int64_t itemsize = 4, size = 0, in_offset = 0, out_offset = 0; /* offsets and all strides in bytes, inner ones in elements */
    Odometer outer;
    Dim row{1, 0, 0};              /* the rows loop, the dimension above the inner one */
    Dim inner{1, 1, 1};            /* ROWS, STRIDED: elements of a row */
    int64_t pieces = 1, piece = 0; /* pieces of a row, their length */
    Dim p{1, 1, 1}, q{1, 1, 1};    /* TRANSPOSE: p contiguous in the input, q in the output */
    int64_t p_blocks = 1, q_blocks = 1;
    BlockFn transpose = nullptr;

    void run(const char *in, char *out) const;
    void run_rows(const char *in, char *out, int64_t begin, int64_t end) const;
    void run_transpose(const char *in, char *out, int64_t begin, int64_t end) const;
};

bool fits(const Dim &above, const Dim &below) { return above.in == below.in * below.n && above.out == below.out * below.n; }

Plan plan_piece(const Piece &piece, int64_t itemsize) {
    const size_t rank = piece.dims.size();
    if (piece.in_strides.size() != rank || piece.out_strides.size() != rank)
        bad("Copy: expected as many strides as dims (" + std::to_string(rank) + "), got " +
            std::to_string(piece.in_strides.size()) + " and " + std::to_string(piece.out_strides.size()));
    check_sizes("Copy", piece.dims);
    Plan plan;
    plan.input = piece.input, plan.output = piece.output, plan.itemsize = itemsize;
    plan.size = product(piece.dims);
    int64_t in_offset = piece.in_offset, out_offset = piece.out_offset;
    std::vector<Dim> dims;
    for (size_t i = 0; i < rank; i++) {
        Dim d{piece.dims[i], piece.in_strides[i], piece.out_strides[i]};
        if (d.n == 1) continue;
        if (d.out == 0 && plan.size)
            bad("Copy: expected output strides other than 0, got 0 for a dimension of " + std::to_string(d.n));
        if (d.out < 0 && plan.size) {
            in_offset += (d.n - 1) * d.in, out_offset += (d.n - 1) * d.out;
            d.in = -d.in, d.out = -d.out;
        }
        dims.push_back(d);
    }
    if (plan.size == 0) return plan;
    std::stable_sort(dims.begin(), dims.end(), [](const Dim &a, const Dim &b) { return a.out > b.out; });
    for (size_t i = 0; i + 1 < dims.size();) {
        if (fits(dims[i], dims[i + 1])) {
            dims[i + 1].n *= dims[i].n;
            dims.erase(dims.begin() + i);
            if (i) i--;
        } else {
            i++;
        }
    }
    plan.in_offset = in_offset * itemsize, plan.out_offset = out_offset * itemsize;
    if (dims.empty()) dims.push_back(Dim{1, 1, 1});

    Dim inner = dims.back();
    int p = -1;
    if (inner.in != 1 && inner.in != 0 && inner.out == 1)
        for (size_t i = 0; i + 1 < dims.size(); i++)
            if (dims[i].in == 1) p = int(i);
    dims.pop_back();
    if (p >= 0) {
        plan.kind = Plan::TRANSPOSE;
        plan.p = dims[p], plan.q = inner;
        dims.erase(dims.begin() + p);
        plan.transpose = block_function(itemsize);
        /* Blocks of about 16 KiB on each side; the last one takes the remainder, so that no two blocks share an element. */
        const int64_t edge = itemsize >= 8 ? 32 : 64, area = edge * edge;
        const int64_t pb = plan.q.n < edge ? area / std::max<int64_t>(plan.q.n, 4) : edge;
        const int64_t qb = plan.p.n < edge ? area / std::max<int64_t>(plan.p.n, 4) : edge;
        plan.p_blocks = std::max<int64_t>(1, plan.p.n / pb), plan.q_blocks = std::max<int64_t>(1, plan.q.n / qb);
    } else {
        plan.kind = inner.in == 1 && inner.out == 1 ? Plan::ROWS : Plan::STRIDED;
        plan.inner = inner;
        const int64_t most = PIECE_BYTES / itemsize;
        plan.pieces = inner.n >= 2 * most ? ceil_div(inner.n, most) : 1;
        plan.piece = ceil_div(inner.n, plan.pieces);
        if (!dims.empty()) {
            plan.row = dims.back();
            dims.pop_back();
        }
        plan.row.in *= itemsize, plan.row.out *= itemsize;
    }
    if (dims.size() > MAX_DIMS) bad("Copy: expected at most 12 dimensions that do not join, got " + std::to_string(dims.size()));
    plan.outer.count = int(dims.size());
    for (size_t i = 0; i < dims.size(); i++) plan.outer.dims[i] = Dim{dims[i].n, dims[i].in * itemsize, dims[i].out * itemsize};
    return plan;
}

/* Units [begin, end) of outer x row x pieces. */
void Plan::run_rows(const char *in, char *out, int64_t begin, int64_t end) const {
    int64_t at[MAX_DIMS], in_at, out_at;
    const int64_t per = row.n * pieces;
    outer.seek(begin / per, at, &in_at, &out_at);
    int64_t u = begin % per;
    for (int64_t left = end - begin; left > 0;) {
        const int64_t r = u / pieces, c = u % pieces;
        int64_t rows = 1, used = 1, first = 0, n = inner.n;
        if (pieces == 1) {
            rows = used = std::min(left, row.n - r);
        } else {
            first = c * piece;
            n = std::min(piece, inner.n - first);
        }
        const char *x = in + in_at + r * row.in + first * inner.in * itemsize;
        char *y = out + out_at + r * row.out + first * inner.out * itemsize;
        if (kind == ROWS) copy_rows(x, row.in, y, row.out, rows, n * itemsize);
        else if (itemsize == 4) strided4(x, row.in, inner.in, y, row.out, inner.out, rows, n);
        else if (itemsize == 8) strided8(x, row.in, inner.in, y, row.out, inner.out, rows, n);
        else if (itemsize == 2) strided2(x, row.in, inner.in, y, row.out, inner.out, rows, n);
        else strided1(x, row.in, inner.in, y, row.out, inner.out, rows, n);
        left -= used;
        u += used;
        if (u == per) {
            u = 0;
            outer.next(at, &in_at, &out_at);
        }
    }
}

void Plan::run_transpose(const char *in, char *out, int64_t begin, int64_t end) const {
    int64_t at[MAX_DIMS], in_at, out_at;
    const int64_t per = p_blocks * q_blocks, pb = p.n / p_blocks / 16 * 16, qb = q.n / q_blocks / 16 * 16;
    outer.seek(begin / per, at, &in_at, &out_at);
    int64_t u = begin % per;
    for (int64_t i = begin; i < end; i++) {
        const int64_t ip = u / q_blocks, iq = u % q_blocks;
        const int64_t p0 = ip * pb, p1 = ip + 1 == p_blocks ? p.n : p0 + pb;
        const int64_t q0 = iq * qb, q1 = iq + 1 == q_blocks ? q.n : q0 + qb;
        transpose(in + in_at + (p0 + q0 * q.in) * itemsize, q.in, out + out_at + (p0 * p.out + q0) * itemsize, p.out, p1 - p0,
                  q1 - q0);
        if (++u == per) {
            u = 0;
            outer.next(at, &in_at, &out_at);
        }
    }
}

void Plan::run(const char *in, char *out) const {
    in += in_offset;
    out += out_offset;
    if (kind == NOTHING) return;
    if (kind == TRANSPOSE)
        parallel_range(outer.total() * p_blocks * q_blocks, size, [&](int64_t b, int64_t e) { run_transpose(in, out, b, e); });
    else
        parallel_range(outer.total() * row.n * pieces, size, [&](int64_t b, int64_t e) { run_rows(in, out, b, e); });
}

struct CopyKernel : Kernel {
    std::vector<Plan> plans;
    int inputs = 1;

    static void call(const cg_call *c, const cg_context *) {
        const auto *self = static_cast<const CopyKernel *>(c->state);
        for (const Plan &plan : self->plans)
            plan.run((const char *)c->buf[plan.input], (char *)c->buf[self->inputs + plan.output]);
    }
};

// ---------------------------------------------------------------- fill, cast

CG_CLONES void fill1(uint8_t *y, uint8_t v, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = v;
}
CG_CLONES void fill4(uint32_t *y, uint32_t v, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = v;
}
CG_CLONES void fill8(uint64_t *y, uint64_t v, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = v;
}

struct FillKernel : Kernel {
    int64_t size = 0, itemsize = 4;
    uint64_t bits = 0;

    static void call(const cg_call *c, const cg_context *) {
        const auto *self = static_cast<const FillKernel *>(c->state);
        char *y = (char *)c->buf[0];
        const int64_t chunk = 8192;
        parallel_range(ceil_div(self->size, chunk), self->size, [&](int64_t b, int64_t e) {
            const int64_t first = b * chunk, n = std::min(e * chunk, self->size) - first;
            if (self->bits == 0) memset(y + first * self->itemsize, 0, n * self->itemsize);
            else if (self->itemsize == 8) fill8((uint64_t *)y + first, self->bits, n);
            else if (self->itemsize == 4) fill4((uint32_t *)y + first, uint32_t(self->bits), n);
            else fill1((uint8_t *)y + first, uint8_t(self->bits), n);
        });
    }
};

} // namespace

Kernel *make_copy(const std::vector<Piece> &pieces, int inputs, int outputs, int64_t itemsize) {
    if (itemsize != 1 && itemsize != 2 && itemsize != 4 && itemsize != 8)
        bad("Copy: expected itemsize 1, 2, 4 or 8, got " + std::to_string(itemsize));
    std::vector<Plan> plans;
    for (const Piece &piece : pieces) {
        if (piece.input < 0 || piece.input >= inputs || piece.output < 0 || piece.output >= outputs)
            bad("Copies: expected input < " + std::to_string(inputs) + " and output < " + std::to_string(outputs) + ", got " +
                std::to_string(piece.input) + " and " + std::to_string(piece.output));
        plans.push_back(plan_piece(piece, itemsize));
    }
    auto *k = new CopyKernel;
    k->run = CopyKernel::call, k->nbuf = inputs + outputs, k->inputs = inputs;
    k->plans = std::move(plans);
    return k;
}

Kernel *make_fill(int64_t size, const std::string &dtype, double value) {
    check_sizes("Fill", {size});
    uint64_t bits = 0;
    int64_t itemsize = 0;
    const auto store = [&](auto v) {
        itemsize = sizeof(v);
        memcpy(&bits, &v, sizeof(v));
    };
    if (dtype == "f4") store(float(value));
    else if (dtype == "f8") store(value);
    else if (dtype == "i4") store(int32_t(value));
    else if (dtype == "i8") store(int64_t(value));
    else if (dtype == "u1") store(uint8_t(value));
    else bad("Fill: expected dtype 'f4', 'f8', 'i4', 'i8' or 'u1', got '" + dtype + "'");
    auto *k = new FillKernel;
    k->run = FillKernel::call, k->nbuf = 1;
    k->size = size, k->itemsize = itemsize, k->bits = bits;
    return k;
}

} // namespace cg
