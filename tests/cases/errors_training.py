"""Wrong uses of trainers, sessions and progress writers: (name, use, its words, kind), rows of `test_errors`."""

import os

import numpy as np

import cogkit as C
import cogkit.layers as L
from cogkit.train import DataUnit

WRONG = []


def wrong(name, use, message, kind=ValueError):
    WRONG.append((name, use, message, kind))


x, y = C.input_variable(2, name="x"), C.input_variable(1, name="y")
z = L.Dense(1, name="line")(x)
loss, metric = C.squared_error(z, y), C.classification_error(z, y)
criterion = C.combine(loss, metric)
learner = C.sgd(z.parameters, 0.1)
trainer = C.Trainer(z, (loss, metric), [learner])
blind = C.Trainer(z, loss, [learner])
X, Y = np.ones((4, 2), "f"), np.ones((4, 1), "f")


def source(**limits):
    return C.io.MinibatchSourceFromData({"a": X, "b": Y}, **(limits or {"max_samples": 8}))


data = source()
streams = {x: data.streams.a, y: data.streams.b}


def read():
    """A minibatch of the source by input."""
    batch = source().get_next_minibatch(2)
    return {v: batch[s] for v, s in streams.items()}


def session(trainer=trainer, data=data, size=2, streams=streams, **options):
    return C.training_session(trainer, data, size, streams, **options)


def fit(data=(X, Y), **options):
    return criterion.train(data, parameter_learners=[learner], **options)


UNITS = "write C.train.DataUnit.minibatch or sweep for other units"

# fmt: off - a row is a name, the use on one line, its words
# ------------------------------------------------------------------------------------------------------------------- sessions
wrong("session, no trainer", lambda: session(None),
      "training_session: expected a trainer, got NoneType; make one with C.Trainer(...)", TypeError)
wrong("session, arrays", lambda: session(data=(X, Y)),
      "training_session: expected a minibatch source as mb_source, got tuple; arrays go to Function.train", TypeError)
wrong("session, no streams", lambda: session(streams={}),
      "training_session: expected a dict from inputs to streams of the source, got an empty one")
wrong("session, a list of streams", lambda: session(streams=[data.streams.a]),
      "training_session: expected a dict from inputs to streams of the source, got list")
wrong("session, streams of another source", lambda: session(streams={x: "c", y: data.streams.b}, data=source()).train(),
      "training_session: expected streams of the source (a, b), got 'c'")
wrong("session without end", lambda: session(data=source(max_samples=C.io.INFINITELY_REPEAT)),
      "training_session: expected a source with a limited number of samples or sweeps, got one without end; "
      "give max_samples here or to the source")
wrong("session of no samples", lambda: session(max_samples=0),
      "training_session: expected max_samples of at least 1, got 0; leave it out for no limit")
wrong("session of half a sample", lambda: session(max_samples=2.5),
      "training_session: expected a whole number of samples as max_samples, got 2.5", TypeError)
wrong("minibatch of no samples", lambda: session(size=0),
      "minibatch_size_schedule: expected sizes, or (count, size) pairs, of at least 1, got 0")
wrong("minibatch of a text", lambda: session(size="4"),
      "training_session: expected a whole number or C.minibatch_size_schedule(...) as minibatch size, got str", TypeError)
wrong("no minibatch size", lambda: C.minibatch_size_schedule([]),
      "schedule: expected at least one value, got an empty list; give a number or a list of values")
wrong("pair of sizes turned round", lambda: C.minibatch_size_schedule([(0, 4)]),
      "minibatch_size_schedule: expected sizes, or (count, size) pairs, of at least 1, got [(0, 4)]")
wrong("frequency of a word", lambda: session(progress_frequency=(3, "minibatch")),
      "training_session: expected a frequency of 0 or more samples, or (count, DataUnit), got (3, 'minibatch'); " + UNITS)
wrong("frequency below 0", lambda: C.CrossValidationConfig(None, -1),
      f"CrossValidationConfig: expected a frequency of 0 or more samples, or (count, DataUnit), got -1; {UNITS}")
wrong("frequency of halves", lambda: C.CheckpointConfig("c", (0.5, DataUnit.sweep)),
      f"CheckpointConfig: expected a frequency of 0 or more samples, or (count, DataUnit), got (0.5, {DataUnit.sweep!r}); {UNITS}")
wrong("configs in each other's place", lambda: session(cv_config=C.CheckpointConfig(None)),
      "training_session: expected a CrossValidationConfig, got CheckpointConfig", TypeError)
# -------------------------------------------------------------------------------------------------------------------- configs
wrong("checkpoints nowhere", lambda: C.CheckpointConfig(None, 10),
      "CheckpointConfig: expected a filename with a frequency, got none; say where checkpoints lie")
wrong("checkpoints in no folder", lambda: session(checkpoint_config=C.CheckpointConfig(os.path.join("no", "folder", "c"), 10)),
      f"CheckpointConfig: expected a folder {os.path.join('no', 'folder')}, got none; make it first", FileNotFoundError)
