"""Records what CNTK 2.7 does with learners and schedules; run it with CNTK's own Python: make_goldens.py > goldens.json."""
# ruff: noqa: B905, UP032  (it runs on Python 3.6)

import json
import sys

import cntk as C
import numpy as np

SHAPES = [(2, 3), (5,), ()]
COUNTS = [4, 7, 1, 16, 4, 4]


def data(dtype):
    r = np.random.RandomState(7)
    start = [np.asarray(r.randn(*s), dtype) for s in SHAPES]
    grads = [[np.asarray(r.randn(*s) * n, dtype) for s in SHAPES] for n in COUNTS]
    return start, grads


per = C.learning_parameter_schedule_per_sample
LEARNERS = {
    "sgd": ("sgd", dict()),
    "momentum_sgd": ("momentum_sgd", dict(momentum=0.9)),
    "nesterov": ("nesterov", dict(momentum=0.9)),
    "adagrad": ("adagrad", dict()),
    "adagrad_plain": ("adagrad", dict(need_ave_multiplier=False)),
    "adadelta": ("adadelta", dict()),
    "adadelta_other": ("adadelta", dict(rho=0.8, epsilon=1e-4)),
    "fsadagrad": ("fsadagrad", dict(momentum=0.9)),
    "fsadagrad_quick": ("fsadagrad", dict(momentum=0.9, variance_momentum=0.95)),
    "fsadagrad_none": ("fsadagrad", dict(momentum=0.0, variance_momentum=0.95)),
    "adam": ("adam", dict(momentum=0.9)),
    "adam_quick": ("adam", dict(momentum=0.9, variance_momentum=0.99, epsilon=1e-3)),
    "adamax": ("adam", dict(momentum=0.9, variance_momentum=0.99, adamax=True)),
    "rmsprop": ("rmsprop", dict(gamma=0.9, inc=1.2, dec=0.7, max=10.0, min=1e-2)),
    "rmsprop_plain": ("rmsprop", dict(gamma=0.9, inc=1.2, dec=0.7, max=10.0, min=1e-2, need_ave_multiplier=False)),
}
OPTIONS = {
    "plain": dict(),
    "l1l2": dict(l1_regularization_weight=0.01, l2_regularization_weight=0.02),
    "clip": dict(gradient_clipping_threshold_per_sample=0.5),
    "clip_norm": dict(gradient_clipping_threshold_per_sample=0.5, gradient_clipping_with_truncation=False),
    "mean": dict(
        use_mean_gradient=True,
        l2_regularization_weight=0.02,
        l1_regularization_weight=0.01,
        gradient_clipping_threshold_per_sample=0.5,
    ),
    "size4": dict(minibatch_size=4),
    "ignore": dict(minibatch_size=0),
}


def run(kind, options, dtype, lr=0.1):
    start, grads = data(dtype)
    ps = [C.parameter(v.shape, init=v, dtype=dtype) for v in start]
    learner = getattr(C, kind)(ps, lr=lr, **options)
    out = []
    for g, n in zip(grads, COUNTS):
        learner.update({p: v for p, v in zip(ps, g)}, n)
        out.append([np.asarray(p.value, dtype=np.float64).ravel().tolist() for p in ps])
    return out


result = {"updates": [], "schedules": []}


for name, (kind, kw) in sorted(LEARNERS.items()):
    for oname, okw in sorted(OPTIONS.items()):
        for dtype in ("float32", "float64"):
            if dtype == "float64" and oname not in ("plain", "mean"):
                continue
            result["updates"].append(
                dict(
                    name=name + "/" + oname + "/" + dtype,
                    kind=kind,
                    dtype=dtype,
                    lr=0.1,
                    options=dict(kw, **okw),
                    values=run(kind, dict(kw, **okw), np.dtype(dtype).type),
                )
            )
for kind in ("momentum_sgd", "nesterov", "fsadagrad", "adam"):
    kw = dict(momentum=0.9, unit_gain=False)
    result["updates"].append(
        dict(name=kind + "/no_unit_gain", kind=kind, dtype="float32", lr=0.1, options=kw, values=run(kind, kw, np.float32))
    )
