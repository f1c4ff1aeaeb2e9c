"""An index that names no row of a table is an error that names the user's node, before anything is updated."""

import math

import numpy as np
import pytest

import cogkit as C
from cogkit.lowering.ir import Graph
from cogkit.op import Type

WRONG = [(5, "5"), (-1, "-1"), (math.nan, "nan"), (16777216, "16777216"), (-0.5, "-0.5"), (math.inf, "inf")]
HERE = r"\(test_indices\.py:\d+\)"


@pytest.fixture(params=["cpu", "reference"])
def engine(request):
    with C.device.use_engine(request.param):
        yield request.param


@pytest.mark.parametrize(("index", "shown"), WRONG)
def test_gather_and_its_gradient(engine, index, shown):
    table, at = C.parameter((5, 3), init=1), C.input_variable(2)
    y = C.gather(table, at, name="table")
    data = np.array([[0, 4], [1, index]], np.float32)
    message = rf"GatherOp 'table' {HERE}: expected indices in \[0, 5\), got {shown}$"
    for use in (lambda: y.eval({at: data}), lambda: y.grad({at: data}, [table])):
        with pytest.raises(ValueError, match=message):
            use()
    assert y.eval({at: [[0, 4.9]]}).shape == (1, 2, 3)  # and once it is mended all is well
    assert y.grad({at: [[0, 4]]}, [table]).sum() == 6


def test_the_first_of_many(engine):
    table, at = C.constant(np.ones((7, 2), "f")), C.input_variable(())
    data = np.zeros(40_000, np.float32)
    data[12_000::7] = 9
    data[11_999] = 8
    with pytest.raises(ValueError, match=r"\[0, 7\), got 8$"):
        C.gather(table, at).eval({at: data})


def test_rows_of_a_one_hot_value_that_is_zero(engine):
    table, at = C.parameter((5, 3), init=1), C.input_variable(())
    y = C.times(C.one_hot(at, 5, sparse_output=True), table)
    data = np.array([0, 5, -1, 4, 4], np.float32)
    assert y.eval({at: data}).sum(axis=1).tolist() == [3, 0, 0, 3, 3]
    assert y.grad({at: data}, [table]).sum(axis=1).tolist() == [3, 0, 0, 0, 6]


def test_inside_a_recurrence(engine):
    table, x = C.constant(np.ones((5, 3), "f"), name="table"), C.sequence.input_variable(1)
    y = C.layers.Recurrence(lambda h, u: h + C.reshape(C.gather(table, C.slice(h, 0, 0, 1) + u, name="inner"), 3))(x)
    with pytest.raises(ValueError, match=rf"GatherOp 'inner' {HERE}: expected indices in \[0, 5\), got 6$"):
        y.eval({x: [np.array([[0], [1], [2], [3]], "f"), np.array([[1]], "f")]})
    assert y.eval({x: [np.array([[0], [1]], "f")]})[0].max() == 2


def test_no_parameter_is_updated(engine):
    table, at = C.parameter((5, 3), init=1), C.input_variable(2)
    loss = C.reduce_sum(C.square(C.gather(table, at)))
    trainer = C.Trainer(loss, (loss, None), [C.sgd(loss.parameters, C.learning_parameter_schedule(0.1))])
    with pytest.raises(ValueError, match=r"\[0, 5\), got 5$"):
        trainer.train_minibatch({at: np.array([[0, 5]], "f")})
    assert (table.value == 1).all()
    trainer.train_minibatch({at: np.array([[0, 1]], "f")})
    assert (table.value[:2] != 1).all() and (table.value[2:] == 1).all()


def test_slices_stay_within_their_axis():
    g = Graph()
    x = g.fill(1.0, Type((4,), np.dtype(np.float32), ()))
    assert g.node("take", [x], axis=0, first=3, stride=-1, count=4).type.shape == (4,)
    assert g.node("take", [x], axis=0, first=9, stride=1, count=0).type.shape == (0,)
    for first, stride, count in [(1, 1, 4), (2, -1, 4), (-1, 1, 1), (0, 2, 3), (0, 1, -1)]:
        with pytest.raises(ValueError, match="within an axis of size 4"):
            g.node("take", [x], axis=0, first=first, stride=stride, count=count)
    for first, stride, size in [(1, 1, 4), (2, -1, 4), (0, 2, 6)]:
        with pytest.raises(ValueError, match="within an axis"):
            g.node("put", [x], axis=0, first=first, stride=stride, size=size)
