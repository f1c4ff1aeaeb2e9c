"""Strided copies, fills, gathers, scatters and one-hot against NumPy: fuzzed views, odd and empty sizes, one and two threads."""

import numpy as np
import pytest
from engine.kernels import DTYPES, call, offset_of, strides_of

from cogkit.engine.cpu import movement


def random_view(rng, shape, dtype):
    """A base vector and a view of the shape into it: permuted, cut, stepped, some axes reversed."""
    order = rng.permutation(len(shape))
    sizes = [int(shape[a] * (1 + (rng.random() < 0.3)) + (rng.integers(0, 3) if rng.random() < 0.3 else 0)) for a in order]
    base = rng.integers(0, 250, max(1, int(np.prod(sizes)))).astype(dtype)
    view = base[: int(np.prod(sizes))].reshape(sizes)
    for place, a in enumerate(order):
        n = shape[a]
        step = 2 if n and sizes[place] >= 2 * n and rng.random() < 0.8 else 1
        start = int(rng.integers(0, sizes[place] - n * step + 1))
        cut = [slice(None)] * len(sizes)
        cut[place] = slice(start, start + n * step, step)
        view = view[tuple(cut)]
        if rng.random() < 0.15:
            cut[place] = slice(None, None, -1)
            view = view[tuple(cut)]
    return base, view.transpose(np.argsort(order))


def copy_of(x, x_view, y, y_view):
    """The Copy that puts x_view into y_view, and what y then is."""
    starts = [offset_of(view, base) if view.size else 0 for view, base in ((x_view, x), (y_view, y))]
    want = y.copy()
    if y_view.size:
        np.lib.stride_tricks.as_strided(want[starts[1] :], y_view.shape, y_view.strides)[...] = x_view
    return movement.Copy(x_view.shape, strides_of(x_view), strides_of(y_view), x.itemsize, *starts), want


@pytest.mark.parametrize("seed", range(8))
def test_copy_fuzz(seed):
    rng = np.random.default_rng(seed)
    for _ in range(120):
        dtype = rng.choice(["u1", "u2", "f4", "f8"])
        sizes = [0, 1, 2, 3] if rng.random() < 0.05 else [1, 2, 3, 4, 5, 8, 16, 17, 33]
        shape = tuple(int(n) for n in rng.choice(sizes, rng.integers(0, 5)))
        x, x_view = random_view(rng, shape, dtype)
        y, y_view = random_view(rng, shape, dtype)
        if shape and rng.random() < 0.2:
            axis = int(rng.integers(0, len(shape)))
            x_view = np.broadcast_to(x_view.take([0], axis), shape) if shape[axis] else x_view
            x = x_view.base if x_view.base is not None and shape[axis] else x
            while x.base is not None:
                x = x.base
            x = x.reshape(-1)
        k, want = copy_of(x, x_view, y, y_view)
        call(k, x, y)
        np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize("dtype", ["u2", "f4", "f8"])
@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ((3, 2, 16, 49), (0, 1, 3, 2)),
        ((3, 2, 49, 16), (0, 1, 3, 2)),
        ((2, 100, 130), (0, 2, 1)),
        ((515, 67), (1, 0)),
        ((4, 1000, 3), (0, 2, 1)),
        ((7, 300, 5), (2, 1, 0)),
        ((5, 20, 8, 24), (0, 2, 1, 3)),
        ((40000,), (0,)),
    ],
)
def test_transpose(shape, order, dtype):
    x = np.random.default_rng(0).integers(0, 60000, shape).astype(dtype)
    want = np.ascontiguousarray(x.transpose(order))
    y = np.zeros_like(want)
    view = x.transpose(order)
    call(movement.Copy(view.shape, strides_of(view), strides_of(y), x.itemsize), x, y)
    np.testing.assert_array_equal(y, want)


def test_copies_splice_and_split():
    rng = np.random.default_rng(1)
    parts = [rng.random((6, n, 5), np.float32) for n in (1, 4, 0, 3)]
    y = np.zeros((6, 8, 5), np.float32)
    starts = np.cumsum([0] + [p.shape[1] for p in parts])[:-1]
    pieces = [
        (i, 0, p.shape, strides_of(p), strides_of(y), 0, int(s) * 5) for i, (p, s) in enumerate(zip(parts, starts, strict=True))
    ]
    k = movement.Copies(pieces, len(parts), 1, 4)
    call(k, *parts, y)
    np.testing.assert_array_equal(y, np.concatenate(parts, 1))
    back = [np.zeros_like(p) for p in parts]
    pieces = [(0, i, dims, out, into, end, start) for i, _, dims, into, out, start, end in pieces]
    call(movement.Copies(pieces, 1, len(parts), 4), y, *back)
    for b, p in zip(back, parts, strict=True):
        np.testing.assert_array_equal(b, p)


@pytest.mark.parametrize("size", [0, 1, 7, 100_001])
@pytest.mark.parametrize(("dtype", "value"), [("f4", 1.5), ("f8", -2.25), ("i4", -7), ("i8", 9), ("u1", 3), ("f4", 0.0)])
def test_fill(size, dtype, value):
    y = np.full(size, 77, dtype)
    call(movement.Fill(size, dtype, value), y)
    assert (y == np.asarray(value, dtype)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "row_size", "table_rows"), [(0, 3, 5), (7, 1, 5), (300, 70, 11), (5, 0, 4), (2000, 3, 100)])
