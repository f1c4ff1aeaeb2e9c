"""What the passes make of random graphs is what the graph says: the cpu plan gives the values of the reference."""

import pytest
from lowering.random_graphs import KINDS, attempt, check, check_training, shrink


def none_differs(check, seeds, ops, kind, *how):
    for seed in seeds:
        found = check(seed, ops, kind, *how)
        if found:  # the smallest form of it, for whoever mends it
            small = shrink(seed, ops, kind, *(how or (["training"] if check is check_training else [])))
            raise AssertionError(f"{found}; python tests/lowering/random_graphs.py {kind} {seed} 1 {small}")


@pytest.mark.parametrize("kind", KINDS)
def test_plan_equals_reference(kind):
    none_differs(check, range(4 if kind == "wide" else 40), 12, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_float64_plan_equals_reference(kind):
    none_differs(check, range(1000, 1003 if kind == "wide" else 1015), 12, kind, True)


@pytest.mark.parametrize("kind", KINDS)
def test_training_equals_reference(kind):
    none_differs(check_training, range(3000, 3004 if kind == "wide" else 3015), 8, kind)


@pytest.mark.heavy
@pytest.mark.parametrize("ops", [6, 25, 60])
@pytest.mark.parametrize("kind", KINDS)
def test_many_plans_equal_the_reference(kind, ops):
    none_differs(check, range(2000, 2020 if kind == "wide" else 2300), ops, kind)


def test_a_failure_is_made_smaller(monkeypatch):
    """The tool that a failing test sends one to."""
    from lowering import random_graphs

    monkeypatch.setattr(random_graphs, "check", lambda seed, ops, kind, double=False: "wrong" if ops > 6 else None)
    assert attempt(1, 9, "matrix") == "wrong" and shrink(1, 20, "matrix") == 7
