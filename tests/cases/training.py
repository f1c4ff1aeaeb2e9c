"""Cases of learners, schedules, initialisers and running statistics. Python 3.6 must read it: CNTK 2.7 runs the same rows."""

# ruff: noqa: UP031, B905  (Python 3.6 reads this file too)

import numpy as np

from cases import stream

# ------------------------------------------------------------------------------------------------------------ learners
COUNTS = [4, 4, 2, 4, 1, 4, 4, 3]  # samples of each minibatch
SHAPES = [(2, 3), (5,)]


def sched(value, size=None):
    return lambda C: C.learning_parameter_schedule(value, minibatch_size=size)


def momentum(value, size=None):
    return lambda C: C.momentum_schedule(value, minibatch_size=size)


def unit(value, kind):
    return lambda C: C.learning_rate_schedule(value, getattr(C.UnitType, kind))


LEARNERS = {}


def learner(name, kind, *args, **kw):
    """A row: the learner `kind` made of the arguments; a callable argument is given C first (schedules)."""
    options = dict(lr=sched(0.1))
    options.update(kw)
    LEARNERS[name] = (kind, args, options)


RULES = {
    "sgd": ("sgd", {}),
    "momentum_sgd": ("momentum_sgd", dict(momentum=momentum(0.7))),
    "momentum_sgd_no_gain": ("momentum_sgd", dict(momentum=momentum(0.7), unit_gain=False)),
    "nesterov": ("nesterov", dict(momentum=momentum(0.7))),
    "nesterov_no_gain": ("nesterov", dict(momentum=momentum(0.7), unit_gain=False)),
    "adam": ("adam", dict(momentum=momentum(0.7), epsilon=1e-3)),
    "adam_no_gain": ("adam", dict(momentum=momentum(0.7), unit_gain=False)),
    "adam_variance": ("adam", dict(momentum=momentum(0.7), variance_momentum=momentum(0.9))),
    "adamax": ("adam", dict(momentum=momentum(0.7), variance_momentum=momentum(0.9), adamax=True)),
    "fsadagrad": ("fsadagrad", dict(momentum=momentum(0.7))),
    "fsadagrad_variance": ("fsadagrad", dict(momentum=momentum(0.7), variance_momentum=momentum(0.9), unit_gain=False)),
    "rmsprop": ("rmsprop", dict(gamma=0.9, inc=1.2, dec=0.5, max=10.0, min=0.001)),
    "rmsprop_plain": ("rmsprop", dict(gamma=0.9, inc=1.2, dec=0.5, max=10.0, min=0.001, need_ave_multiplier=False)),
    "adagrad": ("adagrad", {}),
    "adagrad_plain": ("adagrad", dict(need_ave_multiplier=False)),
    "adadelta": ("adadelta", dict(rho=0.9, epsilon=1e-6)),
}
SIZES = {"": {}, "/ignore": dict(minibatch_size=0), "/size4": dict(minibatch_size=4), "/mean": dict(use_mean_gradient=True)}
for rule, (kind, kw) in sorted(RULES.items()):
    for size, more in sorted(SIZES.items()):
        learner(rule + size, kind, **dict(kw, **more))
    learner(
        rule + "/regularised",
        kind,
        **dict(kw, l1_regularization_weight=0.05, l2_regularization_weight=0.03, gradient_clipping_threshold_per_sample=0.2),
    )
    learner(
        rule + "/regularised_ignore",
        kind,
        **dict(
            kw,
            l1_regularization_weight=0.05,
            l2_regularization_weight=0.03,
            gradient_clipping_threshold_per_sample=0.2,
            gradient_clipping_with_truncation=False,
            minibatch_size=0,
        ),
    )
for size in (None, 0, 1, 4):  # the schedule's own size against the learner's
    for own in (None, 0, 1, 4):
        learner("sgd/schedule%s_learner%s" % (size, own), "sgd", lr=sched(0.1, size), minibatch_size=own)
        learner(
            "momentum_sgd/schedule%s_learner%s" % (size, own), "momentum_sgd", momentum=momentum(0.7, size), minibatch_size=own
        )
