/* The recurrent half of the stand-in for libcudnn. Stacks are computed in double, one sequence after the other; what training keeps is a copy of the
 * operand and of the gradient of the result, from which the passes back compute everything again. What the real library refuses or leaves
 * undefined is an error here: lengths that are not sorted, passes in another order, sizes of memory that differ from those it told.
 * FAKE_CUDNN_RNN_GAP: bytes between the weights, as a library might lay them that is not cuDNN 9. */
#include "fake_cudnn.h"

#include <stdlib.h>

namespace {

using fake::error;
using fake::Type;
typedef std::vector<double> Numbers;

struct Rnn {
    int cell, type, inputs, hidden, layers, directions;
    bool dropout;
};
struct Data {
    int type, width;
    std::vector<int> lengths;
};
struct Dropout {
    bool set = false;
};

int gates(const Rnn &r) { return r.cell == CG_CUDNN_LSTM ? 4 : r.cell == CG_CUDNN_GRU ? 3 : 1; }
int inputs_of(const Rnn &r, int p) { return p < r.directions ? r.inputs : r.directions * r.hidden; }
size_t gap() {
    const char *given = getenv("FAKE_CUDNN_RNN_GAP");
    return given ? strtoull(given, nullptr, 10) : 0;
}
int64_t matrices(const Rnn &r, int p) {
    int64_t n = 0;
    for (int i = 0; i < p; i++) n += int64_t(gates(r)) * r.hidden * (inputs_of(r, i) + r.hidden);
    return n;
}
int64_t weights(const Rnn &r) {
    int count = r.layers * r.directions;
    return matrices(r, count) + int64_t(count) * 2 * gates(r) * r.hidden;
}

/* Where a row lies: step by step, the sequences that are still there. */
struct Rows {
    std::vector<int> first;
    int64_t count = 0;
    explicit Rows(const std::vector<int> &lengths) {
        for (int t = 0; t < lengths[0]; t++) {
            first.push_back(count);
            for (int n : lengths) count += n > t;
        }
    }
    int64_t at(int t, int b) const { return first[t] + b; }
};

double squash(double x) { return 1 / (1 + exp(-x)); }

/* One layer and direction, with its parts of the weights and of their gradient. */
struct Layer {
    const Rnn &r;
    int n, g, h;
    const double *w, *u, *bw, *bu;
    double *dw = nullptr, *du = nullptr, *dbw = nullptr, *dbu = nullptr;

    Layer(const Rnn &rnn, int p, const double *all, double *gradient) : r(rnn), n(inputs_of(rnn, p)), g(gates(rnn)), h(rnn.hidden) {
        int64_t at = matrices(r, p), b = matrices(r, r.layers * r.directions) + int64_t(p) * 2 * g * h;
        w = all + at, u = w + int64_t(g) * h * n, bw = all + b, bu = bw + g * h;
        if (gradient) dw = gradient + at, du = dw + int64_t(g) * h * n, dbw = gradient + b, dbu = dbw + g * h;
    }

    /* What a step makes: activations of the gates, the recurrent part of the gate that a GRU's reset acts on, the cell, the state. */
    struct Step {
        Numbers a, v, c, s;
    };

    void forward(const double *x, const Step *before, Step &now) const {
        now.a.resize(g * h), now.v.assign(h, 0), now.c.assign(h, 0), now.s.resize(h);
        Numbers in(g * h), rec(g * h);
        for (int i = 0; i < g * h; i++) {
            in[i] = bw[i], rec[i] = bu[i];
            for (int j = 0; j < n; j++) in[i] += w[int64_t(i) * n + j] * x[j];
            for (int j = 0; before && j < h; j++) rec[i] += u[int64_t(i) * h + j] * before->s[j];
        }
        for (int j = 0; j < h; j++) {
            auto sum = [&](int k) { return in[k * h + j] + rec[k * h + j]; };
            double old = before ? before->s[j] : 0;
            if (r.cell == CG_CUDNN_LSTM) {
                for (int k = 0; k < 4; k++) now.a[k * h + j] = k == 2 ? tanh(sum(k)) : squash(sum(k));
                now.c[j] = now.a[h + j] * (before ? before->c[j] : 0) + now.a[j] * now.a[2 * h + j];
                now.s[j] = now.a[3 * h + j] * tanh(now.c[j]);
            } else if (r.cell == CG_CUDNN_GRU) {
                now.v[j] = rec[2 * h + j];
                now.a[j] = squash(sum(0)), now.a[h + j] = squash(sum(1)), now.a[2 * h + j] = tanh(in[2 * h + j] + now.a[j] * now.v[j]);
                now.s[j] = (1 - now.a[h + j]) * now.a[2 * h + j] + now.a[h + j] * old;
            } else {
                now.s[j] = now.a[j] = r.cell == CG_CUDNN_RNN_TANH ? tanh(sum(0)) : sum(0) > 0 ? sum(0) : 0;
            }
        }
    }

