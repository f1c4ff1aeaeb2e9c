/* The fused elementwise-and-reduce machine: a short program interpreted over blocks that stay in the first-level cache.
 * pointwise.cpp plans (once) and dispatches; pointwise_body.h is the machine, compiled once for each instruction set. */
#ifndef COGKIT_POINTWISE_H
#define COGKIT_POINTWISE_H
#include <stdint.h>

#include <string>
#include <vector>

#include "kernel.h"

namespace cg_pw {

/* Every opcode, once: its word and what it does to numbers x, y, z of type T (one, two, three operands). */
#define CG_PW_UNARY(X)                                                                                                          \
    X(neg, -x) X(exp, exp_(x)) X(log, log_(x)) X(sqrt, sqrt_(x)) X(rsqrt, T(1) / sqrt_(x)) X(reciprocal, T(1) / x)              \
    X(abs, abs_(x)) X(sign, x > 0 ? T(1) : x < 0 ? T(-1) : x) X(floor, floor_(x)) X(ceil, ceil_(x)) X(round, rint_(x))          \
    X(tanh, tanh_(x)) X(sigmoid, sigmoid_(x)) X(relu, x <= 0 ? T(0) : x) X(softplus, softplus_(x))                              \
    X(not, x == 0 ? T(1) : T(0)) X(copy, x) X(half, half_(x))
#define CG_PW_UNARY_LIBM(X)                                                                                                     \
    X(sin) X(cos) X(tan) X(asin) X(acos) X(atan) X(sinh) X(cosh) X(asinh) X(acosh) X(atanh)
#define CG_PW_BINARY(X)                                                                                                         \
    X(add, x + y) X(sub, x - y) X(mul, x * y) X(div, x / y) X(pow, pow_(x, y)) X(max, max_(x, y)) X(min, min_(x, y))            \
    X(eq, x == y ? T(1) : T(0)) X(ne, x != y ? T(1) : T(0)) X(lt, x < y ? T(1) : T(0)) X(le, x <= y ? T(1) : T(0))              \
    X(gt, x > y ? T(1) : T(0)) X(ge, x >= y ? T(1) : T(0)) X(and, (x != 0) & (y != 0) ? T(1) : T(0))                            \
    X(or, (x != 0) | (y != 0) ? T(1) : T(0)) X(xor, (x != 0) ^ (y != 0) ? T(1) : T(0)) X(logaddexp, logaddexp_(x, y))           \
    X(copysign, copysign_(x, y)) X(addrelu, x + y <= 0 ? T(0) : x + y)
/* addrelu and those after fma: what the planner makes of pairs of ops (a product and a sum then may round once). */
#define CG_PW_TERNARY(X)                                                                                                        \
    X(select, x != 0 ? y : z) X(fma, x * y + z) X(fms, x * y - z) X(fnma, z - x * y) X(gtmul, (x > y ? T(1) : T(0)) * z)        \
    X(gtselect, x > y ? z : T(0)) X(submul, (x - y) * z)

enum Opcode {
#define X(name, ...) OP_##name,
    CG_PW_UNARY(X) CG_PW_UNARY_LIBM(X) CG_PW_BINARY(X) CG_PW_TERNARY(X)
#undef X
        OP_rand,
    OP_randn,
    OP_const,
    N_OPS
};

enum Kind { K_IN, K_OUT, K_SUM, K_PROD, K_MAX, K_MIN };

constexpr int MAX_DIMS = 16, MAX_OPERANDS = 120, MAX_SLOTS = 512;

struct Op {
    int code;
    int dst, a, b, c; /* slots */
    uint32_t purpose;
};

/* A loop outside the block: steps[k] is added to the offset of operand k (in elements). */
struct Loop {
    int64_t size;
    const int64_t *steps;
};

struct Copy1 {
    int64_t size, stride;
};

/* How one operand lies inside a block: dims of the block below the chunked one, merged for this operand alone. */
struct Layout {
    int direct;       /* the block is contiguous in memory */
    int n;            /* merged dims below the chunked one */
    Copy1 dims[MAX_DIMS];
    int64_t stride_s; /* stride of the chunked dim */
};

struct Segment {
    bool empty, s_kept;
    int64_t flow;              /* of a space without rows: random numbers a step, which go on from step to step; else 0 */
    int base;                  /* first slot of buf */
    int64_t inner, chunk, size_s; /* a block: `chunk` steps (fewer at the end) of dim s, each `inner` elements */
    int nk, no, ni;            /* kept loops, reduced loops outside the group loop, reduced loops inside it */
    Loop kept[MAX_DIMS + 1], outer[MAX_DIMS + 1], within[MAX_DIMS + 1];
    int64_t group, group_size; /* kept indices whose accumulators lie side by side, so that memory is read in long runs */
    const int64_t *group_steps;
    int64_t trips_outer, trips_within, part, n_parts; /* a part: the reduced trips that one accumulator sees */
    int64_t n_items, weight, first_weight;
    int64_t kept_block, partial;   /* results of a full block; where the parts' results start, in doubles */
    const Layout *layouts;         /* of all operands, then of the two counters of random numbers */
    int fold_n, fold_kept[MAX_DIMS + 1];
    int64_t fold_size[MAX_DIMS + 1]; /* the first is for one step of dim s */
    int64_t lo[MAX_OPERANDS], hi[MAX_OPERANDS]; /* extents in elements, last exclusive */
    bool direct[MAX_OPERANDS];     /* outputs that the last op writes in place */
};

struct State {
    cg_call call;
    void (*worker)(const State *, const cg_context *, int, int);
    int f8, threads, forks, combines, has_rand, prefetch, shares;
    int n_in, n_op, n_red, n_counters, n_slots, n_program, n_segments, first_const, n_const;
    int64_t width, const_width, max_group; /* width: elements of a block */
    int64_t slot_bytes, acc_offset, fold_offset, counter_offset, thread_bytes, partial_bytes, scratch, total_weight;
    int kinds[MAX_OPERANDS], slots[MAX_OPERANDS];       /* slot of each operand's block */
    int factors[MAX_OPERANDS][2]; /* slots of the factors of a sum of products, else -1 */
    int last_read[MAX_OPERANDS], defined[MAX_OPERANDS]; /* op that reads an input last; op that makes an output */
    const Op *program;
    const double *const_values;
    Segment *segment;
    char *scratch_base;
    double *partials;
    struct Plan *plan; /* owner of the arrays */
};

struct SegmentSpec {
    std::vector<int64_t> dims;
    std::vector<std::vector<int64_t>> strides; /* [operand][dim] */
    std::vector<int64_t> index_strides;        /* of dims 1.. */
    int64_t flow = 0;
};

struct Instruction {
    int code, dst, a, b, c;
    double value;
};

int opcode(const std::string &name); /* -1: none */
int arity(int code);
State *create(int f8, const std::vector<int> &kinds, const std::vector<int> &outputs, const std::vector<Instruction> &program,
              const std::vector<SegmentSpec> &segments, int block);
/* Other sizes of the first dim of each segment (-1: as it was); `scratch` may change, and buffers must then be bound again. */
void resize(State *, const std::vector<int64_t> &rows);
void destroy(State *);
void set_buffers(State *, const std::vector<intptr_t> &);
void select_isa(const std::string &name); /* "" or best, v4, v3, default: for tests */
std::string isa();

} // namespace cg_pw
#endif
