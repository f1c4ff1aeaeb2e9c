#include "onednn.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <stdexcept>

#include <omp.h>

#include "dnnl.hpp"
#include "winograd.h"

namespace cg {

namespace {

using dnnl::memory;
using dnnl::primitive_attr;
using Desc = memory::desc;
using Tag = memory::format_tag;

constexpr auto f32 = memory::data_type::f32;

dnnl::engine &cpu() {
    static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    return engine;
}

size_t round64(size_t bytes) { return (bytes + 63) / 64 * 64; }

int64_t product(const Dims &dims) {
    int64_t n = 1;
    for (auto d : dims) n *= d;
    return n;
}

[[noreturn]] void wrong(const std::string &message) { throw std::invalid_argument(message); }

std::string show(const Dims &dims) {
    std::string text = "(";
    for (size_t i = 0; i < dims.size(); ++i) text += (i ? ", " : "") + std::to_string(dims[i]);
    return text + (dims.size() == 1 ? ",)" : ")");
}

/* Strides for a tensor whose dimensions lie in memory in `order`, outermost first. */
Desc ordered(const Dims &dims, const std::vector<int> &order) {
    Dims strides(dims.size());
    int64_t step = 1;
    for (size_t i = order.size(); i-- > 0;) {
        strides[order[i]] = step;
        step *= std::max<int64_t>(dims[order[i]], 1);
    }
    return Desc(dims, f32, strides);
}

Desc plain(const Dims &dims) {
    std::vector<int> order(dims.size());
    for (size_t i = 0; i < dims.size(); ++i) order[i] = (int)i;
    return ordered(dims, order);
}

/* (N, C, spatial...) in one of the formats that a plan may give a value. */
Desc described(const Dims &dims, int layout) {
    const auto rank = dims.size();
    switch ((Layout)layout) {
    case Layout::plain: return plain(dims);
    case Layout::last: {
        std::vector<int> order{0};
        for (size_t i = 2; i < rank; ++i) order.push_back((int)i);
        if (rank > 1) order.push_back(1);
        return ordered(dims, order);
    }
    case Layout::c16: {
        if (rank < 2 || dims[1] % 16) wrong("layout 'c16' needs channels that divide by 16, got shape " + show(dims));
        if (rank > 5) wrong("layout 'c16' takes 2 to 5 dimensions, got shape " + show(dims));
        if (rank == 2) return plain(dims); /* rows, C/16, 16 */
        static const Tag tags[] = {Tag::aBc16b, Tag::aBcd16b, Tag::aBcde16b};
        return Desc(dims, f32, tags[rank - 3]);
    }
    }
    wrong("unknown layout number " + std::to_string(layout));
}

Desc any(const Dims &dims) { return Desc(dims, f32, Tag::any); }

using Args = std::vector<std::pair<int, int>>; /* argument of the primitive, index of a memory of the program */

} // namespace

/* A step is one primitive, one fill with zeros (empty operands), or one function of our own. */
struct Step {
    dnnl_primitive_t primitive = nullptr;
    std::vector<dnnl_exec_arg_t> args;
    std::function<void(void **)> own;
};

struct Binding {
    dnnl_memory_t memory;
    int buffer; /* -1: in scratch */
    size_t offset;
};

struct Program::Impl {
    dnnl::stream stream{cpu()};
    std::vector<Step> steps;
    std::vector<Binding> bindings;
    std::vector<memory> memories;
    std::vector<dnnl::primitive> primitives;
    std::vector<void *> buffers, bound; /* as the call has them, as the primitives have them */
    size_t scratch = 0;
    size_t shared = 0; /* scratchpad that all primitives use in turn, after `scratch` */
    std::vector<size_t> shared_bindings;
    int operands = 0;

    void bind() {
        for (const auto &b : bindings) dnnl_memory_set_data_handle(b.memory, (char *)buffers[b.buffer] + b.offset);
        bound = buffers;
    }

    int operand(const Desc &desc, int buffer) {
        memories.emplace_back(desc, cpu(), nullptr);
        bindings.push_back({memories.back().get(), buffer, 0});
        return (int)memories.size() - 1;
    }

    int temporary(const Desc &desc) {
        memories.emplace_back(desc, cpu(), nullptr);
        bindings.push_back({memories.back().get(), -1, scratch});
        scratch += round64(desc.get_size());
        return (int)memories.size() - 1;
    }

