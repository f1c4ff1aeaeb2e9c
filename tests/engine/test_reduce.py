"""Moments, log-sum-exp, indices of extrema and top-k against NumPy: fuzzed strides, odd and empty sizes, one and two threads."""

import numpy as np
import pytest
from engine.kernels import DTYPES, call, strides_of

from cogkit.engine.cpu import reduce

INF = np.inf


def out_strides_of(shape, axes):
    """Strides of a C-contiguous output with the reduced axes left out (0)."""
    strides, n = [0] * len(shape), 1
    for i in reversed(range(len(shape))):
        if i not in axes:
            strides[i] = n
            n *= shape[i]
    return strides, n


def moments(x, axes):
    out_strides, n = out_strides_of(x.shape, axes)
    dtype = x.dtype.str[1:]
    mean, var = np.full(n, 7, dtype), np.full(n, 7, dtype)
    call(reduce.Moments(x.shape, strides_of(x), out_strides, dtype), x, mean, var)
    return mean, var


def log_sum_exp(x, axes):
    out_strides, n = out_strides_of(x.shape, axes)
    y = np.full(n, 7, x.dtype)
    call(reduce.LogSumExp(x.shape, strides_of(x), out_strides, x.dtype.str[1:]), x, y)
    return y


CASES = [
    ((), ()),
    ((5,), ()),
    ((5,), (0,)),
    ((1, 1), (0, 1)),
    ((100_003,), (0,)),
    ((9, 5, 49), (0, 2)),
    ((9, 32, 7, 7), (0, 2, 3)),
    ((4, 3, 33, 31), (0, 2, 3)),
    ((40, 2, 64, 16), (0, 2)),
    ((6, 3, 49, 16), (0, 2)),
    ((128, 10), (0,)),
    ((128, 10), (1,)),
    ((300, 200), (0,)),
    ((300, 200), (1,)),
    ((70, 77), (0,)),
    ((2, 3, 4, 5, 6), (1, 3)),
    ((2, 3, 4, 5, 6), (0, 2, 4)),
    ((8, 4, 400, 3), (1,)),
    ((3, 70_000), (1,)),
    ((20_000, 3), (0,)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axes"), CASES)
def test_moments(shape, axes, dtype):
    x = np.asarray(3 + np.random.default_rng(0).standard_normal(shape), dtype)
    mean, var = moments(x, axes)
    wide = np.asarray(x, np.float64)
    rtol = 2e-6 if dtype == "f4" else 1e-12
    np.testing.assert_allclose(mean, wide.mean(axes).ravel(), rtol=rtol)
    np.testing.assert_allclose(var, wide.var(axes).ravel(), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_of_a_large_mean(dtype):
    rng = np.random.default_rng(1)
    for x in (10_000 + rng.standard_normal((64, 16, 100)), 10_000 + rng.standard_normal((64, 2, 100, 16))):
        x = x.astype(dtype)
        axes = (0, 2)
        mean, var = moments(x, axes)
        wide = x.astype(np.float64)
        np.testing.assert_allclose(mean, wide.mean(axes).ravel(), rtol=1e-7 if dtype == "f4" else 1e-14)
        np.testing.assert_allclose(var, wide.var(axes).ravel(), rtol=1e-5 if dtype == "f4" else 1e-12)
    x[:] = 1e4
    x[0, 0, 0, 0] = -1e6
    np.testing.assert_allclose(moments(x, (0, 2))[1], x.astype(np.float64).var((0, 2)).ravel(), rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axes"), [((0, 3), (0,)), ((3, 0, 2), (1,)), ((0, 3), (1,)), ((4, 0), (0,))])
def test_empty(shape, axes, dtype):
    x = np.zeros(shape, dtype)
    mean, var = moments(x, axes)
    assert not mean.any() and not var.any()
    np.testing.assert_array_equal(log_sum_exp(x, axes), np.logaddexp.reduce(x, axes[0]).ravel())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axes"), CASES)
def test_log_sum_exp(shape, axes, dtype):
    x = np.asarray(20 * np.random.default_rng(0).standard_normal(shape), dtype)
    wide = np.asarray(x, np.float64)
    top = wide.max(axes, keepdims=True)
    want = (np.log(np.exp(wide - top).sum(axes, keepdims=True)) + top).ravel()
    rtol = 1e-6 if dtype == "f4" else 1e-13
    np.testing.assert_allclose(log_sum_exp(x, axes), want, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_sum_exp_of_the_infinite(dtype):
    rows = np.array(
        [
            [-INF, -INF, -INF],
            [INF, 1, 2],
            [-INF, 1, 2],
            [INF, -INF, INF],
            [np.nan, 1, 2],
            [-INF, np.nan, -INF],
            [INF, np.nan, 0],
            [3e4] * 3,
        ]
    ).astype(dtype)
    want = [-INF, INF, np.logaddexp(1, 2), INF, np.nan, np.nan, np.nan, 3e4 + np.log(3)]
    for x in (rows, np.tile(rows, (1, 30_000))):
        shift = np.array([0, 0, np.log(x.shape[1] / 3), 0, 0, 0, 0, np.log(x.shape[1] / 3)])
        np.testing.assert_allclose(log_sum_exp(x, (1,)), want + shift, rtol=1e-6)
        np.testing.assert_allclose(log_sum_exp(np.ascontiguousarray(x.T), (0,)), want + shift, rtol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_fuzzed_strides(seed):
    rng = np.random.default_rng(seed)
    for _ in range(30):
        rank = int(rng.integers(1, 5))
        shape = tuple(int(n) for n in rng.choice([1, 2, 3, 5, 16, 17] if rank > 2 else [1, 3, 16, 40, 200], rank))
        dtype = rng.choice(list(DTYPES))
        base = rng.standard_normal(tuple(2 * n for n in shape)).astype(dtype)
        order = rng.permutation(rank)
        view = base[tuple(slice(0, 2 * n, 2) if rng.random() < 0.3 else slice(0, n) for n in shape)].transpose(order)
        axes = tuple(a for a in range(rank) if rng.random() < 0.5)
        out_strides, n = out_strides_of(view.shape, axes)
        mean, var, y = (np.zeros(n, dtype) for _ in range(3))
        call(reduce.Moments(view.shape, strides_of(view), out_strides, dtype), base, mean, var)
        call(reduce.LogSumExp(view.shape, strides_of(view), out_strides, dtype), base, y)
        wide, rtol = np.asarray(view, np.float64), 1e-5 if dtype == "f4" else 1e-12
        np.testing.assert_allclose(mean, wide.mean(axes).ravel(), rtol=rtol, atol=rtol)
        np.testing.assert_allclose(var, wide.var(axes).ravel(), rtol=rtol, atol=rtol)
        np.testing.assert_allclose(y, np.log(np.exp(wide).sum(axes)).ravel(), rtol=rtol, atol=rtol)


SLABS = [(0, 3, 1), (1, 1, 1), (3, 10, 1), (50, 1000, 1), (2, 65, 1), (4, 7, 5), (3, 20, 130), (2, 40_000, 1), (5, 3, 0)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["max", "min"])
@pytest.mark.parametrize(("outer", "n", "inner"), SLABS)
def test_arg_reduce(outer, n, inner, kind, dtype):
    rng = np.random.default_rng(4)
    for x in (rng.integers(0, 5, (outer, n, inner)).astype(dtype), rng.standard_normal((outer, n, inner)).astype(dtype)):
        for _ in range(2):
            y = np.full((outer, inner), -9, dtype)
            call(reduce.ArgReduce(kind, outer, n, inner, dtype), x, y)
            np.testing.assert_array_equal(y, (np.argmax if kind == "max" else np.argmin)(x, 1))
            x[rng.random(x.shape) < 0.1] = rng.choice([np.nan, INF, -INF])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outer", "n", "inner"), SLABS)
def test_top_k(outer, n, inner, dtype):
    rng = np.random.default_rng(5)
    for x in (rng.integers(0, 5, (outer, n, inner)).astype(dtype), rng.standard_normal((outer, n, inner)).astype(dtype)):
        for k in sorted({0, 1, min(3, n), min(n, 100), min(n, 500)}):
            values, indices = np.full((outer, k, inner), -9, dtype), np.full((outer, k, inner), -9, dtype)
            call(reduce.TopK(outer, n, inner, k, dtype), x, values, indices)
            want = np.argsort(-x, axis=1, kind="stable")[:, :k]
            np.testing.assert_array_equal(indices, want)
            np.testing.assert_array_equal(values, np.take_along_axis(x, want, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: reduce.Moments((2, 3), (3,), (3, 1), "f4"), "Moments: expected as many strides as dims (2), got 1 and 2"),
        (lambda: reduce.LogSumExp((2,), (1,), (0,), "f2"), "LogSumExp: expected dtype 'f4' or 'f8', got 'f2'"),
        (lambda: reduce.ArgReduce("mean", 1, 2, 1, "f4"), "ArgReduce: expected kind 'max' or 'min', got 'mean'"),
        (lambda: reduce.ArgReduce("max", 1, 0, 1, "f4"), "ArgReduce: expected at least one element, got n = 0"),
        (lambda: reduce.TopK(1, 2, 1, 3, "f4"), "TopK: expected k <= n = 2, got 3"),
    ],
)
def test_wrong_use(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == message
