#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "native.h"

namespace cg {
namespace {

enum RoiOp { FORWARD, BACKWARD, PICK };

/* The cells [begin, end) of one bin along one axis of size n, of `bins` that share the cells first..last. */
struct Span {
    int64_t begin, end;
};
inline Span bin_of(int64_t first, int64_t last, int64_t bin, int64_t bins, int64_t n) {
    const int64_t size = std::max<int64_t>(last - first + 1, 1);
    const int64_t lo = first + bin * size / bins, hi = first + ceil_div((bin + 1) * size, bins);
    return {std::min(std::max<int64_t>(lo, 0), n), std::min(std::max<int64_t>(hi, 0), n)};
}

/* A place in the image as the number of a cell, halves away from 0; NaN is 0. */
template <class T> inline int64_t cell_of(T place, double scale) {
    const double v = double(place) * scale, most = 1 << 30;
    return v != v ? 0 : int64_t(std::round(std::min(std::max(v, -most), most)));
}

/* x (rows, C, H, W) or (C, H, W), rois (rows, R, 4) or (R, 4), y (rows, R, C, oh, ow). */
template <class T> struct RoiKernel : Kernel {
    RoiArgs g;
    RoiOp op = FORWARD;
    bool average = false;

    /* Bins of one region in one plane: f(place in y, the rows, the columns). */
    template <class F> void bins(const T *roi, F &&f) const {
        const int64_t x1 = cell_of(roi[0], g.scale), y1 = cell_of(roi[1], g.scale);
        const int64_t x2 = cell_of(roi[2], g.scale), y2 = cell_of(roi[3], g.scale);
        for (int64_t i = 0, at = 0; i < g.out_h; i++)
            for (int64_t j = 0; j < g.out_w; j++, at++) f(at, bin_of(y1, y2, i, g.out_h, g.h), bin_of(x1, x2, j, g.out_w, g.w));
    }

    /* The first largest cell, rows first, NaN above everything; -1 in an empty bin. */
    int64_t largest(const T *x, Span r, Span c) const {
        int64_t at = -1;
        T best = 0;
        for (int64_t i = r.begin; i < r.end; i++)
            for (int64_t j = c.begin; j < c.end; j++) {
                const T v = x[i * g.w + j];
                if (at < 0 || v > best || (v != v && best == best)) at = i * g.w + j, best = v;
            }
        return at;
    }

    void plane(const T *a, const T *x, const T *roi, T *y) const {
        bins(roi, [&](int64_t at, Span r, Span c) {
            const int64_t cells = (r.end - r.begin) * (c.end - c.begin);
            if (!average) {
                const int64_t k = largest(x, r, c);
                if (op == BACKWARD) {
                    if (k >= 0) y[k] += a[at];
                } else {
                    y[at] = k < 0 ? T(0) : op == PICK ? a[k] : x[k];
                }
                return;
            }
            T sum = 0;
            const T share = op == BACKWARD && cells > 0 ? a[at] / T(cells) : T(0);
            for (int64_t i = r.begin; i < r.end; i++)
                for (int64_t j = c.begin; j < c.end; j++) {
                    if (op == BACKWARD) y[i * g.w + j] += share;
                    else sum += x[i * g.w + j];
                }
            if (op == FORWARD) y[at] = cells > 0 ? sum / T(cells) : T(0);
        });
    }

    /* Buffers of FORWARD: x, rois, y; BACKWARD: dy, x, rois, dx; PICK: v, x, rois, y. A plane of one row has one owner. */
    static void call(const cg_call *c, const cg_context *) {
        const auto *self = static_cast<const RoiKernel *>(c->state);
        const RoiArgs &g = self->g;
        const int64_t image = g.h * g.w, cells = g.out_h * g.out_w;
        const bool back = self->op == BACKWARD;
        const T *a = self->op == FORWARD ? nullptr : (const T *)c->buf[0];
        const T *x = (const T *)c->buf[self->nbuf - 3], *rois = (const T *)c->buf[self->nbuf - 2];
        T *y = (T *)c->buf[self->nbuf - 1];
        parallel_range(g.rows * g.channels, g.rows * g.channels * g.regions * image, [&](int64_t b, int64_t e) {
            for (int64_t p = b; p < e; p++) {
                const int64_t row = p / g.channels, channel = p % g.channels;
                const int64_t own = (g.x_rows ? row * g.channels + channel : channel) * image; /* this plane in x */
                if (back) memset(y + p * image, 0, image * sizeof(T));
                for (int64_t r = 0; r < g.regions; r++) {
                    const int64_t out = ((row * g.regions + r) * g.channels + channel) * cells;
                    const T *roi = rois + ((g.roi_rows ? row * g.regions : 0) + r) * 4;
                    const T *from = a == nullptr ? nullptr : back ? a + out : a + (g.v_rows ? p : channel) * image;
                    self->plane(from, x + own, roi, back ? y + p * image : y + out);
                }
            }
        });
    }
};

template <class T> Kernel *roi(RoiOp op, bool average, const RoiArgs &args) {
    auto k = std::make_unique<RoiKernel<T>>();
    k->g = args, k->op = op, k->average = average;
    k->run = RoiKernel<T>::call;
    k->nbuf = op == FORWARD ? 3 : 4;
    return k.release();
}

} // namespace

Kernel *make_roi_pooling(const std::string &kind, const std::string &mode, const std::string &dtype, const RoiArgs &args) {
    check_sizes("RoiPooling", {args.rows, args.regions, args.channels, args.h, args.w});
    if (args.out_h < 1 || args.out_w < 1)
        bad("RoiPooling: expected at least one bin an axis, got " + std::to_string(args.out_h) + " and " +
            std::to_string(args.out_w));
    if (mode != "max" && mode != "avg") bad("RoiPooling: expected mode 'max' or 'avg', got '" + mode + "'");
    RoiOp op = FORWARD;
    if (kind == "backward") op = BACKWARD;
    else if (kind == "pick" && mode == "max") op = PICK;
    else if (kind != "forward") bad("RoiPooling: expected kind 'forward', 'backward' or (of 'max') 'pick', got '" + kind + "'");
    return is_double("RoiPooling", dtype) ? roi<double>(op, mode == "avg", args) : roi<float>(op, mode == "avg", args);
}

} // namespace cg
