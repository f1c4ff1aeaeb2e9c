"""Training sessions: what happens when, against CNTK 2.7; killed anywhere and resumed bit for bit; what checkpoints are kept."""

import errno
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import cogkit as C
import cogkit.layers as L
from cogkit.data import CTFDeserializer, MinibatchSource, StreamDef, StreamDefs, UserMinibatchSource
from cogkit.engine import current_engine
from cogkit.errors import ModelFileError
from cogkit.logging import ProgressWriter
from cogkit.train import DataUnit, TrainingSession
from cogkit.train.session import newest_checkpoint

GOLDENS = json.loads((pathlib.Path(__file__).parents[1] / "goldens" / "sessions.json").read_text())
N = 25


def write_rows(folder):
    path = pathlib.Path(folder) / "rows.ctf"
    if not path.exists():
        path.write_text("".join(f"|x {i % 5} {i % 7} |y {i % 3}\n" for i in range(N)))
    return path


def rows(folder, randomize=False, **limits):
    streams = StreamDefs(a=StreamDef("x", 2), b=StreamDef("y", 1))
    return MinibatchSource(CTFDeserializer(str(write_rows(folder)), streams), randomize=randomize, randomization_seed=3, **limits)


class Trace(ProgressWriter):
    """Every call as a word, as in make_session_goldens.py."""

    def __init__(self):
        super().__init__(1, 0, 1)
        self.log = []

    def on_write_training_update(self, samples, updates, aggregate_loss, aggregate_metric):
        self.log.append(f"u{samples[1]}")

    def on_write_training_summary(self, samples, updates, summaries, aggregate_loss, aggregate_metric, elapsed_milliseconds):
        self.log.append(f"S{samples}")

    def on_write_test_update(self, samples, updates, aggregate_metric):
        self.log.append(f"t{samples[1]}")

    def on_write_test_summary(self, samples, updates, summaries, aggregate_metric, elapsed_milliseconds):
        self.log.append(f"T{samples}")


class Net:
    """One layer of a fixed start, its trainer and the words of its writer."""

    def __init__(self, rate=0.01, dropout=0.0):
        self.x, self.y = C.input_variable(2), C.input_variable(1)
        h = C.dropout(self.x, dropout) if dropout else self.x
        self.z = L.Dense(1, init=np.ones((2, 1), "f"))(h)
        error = C.squared_error(self.z, self.y)
        self.trace = Trace()
        self.learner = C.momentum_sgd(self.z.parameters, [rate, rate / 2, rate / 4], 0.9)
        self.trainer = C.Trainer(self.z, (error, error), [self.learner], [self.trace])

    def session(self, source, size=4, kind=TrainingSession, **options):
        inputs = {self.x: source.streams.a, self.y: source.streams.b}
        if kind is TrainingSession:
            return C.training_session(self.trainer, source, size, inputs, **options)
        options = {"max_samples": None, "progress_frequency": None, "checkpoint_config": None, "cv_config": None} | options
        return kind(self.trainer, source, size, inputs, test_config=None, **options)

    def bits(self):
        return [p.value.tobytes() for p in self.z.parameters]


@pytest.mark.parametrize("name", GOLDENS)
def test_what_happens_when_is_as_in_cntk(name, tmp_path):
    s = {"mb": 4, "cv": (0, "sample"), "max_samples": None, "source": {}} | GOLDENS[name]["session"]
    net = Net()

    def callback(index, error, samples, minibatches):
        net.trace.log.append(f"V{index}@{net.trainer.total_number_of_samples_seen}")
        return index < s.get("stop", 1e9)

    configs = {
        "cv_config": C.CrossValidationConfig(
            rows(tmp_path, max_samples=s["cv_source"]) if "cv_source" in s else None,
            None if s["cv"] is None else (s["cv"][0], DataUnit[s["cv"][1]]),
            10,
            callback,
        )
    }
    if "test_source" in s:
        configs["test_config"] = C.TestConfig(rows(tmp_path, max_samples=s["test_source"]), 7)
    size = s["mb"]
    if isinstance(size, list):
        size = C.minibatch_size_schedule([tuple(n) if isinstance(n, list) else n for n in size[0]], size[1])
    if "progress" in s:
        configs["progress_frequency"] = (s["progress"][0], DataUnit[s["progress"][1]])
    net.session(rows(tmp_path, **s["source"]), size, max_samples=s["max_samples"], **configs).train()
    assert " ".join(net.trace.log) == GOLDENS[name]["trace"]


