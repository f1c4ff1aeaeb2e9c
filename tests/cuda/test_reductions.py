"""Mean and variance, log of a sum of exponentials, places of extremes and the k largest on the CUDA engine, against the reference."""

import numpy as np
import pytest
from cuda.lowered import BATCH, agree, run

from cogkit.engine.cuda.device import device
from cogkit.engine.cuda.space import magic, plan, shared

F4, F8 = np.float32, np.float64
DTYPES = pytest.mark.parametrize("dtype", [F4, F8])
TOLERANCE = {F4: 2e-6, F8: 1e-14}
SHAPES = [(1,), (7,), (4,), (3, 5), (8, 4), (2, 3, 4), (5, 16), (1, 64), (300,), (2, 700)]


@pytest.fixture(autouse=True, scope="module")
def _device(cuda_environment):
    device()


def normal(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def axes_of(rank):
    return [tuple(i for i in range(rank) if bits >> i & 1) for bits in range(1 << rank)]


@DTYPES
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [0, 1, 6, 70])
def test_moments(shape, rows, dtype):
    x = (normal((rows, *shape), dtype) * 2 + 3).astype(dtype)
    for axes in axes_of(len(shape)):
        t = TOLERANCE[dtype] * 10
        agree(lambda g, x, axes=axes: list(g.node("moments", [x], axes=axes)), [(x, BATCH)], {BATCH: rows}, rtol=t, atol=t)


@DTYPES
def test_moments_of_numbers_far_from_zero(dtype):
    x = (normal((500, 3), dtype) + 1000).astype(dtype)
    mean, var = run("cuda", lambda g, x: list(g.node("moments", [x], axes=())), [(x, BATCH)], {BATCH: 500})
    wide = x.astype(np.longdouble)
    np.testing.assert_allclose(mean, wide.mean(0).astype(F8), rtol=1e-6)
    np.testing.assert_allclose(var, wide.var(0).astype(F8), rtol=1e-4)


@DTYPES
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [0, 1, 6, 70])
def test_log_of_a_sum_of_exponentials(shape, rows, dtype):
    x = (normal((rows, *shape), dtype) * 10).astype(dtype)
    for axes in axes_of(len(shape)):
        for whole in (False, True):
            if rows or not whole:
                t = TOLERANCE[dtype]
                build = lambda g, x, axes=axes, whole=whole: g.node("reduce_logsumexp", [x], axes=axes, rows=whole)  # noqa: E731
                agree(build, [(x, BATCH)], {BATCH: rows}, rtol=t, atol=t)


@DTYPES
def test_logsumexp_of_extremes(dtype):
    i, nan = np.inf, np.nan
    x = np.array([[0, i, 1], [-i, -i, -i], [-i, 2, -i], [nan, 1, i], [i, i, -i], [1e30, -1e30, 0], [i, nan, -i]], dtype)
    with np.errstate(all="ignore"):
        agree(lambda g, x: g.node("reduce_logsumexp", [x], axes=(0,), rows=False), [(x, BATCH)], {BATCH: 7}, rtol=1e-6)


@DTYPES
@pytest.mark.parametrize("name", ["argmax_axis", "argmin_axis"])
@pytest.mark.parametrize("shape", SHAPES)
def test_places_of_extremes(shape, name, dtype):
    for rows in (0, 1, 70):
        x = np.round(normal((rows, *shape), dtype) * 2)  # of equal ones the first
        if x.size > 20:
            x.reshape(-1)[::17] = np.nan
            x.reshape(-1)[5::23] = -np.inf
        for axis in range(len(shape)):
            agree(lambda g, x, axis=axis: g.node(name, [x], axis=axis), [(x, BATCH)], {BATCH: rows})


@DTYPES
@pytest.mark.parametrize("name", ["argmax_axis", "argmin_axis"])
@pytest.mark.parametrize("shape,axis", [((12288,), 0), ((3001,), 0), ((900, 8), 0), ((900, 3), 0)])
def test_places_of_extremes_that_blocks_find_together(shape, axis, name, dtype):
    x = np.round(normal((2, *shape), dtype) * 2)
    agree(lambda g, x: g.node(name, [x], axis=axis), [(x, BATCH)], {BATCH: 2})
    x.reshape(2, shape[0], -1)[0, [701, 800]] = np.nan
    agree(lambda g, x: g.node(name, [x], axis=axis), [(x, BATCH)], {BATCH: 2})


@DTYPES
@pytest.mark.parametrize(
    "shape,k", [((1,), 1), ((7,), 3), ((300,), 5), ((300,), 300), ((5000,), 2), ((3, 40), 2), ((40, 3), 2), ((20, 2), 20)]
)
def test_the_largest(shape, k, dtype):
    for rows in (0, 1, 4):
        x = np.round(normal((rows, *shape), dtype) * 5)
        x.reshape(-1)[3::29] = np.nan
        for axis in range(len(shape)):
            if k <= shape[axis]:
                agree(lambda g, x, axis=axis: list(g.node("top_k_axis", [x], k=k, axis=axis)), [(x, BATCH)], {BATCH: rows})


@pytest.mark.parametrize("order", ["fwd", "rev", "3"])
def test_any_order_of_threads_gives_the_same_bits(order, monkeypatch):
    x = normal((900, 5), F4)
    found = []
    for wish in ("fwd", order):
        monkeypatch.setenv("CUDACPU_ORDER", wish)
        found.append(run("cuda", lambda g, x: [*g.node("moments", [x], axes=()), g.node("reduce_logsumexp", [x], axes=(0,), rows=True)],
                         [(x, BATCH)], {BATCH: 900}))  # fmt: skip
    for a, b in zip(*found, strict=True):
        assert a.tobytes() == b.tobytes()


# how spaces are shared -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 10, 63, 64, 65, 641, 999983, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1])
def test_division_by_multiplication(size):
    m = magic(size)
    multiplier, shift = m & 0xFFFFFFFF, m >> 32
    for i in {0, 1, size - 1, size, size + 1, 2 * size - 1, 2 * size, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2, 123456789} | {
        (2**32 // size) * size - 1
    }:
        if 0 <= i < 2**32:
            assert ((multiplier * i >> 32) + i) >> shift == i // size


@pytest.mark.parametrize("across", [False, True])
def test_every_reduced_group_is_of_one_part(across):
    for kept in (1, 2, 3, 31, 32, 33, 1000, 100000):
        for reduced in (0, 1, 2, 5, 31, 128, 129, 1000, 4097, 10**6, 10**8):
            share, parts, part = shared(kept, reduced, across, 128)
            assert share & (share - 1) == 0 and 1 <= share <= 128 and part % share == 0
            assert parts * part >= reduced > (parts - 1) * part or (reduced == 0 and parts == 1)
            assert part <= share * 600


def test_plans_of_common_spaces():
    dense = [4096, 1]
    rows = plan([1000, 4096], [dense, [1, 0]], [], [1], 4)  # a sum along the last axis
    assert rows.across and rows.vector == 4 and rows.parts == 1
    columns = plan([100000, 256], [[256, 1], [0, 1]], [], [1], 4)  # of a bias: sums over rows
    assert not columns.across and columns.vector == 4 and columns.parts > 100
    whole = plan([1000, 4096], [dense, [0, 0]], [], [1], 4)
    assert whole.across and len(whole.reduced) == 1 and whole.parts > 100
    flat = plan([1000, 4096], [dense, dense], [1], [], 4)
    assert len(flat.kept) == 1 and flat.vector == 4
    bias = plan([1000, 4096], [dense, [0, 1], dense], [2], [], 4)
    assert [n for n, _ in bias.kept] == [1000, 1024]
