"""What the passes make of random graphs is what the graph says: the cpu plan gives the values of the reference."""

import pytest
from lowering.random_graphs import KINDS, check, shrink


@pytest.mark.parametrize("first", range(0, 60, 20))
@pytest.mark.parametrize("kind", KINDS)
def test_plan_equals_reference(kind, first):
    for seed in range(first, first + 20):
        found = check(seed, 12, kind)
        assert not found, f"{found}; smallest: random_graphs.check({seed}, {shrink(seed, 12, kind)}, {kind!r})"


@pytest.mark.parametrize("kind", KINDS)
def test_float64_plan_equals_reference(kind):
    for seed in range(1000, 1015):
        found = check(seed, 12, kind, True)
        assert not found, f"{found}; smallest: random_graphs.check({seed}, {shrink(seed, 12, kind, True)}, {kind!r}, True)"


@pytest.mark.heavy
@pytest.mark.parametrize("ops", [6, 25, 60])
@pytest.mark.parametrize("kind", KINDS)
def test_many_plans_equal_the_reference(kind, ops):
    for seed in range(2000, 2300):
        found = check(seed, ops, kind)
        assert not found, f"{found}; smallest: random_graphs.check({seed}, {shrink(seed, ops, kind)}, {kind!r})"
