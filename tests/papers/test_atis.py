"""The ATIS folder: its taggers have the lab's sizes, and slots are counted as conlleval counts them."""

import numpy as np
import pytest

import cogkit as C
from cogkit.papers.atis.model import tagger
from cogkit.papers.atis.score import f1, slots


@pytest.mark.parametrize(
    ("model", "batch_norm", "count"),
    [("forward", False, 721_479), ("forward", True, 722_379), ("lookahead", True, 902_679), ("bidirectional", True, 542_379)],
)
def test_parameters(model, batch_norm, count):
    z = tagger(C.sequence.input_variable(943, is_sparse=True), model, 129, 150, 300, batch_norm)
    assert sum(int(np.prod(p.shape)) for p in z.parameters) == count


@pytest.mark.parametrize("model", ["forward", "lookahead", "bidirectional"])
def test_what_a_word_sees(model):
    C.set_seed(1)
    z = tagger(C.sequence.input_variable(7), model, 5, 4, 6, False)
    words = np.eye(7, dtype=np.float32)
    plain, other = (z.eval({z.arguments[0]: [words[list(ids)]]})[0] for ids in ((1, 2, 3, 4), (1, 2, 3, 5)))
    changed = (np.abs(plain - other) > 1e-6).any(axis=1).tolist()
    first = {"forward": 3, "lookahead": 2, "bidirectional": 0}[model]
    assert changed == [t >= first for t in range(4)]


def test_what_is_no_tagger():
    x = C.sequence.input_variable(7)
    with pytest.raises(ValueError, match="expected a model of forward, lookahead, bidirectional, got 'backward'"):
        tagger(x, "backward", 5, 4, 6, False)
    with pytest.raises(ValueError, match="expected an even number of cells"):
        tagger(x, "bidirectional", 5, 4, 7, False)


def test_slots():
    assert slots(["O", "B-a", "I-a", "I-b", "O", "I-a", "B-a", "B-a"]) == {
        (1, 3, "a"),
        (3, 4, "b"),
        (5, 6, "a"),
        (6, 7, "a"),
        (7, 8, "a"),
    }
    assert slots([]) == slots(["O"]) == set()
    true = ["B-a", "I-a", "O", "B-b"]
    assert f1([(true, true)]) == 100.0 and f1([(true, ["O"] * 4)]) == 0.0 and f1([]) == 100.0
    # one of two slots whole; the other cut short; one more that is none: precision 1 / 3, recall 1 / 2
    assert f1([(true, ["B-a", "O", "B-b", "B-b"])]) == pytest.approx(40.0)
