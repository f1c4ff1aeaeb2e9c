"""Learners: trajectories against CNTK 2.7, counts and schedules, checkpoints that go on bit for bit, refusals."""

import json
import math
import pathlib

import numpy as np
import pytest

from cogkit import learners as L
from cogkit import ops
from cogkit.errors import ModelFileError
from cogkit.learners.rules import Adam, FSAdaGrad

GOLDENS = json.loads((pathlib.Path(__file__).parent / "goldens.json").read_text())
SHAPES = [(2, 3), (5,), ()]
COUNTS = [4, 7, 1, 16, 4, 4]


def data(dtype):
    r = np.random.RandomState(7)
    start = [np.asarray(r.randn(*s), dtype) for s in SHAPES]
    return start, [[np.asarray(r.randn(*s) * n, dtype) for s in SHAPES] for n in COUNTS]


def arguments(options):
    def plain(v):
        return [tuple(e) if isinstance(e, list) else e for e in v] if isinstance(v, list) else v

    def make(v):
        return getattr(L, v[0])(*map(plain, v[1]), **v[2]) if isinstance(v, list) else v

    return {k: make(v) for k, v in options.items()}


def parameters(start):
    return [ops.parameter(v.shape, init=v, dtype=v.dtype, name=f"w{i}") for i, v in enumerate(start)]


@pytest.fixture
def rounded(monkeypatch):
    """1 - v in float32, as CNTK computes it: 2 % off where v is 0.9999986. We compute it in double precision."""
    for rule in (Adam, FSAdaGrad):

        def numbers(self, *args, original=rule.numbers):
            x = original(self, *args)
            return x if "v1" not in x else {**x, "v1": float(np.float32(1) - np.float32(x["v"]))}

        monkeypatch.setattr(rule, "numbers", numbers)


@pytest.mark.parametrize("case", GOLDENS["updates"], ids=lambda c: c["name"])
def test_trajectories_against_cntk(case, request):
    if case["dtype"] == "float32":
        request.getfixturevalue("rounded")
    start, gradients = data(np.dtype(case["dtype"]))
    ps = parameters(start)
    options = arguments(case["scheduled"]) if "scheduled" in case else {"lr": case["lr"], **case["options"]}
    learner = getattr(L, case["kind"])(ps, **options)
    exact = case["dtype"] == "float64"
    for g, n, expected in zip(gradients, COUNTS, case["values"], strict=True):
        assert learner.update(dict(zip(ps, g, strict=True)), n)
        for p, e in zip(ps, expected, strict=True):
            assert p.value.ravel() == pytest.approx(e, rel=1e-9 if exact else 3e-5, abs=1e-11 if exact else 3e-6)


ALL = {
    "sgd": lambda ps, **k: L.sgd(ps, 0.1, **k),
    "momentum_sgd": lambda ps, **k: L.momentum_sgd(ps, [0.1, 0.05], 0.9, epoch_size=10, **k),
    "nesterov": lambda ps, **k: L.nesterov(ps, 0.1, L.momentum_schedule([0.9, 0.8], 12), **k),
    "adagrad": lambda ps, **k: L.adagrad(ps, 0.1, **k),
    "adadelta": lambda ps, **k: L.adadelta(ps, **k),
    "fsadagrad": lambda ps, **k: L.fsadagrad(ps, 0.1, 0.9, **k),
    "adam": lambda ps, **k: L.adam(ps, 0.1, 0.9, variance_momentum=0.99, **k),
    "adamax": lambda ps, **k: L.adam(ps, 0.1, 0.9, variance_momentum=0.99, adamax=True, **k),
    "rmsprop": lambda ps, **k: L.rmsprop(ps, 0.1, 0.9, 1.2, 0.7, 10.0, 0.01, **k),
}
NOISE = {"gaussian_noise_injection_std_dev": 0.1, "l1_regularization_weight": 0.01}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("options", [{}, NOISE], ids=["plain", "noise"])
def test_a_checkpoint_goes_on_bit_for_bit(kind, options):
    start, gradients = data(np.float32)
    one, two = parameters(start), parameters(start)
    first, second = ALL[kind](one, **options), ALL[kind](two, **options)
    for g, n in zip(gradients[:3], COUNTS[:3], strict=True):
        first.update(dict(zip(one, g, strict=True)), n)
    state = first.create_checkpoint()
    state = {"numbers": json.loads(json.dumps(state["numbers"])), "arrays": state["arrays"]}
    for a, b in zip(one, two, strict=True):
        b.value = a.value
    second.restore_from_checkpoint(state)
    for g, n in zip(gradients[3:], COUNTS[3:], strict=True):
        first.update(dict(zip(one, g, strict=True)), n)
        second.update(dict(zip(two, g, strict=True)), n)
    assert second.total_number_of_samples_seen() == sum(COUNTS)
    for a, b in zip(one, two, strict=True):
        assert a.value.tobytes() == b.value.tobytes()