    /* ds, dc: gradients of the state and cell after this step; they become those of before it. dx is added to. */
    void backward(const double *x, const Step *before, const Step &now, Numbers &ds, Numbers &dc, double *dx) const {
        Numbers in(g * h), rec, ds_before(h), dc_before(h);
        rec.resize(g * h);
        for (int j = 0; j < h; j++) {
            double old = before ? before->s[j] : 0;
            if (r.cell == CG_CUDNN_LSTM) {
                double i = now.a[j], f = now.a[h + j], m = now.a[2 * h + j], o = now.a[3 * h + j], t = tanh(now.c[j]);
                double d = dc[j] + ds[j] * o * (1 - t * t);
                in[j] = d * m * i * (1 - i), in[h + j] = d * (before ? before->c[j] : 0) * f * (1 - f);
                in[2 * h + j] = d * i * (1 - m * m), in[3 * h + j] = ds[j] * t * o * (1 - o);
                dc_before[j] = d * f;
                for (int k = 0; k < 4; k++) rec[k * h + j] = in[k * h + j];
            } else if (r.cell == CG_CUDNN_GRU) {
                double e = now.a[j], z = now.a[h + j], m = now.a[2 * h + j], dm = ds[j] * (1 - z) * (1 - m * m);
                in[j] = rec[j] = dm * now.v[j] * e * (1 - e), in[h + j] = rec[h + j] = ds[j] * (old - m) * z * (1 - z);
                in[2 * h + j] = dm, rec[2 * h + j] = dm * e;
                ds_before[j] = ds[j] * z;
            } else {
                double a = now.a[j];
                in[j] = rec[j] = ds[j] * (r.cell == CG_CUDNN_RNN_TANH ? 1 - a * a : a > 0);
            }
        }
        for (int i = 0; i < g * h; i++) {
            for (int j = 0; j < n; j++) {
                dx[j] += in[i] * w[int64_t(i) * n + j];
                if (dw) dw[int64_t(i) * n + j] += in[i] * x[j];
            }
            for (int j = 0; before && j < h; j++) {
                ds_before[j] += rec[i] * u[int64_t(i) * h + j];
                if (du) du[int64_t(i) * h + j] += rec[i] * before->s[j];
            }
            if (dbw) dbw[i] += in[i], dbu[i] += rec[i];
        }
        ds = ds_before, dc = dc_before;
    }
};

/* y of x, and where dy is given dx and (added up) dw. */
void compute(const Rnn &r, const std::vector<int> &lengths, const Numbers &x, const Numbers &w, Numbers &y, const Numbers *dy, Numbers *dx, Numbers *dw) {
    Rows rows(lengths);
    int d = r.directions, h = r.hidden, sequences = lengths.size();
    std::vector<Numbers> values = {x};
    std::vector<std::vector<std::vector<Layer::Step>>> kept(r.layers * d); /* sequence, step */
    for (int p = 0; p < r.layers * d; p++) {
        Layer layer(r, p, w.data(), nullptr);
        if (p % d == 0) values.emplace_back(rows.count * d * h);
        const Numbers &from = values[p / d];
        for (int b = 0; b < sequences; b++) {
            std::vector<Layer::Step> steps(lengths[b]);
            for (int k = 0; k < lengths[b]; k++) {
                int t = p % d ? lengths[b] - 1 - k : k;
                layer.forward(&from[rows.at(t, b) * layer.n], k ? &steps[k - 1] : nullptr, steps[k]);
                std::copy(steps[k].s.begin(), steps[k].s.end(), values.back().begin() + (rows.at(t, b) * d + p % d) * h);
            }
            kept[p].push_back(steps);
        }
    }
    y = values.back();
    if (!dy) return;
    Numbers up = *dy;
    for (int l = r.layers - 1; l >= 0; l--) {
        Numbers down(values[l].size());
        for (int p = l * d; p < (l + 1) * d; p++) {
            Layer layer(r, p, w.data(), dw ? dw->data() : nullptr);
            for (int b = 0; b < sequences; b++) {
                Numbers ds(h), dc(h);
                for (int k = lengths[b] - 1; k >= 0; k--) {
                    int64_t row = rows.at(p % d ? lengths[b] - 1 - k : k, b);
                    for (int j = 0; j < h; j++) ds[j] += up[(row * d + p % d) * h + j];
                    layer.backward(&values[l][row * layer.n], k ? &kept[p][b][k - 1] : nullptr, kept[p][b][k], ds, dc, &down[row * layer.n]);
                }
            }
        }
        up = down;
    }
    *dx = up;
}

Type type(const Rnn &r) {
    Type t = fake::F4;
    fake::type_of(r.type, t);
    return t;
}
Numbers read(Type t, const void *p, int64_t n) {
    Numbers v(n);
    for (int64_t i = 0; i < n; i++) v[i] = fake::get(t, p, i);
    return v;
}
void write(Type t, void *p, const Numbers &v) {
    for (size_t i = 0; i < v.size(); i++) fake::put(t, p, i, v[i]);
}

/* What training keeps: how far it is, where the weights are, the operand, the gradient of the result. */
const double FORWARD_DONE = 1234.5, DATA_DONE = 5432.1;
size_t reserve_of(const Rnn &r, int64_t rows) { return (2 + rows * (r.inputs + r.directions * r.hidden)) * sizeof(double); }
const size_t WORKSPACE = 512;

struct Call {
    Rnn r;
    std::vector<int> lengths;
    int64_t rows;
    Type t;
};

int check(Call &c, void *handle, void *rnn, const int32_t *lengths, void *x_desc, void *y_desc, size_t weight_bytes, size_t workspace_bytes,
          const void *workspace, size_t reserve_bytes, const void *reserve, bool training) {
    if (!handle || !rnn || !x_desc || !y_desc) return error("a descriptor that is not there");
    const Data &x = *static_cast<Data *>(x_desc), &y = *static_cast<Data *>(y_desc);
    c.r = *static_cast<Rnn *>(rnn);
    if (!c.r.inputs) return error("a stack that was not set");
    if (x.lengths.empty() || x.lengths != y.lengths || x.width != c.r.inputs || y.width != c.r.hidden * c.r.directions || x.type != c.r.type)
        return error("sequences that do not fit");
    c.lengths = x.lengths, c.rows = Rows(x.lengths).count, c.t = type(c.r);
    if (weight_bytes != weights(c.r) * fake::size_of(c.t) + gap()) return error("weights of another size");
    if (workspace_bytes < WORKSPACE || !fake::on_device(workspace, WORKSPACE)) return error("too little scratch");
    if (training && (reserve_bytes < reserve_of(c.r, c.rows) || !fake::on_device(reserve, reserve_bytes))) return error("too little kept");
    if (!fake::on_device(lengths, c.lengths.size() * 4) || memcmp(lengths, c.lengths.data(), c.lengths.size() * 4))
        return error("other lengths on the device");
    return 0;
}

template <class T> int create(void **descriptor) {
    *descriptor = new T();
    return 0;
}
template <class T> int destroy(void *descriptor) {
    delete static_cast<T *>(descriptor);
    return 0;
}

struct Tensor {
    int axes;
};

}  // namespace

