"""Pooling over regions against NumPy: random boxes in, over and beyond the image, both types, one and two threads."""

import numpy as np
import pytest
from engine.kernels import DTYPES, call

from cogkit.engine.cpu import native


def cells(first, last, k, bins, size):
    """The cells of bin k that lie in the image."""
    n = max(last - first + 1, 1)
    lo, hi = first + int(np.floor(k * n / bins)), first + int(np.ceil((k + 1) * n / bins))
    return slice(*np.clip([lo, hi], 0, size))


def bins_of(roi, scale, bins, image):
    x1, y1, x2, y2 = (int(np.trunc(v + np.copysign(0.5, v))) for v in roi.astype(np.float64) * scale)
    for i in range(bins[0]):
        for j in range(bins[1]):
            yield i, j, cells(y1, y2, i, bins[0], image[0]), cells(x1, x2, j, bins[1], image[1])


def expected(x, rois, bins, scale, mode, dy, v):
    """y, dx and v at the maxima of x."""
    y = np.zeros((*rois.shape[:2], x.shape[1], *bins))
    dx, picked = np.zeros(x.shape), np.zeros_like(y)
    for n, r in np.ndindex(rois.shape[:2]):
        for i, j, rows, columns in bins_of(rois[n, r], scale, bins, x.shape[2:]):
            for c in range(x.shape[1]):
                part = x[n, c, rows, columns]
                if not part.size:
                    continue
                if mode == "avg":
                    y[n, r, c, i, j] = part.mean(dtype=np.float64)
                    dx[n, c, rows, columns] += dy[n, r, c, i, j] / part.size
                    continue
                at = np.unravel_index(part.argmax(), part.shape)
                y[n, r, c, i, j], picked[n, r, c, i, j] = part[at], v[n, c, rows, columns][at]
                dx[n, c, rows, columns][at] += dy[n, r, c, i, j]
    return y, dx, picked


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize(
    ("rows", "regions", "image", "bins", "scale"),
    [
        (1, 1, (1, 1, 1), (1, 1), 1.0),
        (2, 5, (3, 7, 9), (3, 2), 1.0),
        (3, 4, (2, 16, 12), (7, 7), 0.25),
        (2, 40, (5, 20, 30), (2, 3), 1 / 16),
        (0, 2, (2, 3, 3), (2, 2), 1.0),
        (2, 0, (2, 3, 3), (2, 2), 1.0),
    ],
)
def test_roi_pooling(dtype, mode, rows, regions, image, bins, scale):
    rng = np.random.default_rng(7)
    c, h, w = image
    x, v = (rng.integers(-4, 5, (rows, *image)).astype(dtype) for _ in range(2))  # with ties
    span = np.array([w, h, w, h]) / scale
    rois = (rng.uniform(-0.4, 1.4, (rows, regions, 4)) * span).astype(dtype)
    dy = rng.integers(-8, 9, (rows, regions, c, *bins)).astype(dtype)
    y, dx, picked = expected(x, rois, bins, scale, mode, dy, v)
    args = (mode, dtype, rows, regions, image, bins, scale)
    out, back = np.full(y.shape, 9, dtype), np.full(x.shape, 9, dtype)
    call(native.RoiPooling("forward", *args), x, rois, out)
    np.testing.assert_allclose(out, y, rtol=1e-6, atol=1e-6)
    call(native.RoiPooling("backward", *args), dy, x, rois, back)
    np.testing.assert_allclose(back, dx, rtol=1e-5, atol=1e-5)
    if mode == "max":
        call(native.RoiPooling("pick", *args), v, x, rois, out)
        np.testing.assert_array_equal(out, picked)


def test_one_image_for_all_rows_and_regions_that_are_no_numbers():
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    rois = np.array([[[0, 0, 3, 2]], [[np.nan, 0, np.inf, 2]]], np.float32)
    y = np.zeros((2, 1, 1, 1, 2), np.float32)
    call(native.RoiPooling("forward", "max", "f4", 2, 1, (1, 3, 4), (1, 2), 1.0, x_rows=False), x, rois, y)
    np.testing.assert_array_equal(y.ravel(), [9, 11, 11, 0])  # NaN is 0; no cell of the second half is in the image


def test_nan_is_above_everything():
    x, rois, y = np.array([1, np.nan, 3, 2], np.float64), np.array([0, 0, 1, 1], np.float64), np.zeros(1)
    call(native.RoiPooling("forward", "max", "f8", 1, 1, (1, 2, 2), (1, 1), 1.0), x, rois, y)
    assert np.isnan(y[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: native.RoiPooling("forward", "min", "f4", 1, 1, (1, 2, 2), (1, 1), 1.0),
            "RoiPooling: expected mode 'max' or 'avg', got 'min'",
        ),
        (
            lambda: native.RoiPooling("pick", "avg", "f4", 1, 1, (1, 2, 2), (1, 1), 1.0),
            "RoiPooling: expected kind 'forward', 'backward' or (of 'max') 'pick', got 'pick'",
        ),
        (
            lambda: native.RoiPooling("forward", "max", "f4", 1, 1, (1, 2, 2), (0, 1), 1.0),
            "RoiPooling: expected at least one bin an axis, got 0 and 1",
        ),
        (
            lambda: native.RoiPooling("forward", "max", "f4", 1, 1, (1, -2, 2), (1, 1), 1.0),
            "RoiPooling: expected sizes >= 0, got -2",
        ),
    ],
)
def test_wrong_use(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == message
