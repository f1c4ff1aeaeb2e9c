/* Pooling of images with up to three axes, pooling of regions, and what goes back through them: each result is made by one thread. */
#include <math.h>

#include "blocks.cuh"

/* Planes of x and y, the window over x, its steps and the rows before the image. include: a mean counts what lies outside. */
struct Pooling {
    int64_t planes;
    int64_t x[3], y[3], window[3], strides[3], before[3];
    int64_t include;

    __device__ inline int64_t x_size() const { return x[0] * x[1] * x[2]; }
    __device__ inline int64_t y_size() const { return y[0] * y[1] * y[2]; }
};

/* Plane and coordinates of element e of planes with these sizes. */
struct Where {
    int64_t plane;
    int at[3];
    __device__ inline Where(int64_t e, const int64_t (&sizes)[3]) {
        for (int d = 2; d >= 0; d--) {
            const int64_t q = quotient(e, sizes[d]);
            at[d] = (int)(e - q * sizes[d]), e = q;
        }
        plane = e;
    }
};

/* The part of a window that lies in the image, and where the window begins. */
struct Window {
    int first[3], from[3], to[3];
    __device__ inline Window(const Pooling &p, const Where &y) {
        for (int d = 0; d < 3; d++) {
            first[d] = y.at[d] * (int)p.strides[d] - (int)p.before[d];
            from[d] = max(first[d], 0), to[d] = min(first[d] + (int)p.window[d], (int)p.x[d]);
        }
    }
    /* How many places a mean counts. */
    __device__ inline int64_t count(const Pooling &p) const {
        if (p.include) return p.window[0] * p.window[1] * p.window[2];
        int64_t n = 1;
        for (int d = 0; d < 3; d++) n *= max(to[d] - from[d], 0);
        return n ? n : 1;
    }
    /* f(element of the plane, place in the window) for each place in the image, in order. */
    template <class F> __device__ inline void each(const Pooling &p, F f) const {
        for (int i = from[0]; i < to[0]; i++)
            for (int j = from[1]; j < to[1]; j++)
                for (int k = from[2]; k < to[2]; k++)
                    f((i * p.x[1] + j) * p.x[2] + k,
                      (int)(((i - first[0]) * p.window[1] + j - first[1]) * p.window[2] + k - first[2]));
    }
};

/* Whether v takes the place of the largest so far: NaN is larger than any. */
template <class T> __device__ inline bool beats(T v, T best) { return v > best || (v != v && best == best); }

/* The first largest place of a window over a plane; places outside of the image are -inf. cell: its element, -1 outside. */
template <class T> __device__ inline int largest_place(const Pooling &p, const Window &w, const T *x, int64_t &cell) {
    int at = 0;
    T best = T(-INFINITY);
    cell = -1;
    w.each(p, [&](int64_t i, int place) {
        if (beats(x[i], best) || (place == 0 && x[i] == best)) best = x[i], at = place, cell = i;
    });
    return at;
}

