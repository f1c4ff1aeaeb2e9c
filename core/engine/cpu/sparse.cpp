#include "sparse.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

namespace cg {
namespace {

/* y = a x, y += a x, y += x. */
CG_CLONES void scaled4(float *CG_RESTRICT y, const float *CG_RESTRICT x, float a, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = a * x[i];
}
CG_CLONES void scaled8(double *CG_RESTRICT y, const double *CG_RESTRICT x, double a, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = a * x[i];
}
CG_CLONES void plus4(float *CG_RESTRICT y, const float *CG_RESTRICT x, float a, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}
CG_CLONES void plus8(double *CG_RESTRICT y, const double *CG_RESTRICT x, double a, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}
inline void scaled(float *y, const float *x, float a, int64_t n) { scaled4(y, x, a, n); }
inline void scaled(double *y, const double *x, double a, int64_t n) { scaled8(y, x, a, n); }
inline void plus(float *y, const float *x, float a, int64_t n) { plus4(y, x, a, n); }
inline void plus(double *y, const double *x, double a, int64_t n) { plus8(y, x, a, n); }

/* y = a x, or a copy where a is 1: what a one-hot row picks. */
template <class T> inline void begin_with(T *y, const T *x, T a, int64_t n) {
    if (a == 1) std::memcpy(y, x, n * sizeof(T));
    else scaled(y, x, a, n);
}

/* Rows are handed out in pieces of about this many elements. */
constexpr int64_t PIECE = 16384;

template <class T> struct CsrTimes : Kernel {
    int64_t width, n;
    bool turned;

    /* y[r] = sum over the entries (c, v) of row r of v b[c], or of v b[:, c] where b lies transposed. */
    static void call(const cg_call *c, const cg_context *) {
        const auto &k = *(const CsrTimes *)c->state;
        const auto &a = *(const Csr *)c->buf[0];
        const T *b = (const T *)c->buf[1], *value = (const T *)a.value;
        T *y = (T *)c->buf[2];
        const int64_t n = k.n, rows = a.rows, each = std::max<int64_t>(1, PIECE / std::max<int64_t>(n, 1));
        const int64_t *begin = a.begin(), *end = a.end();
        parallel_dynamic(ceil_div(rows, each), rows * n, [&](int64_t piece) {
            for (int64_t r = piece * each; r < std::min(rows, (piece + 1) * each); r++) {
                T *out = y + r * n;
                if (k.turned) {
                    for (int64_t j = 0; j < n; j++) {
                        T sum = 0;
                        for (int64_t e = begin[r]; e < end[r]; e++) sum += value[e] * b[j * k.width + a.column[e]];
                        out[j] = sum;
                    }
                    continue;
                }
                if (begin[r] == end[r]) {
                    std::memset(out, 0, n * sizeof(T));
                    continue;
                }
                begin_with(out, b + a.column[begin[r]] * n, value[begin[r]], n);
                for (int64_t e = begin[r] + 1; e < end[r]; e++) plus(out, b + a.column[e] * n, value[e], n);
            }
        });
    }
};

/* Memory of a kernel that grows with the minibatch and is kept: how much is wanted is known only when it runs. */
template <class T> struct Room {
    std::unique_ptr<T[]> data;
    int64_t size = 0;
    T *of(int64_t n) {
        if (n > size) {
            data.reset();
            size = n + n / 2;
            data.reset(new T[size]);
        }
        return data.get();
    }
};

/* Sums entries (column, source row, value) into the rows of a list. Entries of one column are added in their order, whichever thread does it. */
template <class T> struct Summed : Kernel {
    int64_t width, n;
    struct Entry {
        uint32_t column, source;
        T value;
    };
    Room<Entry> entries, sorted;
    Room<int64_t> row, start;
    Room<T> value;

    /* Sorts by column, eleven bits at a time; equal columns keep their order. Gives the array that holds the result. */
    Entry *sort(Entry *a, Entry *b, int64_t count) const {
        constexpr int bits = 11;
        int64_t place[1 << bits];
        for (int shift = 0; shift < 32 && (width - 1) >> shift; shift += bits) {
            std::memset(place, 0, sizeof place);
            for (int64_t i = 0; i < count; i++) place[(a[i].column >> shift) & ((1 << bits) - 1)]++;
            int64_t at = 0;
            for (int64_t &p : place) {
                const int64_t have = p;
                p = at;
                at += have;
            }
            for (int64_t i = 0; i < count; i++) b[place[(a[i].column >> shift) & ((1 << bits) - 1)]++] = a[i];
            std::swap(a, b);
        }
        return a;
    }

    void sum(int64_t count, const T *dy, RowList *out) {
        const Entry *entry = sort(entries.data.get(), sorted.of(count), count);
        int64_t *rows = row.of(count), *first = start.of(count + 1), found = 0;
        for (int64_t i = 0; i < count; i++)
            if (i == 0 || entry[i].column != entry[i - 1].column) {
                rows[found] = entry[i].column;
                first[found++] = i;
            }
        if (count) first[found] = count;
        T *y = value.of(found * n);
        const int64_t each = std::max<int64_t>(1, PIECE / std::max<int64_t>(n, 1));
        parallel_dynamic(ceil_div(found, each), count * n, [&](int64_t piece) {
            for (int64_t u = piece * each; u < std::min(found, (piece + 1) * each); u++) {
                const Entry *e = entry + first[u], *stop = entry + first[u + 1];
                begin_with(y + u * n, dy + e->source * n, e->value, n);
                while (++e < stop) plus(y + u * n, dy + e->source * n, e->value, n);
            }
        });
        out->count = found, out->row = rows, out->value = y;
    }
};

template <class T> struct CsrTransposed : Summed<T> {
    /* The rows c of sum over entries (r, c, v) of v dy[r] that have any. */
    static void call(const cg_call *c, const cg_context *) {
        auto &k = *(CsrTransposed *)c->state;
        const auto &a = *(const Csr *)c->buf[0];
        const int64_t *begin = a.begin(), *end = a.end();
        const T *value = (const T *)a.value;
        int64_t count = 0;
        for (int64_t r = 0; r < a.rows; r++) count += end[r] - begin[r];
        auto *entry = k.entries.of(count);
        for (int64_t r = 0; r < a.rows; r++)
            for (int64_t e = begin[r]; e < end[r]; e++) *entry++ = {uint32_t(a.column[e]), uint32_t(r), value[e]};
        k.sum(count, (const T *)c->buf[1], (RowList *)c->buf[2]);
    }
};

/* The row that a float names, -1: none (NaN, negative, too large). */
template <class T> inline int64_t row_of(T index, int64_t rows) { return index >= 0 && index < T(rows) ? int64_t(index) : -1; }

template <class T> struct ScatterRows : Summed<T> {
    int64_t rows;

    /* The rows of sum over r of dy[r] at index[r] that have any; indices that name no row are left out. */
    static void call(const cg_call *c, const cg_context *) {
        auto &k = *(ScatterRows *)c->state;
        const T *index = (const T *)c->buf[0];
        auto *entry = k.entries.of(k.rows);
        int64_t count = 0;
        for (int64_t r = 0; r < k.rows; r++) {
            const int64_t at = row_of(index[r], k.width);
            if (at >= 0) entry[count++] = {uint32_t(at), uint32_t(r), T(1)};
            else k.report(r, index[r]);
        }
        k.sum(count, (const T *)c->buf[1], (RowList *)c->buf[2]);
    }
};

template <class T> struct RowsAdd : Kernel {
    int64_t n;
    Room<int64_t> row, from;
    Room<T> value;

    /* The sum of two lists of rows. */
    static void call(const cg_call *c, const cg_context *) {
        auto &k = *(RowsAdd *)c->state;
        const auto &a = *(const RowList *)c->buf[0], &b = *(const RowList *)c->buf[1];
        auto *out = (RowList *)c->buf[2];
        int64_t *rows = k.row.of(a.count + b.count), *from = k.from.of(2 * (a.count + b.count)), found = 0;
        for (int64_t i = 0, j = 0; i < a.count || j < b.count; found++) {
            const bool left = j == b.count || (i < a.count && a.row[i] <= b.row[j]);
            const bool right = i == a.count || (j < b.count && b.row[j] <= a.row[i]);
            rows[found] = left ? a.row[i] : b.row[j];
            from[2 * found] = left ? i++ : -1;
            from[2 * found + 1] = right ? j++ : -1;
        }
        const int64_t n = k.n;
        T *y = k.value.of(found * n);
        const T *x[2] = {(const T *)a.value, (const T *)b.value};
        parallel_range(found, found * n, [&](int64_t begin, int64_t end) {
            for (int64_t u = begin; u < end; u++) {
                const int64_t i = from[2 * u], j = from[2 * u + 1];
                std::memcpy(y + u * n, i >= 0 ? x[0] + i * n : x[1] + j * n, n * sizeof(T));
                if (i >= 0 && j >= 0) plus(y + u * n, x[1] + j * n, T(1), n);
            }
        });
        out->count = found, out->row = rows, out->value = y;
    }
};

template <class T> struct RowsDense : Kernel {
    int64_t width, n;

    /* y = the listed rows, 0 elsewhere. */
    static void call(const cg_call *c, const cg_context *) {
        const auto &k = *(const RowsDense *)c->state;
        const auto &a = *(const RowList *)c->buf[0];
        T *y = (T *)c->buf[1];
        const T *value = (const T *)a.value;
        const int64_t n = k.n;
        parallel_range(k.width, k.width * n, [&](int64_t begin, int64_t end) {
            int64_t u = std::lower_bound(a.row, a.row + a.count, begin) - a.row, at = begin;
            for (; u < a.count && a.row[u] < end; u++) {
                std::memset(y + at * n, 0, (a.row[u] - at) * n * sizeof(T));
                std::memcpy(y + a.row[u] * n, value + u * n, n * sizeof(T));
                at = a.row[u] + 1;
            }
            std::memset(y + at * n, 0, (end - at) * n * sizeof(T));
        });
    }
};

template <class T> struct CsrDense : Kernel {
    int64_t width;

    /* y[r, c] = the sum of the entries (r, c). */
    static void call(const cg_call *c, const cg_context *) {
        const auto &k = *(const CsrDense *)c->state;
        const auto &a = *(const Csr *)c->buf[0];
        T *y = (T *)c->buf[1];
        const T *value = (const T *)a.value;
        const int64_t *begin = a.begin(), *end = a.end();
        parallel_range(a.rows, a.rows * k.width, [&](int64_t first, int64_t last) {
            std::memset(y + first * k.width, 0, (last - first) * k.width * sizeof(T));
            for (int64_t r = first; r < last; r++)
                for (int64_t e = begin[r]; e < end[r]; e++) y[r * k.width + a.column[e]] += value[e];
        });
    }
};

struct CsrMove : Kernel {
    int64_t rows;
    const int64_t *index;

