#include "lagging.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace cg {
namespace {

enum Rule { MOMENTUM, NESTEROV, ADAM, ADAMAX, FSADAGRAD, ADADELTA };
constexpr int numbers_of[] = {2, 2, 5, 4, 6, 1}; /* beside scale and limit */

/* One update: the letters of learners/rules.py. */
template <class T> struct Numbers {
    T m, u, v, rate, v1, root, epsilon, scale, limit;
};

/* What the updates between two of a row come to for it, its gradient being 0: s = pm s, r = pr r and w -= s a0 (momentum), or w -= the
 * sum of rate s / (q R + epsilon) over the updates, R = sqrt(r) (Adam) or r (AdaMax), q what has become of R's factor. AdaDelta's
 * two states shrink, w stays. For
 * x = epsilon / R it is s / R (a0 - x a1 + x x a2 - ...), a[k] the sum of rate pm / q^(k+1). */
struct Gone {
    double pm = 1, pr = 1, q = 1, a0 = 0, a1 = 0, a2 = 0;
};

/* Largest x / q for which the terms that are left out are below rounding. */
template <class T> constexpr double SMALL_X = sizeof(T) == 4 ? 1. / 256 : 1. / 262144;
constexpr int64_t WINDOW = 256; /* updates after which all rows are brought up to date */

template <class T> inline T clipped(T g, T scale, T limit) { return std::max(std::min(g * scale, limit), -limit); }

/* s = m s + u g;  w -= s */
#define CG_BODY(T)                                                                                                               \
    {                                                                                                                            \
        for (int64_t i = 0; i < n; i++) {                                                                                        \
            s[i] = k.m * s[i] + k.u * clipped(g[i], k.scale, k.limit);                                                           \
            w[i] -= s[i];                                                                                                        \
        }                                                                                                                        \
    }
CG_CLONES void momentum(float *CG_RESTRICT w, float *CG_RESTRICT s, const float *CG_RESTRICT g, Numbers<float> k, int64_t n) CG_BODY(float)
CG_CLONES void momentum(double *CG_RESTRICT w, double *CG_RESTRICT s, const double *CG_RESTRICT g, Numbers<double> k, int64_t n)
    CG_BODY(double)
#undef CG_BODY

/* s = m s + u g;  w -= m s + u g */
#define CG_BODY(T)                                                                                                               \
    {                                                                                                                            \
        for (int64_t i = 0; i < n; i++) {                                                                                        \
            const T push = k.u * clipped(g[i], k.scale, k.limit);                                                                \
            s[i] = k.m * s[i] + push;                                                                                            \
            w[i] -= k.m * s[i] + push;                                                                                           \
        }                                                                                                                        \
    }
CG_CLONES void nesterov(float *CG_RESTRICT w, float *CG_RESTRICT s, const float *CG_RESTRICT g, Numbers<float> k, int64_t n) CG_BODY(float)
CG_CLONES void nesterov(double *CG_RESTRICT w, double *CG_RESTRICT s, const double *CG_RESTRICT g, Numbers<double> k, int64_t n)
    CG_BODY(double)
#undef CG_BODY

/* r = v r + (1-v) g g;  s = m s + u g;  w -= rate s / (sqrt(r) + epsilon) */
#define CG_BODY(T)                                                                                                               \
    {                                                                                                                            \
        for (int64_t i = 0; i < n; i++) {                                                                                        \
            const T x = clipped(g[i], k.scale, k.limit);                                                                         \
            r[i] = k.v * r[i] + k.v1 * (x * x);                                                                                  \
            s[i] = k.m * s[i] + k.u * x;                                                                                         \
            w[i] -= k.rate * s[i] / (std::sqrt(r[i]) + k.epsilon);                                                               \
        }                                                                                                                        \
    }
CG_CLONES void adam(float *CG_RESTRICT w, float *CG_RESTRICT s, float *CG_RESTRICT r, const float *CG_RESTRICT g, Numbers<float> k,
                    int64_t n) CG_BODY(float)
CG_CLONES void adam(double *CG_RESTRICT w, double *CG_RESTRICT s, double *CG_RESTRICT r, const double *CG_RESTRICT g,
                    Numbers<double> k, int64_t n) CG_BODY(double)
#undef CG_BODY

/* r = max(v r, |g|);  s = m s + u g;  w -= rate s / (r + epsilon) */
#define CG_BODY(T)                                                                                                               \
    {                                                                                                                            \
        for (int64_t i = 0; i < n; i++) {                                                                                        \
            const T x = clipped(g[i], k.scale, k.limit);                                                                         \
            r[i] = std::max(k.v * r[i], std::abs(x));                                                                            \
            s[i] = k.m * s[i] + k.u * x;                                                                                         \
            w[i] -= k.rate * s[i] / (r[i] + k.epsilon);                                                                          \
        }                                                                                                                        \
    }
CG_CLONES void adamax(float *CG_RESTRICT w, float *CG_RESTRICT s, float *CG_RESTRICT r, const float *CG_RESTRICT g, Numbers<float> k,
                      int64_t n) CG_BODY(float)
CG_CLONES void adamax(double *CG_RESTRICT w, double *CG_RESTRICT s, double *CG_RESTRICT r, const double *CG_RESTRICT g,
                      Numbers<double> k, int64_t n) CG_BODY(double)
#undef CG_BODY

/* r = v r + (1-v) g g;  t = g min(10, root / sqrt(r));  s = m s + u t;  w -= rate s */
#define CG_BODY(T)                                                                                                               \
    {                                                                                                                            \
        for (int64_t i = 0; i < n; i++) {                                                                                        \
            const T x = clipped(g[i], k.scale, k.limit);                                                                         \
            r[i] = k.v * r[i] + k.v1 * (x * x);                                                                                  \
            s[i] = k.m * s[i] + k.u * (x * std::min(k.root / std::sqrt(std::max(r[i], T(1e-37))), T(10)));                       \
            w[i] -= k.rate * s[i];                                                                                               \
        }                                                                                                                        \
    }
CG_CLONES void fsadagrad(float *CG_RESTRICT w, float *CG_RESTRICT s, float *CG_RESTRICT r, const float *CG_RESTRICT g,
                         Numbers<float> k, int64_t n) CG_BODY(float)
CG_CLONES void fsadagrad(double *CG_RESTRICT w, double *CG_RESTRICT s, double *CG_RESTRICT r, const double *CG_RESTRICT g,
                         Numbers<double> k, int64_t n) CG_BODY(double)
#undef CG_BODY

/* s = v s + (1-v) g g;  d = sqrt((r + epsilon) / (s + epsilon)) g;  r = v r + (1-v) d d;  w -= rate d */
#define CG_BODY(T)                                                                                                               \
    {                                                                                                                            \
        for (int64_t i = 0; i < n; i++) {                                                                                        \
            const T x = clipped(g[i], k.scale, k.limit);                                                                         \
            s[i] = k.v * s[i] + k.v1 * (x * x);                                                                                  \
            const T d = std::sqrt((r[i] + k.epsilon) / (s[i] + k.epsilon)) * x;                                                  \
            w[i] -= k.rate * d;                                                                                                  \
            r[i] = k.v * r[i] + k.v1 * (d * d);                                                                                  \
        }                                                                                                                        \
    }
CG_CLONES void adadelta(float *CG_RESTRICT w, float *CG_RESTRICT s, float *CG_RESTRICT r, const float *CG_RESTRICT g,
                        Numbers<float> k, int64_t n) CG_BODY(float)
CG_CLONES void adadelta(double *CG_RESTRICT w, double *CG_RESTRICT s, double *CG_RESTRICT r, const double *CG_RESTRICT g,
                        Numbers<double> k, int64_t n) CG_BODY(double)
#undef CG_BODY

/* s = p s */
#define CG_BODY(T)                                                                                                               \
    {                                                                                                                            \
        for (int64_t i = 0; i < n; i++) s[i] *= p;                                                                               \
    }
CG_CLONES void shrink(float *s, float p, int64_t n) CG_BODY(float)
CG_CLONES void shrink(double *s, double p, int64_t n) CG_BODY(double)
#undef CG_BODY

/* w -= a s;  s = p s */
#define CG_BODY(T)                                                                                                               \
    {                                                                                                                            \
        for (int64_t i = 0; i < n; i++) {                                                                                        \
            w[i] -= a * s[i];                                                                                                    \
            s[i] *= p;                                                                                                           \
        }                                                                                                                        \
    }
CG_CLONES void coast(float *CG_RESTRICT w, float *CG_RESTRICT s, float a, float p, int64_t n) CG_BODY(float)
CG_CLONES void coast(double *CG_RESTRICT w, double *CG_RESTRICT s, double a, double p, int64_t n) CG_BODY(double)
#undef CG_BODY

/* The same where s is divided by R + epsilon: see Gone; R is at least `least` wherever s is not 0. */
#define CG_BODY(T)                                                                                                               \
    {                                                                                                                            \
        const T pm = T(gone.pm), pr = T(gone.pr), a0 = T(gone.a0), a1 = T(gone.a1), a2 = T(gone.a2);                             \
        for (int64_t i = 0; i < n; i++) {                                                                                        \
            const T root = squared ? std::sqrt(r[i]) : r[i];                                                                     \
            const T over = 1 / std::max(root, least);                                                                            \
            const T x = epsilon * over;                                                                                          \
            w[i] -= s[i] * over * (a0 - x * (a1 - x * a2));                                                                      \
            s[i] *= pm;                                                                                                          \
            r[i] *= pr;                                                                                                          \
        }                                                                                                                        \
    }
CG_CLONES void coast_divided(float *CG_RESTRICT w, float *CG_RESTRICT s, float *CG_RESTRICT r, const Gone &gone, float epsilon,
                             float least, bool squared, int64_t n) CG_BODY(float)
CG_CLONES void coast_divided(double *CG_RESTRICT w, double *CG_RESTRICT s, double *CG_RESTRICT r, const Gone &gone, double epsilon,
                             double least, bool squared, int64_t n) CG_BODY(double)
#undef CG_BODY

/* Whether there is an s that is not 0 with an R below `least`. */
#define CG_BODY(T)                                                                                                               \
    {                                                                                                                            \
        int found = 0;                                                                                                           \
        for (int64_t i = 0; i < n; i++) found |= (s[i] != 0) & (r[i] < least);                                                   \
        return found;                                                                                                            \
    }
CG_CLONES bool any_small(const float *s, const float *r, float least, int64_t n) CG_BODY(float)
CG_CLONES bool any_small(const double *s, const double *r, double least, int64_t n) CG_BODY(double)
#undef CG_BODY

template <class T> struct LaggingRows : LaggingKernel {
    Rule rule;
    bool norm;
    double epsilon, decay;
    int64_t width, n;
    int64_t now = 0;                /* updates since all rows were up to date */
    std::vector<int32_t> last;      /* of each row: the update at which it was */
    std::vector<Gone> gone;         /* by the update at which a row was: what has gone by since */
    std::vector<Numbers<T>> before; /* the updates themselves */
    struct Behind {
        int64_t row;
        int32_t since;
    };
    std::vector<Behind> behind;

    bool two_states() const { return rule >= ADAM; }

    /* Brings one row from the update `since` up to date. */
    void catch_up(void **buf, int64_t row, int32_t since) const {
        const Gone &g = gone[since];
        T *w = (T *)buf[0] + row * n, *s = (T *)buf[2] + row * n;
        if (rule != ADADELTA && rule != ADAM && rule != ADAMAX) coast(w, s, T(g.a0), T(g.pm), n);
        if (!two_states()) return;
        T *r = (T *)buf[3] + row * n;
        if (rule == ADADELTA) shrink(s, T(g.pr), n);
        if (rule == FSADAGRAD || rule == ADADELTA) return shrink(r, T(g.pr), n);
        const bool squared = rule == ADAM;
        const T least = std::max(T(epsilon / (g.q * SMALL_X<T>)), std::numeric_limits<T>::min());
        const T small = squared ? std::max(least * least, std::numeric_limits<T>::min()) : least;
        if (!any_small(s, r, small, n)) return coast_divided(w, s, r, g, T(epsilon), least, squared, n);
        for (int64_t j = since; j < now; j++) { /* three terms are too few: update by update */
            const Numbers<T> &k = before[j];
            for (int64_t i = 0; i < n; i++) {
                r[i] *= k.v;
                s[i] *= k.m;
                if (s[i] != 0) w[i] -= k.rate * s[i] / ((squared ? std::sqrt(r[i]) : r[i]) + k.epsilon);
            }
        }
    }

    void catch_up_all(void **buf, const std::vector<Behind> &rows) const {
        const int64_t each = std::max<int64_t>(1, 8192 / std::max<int64_t>(n, 1)), count = (int64_t)rows.size();
        parallel_dynamic(ceil_div(count, each), count * n, [&](int64_t piece) {
            for (int64_t i = piece * each; i < std::min(count, (piece + 1) * each); i++) catch_up(buf, rows[i].row, rows[i].since);
        });
    }

    template <class Row> void bring(void **buf, int64_t count, Row &&row) {
        if (!now) return;
        behind.clear();
        for (int64_t i = 0; i < count; i++) {
            const int64_t r = row(i);
            if (last[r] < now) {
                behind.push_back({r, last[r]});
                last[r] = int32_t(now);
            }
        }
        catch_up_all(buf, behind);
    }

    void settle(void **buf, const int32_t *row, int64_t count) override {
        bring(buf, count, [&](int64_t i) { return row[i]; });
    }

    void settle_all(void **buf) override {
        bring(buf, width, [](int64_t i) { return i; });
        std::fill(last.begin(), last.end(), 0);
        gone.assign(1, Gone{});
        before.clear();
        now = 0;
    }

    void keep(std::vector<int32_t> &rows, std::vector<double> &numbers) const override {
        rows = last;
        numbers.clear();
        for (const Gone &g : gone) numbers.insert(numbers.end(), {g.pm, g.pr, g.q, g.a0, g.a1, g.a2});
        for (const Numbers<T> &k : before)
            for (T x : {k.m, k.u, k.v, k.rate, k.v1, k.root, k.epsilon, k.scale, k.limit}) numbers.push_back(x);
    }

    void take(const std::vector<int32_t> &rows, const std::vector<double> &numbers) override {
        const int64_t updates = ((int64_t)numbers.size() - 6) / 15;
        if ((int64_t)rows.size() != width || updates < 0 || (int64_t)numbers.size() != 15 * updates + 6)
            bad("LaggingRows: expected the state of " + std::to_string(width) + " rows, got that of another learner");
        for (int32_t r : rows)
            if (r < 0 || r > updates) bad("LaggingRows: expected rows at updates 0 to " + std::to_string(updates));
        last = rows, now = updates;
        gone.clear(), before.clear();
        const double *x = numbers.data();
        for (int64_t i = 0; i <= updates; i++, x += 6) gone.push_back({x[0], x[1], x[2], x[3], x[4], x[5]});
        for (int64_t i = 0; i < updates; i++, x += 9)
            before.push_back({T(x[0]), T(x[1]), T(x[2]), T(x[3]), T(x[4]), T(x[5]), T(x[6]), T(x[7]), T(x[8])});
    }

    /* Takes note of an update for all rows that it leaves alone. */
    void note(const Numbers<T> &k) {
        const double m = k.m, v = k.v, rate = k.rate, root = rule == ADAM ? std::sqrt(v) : v;
        for (Gone &g : gone) {
            g.pm *= m;
            if (rule == MOMENTUM) g.a0 += g.pm;
            else if (rule == NESTEROV) g.a0 += m * g.pm;
            else if (rule == FSADAGRAD || rule == ADADELTA) {
                g.pr *= v;
                g.a0 += rate * g.pm;
            } else {
                g.pr *= v;
                g.q *= root;
                const double part = rate * g.pm / g.q;
                g.a0 += part, g.a1 += part / g.q, g.a2 += part / (g.q * g.q);
            }
        }
        gone.push_back(Gone{});
        before.push_back(k);
        now++;
    }

    static void call(const cg_call *c, const cg_context *) {
        auto &k = *(LaggingRows *)c->state;
        void **buf = c->buf;
        const auto &g = *(const RowList *)buf[1];
        const T *value = (const T *)g.value;
        Numbers<T> x{};
        int at = k.two_states() ? 4 : 3;
        auto next = [&] { return *(const T *)buf[at++]; };
        if (k.rule == ADADELTA) {
            x.rate = next(), x.v = T(k.decay), x.v1 = T(1 - k.decay);
        } else {
            T *number[] = {&x.m, &x.u, &x.v, &x.rate, &x.v1, &x.root};
            for (int i = 0; i < numbers_of[k.rule]; i++) *number[i] = next();
        }
        x.epsilon = T(k.epsilon), x.scale = next(), x.limit = next();
        const int64_t n = k.n;
        if (k.norm) {
            double squared = 0;
            for (int64_t i = 0; i < g.count * n; i++) squared += double(value[i]) * value[i];
            const double size = std::sqrt(squared) * x.scale;
            if (size > x.limit) x.scale = T(x.scale * (x.limit / size));
            x.limit = std::numeric_limits<T>::infinity();
        }
        if (k.now >= WINDOW) k.settle_all(buf);
        k.bring(buf, g.count, [&](int64_t i) { return g.row[i]; });
        T *w = (T *)buf[0], *s = (T *)buf[2], *r = k.two_states() ? (T *)buf[3] : nullptr;
        const int64_t each = std::max<int64_t>(1, 8192 / std::max<int64_t>(n, 1));
        parallel_dynamic(ceil_div(g.count, each), g.count * n, [&](int64_t piece) {
            for (int64_t i = piece * each; i < std::min(g.count, (piece + 1) * each); i++) {
                const int64_t first = g.row[i] * n;
                const T *dy = value + i * n;
                if (k.rule == MOMENTUM) momentum(w + first, s + first, dy, x, n);
                else if (k.rule == NESTEROV) nesterov(w + first, s + first, dy, x, n);
                else if (k.rule == ADAM) adam(w + first, s + first, r + first, dy, x, n);
                else if (k.rule == ADAMAX) adamax(w + first, s + first, r + first, dy, x, n);
                else if (k.rule == FSADAGRAD) fsadagrad(w + first, s + first, r + first, dy, x, n);
                else adadelta(w + first, s + first, r + first, dy, x, n);
            }
        });
        k.note(x);
        for (int64_t i = 0; i < g.count; i++) k.last[g.row[i]] = int32_t(k.now);
    }
};

template <class T> LaggingKernel *lagging_rows(Rule rule, bool norm, double epsilon, double decay, int64_t width, int64_t n) {
    auto *k = new LaggingRows<T>;
    k->run = LaggingRows<T>::call;
    k->rule = rule, k->norm = norm, k->epsilon = epsilon, k->decay = decay, k->width = width, k->n = n;
    k->nbuf = (k->two_states() ? 4 : 3) + numbers_of[rule] + 2;
    k->last.assign(width, 0);
    k->gone.assign(1, Gone{});
    return k;
}

} // namespace

LaggingKernel *make_lagging_rows(const std::string &rule, bool norm, double epsilon, double decay, int64_t width, int64_t n,
                                 const std::string &dtype) {
    const char *names[] = {"momentum", "nesterov", "adam", "adamax", "fsadagrad", "adadelta"};
    const auto *found = std::find(names, names + 6, rule);
    if (found == names + 6) bad("LaggingRows: expected one of the rules with momentum, got '" + rule + "'");
    const Rule which = Rule(found - names);
    return is_double("LaggingRows", dtype) ? lagging_rows<double>(which, norm, epsilon, decay, width, n)
                                           : lagging_rows<float>(which, norm, epsilon, decay, width, n);
}

} // namespace cg