    size_t room(size_t bytes) {
        const auto at = scratch;
        scratch += round64(bytes);
        return at;
    }

    void add(const dnnl::primitive &primitive, const Desc &scratchpad, const Args &args) {
        primitives.push_back(primitive);
        Step step;
        step.primitive = primitive.get();
        for (const auto &[name, index] : args) step.args.push_back({name, memories[index].get()});
        if (scratchpad.get_size()) {
            memories.emplace_back(scratchpad, cpu(), nullptr);
            shared_bindings.push_back(bindings.size());
            bindings.push_back({memories.back().get(), -1, 0});
            shared = std::max(shared, round64(scratchpad.get_size()));
            step.args.push_back({DNNL_ARG_SCRATCHPAD, memories.back().get()});
        }
        steps.push_back(std::move(step));
    }

    void reorder(int from, int to, bool accumulate = false) {
        primitive_attr attr;
        attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
        if (accumulate) {
            dnnl::post_ops ops;
            ops.append_sum(1.f);
            attr.set_post_ops(ops);
        }
        dnnl::reorder::primitive_desc pd(cpu(), memories[from].get_desc(), cpu(), memories[to].get_desc(), attr);
        add(dnnl::reorder(pd), pd.scratchpad_desc(), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
    }

    /* An input of the primitive: the operand itself, or a copy of it in the primitive's format. */
    int input(const Desc &mine, const Desc &wanted, int buffer) {
        const int at = operand(mine, buffer);
        if (mine == wanted) return at;
        const int copy = temporary(wanted);
        reorder(at, copy);
        return copy;
    }

    void zero(int buffer, size_t bytes) {
        Step step;
        step.own = [buffer, bytes](void **buf) { std::memset(buf[buffer], 0, bytes); };
        steps.push_back(std::move(step));
    }
};

namespace {

void run_program(const cg_call *call, const cg_context *) {
    auto *impl = ((const Program *)call->state)->impl.get();
    if (impl->buffers != impl->bound) impl->bind(); /* a loop moves buffers from step to step */
    for (const auto &step : impl->steps) {
        if (step.primitive)
            dnnl_primitive_execute(step.primitive, impl->stream.get(), (int)step.args.size(), step.args.data());
        else
            step.own(call->buf);
    }
}

void finish(Program &program, int operands) {
    auto &p = *program.impl;
    p.operands = operands;
    for (auto i : p.shared_bindings) p.bindings[i].offset = p.scratch;
    p.scratch += p.shared;
    p.buffers.assign(operands + (p.scratch ? 1 : 0), nullptr);
    for (auto &b : p.bindings)
        if (b.buffer < 0) b.buffer = operands;
    program.call.buf = p.buffers.data();
    if (program.implementation.empty()) program.implementation = "none";
}

primitive_attr user_scratchpad() {
    primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return attr;
}

} // namespace

Program::Program() : impl(new Impl) {
    call.run = run_program;
    call.state = this;
    call.buf = nullptr;
    threads = omp_get_max_threads();
}

Program::~Program() = default;

int Program::nbuf() const { return (int)impl->buffers.size(); }

int64_t Program::scratch() const { return (int64_t)impl->scratch; }

void Program::set_buffers(const std::vector<intptr_t> &addresses) {
    for (size_t i = 0; i < impl->buffers.size(); ++i) impl->buffers[i] = (void *)addresses[i];
    impl->bind();
}

/* ---------------------------------------------------------------- convolution */

namespace {

struct Candidate {
    double cost = 1e300;
    std::string name;
    Desc x, w, y, scratchpad;
    std::function<dnnl::primitive()> make; /* generates the code: only for the one that is chosen */
};

/* Share of a core's peak that an implementation reaches, roughly; only the order of two candidates matters.
 * Measured on Zen 5 (AVX-512), one thread, 3x3 and 1x1 convolutions of ResNet-20 and VGG-13, peak 270 GFLOP/s. */
double efficiency(const std::string &name, int64_t in, int64_t out) {
    auto has = [&](const char *part) { return name.find(part) != std::string::npos; };
    if (has("ref")) return 0.004;
    if (has("gemm")) return 0.25;
    if (has("avx512")) {
        if (has("brgconv_strided")) return 0.4;
        if (has("brgconv_1x1")) return 0.5;
        if (has("brg")) return std::min(in, out) < 64 ? 0.6 : 0.9;
        return 0.85;
    }
    if (has("avx2")) return has("brg") ? 0.42 : 0.38;
    return 0.12;
}

double reorder_seconds(const Desc &from, const Desc &to) {
    return from == to ? 0 : (double)(from.get_size() + to.get_size()) / 8e9 + 1e-6;
}

struct ConvTraits {
    const ConvSpec &s;
    Desc x, w, y;
    double flops;
    Candidate best;

