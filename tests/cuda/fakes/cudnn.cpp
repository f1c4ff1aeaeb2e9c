/* A stand-in for libcudnn: the functions that core/engine/cuda/cudnn.pyx uses, on the fake driver. Graphs of one convolution, then
 * additions and relus, are interpreted in double and rounded where a tensor is written. What the real library refuses or leaves undefined is an
 * error here: attributes of another kind, type or number, descriptors that are not finished, tensors that do not fit, addresses aligned to
 * fewer bytes than was said, memory outside the device's.
 *
 * Its heuristic (mode A) knows engines that a caller may not want or cannot have: 10 sums in any order, 11 takes tensor cores (float32 only),
 * 12 is not for this GPU, 13 sums in half precision (halves only), 14 takes tensor cores (halves only); the fallback knows 1, for all.
 * FAKE_CUDNN_SCRATCH: bytes of scratch that engines 1 and 14 want. */
#include "fake_cudnn.h"

#include <stdlib.h>

#include <map>
#include <memory>

namespace {

using fake::error;
using fake::Handle;
using fake::type_of;

struct Descriptor;
typedef std::shared_ptr<Descriptor> Ref;

struct Attribute {
    int type;
    int64_t count;
    std::vector<char> bytes;
    std::vector<Ref> refs;
};

struct Descriptor {
    int kind;
    bool finished = false;
    std::map<int, Attribute> has;
    int engine = 0; /* of an engine, a configuration of one */

