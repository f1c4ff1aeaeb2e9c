"""cogkit against CNTK 2.7 over sequences: values, gradients, training (goldens/make_sequence_goldens.py recorded them)."""

import functools
import json
import pathlib

import numpy as np
import pytest
from cases.sequence_training import AGREE, STORIES
from cases.sequences import CASES, check_sum, record, recorded

import cogkit as C

GOLDENS = pathlib.Path(__file__).parent / "goldens"
FAMILIES = sorted({c.family for c in CASES})


@functools.cache
def goldens(family):
    return recorded(GOLDENS / f"seq_{family}.npz")


def types(found):
    """Held to float64 in both types, where CNTK could run it so."""
    return ("f4", "f8") if found and found[0]["type"] == "f8" else ("f4",)


def missing(words):
    """Those of some dotted names that C does not have."""
    found = []
    for word in words:
        thing = C
        for part in word.split("."):
            thing = getattr(thing, part, None)
        if thing is None:
            found.append(word)
    return found


def here(words):
    """Fails where a case is of what is not there."""
    assert not missing(words), f"C has no {', '.join(missing(words))}"


def close(got, want, dtype, rtol, what):
    assert got.shape == want.shape, f"{what}: shape {got.shape}, CNTK's is {want.shape}"
    scale = max(1.0, float(np.max(np.abs(want), initial=0)))
    r = rtol if dtype == "f4" else 1e-9
    np.testing.assert_allclose(got, want, rtol=r, atol=r * scale, err_msg=what)


PAIRS = [(c, d) for c in CASES if not (c.departs and not c.where) for d in types(goldens(c.family).get(c.name))]


@pytest.mark.parametrize(("case", "dtype"), PAIRS, ids=[f"{c.name}-{d}" for c, d in PAIRS])
def test_case(case, dtype):
    here(case.words)
    entry, want = goldens(case.family)[case.name]
    assert entry["asked"] == {m: check_sum(case, m) for m in case.only}, "the case asks something else than CNTK was asked"
    got = record(C, case, np.dtype(dtype).type)
    assert set(got) == set(want)
    for key in sorted(want, key=lambda k: (k.split("/")[1][0] == "d", k)):
        if not any(key == w or key.split("/")[1] == w for w in case.where):
            close(got[key], want[key], dtype, case.rtol, key)


TOLD = [(n, d) for n in sorted(STORIES) for d in types(goldens("training").get(n))]


@pytest.mark.parametrize(("name", "dtype"), TOLD, ids=[f"{n}-{d}" for n, d in TOLD])
def test_story(name, dtype):
    want = goldens("training")[name][1]
    got = STORIES[name](C, dtype)
    assert set(got) == set(want)
    for key in sorted(want, key=lambda k: (k == "parameters", k)):
        n = AGREE.get(name)
        close(got[key][:n], want[key][:n], dtype, 3e-5, key)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_golden_has_a_case(family):
    assert set(goldens(family)) == {c.name for c in CASES if c.family == family}


def test_every_training_golden_has_a_story():
    assert set(goldens("training")) == set(STORIES)


def test_goldens_are_small():
    assert sum(p.stat().st_size for p in GOLDENS.glob("seq_*.npz")) < 1_500_000


@pytest.mark.parametrize("family", [*FAMILIES, "training"])
def test_made_by_cntk27(family):
    with np.load(GOLDENS / f"seq_{family}.npz", allow_pickle=False) as z:
        assert json.loads(str(z["about"]))["cntk"] == "2.7"