def test_gather_and_scatter(dtype, rows, row_size, table_rows):
    rng = np.random.default_rng(2)
    table = rng.standard_normal((table_rows, row_size)).astype(dtype)
    index = rng.integers(0, table_rows, rows).astype(dtype)
    y = np.full((rows, row_size), 9, dtype)
    k = movement.Gather(rows, row_size, table_rows, dtype)
    call(k, table, index, y)
    np.testing.assert_array_equal(y, table[index.astype(int)])
    assert k.error() == -1
    dy = rng.standard_normal((rows, row_size)).astype(dtype)
    for accumulate in (False, True):
        start = rng.standard_normal(table.shape).astype(dtype)
        want = start.copy() if accumulate else np.zeros_like(start)
        np.add.at(want, index.astype(int), dy)
        k = movement.ScatterAdd(rows, row_size, table_rows, dtype, accumulate)
        call(k, index, dy, start)
        np.testing.assert_array_equal(start, want)
        assert k.error() == -1


@pytest.mark.parametrize("dtype", DTYPES)
def test_bad_index_is_reported_and_never_read(dtype):
    table = np.ones((4, 6000), dtype)
    index = np.array([0, 3, 4, -1, np.nan, 3.9, 1e30], dtype)
    y = np.full((7, 6000), 5, dtype)
    k = movement.Gather(7, 6000, 4, dtype)
    call(k, table, index, y)
    assert (k.error(), k.error()) == (2, -1)
    np.testing.assert_array_equal(y[:, 0], [1, 1, 0, 0, 0, 1, 0])
    k = movement.ScatterAdd(7, 6000, 4, dtype)
    call(k, index, y, table)
    assert k.error() == 2
    np.testing.assert_array_equal(table[:, 1], [1, 0, 0, 2])
    hot = np.full((7, 4), 5, dtype)
    k = movement.OneHot(7, 4, 1, dtype)
    call(k, index, hot)
    assert k.error() == 2
    np.testing.assert_array_equal(hot.sum(1), [1, 1, 0, 0, 0, 1, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "classes", "inner"), [(0, 3, 1), (5, 1, 1), (33, 10, 1), (9, 7, 5), (500, 100, 3)])
def test_one_hot(dtype, n, classes, inner):
    x = np.random.default_rng(3).integers(0, classes, (n, inner)).astype(dtype)
    y = np.full((n, classes, inner), 5, dtype)
    call(movement.OneHot(n, classes, inner, dtype), x, y)
    np.testing.assert_array_equal(y, np.arange(classes)[None, :, None] == x[:, None, :])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("outer", "n", "inner", "k"), [(0, 3, 2, 2), (1, 1, 1, 1), (5, 7, 3, 4), (400, 30, 1, 9), (3, 5, 2000, 2), (4, 6, 2, 0)]
)
def test_along(dtype, outer, n, inner, k):
    rng = np.random.default_rng(6)
    x, index = rng.standard_normal((outer, n, inner)).astype(dtype), rng.integers(0, n, (outer, k, inner)).astype(dtype)
    y = np.full(index.shape, 9, dtype)
    kernel = movement.Along(False, outer, n, inner, k, dtype)
    call(kernel, x, index, y)
    np.testing.assert_array_equal(y, np.take_along_axis(x, index.astype(int), 1))
    assert kernel.error() == -1
    back, want = np.full(x.shape, 9, dtype), np.zeros_like(x)
    i, _, j = np.indices(index.shape)
    np.add.at(want, (i, index.astype(int), j), y)
    call(movement.Along(True, outer, n, inner, k, dtype), y, index, back)
    np.testing.assert_array_equal(back, want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_along_a_bad_index(dtype):
    x, index = np.ones((1, 3, 1), dtype), np.array([0, 3, np.nan, -1], dtype).reshape(1, 4, 1)
    y = np.full(index.shape, 9, dtype)
    kernel = movement.Along(False, 1, 3, 1, 4, dtype)
    call(kernel, x, index, y)
    assert kernel.error() == 1
    np.testing.assert_array_equal(y.ravel(), [1, 0, 0, 0])
    kernel = movement.Along(True, 1, 3, 1, 4, dtype)
    call(kernel, y + 1, index, x)
    assert kernel.error() == 1
    np.testing.assert_array_equal(x.ravel(), [2, 0, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: movement.Along(False, 1, 2, -1, 2, "f4"), "Along: expected sizes >= 0, got -1"),
        (lambda: movement.Copy((2, 3), (3,), (3, 1), 4), "Copy: expected as many strides as dims (2), got 1 and 2"),
        (lambda: movement.Copy((2,), (1,), (0,), 4), "Copy: expected output strides other than 0, got 0 for a dimension of 2"),
        (lambda: movement.Copy((-2,), (1,), (1,), 4), "Copy: expected sizes >= 0, got -2"),
        (lambda: movement.Copy((2,), (1,), (1,), 3), "Copy: expected itemsize 1, 2, 4 or 8, got 3"),
        (
            lambda: movement.Copies([(1, 0, (2,), (1,), (1,), 0, 0)], 1, 1, 4),
            "Copies: expected input < 1 and output < 1, got 1 and 0",
        ),
        (lambda: movement.Fill(3, "f2", 0), "Fill: expected dtype 'f4', 'f8', 'i4', 'i8' or 'u1', got 'f2'"),
        (lambda: movement.Gather(3, 2, 2, "f2"), "Gather: expected dtype 'f4' or 'f8', got 'f2'"),
        (lambda: movement.Copy((2,), (1,), (1,), 4).set_buffers([1]), "Copy: expected 2 buffers, got 1"),
    ],
)
def test_wrong_use(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == message
