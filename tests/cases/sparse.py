"""Graphs of sparse inputs and learners on them, for cogkit and for CNTK 2.7 (Python 3.6 reads this file too).

A case gives (loss, parameters, feeds): a feed a minibatch, with data as CSR matrices, or dense where `sparse` is not set.
"""

# ruff: noqa: UP031, B905

import numpy as np
import scipy.sparse

V, D, STEPS = 7, 3, 5
BATCHES = [[0, 1, 1], [2, 0, 0], [3, 3, 3], [1, 2, 0], [5, 4, 3]]
LENGTHS = [[2, 1], [1, 2], [3], [1, 1, 1], [2, 1]]
LEARNERS = {
    "sgd": lambda C, p, rate: C.sgd(p, rate),
    "sgd/l1": lambda C, p, rate: C.sgd(p, rate, l1_regularization_weight=0.05),
    "sgd/l2": lambda C, p, rate: C.sgd(p, rate, l2_regularization_weight=0.1),
    "sgd/clipped": lambda C, p, rate: C.sgd(p, rate, gradient_clipping_threshold_per_sample=0.1),
    "sgd/norm": lambda C, p, rate: C.sgd(
        p, rate, gradient_clipping_threshold_per_sample=0.1, gradient_clipping_with_truncation=False
    ),
    "sgd/mean": lambda C, p, rate: C.sgd(p, rate, use_mean_gradient=True, minibatch_size=C.learners.IGNORE),
    "momentum": lambda C, p, rate: C.momentum_sgd(p, rate, C.momentum_schedule(0.9)),
    "nesterov": lambda C, p, rate: C.nesterov(p, rate, C.momentum_schedule([0.9, 0.5], epoch_size=6)),
    "adagrad": lambda C, p, rate: C.adagrad(p, rate, need_ave_multiplier=False),
    "adagrad/average": lambda C, p, rate: C.adagrad(p, rate),
    "adagrad/clipped": lambda C, p, rate: C.adagrad(p, rate, gradient_clipping_threshold_per_sample=0.1),
    "adadelta": lambda C, p, rate: C.adadelta(p, rate),
    "adam": lambda C, p, rate: C.adam(p, rate, C.momentum_schedule(0.9)),
    "adam/gain": lambda C, p, rate: C.adam(
        p, rate, C.momentum_schedule(0.8), unit_gain=False, variance_momentum=C.momentum_schedule(0.95)
    ),
    "adamax": lambda C, p, rate: C.adam(p, rate, C.momentum_schedule(0.9), adamax=True),
    "fsadagrad": lambda C, p, rate: C.fsadagrad(p, rate, C.momentum_schedule(0.9)),
    "rmsprop": lambda C, p, rate: C.rmsprop(p, rate, 0.9, 1.2, 0.7, 10, 0.001),
    "rmsprop/plain": lambda C, p, rate: C.rmsprop(p, rate, 0.9, 1.2, 0.7, 10, 0.001, need_ave_multiplier=False),
}
# those whose updates by sparse gradients CNTK has on a CPU, and gives what dense ones give
CNTK_LEARNERS = ["sgd", "sgd/l1", "sgd/clipped", "sgd/norm", "sgd/mean", "adagrad", "adadelta"]


def weights(C, dtype, *shape):
    n = int(np.prod(shape))
    return C.parameter(init=(np.arange(n).reshape(shape) % 11 / 10.0 - 0.5).astype(dtype))


def rows(dtype, indices, counts=False):
    """One-hot rows, or with counts: each row has its index twice as often as its place, and a 1 beside it."""
    made = np.eye(V, dtype=dtype)[indices]
    if counts:
        made = made * np.arange(1, len(indices) + 1, dtype=dtype)[:, None] + np.eye(V, dtype=dtype)[(np.array(indices) + 2) % V]
    return np.ascontiguousarray(made)


def target(C, dtype, shape, **axes):
    make = C.sequence.input_variable if axes.pop("sequence", False) else C.input_variable
    return make(shape, dtype=dtype, **axes)


def csr(array, sparse):
    return scipy.sparse.csr_matrix(array.reshape(-1, array.shape[-1])) if sparse else array


