"""Minibatches of sequences with labels, for CTC and edit distance: the same bits under cogkit and under CNTK 2.7 (Python 3.6)."""

# ruff: noqa: UP031, B905  (Python 3.6 reads this file too)

import numpy as np

from cases import stream


class Ctc:
    """A minibatch of frames and labels for forward_backward, and its settings.

    density: labels a frame. symbols: classes that labels are drawn from. scale: of the logits. shape: of a sample, if not (classes,).
    """

    def __init__(self, name, lengths, classes=5, blank=None, delay=-1, density=0.4, symbols=None, scale=2.0, shape=None):
        self.name, self.lengths, self.classes, self.delay = name, lengths, classes, delay
        self.blank = classes - 1 if blank is None else blank
        self.shape = shape or (classes,)
        rng = stream("ctc", name)
        drawn = [k for k in range(classes) if k != self.blank][:symbols]
        self.logits = [np.round(scale * rng.uniform(-1, 1, (n, classes)) * 128) / 128 for n in lengths]
        self.starts, self.symbols, self.labels = [], [], []
        for n in lengths:
            symbols_, starts, room = [], [], n
            for t in range(n):
                k = drawn[rng.randint(len(drawn))]
                wanted = 2 if symbols_ and symbols_[-1] == k else 1
                if rng.uniform() < density and wanted <= room - (n > 2):
                    symbols_.append(k)
                    starts.append(t)
                    room -= wanted
            frames = np.zeros((n, classes))
            now = drawn[0]
            for t in range(n):
                if t in starts:
                    now = symbols_[starts.index(t)]
                frames[t, now] = 2 if t in starts else 1
            self.starts.append(starts)
            self.symbols.append(symbols_)
            self.labels.append(frames)

    def feed(self, dtype):
        """Logits and labels as arrays of a sample's shape."""
        shaped = [[np.ascontiguousarray(a, dtype).reshape((len(a),) + self.shape) for a in x] for x in (self.logits, self.labels)]
        return shaped[0], shaped[1]

    def __repr__(self):
        return self.name


CTC = [
    Ctc("ragged", (6, 1, 9, 3)),
    Ctc("blank_first", (6, 1, 9, 3), blank=0),
    Ctc("ones", (1, 1, 1, 1, 1)),
    Ctc("equal", (7, 7, 7)),
    Ctc("long", (2, 300, 1, 40, 7)),
    Ctc("dense_labels", (30, 12, 1), density=0.9),
    Ctc("repeats", (20, 11, 2), symbols=1),
    Ctc("no_labels", (4, 1, 9), density=0.0),
    Ctc("two_classes", (8, 3), classes=2, density=0.3),
    Ctc("far", (12, 5, 1), scale=60.0),
    Ctc("matrix", (6, 2, 1), classes=6, shape=(2, 3)),
    Ctc("delay0", (16, 9, 1), delay=0, density=0.25),
    Ctc("delay_wide", (6, 9, 1), delay=50),
]

SETTINGS = [(1, 1, 1), (2, 1, 1), (1, 3, 1), (0, 1, 1), (1, 1, 1, True), (1, 2, 3, True, [3]), (1, 1, 1, True, [3]), (1, 1, 1, False, [1, 2]),
            (0.5, 2, 3, True, [1]), (3, 1, 2, True, [0]), (1, 1, 0.25), (0, 0, 0)]  # fmt: skip


class Edit:
    """A minibatch of pairs of sequences of equal lengths for edit_distance_error, and its settings."""

    def __init__(self, number):
        rng = stream("edit", number)
        self.arguments = SETTINGS[number % len(SETTINGS)]
        self.lengths = [40] if number < 2 else [1] * 4 if number < 4 else [int(n) for n in rng.randint(1, 9, rng.randint(1, 5))]
        self.a, self.b = ([np.eye(4)[rng.randint(0, 4, n)] for n in self.lengths] for _ in range(2))

    def __repr__(self):
        return "-".join(str(w) for w in self.arguments)


EDITS = [Edit(i) for i in range(60)]