for kind in ("sample", "minibatch"):
    for mean in (None, True, False):
        learner("sgd/unit_%s_mean%s" % (kind, mean), "sgd", lr=unit(0.1, kind), use_mean_gradient=mean)
learner("sgd/number", "sgd", lr=0.1)
learner("sgd/number_size4", "sgd", lr=0.1, minibatch_size=4)
learner("sgd/list", "sgd", lr=[0.1, 0.05], epoch_size=8)
learner("sgd/schedule_changes", "sgd", lr=lambda C: C.learning_parameter_schedule([1.0, 0.1, 0.01], epoch_size=6))
learner("momentum_sgd/number", "momentum_sgd", lr=0.1, momentum=0.9)
learner("momentum_sgd/time_constant", "momentum_sgd", momentum=lambda C: C.momentum_as_time_constant_schedule(20.0))
learner("momentum_sgd/schedule_changes", "momentum_sgd", momentum=lambda C: C.momentum_schedule([0.9, 0.5], epoch_size=7))
learner("adadelta/defaults", "adadelta", lr=None)
learner("adam/defaults", "adam", momentum=0.9)
learner("adam/size_of_schedules", "adam", momentum=momentum(0.7, 4), variance_momentum=momentum(0.9, 4))
learner("nesterov/size_of_momentum", "nesterov", momentum=momentum(0.7, 4))
for clip in (True, False):
    learner("sgd/clip%s" % clip, "sgd", gradient_clipping_threshold_per_sample=0.3, gradient_clipping_with_truncation=clip)
    learner(
        "sgd/clip%s_size4" % clip,
        "sgd",
        gradient_clipping_threshold_per_sample=0.3,
        gradient_clipping_with_truncation=clip,
        minibatch_size=4,
    )
learner("sgd/l1", "sgd", l1_regularization_weight=0.05)
learner("sgd/l2", "sgd", l2_regularization_weight=0.05)


def trajectory(C, name, dtype):
    """Both parameters after each of eight minibatches: the gradient of sum(w * x) is x, summed over the samples."""
    kind, args, options = LEARNERS[name]
    rng = stream("learners")
    start = [np.asarray(rng.randn(*s), dtype) for s in SHAPES]
    feeds = [[np.asarray(rng.randn(n, *s), dtype) for s in SHAPES] for n in COUNTS]
    feeds[2][1][:, 0] = 0  # a gradient of 0
    xs = [C.input_variable(s, dtype=dtype) for s in SHAPES]
    ws = [C.parameter(init=v, dtype=dtype) for v in start]
    loss = C.reduce_sum(ws[0] * xs[0]) + C.reduce_sum(ws[1] * xs[1])
    made = {k: v(C) if callable(v) else v for k, v in options.items()}
    if made.get("lr", 0) is None:
        del made["lr"]
    trainer = C.Trainer(None, (loss, None), [getattr(C, kind)(ws, *args, **made)])
    rows = []
    for feed in feeds:
        trainer.train_minibatch(dict(zip(xs, feed)))
        rows.append(np.concatenate([np.asarray(w.value, np.float64).ravel() for w in ws]))
    return np.asarray(rows, dtype)


