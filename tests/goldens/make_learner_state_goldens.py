"""Records parameters and inner state of CNTK 2.7's learners over 20 updates: `cntk27 make_learner_state_goldens.py` (its own Python 3.6).

Writes learner_states.npz beside itself: `<case>/w` (updates, values of all parameters), `<case>/s` the same of the state tensors in CNTK's
order, `<case>/seen` samples after each update, `noise` spreads of parameters under injected noise. Runs are in float64, kept as float32.
"""

# ruff: noqa: UP031, B905  (Python 3.6 reads this file too)

import io
import json
import os
import sys
import zipfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPES = [(2, 3), (4,), ()]
COUNTS = [4, 7, 1, 16, 4, 4, 9, 2, 30, 5, 5, 5, 1, 1, 12, 8, 3, 20, 6, 4]
ENDS = {5, 9, 10, 16}  # updates that end a sweep

# a schedule is [function, arguments, named arguments]; "@" stands for it in a list of options
PER = "learning_parameter_schedule"
MOMENTUM = "momentum_schedule"
RATES = {
    "constant": 0.1,
    "samples": [PER, [[0.1, 0.05, 0.02]], dict(epoch_size=10)],  # changes within minibatches
    "pairs": [PER, [[(2, 0.1), (1, 0.03), (3, 0.2)]], dict(minibatch_size=4, epoch_size=7)],
    "sweeps": [PER, [[0.1, 0.05, 0.02]], dict(minibatch_size=2)],
    "each": ["learning_parameter_schedule_per_sample", [[0.02, 0.01]], dict(epoch_size=33)],
    "ignore": [PER, [[0.1, 0.3]], dict(minibatch_size=0, epoch_size=33)],
}
MOMENTA = {
    "constant": 0.9,
    "samples": [MOMENTUM, [[0.9, 0.5, 0.8]], dict(epoch_size=12)],
    "sized": [MOMENTUM, [[0.9, 0.7]], dict(epoch_size=12, minibatch_size=3)],
    "time": ["momentum_as_time_constant_schedule", [[20, 40]], dict(epoch_size=12)],
    "sweeps": [MOMENTUM, [[0.9, 0.02, 0.6]], {}],
    "each": ["momentum_schedule_per_sample", [[0.99, 0.95]], dict(epoch_size=21)],
}
KINDS = {
    "sgd": ("sgd", {}, ()),
    "momentum": ("momentum_sgd", {}, ("momentum",)),
    "momentum_raw": ("momentum_sgd", dict(unit_gain=False), ("momentum",)),
    "nesterov": ("nesterov", {}, ("momentum",)),
    "nesterov_raw": ("nesterov", dict(unit_gain=False), ("momentum",)),
    "adagrad": ("adagrad", {}, ()),
    "adagrad_plain": ("adagrad", dict(need_ave_multiplier=False), ()),
    "adadelta": ("adadelta", dict(rho=0.9, epsilon=1e-6), ()),
    "adam": ("adam", dict(epsilon=1e-6), ("momentum", "variance_momentum")),
    "adam_raw": ("adam", dict(unit_gain=False), ("momentum", "variance_momentum")),
    "adamax": ("adam", dict(adamax=True), ("momentum", "variance_momentum")),
    "adamax_raw": ("adam", dict(adamax=True, unit_gain=False), ("momentum", "variance_momentum")),
    "fsadagrad": ("fsadagrad", {}, ("momentum", "variance_momentum")),
    "fsadagrad_raw": ("fsadagrad", dict(unit_gain=False), ("momentum", "variance_momentum")),
    "rmsprop": ("rmsprop", dict(gamma=0.9, inc=1.2, dec=0.7, max=10.0, min=1e-2), ()),
    "rmsprop_plain": ("rmsprop", dict(gamma=0.9, inc=1.2, dec=0.7, max=10.0, min=1e-2, need_ave_multiplier=False), ()),
}
MEAN = dict(minibatch_size=0)
ALL_ON = dict(l1_regularization_weight=0.01, l2_regularization_weight=0.02, gradient_clipping_threshold_per_sample=0.5)
# (rate, momentum, variance momentum, options) by name
SETTINGS = [
    ("samples", "samples", "sized", {}),
    ("pairs", "sized", "each", dict(l2_regularization_weight=0.02)),
    ("sweeps", "sweeps", "constant", dict(l1_regularization_weight=0.05)),
    ("each", "time", "each", dict(gradient_clipping_threshold_per_sample=0.3)),
    ("ignore", "each", "samples", dict(gradient_clipping_threshold_per_sample=0.3, gradient_clipping_with_truncation=False)),
    ("samples", "constant", "constant", dict(MEAN, **ALL_ON)),
    ("constant", "samples", "sized", dict(minibatch_size=5, gradient_clipping_with_truncation=False, **ALL_ON)),
]
SUBSET = {"momentum", "nesterov_raw", "adam", "fsadagrad", "adagrad"}  # that run the later settings too