wrong("a callback that is none", lambda: C.CrossValidationConfig(None, 10, callback=3),
      "CrossValidationConfig: expected a function as callback, got int", TypeError)
wrong("arrays without a criterion", lambda: C.CrossValidationConfig((X, Y), 10),
      "CrossValidationConfig: expected a criterion with arrays, got none; pass criterion=(the function that is trained)")
wrong("arrays and streams", lambda: C.TestConfig((X, Y), criterion=criterion, model_inputs_to_streams=streams),
      "TestConfig: expected no streams with arrays, which are in the order of the criterion's arguments; leave them out")
wrong("a test of nothing", lambda: C.TestConfig(None),
      "TestConfig: expected a minibatch source, got none; leave the config out for no test")
wrong("a test of a number", lambda: C.TestConfig(3),
      "TestConfig: expected a minibatch source, or a tuple of arrays, got int", TypeError)
wrong("a test without end", lambda: session(test_config=C.TestConfig(source(max_samples=C.io.INFINITELY_REPEAT))),
      "TestConfig: expected a source with a limited number of samples or sweeps, got one without end; "
      "give max_samples or max_sweeps to the source")
wrong("a test without a metric", lambda: session(blind, test_config=C.TestConfig(source())),
      "TestConfig: expected a trainer with a metric, got one without; give it criterion=(loss, metric)")
# ------------------------------------------------------------------------------------------------------------ Function.train
wrong("two limits", lambda: fit(max_epochs=2, max_samples=9),
      "Function.train: expected max_epochs or max_samples, got both; they say the same")
wrong("one array of two", lambda: fit((X,)),
      "Function.train: expected 2 arrays, in the order of the criterion's arguments (x, y), got 1")
wrong("arrays of two lengths", lambda: fit((X, Y[:3])), "Function.train: expected arrays of one length, got 4, 3")
wrong("arrays of nothing", lambda: fit((X[:0], Y[:0])), "Function.train: expected data, got no row at all")
wrong("an array that is none", lambda: fit((X, "y")),
      "Function.train: expected arrays, CSR matrices or lists of sequences, got str", TypeError)
wrong("streams with arrays", lambda: fit(streams=(1, 2)),
      "Function.train: expected no streams with arrays, which are in the order of the arguments; leave them out")
wrong("a source without streams", lambda: fit(source()),
      "Function.train: expected streams or model_inputs_to_streams with a minibatch source, got neither")
wrong("one stream of two", lambda: fit(source(), streams=(data.streams.a,)),
      "Function.train: expected 2 streams, in the order of the arguments (x, y), got 1")
wrong("epochs of no size", lambda: fit(source(), model_inputs_to_streams=streams, max_epochs=2),
      "Function.train: expected epoch_size with max_epochs and a minibatch source, got none; say how many samples it has")
wrong("a callback of no kind", lambda: fit(callbacks=[print]),
      "Function.train: expected progress writers, CheckpointConfig, CrossValidationConfig or TestConfig as callbacks, "
      "got builtin_function_or_method", TypeError)
wrong("two checkpoint configs", lambda: fit(callbacks=[C.CheckpointConfig(None), C.CheckpointConfig(None)]),
      "Function.train: expected at most one CheckpointConfig among the callbacks, got two")
wrong("no learner to train with", lambda: criterion.train((X, Y)),
      "Trainer: expected at least one learner, got none; for testing alone use Evaluator")
wrong("tested without end", lambda: criterion.test(source(max_samples=C.io.INFINITELY_REPEAT), model_inputs_to_streams=streams),
      "Function.test: expected a source with a limited number of samples or sweeps, got one without end")
wrong("tested with a config", lambda: criterion.test((X, Y), callbacks=[C.CheckpointConfig(None)]),
      "Function.test: expected progress writers as callbacks, got a CheckpointConfig", TypeError)
# ----------------------------------------------------------------------------------------------------------- progress writers
wrong("lines of -1", lambda: C.logging.ProgressPrinter(-1),
      "ProgressPrinter: expected freq of 0 or more minibatches, or None, got -1")
wrong("picture of two axes", lambda: C.logging.TensorBoardProgressWriter(rank=1).write_image("x", X, 1),
      "write_image: expected an array (N, 1, 3 or 4 channels, height, width), got one of shape (4, 2)")
wrong("graph of a number", lambda: C.logging.TensorBoardProgressWriter(model=3),
      "TensorBoardProgressWriter: expected a function as model, got int", TypeError)
wrong("units of epochs", lambda: trainer.total_number_of_units_seen("epoch"),
      "total_number_of_units_seen: expected 'sample', 'minibatch' or 'sweep', got 'epoch'")
wrong("sweep said twice", lambda: trainer.train_minibatch(read(), is_sweep_end=True),
      "train_minibatch: expected no is_sweep_end with data of a minibatch source, which say it themselves")
