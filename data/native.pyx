# sources: c32.cpp images.cpp
"""Loops of data/ that run without the GIL: random numbers, the order of a sweep, image batches, Fashion-C32."""
import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc

cdef extern from "native.h" nogil:
    void cg_philox(uint64_t k0, uint64_t k1, uint64_t c0, uint64_t c1, uint64_t c2, uint64_t c3, uint64_t *out)
    void cg_permutation(uint64_t seed, uint64_t sweep, int64_t count, int64_t start, int64_t stop, int64_t *out)
    ctypedef struct cg_image_plan:
        int64_t channels, height, width, out_height, out_width, pad
        int random_crop, random_flip, mean_is_image
        uint64_t seed, purpose
        const float *mean
        const float *scale
        const float *fill
    void cg_image_batch_u8(const cg_image_plan *plan, const uint8_t *images, const int64_t *sample, const int64_t *sweep,
                           int64_t n, float *out)
    void cg_image_batch_f4(const cg_image_plan *plan, const float *images, const int64_t *sample, const int64_t *sweep,
                           int64_t n, float *out)
    ctypedef struct cg_resize:
        int64_t channels, height, width, sc, sy, sz, out_height, out_width
        double window[4]
        int nearest, padded, flip
        float pad
    void cg_resize_u8(const cg_resize *plan, const uint8_t *x, float *out)
    void cg_resize_f4(const cg_resize *plan, const float *x, float *out)
    ctypedef struct cg_photo:
        const uint8_t *pixels
        int64_t height, width
    void cg_c32(uint64_t seed, int split, int64_t first, int64_t last, const uint8_t *items, const cg_photo *photos,
                int64_t photo_count, uint8_t *out)

__all__ = ['c32_images', 'image_batch', 'permutation', 'philox', 'random_table', 'resize']

cdef uint64_t MASK = 0xffffffffffffffff


def philox(key, counter):
    """The 4 words of Philox4x64-10 for a key of 2 and a counter of 4 words, as uint64 array (4,)."""
    out = np.empty(4, np.uint64)
    cdef uint64_t[::1] o = out
    cdef uint64_t k0 = key[0], k1 = key[1], c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3]
    cg_philox(k0, k1, c0, c1, c2, c3, &o[0])
    return out


def permutation(seed, sweep, int64_t count, int64_t start, int64_t stop):
    """Samples at places start..stop of sweep `sweep` over `count` samples, int64 (stop - start,)."""
    if not 0 <= start <= stop <= count:
        raise ValueError(f'permutation: expected 0 <= start <= stop <= {count}, got {start} and {stop}')
    out = np.empty(stop - start, np.int64)
    if start == stop:
        return out
    cdef int64_t[::1] o = out
    cdef uint64_t s = int(seed) & MASK, w = int(sweep) & MASK
    with nogil:
        cg_permutation(s, w, count, start, stop, &o[0])
    return out


def random_table(seed, purpose, const int64_t[::1] sample, const int64_t[::1] sweep, int64_t blocks):
    """Random bits (n, 4 * blocks) uint64, a function of (seed, purpose, sweep, sample) alone."""
    cdef int64_t n = sample.shape[0], i, b
    if sweep.shape[0] != n or blocks < 1:
        raise ValueError('random_table: expected as many sweeps as samples and one block or more')
    out = np.empty((n, 4 * blocks), np.uint64)
    if n == 0:
        return out
    cdef uint64_t[:, ::1] o = out
    cdef uint64_t k0 = int(seed) & MASK, k1 = int(purpose) & MASK
    with nogil:
        for i in range(n):
            for b in range(blocks):
                cg_philox(k0, k1, b + 1, sweep[i], sample[i], 0, &o[i, 4 * b])
    return out


def image_batch(images, const int64_t[::1] sample, const int64_t[::1] sweep, float[:, :, :, ::1] out, *, int64_t pad=0,
                bint random_crop=False, bint random_flip=False, const float[::1] mean, const float[::1] scale,
                const float[::1] fill, seed=0, purpose=0):
    """out[b] = (window(flip(images[sample[b]])) - mean) * scale in float32; images (N, C, H, W) uint8 or float32, C-contiguous.

    The window has out's height and width and lies inside the image padded by `pad`: in the middle, or anywhere if
    `random_crop`; outside the image the result is fill (C,). mean is (C,) or flat (C*H*W,), scale (C,).
    """
    cdef cg_image_plan plan
    cdef int64_t n = sample.shape[0], b, count = images.shape[0]
    cdef const uint8_t[:, :, :, ::1] bytes_
    cdef const float[:, :, :, ::1] floats
    plan.channels, plan.height, plan.width = images.shape[1:]
    plan.out_height, plan.out_width, plan.pad = out.shape[2], out.shape[3], pad
    plan.random_crop, plan.random_flip = random_crop, random_flip
    plan.mean_is_image = mean.shape[0] != plan.channels
    plan.seed, plan.purpose = int(seed) & MASK, int(purpose) & MASK
    if n == 0:
        return
    if pad < 0 or plan.out_height > plan.height + 2 * pad or plan.out_width > plan.width + 2 * pad:
        raise ValueError(f'image_batch: expected a window inside {plan.height} x {plan.width} with {pad} around it, '
                         f'got {plan.out_height} x {plan.out_width}')
    if out.shape[0] != n or sweep.shape[0] != n or out.shape[1] != plan.channels or scale.shape[0] != plan.channels \
            or fill.shape[0] != plan.channels \
            or (plan.mean_is_image and mean.shape[0] != plan.channels * plan.height * plan.width):
        raise ValueError('image_batch: sizes of sample, sweep, out, mean, scale and fill do not fit the images')
    for b in range(n):
        if sample[b] < 0 or sample[b] >= count:
            raise ValueError(f'image_batch: expected samples in [0, {count}), got {sample[b]}')
    plan.mean, plan.scale, plan.fill = &mean[0], &scale[0], &fill[0]
    if images.dtype == np.uint8:
        bytes_ = images
        with nogil:
            cg_image_batch_u8(&plan, &bytes_[0, 0, 0, 0], &sample[0], &sweep[0], n, &out[0, 0, 0, 0])
    else:
        floats = images
        with nogil:
            cg_image_batch_f4(&plan, &floats[0, 0, 0, 0], &sample[0], &sweep[0], n, &out[0, 0, 0, 0])