def cases():
    """name -> (function, options)."""
    for kind, (function, own, momenta) in sorted(KINDS.items()):
        for i, (rate, momentum, variance, options) in enumerate(SETTINGS):
            if i > 2 and kind not in SUBSET:
                continue
            named = dict(own, lr=RATES[rate], **options)
            named.update(zip(momenta, (MOMENTA[momentum], MOMENTA[variance])))
            yield "%s:%d" % (kind, i), (function, named)


def data():
    """Values to begin with, and summed gradients of each update."""
    r = np.random.RandomState(11)
    start = [np.asarray(r.randn(*s)) for s in SHAPES]
    return start, [[np.asarray(r.randn(*s) * n * 0.3) for s in SHAPES] for n in COUNTS]


def made(module, value):
    """A schedule, or the number that stands for itself."""
    return getattr(module, value[0])(*value[1], **value[2]) if isinstance(value, list) else value


def record(C, function, named):
    start, gradients = data()
    ps = [C.parameter(v.shape, init=v, dtype=np.float64) for v in start]

    def learner_of():
        return getattr(C, function)(
            ps, **{k: made(C, v) if k in ("lr", "momentum", "variance_momentum") else v for k, v in named.items()}
        )

    learner = learner_of()
    found = {"w": [], "s": [], "seen": []}
    for i, (g, n) in enumerate(zip(gradients, COUNTS)):
        if i == 12:  # a learner that goes on from a checkpoint
            other = learner_of()
            other.restore_from_checkpoint(learner.create_checkpoint())
            learner = other
        learner.update(dict(zip(ps, g)), n, i in ENDS)
        state = [
            np.asarray(v.asarray() if hasattr(v, "asarray") else v).ravel()
            for v in learner.create_checkpoint()["smoothed_gradients"]
        ]
        found["w"].append(np.concatenate([np.asarray(p.value).ravel() for p in ps]))
        found["s"].append(np.concatenate(state) if function != "sgd" else np.zeros(0))
        found["seen"].append(learner.total_number_of_samples_seen())
    return found


NOISE = [  # samples, and options
    (1, dict(gaussian_noise_injection_std_dev=0.3)),
    (8, dict(gaussian_noise_injection_std_dev=0.3)),
    (8, dict(gaussian_noise_injection_std_dev=0.3, minibatch_size=0)),
    (8, dict(gaussian_noise_injection_std_dev=0.3, minibatch_size=4)),
    (8, dict(gaussian_noise_injection_std_dev=[PER, [[0.3, 0.1]], dict(epoch_size=8)])),
    (8, dict(gaussian_noise_injection_std_dev=["learning_parameter_schedule_per_sample", [0.3], {}])),
]


def noise(C, n, options):
    """Mean and spread of parameters of 0 whose gradient is 0, after one and two updates."""
    p = C.parameter((200, 300), init=0.0)
    learner = C.sgd([p], lr=0.5, **{k: made(C, v) for k, v in options.items()})
    found = []
    for _ in range(2):
        learner.update({p: np.zeros((200, 300), "f")}, n)
        value = np.asarray(p.value, np.float64)
        found.append([value.mean(), value.std()])
    return found


def main():
    import cntk as C

    arrays = {}
    for name, (function, named) in cases():
        for key, value in record(C, function, named).items():
            arrays[name + "/" + key] = np.asarray(value, np.int64 if key == "seen" else np.float32)
    arrays["noise"] = np.array([noise(C, n, options) for n, options in NOISE])
    arrays["about"] = np.array(json.dumps(dict(cntk=C.__version__, numpy=np.__version__), sort_keys=True))
    with zipfile.ZipFile(os.path.join(HERE, "learner_states.npz"), "w", zipfile.ZIP_DEFLATED) as z:
        for key in sorted(arrays):
            buffer = io.BytesIO()
            np.save(buffer, arrays[key], allow_pickle=False)
            z.writestr(
                zipfile.ZipInfo(key.replace("/", "__") + ".npy", (2020, 1, 1, 0, 0, 0)), buffer.getvalue(), zipfile.ZIP_DEFLATED
            )


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # CNTK 2.7 aborts while it takes itself down
