"""Block momentum against transcriptions of the paper and of CNTK's form; its degenerate cases; several learners in one trainer."""

import numpy as np
import pytest
from parallel.nets import Net, finish

import cogkit as C
from cogkit.parallel import current_world, simulate

RATE = 0.05


def run(make, n, blocks=3, minibatches=2, local=None):
    """Models after each block, on n virtual ranks, of blocks of so many minibatches of 5 samples on each."""

    def main():
        net, models = Net(np.float64), []
        trainer = net.trainer(make, local or (lambda ps: C.sgd(ps, C.learning_parameter_schedule_per_sample(RATE))))
        for i in range(blocks * minibatches):
            trainer.train_minibatch(net.feed(i, 5))
            if (i + 1) % minibatches == 0:
                models.append(np.concatenate([p.value.reshape(-1) for p in net.parameters]))
        return models, trainer.total_number_of_samples_seen, trainer.previous_minibatch_sample_count

    found = simulate(main, n)
    for models, seen, reported in found:
        assert all((a == b).all() for a, b in zip(models, found[0][0], strict=True))
        assert (seen, reported) == (blocks * minibatches * 5 * n, minibatches * 5 * n)
    return found[0][0]


class Apart:
    """One rank's plain SGD, to be set to any model."""

    def __init__(self, rank, n):
        self.net, self.rank, self.n, self.i = Net(np.float64), rank, n, 0
        self.trainer = self.net.trainer(lambda l: l, lambda ps: C.sgd(ps, C.learning_parameter_schedule_per_sample(RATE)))

    def block(self, w, minibatches=2):
        at = 0
        for p in self.net.parameters:
            size = int(np.prod(p.shape))
            p.value = w[at : at + size].reshape(p.shape)
            at += size
        for _ in range(minibatches):
            self.trainer.train_minibatch(self.net.feed(self.i, 5, self.n, self.rank))
            self.i += 1
        return self.model()

    def model(self):
        return np.concatenate([p.value.reshape(-1) for p in self.net.parameters])


def paper(n, b, z, nesterov, blocks=3):
    """Chen and Huo 2016: W(t) = W(t-1) + D(t), D(t) = b D(t-1) + z G(t); the model of the next block looks ahead by b D(t)."""
    ranks = [Apart(r, n) for r in range(n)]
    start = W = ranks[0].model()
    D, models = np.zeros_like(W), []
    for _ in range(blocks):
        G = np.mean([r.block(start) for r in ranks], 0) - start
        D = b * D + z * G
        W = W + D
        start = W + b * D if nesterov else W
        models.append(start)
    return models


def cntk(n, b, z, nesterov, blocks=3):
    """s = b s + (1 - b) z sum(w - w_r); w -= s; Nesterov: w -= b s; the next block begins, and counts, from there."""
    ranks = [Apart(r, n) for r in range(n)]
    w = ranks[0].model()
    s, models = np.zeros_like(w), []
    for _ in range(blocks):
        g = np.sum([w - r.block(w) for r in ranks], 0)
        s = b * s + (1 - b) * z * g
        w = w - s - (b * s if nesterov else 0)
        models.append(w)
    return models


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("n", [2, 3, 16])
def test_transcriptions(n, nesterov):
    size = 10 * n
    b = 1 - 1 / n
    cases = [
        (lambda l: C.parallel.bmuf_distributed_learner(l, size, nesterov=nesterov), paper(n, b, 1.0, nesterov)),
        (lambda l: C.parallel.bmuf_distributed_learner(l, size, 0.6, 0.8, nesterov), paper(n, 0.6, 0.8, nesterov)),
        (lambda l: C.parallel.block_momentum_distributed_learner(l, size, None, nesterov), cntk(n, b, 1.0, nesterov)),
        (
            lambda l: C.parallel.block_momentum_distributed_learner(l, size, 3 * size, nesterov, block_learning_rate=0.5),
            cntk(n, np.exp(-1 / 3), 0.5, nesterov),
        ),
    ]
    for make, models in cases:
        for ours, theirs in zip(run(make, n), models, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-10, abs=1e-12)


