"""Matrix products of the CUDA engine, by our own kernels and by libraries, against the reference."""

import itertools
from functools import partial

import numpy as np
import pytest
from cuda.plans import BATCH, LIBRARIES, STEPS, alike, commands, compare, explained, libraries_in_use, normal

import cogkit as C
from cogkit.engine.cuda import cublaslt, libraries, products
from cogkit.engine.cuda.driver import B

FLOATS = {"f4": np.float32, "f8": np.float64}


@pytest.fixture(autouse=True)
def use(request, monkeypatch):
    """Whether libraries are used; by themselves tests are of our own kernels."""
    libraries_in_use(monkeypatch, getattr(request, "param", False))
    yield getattr(request, "param", False)
    libraries.forget()


def node(*values, ta=False, tb=False, sum_rows=False):
    return values[0].graph.node("matmul", list(values), ta=ta, tb=tb, sum_rows=sum_rows)


@pytest.mark.parametrize("use", LIBRARIES, indirect=True)
@pytest.mark.parametrize("ta, tb", [*itertools.product((False, True), repeat=2)])
@pytest.mark.parametrize(
    "sizes", [(3, 5, 4), (1, 5, 4), (3, 1, 4), (3, 5, 1), (1, 1, 40), (12, 13, 40), (3, 5, 0), (0, 5, 4), (20, 33, 37)]
)
def test_all_forms(sizes, ta, tb):
    """With rows on either side, both, none; summed over them where there are some."""
    m, n, k = sizes
    rng = np.random.default_rng(sum(sizes))
    for dtype, rows in itertools.product(FLOATS.values(), (3, 0)):
        lead = {False: (), True: (rows,)}
        axes = {False: (), True: BATCH}
        for ra, rb in itertools.product((False, True), repeat=2):
            if rows == 0 and not (ra or rb):
                continue
            a = normal(rng, *lead[ra], *((k, m) if ta else (m, k)), dtype=dtype)
            b = normal(rng, *lead[rb], *((n, k) if tb else (k, n)), dtype=dtype)
            for total in (False, True) if ra or rb else (False,):
                compare(lambda x, y, t=total: node(x, y, ta=ta, tb=tb, sum_rows=t), (a, axes[ra]), (b, axes[rb]))


@pytest.mark.parametrize("use", LIBRARIES, indirect=True)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("m, n, k", [(1, 7, 5), (2, 7, 20), (1, 40, 12)])
def test_bias_and_relu(m, n, k, relu, use):
    rng = np.random.default_rng(1)
    a, b, bias = normal(rng, 9, m, k), normal(rng, k, n), normal(rng, n)
    (found,), plan = compare(lambda x, y, z: (lambda v: v.relu() if relu else v)(node(x, y) + z), (a, BATCH), b, bias)
    assert len(explained(plan)) == 1 and explained(plan)[0].startswith("cublaslt_f4") == use
    assert (found >= 0).all() or not relu


def test_bias_of_a_product_of_rows():
    """Where each row has a matrix of its own, and where long sums are made in parts."""
    rng = np.random.default_rng(2)
    compare(lambda x, y, z: node(x, y) + z, normal(rng, 4, 6), (normal(rng, 3, 6, 5), BATCH), normal(rng, 5))
    compare(lambda x, y, z: node(x, y, ta=True) + z, (normal(rng, 3, 6, 4), BATCH), (normal(rng, 3, 6, 5), BATCH), normal(rng, 5))
    compare(lambda x, y, z: (node(x, y, tb=True) + z).relu(), normal(rng, 1, 6), (normal(rng, 3, 5, 6), BATCH), normal(rng, 5))
    for m, n in ((3, 70), (70, 3)):
        a, b, bias = normal(rng, m, 700), normal(rng, 700, n), normal(rng, n)
        (found,), plan = compare(lambda x, y, z: (node(x, y) + z).relu(), a, b, bias, rtol=1e-4, atol=1e-4)
        assert "sum_parts_f4" in explained(plan)[0]


