"""Kernels of sparse values against SciPy: random entries, empty and repeated ones, both types; one and two threads give the same bytes."""

import numpy as np
import pytest
import scipy.sparse
from engine.kernels import DTYPES, call, threads

from cogkit.engine.cpu import sparse
from cogkit.engine.sparse import CsrRows, RowSparse, csr_matrix_at
from cogkit.lowering.sparse import csr_bytes

SHAPES = [
    (1, 1, 1),
    (5, 7, 3),
    (40, 11, 64),
    (3, 100, 1),
    (300, 3000, 130),
    (0, 4, 2),
]  # rows, columns, width of the dense operand


def matrix(rows, columns, dtype, seed=0):
    """A CSR matrix whose rows have 0 to 4 entries, columns in any order and more than once."""
    rng = np.random.RandomState(seed)
    counts = rng.randint(0, 5, rows)
    ends = np.concatenate([[0], np.cumsum(counts)])
    return scipy.sparse.csr_matrix((rng.randn(ends[-1]).astype(dtype), rng.randint(0, columns, ends[-1]), ends), (rows, columns))


def dense(shape, dtype, seed=1):
    return np.random.RandomState(seed).randn(*shape).astype(dtype)


def near(got, want, dtype):
    np.testing.assert_allclose(got, want, rtol=1e-5 if dtype == "f4" else 1e-13, atol=1e-5 if dtype == "f4" else 1e-13)


def head():
    return np.zeros(8, np.int64)


def listed(k, *inputs, shape, dtype):
    """The list of rows that a kernel gives with two threads; with one it is the same."""
    found = []
    for n in (2, 1):
        out = head()
        k.set_buffers([a.__array_interface__["data"][0] for a in (*inputs, out)])
        with threads(n):
            k.run()
        found.append(RowSparse.of_plan(out.view(np.uint8), shape, np.dtype(dtype), k).copy())
    a, b = found
    assert a.rows.tobytes() == b.rows.tobytes() and a.values.tobytes() == b.values.tobytes()
    assert (np.diff(a.rows) > 0).all()
    return a


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_products(shape, dtype):
    rows, columns, width = shape
    a = matrix(rows, columns, dtype)
    fed = CsrRows(a, np.dtype(dtype))
    b, y = dense((columns, width), dtype), np.full((rows, width), np.nan, dtype)
    call(sparse.CsrTimes(columns, width, dtype), fed.block, b, y)
    near(y, a @ b, dtype)
    call(sparse.CsrTimes(columns, width, dtype, True), fed.block, np.ascontiguousarray(b.T), y)
    near(y, a @ b, dtype)
    dy = dense((rows, width), dtype)
    found = listed(sparse.CsrTransposed(columns, width, dtype), fed, dy, shape=(columns, width), dtype=dtype)
    assert np.array_equal(found.rows, np.unique(a.indices))
    near(found.toarray(), a.T @ dy, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_order_of_sums_is_that_of_the_entries(dtype):
    big = 2.0**25 if dtype == "f4" else 2.0**54
    a = scipy.sparse.csr_matrix((np.ones(4, dtype), [70_000] * 4, np.arange(5)), (4, 70_001))
    dy = np.array([[1], [big], [1], [-big]], dtype)
    found = listed(sparse.CsrTransposed(70_001, 1, dtype), CsrRows(a, np.dtype(dtype)), dy, shape=(70_001, 1), dtype=dtype)
    assert found.values.tolist() == [[0.0]]  # each 1 is lost beside what was there before: in another order one would be left


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_forms(shape, dtype):
    rows, columns, width = shape
    a = matrix(rows, columns, dtype)
    y = np.full((rows, columns), np.nan, dtype)
    call(sparse.CsrDense(columns, dtype), CsrRows(a, np.dtype(dtype)).block, y)
    near(y, a.toarray(), dtype)
    some = np.unique(np.random.RandomState(2).randint(0, columns, 5))
    g = RowSparse(some, dense((len(some), width), dtype), (columns, width))
    y = np.full((columns, width), np.nan, dtype)
    call(sparse.RowsDense(columns, width, dtype), g.head, y)
    assert np.array_equal(y, g.toarray())


@pytest.mark.parametrize("dtype", DTYPES)
def test_gathers_back(dtype):
    index = np.array([3, -1, 0, 3, 9, np.nan, 2.7], dtype)
    dy = dense((7, 5), dtype)
    k = sparse.ScatterRows(7, 5, 4, dtype)
    found = listed(k, index, dy, shape=(4, 5), dtype=dtype)
    assert found.rows.tolist() == [0, 2, 3] and k.error() == 1
    near(found.values, [dy[2], dy[6], dy[0] + dy[3]], dtype)
    k.set_rows(1)
    assert listed(k, index, dy, shape=(4, 5), dtype=dtype).rows.tolist() == [3]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [([], []), ([1], []), ([], [0, 3]), ([0, 2, 5], [1, 2, 3]), ([4, 5], [4, 5])])
def test_sums_of_lists(rows, dtype):
    a, b = (RowSparse(r, dense((len(r), 6), dtype, i), (6, 6)) for i, r in enumerate(rows))
    found = listed(sparse.RowsAdd(6, dtype), a, b, shape=(6, 6), dtype=dtype)
    assert found.rows.tolist() == sorted({*rows[0], *rows[1]})
    assert np.array_equal(found.toarray(), a.toarray() + b.toarray())


@pytest.mark.parametrize("dtype", DTYPES)
def test_moves_and_one_hot(dtype):
    a = matrix(6, 5, dtype)
    index = np.array([5, -1, 0, 0])
    out = np.zeros(csr_bytes(4, 8) // 8, np.int64)
    call(sparse.CsrMove(index), CsrRows(a, np.dtype(dtype)).block, out)
    want = a.toarray()[index] * (index >= 0)[:, None]
    assert np.array_equal(csr_matrix_at(out, 5, np.dtype(dtype)).toarray(), want)
    x = np.array([0, 4, -1, 5, 2], dtype)
    out = np.zeros(csr_bytes(5, 8) // 8, np.int64)
    call(sparse.CsrOneHot(5, 5, dtype), x, out)
    assert np.array_equal(csr_matrix_at(out, 5, np.dtype(dtype)).toarray(), (x[:, None] == np.arange(5)).astype(dtype))


def test_rows_in_another_order_share_the_entries():
    a = matrix(6, 5, "f4")
    fed = CsrRows(a, np.dtype("f4"), np.array([4, 0, 0]))
    assert fed.values.ctypes.data == a.data.ctypes.data and np.array_equal(fed.matrix().toarray(), a.toarray()[[4, 0, 0]])


def test_lists_as_csr():
    g = RowSparse([0, 2], np.arange(12, dtype=np.float32).reshape(2, 3, 2), (4, 3, 2))
    assert np.array_equal(g.tocsr().toarray().reshape(4, 3, 2), g.toarray()) and g.shape == (4, 3, 2) and g.size == 24


def test_only_known_rules():
    with pytest.raises(ValueError, match="expected rule 'sgd' or 'adagrad', got 'adam'"):
        sparse.UpdateRows("adam", False, False, 2, 2, "f4")
