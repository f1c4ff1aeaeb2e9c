"""The cost model against the clocks of virtual ranks, and its limits."""

import numpy as np
import pytest
from parallel.nets import Net

import cogkit as C
from cogkit.parallel import current_world, simulate
from cogkit.parallel.cost import NETWORKS, break_even, cost_of_step
from cogkit.parallel.delays import Network, constant
from cogkit.parallel.flat import Flat

SLOW = Network(1e-3, 2e6, "slow")


def clock(make, n, steps=12, samples=5):
    """Virtual seconds of a step, after the first two."""

    def main():
        net, world = Net(hidden=2000), current_world()
        trainer = net.trainer(make)
        times = []
        for i in range(steps):
            trainer.train_minibatch(net.feed(i, samples))
            times.append(world.now)
        return (times[-1] - times[1]) / (steps - 2), sum(b.size for b in Flat(net.parameters).buffers)

    return simulate(main, n, constant(0.01, 0.002), SLOW)[0]


@pytest.mark.parametrize("n", [2, 4, 16])
def test_virtual_clocks(n):
    compute = lambda samples: 0.01 + 0.002 * samples  # noqa: E731
    for make, algorithm, options in (
        (lambda l: C.parallel.data_parallel_distributed_learner(l), "data_parallel", {}),
        (lambda l: C.parallel.data_parallel_distributed_learner(l, num_quantization_bits=1), "data_parallel", {"bits": 1}),
        (lambda l: C.parallel.model_averaging_distributed_learner(l, 5 * 5 * n), "block", {"block": 5}),
        (lambda l: C.parallel.asgd_distributed_learner(l), "asgd", {}),
    ):
        found, values = clock(make, n)
        told = cost_of_step(algorithm, n, 5 * n, values, compute, SLOW, **options)
        assert found == pytest.approx(told.total, rel=0.15), (algorithm, options)


def test_limits():
    compute = lambda samples: 1e-4 * samples  # noqa: E731
    net = NETWORKS["10 Gb Ethernet"]
    one = cost_of_step("data_parallel", 1, 1024, 46e6, compute, net)
    assert one.communicate == 0 and one.speed_up(compute(1024)) == 1
    few, many = (cost_of_step("data_parallel", 8, s, 46e6, compute, net).speed_up(compute(s)) for s in (1024, 16384))
    assert few < many < 8  # larger minibatches scale further
    bits = cost_of_step("data_parallel", 8, 1024, 46e6, compute, net, bits=1).speed_up(compute(1024))
    assert few < bits < 8
    assert cost_of_step("data_parallel", 8, 1024, 46e6, compute, net, 1, True).communicate == 0
    edges = [break_even(s, 46e6, compute, net, b) for s, b in ((1024, 32), (16384, 32), (1024, 1))]
    assert edges[0] < edges[1] and edges[0] < edges[2]
    free = cost_of_step("data_parallel", 64, 4096, 46e6, compute, NETWORKS["free"])
    assert free.speed_up(compute(4096)) == pytest.approx(64)
    with pytest.raises(ValueError, match="as algorithm"):
        cost_of_step("gossip", 2, 1, 1, compute, net)
    assert np.isfinite(one.total)
