#include "alignment.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace cg {
namespace {

/* The logarithm of probability 0: finite, so that sums and differences of it are numbers. */
constexpr double LOW = -1e300;
constexpr int64_t NEVER = std::numeric_limits<int64_t>::max();

/* exp(x), x <= 0: 2^n exp(r), |r| <= log(2)/2, by the Taylor polynomial; 0 below -708; NaN stays. Vectorises. */
CG_INLINE double exp_negative(double x) {
    const double magic = 6755399441055744.0; /* 1.5 * 2^52: adding it rounds to an integer in the low bits */
    const double v = x < -708.0 ? -708.0 : x, t = v * 1.4426950408889634 + magic, n = t - magic;
    const double r = (v - n * 0.693145751953125) - n * 1.42860682030941723212e-6;
    double p = 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0, p = p * r + 1.0 / 3628800.0, p = p * r + 1.0 / 362880.0, p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0, p = p * r + 1.0 / 720.0, p = p * r + 1.0 / 120.0, p = p * r + 1.0 / 24.0, p = p * r + 1.0 / 6.0;
    p = p * r + 0.5, p = p * r + 1.0, p = p * r + 1.0;
    int64_t bits;
    std::memcpy(&bits, &t, 8);
    bits = int64_t(uint64_t(bits - 0x4338000000000000 + 1023) << 52);
    double scale;
    std::memcpy(&scale, &bits, 8);
    return p * (scale * (x < -708.0 ? 0.0 : 1.0)); /* a choice between results would not vectorise */
}

/* log(w), 1 <= w <= 3: 2 artanh((v - 1) / (v + 1)) of v = w / 2^k within [1/sqrt 2, sqrt 2]. */
CG_INLINE double log_small(double w) {
    const double root = 1.4142135623730951;
    const double k = (w > root ? 1.0 : 0.0) + (w > 2 * root ? 1.0 : 0.0), v = w * (w > 2 * root ? 0.25 : w > root ? 0.5 : 1.0);
    const double z = (v - 1.0) / (v + 1.0), q = z * z;
    double p = 1.0 / 21;
    p = p * q + 1.0 / 19, p = p * q + 1.0 / 17, p = p * q + 1.0 / 15, p = p * q + 1.0 / 13, p = p * q + 1.0 / 11;
    p = p * q + 1.0 / 9, p = p * q + 1.0 / 7, p = p * q + 1.0 / 5, p = p * q + 1.0 / 3, p = p * q + 1.0;
    return k * 0.6931471805599453 + 2.0 * z * p;
}

/* log(e^a + e^b + e^c) */
CG_INLINE double log_add(double a, double b, double c) {
    double top = a > b ? a : b;
    top = top > c ? top : c;
    top = top > LOW ? top : LOW;
    return top + log_small(exp_negative(a - top) + exp_negative(b - top) + exp_negative(c - top));
}

/* Where states lie: two on each side are not there. skip[s]: 0 where state s may follow s - 2, else LOW. */
CG_CLONES void forward_row(const double *CG_RESTRICT before, const double *CG_RESTRICT skip, const double *CG_RESTRICT emitted,
                           double *CG_RESTRICT now, int64_t lo, int64_t hi) {
#pragma GCC ivdep
    for (int64_t s = lo; s < hi; ++s) now[s] = log_add(before[s], before[s - 1], before[s - 2] + skip[s]) + emitted[s];
}

/* later[s]: all that follows, state s at the next frame included; it becomes what follows of this frame. posterior: of each state. */
CG_CLONES void backward_row(const double *CG_RESTRICT later, const double *CG_RESTRICT skip, const double *CG_RESTRICT alpha,
                            double total, double *CG_RESTRICT now, double *CG_RESTRICT posterior, int64_t lo, int64_t hi) {
#pragma GCC ivdep
    for (int64_t s = lo; s < hi; ++s) {
        now[s] = log_add(later[s], later[s + 1], later[s + 2] + skip[s + 2]);
        const double log_p = alpha[s] + now[s] - total;
        posterior[s] = exp_negative(log_p < 0 ? log_p : 0);
    }
}

/* y = softmax of x, *log_sum = log sum e^x; NaN where that is no number. */
template <class T> CG_INLINE void softmax(const T *CG_RESTRICT x, T *CG_RESTRICT y, int64_t n, double *log_sum) {
    T top = n ? x[0] : T(0);
#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < n; ++i) top = x[i] > top ? x[i] : top;
    const double shift = top;
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) {
        const double e = exp_negative(double(x[i]) - shift);
        y[i] = T(e);
        sum += e;
    }
    const T scale = T(1.0 / sum);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] *= scale;
    *log_sum = shift + std::log(sum);
}

