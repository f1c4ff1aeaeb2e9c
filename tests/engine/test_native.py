"""Matrix products, convolutions and pooling in plain layouts against naive NumPy: odd and empty sizes, one and two threads."""

import itertools

import numpy as np
import pytest
from engine.kernels import DTYPES, call, threads

from cogkit.engine.cpu import native

TOLERANCE = {"f4": {"rtol": 2e-5, "atol": 2e-4}, "f8": {"rtol": 1e-12, "atol": 1e-12}}

SIZES = [
    (1, 1, 1, 1),
    (1, 8, 8, 8),
    (1, 13, 33, 7),
    (1, 0, 5, 3),
    (1, 5, 0, 3),
    (1, 4, 5, 0),
    (0, 4, 5, 3),
    (3, 1, 50, 300),
    (5, 17, 9, 31),
    (2, 150, 400, 260),
    (1, 200, 100, 784),
    (1, 20, 10, 9000),
    (40, 30, 20, 70),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "m", "n", "k"), SIZES)
def test_matmul(batch, m, n, k, dtype):
    rng = np.random.default_rng(0)
    for transpose_a, transpose_b, accumulate, sum_batch in itertools.product((False, True), repeat=4):
        a = rng.standard_normal((batch, k, m) if transpose_a else (batch, m, k)).astype(dtype)
        b = rng.standard_normal((batch, n, k) if transpose_b else (batch, k, n)).astype(dtype)
        c = rng.standard_normal((m, n) if sum_batch else (batch, m, n)).astype(dtype)
        want = np.matmul(a.swapaxes(1, 2) if transpose_a else a, b.swapaxes(1, 2) if transpose_b else b, dtype=np.float64)
        want = want.sum(0) if sum_batch else want
        want = want + c if accumulate else want
        call(native.MatMul(dtype, batch, m, n, k, transpose_a, transpose_b, m * k, n * k, m * n, accumulate, sum_batch), a, b, c)
        np.testing.assert_allclose(c, want, **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul_strides(dtype):
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((20, 50)).astype(dtype), rng.standard_normal((6, 30, 40)).astype(dtype)
    c = np.zeros((6, 20, 35), dtype)
    call(
        native.MatMul(dtype, 6, 20, 33, 30, a_batch_stride=0, b_batch_stride=1200, c_batch_stride=700, lda=50, ldb=40, ldc=35),
        a,
        b,
        c,
    )
    np.testing.assert_allclose(c[..., :33], a[:, :30] @ b[..., :33], **TOLERANCE[dtype])
    assert (c[..., 33:] == 0).all()
    a, b, c = rng.standard_normal((5000, 9)).astype(dtype), rng.standard_normal((5000, 7)).astype(dtype), np.zeros((9, 12), dtype)
    call(native.MatMul(dtype, 1, 9, 7, 5000, transpose_a=True, ldc=12), a, b, c)
    np.testing.assert_allclose(c[:, :7], a.T @ b, rtol=1e-4, atol=1e-3)
    assert (c[:, 7:] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "m", "n", "k", "ldc"), [(1, 40, 10, 30, 0), (1, 3, 70, 9000, 80), (4, 13, 33, 20, 0), (1, 300, 200, 50, 0)]
)
def test_matmul_with_bias_and_relu(batch, m, n, k, ldc, dtype):
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((batch, m, k)).astype(dtype), rng.standard_normal((batch, k, n)).astype(dtype)
    bias, c = rng.standard_normal(n).astype(dtype), np.zeros((batch, m, ldc or n), dtype)
    a[0, 0, 0] = np.nan
    options = {"a_batch_stride": m * k, "b_batch_stride": k * n, "c_batch_stride": m * (ldc or n), "ldc": ldc}
    for relu in (False, True):
        call(native.MatMul(dtype, batch, m, n, k, bias=True, relu=relu, **options), a, b, bias, c)
        want = np.matmul(a, b, dtype=np.float64) + bias
        np.testing.assert_allclose(c[..., :n], np.where(want < 0, 0, want) if relu else want, **TOLERANCE[dtype])
        assert np.isnan(c[0, 0, :n]).all() and (c[..., n:] == 0).all()


