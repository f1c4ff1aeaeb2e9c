"""Learners of the user's own, and several learners in one trainer."""

import numpy as np
import pytest

import cogkit as C

F4 = np.float32


class Line:
    """A linear model with a squared error."""

    def __init__(self):
        self.x, self.y = C.input_variable(2), C.input_variable(1)
        self.w, self.b = C.parameter((2, 1), init=1, name="w"), C.parameter((1,), init=1, name="b")
        self.z = C.times(self.x, self.w) + self.b
        self.loss = C.squared_error(self.z, self.y)

    def train(self, learners, steps=5, trainer=None):
        trainer = trainer or C.Trainer(self.z, self.loss, learners)
        rng, path = np.random.RandomState(0), []
        for _ in range(steps):
            trainer.train_minibatch({self.x: rng.randn(3, 2).astype(F4), self.y: rng.randn(3, 1).astype(F4)})
            path.append([*self.w.value.ravel(), *self.b.value])
        return trainer, np.array(path)


class Descent(C.UserLearner):
    """Gradient descent with momentum, in NumPy."""

    def __init__(self, parameters, lr, momentum=0.0, **named):
        super().__init__(parameters, lr, **named)
        self.momentum = momentum
        self.velocity = {p: np.zeros(p.shape, p.dtype) for p in parameters}
        self.seen = []

    def update(self, gradient_values, training_sample_count, sweep_end):
        self.seen.append((gradient_values, training_sample_count, sweep_end))
        for p, g in gradient_values.items():
            v = self.velocity[p]
            v[...] = self.momentum * v + np.asarray(g.asarray() if hasattr(g, "asarray") else g) / training_sample_count
            p.value = p.value - self.learning_rate() * v
        return True

    def state(self):
        return {f"velocity of {p.name}": v for p, v in self.velocity.items()}


def test_several_learners_as_cntk():
    """Values recorded from CNTK 2.7: each parameter has a rule, a rate and a schedule of its own."""
    line = Line()
    decay = C.learning_parameter_schedule([0.01, 0.001], epoch_size=6)
    learners = [
        C.momentum_sgd([line.w], C.learning_parameter_schedule(0.1), C.momentum_schedule(0.9)),
        C.adam([line.b], decay, C.momentum_schedule(0.8)),
    ]
    _, path = line.train(learners)
    want = [
        [0.9206209778785706, 0.9417818784713745, 0.9966689348220825],
        [0.8294475078582764, 0.8752254843711853, 0.9936032295227051],
        [0.760581910610199, 0.8063715100288391, 0.9933779239654541],
        [0.6773383021354675, 0.70258629322052, 0.9931058883666992],
        [0.5613824129104614, 0.5692614316940308, 0.9928482174873352],
    ]
    np.testing.assert_allclose(path, want, rtol=1e-5)  # CNTK rounds 1 - variance momentum to float32


def test_a_rate_for_each_parameter():
    """Two rates of one rule are two learners; they are as two trainings of which the other parameter is copied."""
    line = Line()
    _, path = line.train([C.sgd([line.w], 0.3), C.sgd([line.b], 0.01)], 1)
    for parameters, rate, columns in (("w", 0.3, slice(0, 2)), ("b", 0.01, slice(2, 3))):
        other = Line()
        with pytest.warns(UserWarning, match="no learner for 1 parameters"):
            _, alone = other.train([C.sgd([getattr(other, parameters)], rate)], 1)
        np.testing.assert_array_equal(path[:, columns], alone[:, columns])


def test_user_and_built_in_learners_together():
    mine, theirs = Line(), Line()
    learner = Descent([mine.w], 0.1, 0.9)
    trainer, a = mine.train([learner, C.sgd([mine.b], 0.05)])
    _, b = theirs.train([C.momentum_sgd([theirs.w], 0.1, 0.9, unit_gain=False), C.sgd([theirs.b], 0.05)])
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert trainer.total_number_of_samples_seen == 15 and [n for _, n, _ in learner.seen] == [3] * 5


