"""Trainer and Evaluator: against hand-made numbers, resume bit for bit, what they refuse, what a step costs in Python."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import cogkit as C
from cogkit import ops
from cogkit.engine import current_engine
from cogkit.errors import ModelFileError
from cogkit.logging import ProgressWriter
from cogkit.store import read_tensors, write_tensors
from cogkit.train.checkpoint import clear_leftovers


class Net:
    """Two layers, cross entropy and error over 3 classes; a new one has the same start."""

    def __init__(self, dropout=0.0, dtype=np.float32):
        r = np.random.RandomState(1)
        self.x = ops.input_variable((4,), dtype, name="x")
        self.y = ops.input_variable((3,), dtype, name="y")
        self.w1 = ops.parameter((4, 5), init=r.randn(4, 5), dtype=dtype, name="W1")
        self.w2 = ops.parameter((5, 3), init=r.randn(5, 3), dtype=dtype, name="W2")
        self.b = ops.parameter((3,), dtype=dtype, name="b")
        h = ops.tanh(ops.times(self.x, self.w1))
        if dropout:
            h = ops.dropout(h, dropout, seed=3)
        self.z = ops.times(h, self.w2) + self.b
        self.loss = C.cross_entropy_with_softmax(self.z, self.y)
        self.error = C.classification_error(self.z, self.y)
        self.parameters = [self.w1, self.w2, self.b]

    def trainer(self, make=None, writers=None):
        learner = make(self.parameters) if make else C.momentum_sgd(self.parameters, 0.5, 0.9)
        return C.Trainer(self.z, (self.loss, self.error), [learner], writers)

    def bits(self):
        return [p.value.tobytes() for p in self.parameters]


def batch(i, n=6):
    r = np.random.RandomState(100 + i)
    return r.randn(n, 4).astype("f"), np.eye(3, dtype="f")[r.randint(0, 3, n)]


def by_hand(net, x, y):
    """(loss, errors, gradients), summed over the minibatch."""
    h = np.tanh(x @ net.w1.value)
    z = h @ net.w2.value + net.b.value
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log((p * y).sum(1)).sum()
    dz = p - y
    dh = dz @ net.w2.value.T * (1 - h * h)
    return loss, (z.argmax(1) != y.argmax(1)).sum(), [x.T @ dh, h.T @ dz, dz.sum(0)]


def test_a_minibatch_by_hand():
    net = Net()
    trainer = net.trainer(lambda ps: C.sgd(ps, 0.5, minibatch_size=6))
    for i, n in enumerate([6, 2, 6]):
        x, y = batch(i, n)
        loss, errors, gradients = by_hand(net, x, y)
        before = [p.value for p in net.parameters]
        assert trainer.train_minibatch({net.x: x, net.y: y}) is True
        for p, old, g in zip(net.parameters, before, gradients, strict=True):
            assert p.value == pytest.approx(old - 0.5 / 6 * g, rel=1e-4, abs=1e-5)
        assert trainer.previous_minibatch_loss_average == pytest.approx(loss / n, rel=1e-5)
        assert trainer.previous_minibatch_evaluation_average == pytest.approx(errors / n)
        assert trainer.previous_minibatch_sample_count == n
    assert trainer.total_number_of_samples_seen == 14
    assert trainer.total_number_of_units_seen("minibatch") == 3


def test_wanted_outputs_and_names():
    net = Net()
    trainer = net.trainer()
    x, y = batch(0)
    z = np.tanh(x @ net.w1.value) @ net.w2.value + net.b.value
    more, values = trainer.train_minibatch({"x": x, net.y: y}, outputs=[net.z])
    assert more and values[net.z.output] == pytest.approx(z, rel=1e-4, abs=1e-5)
    first = net.bits()
    trainer.train_minibatch({net.x: x, "y": y})
    assert net.bits() != first
    trainer.train_minibatch({net.x: x, "y": y}, outputs=net.z)
    assert trainer.total_number_of_samples_seen == 18


def test_with_and_without_outputs_is_the_same_training():
    one, two = Net(), Net()
    first, second = one.trainer(), two.trainer()
    for i in range(6):
        x, y = batch(i)
        first.train_minibatch({one.x: x, one.y: y})
        second.train_minibatch({two.x: x, two.y: y}, outputs=[two.z] if i % 2 else None)
    for a, b in zip(one.parameters, two.parameters, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-5, abs=1e-6)


def test_two_learners():
    net = Net()
    trainer = C.Trainer(net.z, (net.loss, net.error), [C.sgd([net.w1], 0.5), C.sgd([net.b, net.w2], 0.0)])
    before = net.bits()
    x, y = batch(0)
    assert trainer.train_minibatch({net.x: x, net.y: y}) is True
    after = net.bits()
    assert after[0] != before[0] and after[1:] == before[1:]


def test_a_minibatch_source_says_when_a_sweep_ends():
    class Stream:
        def __init__(self, value, end):
            self.value, self.end_of_sweep = value, end

        def asarray(self):
            return self.value

    net = Net()
    trainer = net.trainer(lambda ps: C.sgd(ps, [0.3, 0.2]))
    x, y = batch(0)
    trainer.train_minibatch({net.x: Stream(x, False), net.y: Stream(y, False)})
    assert trainer.parameter_learners[0].learning_rate() == 0.3
    trainer.train_minibatch({net.x: Stream(x, True), net.y: Stream(y, True)})
    assert trainer.parameter_learners[0].learning_rate() == 0.2
    with pytest.raises(ValueError, match="expected no is_sweep_end"):
        trainer.train_minibatch({net.x: Stream(x, True), net.y: Stream(y, True)}, is_sweep_end=True)
    trainer.train_minibatch({net.x: x, net.y: y}, is_sweep_end=True)
    assert trainer.total_number_of_units_seen("sweep") == 2


def test_testing_changes_nothing():
    net = Net(dropout=0.5)
    trainer = net.trainer()
    x, y = batch(0)
    before = net.bits()
    error = trainer.test_minibatch({net.x: x, net.y: y})
    assert error == pytest.approx(by_hand(net, x, y)[1] / 6)
    assert C.Evaluator(net.error).test_minibatch({net.x: x, net.y: y}) == error
    assert net.bits() == before


def test_testing_does_not_move_the_random_numbers_of_training():
    bits = []
    for test in (False, True):
        net = Net(dropout=0.5)
        trainer = net.trainer()
        for i in range(3):
            x, y = batch(i)
            if test:
                trainer.test_minibatch({net.x: x, net.y: y})
                net.z.eval({net.x: x})
            trainer.train_minibatch({net.x: x, net.y: y})
        bits.append(net.bits())
    assert bits[0] == bits[1]


def test_a_reduced_loss_counts_the_samples_of_its_minibatch():
    net = Net()
    total = ops.reduce_sum(net.loss, axis=C.Axis.all_axes())
    trainer = C.Trainer(net.z, (total,), C.sgd(net.parameters, 0.1))
    x, y = batch(0)
    loss = by_hand(net, x, y)[0]
    trainer.train_minibatch({net.x: x, net.y: y})
    assert trainer.previous_minibatch_sample_count == 6
    assert trainer.previous_minibatch_loss_average == pytest.approx(loss / 6, rel=1e-5)


def test_gradients_in_any_memory():
    """Parameters of equal gradients, of gradients that are data, and minibatches of changing size: each learns its own."""
    x = ops.input_variable((3,), name="x")
    a, b, c = (ops.parameter((3,), init=[1.0, 2.0, 3.0], name=n) for n in "abc")
    d = ops.parameter((2,), init=5.0, name="d")
    loss = ops.reduce_sum((a + b) * 2.0 + c * x) + ops.reduce_sum(d)
    trainer = C.Trainer(None, loss, C.sgd([a, b, c, d], 1.0, minibatch_size=1))
    want = {p: p.value for p in (a, b, c, d)}
    for n in (2, 3, 2, 1, 4, 5, 6, 7, 2, 3):
        data = np.random.RandomState(n).randn(n, 3).astype("f")
        trainer.train_minibatch({x: data})
        for p, g in {a: np.full(3, 2 * n), b: np.full(3, 2 * n), c: data.sum(0), d: np.full(2, n)}.items():
            want[p] = want[p] - g
            assert p.value == pytest.approx(want[p], rel=1e-5, abs=1e-4)
    learner = trainer.parameter_learners[0]
    learner.update({a: np.ones(3), b: np.zeros(3), c: np.zeros(3), d: np.zeros(2)}, 1)
    assert a.value == pytest.approx(want[a] - 1, rel=1e-5) and b.value == pytest.approx(want[b], rel=1e-5)


def test_criterion_forms():
    net = Net()
    learner = C.sgd(net.parameters, 0.1)
    for criterion in (
        net.loss,
        (net.loss,),
        (net.loss, None),
        [net.loss, net.error],
        C.combine(net.loss, net.error),
        net.loss.output,
    ):
        trainer = C.Trainer(None, criterion, learner)
        x, y = batch(0)
        assert trainer.train_minibatch({net.x: x, net.y: y})
        assert trainer.loss_function.outputs[0] is net.loss.output


def test_writers_are_told():
    class Writer(ProgressWriter):
        def __init__(self):
            super().__init__(1, 0, 1)
            self.calls = []

        def on_write_training_update(self, samples, updates, aggregate_loss, aggregate_metric):
            self.calls.append(("train", samples, updates))

        def on_write_test_update(self, samples, updates, aggregate_metric):
            self.calls.append(("test", samples, updates))

        def on_write_training_summary(self, samples, updates, summaries, aggregate_loss, aggregate_metric, elapsed_milliseconds):
            self.calls.append(("epoch", samples, updates))

        def on_write_test_summary(self, samples, updates, summaries, aggregate_metric, elapsed_milliseconds):
            self.calls.append(("tested", samples, updates))

        def write(self, key, value):
            self.calls.append((key, value))

    net, writer = Net(), Writer()
    trainer = net.trainer(writers=writer)
    x, y = batch(0)
    for _ in range(2):
        trainer.train_minibatch({net.x: x, net.y: y})
    trainer.test_minibatch({net.x: x, net.y: y})
    trainer.summarize_training_progress()
    trainer.summarize_test_progress()
    assert writer.calls == [
        ("learning rate", 0.5),
        ("momentum", 0.9),
        ("train", (0, 6), (0, 1)),
        ("train", (6, 12), (1, 2)),
        ("test", (0, 6), (0, 1)),
        ("epoch", 12, 2),
        ("tested", 6, 1),
    ]


def test_a_user_learner_is_counted():
    class Plain(C.UserLearner):
        def update(self, gradient_values, training_sample_count, sweep_end=False):
            for p, g in gradient_values.items():
                p.value = p.value - self.learning_rate() * g / training_sample_count
            return True

    one, two = Net(), Net()
    first, second = one.trainer(lambda ps: Plain(ps, 0.3)), two.trainer(lambda ps: C.sgd(ps, 0.3))
    for i in range(3):
        x, y = batch(i)
        first.train_minibatch({one.x: x, one.y: y})
        second.train_minibatch({two.x: x, two.y: y})
    assert first.total_number_of_samples_seen == 18
    for a, b in zip(one.parameters, two.parameters, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-5, abs=1e-6)


# what is refused -----------------------------------------------------------------------------------------------------

NET = Net()
X, Y = batch(0)
OTHER = ops.parameter((2,), name="other")
Q = ops.input_variable((4,), name="q")


def trained(feeds, **options):
    NET.trainer().train_minibatch(feeds, **options)


REFUSED = {
    "no learner": (lambda: C.Trainer(NET.z, NET.loss, []), ValueError, "Trainer: expected at least one learner, got none"),
    "no learner's kind": (lambda: C.Trainer(NET.z, NET.loss, [0.1]), TypeError, "Trainer: expected learners, got float"),
    "foreign": (
        lambda: C.Trainer(NET.z, NET.loss, C.sgd([*NET.parameters, OTHER], 1)),
        ValueError,
        "got one of Parameter\\('other', .*which the model has not",
    ),
    "two learners": (
        lambda: C.Trainer(NET.z, NET.loss, [C.sgd(NET.parameters, 1), C.sgd([NET.b], 1)]),
        ValueError,
        "expected one learner for each parameter, got two for Parameter\\('b'",
    ),
    "three outputs": (
        lambda: C.Trainer(NET.z, (NET.loss, NET.error, NET.z), C.sgd(NET.parameters, 1)),
        ValueError,
        "expected a criterion of one or two outputs \\(loss, metric\\), got 3",
    ),
    "placeholders": (
        lambda: C.Trainer(None, ops.times(ops.placeholder((4,), name="p"), NET.w1), C.sgd([NET.w1], 1)),
        ValueError,
        "expected a loss of inputs, got one of placeholders .*apply the criterion to inputs first",
    ),
    "criterion's kind": (lambda: C.Trainer(None, ("loss",), C.sgd([NET.w1], 1)), TypeError, "as criterion, got str"),
    "missing feed": (
        lambda: trained({NET.x: X}),
        ValueError,
        "train_minibatch: expected data for Input\\('y'.*got none; feed it",
    ),
    "unknown feed": (lambda: trained({NET.x: X, NET.y: Y, Q: X}), ValueError, "inputs x, y, got some for Input\\('q'"),
    "unknown name": (lambda: trained({"x": X, "label": Y}), ValueError, "expected the names of inputs \\(x, y\\), got 'label'"),
    "twice": (lambda: trained({"x": X, NET.x: X, NET.y: Y}), ValueError, "expected each input once, got Input\\('x'"),
    "no dict": (lambda: trained(X), ValueError, "expected a dict that feeds 2 inputs, got ndarray"),
    "tuple": (lambda: trained(({NET.x: X, NET.y: Y}, [True])), ValueError, "got flags too; no input has a sequence axis"),
    "shape": (lambda: trained({NET.x: X[:, :3], NET.y: Y}), ValueError, "Input 'x' .*expected data of shape .*got \\(6, 3\\)"),
    "samples": (lambda: trained({NET.x: X, NET.y: Y[:4]}), ValueError, "expected 6 samples in .*got 4"),
    "text": (lambda: trained({NET.x: np.array([["a"] * 4]), NET.y: Y[:1]}), (ValueError, TypeError), "Input 'x'"),
    "empty": (lambda: trained({NET.x: X[:0], NET.y: Y[:0]}), ValueError, "expected at least one sample, got none"),
    "no metric": (
        lambda: C.Trainer(NET.z, NET.loss, C.sgd(NET.parameters, 1)).test_minibatch({NET.x: X, NET.y: Y}),
        ValueError,
        "test_minibatch: expected a metric, got none; pass criterion=\\(loss, metric\\)",
    ),
    "no metric's average": (
        lambda: C.Trainer(NET.z, NET.loss, C.sgd(NET.parameters, 1)).previous_minibatch_evaluation_average,
        ValueError,
        "expected a metric, got none",
    ),
    "units": (lambda: NET.trainer().total_number_of_units_seen("epoch"), ValueError, "got 'epoch'"),
    "test feed": (lambda: C.Evaluator(NET.error).test_minibatch({NET.x: X}), ValueError, "expected data for Input\\('y'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    make, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        make()


def test_parameters_without_a_learner_stay():
    net = Net()
    with pytest.warns(UserWarning, match="no learner for 1 parameters \\(b\\); they will not be learned"):
        trainer = C.Trainer(net.z, net.loss, C.sgd([net.w1, net.w2], 0.5))
    trainer.train_minibatch({net.x: X, net.y: Y})
    assert not net.b.value.any()


def test_no_data_is_the_end():
    assert NET.trainer().train_minibatch({}) is False


# checkpoints ---------------------------------------------------------------------------------------------------------

LEARNERS = {
    "sgd": lambda ps: C.sgd(ps, [0.5, 0.1], epoch_size=20),
    "momentum_sgd": lambda ps: C.momentum_sgd(ps, 0.5, C.momentum_schedule([0.9, 0.5], 20), l2_regularization_weight=0.01),
    "nesterov": lambda ps: C.nesterov(ps, 0.5, 0.9),
    "adagrad": lambda ps: C.adagrad(ps, 0.5),
    "adadelta": lambda ps: C.adadelta(ps),
    "fsadagrad": lambda ps: C.fsadagrad(ps, 0.1, 0.9),
    "adam": lambda ps: C.adam(ps, 0.1, 0.9, gaussian_noise_injection_std_dev=0.01),
    "adamax": lambda ps: C.adam(ps, 0.1, 0.9, adamax=True, l1_regularization_weight=0.001),
    "rmsprop": lambda ps: C.rmsprop(ps, 0.1, 0.9, 1.2, 0.7, 10.0, 0.01),
    "universal": lambda ps: C.universal(momentum_rule, ps),
}


def momentum_rule(ps, gs):
    states = [ops.constant(0.0, p.shape, name="s") for p in ps]
    moved = [0.9 * s + 0.1 * g for s, g in zip(states, gs, strict=True)]
    done = [ops.assign(s, m) for s, m in zip(states, moved, strict=True)]
    return ops.combine(done + [ops.assign(p, p - 0.1 * m) for p, m in zip(ps, moved, strict=True)])


def go(net, trainer, steps):
    for i in steps:
        x, y = batch(i)
        trainer.train_minibatch({net.x: x, net.y: y})


@pytest.mark.parametrize("kind", LEARNERS)
def test_resume_in_one_process(kind, tmp_path):
    """Train 2n = train n, store, build anew, restore, train n: bit for bit, dropout and noise included."""
    C.set_seed(5)
    whole = Net(dropout=0.3)
    trainer = whole.trainer(LEARNERS[kind])
    go(whole, trainer, range(8))
    C.set_seed(5)
    first = Net(dropout=0.3)
    trainer = first.trainer(LEARNERS[kind])
    go(first, trainer, range(4))
    trainer.save_checkpoint(tmp_path / "c", {"source": {"position": 24, "name": "x"}, "list": [1, 2.5, None, True]})
    C.set_seed(99)
    second = Net(dropout=0.3)
    second.w1.value = np.zeros((4, 5))
    trainer = second.trainer(LEARNERS[kind])
    state = trainer.restore_from_checkpoint(tmp_path / "c")
    assert state == {"source": {"position": 24, "name": "x"}, "list": [1, 2.5, None, True]}
    assert trainer.total_number_of_samples_seen == 24 and trainer.previous_minibatch_sample_count == 6
    go(second, trainer, range(4, 8))
    assert second.bits() == whole.bits()


KILLED = """
    import importlib.util, os, signal, sys
    import cogkit as C
    spec = importlib.util.spec_from_file_location("t", {file!r})
    t = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(t)
    C.device.use_engine({engine!r}).__enter__()
    C.set_seed(5)
    net = t.Net(dropout=0.3)
    trainer = net.trainer(t.LEARNERS[sys.argv[1]])
    path, start = sys.argv[2], 0
    if os.path.exists(path):
        start = trainer.restore_from_checkpoint(path)["next"]
    for i in range(start, 8):
        if i == 5 and sys.argv[3] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        t.go(net, trainer, [i])
        trainer.save_checkpoint(path, {{"next": i + 1}})
    print(*[b.hex() for b in net.bits()])
