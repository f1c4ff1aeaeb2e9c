"""Asynchronous SGD against a transcription of the paper; delays; recorded orders of real ranks repeated on virtual ones."""

import json

import numpy as np
import pytest
from parallel.nets import Net, finish
from parallel.ranks import run_ranks

import cogkit as C
from cogkit.engine.cpu.native import get_num_threads, set_num_threads
from cogkit.parallel import current_world, simulate
from cogkit.parallel.delays import Network, constant, heavy_tailed, straggler

RATE, N = 0.05, 5  # learning rate of a sample, samples of a minibatch


@pytest.fixture(autouse=True)
def one_thread():
    before = get_num_threads()
    set_num_threads(1)
    yield
    set_num_threads(before)


def local(ps):
    return C.sgd(ps, C.learning_parameter_schedule_per_sample(RATE))


def train(make, steps=6, uneven=False, end=True):
    """(model of each parameter, digest, order of answers of all ranks, samples)."""
    net = Net(np.float64)
    trainer = net.trainer(make, local)
    more, rank = True, current_world().rank
    for i in range(steps):
        more = trainer.train_minibatch(net.feed(i, N if not uneven or i < steps - rank else 0))
        if not more:
            break
    if more:
        finish(net, trainer)
    return [p.value for p in net.parameters], net.digest(), net.learner.recorded_order(), trainer.total_number_of_samples_seen


class Worker:
    """Gradients of one rank's minibatches at any model."""

    def __init__(self, rank, ranks):
        self.net, self.rank, self.ranks, self.i = Net(np.float64), rank, ranks, 0

    def gradient(self, w):
        for p, value in zip(self.net.parameters, w, strict=True):
            p.value = value
        feed = self.net.feed(self.i, N, self.ranks, self.rank)
        self.i += 1
        found = self.net.loss.grad(feed, wrt=self.net.parameters)
        return [found[p] for p in self.net.parameters]


def paper(order, ranks, lambda0=0.0, decay=None):
    """The parameter server of Zheng et al. 2017: on a gradient of worker m, update, then send the model to m."""
    workers = [Worker(r, ranks) for r in range(ranks)]
    w = [p.value for p in workers[0].net.parameters]
    backup = [[a.copy() for a in w] for _ in range(ranks)]
    square = [[np.zeros_like(a) for a in w] for _ in range(ranks)]
    for m in order:
        for k, g in enumerate(workers[m].gradient(backup[m])):
            g = g / N
            if decay is None:
                c = lambda0
            else:
                square[m][k] = decay * square[m][k] + (1 - decay) * g * g
                c = lambda0 / np.sqrt(square[m][k] + 1e-7)
            w[k] = w[k] - RATE * N * (g + c * g * g * (w[k] - backup[m][k]))
        backup[m] = [a.copy() for a in w]
    return w


CASES = {
    "asgd": (lambda l, **k: C.parallel.asgd_distributed_learner(l, **k), 0.0, None),
    "constant": (lambda l, **k: C.parallel.dc_asgd_distributed_learner(l, 0.5, **k), 0.5, None),
    "adaptive": (lambda l, **k: C.parallel.dc_asgd_distributed_learner(l, 2.0, True, 0.9, **k), 2.0, 0.9),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [2, 3, 8])
def test_transcription(case, n):
    make, lambda0, decay = CASES[case]
    found = simulate(lambda: train(make, end=True), n, heavy_tailed(1.0, seed=n))
    order = found[0][2][0]
    assert all(o == order for _, _, orders, _ in found for o in orders)
    pushes = order[: -2 * n] if len(order) == 6 * n + 2 * n else order[: 6 * n]  # then only models are asked for
    assert sorted(pushes) == sorted([*range(n)] * 6)
    if n > 2:
        assert pushes != [*range(n)] * 6
    for ours, theirs in zip(found[0][0], paper(pushes, n, lambda0, decay), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-10, abs=1e-12)


def test_degenerate_cases():
    plain = simulate(lambda: train(CASES["asgd"][0])[1], 4, heavy_tailed(1.0, seed=3))
    none = simulate(lambda: train(lambda l: C.parallel.dc_asgd_distributed_learner(l, 0.0))[1], 4, heavy_tailed(1.0, seed=3))
    assert plain == none and len(set(plain)) == 1


