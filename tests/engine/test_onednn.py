"""oneDNN's kernels against naive NumPy: values, layouts, odd and empty sizes, one and two threads, wrong arguments."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

onednn = pytest.importorskip("cogkit.engine.cpu.onednn")

F4 = np.float32


@pytest.fixture(autouse=True)
def one_thread():
    """One thread unless a test says otherwise: on a busy machine two threads wait for each other."""
    before = onednn.get_num_threads()
    onednn.set_num_threads(1)
    yield
    onednn.set_num_threads(before)


def aligned(size, offset=0):
    """A float32 vector that starts `offset` floats after a multiple of 64 bytes."""
    raw = np.zeros(size + 16 + offset, F4)
    skip = (-raw.ctypes.data // 4) % 16 + offset
    return raw[skip : skip + size]


def place(array, offset=0):
    """A copy of the array's bytes at a 64-byte boundary plus `offset` floats."""
    flat = aligned(array.size, offset)
    flat[:] = array.ravel()
    return flat


def call(k, buffers):
    """Bind flat buffers (and scratch full of NaN), run."""
    scratch = aligned(k.scratch // 4 + 16)
    scratch[:] = np.nan
    addresses = [b.ctypes.data for b in buffers] + ([scratch.ctypes.data] if k.scratch else [])
    assert k.nbuf == len(addresses)
    k.set_buffers(addresses)
    k.run()


def to_layout(a, layout):
    if layout == "last":
        return np.moveaxis(a, 1, -1)
    if layout == "c16":
        n, c, *s = a.shape
        return np.moveaxis(a.reshape(n, c // 16, 16, *s), 2, -1)
    return a


def from_layout(flat, shape, layout):
    n, c, *s = shape
    if layout == "last":
        return np.moveaxis(flat.reshape(n, *s, c), -1, 1)
    if layout == "c16":
        return np.moveaxis(flat.reshape(n, c // 16, *s, 16), -1, 2).reshape(shape)
    return flat.reshape(shape)


def out_size(x, k, stride, dilation, lo, hi):
    return tuple((a + p + q - (b - 1) * d - 1) // s + 1 for a, b, s, d, p, q in zip(x, k, stride, dilation, lo, hi, strict=True))


def padded(x, lo, hi, value=0.0):
    return np.pad(x, [(0, 0), (0, 0), *zip(lo, hi, strict=True)], constant_values=value)


def taps(k, y, stride, dilation):
    """For each kernel tap: its index and the slices of the padded input that it meets."""
    for tap in itertools.product(*map(range, k)):
        yield tap, tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, n, s, d in zip(tap, y, stride, dilation, strict=True))


def naive_conv(x, w, dy, stride, dilation, lo, hi, groups):
    """(y, dx, dw) in float64, for y without a bias and the gradient dy."""
    x, w, dy = x.astype(float), w.astype(float), dy.astype(float)
    n, c = x.shape[:2]
    o, spatial = dy.shape[1], dy.shape[2:]
    sums = (0, *range(2, dy.ndim))
    px = padded(x, lo, hi)
    y, dpx, dw = np.zeros(dy.shape), np.zeros(px.shape), np.zeros(w.shape)
    for g in range(groups):
        ci, oi = slice(g * c // groups, (g + 1) * c // groups), slice(g * o // groups, (g + 1) * o // groups)
        for tap, s in taps(w.shape[2:], spatial, stride, dilation):
            part = px[(slice(None), ci, *s)]
            wt = w[(oi, slice(None), *tap)]
            y[:, oi] += np.moveaxis(np.tensordot(wt, part, (1, 1)), 0, 1)
            dpx[(slice(None), ci, *s)] += np.moveaxis(np.tensordot(wt, dy[:, oi], (0, 1)), 0, 1)
            dw[(oi, slice(None), *tap)] = np.tensordot(dy[:, oi], part, (sums, sums))
    inner = tuple(slice(p, p + a) for p, a in zip(lo, x.shape[2:], strict=True))
    return y, dpx[(slice(None), slice(None), *inner)], dw


# x, (out, kernel), stride, dilation, pad_lo, pad_hi, groups
CONVOLUTIONS = {
    "2d": ((2, 3, 7, 6), (5, (3, 3)), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    "c16": ((2, 16, 8, 8), (32, (3, 3)), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    "stride": ((3, 32, 9, 8), (16, (3, 3)), (2, 2), (1, 1), (1, 0), (1, 1), 1),
    "1x1 stride": ((2, 16, 8, 7), (32, (1, 1)), (2, 2), (1, 1), (0, 0), (0, 0), 1),
    "uneven": ((1, 16, 11, 5), (16, (4, 2)), (3, 1), (1, 1), (2, 0), (1, 1), 1),
    "loose": ((2, 4, 10, 10), (3, (3, 3)), (4, 3), (1, 1), (0, 0), (0, 0), 1),
    "dilated": ((2, 16, 9, 9), (16, (3, 3)), (1, 1), (2, 3), (2, 3), (2, 3), 1),
    "groups": ((2, 6, 5, 5), (4, (3, 3)), (1, 1), (1, 1), (1, 1), (1, 1), 2),
    "groups c16": ((2, 32, 6, 6), (64, (3, 3)), (1, 1), (1, 1), (1, 1), (1, 1), 2),
    "depthwise": ((2, 32, 7, 7), (32, (3, 3)), (1, 1), (1, 1), (1, 1), (1, 1), 32),
    "first": ((4, 1, 12, 12), (16, (5, 5)), (1, 1), (1, 1), (2, 2), (2, 2), 1),
    "colour": ((2, 3, 16, 16), (16, (3, 3)), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    "one": ((1, 1, 1, 1), (1, (1, 1)), (1, 1), (1, 1), (0, 0), (0, 0), 1),
    "odd": ((1, 7, 13, 3), (9, (3, 3)), (2, 1), (1, 1), (1, 1), (1, 1), 1),
    "1d": ((3, 16, 17), (16, (5,)), (2,), (1,), (2,), (1,), 1),
    "1d odd": ((2, 5, 9), (3, (3,)), (1,), (2,), (0,), (0,), 1),
    "3d": ((2, 3, 4, 5, 6), (4, (2, 3, 3)), (1, 2, 1), (1, 1, 1), (0, 1, 1), (1, 1, 1), 1),
    "3d c16": ((1, 16, 4, 5, 6), (16, (3, 3, 3)), (1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
}


def layouts(c):
    return ("plain", "last", "c16") if c % 16 == 0 else ("plain", "last")


def conv_rows():
    for name, (x, (o, _), *_rest) in CONVOLUTIONS.items():
        for lx, ly in itertools.product(layouts(x[1]), layouts(o)):
            yield pytest.param(name, lx, ly, id=f"{name}-{lx}-{ly}")


@pytest.mark.parametrize(("name", "lx", "ly"), list(conv_rows()))
def test_convolution(name, lx, ly):
    onednn.set_num_threads(2 if lx == ly else 1)
    xs, (o, k), stride, dilation, lo, hi, groups = CONVOLUTIONS[name]
    ws = (o, xs[1] // groups, *k)
    ys = (xs[0], o, *out_size(xs[2:], k, stride, dilation, lo, hi))
    r = np.random.default_rng(0)
    x, w, dy, b, old = (r.standard_normal(s).astype(F4) for s in (xs, ws, ys, (o,), ys))
    y, dx, dw = naive_conv(x, w, dy, stride, dilation, lo, hi, groups)
    bias = b.reshape(1, o, *(1 for _ in k))
    common = xs, ws, ys, stride, dilation, lo, hi, groups, lx, ly
    close = dict(rtol=2e-5, atol=2e-5 * np.sqrt(dw.size))
    fx, fw, fb, fdy = place(to_layout(x, lx), 1), place(w, 1), place(b, 3), place(to_layout(dy, ly), 5)

    out = aligned(y.size, 1)
    call(onednn.Convolution("forward", *common), [fx, fw, out])
    np.testing.assert_allclose(from_layout(out, ys, ly), y, **close)

    k1 = onednn.Convolution("forward", *common, bias=True, relu=True)
    call(k1, [fx, fw, fb, out])
    np.testing.assert_allclose(from_layout(out, ys, ly), np.maximum(y + bias, 0), **close)
    assert k1.flops == 2 * y.size * w[0].size

    out = place(to_layout(old, ly))
    call(onednn.Convolution("forward", *common, sum=True), [fx, fw, out])
    np.testing.assert_allclose(from_layout(out, ys, ly), y + old, **close)

    out = aligned(x.size, 3)
    out[:] = np.nan
    call(onednn.Convolution("backward_data", *common), [fdy, fw, out])
    np.testing.assert_allclose(from_layout(out, xs, lx), dx, **close)
    call(onednn.Convolution("backward_data", *common, sum=True), [fdy, fw, out])
    np.testing.assert_allclose(from_layout(out, xs, lx), 2 * dx, **close)

    out, db = aligned(w.size, 5), aligned(o, 1)
    out[:] = np.nan
    call(onednn.Convolution("backward_weights", *common), [fx, fdy, out])
    np.testing.assert_allclose(out.reshape(ws), dw, **close)
    call(onednn.Convolution("backward_weights", *common, bias=True), [fx, fdy, out, db])
    np.testing.assert_allclose(out.reshape(ws), dw, **close)
    np.testing.assert_allclose(db, dy.sum(axis=(0, *range(2, dy.ndim)), dtype=float), **close)
    call(onednn.Convolution("backward_weights", *common, bias=True, sum=True), [fx, fdy, out, db])
    np.testing.assert_allclose(out.reshape(ws), 2 * dw, **close)


# x, out channels, pad_lo, pad_hi
WINOGRAD = {
    "same": ((2, 16, 8, 8), 16, (1, 1), (1, 1)),
    "odd": ((3, 32, 7, 9), 48, (1, 1), (1, 1)),
    "valid": ((2, 48, 6, 11), 80, (0, 0), (0, 0)),
    "full": ((1, 16, 5, 6), 144, (2, 2), (2, 2)),
    "uneven": ((2, 80, 13, 4), 16, (2, 0), (0, 1)),
    "wide": ((1, 16, 3, 70), 64, (1, 1), (1, 1)),
    "one pixel": ((2, 16, 1, 1), 32, (1, 1), (1, 1)),
    "one window": ((1, 16, 3, 3), 16, (0, 0), (0, 0)),
    "long": ((20, 64, 12, 12), 32, (1, 1), (1, 1)),
    "many channels": ((9, 256, 8, 8), 128, (1, 1), (1, 1)),
}


@pytest.mark.parametrize("name", WINOGRAD)
def test_winograd(name):
    if "avx512" not in onednn.isa():
        pytest.skip("needs AVX-512")
    xs, o, lo, hi = WINOGRAD[name]
    ws = (o, xs[1], 3, 3)
    ys = (xs[0], o, *out_size(xs[2:], (3, 3), (1, 1), (1, 1), lo, hi))
    r = np.random.default_rng(0)
    x, w, dy, b, old = (r.standard_normal(s).astype(F4) for s in (xs, ws, ys, (o,), ys))
    y, dx, dw = naive_conv(x, w, dy, (1, 1), (1, 1), lo, hi, 1)
    fx, fw, fb, fdy = place(to_layout(x, "c16"), 1), place(w, 1), place(b, 3), place(to_layout(dy, "c16"), 5)
    geometry = xs, ws, ys, (1, 1), (1, 1), lo, hi, 1, "c16", "c16"

    def check(kind, buffers, start, want, shape, layout="c16", db=None, **options):
        """The value, on the scale of the largest; the same bits on one thread and on three."""
        bits = []
        for threads in (1, 3):
            onednn.set_num_threads(threads)
            out, out_b = place(start, 1), aligned(o, 1)
            k = onednn.Convolution(kind, *geometry, algorithm="winograd", **options)
            assert k.implementation.startswith("winograd")
            call(k, [*buffers, out] if db is None else [*buffers, out, out_b])
            bits.append((out.copy(), out_b.copy()))
        np.testing.assert_array_equal(bits[0][0], bits[1][0])
        np.testing.assert_array_equal(bits[0][1], bits[1][1])
        np.testing.assert_allclose(from_layout(bits[0][0], shape, layout), want, rtol=0, atol=2e-5 * np.abs(want).max())
        if db is not None:
            np.testing.assert_allclose(bits[0][1], db, rtol=1e-5, atol=1e-5 * np.abs(db).max())

    bias, none, fold = b.reshape(1, o, 1, 1), np.full(ys, np.nan, F4), to_layout(old, "c16")
    check("forward", [fx, fw], none, y, ys)
    check("forward", [fx, fw, fb], none, np.maximum(y + bias, 0), ys, bias=True, relu=True)
    check("forward", [fx, fw, fb], fold, np.maximum(y + bias + old, 0), ys, bias=True, relu=True, sum=True)
    check("backward_data", [fdy, fw], np.full(xs, np.nan, F4), dx, xs)
    check("backward_data", [fdy, fw], np.ones(xs, F4), dx + 1, xs, sum=True)
    check("backward_weights", [fx, fdy], np.full(ws, np.nan, F4), dw, ws, "plain")
    db = dy.sum(axis=(0, 2, 3), dtype=float)
    check("backward_weights", [fx, fdy], np.ones(ws, F4), dw + 1, ws, "plain", bias=True, sum=True, db=db)


def test_winograd_is_chosen():
    """By shape: 3x3, stride 1, both sides c16, tiles that fit."""
    if "avx512" not in onednn.isa():
        pytest.skip("needs AVX-512")

    def chosen(x, o, stride=(1, 1), k=3, layout="c16"):
        y = (x[0], o, *out_size(x[2:], (k, k), stride, (1, 1), (1, 1), (1, 1)))
        made = onednn.Convolution("forward", x, (o, x[1], k, k), y, stride, (1, 1), (1, 1), (1, 1), 1, layout, layout)
        return made.implementation.startswith("winograd")

    assert chosen((128, 16, 32, 32), 16)
    assert chosen((32, 256, 8, 8), 256)
    assert not chosen((128, 16, 32, 32), 32, stride=(2, 2))
    assert not chosen((128, 16, 32, 32), 16, k=1)
    assert not chosen((128, 16, 32, 32), 16, layout="plain")
    assert not chosen((128, 64, 1, 1), 64)
    assert not chosen((1, 64, 8, 8), 64)


def test_convolution_of_nothing():
    common = (0, 4, 5, 5), (3, 4, 3, 3), (0, 3, 3, 3), (1, 1), (1, 1), (0, 0), (0, 0)
    x = aligned(16)
    call(onednn.Convolution("forward", *common), [x, aligned(108), aligned(16)])
    dw = aligned(108)
    dw[:] = 7
    call(onednn.Convolution("backward_weights", *common), [x, x, dw])
    assert not dw.any()


MATRICES = [
    (1, 1, 1), (3, 5, 7), (64, 10, 512), (98, 64, 16), (1, 33, 65), (17, 1, 9), (16, 48, 32), (130, 70, 96), (5, 0, 3), (4, 6, 0),
    (96, 512, 64), (64, 784, 512), (7, 100, 300), (256, 256, 256),
]  # fmt: skip


@pytest.mark.parametrize("mnk", MATRICES, ids=str)
@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_matmul(mnk, ta, tb):
    m, n, k = mnk
    r = np.random.default_rng(1)
    a, b, bias, old = (r.standard_normal(s).astype(F4) for s in ((m, k), (k, n), (n,), (m, n)))
    fa, fb, fbias = place(a.T if ta else a, 1), place(b.T if tb else b, 3), place(bias, 1)
    want = a.astype(float) @ b.astype(float)
    close = dict(rtol=1e-5, atol=2e-5 * np.sqrt(k + 1))
    for options, value in (
        ({}, want),
        ({"bias": True}, want + bias),
        ({"bias": True, "relu": True}, np.maximum(want + bias, 0)),
        ({"sum": True}, want + old),
        ({"sum": True, "bias": True, "relu": True}, np.maximum(want + bias + old, 0)),
    ):
        for offset in (0, 1):
            c = place(old if "sum" in options else np.full_like(old, np.nan), offset)
            operands = [fa, fb, fbias, c] if "bias" in options else [fa, fb, c]
            call(onednn.MatMul(m, n, k, transpose_a=ta, transpose_b=tb, **options), operands)
            np.testing.assert_allclose(c.reshape(m, n), value, **close)


@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
@pytest.mark.parametrize("broadcast", ["", "a", "b"])
def test_batched_matmul(ta, tb, broadcast):
    z, m, n, k = 3, 5, 20, 9
    r = np.random.default_rng(2)
    a, b = (r.standard_normal(s).astype(F4) for s in ((1 if broadcast == "a" else z, m, k), (1 if broadcast == "b" else z, k, n)))
    c, bias = aligned(z * m * n), place(r.standard_normal(n).astype(F4))
    options = {f"batch_{broadcast}": 0} if broadcast else {}
    k1 = onednn.MatMul(m, n, k, batch=z, transpose_a=ta, transpose_b=tb, bias=True, **options)
    call(k1, [place(a.swapaxes(1, 2) if ta else a), place(b.swapaxes(1, 2) if tb else b), bias, c])
    np.testing.assert_allclose(c.reshape(z, m, n), a.astype(float) @ b + bias, rtol=1e-5, atol=1e-5)
    assert k1.flops == 2 * z * m * n * k


def test_matmul_with_row_strides():
    r = np.random.default_rng(3)
    a, b, c = (r.standard_normal(s).astype(F4) for s in ((6, 40), (30, 50), (6, 64)))
    fa, fb, fc = place(a), place(b), place(c)
    call(onednn.MatMul(6, 20, 30, lda=40, ldb=50, ldc=64), [fa, fb, fc])
    c[:, :20] = a[:, :30] @ b[:, :20]
    np.testing.assert_allclose(fc.reshape(6, 64), c, rtol=1e-5, atol=1e-5)


# x, window, stride, pad_lo, pad_hi
POOLS = {
    "2d": ((2, 16, 8, 8), (2, 2), (2, 2), (0, 0), (0, 0)),
    "overlap": ((2, 32, 9, 7), (3, 3), (2, 2), (1, 1), (1, 1)),
    "uneven": ((1, 3, 7, 10), (3, 2), (2, 1), (1, 0), (0, 1)),
    "loose": ((3, 5, 8, 9), (3, 3), (3, 4), (0, 0), (0, 0)),
    "global": ((2, 64, 8, 8), (8, 8), (1, 1), (0, 0), (0, 0)),
    "1d": ((2, 16, 11), (3,), (2,), (1,), (1,)),
    "3d": ((1, 16, 4, 5, 6), (2, 2, 3), (2, 1, 2), (0, 1, 0), (0, 0, 1)),
}


def naive_pool(x, dy, mode, window, stride, lo, hi):
    """(y, dx); the first maximum in row-major order of the window takes the gradient."""
    n, c, *spatial = x.shape
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for at in itertools.product(*map(range, dy.shape[2:])):
        start = [i * s - p for i, s, p in zip(at, stride, lo, strict=True)]
        inside = tuple(slice(max(0, a), min(a + w, size)) for a, w, size in zip(start, window, spatial, strict=True))
        part = x[(slice(None), slice(None), *inside)]
        flat = part.reshape(n, c, -1)
        target = dx[(slice(None), slice(None), *inside)]
        g = dy[(slice(None), slice(None), *at)]
        if mode == "max":
            y[(slice(None), slice(None), *at)] = flat.max(-1)
            first = np.eye(flat.shape[-1])[flat.argmax(-1)].reshape(part.shape)
            target += first * g.reshape(n, c, *(1 for _ in spatial))
        else:
            count = flat.shape[-1] if mode == "avg_exclude_pad" else int(np.prod(window))
            y[(slice(None), slice(None), *at)] = flat.sum(-1) / count
            target += (g / count).reshape(n, c, *(1 for _ in spatial))
    return y, dx


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("mode", ["max", "avg_exclude_pad", "avg_include_pad"])
@pytest.mark.parametrize("ties", [False, True])
def test_pooling(name, mode, ties):
    xs, window, stride, lo, hi = POOLS[name]
    ys = (*xs[:2], *out_size(xs[2:], window, stride, [1] * len(window), lo, hi))
    r = np.random.default_rng(4)
    x = (r.integers(-2, 1, xs) if ties else r.standard_normal(xs)).astype(F4)
    dy = r.standard_normal(ys).astype(F4)
    y, dx = naive_pool(x, dy, mode, window, stride, lo, hi)
    for layout in layouts(xs[1]):
        common = mode, xs, ys, window, stride, lo, hi, layout
        fx, fdy = place(to_layout(x, layout), 1), place(to_layout(dy, layout), 1)
        out, grad = aligned(y.size), aligned(x.size)
        out[:] = grad[:] = np.nan
        call(onednn.Pooling("forward", *common), [fx, out])
        np.testing.assert_allclose(from_layout(out, ys, layout), y, rtol=1e-5, atol=1e-5)
        k = onednn.Pooling("forward", *common, keep_workspace=mode == "max")
        back = onednn.Pooling("backward", *common)
        assert back.workspace == k.workspace and (k.workspace > 0) == (mode == "max")
        ws = [aligned(k.workspace // 4 + 16)] if mode == "max" else []
        call(k, [fx, out, *ws])
        np.testing.assert_allclose(from_layout(out, ys, layout), y, rtol=1e-5, atol=1e-5)
        call(back, [fdy, *ws, grad])
        np.testing.assert_allclose(from_layout(grad, xs, layout), dx, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 16, 3, 5), (1, 48, 7), (3, 32, 2, 3, 4), (2, 16), (0, 16, 2, 2)], ids=str)
def test_reorder(shape):
    x = np.arange(np.prod(shape), dtype=F4).reshape(shape)
    for a, b in itertools.product(("plain", "c16", "last"), repeat=2):
        out = aligned(x.size)
        call(onednn.Reorder(shape, a, b), [place(to_layout(x, a), 1), out])
        np.testing.assert_array_equal(from_layout(out, shape, b), x)


def both_threads(make, buffers, out):
    results = []
    for n in (1, 2):
        onednn.set_num_threads(n)
        k = make()
        assert k.threads == n
        call(k, [*buffers, out])
        results.append(out.copy())
        out[:] = np.nan
        call(k, [*buffers, out])
        np.testing.assert_array_equal(out, results[-1])  # the same bits again
    return results


@pytest.mark.parametrize("kind", ["forward", "backward_data", "backward_weights"])
@pytest.mark.parametrize("layout", ["plain", "c16", "last"])
def test_one_thread_is_two(kind, layout):
    xs, ws, ys = (4, 32, 14, 14), (32, 32, 3, 3), (4, 32, 14, 14)
    r = np.random.default_rng(5)
    x, w, y = (place(r.standard_normal(s).astype(F4)) for s in (xs, ws, ys))
    buffers, size = {"forward": ([x, w], y.size), "backward_data": ([y, w], x.size), "backward_weights": ([x, y], w.size)}[kind]
    one, two = both_threads(
        lambda: onednn.Convolution(kind, xs, ws, ys, (1, 1), (1, 1), (1, 1), (1, 1), 1, layout, layout), buffers, aligned(size)
    )
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("mnk", [(64, 512, 784), (784, 512, 64), (200, 300, 400), (16, 2048, 512)], ids=str)
@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_one_thread_is_two_for_products(mnk, ta, tb):
    m, n, k = mnk
    r = np.random.default_rng(6)
    a, b = r.standard_normal(m * k).astype(F4), r.standard_normal(k * n).astype(F4)
    one, two = both_threads(lambda: onednn.MatMul(m, n, k, transpose_a=ta, transpose_b=tb), [place(a), place(b)], aligned(m * n))
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-3)
    want = (a.reshape(k, m).T if ta else a.reshape(m, k)).astype(float) @ (b.reshape(n, k).T if tb else b.reshape(k, n))
    np.testing.assert_allclose(one.reshape(m, n), want, rtol=1e-4, atol=1e-3)


ONES, NONE = (1, 1), (0, 0)
CONV = dict(kind="forward", x_shape=(1, 4, 5, 5), w_shape=(2, 4, 3, 3), y_shape=(1, 2, 3, 3), strides=ONES, dilation=ONES)
CONV |= dict(pad_lo=NONE, pad_hi=NONE)
POOL = dict(kind="forward", mode="max", x_shape=(1, 4, 5, 5), y_shape=(1, 4, 4, 4), window=(2, 2), strides=ONES)
POOL |= dict(pad_lo=NONE, pad_hi=NONE)
PRODUCT = dict(M=2, N=3, K=4)
REORDER = dict(shape=(1, 4, 5), from_layout="plain", to_layout="last")
LENGTHS = "strides, dilation, pad_lo and pad_hi must have one entry for each of the 2 spatial dimensions"
WRONG = [
    (CONV, dict(kind="sideways"), "kind must be one of 'forward', 'backward_data', 'backward_weights', got 'sideways'"),
    (CONV, dict(dtype="f8"), "oneDNN computes in 'f4' only, got dtype 'f8'"),
    (CONV, dict(x_layout="c8"), "x_layout must be one of 'plain', 'c16', 'last', got 'c8'"),
    (CONV, dict(x_layout="c16"), "layout 'c16' needs channels that divide by 16, got shape (1, 4, 5, 5)"),
    (CONV, dict(groups=3), "groups = 3 must divide the channels of x (1, 4, 5, 5) and of w (2, 4, 3, 3)"),
    (CONV, dict(w_shape=(2, 3, 3, 3)), "w (2, 3, 3, 3) with 1 groups wants 3 channels, x has shape (1, 4, 5, 5)"),
    (CONV, dict(y_shape=(1, 2, 4, 3)), "spatial dimension 0 of y must be 3, got y of shape (1, 2, 4, 3)"),
    (CONV, dict(y_shape=(2, 2, 3, 3)), "y must start with (1, 2), got (2, 2, 3, 3)"),
    (CONV, dict(y_shape=(1, 2, 3)), "x, w and y must have the same rank, got (1, 4, 5, 5), (2, 4, 3, 3) and (1, 2, 3)"),
    (CONV, dict(strides=(0, 1)), "strides and dilation start at 1, got (0, 1) and (1, 1)"),
    (CONV, dict(pad_lo=(-1, 0)), "padding cannot be negative, got (-1, 0) and (0, 0)"),
    (CONV, dict(strides=(1,)), LENGTHS),
    (CONV, dict(algorithm="fft"), "algorithm must be one of 'auto', 'direct', 'winograd', got 'fft'"),
    (
        CONV,
        dict(algorithm="winograd"),
        "algorithm 'winograd' takes 2-D 3x3 kernels with stride 1, without dilation or groups, in layout 'c16', on AVX-512",
    ),
    (CONV, dict(kind="backward_data", relu=True), "relu can only be fused into a forward convolution"),
    (CONV, dict(kind="backward_data", bias=True), "backward_data takes no bias"),
    (PRODUCT, dict(M=-1), "the dimensions of a matrix product cannot be negative, got batch, m, n, k = (1, -1, 3, 4)"),
    (PRODUCT, dict(lda=3), "a row stride is shorter than its row: lda, ldb, ldc = (3, 3, 3) for rows of (4, 3, 3)"),
    (POOL, dict(mode="median"), "mode must be one of 'max', 'avg_exclude_pad', 'avg_include_pad', got 'median'"),
    (POOL, dict(y_shape=(1, 4, 5, 4)), "spatial dimension 0 of y must be 4, got y of shape (1, 4, 5, 4)"),
    (POOL, dict(pad_lo=(2, 0), y_shape=(1, 4, 6, 4)), "padding (2, 0) leaves a window of (2, 2) empty"),
    (POOL, dict(x_shape=(1, 4)), "pooling takes 1 to 3 spatial dimensions, got x of shape (1, 4)"),
    (REORDER, dict(shape=(4,)), "a reorder takes 2 to 5 dimensions, got (4,)"),
]


@pytest.mark.parametrize(("good", "change", "message"), WRONG, ids=[w[2][:40] for w in WRONG])
def test_wrong_arguments(good, change, message):
    family = {id(CONV): "Convolution", id(PRODUCT): "MatMul", id(POOL): "Pooling", id(REORDER): "Reorder"}[id(good)]
    make = getattr(onednn, family)
    make(**good)
    with pytest.raises(ValueError) as error:
        make(**{**good, **change})
    assert str(error.value) == message


def test_wrong_number_of_buffers():
    k = onednn.Reorder((1, 16, 2), "plain", "c16")
    with pytest.raises(ValueError, match="expected 2 buffer addresses, got 1"):
        k.set_buffers([64])


def test_library():
    assert onednn.version() == "3.2.0"
    assert onednn.get_num_threads() >= 1
    assert onednn.native_layout() == ("c16" if "avx512" in onednn.isa() else "last")
    with pytest.raises(ValueError, match="the number of threads starts at 1, got 0"):
        onednn.set_num_threads(0)


def test_without_avx512():
    """The same answers on a machine that has AVX2 only."""
    chosen = "(test_pooling and overlap) or (test_convolution and (c16-c16 or colour)) or (test_matmul and True-False)"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", f"({chosen}) and not without"],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
