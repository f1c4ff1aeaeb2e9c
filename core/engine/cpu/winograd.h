/* 3x3 convolutions with stride 1 in the layout c16 by Winograd's minimal filtering F(4x4, 3x3): 36 multiplications where the
 * direct sum needs 144. AVX-512 only. Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. */
#ifndef COGKIT_WINOGRAD_H
#define COGKIT_WINOGRAD_H

#include <cstddef>
#include <cstdint>

namespace cg {

struct Winograd {
    int kind; /* 0 forward, 1 backward_data, 2 backward_weights */
    int64_t n, c, h, w; /* the image that is read: x, or dy for backward_data */
    int64_t o, oh, ow;  /* the image that is written, or dy for backward_weights */
    int64_t pad_top, pad_left;
    bool bias, relu, sum;
    int threads;

    int64_t rows, cols;           /* tiles in one image */
    int64_t strip, strips;        /* rows of tiles worked on at a time, number of such strips */
    int64_t chunks;               /* backward_weights: partial sums, 0: one sum that all threads work on */
    int64_t plane_v, plane_m;     /* floats between two of the 36 planes of a strip */
    int64_t at_u, at_v, at_m;     /* floats into scratch */
    int64_t per_thread;

    size_t plan();                /* fills the second half; returns bytes of scratch */
    void forward(const float *x, const float *w, const float *b, float *y, float *scratch) const; /* and backward_data */
    void backward_weights(const float *x, const float *dy, float *dw, float *db, float *scratch) const;
};

} // namespace cg

#endif
