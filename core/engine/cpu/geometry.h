/* Images, windows and the places where they meet; shared by convolution and pooling. */
#ifndef COGKIT_GEOMETRY_H
#define COGKIT_GEOMETRY_H

#include <algorithm>
#include <string>

#include "support.h"

namespace cg {

/* Up to three spatial dimensions, seen as three. */
struct Geometry {
    int64_t N, C, O, G, Cg, Og;
    int64_t in[3] = {1, 1, 1}, out[3] = {1, 1, 1}, window[3] = {1, 1, 1}, stride[3] = {1, 1, 1}, dilation[3] = {1, 1, 1},
            pad[3] = {0, 0, 0};
    int64_t X, P, V;      /* elements of an input plane, an output plane, a window */
    bool pointwise;       /* a 1x1 window that reads a plane as it lies */

    /* First and last+1 output index that reads inside the input, for window position k along axis d. */
    void valid(int d, int64_t k, int64_t *lo, int64_t *hi) const {
        const int64_t shift = k * dilation[d] - pad[d], s = stride[d];
        *lo = shift >= 0 ? 0 : ceil_div(-shift, s);
        *hi = in[d] - shift <= 0 ? 0 : ceil_div(in[d] - shift, s);
        *lo = std::min(*lo, out[d]), *hi = std::max(*lo, std::min(*hi, out[d]));
    }
};

inline std::string show(const Dims &d) {
    std::string s = "(";
    for (size_t i = 0; i < d.size(); i++) s += (i ? ", " : "") + std::to_string(d[i]);
    return s + ")";
}

inline void spatial(const char *who, Geometry &g, const Dims &x, const Dims &y, const Dims &window, size_t window_skip,
                    const Dims &strides, const Dims &dilation, const Dims &pad_lo, const Dims &pad_hi) {
    const size_t rank = x.size() - 2;
    if (x.size() < 3 || rank > 3) bad(std::string(who) + ": expected 1 to 3 spatial dimensions, got x of shape " + show(x));
    if (y.size() != x.size() || window.size() != rank + window_skip || strides.size() != rank || pad_lo.size() != rank ||
        pad_hi.size() != rank || dilation.size() != rank)
        bad(std::string(who) + ": expected y, window, strides, dilation and pads of " + std::to_string(rank) +
            " spatial dimensions");
    check_sizes(who, x), check_sizes(who, y), check_sizes(who, window);
    for (size_t i = 0; i < rank; i++) {
        const size_t d = 3 - rank + i;
        g.in[d] = x[2 + i], g.out[d] = y[2 + i], g.window[d] = window[window_skip + i];
        g.stride[d] = strides[i], g.dilation[d] = dilation[i], g.pad[d] = pad_lo[i];
        if (g.stride[d] < 1 || g.dilation[d] < 1 || g.window[d] < 1)
            bad(std::string(who) + ": expected windows, strides and dilations >= 1, got " + show(window) + ", " + show(strides) +
                ", " + show(dilation));
    }
    g.N = x[0], g.C = x[1], g.O = y[1];
    if (y[0] != x[0]) bad(std::string(who) + ": expected as many items in y as in x, got " + show(y) + " and " + show(x));
    g.X = g.in[0] * g.in[1] * g.in[2], g.P = g.out[0] * g.out[1] * g.out[2], g.V = g.window[0] * g.window[1] * g.window[2];
}

} // namespace cg
#endif