def test_schedules_go_on():
    line = Line()
    learner = Descent([line.w, line.b], C.learning_parameter_schedule([0.5, 0.25], epoch_size=6))
    rates = []
    for _ in range(4):
        line.train(None, 1, C.Trainer(line.z, line.loss, [learner]))
        rates.append(learner.learning_rate())
    assert rates == [0.5, 0.25, 0.25, 0.25]  # the rate for the next minibatch


@pytest.mark.parametrize("as_numpy", [True, False])
def test_gradients_may_be_kept(as_numpy):
    line = Line()
    learner = Descent([line.w, line.b], 0.1, as_numpy=as_numpy)
    line.train([learner])
    kept = [g[line.w] for g, _, _ in learner.seen]
    assert all(isinstance(g, np.ndarray if as_numpy else C.NDArrayView) and g.shape == (2, 1) for g in kept)
    arrays = [np.asarray(g if as_numpy else g.asarray()) for g in kept]
    assert len({a.tobytes() for a in arrays}) == 5  # no later run writes over them


def test_checkpoints(tmp_path):
    whole = Line()
    whole.train([Descent([whole.w, whole.b], 0.1, 0.9)], 3)
    line = Line()
    trainer, _ = line.train([Descent([line.w, line.b], 0.1, 0.9)], 3)
    trainer.save_checkpoint(tmp_path / "saved")
    _, a = line.train(None, 3, trainer)
    other = Line()
    again = C.Trainer(other.z, other.loss, [Descent([other.w, other.b], 0.1, 0.9)])
    again.restore_from_checkpoint(tmp_path / "saved")
    assert again.total_number_of_samples_seen == 9
    _, b = other.train(None, 3, again)
    np.testing.assert_array_equal(a, b)

    class Different(Descent):
        pass

    with pytest.raises(C.ModelFileError, match="a learner with class 'Different', got 'Descent'"):
        C.Trainer(other.z, other.loss, [Different([other.w, other.b], 0.1)]).restore_from_checkpoint(tmp_path / "saved")


def test_a_learner_ends_the_training():
    class Ends(Descent):
        def update(self, *args):
            super().update(*args)
            return len(self.seen) < 2

    line = Line()
    trainer = C.Trainer(line.z, line.loss, [Ends([line.w, line.b], 0.1)])
    feed = {line.x: np.ones((1, 2), F4), line.y: np.ones((1, 1), F4)}
    assert [trainer.train_minibatch(feed) for _ in range(2)] == [True, False]


def test_wrong_uses():
    line = Line()

    class Forgets(C.UserLearner):
        def update(self, gradient_values, training_sample_count, sweep_end):
            pass

    with pytest.raises(TypeError, match="Forgets: expected update to give whether learning goes on, got None"):
        line.train([Forgets([line.w, line.b], 0.1)])
    with pytest.raises(NotImplementedError, match="expected a class of yours that has update"):
        line.train([C.UserLearner([line.w, line.b], 0.1)])
    with pytest.raises(ValueError, match="one learner for each parameter, got two"):
        C.Trainer(line.z, line.loss, [C.sgd([line.w, line.b], 0.1), Descent([line.b], 0.1)])
    with pytest.raises(ValueError, match="learners of the model's parameters"):
        C.Trainer(line.z, line.loss, [Descent([C.parameter(3)], 0.1)])


def test_universal_with_state_as_the_built_in_rule():
    """Momentum as a graph: the velocity is a constant that is assigned; it is kept in checkpoints."""
    mine, theirs = Line(), Line()

    def rule(parameters, gradients):
        updates = []
        for p, g in zip(parameters, gradients, strict=True):
            v = C.constant(0, shape=p.shape, name="velocity")
            new = 0.9 * v + g / 3
            updates += [C.assign(v, new), C.assign(p, p - 0.1 * new)]
        return C.combine(updates)

    trainer, a = mine.train([C.universal(rule, [mine.w, mine.b])])
    _, b = theirs.train([C.momentum_sgd([theirs.w, theirs.b], 0.1, 0.9, unit_gain=False)])
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    arrays = trainer.parameter_learners[0].create_checkpoint()["arrays"]
    assert sorted(v.shape for v in arrays.values()) == [(1,), (2, 1)] and all(v.any() for v in arrays.values())