def test_nan_stays_in_relu():
    a = np.float32([[1, np.nan], [2, -3]])
    (found,), _ = compare(lambda x, y, z: (node(x, y) + z).relu(), a, np.eye(2, dtype=np.float32), np.float32([0, 1]))
    assert np.isnan(found[0]).all() and found[1].tolist() == [2, 0]


def test_added_to_a_product_of_sequences():
    rng = np.random.default_rng(3)
    a, b, c = normal(rng, 7, 1, 6), normal(rng, 6, 9), normal(rng, 7, 1, 9)
    _, plan = compare(lambda x, y, z: (node(x, y) + z).relu(), (a, STEPS), b, (c, STEPS), lengths=[3, 4])
    assert len(explained(plan)) == 1


TILES = [(dtype, tile) for dtype in FLOATS for tile in products.TILES[dtype]]


@pytest.mark.parametrize("ta, tb", [(False, False), (True, True)])
@pytest.mark.parametrize("dtype, tile", TILES, ids=str)
def test_tiles(dtype, tile, ta, tb, monkeypatch):
    """Each tile: more than one of them each way, ends that do not fill one, sums of several slices; parts of sums."""
    monkeypatch.setitem(products.TILES, dtype, [tile])
    rng = np.random.default_rng(4)
    thin = tile == products.THIN
    m, n, k = (5 if thin else tile[0] + 3), tile[1] + 5, 2 * tile[2] + 3
    for batch, turns, terms, swap in ((1, 1, k, False), (2, 2, k, thin), (1, 1, 17 * tile[2], thin)):
        size = (n, m, terms) if swap else (m, n, terms)
        a, b = (normal(rng, batch, turns, *s, dtype=FLOATS[dtype]) for s in ((size[0], terms), (terms, size[1])))
        bias, added = normal(rng, size[1], dtype=FLOATS[dtype]), normal(rng, batch, *size[:2], dtype=FLOATS[dtype])
        stored = [np.ascontiguousarray(x.swapaxes(-1, -2)) if t else x for x, t in ((a, ta), (b, tb))]
        options = {"dtype": dtype, "batch": batch, "turns": turns, "transpose_a": ta, "transpose_b": tb}
        make = partial(products.own_product, B(0), B(1), B(4), *size, **options, bias=B(2), added=B(3), relu=True)
        found = commands(make, *stored, bias, added, np.full(added.shape, 7, FLOATS[dtype]))[-1]
        alike(found, np.maximum(np.einsum("btik,btkj->bij", a, b) + bias + added, 0), 1e-4, 1e-4)


@pytest.mark.parametrize("use", [True], indirect=True)
def test_library_without_bias(use, monkeypatch):
    """Where cuBLASLt has no way with bias and relu they come after one without."""
    whole = cublaslt.matmul
    monkeypatch.setattr(cublaslt, "matmul", lambda *a, **k: None if k.get("bias") or k.get("added") else whole(*a, **k))
    rng = np.random.default_rng(5)
    a, b, bias, c = normal(rng, 7, 1, 6), normal(rng, 6, 9), normal(rng, 9), normal(rng, 7, 1, 9)
    _, plan = compare(lambda x, y, z: (node(x, y) + z).relu(), (a, BATCH), b, bias)
    assert "sum_parts_f4" in explained(plan)[0]
    _, plan = compare(lambda x, y, z: node(x, y) + z, (a, STEPS), b, (c, STEPS), lengths=[3, 4])
    assert "sum_parts_f4" in explained(plan)[0]


def test_rows_of_sequences_change():
    """A minibatch of as many rows as the last one is taken over, others are not; results are right either way."""
    x, w = C.sequence.input_variable(4), C.parameter((4, 3), init=np.arange(12, dtype=np.float32).reshape(4, 3))
    rng = np.random.default_rng(6)
    with C.device.use_engine("cuda"):
        z = C.times(x, w)
        for lengths in ([3, 2], [2, 3], [4], [3, 2], [1, 1, 1]):
            sequences = [normal(rng, n, 4) for n in lengths]
            for fact, given in zip(z.eval({x: sequences}), sequences, strict=True):
                alike(fact, given @ w.value)