CG_CLONES void softmax_row(const float *x, float *y, int64_t n, double *log_sum) { softmax(x, y, n, log_sum); }
CG_CLONES void softmax_row(const double *x, double *y, int64_t n, double *log_sum) { softmax(x, y, n, log_sum); }

/* The first largest element; NaN is larger than any. */
template <class T> int64_t largest(const T *x, int64_t n) {
    int64_t at = 0;
    for (int64_t i = 1; i < n && x[at] == x[at]; ++i)
        if (!(x[i] <= x[at])) at = i;
    return at;
}

/* f(k, slot): sequence k with the scratch of a slot; what it does may not depend on the slot. */
template <class F> void each_sequence(int64_t n, int64_t work, int64_t slots, F &&f) {
    if (serial(n, work) || slots == 1) {
        for (int64_t k = 0; k < n; ++k) f(k, int64_t(0));
        return;
    }
    const int threads = int(std::min<int64_t>(slots, omp_get_max_threads()));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t k = 0; k < n; ++k) f(k, int64_t(omp_get_thread_num()));
}

int64_t slots_for(int64_t sequences) { return std::max<int64_t>(1, std::min<int64_t>(omp_get_max_threads(), sequences)); }
int64_t bytes(int64_t n, size_t size) { return round_up(n * int64_t(size), 64); }

template <class P> P *cut(char *&at, int64_t n) {
    P *p = (P *)at;
    at += bytes(n, sizeof(P));
    return p;
}

/* ---- connectionist temporal classification -------------------------------------------------------------------------- */

struct Ctc : Kernel {
    Sequences labels, frames;
    const int64_t *item;
    int64_t classes, blank, delay, slots, slot_bytes;
    int64_t most;  /* states of the longest labelling that fits */
    int64_t block; /* frames between kept rows of alpha where not all fit */
    int64_t pool;  /* doubles for rows of alpha */
};