#define POOL(T, type)                                                                                                           \
    /* the largest of each window */                                                                                            \
    CG_KERNEL(pool_max_##type, const T *__restrict__ x, T *__restrict__ y, Pooling p) {                                         \
        CG_EACH(e, p.planes * p.y_size()) {                                                                                     \
            const Where at(e, p.y);                                                                                             \
            const T *plane = x + at.plane * p.x_size();                                                                         \
            T best = T(-INFINITY);                                                                                              \
            Window(p, at).each(p, [&](int64_t i, int) { best = beats(plane[i], best) ? plane[i] : best; });                     \
            y[e] = best;                                                                                                        \
        }                                                                                                                       \
    }                                                                                                                           \
    /* the mean of each window */                                                                                               \
    CG_KERNEL(pool_avg_##type, const T *__restrict__ x, T *__restrict__ y, Pooling p) {                                         \
        CG_EACH(e, p.planes * p.y_size()) {                                                                                     \
            const Where at(e, p.y);                                                                                             \
            const Window w(p, at);                                                                                              \
            const T *plane = x + at.plane * p.x_size();                                                                         \
            T sum = 0;                                                                                                          \
            w.each(p, [&](int64_t i, int) { sum += plane[i]; });                                                                \
            y[e] = sum / T(w.count(p));                                                                                         \
        }                                                                                                                       \
    }                                                                                                                           \
    /* v where x is largest, 0 where that is outside of the image */                                                            \
    CG_KERNEL(pool_pick_##type, const T *__restrict__ v, const T *__restrict__ x, T *__restrict__ y, Pooling p) {               \
        CG_EACH(e, p.planes * p.y_size()) {                                                                                     \
            const Where at(e, p.y);                                                                                             \
            const int64_t plane = at.plane * p.x_size();                                                                        \
            int64_t cell;                                                                                                       \
            largest_place(p, Window(p, at), x + plane, cell);                                                                   \
            y[e] = cell < 0 ? T(0) : v[plane + cell];                                                                           \
        }                                                                                                                       \
    }                                                                                                                           \
    /* the place in each window where x is largest */                                                                           \
    CG_KERNEL(pool_places_##type, const T *__restrict__ x, int32_t *__restrict__ places, Pooling p) {                           \
        CG_EACH(e, p.planes * p.y_size()) {                                                                                     \
            const Where at(e, p.y);                                                                                             \
            int64_t cell;                                                                                                       \
            places[e] = largest_place(p, Window(p, at), x + at.plane * p.x_size(), cell);                                       \
        }                                                                                                                       \
    }                                                                                                                           \
    /* the sum of dy of the windows that have their place here */                                                               \
    CG_KERNEL(pool_max_back_##type, const T *__restrict__ dy, const int32_t *__restrict__ places, T *__restrict__ dx, Pooling p) { \
        CG_EACH(e, p.planes * p.x_size()) {                                                                                     \
            dx[e] = back<T>(p, e, [&](int64_t i, int place, const Where &) { return places[i] == place ? dy[i] : T(0); });      \
        }                                                                                                                       \
    }                                                                                                                           \
    /* the sum of the shares of the windows that see this element */                                                            \
    CG_KERNEL(pool_avg_back_##type, const T *__restrict__ dy, T *__restrict__ dx, Pooling p) {                                  \
        CG_EACH(e, p.planes * p.x_size()) {                                                                                     \
            dx[e] = back<T>(p, e, [&](int64_t i, int, const Where &y) { return dy[i] / T(Window(p, y).count(p)); });            \
        }                                                                                                                       \
    }

/* The sum of f(element of y, place of x in its window, coordinates) over the windows that see element e of x, by that place. */
template <class T, class F> __device__ inline T back(const Pooling &p, int64_t e, F f) {
    const Where at(e, p.x);
    int from[3], to[3], inside[3];
    for (int d = 0; d < 3; d++) {
        const int i = at.at[d] + (int)p.before[d], s = (int)p.strides[d], least = i - (int)p.window[d] + s;
        from[d] = least > 0 ? least / s : 0, to[d] = i < 0 ? -1 : min(i / s, (int)p.y[d] - 1), inside[d] = i;
    }
    Where y = at;
    T sum = 0;
    for (y.at[0] = to[0]; y.at[0] >= from[0]; y.at[0]--)
        for (y.at[1] = to[1]; y.at[1] >= from[1]; y.at[1]--)
            for (y.at[2] = to[2]; y.at[2] >= from[2]; y.at[2]--) {
                int64_t i = at.plane, place = 0;
                for (int d = 0; d < 3; d++) {
                    i = i * p.y[d] + y.at[d], place = place * p.window[d] + inside[d] - y.at[d] * p.strides[d];
                }
                sum += f(i, (int)place, y);
            }
    return sum;
}
CG_FLOATS(POOL)

