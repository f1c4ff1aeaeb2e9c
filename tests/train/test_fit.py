"""Function.train and Function.test: on arrays, CSR matrices, sequences and sources; what they give back."""

import numpy as np
import pytest
import scipy.sparse

import cogkit as C
import cogkit.layers as L
from cogkit.data import MinibatchSourceFromData
from cogkit.train import DataUnit
from cogkit.train.arrays import ArraySource

R = np.random.RandomState(0)
X = R.randn(50, 2).astype("f")
Y = X.sum(1, keepdims=True)


class Fit:
    """A line through points, (squared error, absolute error)."""

    def __init__(self):
        self.x, self.y = C.input_variable(2, name="x"), C.input_variable(1, name="y")
        self.z = L.Dense(1, init=np.zeros((2, 1), "f"))(self.x)
        self.loss = C.squared_error(self.z, self.y)
        self.criterion = C.combine(self.loss, C.reduce_sum(C.abs(self.z - self.y)))
        self.learner = C.sgd(self.z.parameters, 0.1)

    def train(self, data=(X, Y), **options):
        return self.criterion.train(data, parameter_learners=[self.learner], **options)


# what CNTK 2.7 gives: samples of the updates and of the epochs
COUNTS = {
    "a sweep": ({}, [48], [50]),
    "epochs": ({"max_epochs": 3}, [48] * 3, [50] * 3),
    "an epoch of other size": ({"max_epochs": 2, "epoch_size": 20}, [16, 16], [24, 16]),
    "max_samples": ({"max_samples": 30}, [], [30]),
    "max_samples and epoch_size": ({"max_samples": 100, "epoch_size": 25}, [24, 18, 24, 18], [32, 18, 32, 18]),
    "progress_frequency": ({"max_samples": 100, "progress_frequency": 30}, [24, 18, 24], [32, 34, 24, 10]),
    "a printer's frequency": ({"max_epochs": 2, "callbacks": [C.logging.ProgressPrinter(3)]}, [24, 24] * 2, [50, 50]),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_as_in_cntk(name):
    options, updates, epochs = COUNTS[name]
    got = Fit().train(minibatch_size=8, **options)
    assert [u.samples for u in got.updates] == updates and [e.samples for e in got.epoch_summaries] == epochs


def test_averages():
    """An epoch whose learner hardly moves: the averages over all samples."""
    fit = Fit()
    fit.learner = C.sgd(fit.z.parameters, 1e-12)
    got = fit.train(minibatch_size=8, callbacks=[C.TestConfig((X[:9], Y[:9]), criterion=fit.criterion)])
    assert got.epoch_summaries[0].loss == pytest.approx((Y**2).mean(), rel=1e-5)
    assert got.epoch_summaries[0].metric == pytest.approx(np.abs(Y).mean(), rel=1e-5)
    assert got.updates[0].loss == pytest.approx((Y[:48] ** 2).mean(), rel=1e-5)
    assert got.test_summary.samples == 9 and got.test_summary.metric == pytest.approx(np.abs(Y[:9]).mean(), rel=1e-5)
    assert "test_summary" not in Fit().train()


def test_it_learns_as_a_trainer_does():
    fit, other = Fit(), Fit()
    fit.train(minibatch_size=8, max_epochs=2)
    trainer = C.Trainer(None, other.criterion, [other.learner])
    for _ in range(2):
        for i in range(0, 50, 8):
            trainer.train_minibatch({other.x: X[i : i + 8], other.y: Y[i : i + 8]})
    assert [p.value.tobytes() for p in fit.z.parameters] == [p.value.tobytes() for p in other.z.parameters]
    assert fit.learner.total_number_of_samples_seen() == 100 and fit.learner.total_number_of_sweeps_seen() == 2


def test_a_loss_alone():
    fit = Fit()
    got = fit.loss.train((X, Y), parameter_learners=[fit.learner])
    assert np.isnan(got.epoch_summaries[0].metric) and got.epoch_summaries[0].loss > 0
    test = fit.loss.test((X, Y))
    assert test.metric == pytest.approx(np.mean((X @ fit.z.parameters[0].value + fit.z.parameters[1].value - Y) ** 2), rel=1e-4)
    assert test.samples == 50


def test_the_metric_is_tested():
    fit = Fit()
    lines = []

    class Told(C.logging.ProgressWriter):
        def on_write_test_summary(self, samples, updates, summaries, aggregate_metric, elapsed_milliseconds):
            lines.append((samples, updates, summaries))

    got = fit.criterion.test((X, Y), minibatch_size=C.minibatch_size_schedule([10, 20], 10), callbacks=Told())
    assert got == {"metric": pytest.approx(np.abs(Y).mean(), rel=1e-5), "samples": 50} and lines == [(50, 3, 1)]


def test_a_source():
    fit = Fit()

    def source(**limits):
        return MinibatchSourceFromData({"a": X, "b": Y}, **limits)

    s = source()
    got = fit.train(s, streams=(s.streams.a, s.streams.b), minibatch_size=8, epoch_size=20, max_epochs=2)
    assert [e.samples for e in got.epoch_summaries] == [24, 16]
    s = source(max_samples=50)
    got = Fit().train(s, streams=(s.streams.a, s.streams.b))
    assert [e.samples for e in got.epoch_summaries] == [50], "it ends with the source"
    s = source(max_samples=50)
    assert fit.criterion.test(s, model_inputs_to_streams={fit.x: s.streams.a, fit.y: s.streams.b}).samples == 50


def test_sparse_arrays_and_sequences():
    k, n = 4, 30
    labels = np.eye(k, dtype="f")[R.randint(k, size=n)]
    x, y = C.input_variable(3), C.input_variable(k, is_sparse=True)
    z = L.Dense(k)(x)
    data = (R.randn(n, 3).astype("f"), scipy.sparse.csr_matrix(labels))
    criterion = C.combine(C.cross_entropy_with_softmax(z, y), C.classification_error(z, y))
    got = criterion.train(data, parameter_learners=[C.sgd(z.parameters, 0.1)], max_epochs=2)
    assert [e.samples for e in got.epoch_summaries] == [30, 30]

    x, y = C.sequence.input_variable(3), C.sequence.input_variable(2)
    z = L.Sequential([L.Recurrence(L.LSTM(3)), L.Dense(2)])(x)
    lengths = [5, 2, 9, 4, 4]
    data = [[R.randn(m, d).astype("f") for m in lengths] for d in (3, 2)]
    got = C.squared_error(z, y).train(data, minibatch_size=8, parameter_learners=[C.sgd(z.parameters, 0.01)], max_epochs=2)
    assert [e.samples for e in got.epoch_summaries] == [24, 24]


def test_minibatches_of_arrays():
    x, s = C.input_variable(1, name="x"), C.sequence.input_variable(1, name="s")
    lengths = [5, 2, 9, 4, 4]
    source = ArraySource([x, s], [np.arange(5.0).reshape(5, 1), [np.zeros((m, 1)) for m in lengths]], "here", sweeps=2)
    assert source.samples == 24
    got = []
    while batch := source.get_next_minibatch(8):
        got.append(([int(v[0]) for v in batch[x].asarray()], batch[x].num_samples, batch[x].end_of_sweep))
    assert got == [([0, 1], 7, False), ([2], 9, False), ([3, 4], 8, True)] * 2
    again = ArraySource([x], [np.arange(10.0).reshape(10, 1)], "here")
    again.get_next_minibatch(3)
    state = again.get_checkpoint_state()
    mine = [again.get_next_minibatch(4, 2, r)[x].asarray().ravel().tolist() for r in (0,)]
    again.restore_from_checkpoint(state)
    mine += [again.get_next_minibatch(4, 2, 1)[x].asarray().ravel().tolist()]
    assert mine == [[3, 5], [4, 6]], "ranks share a minibatch"
    with pytest.raises(ValueError, match="it is of other data"):
        again.restore_from_checkpoint({"row": 0, "sweep": 0, "count": 11})


def test_it_goes_on_at_a_checkpoint(tmp_path):
    """Summaries and updates of the run before are there, as if there had been one."""
    whole = Fit()
    want = whole.train(minibatch_size=8, max_epochs=4)
    first = Fit()
    config = C.CheckpointConfig(tmp_path / "c", (5, DataUnit.minibatch))
    count = [0]

    class Stop(C.logging.ProgressWriter):
        def on_write_training_update(self, *told):
            count[0] += 1
            if count[0] == 17:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.train(minibatch_size=8, max_epochs=4, callbacks=[config, Stop(1)])
    again = Fit()
    got = again.train(minibatch_size=8, max_epochs=4, callbacks=[config, Stop(None)])
    assert (
        got.epoch_summaries == want.epoch_summaries
        and again.z.parameters[0].value.tobytes() == whole.z.parameters[0].value.tobytes()
    )


REFUSED = {
    "both": ({"max_samples": 3, "max_epochs": 1}, ValueError, "expected max_epochs or max_samples, got both"),
    "streams": ({"streams": (1, 2)}, ValueError, "expected no streams with arrays"),
    "callback": ({"callbacks": [3]}, TypeError, "as callbacks, got int"),
    "two configs": (
        {"callbacks": [C.CheckpointConfig(None)] * 2},
        ValueError,
        "at most one CheckpointConfig among the callbacks",
    ),
    "size": ({"minibatch_size": None}, TypeError, "as minibatch size, got NoneType"),
    "one array": ({"data": (X,)}, ValueError, "expected 2 arrays, in the order of the criterion's arguments \\(x, y\\), got 1"),
    "lengths": ({"data": (X, Y[:3])}, ValueError, "expected arrays of one length, got 50, 3"),
    "nothing": ({"data": (X[:0], Y[:0])}, ValueError, "expected data, got no row at all"),
    "text": ({"data": (X, "y")}, TypeError, "expected arrays, CSR matrices or lists of sequences, got str"),
    "no streams": (
        {"data": MinibatchSourceFromData({"a": X, "b": Y})},
        ValueError,
        "expected streams or model_inputs.* got neither",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    options, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        Fit().train(**options)


def test_more_refusals():
    fit, source = Fit(), MinibatchSourceFromData({"a": X, "b": Y})
    streams = (source.streams.a, source.streams.b)
    with pytest.raises(ValueError, match="Function.test: expected a source with a limited number of samples"):
        fit.criterion.test(source, streams=streams)
    with pytest.raises(ValueError, match="expected epoch_size with max_epochs"):
        fit.train(source, streams=streams, max_epochs=2)
    with pytest.raises(ValueError, match="expected a source with a limited number of samples or sweeps, got one without end"):
        fit.train(source, streams=streams)
    with pytest.raises(ValueError, match="expected 2 streams, in the order of the arguments \\(x, y\\), got 1"):
        fit.train(source, streams=streams[:1])
    with pytest.raises(TypeError, match="expected progress writers as callbacks, got a CheckpointConfig"):
        fit.criterion.test((X, Y), callbacks=[C.CheckpointConfig(None)])
