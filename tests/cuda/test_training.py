"""Training on the CUDA engine: the losses and parameters of the CPU engine, and values that stay on the device until somebody reads them."""

import gc
import threading

import numpy as np
import pytest

import cogkit as C

F4 = np.float32


def data(n, seed=0, shape=(6,), classes=3):
    rng = np.random.RandomState(seed)
    return rng.randn(n, *shape).astype(F4), np.eye(classes, dtype=F4)[rng.randint(0, classes, n)]


def mlp():
    x, y = C.input_variable(6), C.input_variable(3)
    model = C.layers.Sequential([C.layers.Dense(8, activation=C.tanh), C.layers.Dropout(0.3), C.layers.Dense(3)])(x)
    return x, y, model


def train(engine, make, learner, feeds, steps=6):
    """(losses, values of parameters) of some minibatches."""
    with C.device.use_engine(engine):
        C.set_seed(3)
        x, y, model = make()
        criterion = C.cross_entropy_with_softmax(model, y), C.classification_error(model, y)
        trainer = C.Trainer(model, criterion, [learner(model.parameters)])
        losses = []
        for i in range(steps):
            trainer.train_minibatch({x: feeds[i % len(feeds)][0], y: feeds[i % len(feeds)][1]})
            losses.append((trainer.previous_minibatch_loss_average, trainer.previous_minibatch_evaluation_average))
        return np.array(losses), [p.value for p in model.parameters]


def same(make, learner, feeds, steps=6, rtol=2e-4):
    (a, ps), (b, qs) = (train(engine, make, learner, feeds, steps) for engine in ("cuda", "cpu"))
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5)
    for p, q in zip(ps, qs, strict=True):
        np.testing.assert_allclose(p, q, rtol=rtol, atol=2e-5)


LEARNERS = {
    "sgd": lambda p: C.sgd(p, 0.1),
    "momentum": lambda p: C.momentum_sgd(p, 0.1, 0.9, gradient_clipping_threshold_per_sample=0.5),
    "nesterov": lambda p: C.nesterov(p, 0.1, 0.9, l2_regularization_weight=0.01),
    "adam": lambda p: C.adam(p, 0.01, 0.9),
    "adagrad": lambda p: C.adagrad(p, 0.1),
    "rmsprop": lambda p: C.rmsprop(p, 0.01, 0.9, 1.2, 0.7, 10, 1e-3),
    "fsadagrad": lambda p: C.fsadagrad(p, 0.01, 0.9),
    "adadelta": lambda p: C.adadelta(p, 0.5),
    "noise": lambda p: C.sgd(p, 0.1, gaussian_noise_injection_std_dev=0.01),
}


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_learners(name):
    same(mlp, LEARNERS[name], [data(8), data(8, 1), data(5, 2)])


def test_a_learner_in_python_reads_gradients():
    class Halving(C.UserLearner):
        def __init__(self, parameters, lr):
            super().__init__(parameters, lr)

        def update(self, gradient_values, training_sample_count, sweep_end):
            for p, g in gradient_values.items():
                p.value = p.value - 0.1 / training_sample_count * np.asarray(g.asarray() if hasattr(g, "asarray") else g)
            return True

    same(mlp, lambda p: Halving(p, C.learning_parameter_schedule(0.1)), [data(8), data(8, 1)])


def convnet():
    x, y = C.input_variable((3, 8, 8)), C.input_variable(3)
    with C.layers.default_options(activation=C.relu, pad=True):
        model = C.layers.Sequential(
            [
                C.layers.Convolution2D((3, 3), 4),
                C.layers.BatchNormalization(map_rank=1),
                C.layers.MaxPooling((2, 2), (2, 2)),
                C.layers.ResNetBlock(C.layers.Convolution2D((3, 3), 4)),
                C.layers.GlobalAveragePooling(),
                C.layers.Dense(3, activation=None),
            ]
        )(x)
    return x, y, model


def test_a_convolutional_net_with_batch_normalisation():
    feeds = [data(4, i, (3, 8, 8)) for i in range(2)]
    same(convnet, lambda p: C.momentum_sgd(p, 0.05, 0.9), feeds, 4, 1e-3)


def lstm():
    x, y = C.sequence.input_variable(4), C.input_variable(3)
    model = C.layers.Sequential([C.layers.Recurrence(C.layers.LSTM(5)), C.sequence.last, C.layers.Dense(3)])(x)
    return x, y, model


