/* Planning and dispatch of the fused elementwise-and-reduce machine (pointwise.h): once a kernel, never once a minibatch. */
#include "pointwise.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include <algorithm>
#include <memory>
#include <stdexcept>

#include "philox.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CG_X86 1
#include <immintrin.h>
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" /* inside the compiler's own intrinsics */
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
namespace cg_pw {
namespace v4 {
#define PW_WIDE 1
#include "pointwise_body.h"
#undef PW_WIDE
}
} // namespace cg_pw
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
namespace cg_pw {
namespace v3 {
#include "pointwise_body.h"
}
} // namespace cg_pw
#pragma GCC pop_options
#endif
namespace cg_pw {
namespace any {
#include "pointwise_body.h"
}

typedef std::vector<int64_t> Ints;

struct Plan {
    State state;
    std::vector<Op> ops;
    std::vector<double> consts;
    std::vector<SegmentSpec> specs;
    std::vector<Segment> segments;
    int block = 0;
    std::vector<std::unique_ptr<Ints>> steps;
    std::vector<std::unique_ptr<std::vector<Layout>>> layouts;
    std::vector<void *> buf;
};

static const char *const NAMES[N_OPS] = {
#define X(name, ...) #name,
    CG_PW_UNARY(X) CG_PW_UNARY_LIBM(X) CG_PW_BINARY(X) CG_PW_TERNARY(X)
#undef X
        "rand",
    "randn", "const"};

int opcode(const std::string &name) {
    for (int i = 0; i < N_OPS; ++i)
        if (name == NAMES[i]) return i;
    return -1;
}

int arity(int code) { return code >= OP_rand ? 0 : code >= OP_select ? 3 : code >= OP_add ? 2 : 1; }

static std::string chosen_isa;

void select_isa(const std::string &name) { chosen_isa = name == "best" ? "" : name; }

std::string isa() {
#ifdef CG_X86
    if (chosen_isa.empty() || chosen_isa == "v4") {
        if (__builtin_cpu_supports("x86-64-v4")) return "v4";
    }
    if (chosen_isa != "default" && __builtin_cpu_supports("x86-64-v3")) return "v3";
#endif
    return "default";
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

static int weight_of(int code) {
    switch (code) {
    case OP_exp: case OP_log: case OP_tanh: case OP_sigmoid: return 4;
    case OP_softplus: case OP_logaddexp: case OP_sin: case OP_cos: return 8;
    case OP_pow: case OP_rand: case OP_randn: return 20;
    default: return arity(code) == 1 && code >= OP_sin && code < OP_add ? 60 : 1;
    }
}

/* ---- the program: single assignment, dead ops dropped, slots by linear scan ---- */

struct Value {
    int input, constant, op; /* one of them >= 0 */
    int last, slot;
};

/* Two ops in one pass where the first one's value has no other reader; the first is then dropped as dead. */
static void fuse_pairs(std::vector<Op> &ops, const std::vector<Value> &values, const std::vector<double> &consts,
                       const std::vector<int> &outputs, const std::vector<int> &current) {
    std::vector<int> readers(values.size(), 0);
    for (const Op &op : ops)
        for (int v : {op.a, op.b, op.c})
            if (v >= 0) ++readers[v];
    for (int reg : outputs)
        if (reg >= 0 && reg < (int)current.size() && current[reg] >= 0) ++readers[current[reg]];
    auto is_zero = [&](int v) { return values[v].constant >= 0 && consts[values[v].constant] == 0; };
    auto made_by = [&](int v, int code) {
        const bool yes = values[v].op >= 0 && readers[v] == 1 && ops[values[v].op].code == code;
        return yes ? &ops[values[v].op] : nullptr;
    };
    for (Op &op : ops) {
        const Op *first;
        if (op.code == OP_gt && (first = made_by(op.a, OP_relu)) && is_zero(op.b)) op.a = first->a; /* the mask of a relu */
        if (op.code == OP_add && (first = made_by(op.a, OP_mul)))
            op = Op{OP_fma, op.dst, first->a, first->b, op.b, 0};
        else if (op.code == OP_add && (first = made_by(op.b, OP_mul)))
            op = Op{OP_fma, op.dst, first->a, first->b, op.a, 0};
        else if (op.code == OP_sub && (first = made_by(op.a, OP_mul)))
            op = Op{OP_fms, op.dst, first->a, first->b, op.b, 0};
        else if (op.code == OP_sub && (first = made_by(op.b, OP_mul)))
            op = Op{OP_fnma, op.dst, first->a, first->b, op.a, 0};
        else if (op.code == OP_mul && (first = made_by(op.a, OP_gt)))
            op = Op{OP_gtmul, op.dst, first->a, first->b, op.b, 0};
        else if (op.code == OP_mul && (first = made_by(op.b, OP_gt)))
            op = Op{OP_gtmul, op.dst, first->a, first->b, op.a, 0};
        else if (op.code == OP_mul && (first = made_by(op.a, OP_sub)))
            op = Op{OP_submul, op.dst, first->a, first->b, op.b, 0};
        else if (op.code == OP_mul && (first = made_by(op.b, OP_sub)))
            op = Op{OP_submul, op.dst, first->a, first->b, op.a, 0};
        else if (op.code == OP_relu && (first = made_by(op.a, OP_add)))
            op = Op{OP_addrelu, op.dst, first->a, first->b, -1, 0};
        else if (op.code == OP_select && is_zero(op.c) && (first = made_by(op.a, OP_gt)))
            op = Op{OP_gtselect, op.dst, first->a, first->b, op.b, 0};
    }
}

static void plan_program(Plan &plan, const std::vector<int> &kinds, const std::vector<int> &outputs,
                         const std::vector<Instruction> &program) {
    State &st = plan.state;
    const int never = 1 << 30;
    std::vector<Value> values;
    std::vector<int> current; /* register -> value */
    auto assign = [&](int reg, Value v) {
        if (reg < 0 || reg > 100000) throw std::invalid_argument("Pointwise: a register below 0 or above 100000");
        if ((int)current.size() <= reg) current.resize(reg + 1, -1);
        values.push_back(v);
        current[reg] = (int)values.size() - 1;
    };
    auto read = [&](int reg) {
        if (reg < 0 || reg >= (int)current.size() || current[reg] < 0)
            throw std::invalid_argument("Pointwise: register " + std::to_string(reg) + " is read before it is written");
        return current[reg];
    };
    for (int k = 0; k < st.n_in; ++k) assign(k, Value{k, -1, -1, -1, k});
    std::vector<Op> ops; /* operands are values here */
    for (const Instruction &in : program) {
        if (in.dst < st.n_in)
            throw std::invalid_argument("Pointwise: register " + std::to_string(in.dst) + " is an input, never written");
        if (in.code == OP_const) {
            int c = 0;
            while (c < (int)plan.consts.size() && memcmp(&plan.consts[c], &in.value, 8)) ++c;
            if (c == (int)plan.consts.size()) plan.consts.push_back(in.value);
            assign(in.dst, Value{-1, c, -1, -1, -1});
            continue;
        }
        const int n = arity(in.code);
        Op op = {in.code, 0, n > 0 ? read(in.a) : -1, n > 1 ? read(in.b) : -1, n > 2 ? read(in.c) : -1, 0};
        if (n == 0) op.purpose = (uint32_t)(int64_t)in.value, st.has_rand = 1;
        if (op.code == OP_pow) { /* x^2 is correctly rounded by one product */
            const Value &e = values[op.b];
            if (e.constant >= 0 && plan.consts[e.constant] == 2.0) op.code = OP_mul, op.b = op.a;
        }
        assign(in.dst, Value{-1, -1, (int)ops.size(), -1, -1});
        op.dst = (int)values.size() - 1;
        ops.push_back(op);
    }
    fuse_pairs(ops, values, plan.consts, outputs, current);
    std::vector<int> result(st.n_op, -1);
    for (int k = st.n_in; k < st.n_op; ++k) result[k] = read(outputs[k - st.n_in]);
    for (int k = st.n_in; k < st.n_op; ++k) { /* every output is made by an op of its own, straight into its place */
        if (kinds[k] != K_OUT) continue;
        bool taken = values[result[k]].op < 0;
        for (int j = st.n_in; j < k; ++j) taken = taken || (kinds[j] == K_OUT && result[j] == result[k]);
        if (!taken) continue;
        values.push_back(Value{-1, -1, (int)ops.size(), -1, -1});
        ops.push_back(Op{OP_copy, (int)values.size() - 1, result[k], -1, -1, 0});
        result[k] = (int)values.size() - 1;
    }
    std::vector<char> used(values.size(), 0);
    std::vector<int> readers(values.size(), 0);
    for (const Op &op : ops)
        for (int v : {op.a, op.b, op.c})
            if (v >= 0) ++readers[v];
    for (int k = st.n_in; k < st.n_op; ++k) ++readers[result[k]];
    for (int k = st.n_in; k < st.n_op; ++k) {
        const Value &v = values[result[k]];
        if (kinds[k] == K_SUM && v.op >= 0 && ops[v.op].code == OP_mul && readers[result[k]] == 1) { /* the sum multiplies too */
            const int factors[2] = {ops[v.op].a, ops[v.op].b};
            for (int j = 0; j < 2; ++j) {
                st.factors[k][j] = factors[j];
                used[factors[j]] = 1;
                values[factors[j]].last = never;
            }
            continue;
        }
        used[result[k]] = 1;
        values[result[k]].last = never;
    }
    for (int i = (int)ops.size() - 1; i >= 0; --i) {
        if (!used[ops[i].dst]) continue;
        for (int v : {ops[i].a, ops[i].b, ops[i].c}) {
            if (v < 0) continue;
            used[v] = 1;
            values[v].last = std::max(values[v].last, i);
        }
    }
    st.first_const = st.n_in;
    st.n_const = (int)plan.consts.size();
    int next = st.first_const + st.n_const;
    for (Value &v : values)
        if (v.constant >= 0) v.slot = st.first_const + v.constant;
    for (int k = st.n_in; k < st.n_op; ++k)
        if (kinds[k] == K_OUT || st.factors[k][0] >= 0) values[result[k]].slot = next++;
    std::vector<int> free_slots;
    for (int i = 0; i < (int)ops.size(); ++i) {
        Op op = ops[i];
        if (!used[op.dst]) continue;
        const int operands[3] = {op.a, op.b, op.c};
        int slots[3] = {0, 0, 0};
        for (int j = 0; j < 3; ++j) {
            if (operands[j] < 0) continue;
            Value &v = values[operands[j]];
            slots[j] = v.slot;
            if (v.last != i || v.op < 0) continue;
            v.last = -2; /* freed once, though it be read twice here */
            bool is_output = false;
            for (int k = st.n_in; k < st.n_op; ++k) is_output = is_output || result[k] == operands[j];
            if (!is_output) free_slots.push_back(v.slot);
        }
        Value &d = values[op.dst];
        if (d.slot < 0) {
            if (free_slots.empty()) free_slots.push_back(next++);
            d.slot = free_slots.back();
            free_slots.pop_back();
        }
        for (int k = st.n_in; k < st.n_op; ++k)
            if (result[k] == op.dst) st.defined[k] = (int)plan.ops.size();
        for (int j = 0; j < 3; ++j)
            if (operands[j] >= 0 && operands[j] < st.n_in) st.last_read[operands[j]] = (int)plan.ops.size();
        plan.ops.push_back(Op{op.code, d.slot, slots[0], slots[1], slots[2], op.purpose});
    }
    for (int k = st.n_in; k < st.n_op; ++k) {
        st.slots[k] = values[result[k]].slot;
        for (int j = 0; j < 2; ++j) {
            const int v = st.factors[k][j];
            if (v >= 0) st.factors[k][j] = values[v].slot;
            if (v >= 0 && v < st.n_in) st.last_read[v] = never;
        }
        if (result[k] < st.n_in) st.last_read[result[k]] = never; /* a reduction of the input itself */
    }
    if (next > MAX_SLOTS) throw std::invalid_argument("Pointwise: more than 512 values at a time; split the program");
    st.n_slots = next;
}

/* ---- one segment: dims merged, a block chosen, loops in order ---- */

static const int64_t *keep(Plan &plan, Ints steps) {
    plan.steps.emplace_back(new Ints(std::move(steps)));
    return plan.steps.back()->data();
}

static Layout lay_out(const Ints &size, const Ints &stride, int64_t stride_s, int64_t chunk, int64_t inner) {
    Layout l;
    memset(&l, 0, sizeof l);
    l.stride_s = stride_s;
    for (size_t d = 0; d < size.size(); ++d) {
        if (l.n && l.dims[l.n - 1].stride == stride[d] * size[d]) {
            l.dims[l.n - 1].size *= size[d];
            l.dims[l.n - 1].stride = stride[d];
        } else {
            l.dims[l.n++] = Copy1{size[d], stride[d]};
        }
    }
    l.direct = (l.n == 0 || (l.n == 1 && l.dims[0].stride == 1)) && (chunk == 1 || stride_s == inner);
    if (chunk == 1) l.stride_s = 0;
    return l;
}

static void plan_segment(Plan &plan, Segment &sg, const SegmentSpec &spec, int64_t &partial, int64_t &elements) {
    State &st = plan.state;
    const int n_all = st.n_op + st.n_counters, rank = (int)spec.dims.size(), item_bytes = st.f8 ? 8 : 4;
    memset((void *)&sg, 0, sizeof sg);
    plan.layouts.emplace_back(new std::vector<Layout>(n_all));
    std::vector<Layout> &layouts = *plan.layouts.back();
    sg.layouts = layouts.data();
    sg.flow = spec.flow;
    std::vector<Ints> strides = spec.strides;
    if (st.n_counters) {
        Ints index(rank, 0), row(rank, 0);
        for (int d = 1; d < rank; ++d) index[d] = spec.index_strides[d - 1];
        if (rank) row[0] = 1;
        strides.push_back(index);
        strides.push_back(row);
    }
    int64_t n = 1;
    for (int64_t d : spec.dims) n *= d;
    if (n == 0) {
        sg.empty = true;
        for (int k = st.n_in; k < st.n_op; ++k) {
            Layout &l = layouts[k];
            l.stride_s = 1;
            for (int d = 0; d < rank; ++d) {
                if (strides[k][d] == 0) continue;
                if (spec.dims[d] == 0) l.stride_s = 0;
                l.dims[l.n++] = Copy1{spec.dims[d], strides[k][d]};
            }
        }
        return;
    }
    elements += n;
    for (int k = 0; k < st.n_op; ++k) {
        sg.hi[k] = 1;
        for (int d = 0; d < rank; ++d) (strides[k][d] < 0 ? sg.lo : sg.hi)[k] += (spec.dims[d] - 1) * strides[k][d];
    }
    /* merge */
    Ints size;
    std::vector<Ints> stride; /* [dim][operand] */
    for (int d = 0; d < rank; ++d) {
        if (spec.dims[d] == 1) continue;
        Ints here(n_all);
        for (int k = 0; k < n_all; ++k) here[k] = strides[k][d];
        bool merge = !size.empty();
        for (int k = 0; merge && k < n_all; ++k) merge = stride.back()[k] == here[k] * spec.dims[d];
        if (merge) {
            size.back() *= spec.dims[d];
            stride.back() = here;
        } else {
            size.push_back(spec.dims[d]);
            stride.push_back(here);
        }
    }
    if (size.empty()) {
        size.push_back(1);
        stride.push_back(Ints(n_all, 0));
    }
    const int k_dims = (int)size.size();
    if (k_dims > MAX_DIMS) throw std::invalid_argument("Pointwise: more than 16 dims that do not merge");
    std::vector<char> kept(k_dims, 1);
    if (st.n_red && n > 1) {
        for (int d = 0; d < k_dims; ++d) {
            int yes = 0;
            for (int k = st.n_in; k < st.n_op; ++k) yes += st.kinds[k] != K_OUT && stride[d][k] != 0;
            if (yes != 0 && yes != st.n_red)
                throw std::invalid_argument("Pointwise: the reductions of one program must reduce the same dims");
            kept[d] = yes != 0;
        }
    }
    /* a block is a chunk of dim s and all of the dims after it */
    int s = k_dims - 1;
    sg.inner = 1;
    while (s > 0 && sg.inner * size[s] <= st.width) sg.inner *= size[s--];
    int64_t unit = 1; /* chunks of whole cache lines, where that is possible */
    while (unit * sg.inner * item_bytes % 64) unit *= 2;
    int64_t most = std::max<int64_t>(1, st.width / sg.inner);
    if (most >= unit) most = most / unit * unit;
    sg.size_s = size[s];
    sg.chunk = std::min(size[s], most);
    const int64_t n_chunks = ceil_div(size[s], sg.chunk);
    sg.chunk = ceil_div(size[s], n_chunks);
    if (most >= unit && n_chunks > 1) sg.chunk = round_up(sg.chunk, unit);
    sg.s_kept = kept[s];
    sg.kept_block = kept[s] ? sg.chunk : 1;
    sg.fold_n = 1;
    sg.fold_kept[0] = kept[s];
    sg.fold_size[0] = 1;
    for (int d = s + 1; d < k_dims; ++d) {
        if (kept[d]) sg.kept_block *= size[d];
        if (kept[d] == sg.fold_kept[sg.fold_n - 1]) {
            sg.fold_size[sg.fold_n - 1] *= size[d];
        } else {
            sg.fold_kept[sg.fold_n] = kept[d];
            sg.fold_size[sg.fold_n++] = size[d];
        }
    }
    for (int k = 0; k < n_all; ++k) {
        const bool reduction = k < st.n_op && st.kinds[k] >= K_SUM;
        Ints dims_in, strides_in;
        int64_t inside = 1;
        for (int d = s + 1; d < k_dims; ++d) {
            if (reduction && !kept[d]) continue;
            dims_in.push_back(size[d]);
            strides_in.push_back(stride[d][k]);
            inside *= size[d];
        }
        layouts[k] = lay_out(dims_in, strides_in, stride[s][k], sg.chunk, inside);
    }
    /* loops outside the block */
    struct Raw {
        int64_t size;
        Ints steps;
        bool kept;
    };
    std::vector<Raw> loops;
    for (int d = 0; d < s; ++d) loops.push_back(Raw{size[d], stride[d], (bool)kept[d]});
    Ints chunk_steps = stride[s];
    for (int64_t &x : chunk_steps) x *= sg.chunk;
    loops.push_back(Raw{ceil_div(size[s], sg.chunk), chunk_steps, (bool)kept[s]});
    int gi = -1;
    for (int i = 0; i < (int)loops.size(); ++i)
        if (loops[i].kept) gi = i;
    int64_t before = 1, after = 1, run = sg.chunk * sg.inner * item_bytes;
    for (int i = 0; i < (int)loops.size(); ++i) {
        if (!loops[i].kept) (i < gi ? before : after) *= loops[i].size;
        if (i > gi) run *= loops[i].size;
    }
    sg.group = 1;
    if (st.n_red && gi >= 0 && before > 1)
        sg.group = std::min(loops[gi].size, std::max<int64_t>(1, std::min<int64_t>(8, 16384 / run)));
    const bool grouped = sg.group > 1;
    if (grouped) {
        sg.group_size = loops[gi].size;
        sg.group_steps = keep(plan, loops[gi].steps);
    }
    sg.trips_outer = grouped ? before : 1;
    sg.trips_within = grouped ? after : before * after;
    sg.n_items = 1;
    for (int i = 0; i < (int)loops.size(); ++i) {
        Raw &l = loops[i];
        if (l.kept) {
            if (grouped && i == gi) {
                l.size = ceil_div(l.size, sg.group);
                for (int64_t &x : l.steps) x *= sg.group;
            }
            sg.n_items *= l.size;
            sg.kept[sg.nk++] = Loop{l.size, keep(plan, l.steps)};
        } else if (grouped && i < gi) {
            sg.outer[sg.no++] = Loop{l.size, keep(plan, l.steps)};
        } else {
            sg.within[sg.ni++] = Loop{l.size, keep(plan, l.steps)};
        }
    }
    /* parts depend on sizes alone, so the result does not depend on the number of threads */
    const int64_t trips = grouped ? sg.trips_outer : sg.trips_within, blocks = grouped ? sg.trips_within : 1;
    const int64_t longest = std::max<int64_t>(1, 256 / blocks), least = std::max<int64_t>(1, 4 / blocks);
    const int64_t wanted = ceil_div(16, sg.n_items);
    sg.part = std::min(longest, std::max(ceil_div(trips, wanted), least));
    sg.n_parts = ceil_div(trips, sg.part);
    sg.part = ceil_div(trips, sg.n_parts);
    sg.n_parts = ceil_div(trips, sg.part);
    if (sg.n_parts > 1) {
        sg.partial = partial;
        partial += sg.n_items * sg.n_parts * st.n_red * sg.group * sg.kept_block;
        st.combines = 1;
    }
    sg.n_items *= sg.n_parts;
    sg.weight = sg.group * sg.chunk * sg.inner * sg.part * blocks + 64;
    sg.first_weight = st.total_weight;
    st.total_weight += sg.n_items * sg.weight;
    st.max_group = std::max(st.max_group, sg.group);
    st.const_width = std::max(st.const_width, sg.chunk * sg.inner);
}

static void run(const cg_call *call, const cg_context *context) {
    const State *st = (const State *)call->state;
    int threads = 1;
    if (st->forks && !omp_in_parallel()) threads = std::min(st->threads, omp_get_max_threads());
    if (threads <= 1) {
        st->worker(st, context, 0, 1);
    } else {
#pragma omp parallel num_threads(threads)
        st->worker(st, context, omp_get_thread_num(), omp_get_num_threads());
    }
}

static void place(State *st);

/* The iteration of all segments: what depends on their sizes. */
static void lay_out_segments(Plan &plan) {
    State &st = plan.state;
    plan.steps.clear();
    plan.layouts.clear();
    st.total_weight = 0;
    st.combines = 0;
    st.const_width = 0;
    /* Blocks, accumulators and the next block's lines share the first-level cache; measured best at about half of it. */
    const int item_bytes = st.f8 ? 8 : 4, touched = st.n_slots + st.n_red + (st.has_rand ? 2 : 0);
    st.width = plan.block ? plan.block : std::min<int64_t>(1024, 24576 / item_bytes / std::max(1, touched));
    st.width = std::max<int64_t>(64, st.width / 64 * 64);
    st.n_segments = (int)plan.specs.size();
    plan.segments.resize(plan.specs.size());
    st.segment = plan.segments.data();
    int64_t partial = 0, elements = 0;
    st.max_group = 1;
    for (size_t i = 0; i < plan.specs.size(); ++i) {
        plan_segment(plan, plan.segments[i], plan.specs[i], partial, elements);
        plan.segments[i].base = (int)i * st.n_op;
    }
    int64_t cost = st.n_op;
    for (const Op &op : plan.ops) cost += weight_of(op.code);
    st.forks = elements * cost >= 98304;
    /* what is near needs no prefetch, and one op alone is a stream that the processor follows by itself */
    st.shares = st.n_program + (st.n_red > 0);
    st.prefetch = st.n_program + 2 * st.n_red > 1 && elements * item_bytes * st.n_op > (4 << 20);
    st.threads = st.forks ? std::max(1, omp_get_max_threads()) : 1;
    st.slot_bytes = st.width * item_bytes + 128; /* the margin also keeps blocks from falling on the same cache sets */
    st.acc_offset = st.n_slots * st.slot_bytes;
    st.fold_offset = st.acc_offset + st.n_red * st.max_group * st.slot_bytes;
    st.counter_offset = st.fold_offset + (st.n_red ? 4 * st.slot_bytes : 0);
    st.thread_bytes = round_up(st.counter_offset + (st.has_rand ? 4 * (st.width + 16) * 4 : 0), 64);
    st.partial_bytes = partial * 8;
    st.scratch = st.threads * st.thread_bytes + st.partial_bytes;
}

State *create(int f8, const std::vector<int> &kinds, const std::vector<int> &outputs, const std::vector<Instruction> &program,
              const std::vector<SegmentSpec> &segments, int block) {
    std::unique_ptr<Plan> plan(new Plan());
    State &st = plan->state;
    st.f8 = f8;
    st.n_op = (int)kinds.size();
    if (st.n_op > MAX_OPERANDS) throw std::invalid_argument("Pointwise: more than 120 operands; split the program");
    for (int k = 0; k < st.n_op; ++k) {
        st.kinds[k] = kinds[k];
        st.last_read[k] = st.defined[k] = st.factors[k][0] = st.factors[k][1] = -1;
        st.n_in += kinds[k] == K_IN;
        st.n_red += kinds[k] >= K_SUM;
    }
    plan_program(*plan, kinds, outputs, program);
    st.n_counters = st.has_rand ? 2 : 0;
    st.program = plan->ops.data();
    st.n_program = (int)plan->ops.size();
    st.const_values = plan->consts.data();
    plan->specs = segments;
    plan->block = block;
    lay_out_segments(*plan);
    plan->buf.assign(segments.size() * st.n_op + 1, nullptr);
    st.call.run = run;
    st.call.state = &st;
    st.call.buf = plan->buf.data();
    const std::string which = isa();
#ifdef CG_X86
    if (which == "v4")
        st.worker = f8 ? v4::Machine<double>::worker : v4::Machine<float>::worker;
    else if (which == "v3")
        st.worker = f8 ? v3::Machine<double>::worker : v3::Machine<float>::worker;
    else
#endif
        st.worker = f8 ? any::Machine<double>::worker : any::Machine<float>::worker;
    st.plan = plan.release();
    return &st;
}

void resize(State *st, const std::vector<int64_t> &rows) {
    Plan &plan = *st->plan;
    for (size_t i = 0; i < rows.size(); ++i)
        if (rows[i] >= 0) plan.specs[i].dims[0] = rows[i];
    lay_out_segments(plan);
    if (st->scratch_base) place(st);
}

void destroy(State *st) {
    if (st) delete st->plan;
}

void set_buffers(State *st, const std::vector<intptr_t> &addresses) {
    for (size_t i = 0; i < addresses.size(); ++i) st->call.buf[i] = (void *)addresses[i];
    st->scratch_base = (char *)addresses.back();
    place(st);
}

static void place(State *st) {
    st->partials = (double *)(st->scratch_base + st->threads * st->thread_bytes);
    const int64_t item_bytes = st->f8 ? 8 : 4;
    for (int i = 0; i < st->n_segments; ++i) {
        Segment &sg = st->segment[i];
        if (sg.empty) continue;
        for (int o = st->n_in; o < st->n_op; ++o) {
            if (st->kinds[o] != K_OUT) continue;
            sg.direct[o] = sg.layouts[o].direct;
            const char *at = (const char *)st->call.buf[sg.base + o];
            for (int k = 0; k < st->n_in && sg.direct[o]; ++k) { /* in place, while the input is still to be read by a later op */
                const char *from = (const char *)st->call.buf[sg.base + k];
                if (st->last_read[k] > st->defined[o] && from + sg.lo[k] * item_bytes < at + sg.hi[o] * item_bytes &&
                    at + sg.lo[o] * item_bytes < from + sg.hi[k] * item_bytes)
                    sg.direct[o] = false;
            }
        }
    }
}

} // namespace cg_pw