def test_a_derived_session_is_told(tmp_path):
    net, told = Net(), []

    class Mine(TrainingSession):
        def on_minibatch_start(self):
            told.append("b")

        def on_minibatch_end(self):
            told.append("e")
            return self.trainer.total_number_of_samples_seen < 12

        def on_checkpoint_start(self, index):
            told.append(f"C{index}")

        def on_checkpoint_end(self, index):
            told.append(f"c{index}")

        def on_cross_validation_start(self, index):
            told.append(f"V{index}")

        def on_cross_validation_end(self, index, average_error, num_samples, num_minibatches):
            told.append(f"v{index}:{num_samples}/{num_minibatches}")
            return super().on_cross_validation_end(index, average_error, num_samples, num_minibatches)

        def get_minibatch_size(self):
            return 2 * super().get_minibatch_size()

    net.session(
        rows(tmp_path),
        kind=Mine,
        max_samples=80,
        checkpoint_config=C.CheckpointConfig(tmp_path / "c", 10),
        cv_config=C.CrossValidationConfig(rows(tmp_path, max_sweeps=1), 16, 10),
    ).train()
    # told to end at 16 samples; the checkpoint is due at 10, and comes after the test; nothing is left for the end
    assert told == ["b", "e", "b", "e", "V0", "v0:25/3", "C0", "c0"]
    assert net.trainer.total_number_of_samples_seen == 16


def test_the_average_of_a_cross_validation(tmp_path):
    found = []
    net = Net()

    def callback(*told):
        found.append(told)

    source = rows(tmp_path, max_sweeps=2)
    session = net.session(
        rows(tmp_path), max_samples=8, cv_config=C.CrossValidationConfig(source, 4, 7, callback, max_samples=20)
    )
    session.train()
    x = np.array([[i % 5, i % 7] for i in range(20)], "f")
    y = np.array([[i % 3] for i in range(20)], "f")
    error = C.squared_error(net.z, net.y).eval({net.x: x, net.y: y})
    assert [f[0] for f in found] == [0, 1] and [f[2:] for f in found] == [(20, 3)] * 2
    assert found[1][1] == pytest.approx(np.mean(error), rel=1e-5)
    assert source.current_position["minibatchSourcePosition"] == 0, (
        "a callback without a result ends nothing; the source is put back"
    )


def test_minibatches_without_a_sound_sequence_are_passed_over(tmp_path):
    """All of whose sequences a reader had to leave out, in training and in a test."""
    net, told = Net(), []

    class Holes(Counting):
        def next_minibatch(self, num_samples, number_of_workers=1, worker_rank=0, device=None):
            if self.at >= 40:
                return {}
            made = super().next_minibatch(num_samples)
            empty = self.at // num_samples % 2
            return {k: C.io.MinibatchData(d.value[:0], 0, 0, False) if empty else d for k, d in made.items()}

    config = C.CrossValidationConfig(Holes(True), None, 4, lambda *found: told.append(found))
    net.session(Holes(True), cv_config=config).train()
    assert [w for w in net.trace.log if w[0] == "u"] == ["u4", "u8", "u12", "u16", "u20"] and told[0][2] == 20


def test_what_ends_a_training(tmp_path):
    """False in any form; a callback that says nothing ends nothing."""
    for result, samples in ((np.bool_(False), 20), (0, 20), (None, 40), (np.True_, 40)):
        net = Net()
        config = C.CrossValidationConfig(None, 20, callback=lambda *_, r=result: r)
        net.session(rows(tmp_path), max_samples=40, cv_config=config).train()
        assert net.trainer.total_number_of_samples_seen == samples