def test_a_recurrent_net():
    rng = np.random.RandomState(0)
    feeds = []
    for lengths in ([3, 1, 5], [2, 2, 4], [3, 1, 5]):
        feeds.append(([rng.randn(n, 4).astype(F4) for n in lengths], np.eye(3, dtype=F4)[rng.randint(0, 3, 3)]))
    same(lstm, lambda p: C.adam(p, 0.01, 0.9), feeds, 6, 1e-3)


def test_values_stay_on_the_device_until_they_are_read(fake):
    """A minibatch moves its feeds there, its loss and metric back, and nothing else."""
    with C.device.use_engine("cuda"):
        C.set_seed(3)
        x, y, model = mlp()
        criterion = C.cross_entropy_with_softmax(model, y), C.classification_error(model, y)
        trainer = C.Trainer(model, criterion, [C.adam(model.parameters, 0.01, 0.9)])
        a, b = data(8)
        for _ in range(5):
            trainer.train_minibatch({x: a, y: b})
        before = fake.counts()
        for _ in range(4):
            trainer.train_minibatch({x: a, y: b})
        after = fake.counts()
        assert after["transfers"] - before["transfers"] == 4 * (2 + 2)
        assert after["launches"] - before["launches"] == 4 * 2  # the headers of two plans
        assert after["graph_launches"] - before["graph_launches"] == 4 * 2
        assert after["live"] == before["live"] and after["bytes"] == before["bytes"]
        w = model.parameters[0].value
        model.parameters[0].value = np.zeros_like(w)  # a value set by the host is there in the next run
        trainer.train_minibatch({x: a, y: b})
        assert not np.array_equal(model.parameters[0].value, w)


def test_a_model_trained_there_is_evaluated_here_and_the_other_way_round(tmp_path):
    C.set_seed(3)
    x, y, model = mlp()
    trainer = C.Trainer(model, C.cross_entropy_with_softmax(model, y), [C.sgd(model.parameters, 0.1)])
    a, b = data(8)
    trainer.train_minibatch({x: a, y: b}, device=None)
    with C.device.use_engine("cuda"):
        there = model.eval({x: a})
    np.testing.assert_allclose(there, model.eval({x: a}), rtol=1e-5, atol=1e-6)
    with C.device.use_engine("cuda"):
        other = C.Trainer(model, C.cross_entropy_with_softmax(model, y), [C.sgd(model.parameters, 0.1)])
        other.train_minibatch({x: a, y: b})
        there = model.eval({x: a})
    np.testing.assert_allclose(there, model.eval({x: a}), rtol=1e-5, atol=1e-6)
    path = tmp_path / "model"
    model.save(str(path))
    np.testing.assert_array_equal(C.load_model(str(path)).parameters[0].value, model.parameters[0].value)


def test_a_checkpoint_of_the_device_resumes_with_the_same_bits(tmp_path):
    def begin():
        C.set_seed(3)
        x, y, model = mlp()
        return x, y, model, C.Trainer(model, C.cross_entropy_with_softmax(model, y), [C.adam(model.parameters, 0.01, 0.9)])

    a, b = data(8)
    with C.device.use_engine("cuda"):
        x, y, model, trainer = begin()
        for _ in range(3):
            trainer.train_minibatch({x: a, y: b})
        trainer.save_checkpoint(str(tmp_path / "c"))
        for _ in range(3):
            trainer.train_minibatch({x: a, y: b})
        want = [p.value for p in model.parameters]
        x, y, model, trainer = begin()
        trainer.restore_from_checkpoint(str(tmp_path / "c"))
        for _ in range(3):
            trainer.train_minibatch({x: a, y: b})
    for p, w in zip(model.parameters, want, strict=True):
        assert p.value.tobytes() == w.tobytes()


def test_plans_of_threads_that_have_ended_are_freed(fake, capfd):
    """What a thread has made may be dropped by another one."""

    def work(kept):
        with C.device.use_engine("cuda"):
            x = C.input_variable(50)
            f = C.layers.Dense(40)(x)
            assert f.eval({x: np.ones((9, 50), F4)}).shape == (9, 40)
            kept.append(f)

    kept, sizes = [], []
    for _ in range(4):
        thread = threading.Thread(target=work, args=(kept,))
        thread.start()
        thread.join()
        kept.clear()
        gc.collect()
        sizes.append(fake.counts()["bytes"])
    assert sizes[-1] <= sizes[1] and "out-of-thread" not in capfd.readouterr().err
