"""Sessions with distributed learners, by two and three ranks on threads of this process: the same training, tests, ends, checkpoints."""

import threading

import numpy as np
import pytest

import cogkit as C
import cogkit.layers as L
from cogkit.data import MinibatchSourceFromData
from cogkit.learners import Learner
from cogkit.train import DataUnit
from cogkit.train.ranks import ALONE, communicator_of, use_communicator

R = np.random.RandomState(0)


class World:
    """Ranks on threads: sums of what they bring, in the order of ranks."""

    def __init__(self, size):
        self.size, self.values, self.wall = size, [None] * size, threading.Barrier(size, timeout=30)

    def all(self, rank, value):
        self.values[rank] = value
        self.wall.wait()
        found = list(self.values)
        self.wall.wait()
        return found


class Rank:
    def __init__(self, world, number):
        self.world, self.number = world, number

    def rank(self):
        return self.number

    def num_workers(self):
        return self.world.size

    def sum(self, values):
        return np.sum(self.world.all(self.number, np.array(values)), axis=0)

    def barrier(self):
        self.world.all(self.number, None)


class DataParallel(Learner):
    """The plainest distributed learner: sums of gradients and of what is reported, in one exchange."""

    is_distributed = True
    is_metric_aggregator = False

    def __init__(self, local, ranks, after=0):
        super().__init__(local.parameters, 0.1)
        self.local, self.ranks, self.after = local, ranks, after

    def communicator(self):
        return self.ranks

    def parallelization_after(self):
        return self.after

    def train_distributed(self, gradient_values, info):
        if self.local.total_number_of_samples_seen() >= self.after:
            parts = [info.samples, info.loss, info.metric or 0.0, float(info.is_sweep_end)]
            flat = np.concatenate([parts, *(gradient_values[p].ravel() for p in self.parameters)])
            total = self.ranks.sum(flat.astype(np.float64))
            info.samples, info.loss, info.is_sweep_end = int(total[0]), total[1], total[3] > 0
            info.metric = None if info.metric is None else total[2]
            at, sums = 4, {}
            for p in self.parameters:
                n = int(np.prod(p.shape))
                sums[p] = total[at : at + n].reshape(p.shape).astype(np.float32)
                at += n
            gradient_values = sums
        return bool(info.samples) and self.local.update(gradient_values, info.samples, info.is_sweep_end)

    def total_number_of_samples_seen(self):
        return self.local.total_number_of_samples_seen()

    def total_number_of_minibatches_seen(self):
        return self.local.total_number_of_minibatches_seen()

    def total_number_of_sweeps_seen(self):
        return self.local.total_number_of_sweeps_seen()

    def create_checkpoint(self):
        made = self.local.create_checkpoint()
        made["arrays"]["mine"] = np.full(2, self.ranks.rank(), np.float32)  # something that each rank has its own of
        return made

    def check_checkpoint(self, state):
        self.local.check_checkpoint(state)

    def restore_from_checkpoint(self, state):
        self.local.restore_from_checkpoint(state)
        self.restored = state["arrays"]["mine"]


def together(size, work):
    """work(rank) on each rank's thread; its results in the order of ranks."""
    world, results, errors = World(size), [None] * size, []

    def run(number):
        try:
            results[number] = work(Rank(world, number))
        except BaseException as e:
            errors.append(e)
            world.wall.abort()

    threads = [threading.Thread(target=run, args=(r,)) for r in range(size)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
    return results


class Net:
    def __init__(self, ranks=ALONE, after=0):
        self.x, self.y = C.input_variable(2), C.input_variable(1)
        self.z = L.Dense(1, init=np.ones((2, 1), "f"))(self.x)
        error = C.squared_error(self.z, self.y)
        learner = C.momentum_sgd(self.z.parameters, [0.01, 0.005], 0.9)
        self.learner = learner if ranks is ALONE else DataParallel(learner, ranks, after)
        self.printed = C.logging.ProgressWriter(1)
        self.lines = []
        self.printed.on_write_training_update = lambda samples, updates, loss, metric: self.lines.append(
            (samples[1], round(loss[1], 2))
        )
        self.printed.on_write_test_summary = lambda samples, *told: self.lines.append(("test", samples))
        self.trainer = C.Trainer(self.z, (error, error), [self.learner], [self.printed])

    def session(self, size=8, n=50, sweeps=2, **options):
        r = np.random.RandomState(5)
        x = r.randn(n, 2).astype("f")
        source = MinibatchSourceFromData({"a": x, "b": x.sum(1, keepdims=True)}, max_samples=sweeps * n)
        return C.training_session(self.trainer, source, size, {self.x: source.streams.a, self.y: source.streams.b}, **options)

    def values(self):
        return [p.value for p in self.z.parameters]


@pytest.mark.parametrize("size", [2, 3])
def test_it_is_the_training_of_one(size):
    """Shares of a minibatch, sums reported; the last minibatch of a sweep has two samples, so that of three ranks one has none."""
    alone = Net()
    alone.session().train()

    def work(ranks):
        net = Net(ranks)
        net.session().train()
        return net

    nets = together(size, work)
    for net in nets:
        assert all(np.array_equal(a, b) for a, b in zip(net.values(), nets[0].values(), strict=True)), "agreement"
        assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(net.values(), alone.values(), strict=True))
        assert np.allclose(net.lines, alone.lines, atol=0.02)
        assert net.trainer.total_number_of_samples_seen == 100 and net.trainer.total_number_of_units_seen(DataUnit.sweep) == 2
        assert net.trainer.previous_minibatch_sample_count == 2