def test_a_rate_of_zero_ends_it(tmp_path):
    """As in CNTK: the last minibatch is counted, what is left is summarized."""
    net = Net()
    net.trainer = C.Trainer(net.z, (net.trainer.loss_function,), C.sgd(net.z.parameters, [0.1, 0.0]), net.trace)
    net.session(rows(tmp_path), max_samples=80).train()
    assert net.trace.log == ["u4", "u8", "u12", "u16", "u20", "u24", "u28", "u32", "S32"]


# checkpoints ---------------------------------------------------------------------------------------------------------


def names(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith(("c", ".c")))


@pytest.mark.parametrize("preserve", [False, True])
def test_what_is_kept(preserve, tmp_path):
    Net().session(
        rows(tmp_path), max_samples=50, checkpoint_config=C.CheckpointConfig(tmp_path / "c", 20, True, preserve)
    ).train()
    kept = ["c", "c0", "c1", "c2"] if preserve else ["c"]
    assert names(tmp_path) == sorted([*kept, *(f"{k}.ckp" for k in kept)])
    assert C.load_model(tmp_path / "c").parameters


def test_once_at_the_end(tmp_path):
    """Without a frequency; and after a part of a sweep, which CNTK does not save."""
    for frequency, limit in ((None, 10), ((1, DataUnit.sweep), 20), ((1, DataUnit.sweep), 30)):
        folder = tmp_path / f"{limit}"
        folder.mkdir()
        net = Net()
        net.session(rows(tmp_path), max_samples=limit, checkpoint_config=C.CheckpointConfig(folder / "c", frequency)).train()
        again = Net()
        again.trainer.restore_from_checkpoint(folder / "c")
        assert again.trainer.total_number_of_samples_seen == limit and again.bits() == net.bits()


def test_the_newest_goes_on(tmp_path):
    """Not the one that an earlier, shorter training ended with."""
    config = C.CheckpointConfig(tmp_path / "c", 20, preserve_all=True)
    Net().session(rows(tmp_path), max_samples=50, checkpoint_config=config).train()
    assert newest_checkpoint(tmp_path / "c").name == "c"

    class Killed(TrainingSession):
        def on_checkpoint_end(self, index):
            if index == 3:
                raise KeyboardInterrupt

    net = Net()
    with pytest.raises(KeyboardInterrupt):
        net.session(rows(tmp_path), kind=Killed, max_samples=110, checkpoint_config=config).train()
    assert newest_checkpoint(tmp_path / "c").name == "c3"
    last = Net()
    last.session(rows(tmp_path), max_samples=110, checkpoint_config=config).train()
    whole = Net()
    whole.session(rows(tmp_path), max_samples=110).train()
    assert last.trainer.total_number_of_samples_seen == whole.trainer.total_number_of_samples_seen == 110


def test_a_finished_training_does_nothing(tmp_path):
    config = C.CheckpointConfig(tmp_path / "c", 20)
    first = Net()
    first.session(rows(tmp_path), max_samples=50, checkpoint_config=config).train()
    stamp = (tmp_path / "c.ckp").stat().st_mtime_ns
    again = Net()
    again.session(rows(tmp_path), max_samples=50, checkpoint_config=config).train()
    assert again.trace.log == [] and again.bits() == first.bits() and (tmp_path / "c.ckp").stat().st_mtime_ns == stamp
    fresh = Net()
    fresh.session(rows(tmp_path), max_samples=50, checkpoint_config=C.CheckpointConfig(tmp_path / "c", 20, restore=False)).train()
    assert fresh.trace.log and fresh.bits() == first.bits()


def test_a_stopped_training_stays_stopped(tmp_path):
    def go():
        net = Net()
        config = C.CrossValidationConfig(None, 20, callback=lambda index, *_: index < 1)
        net.session(
            rows(tmp_path), max_samples=80, checkpoint_config=C.CheckpointConfig(tmp_path / "c", 20), cv_config=config
        ).train()
        return net

    first, again = go(), go()
    assert first.trainer.total_number_of_samples_seen == 40 and again.bits() == first.bits() and again.trace.log == []


