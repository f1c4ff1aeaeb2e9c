"""Distributed learners against CNTK 2.7 on two ranks, see tests/goldens/make_parallel_goldens.py."""

from pathlib import Path

import numpy as np
import pytest
from cases.ranks import AFTER, CASES, KEPT, ROWS, STEPS, WIDTH, data, start

import cogkit as C
from cogkit.parallel import current_world, simulate

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "parallel.npz")


def train(name):
    """The matrix after each minibatch, columns as recorded."""
    make, local = CASES[name]
    x, y = C.input_variable(ROWS), C.input_variable(WIDTH)
    w = C.parameter((ROWS, WIDTH), init=start())
    z = C.times(x, w)
    loss = C.squared_error(z, y)
    trainer = C.Trainer(z, (loss, loss), [make(C, local(C, [w]))])
    values = []
    for i in range(STEPS):
        a, b = data(i, current_world().rank if trainer.total_number_of_samples_seen >= AFTER.get(name, 0) else 0)
        trainer.train_minibatch({x: a, y: b})
        values.append(w.value[:, ::KEPT])
    return np.array(values)


@pytest.mark.parametrize("name", sorted(CASES))
def test_as_cntk_on_two_ranks(name):
    ours = simulate(lambda: train(name), 2)[0]
    assert ours == pytest.approx(GOLDENS[name], abs=2e-6)
    assert set(GOLDENS.files) == set(CASES)