FAKE int cudnnCreateDropoutDescriptor(void **d) { return create<Dropout>(d); }
FAKE int cudnnDestroyDropoutDescriptor(void *d) { return destroy<Dropout>(d); }
FAKE int cudnnSetDropoutDescriptor(void *dropout, void *handle, float rate, void *, size_t, unsigned long long) {
    if (!handle || rate != 0) return error("no handle, or dropout");
    static_cast<Dropout *>(dropout)->set = true;
    return 0;
}
FAKE int cudnnCreateTensorDescriptor(void **d) { return create<Tensor>(d); }
FAKE int cudnnDestroyTensorDescriptor(void *d) { return destroy<Tensor>(d); }
FAKE int cudnnSetTensorNdDescriptor(void *tensor, int, int axes, const int *, const int *) {
    static_cast<Tensor *>(tensor)->axes = axes;
    return axes == 3 ? 0 : error("a state of another number of axes");
}
FAKE int cudnnCreateRNNDescriptor(void **d) { return create<Rnn>(d); }
FAKE int cudnnDestroyRNNDescriptor(void *d) { return destroy<Rnn>(d); }
FAKE int cudnnSetRNNDescriptor_v8(void *rnn, int algorithm, int cell, int bias, int direction, int input, int element, int precision, int math,
                                  int32_t inputs, int32_t hidden, int32_t projected, int32_t layers, void *dropout, uint32_t flags) {
    Type t;
    if (!fake::type_of(element, t) || bias != CG_CUDNN_RNN_DOUBLE_BIAS || input != CG_CUDNN_LINEAR_INPUT || flags || projected != hidden ||
        !dropout || !static_cast<Dropout *>(dropout)->set || cell < 0 || cell > CG_CUDNN_GRU)
        return error("a stack of another kind");
    bool half = t == fake::F2 || t == fake::B2;
    if (precision != (t == fake::F8 ? CG_CUDNN_DATA_DOUBLE : CG_CUDNN_DATA_FLOAT) || half != (math == CG_CUDNN_TENSOR_OP_MATH))
        return error("a precision of another type");
    if (algorithm == CG_CUDNN_RNN_ALGO_PERSIST_STATIC && t == fake::F8) return error("no such algorithm", CG_CUDNN_STATUS_NOT_SUPPORTED);
    *static_cast<Rnn *>(rnn) = {cell, element, inputs, hidden, layers, direction == CG_CUDNN_BIDIRECTIONAL ? 2 : 1, false};
    return 0;
}
FAKE int cudnnCreateRNNDataDescriptor(void **d) { return create<Data>(d); }
FAKE int cudnnDestroyRNNDataDescriptor(void *d) { return destroy<Data>(d); }
FAKE int cudnnSetRNNDataDescriptor(void *data, int element, int layout, int longest, int sequences, int width, const int *lengths, void *) {
    std::vector<int> given(lengths, lengths + sequences);
    for (int i = 0; i < sequences; i++)
        if (given[i] < 1 || given[i] > (i ? given[i - 1] : longest)) return error("isSortedSequences == false");
    if (layout != CG_CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED) return error("another layout");
    *static_cast<Data *>(data) = {element, width, given};
    return 0;
}
FAKE int cudnnGetRNNTempSpaceSizes(void *handle, void *rnn, int, void *x_desc, size_t *workspace, size_t *reserve) {
    if (!handle) return error("no handle");
    *workspace = WORKSPACE;
    *reserve = reserve_of(*static_cast<Rnn *>(rnn), Rows(static_cast<Data *>(x_desc)->lengths).count);
    return 0;
}
FAKE int cudnnGetRNNWeightSpaceSize(void *handle, void *rnn, size_t *size) {
    if (!handle) return error("no handle");
    const Rnn &r = *static_cast<Rnn *>(rnn);
    *size = weights(r) * fake::size_of(type(r)) + gap();
    return 0;
}
FAKE int cudnnGetRNNWeightParams(void *handle, void *rnn, int32_t p, size_t, const void *all, int32_t part, void *, void **matrix, void *, void **bias) {
    if (!handle) return error("no handle");
    const Rnn &r = *static_cast<Rnn *>(rnn);
    int g = gates(r), h = r.hidden, n = inputs_of(r, p);
    int64_t item = fake::size_of(type(r)), at = matrices(r, p), b = matrices(r, r.layers * r.directions) + int64_t(p) * 2 * g * h;
    char *begin = static_cast<char *>(const_cast<void *>(all));
    *matrix = begin + (at + (part < g ? int64_t(part) * h * n : int64_t(g) * h * n + int64_t(part - g) * h * h)) * item;
    *bias = begin + (b + int64_t(part) * h) * item + gap();
    return 0;
}