def test_delays_matter_and_repeat():
    def ends(delay, network=None):
        return simulate(lambda: train(CASES["constant"][0])[1], 4, delay, network)[0]

    assert ends(heavy_tailed(1.0, seed=1)) == ends(heavy_tailed(1.0, seed=1))
    found = {ends(d) for d in (constant(1.0), heavy_tailed(1.0, seed=1), heavy_tailed(1.0, seed=2), straggler(1.0, 2, 5.0))}
    assert len(found) == 4
    assert ends(constant(1.0), Network(0.1, 1e3)) == ends(constant(7.0), Network(0.7, 1e3 / 7))


@pytest.mark.parametrize("meet_every", [1, 2, 100])
def test_uneven_data(meet_every):
    make = lambda l: C.parallel.dc_asgd_distributed_learner(l, 0.5, meet_every=meet_every)  # noqa: E731
    found = simulate(lambda: train(make, uneven=True), 4, straggler(1.0, 1, 3.0))
    assert len({digest for _, digest, _, _ in found}) == 1
    assert {samples for *_, samples in found} == {N * (6 + 5 + 4 + 3)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [2, 3])
def test_a_real_run_is_repeated(case, n, tmp_path):
    """The order that real ranks had, taken by virtual ranks, gives the same bits."""
    done = run_ranks(
        n,
        f"""
        import json
        from parallel.test_asgd import CASES, train
        _, digest, orders, samples = train(CASES[{case!r}][0], 12)
        if world.is_main:
            print(json.dumps([digest, orders, samples]))
        """,
        tmp_path,
    )
    digest, orders, samples = json.loads(done.stdout)
    make = CASES[case][0]
    found = simulate(lambda: train(lambda l: make(l, order=orders), 12), n, heavy_tailed(1.0, seed=5))
    assert all((d, o, s) == (digest, orders, samples) for _, d, o, s in found)


def test_any_rule_of_single_values():
    for rule in (
        lambda ps: C.momentum_sgd(ps, 0.05, 0.9, l2_regularization_weight=1e-3),
        lambda ps: C.adam(ps, 0.01, 0.9),
        lambda ps: C.nesterov(ps, C.learning_parameter_schedule([0.1, 0.05], epoch_size=40), 0.8),
    ):

        def main(rule=rule):
            net = Net()
            trainer = net.trainer(lambda l: C.parallel.dc_asgd_distributed_learner(l, adaptive=True, meet_every=10), rule)
            for i in range(40):
                trainer.train_minibatch(net.feed(i, 8))
            finish(net, trainer)
            return net.digest(), net.learner.learning_rate(), trainer.previous_minibatch_loss_average

        found = simulate(main, 4)
        assert all(f == found[0] for f in found) and found[0][2] < 1.0


def test_what_is_refused():
    net = Net()
    ps = net.parameters
    make = C.parallel.dc_asgd_distributed_learner
    norm = C.sgd(ps, 0.1, gradient_clipping_threshold_per_sample=1.0, gradient_clipping_with_truncation=False)
    for learner, words in (
        (norm, "clip with truncation"),
        (C.adagrad(ps, 0.1), "mean of its multipliers"),
    ):
        with pytest.raises(ValueError, match=words):
            make(learner)
    with pytest.raises(TypeError, match="cannot be cut"):
        make(C.universal(lambda p, g: C.assign(p[0], p[0] - 0.1 * g[0]), ps[:1]))
    for arguments in ({"lambda0": -1}, {"adaptive": True, "decay": 1.0}, {"meet_every": 0}, {"order": [[0], [1]]}):
        with pytest.raises(ValueError, match="expected"):
            make(C.sgd(ps, 0.1), **arguments)


def test_one_at_a_time():
    def main():
        first, second = Net(), Net()
        a, b = first.trainer(CASES["asgd"][0]), second.trainer(CASES["asgd"][0])
        a.train_minibatch(first.feed(0))
        b.train_minibatch(second.feed(0))
        a.train_minibatch(first.feed(1))

    with pytest.raises(ValueError, match="one such learner at a time"):
        simulate(main, 2)