def plain(counts, uses=1, dense=False):
    """Products of the same embedding with `uses` sparse inputs, and with a dense one."""

    def make(C, dtype, sparse):
        xs = [C.input_variable(V, dtype=dtype, is_sparse=sparse) for _ in range(uses)]
        t, w = target(C, dtype, D), weights(C, dtype, V, D)
        z = sum((C.times(x, w) for x in xs[1:]), C.times(xs[0], w))
        if dense:
            z = z + C.times(t, C.slice(w, 0, 0, D))
        feeds = []
        for b in BATCHES:
            feed = {x: csr(rows(dtype, np.roll(b, i) + i, counts), sparse) for i, x in enumerate(xs)}
            feed[t] = np.linspace(-1, 1, len(b) * D).reshape(len(b), D).astype(dtype)
            feeds.append(feed)
        return C.squared_error(z, t), [w], feeds

    return make


def two_axes(C, dtype, sparse):
    """Samples of two sparse rows."""
    x, t, w = C.input_variable((2, V), dtype=dtype, is_sparse=sparse), target(C, dtype, (2, D)), weights(C, dtype, V, D)
    feeds = []
    for b in BATCHES:
        data = np.stack([rows(dtype, b), rows(dtype, b[::-1], True)], axis=1)
        fed = [csr(sample, True) for sample in data] if sparse else data
        feeds.append({x: fed, t: np.linspace(-1, 1, len(b) * 2 * D).reshape(len(b), 2, D).astype(dtype)})
    return C.squared_error(C.times(x, w), t), [w], feeds


def over_steps(model, labels=False):
    """A model over sequences of sparse steps; labels: sparse classes as targets."""

    def make(C, dtype, sparse):
        x, w = C.sequence.input_variable(V, dtype=dtype, is_sparse=sparse), weights(C, dtype, V, D)
        z, parameters = model(C, dtype, x, w)
        if labels:
            t = C.sequence.input_variable(D, dtype=dtype, is_sparse=sparse)
            loss = C.cross_entropy_with_softmax(z, t)
        else:
            loss = C.reduce_sum(z * z)
        feeds = []
        for b, lengths in zip(BATCHES, LENGTHS):
            ends = np.cumsum(lengths)
            steps = [rows(dtype, b[e - n : e], True) for e, n in zip(ends, lengths)]
            feed = {x: [csr(s, sparse) for s in steps]}
            if labels:
                feed[t] = [csr(np.eye(D, dtype=dtype)[np.arange(len(s)) % D], sparse) for s in steps]
            feeds.append(feed)
        return loss, [w] + parameters, feeds

    return make


def recurrent(C, dtype, x, w):
    r, h = weights(C, dtype, D, D), C.placeholder()
    z = C.tanh(C.times(x, w) + C.times(C.sequence.past_value(h), r))
    return z.replace_placeholders({h: z.output}), [r]


def one_hot(rank):
    """Indices as sparse one-hot rows; the product takes rows of an embedding, with `rank` axes of its own."""

    def make(C, dtype, sparse):
        i, w = C.input_variable((2,), dtype=dtype), weights(C, dtype, *((V, D) if rank == 1 else (V, 2, D)))
        z = C.times(C.one_hot(i, V, sparse_output=sparse), w, output_rank=rank)
        feeds = [{i: np.stack([b, b[::-1]], axis=1).astype(dtype)} for b in BATCHES]
        return C.reduce_sum(z * z), [w], feeds

    return make


CASES = {
    "plain": plain(False),
    "counts": plain(True),
    "two_uses": plain(True, 2),
    "dense_use": plain(True, 1, True),
    "two_axes": two_axes,
    "steps": over_steps(lambda C, dtype, x, w: (C.times(x, w), [])),
    "last": over_steps(lambda C, dtype, x, w: (C.sequence.last(C.times(x, w)), [])),
    "of_last": over_steps(lambda C, dtype, x, w: (C.times(C.sequence.last(x), w), [])),
    "of_slice": over_steps(lambda C, dtype, x, w: (C.times(C.sequence.slice(x, -1, 0), w), [])),
    "labels": over_steps(lambda C, dtype, x, w: (C.times(x, w), []), labels=True),
    "loop": over_steps(recurrent),
    "one_hot": one_hot(1),
    "one_hot_tensor": one_hot(2),
}


def trajectory(C, case, learner, dtype, sparse=True):
    """(STEPS, n) the parameters after each minibatch, one after the other; and the learner."""
    loss, parameters, feeds = CASES[case](C, dtype, sparse)
    made = LEARNERS[learner](C, parameters, C.learning_parameter_schedule_per_sample(0.05))
    trainer = C.Trainer(None, (loss, None), [made])
    found = []
    for feed in feeds:
        trainer.train_minibatch(feed)
        found.append(np.concatenate([np.asarray(p.value).ravel() for p in parameters]))
    return np.stack(found), trainer
