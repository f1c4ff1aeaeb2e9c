"""Verdicts: against scipy's own tests, and on data that must not decide."""

import math

import numpy as np
import pytest
from scipy import stats

from cogkit.papers.sheets import Claim, parse_condition
from cogkit.papers.verdict import decide


def claim(condition: str, test: str = "welch", confidence: float = 0.95) -> Claim:
    terms, threshold = parse_condition(condition)
    return Claim("c", "quick", "text", condition, terms, threshold, test, confidence)


def seeds(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


A, B = seeds(3.1, 2.9, 3.4), seeds(2.0, 2.4, 2.1)
PLANNED = {"a": 3, "b": 3}


def test_welch_is_scipys():
    got = decide(claim("e(a) > e(b)"), {("e", "a"): A, ("e", "b"): B}, PLANNED)
    want = stats.ttest_ind(list(A.values()), list(B.values()), equal_var=False, alternative="greater")
    assert (got.statistic, got.freedom, got.p) == pytest.approx((want.statistic, want.df, want.pvalue))
    assert got.low == pytest.approx(want.confidence_interval(0.95).low)
    assert got.verdict == "holds"


def test_paired_is_scipys():
    got = decide(claim("e(a) - e(b) > 0.5", "paired"), {("e", "a"): A, ("e", "b"): B}, PLANNED)
    want = stats.ttest_rel(np.array(list(A.values())) - 0.5, list(B.values()), alternative="greater")
    assert (got.statistic, got.freedom, got.p) == pytest.approx((want.statistic, want.df, want.pvalue))


def test_one_group_against_a_number_is_scipys():
    got = decide(claim("e(a) < 3.5"), {("e", "a"): A}, PLANNED)
    want = stats.ttest_1samp(list(A.values()), 3.5, alternative="less")
    assert got.p == pytest.approx(want.pvalue)


@pytest.mark.parametrize(
    ("condition", "verdict"),
    [
        ("e(a) > e(b)", "holds"),
        ("e(a) < e(b)", "fails"),
        ("e(a) > e(b) + 1", "undecided"),
        ("e(a) > e(b) + 9", "fails"),
        ("e(a) < 9", "holds"),
    ],
)
@pytest.mark.parametrize("test", ["welch", "paired"])
def test_three_verdicts(condition, verdict, test):
    assert decide(claim(condition, test), {("e", "a"): A, ("e", "b"): B}, PLANNED).verdict == verdict


def test_a_missing_run_is_not_run_and_never_holds():
    for have in ({}, {("e", "a"): A}, {("e", "a"): A, ("e", "b"): seeds(0, 0)}):
        got = decide(claim("e(a) > e(b)"), have, PLANNED)
        assert got.verdict == "not run" and "b has" in got.reason and got.estimate is None


def test_one_seed_decides_nothing():
    got = decide(claim("e(a) > 1"), {("e", "a"): seeds(5)}, {"a": 1})
    assert got.verdict == "undecided" and "one seed" in got.reason


def test_seeds_that_do_not_pair_decide_nothing():
    got = decide(claim("e(a) > e(b)", "paired"), {("e", "a"): {1: 5, 2: 5, 3: 5}, ("e", "b"): {3: 1, 4: 1, 5: 1}}, PLANNED)
    assert got.verdict == "undecided" and "1 seeds in common" in got.reason


def test_a_diverged_run_decides_nothing():
    got = decide(claim("e(a) > e(b)"), {("e", "a"): seeds(1, math.nan, 2), ("e", "b"): B}, PLANNED)
    assert got.verdict == "undecided" and got.reason == "e(a) is not finite"


@pytest.mark.parametrize(
    ("condition", "verdict"),
    [("n(a) <= 7", "holds"), ("n(a) < 7", "fails"), ("n(a) >= 8", "fails"), ("n(a) > 6", "holds")]
    + [("n(a) == 7", "holds"), ("n(a) == 6", "fails"), ("n(a) == 8", "fails")],
)
def test_exact(condition, verdict):
    assert decide(claim(condition, "exact"), {("n", "a"): seeds(7, 7, 7)}, PLANNED).verdict == verdict


def test_false_claims_hold_no_more_often_than_stated():
    rng = np.random.default_rng(0)
    for test in ("welch", "paired"):
        wrong = 0
        for _ in range(2000):
            values = {("e", "a"): seeds(*rng.normal(0, 1, 3)), ("e", "b"): seeds(*rng.normal(0, 1, 3))}
            wrong += decide(claim("e(a) > e(b)", test), values, PLANNED).verdict == "holds"
        assert wrong / 2000 < 0.062  # 5 % and three standard errors
