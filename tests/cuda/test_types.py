"""Half precision on the CUDA engine: every op, and trainings with master weights, as tests/test_types.py has them for the others."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from cases import values
from cases.ops import CASES

import cogkit as C

_spec = importlib.util.spec_from_file_location("half_cases", Path(__file__).resolve().parents[1] / "test_types.py")
half = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(half)
F2, F4, F8 = np.float16, np.float32, np.float64
GROUPS = sorted({c.op for c in CASES})


@pytest.mark.parametrize("op", GROUPS)
def test_half_precision(op):
    """The first case of each op, values and gradients: what the CPU gives in half precision, but for roundings."""
    case = next(c for c in CASES if c.op == op)
    operands = [v.astype(F2).astype(F8) for v in values(case, case.rows)]
    found = []
    for engine in ("cuda", "cpu"):
        with C.device.use_engine(engine):
            found.append(half.everything(case, F2, operands))
    got, want = found
    assert set(got) == set(want)
    for key in sorted(want):
        assert got[key].dtype == want[key].dtype
        if case.name not in half.FLIPS and got[key].dtype == F2:
            half.near(got[key], want[key].astype(F4), key, 2.0)


@pytest.mark.parametrize("name", half.LEARNERS)
def test_training_in_half_precision_follows_float32(name):
    want, _ = half.trained(F4, half.LEARNERS[name], "cpu", 6)
    got, _ = half.trained(F2, half.LEARNERS[name], "cuda", 6)
    np.testing.assert_allclose(got, want, atol=5e-3)


def test_sums_of_half_precision_are_made_in_float32():
    x = C.input_variable(70000, dtype=F2)
    with C.device.use_engine("cuda"):
        y = C.reduce_sum(x)
        assert y.eval({x: np.full((1, 70000), 0.5, F2)}).ravel()[0] == F2(35000)
