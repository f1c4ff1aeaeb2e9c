"""Stories of training over sequences: what CNTK 2.7 counts, averages and learns. Python 3.6 must read it: both sides run the same code.

A story gives arrays by name. `parameters` are those after each minibatch, one row each, in the order of names and shapes.
"""

# ruff: noqa: UP031, B905, E501  (Python 3.6 reads this file too)

import numpy as np

from cases import stream
from cases.sequences import drawn, joined

BATCHES = [[3, 1, 5, 2], [4, 4], [1], [2, 40, 1]]  # lengths of the sequences of each minibatch
STORIES = {}


def story(name, make, *arguments, **options):
    STORIES[name] = lambda C, dtype: make(C, np.dtype(dtype).type, *arguments, **options)


def data(name, lengths, k, shape, domain, dtype):
    return [np.asarray(drawn(stream("training", name, k, i), (n,) + shape, domain), dtype) for i, n in enumerate(lengths)]


def start(function, dtype):
    """Every parameter at a value that its name and shape say."""
    parameters = sorted(function.parameters, key=lambda p: (p.name, p.shape))
    for p in parameters:
        p.value = np.asarray(drawn(stream("training", p.name, p.shape), p.shape, "any") * 0.5, dtype)
    return parameters


def flat(parameters):
    return np.concatenate([np.asarray(p.value).ravel() for p in parameters])


def tagger(C):
    return C.layers.Sequential([C.layers.Dense(4, activation=C.tanh, name="in"), C.layers.Recurrence(C.layers.LSTM(3)), C.layers.Dense(2, name="out")])


def classifier(C):
    return C.layers.Sequential([C.layers.Dense(4, activation=C.tanh), C.layers.Fold(C.layers.LSTM(3)), C.layers.Dense(2)])


LOSSES = {  # (model, targets, loss, metric)
    "frames": ("tagger", "frames", lambda C, z, y: (C.cross_entropy_with_softmax(z, y), C.classification_error(z, y))),
    "summed": ("tagger", "frames", lambda C, z, y: (C.sequence.reduce_sum(C.cross_entropy_with_softmax(z, y)), C.sequence.reduce_sum(C.classification_error(z, y)))),
    "summed_metric_of_frames": ("tagger", "frames", lambda C, z, y: (C.sequence.reduce_sum(C.cross_entropy_with_softmax(z, y)), C.classification_error(z, y))),
    "frames_metric_summed": ("tagger", "frames", lambda C, z, y: (C.cross_entropy_with_softmax(z, y), C.sequence.reduce_sum(C.classification_error(z, y)))),
    "last": ("tagger", "frames", lambda C, z, y: (C.cross_entropy_with_softmax(C.sequence.last(z), C.sequence.last(y)), C.classification_error(C.sequence.last(z), C.sequence.last(y)))),
    "all_axes": ("tagger", "frames", lambda C, z, y: (C.reduce_sum(C.cross_entropy_with_softmax(z, y), axis=C.Axis.all_axes()), C.classification_error(z, y))),
    "mean_of_all_axes": ("tagger", "frames", lambda C, z, y: (C.reduce_mean(C.cross_entropy_with_softmax(z, y), axis=C.Axis.all_axes()), C.classification_error(z, y))),
    "picked": ("tagger", "frames", lambda C, z, y: (lambda c: (C.cross_entropy_with_softmax(C.sequence.gather(z, c), C.sequence.gather(y, c)), C.classification_error(z, y)))(C.element_or(C.sequence.is_first(y), C.slice(y, -1, 0, 1)))),
    "squares": ("tagger", "frames", lambda C, z, y: (C.reduce_sum(C.square(z - y)), C.classification_error(z, y))),
    "classifier": ("classifier", "batch", lambda C, z, y: (C.cross_entropy_with_softmax(z, y), C.classification_error(z, y))),
    "broadcast": ("classifier", "frames", lambda C, z, y: (lambda b: (C.cross_entropy_with_softmax(b, y), C.classification_error(b, y)))(C.sequence.broadcast_as(z, y))),
}
LEARNERS = {
    "sgd": lambda C, p: C.sgd(p, C.learning_parameter_schedule(0.05, minibatch_size=1)),
    "sgd_default": lambda C, p: C.sgd(p, C.learning_parameter_schedule(0.2)),
    "sgd_size4": lambda C, p: C.sgd(p, C.learning_parameter_schedule(0.2, minibatch_size=4)),
    "sgd_whole": lambda C, p: C.sgd(p, C.learning_parameter_schedule(0.05), minibatch_size=C.learners.IGNORE),
    "sgd_per_sample": lambda C, p: C.sgd(p, C.learning_parameter_schedule_per_sample(0.05)),
    "momentum": lambda C, p: C.momentum_sgd(p, C.learning_parameter_schedule_per_sample(0.05), C.momentum_schedule(0.5)),
    "momentum_per_sample": lambda C, p: C.momentum_sgd(p, C.learning_parameter_schedule_per_sample(0.05), C.momentum_schedule_per_sample(0.9)),
    "momentum_time_constant": lambda C, p: C.momentum_sgd(p, C.learning_parameter_schedule_per_sample(0.05), C.momentum_as_time_constant_schedule(10)),
    "adam": lambda C, p: C.adam(p, C.learning_parameter_schedule(0.05), C.momentum_schedule(0.9), epsilon=1e-4, variance_momentum=C.momentum_schedule(0.9)),
    "clipped": lambda C, p: C.sgd(p, C.learning_parameter_schedule_per_sample(0.05), gradient_clipping_threshold_per_sample=0.05, gradient_clipping_with_truncation=False),
    "truncated": lambda C, p: C.sgd(p, C.learning_parameter_schedule_per_sample(0.05), gradient_clipping_threshold_per_sample=0.05),
    "regularised": lambda C, p: C.sgd(p, C.learning_parameter_schedule_per_sample(0.05), l2_regularization_weight=0.1),
    "changing": lambda C, p: C.sgd(p, C.learning_parameter_schedule_per_sample([0.05, 0.01, 0.002], epoch_size=12)),
}