# ----------------------------------------------------------------------------------------------------------- schedules
AT = [0, 1, 5, 99, 100, 101, 199, 200, 299, 300, 499, 500, 10**6]
SCHEDULES = {
    "learning_parameter/number": lambda C: C.learning_parameter_schedule(0.5),
    "learning_parameter/whole_number": lambda C: C.learning_parameter_schedule(1),
    "learning_parameter/list": lambda C: C.learning_parameter_schedule([0.5, 0.25, 0.1], epoch_size=100),
    "learning_parameter/pairs": lambda C: C.learning_parameter_schedule([(2, 0.5), (1, 0.25), (1, 0.1)], epoch_size=100),
    "learning_parameter/mixed": lambda C: C.learning_parameter_schedule([(2, 0.5), 0.25], epoch_size=100),
    "learning_parameter/sweeps": lambda C: C.learning_parameter_schedule([0.5, 0.25, 0.1]),
    "learning_parameter/size": lambda C: C.learning_parameter_schedule([0.5, 0.25], minibatch_size=10, epoch_size=100),
    "learning_parameter/ignore": lambda C: C.learning_parameter_schedule(
        [0.05] * 3 + [0.025] * 2, minibatch_size=C.learners.IGNORE, epoch_size=100
    ),
    "learning_parameter/per_sample": lambda C: C.learning_parameter_schedule_per_sample([0.5, 0.25], epoch_size=100),
    "learning_rate/sample": lambda C: C.learning_rate_schedule([0.5, 0.25], C.UnitType.sample, 100),
    "learning_rate/minibatch": lambda C: C.learning_rate_schedule([0.5, 0.25], C.UnitType.minibatch, 100),
    "learning_rate/number": lambda C: C.learning_rate_schedule(0.5, C.UnitType.minibatch),
    "learning_rate/sweeps": lambda C: C.learning_rate_schedule([0.5, 0.25], C.UnitType.minibatch),
    "learning_rate/pairs": lambda C: C.learning_rate_schedule([(3, 0.5), (1, 0.25)], C.UnitType.sample, 100),
    "momentum/number": lambda C: C.momentum_schedule(0.9),
    "momentum/list": lambda C: C.momentum_schedule([0.9, 0.99], epoch_size=100),
    "momentum/size": lambda C: C.momentum_schedule([0.9, 0.99], epoch_size=100, minibatch_size=10),
    "momentum/pairs": lambda C: C.momentum_schedule([(2, 0.9), (1, 0.99)], 100),
    "momentum/per_sample": lambda C: C.momentum_schedule_per_sample([0.9, 0.99], epoch_size=100),
    "momentum/time_constant": lambda C: C.momentum_as_time_constant_schedule(100),
    "momentum/time_constant_list": lambda C: C.momentum_as_time_constant_schedule([100, 200], epoch_size=100),
    "momentum/time_constant_pairs": lambda C: C.momentum_as_time_constant_schedule([(2, 100), (1, 0), (1, 200)], epoch_size=100),
    "training_parameter": lambda C: C.learners.training_parameter_schedule([0.5, 0.25], C.UnitType.sample, 100),
}


def schedule_values(C, name):
    s = SCHEDULES[name](C)
    return [float(s[i]) for i in AT], int(s.minibatch_size)


