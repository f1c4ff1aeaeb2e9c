#include <algorithm>
#include <omp.h>

#include "movement.h"

namespace cg {
namespace {

/* The row that a float names, -1: none (NaN, negative, too large). */
template <class T> inline int64_t row_of(T index, int64_t rows) { return index >= 0 && index < T(rows) ? int64_t(index) : -1; }

CG_CLONES void add4(float *CG_RESTRICT y, const float *CG_RESTRICT x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}
CG_CLONES void add8(double *CG_RESTRICT y, const double *CG_RESTRICT x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}
inline void add(float *y, const float *x, int64_t n) { add4(y, x, n); }
inline void add(double *y, const double *x, int64_t n) { add8(y, x, n); }

template <class T> struct GatherKernel : Kernel {
    int64_t rows = 0, row_size = 0, table_rows = 0;

    /* y[i] = table[index[i]]; a row of zeros where there is no such row. */
    static void call(const cg_call *c, const cg_context *) {
        auto *self = static_cast<GatherKernel *>(c->state);
        const T *table = (const T *)c->buf[0], *index = (const T *)c->buf[1];
        T *y = (T *)c->buf[2];
        const int64_t n = self->row_size, bytes = n * (int64_t)sizeof(T);
        parallel_range(self->rows, self->rows * n, [&](int64_t b, int64_t e) {
            for (int64_t i = b; i < e; i++) {
                const int64_t r = row_of(index[i], self->table_rows);
                if (r < 0) {
                    self->report(i, index[i]);
                    memset(y + i * n, 0, bytes);
                } else if (n == 1) {
                    y[i] = table[r];
                } else {
                    memcpy(y + i * n, table + r * n, bytes);
                }
            }
        });
    }
};

template <class T> struct ScatterAddKernel : Kernel {
    int64_t rows = 0, row_size = 0, table_rows = 0;
    bool accumulate = false;

    /* dtable[index[i]] += dy[i] in the order of i: each group of table rows has one owner, who reads all indices. */
    static void call(const cg_call *c, const cg_context *) {
        auto *self = static_cast<ScatterAddKernel *>(c->state);
        const T *index = (const T *)c->buf[0], *dy = (const T *)c->buf[1];
        T *table = (T *)c->buf[2];
        const int64_t n = self->row_size, all = self->table_rows;
        if (!self->accumulate)
            parallel_range(ceil_div(all * n, 8192), all * n, [&](int64_t b, int64_t e) {
                memset(table + b * 8192, 0, (std::min(e * 8192, all * n) - b * 8192) * sizeof(T));
            });
        const int64_t owners = self->rows * n < SMALL ? 1 : omp_get_max_threads();
        const int64_t group = std::max<int64_t>(1, 64 / std::max<int64_t>(1, n * (int64_t)sizeof(T)));
        parallel(owners, self->rows * n, [&](int64_t owner) {
            for (int64_t i = 0; i < self->rows; i++) {
                const int64_t r = row_of(index[i], all);
                if (r < 0) {
                    if (owner == 0) self->report(i, index[i]);
                } else if (owners == 1 || r / group % owners == owner) {
                    if (n == 1) table[r] += dy[i];
                    else add(table + r * n, dy + i * n, n);
                }
            }
        });
    }
};

template <class T> struct OneHotKernel : Kernel {
    int64_t n = 0, classes = 0, inner = 1;

    /* y[i, c, j] = (x[i, j] == c). */
    static void call(const cg_call *c, const cg_context *) {
        auto *self = static_cast<OneHotKernel *>(c->state);
        const T *x = (const T *)c->buf[0];
        T *y = (T *)c->buf[1];
        const int64_t inner = self->inner, per = self->classes * inner;
        parallel_range(self->n, self->n * per, [&](int64_t b, int64_t e) {
            memset(y + b * per, 0, (e - b) * per * sizeof(T));
            for (int64_t i = b; i < e; i++)
                for (int64_t j = 0; j < inner; j++) {
                    const int64_t r = row_of(x[i * inner + j], self->classes);
                    if (r < 0) self->report(i * inner + j);
                    else y[i * per + r * inner + j] = 1;
                }
        });
    }
};

template <class T> Kernel *gather(int64_t rows, int64_t row_size, int64_t table_rows) {
    auto *k = new GatherKernel<T>;
    k->run = GatherKernel<T>::call, k->nbuf = 3;
    k->rows = rows, k->row_size = row_size, k->table_rows = table_rows;
    return k;
}
template <class T> Kernel *scatter_add(int64_t rows, int64_t row_size, int64_t table_rows, bool accumulate) {
    auto *k = new ScatterAddKernel<T>;
    k->run = ScatterAddKernel<T>::call, k->nbuf = 3;
    k->rows = rows, k->row_size = row_size, k->table_rows = table_rows, k->accumulate = accumulate;
    return k;
}
template <class T> Kernel *one_hot(int64_t n, int64_t classes, int64_t inner) {
    auto *k = new OneHotKernel<T>;
    k->run = OneHotKernel<T>::call, k->nbuf = 2;
    k->n = n, k->classes = classes, k->inner = inner;
    return k;
}

/* A place in x (outer, n, inner) by its own index in index (outer, k, inner). */
template <class T> struct AlongKernel : Kernel {
    int64_t outer = 0, n = 0, inner = 1, k = 0;

    /* y[o, j, i] = x[o, index[o, j, i], i]; 0 where there is no such entry. */
    static void take(const cg_call *c, const cg_context *) {
        auto *self = static_cast<AlongKernel *>(c->state);
        const int64_t n = self->n, inner = self->inner, k = self->k;
        const T *x = (const T *)c->buf[0], *index = (const T *)c->buf[1];
        T *y = (T *)c->buf[2];
        parallel_range(self->outer, self->outer * k * inner, [&](int64_t b, int64_t e) {
            for (int64_t o = b; o < e; o++)
                for (int64_t j = 0; j < k; j++)
                    for (int64_t i = 0, at = (o * k + j) * inner; i < inner; i++, at++) {
                        const int64_t r = row_of(index[at], n);
                        if (r < 0) self->report(at);
                        y[at] = r < 0 ? T(0) : x[(o * n + r) * inner + i];
                    }
        });
    }

    /* x[o, index[o, j, i], i] += y[o, j, i] in the order of j, onto zeros; buffers y, index, x. */
    static void put(const cg_call *c, const cg_context *) {
        auto *self = static_cast<AlongKernel *>(c->state);
        const int64_t n = self->n, inner = self->inner, k = self->k;
        const T *y = (const T *)c->buf[0], *index = (const T *)c->buf[1];
        T *x = (T *)c->buf[2];
        parallel_range(self->outer, self->outer * (n + k) * inner, [&](int64_t b, int64_t e) {
            memset(x + b * n * inner, 0, (e - b) * n * inner * sizeof(T));
            for (int64_t o = b; o < e; o++)
                for (int64_t j = 0; j < k; j++)
                    for (int64_t i = 0, at = (o * k + j) * inner; i < inner; i++, at++) {
                        const int64_t r = row_of(index[at], n);
                        if (r < 0) self->report(at);
                        else x[(o * n + r) * inner + i] += y[at];
                    }
        });
    }
};

template <class T> Kernel *along(bool put, int64_t outer, int64_t n, int64_t inner, int64_t k) {
    auto *kernel = new AlongKernel<T>;
    kernel->run = put ? AlongKernel<T>::put : AlongKernel<T>::take, kernel->nbuf = 3;
    kernel->outer = outer, kernel->n = n, kernel->inner = inner, kernel->k = k;
    return kernel;
}

} // namespace

Kernel *make_gather(int64_t rows, int64_t row_size, int64_t table_rows, const std::string &dtype) {
    check_sizes("Gather", {rows, row_size, table_rows});
    return is_double("Gather", dtype) ? gather<double>(rows, row_size, table_rows) : gather<float>(rows, row_size, table_rows);
}

Kernel *make_scatter_add(int64_t rows, int64_t row_size, int64_t table_rows, const std::string &dtype, bool accumulate) {
    check_sizes("ScatterAdd", {rows, row_size, table_rows});
    return is_double("ScatterAdd", dtype) ? scatter_add<double>(rows, row_size, table_rows, accumulate)
                                          : scatter_add<float>(rows, row_size, table_rows, accumulate);
}

Kernel *make_one_hot(int64_t n, int64_t classes, int64_t inner, const std::string &dtype) {
    check_sizes("OneHot", {n, classes, inner});
    return is_double("OneHot", dtype) ? one_hot<double>(n, classes, inner) : one_hot<float>(n, classes, inner);
}

Kernel *make_along(bool put, int64_t outer, int64_t n, int64_t inner, int64_t k, const std::string &dtype) {
    check_sizes("Along", {outer, n, inner, k});
    return is_double("Along", dtype) ? along<double>(put, outer, n, inner, k) : along<float>(put, outer, n, inner, k);
}

} // namespace cg
