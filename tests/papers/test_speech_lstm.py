"""The speech folder: its nets have CNTK's sizes, its decoder finds the best path, its phone error is an edit distance."""

import itertools

import numpy as np
import pytest

import cogkit as C
from cogkit.papers.speech_lstm.decode import PhoneLoop, distance, phone_error, read_segments
from cogkit.papers.speech_lstm.model import acoustic_model
from cogkit.papers.speech_lstm.train import mixture


def size(z):
    return sum(int(np.prod(p.shape)) for p in z.parameters)


def test_parameters():
    dnn = acoustic_model(C.input_variable(363), "dnn", 132, 11, 2, 512, "sigmoid", 0, 0, False)
    assert size(dnn) == 516_740  # CNTK's AN4 log
    lstm = acoustic_model(C.sequence.input_variable(165), "lstm", 132, 5, 0, 0, "relu", 3, 256, False)
    assert size(lstm) == 1_516_676  # HTK_LSTM_Truncated_Distributed.py
    blstm = acoustic_model(C.sequence.input_variable(165), "blstm", 132, 5, 0, 0, "relu", 3, 256, False)
    assert size(blstm) == 2 * (432_128 + 2 * (768 * 1024 + 1024)) + 512 * 132 + 132


@pytest.mark.parametrize("system", ["lstm", "blstm", "cnn-blstm"])
def test_shapes(system):
    z = acoustic_model(C.sequence.input_variable(11 * 8), system, 6, 11, 0, 0, "relu", 1, 5, False)
    got = z.eval({z.arguments[0]: [np.ones((3, 88), np.float32), np.ones((1, 88), np.float32)]})
    assert [g.shape for g in got] == [(3, 6), (1, 6)]


def test_what_is_no_model():
    x = C.input_variable(4)
    with pytest.raises(ValueError, match="expected a system of dnn, lstm, blstm, cnn-blstm, got 'gru'"):
        acoustic_model(x, "gru", 6, 1, 1, 4, "relu", 1, 5, False)
    with pytest.raises(ValueError, match="expected an activation of relu, sigmoid, got 'tanh'"):
        acoustic_model(x, "dnn", 6, 1, 1, 4, "tanh", 1, 5, False)


STATES = ["sil_1", "a_1", "a_2", "b_1", "b_2"]
SEGMENTS = [
    [("sil_1", 4), ("a_1", 2), ("a_2", 3), ("b_1", 1), ("b_2", 2), ("sil_1", 2)],
    [("a_1", 1), ("a_2", 1), ("a_1", 2), ("a_2", 2)],
]
SPOKEN = [["sil", "a", "b", "sil"], ["a", "a"]]


def loop():
    return PhoneLoop(STATES, SEGMENTS, SPOKEN)


@pytest.mark.parametrize("frames", [1, 2, 5, 6])
def test_the_best_path_is_found(frames):
    made, random = loop(), np.random.default_rng(frames)
    first, last, phone = {0: 0, 1: 1, 3: 2}, {0: 0, 2: 1, 4: 2}, [0, 1, 1, 2, 2]
    for weight in (0.5, 2.0):
        p = np.log(random.dirichlet(np.full(5, 0.5), frames) + 1e-9)
        best, want = -np.inf, None
        for path in itertools.product(range(5), repeat=frames):
            if path[0] not in first or path[-1] not in last:
                continue
            total, spoken = weight * made._begins[phone[path[0]]], [phone[path[0]]]
            for s, t in itertools.pairwise(path):
                moves = []  # (score, whether a phone begins): a state may be left into itself, as the phone's first
                if s == t:
                    moves.append((made._stay[s], False))
                if t == s + 1 and phone[s] == phone[t]:
                    moves.append((made._leave[s], False))
                if s in last and t in first:
                    moves.append((made._leave[s] + weight * made._follows[phone[s], phone[t]], True))
                if not moves:
                    total = -np.inf
                    break
                score, begins = max(moves)
                total += score
                spoken += [phone[t]] * begins
            total += (p - made.log_prior)[range(frames), path].sum()
            if total > best:
                best, want = total, spoken
        assert made.decode(p, weight) == [made.phones[k] for k in want]


def test_the_loop_counts():
    made = loop()
    assert made.phones == ["sil", "a", "b"]
    assert np.exp(made.log_prior).sum() == pytest.approx(1) and np.exp(made._follows).sum(axis=1) == pytest.approx([1, 1, 1])
    assert np.exp(made._leave[0]) == pytest.approx((2 + 1) / (6 + 1))
    assert np.exp(made._follows[1]) == pytest.approx([1 / 9, 4 / 9, 4 / 9])
    with pytest.raises(ValueError, match="side by side"):
        PhoneLoop(["a_1", "b_1", "a_2"], [], [])


def test_phone_error():
    random = np.random.default_rng(0)

    def slow(a, b):
        table = np.zeros((len(a) + 1, len(b) + 1), int)
        for i, j in itertools.product(range(len(a) + 1), range(len(b) + 1)):
            if i and j:
                table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
            else:
                table[i, j] = i + j
        return table[-1, -1]

    for _ in range(50):
        a, b = (list(random.choice(list("abc"), random.integers(0, 8))) for _ in range(2))
        assert distance(a, b) == slow(a, b)
    assert phone_error([(["sil", "a", "b"], ["a", "sil", "b", "b"]), (["a", "a"], ["b", "a"])], "sil") == 50.0
    assert phone_error([], "sil") == 0.0


def test_segments(tmp_path):
    path = tmp_path / "a.mlf"
    path.write_text('#!MLF!#\n"*/x/y.lab"\n0 300000 a_1\n300000 400000 a_2 -1.5 a\n.\n"*/z.lab"\n0 100000 b_1\n.\n')
    assert read_segments(path) == {"x/y": [("a_1", 3), ("a_2", 1)], "z": [("b_1", 1)]}


def test_weights_of_a_mixture():
    random = np.random.default_rng(0)
    p = random.dirichlet([1.0, 2.0, 0.5], 400)
    weights = mixture(p, 500)
    grid = [np.array([a, b, 20 - a - b]) / 20 for a in range(21) for b in range(21 - a)]
    assert weights.sum() == pytest.approx(1)
    assert np.log(p @ weights).sum() >= max(np.log(p @ g + 1e-300).sum() for g in grid) - 1e-3
    assert mixture(np.ones((5, 1))) == pytest.approx([1.0])
