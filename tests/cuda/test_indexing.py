"""Gathers, sums by index, one-hot rows, conversions and the sort on the CUDA engine, against the reference."""

import numpy as np
import pytest
from cuda.lowered import BATCH, agree, run

F4, F8 = np.float32, np.float64
DTYPES = pytest.mark.parametrize("dtype", [F4, F8])


def rng(seed=0):
    return np.random.default_rng(seed)


def whole(low, high, shape, dtype, seed=0):
    return rng(seed).integers(low, high, shape).astype(dtype)


@DTYPES
@pytest.mark.parametrize("table", [(5, 3), (7, 4), (3, 8), (2, 300), (4,), (3, 2, 2), (2, 5000)])
def test_gather(table, dtype):
    x = rng().standard_normal(table).astype(dtype)
    for rows in (0, 1, 9):
        index = whole(0, table[0], (rows, 2), dtype)
        agree(lambda g, x, i: g.node("gather", [x, i]), [(x, ()), (index, BATCH)], {BATCH: rows})


@DTYPES
@pytest.mark.parametrize("width", [(), (1,), (3,), (4, 2), (260,)])
@pytest.mark.parametrize("rows", [0, 1, 7, 300])
def test_sums_by_index(rows, width, dtype):
    table = (6, *width)
    index = whole(0, 5, (rows, 2), dtype)  # nothing names the last row
    dy = rng().standard_normal((rows, 2, *width)).astype(dtype)
    agree(lambda g, i, dy: g.node("scatter_add", [i, dy], shape=table), [(index, BATCH), (dy, BATCH)], {BATCH: rows})


@pytest.mark.parametrize("order", ["fwd", "rev", "7"])
def test_sums_of_many_tiles_are_in_order(order, monkeypatch):
    """More keys than one block sorts; sums in the order of rows, bit for bit."""
    monkeypatch.setenv("CUDACPU_ORDER", order)
    index = np.minimum(rng(1).geometric(0.01, 5000) - 1, 999).astype(F4)
    dy = rng(2).standard_normal((5000, 2)).astype(F4)
    agree(lambda g, i, dy: g.node("scatter_add", [i, dy], shape=(1000, 2)), [(index, BATCH), (dy, BATCH)], {BATCH: 5000})


def test_an_index_that_names_no_row_gives_zeros():
    index = np.array([[-1, 0.9, 3, np.nan, 2.5, 1e30]], F4).reshape(6, 1)
    x = np.arange(1, 7, dtype=F4).reshape(3, 2)
    (y,) = run("cuda", lambda g, x, i: g.node("gather", [x, i], zeros=True), [(x, ()), (index, BATCH)], {BATCH: 6})
    np.testing.assert_array_equal(y[:, 0], [[0, 0], [1, 2], [0, 0], [0, 0], [5, 6], [0, 0]])
    feeds = [(index, BATCH), (index[:, :, None], BATCH)]
    (y,) = run("cuda", lambda g, i, x: g.node("scatter_add", [i, x], shape=(3, 1), zeros=True), feeds, {BATCH: 6})
    np.testing.assert_array_equal(y[:, 0], np.array([0.9, 0, 2.5], F4))


@DTYPES
@pytest.mark.parametrize("shape", [(1,), (3, 1), (1, 4), (2, 1, 3), (0, 1)])
def test_one_hot(shape, dtype):
    axis = shape.index(1)
    for rows in (0, 1, 5):
        x = (whole(-1, 7, (rows, *shape), dtype) + 0.5).astype(dtype)
        agree(lambda g, x: g.node("one_hot", [x], classes=5, axis=axis), [(x, BATCH)], {BATCH: rows})


@DTYPES
@pytest.mark.parametrize("axis,shape", [(0, (5,)), (1, (2, 5)), (0, (5, 3)), (1, (2, 5, 3))])
def test_along_an_axis(axis, shape, dtype):
    for rows, k in ((0, 2), (1, 1), (3, 2), (2, 7)):
        part = (rows, *shape[:axis], k, *shape[axis + 1 :])
        x, y = (rng(i).standard_normal(s).astype(dtype) for i, s in enumerate(((rows, *shape), part)))
        index = whole(0, 5, part, dtype)
        agree(lambda g, x, i: g.node("take_along", [x, i], axis=axis), [(x, BATCH), (index, BATCH)], {BATCH: rows})
        agree(lambda g, y, i: g.node("put_along", [y, i], axis=axis, size=5), [(y, BATCH), (index, BATCH)], {BATCH: rows})


TYPES = [np.float16, F4, F8, np.int8, np.int16]


@pytest.mark.parametrize("to", TYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("given", TYPES, ids=lambda t: t.__name__)
def test_cast(given, to):
    if np.issubdtype(given, np.floating):
        edges = [0, -0.0, 0.49, -0.5, 1.5, -2.7, 126.99, 127.5, 128, -128.9, -129, 300, 32767.4, 32768, -32769, 65519, 65520, 1e5, np.nan,
                 np.inf, -np.inf, 6e-8, 2.9e-8, 3.1e-8, 6.1e-5, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-11 + 2**-40, 1e-30]  # fmt: skip
        with np.errstate(over="ignore"):
            x = np.concatenate([np.array(edges).astype(given), (rng().standard_normal(300) * 100).astype(given)])
    else:
        x = np.concatenate([np.arange(-128, 128), [np.iinfo(given).min, np.iinfo(given).max]]).astype(given)
    agree(lambda g, x: g.node("cast", [x], dtype=np.dtype(to).name), [(x, BATCH)], {BATCH: len(x)})
    agree(lambda g, x: g.node("cast", [x], dtype=np.dtype(to).name), [(x[:0], BATCH)], {BATCH: 0})
