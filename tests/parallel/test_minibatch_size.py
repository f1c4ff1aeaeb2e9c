"""Automatic minibatch size: what it finds, that trials leave no trace, resume, ranks that agree."""

import numpy as np
import pytest
from parallel.nets import Net

import cogkit as C
from cogkit.data import MinibatchSourceFromData
from cogkit.parallel import automatic_minibatch_size, simulate

SAMPLES = 2000


def data():
    r = np.random.RandomState(0)
    x = r.randn(SAMPLES, 7).astype("f")
    return x, np.eye(3, dtype="f")[(x[:, :3] + 0.3 * r.randn(SAMPLES, 3)).argmax(1)]


def session(size, make=lambda l: l, rate=0.02, checkpoint=None, limit=SAMPLES, **options):
    """(digest, samples, sizes of minibatches, schedule) of a training session; size: a number or what the search begins with."""
    x, y = data()
    net = Net()
    rates = rate if isinstance(rate, list) else [rate]
    schedule = C.learning_parameter_schedule(rates, minibatch_size=1, epoch_size=1000)
    trainer = net.trainer(make, lambda ps: C.sgd(ps, schedule))
    source = MinibatchSourceFromData({"x": x, "y": y})
    streams = {net.x: source.streams["x"], net.y: source.streams["y"]}
    if options:
        size = automatic_minibatch_size(trainer, source, streams, size, **options)

    class Session(C.train.TrainingSession):
        sizes = []

        def on_minibatch_end(self):
            self.sizes.append(trainer.previous_minibatch_sample_count)
            return True

    Session.sizes = []
    made = Session(
        trainer, source, size if options else C.minibatch_size_schedule(size), streams, limit, checkpoint_config=checkpoint
    )
    made.train()
    return net.digest(), trainer.total_number_of_samples_seen, Session.sizes, size


def test_the_size_grows_while_it_does_no_harm():
    _, seen, sizes, found = session(8, rate=0.003, samples=400, margin=5, largest=512)
    assert seen == SAMPLES and sizes[0] == found[SAMPLES] > 8
    tried = [(t["size"], t["taken"]) for t in found.trials]
    assert [size for size, _ in tried] == [8 * 2**i for i in range(len(tried))]
    assert all(taken for _, taken in tried[:-1])
    assert tried[-1][1] is False or tried[-1][0] == 512
    rough = session(8, rate=0.5, samples=400, margin=5, largest=512)[3]
    assert rough[SAMPLES] < found[SAMPLES]  # at a higher rate fewer sizes learn


def test_trials_leave_no_trace():
    digest, seen, sizes, found = session(8, samples=400, largest=64)
    assert session(found[SAMPLES])[:3] == (digest, seen, sizes)


def test_the_search_is_repeated_when_the_rate_changes_or_every_so_often():
    _, _, _, found = session(8, rate=[0.05, 0.01], samples=200, largest=64)
    assert sorted({t["samples"] for t in found.trials})[0] == 0 and len({t["samples"] for t in found.trials}) == 2
    _, _, _, found = session(8, samples=200, largest=32, frequency=600)
    assert len({t["samples"] for t in found.trials}) in (3, 4)


def test_it_goes_on_after_a_checkpoint(tmp_path):
    config = lambda: C.CheckpointConfig(str(tmp_path / "c"), frequency=500)  # noqa: E731
    whole = session(8, samples=400, largest=64, rate=[0.05, 0.01])
    session(8, samples=400, largest=64, rate=[0.05, 0.01], checkpoint=config(), limit=1000)
    again = session(8, samples=400, largest=64, rate=[0.05, 0.01], checkpoint=config())
    assert again[:2] == whole[:2]
    assert {t["samples"] for t in again[3].trials} <= {t["samples"] for t in whole[3].trials if t["samples"] >= 1000}


@pytest.mark.parametrize(
    "make",
    [
        lambda l: C.parallel.data_parallel_distributed_learner(l),
        lambda l: C.parallel.data_parallel_distributed_learner(l, num_quantization_bits=1),
        lambda l: C.parallel.block_momentum_distributed_learner(l, 200),
        lambda l: C.parallel.asgd_distributed_learner(l, meet_every=5),
    ],
)
def test_ranks_agree(make):
    def main():
        digest, seen, _, found = session(16, make, samples=400, largest=128, margin=10)
        return digest, seen, found.trials

    one, two = simulate(main, 2)
    assert one == two and len(one[2]) >= 2


def test_what_is_refused():
    net = Net()
    x, y = data()
    source = MinibatchSourceFromData({"x": x, "y": y})
    streams = {net.x: source.streams["x"], net.y: source.streams["y"]}
    good = net.trainer(lambda l: l, lambda ps: C.sgd(ps, C.learning_parameter_schedule_per_sample(0.1)))
    for options in ({"first": 0}, {"first": 8, "largest": 4}, {"first": 8, "growth": 1}, {"first": 8, "margin": -1}):
        with pytest.raises(ValueError, match="automatic_minibatch_size: expected"):
            automatic_minibatch_size(good, source, streams, **options)
    for local in (lambda ps: C.sgd(ps, 0.1), lambda ps: C.momentum_sgd(ps, C.learning_parameter_schedule_per_sample(0.1), 0.9)):
        with pytest.raises(ValueError, match="for a number of samples"):
            automatic_minibatch_size(Net().trainer(lambda l: l, local), source, streams, 8)
