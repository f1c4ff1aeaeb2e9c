"""cogkit against CNTK 2.7: every case of the table, values and gradients (goldens/make_goldens.py recorded them)."""

import functools
import json
import pathlib

import numpy as np
import pytest
from cases import record, values
from cases.ops import CASES

import cogkit as C

GOLDENS = pathlib.Path(__file__).parent / "goldens"


@functools.cache
def goldens(family):
    with np.load(GOLDENS / f"ops_{family}.npz", allow_pickle=False) as z:
        return {k: z[k] for k in z.files}


def recorded(case, dtype):
    start = case.name.replace("/", ":") + f"/{dtype}/"
    return {k[len(start) :]: v for k, v in goldens(case.family).items() if k.startswith(start)}


def here(case):
    """Skips a case of an op that is still to come; anything else that is missing fails."""
    word = case.op
    if case.later and not (hasattr(C, word) or hasattr(C.layers, word)):
        pytest.skip(f"{word} is still to come")


def close(got, want, case, what):
    assert got.shape == want.shape, f"{what}: shape {got.shape}, CNTK's is {want.shape}"
    assert got.dtype == want.dtype, f"{what}: {got.dtype}, CNTK's is {want.dtype}"
    if case.exact:
        np.testing.assert_array_equal(got, want, err_msg=what)
        return
    scale = max(1.0, float(np.max(np.abs(want[np.isfinite(want)]), initial=0)))
    tight = 1e-7 if want.dtype == np.float64 else 1.0  # float64: as many digits more as the type has
    np.testing.assert_allclose(
        got, want, rtol=case.rtol * max(tight, 1e-4), atol=case.atol * scale * max(tight, 1e-4), err_msg=what
    )


PAIRS = [(c, d) for c in CASES if c.golden and not (c.departs and not c.where) for d in (("f4", "f8") if c.f8 else ("f4",))]


@pytest.mark.parametrize(("case", "dtype"), PAIRS, ids=[f"{c.name}-{d}" for c, d in PAIRS])
def test_op(case, dtype):
    here(case)
    want = recorded(case, dtype)
    assert want, "no golden value: run goldens/make_goldens.py with CNTK 2.7"
    for i, v in enumerate(values(case, case.rows)):  # the case still asks what CNTK was asked
        np.testing.assert_array_equal(want.pop(f"i{i}"), v.astype(dtype))
    got = record(C, case, np.dtype(dtype).type)
    assert set(got) == set(want)
    for key in sorted(want, key=lambda k: (k[0] == "d", k)):
        if key not in case.where:
            close(np.asarray(got[key]), want[key], case, key)


def test_every_golden_has_a_case():
    names = {c.name.replace("/", ":") for c in CASES if c.golden}
    found = set()
    for path in GOLDENS.glob("ops_*.npz"):
        found |= {k.split("/")[0] for k in goldens(path.stem[4:])} - {"about"}
    assert found == names


def test_goldens_are_small():
    assert sum(p.stat().st_size for p in GOLDENS.iterdir() if p.is_file()) < 4_000_000


def test_made_by_cntk27():
    assert json.loads(str(goldens("pointwise")["about"]))["cntk"] == "2.7"