def said(found, trainer):
    found["samples"].append(trainer.previous_minibatch_sample_count)
    found["loss"].append(trainer.previous_minibatch_loss_average)
    found["metric"].append(trainer.previous_minibatch_evaluation_average)
    found["seen"].append(trainer.total_number_of_samples_seen)


def training(C, dtype, loss="frames", learner="sgd", sparse=False):
    """Four minibatches of other lengths each."""
    model, target, criteria = LOSSES[loss]
    with C.default_options(dtype=dtype):
        x = C.sequence.input_variable(3, dtype=dtype)
        y = C.sequence.input_variable(2, dtype=dtype) if target == "frames" else C.input_variable(2, dtype=dtype)
        z = (tagger if model == "tagger" else classifier)(C)(x)
        parameters = start(z, dtype)
        trainer = C.Trainer(z, criteria(C, z, y), [LEARNERS[learner](C, list(z.parameters))])
    found = dict(samples=[], loss=[], metric=[], seen=[], parameters=[])
    for k, lengths in enumerate(BATCHES):
        ys = data("y", lengths, k, (2,), "onehot", dtype)
        feed = {x: data("x", lengths, k, (3,), "any", dtype), y: ys if target == "frames" else np.stack([a[0] for a in ys])}
        if k == 3:
            found["test"] = [trainer.test_minibatch(feed)]
        trainer.train_minibatch(feed)
        said(found, trainer)
        found["parameters"].append(flat(parameters))
    return {k: np.asarray(v) for k, v in found.items()}


for loss in sorted(LOSSES):
    story("loss/" + loss, training, loss=loss)
for learner in sorted(LEARNERS):
    story("learner/" + learner, training, learner=learner)
    if learner in ("sgd_size4", "momentum", "clipped"):
        story("learner/%s_classifier" % learner, training, learner=learner, loss="classifier")


def ctc(C, dtype):
    """CTC with the edit distance to its labels as metric."""
    with C.default_options(dtype=dtype):
        x, y = C.sequence.input_variable(3, dtype=dtype), C.sequence.input_variable(4, dtype=dtype)
        z = C.layers.Sequential([C.layers.Recurrence(C.layers.LSTM(3)), C.layers.Dense(4)])(x)
        parameters = start(z, dtype)
        criteria = C.forward_backward(C.labels_to_graph(y), z, 3), C.edit_distance_error(z, y, squashInputs=True, tokensToIgnore=[3])
        trainer = C.Trainer(z, criteria, [LEARNERS["sgd"](C, list(z.parameters))])
    found = dict(samples=[], loss=[], metric=[], seen=[], parameters=[])
    for k, lengths in enumerate([[4, 9, 6], [5, 5], [30, 3]]):
        trainer.train_minibatch({x: data("x", lengths, k, (3,), "any", dtype), y: data("y", lengths, k, (4,), "ctc", dtype)})
        said(found, trainer)
        found["parameters"].append(flat(parameters))
    return {k: np.asarray(v) for k, v in found.items()}


story("ctc", ctc)