FAKE int cudnnRNNForward(void *handle, void *rnn, int mode, const int32_t *lengths, void *x_desc, const void *x, void *y_desc, void *y, void *h_desc,
                         const void *hx, void *hy, void *, const void *cx, void *cy, size_t weight_bytes, const void *w, size_t workspace_bytes,
                         void *workspace, size_t reserve_bytes, void *reserve) {
    Call c;
    bool training = mode == CG_CUDNN_FWD_MODE_TRAINING;
    if (int status = check(c, handle, rnn, lengths, x_desc, y_desc, weight_bytes, workspace_bytes, workspace, reserve_bytes, reserve, training))
        return status;
    size_t item = fake::size_of(c.t), out = c.rows * c.r.hidden * c.r.directions;
    if (!h_desc || hx || hy || cx || cy) return error("states");
    if (!fake::on_device(x, c.rows * c.r.inputs * item) || !fake::on_device(y, out * item) || !fake::on_device(w, weight_bytes))
        return error("memory outside the device's", CG_CUDNN_STATUS_EXECUTION_FAILED);
    return fake::enqueue(static_cast<fake::Handle *>(handle)->stream, [=] {
        Numbers from = read(c.t, x, c.rows * c.r.inputs), to;
        compute(c.r, c.lengths, from, read(c.t, w, weights(c.r)), to, nullptr, nullptr, nullptr);
        write(c.t, y, to);
        memset(workspace, 0xee, WORKSPACE);
        if (!training) return;
        double *kept = static_cast<double *>(reserve);
        kept[0] = FORWARD_DONE;
        memcpy(kept + 1, &w, sizeof w);
        std::copy(from.begin(), from.end(), kept + 2);
    }) ? CG_CUDNN_STATUS_EXECUTION_FAILED : 0;
}

