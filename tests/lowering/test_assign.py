"""Assignments: everything else in the graph sees the value from before, whoever writes, in whatever order steps run."""

import numpy as np
import pytest

import cogkit as C
from cogkit.engine.executable import Executable

F4 = np.float32


def variables(*arrays):
    return [C.parameter(np.shape(a), init=np.asarray(a, F4)) for a in arrays]


def run(effects, outputs=(), sums=(), feeds=None, engine="cpu"):
    e = Executable(
        [v.output if hasattr(v, "output") else v for v in outputs],
        list(sums),
        effects_of=[f.output for f in effects],
        engine=engine,
    )
    return e.run(feeds or {})


both = pytest.mark.parametrize("engine", ["cpu", "reference"])


@both
def test_a_wanted_variable_is_the_old_one(engine):
    (p,) = variables([1, 2, 3])
    before, view = run([C.assign(p, p * 10.0)], [p, C.reshape(p, (3, 1))], engine=engine)
    assert before.tolist() == [1, 2, 3] and view.tolist() == [[1], [2], [3]]
    assert p.value.tolist() == [10, 20, 30]


@both
def test_two_variables_swap(engine):
    p, q = variables([1, 2, 3], [4, 5, 6])
    run([C.assign(p, q), C.assign(q, p)], engine=engine)
    assert p.value.tolist() == [4, 5, 6] and q.value.tolist() == [1, 2, 3]


@both
def test_three_variables_move_round_beside_a_computed_one(engine):
    p, q, r = variables([1, 2], [3, 4], [[5], [6]])
    run([C.assign(p, q), C.assign(q, C.reshape(r, (2,))), C.assign(r, C.reshape(p * 2.0, (2, 1)))], engine=engine)
    assert p.value.tolist() == [3, 4] and q.value.tolist() == [5, 6] and r.value.tolist() == [[2], [4]]


@both
def test_a_copy_is_of_the_value_before_the_update(engine):
    p, q = variables([1, 2], [0, 0])
    run([C.assign(p, p + 1.0), C.assign(q, p)], engine=engine)
    assert p.value.tolist() == [2, 3] and q.value.tolist() == [1, 2]


@both
@pytest.mark.parametrize("late", [False, True])
def test_the_last_of_several_assignments_counts(engine, late):
    p, q = variables([1, 2], [7, 7])
    deep = C.reduce_sum(C.exp(q * 0.0)) * p  # some steps later than the other
    first, second = (p + 1.0, deep) if late else (deep, p + 1.0)
    a = C.assign(p, first)
    b = C.assign(p, second)
    got = run([a, b], [a, b], engine=engine)
    assert p.value.tolist() == ([2, 4] if late else [2, 3])
    assert got[0].tolist() == ([2, 3] if late else [2, 4]) and got[1].tolist() == p.value.tolist()


@both
def test_running_statistics_of_a_layer_applied_twice(engine):
    x = C.input_variable((3, 4))
    layer = C.layers.BatchNormalization(map_rank=1)
    z = layer(C.reshape(layer(x), (3, 4)) * 2.0 + 1.0)
    rng = np.random.RandomState(0)
    e = Executable([z.output], training=True, engine=engine)
    e.run({x: rng.randn(5, 3, 4).astype(F4)})
    running = [v.value for v in z.constants if v.shape]
    assert any(abs(np.mean(v) - 1) < 1e-5 for v in running), running  # the mean of what the second one sees


@both
def test_the_sum_of_a_variable_beside_its_update(engine):
    (p,) = variables(np.arange(1000))
    total, square = run([C.assign(p, p * 0.5)], sums=[p, C.square(p).output], engine=engine)
    assert total == 499500 and abs(square - 332833500) < 100
    assert p.value[10] == 5


@both
def test_the_value_of_an_assignment_is_read_on(engine):
    p, q = variables([1, 2], [3, 4])
    a = C.assign(p, q * 2.0)
    out, again = run([a], [a + p, C.exp(a)], engine=engine)
    assert out.tolist() == [7, 10] and np.allclose(again, np.exp([6, 8]))
    assert p.value.tolist() == [6, 8]