    /* Row r is row index[r] of a, or empty where that is -1; the entries are shared. */
    static void call(const cg_call *c, const cg_context *) {
        const auto &k = *(const CsrMove *)c->state;
        const auto &a = *(const Csr *)c->buf[0];
        auto &y = *(Csr *)c->buf[1];
        y.rows = k.rows, y.column = a.column, y.value = a.value;
        const int64_t *begin = a.begin(), *end = a.end();
        for (int64_t r = 0; r < k.rows; r++) {
            const int64_t from = k.index[r];
            y.begin()[r] = from < 0 ? 0 : begin[from];
            y.end()[r] = from < 0 ? 0 : end[from];
        }
    }
};

template <class T> struct CsrOneHot : Kernel {
    int64_t n, classes;

    /* Row i has a 1 at x[i], or nothing where that is no class; the entries follow the bounds of rows. */
    static void call(const cg_call *c, const cg_context *) {
        auto &k = *(CsrOneHot *)c->state;
        const T *x = (const T *)c->buf[0];
        auto &y = *(Csr *)c->buf[1];
        y.rows = k.n;
        T *value = (T *)(y.end() + k.n);
        auto *column = (int32_t *)((double *)(y.end() + k.n) + k.n);
        y.column = column, y.value = value;
        for (int64_t i = 0; i < k.n; i++) {
            const int64_t at = row_of(x[i], k.classes);
            y.begin()[i] = i;
            y.end()[i] = i + (at >= 0);
            column[i] = int32_t(std::max<int64_t>(at, 0));
            value[i] = 1;
        }
    }
};

/* Rules of learners in which a row whose gradient is 0 stays as it is, state included; operands: w, g, states, eta, scale, limit. ----- */

/* g = scale g, kept within limit each. */
template <class T> inline T clipped(T g, T scale, T limit) { return std::max(std::min(g * scale, limit), -limit); }

/* w -= eta g */
#define CG_SGD(T)                                                                                                                \
    for (int64_t i = 0; i < n; i++) w[i] -= eta * clipped(g[i], scale, limit);
CG_CLONES void sgd4(float *CG_RESTRICT w, const float *CG_RESTRICT g, float eta, float scale, float limit, int64_t n) { CG_SGD(float) }
CG_CLONES void sgd8(double *CG_RESTRICT w, const double *CG_RESTRICT g, double eta, double scale, double limit, int64_t n) {
    CG_SGD(double)
}
inline void sgd(float *w, const float *g, float eta, float scale, float limit, int64_t n) { sgd4(w, g, eta, scale, limit, n); }
inline void sgd(double *w, const double *g, double eta, double scale, double limit, int64_t n) { sgd8(w, g, eta, scale, limit, n); }

/* s += g g */
#define CG_SQUARES(T)                                                                                                            \
    for (int64_t i = 0; i < n; i++) {                                                                                            \
        const T x = clipped(g[i], scale, limit);                                                                                 \
        s[i] += x * x;                                                                                                           \
    }
CG_CLONES void squares4(float *CG_RESTRICT s, const float *CG_RESTRICT g, float scale, float limit, int64_t n) { CG_SQUARES(float) }
CG_CLONES void squares8(double *CG_RESTRICT s, const double *CG_RESTRICT g, double scale, double limit, int64_t n) { CG_SQUARES(double) }
inline void squares(float *s, const float *g, float scale, float limit, int64_t n) { squares4(s, g, scale, limit, n); }
inline void squares(double *s, const double *g, double scale, double limit, int64_t n) { squares8(s, g, scale, limit, n); }

/* w -= eta / sqrt(s + 1e-16) g */
#define CG_ADAGRAD(T)                                                                                                            \
    for (int64_t i = 0; i < n; i++) w[i] -= eta * (1 / std::sqrt(s[i] + T(1e-16)) * clipped(g[i], scale, limit));
CG_CLONES void adagrad4(float *CG_RESTRICT w, const float *CG_RESTRICT g, const float *CG_RESTRICT s, float eta, float scale,
                        float limit, int64_t n) {
    CG_ADAGRAD(float)
}
CG_CLONES void adagrad8(double *CG_RESTRICT w, const double *CG_RESTRICT g, const double *CG_RESTRICT s, double eta, double scale,
                        double limit, int64_t n) {
    CG_ADAGRAD(double)
}
inline void adagrad(float *w, const float *g, const float *s, float eta, float scale, float limit, int64_t n) {
    adagrad4(w, g, s, eta, scale, limit, n);
}
inline void adagrad(double *w, const double *g, const double *s, double eta, double scale, double limit, int64_t n) {
    adagrad8(w, g, s, eta, scale, limit, n);
}

/* The sum of 1 / sqrt(s + 1e-16), in eight lanes so that it is fast and the same everywhere. */
#define CG_MULTIPLIERS(T)                                                                                                        \
    double lane[8] = {};                                                                                                         \
    int64_t i = 0;                                                                                                               \
    for (; i + 8 <= n; i += 8)                                                                                                   \
        for (int j = 0; j < 8; j++) lane[j] += double(1 / std::sqrt(s[i + j] + T(1e-16)));                                       \
    for (; i < n; i++) lane[i % 8] += double(1 / std::sqrt(s[i] + T(1e-16)));                                                    \
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
CG_CLONES double multipliers4(const float *s, int64_t n) { CG_MULTIPLIERS(float) }
CG_CLONES double multipliers8(const double *s, int64_t n) { CG_MULTIPLIERS(double) }
inline double multipliers(const float *s, int64_t n) { return multipliers4(s, n); }
inline double multipliers(const double *s, int64_t n) { return multipliers8(s, n); }

template <class T> struct UpdateRows : Kernel {
    int64_t width, n;
    bool adaptive, average, norm;
    std::vector<double> sums; /* of the multipliers of each row, where their mean over all rows counts */

    static void call(const cg_call *c, const cg_context *) {
        auto &k = *(UpdateRows *)c->state;
        T *w = (T *)c->buf[0];
        const auto &g = *(const RowList *)c->buf[1];
        T *s = k.adaptive ? (T *)c->buf[2] : nullptr;
        const int at = k.adaptive ? 3 : 2;
        const T eta = *(const T *)c->buf[at], given = *(const T *)c->buf[at + 1], most = *(const T *)c->buf[at + 2];
        const T *value = (const T *)g.value;
        const int64_t n = k.n;
        T scale = given, limit = most;
        if (k.norm) { /* the threshold is of the whole gradient: the rows that are not listed add nothing to its norm */
            double squared = 0;
            for (int64_t i = 0; i < g.count * n; i++) squared += double(value[i]) * value[i];
            const double size = std::sqrt(squared) * given;
            scale = size > most ? T(given * (most / size)) : given;
            limit = std::numeric_limits<T>::infinity();
        }
        if (k.average && k.sums.empty()) {
            k.sums.resize(k.width);
            parallel(k.width, k.width * n, [&](int64_t r) { k.sums[r] = multipliers(s + r * n, n); });
        }
        const int64_t each = std::max<int64_t>(1, PIECE / std::max<int64_t>(n, 1));
        auto pieces = [&](auto &&row) {
            parallel_dynamic(ceil_div(g.count, each), g.count * n, [&](int64_t piece) {
                for (int64_t u = piece * each; u < std::min(g.count, (piece + 1) * each); u++) row(g.row[u], value + u * n);
            });
        };
        if (!k.adaptive) {
            pieces([&](int64_t r, const T *x) { sgd(w + r * n, x, eta, scale, limit, n); });
            return;
        }
        if (!k.average) {
            pieces([&](int64_t r, const T *x) {
                squares(s + r * n, x, scale, limit, n);
                adagrad(w + r * n, x, s + r * n, eta, scale, limit, n);
            });
            return;
        }
        pieces([&](int64_t r, const T *x) {
            squares(s + r * n, x, scale, limit, n);
            k.sums[r] = multipliers(s + r * n, n);
        });
        double sum = 0;
        for (double part : k.sums) sum += part;
        const T rate = T(eta / (sum / (double(k.width) * double(n))));
        pieces([&](int64_t r, const T *x) { adagrad(w + r * n, x, s + r * n, rate, scale, limit, n); });
    }
};

template <template <class> class K, class F> Kernel *typed(const char *who, const std::string &dtype, int buffers, F &&set) {
    auto finish = [&](auto *k) -> Kernel * {
        k->run = std::remove_pointer_t<decltype(k)>::call;
        k->nbuf = buffers;
        set(*k);
        return k;
    };
    return is_double(who, dtype) ? finish(new K<double>) : finish(new K<float>);
}

} // namespace

Kernel *make_csr_times(int64_t width, int64_t n, bool turned, const std::string &dtype) {
    return typed<CsrTimes>("CsrTimes", dtype, 3, [&](auto &k) { k.width = width, k.n = n, k.turned = turned; });
}
Kernel *make_csr_transposed(int64_t width, int64_t n, const std::string &dtype) {
    return typed<CsrTransposed>("CsrTransposed", dtype, 3, [&](auto &k) { k.width = width, k.n = n; });
}
Kernel *make_scatter_rows(int64_t rows, int64_t n, int64_t width, const std::string &dtype) {
    return typed<ScatterRows>("ScatterRows", dtype, 3, [&](auto &k) { k.rows = rows, k.n = n, k.width = width; });
}
void resize_scatter_rows(Kernel *kernel, int64_t rows) {
    if (auto *k = dynamic_cast<ScatterRows<float> *>(kernel)) k->rows = rows;
    else if (auto *d = dynamic_cast<ScatterRows<double> *>(kernel)) d->rows = rows;
}
Kernel *make_rows_add(int64_t n, const std::string &dtype) {
    return typed<RowsAdd>("RowsAdd", dtype, 3, [&](auto &k) { k.n = n; });
}
Kernel *make_rows_dense(int64_t width, int64_t n, const std::string &dtype) {
    return typed<RowsDense>("RowsDense", dtype, 2, [&](auto &k) { k.width = width, k.n = n; });
}
Kernel *make_csr_dense(int64_t width, const std::string &dtype) {
    return typed<CsrDense>("CsrDense", dtype, 2, [&](auto &k) { k.width = width; });
}
Kernel *make_csr_move(int64_t rows, const int64_t *index) {
    auto *k = new CsrMove;
    k->run = CsrMove::call, k->nbuf = 2;
    k->rows = rows, k->index = index;
    return k;
}
Kernel *make_csr_one_hot(int64_t n, int64_t classes, const std::string &dtype) {
    return typed<CsrOneHot>("CsrOneHot", dtype, 2, [&](auto &k) { k.n = n, k.classes = classes; });
}
Kernel *make_update_rows(const std::string &rule, bool average, bool norm, int64_t width, int64_t n, const std::string &dtype) {
    const bool adaptive = rule == "adagrad";
    if (!adaptive && rule != "sgd") bad("UpdateRows: expected rule 'sgd' or 'adagrad', got '" + rule + "'");
    return typed<UpdateRows>("UpdateRows", dtype, adaptive ? 6 : 5, [&](auto &k) {
        k.width = width, k.n = n, k.adaptive = adaptive, k.average = average && adaptive, k.norm = norm;
    });
}

} // namespace cg