def test_ranks_that_begin_alone():
    """Until `parallelization_after` samples each trains on all the data, and all stay equal."""
    alone = Net()
    alone.session().train()

    def work(ranks):
        net = Net(ranks, after=24)
        net.session().train()
        return net

    for net in together(2, work):
        assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(net.values(), alone.values(), strict=True))
        assert [s for s, _ in net.lines[:6]] == [8, 16, 24, 32, 40, 48]


def test_a_cross_validation_is_shared():
    told = []

    def work(ranks):
        net = Net(ranks)
        r = np.random.RandomState(7)
        x = r.randn(11, 2).astype("f")
        source = MinibatchSourceFromData({"a": x, "b": x[:, :1]}, max_samples=11)
        streams = {net.x: source.streams.a, net.y: source.streams.b}

        def callback(index, error, samples, minibatches):
            told.append((ranks.rank(), index, round(error, 5), samples, minibatches))
            return ranks.rank() == 0 or index < 1  # rank 1 alone wants to end

        config = C.CrossValidationConfig(source, 16, 4, callback, model_inputs_to_streams=streams)
        net.session(cv_config=config).train()
        error = C.squared_error(net.z, net.y).eval({net.x: x, net.y: x[:, :1]})
        return net, float(np.mean(error))

    nets = together(2, work)
    assert sorted(t[:2] for t in told) == [(0, 0), (0, 1), (1, 0), (1, 1)] and {t[3:] for t in told} == {(11, 3)}
    assert len({t[1:] for t in told}) == 2, "both ranks are told the same"
    assert max(t[2] for t in told if t[1] == 1) == pytest.approx(nets[0][1], rel=1e-4)
    assert nets[0][0].trainer.total_number_of_samples_seen == nets[1][0].trainer.total_number_of_samples_seen == 32


def test_checkpoints_of_ranks(tmp_path):
    """One model, a state for each rank; resumed with as many ranks, with more, with one."""
    whole = together(2, lambda ranks: (net := Net(ranks), net.session().train())[0])
    config = C.CheckpointConfig(tmp_path / "c", 24)
    together(2, lambda ranks: Net(ranks).session(sweeps=1, checkpoint_config=config).train())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "c.ckp", "c.ckp.rank1"]

    def go_on(ranks):
        net = Net(ranks)
        net.session(checkpoint_config=config).train()
        return net

    nets = together(2, go_on)
    assert [n.learner.restored[0] for n in nets] == [0, 1]
    assert all(np.array_equal(a, b) for n in nets for a, b in zip(n.values(), whole[0].values(), strict=True))
    assert [n.lines[0][0] for n in nets] == [8, 8] and len(nets[0].lines) == 7
    assert [n.learner.restored[0] for n in together(3, go_on)] == [0, 1, 0], "a new rank begins with the first one's state"
    together(3, lambda ranks: Net(ranks).session(sweeps=3, checkpoint_config=config).train())
    assert (tmp_path / "c.ckp.rank2").exists()
    together(2, lambda ranks: Net(ranks).session(sweeps=4, checkpoint_config=config).train())
    assert not (tmp_path / "c.ckp.rank2").exists()


def test_a_rank_that_cannot_write_stops_all(tmp_path):
    def work(ranks):
        net = Net(ranks)
        if ranks.rank() == 1:
            net.learner.create_checkpoint = lambda: 1 / 0
        with pytest.raises((OSError, ZeroDivisionError)) as caught:
            net.trainer.save_checkpoint(tmp_path / "c")
        return str(caught.value)

    said = together(2, work)
    assert "expected all ranks to write their part, got an error on 1 of the others" in said[0] and "division" in said[1]
    assert list(tmp_path.iterdir()) == []


def test_an_evaluator_of_ranks():
    """Without learners it tests with whom the process says."""
    before = communicator_of()
    try:
        use_communicator(Rank(World(1), 0))
        assert communicator_of().num_workers() == 1 and communicator_of() is not ALONE
        net = Net()
        error = C.Evaluator(C.squared_error(net.z, net.y)).test_minibatch(
            {net.x: np.ones((2, 2), "f"), net.y: np.ones((2, 1), "f")}, distributed=True
        )
        assert error == 1.0
    finally:
        use_communicator(None if before is ALONE else before)
    assert communicator_of() is before


def test_all_learners_or_none():
    x = C.input_variable(2)
    z = L.Dense(1)(x)
    w, b = z.parameters
    with pytest.raises(
        ValueError, match="expected distributed learners or local ones, got both; make learner 2 a distributed one"
    ):
        C.Trainer(z, z, [DataParallel(C.sgd([w], 0.1), Rank(World(1), 0)), C.sgd([b], 0.1)])