    template <class T> std::vector<T> all(int attribute) const {
        auto i = has.find(attribute);
        std::vector<T> out;
        if (i != has.end()) out.assign(reinterpret_cast<const T *>(i->second.bytes.data()), reinterpret_cast<const T *>(i->second.bytes.data()) + i->second.count);
        return out;
    }
    template <class T> T one(int attribute, T otherwise = T()) const {
        auto v = all<T>(attribute);
        return v.empty() ? otherwise : v[0];
    }
    Ref ref(int attribute, int i = 0) const { return has.at(attribute).refs.at(i); }
};

std::map<void *, Ref> live;
std::mutex lock;

Ref find(void *p) {
    std::lock_guard<std::mutex> held(lock);
    auto i = live.find(p);
    return i == live.end() ? nullptr : i->second;
}

size_t size_of(int type) {
    switch (type) {
    case CG_CUDNN_TYPE_CHAR:
    case CG_CUDNN_TYPE_BOOLEAN: return 1;
    case CG_CUDNN_TYPE_INT64:
    case CG_CUDNN_TYPE_DOUBLE:
    case CG_CUDNN_TYPE_HANDLE:
    case CG_CUDNN_TYPE_VOID_PTR:
    case CG_CUDNN_TYPE_BACKEND_DESCRIPTOR: return 8;
    }
    return 4;
}

/* attribute: the kind of descriptor that has it, its type, whether it must be set; several numbers: 2 */
struct Rule {
    int kind, attribute, type, needed, many;
};
#define KIND(k) CG_CUDNN_BACKEND_##k##_DESCRIPTOR
#define RULE(k, a, t, needed, many) {KIND(k), CG_CUDNN_ATTR_##a, CG_CUDNN_TYPE_##t, needed, many}
#define CONVOLUTION_RULES(k, p, x, w, y)                                                                                       \
    RULE(k, p##_CONV_DESC, BACKEND_DESCRIPTOR, 1, 0), RULE(k, p##_##x, BACKEND_DESCRIPTOR, 1, 0),                              \
        RULE(k, p##_##w, BACKEND_DESCRIPTOR, 1, 0), RULE(k, p##_##y, BACKEND_DESCRIPTOR, 1, 0), RULE(k, p##_ALPHA, FLOAT, 1, 0), \
        RULE(k, p##_BETA, FLOAT, 1, 0)
const Rule RULES[] = {
    RULE(TENSOR, TENSOR_UNIQUE_ID, INT64, 1, 0),
    RULE(TENSOR, TENSOR_DATA_TYPE, DATA_TYPE, 1, 0),
    RULE(TENSOR, TENSOR_BYTE_ALIGNMENT, INT64, 1, 0),
    RULE(TENSOR, TENSOR_DIMENSIONS, INT64, 1, 1),
    RULE(TENSOR, TENSOR_STRIDES, INT64, 1, 1),
    RULE(TENSOR, TENSOR_IS_VIRTUAL, BOOLEAN, 0, 0),
    RULE(CONVOLUTION, CONVOLUTION_COMP_TYPE, DATA_TYPE, 1, 0),
    RULE(CONVOLUTION, CONVOLUTION_CONV_MODE, CONVOLUTION_MODE, 1, 0),
    RULE(CONVOLUTION, CONVOLUTION_SPATIAL_DIMS, INT64, 1, 0),
    RULE(CONVOLUTION, CONVOLUTION_DILATIONS, INT64, 1, 1),
    RULE(CONVOLUTION, CONVOLUTION_FILTER_STRIDES, INT64, 1, 1),
    RULE(CONVOLUTION, CONVOLUTION_PRE_PADDINGS, INT64, 1, 1),
    RULE(CONVOLUTION, CONVOLUTION_POST_PADDINGS, INT64, 1, 1),
    RULE(POINTWISE, POINTWISE_MODE, POINTWISE_MODE, 1, 0),
    RULE(POINTWISE, POINTWISE_MATH_PREC, DATA_TYPE, 1, 0),
    RULE(OPERATION_POINTWISE, OPERATION_POINTWISE_PW_DESCRIPTOR, BACKEND_DESCRIPTOR, 1, 0),
    RULE(OPERATION_POINTWISE, OPERATION_POINTWISE_XDESC, BACKEND_DESCRIPTOR, 1, 0),
    RULE(OPERATION_POINTWISE, OPERATION_POINTWISE_BDESC, BACKEND_DESCRIPTOR, 0, 0),
    RULE(OPERATION_POINTWISE, OPERATION_POINTWISE_YDESC, BACKEND_DESCRIPTOR, 1, 0),
    CONVOLUTION_RULES(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD, X, W, Y),
    CONVOLUTION_RULES(OPERATION_CONVOLUTION_BACKWARD_DATA, OPERATION_CONVOLUTION_BWD_DATA, DX, W, DY),
    CONVOLUTION_RULES(OPERATION_CONVOLUTION_BACKWARD_FILTER, OPERATION_CONVOLUTION_BWD_FILTER, X, DW, DY),
    RULE(OPERATIONGRAPH, OPERATIONGRAPH_HANDLE, HANDLE, 0, 0),
    RULE(OPERATIONGRAPH, OPERATIONGRAPH_OPS, BACKEND_DESCRIPTOR, 1, 1),
    RULE(ENGINEHEUR, ENGINEHEUR_OPERATION_GRAPH, BACKEND_DESCRIPTOR, 1, 0),
    RULE(ENGINEHEUR, ENGINEHEUR_MODE, HEUR_MODE, 1, 0),
    RULE(ENGINEHEUR, ENGINEHEUR_DEVICEPROP, BACKEND_DESCRIPTOR, 0, 0),
    RULE(EXECUTION_PLAN, EXECUTION_PLAN_HANDLE, HANDLE, 0, 0),
    RULE(EXECUTION_PLAN, EXECUTION_PLAN_ENGINE_CONFIG, BACKEND_DESCRIPTOR, 1, 0),
    RULE(EXECUTION_PLAN, EXECUTION_PLAN_DEVICEPROP, BACKEND_DESCRIPTOR, 0, 0),
    RULE(VARIANT_PACK, VARIANT_PACK_UNIQUE_IDS, INT64, 1, 1),
    RULE(VARIANT_PACK, VARIANT_PACK_DATA_POINTERS, VOID_PTR, 1, 1),
    RULE(VARIANT_PACK, VARIANT_PACK_WORKSPACE, VOID_PTR, 1, 0),
    RULE(DEVICEPROP, DEVICEPROP_HANDLE, HANDLE, 0, 0),
    RULE(DEVICEPROP, DEVICEPROP_JSON_REPRESENTATION, CHAR, 0, 1),
};

/* A tensor's numbers: memory of the device by its strides, or a value that only the graph has. */
struct Tensor {
    int64_t uid;
    fake::Type type;
    bool virt;
    std::vector<int64_t> dims, strides;
    char *data = nullptr;
    std::shared_ptr<std::vector<double>> own;

    explicit Tensor(const Ref &d)
        : uid(d->one<int64_t>(CG_CUDNN_ATTR_TENSOR_UNIQUE_ID)), virt(d->one<char>(CG_CUDNN_ATTR_TENSOR_IS_VIRTUAL)),
          dims(d->all<int64_t>(CG_CUDNN_ATTR_TENSOR_DIMENSIONS)), strides(d->all<int64_t>(CG_CUDNN_ATTR_TENSOR_STRIDES)) {
        type_of(d->one<int>(CG_CUDNN_ATTR_TENSOR_DATA_TYPE), type);
        if (virt) own = std::make_shared<std::vector<double>>(extent());
    }
    int64_t extent() const {
        int64_t n = 1;
        for (size_t i = 0; i < dims.size(); i++) n += (dims[i] - 1) * strides[i];
        return n;
    }
    int64_t place(const std::vector<int64_t> &at) const {
        int64_t p = 0;
        for (size_t i = 0; i < dims.size(); i++) p += (dims[i] == 1 ? 0 : at[i]) * strides[i];
        return p;
    }
    double get(const std::vector<int64_t> &at) const { return virt ? (*own)[place(at)] : fake::get(type, data, place(at)); }
    void put(const std::vector<int64_t> &at, double v) const {
        if (virt) (*own)[place(at)] = v;
        else fake::put(type, data, place(at), v);
    }
};

template <class F> void for_each(const std::vector<int64_t> &dims, F f) {
    std::vector<int64_t> at(dims.size());
    for (int64_t d : dims)
        if (d < 1) return;
    for (;;) {
        f(at);
        size_t i = dims.size();
        while (i-- && ++at[i] == dims[i]) at[i] = 0;
        if (i == size_t(-1)) return;
    }
}

struct Convolution {
    Ref conv, x, w, y;
    explicit Convolution(const Descriptor &d) {
#define TAKE(p, xn, wn, yn)                                                                                                    \
    conv = d.ref(CG_CUDNN_ATTR_OPERATION_CONVOLUTION_##p##_CONV_DESC), x = d.ref(CG_CUDNN_ATTR_OPERATION_CONVOLUTION_##p##_##xn), \
    w = d.ref(CG_CUDNN_ATTR_OPERATION_CONVOLUTION_##p##_##wn), y = d.ref(CG_CUDNN_ATTR_OPERATION_CONVOLUTION_##p##_##yn)
        if (d.kind == KIND(OPERATION_CONVOLUTION_FORWARD)) TAKE(FORWARD, X, W, Y);
        else if (d.kind == KIND(OPERATION_CONVOLUTION_BACKWARD_DATA)) TAKE(BWD_DATA, DX, W, DY);
        else TAKE(BWD_FILTER, X, DW, DY);
    }
};

bool is_convolution(int kind) {
    return kind == KIND(OPERATION_CONVOLUTION_FORWARD) || kind == KIND(OPERATION_CONVOLUTION_BACKWARD_DATA) ||
           kind == KIND(OPERATION_CONVOLUTION_BACKWARD_FILTER);
}

int check_tensor(const Descriptor &d) {
    auto dims = d.all<int64_t>(CG_CUDNN_ATTR_TENSOR_DIMENSIONS), strides = d.all<int64_t>(CG_CUDNN_ATTR_TENSOR_STRIDES);
    fake::Type t;
    if (dims.size() != strides.size() || dims.size() < 4 || dims.size() > 5) return error("a tensor of another number of axes");
    for (size_t i = 0; i < dims.size(); i++)
        if (dims[i] < 1 || strides[i] < 1) return error("a tensor of size 0");
    if (!type_of(d.one<int>(CG_CUDNN_ATTR_TENSOR_DATA_TYPE, -1), t)) return error("an unknown type", CG_CUDNN_STATUS_NOT_SUPPORTED);
    return 0;
}

int check_convolution(const Descriptor &d) {
    Convolution c(d);
    if (c.conv->kind != KIND(CONVOLUTION) || c.x->kind != KIND(TENSOR) || c.w->kind != KIND(TENSOR) || c.y->kind != KIND(TENSOR))
        return error("descriptors of other kinds");
    auto x = c.x->all<int64_t>(CG_CUDNN_ATTR_TENSOR_DIMENSIONS), w = c.w->all<int64_t>(CG_CUDNN_ATTR_TENSOR_DIMENSIONS),
         y = c.y->all<int64_t>(CG_CUDNN_ATTR_TENSOR_DIMENSIONS), dilation = c.conv->all<int64_t>(CG_CUDNN_ATTR_CONVOLUTION_DILATIONS),
         stride = c.conv->all<int64_t>(CG_CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES), lo = c.conv->all<int64_t>(CG_CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS),
         hi = c.conv->all<int64_t>(CG_CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
    size_t s = c.conv->one<int64_t>(CG_CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS);
    if (x.size() != s + 2 || w.size() != s + 2 || y.size() != s + 2 || dilation.size() != s || stride.size() != s || lo.size() != s || hi.size() != s)
        return error("numbers of axes that do not fit");
    if (x[0] != y[0] || w[0] != y[1] || x[1] % w[1] || y[1] % (x[1] / w[1])) return error("channels that do not fit");
    for (size_t i = 0; i < s; i++)
        if ((x[i + 2] + lo[i] + hi[i] - (w[i + 2] - 1) * dilation[i] - 1) / stride[i] + 1 != y[i + 2]) return error("an image that does not fit");
    return 0;
}

void convolve(const Descriptor &d, std::map<int64_t, Tensor> &tensors) {
    Convolution c(d);
    auto of = [&](const Ref &r) -> Tensor & { return tensors.at(r->one<int64_t>(CG_CUDNN_ATTR_TENSOR_UNIQUE_ID)); };
    Tensor &x = of(c.x), &w = of(c.w), &y = of(c.y);
    auto dilation = c.conv->all<int64_t>(CG_CUDNN_ATTR_CONVOLUTION_DILATIONS), stride = c.conv->all<int64_t>(CG_CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES),
         lo = c.conv->all<int64_t>(CG_CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
    bool flip = c.conv->one<int>(CG_CUDNN_ATTR_CONVOLUTION_CONV_MODE) == CG_CUDNN_CONVOLUTION;
    int64_t groups = x.dims[1] / w.dims[1], per = y.dims[1] / groups;
    Tensor &out = d.kind == KIND(OPERATION_CONVOLUTION_FORWARD) ? y : d.kind == KIND(OPERATION_CONVOLUTION_BACKWARD_DATA) ? x : w;
    std::vector<double> sums(out.extent());
    std::vector<int64_t> at_x(x.dims.size()), at_w, window = w.dims;
    window[0] = 1; /* an output has weights of its own */
    for_each(y.dims, [&](const std::vector<int64_t> &p) {
        for_each(window, [&](const std::vector<int64_t> &q) {
            at_x[0] = p[0], at_x[1] = p[1] / per * w.dims[1] + q[1];
            at_w = q;
            at_w[0] = p[1];
            for (size_t i = 2; i < p.size(); i++) {
                at_x[i] = p[i] * stride[i - 2] - lo[i - 2] + q[i] * dilation[i - 2];
                if (at_x[i] < 0 || at_x[i] >= x.dims[i]) return;
                if (flip) at_w[i] = w.dims[i] - 1 - q[i];
            }
            if (&out == &y) sums[y.place(p)] += x.get(at_x) * w.get(at_w);
            else if (&out == &x) sums[x.place(at_x)] += y.get(p) * w.get(at_w);
            else sums[w.place(at_w)] += x.get(at_x) * y.get(p);
        });
    });
    for_each(out.dims, [&](const std::vector<int64_t> &p) { out.put(p, sums[out.place(p)]); });
}

void point(const Descriptor &d, std::map<int64_t, Tensor> &tensors) {
    auto of = [&](int attribute) -> Tensor & { return tensors.at(d.ref(attribute)->one<int64_t>(CG_CUDNN_ATTR_TENSOR_UNIQUE_ID)); };
    int mode = d.ref(CG_CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)->one<int>(CG_CUDNN_ATTR_POINTWISE_MODE);
    Tensor &x = of(CG_CUDNN_ATTR_OPERATION_POINTWISE_XDESC), &y = of(CG_CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    for_each(y.dims, [&](const std::vector<int64_t> &p) {
        double v = x.get(p);
        y.put(p, mode == CG_CUDNN_POINTWISE_ADD ? v + of(CG_CUDNN_ATTR_OPERATION_POINTWISE_BDESC).get(p) : v > 0 ? v : 0);
    });
}

std::vector<Ref> tensors_of(const Descriptor &op) {
    std::vector<Ref> found;
    for (auto &a : op.has)
        for (auto &r : a.second.refs)
            if (r->kind == KIND(TENSOR)) found.push_back(r);
    return found;
}

int element_of(const Descriptor &graph) { /* of the convolution's first operand */
    return Convolution(*graph.ref(CG_CUDNN_ATTR_OPERATIONGRAPH_OPS)).w->one<int>(CG_CUDNN_ATTR_TENSOR_DATA_TYPE);
}

int check_graph(const Descriptor &d) {
    auto &ops = d.has.at(CG_CUDNN_ATTR_OPERATIONGRAPH_OPS).refs;
    std::map<int64_t, Descriptor *> seen;
    for (size_t i = 0; i < ops.size(); i++) {
        if (is_convolution(ops[i]->kind) != (i == 0)) return error("no convolution with pointwise operations behind it", CG_CUDNN_STATUS_NOT_SUPPORTED);
        for (auto &t : tensors_of(*ops[i])) {
            auto &known = seen[t->one<int64_t>(CG_CUDNN_ATTR_TENSOR_UNIQUE_ID)];
            if (known && known != t.get()) return error("two tensors of one number");
            known = t.get();
        }
    }
    return 0;
}

size_t scratch_of(int engine) {
    const char *given = engine == 1 || engine == 11 || engine == 14 ? getenv("FAKE_CUDNN_SCRATCH") : nullptr;
    return given ? strtoull(given, nullptr, 10) : 0;
}

std::vector<int> engines(const Descriptor &heuristic) {
    int type = element_of(*heuristic.ref(CG_CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH));
    bool half = type == CG_CUDNN_DATA_HALF || type == CG_CUDNN_DATA_BFLOAT16;
    if (heuristic.one<int>(CG_CUDNN_ATTR_ENGINEHEUR_MODE) == CG_CUDNN_HEUR_MODE_FALLBACK) return {1};
    if (half) return {10, 12, 13, 14};
    return type == CG_CUDNN_DATA_FLOAT ? std::vector<int>{10, 11, 12} : std::vector<int>{10, 12};
}

std::vector<int> notes(int engine) {
    switch (engine) {
    case 10: return {CG_CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC};
    case 11: return {CG_CUDNN_NUMERICAL_NOTE_TENSOR_CORE};
    case 13: return {CG_CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CG_CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION};
    case 14: return {CG_CUDNN_NUMERICAL_NOTE_TENSOR_CORE};
    }
    return {};
}

const char JSON[] = "{\"deviceName\": \"fake\", \"deviceVer\": 900}";

}  // namespace

FAKE size_t cudnnGetVersion() {
    const char *given = getenv("FAKE_CUDNN_VERSION");
    return given ? strtoull(given, nullptr, 10) : 91900;
}
FAKE size_t cudnnGetCudartVersion() { return 12000; }
FAKE const char *cudnnGetErrorString(int status) {
    static const std::map<int, const char *> names = {
#define X(name, number) {number, #name},
        CG_CUDNN_NUMBERS(X)
#undef X
    };
    static const int statuses[] = {CG_CUDNN_STATUS_NOT_INITIALIZED, CG_CUDNN_STATUS_BAD_PARAM, CG_CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED,
                                   CG_CUDNN_STATUS_NOT_SUPPORTED, CG_CUDNN_STATUS_INTERNAL_ERROR, CG_CUDNN_STATUS_EXECUTION_FAILED};
    for (int s : statuses)
        if (s == status) return names.at(status);
    return "CUDNN_STATUS";
}
FAKE void cudnnGetLastErrorString(char *text, size_t size) { snprintf(text, size, "%s", fake::last_error().c_str()); }

FAKE int cudnnCreate(void **handle) {
    static auto context = fake::driver<int (*)(void **)>("cuCtxGetCurrent");
    void *current = nullptr;
    if (!context || context(&current) || !current) return error("no context", CG_CUDNN_STATUS_NOT_INITIALIZED);
    *handle = new Handle;
    return 0;
}
FAKE int cudnnSetStream(void *handle, void *stream) {
    static_cast<Handle *>(handle)->stream = stream;
    return 0;
}

FAKE int cudnnBackendCreateDescriptor(int kind, void **descriptor) {
    bool known = kind == KIND(ENGINE) || kind == KIND(ENGINECFG);
    for (auto &r : RULES) known |= r.kind == kind;
    if (!known) return error("an unknown kind of descriptor", CG_CUDNN_STATUS_NOT_SUPPORTED);
    auto made = std::make_shared<Descriptor>();
    made->kind = kind;
    std::lock_guard<std::mutex> held(lock);
    live[*descriptor = made.get()] = made;
    return 0;
}
FAKE int cudnnBackendDestroyDescriptor(void *descriptor) {
    std::lock_guard<std::mutex> held(lock);
    return live.erase(descriptor) ? 0 : error("a descriptor that is not there");
}

FAKE int cudnnBackendSetAttribute(void *descriptor, int attribute, int type, int64_t count, const void *values) {
    Ref d = find(descriptor);
    if (!d) return error("a descriptor that is not there");
    if (d->finished) return error("an attribute of a finished descriptor");
    for (auto &r : RULES) {
        if (r.kind != d->kind || r.attribute != attribute) continue;
        bool wide = r.type == CG_CUDNN_TYPE_FLOAT && type == CG_CUDNN_TYPE_DOUBLE;
        if ((type != r.type && !wide) || count < 1 || (count > 1 && !r.many)) return error("an attribute of another type or number");
        Attribute a{type, count, {static_cast<const char *>(values), static_cast<const char *>(values) + count * size_of(type)}, {}};
        if (type == CG_CUDNN_TYPE_BACKEND_DESCRIPTOR)
            for (int64_t i = 0; i < count; i++) {
                Ref other = find(static_cast<void *const *>(values)[i]);
                if (!other) return error("a descriptor that is not there");
                if (!other->finished) return error("a descriptor that is not finished", CG_CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED);
                a.refs.push_back(other);
            }
        d->has[attribute] = a;
        return 0;
    }
    return error("an attribute that it does not have");
}

FAKE int cudnnBackendFinalize(void *descriptor) {
    Ref d = find(descriptor);
    if (!d || d->finished) return error("a descriptor that is not there, or finished");
    for (auto &r : RULES)
        if (r.kind == d->kind && r.needed && !d->has.count(r.attribute)) return error("an attribute is missing");
    int status = 0;
    if (d->kind == KIND(TENSOR)) status = check_tensor(*d);
    if (is_convolution(d->kind)) status = check_convolution(*d);
    if (d->kind == KIND(OPERATIONGRAPH)) status = check_graph(*d);
    if (d->kind == KIND(ENGINEHEUR) && !d->ref(CG_CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)->has.count(CG_CUDNN_ATTR_OPERATIONGRAPH_HANDLE) &&
        !d->has.count(CG_CUDNN_ATTR_ENGINEHEUR_DEVICEPROP))
        status = error("neither a handle nor a device's description");
    if (d->kind == KIND(EXECUTION_PLAN)) {
        d->engine = d->ref(CG_CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->engine;
        if (d->engine == 12) status = error("not for this GPU", CG_CUDNN_STATUS_NOT_SUPPORTED);
        if (!d->has.count(CG_CUDNN_ATTR_EXECUTION_PLAN_HANDLE) && !d->has.count(CG_CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP))
            status = error("neither a handle nor a device's description");
    }
    if (d->kind == KIND(VARIANT_PACK) &&
        d->has[CG_CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS].count != d->has[CG_CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS].count)
        status = error("other numbers of tensors and of addresses");
    d->finished = !status;
    return status;
}

FAKE int cudnnBackendGetAttribute(void *descriptor, int attribute, int type, int64_t wanted, int64_t *count, void *values) {
    Ref d = find(descriptor);
    if (!d || (!d->finished && d->kind != KIND(ENGINE) && d->kind != KIND(ENGINECFG))) return error("a descriptor that is not finished");
    auto give = [&](const void *data, int64_t n) {
        *count = n;
        if (wanted) memcpy(values, data, (n < wanted ? n : wanted) * size_of(type));
        return 0;
    };
    auto fill = [&](const std::vector<int> &found) { /* descriptors that the caller made */
        *count = found.size();
        for (size_t i = 0; i < found.size() && int64_t(i) < wanted; i++) {
            Ref child = find(static_cast<void **>(values)[i]);
            if (!child) return error("a descriptor that is not there");
            child->engine = found[i];
            child->finished = true;
            child->has[-1] = Attribute{0, 0, {}, {d->kind == KIND(ENGINEHEUR) ? d->ref(CG_CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH) : d->ref(-1)}};
        }
        return 0;
    };
    if (d->kind == KIND(ENGINEHEUR) && attribute == CG_CUDNN_ATTR_ENGINEHEUR_RESULTS) return fill(engines(*d));
    if (d->kind == KIND(ENGINECFG) && attribute == CG_CUDNN_ATTR_ENGINECFG_ENGINE) return fill({d->engine});
    if (d->kind == KIND(ENGINE) && attribute == CG_CUDNN_ATTR_ENGINE_NUMERICAL_NOTE && type == CG_CUDNN_TYPE_NUMERICAL_NOTE)
        return give(notes(d->engine).data(), notes(d->engine).size());
    int64_t number = d->kind == KIND(ENGINE) ? d->engine : scratch_of(d->engine);
    if ((d->kind == KIND(ENGINE) && attribute == CG_CUDNN_ATTR_ENGINE_GLOBAL_INDEX) ||
        (d->kind == KIND(EXECUTION_PLAN) && attribute == CG_CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE))
        return type == CG_CUDNN_TYPE_INT64 ? give(&number, 1) : error("an attribute of another type");
    if (d->kind == KIND(DEVICEPROP) && attribute == CG_CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION && type == CG_CUDNN_TYPE_CHAR)
        return give(JSON, sizeof JSON);
    return error("an attribute that it does not have");
}

FAKE int cudnnBackendExecute(void *handle, void *plan_, void *pack_) {
    Ref plan = find(plan_), pack = find(pack_);
    if (!plan || !pack || !plan->finished || !pack->finished || !plan->has.count(CG_CUDNN_ATTR_EXECUTION_PLAN_HANDLE))
        return error("a plan or buffers that are not finished");
    Ref graph = plan->ref(CG_CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->ref(-1);
    std::map<int64_t, char *> given;
    auto uids = pack->all<int64_t>(CG_CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    auto pointers = pack->all<char *>(CG_CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    for (size_t i = 0; i < uids.size(); i++) given[uids[i]] = pointers[i];
    std::map<int64_t, Tensor> tensors;
    for (auto &op : graph->has.at(CG_CUDNN_ATTR_OPERATIONGRAPH_OPS).refs)
        for (auto &r : tensors_of(*op)) {
            Tensor t(r);
            if (!t.virt) {
                t.data = given[t.uid];
                if (!t.data || reinterpret_cast<uint64_t>(t.data) % r->one<int64_t>(CG_CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT))
                    return error("an address that is missing or not aligned as promised");
                if (!fake::on_device(t.data, t.extent() * fake::size_of(t.type))) return error("memory outside the device's", CG_CUDNN_STATUS_EXECUTION_FAILED);
            }
            tensors.emplace(t.uid, t);
        }
    size_t size = scratch_of(plan->engine);
    char *scratch = pack->one<char *>(CG_CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    if (size && (!scratch || !fake::on_device(scratch, size))) return error("no scratch");
    return fake::enqueue(static_cast<Handle *>(handle)->stream, [=]() mutable {
        if (size) memset(scratch, 0xee, size);
        for (auto &op : graph->has.at(CG_CUDNN_ATTR_OPERATIONGRAPH_OPS).refs)
            if (is_convolution(op->kind)) convolve(*op, tensors);
            else point(*op, tensors);
    }) ? CG_CUDNN_STATUS_EXECUTION_FAILED : 0;
}