@pytest.mark.parametrize("kind", ALL)
def test_reset_smoothed_gradients_begins_again(kind):
    start, gradients = data(np.float32)
    ps = parameters(start)
    learner = ALL[kind](ps)
    runs = []
    for _ in range(2):
        for p, v in zip(ps, start, strict=True):
            p.value = v
        learner.update(dict(zip(ps, gradients[0], strict=True)), 1)
        runs.append([p.value.tobytes() for p in ps])
        learner.reset_smoothed_gradients()
    if kind != "nesterov":
        assert runs[0] == runs[1]


def test_schedule_positions_against_cntk():
    """Samples, then a reset in the middle; up to the rate of 0, where CNTK stops counting and we do not."""
    w = ops.parameter((1,), init=1)
    learner = L.sgd([w], L.learning_parameter_schedule([0.1, 0.2, 0.3, 0.0, 0.5], minibatch_size=1, epoch_size=10))
    for n, end, done, rate, seen, value in GOLDENS["track"][:3]:
        assert learner.update({w: np.ones((1,), "f")}, n, end) is done
        assert (learner.learning_rate(), learner.total_number_of_samples_seen()) == (rate, seen)
        assert w.value[0] == pytest.approx(value)
    before = w.value
    assert learner.update({w: np.ones((1,), "f")}, 5) is True  # 0 now, 0.5 to come
    assert learner.learning_rate() == 0.5 and np.array_equal(w.value, before)
    learner.reset_learning_rate(L.learning_parameter_schedule([0.7, 0.8], minibatch_size=1, epoch_size=5))
    assert learner.learning_rate() == 0.7
    learner.update({w: np.ones((1,), "f")}, 5)
    assert learner.learning_rate() == 0.8


def test_sweeps_against_cntk():
    w = ops.parameter((1,), init=1)
    learner = L.sgd([w], L.learning_parameter_schedule([0.1, 0.2, 0.3]))
    track = GOLDENS["sweeps"]
    for n, end, done, rate in track[:5]:
        assert learner.update({w: np.ones((1,), "f")}, n, end) is done
        assert learner.learning_rate() == rate
    learner.reset_learning_rate(L.learning_parameter_schedule([0.7, 0.8]))
    for n, end, done, rate in track[5:]:
        assert learner.update({w: np.ones((1,), "f")}, n, end) is done
        assert learner.learning_rate() == rate


def test_a_rate_of_zero_for_ever_ends_learning():
    w = ops.parameter((1,), init=1)
    learner = L.sgd([w], [0.1, 0.0], epoch_size=1)
    assert learner.update({w: np.ones((1,), "f")}, 1) is True
    assert learner.update({w: np.ones((1,), "f")}, 1) is False


def test_reference_sizes():
    """What sgd(lr, minibatch_size, use_mean_gradient) takes as sizes, as CNTK 2.7 does."""
    w, s = ops.parameter((2,)), L.learning_parameter_schedule
    for options, size, compatible, schedule_size in [
        ({"lr": 0.1}, 0, False, 0),
        ({"lr": s(0.1, 20)}, 0, False, 20),
        ({"lr": 0.1, "minibatch_size": 25}, 25, False, 25),
        ({"lr": s(0.1), "minibatch_size": 25}, 25, False, 25),
        ({"lr": s(0.1, 20), "minibatch_size": 25}, 25, False, 20),
        ({"lr": s(0.1, 20), "minibatch_size": L.IGNORE}, 0, True, 20),
        ({"lr": 0.1, "use_mean_gradient": True}, 0, True, 0),
        ({"lr": s(0.1, 1), "use_mean_gradient": True}, 0, True, 0),
        ({"lr": 0.1, "use_mean_gradient": False}, 0, False, 0),
    ]:
        learner = L.sgd([w], **options)
        found = (learner.minibatch_size, learner.is_compatible_mode(), learner._learning_rate_schedule.minibatch_size)
        assert found == (size, compatible, schedule_size), options