def test_degenerate_cases():
    n, size = 4, 40
    mean = run(lambda l: C.parallel.model_averaging_distributed_learner(l, size), n)
    none = run(lambda l: C.parallel.bmuf_distributed_learner(l, size, 0.0, 1.0, True), n)
    assert all((a == b).all() for a, b in zip(mean, none, strict=True))
    for ours, theirs in zip(mean, paper(n, 0.0, 1.0, False), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-12)
    # CNTK's form is the paper's where b = 1 - 1 / ranks, without Nesterov's momentum
    one = run(lambda l: C.parallel.block_momentum_distributed_learner(l, size, None, False), n)
    two = run(lambda l: C.parallel.bmuf_distributed_learner(l, size, nesterov=False), n)
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-12, abs=1e-12)


def test_momentum_of_the_local_learner():
    """It is forgotten at the end of a block, or kept."""
    local = lambda ps: C.momentum_sgd(ps, 0.05, 0.9)  # noqa: E731
    make = C.parallel.block_momentum_distributed_learner
    forgets = run(lambda l: make(l, 20), 2, local=local)
    keeps = run(lambda l: make(l, 20, reset_sgd_momentum_after_aggregation=False), 2, local=local)
    assert (forgets[0] == keeps[0]).all() and not (forgets[1] == keeps[1]).all()


def test_schedules_go_by_the_samples_of_all_ranks():
    def main():
        net, rates = Net(), []
        rate = C.learning_parameter_schedule([0.4, 0.3, 0.2, 0.1], epoch_size=20)
        trainer = net.trainer(lambda l: C.parallel.block_momentum_distributed_learner(l, 40), lambda ps: C.sgd(ps, rate))
        for i in range(8):
            rates.append(net.learner.learning_rate())
            trainer.train_minibatch(net.feed(i, 5))
        return rates

    assert simulate(main, 2) == [[0.4, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1]] * 2


def two_learners(first, second, uneven, i):
    """Digest of a model whose parameters two learners share out."""
    net = Net()
    a = first(C.momentum_sgd([net.w1], 0.1, 0.9))
    b = second(C.momentum_sgd([net.w2, net.b], 0.1, 0.9))
    b.set_as_metric_aggregator()
    trainer = C.Trainer(net.z, (net.loss, net.error), [a, b])
    rank, more = current_world().rank, True
    for k in range(i):
        more = trainer.train_minibatch(net.feed(k, None if not uneven or k < i - 2 * rank else 0))
        if not more:
            break
    if more:
        finish(net, trainer)
    return net.digest(), trainer.total_number_of_samples_seen


LEARNERS = {
    "full": lambda l: C.parallel.data_parallel_distributed_learner(l),
    "one_bit": lambda l: C.parallel.data_parallel_distributed_learner(l, num_quantization_bits=1),
    "block": lambda l: C.parallel.block_momentum_distributed_learner(l, 30),
    "blocks": lambda l: C.parallel.bmuf_distributed_learner(l, 45),
}


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("pair", [("block", "full"), ("full", "block"), ("block", "blocks"), ("full", "one_bit")])
def test_two_learners_in_one_trainer(pair, uneven):
    first, second = (LEARNERS[name] for name in pair)
    found = simulate(lambda: two_learners(first, second, uneven, 9), 3)
    assert found[0] == found[1] == found[2]
    assert found[0][1] > 60


def test_two_learners_are_one():
    """Two data-parallel learners do what one does."""
    one = simulate(lambda: two_learners(LEARNERS["full"], LEARNERS["full"], False, 5), 2)

    def whole():
        net = Net()
        trainer = net.trainer(LEARNERS["full"])
        for k in range(5):
            trainer.train_minibatch(net.feed(k))
        finish(net, trainer)
        return net.digest(), trainer.total_number_of_samples_seen

    assert one == simulate(whole, 2)


def test_what_is_refused():
    net = Net()
    learner = C.sgd(net.parameters, 0.1)
    for arguments, words in (
        ((0,), "block_size"),
        ((100, -1), "time constant"),
        ((100, None, True, True, 0.0), "block learning rate"),
        ((100, None, True, True, 1.0, -5), "distributed_after"),
    ):
        with pytest.raises(ValueError, match=words):
            C.parallel.block_momentum_distributed_learner(learner, *arguments)
    with pytest.raises(ValueError, match="within 0 and 1"):
        C.parallel.bmuf_distributed_learner(learner, 100, 1.0)