def naive_forward(x, w, strides, dilation, lo, out, groups):
    """y[n, o, p] = sum x[n, c, p * stride + k * dilation - lo] w[o, c, k], one window position at a time."""
    wide, window = np.float64, w.shape[2:]
    hi = [
        max(0, (o - 1) * s + (k - 1) * d + 1 - a - p)
        for o, s, k, d, a, p in zip(out, strides, window, dilation, x.shape[2:], lo, strict=True)
    ]
    padded = np.pad(x.astype(wide), [(0, 0), (0, 0), *zip(lo, hi, strict=True)])
    y = np.zeros((x.shape[0], w.shape[0], *out), wide)
    og, cg = w.shape[0] // groups, w.shape[1]
    for at in itertools.product(*map(range, window)):
        cut = tuple(slice(a * d, a * d + (o - 1) * s + 1, s) for a, d, o, s in zip(at, dilation, out, strides, strict=True))
        for g in range(groups):
            patch = padded[(slice(None), slice(g * cg, (g + 1) * cg), *cut)]
            y[:, g * og : (g + 1) * og] += np.einsum(
                "nc...,oc->no...", patch, w[(slice(g * og, (g + 1) * og), slice(None), *at)].astype(wide)
            )
    return y


CONVOLUTIONS = [
    # N, C, O, in, window, strides, dilation, lo, hi, groups
    (2, 3, 5, (9, 8), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    (3, 16, 20, (7, 7), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1), 1),
    (2, 6, 4, (8, 9), (1, 1), (1, 1), (1, 1), (0, 0), (0, 0), 1),
    (2, 6, 4, (8, 9), (1, 1), (2, 2), (1, 1), (0, 0), (0, 0), 2),
    (1, 4, 6, (11, 10), (3, 2), (2, 3), (2, 2), (2, 0), (1, 3), 2),
    (2, 5, 5, (12, 12), (5, 5), (1, 1), (1, 1), (2, 2), (2, 2), 5),
    (2, 3, 4, (30,), (5,), (2,), (3,), (4,), (2,), 1),
    (2, 2, 3, (5, 6, 7), (2, 3, 3), (1, 2, 1), (1, 1, 2), (1, 0, 2), (0, 1, 2), 1),
    (1, 1, 1, (1, 1), (1, 1), (1, 1), (1, 1), (0, 0), (0, 0), 1),
    (1, 2, 3, (2, 2), (3, 3), (1, 1), (1, 1), (3, 3), (3, 3), 1),
    (0, 3, 4, (5, 5), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    (9, 40, 70, (12, 13), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    (20, 8, 4, (16, 16), (3, 3), (1, 1), (1, 1), (0, 0), (0, 0), 1),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(case, dtype):
    N, C, O, size, window, strides, dilation, lo, hi, groups = case
    rng = np.random.default_rng(2)
    out = tuple(
        (a + p + q - (k - 1) * d - 1) // s + 1 for a, p, q, k, d, s in zip(size, lo, hi, window, dilation, strides, strict=True)
    )
    x, w = rng.standard_normal((N, C, *size)).astype(dtype), rng.standard_normal((O, C // groups, *window)).astype(dtype)
    b, dy = rng.standard_normal(O).astype(dtype), rng.standard_normal((N, O, *out)).astype(dtype)
    shapes = (x.shape, w.shape, dy.shape, strides, dilation, lo, hi, groups)
    want = naive_forward(x, w, strides, dilation, lo, out, groups)
    y, dx, dw = np.full_like(dy, 7), np.full_like(x, 7), np.full_like(w, 7)
    call(native.Convolution("forward", dtype, *shapes), x, w, y)
    np.testing.assert_allclose(y, want, **TOLERANCE[dtype])
    call(native.Convolution("forward", dtype, *shapes, bias=True), x, w, b, y)
    want = want + b.reshape(-1, *[1] * len(size))
    np.testing.assert_allclose(y, want, **TOLERANCE[dtype])
    call(native.Convolution("forward", dtype, *shapes, bias=True, relu=True), x, w, b, y)
    np.testing.assert_allclose(y, np.maximum(want, 0), **TOLERANCE[dtype])
    call(native.Convolution("backward_data", dtype, *shapes), dy, w, dx)
    call(native.Convolution("backward_weights", dtype, *shapes), x, dy, dw)
    # the two gradients are the transposes of the forward map: <dy, conv(x', w)> = <dx, x'> and <dy, conv(x, w')> = <dw, w'>
    for _ in range(3):
        x2, w2 = rng.standard_normal(x.shape), rng.standard_normal(w.shape)
        tolerance = {"rtol": 1e-4, "atol": 1e-2} if dtype == "f4" else {"rtol": 1e-10, "atol": 1e-9}
        for grad, other, y2 in (
            (dx, x2, naive_forward(x2, w, strides, dilation, lo, out, groups)),
            (dw, w2, naive_forward(x, w2, strides, dilation, lo, out, groups)),
        ):
            np.testing.assert_allclose((grad.astype(np.float64) * other).sum(), (dy * y2).sum(), **tolerance)


POOLS = [
    # N, C, in, window, strides, lo, hi
    (2, 3, (8, 8), (2, 2), (2, 2), (0, 0), (0, 0)),
    (2, 3, (9, 7), (3, 3), (2, 2), (1, 1), (1, 1)),
    (1, 2, (9, 7), (3, 2), (1, 1), (1, 0), (1, 1)),
    (2, 2, (10,), (3,), (3,), (1,), (1,)),
    (1, 2, (4, 5, 6), (2, 3, 2), (2, 1, 2), (0, 1, 1), (1, 1, 0)),
    (3, 5, (7, 7), (7, 7), (1, 1), (0, 0), (0, 0)),
    (0, 5, (7, 7), (2, 2), (2, 2), (0, 0), (0, 0)),
    (30, 16, (16, 16), (3, 3), (2, 2), (0, 0), (1, 1)),
    (3, 32, (12, 8), (2, 2), (2, 2), (0, 0), (0, 0)),
    (1, 16, (9,), (2,), (3,), (0,), (0,)),
    (1, 16, (4, 4, 4), (2, 3, 2), (2, 1, 1), (0, 1, 0), (0, 1, 1)),
]


def c16(a):
    n, c, *size = a.shape
    return np.ascontiguousarray(np.moveaxis(a.reshape(n, c // 16, 16, *size), 2, -1))


def from_c16(a):
    n, c, *size, _ = a.shape
    return np.moveaxis(a, -1, 2).reshape(n, c * 16, *size)


LAYOUTS = {"plain": (np.ascontiguousarray, np.asarray), "c16": (c16, from_c16)}


def naive_pool(x, mode, window, strides, lo, out, dy):
    """Values and gradient, one window at a time."""
    y, dx = np.zeros(dy.shape, np.float64), np.zeros(x.shape, np.float64)
    for at in itertools.product(*map(range, out)):
        begin = [a * s - p for a, s, p in zip(at, strides, lo, strict=True)]
        cut = tuple(slice(max(b, 0), min(b + k, n)) for b, k, n in zip(begin, window, x.shape[2:], strict=True))
        inside = x[(slice(None), slice(None), *cut)]
        flat = inside.reshape(*x.shape[:2], int(np.prod(inside.shape[2:])))
        here = (slice(None), slice(None), *at)
        if mode == "max":
            y[here] = flat.max(-1)
            hot = np.arange(flat.shape[-1]) == flat.argmax(-1)[..., None]
            dx[(slice(None), slice(None), *cut)] += (hot * dy[here][..., None]).reshape(inside.shape)
        else:
            n = flat.shape[-1] if mode == "avg_exclude_pad" else np.prod(window)
            y[here] = flat.sum(-1) / n
            dx[(slice(None), slice(None), *cut)] += dy[here].reshape(*x.shape[:2], *[1] * len(out)) / n
    return y, dx


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["max", "avg_exclude_pad", "avg_include_pad"])
@pytest.mark.parametrize("case", POOLS)
def test_pooling(case, mode, dtype):
    N, C, size, window, strides, lo, hi = case
    rng = np.random.default_rng(3)
    out = tuple((a + p + q - k) // s + 1 for a, p, q, k, s in zip(size, lo, hi, window, strides, strict=True))
    for x in (rng.standard_normal((N, C, *size)).astype(dtype), rng.integers(0, 3, (N, C, *size)).astype(dtype)):
        dy = rng.standard_normal((N, C, *out)).astype(dtype)
        want_y, want_dx = naive_pool(x, mode, window, strides, lo, out, dy)
        for layout in ("plain", "c16") if C % 16 == 0 else ("plain",):
            to, back = LAYOUTS[layout]
            y, dx, like_x, like_dy = np.full_like(to(dy), 7), np.full_like(to(x), 7), to(x), to(dy)
            shapes = (x.shape, dy.shape, window, strides, lo, hi, layout)
            call(native.Pooling("forward", mode, dtype, *shapes), like_x, y)
            np.testing.assert_allclose(back(y), want_y, **TOLERANCE[dtype])
            buffers = (like_dy, like_x, dx) if mode == "max" else (like_dy, dx)
            call(native.Pooling("backward", mode, dtype, *shapes), *buffers)
            np.testing.assert_allclose(back(dx), want_dx, **TOLERANCE[dtype])
            if mode == "max":
                # picking is the transpose of the gradient
                v = rng.standard_normal(x.shape).astype(dtype)
                call(native.Pooling("pick", mode, dtype, *shapes), to(v), like_x, y)
                np.testing.assert_allclose((back(y) * dy).sum(), (want_dx * v).sum(), rtol=1e-3, atol=1e-3)
                call(native.Pooling("pick", mode, dtype, *shapes), like_x, like_x, y)
                np.testing.assert_array_equal(back(y), want_y.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_max_pooling_keeps_nan(dtype):
    x = np.array([1, np.nan, 3, 2, 5, 4], dtype)
    y, dx = np.zeros(3, dtype), np.zeros(6, dtype)
    shapes = ((1, 1, 6), (1, 1, 3), (2,), (2,), (0,), (0,))
    call(native.Pooling("forward", "max", dtype, *shapes), x, y)
    np.testing.assert_array_equal(y, [np.nan, 3, 5])
    call(native.Pooling("backward", "max", dtype, *shapes), np.array([1, 2, 3], dtype), x, dx)
    np.testing.assert_array_equal(dx, [0, 1, 2, 0, 3, 0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_the_threads_at_creation(dtype):
    rng = np.random.default_rng(4)
    x, dy = rng.standard_normal((9, 8, 20, 20)).astype(dtype), rng.standard_normal((9, 24, 20, 20)).astype(dtype)
    w = rng.standard_normal((24, 8, 3, 3)).astype(dtype)
    shapes = (x.shape, w.shape, dy.shape, (1, 1), (1, 1), (1, 1), (1, 1))
    results = []
    for n in (1, 2, 3):
        with threads(n):
            y, dx, dw, c = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(w), np.zeros((300, 200), dtype)
            call(native.Convolution("forward", dtype, *shapes), x, w, y)
            call(native.Convolution("backward_data", dtype, *shapes), dy, w, dx)
            call(native.Convolution("backward_weights", dtype, *shapes), x, dy, dw)
            a = np.resize(x, (300, 700)), np.resize(dy, (700, 200))
            call(native.MatMul(dtype, 1, 300, 200, 700), *a, c)
            results.append([r.tobytes() for r in (y, dx, dw, c)])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: native.MatMul("f2", 1, 2, 3, 4), "MatMul: expected dtype 'f4' or 'f8', got 'f2'"),
        (lambda: native.MatMul("f4", 1, 2, 3, -4), "MatMul: expected sizes >= 0, got -4"),
        (lambda: native.MatMul("f4", 1, 2, 3, 4, lda=3), "MatMul: expected rows of at least 4 elements, got 3"),
        (
            lambda: native.Convolution("sideways", "f8", (1, 2, 5), (3, 2, 1), (1, 3, 5), (1,), (1,), (0,), (0,)),
            "Convolution: expected kind 'forward', 'backward_data' or 'backward_weights', got 'sideways'",
        ),
        (
            lambda: native.Convolution("forward", "f8", (1, 2, 5), (3, 1, 1), (1, 3, 5), (1,), (1,), (0,), (0,)),
            "Convolution: expected w (out, in / groups, ...) with 3 outputs, 2 inputs and 1 groups, got (3, 1, 1)",
        ),
        (
            lambda: native.Pooling("forward", "median", "f8", (1, 2, 5), (1, 2, 5), (1,), (1,), (0,), (0,)),
            "Pooling: expected mode 'max', 'avg_exclude_pad' or 'avg_include_pad', got 'median'",
        ),
        (
            lambda: native.Pooling("forward", "max", "f8", (1, 2, 5), (1, 2, 5), (1,), (0,), (0,), (0,)),
            "Pooling: expected windows, strides and dilations >= 1, got (1), (0), (1)",
        ),
        (lambda: native.set_num_threads(0), "set_num_threads: expected at least 1, got 0"),
    ],
)
def test_wrong_use(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == message