/* One labelling along one sequence of frames: states blank, label, blank, ..., label, blank. */
template <class T> struct Labelling {
    const Ctc &k;
    const T *x;
    const double *log_sum;
    int64_t sequence, frames, states = 1, stride, block;
    double *pool, *start, *later, *now, *posterior, *skip, *emitted, *classes;
    int64_t *limit; /* last frame at which a state may be */
    int32_t *symbol;

    Labelling(const Ctc &k_, const T *x_, const double *log_sum_, int64_t s, char *at)
        : k(k_), x(x_), log_sum(log_sum_), sequence(s), frames(k_.frames.length[s]) {
        pool = cut<double>(at, k.pool);
        for (double **p : {&start, &later, &now, &posterior, &skip, &emitted}) *p = cut<double>(at, k.most + 4) + 2;
        classes = cut<double>(at, k.classes);
        limit = cut<int64_t>(at, k.most);
        symbol = cut<int32_t>(at, k.most);
    }

    int64_t row(int64_t t) const { return k.frames.offset[t] + k.frames.place[sequence]; }
    int64_t lo(int64_t t) const { return std::max<int64_t>(0, states - 2 * (frames - t)); }
    int64_t hi(int64_t t) const { return std::min(states, 2 * t + 2); }
    double *kept(int64_t b) const { return pool + (block + b) * stride + 2; }
    double *alpha(int64_t t) const { return pool + (t % block) * stride + 2; }

    /* A label begins where the largest element is 2. False where there are more labels than frames. */
    bool read(const T *y) {
        for (int64_t t = 0; t < k.labels.length[sequence]; ++t) {
            const T *label = y + (k.labels.offset[t] + k.labels.place[sequence]) * k.classes;
            const int64_t at = largest(label, k.classes);
            if (label[at] != T(2)) continue;
            if (states + 2 > 2 * frames + 1) return false;
            symbol[states] = int32_t(at);
            limit[states] = t;
            states += 2;
        }
        for (int64_t s = 0; s < states; s += 2) symbol[s] = int32_t(k.blank);
        /* a label, and the blank before it, end at most `delay` frames after the next label begins */
        for (int64_t s = 1; s < states; s += 2) {
            const bool bound = k.delay >= 0 && s + 2 < states;
            limit[s] = bound ? limit[s + 2] + k.delay : NEVER;
            limit[s - 1] = bound ? limit[s] - 1 : NEVER;
        }
        limit[states - 1] = NEVER;
        for (int64_t s = 0; s < states; ++s)
            skip[s] = s % 2 && s > 1 && symbol[s] != symbol[s - 2] && symbol[s] != k.blank ? 0.0 : LOW;
        for (double *p : {start, later}) std::fill(p - 2, p + states + 2, LOW);
        skip[states] = skip[states + 1] = LOW;
        start[0] = 0.0;
        later[states - 1] = 0.0;
        stride = states + 4;
        const bool fits = frames * stride <= k.pool;
        block = fits ? std::max<int64_t>(frames, 1) : k.block;
        return true;
    }

    void emit(int64_t t) {
        const T *at = x + row(t) * k.classes;
        const double sum = log_sum[row(t)];
        for (int64_t s = lo(t); s < hi(t); ++s) {
            const double e = double(at[symbol[s]]) - sum;
            emitted[s] = t <= limit[s] && e > LOW ? e : LOW;
        }
    }

    void forward(int64_t b) {
        const int64_t end = std::min(frames, (b + 1) * block);
        for (int64_t t = b * block; t < end; ++t) {
            double *a = alpha(t);
            emit(t);
            forward_row(t == 0 ? start : t % block ? alpha(t - 1) : kept(b - 1), skip, emitted, a, lo(t), hi(t));
            a[hi(t)] = a[hi(t) + 1] = LOW;
            if (lo(t) == 0) a[-1] = a[-2] = LOW;
        }
    }

    /* log of the probability of the labelling; alpha of the last block is there. */
    double score() {
        if (frames == 0) return 0.0;
        const int64_t last = (frames - 1) / block;
        for (int64_t b = 0; b <= last; ++b) {
            forward(b);
            if (b < last) std::memcpy(kept(b) - 2, alpha((b + 1) * block - 1) - 2, stride * sizeof(double));
        }
        const double *a = alpha(frames - 1);
        return log_add(a[states - 1], a[states - 2], LOW);
    }

    /* slope -= the posterior probability of each class at each frame. */
    void subtract_posterior(double total, T *slope) {
        std::fill_n(classes, k.classes, 0.0);
        const int64_t last = (frames - 1) / block;
        for (int64_t b = last; b >= 0; --b) {
            if (b < last) forward(b);
            for (int64_t t = std::min(frames, (b + 1) * block) - 1; t >= b * block; --t) {
                const int64_t from = lo(t), to = hi(t);
                backward_row(later, skip, alpha(t), total, now, posterior, from, to);
                T *d = slope + row(t) * k.classes;
                double blanks = 0.0;
                for (int64_t s = from + from % 2; s < to; s += 2) blanks += posterior[s];
                d[k.blank] -= T(blanks);
                const int64_t odd = from | 1;
                for (int64_t s = odd; s < to; s += 2) classes[symbol[s]] += posterior[s];
                for (int64_t s = odd; s < to; s += 2) { /* a class that comes again has nothing left */
                    d[symbol[s]] -= T(classes[symbol[s]]);
                    classes[symbol[s]] = 0.0;
                }
                emit(t);
                for (int64_t s = from; s < to; ++s) now[s] += emitted[s];
                now[from - 1] = now[from - 2] = now[to] = now[to + 1] = LOW;
                std::swap(now, later);
            }
        }
    }

    void fill(T *slope, T value) const {
        for (int64_t t = 0; t < frames; ++t) std::fill_n(slope + row(t) * k.classes, k.classes, value);
    }
};

