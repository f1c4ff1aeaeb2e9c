"""CTC and edit distance on the CUDA engine, against the reference."""

import numpy as np
import pytest
from cases.alignment import CTC, Edit
from cuda.lowered import OTHER, STEPS, agree, run, spaces

from cogkit.engine.cuda import alignment
from cogkit.engine.spaces import Space

F4, F8 = np.float32, np.float64
LOOSE = {F4: 2e-5, F8: 1e-11}


def packed(lengths, sequences, dtype, shape):
    """Rows of sequences as they lie in their space."""
    rows = np.concatenate([np.asarray(s, dtype).reshape(len(s), *shape) for s in sequences])
    return np.ascontiguousarray(rows[Space.of(lengths).flat])


def ctc_of(blank, delay):
    return lambda g, y, x: g.node("ctc", [y, x], blank=blank, delay=delay)


def ctc_agrees(logits, labels, shape, blank, delay, dtype):
    frames, own = [len(x) for x in logits], [len(y) for y in labels]
    feeds = [(packed(own, labels, dtype, shape), OTHER), (packed(frames, logits, dtype, shape), STEPS)]
    agree(ctc_of(blank, delay), feeds, spaces(frames, own), rtol=LOOSE[dtype], atol=LOOSE[dtype])


@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("case", CTC, ids=lambda c: c.name)
def test_ctc(case, dtype):
    ctc_agrees(case.logits, case.labels, case.shape, case.blank, case.delay, dtype)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("delay", [-1, 3])
def test_ctc_of_odd_minibatches(delay, kept, monkeypatch):
    """Labels of other lengths, none at all, more than there are frames, of the blank's class; whether forward variables are kept or not."""
    if not kept:
        monkeypatch.setattr(alignment, "KEPT", 0)
    rng = np.random.default_rng(delay + 5)
    for frames, own in (([2, 17, 1, 9, 0, 5], [2, 30, 0, 3, 2, 11]), ([0, 0], [3, 0]), ([40], [21]), ([], [])):
        labels = [rng.choice([0.0, 1.0, 2.0], (n, 4), p=[0.6, 0.25, 0.15]) for n in own]
        logits = [3 * rng.standard_normal((n, 4)) for n in frames]
        if not frames:
            logits, labels, frames, own = [np.zeros((0, 4))], [np.zeros((0, 4))], [0], [0]
        for blank in (0, 3):
            ctc_agrees(logits, labels, (4,), blank, delay, F8)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_ctc_of_what_is_no_number(bad):
    x, y = np.zeros((3, 4, 3), F4), np.zeros((3, 4, 3), F4)
    y[:, 1, 1] = 2
    x[1, 2, 0] = bad
    feeds = [(packed([4] * 3, a, F4, (3,)), STEPS) for a in (y, x)]
    loss, slope = run("cuda", ctc_of(2, -1), feeds, spaces([4] * 3))
    assert np.isnan(loss[1]) and np.isfinite(loss[[0, 2]]).all()
    rows = Space.of([4] * 3).at(np.full(4, 1), np.arange(4))
    assert np.isnan(slope[rows]).all() and np.isfinite(np.delete(slope, rows, 0)).all()


@pytest.mark.parametrize("number", range(14))
def test_edit_distance(number):
    case = Edit(number)
    substitution, deletion, insertion, *rest = case.arguments
    squash, ignored = (*rest, *(False, ())[len(rest) :])
    rng = np.random.default_rng(number)
    for lengths, other, dtype in ((case.lengths, case.lengths, F4), ([0, 3, 7, 1], [4, 0, 5, 2], F8), ([70], [40], F4)):
        a, b = (rng.standard_normal((sum(n), 4)).astype(dtype) for n in (lengths, other))

        def edits(g, a, b):
            penalties = (float(substitution), float(deletion), float(insertion))
            return g.node("edit_distance", [a, b], penalties=penalties, squash=squash, ignored=tuple(ignored))

        agree(edits, [(a, STEPS), (b, OTHER)], spaces(lengths, other))
