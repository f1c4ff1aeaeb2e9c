// Fashion-C32, the fast twin of fashion_c32.reference(): same operations in the same order in float64, so the same bytes.
#include <algorithm>
#include <cstring>

#include "native.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("-ffp-contract=off")  // a fused multiply-add would change the bytes from machine to machine
#endif

namespace {

constexpr int S = 32;
constexpr int PIXELS = S * S;
constexpr double ROOT3 = 1.7320508075688772;
constexpr double NOISE = 1.0 / 37837.22720521305;  // 1 / std of the sum of four whole numbers in [0, 65536)

// The numbers of one image, by name: each has its own place in the stream, so that a new one changes no other.
enum Draw {
    ANGLE = 0, SCALE = 4, SHIFT_X, SHIFT_Y, FLIP, ALPHA, FROM_PHOTO, COLOUR = 10, PATCH_1 = 16, PATCH_2 = 21, DIRECTION = 26,
    TWO_TONE, PRINTED, PRINT_PATCH = 29, SHADE = 34, BACKGROUND = 35, GAIN = 40, OCCLUDED, OCC_Y, OCC_X, OCC_H, OCC_W,
    OCC_PATCH = 46, CONTRAST = 51, BRIGHTNESS = 52, SIGMA = 56, DRAWS = 60
};

struct Crop {
    const cg_photo *photo;
    int64_t x, y, side;
    bool flip;
};

inline double normal(const double *u) { return (u[0] + u[1] + u[2] + u[3] - 2.0) * ROOT3; }
inline double between(double u, double low, double high) { return low + u * (high - low); }
inline int64_t below(double u, int64_t n) { return (int64_t)(u * (double)n); }

// Training images see the left 70 % of every photo, test images the right 30 %.
Crop pick(const double *u, int split, const cg_photo *photos, int64_t count) {
    Crop c;
    c.photo = &photos[below(u[0], count)];
    const int64_t cut = c.photo->width * 7 / 10;
    const int64_t low = split == 0 ? 0 : cut, high = split == 0 ? cut : c.photo->width;
    const int64_t widest = std::min<int64_t>(std::min<int64_t>(c.photo->height, high - low), 220);
    c.side = S + below(u[1], widest - S + 1);
    c.x = low + below(u[2], high - low - c.side + 1);
    c.y = below(u[3], c.photo->height - c.side + 1);
    c.flip = u[4] < 0.5;
    return c;
}

// Means over the boxes of a size x size grid on the crop (size 1: its mean colour); rows first, RGB last.
void shrink(const Crop &c, int size, double *out) {
    for (int i = 0; i < size; ++i) {
        const int64_t y0 = c.y + i * c.side / size, y1 = c.y + (i + 1) * c.side / size;
        for (int j = 0; j < size; ++j) {
            const int64_t x0 = c.x + j * c.side / size, x1 = c.x + (j + 1) * c.side / size;
            int64_t red = 0, green = 0, blue = 0;
            for (int64_t y = y0; y < y1; ++y) {
                const uint8_t *p = c.photo->pixels + (y * c.photo->width + x0) * 3;
                for (int64_t x = x0; x < x1; ++x, p += 3) {
                    red += p[0];
                    green += p[1];
                    blue += p[2];
                }
            }
            const double area = (double)((y1 - y0) * (x1 - x0));
            double *q = out + (i * size + (c.flip ? size - 1 - j : j)) * 3;
            q[0] = (double)red / area;
            q[1] = (double)green / area;
            q[2] = (double)blue / area;
        }
    }
}

void draw(uint64_t seed, int split, int64_t index, const uint8_t *item, const cg_photo *photos, int64_t count, uint8_t *out) {
    double u[DRAWS];
    for (int b = 0; b < DRAWS / 4; ++b) {
        uint64_t r[4];
        cg_philox(seed, (uint64_t)split, (uint64_t)b + 1, 0, (uint64_t)index, 0, r);
        for (int k = 0; k < 4; ++k) u[4 * b + k] = (double)(r[k] >> 11) * (1.0 / 9007199254740992.0);
    }
    // The item, turned, scaled, shifted, perhaps mirrored: bilinear, zero outside.
    const double a = normal(u + ANGLE) * 0.17453292519943295, a2 = a * a;
    const double sine = a * (1.0 + a2 * (-1.0 / 6.0 + a2 * (1.0 / 120.0 + a2 * (-1.0 / 5040.0))));
    const double cosine = 1.0 + a2 * (-0.5 + a2 * (1.0 / 24.0 + a2 * (-1.0 / 720.0 + a2 * (1.0 / 40320.0))));
    const double s = between(u[SCALE], 0.72, 1.2), co = cosine / s, si = sine / s, side = u[FLIP] < 0.5 ? -1.0 : 1.0;
    const double cx = 15.5 + between(u[SHIFT_X], -4.0, 4.0), cy = 15.5 + between(u[SHIFT_Y], -4.0, 4.0);
    double o[PIXELS];
    for (int i = 0; i < S; ++i)
        for (int j = 0; j < S; ++j) {
            const double dx = (double)j - cx, dy = (double)i - cy;
            // Shifted by 32 so that truncation is floor.
            const double fx = 13.5 + (co * dx + si * dy) * side + 32.0, fy = 13.5 + (co * dy - si * dx) + 32.0;
            const int ix = (int)fx - 32, iy = (int)fy - 32;
            const double wx = fx - (double)(ix + 32), wy = fy - (double)(iy + 32);
            auto at = [&](int y, int x) { return y >= 0 && y < 28 && x >= 0 && x < 28 ? (double)item[y * 28 + x] : 0.0; };
            const double top = at(iy, ix) * (1.0 - wx) + at(iy, ix + 1) * wx;
            const double bottom = at(iy + 1, ix) * (1.0 - wx) + at(iy + 1, ix + 1) * wx;
            o[i * S + j] = (top * (1.0 - wy) + bottom * wy) / 255.0;
        }
    // Its colours: drawn, or taken from the photos.
    double colour[2][3];
    if (u[FROM_PHOTO] < 0.5) {
        for (int k = 0; k < 6; ++k) colour[k / 3][k % 3] = between(u[COLOUR + k], 20.0, 255.0);
    } else {
        shrink(pick(u + PATCH_1, split, photos, count), 1, colour[0]);
        shrink(pick(u + PATCH_2, split, photos, count), 1, colour[1]);
    }
    const bool down = u[DIRECTION] < 0.5, two_tone = u[TWO_TONE] < 0.6, printed = u[PRINTED] < 0.25, occluded = u[OCCLUDED] < 0.2;
    double print[PIXELS * 3], ground[PIXELS * 3], front[PIXELS * 3];
    if (printed) shrink(pick(u + PRINT_PATCH, split, photos, count), S, print);
    shrink(pick(u + BACKGROUND, split, photos, count), S, ground);
    int64_t oy0 = 0, oy1 = 0, ox0 = 0, ox1 = 0;
    if (occluded) {
        shrink(pick(u + OCC_PATCH, split, photos, count), S, front);
        oy0 = below(u[OCC_Y], 26);
        ox0 = below(u[OCC_X], 26);
        oy1 = std::min<int64_t>(S, oy0 + 4 + below(u[OCC_H], 7));
        ox1 = std::min<int64_t>(S, ox0 + 4 + below(u[OCC_W], 7));
    }
    const double opacity = between(u[ALPHA], 0.85, 1.0), shade = between(u[SHADE], 0.25, 0.5), gain = between(u[GAIN], 0.6, 1.1);
    const double contrast = between(u[CONTRAST], 0.7, 1.2), brightness = normal(u + BRIGHTNESS) * 12.0;
    const double sigma = between(u[SIGMA], 1.0, 7.0) * NOISE;
    for (int c = 0; c < 3; ++c)
        for (int i = 0; i < S; ++i)
            for (int j = 0; j < S; j += 4) {
                uint64_t r[4];
                cg_philox(seed, (uint64_t)split, (uint64_t)((c * PIXELS + i * S + j) / 4) + 1, 0, (uint64_t)index, 1, r);
                for (int k = 0; k < 4; ++k) {
                    const int p = i * S + j + k;
                    const double t = (double)(down ? i : j + k) / 31.0;
                    double v = two_tone ? colour[0][c] * (1.0 - t) + colour[1][c] * t : colour[0][c];
                    if (printed) v = 0.6 * v + 0.4 * print[p * 3 + c];
                    v = v * (shade + (1.0 - shade) * 1.25 * o[p]);
                    const double alpha = std::min(o[p] * 4.0, 1.0) * opacity;
                    v = ground[p * 3 + c] * gain * (1.0 - alpha) + v * alpha;
                    if (i >= oy0 && i < oy1 && j + k >= ox0 && j + k < ox1)
                        v = front[((i - oy0) * S + (j + k - ox0)) * 3 + c];
                    const int64_t sum = (int64_t)((r[k] & 0xffff) + ((r[k] >> 16) & 0xffff) + ((r[k] >> 32) & 0xffff) + (r[k] >> 48));
                    v = (v - 128.0) * contrast + 128.0 + brightness + (double)(sum - 131070) * sigma;
                    out[c * PIXELS + p] = (uint8_t)(std::min(std::max(v, 0.0), 255.0) + 0.5);
                }
            }
}

}  // namespace

void cg_c32(uint64_t seed, int split, int64_t first, int64_t last, const uint8_t *items, const cg_photo *photos, int64_t photo_count,
            uint8_t *out) {
    for (int64_t i = first; i < last; ++i)
        draw(seed, split, i, items + (i - first) * 784, photos, photo_count, out + (i - first) * 3 * PIXELS);
}
