"""Casts between element types against NumPy: every number of half precision, the places where rounding turns, one and two threads."""

import itertools

import numpy as np
import pytest
from engine.kernels import call

from cogkit.engine.cpu import casting
from cogkit.engine.cpu.pointwise import Pointwise, select_isa

ALL_HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
NAMES = {"f2": np.float16, "f4": np.float32, "f8": np.float64, "i1": np.int8, "i2": np.int16}


def numbers(dtype):
    """Halves, the middles between them and what lies beside those, random bits, powers of two of all sizes."""
    rng = np.random.default_rng(0)
    finite = np.sort(ALL_HALVES[np.isfinite(ALL_HALVES)].astype(np.float64))
    middle = np.append((finite[1:] + finite[:-1]) / 2, [65519.99, 65520.0, 65536.0])
    tiny = np.float64(np.finfo(dtype).eps)
    bits = rng.integers(0, 1 << 32, 100_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    spread = rng.standard_normal(10_000) * 2.0 ** rng.integers(-30, 20, 10_000)
    parts = [
        ALL_HALVES,
        middle,
        middle * (1 + tiny),
        middle * (1 - tiny),
        bits,
        spread,
        [0.0, -0.0, np.inf, -np.inf, np.nan, 2.0**-25],
    ]
    with np.errstate(all="ignore"):
        return np.concatenate([np.asarray(p, dtype) for p in parts])


def assert_same(got, want):
    __tracebackhide__ = True
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got)[want == want], np.signbit(want)[want == want])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore:.*cast:RuntimeWarning")
def test_half_precision_is_rounded_as_numpy_rounds(dtype):
    x = numbers(dtype)
    y = np.empty(x.size, np.float16)
    call(casting.Cast(x.size, x.dtype.str[1:], "f2"), x, y)
    assert_same(y, x.astype(np.float16))


@pytest.mark.parametrize("to", ["f4", "f8"])
def test_half_precision_is_widened_exactly(to):
    y = np.empty(ALL_HALVES.size, NAMES[to])
    call(casting.Cast(y.size, "f2", to), ALL_HALVES, y)
    assert_same(y, ALL_HALVES.astype(NAMES[to]))


@pytest.mark.parametrize("isa", ["v4", "v3", "default"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore:.*cast:RuntimeWarning")
def test_programs_round_to_half_precision(dtype, isa):
    x = numbers(dtype)
    y = np.empty_like(x)
    select_isa(isa)
    try:
        Pointwise(x.dtype.str[1:], ["in", "out"], [1], [("half", 1, 0)], [([x.size], [[1], [1]])]).bind([x, y]).run()
    finally:
        select_isa("best")
    assert_same(y, x.astype(np.float16).astype(dtype))


@pytest.mark.parametrize("size", [0, 1, 33, 50_001])
@pytest.mark.parametrize(("dtype", "to"), itertools.product(NAMES, NAMES))
def test_all_pairs_of_types(dtype, to, size):
    x = np.round(np.random.default_rng(3).uniform(-100, 100, size)).astype(NAMES[dtype])
    y = np.full(size, 7, NAMES[to])
    call(casting.Cast(size, dtype, to), x, y)
    np.testing.assert_array_equal(y, x.astype(NAMES[to]))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_whole_numbers_are_cut_and_end_at_their_limits(dtype):
    x = np.array([1.9, -1.9, 200, -200, 60000, np.inf, -np.inf, np.nan], NAMES[dtype])
    y = np.empty(x.size, np.int8)
    call(casting.Cast(x.size, dtype, "i1"), x, y)
    assert y.tolist() == [1, -1, 127, -128, 127, 127, -128, 0]


def test_unknown_types_are_refused():
    with pytest.raises(ValueError, match="expected 'f2', 'f4', 'f8', 'i1' or 'i2', got 'f3'"):
        casting.Cast(3, "f3", "f4")