template <class T> void run_ctc(const cg_call *call, const cg_context *) {
    const auto &k = *(const Ctc *)(const Kernel *)call->state;
    const T *y = (const T *)call->buf[0], *x = (const T *)call->buf[1];
    T *loss = (T *)call->buf[2], *slope = (T *)call->buf[3];
    char *scratch = (char *)call->buf[4];
    double *log_sum = cut<double>(scratch, k.frames.rows);
    parallel_range(k.frames.rows, k.frames.rows * k.classes, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) softmax_row(x + r * k.classes, slope + r * k.classes, k.classes, log_sum + r);
    });
    each_sequence(k.frames.count, k.frames.rows * k.classes * 4, k.slots, [&](int64_t s, int64_t slot) {
        Labelling<T> l(k, x, log_sum, s, scratch + slot * k.slot_bytes);
        double total = l.read(y) ? 0.0 : LOW;
        bool number = true;
        for (int64_t t = 0; t < l.frames; ++t) number = number && std::isfinite(log_sum[l.row(t)]);
        if (number && total == 0.0) total = l.score();
        if (!number) {
            loss[k.item[s]] = std::numeric_limits<T>::quiet_NaN();
            l.fill(slope, std::numeric_limits<T>::quiet_NaN());
        } else if (total < LOW / 2) {
            loss[k.item[s]] = std::numeric_limits<T>::infinity();
            l.fill(slope, T(0));
        } else {
            loss[k.item[s]] = T(-total);
            if (l.frames) l.subtract_posterior(total, slope);
        }
    });
}

/* ---- edit distance -------------------------------------------------------------------------------------------------- */

struct EditDistance : Kernel {
    Sequences a, b;
    const int64_t *item;
    int64_t classes, slots, slot_bytes;
    double substitution, deletion, insertion;
    bool squash;
    std::vector<char> ignored;

    /* What is left of a sequence: repeats as one, without what is ignored. Returns its length. */
    int64_t shorten(const Sequences &of, int64_t s, const int32_t *symbols, int32_t *left) const {
        int64_t n = 0;
        int32_t last = -1;
        for (int64_t t = 0; t < of.length[s]; ++t) {
            const int32_t c = symbols[of.offset[t] + of.place[s]];
            if (!(squash && c == last) && !ignored[c]) left[n++] = c;
            last = c;
        }
        return n;
    }

    /* Edits of the cheapest way from u to v. Of equally cheap ones: substitution, then insertion, then deletion. */
    int64_t edits(const int32_t *u, int64_t m, const int32_t *v, int64_t n, double *cost, int64_t *count) const {
        for (int64_t j = 0; j <= n; ++j) cost[j] = double(j) * insertion, count[j] = j;
        for (int64_t i = 1; i <= m; ++i) {
            double corner = cost[0];
            int64_t edits = count[0];
            cost[0] = double(i) * deletion, count[0] = i;
            for (int64_t j = 1; j <= n; ++j) {
                double best = corner;
                int64_t so_far = edits;
                if (u[i - 1] != v[j - 1]) {
                    const double inserted = cost[j - 1] + insertion, deleted = cost[j] + deletion;
                    best = corner + substitution;
                    if (inserted < best) best = inserted, so_far = count[j - 1];
                    if (deleted < best) best = deleted, so_far = count[j];
                    ++so_far;
                }
                corner = cost[j], edits = count[j];
                cost[j] = best, count[j] = so_far;
            }
        }
        return count[n];
    }
};