class Patience:
    """A callback with a state: how often it was called, and the best error."""

    def __init__(self):
        self.calls, self.best = 0, None

    def __call__(self, index, error, samples, minibatches):
        self.calls += 1
        self.best = error if self.best is None else min(self.best, error)
        return self.calls < 9

    def get_checkpoint_state(self):
        return {"calls": self.calls, "best": self.best}

    def restore_from_checkpoint(self, state):
        self.calls, self.best = state["calls"], state["best"]


def full(folder):
    """A session with everything that has a state: dropout, momentum, a schedule, a shuffled source, sums, a callback. 350 samples."""
    C.set_seed(7)
    net = Net(dropout=0.3)
    patience = Patience()

    class Telling(TrainingSession):
        def on_minibatch_end(self):
            print(".", flush=True)
            return True

    session = net.session(
        rows(folder, randomize=True),
        C.minibatch_size_schedule([3, 5, 7], 100),
        Telling,
        max_samples=2000,
        progress_frequency=60,
        checkpoint_config=C.CheckpointConfig(folder / "c", (2, DataUnit.minibatch)),
        cv_config=C.CrossValidationConfig(rows(folder, max_sweeps=1), 40, 10, patience),
    )
    session.train()
    return {
        "bits": [b.hex() for b in net.bits()],
        "samples": net.trainer.total_number_of_samples_seen,
        "summaries": net.trace._training.summaries,
        "patience": [patience.calls, patience.best],
    }


def test_killed_anywhere_it_goes_on_bit_for_bit(tmp_path):
    """kill -9 at random moments, again and again until it has come to its end."""
    code = textwrap.dedent(
        """
        import importlib.util, json, pathlib, sys
        import cogkit as C
        spec = importlib.util.spec_from_file_location("t", sys.argv[1])
        t = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(t)
        C.device.use_engine(sys.argv[3]).__enter__()
        print(json.dumps(t.full(pathlib.Path(sys.argv[2]))))
        """
    )

    def start(folder):
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-c", code, __file__, str(folder), current_engine()]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    whole = start(tmp_path / "whole")
    out, err = whole.communicate()
    assert whole.returncode == 0, err
    want = json.loads(out.splitlines()[-1])
    assert want["samples"] == 363 and want["patience"][0] == 9, "the callback ends it"
    draw, kills, ended = random.Random(4), 0, None
    while not ended:
        process = start(tmp_path / "killed")
        for _ in range(draw.randrange(4, 28)):  # of 72 minibatches
            if len(line := process.stdout.readline()) > 2:
                ended = json.loads(line)
        if not ended:
            time.sleep(draw.uniform(0, 0.004))
            process.kill()
            kills += 1
        _, err = process.communicate()
        assert process.returncode == (0 if ended else -signal.SIGKILL), err
    assert ended == want and kills >= 3
    assert names(tmp_path / "killed") == ["c", "c.ckp"]


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    net = Net()
    config = C.CheckpointConfig(tmp_path / "c", 20)
    write = os.fdopen

    def no_room(handle, *how):
        os.close(handle)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full(TrainingSession):
        def on_checkpoint_start(self, index):
            monkeypatch.setattr(os, "fdopen", no_room if index == 1 else write)

    with pytest.raises(OSError, match="expected room"):
        net.session(rows(tmp_path), kind=Full, max_samples=80, checkpoint_config=config).train()
    monkeypatch.setattr(os, "fdopen", write)
    assert names(tmp_path) == ["c", "c.ckp"]
    again, whole = Net(), Net()
    again.session(rows(tmp_path), max_samples=80, checkpoint_config=config).train()
    whole.session(rows(tmp_path), max_samples=80).train()
    assert again.trace.log[0] == "u24" and again.bits() == whole.bits(), "it went on at 20"