"""


@pytest.mark.parametrize("kind", LEARNERS)
def test_resume_after_kill(kind, tmp_path):
    """The same through processes, one of which is killed between two steps."""
    code = textwrap.dedent(KILLED.format(file=__file__, engine=current_engine()))

    def run(name, how):
        command = [sys.executable, "-c", code, kind, str(tmp_path / name), how]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    whole = run("a", "live")
    killed = run("b", "die")
    assert killed.returncode == -signal.SIGKILL and killed.stdout == ""
    resumed = run("b", "live")
    assert whole.stdout and resumed.stdout == whole.stdout, whole.stderr + resumed.stderr


def checkpoint(path):
    net = Net()
    trainer = net.trainer()
    go(net, trainer, range(2))
    trainer.save_checkpoint(path, {"a": 1})
    return net


def test_the_model_of_a_checkpoint_is_a_model_file(tmp_path):
    net = checkpoint(tmp_path / "c")
    loaded = C.load_model(tmp_path / "c")
    assert {v.name for v in loaded.arguments} == {"x", "y"}
    named = {p.name: p for p in loaded.parameters}
    assert np.array_equal(named["W1"].value, net.w1.value)


def damage(path, change):
    """Changes the state of a checkpoint, whose files stay whole."""
    metadata, arrays = read_tensors(f"{path}.ckp")
    state = json.loads(metadata["state"])
    change(state, metadata)
    write_tensors(f"{path}.ckp", arrays, metadata | {"state": json.dumps(state)})


def another(path):
    """The model of another checkpoint, of the same graph."""
    checkpoint(path.with_name("other"))
    os.replace(path.with_name("other"), path)


def other_model():
    net = Net()
    extra = ops.parameter((3,), name="extra")
    net.z = net.z + extra
    net.loss = C.cross_entropy_with_softmax(net.z, net.y)
    net.parameters.append(extra)
    return net.trainer()


BROKEN = {
    "other model": (other_model, lambda p: None, "expected a tensor '.*' for .*the file is of another model"),
    "other learner": (lambda: Net().trainer(lambda ps: C.sgd(ps, 1)), lambda p: None, "with kind 'sgd', got 'momentumsgd'"),
    "other type": (lambda: Net(dtype=np.float64).trainer(), lambda p: None, "expected float64 .*got float32"),
    "no state": (None, lambda p: os.unlink(f"{p}.ckp"), "got one without c.ckp"),
    "no model": (None, lambda p: p.unlink(), "got one without c"),
    "another state": (None, another, "expected model and state of one checkpoint, got in c.ckp the state of another one"),
    "a model alone": (None, lambda p: C.load_model(p).save(p), "expected a checkpoint, got a model alone"),
    "version": (
        None,
        lambda p: damage(p, lambda s, m: m.update(version="7")),
        "expected a model of version 1 to 1, got version '7'",
    ),
    "learners": (None, lambda p: damage(p, lambda s, m: s["learners"].append({})), "expected 1 learners, got 2"),
    "format": (None, lambda p: damage(p, lambda s, m: m.update(format="x")), "expected a cogkit checkpoint, got 'x'"),
    "counts": (None, lambda p: damage(p, lambda s, m: s["trainer"].pop("seed")), "KeyError"),
    "cut": (None, lambda p: os.truncate(p, 300), "the file is cut|damaged"),
    "cut state": (None, lambda p: os.truncate(f"{p}.ckp", 30), "the file is cut|damaged"),
    "swapped": (None, lambda p: os.replace(f"{p}.ckp", p), "expected a cogkit model"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_checkpoints_change_nothing(name, tmp_path):
    make, change, message = BROKEN[name]
    checkpoint(tmp_path / "c")
    change(tmp_path / "c")
    trainer = make() if make else Net().trainer()
    before = [p.value.tobytes() for p in trainer.parameter_learners[0].parameters]
    with pytest.raises(ModelFileError, match=message):
        trainer.restore_from_checkpoint(tmp_path / "c")
    assert [p.value.tobytes() for p in trainer.parameter_learners[0].parameters] == before
    assert trainer.total_number_of_samples_seen == 0


def test_any_damage_is_one_error_or_harmless(tmp_path):
    """Bytes changed, cut off and put in, in both files: a ModelFileError that changes nothing, or values that were changed."""
    checkpoint(tmp_path / "c")
    whole = {name: (tmp_path / name).read_bytes() for name in ("c", "c.ckp")}
    net = Net()
    trainer, draw, refused = net.trainer(), np.random.default_rng(3), 0
    for i in range(200):
        name = ("c", "c.ckp")[i % 2]
        data = bytearray(whole[name])
        at = int(draw.integers(len(data))) if i % 3 else int(draw.integers(8, 600))
        kind = draw.integers(4)
        if kind == 0:
            data[at] ^= 1 << int(draw.integers(8))
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at : at + 3] = b"9"
        else:
            data[at:at] = bytes(draw.integers(32, 127, 2).astype(np.uint8))
        (tmp_path / name).write_bytes(data)
        before = net.bits()
        try:
            trainer.restore_from_checkpoint(tmp_path / "c")
        except ModelFileError:
            refused += 1
            assert net.bits() == before
        (tmp_path / name).write_bytes(whole[name])
    assert refused > 100
    assert trainer.restore_from_checkpoint(tmp_path / "c") == {"a": 1}


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a checkpoint, got nothing; write one with save_checkpoint"):
        Net().trainer().restore_from_checkpoint(tmp_path / "none")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": object()}, "got a object at external_state\\['a'\\]"),
        ({"a": [float("nan")]}, "finite"),
        ({"a": {1: 2}}, "texts as keys"),
    ],
)
def test_external_state_is_plain(state, message, tmp_path):
    with pytest.raises(ModelFileError, match=message):
        Net().trainer().save_checkpoint(tmp_path / "c", state)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("full", ["state", "model"])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, full):
    """Too little room for the state, or for the model that comes after it."""
    checkpoint(tmp_path / "c")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert len(before["c.ckp"]) < len(before["c"]) - 40
    room = 200 if full == "state" else len(before["c"]) - 40
    net = Net()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            net.trainer().save_checkpoint(tmp_path / "c")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_kill_between_the_two_renames(tmp_path, monkeypatch):
    """The new state lies aside then, and is found by the new model's token."""
    checkpoint(tmp_path / "c")
    net = Net()
    trainer = net.trainer()
    go(net, trainer, range(5))
    replace = os.replace

    def killed(source, target):
        if str(target).endswith(".ckp"):
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.save_checkpoint(tmp_path / "c", {"a": 2})
    again = Net()
    assert again.trainer().restore_from_checkpoint(tmp_path / "c") == {"a": 2}
    assert again.bits() == net.bits()
    again.trainer().save_checkpoint(tmp_path / "c", {"a": 3})
    assert Net().trainer().restore_from_checkpoint(tmp_path / "c") == {"a": 3}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "c.ckp"]


def test_a_kill_while_writing_leaves_whole_checkpoints(tmp_path):
    """Killed again and again at random moments: what is found can always be restored."""
    code = textwrap.dedent(
        """
        import importlib.util, sys
        spec = importlib.util.spec_from_file_location("t", sys.argv[1])
        t = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(t)
        trainer = t.Net().trainer()
        print("ready", flush=True)
        while True:
            trainer.save_checkpoint(sys.argv[2], {"a": 1})
        """
    )
    path = tmp_path / "c"
    for i in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, __file__, str(path)], stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        time.sleep(0.05 + 0.037 * i)
        process.kill()
        process.wait()
        process.stdout.close()
        with contextlib.suppress(FileNotFoundError):
            assert Net().trainer().restore_from_checkpoint(path) == {"a": 1}
    assert path.exists()
    clear_leftovers(path)
    assert {p.name for p in tmp_path.iterdir()} <= {"c", "c.ckp", ".c.ckp.next"}