template <class T> void run_edit_distance(const cg_call *call, const cg_context *) {
    const auto &k = *(const EditDistance *)(const Kernel *)call->state;
    T *edits = (T *)call->buf[2], *length = (T *)call->buf[3];
    char *scratch = (char *)call->buf[4];
    int32_t *symbols[2];
    for (int i = 0; i < 2; ++i) {
        const T *x = (const T *)call->buf[i];
        const int64_t rows = (i ? k.b : k.a).rows;
        int32_t *found = symbols[i] = cut<int32_t>(scratch, rows);
        parallel_range(rows, rows * k.classes, [&](int64_t begin, int64_t end) {
            for (int64_t r = begin; r < end; ++r) found[r] = int32_t(largest(x + r * k.classes, k.classes));
        });
    }
    each_sequence(k.a.count, k.a.rows * k.b.longest, k.slots, [&](int64_t s, int64_t slot) {
        char *at = scratch + slot * k.slot_bytes;
        int32_t *u = cut<int32_t>(at, k.a.longest), *v = cut<int32_t>(at, k.b.longest);
        double *cost = cut<double>(at, k.b.longest + 1);
        int64_t *count = cut<int64_t>(at, k.b.longest + 1);
        const int64_t m = k.shorten(k.a, s, symbols[0], u), n = k.shorten(k.b, s, symbols[1], v);
        edits[k.item[s]] = T(k.edits(u, m, v, n, cost, count));
        length[k.item[s]] = T(n);
    });
}

void check(const char *who, int64_t a, int64_t b, int64_t classes) {
    if (a != b) bad(std::string(who) + ": expected as many sequences in both operands, got " + std::to_string(a) + " and " + std::to_string(b));
    if (classes < 1 || classes > std::numeric_limits<int32_t>::max())
        bad(std::string(who) + ": expected at least 1 class, got " + std::to_string(classes));
}

} // namespace

Kernel *make_ctc(const Sequences &labels, const Sequences &frames, const int64_t *item, int64_t classes, int64_t blank, int64_t delay,
                 const std::string &dtype) {
    check("Ctc", labels.count, frames.count, classes);
    if (blank < 0 || blank >= classes)
        bad("Ctc: expected a blank in [0, " + std::to_string(classes) + "), got " + std::to_string(blank));
    auto *k = new Ctc();
    k->run = is_double("Ctc", dtype) ? run_ctc<double> : run_ctc<float>;
    k->nbuf = 5;
    k->labels = labels;
    k->frames = frames;
    k->item = item;
    k->classes = classes;
    k->blank = blank;
    k->delay = delay;
    k->slots = slots_for(frames.count);
    const int64_t longest = frames.longest;
    k->most = 2 * std::min(longest, labels.longest) + 1;
    k->block = std::max<int64_t>(1, int64_t(std::ceil(std::sqrt(double(longest)))));
    k->pool = (k->block + ceil_div(longest, k->block)) * (k->most + 4);
    k->slot_bytes = bytes(k->pool, 8) + 6 * bytes(k->most + 4, 8) + bytes(classes, 8) + bytes(k->most, 8) + bytes(k->most, 4);
    k->scratch = bytes(frames.rows, 8) + k->slots * k->slot_bytes;
    return k;
}

Kernel *make_edit_distance(const Sequences &a, const Sequences &b, const int64_t *item, int64_t classes, double substitution,
                           double deletion, double insertion, bool squash, const std::vector<int64_t> &ignored,
                           const std::string &dtype) {
    check("EditDistance", a.count, b.count, classes);
    auto *k = new EditDistance();
    k->run = is_double("EditDistance", dtype) ? run_edit_distance<double> : run_edit_distance<float>;
    k->nbuf = 5;
    k->a = a;
    k->b = b;
    k->item = item;
    k->classes = classes;
    k->substitution = substitution;
    k->deletion = deletion;
    k->insertion = insertion;
    k->squash = squash;
    k->ignored.assign(classes, 0);
    for (int64_t c : ignored)
        if (c >= 0 && c < classes) k->ignored[c] = 1;
    k->slots = slots_for(a.count);
    k->slot_bytes = bytes(a.longest, 4) + bytes(b.longest, 4) + 2 * bytes(b.longest + 1, 8);
    k->scratch = bytes(a.rows, 4) + bytes(b.rows, 4) + k->slots * k->slot_bytes;
    return k;
}

} // namespace cg