@pytest.mark.parametrize("moment", ["start", "end", "minibatch"])
def test_ctrl_c_saves_nothing_half(moment, tmp_path):
    class Interrupted(TrainingSession):
        def on_checkpoint_start(self, index):
            if moment == "start" and index == 1:
                raise KeyboardInterrupt

        def on_checkpoint_end(self, index):
            if moment == "end" and index == 1:
                raise KeyboardInterrupt

        def on_minibatch_end(self):
            if moment == "minibatch" and self.trainer.total_number_of_samples_seen == 44:
                raise KeyboardInterrupt
            return True

    config = C.CheckpointConfig(tmp_path / "c", 20)
    with pytest.raises(KeyboardInterrupt):
        Net().session(rows(tmp_path), kind=Interrupted, max_samples=80, checkpoint_config=config).train()
    assert names(tmp_path) == ["c", "c.ckp"]
    again, whole = Net(), Net()
    again.session(rows(tmp_path), max_samples=80, checkpoint_config=config).train()
    whole.session(rows(tmp_path), max_samples=80).train()
    assert again.bits() == whole.bits()


def test_a_diverged_training_can_be_saved(tmp_path):
    net = Net(rate=1e30)
    config = C.CheckpointConfig(tmp_path / "c", 20)
    net.session(rows(tmp_path), max_samples=40, checkpoint_config=config).train()
    assert np.isnan(net.trainer.previous_minibatch_loss_average)
    again = Net(rate=1e30)
    again.session(rows(tmp_path), max_samples=44, checkpoint_config=config).train()
    assert again.trace.log[0] == "u44"


def test_other_checkpoints_are_refused(tmp_path):
    net = Net()
    net.trainer.save_checkpoint(tmp_path / "c")
    with pytest.raises(ValueError, match="expected a checkpoint of a session, got one of a trainer alone"):
        net.session(rows(tmp_path), checkpoint_config=C.CheckpointConfig(tmp_path / "c"), max_samples=4).train()
    (tmp_path / "d").write_bytes(b"x" * 40)
    with pytest.raises(ModelFileError):
        net.session(rows(tmp_path), checkpoint_config=C.CheckpointConfig(tmp_path / "d"), max_samples=4).train()


class Counting(UserMinibatchSource):
    """A source of the user's; with `keeps` it can be put back."""

    def __init__(self, keeps):
        self.at, self.keeps = 0, keeps

    def stream_infos(self):
        return [C.io.StreamInformation(n, i, "dense", np.float32, (k,)) for i, (n, k) in enumerate((("a", 2), ("b", 1)))]

    def next_minibatch(self, num_samples, number_of_workers=1, worker_rank=0, device=None):
        self.at += num_samples
        ones = {"a": np.full((num_samples, 2), self.at, "f"), "b": np.ones((num_samples, 1), "f")}
        infos = {i.name: i for i in self.stream_infos()}
        return {infos[n]: C.io.MinibatchData(v, num_samples, num_samples, False) for n, v in ones.items()}

    def get_checkpoint_state(self):
        return {"at": self.at} if self.keeps else {}

    def restore_from_checkpoint(self, state):
        self.at = state["at"]


def test_sources_of_users(tmp_path):
    config = C.CheckpointConfig(tmp_path / "c", 8)
    first = Net(1e-6)
    first.session(Counting(True), max_samples=16, checkpoint_config=config).train()
    source = Counting(True)
    net = Net(1e-6)
    net.session(source, max_samples=20, checkpoint_config=config).train()
    assert source.at == 20
    with pytest.raises(ValueError, match="expected a source whose position can be restored, got Counting without one"):
        Net().session(Counting(False), max_samples=8, checkpoint_config=C.CheckpointConfig(tmp_path / "d")).train()
        Net().session(Counting(False), max_samples=16, checkpoint_config=C.CheckpointConfig(tmp_path / "d")).train()


@pytest.mark.parametrize("size", [4, [2, 4], [(2, 3), (1, 5)]])
def test_minibatch_size_schedules(size):
    schedule = C.minibatch_size_schedule(size, 10)
    want = {4: [4, 4, 4, 4], 2: [2, 2, 4, 4], 3: [3, 3, 3, 5]}[schedule[0]]
    assert [schedule[n] for n in (0, 9, 10, 20)] == want and C.minibatch_size_schedule(schedule) is schedule
