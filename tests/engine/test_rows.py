"""Products over packed rows against NumPy in doubles: odd and empty sizes, slices, any number of rows, one and two threads."""

import itertools

import numpy as np
import pytest
from engine.kernels import DTYPES, call, scratch_of

from cogkit.engine.cpu import rows

TOLERANCE = {"f4": {"rtol": 2e-5, "atol": 3e-4}, "f8": {"rtol": 1e-12, "atol": 1e-12}}
SIZES = (0, 1, 2, 3, 7, 8, 16, 17, 31, 32, 33, 48, 65, 200)


def packed(b, transpose=False):
    """b (k, n) as RowProduct wants it, with room for nothing more."""
    k, n = b.shape
    dtype = b.dtype.str[1:]
    to = np.full(rows.packed_bytes(k, n, dtype) // b.itemsize, np.nan, b.dtype)
    call(rows.Pack(k, n, transpose, dtype), np.ascontiguousarray(b.T) if transpose else b, to)
    return to


def draw(seed, dtype, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_row_product(n, dtype):
    for k, m in itertools.product((0, 1, 5, 16, 40), (0, 1, 2, 3, 5, 6, 7, 11, 12, 13, 24, 50)):
        a, b, bias, old = draw(n, dtype, (m, k), (k, n), (n,), (m, n))
        for number, (with_bias, relu, add) in enumerate(itertools.product((False, True), repeat=3)):
            p = packed(b, transpose=number % 2 == 1)
            want = a.astype(np.float64) @ b + (old if add else 0) + (bias if with_bias else 0)
            want = np.maximum(want, 0) if relu else want
            c = np.full((m, n), np.nan, dtype)
            made = rows.RowProduct(m, k, n, dtype, with_bias, relu, add)
            call(made, a, p, *([bias] if with_bias else []), *([old] if add else []), c)
            np.testing.assert_allclose(c, want, **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [
        (1, 512, 2048),
        (4, 512, 2048),
        (16, 512, 2048),
        (500, 80, 300),
        (700, 1030, 70),
        (33, 2048, 512),
        (1500, 520, 1),
        (9, 3000, 33),
    ],
)
def test_row_product_large(m, k, n, dtype):
    a, b, bias, old = draw(1, dtype, (m, k), (k, n), (n,), (m, n))
    want = np.maximum(a.astype(np.float64) @ b + old + bias, 0)
    call(rows.RowProduct(m, k, n, dtype, True, True, True), a, packed(b, True), bias, old, old)  # c_in is c
    np.testing.assert_allclose(old, want, rtol=1e-4, atol=2e-3 if dtype == "f4" else 1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_set_rows(dtype):
    """A row's bits depend on no other row, and rows beyond are left alone."""
    most, k, n = 300, 600, 100
    a, b = draw(2, dtype, (most, k), (k, n))
    p, whole = packed(b), np.zeros((most, n), dtype)
    made = rows.RowProduct(most, k, n, dtype)
    call(made, a, p, whole)
    address = made.rows_address
    for m in (0, 1, 2, 3, 6, 7, 12, 13, 31, 100, 299):
        c = np.full((most, n), 7, dtype)
        made.set_rows(m)
        assert (made.rows, made.rows_address) == (m, address)
        call(made, a, p, c)
        np.testing.assert_array_equal(c[:m], whole[:m])
        assert (c[m:] == 7).all()
        call(made, a[most - m :], p, c)
        np.testing.assert_array_equal(c[:m], whole[most - m :])
    with pytest.raises(ValueError, match="at least 0, got -1"):
        made.set_rows(-1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_row_product_slices(dtype):
    """Columns 5:5+k of a, 3:3+n of c, 2:2+n of c_in and of the bias, columns of b."""
    m, k, n = 50, 40, 70
    a, b, bias, old = draw(3, dtype, (m, 60), (k, 90), (n + 2,), (m, n + 9))
    want = a[:, 5 : 5 + k].astype(np.float64) @ b[:, 4 : 4 + n] + old[:, 2 : 2 + n] + bias[2:]
    for transpose in (False, True):
        p = np.zeros(rows.packed_bytes(k, n, dtype), np.uint8)
        wide = np.ascontiguousarray(b.T) if transpose else b
        ldb, at = (k, 4 * k) if transpose else (90, 4)
        call(rows.Pack(k, n, transpose, dtype, ldb=ldb, b_offset=at), wide, p)
        c = np.full((m, n + 5), 7, dtype)
        offsets = {"a_offset": 5, "bias_offset": 2, "c_offset": 3, "i_offset": 2}
        made = rows.RowProduct(m, k, n, dtype, True, False, True, lda=60, ldc=n + 5, ldi=n + 9, **offsets)
        call(made, a, p, bias, old, c)
        np.testing.assert_allclose(c[:, 3 : 3 + n], want, **TOLERANCE[dtype])
        assert (c[:, :3] == 7).all()
        assert (c[:, 3 + n :] == 7).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_not_finite(dtype):
    """NaN passes the relu, infinities do not leak into other rows and columns, -0 becomes 0."""
    for m, n in ((3, 33), (14, 64), (2, 5)):
        a, b = draw(4, dtype, (m, 20), (20, n))
        b[:, 0] = np.abs(b[:, 0])
        a[0, 3], a[1, 4], b[7, n - 1] = np.nan, -np.inf, np.nan
        with np.errstate(invalid="ignore"):
            want = a.astype(np.float64) @ b
            want = np.where(want <= 0, 0, want)
        c = np.zeros((m, n), dtype)
        call(rows.RowProduct(m, 20, n, dtype, relu=True), a, packed(b), c)
        np.testing.assert_allclose(c, want, **TOLERANCE[dtype])
        assert c[1, 0] == 0
        y = np.zeros((20, n), dtype)
        d = np.where(np.arange(m * n).reshape(m, n) % 7 == 3, np.inf, 1).astype(dtype)
        call(rows.SumProduct(m, 20, n, dtype), a, d, y)
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(y, a.T.astype(np.float64) @ d, **TOLERANCE[dtype])
    c = np.full((2, 40), -0.0, dtype)
    call(rows.RowProduct(2, 0, 40, dtype, relu=True, add=True), np.zeros((2, 0), dtype), np.zeros(0, dtype), c, c)
    assert not np.signbit(c).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_sum_product(n, dtype):
    for m, r, add in itertools.product((0, 1, 3, 6, 12, 13, 25, 40), (0, 1, 2, 9, 30), (False, True)):
        a, b, old = draw(5, dtype, (r, m), (r, n), (m, n))
        c = np.full((m, n), np.nan, dtype)
        call(rows.SumProduct(r, m, n, dtype, add), a, b, *([old] if add else []), c)
        np.testing.assert_allclose(c, a.T.astype(np.float64) @ b + (old if add else 0), **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("r", "m", "n"), [(1100, 130, 300), (3000, 5, 40), (40, 512, 1200), (513, 300, 1), (2000, 1, 1)])
def test_sum_product_large(r, m, n, dtype):
    a, b, c = draw(6, dtype, (r, m), (r, n), (m, n))
    want = a.T.astype(np.float64) @ b + c
    made = rows.SumProduct(0, m, n, dtype, True)
    made.set_rows(r)
    call(made, a, b, c, c)
    np.testing.assert_allclose(c, want, rtol=1e-4, atol=2e-3 if dtype == "f4" else 1e-9)
    made.set_rows(0)
    before = c.copy()
    call(made, a, b, c, c)
    np.testing.assert_array_equal(c, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sum_product_slices(dtype):
    r, m, n = 70, 30, 50
    a, b, old = draw(7, dtype, (r, 64), (r, 60), (m, 55))
    c = np.full((m, 80), 7, dtype)
    strides = {"lda": 64, "ldb": 60, "ldc": 80, "ldi": 55}
    call(rows.SumProduct(r, m, n, dtype, True, **strides, a_offset=9, b_offset=1, c_offset=11, i_offset=4), a, b, old, c)
    np.testing.assert_allclose(c[:, 11:61], a[:, 9:39].T.astype(np.float64) @ b[:, 1:51] + old[:, 4:54], **TOLERANCE[dtype])
    assert (c[:, :11] == 7).all()
    assert (c[:, 61:] == 7).all()


def test_scratch_knows_no_rows():
    assert rows.RowProduct(1, 512, 2048, "f4").scratch == rows.RowProduct(9999, 512, 2048, "f4").scratch
    assert rows.SumProduct(1, 512, 2048, "f4").scratch == rows.SumProduct(9999, 512, 2048, "f4").scratch
    assert scratch_of(rows.SumProduct(1, 512, 2048, "f4")).size


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rows.Pack(-1, 2, False, "f4"), "sizes >= 0, got -1"),
        (lambda: rows.Pack(3, 2, False, "i4"), "'f4' or 'f8', got 'i4'"),
        (lambda: rows.Pack(3, 2, True, "f4", ldb=2), "at least 3 elements apart, got 2"),
        (lambda: rows.RowProduct(1, 3, 2, "f4", lda=2), "at least 3 elements apart, got 2"),
        (lambda: rows.SumProduct(1, 3, 2, "f4", ldc=1), "at least 2 elements apart, got 1"),
        (lambda: rows.packed_bytes(3, -2, "f4"), "sizes >= 0, got -2"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