# -------------------------------------------------------------------------------------------------------- initialisers
DRAWS = {}
for kind in ("glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "xavier"):
    make = lambda C, kind=kind, **kw: getattr(C, kind)(**kw)  # noqa: E731
    DRAWS[kind] = (make, (60, 100))
    DRAWS[kind + "/rank1"] = (make, (5000,))
    DRAWS[kind + "/rank3"] = (make, (20, 10, 30))
    DRAWS[kind + "/rank4"] = (make, (16, 8, 5, 7))
    DRAWS[kind + "/scale"] = (lambda C, make=make: make(C, scale=2.5), (60, 100))
    DRAWS[kind + "/output_rank2"] = (lambda C, make=make: make(C, output_rank=2), (20, 10, 30))
    DRAWS[kind + "/output_rank0"] = (lambda C, make=make: make(C, output_rank=0), (60, 100))
    DRAWS[kind + "/filter_rank2"] = (lambda C, make=make: make(C, filter_rank=2), (16, 8, 5, 7))
    DRAWS[kind + "/filter"] = (lambda C, make=make: make(C, output_rank=-1, filter_rank=2), (16, 8, 5, 7))
    DRAWS[kind + "/with_rank"] = (
        lambda C, make=make: C.initializer_with_rank(make(C), output_rank=-1, filter_rank=2),
        (16, 8, 5, 7),
    )
for scale in (1.0, 0.3):
    DRAWS["uniform/%s" % scale] = (lambda C, scale=scale: C.uniform(scale), (60, 100))
    DRAWS["normal/%s" % scale] = (lambda C, scale=scale: C.normal(scale), (60, 100))
    DRAWS["truncated_normal/%s" % scale] = (lambda C, scale=scale: C.truncated_normal(scale), (60, 100))
BILINEAR = [2, 3, 4, 5, 6, 7]
LAYERS = {
    "Dense": (lambda L: L.Dense(100), (60,)),
    "Dense/tuple": (lambda L: L.Dense((10, 20)), (40,)),
    "Dense/image": (lambda L: L.Dense(100), (3, 4, 5)),
    "Dense/map_rank": (lambda L: L.Dense(100, map_rank=1), (3, 60)),
    "Convolution2D": (lambda L: L.Convolution2D((3, 5), 32), (16, 8, 8)),
    "Convolution1D": (lambda L: L.Convolution1D(5, 32), (32, 8)),
    "Convolution3D": (lambda L: L.Convolution3D((3, 3, 3), 16), (16, 4, 4, 4)),
    "ConvolutionTranspose2D": (lambda L: L.ConvolutionTranspose2D((3, 5), 32), (16, 8, 8)),
    "Embedding": (lambda L: L.Embedding(100), (60,)),
}


def moments(value):
    """[number of values, mean, standard deviation, largest magnitude, kurtosis]"""
    v = np.asarray(value, np.float64).ravel()
    d = v - v.mean()
    return np.array([v.size, v.mean(), v.std(), abs(v).max(), (d**4).mean() / max(v.var() ** 2, 1e-300)])


def draw_moments(C, name):
    make, shape = DRAWS[name]
    return moments(C.parameter(shape, init=make(C)).value)


def layer_moments(C, name):
    make, shape = LAYERS[name]
    z = make(C.layers)(C.input_variable(shape))
    return moments([p for p in z.parameters if p.name in ("W", "E")][0].value)


def bilinear(C, k):
    return np.asarray(C.parameter((2, 2, k, k), init=C.bilinear(k, k)).value)


# -------------------------------------------------------------------------------------------------- running statistics
STATISTICS = {}
for spatial in (True, False):
    for constant in (0, 10, 5000, -1, float("inf")):
        STATISTICS["%s/%s" % ("spatial" if spatial else "per_value", constant)] = dict(
            spatial=spatial, normalization_time_constant=constant
        )
STATISTICS["spatial/blend"] = dict(spatial=True, normalization_time_constant=10, blend_time_constant=10)
STATISTICS["per_value/epsilon"] = dict(spatial=False, normalization_time_constant=10, epsilon=0.1)


def statistics(C, name, dtype):
    """After each of four minibatches (4, 4, 3, 4 samples): training output, running mean, variance and count, then inference."""
    options = dict(STATISTICS[name])
    spatial = options.pop("spatial")
    shape = (2, 3, 2) if spatial else (3,)
    per = shape[:1] if spatial else shape
    rng = stream("statistics", name)
    x = C.input_variable(shape, dtype=dtype, needs_gradient=True)
    scale = C.parameter(init=np.asarray(rng.uniform(0.5, 1.5, per), dtype), dtype=dtype)
    bias = C.parameter(init=np.asarray(rng.uniform(-1, 1, per), dtype), dtype=dtype)
    running = [C.constant(0, shape=per, dtype=dtype), C.constant(0, shape=per, dtype=dtype), C.constant(0, shape=(), dtype=dtype)]
    y = C.batch_normalization(
        x, scale, bias, running[0], running[1], running_count=running[2], use_cudnn_engine=False, **dict(options, spatial=spatial)
    )
    found = {}
    for step, n in enumerate((4, 4, 3, 4)):
        feed = {x: np.asarray(rng.randn(n, *shape) * 2 + 3, dtype)}
        _, outs = y.forward(feed, [y.output], set([y.output]))
        found["train%d" % step] = np.asarray(outs[y.output])
        for word, c in zip(("mean", "variance", "count"), running):
            found["%s%d" % (word, step)] = np.asarray(c.value).reshape(per if word != "count" else ())
        found["eval%d" % step] = np.asarray(y.eval(feed))
    return found