/* Regions of images: x (rows, channels, h, w), regions (rows, regions, 4: x1, y1, x2, y2), y (rows, regions, channels, bins_h, bins_w);
 * elements from one row to the next, 0 where all rows share; for what else is read too. */
struct Regions {
    int64_t rows, regions, channels, h, w, bins_h, bins_w;
    int64_t x_row, region_row, other_row;
    double scale;

    __device__ inline int64_t results() const { return rows * regions * channels * bins_h * bins_w; }
};

/* A place in the image as the number of a cell, halves away from 0; NaN is 0. */
template <class T> __device__ inline int64_t cell_of(T place, double scale) {
    const double v = (double)place * scale, most = 1 << 30;
    return v != v ? 0 : (int64_t)round(v < -most ? -most : v > most ? most : v);
}

/* The cells [from, to) of one of the bins that share the cells first..last of an axis with n cells. */
struct Span {
    int64_t from, to;
    __device__ inline Span(int64_t first, int64_t last, int64_t bin, int64_t bins, int64_t n) {
        const int64_t cells = last - first + 1 < 1 ? 1 : last - first + 1;
        const int64_t lo = first + bin * cells / bins, hi = first + ((bin + 1) * cells + bins - 1) / bins;
        from = lo < 0 ? 0 : lo > n ? n : lo, to = hi < 0 ? 0 : hi > n ? n : hi;
    }
};

template <class T> struct Region {
    int64_t x1, y1, x2, y2;
    __device__ inline Region(const Regions &g, const T *r)
        : x1(cell_of(r[0], g.scale)), y1(cell_of(r[1], g.scale)), x2(cell_of(r[2], g.scale)), y2(cell_of(r[3], g.scale)) {}
    __device__ inline Span rows(const Regions &g, int64_t bin) const { return Span(y1, y2, bin, g.bins_h, g.h); }
    __device__ inline Span columns(const Regions &g, int64_t bin) const { return Span(x1, x2, bin, g.bins_w, g.w); }
};

/* Of result e: the row, the channel's place in a row, the cells of its bin. */
template <class T> struct Bin {
    int64_t row, channel;
    Span rows, columns;
    __device__ inline Bin(const Regions &g, const T *regions, int64_t e) : Bin(g, regions, e, e / g.bins_w / g.bins_h) {}
    __device__ inline int64_t cells() const { return rows.to > rows.from && columns.to > columns.from ? (rows.to - rows.from) * (columns.to - columns.from) : 0; }
    /* the first largest cell of a plane, -1 where there is none */
    __device__ inline int64_t largest(const T *plane, int64_t width) const {
        int64_t at = -1;
        T best = 0;
        for (int64_t i = rows.from; i < rows.to; i++)
            for (int64_t j = columns.from; j < columns.to; j++) {
                const T v = plane[i * width + j];
                if (at < 0 || beats(v, best)) best = v, at = i * width + j;
            }
        return at;
    }

  private:
    __device__ inline Bin(const Regions &g, const T *regions, int64_t e, int64_t rest)
        : Bin(g, Region<T>(g, regions + rest / g.channels / g.regions * g.region_row + rest / g.channels % g.regions * 4), e, rest) {}
    __device__ inline Bin(const Regions &g, const Region<T> &r, int64_t e, int64_t rest)
        : row(rest / g.channels / g.regions), channel(rest % g.channels * g.h * g.w), rows(r.rows(g, e / g.bins_w % g.bins_h)),
          columns(r.columns(g, e % g.bins_w)) {}
};