# schedules that count samples, sweeps (never ended here) and reference sizes: [form, arguments]
SCHEDULED = [
    (
        "momentum_sgd",
        dict(
            lr=["learning_parameter_schedule", [[0.1, [2, 0.05], 0.01]], dict(minibatch_size=2, epoch_size=5)],
            momentum=["momentum_schedule", [0.9], dict(minibatch_size=3)],
        ),
    ),
    (
        "momentum_sgd",
        dict(
            lr=["learning_parameter_schedule", [[0.1, 0.05]], dict(epoch_size=12)],
            momentum=["momentum_as_time_constant_schedule", [[20, 40]], dict(epoch_size=12)],
        ),
    ),
    (
        "momentum_sgd",
        dict(
            lr=["learning_parameter_schedule", [0.1], dict(minibatch_size=20)],
            momentum=["momentum_schedule", [0.9], dict(minibatch_size=3)],
            minibatch_size=0,
        ),
    ),
    (
        "momentum_sgd",
        dict(lr=["learning_parameter_schedule", [0.1], {}], momentum=["momentum_schedule", [0.9], {}], minibatch_size=3),
    ),
    (
        "nesterov",
        dict(
            lr=["learning_parameter_schedule_per_sample", [0.02], {}],
            momentum=["momentum_schedule_per_sample", [[0.99, 0.9]], dict(epoch_size=12)],
        ),
    ),
    ("sgd", dict(lr=["learning_rate_schedule", [0.1, "minibatch"], {}])),
    ("sgd", dict(lr=["learning_rate_schedule", [0.1, "sample"], {}])),
    ("sgd", dict(lr=["learning_rate_schedule", [0.1, "sample"], {}], use_mean_gradient=True)),
    ("sgd", dict(lr=["learning_rate_schedule", [0.1, "sample"], {}], minibatch_size=10)),
    (
        "adam",
        dict(
            lr=["learning_parameter_schedule", [0.1], dict(minibatch_size=4)],
            momentum=["momentum_schedule", [0.9], dict(minibatch_size=4)],
            variance_momentum=["momentum_schedule", [0.99], dict(minibatch_size=2)],
        ),
    ),
    (
        "fsadagrad",
        dict(
            lr=["learning_parameter_schedule", [0.1], dict(minibatch_size=4)],
            momentum=["momentum_schedule", [0.9], dict(minibatch_size=4)],
            variance_momentum=["momentum_schedule", [0.99], dict(minibatch_size=2)],
            minibatch_size=0,
        ),
    ),
]


def tup(x):
    if x in ("sample", "minibatch"):
        return C.learners.UnitType(x)  # a plain string is taken as "minibatch", whatever it says
    return [tuple(v) if isinstance(v, list) else v for v in x] if isinstance(x, list) else x


def make(v):
    if isinstance(v, list):
        return getattr(C.learners, v[0])(*[tup(a) for a in v[1]], **v[2])
    return v


for i, (kind, kw) in enumerate(SCHEDULED):
    k2 = {k: make(v) for k, v in kw.items()}
    lr = k2.pop("lr")
    result["updates"].append(
        dict(name="schedule{}/{}".format(i, kind), kind=kind, dtype="float64", scheduled=kw, values=run(kind, k2, np.float64, lr))
    )

FORMS = [
    ["learning_parameter_schedule", [0.2], {}],
    ["learning_parameter_schedule", [0.2], dict(minibatch_size=4)],
    ["learning_parameter_schedule", [[0.2, 0.4], 7, 5], {}],
    ["learning_parameter_schedule", [[[3, 0.2], [2, 0.4], [1, 0.8]], 13, 5], {}],
    ["learning_parameter_schedule", [[0.1, [2, 0.2], 0.3]], {}],
    ["learning_parameter_schedule_per_sample", [[0.1, 0.2]], dict(epoch_size=3)],
    ["momentum_schedule", [[0.9, 0.8], 6], {}],
    ["momentum_schedule", [[0.9, 0.8]], dict(epoch_size=6, minibatch_size=2)],
    ["momentum_schedule_per_sample", [[0.9, 0.8], 6], {}],
    ["momentum_as_time_constant_schedule", [1100], {}],
    ["momentum_as_time_constant_schedule", [0], {}],
    ["momentum_as_time_constant_schedule", [[[2, 980], 520]], dict(epoch_size=4)],
    ["training_parameter_schedule", [0.01], {}],
    ["training_parameter_schedule", [[0.01, 0.001], "sample", 10], {}],
    ["learning_rate_schedule", [[[12, 0.1], [15, 0.01], [1, 0.001]], "minibatch", 1], {}],
]
for f, a, k in FORMS:
    s = getattr(C.learners, f)(*[tup(x) for x in a], **k)
    result["schedules"].append(
        dict(
            form=f,
            args=a,
            kwargs=k,
            values=[s[i] for i in range(40)],
            minibatch_size=s.minibatch_size,
            explicit=bool(s.is_minibatch_size_explicitly_specified),
        )
    )
# the position of a learner among its schedule's values: rate after each update, then after a reset
w = C.parameter((1,), init=1)
s = C.learning_parameter_schedule
l = C.sgd([w], s([0.1, 0.2, 0.3, 0.0, 0.5], minibatch_size=1, epoch_size=10))
track = []
for n, end in [(4, False), (6, False), (25, True), (3, False), (3, False), (30, True)]:
    done = l.update({w: np.ones((1,), "f")}, n, end)
    track.append([n, end, bool(done), l.learning_rate(), int(l.total_number_of_samples_seen()), float(w.value[0])])
l.reset_learning_rate(s([0.7, 0.8], minibatch_size=1, epoch_size=5))
for n, end in [(4, False), (6, False), (25, True)]:
    done = l.update({w: np.ones((1,), "f")}, n, end)
    track.append([n, end, bool(done), l.learning_rate(), int(l.total_number_of_samples_seen()), float(w.value[0])])
result["track"] = track
l = C.sgd([w], s([0.1, 0.2, 0.3]))
track = []
for n, end in [(4, False), (6, True), (25, True), (3, True), (3, False)]:
    done = l.update({w: np.ones((1,), "f")}, n, end)
    track.append([n, end, bool(done), l.learning_rate()])
l.reset_learning_rate(s([0.7, 0.8]))
for n, end in [(4, False), (6, True), (25, True)]:
    done = l.update({w: np.ones((1,), "f")}, n, end)
    track.append([n, end, bool(done), l.learning_rate()])
result["sweeps"] = track
json.dump(result, sys.stdout, separators=(",", ":"), sort_keys=True)
