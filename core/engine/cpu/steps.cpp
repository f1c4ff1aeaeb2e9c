#include "steps.h"

#include <algorithm>

namespace cg {
namespace {

struct MoveRows : Kernel {
    int64_t rows, bytes;
    const int64_t *index;
};

void run_move_rows(const cg_call *call, const cg_context *) {
    const auto &k = *(const MoveRows *)call->state;
    const char *x = (const char *)call->buf[0];
    char *y = (char *)call->buf[1];
    const int64_t bytes = k.bytes;
    parallel_range(k.rows, k.rows * bytes / 4, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            const int64_t from = k.index[r];
            if (from < 0)
                std::memset(y + r * bytes, 0, bytes);
            else
                std::memcpy(y + r * bytes, x + from * bytes, bytes);
        }
    });
}

struct AddRows : Kernel {
    int64_t rows, target_rows, width;
    const int64_t *index;
};

template <class T> void run_add_rows(const cg_call *call, const cg_context *) {
    const auto &k = *(const AddRows *)call->state;
    const T *x = (const T *)call->buf[0];
    T *y = (T *)call->buf[1];
    std::memset(y, 0, k.target_rows * k.width * sizeof(T));
    for (int64_t r = 0; r < k.rows; ++r)
        if (k.index[r] >= 0)
            for (int64_t i = 0; i < k.width; ++i) y[k.index[r] * k.width + i] += x[r * k.width + i];
}

template <class T> struct RowValues : Kernel {
    int64_t width;
    std::vector<T> values;
};

template <class T> void run_row_values(const cg_call *call, const cg_context *) {
    const auto &k = *(const RowValues<T> *)call->state;
    T *y = (T *)call->buf[0];
    for (size_t r = 0; r < k.values.size(); ++r) std::fill_n(y + r * k.width, k.width, k.values[r]);
}

template <class T> Kernel *row_values(int64_t rows, int64_t width, const double *values) {
    auto *k = new RowValues<T>();
    k->run = run_row_values<T>;
    k->nbuf = 1;
    k->width = width;
    k->values.assign(values, values + rows);
    return k;
}

struct FoldSteps : Kernel {
    int kind; /* 0: sum, 1: max, 2: min */
    int64_t steps, sequences, width;
    const int64_t *alive, *offset, *order;
};

/* NaN wins, as in NumPy. */
template <class T> CG_INLINE T fold(int kind, T a, T b) {
    if (kind == 0) return a + b;
    if (kind == 1) return a > b || a != a ? a : b;
    return a < b || a != a ? a : b;
}

template <class T, int KIND> CG_INLINE void fold_rows(const T *CG_RESTRICT x, T *CG_RESTRICT y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = fold(KIND, y[i], x[i]);
}

CG_CLONES void fold_f4(int kind, const float *x, float *y, int64_t n) {
    if (kind == 0) fold_rows<float, 0>(x, y, n);
    else if (kind == 1) fold_rows<float, 1>(x, y, n);
    else fold_rows<float, 2>(x, y, n);
}

CG_CLONES void fold_f8(int kind, const double *x, double *y, int64_t n) {
    if (kind == 0) fold_rows<double, 0>(x, y, n);
    else if (kind == 1) fold_rows<double, 1>(x, y, n);
    else fold_rows<double, 2>(x, y, n);
}

template <class T, void (*FOLD)(int, const T *, T *, int64_t)> void run_fold_steps(const cg_call *call, const cg_context *) {
    const auto &k = *(const FoldSteps *)call->state;
    const T *x = (const T *)call->buf[0];
    T *y = (T *)call->buf[1];
    const int64_t w = k.width, total = k.steps ? k.offset[k.steps] : 0;
    const int64_t first = k.steps ? k.alive[0] : 0;
    parallel_dynamic(k.sequences, total * w, [&](int64_t s) {
        T *to = y + k.order[s] * w;
        if (s >= first) {
            std::fill_n(to, w, T(0));
            return;
        }
        std::memcpy(to, x + s * w, w * sizeof(T));
        for (int64_t t = 1; t < k.steps && k.alive[t] > s; ++t) FOLD(k.kind, x + (k.offset[t] + s) * w, to, w);
    });
}

} // namespace

