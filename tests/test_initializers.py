"""Initialisers: fans, bounds and spread as CNTK 2.7 draws them; kernels of interpolation exactly."""

import json
import math
import pathlib

import numpy as np
import pytest

import cogkit as C

GOLDENS = json.loads((pathlib.Path(__file__).parent / "goldens" / "initializers.json").read_text())
LIMITS = {"truncated_normal": 2.0}


def same_distribution(kind, mine, theirs, n):
    """Two samples of n numbers: spreads agree within their errors; bounds, where there are any, within what n numbers leave open."""
    spread, largest = theirs
    assert abs(mine.std() / spread - 1) < 6 / math.sqrt(n), (mine.std(), spread)
    if kind in ("uniform", "xavier") or kind.endswith("_uniform"):
        assert abs(np.abs(mine).max() / largest - 1) < 16 / n, (np.abs(mine).max(), largest)


@pytest.mark.parametrize("kind", sorted({r[0] for r in GOLDENS["ranks"]}))
def test_fans_by_rank(kind):
    for name, shape, output, filters, theirs in GOLDENS["ranks"]:
        if name != kind:
            continue
        ranks = {k: v for k, v in (("output_rank", output), ("filter_rank", filters)) if v is not None}
        make = getattr(C.initializer, kind)(0.7, seed=3, **ranks)
        if theirs is None:
            if kind != "normal" and abs(output) + filters > len(shape):
                with pytest.raises(ValueError, match="expected at least"):
                    C.parameter(tuple(shape), init=make)
            else:  # CNTK compares a negative sum as if it were a large one
                assert kind == "normal" or output + filters < 0
                C.parameter(tuple(shape), init=make)
            continue
        same_distribution(kind, C.parameter(tuple(shape), init=make).value, theirs, math.prod(shape))


@pytest.mark.parametrize(("kind", "shape", "theirs"), GOLDENS["plain"], ids=str)
def test_without_fans(kind, shape, theirs):
    value = C.parameter(tuple(shape), init=getattr(C.initializer, kind)(0.7, seed=3)).value
    same_distribution(kind, value, theirs, math.prod(shape))
    if kind in LIMITS:
        assert np.abs(value).max() <= 0.7 * LIMITS[kind]


@pytest.mark.parametrize(("shape", "theirs"), GOLDENS["bilinear"], ids=str)
def test_bilinear(shape, theirs):
    make = C.initializer.bilinear(shape[-1], shape[-2])
    if theirs is not None:
        np.testing.assert_array_equal(C.parameter(tuple(shape), init=make).value, np.asarray(theirs, "f"))
    elif len(shape) > 3:
        with pytest.raises(ValueError, match="expected as many input as output channels for bilinear"):
            C.parameter(tuple(shape), init=make)
    else:  # without an axis of channels to mix
        assert (C.parameter(tuple(shape), init=make).value > 0).all()


@pytest.mark.parametrize(("output", "filters", "theirs"), GOLDENS["with_rank"])
def test_initializer_with_rank(output, filters, theirs):
    make = C.initializer.initializer_with_rank(C.initializer.glorot_uniform(0.7, seed=3), output, filters)
    same_distribution("glorot_uniform", C.parameter((16, 8, 3, 3), init=make).value, theirs, 16 * 8 * 9)


def test_ranks_given_stay():
    make = C.initializer.initializer_with_rank(C.initializer.glorot_uniform(output_rank=2), output_rank=1, filter_rank=1)
    assert (make.output_rank, make.filter_rank) == (2, 1)
    assert C.initializer.initializer_with_rank(0.5, 1, 1) == 0.5


def test_moments():
    """Means, and the fourth moment that tells a normal from a uniform one."""
    for kind, kurtosis in (
        ("uniform", 1.8),
        ("normal", 3.0),
        ("glorot_uniform", 1.8),
        ("he_normal", 3.0),
        ("truncated_normal", 2.37),
    ):
        v = C.parameter((300, 400), init=getattr(C.initializer, kind)(1.0, seed=3)).value.astype(np.float64)
        assert abs(v.mean()) < 5 * v.std() / math.sqrt(v.size)
        assert abs((v**4).mean() / v.var() ** 2 - kurtosis) < 0.05, kind


def test_seeds():
    """Equal seeds, equal values, whatever was made before; without one the order of creation counts, from the run's seed on."""
    make = C.initializer.he_normal

    def value(seed=None):
        return C.parameter((20,), init=C.initializer.normal(1, seed=seed)).value.tobytes()

    assert value(7) == value(7) != value(8)
    C.set_seed(1)
    first, second = value(), value()
    C.set_seed(1)
    assert (value(), value()) == (first, second) and first != second
    C.set_seed(2)
    assert value() != first
    a, b = C.parameter((20, 3), init=make()), C.parameter((20, 3), init=make())
    assert a.value.tobytes() != b.value.tobytes()