def test_a_schedule_is_not_changed_by_a_learner():
    schedule = L.learning_parameter_schedule(0.1)
    L.sgd([ops.parameter((2,))], schedule, minibatch_size=8)
    assert schedule.minibatch_size == L.IGNORE


def test_minibatch_size_may_change_later():
    w = ops.parameter((1,), init=0.0)
    learner = L.sgd([w], 1.0)
    learner.update({w: np.full((1,), 4, "f")}, 4)
    assert w.value[0] == -1
    learner.minibatch_size = L.IGNORE
    assert learner.is_compatible_mode()
    learner.update({w: np.full((1,), 4, "f")}, 4)
    assert w.value[0] == -2


def test_own_buffers_are_read_in_place():
    w = ops.parameter((3,), init=0.0)
    learner = L.sgd([w], 1.0, minibatch_size=1)
    learner.gradients[w][...] = [1, 2, 3]
    learner.update(learner.gradients, 1)
    assert w.value.tolist() == [-1, -2, -3]


def test_mixed_types():
    a, b = ops.parameter((2,), init=1.0, dtype=np.float32), ops.parameter((2,), init=1.0, dtype=np.float64)
    learner = L.adam([a, b], 0.1, 0.9)
    learner.update({a: np.ones(2), b: np.ones(2)}, 1)
    assert a.value == pytest.approx(b.value, rel=1e-6) and a.value[0] < 1


def test_a_change_is_reported_once():
    class Writer:
        seen = []

        def write(self, key, value):
            self.seen.append((key, value))

    w = ops.parameter((1,), init=1)
    learner = L.momentum_sgd([w], [0.3, 0.2], L.momentum_schedule([0.6, 0.7], epoch_size=1), epoch_size=2)
    learner.add_progress_writers([Writer()])
    for _ in range(4):
        learner.update({w: np.ones((1,), "f")}, 1)
    assert Writer.seen == [("learning rate", 0.3), ("momentum", 0.6), ("momentum", 0.7), ("learning rate", 0.2)]


def test_universal():
    """A rule of the user's: momentum with a state of its own, lowered like any other; its state is in the checkpoint."""
    start, gradients = data(np.float32)

    def rule(ps, gs):
        states = [ops.constant(0.0, p.shape, name="s") for p in ps]
        moved = [0.9 * s + 0.1 * g for s, g in zip(states, gs, strict=True)]
        done = [ops.assign(s, m) for s, m in zip(states, moved, strict=True)]
        return ops.combine(done + [ops.assign(p, p - m) for p, m in zip(ps, moved, strict=True)])

    one, two = parameters(start), parameters(start)
    mine, theirs = L.universal(rule, one), L.momentum_sgd(two, 1.0, 0.9, minibatch_size=1)
    for g in gradients:
        mine.update(dict(zip(one, g, strict=True)), 1)
        theirs.update(dict(zip(two, g, strict=True)), 1)
    for a, b in zip(one, two, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-5)
    assert len(mine.create_checkpoint()["arrays"]) == 3
    with pytest.raises(ValueError, match="expected a function of \\(parameters, gradients\\), got one of 1 arguments"):
        L.universal(lambda ps: None, one)


def test_user_learner():
    class Plain(L.UserLearner):
        def update(self, gradient_values, training_sample_count, sweep_end=False):
            for p, g in gradient_values.items():
                p.value = p.value - self.learning_rate() * g / training_sample_count
            return True

    w = ops.parameter((2,), init=1.0)
    assert Plain([w], L.learning_parameter_schedule(0.5)).update({w: np.array([2.0, 4.0])}, 2)
    assert w.value.tolist() == [0.5, 0.0]


def test_unit_gain_default():
    w = ops.parameter((1,), init=0.0)
    try:
        L.set_default_unit_gain_value(False)
        assert not L.default_unit_gain_value()
        L.momentum_sgd([w], 1.0, 0.9).update({w: np.ones(1)}, 1)
        assert w.value[0] == -1
    finally:
        L.set_default_unit_gain_value(True)


