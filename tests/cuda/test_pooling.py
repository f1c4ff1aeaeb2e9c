"""Pooling of the CUDA engine, of images and of regions, against the reference."""

import numpy as np
import pytest
from cuda.plans import BATCH, compare, normal

FLOATS = {"f4": np.float32, "f8": np.float64}
MODES = ["max", "avg_exclude_pad", "avg_include_pad"]
FORMS = [
    ((2, 3, 7), (3,), (1,), [(0, 0)]),
    ((2, 3, 7), (3,), (2,), [(1, 2)]),
    ((2, 3, 6, 7), (2, 2), (2, 2), [(0, 0), (0, 1)]),
    ((2, 3, 6, 7), (3, 2), (1, 3), [(1, 1), (1, 0)]),
    ((2, 3, 5, 5), (2, 2), (3, 3), [(0, 0), (1, 0)]),
    ((1, 2, 4, 5, 6), (2, 3, 2), (1, 2, 2), [(0, 1), (1, 1), (0, 0)]),
    ((2, 2, 3, 3), (2, 2), (1, 1), [(2, 2), (0, 0)]),  # windows that see nothing
]


def settings(mode, window, strides, pads):
    return {"mode": mode, "window": tuple(window), "strides": tuple(strides), "pads": tuple(pads)}


def check(x, a, v=None, rows=True, dtype=np.float32):
    """Pooling of x, what goes back, and for the largest what is picked of v."""
    axes = BATCH if rows else ()
    (y,), _ = compare(lambda u: u.graph.node("pool", [u], **a), (x, axes))
    rng = np.random.default_rng(1)
    dy = normal(rng, *y.shape, dtype=dtype)
    if a["mode"] == "max":
        compare(lambda d, u, z: u.graph.node("max_pool_dx", [d, u, z], **a), (dy, axes), (x, axes), (y, axes))
        v = normal(rng, *x.shape, dtype=dtype)
        compare(lambda w, u, z: u.graph.node("max_pool_pick", [w, u, z], **a), (v, axes), (x, axes), (y, axes))
    else:
        compare(lambda d: d.graph.node("avg_pool_dx", [d], shape=x.shape[rows:], **a), (dy, axes))
    return y


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("dtype", FLOATS.values(), ids=FLOATS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", FORMS)
def test_forms(form, mode, dtype, rows):
    shape, *rest = form
    x = normal(np.random.default_rng(0), *(shape if rows else shape[1:]), dtype=dtype)
    check(x, settings(mode, *rest), rows=rows, dtype=dtype)


@pytest.mark.parametrize("form", FORMS)
def test_equal_numbers_nan_and_infinity(form):
    """The first of the largest, NaN above all, -inf no larger than what lies outside."""
    shape, *rest = form
    rng = np.random.default_rng(2)
    for values in ([0, 1], [0, 1, np.nan], [-np.inf], [-np.inf, np.inf, 0], [np.nan], [-np.inf, np.nan, 3]):
        x = rng.choice(np.array(values, np.float32), shape)
        check(x, settings("max", *rest))


def test_empty():
    for mode in MODES:
        check(np.zeros((0, 2, 4, 4), np.float32), settings(mode, (2, 2), (2, 2), [(0, 0), (0, 0)]))
        check(np.zeros((2, 0, 4, 4), np.float32), settings(mode, (2, 2), (2, 2), [(0, 0), (0, 0)]))


def test_too_many_axes():
    with pytest.raises(ValueError, match="at most three axes, got 4"):
        check(np.zeros((1, 1, 2, 2, 2, 2), np.float32), settings("max", (2,) * 4, (1,) * 4, [(0, 0)] * 4))


ROIS = np.float32(
    [[0, 0, 5, 4], [1.5, 2.5, 3.5, 4.4], [-3, -2, 20, 9], [5, 5, 1, 1], [8, 8, 9, 9], [2, 2, 2, 2], [np.nan, 0, np.inf, -np.inf]]
)


@pytest.mark.parametrize("axes", [(BATCH, BATCH), (BATCH, ()), ((), BATCH), ((), ())], ids=str)
@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("dtype", FLOATS.values(), ids=FLOATS)
def test_regions(dtype, mode, axes):
    rng = np.random.default_rng(3)
    for bins, scale, regions in (((2, 3), 1.0, ROIS), ((3, 2), 0.5, ROIS), ((1, 1), 1.0, ROIS[:1])):
        a = {"mode": mode, "bins": bins, "scale": scale}
        x = rng.integers(0, 4, (2, 2, 6, 7)).astype(dtype)  # with equal numbers
        x[0, 0, 1, 2] = np.nan
        r = np.stack([regions, regions[::-1]]).astype(dtype)
        x, r = (v if t else v[0] for v, t in zip((x, r), axes, strict=True))
        (y,), _ = compare(lambda u, v, a=a: u.graph.node("roi_pool", [u, v], **a), (x, axes[0]), (r, axes[1]))
        both = axes[0] or axes[1]
        dy = normal(rng, *y.shape, dtype=dtype)
        compare(lambda d, u, v, a=a: u.graph.node("roi_pool_dx", [d, u, v], **a), (dy, both), (x, axes[0]), (r, axes[1]))
        if mode == "max":
            for other in {axes[0], both}:
                picked = normal(rng, *((2,) if other else ()), 2, 6, 7, dtype=dtype)
                compare(
                    lambda d, u, v, a=a: u.graph.node("roi_pool_pick", [d, u, v], **a),
                    (picked, other),
                    (x, axes[0]),
                    (r, axes[1]),
                )


def test_no_regions():
    rng = np.random.default_rng(4)
    a = {"mode": "max", "bins": (2, 2), "scale": 1.0}
    for rows, regions in ((0, 3), (2, 0)):
        x, r, dy = normal(rng, rows, 2, 5, 5), normal(rng, rows, regions, 4), normal(rng, rows, regions, 2, 2, 2)
        compare(lambda u, v: u.graph.node("roi_pool", [u, v], **a), (x, BATCH), (r, BATCH))
        compare(lambda d, u, v: u.graph.node("roi_pool_dx", [d, u, v], **a), (dy, BATCH), (x, BATCH), (r, BATCH))