# truncated back-propagation: sequences that go on where the minibatch before ended ----------------------------------------------
def chunks(C, dtype, flags, delay=1, lengths=((4, 4), (4, 4), (3, 3)), cell="LSTM", train=True):
    """A recurrence over sequences in chunks; `flags`: for each minibatch, for each sequence, whether it is a new one."""
    with C.default_options(dtype=dtype):
        x, y = C.sequence.input_variable(3, dtype=dtype), C.sequence.input_variable(2, dtype=dtype)
        if cell == "hand":
            h = C.placeholder()
            w, r = C.parameter((3, 2), dtype=dtype, name="w"), C.parameter((2, 2), dtype=dtype, name="r")
            z = C.tanh(C.times(x, w) + C.times(C.sequence.past_value(h, C.constant(np.asarray(0.25, dtype), dtype=dtype), delay), r))
            z.replace_placeholders({h: z.output})
        else:
            z = C.layers.Sequential([C.layers.Recurrence(getattr(C.layers, cell)(3)), C.layers.Dense(2)])(x)
        parameters = start(z, dtype)
        loss = C.cross_entropy_with_softmax(z, y)
        trainer = C.Trainer(z, (loss, C.classification_error(z, y)), [LEARNERS["sgd"](C, list(z.parameters))])
    found = dict(samples=[], loss=[], metric=[], seen=[], parameters=[])
    for k, (ns, new) in enumerate(zip(lengths, flags)):
        feed = {x: data("x", ns, k, (3,), "any", dtype), y: data("y", ns, k, (2,), "onehot", dtype)}
        if train:
            trainer.train_minibatch((feed, list(new)))
            said(found, trainer)
            found["parameters"].append(flat(parameters))
        else:
            found["y%d" % k] = joined(z.eval({x: (feed[x], list(new))}))[1]
    return {k: np.asarray(v) for k, v in found.items() if len(v)}


AGREE = {  # how many minibatches of a story agree: what CNTK does then is wrong
    "chunks/hand_longer_delay": 2,  # it keeps the minibatch before alone, and finds no step of the one before that
    "chunks/hand_ragged": 2,  # it goes on from the end of the longest sequence, in the padding of the others
}
ON, GO = (True, True), (False, False)
for cell in ("hand", "RNNStep", "GRU", "LSTM"):
    story("chunks/%s_new" % cell, chunks, (ON, ON, ON), cell=cell)
    story("chunks/%s" % cell, chunks, (ON, GO, GO), cell=cell)
story("chunks/hand_delay2", chunks, (ON, GO, GO), cell="hand", delay=2)
story("chunks/hand_longer_delay", chunks, (ON, GO, GO), cell="hand", delay=3, lengths=((4, 4), (2, 2), (2, 2)))
story("chunks/hand_one_goes_on", chunks, (ON, (False, True), (True, False)), cell="hand")
story("chunks/hand_eval", chunks, (ON, GO, GO), cell="hand", train=False)
story("chunks/hand_ragged", chunks, (ON, GO, GO), cell="hand", lengths=((4, 4), (4, 2), (3, 3)))
story("chunks/LSTM_eval", chunks, (ON, GO, GO), train=False)


# ways to feed and to read ---------------------------------------------------------------------------------------------------------
def feeds(C, dtype):
    """One graph, fed in every form that CNTK takes."""
    x = C.sequence.input_variable(2, dtype=dtype)
    f = C.sequence.past_value(x) + x
    ragged, equal = data("x", [3, 1, 2], 0, (2,), "any", dtype), data("x", [3, 3], 1, (2,), "any", dtype)
    found = {}

    def put(key, value):
        found[key + "_n"], found[key] = joined(value if isinstance(value, list) else list(value))

    put("list", f.eval({x: ragged}))
    put("bare", f.eval(ragged))
    put("lists_of_lists", f.eval({x: [a.tolist() for a in ragged]}))
    put("array", f.eval({x: np.stack(equal)}))
    put("call", f(np.stack(equal)))
    put("one_sequence", f.eval({x: equal[:1]}))
    put("value", f.eval({x: C.Value.create(x, ragged)}))
    value = f.eval({x: ragged}, as_numpy=False)
    put("as_sequences", value.as_sequences(x))
    found["shape"] = np.asarray(value.shape)
    found["mask"] = np.asarray(value.mask)
    scalar = C.sequence.input_variable((), dtype=dtype)
    g = C.sequence.past_value(scalar, 0.5) + scalar
    put("scalars", g.eval({scalar: [np.asarray([1, 2, 3], dtype), np.asarray([4], dtype)]}))
    one = C.sequence.input_variable((1,), dtype=dtype)
    k = C.sequence.past_value(one, 0.5) + one
    put("ones_as_scalars", k.eval({one: [np.asarray([1, 2, 3], dtype), np.asarray([4], dtype)]}))
    w = C.constant(np.asarray(drawn(stream("feeds"), (4, 2), "any"), dtype), dtype=dtype)
    hot = C.sequence.input_variable(4, dtype=dtype, is_sparse=True)
    s = C.times(hot, w)
    put("one_hot", s.eval({hot: C.Value.one_hot([[1, 0, 3], [2]], 4, dtype=dtype)}))
    return found


story("feeds", feeds)
