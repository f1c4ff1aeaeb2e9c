// The order of a sweep, pad-crop-flip-normalise over a batch of images, and resizing.
#include <algorithm>
#include <cmath>
#include <vector>

#include "native.h"

namespace {

constexpr uint64_t ORDER = 0x6f72646572ULL;  // "order": the purpose of these numbers
constexpr int ROUNDS = 16;

inline uint64_t mix(uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    return x ^ (x >> 33);
}

template <typename T>
__attribute__((always_inline)) inline void convert(const T *x, int64_t n, const float *mean, int64_t mean_stride, float scale, float *y) {
    if (mean_stride == 0) {
        const float m = *mean;
        for (int64_t i = 0; i < n; ++i) y[i] = ((float)x[i] - m) * scale;
    } else {
        for (int64_t i = 0; i < n; ++i) y[i] = ((float)x[i] - mean[i]) * scale;
    }
}

template <typename T>
__attribute__((always_inline)) inline void image_batch(const cg_image_plan *plan, const T *images, const int64_t *sample,
                                                       const int64_t *sweep, int64_t n, float *out) {
    const int64_t C = plan->channels, H = plan->height, W = plan->width, h = plan->out_height, w = plan->out_width;
    const int64_t spare_y = H + 2 * plan->pad - h + 1, spare_x = W + 2 * plan->pad - w + 1;
    for (int64_t b = 0; b < n; ++b) {
        int64_t dy = (spare_y - 1) / 2, dx = (spare_x - 1) / 2;
        bool flip = false;
        if (plan->random_crop || plan->random_flip) {
            uint64_t r[4];
            cg_philox(plan->seed, plan->purpose, 1, (uint64_t)sweep[b], (uint64_t)sample[b], 0, r);
            if (plan->random_crop) {
                dy = cg_below(r[0], spare_y);
                dx = cg_below(r[1], spare_x);
            }
            flip = plan->random_flip && (r[2] >> 63);
        }
        dy -= plan->pad;
        dx -= plan->pad;
        const int64_t left = std::min(w, std::max<int64_t>(0, -dx)), right = std::max(left, std::min(w, W - dx));
        const T *image = images + sample[b] * C * H * W;
        for (int64_t c = 0; c < C; ++c) {
            const float fill = plan->fill[c], scale = plan->scale[c];
            for (int64_t y = 0; y < h; ++y, out += w) {
                const int64_t sy = y + dy;
                if (sy < 0 || sy >= H || left >= right) {
                    std::fill(out, out + w, fill);
                    continue;
                }
                const int64_t at = (c * H + sy) * W + left + dx;
                std::fill(out, out + left, fill);
                convert(image + at, right - left, plan->mean_is_image ? plan->mean + at : plan->mean + c, plan->mean_is_image, scale,
                        out + left);
                std::fill(out + right, out + w, fill);
                if (flip) std::reverse(out, out + w);
            }
        }
    }
}

template <typename T> inline void resize(const cg_resize *p, const T *x, float *out) {
    const int64_t h = p->height, w = p->width, H = p->out_height, W = p->out_width;
    struct Column {
        int64_t j, k;
        float f;
        bool outside;
    };
    const auto at = [&](double first, double size, int64_t n, int64_t i, int64_t most) {
        const double place = first + ((double)i + 0.5) * size / (double)n - 0.5;
        const int64_t low = (int64_t)std::floor(p->nearest ? place + 0.5 : place);
        const auto in = [&](int64_t k) { return std::min(std::max<int64_t>(k, 0), most - 1); };
        return Column{in(low), in(p->nearest ? low : low + 1), p->nearest ? 0.0f : (float)(place - (double)low),
                      place < -0.5 || place > (double)most - 0.5};
    };
    std::vector<Column> columns((size_t)W);
    for (int64_t z = 0; z < W; ++z) columns[(size_t)(p->flip ? W - 1 - z : z)] = at(p->window[1], p->window[3], W, z, w);
    for (int64_t y = 0; y < H; ++y) {
        const Column row = at(p->window[0], p->window[2], H, y, h);
        for (int64_t c = 0; c < p->channels; ++c) {
            const T *upper = x + c * p->sc + row.j * p->sy, *lower = x + c * p->sc + row.k * p->sy;
            float *to = out + (c * H + y) * W;
            for (int64_t z = 0; z < W; ++z) {
                const Column &v = columns[(size_t)z];
                const int64_t a = v.j * p->sz, b = v.k * p->sz;
                const float up = (float)upper[a] * (1 - v.f) + (float)upper[b] * v.f;
                const float down = (float)lower[a] * (1 - v.f) + (float)lower[b] * v.f;
                to[z] = p->padded && (row.outside || v.outside) ? p->pad : up * (1 - row.f) + down * row.f;
            }
        }
    }
}

}  // namespace

void cg_resize_u8(const cg_resize *plan, const uint8_t *x, float *out) { resize(plan, x, out); }
void cg_resize_f4(const cg_resize *plan, const float *x, float *out) { resize(plan, x, out); }

// An unbalanced Feistel network over the smallest power of two that holds `count` (256 at least: over fewer, the network
// reaches too few permutations), walked until it lands below `count`. No memory, and any place can be asked for.
void cg_permutation(uint64_t seed, uint64_t sweep, int64_t count, int64_t start, int64_t stop, int64_t *out) {
    uint64_t key[ROUNDS];
    for (int b = 0; b < ROUNDS / 4; ++b) cg_philox(seed, ORDER, (uint64_t)b + 1, sweep, (uint64_t)count, 0, key + 4 * b);
    int bits = 8;
    while (((int64_t)1 << bits) < count) ++bits;
    const int low_bits = bits - bits / 2;
    const uint64_t high_mask = ((uint64_t)1 << (bits / 2)) - 1, low_mask = ((uint64_t)1 << low_bits) - 1;
    for (int64_t i = start; i < stop; ++i) {
        uint64_t x = (uint64_t)i;
        do {
            uint64_t high = x >> low_bits, low = x & low_mask;
            for (int r = 0; r < ROUNDS; r += 2) {
                high ^= mix(low ^ key[r]) & high_mask;
                low ^= mix(high ^ key[r + 1]) & low_mask;
            }
            x = high << low_bits | low;
        } while (x >= (uint64_t)count);
        out[i - start] = (int64_t)x;
    }
}

CG_CLONES void cg_image_batch_u8(const cg_image_plan *plan, const uint8_t *images, const int64_t *sample, const int64_t *sweep, int64_t n,
                                 float *out) {
    image_batch(plan, images, sample, sweep, n, out);
}

CG_CLONES void cg_image_batch_f4(const cg_image_plan *plan, const float *images, const int64_t *sample, const int64_t *sweep, int64_t n,
                                 float *out) {
    image_batch(plan, images, sample, sweep, n, out);
}
