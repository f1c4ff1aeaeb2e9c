"""Checkpoints of learners that make up for rows later: writing one changes no later bit, and a training that goes on at it gives the same bits."""

import numpy as np
import pytest
import scipy.sparse

import cogkit as C
import cogkit.layers as L
from cogkit.errors import ModelFileError

WORDS = 40


def net(learner):
    C.set_seed(1)
    x, y = C.input_variable(WORDS, is_sparse=True), C.input_variable(3)
    z = L.Sequential([L.Embedding(4), L.Dense(3)])(x)
    trainer = C.Trainer(z, (C.cross_entropy_with_softmax(z, y), C.classification_error(z, y)), [learner(z.parameters)])
    return z, x, y, trainer


def feed(x, y, number):
    rng = np.random.default_rng(number)
    rows = scipy.sparse.csr_matrix((np.ones(6, np.float32), (np.arange(6), rng.integers(0, WORDS, 6))), shape=(6, WORDS))
    return {x: rows, y: np.eye(3, dtype=np.float32)[rng.integers(0, 3, 6)]}


def go_on(z, x, y, trainer, first, last):
    for i in range(first, last):
        trainer.train_minibatch(feed(x, y, i))
        if i % 7 == 6:
            z.eval({x: feed(x, y, 100 + i)[x]})  # reads some rows


RATE, MOMENTUM = C.learning_parameter_schedule(0.05), C.momentum_schedule(0.9)
LEARNERS = {
    "momentum": lambda p: C.momentum_sgd(p, RATE, MOMENTUM),
    "nesterov": lambda p: C.nesterov(p, RATE, MOMENTUM),
    "adam": lambda p: C.adam(p, RATE, MOMENTUM),
    "adamax": lambda p: C.adam(p, RATE, MOMENTUM, adamax=True),
    "fsadagrad": lambda p: C.fsadagrad(p, RATE, MOMENTUM),
    "adadelta": lambda p: C.adadelta(p, RATE),
}


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
def test_the_same_bits_with_and_without_a_checkpoint(learner, tmp_path):
    z, x, y, trainer = net(learner)
    go_on(z, x, y, trainer, 0, 24)
    want = [p.value for p in z.parameters]
    for stop in (1, 4, 7, 12):
        z, x, y, trainer = net(learner)
        go_on(z, x, y, trainer, 0, stop)
        trainer.save_checkpoint(str(tmp_path / "model"))
        go_on(z, x, y, trainer, stop, 24)
        assert all(np.array_equal(p.value, w) for p, w in zip(z.parameters, want, strict=True)), f"written at {stop}"
        z, x, y, trainer = net(learner)
        trainer.restore_from_checkpoint(str(tmp_path / "model"))
        go_on(z, x, y, trainer, stop, 24)
        assert all(np.array_equal(p.value, w) for p, w in zip(z.parameters, want, strict=True)), f"taken up at {stop}"


def test_the_model_of_a_checkpoint_is_up_to_date(tmp_path):
    z, x, y, trainer = net(LEARNERS["adam"])
    go_on(z, x, y, trainer, 0, 5)
    trainer.save_checkpoint(str(tmp_path / "model"))
    saved = C.load_model(str(tmp_path / "model"))
    want = {p.name: p.value for p in z.parameters}
    for f in saved.parameters:
        if f.name == "E":
            assert np.array_equal(f.value, want["E"])


def test_rows_of_another_size_are_refused():
    z, x, y, trainer = net(LEARNERS["adam"])
    go_on(z, x, y, trainer, 0, 3)
    learner = trainer.parameter_learners[0]
    state = learner.create_checkpoint()
    name = next(n for n in state["arrays"] if n.endswith("/last"))
    for broken in (np.zeros(WORDS - 1), np.full(WORDS, 99.0), np.full(WORDS, -1.0)):
        with pytest.raises(ModelFileError, match="rows of .* that are behind"):
            learner.restore_from_checkpoint({**state, "arrays": {**state["arrays"], name: broken}})