FAKE int cudnnRNNBackwardData_v8(void *handle, void *rnn, const int32_t *lengths, void *y_desc, const void *y, const void *dy, void *x_desc, void *dx,
                                 void *, const void *hx, const void *dhy, void *dhx, void *, const void *cx, const void *dcy, void *dcx,
                                 size_t weight_bytes, const void *w, size_t workspace_bytes, void *workspace, size_t reserve_bytes,
                                 void *reserve) {
    Call c;
    if (int status = check(c, handle, rnn, lengths, x_desc, y_desc, weight_bytes, workspace_bytes, workspace, reserve_bytes, reserve, true))
        return status;
    size_t item = fake::size_of(c.t), n = c.rows * c.r.inputs, out = c.rows * c.r.hidden * c.r.directions;
    if (hx || dhy || dhx || cx || dcy || dcx) return error("states");
    if (!fake::on_device(dx, n * item) || !fake::on_device(y, out * item) || !fake::on_device(dy, out * item) || !fake::on_device(w, weight_bytes))
        return error("memory outside the device's", CG_CUDNN_STATUS_EXECUTION_FAILED);
    return fake::enqueue(static_cast<fake::Handle *>(handle)->stream, [=] {
        double *kept = static_cast<double *>(reserve);
        Numbers from(kept + 2, kept + 2 + n), slope = read(c.t, dy, out), to, back;
        compute(c.r, c.lengths, from, read(c.t, w, weights(c.r)), to, &slope, &back, nullptr);
        if (kept[0] != FORWARD_DONE) back.assign(n, NAN); /* not behind a forward pass */
        write(c.t, dx, back);
        kept[0] = DATA_DONE;
        std::copy(slope.begin(), slope.end(), kept + 2 + n);
        memset(workspace, 0xee, WORKSPACE);
    }) ? CG_CUDNN_STATUS_EXECUTION_FAILED : 0;
}

FAKE int cudnnRNNBackwardWeights_v8(void *handle, void *rnn, int mode, const int32_t *lengths, void *x_desc, const void *x, void *, const void *hx,
                                    void *y_desc, const void *y, size_t weight_bytes, void *dw, size_t workspace_bytes, void *workspace,
                                    size_t reserve_bytes, void *reserve) {
    Call c;
    if (int status = check(c, handle, rnn, lengths, x_desc, y_desc, weight_bytes, workspace_bytes, workspace, reserve_bytes, reserve, true))
        return status;
    size_t item = fake::size_of(c.t), n = c.rows * c.r.inputs, out = c.rows * c.r.hidden * c.r.directions;
    if (hx || mode != CG_CUDNN_WGRAD_MODE_ADD) return error("states, or a gradient that is not added up");
    if (!fake::on_device(x, n * item) || !fake::on_device(y, out * item) || !fake::on_device(dw, weight_bytes))
        return error("memory outside the device's", CG_CUDNN_STATUS_EXECUTION_FAILED);
    return fake::enqueue(static_cast<fake::Handle *>(handle)->stream, [=] {
        double *kept = static_cast<double *>(reserve);
        Numbers slope(kept + 2 + n, kept + 2 + n + out), to, back, sum = read(c.t, dw, weights(c.r));
        const void *w;
        memcpy(&w, kept + 1, sizeof w);
        compute(c.r, c.lengths, read(c.t, x, n), read(c.t, w, weights(c.r)), to, &slope, &back, &sum);
        if (kept[0] != DATA_DONE) sum.assign(sum.size(), NAN); /* not behind the pass to the operand */
        write(c.t, dw, sum);
    }) ? CG_CUDNN_STATUS_EXECUTION_FAILED : 0;
}
