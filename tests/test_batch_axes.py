"""Batches made of static axes and back: row spaces of other sizes than what is fed, plans for each number of rows, errors."""

import numpy as np
import pytest

import cogkit as C

F4 = np.float32
both = pytest.mark.parametrize("engine", ["cpu", "reference"])


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(F4)


@both
def test_rows_of_every_number(engine):
    x = C.input_variable((2, 3))
    f = C.to_batch(C.reshape(C.unpack_batch(x), (C.InferredDimension, 3))) * 2.0
    with C.device.use_engine(engine):
        for n in (4, 1, 7, 0, 4):
            a = draw(n, 2, 3)
            np.testing.assert_array_equal(f.eval({x: a}), 2 * a.reshape(-1, 3))


@both
def test_what_is_made_meets_what_is_fed(engine):
    x, w = C.input_variable(3), C.parameter((4, 3), init=draw(4, 3, seed=1))
    f = x * C.to_batch(w)
    a = draw(4, 3)
    with C.device.use_engine(engine):
        np.testing.assert_array_equal(f.eval({x: a}), a * w.value)
        np.testing.assert_array_equal(f.grad({x: a}, [w]), a)
        for n in (3, 5):
            with pytest.raises(ValueError, match=r"operands of one row space, got \[#\] of .* and \[batchOf_4\] of "):
                f.eval({x: draw(n, 3)})
        np.testing.assert_array_equal(f.eval({x: a}), a * w.value)


@both
def test_batches_of_two_sizes_side_by_side(engine):
    a, b = C.parameter((2, 3), init=draw(2, 3)), C.parameter((5, 3), init=draw(5, 3, seed=1))
    f = C.combine(C.to_batch(a) * 2.0, C.to_batch(b) - 1.0, C.to_batch(b) + C.to_batch(b), C.unpack_batch(C.to_batch(a)))
    with C.device.use_engine(engine):
        found = list(f.eval().values())
    for got, want in zip(found, (a.value * 2, b.value - 1, b.value * 2, a.value), strict=True):
        np.testing.assert_array_equal(got, want)


@both
def test_statistics_over_the_batch_as_a_static_axis(engine):
    """A batch normalised by its own mean through unpack_batch, against NumPy; gradients against finite differences."""
    x = C.input_variable(3, dtype=np.float64, needs_gradient=True)
    rows = C.unpack_batch(x)
    f = C.to_batch(rows - C.reduce_mean(rows, axis=0)) * x
    a = draw(5, 3).astype(np.float64)
    with C.device.use_engine(engine):
        np.testing.assert_allclose(f.eval({x: a}), (a - a.mean(0)) * a, rtol=1e-12)
        slope = f.grad({x: a})
        h, v = 1e-6, draw(5, 3, seed=2).astype(np.float64)
        found = (f.eval({x: a + h * v}).sum() - f.eval({x: a - h * v}).sum()) / (2 * h)
    np.testing.assert_allclose(found, (slope * v).sum(), rtol=1e-6)


@both
def test_sequences_of_a_batch_that_was_made(engine):
    """Words of sentences: a batch of sentences becomes one of words, is run, and becomes sequences again."""
    x = C.input_variable((4, 3))
    words = C.to_batch(C.reshape(C.unpack_batch(x), (C.InferredDimension, 3)))
    w = C.parameter((3, 2), init=draw(3, 2, seed=3))
    back = C.to_batch(C.reshape(C.unpack_batch(C.tanh(C.times(words, w))), (C.InferredDimension, 4, 2)))
    last = C.sequence.last(C.sequence.past_value(C.to_sequence(back)))
    a = draw(5, 4, 3)
    with C.device.use_engine(engine):
        np.testing.assert_allclose(last.eval({x: a}), np.tanh(a @ w.value)[:, 2], rtol=1e-5, atol=1e-6)


def test_training_with_minibatches_of_other_sizes():
    x, y = C.input_variable(3), C.input_variable(2)
    z = C.to_batch(C.unpack_batch(C.layers.Dense(2)(x)))
    loss = C.squared_error(z, y)
    plain = C.layers.Dense(2)
    other = C.squared_error(plain(x), y)
    for p, q in zip(plain.parameters, z.parameters, strict=True):
        p.value = q.value
    rate = C.learning_parameter_schedule(0.1)
    trainers = [C.Trainer(m, m, [C.sgd(m.parameters, rate)]) for m in (loss, other)]
    for n in (4, 2, 4, 7):
        feed = {x: draw(n, 3, seed=n), y: draw(n, 2, seed=n + 1)}
        for t in trainers:
            t.train_minibatch(feed)
        assert trainers[0].previous_minibatch_sample_count == n
        np.testing.assert_allclose(
            trainers[0].previous_minibatch_loss_average, trainers[1].previous_minibatch_loss_average, rtol=1e-6
        )
    for p, q in zip(loss.parameters, other.parameters, strict=True):
        np.testing.assert_allclose(p.value, q.value, rtol=1e-5, atol=1e-6)


@both
def test_eye_of_every_number_of_rows(engine):
    x = C.input_variable(4)
    with C.device.use_engine(engine):
        for n in (3, 4, 6, 0, 3):
            np.testing.assert_array_equal(C.eye_like(x).eval({x: draw(n, 4)}), np.eye(n, 4))


def test_a_model_with_batches_made_is_saved_and_loaded(tmp_path):
    x = C.input_variable((2, 3), name="x")
    f = C.to_batch(C.reshape(C.unpack_batch(x), (C.InferredDimension, 3))) * C.parameter(3, init=2.0)
    f.save(str(tmp_path / "m"))
    a = draw(3, 2, 3)
    np.testing.assert_array_equal(C.load_model(str(tmp_path / "m")).eval({"x": a}), f.eval({x: a}))