@both
def test_a_matrix_that_is_read_by_a_product_and_written(engine):
    (w,) = variables(np.eye(4) * 2)
    x = C.input_variable(4)
    y = C.times(x, w)
    feeds = {x: np.ones((3, 4), F4)}
    e = Executable([y.output], effects_of=[C.assign(w, w * 3.0).output], engine=engine)
    assert e.run(feeds)[0].tolist() == [[2] * 4] * 3
    assert e.run(feeds)[0].tolist() == [[6] * 4] * 3


@both
def test_a_transposed_update_does_not_read_what_it_wrote(engine):
    (w,) = variables(np.arange(9).reshape(3, 3))
    run([C.assign(w, C.transpose(w, (1, 0)) + 0.0 * w)], engine=engine)
    assert w.value.tolist() == np.arange(9).reshape(3, 3).T.tolist()


@both
def test_a_broadcast_of_the_variable_itself(engine):
    (w,) = variables(np.arange(1, 4).reshape(3, 1))
    run([C.assign(w, w / C.reduce_sum(w, 0))], engine=engine)
    np.testing.assert_allclose(w.value.ravel(), np.arange(1, 4) / 6, rtol=1e-6)


@both
def test_a_variable_becomes_a_sum_over_what_it_scales(engine):
    (p,) = variables(np.arange(1, 6))
    x = C.input_variable(5)
    data = np.random.RandomState(0).rand(300, 5).astype(F4)
    run([C.assign(p, C.reduce_sum(x * p, C.Axis.default_batch_axis()))], feeds={x: data}, engine=engine)
    np.testing.assert_allclose(p.value, data.sum(0) * np.arange(1, 6), rtol=1e-5)


@both
def test_a_sum_is_written_to_a_variable(engine):
    (p,) = variables(np.zeros((4, 5)))
    x = C.input_variable((4, 5))
    data = np.random.RandomState(0).rand(300, 4, 5).astype(F4)
    run([C.assign(p, C.reduce_sum(C.exp(x), C.Axis.default_batch_axis()))], feeds={x: data}, engine=engine)
    np.testing.assert_allclose(p.value, np.exp(data).sum(0), rtol=1e-5)


def test_many_updates_are_one_call_and_read_no_neighbour():
    ps = variables(*[np.full(5, i, F4) for i in range(6)])
    ring = [C.assign(p, p * 0.5 + q) for p, q in zip(ps, ps[1:] + ps[:1], strict=True)]
    run(ring)
    assert [p.value[0] for p in ps] == [0 * 0.5 + 1, 0.5 + 2, 1 + 3, 1.5 + 4, 2 + 5, 2.5 + 0]


@both
def test_forward_for_backward_leaves_the_writing_to_backward(engine):
    """As in CNTK: what backward needs is still there. The gradient goes on to what is assigned, not to the target."""
    p, q = variables([0, 0, 0], [1, 2, 3])
    f = C.assign(p, q * q) * 2.0
    with C.device.use_engine(engine):
        state, values = f.forward({}, [f.output], {f.output})
        assert values[f.output].tolist() == [2, 8, 18] and p.value.tolist() == [0, 0, 0]
        gradients = f.backward(state, {f.output: np.ones(3, F4)}, {p, q})
        assert p.value.tolist() == [1, 4, 9]
        assert gradients[q].tolist() == [4, 8, 12] and gradients[p].tolist() == [0, 0, 0]
        p.value = np.zeros(3, F4)
        f.forward({}, [f.output])
        assert p.value.tolist() == [1, 4, 9]


@both
def test_everything_is_written_once(engine):
    """Running statistics beside an assignment of the user's: one forward and backward move both once."""
    x = C.input_variable(3)
    (p,) = variables([0, 0, 0])
    norm = C.layers.BatchNormalization()(x)
    f = C.combine(norm, norm + C.assign(p, p + 1.0))
    count = next(c for c in f.constants if c.name == "aggregate_count")
    with C.device.use_engine(engine):
        feed = {x: np.arange(12, dtype=F4).reshape(4, 3)}
        state, values = f.forward(feed, f.outputs, {f.outputs[1]})
        assert p.value.tolist() == [0, 0, 0]
        f.backward(state, {f.outputs[1]: np.ones((4, 3), F4)}, {p})
    assert p.value.tolist() == [1, 1, 1] and count.value == 4
