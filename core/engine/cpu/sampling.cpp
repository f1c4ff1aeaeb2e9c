#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "philox.h"

namespace cg {
namespace {

constexpr double NONE = std::numeric_limits<double>::quiet_NaN();

/* Number k of the stream of this seed and purpose: 53 bits inside (0, 1), words 0 and 1 of place k; its NumPy twin is
 * stream_fine of core/engine/philox.py. */
double fine(uint64_t seed, uint64_t k, uint32_t purpose) {
    uint32_t w0, w1, w2, w3;
    cg_philox((uint32_t)k, (uint32_t)(k >> 32), 0, purpose, (uint32_t)seed, (uint32_t)(seed >> 32), &w0, &w1, &w2, &w3);
    return ((double)(((uint64_t)(w0 >> 5) << 26) + (w1 >> 6)) + 0.5) * 0x1p-53;
}

template <class T> struct SampleClasses : Kernel {
    int64_t classes = 0, count = 0;
    bool duplicates = false;
    uint32_t purpose = 0;

    static void call(const cg_call *c, const cg_context *context) {
        auto *self = static_cast<SampleClasses *>(c->state);
        const int64_t n = self->classes;
        const T *w = (const T *)c->buf[0];
        T *y = (T *)c->buf[1];
        double *key = (double *)c->buf[2];
        bool usable = true;
        for (int64_t i = 0; i < n; ++i) usable = usable && w[i] >= 0 && std::isfinite(w[i]);
        if (!usable || !(self->duplicates ? self->with(w, y, key, context) : self->without(w, y, key, context)))
            std::fill(y, y + self->count, (T)NONE);
    }

    /* The class below whose running sum a number falls: the sums' first that exceeds it, which no class of weight 0 has. */
    bool with(const T *w, T *y, double *sum, const cg_context *context) const {
        double total = 0;
        int64_t last = -1;
        for (int64_t i = 0; i < classes; ++i) {
            if (w[i] > 0) last = i;
            sum[i] = total += w[i];
        }
        if (last < 0) return false;
        for (int64_t i = 0; i < count; ++i) {
            const double at = total * fine(context->seed, (uint64_t)context->step * count + i, purpose);
            y[i] = (T)std::min<int64_t>(std::upper_bound(sum, sum + classes, at) - sum, last);
        }
        return true;
    }

    /* A race of exponential clocks of these rates: its order is that of draws one after another. */
    bool without(const T *w, T *y, double *time, const cg_context *context) const {
        int64_t *order = (int64_t *)(time + classes), able = 0;
        for (int64_t i = 0; i < classes; ++i) {
            time[i] = w[i] > 0 ? -std::log(fine(context->seed, (uint64_t)context->step * classes + i, purpose)) / w[i]
                               : std::numeric_limits<double>::infinity();
            order[i] = i;
            able += w[i] > 0;
        }
        if (able < count) return false;
        std::partial_sort(order, order + count, order + classes,
                          [&](int64_t a, int64_t b) { return time[a] != time[b] ? time[a] < time[b] : a < b; });
        for (int64_t i = 0; i < count; ++i) y[i] = (T)order[i];
        return true;
    }
};

template <class T> struct InclusionFrequency : Kernel {
    int64_t classes = 0, count = 0;

    /* 1 - (1 - p)^t, with t so that they sum to `count`: Newton from the left of the root of a concave function. */
    static void call(const cg_call *c, const cg_context *) {
        auto *self = static_cast<InclusionFrequency *>(c->state);
        const int64_t n = self->classes;
        const T *w = (const T *)c->buf[0];
        T *y = (T *)c->buf[1];
        double *log_miss = (double *)c->buf[2], total = 0;
        int64_t able = 0;
        bool usable = true;
        for (int64_t i = 0; i < n; ++i) {
            usable = usable && w[i] >= 0 && std::isfinite(w[i]);
            able += w[i] > 0;
            total += w[i];
        }
        if (!usable || able < self->count) return std::fill(y, y + n, (T)NONE);
        if (able == self->count) {
            for (int64_t i = 0; i < n; ++i) y[i] = w[i] > 0 ? 1 : 0;
            return;
        }
        for (int64_t i = 0; i < n; ++i) log_miss[i] = std::log1p(-w[i] / total);
        double t = (double)self->count;
        for (int round = 0; round < 100; ++round) {
            double sum = 0, slope = 0;
            for (int64_t i = 0; i < n; ++i) {
                const double hit = -std::expm1(t * log_miss[i]);
                sum += hit;
                slope -= log_miss[i] * (1 - hit);
            }
            const double step = ((double)self->count - sum) / slope;
            t += step;
            if (!(step > t * 1e-13)) break;
        }
        for (int64_t i = 0; i < n; ++i) y[i] = (T)-std::expm1(t * log_miss[i]);
    }
};

/* Rows by query, then score, the best first; of equal scores the one of less gain is thought to come first. */
template <class T> void rank(const T *score, const T *gain, const T *query, int64_t rows, int64_t *order) {
    for (int64_t i = 0; i < rows; ++i) order[i] = i;
    std::sort(order, order + rows, [&](int64_t a, int64_t b) {
        if (query[a] != query[b]) return query[a] < query[b];
        if (score[a] != score[b]) return score[a] > score[b];
        return gain[a] != gain[b] ? gain[a] < gain[b] : a < b;
    });
}

template <class T> bool any_nan(const T *x, int64_t n) {
    return std::any_of(x, x + n, [](T v) { return v != v; });
}

/* f(first, last) of each query's places in the order; gives the number of queries. */
template <class T, class F> int64_t each_query(const T *query, const int64_t *order, int64_t rows, F &&f) {
    int64_t queries = 0;
    for (int64_t first = 0, last; first < rows; first = last, ++queries) {
        for (last = first + 1; last < rows && query[order[last]] == query[order[first]];) ++last;
        f(first, last);
    }
    return queries;
}

template <class T> struct LambdaRank : Kernel {
    int64_t rows = 0;

    static void call(const cg_call *c, const cg_context *) {
        auto *self = static_cast<LambdaRank *>(c->state);
        const int64_t n = self->rows;
        const T *score = (const T *)c->buf[0], *gain = (const T *)c->buf[1], *query = (const T *)c->buf[2];
        T *loss = (T *)c->buf[3], *slope = (T *)c->buf[4];
        int64_t *order = (int64_t *)c->buf[5];
        double *discount = (double *)(order + n), *best = discount + n, *lambda = best + n, sum = 0;
        if (any_nan(score, n) || any_nan(gain, n) || any_nan(query, n)) {
            *loss = (T)NONE;
            return std::fill(slope, slope + n, (T)NONE);
        }
        rank(score, gain, query, n, order);
        for (int64_t i = 0; i < n; ++i) discount[i] = 1 / std::log(2.0 + i);
        const int64_t queries = each_query(query, order, n, [&](int64_t first, int64_t last) {
            const int64_t *o = order + first, m = last - first;
            double ideal = 0, found = 0;
            for (int64_t i = 0; i < m; ++i) best[i] = gain[o[i]], lambda[i] = 0;
            std::sort(best, best + m, std::greater<double>());
            for (int64_t i = 0; i < m; ++i) ideal += best[i] * discount[i], found += gain[o[i]] * discount[i];
            sum += ideal > 0 ? 1 - found / ideal : 1;
            if (ideal > 0)
                for (int64_t i = 0; i < m; ++i)
                    for (int64_t j = i + 1; j < m; ++j) {
                        const double more = (double)gain[o[i]] - gain[o[j]], apart = (double)score[o[i]] - score[o[j]];
                        const double change = more * (discount[i] - discount[j]) / ideal;
                        const double pull = std::fabs(change) / (1 + std::exp(more > 0 ? apart : -apart));
                        lambda[i] += more > 0 ? -pull : pull;
                        lambda[j] += more > 0 ? pull : -pull;
                    }
            for (int64_t i = 0; i < m; ++i) slope[o[i]] = (T)lambda[i];
        });
        *loss = (T)(queries ? 100 * sum / queries * n : 0);
    }
};

template <class T> struct NdcgAt1 : Kernel {
    int64_t rows = 0;

    static void call(const cg_call *c, const cg_context *) {
        auto *self = static_cast<NdcgAt1 *>(c->state);
        const int64_t n = self->rows;
        const T *score = (const T *)c->buf[0], *gain = (const T *)c->buf[1], *query = (const T *)c->buf[2];
        int64_t *order = (int64_t *)c->buf[4];
        double sum = 0;
        T *y = (T *)c->buf[3];
        if (any_nan(score, n) || any_nan(gain, n) || any_nan(query, n)) return void(*y = (T)NONE);
        rank(score, gain, query, n, order);
        const int64_t queries = each_query(query, order, n, [&](int64_t first, int64_t last) {
            double most = 0;
            for (int64_t i = first; i < last; ++i) most = std::max<double>(most, gain[order[i]]);
            sum += most > 0 ? gain[order[first]] / most : 0;
        });
        *y = (T)(queries ? 100 * sum / queries * n : 0);
    }
};

template <template <class> class K, class Set>
Kernel *made(const char *who, const std::string &dtype, int nbuf, int64_t scratch, Set &&set) {
    auto finish = [&](auto *k) -> Kernel * {
        k->run = std::remove_pointer_t<decltype(k)>::call;
        k->nbuf = nbuf;
        k->scratch = std::max<int64_t>(scratch, 64);
        set(k);
        return k;
    };
    return is_double(who, dtype) ? finish(new K<double>) : finish(new K<float>);
}

} // namespace

Kernel *make_sample_classes(int64_t classes, int64_t count, bool duplicates, int64_t purpose, const std::string &dtype) {
    check_sizes("SampleClasses", {classes, count});
    return made<SampleClasses>("SampleClasses", dtype, 3, classes * 16, [&](auto *k) {
        k->classes = classes, k->count = count, k->duplicates = duplicates, k->purpose = (uint32_t)purpose;
    });
}

Kernel *make_inclusion_frequency(int64_t classes, int64_t count, const std::string &dtype) {
    check_sizes("InclusionFrequency", {classes, count});
    return made<InclusionFrequency>("InclusionFrequency", dtype, 3, classes * 8, [&](auto *k) {
        k->classes = classes, k->count = count;
    });
}

Kernel *make_lambda_rank(int64_t rows, const std::string &dtype) {
    check_sizes("LambdaRank", {rows});
    return made<LambdaRank>("LambdaRank", dtype, 6, rows * 32, [&](auto *k) { k->rows = rows; });
}

Kernel *make_ndcg_at_1(int64_t rows, const std::string &dtype) {
    check_sizes("NdcgAt1", {rows});
    return made<NdcgAt1>("NdcgAt1", dtype, 5, rows * 8, [&](auto *k) { k->rows = rows; });
}

} // namespace cg