def resize(images, const double[:, ::1] windows, float[:, :, :, ::1] out, *, bint nearest=False, pad=None, flip=None):
    """out[b] = the window (top, left, height, width) of images[b], resized; images (n, C, H, W) uint8 or float32 of any strides.

    Bilinear between pixel centres, or the nearest pixel; outside an image its border, or `pad`. flip (n,): which to mirror.
    """
    cdef cg_resize plan
    cdef const uint8_t[:, :, :, :] bytes_
    cdef const float[:, :, :, :] floats
    cdef int64_t n = images.shape[0], b
    cdef uint8_t[::1] mirrored = np.ascontiguousarray(np.zeros(n, np.uint8) if flip is None else flip, np.uint8)
    cdef bint is_bytes = images.dtype == np.uint8
    if out.shape[0] != n or windows.shape[0] != n or windows.shape[1] != 4 or mirrored.shape[0] != n \
            or images.shape[1] != out.shape[1]:
        raise ValueError('resize: sizes of images, windows, flip and out do not fit')
    if n == 0 or out.shape[1] == 0 or out.shape[2] == 0 or out.shape[3] == 0:
        return
    if images.shape[2] < 1 or images.shape[3] < 1:
        raise ValueError('resize: expected images of a pixel or more')
    plan.channels, plan.height, plan.width = images.shape[1:]
    plan.sc, plan.sy, plan.sz = [s // images.itemsize for s in images.strides[1:]]
    plan.out_height, plan.out_width, plan.nearest = out.shape[2], out.shape[3], nearest
    plan.padded, plan.pad = pad is not None, 0 if pad is None else pad
    if is_bytes:
        bytes_ = images
    else:
        floats = images
    with nogil:
        for b in range(n):
            plan.window[0], plan.window[1], plan.window[2], plan.window[3] = \
                windows[b, 0], windows[b, 1], windows[b, 2], windows[b, 3]
            plan.flip = mirrored[b]
            if is_bytes:
                cg_resize_u8(&plan, &bytes_[b, 0, 0, 0], &out[b, 0, 0, 0])
            else:
                cg_resize_f4(&plan, &floats[b, 0, 0, 0], &out[b, 0, 0, 0])


def c32_images(seed, int split, int64_t first, const uint8_t[:, :, ::1] items, list photos, uint8_t[:, :, :, ::1] out):
    """Fashion-C32 images `first`, first + 1, ... of a split (0 train, 1 test) from items (n, 28, 28); out (n, 3, 32, 32)."""
    cdef int64_t n = items.shape[0], k = len(photos), i
    cdef uint64_t s = int(seed) & MASK
    cdef const uint8_t[:, :, ::1] pixels
    if items.shape[1] != 28 or items.shape[2] != 28 or out.shape[0] != n or out.shape[1] != 3 or out.shape[2] != 32 \
            or out.shape[3] != 32 or k == 0 or split not in (0, 1):
        raise ValueError('c32_images: expected items (n, 28, 28), out (n, 3, 32, 32), one photo or more, split 0 or 1')
    if n == 0:
        return
    cdef cg_photo *table = <cg_photo *> malloc(k * sizeof(cg_photo))
    if table == NULL:
        raise MemoryError
    try:
        for i in range(k):
            pixels = photos[i]
            if pixels.shape[0] < 32 or pixels.shape[1] < 107 or pixels.shape[2] != 3:
                raise ValueError('c32_images: expected photos (>= 32, >= 107, 3)')
            table[i].pixels, table[i].height, table[i].width = &pixels[0, 0, 0], pixels.shape[0], pixels.shape[1]
        with nogil:
            cg_c32(s, split, first, first + n, &items[0, 0, 0], table, k, &out[0, 0, 0, 0])
    finally:
        free(table)