    template <class Primitive, class PD>
    void consider(const PD &pd, const Desc &px, const Desc &pw, const Desc &py) {
        Candidate c;
        c.name = pd.impl_info_str();
        c.cost = flops / (250e9 * efficiency(c.name, s.w[1], s.w[0] / s.groups)) + reorder_seconds(x, px) +
                 reorder_seconds(y, py) + reorder_seconds(w, pw);
        if (c.cost >= best.cost) return;
        c.x = px, c.w = pw, c.y = py;
        c.scratchpad = pd.scratchpad_desc();
        /* next_impl() changes the description itself, which copies of the C++ handle share. */
        dnnl_primitive_desc_t kept;
        dnnl::error::wrap_c_api(dnnl_primitive_desc_clone(&kept, pd.get()), "cannot keep a primitive description");
        c.make = [pd = PD(kept)] { return Primitive(pd); };
        best = c;
    }
};

void check_conv(const ConvSpec &s) {
    const auto rank = s.x.size();
    const auto nd = rank - 2;
    if (rank < 3 || rank > 5) wrong("a convolution takes 1 to 3 spatial dimensions, got x of shape " + show(s.x));
    if (s.w.size() != rank || s.y.size() != rank)
        wrong("x, w and y must have the same rank, got " + show(s.x) + ", " + show(s.w) + " and " + show(s.y));
    if (s.strides.size() != nd || s.dilation.size() != nd || s.pad_lo.size() != nd || s.pad_hi.size() != nd)
        wrong("strides, dilation, pad_lo and pad_hi must have one entry for each of the " + std::to_string(nd) +
              " spatial dimensions");
    if (s.groups < 1 || s.x[1] % s.groups || s.w[0] % s.groups)
        wrong("groups = " + std::to_string(s.groups) + " must divide the channels of x " + show(s.x) + " and of w " + show(s.w));
    if (s.w[1] * s.groups != s.x[1])
        wrong("w " + show(s.w) + " with " + std::to_string(s.groups) + " groups wants " + std::to_string(s.w[1] * s.groups) +
              " channels, x has shape " + show(s.x));
    if (s.y[0] != s.x[0] || s.y[1] != s.w[0])
        wrong("y must start with (" + std::to_string(s.x[0]) + ", " + std::to_string(s.w[0]) + "), got " + show(s.y));
    for (size_t i = 0; i < nd; ++i) {
        if (s.strides[i] < 1 || s.dilation[i] < 1)
            wrong("strides and dilation start at 1, got " + show(s.strides) + " and " + show(s.dilation));
        if (s.w[i + 2] < 1) wrong("a kernel of shape " + show(s.w) + " has no taps");
        if (s.pad_lo[i] < 0 || s.pad_hi[i] < 0)
            wrong("padding cannot be negative, got " + show(s.pad_lo) + " and " + show(s.pad_hi));
        const auto span = (s.w[i + 2] - 1) * s.dilation[i] + 1;
        const auto room = s.x[i + 2] + s.pad_lo[i] + s.pad_hi[i] - span;
        const auto want = room < 0 ? 0 : room / s.strides[i] + 1;
        if (s.y[i + 2] != want)
            wrong("spatial dimension " + std::to_string(i) + " of y must be " + std::to_string(want) + ", got y of shape " +
                  show(s.y));
    }
    if (s.kind != (int)Conv::forward && s.relu) wrong("relu can only be fused into a forward convolution");
    if (s.kind == (int)Conv::backward_data && s.bias) wrong("backward_data takes no bias");
}

/* Weights (O, C/groups, k...) as oneDNN counts them: with groups, (groups, O/groups, C/groups, k...). The bytes are the same. */
Dims weight_dims(const ConvSpec &s) {
    if (s.groups == 1) return s.w;
    Dims dims{s.groups, s.w[0] / s.groups};
    dims.insert(dims.end(), s.w.begin() + 1, s.w.end());
    return dims;
}

bool winograd_can(const ConvSpec &s) {
    static const bool avx512 = dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_core;
    const auto is = [](const Dims &d, int64_t v) { return std::all_of(d.begin(), d.end(), [v](int64_t e) { return e == v; }); };
    return avx512 && s.x.size() == 4 && s.w[2] == 3 && s.w[3] == 3 && is(s.strides, 1) && is(s.dilation, 1) && s.groups == 1 &&
           s.x_layout == (int)Layout::c16 && s.y_layout == (int)Layout::c16 && s.pad_lo[0] <= 2 && s.pad_lo[1] <= 2 &&
           !(s.sum && s.kind == (int)Conv::backward_data && s.relu);
}

/* Measured gain over the direct kernels where tiles fit, Zen 5, one thread: 1.1 to 1.6 with 16 channels, 1.6 to 1.8 with 32,
 * 2.2 to 3 from 64 on. Transforming the weights must be shared by enough tiles. */
bool winograd_pays(const ConvSpec &s) {
    const auto &image = s.kind == (int)Conv::backward_data ? s.x : s.y;
    const auto tiles = ((image[2] + 3) / 4) * ((image[3] + 3) / 4);
    const auto least = std::min(s.x[1], s.w[0]);
    const double gain = least < 32 ? 1.2 : least < 64 ? 1.6 : 2.2;
    return gain * (double)(image[2] * image[3]) > 1.05 * (double)(tiles * 16) && image[0] * tiles >= 48;
}

void winograd(Program &program, const ConvSpec &s) {
    auto &p = *program.impl;
    Winograd g;
    g.kind = s.kind;
    const bool data = s.kind == (int)Conv::backward_data;
    const auto &from = data ? s.y : s.x, &to = data ? s.x : s.y;
    g.n = from[0], g.c = from[1], g.h = from[2], g.w = from[3];
    g.o = to[1], g.oh = to[2], g.ow = to[3];
    g.pad_top = data ? 2 - s.pad_lo[0] : s.pad_lo[0];
    g.pad_left = data ? 2 - s.pad_lo[1] : s.pad_lo[1];
    g.bias = s.bias, g.relu = s.relu, g.sum = s.sum;
    g.threads = program.threads;
    const auto at = p.room(g.plan());
    const int operands = s.bias ? 4 : 3;
    const bool bias = s.bias;
    Step step;
    if (s.kind == (int)Conv::backward_weights)
        step.own = [=](void **b) {
            g.backward_weights((float *)b[0], (float *)b[1], (float *)b[2], bias ? (float *)b[3] : nullptr,
                               (float *)((char *)b[operands] + at));
        };
    else
        step.own = [=](void **b) {
            g.forward((float *)b[0], (float *)b[1], bias ? (float *)b[2] : nullptr, (float *)b[operands - 1],
                      (float *)((char *)b[operands] + at));
        };
    p.steps.push_back(std::move(step));
    program.implementation = "winograd:f4x4_3x3:avx512";
    finish(program, operands);
}

} // namespace

std::unique_ptr<Program> convolution(const ConvSpec &s) {
    check_conv(s);
    auto program = std::make_unique<Program>();
    auto &p = *program->impl;
    const auto kind = (Conv)s.kind;
    const auto wdims = weight_dims(s);
    ConvTraits t{s, described(s.x, s.x_layout), plain(wdims), described(s.y, s.y_layout), 0, {}};
    t.flops = 2.0 * (double)product(s.y) * (double)s.w[1] * (double)product(Dims(s.w.begin() + 2, s.w.end()));
    program->flops = t.flops;

    if (product(s.x) == 0 || product(s.y) == 0 || product(s.w) == 0) {
        if (product(s.y) && kind == Conv::forward)
            wrong("a convolution of an empty x " + show(s.x) + " must have an empty y, got " + show(s.y));
        if (!s.sum && kind == Conv::backward_data) p.zero(2, (size_t)product(s.x) * 4);
        if (!s.sum && kind == Conv::backward_weights) {
            p.zero(2, (size_t)product(s.w) * 4);
            if (s.bias) p.zero(3, (size_t)s.w[0] * 4);
        }
        finish(*program, s.bias ? 4 : 3);
        return program;
    }

    if (s.algorithm == 2 && !winograd_can(s))
        wrong("algorithm 'winograd' takes 2-D 3x3 kernels with stride 1, without dilation or groups, in layout 'c16', "
              "on AVX-512");
    if (s.algorithm == 2 || (s.algorithm == 0 && winograd_can(s) && winograd_pays(s))) {
        winograd(*program, s);
        return program;
    }

    Dims dilation = s.dilation;
    for (auto &d : dilation) d -= 1;
    const Desc bias = s.bias ? plain({s.w[0]}) : Desc();
    primitive_attr attr = user_scratchpad();
    /* oneDNN's relu, and its maximum pooling, make a number of NaN. What keeps it costs more: prelu makes NaN of -inf, and a pass of our
     * own reads and writes the result once more. Our kernels keep NaN, and the finder of NaN looks at what such a step reads. */
    if (kind == Conv::forward && (s.sum || s.relu)) {
        dnnl::post_ops ops;
        if (s.sum) ops.append_sum(1.f);
        if (s.relu) ops.append_eltwise(dnnl::algorithm::eltwise_relu, 0.f, 0.f);
        attr.set_post_ops(ops);
    }

    /* The layouts given, then each side left to oneDNN: a slow implementation loses against a reorder and a fast one. */
    const auto direct = dnnl::algorithm::convolution_direct;
    const Desc ax = any(s.x), ay = any(s.y), aw = any(wdims);
    const std::pair<Desc, Desc> tries[] = {{t.x, t.y}, {ax, t.y}, {t.x, ay}, {ax, ay}};
    for (const auto &[dx, dy] : tries) {
        try {
            if (kind == Conv::forward) {
                dnnl::convolution_forward::primitive_desc pd(cpu(), dnnl::prop_kind::forward_training, direct, dx, aw, bias, dy,
                                                             s.strides, dilation, s.pad_lo, s.pad_hi, attr);
                for (int i = 0; i < 3; ++i) {
                    t.consider<dnnl::convolution_forward>(pd, pd.src_desc(), pd.weights_desc(), pd.dst_desc());
                    if (!pd.next_impl()) break;
                }
                continue;
            }
            dnnl::convolution_forward::primitive_desc hint(cpu(), dnnl::prop_kind::forward_training, direct, ax, aw, bias, ay,
                                                           s.strides, dilation, s.pad_lo, s.pad_hi);
            if (kind == Conv::backward_data) {
                dnnl::convolution_backward_data::primitive_desc pd(cpu(), direct, dx, aw, dy, s.strides, dilation, s.pad_lo,
                                                                   s.pad_hi, hint, attr);
                for (int i = 0; i < 3; ++i) {
                    t.consider<dnnl::convolution_backward_data>(pd, pd.diff_src_desc(), pd.weights_desc(), pd.diff_dst_desc());
                    if (!pd.next_impl()) break;
                }
            } else {
                dnnl::convolution_backward_weights::primitive_desc pd(cpu(), direct, dx, aw, bias, dy, s.strides, dilation,
                                                                      s.pad_lo, s.pad_hi, hint, attr);
                for (int i = 0; i < 3; ++i) {
                    t.consider<dnnl::convolution_backward_weights>(pd, pd.src_desc(), pd.diff_weights_desc(), pd.diff_dst_desc());
                    if (!pd.next_impl()) break;
                }
            }
        } catch (const dnnl::error &e) {
            if (e.status != dnnl_unimplemented) throw;
        }
    }
    const auto &c = t.best;
    if (c.cost >= 1e300) wrong("oneDNN has no implementation for x " + show(s.x) + ", w " + show(s.w) + ", y " + show(s.y));
    program->implementation = c.name;
    if (!(c.x == t.x)) program->implementation += kind == Conv::backward_data ? " dx->" : " x->";
    if (!(c.y == t.y)) program->implementation += kind == Conv::forward ? " y->" : " dy->";

    if (kind == Conv::forward) {
        const int x = p.input(t.x, c.x, 0), w = p.input(t.w, c.w, 1);
        const int y = p.operand(t.y, s.bias ? 3 : 2);
        const int out = c.y == t.y ? y : p.temporary(c.y);
        if (s.sum && out != y) p.reorder(y, out);
        Args args{{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, out}};
        if (s.bias) args.emplace_back(DNNL_ARG_BIAS, p.operand(bias, 2));
        p.add(c.make(), c.scratchpad, args);
        if (out != y) p.reorder(out, y);
    } else if (kind == Conv::backward_data) {
        const int dy = p.input(t.y, c.y, 0), w = p.input(t.w, c.w, 1);
        const int dx = p.operand(t.x, 2);
        const int out = c.x == t.x && !s.sum ? dx : p.temporary(c.x);
        p.add(c.make(), c.scratchpad, {{DNNL_ARG_DIFF_DST, dy}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DIFF_SRC, out}});
        if (out != dx) p.reorder(out, dx, s.sum);
    } else {
        const int x = p.input(t.x, c.x, 0), dy = p.input(t.y, c.y, 1);
        const int dw = p.operand(t.w, 2);
        const int out = c.w == t.w && !s.sum ? dw : p.temporary(c.w);
        Args args{{DNNL_ARG_SRC, x}, {DNNL_ARG_DIFF_DST, dy}, {DNNL_ARG_DIFF_WEIGHTS, out}};
        int db = -1, out_b = -1;
        if (s.bias) {
            db = p.operand(bias, 3);
            out_b = s.sum ? p.temporary(bias) : db;
            args.emplace_back(DNNL_ARG_DIFF_BIAS, out_b);
        }
        p.add(c.make(), c.scratchpad, args);
        if (out != dw) p.reorder(out, dw, s.sum);
        if (out_b != db) p.reorder(out_b, db, true);
    }
    finish(*program, s.bias ? 4 : 3);
    return program;
}

/* ---------------------------------------------------------------- matrix product */

/* oneDNN's matmul reads plain and transposed operands as they lie. GFLOP/s of one Zen 5 core whose registers give 250:
 * 64x512x784 212, 64x512x512 220, a'b 784x512x64 217, ab' 64x784x512 208, 512x512x512 236, 3200x2048x80 213, 3200x2048x512 193,
 * 2048x2048x2048 193, 16x2048x512 154, 32x1024x4096 110 (b is read once from memory), 64x10x512 96.
 * Copying b into the format that oneDNN would choose gave from 2 % more (3200x2048x80) to two thirds less (thin a), and inner
 * products in their three directions 2 to 80 % less; so there is one route. */
std::unique_ptr<Program> matmul(const MatMulSpec &spec) {
    auto s = spec;
    if (s.batch < 0 || s.m < 0 || s.n < 0 || s.k < 0)
        wrong("the dimensions of a matrix product cannot be negative, got batch, m, n, k = " + show({s.batch, s.m, s.n, s.k}));
    const auto cols_a = s.transpose_a ? s.m : s.k, cols_b = s.transpose_b ? s.k : s.n;
    if (!s.lda) s.lda = cols_a;
    if (!s.ldb) s.ldb = cols_b;
    if (!s.ldc) s.ldc = s.n;
    if (s.lda < cols_a || s.ldb < cols_b || s.ldc < s.n)
        wrong("a row stride is shorter than its row: lda, ldb, ldc = " + show({s.lda, s.ldb, s.ldc}) + " for rows of " +
              show({cols_a, cols_b, s.n}));
    if (s.batch > 1 && !s.batch_c) s.batch_c = s.m * s.ldc;
    auto program = std::make_unique<Program>();
    auto &p = *program->impl;
    program->flops = 2.0 * (double)s.batch * (double)s.m * (double)s.n * (double)s.k;
    const int operands = s.bias ? 4 : 3, c_at = operands - 1;

    /* One b for all: the batch is more rows. */
    if (s.batch > 1 && !s.batch_b && !s.transpose_a && s.batch_a == s.m * s.lda && s.batch_c == s.m * s.ldc) {
        s.m *= s.batch;
        s.batch = 1;
    }
    if (!s.batch || !s.m || !s.n) {
        finish(*program, operands);
        return program;
    }
    const bool one = s.batch == 1;
    auto matrix = [&](int64_t rows, int64_t cols, int64_t ld, bool transposed, int64_t stride) {
        const int64_t row = transposed ? 1 : ld, col = transposed ? ld : 1;
        if (one) return Desc({rows, cols}, f32, Dims{row, col});
        return Desc({stride ? s.batch : 1, rows, cols}, f32, Dims{stride ? stride : rows * ld, row, col});
    };
    if (!s.k) { /* an empty sum; the bias and the activation still count */
        const auto m = s.m, n = s.n, ldc = s.ldc, batch = s.batch, stride = s.batch_c;
        const bool bias = s.bias, relu = s.relu, sum = s.sum;
        Step step;
        step.own = [=](void **buf) {
            for (int64_t z = 0; z < batch; ++z)
                for (int64_t i = 0; i < m; ++i)
                    for (int64_t j = 0; j < n; ++j) {
                        float &c = ((float *)buf[c_at])[z * stride + i * ldc + j];
                        const float v = (sum ? c : 0.f) + (bias ? ((float *)buf[2])[j] : 0.f);
                        c = relu && v < 0 ? 0.f : v;
                    }
        };
        p.steps.push_back(std::move(step));
        finish(*program, operands);
        return program;
    }

    const Desc a = matrix(s.m, s.k, s.lda, s.transpose_a, s.batch_a);
    const Desc b = matrix(s.k, s.n, s.ldb, s.transpose_b, s.batch_b);
    const Desc c = matrix(s.m, s.n, s.ldc, false, s.batch_c);
    primitive_attr attr = user_scratchpad();
    if (s.sum || s.relu) {
        dnnl::post_ops ops;
        if (s.sum) ops.append_sum(1.f);
        if (s.relu) ops.append_eltwise(dnnl::algorithm::eltwise_relu, 0.f, 0.f);
        attr.set_post_ops(ops);
    }
    try {
        Desc bias;
        if (s.bias) bias = one ? Desc({1, s.n}, f32, Tag::ab) : Desc({1, 1, s.n}, f32, Tag::abc);
        auto pd = s.bias ? dnnl::matmul::primitive_desc(cpu(), a, b, bias, c, attr)
                         : dnnl::matmul::primitive_desc(cpu(), a, b, c, attr);
        program->implementation = std::string("matmul ") + pd.impl_info_str();
        Args args{{DNNL_ARG_SRC, p.operand(a, 0)}, {DNNL_ARG_WEIGHTS, p.operand(b, 1)}, {DNNL_ARG_DST, p.operand(c, c_at)}};
        if (s.bias) args.emplace_back(DNNL_ARG_BIAS, p.operand(bias, 2));
        p.add(dnnl::matmul(pd), pd.scratchpad_desc(), args);
    } catch (const dnnl::error &e) {
        wrong("oneDNN cannot do the matrix product batch, m, n, k = " + show({s.batch, s.m, s.n, s.k}) + ": " + e.message);
    }
    finish(*program, operands);
    return program;
}

/* ---------------------------------------------------------------- pooling */

std::unique_ptr<Program> pooling(const PoolSpec &s) {
    const auto rank = s.x.size();
    const auto nd = rank - 2;
    if (rank < 3 || rank > 5) wrong("pooling takes 1 to 3 spatial dimensions, got x of shape " + show(s.x));
    if (s.y.size() != rank || s.y[0] != s.x[0] || s.y[1] != s.x[1])
        wrong("y of shape " + show(s.y) + " does not go with x of shape " + show(s.x));
    if (s.window.size() != nd || s.strides.size() != nd || s.pad_lo.size() != nd || s.pad_hi.size() != nd)
        wrong("window, strides, pad_lo and pad_hi must have one entry for each of the " + std::to_string(nd) +
              " spatial dimensions");
    for (size_t i = 0; i < nd; ++i) {
        if (s.strides[i] < 1 || s.window[i] < 1)
            wrong("window and strides start at 1, got " + show(s.window) + " and " + show(s.strides));
        if (s.pad_lo[i] < 0 || s.pad_hi[i] < 0)
            wrong("padding cannot be negative, got " + show(s.pad_lo) + " and " + show(s.pad_hi));
        if (s.pad_lo[i] >= s.window[i]) wrong("padding " + show(s.pad_lo) + " leaves a window of " + show(s.window) + " empty");
        const auto room = s.x[i + 2] + s.pad_lo[i] + s.pad_hi[i] - s.window[i];
        const auto want = room < 0 ? 0 : room / s.strides[i] + 1;
        if (s.y[i + 2] != want)
            wrong("spatial dimension " + std::to_string(i) + " of y must be " + std::to_string(want) + ", got y of shape " +
                  show(s.y));
        if (want && (want - 1) * s.strides[i] >= s.x[i + 2] + s.pad_lo[i])
            wrong("the last window of spatial dimension " + std::to_string(i) + " lies in the padding: x " + show(s.x) +
                  ", pad_hi " + show(s.pad_hi));
    }
    auto program = std::make_unique<Program>();
    auto &p = *program->impl;
    const bool with_ws = s.mode == (int)Pool::max && (s.backward || s.keep_workspace);
    const int operands = with_ws ? 3 : 2;
    if (product(s.x) == 0 || product(s.y) == 0) {
        if (s.backward) p.zero(operands - 1, (size_t)product(s.x) * 4);
        finish(*program, operands);
        return program;
    }
    static const dnnl::algorithm modes[] = {dnnl::algorithm::pooling_max, dnnl::algorithm::pooling_avg_exclude_padding,
                                            dnnl::algorithm::pooling_avg_include_padding};
    const Desc x = described(s.x, s.layout), y = described(s.y, s.layout);
    const Dims dilation(nd, 0);
    /* oneDNN keeps the argument of the maximum in the layout of y; the backward pass must see the same descriptor. */
    const auto training = dnnl::prop_kind::forward_training, use = with_ws ? training : dnnl::prop_kind::forward_inference;
    dnnl::pooling_forward::primitive_desc forward(cpu(), use, modes[s.mode], x, y, s.strides, s.window, dilation, s.pad_lo,
                                                  s.pad_hi, user_scratchpad());
    if (with_ws) program->workspace = (int64_t)forward.workspace_desc().get_size();
    program->flops = (double)product(s.y) * (double)product(s.window);
    if (!s.backward) {
        program->implementation = forward.impl_info_str();
        Args args{{DNNL_ARG_SRC, p.operand(x, 0)}, {DNNL_ARG_DST, p.operand(y, 1)}};
        if (with_ws) args.emplace_back(DNNL_ARG_WORKSPACE, p.operand(forward.workspace_desc(), 2));
        p.add(dnnl::pooling_forward(forward), forward.scratchpad_desc(), args);
    } else {
        dnnl::pooling_forward::primitive_desc hint(cpu(), training, modes[s.mode], x, y, s.strides, s.window, dilation, s.pad_lo,
                                                   s.pad_hi);
        dnnl::pooling_backward::primitive_desc pd(cpu(), modes[s.mode], x, y, s.strides, s.window, dilation, s.pad_lo,
                                                  s.pad_hi, hint, user_scratchpad());
        program->implementation = pd.impl_info_str();
        Args args{{DNNL_ARG_DIFF_DST, p.operand(y, 0)}, {DNNL_ARG_DIFF_SRC, p.operand(x, operands - 1)}};
        if (with_ws) {
            if (!(pd.workspace_desc() == forward.workspace_desc()))
                wrong("oneDNN's pooling workspaces differ between forward and backward");
            args.emplace_back(DNNL_ARG_WORKSPACE, p.operand(pd.workspace_desc(), 1));
        }
        p.add(dnnl::pooling_backward(pd), pd.scratchpad_desc(), args);
    }
    finish(*program, operands);
    return program;
}

/* ---------------------------------------------------------------- reorder */

std::unique_ptr<Program> reorder(const Dims &shape, int from_layout, int to_layout) {
    if (shape.size() < 2 || shape.size() > 5) wrong("a reorder takes 2 to 5 dimensions, got " + show(shape));
    auto program = std::make_unique<Program>();
    auto &p = *program->impl;
    const Desc from = described(shape, from_layout), to = described(shape, to_layout);
    if (product(shape)) {
        program->implementation = "reorder";
        const int x = p.operand(from, 0), y = p.operand(to, 1);
        p.reorder(x, y);
    }
    finish(*program, 2);
    return program;
}

/* ---------------------------------------------------------------- the library */

std::string version() {
    const auto *v = dnnl_version();
    return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
}

std::string isa() {
    switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::sse41: return "sse41";
    case dnnl::cpu_isa::avx: return "avx";
    case dnnl::cpu_isa::avx2: return "avx2";
    case dnnl::cpu_isa::avx2_vnni: return "avx2_vnni";
    case dnnl::cpu_isa::avx2_vnni_2: return "avx2_vnni_2";
    case dnnl::cpu_isa::avx512_core: return "avx512_core";
    case dnnl::cpu_isa::avx512_core_vnni: return "avx512_core_vnni";
    case dnnl::cpu_isa::avx512_core_bf16: return "avx512_core_bf16";
    case dnnl::cpu_isa::avx512_core_fp16: return "avx512_core_fp16";
    case dnnl::cpu_isa::avx512_core_amx: return "avx512_core_amx";
    default: return "default";
    }
}

int get_num_threads() { return omp_get_max_threads(); }

void set_num_threads(int n) {
    if (n < 1) wrong("the number of threads starts at 1, got " + std::to_string(n));
    omp_set_num_threads(n);
}

} // namespace cg