#define REGIONS(T, type)                                                                                                        \
    CG_KERNEL(regions_max_##type, const T *__restrict__ x, const T *__restrict__ regions, T *__restrict__ y, Regions g) {       \
        CG_EACH(e, g.results()) {                                                                                               \
            const Bin<T> bin(g, regions, e);                                                                                    \
            const T *plane = x + bin.row * g.x_row + bin.channel;                                                               \
            const int64_t at = bin.largest(plane, g.w);                                                                         \
            y[e] = at < 0 ? T(0) : plane[at];                                                                                   \
        }                                                                                                                       \
    }                                                                                                                           \
    CG_KERNEL(regions_avg_##type, const T *__restrict__ x, const T *__restrict__ regions, T *__restrict__ y, Regions g) {       \
        CG_EACH(e, g.results()) {                                                                                               \
            const Bin<T> bin(g, regions, e);                                                                                    \
            const T *plane = x + bin.row * g.x_row + bin.channel;                                                               \
            T sum = 0;                                                                                                          \
            for (int64_t i = bin.rows.from; i < bin.rows.to; i++)                                                               \
                for (int64_t j = bin.columns.from; j < bin.columns.to; j++) sum += plane[i * g.w + j];                          \
            y[e] = bin.cells() ? sum / T(bin.cells()) : T(0);                                                                   \
        }                                                                                                                       \
    }                                                                                                                           \
    /* v where x is largest */                                                                                                  \
    CG_KERNEL(regions_pick_##type, const T *__restrict__ v, const T *__restrict__ x, const T *__restrict__ regions,             \
              T *__restrict__ y, Regions g) {                                                                                   \
        CG_EACH(e, g.results()) {                                                                                               \
            const Bin<T> bin(g, regions, e);                                                                                    \
            const int64_t at = bin.largest(x + bin.row * g.x_row + bin.channel, g.w);                                           \
            y[e] = at < 0 ? T(0) : v[bin.row * g.other_row + bin.channel + at];                                                 \
        }                                                                                                                       \
    }                                                                                                                           \
    /* the cell of each result where x is largest, -1 where there is none */                                                    \
    CG_KERNEL(regions_cells_##type, const T *__restrict__ x, const T *__restrict__ regions, int32_t *__restrict__ cells, Regions g) { \
        CG_EACH(e, g.results()) {                                                                                               \
            const Bin<T> bin(g, regions, e);                                                                                    \
            cells[e] = (int32_t)bin.largest(x + bin.row * g.x_row + bin.channel, g.w);                                          \
        }                                                                                                                       \
    }                                                                                                                           \
    /* the sum of dy over the bins that see an element: of those whose cell it is, or, without cells, each one's share */       \
    CG_KERNEL(regions_back_##type, const T *__restrict__ dy, const T *__restrict__ regions, const int32_t *__restrict__ cells,  \
              T *__restrict__ dx, Regions g) {                                                                                  \
        CG_EACH(e, g.rows * g.channels * g.h * g.w) {                                                                           \
            const int64_t j = e % g.w, i = e / g.w % g.h, channel = e / g.w / g.h % g.channels, row = e / g.w / g.h / g.channels; \
            T sum = 0;                                                                                                          \
            for (int64_t r = 0; r < g.regions; r++) {                                                                           \
                const Region<T> region(g, regions + row * g.region_row + r * 4);                                                \
                const int64_t from = (r * g.channels + channel) * g.bins_h * g.bins_w;                                          \
                for (int64_t a = 0; a < g.bins_h; a++) {                                                                        \
                    const Span down = region.rows(g, a);                                                                        \
                    if (i < down.from || i >= down.to) continue;                                                                \
                    for (int64_t b = 0; b < g.bins_w; b++) {                                                                    \
                        const Span across = region.columns(g, b);                                                               \
                        if (j < across.from || j >= across.to) continue;                                                        \
                        const int64_t at = from + a * g.bins_w + b;                                                             \
                        const T given = dy[row * g.other_row + at];                                                             \
                        if (!cells) sum += given / T((down.to - down.from) * (across.to - across.from));                        \
                        else if (cells[row * g.regions * g.channels * g.bins_h * g.bins_w + at] == i * g.w + j) sum += given;   \
                    }                                                                                                           \
                }                                                                                                               \
            }                                                                                                                   \
            dx[e] = sum;                                                                                                        \
        }                                                                                                                       \
    }
CG_FLOATS(REGIONS)