W = ops.parameter((2,), name="W")
REFUSED = {
    "no parameters": (lambda: L.sgd([], 0.1), ValueError, "sgd: expected at least one parameter, got an empty list"),
    "one parameter": (lambda: L.sgd(W, 0.1), TypeError, "sgd: expected a list of parameters, got one parameter"),
    "twice": (lambda: L.sgd([W, W], 0.1), ValueError, "sgd: expected each parameter once, got one twice"),
    "a constant": (lambda: L.sgd([ops.constant(1.0)], 0.1), TypeError, "sgd: expected parameters, got Constant"),
    "no rate": (lambda: L.sgd([W], None), ValueError, "expected a number, a list or a schedule as learning rate, got NoneType"),
    "momentum": (lambda: L.momentum_sgd([W], 0.1, 1.5), ValueError, "expected momentum within 0 and 1"),
    "size": (lambda: L.sgd([W], 0.1, minibatch_size=-2), ValueError, "minibatch_size of at least 1, or IGNORE, got -2"),
    "l2": (lambda: L.sgd([W], 0.1, l2_regularization_weight=-1), ValueError, "l2_regularization_weight of 0 or more, got -1"),
    "clipping": (lambda: L.sgd([W], 0.1, gradient_clipping_threshold_per_sample=0), ValueError, "above 0, got 0; leave it out"),
    "empty": (lambda: L.sgd([W], 0.1).update({W: np.ones(2)}, 0), ValueError, "expected a minibatch of at least 1 sample, got 0"),
    "missing": (lambda: L.sgd([W], 0.1).update({}, 1), ValueError, "expected a gradient for every parameter, got none for Param"),
    "shape": (
        lambda: L.sgd([W], 0.1).update({W: np.ones(3)}, 1),
        ValueError,
        r"expected a gradient of shape \(2,\) .*got \(3,\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    make, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        make()


def other(change):
    state = L.momentum_sgd([W], 0.1, 0.9).create_checkpoint()
    change(state)
    return state


CHECKPOINTS = {
    "kind": (L.sgd([W], 0.1).create_checkpoint(), "expected a learner with kind 'momentumsgd', got 'sgd'"),
    "setting": (L.momentum_sgd([W], 0.1, 0.9, unit_gain=False).create_checkpoint(), "with unit_gain True, got False"),
    "decay": (
        L.momentum_sgd([W], 0.1, 0.9, l2_regularization_weight=1).create_checkpoint(),
        "l2_regularization_weight 0.0, got 1",
    ),
    "parameter": (L.momentum_sgd([ops.parameter((3,), name="W")], 0.1, 0.9).create_checkpoint(), "it is of another model"),
    "count": (
        L.momentum_sgd([W, ops.parameter((3,))], 0.1, 0.9).create_checkpoint(),
        "expected 1 parameters of the momentumsgd, got 2",
    ),
    "array": (other(lambda s: s["arrays"].update({"0.s": np.ones(5, "f")})), "state '0.s' of shape"),
    "numbers": (other(lambda s: s["numbers"].pop("samples")), "expected the state of a learner, got KeyError"),
    "schedule": (other(lambda s: s["numbers"]["learning_rate"].update(ends=[])), "its stored form is damaged"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_refused_checkpoints(name):
    state, message = CHECKPOINTS[name]
    learner = L.momentum_sgd([W], 0.1, 0.9)
    before = json.dumps(learner.create_checkpoint()["numbers"])
    with pytest.raises(ModelFileError, match=message):
        learner.restore_from_checkpoint(state)
    assert json.dumps(learner.create_checkpoint()["numbers"]) == before


def test_momentum_of_one_does_not_divide_by_zero():
    w = ops.parameter((1,), init=1.0)
    L.adam([w], 0.1, L.momentum_as_time_constant_schedule(math.inf)).update({w: np.ones(1)}, 1)
    assert np.isfinite(w.value).all()


def test_rmsprop_steps_without_a_bound_stay_finite():
    w = ops.parameter((3,), init=1.0)
    learner = L.rmsprop([w], 1.0, 0.1, 3.0, 0.1, math.inf, 1e-8)
    for _ in range(120):
        learner.update({w: np.array([1e-6, 1.0, -1.0])}, 1)
    assert np.isfinite(w.value).all()
