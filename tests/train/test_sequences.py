"""Training on sequences that go on from minibatch to minibatch: what a checkpoint keeps of them."""

import numpy as np
import pytest

import cogkit as C
import cogkit.layers as L
from cogkit.data import CTFDeserializer, MinibatchSource, StreamDef, StreamDefs
from cogkit.data.ctf import write_ctf
from cogkit.errors import ModelFileError

RNG = np.random.default_rng(0)
X = [RNG.standard_normal((24, 3)).astype(np.float32) for _ in range(2)]
Y = [RNG.standard_normal((24, 2)).astype(np.float32) for _ in range(2)]


class Training:
    """A recurrence and a delay of two steps, trained on pieces of four steps."""

    def __init__(self):
        C.set_seed(3)
        self.x, self.y = C.sequence.input_variable(3), C.sequence.input_variable(2)
        self.z = L.Sequential([L.Recurrence(L.LSTM(4)), lambda h: C.sequence.past_value(h, time_step=2), L.Dense(2)])(self.x)
        rate, momentum = C.learning_parameter_schedule(0.01), C.momentum_schedule(0.9)
        self.trainer = C.Trainer(self.z, C.squared_error(self.z, self.y), [C.momentum_sgd(self.z.parameters, rate, momentum)])

    def pieces(self, first, last):
        for i in range(first, last):
            feed = {v: [s[4 * i : 4 * i + 4] for s in data] for v, data in ((self.x, X), (self.y, Y))}
            self.trainer.train_minibatch((feed, [i == 0, i == 0]))
        return [p.value for p in self.z.parameters]


def test_resumed_pieces_are_the_whole_bit_for_bit(tmp_path):
    want = Training().pieces(0, 6)
    first = Training()
    first.pieces(0, 3)
    first.trainer.save_checkpoint(tmp_path / "c")
    again = Training()
    again.trainer.restore_from_checkpoint(tmp_path / "c")
    assert all(np.array_equal(a, b) for a, b in zip(again.pieces(3, 6), want, strict=True))


def test_the_state_matters(tmp_path):
    """Without what is carried on, the next piece gives something else."""
    want = Training().pieces(0, 4)
    cut = Training()
    cut.pieces(0, 3)
    cut.trainer._main.executable.carried.clear()
    with pytest.raises(ValueError, match="expected as many as before where one goes on, got 2, and none before"):
        cut.pieces(3, 4)
    feed = {v: [s[12:16] for s in data] for v, data in ((cut.x, X), (cut.y, Y))}
    cut.trainer.train_minibatch((feed, [True, True]))
    assert not np.array_equal(cut.z.parameters[0].value, want[0])


def test_a_damaged_state_is_refused(tmp_path):
    t = Training()
    t.pieces(0, 2)
    t.trainer.save_checkpoint(tmp_path / "c")
    path = tmp_path / "c.ckp"
    path.write_bytes(path.read_bytes()[:-8])
    before = t.pieces(2, 2)
    with pytest.raises(ModelFileError):
        t.trainer.restore_from_checkpoint(tmp_path / "c")
    assert all(np.array_equal(a, b) for a, b in zip(t.pieces(2, 2), before, strict=True))


def test_pieces_of_a_reader_are_the_whole(tmp_path):
    """Slots of a truncating source run out one by one, and others begin in them."""
    whole = [RNG.standard_normal((n, 2)).astype(np.float32) for n in (11, 3, 7, 15, 2, 9, 4)]
    write_ctf(tmp_path / "x.ctf", [{"x": s} for s in whole])
    x = C.sequence.input_variable(2)
    f = L.Recurrence(L.LSTM(3))(x)
    want = f.eval({x: whole})
    reader = CTFDeserializer(str(tmp_path / "x.ctf"), StreamDefs(x=StreamDef(field="x", shape=2)))
    source = MinibatchSource(reader, max_sweeps=1, randomize=False, truncation_length=4)
    found = {i: [] for i in range(len(whole))}
    while minibatch := source.next_minibatch(12, input_map={x: source.streams.x}):
        for i, y in zip(minibatch[x].sequences, f.eval({x: minibatch[x]}), strict=True):
            found[int(i)].append(y)
    for i, y in enumerate(want):
        np.testing.assert_allclose(np.concatenate(found[i]), y, rtol=1e-5, atol=1e-6)
