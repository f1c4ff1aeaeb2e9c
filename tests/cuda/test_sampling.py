"""Weighted samples of classes and losses over the order of rows on the CUDA engine, against the reference."""

import numpy as np
import pytest
from cuda.lowered import BATCH, agree, run

F4, F8 = np.float32, np.float64
DTYPES = pytest.mark.parametrize("dtype", [F4, F8])


def weights(n, dtype, zeros=0.2, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.uniform(size=n) < zeros, 0, rng.gamma(0.3, size=n) + 1e-3).astype(dtype)


def sample(count, duplicates):
    return lambda g, w: g.node("sample_classes", [w], count=count, duplicates=duplicates, purpose=77)


@DTYPES
@pytest.mark.parametrize("duplicates", [True, False])
@pytest.mark.parametrize("n", [1, 5, 40, 700, 2100])
def test_the_same_classes_are_drawn(n, duplicates, dtype):
    """The draws of the reference, which depend on seed, purpose and step."""
    w = weights(n, dtype, 0.2 if n > 5 else 0)
    for seed, step, count in ((3, 0, 1), (2**63 + 5, 9, min(n, 30)), (11, 2**33, min(n, 300) // 2 + 1)):
        agree(sample(count, duplicates), [(w, ())], seed=seed, step=step)


@pytest.mark.parametrize("duplicates", [True, False])
def test_weights_that_are_none(duplicates):
    for w in ([-1, 1, 1, 1], [np.nan, 1, 1, 1], [np.inf, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]):
        agree(sample(3, duplicates), [(np.array(w, F4), ())])


def test_a_class_of_weight_zero_is_never_drawn():
    w = np.zeros(1500, F4)
    w[7::3] = np.random.default_rng(1).uniform(1e-6, 1, 498)
    (y,) = run("cuda", sample(4000, True), [(w, ())])
    assert (w[y.astype(int)] > 0).all()


@DTYPES
def test_inclusion_frequency(dtype):
    for w, counts in (
        (weights(50, dtype), (1, 2, 20)),
        (weights(900, dtype), (5, 300)),
        (np.array([1, 0, 2, 3], dtype), (1, 2, 3, 4)),
        (np.array([1, -1, 2], dtype), (1, 3)),
        (np.array([0, 0], dtype), (1,)),
    ):
        for count in counts:
            frequency = lambda g, w, count=count: g.node("inclusion_frequency", [w], count=count)  # noqa: E731
            agree(frequency, [(w, ())], rtol=1e-6 if dtype == F4 else 1e-9, atol=1e-12)


def ranked(rows, queries, dtype, ties=True, seed=0):
    rng = np.random.default_rng(seed)
    score = rng.integers(-3, 4, rows) if ties else rng.standard_normal(rows)
    gain, query = rng.integers(0, 4, rows), rng.integers(0, queries, rows) if queries else np.zeros(rows)
    return [(np.asarray(v, dtype), BATCH) for v in (score, gain, query)]


def both(g, score, gain, query):
    return [*g.node("lambda_rank", [score, gain, query]), g.node("ndcg_at_1", [score, gain, query])]


@DTYPES
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("rows,queries", [(0, 1), (1, 1), (7, 3), (40, 1), (90, 40), (2100, 300)])
def test_order_of_rows(rows, queries, ties, dtype):
    loose = 1e-5 if dtype == F4 else 1e-10
    agree(both, ranked(rows, queries, dtype, ties), {BATCH: rows}, rtol=loose, atol=loose)


@pytest.mark.parametrize("which", range(3))
def test_order_of_what_is_no_number(which):
    feeds = ranked(6, 2, F4)
    feeds[which][0][3] = np.nan
    agree(both, feeds, {BATCH: 6}, rtol=1e-6)


def test_zeros_of_both_signs_are_equal():
    score, gain, query = np.array([0.0, -0.0, 0.0, -0.0], F4), np.array([1, 3, 0, 2], F4), np.array([0.0, -0.0, 0.0, 0.0], F4)
    agree(both, [(v, BATCH) for v in (score, gain, query)], {BATCH: 4}, rtol=1e-6)