Kernel *make_move_rows(int64_t rows, int64_t row_bytes, const int64_t *index) {
    if (rows < 0 || row_bytes < 0) bad("MoveRows: expected sizes >= 0");
    auto *k = new MoveRows();
    k->run = run_move_rows;
    k->nbuf = 2;
    k->rows = rows;
    k->bytes = row_bytes;
    k->index = index;
    return k;
}

Kernel *make_add_rows(int64_t rows, int64_t target_rows, int64_t width, const int64_t *index, const std::string &dtype) {
    auto *k = new AddRows();
    k->run = is_double("AddRows", dtype) ? run_add_rows<double> : run_add_rows<float>;
    k->nbuf = 2;
    k->rows = rows;
    k->target_rows = target_rows;
    k->width = width;
    k->index = index;
    return k;
}

Kernel *make_row_values(int64_t rows, int64_t width, const double *values, const std::string &dtype) {
    return is_double("RowValues", dtype) ? row_values<double>(rows, width, values) : row_values<float>(rows, width, values);
}

Kernel *make_fold_steps(const std::string &kind, int64_t steps, int64_t sequences, const int64_t *alive, const int64_t *offset,
                        const int64_t *order, int64_t width, const std::string &dtype) {
    auto *k = new FoldSteps();
    k->kind = kind == "sum" ? 0 : kind == "max" ? 1 : 2;
    k->run = is_double("FoldSteps", dtype) ? run_fold_steps<double, fold_f8> : run_fold_steps<float, fold_f4>;
    k->nbuf = 2;
    k->steps = steps;
    k->sequences = sequences;
    k->alive = alive;
    k->offset = offset;
    k->order = order;
    k->width = width;
    return k;
}

LoopKernel::LoopKernel(int buffers, std::vector<int64_t> places_, int64_t scratch_) : places(std::move(places_)) {
    nbuf = buffers + 1;
    scratch = scratch_;
    run = run_steps;
    bases.resize(buffers + places.size());
}

void *LoopKernel::base(const cg_call *call, int b) const {
    return b < nbuf - 1 ? call->buf[b] : (char *)call->buf[nbuf - 1] + places[b - (nbuf - 1)];
}

void LoopKernel::begin_program(int64_t rows) {
    if (rows < 0) bad("Loop: expected rows >= 0");
    if ((int64_t)programs.size() <= rows) programs.resize(rows + 1);
    programs[rows].clear();
    programs[rows].reserve(16);
    adding = rows;
}

void LoopKernel::add_call(const cg_call *call, const std::vector<int> &b, const std::vector<int64_t> &row_bytes,
                          const std::vector<int64_t> &offsets) {
    Call made{call, {}};
    for (size_t i = 0; i < b.size(); ++i) made.slots.push_back({b[i], row_bytes[i], offsets[i]});
    programs[adding].push_back(std::move(made));
}

void LoopKernel::end_program(int64_t) { adding = -1; }

void LoopKernel::set_layout(std::vector<int64_t> a, std::vector<int64_t> o, bool f) {
    alive = std::move(a);
    offset = std::move(o);
    forward = f;
}

void LoopKernel::run_steps(const cg_call *call, const cg_context *context) {
    const auto &k = *(const LoopKernel *)(const Kernel *)call->state;
    for (size_t b = 0; b < k.bases.size(); ++b) k.bases[b] = k.base(call, (int)b);
    for (const cg_call *c : k.before) c->run(c, context);
    const int64_t steps = (int64_t)k.alive.size();
    for (int64_t i = 0; i < steps; ++i) k.step(context, k.forward ? i : steps - 1 - i);
}

void LoopKernel::step(const cg_context *context, int64_t t) const {
    const int64_t steps = (int64_t)alive.size(), n = alive[t];
    for (const Carry &c : carries) {
        char *to = (char *)bases[c.target] + offset[t] * c.target_bytes;
        const int64_t from = t - c.shift;
        const int64_t same = from >= 0 && from < steps ? std::min(n, alive[from]) : 0;
        if (same) std::memcpy(to, (const char *)bases[c.source] + offset[from] * c.source_bytes, same * c.row_bytes);
        if (same < n) std::memset(to + same * c.row_bytes, 0, (n - same) * c.row_bytes);
    }
    for (const Call &c : programs[n]) {
        for (size_t j = 0; j < c.slots.size(); ++j)
            c.call->buf[j] = (char *)bases[c.slots[j].base] + offset[t] * c.slots[j].row_bytes + c.slots[j].offset;
        c.call->run(c.call, context);
    }
}

} // namespace cg
